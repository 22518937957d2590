"""Tests of :mod:`filebucket.upkeep`."""
