"""Tests of the whole: the real daemon, browsers and other programs."""
