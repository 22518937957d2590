"""Tests of :mod:`filebucket.http`."""
