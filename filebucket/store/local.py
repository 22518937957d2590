"""A file while it is received into a file of the home, whatever publishes it later.

Chunks gather in batches, which are hashed and written in a thread. The free space and
the quota are checked and reserved on the way.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from twisted.logger import Logger

from filebucket.base.context import current_request
from filebucket.base.hashes import Hashes
from filebucket.store.aside import AsideFile, PartFile
from filebucket.store.count import Counts
from filebucket.store.home import Home
from filebucket.store.interfaces import BATCH
from filebucket.store.room import Reservation, Room

T = TypeVar("T")

_MOST_AT_ONCE = min(os.sysconf("SC_IOV_MAX"), 1024)
_FEW = 32
_SMALL = 1024
"""More than ``_FEW`` chunks of less than ``_SMALL`` bytes on average are joined: Python
takes 20 times the size of a chunk of two bytes."""

_PIECE = 256 * 1024
"""Bytes that are hashed, and then written while the processor's cache has them. With 1
MiB at once, a large push takes a sixth more processor time."""

WRITE_BACK = 8 * 1024 * 1024
"""Bytes after which the kernel is told to write what has come to the disk: while more
arrives, so that an fsync finds little to do."""


def write_all(fd: int, chunks: Sequence[bytes | memoryview]) -> int:
    """Write all of the chunks; returns their bytes. Call it in a thread.

    :raises OSError: perhaps only some of them were written
    """
    waiting, size = [memoryview(chunk) for chunk in chunks], 0
    while waiting:
        written = os.writev(fd, waiting[:_MOST_AT_ONCE])
        size += written
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.pop(0))
        if written:
            waiting[0] = waiting[0][written:]
    return size


def _pieces(chunks: Sequence[bytes]) -> Iterator[Sequence[bytes | memoryview]]:
    """The chunks, as many at once as fit into a piece; a longer one is cut."""
    piece: list[bytes | memoryview] = []
    size = 0
    for chunk in chunks:
        if piece and size + len(chunk) > _PIECE:
            yield piece
            piece, size = [], 0
        if len(chunk) > _PIECE:
            view = memoryview(chunk)
            for at in range(0, len(chunk), _PIECE):
                yield [view[at : at + _PIECE]]
        else:
            piece.append(chunk)
            size += len(chunk)
    if piece:
        yield piece


class LocalStore(Protocol):
    """What a file that is received needs of its store.

    :ivar room: free space and quotas
    :ivar counts: has buckets counted for their quotas
    """

    @property
    def home(self) -> Home: ...

    @property
    def room(self) -> Room: ...

    @property
    def counts(self) -> Counts: ...


class LocalWriter:
    """A file that is being received into a file of the home.

    A subclass chooses the file, checks the name, and publishes.
    """

    _log = Logger()
    _upload = ""
    """Id of the resumable upload that it continues."""

    def __init__(
        self,
        store: LocalStore,
        directory: str,
        algorithms: Collection[str],
        quota: int | None,
    ) -> None:
        self._local = store
        self._request = current_request()  # not available in a thread
        self._directory = directory
        self._hashes = Hashes({"sha256", *algorithms})
        self._quota = quota
        self._folder_fd = -1
        self._aside: AsideFile | PartFile | None = None
        self._reserved: Reservation | None = None
        self._published = False
        self._replaced = 0
        self._entered = False
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._size = self._handed_over = 0

    def _open_folder(self) -> int:
        """Open a folder on the filesystem that the file is on."""
        raise NotImplementedError

    def _check_name(self, overwrite: bool, look: bool) -> None:
        """Check that the file can get its name, as far as that is known now.

        :param look: whether the caller asks before the first byte
        :raises Refusal: it cannot
        """

    def _open_aside(self) -> AsideFile | PartFile:
        """Open the file to write to."""
        raise NotImplementedError

    async def begin(self, size: int, overwrite: bool) -> None:
        if not self._entered:
            await self._enter(size)
        await self._local.home.run(self._directory, self._begin, size, overwrite, True)

    async def _enter(self, size: int) -> None:
        """Before the first call in a thread."""
        self._entered = True
        self._local.home.check_moves(self._directory)
        if self._quota is not None:
            await self._local.counts.know(self._directory, size, self._quota)

    def _begin(self, size: int, overwrite: bool, look: bool = False) -> None:
        self._folder_fd = self._open_folder()
        self._check_name(overwrite, look)
        self._aside = self._open_aside()
        self._reserved = self._local.room.set_aside(
            self._folder_fd, self._directory, size, self._quota, self._upload
        )

    async def write(self, chunks: Sequence[bytes]) -> None:
        self._waiting.extend(chunks)
        self._waiting_size += sum(map(len, chunks))
        count = len(self._waiting)
        if count > _FEW and self._waiting_size < count * _SMALL:
            self._waiting = [b"".join(self._waiting)]
        if self._waiting_size >= BATCH:
            if not self._entered:
                await self._enter(self._waiting_size)
            batch, self._waiting, self._waiting_size = self._waiting, [], 0
            # Meanwhile the next one comes, but stays in the body, which is limited.
            await self._store_batch(batch)

    async def _store_batch(self, batch: Sequence[bytes]) -> None:
        # The end will find out whether the name is taken.
        await self._local.home.run(self._directory, self._write, batch, True)

    def _write(self, chunks: Sequence[bytes], overwrite: bool) -> None:
        if self._aside is None:
            self._begin(sum(map(len, chunks)), overwrite)
        assert self._aside is not None
        assert self._reserved is not None
        self._local.room.take(self._reserved, sum(map(len, chunks)), self._aside.fd)
        fd = self._aside.fd
        for piece in _pieces(chunks):
            self._hashes.update(piece)
            self._size += write_all(fd, piece)
        if self._size - self._handed_over >= WRITE_BACK:
            self.send()

    def send(self) -> None:
        """Have the kernel begin to write to the disk what it was not yet told to."""
        assert self._aside is not None
        fd, at = self._aside.fd, self._handed_over
        self._handed_over = self._size
        with suppress(OSError):
            # Dirty pages stay in the cache: Linux only begins to write them, and
            # reports an error of the disk to the fsync.
            os.posix_fadvise(fd, at, self._size - at, os.POSIX_FADV_DONTNEED)

    async def abort(self) -> None:
        if self._folder_fd >= 0:
            await self._local.home.run(self._directory, self._clear)

    def _clear(self) -> None:
        folder_fd, self._folder_fd = self._folder_fd, -1
        with self.leaving():
            try:
                self._drop()
            finally:
                os.close(folder_fd)

    def _drop(self) -> None:
        """Close the file, which is gone if it is not published."""
        aside, self._aside = self._aside, None
        try:
            if aside is not None:
                aside.discard()
        finally:
            if self._reserved is not None:
                # Only now, since the space is free only when the file is gone.
                self._local.room.give_back(
                    self._reserved, self._published, self._replaced
                )

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Only log that something cannot be cleared away: it has no published name, or
        is deleted at the next start; and the outcome of the push is decided already.
        """
        try:
            yield
        except OSError as error:
            self._log.warn(
                "request={request}: cannot delete a temporary file: {error}",
                event="leftover",
                request=self._request,
                error=error.strerror,
            )
