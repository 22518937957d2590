"""Resumable uploads in a folder of the home, until they end.

Each has two files under ``<home>/.filebucket/uploads``: its data, and a record of how
many bytes of the data are durable. The data is synced before the record, and the record
before the answer to the client, so a crash leaves at most more data than is recorded,
which is cut off. An upload ends when its data is published; then its record says so,
and only then the data is removed. :class:`LocalParts` and :class:`PartWriter` do not
know how that is done: in :class:`DirectoryParts`, it is a second link to the data.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter

from attrs import asdict, evolve
from twisted.logger import Logger
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.fs import replacing, sync_directory
from filebucket.base.hashes import Hashes
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store.archive import ID, RECORD, read_record
from filebucket.store.aside import PartFile
from filebucket.store.disk import DirectoryStore, DirectoryWriter
from filebucket.store.interfaces import (
    DAMAGE,
    IParts,
    IPartWriter,
    LostError,
    Receipt,
)
from filebucket.store.local import LocalStore, LocalWriter

PIECE = 4 * 1024 * 1024
"""Bytes that are read at once when an upload is read again."""

MOST_ENDED = 1000
"""Records of a bucket that are kept of uploads that have ended. They answer a client
that has not heard of the end, and a start of the daemon reads all of them."""

LOST = DAMAGE | {errno.ENOENT, errno.ELOOP, errno.ESPIPE, errno.EISDIR}
"""Error numbers by which a file of an upload is lost, and not only out of reach: it is
damaged or gone, or its place is taken by a link, a pipe or a folder."""

# A pipe in place of a file must not be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_NEW = ".new"


class LocalParts:
    """Resumable uploads whose data lies in the home."""

    _log = Logger()

    def __init__(self, store: LocalStore) -> None:
        """
        :param store: prepared before any other call
        """
        self._store = store
        # By the keys of buckets: the end of each upload in seconds since the epoch, and
        # its id. Oldest first.
        self._ended: defaultdict[str, deque[tuple[float, str]]] = defaultdict(deque)

    def load(self, directory_of: Callable[[str], str | None]) -> list[Unfinished]:
        names = set(os.listdir(self._store.home.parts_fd))
        found: list[Unfinished] = []
        ended: list[Unfinished] = []
        for name in names:
            if name.endswith(_NEW) or name.removesuffix(RECORD) + RECORD not in names:
                self._clean(name)
            elif name.endswith(RECORD):
                upload = self._loaded(name.removesuffix(RECORD), directory_of)
                if upload is not None:
                    (found if upload.finished is None else ended).append(upload)
        for upload in sorted(ended, key=attrgetter("touched_at")):
            for oldest in self._enter(upload):
                self._clean(oldest + RECORD)
        return found

    def _enter(self, upload: Unfinished) -> list[str]:
        """Enter an upload that has ended. Returns the ids of those that are too many
        now.
        """
        ended = self._ended[upload.bucket]
        ended.append((upload.touched_at, upload.id))
        return [ended.popleft()[1] for _ in range(len(ended) - MOST_ENDED)]

    def _loaded(
        self, identity: str, directory_of: Callable[[str], str | None]
    ) -> Unfinished | None:
        try:
            upload = self._read(identity)
            if upload is None or upload.finished is not None:
                self._clean(identity)
                return upload
            data = os.lstat(identity, dir_fd=self._store.home.parts_fd)
            if not stat.S_ISREG(data.st_mode) or data.st_size < upload.offset:
                raise ValueError("its data is not what was received")
            directory = directory_of(upload.bucket)
            if directory is not None and self._has_ended(upload, directory, data):
                # The daemon ended before it could record that.
                finished = Finished(upload.offset, upload.sha256)
                upload = evolve(upload, finished=finished)
                self._record(upload)
                self._clean(identity)
            return upload
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            if error.errno not in LOST:
                # Perhaps the next start can read it.
                self._report("cannot be read", identity, reason)
                return None
        except ValueError as error:
            reason = str(error)
        self._report("lost", identity, reason)
        self._clean(identity + RECORD)
        self._clean(identity)
        return None

    def _has_ended(
        self, upload: Unfinished, directory: str, data: os.stat_result
    ) -> bool:
        """Whether the file of an upload is published, durably from now on, as far as
        the home shows that.

        :raises ValueError: its data cannot be trusted
        """
        return False

    def _report(self, what: str, identity: str, reason: str) -> None:
        # The id is secret.
        self._log.error(
            "upload {id!r}: {what}: {error}",
            event="upload-lost",
            id=identity[:6],
            what=what,
            error=reason,
        )

    def _clean(self, name: str) -> None:
        """Remove a leftover, at a start that goes on if that fails."""
        try:
            self._unlink(name)
        except OSError as error:
            self._log.warn(
                "upload {id!r}: cannot delete a leftover: {error}",
                event="leftover",
                id=name[:6],
                error=error.strerror,
            )

    def count(self, directory: str, upload: Unfinished) -> None:
        self._store.room.count_unfinished(directory, upload.id, upload.offset)

    async def ended(self, directory: str, upload: Unfinished) -> Finished | None:
        # Nothing but the home must be asked.
        return None

    async def record(self, directory: str, upload: Unfinished) -> None:
        await self._store.home.run(directory, self._record, upload)

    async def finish(self, directory: str, upload: Unfinished) -> None:
        await self._store.home.run(directory, self._finish, upload, self._enter(upload))
        # If the file was stored already, this one was not published.
        self._store.room.forget_unfinished(directory, upload.id)

    async def remove(self, directory: str, upload: Unfinished) -> None:
        await self._store.home.run(directory, self._remove, upload)
        self._store.room.forget_unfinished(directory, upload.id)

    async def find(self, directory: str, identity: str) -> Unfinished | None:
        return await self._store.home.run(directory, self._find, identity)

    async def sweep(self, before: float) -> None:
        for key, ended in list(self._ended.items()):
            while ended and ended[0][0] < before:
                ended.popleft()
            if not ended:
                del self._ended[key]
        await self._store.home.run("", self._sweep, before)

    def read(self, upload: Unfinished, offset: int) -> bytes:
        most = min(PIECE, upload.offset - offset)
        # Only digests are needed of it, until it is published.
        return read_piece(
            upload.id, self._store.home.parts_fd, offset, most, keep_cached=False
        )

    # All that follows is for threads.

    def _record(self, upload: Unfinished) -> None:
        folder = self._store.home.parts_fd
        path, aside = upload.id + RECORD, upload.id + _NEW
        with replacing(path, aside, durable=True, directory_fd=folder) as file:
            file.write(json.dumps(asdict(upload)).encode())
        sync_directory(folder)

    def _finish(self, upload: Unfinished, oldest: Sequence[str]) -> None:
        self._record(upload)
        self._unlink(upload.id)
        for identity in oldest:
            self._unlink(identity + RECORD)

    def _remove(self, upload: Unfinished) -> None:
        # The record first, durably: a record without data is reported as a loss at the
        # next start, but data without a record is only deleted.
        self._unlink(upload.id + RECORD)
        sync_directory(self._store.home.parts_fd)
        self._unlink(upload.id)

    def _find(self, identity: str) -> Unfinished | None:
        with suppress(ValueError):
            found = self._read(identity) if ID.fullmatch(identity) else None
            if found is not None and found.finished is not None:
                return found
        return None

    def _sweep(self, before: float) -> None:
        with os.scandir(self._store.home.parts_fd) as entries:
            for entry in entries:
                # A record is written last when its upload ends.
                if entry.name.endswith(RECORD):
                    with suppress(FileNotFoundError):
                        if entry.stat(follow_symlinks=False).st_mtime < before:
                            self._forget(entry.name.removesuffix(RECORD))

    def _forget(self, identity: str) -> None:
        if self._find(identity) is not None:
            self._unlink(identity + RECORD)

    def _read(self, identity: str) -> Unfinished | None:
        """As :func:`~filebucket.store.archive.read_record`."""
        return read_record(identity, self._store.home.parts_fd)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._store.home.parts_fd)


class PartWriter(LocalWriter):
    """A resumable upload during one request. A subclass publishes it."""

    def _continue(self, upload: Unfinished, hashes: Hashes) -> None:
        """Begin where the upload is.

        :param hashes: its digests so far
        """
        self._upload = upload.id
        self._hashes = hashes.copy()
        self._kept = hashes
        self._size = self._durable = self._handed_over = upload.offset
        self._is_new = not upload.sha256
        self._broken = False

    def _open_part(self, name: bytes, offset: int | None) -> PartFile:
        """Open its file, as :class:`~filebucket.store.aside.PartFile`."""
        raise NotImplementedError

    def _open_aside(self) -> PartFile:
        offset = None if self._is_new else self._durable
        aside = self._open_part(self._upload.encode("ascii"), offset)
        if not self._is_new:
            # More was counted if it could not be recorded; that is cut off now.
            self._local.room.count_unfinished(
                self._directory, self._upload, self._durable
            )
        return aside

    async def write(self, chunks: Sequence[bytes]) -> None:
        try:
            await super().write(chunks)
        except BaseException:
            # How much of it the disk has is unknown.
            self._broken = True
            raise

    async def keep(self) -> Hashes:
        if self._broken:
            raise Refusal(503, "disk error on the server")
        try:
            if not self._entered:
                await self._enter(self._waiting_size)
            waiting, self._waiting, self._waiting_size = self._waiting, [], 0
            await self._local.home.run(self._directory, self._keep, waiting)
        except BaseException:
            self._broken = True
            raise
        return self._kept

    def _keep(self, chunks: Sequence[bytes]) -> None:
        self._write(chunks, True)
        assert self._aside is not None
        assert self._reserved is not None
        self._aside.seal()
        self._durable = self._size
        self._kept = self._hashes.copy()
        self._local.room.hand_over(self._reserved, self._durable)

    def _clear(self) -> None:
        if not self._published and isinstance(self._aside, PartFile):
            # If this fails, it is cut off before the next byte.
            with suppress(OSError):
                self._aside.cut(self._durable)
        super()._clear()


@implementer(IParts)
class DirectoryParts(LocalParts):
    """Resumable uploads of a :class:`DirectoryStore`."""

    def __init__(self, store: DirectoryStore) -> None:
        """
        :param store: prepared before any other call
        """
        super().__init__(store)
        self._directory_store = store

    def _has_ended(
        self, upload: Unfinished, directory: str, data: os.stat_result
    ) -> bool:
        if data.st_nlink == 1:
            return False
        if not self._is_published(upload, directory, data):
            raise ValueError("its data has a second name")
        return True

    def _is_published(
        self, upload: Unfinished, directory: str, data: os.stat_result
    ) -> bool:
        bucket_fd = self._directory_store.open_bucket(directory)
        try:
            name = upload.name.encode("utf-8")
            if not os.path.samestat(data, os.lstat(name, dir_fd=bucket_fd)):
                return False
            sync_directory(bucket_fd)
        except FileNotFoundError:
            return False
        finally:
            os.close(bucket_fd)
        return True

    def open(
        self, directory: str, upload: Unfinished, hashes: Hashes, quota: int | None
    ) -> DirectoryPartWriter:
        return DirectoryPartWriter(
            self._directory_store, directory, upload, hashes, quota
        )


@implementer(IPartWriter)
class DirectoryPartWriter(PartWriter, DirectoryWriter):
    """A resumable upload to a :class:`DirectoryStore`, during one request."""

    def __init__(
        self,
        store: DirectoryStore,
        directory: str,
        upload: Unfinished,
        hashes: Hashes,
        quota: int | None,
    ) -> None:
        DirectoryWriter.__init__(self, store, directory, upload.name, (), quota)
        self._continue(upload, hashes)

    def _open_part(self, name: bytes, offset: int | None) -> PartFile:
        try:
            return self._store.open_part(self._folder_fd, name, offset)
        except OSError as error:
            if error.errno == errno.EXDEV:
                reason = "the bucket is on another filesystem than the storage folder"
                raise Refusal(501, f"no resumable uploads: {reason}") from None
            raise

    async def prepare(self, promised: Mapping[str, bytes], overwrite: bool) -> None:
        # A link takes no time.
        return

    async def commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        # If the end fails, nothing of it is cut off: the file may have its name.
        await self.keep()
        return await super().commit(promised, overwrite)


def read_piece(
    identity: str, folder_fd: int, offset: int, most: int, keep_cached: bool
) -> bytes:
    """Read a piece of an upload, in a thread.

    :param identity: its id
    :param folder_fd: the folder of the uploads
    :param keep_cached: whether it will soon be read again
    :raises LostError: there is no more, or it is damaged
    :raises OSError: it cannot be read now
    """
    try:
        # Opened for each piece: many uploads may be read in turn.
        fd = os.open(identity, _READ, dir_fd=folder_fd)
        try:
            piece = os.pread(fd, most, offset)
            if not keep_cached:
                os.posix_fadvise(fd, offset, len(piece), os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in LOST:
            raise LostError from None
        raise
    if not piece:
        raise LostError
    return piece
