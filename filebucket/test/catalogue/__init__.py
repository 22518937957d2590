"""Tests of :mod:`filebucket.catalogue`."""
