"""Tests of :mod:`filebucket.model`."""
