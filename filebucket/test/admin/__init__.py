"""Tests of :mod:`filebucket.admin.site`."""
