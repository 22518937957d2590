"""Tests of :mod:`filebucket.daemon`."""
