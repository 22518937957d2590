"""Tests of :mod:`filebucket.hooks`."""
