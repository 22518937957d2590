"""Tests of :mod:`filebucket.hooks.scripts`."""
