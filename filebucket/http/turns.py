"""Take turns among connections that received more chunks than are decoded at once.

A few of them continue in each turn of the reactor, so other work waits only for those
few, whatever their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

AT_ONCE = 10
"""Connections that continue in one turn of the reactor."""


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
        self._called = False
        for _ in range(min(AT_ONCE, len(self._line))):
            self._line.popleft()()
        if self._line and not self._called:
            self._called = True
            self._clock.callLater(0, self._next)
