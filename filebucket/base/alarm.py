"""Waiting, but not for ever: one alarm, and one way to bound a wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Alarm:
    """Rings once, later. To set it again forgets what it was set for."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    def set(self, seconds: float, ring: Callable[[], object]) -> None:
        """Call ``ring`` in so many seconds."""
        self.stop()
        self._call = self._clock.callLater(seconds, self._ring, ring)

    def stop(self) -> None:
        """Do not ring, if it is set."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    @property
    def is_set(self) -> bool:
        """Whether it will ring."""
        return self._call is not None

    @property
    def left(self) -> float:
        """Seconds until it rings; infinity where it is not set."""
        if self._call is None:
            return float("inf")
        return self._call.getTime() - self._clock.seconds()

    def _ring(self, ring: Callable[[], object]) -> None:
        # First this: it may be set again while it rings.
        self._call = None
        ring()


async def within(clock: IReactorTime, seconds: float, wait: Deferred[Any]) -> bool:
    """Await ``wait`` for so many seconds at most, and cancel it then.

    :returns: whether it fired in time
    :raises Exception: what ``wait`` fails with
    """
    wait.addTimeout(seconds, clock)
    try:
        await wait
    except defer.TimeoutError:
        return False
    return True
