"""Take turns among connections that received more chunks than are decoded at once, or
more requests than are answered.

A few of them continue in each turn of the reactor, and together they take a quarter of
its time at most, so other work waits only for those few, whatever their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

AT_ONCE = 10
"""Connections that continue in one turn of the reactor."""

REST = 3.0
"""Length of the pause after each turn, as a multiple of the turn's length. Without a
pause each thread waits 5 ms for Python's lock, several times per push."""


class Turns:
    """A queue of connections that have more to do."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._line: deque[Callable[[], object]] = deque()
        self._called = False

    def join(self, go_on: Callable[[], object]) -> None:
        """Join the end of the queue.

        :param go_on: called once; may join again
        """
        self._line.append(go_on)
        if not self._called:
            self._called = True
            self._clock.callLater(0, self._next)

    def _next(self) -> None:
        began = self._clock.seconds()
        for _ in range(min(AT_ONCE, len(self._line))):
            self._line.popleft()()
        self._called = bool(self._line)
        if self._called:
            took = self._clock.seconds() - began
            self._clock.callLater(REST * took, self._next)
