"""Tests of :mod:`filebucket.web`."""
