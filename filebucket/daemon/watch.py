"""Look for problems of the buckets and of the server, at least once a minute."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.admin.singleflight import SingleFlight, TooSlowError
from filebucket.base.alarm import Alarm
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import Known, distinct, find_problems
from filebucket.model.bucket import Bucket
from filebucket.model.filesystem import Filesystem
from filebucket.model.node import of_node
from filebucket.model.problem import CRITICAL, Kind, Problem

LOOK_EVERY = 60.0
"""Seconds between two looks."""

LOOK_AGAIN = 10.0
"""Seconds between two looks while the object store is down. Pushes succeed as soon as
it is back: status and the page must not contradict them for long."""

PATIENCE = 30.0
"""Seconds that each part of a look may take. A part that takes longer goes on, and the
others do not wait for it."""


class Read(Protocol):
    """Calls a function with the catalogue, in a thread.

    The Deferred fails with :class:`CatalogueError` if the catalogue cannot be read.
    """

    def __call__(
        self, function: Callable[[IView], list[Problem]], /
    ) -> Deferred[list[Problem]]: ...


class _Check:
    """A check that may wait for a disk that hangs."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, find: Callable[[], Awaitable[Problem | None]]
    ) -> None:
        self._flight = SingleFlight(clock, find, PATIENCE)
        self._last: Problem | None = None

    async def ask(self) -> Problem | None:
        """The problem; if that takes too long, the one found last."""
        try:
            self._last = await self._flight.ask()
        except TooSlowError:
            pass
        except Exception:
            # It must not hide other problems.
            self._log.failure("a bug in file-bucket", event="bug")
            self._last = None
        return self._last


class Watch(Service):
    """Looks for problems while it is started.

    :ivar problems: those that the catalogue and the disk do not reveal, as of the last
        look
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        read: Read,
        buckets: Callable[[], Sequence[Bucket]],
        wall: Callable[[], float],
        disk: Callable[[], Filesystem],
        writing: Callable[[], str | None],
        checks: Sequence[Callable[[], Awaitable[Problem | None]]],
        see: Callable[[Sequence[Problem]], object],
        node: str = "",
    ) -> None:
        """
        :param buckets: returns the configured buckets
        :param wall: returns seconds since the epoch
        :param disk: examines the home's filesystem, in a thread; raises OSError
        :param writing: why the catalogue cannot be written; None if it can
        :param checks: each looks for one more problem
        :param see: called with all problems, after each look
        :param node: name of this daemon; empty if no other shares the catalogue
        """
        self._node = node
        self._read = read
        self._buckets = buckets
        self._wall = wall
        self._disk = disk
        self._writing = writing
        self._checks = [_Check(clock, each) for each in checks]
        self._finding = SingleFlight(clock, self._find, PATIENCE)
        self._see = see
        self._timer = Alarm(clock)
        self._failed_before = False
        self._found: Sequence[Problem] = ()
        self.problems: Sequence[Problem] = ()

    def startService(self) -> None:
        super().startService()
        self._tick()

    def stopService(self) -> None:
        super().stopService()
        self._timer.stop()

    def _tick(self) -> None:
        looking = Deferred.fromCoroutine(self._look())
        looking.addErrback(
            lambda failure: self._log.failure(
                "a bug in file-bucket", failure, event="bug"
            )
        )
        looking.addCallback(self._looked)

    def _looked(self, result: None) -> None:
        # Not at fixed times: a disk that hangs must not queue looks.
        if self.running:
            down = any(each.kind is Kind.STORE for each in self.problems)
            every = min(LOOK_EVERY, LOOK_AGAIN) if down else LOOK_EVERY
            self._timer.set(every, self._tick)

    async def _look(self) -> None:
        others = [problem for each in self._checks if (problem := await each.ask())]
        error = self._writing()
        try:
            found = await self._finding.ask()
        except TooSlowError:
            found = "its disk does not answer"
        if isinstance(found, str):
            error = error or found
        else:
            self._found = found
        # Another program may have locked the catalogue for a moment.
        if error is not None and self._failed_before:
            text = f"the catalogue cannot be used: {error}"
            others.append(Problem(Kind.CATALOGUE, CRITICAL, text))
        self._failed_before = error is not None
        self.problems = [of_node(each, self._node) for each in others]
        self._see(distinct(*self._found, *self.problems))

    async def _find(self) -> Sequence[Problem] | str:
        """The problems that the catalogue and the disk reveal, or why that fails."""
        known = Known(self._buckets(), self._wall(), node=self._node)
        try:
            return await self._read(partial(self._problems, known))
        except CatalogueError as error:
            return str(error)

    def _problems(self, known: Known, catalogue: IView) -> list[Problem]:
        with suppress(OSError):
            known = evolve(known, disk=self._disk())
        return find_problems(catalogue, known)
