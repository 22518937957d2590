"""Whose turn it is, among connections that brought more than is taken apart at once.

They go on one after the other, a few in a turn of the reactor, so that everybody else
waits for a few only, however many they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

AT_ONCE = 10
"""How many go on in a turn of the reactor."""


class Turns:
    """A line of those that have more to do."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._line: deque[Callable[[], object]] = deque()
        self._called = False

    def join(self, go_on: Callable[[], object]) -> None:
        """Wait at the line's end.

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
