"""Resumable uploads in a folder of the home, until they end.

Each has two files under ``<home>/.filebucket/uploads``: its data, and a record of how
many bytes of the data are durable. The data is synced before the record, and the record
before the answer to the client, so a crash leaves at most more data than is recorded,
which is cut off. An upload ends with a second link to its data; then its record says
so, and only then the first link is removed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import cattrs
from attrs import asdict, evolve
from twisted.logger import Logger
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.fs import replacing, sync_directory
from filebucket.base.hashes import Hashes
from filebucket.model.bucket import FILE_COST
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store.aside import PartFile
from filebucket.store.disk import DirectoryStore, DirectoryWriter
from filebucket.store.interfaces import IParts, IPartWriter, LostError, Receipt
from filebucket.store.room import Reservation

PIECE = 4 * 1024 * 1024
"""Bytes that are read at once when an upload is hashed again."""

_ID = re.compile("[0-9a-f]{32}")
_RECORD = ".json"
_NEW = ".new"


@implementer(IParts)
class DirectoryParts:
    """Resumable uploads of a :class:`DirectoryStore`."""

    _log = Logger()

    def __init__(self, store: DirectoryStore) -> None:
        """
        :param store: prepared before any other call
        """
        self._store = store

    def load(self) -> list[Unfinished]:
        names = set(os.listdir(self._store.parts_fd))
        found = []
        for name in names:
            if name.endswith(_NEW) or name.removesuffix(_RECORD) + _RECORD not in names:
                self._unlink(name)
            elif name.endswith(_RECORD):
                upload = self._loaded(name.removesuffix(_RECORD))
                if upload is not None and upload.finished is None:
                    found.append(upload)
        return found

    def _loaded(self, identity: str) -> Unfinished | None:
        try:
            upload = self._read(identity)
            if upload is None or upload.finished is not None:
                self._unlink(identity)
                return upload
            data = os.stat(identity, dir_fd=self._store.parts_fd, follow_symlinks=False)
            if data.st_nlink > 1:
                # It was published, and the daemon ended before it could record that.
                finished = Finished(upload.offset, upload.sha256)
                upload = evolve(upload, finished=finished)
                self._finish(upload)
            return upload
        except (OSError, ValueError, cattrs.BaseValidationError) as error:
            reason = getattr(error, "strerror", None) or "its record cannot be read"
            self._log.error(
                "upload {id}: lost: {error}",
                event="upload-lost",
                id=identity[:6],
                error=reason,
            )
            self._unlink(identity)
            self._unlink(identity + _RECORD)
            return None

    def count(self, directory: str, upload: Unfinished) -> None:
        self._store.room.count_unfinished(directory, upload.offset + FILE_COST)

    def open(
        self, directory: str, upload: Unfinished, hashes: Hashes, quota: int | None
    ) -> PartWriter:
        return PartWriter(self._store, directory, upload, hashes, quota)

    async def record(self, directory: str, upload: Unfinished) -> None:
        await self._store.run(directory, self._record, upload)

    async def finish(self, directory: str, upload: Unfinished) -> None:
        await self._store.run(directory, self._finish, upload)

    async def remove(self, directory: str, upload: Unfinished) -> None:
        if upload.sha256:
            self._store.room.count_unfinished(directory, -(upload.offset + FILE_COST))
        await self._store.run(directory, self._remove, upload)

    async def find(self, directory: str, identity: str) -> Unfinished | None:
        return await self._store.run(directory, self._find, identity)

    async def sweep(self, before: float) -> None:
        await self._store.run("", self._sweep, before)

    def hashed(self, upload: Unfinished, pace: Callable[[float], object]) -> Hashes:
        hashes = Hashes({"sha256", *upload.promised})
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(upload.id, flags, dir_fd=self._store.parts_fd)
            with open(fd, "rb", buffering=0) as file:
                left = upload.offset
                while left:
                    began = time.monotonic()
                    piece = file.read(min(left, PIECE))
                    if not piece:
                        raise LostError
                    hashes.update([piece])
                    left -= len(piece)
                    pace(time.monotonic() - began)
        except OSError:
            raise LostError from None
        if hashes.hexdigest("sha256") != upload.sha256:
            raise LostError
        return hashes

    # All that follows is for threads.

    def _record(self, upload: Unfinished) -> None:
        folder = self._store.parts_fd
        path, aside = upload.id + _RECORD, upload.id + _NEW
        with replacing(path, aside, durable=True, directory_fd=folder) as file:
            file.write(json.dumps(asdict(upload)).encode())
        sync_directory(folder)

    def _finish(self, upload: Unfinished) -> None:
        self._record(upload)
        self._unlink(upload.id)

    def _remove(self, upload: Unfinished) -> None:
        # The data first: a record without data is reported as a loss at the next start,
        # but data without a record is only deleted.
        self._unlink(upload.id)
        self._unlink(upload.id + _RECORD)

    def _find(self, identity: str) -> Unfinished | None:
        with suppress(ValueError, cattrs.BaseValidationError):
            found = self._read(identity) if _ID.fullmatch(identity) else None
            if found is not None and found.finished is not None:
                return found
        return None

    def _sweep(self, before: float) -> None:
        with os.scandir(self._store.parts_fd) as entries:
            for entry in entries:
                # A record is written last when its upload ends.
                if entry.name.endswith(_RECORD):
                    with suppress(FileNotFoundError):
                        if entry.stat(follow_symlinks=False).st_mtime < before:
                            self._forget(entry.name.removesuffix(_RECORD))

    def _forget(self, identity: str) -> None:
        if self._find(identity) is not None:
            self._unlink(identity + _RECORD)

    def _read(self, identity: str) -> Unfinished | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(identity + _RECORD, flags, dir_fd=self._store.parts_fd)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return cattrs.structure(json.load(file), Unfinished)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._store.parts_fd)


@implementer(IPartWriter)
class PartWriter(DirectoryWriter):
    """A resumable upload in a :class:`DirectoryStore`, during one request."""

    def __init__(
        self,
        store: DirectoryStore,
        directory: str,
        upload: Unfinished,
        hashes: Hashes,
        quota: int | None,
    ) -> None:
        super().__init__(store, directory, upload.name, (), quota)
        self._part = upload.id.encode("ascii")
        self._hashes = hashes.copy()
        self._kept = hashes
        self._size = self._durable = upload.offset
        self._is_new = not upload.sha256
        self._broken = False

    def _open_aside(self) -> PartFile:
        offset = None if self._is_new else self._durable
        try:
            return self._store.open_part(self._bucket_fd, self._part, offset)
        except OSError as error:
            if error.errno == errno.EXDEV:
                reason = "the bucket is on another filesystem than the storage folder"
                raise Refusal(501, f"no resumable uploads: {reason}") from None
            raise

    async def write(self, chunks: Sequence[bytes]) -> None:
        try:
            await super().write(chunks)
        except BaseException:
            # How much of it the disk has is unknown.
            self._broken = True
            raise

    async def keep(self) -> Hashes:
        self._check()
        try:
            await self._settle()
            waiting, self._waiting, self._waiting_size = self._waiting, [], 0
            await self._store.run(self._directory, self._keep, waiting)
        except BaseException:
            self._broken = True
            raise
        return self._kept

    def _check(self) -> None:
        if self._broken:
            raise Refusal(503, "disk error on the server")

    def _keep(self, chunks: Sequence[bytes]) -> None:
        assert self._aside is not None
        assert self._reserved is not None
        self._write(chunks, True)
        self._aside.seal()
        self._durable = self._size
        self._kept = self._hashes.copy()
        self._store.room.hand_over(self._reserved)

    async def take_back(self) -> None:
        with suppress(Refusal):
            await self._settle()
        self._waiting, self._waiting_size = [], 0
        await self._store.run(self._directory, self._take_back)

    def _take_back(self) -> None:
        assert isinstance(self._aside, PartFile)
        assert self._reserved is not None
        self._aside.cut(self._durable)
        self._size = self._durable
        self._hashes = self._kept.copy()
        self._store.room.drop(self._reserved)
        self._broken = False

    async def commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        self._check()
        return await super().commit(promised, overwrite)

    def _clear(self) -> None:
        if not self._published and isinstance(self._aside, PartFile):
            # If this fails, it is cut off before the next byte.
            with suppress(OSError):
                self._aside.cut(self._durable)
        super()._clear()

    def _give_back(self, reserved: Reservation) -> None:
        taken = self._durable + FILE_COST if self._published else 0
        self._store.room.give_back(
            reserved, self._published, self._replaced, unfinished=taken
        )
