"""``/healthz``: whether the daemon can receive pushes, and the reasons if not.

It is read-only. A hanging disk blocks only one thread, no matter how often clients ask,
because :class:`filebucket.admin.site.SharedAnswer` shares the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from filebucket.admin.site import AdminAnswer
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import Kind, Problem

STUCK = 60.0
"""Seconds after which a thread that waits for a disk is reported."""


@frozen
class Hanging:
    """Threads that wait for a disk for too long.

    :param stuck: number of threads that have waited for :data:`STUCK` seconds
    :param most: maximum number of threads
    """

    stuck: int
    most: int


class Health:
    """Checks whether the daemon can receive pushes."""

    def __init__(
        self,
        ready: Callable[[], bool],
        run: Callable[..., Deferred[Any]],
        disk: Callable[[], Filesystem],
        read: Callable[[Callable[[IView], object]], Deferred[Any]],
        writing: Callable[[], str | None],
        hanging: Callable[[], Hanging],
        problems: Callable[[], Sequence[Problem]],
        elsewhere: bool = False,
    ) -> None:
        """
        :param ready: whether the daemon accepts pushes
        :param run: calls a function in a thread
        :param disk: :func:`~filebucket.store.room.look_at_filesystem`; raises OSError
        :param read: calls a function with the catalogue, in a thread; fails with
            :class:`CatalogueError`
        :param writing: why the catalogue cannot be written; None if it can
        :param problems: those that the catalogue and the disk do not reveal
        :param elsewhere: whether the catalogue is a database of several daemons. If it
            is down, all of them still receive pushes, and a load balancer must not give
            up all of them. It is not read here, since it may hang. If the object store
            is down, it is so for all of them, and they receive resumable uploads.
        """
        self._ready = ready
        self._run = run
        self._disk = disk
        self._read = read
        self._writing = writing
        self._hanging = hanging
        self._problems = problems
        self._elsewhere = elsewhere

    async def __call__(self) -> AdminAnswer:
        """``ok`` or the reasons, one per line, followed by warnings: problems that do
        not keep the daemon from receiving pushes.
        """
        reasons: list[str] = []
        notes: list[str] = []
        if not self._ready():
            reasons.append("the daemon is starting or stopping")
        try:
            disk = await self._run(self._disk)
        except OSError as error:
            reasons.append(f"the home: {error.strerror}")
        else:
            if disk.fault is not None:
                reasons.append(f"the home: {disk.fault}")
            elif disk.free - disk.reserved < disk.set_aside:
                notes.append(
                    "the home: the space reserved by pushes exceeds the free space"
                )
        shared = notes if self._elsewhere else reasons
        shared += [each.text for each in self._problems() if each.kind is Kind.STORE]
        error_of_writing = self._writing()
        if error_of_writing is not None:
            shared.append(f"the catalogue cannot be written: {error_of_writing}")
        if not self._elsewhere:
            try:
                await self._read(lambda catalogue: catalogue.refusals(1))
            except CatalogueError as error:
                reasons.append(f"the catalogue cannot be read: {error}")
        hanging = self._hanging()
        if hanging.stuck:
            told = notes if hanging.stuck < hanging.most else reasons
            told.append(
                f"{hanging.stuck} of {hanging.most} threads have been waiting for a"
                f" disk for {STUCK:.0f} seconds"
            )
        lines = [*(reasons or ["ok"]), *notes]
        content = "".join(f"{each}\n" for each in lines).encode()
        return AdminAnswer(503 if reasons else 200, content)
