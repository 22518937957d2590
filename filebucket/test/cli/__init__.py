"""Tests of :mod:`filebucket.cli.main`."""
