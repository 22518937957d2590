"""How often a client may promise a wrong digest of a file that is there."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.push.guesses import MOST_WRONG, WINDOW, Guesses


class GuessesTests(SynchronousTestCase):
    """The wrong guesses of buckets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.guesses = Guesses(self.clock)

    def wrong(self, count: int) -> None:
        for _ in range(count):
            self.guesses.wrong("web01", "web01")

    def test_bounded(self) -> None:
        """After so many none is looked at, which is logged once; no neighbor pays."""
        with capturedLogs() as events:
            self.wrong(MOST_WRONG - 1)
            self.assertTrue(self.guesses.allowed("web01"))
            self.wrong(1)
        self.assertFalse(self.guesses.allowed("web01"))
        self.assertTrue(self.guesses.allowed("web02"))
        (line,) = map(formatEvent, events)
        self.assertRegex(line or "", "^bucket=web01: 20 wrong digests")

    def test_forgotten(self) -> None:
        """Within the window they count, and then no more."""
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
