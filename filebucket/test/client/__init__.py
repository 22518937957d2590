"""Tests of :mod:`filebucket.client`."""
