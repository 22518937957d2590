"""Tests of :mod:`filebucket.push.guesses`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.push.guesses import MOST_WRONG, WINDOW, Guesses


class GuessesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.guesses = Guesses(self.clock)

    def wrong(self, count: int) -> None:
        for _ in range(count):
            self.guesses.wrong("web01", "web01")

    def test_bounded(self) -> None:
        """After too many wrong digests the bucket's digests are ignored, which is
        logged once. Other buckets are not affected.
        """
        with capturedLogs() as events:
            self.wrong(MOST_WRONG - 1)
            self.assertTrue(self.guesses.allowed("web01"))
            self.wrong(1)
        self.assertFalse(self.guesses.allowed("web01"))
        self.assertTrue(self.guesses.allowed("web02"))
        (line,) = map(formatEvent, events)
        self.assertRegex(line or "", "^bucket=web01: 20 wrong digests")

    def test_forgotten(self) -> None:
        """Wrong digests count within the window only."""
        self.wrong(MOST_WRONG - 1)
        self.clock.advance(WINDOW / 2)
        self.wrong(1)
        self.clock.advance(WINDOW / 2 - 1)
        self.assertFalse(self.guesses.allowed("web01"))
        self.clock.advance(1)
        self.assertTrue(self.guesses.allowed("web01"))
        self.clock.advance(WINDOW)
        self.assertTrue(self.guesses.allowed("web01"))
        self.assertEqual({}, self.guesses._wrong)
