"""Tests of :mod:`filebucket.daemon.service`."""
