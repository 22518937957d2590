"""Look for problems of the buckets and of the server, once a minute."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.base.alarm import Alarm
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import Known, Overview, make_overview
from filebucket.model.bucket import Bucket
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import CRITICAL, Kind, Problem

LOOK_EVERY = 60.0
"""Seconds between two looks."""


class Read(Protocol):
    """Calls a function with the catalogue, in a thread.

    The Deferred fails with :class:`CatalogueError` if the catalogue cannot be read.
    """

    def __call__(
        self, function: Callable[[IView], Overview], /
    ) -> Deferred[Overview]: ...


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
    ) -> None:
        """
        :param buckets: returns the configured buckets
        :param wall: returns seconds since the epoch
        :param disk: examines the home's filesystem, in a thread; raises OSError
        :param writing: why the catalogue cannot be written; None if it can
        :param checks: each looks for one more problem
        :param see: called with all problems, after each look
        """
        self._read = read
        self._buckets = buckets
        self._wall = wall
        self._disk = disk
        self._writing = writing
        self._checks = checks
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
            self._timer.set(LOOK_EVERY, self._tick)

    async def _look(self) -> None:
        found = [await self._checked(check) for check in self._checks]
        others = [each for each in found if each is not None]
        error = self._writing()
        try:
            overview = await self._read(partial(self._overview, others))
        except CatalogueError as unreadable:
            error = error or str(unreadable)
        else:
            own = [each for one in overview.buckets for each in one.problems]
            self._found = [*overview.problems, *own]
        # Another program may have locked the catalogue for a moment.
        if error is not None and self._failed_before:
            text = f"the catalogue cannot be used: {error}"
            others.append(Problem(Kind.CATALOGUE, CRITICAL, text))
        self._failed_before = error is not None
        self.problems = others
        known = {(each.kind, each.bucket): each for each in (*self._found, *others)}
        self._see(list(known.values()))

    async def _checked(
        self, check: Callable[[], Awaitable[Problem | None]]
    ) -> Problem | None:
        try:
            return await check()
        except Exception:
            # It must not hide other problems.
            self._log.failure("a bug in file-bucket", event="bug")
            return None

    def _overview(self, problems: Sequence[Problem], catalogue: IView) -> Overview:
        disk = None
        with suppress(OSError):
            disk = self._disk()
        known = Known(self._buckets(), self._wall(), disk=disk, problems=problems)
        return make_overview(catalogue, known, sizes=0, refusals=0, most_series=0)
