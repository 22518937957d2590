"""The queue of connections that have more to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.http.turns import AT_ONCE, REST, Turns


class Reactor:
    """Runs calls in the next turn, which the test takes."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.rests: list[float] = []
        self.now = 0.0

    def seconds(self) -> float:
        return self.now

    def callLater(self, seconds: float, call: Callable[[], object]) -> None:
        self.calls.append(call)
        self.rests.append(seconds)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class TurnsTests(SynchronousTestCase):
    """:class:`Turns`."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        clock: Any = self.reactor
        self.turns = Turns(clock)
        self.seen: list[int] = []

    def test_in_order(self) -> None:
        """None goes on at once; a few do in each turn, in order."""
        numbers = list(range(2 * AT_ONCE + 1))
        for number in numbers:
            self.turns.join(partial(self.seen.append, number))
        self.assertEqual([], self.seen)
        for count in (AT_ONCE, 2 * AT_ONCE, len(numbers)):
            self.reactor.turn()
            self.assertEqual(numbers[:count], self.seen)
        self.assertEqual([], self.reactor.calls)

    def test_again(self) -> None:
        def again() -> None:
            self.seen.append(0)
            self.turns.join(again)

        self.turns.join(again)
        self.turns.join(partial(self.seen.append, 1))
        self.reactor.turn()
        self.assertEqual([0, 1], self.seen)
        self.reactor.turn()
        self.assertEqual([0, 1, 0], self.seen)
        self.assertEqual(1, len(self.reactor.calls))

    def test_rests(self) -> None:
        """Between two turns the reactor is left to others, longer than a turn took."""

        def works() -> None:
            self.reactor.now += 0.25
            self.turns.join(works)

        self.turns.join(works)
        self.turns.join(works)
        for _ in range(2):
            self.reactor.turn()
        self.assertEqual([0, REST * 0.5, REST * 0.5], self.reactor.rests)
