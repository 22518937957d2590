"""Shared results of a slow call."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.admin.singleflight import SingleFlight, TooSlowError


class SingleFlightTests(SynchronousTestCase):
    """A result is reused for as many seconds as it is long."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.looks: list[Deferred[str]] = []
        self.flight = SingleFlight(self.clock, self.find, 10.0, kept=len)

    def find(self) -> Deferred[str]:
        self.looks.append(Deferred())
        return self.looks[-1]

    def test_once(self) -> None:
        """Callers during a call share its result; the next caller starts a new call."""
        asked = [self.flight.ask() for _ in range(3)]
        self.assertEqual(1, len(self.looks))
        self.looks[0].callback("")
        self.assertEqual([""] * 3, [self.successResultOf(each) for each in asked])
        self.assertEqual([], self.clock.getDelayedCalls())
        last = self.flight.ask()
        self.looks[1].callback("new")
        self.assertEqual("new", self.successResultOf(last))

    def test_kept(self) -> None:
        self.flight.ask()
        self.clock.advance(5)
        self.looks[0].callback("ab")
        self.clock.advance(1.9)
        self.assertEqual("ab", self.successResultOf(self.flight.ask()))
        self.clock.advance(0.1)
        self.assertNoResult(self.flight.ask())
        self.assertEqual(2, len(self.looks))

    def test_clock_is_set_back(self) -> None:
        """A result from the future is not reused."""
        self.flight.ask()
        self.looks[0].callback("ab")
        self.clock.rightNow -= 500
        self.assertNoResult(self.flight.ask())
        self.assertEqual(2, len(self.looks))

    def test_deadline(self) -> None:
        """The timeout starts with the call, and no second call starts meanwhile."""
        first = self.flight.ask()
        self.clock.advance(9)
        second = self.flight.ask()
        self.assertNoResult(first)
        self.clock.advance(1)
        for each in (first, second, self.flight.ask()):
            self.failureResultOf(each, TooSlowError)
        self.clock.advance(1000)
        self.failureResultOf(self.flight.ask(), TooSlowError)
        self.assertEqual(1, len(self.looks))
        self.looks[0].callback("ab")
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual("ab", self.successResultOf(self.flight.ask()))
        self.clock.advance(2)
        third = self.flight.ask()
        self.looks[1].callback("c")
        self.assertEqual("c", self.successResultOf(third))

    def test_failure(self) -> None:
        """All callers get the error, and it is not reused."""
        asked = [self.flight.ask() for _ in range(2)]
        self.looks[0].errback(ValueError("no"))
        for each in asked:
            self.failureResultOf(each, ValueError)
        again = self.flight.ask()
        self.looks[1].callback("yes")
        self.assertEqual("yes", self.successResultOf(again))

    def test_failure_that_nobody_hears_of(self) -> None:
        asked = self.flight.ask()
        self.clock.advance(10)
        self.failureResultOf(asked, TooSlowError)
        self.looks[0].errback(ValueError("no"))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))

    def test_going_away(self) -> None:
        """Other callers still wait, and the call ends even without callers."""
        gone, stays = self.flight.ask(), self.flight.ask()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.looks[0].callback("ab")
        self.assertEqual("ab", self.successResultOf(stays))
        self.clock.advance(2)
        self.flight.ask().addErrback(lambda gone: None).cancel()
        self.looks[1].callback("cd")
        self.assertEqual("cd", self.successResultOf(self.flight.ask()))
        self.assertEqual(2, len(self.looks))

    def test_going_away_together(self) -> None:
        """A callback may cancel another caller."""
        first, second = self.flight.ask(), self.flight.ask()
        first.addCallback(lambda found: second.cancel())
        self.looks[0].callback("ab")
        self.failureResultOf(second, CancelledError)

    def test_at_once(self) -> None:
        """A call that does not wait gives its result at once."""

        async def find() -> str:
            return "x"

        flight = SingleFlight(self.clock, find, 10.0)
        self.assertEqual("x", self.successResultOf(flight.ask()))
        self.assertEqual([], self.clock.getDelayedCalls())
