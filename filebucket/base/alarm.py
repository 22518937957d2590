"""A timer that can be set again, a wait with a timeout, and work that goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")


class Alarm:
    """Calls a function once, later. Setting it again replaces the earlier setting.

    A timer that is set for later than before keeps the reactor's call, which finds out
    that it came too early: a connection sets and stops timers for each request.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._ring: Callable[[], object] | None = None
        self._due = 0.0
        self._call: IDelayedCall | None = None
        self._call_due = 0.0

    def set(self, seconds: float, ring: Callable[[], object]) -> None:
        """Call ``ring`` in ``seconds`` seconds."""
        self._ring, self._due = ring, self._clock.seconds() + seconds
        if self._call is not None and self._call_due > self._due:
            self._call.cancel()
            self._call = None
        if self._call is None:
            self._call_in(seconds)

    def rest(self) -> None:
        """Call nothing until it is set again. The reactor's call may stay."""
        self._ring = None

    def stop(self) -> None:
        """As :meth:`rest`, and leave nothing in the reactor."""
        self._ring = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    @property
    def is_set(self) -> bool:
        """Whether a call is set."""
        return self._ring is not None

    @property
    def left(self) -> float:
        """Seconds until the call; infinity if none is set."""
        if self._ring is None:
            return float("inf")
        return self._due - self._clock.seconds()

    def _call_in(self, seconds: float) -> None:
        self._call = self._clock.callLater(seconds, self._called)
        self._call_due = self._due

    def _called(self) -> None:
        self._call = None
        left = self.left
        if left > 0 and self._ring is not None:
            self._call_in(left)
            return
        # Before the call: it may set the alarm again.
        ring, self._ring = self._ring, None
        if ring is not None:
            ring()


async def within(clock: IReactorTime, seconds: float, wait: Deferred[Any]) -> bool:
    """Await ``wait`` for at most ``seconds`` seconds, then cancel it.

    :returns: whether it fired in time
    :raises Exception: the failure of ``wait``
    """
    wait.addTimeout(seconds, clock)
    try:
        await wait
    except defer.TimeoutError:
        return False
    return True


def started(work: Awaitable[T]) -> Deferred[T]:
    """Start work, which goes on whether it is awaited or not.

    :returns: fires with its result; cancels it if it is cancelled
    """

    async def awaited() -> T:
        return await work

    return Deferred.fromCoroutine(awaited())
