"""Tests of :mod:`filebucket.store.disk`."""
