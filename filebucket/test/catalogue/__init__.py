"""Tests of :mod:`filebucket.catalogue.journal`."""
