"""Tests of :mod:`filebucket.admin`."""
