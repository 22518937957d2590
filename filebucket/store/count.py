"""Counts what the files of a bucket take of its quota: once for all pushes that wait
for it, and a thousand files at a time, so that a folder with millions of files delays
other pushes only briefly.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from itertools import islice

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from filebucket.base.errors import Refusal
from filebucket.model.bucket import FILE_COST
from filebucket.store.room import Room

AT_ONCE = 1000
"""Files per step, which takes a thread about 3 ms."""


class Counts:
    """Has a bucket counted when a push needs to know what its files take."""

    def __init__(self, room: Room, count: Callable[[str], Awaitable[int]]) -> None:
        """
        :param room: gets the results
        :param count: counts the files of a bucket in bytes of its quota, by its folder;
            may raise a refusal
        """
        self._room = room
        self._count = count
        # Pushes that wait until a bucket is counted.
        self._waiting: dict[str, list[Deferred[None]]] = {}

    async def know(self, directory: str, size: int, quota: int) -> None:
        """Make sure that a bucket's files are counted before a push to it.

        :param size: bytes of the push, as far as known
        :raises Refusal: they cannot be counted
        """
        if self._room.must_count(directory, size, quota):
            await self._counted(directory)
        elif self._room.is_old(directory):
            # In the background; errors are logged.
            counted = Deferred.fromCoroutine(self._counted(directory))
            counted.addErrback(lambda failure: failure.trap(Refusal))

    async def _counted(self, directory: str) -> None:
        """Count the bucket's files, or wait for a count in progress."""
        waiting = self._waiting.setdefault(directory, [])
        wait: Deferred[None] = Deferred()
        waiting.append(wait)
        if len(waiting) == 1:
            counted = Deferred.fromCoroutine(self._count_all(directory))
            counted.addBoth(self._tell_counted, directory)
        await wait

    def _tell_counted(self, result: Failure | None, directory: str) -> None:
        for wait in self._waiting.pop(directory):
            wait.callback(result)

    async def _count_all(self, directory: str) -> None:
        self._room.count_begins(directory)
        self._room.counted(directory, await self._count(directory))


def count(bucket_fd: int) -> Generator[int, None, None]:
    """Count all files, including those that were not pushed. Call it in a thread.

    :param bucket_fd: descriptor of the folder; the caller must close it afterwards
    :returns: an iterator of bytes, for some files at each step
    :raises OSError: the folder cannot be read
    """
    with os.scandir(bucket_fd) as entries:
        while some := list(islice(entries, AT_ONCE)):
            yield sum(map(_taken, some))


def _taken(entry: os.DirEntry[str]) -> int:
    # It may be removed in the meantime.
    with suppress(FileNotFoundError):
        return taken_by(entry.stat(follow_symlinks=False))
    return 0


def taken_by(found: os.stat_result) -> int:
    """Bytes of the quota that an entry takes; 0 if it is not a file."""
    return found.st_size + FILE_COST if stat.S_ISREG(found.st_mode) else 0
