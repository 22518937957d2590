"""Tests of :mod:`filebucket.config.config`."""
