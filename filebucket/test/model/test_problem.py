"""Tests of :mod:`filebucket.model.problem`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem


class LevelTests(SynchronousTestCase):
    def test_severity(self) -> None:
        """Without a level, a problem is reported when its severity rises."""
        for severity in (WARNING, CRITICAL):
            self.assertEqual(severity, Problem(Kind.FULL, severity, "").level)

    def test_count(self) -> None:
        self.assertEqual(7, Problem(Kind.MISSING, CRITICAL, "", level=7).level)
