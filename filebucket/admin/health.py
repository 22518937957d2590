"""Whether pushes can be taken now: one answer for whoever asks every few seconds, and
the reasons where they cannot.

It writes nothing and changes nothing. A disk that hangs holds up one thread, however
often is asked; :class:`filebucket.admin.site.SharedAnswer` sees to that, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from filebucket.admin.site import AdminAnswer
from filebucket.base.fs import free_bytes, total_bytes
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.model.bucket import FreeSpace

STUCK = 60.0
"""Seconds after which a call that waits for a disk is told of."""


@frozen
class Filesystem:
    """The home's filesystem.

    :param total: bytes of the whole
    :param free: bytes that pushes may take, but for those that are reserved
    :param reserved: bytes that must stay free
    :param read_only: whether nothing can be written, as after an error of the disk's
    :param set_aside: bytes that pushes under way have announced and not written yet
    :param full_of_files: whether it can have no more of them, whatever room there is
    """

    total: int
    free: int
    reserved: int
    read_only: bool
    set_aside: int = 0
    full_of_files: bool = False


def look_at_filesystem(
    home: str, min_free_space: FreeSpace, set_aside: Callable[[int], int]
) -> Filesystem:
    """Look at the filesystem of ``home``. It may wait for a disk.

    :param set_aside: bytes that are announced on the filesystem of that ``f_fsid``
    :raises OSError: it cannot be looked at
    """
    found = os.statvfs(home)
    total = total_bytes(found)
    return Filesystem(
        total,
        free_bytes(found),
        min_free_space.of(total),
        bool(found.f_flag & os.ST_RDONLY),
        set_aside(found.f_fsid),
        # Some, such as Btrfs, count none.
        bool(found.f_files) and not found.f_favail,
    )


@frozen
class Hanging:
    """Threads that wait for a disk for longer than one should take.

    :param stuck: how many have for :data:`STUCK` seconds
    :param most: how many there may be
    """

    stuck: int
    most: int


class Health:
    """Says whether pushes can be taken."""

    def __init__(
        self,
        ready: Callable[[], bool],
        run: Callable[..., Deferred[Any]],
        disk: Callable[[], Filesystem],
        read: Callable[[Callable[[IView], object]], Deferred[Any]],
        writing: Callable[[], str | None],
        hanging: Callable[[], Hanging],
    ) -> None:
        """
        :param ready: whether the daemon takes pushes
        :param run: calls in a thread
        :param disk: :func:`look_at_filesystem`; raises OSError
        :param read: calls with the catalogue, in a thread; fails with
            :class:`CatalogueError`
        :param writing: why the catalogue cannot be written; None where it can
        """
        self._ready = ready
        self._run = run
        self._disk = disk
        self._read = read
        self._writing = writing
        self._hanging = hanging

    async def __call__(self) -> AdminAnswer:
        """``ok``, or the reasons, one a line; behind either what is not as it should be
        but keeps no push from being taken.
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
            if disk.read_only:
                reasons.append("the home: Read-only file system")
            if disk.free <= disk.reserved:
                reasons.append("the home: free space is below min_free_space")
            elif disk.free - disk.reserved < disk.set_aside:
                notes.append(
                    "the home: the space reserved by pushes exceeds the free space"
                )
            if disk.full_of_files:
                reasons.append("the home: no free inodes")
        error_of_writing = self._writing()
        if error_of_writing is not None:
            reasons.append(f"the catalogue cannot be written: {error_of_writing}")
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
