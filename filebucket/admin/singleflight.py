"""What takes a while to find is found once, for all who ask at about the same time.

However long it takes, it is never looked for twice at once: a disk that hangs holds up
one thread, whoever asks and however often. Those who ask have a deadline, and whoever
goes away is forgotten.
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
    """It was not found in time."""


class SingleFlight(Generic[T]):
    """Finds something, for whoever asks."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        find: Callable[[], Awaitable[T]],
        deadline: float,
        kept: Callable[[T], float] = lambda found: 0.0,
    ) -> None:
        """
        :param find: finds it
        :param deadline: seconds that it may take
        :param kept: for how many seconds whoever asks next is given what was found
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
        """Ask for it. To cancel what is returned is to go away: it is still looked for.

        :returns: fails with :class:`TooSlowError` if it takes longer than the deadline,
            at once if it does so already; or with what finding it failed with, which
            is not kept
        """
        if self._found is not None:
            found, at = self._found
            # Clocks are set.
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
        # One may make another go away.
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
