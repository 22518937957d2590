"""Tests of :mod:`filebucket.push`."""
