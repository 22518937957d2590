"""Tests of :mod:`filebucket.store`."""
