"""Tests of :mod:`filebucket.store.s3`."""
