"""Tests of :mod:`filebucket.cli.verify`."""
