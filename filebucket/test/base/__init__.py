"""Tests of :mod:`filebucket.base`."""
