"""Share the result of a slow call between all callers that ask at about the same time.

The call never runs twice at once, so a hanging disk blocks only one thread, no matter
how often clients ask. Each caller has a timeout, and can cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.alarm import Alarm

T = TypeVar("T")


class TooSlowError(Exception):
    """The call did not end in time."""


class SingleFlight(Generic[T]):
    """Shares the result of a slow call."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        find: Callable[[], Awaitable[T]],
        deadline: float,
        kept: Callable[[T], float] = lambda found: 0.0,
    ) -> None:
        """
        :param find: the slow call
        :param deadline: timeout of a caller, in seconds
        :param kept: seconds for which a result is reused
        """
        self._clock = clock
        self._find = find
        self._deadline = deadline
        self._kept = kept
        self._late = Alarm(clock)
        self._finding = False
        self._waiting: list[Deferred[T]] = []
        self._found: tuple[T, float] | None = None

    def ask(self) -> Deferred[T]:
        """Get the result. Cancelling the Deferred does not cancel the call.

        :returns: Deferred that fails with :class:`TooSlowError` after the timeout, or
            at once if the call is already past it; or with the call's own error, which
            is not reused
        """
        if self._found is not None:
            found, at = self._found
            # The clock may have been set back.
            if 0 <= self._clock.seconds() - at < self._kept(found):
                return succeed(found)
            self._found = None
        if self._finding and not self._late.is_set:
            return fail(TooSlowError())
        waiting: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if not self._finding:
            self._finding = True
            self._late.set(self._deadline, self._give_up)
            Deferred.fromCoroutine(self._look()).addBoth(self._end)
        return waiting

    async def _look(self) -> T:
        return await self._find()

    def _give_up(self) -> None:
        self._tell(Failure(TooSlowError()))

    def _tell(self, result: T | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        # A callback may cancel another Deferred of the list.
        while waiting:
            waiting.pop(0).callback(result)

    def _end(self, result: T | Failure) -> None:
        self._finding = False
        self._late.stop()
        if not isinstance(result, Failure):
            self._found = result, self._clock.seconds()
        elif not self._waiting:
            self._log.failure("a bug in file-bucket", result, event="bug")
        self._tell(result)
