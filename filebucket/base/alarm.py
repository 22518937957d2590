"""A timer that can be set again, a wait with a timeout, and work that goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")


class Alarm:
    """Calls a function once, later. Setting it again replaces the earlier setting."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    def set(self, seconds: float, ring: Callable[[], object]) -> None:
        """Call ``ring`` in ``seconds`` seconds."""
        self.stop()
        self._call = self._clock.callLater(seconds, self._ring, ring)

    def stop(self) -> None:
        """Cancel the call, if one is set."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    @property
    def is_set(self) -> bool:
        """Whether a call is set."""
        return self._call is not None

    @property
    def left(self) -> float:
        """Seconds until the call; infinity if none is set."""
        if self._call is None:
            return float("inf")
        return self._call.getTime() - self._clock.seconds()

    def _ring(self, ring: Callable[[], object]) -> None:
        # Before the call: ``ring`` may set the alarm again.
        self._call = None
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
