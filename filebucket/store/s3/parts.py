"""Resumable uploads to an object store.

Their data and records lie in the home of one daemon, as those of uploads to folders: an
upload goes on with this daemon, and needs the object store only when it is created, to
look its name up, and at its end. Then its data is sent (:mod:`.transfer`), and a record
in the store publishes it.

The id of the data begins with a digest of the upload's id. A daemon that was killed, or
got no answer, recognizes by that a file that it has published, and does not publish it
twice.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from secrets import token_hex
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from filebucket.base.alarm import started
from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.base.places import Places
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store.aside import PartFile
from filebucket.store.interfaces import (
    IParts,
    IPartWriter,
    LostError,
    NameTaken,
    Receipt,
)
from filebucket.store.local import LocalWriter
from filebucket.store.parts import LocalParts, PartWriter, read_piece
from filebucket.store.s3.access import S3Access
from filebucket.store.s3.interfaces import ObjectError
from filebucket.store.s3.publish import Published
from filebucket.store.s3.records import Record
from filebucket.store.s3.transfer import Transfer
from filebucket.store.s3.writer import check_size, part_size

T = TypeVar("T")

EARLY = 4
"""Uploads that are sent at once while they are received. Their ends do not wait."""

_OWN = 16


def _begins(upload: Unfinished) -> str:
    """What the ids of its data begin with. The upload's id is secret."""
    return sha256(upload.id.encode("ascii")).hexdigest()[:_OWN]


def is_of(upload: Unfinished, record: Record) -> bool:
    """Whether a record was published by this upload."""
    return record.id.startswith(_begins(upload))


@define(eq=False)
class _Sending:
    """An upload that has more than a part.

    :ivar offset: bytes that may be sent
    :ivar busy: whether they are being sent
    """

    transfer: Transfer
    offset: int = 0
    busy: bool = False


@implementer(IParts)
class S3Parts(LocalParts):
    """Resumable uploads to an object store.

    :ivar published: ids of uploads that are published, and not recorded as that yet
    """

    _log = Logger()

    def __init__(self, store: S3Access) -> None:
        """
        :param store: prepared before any other call
        """
        super().__init__(store)
        self._s3 = store
        self._sending: dict[str, _Sending] = {}
        self._early = DeferredSemaphore(EARLY)
        self.published: set[str] = set()

    def open(
        self, directory: str, upload: Unfinished, hashes: Hashes, quota: int | None
    ) -> S3PartWriter:
        sending = self._sending.get(upload.id)
        if sending is not None and sending.transfer.hashed > upload.offset:
            # Other bytes may come in place of those that are not recorded.
            self._let_go(upload)
        return S3PartWriter(self, self._s3, directory, upload, hashes, quota)

    async def ended(self, directory: str, upload: Unfinished) -> Finished | None:
        record = await self.record_of(directory, upload)
        if record is None or not is_of(upload, record):
            return None
        return Finished(record.size, record.sha256)

    async def record_of(self, directory: str, upload: Unfinished) -> Record | None:
        """The record of an upload's name, which another push may have published.

        :raises Refusal: 503: that cannot be determined now
        """
        record = await self._s3.find(directory, upload.name)
        if record is not None and is_of(upload, record):
            # The try that published it did not get to look for prune.
            record = await self._s3.settled(directory, upload.name)
        return record

    async def send(
        self, directory: str, upload: Unfinished, size: int, sha256: str
    ) -> str:
        """Send what is left of a whole file.

        :param size: in bytes
        :param sha256: in hex
        :returns: the id of the data
        :raises Refusal: 503 or 507: it cannot be sent now
        :raises LostError: it is not what was received
        """
        transfer = self._sending_of(directory, upload).transfer
        try:
            return await transfer.finish(size, sha256)
        except ObjectError as error:
            raise self._s3.refusal(error, "send") from None
        except OSError as error:
            raise self._s3.home.refusal(error, "read") from None

    def _sending_of(self, directory: str, upload: Unfinished) -> _Sending:
        found = self._sending.get(upload.id)
        if found is None:
            store, identity = self._s3, upload.id

            def run(function: Callable[..., T], *args: Any) -> Deferred[T]:
                return store.home.lines.run(directory, function, *args)

            def read(offset: int, most: int) -> bytes:
                folder_fd = store.home.parts_fd
                return read_piece(identity, folder_fd, offset, most, keep_cached=True)

            found = self._sending[upload.id] = _Sending(
                Transfer(
                    store.data,
                    lambda: _begins(upload) + token_hex(_OWN // 2),
                    lambda each: store.keys.data(directory, upload.name, each),
                    read,
                    run,
                    store.clock,
                    partial(part_size, store.part_size, upload.length or 0),
                    partial(_placed, store.places, directory),
                )
            )
        return found

    async def record(self, directory: str, upload: Unfinished) -> None:
        await super().record(directory, upload)
        if upload.finished is None and upload.offset > self._s3.part_size:
            sending = self._sending_of(directory, upload)
            sending.offset = upload.offset
            if not sending.busy:
                sending.busy = True
                self._in_background(self._send_early(sending))

    async def finish(self, directory: str, upload: Unfinished) -> None:
        try:
            await super().finish(directory, upload)
        finally:
            self._let_go(upload)

    async def remove(self, directory: str, upload: Unfinished) -> None:
        try:
            await super().remove(directory, upload)
        finally:
            self._let_go(upload)

    def _let_go(self, upload: Unfinished) -> None:
        self.published.discard(upload.id)
        sending = self._sending.pop(upload.id, None)
        if sending is not None:
            self._in_background(sending.transfer.abandon())

    def _in_background(self, work: Awaitable[None]) -> None:
        done = started(work)
        done.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a bug in file-bucket", failure, event="bug")

    async def _send_early(self, sending: _Sending) -> None:
        await self._early.acquire()
        try:
            sent = 0
            while sent < sending.offset:
                sent = sending.offset
                await sending.transfer.advance(sent)
        except (ObjectError, OSError, LostError):
            # After the next part there is another try, and the end reports errors.
            pass
        finally:
            sending.busy = False
            self._early.release()


@asynccontextmanager
async def _placed(places: Places, directory: str) -> AsyncIterator[None]:
    await places.acquire(directory)
    try:
        yield
    finally:
        places.release()


@implementer(IPartWriter)
class S3PartWriter(PartWriter):
    """A resumable upload to an object store, during one request."""

    def __init__(
        self,
        parts: S3Parts,
        store: S3Access,
        directory: str,
        upload: Unfinished,
        hashes: Hashes,
        quota: int | None,
    ) -> None:
        LocalWriter.__init__(self, store, directory, (), quota)
        self._continue(upload, hashes)
        self._parts = parts
        self._store = store
        self._whole = upload

    def _open_folder(self) -> int:
        return os.dup(self._store.home.parts_fd)

    def _open_part(self, name: bytes, offset: int | None) -> PartFile:
        home = self._store.home
        return PartFile(self._folder_fd, home.incoming_fd, home.parts_fd, name, offset)

    async def begin(self, size: int, overwrite: bool) -> None:
        if self._upload in self._parts.published:
            # The bytes that follow would not be in the file.
            raise Refusal(503, "disk error on the server")
        check_size(self._durable + size)
        if not overwrite:
            await self._find(overwrite)
        await super().begin(size, overwrite)

    async def _find(self, overwrite: bool) -> Record | None:
        """The record of the file, if this upload has published it.

        :raises NameTaken: another push has published a file with the name
        """
        record = await self._parts.record_of(self._directory, self._whole)
        if record is not None and not is_of(self._whole, record):
            if not overwrite:
                raise NameTaken()
            return None
        return record

    async def prepare(self, promised: Mapping[str, bytes], overwrite: bool) -> None:
        await self._record(promised, overwrite)

    async def _record(
        self, promised: Mapping[str, bytes], overwrite: bool
    ) -> tuple[Record, bool]:
        """The record of the file, whose data is stored by then, and whether it is
        published already.
        """
        self._hashes.compare(promised)
        check_size(self._size)
        found = await self._find(overwrite)
        if found is not None:
            return found, True
        store, name, size = self._store, self._whole.name, self._size
        sha256 = self._hashes.hexdigest("sha256")
        identity = await self._parts.send(self._directory, self._whole, size, sha256)
        key = store.keys.data(self._directory, name, identity)
        return Record(identity, key, size, sha256, store.wall()), False

    async def commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        await self.keep()
        store, directory, name = self._store, self._directory, self._whole.name
        record, is_published = await self._record(promised, overwrite)
        published = Published(store.order(), replaced=False)
        if not is_published:
            try:
                published = await store.publish(directory, name, record, overwrite)
            except NameTaken:
                # Perhaps by an earlier try of this upload whose answer was lost.
                found = await self._find(overwrite=False)
                if found is None:
                    raise
                record = found
        self._published = True
        self._parts.published.add(self._upload)
        await store.home.run(directory, self._clear)
        return Receipt(
            record.data,
            record.size,
            record.sha256,
            published.order,
            published.replaced,
            store.url(record.data),
        )
