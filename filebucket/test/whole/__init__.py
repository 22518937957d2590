"""Tests of the whole: the real daemon, browsers, other programs."""
