"""Receives a file and stores it in an object store.

A file smaller than a batch stays in memory. A larger one gathers in a file of the home
that has no name, until it has the size of a part; while a part is sent, the next one
gathers. If the client is faster than the store, several parts are sent at once, as far
as the disk has space for them and others do not need the places; then the client waits.
A file of one part is stored by a PUT, any other one by a multipart upload, whose parts
are deleted if the push fails before it is completed.

The data has a key of its own, so nothing replaces it, and it is stored before the
record that publishes it (:mod:`.publish`). The digests and the name are checked before
that, so a push that is refused leaves no data behind.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from zope.interface import implementer

from filebucket.base.alarm import started
from filebucket.base.errors import Refusal
from filebucket.base.fs import read_cached
from filebucket.store.home import Home
from filebucket.store.interfaces import IWriter, NameTaken, Receipt
from filebucket.store.local import LocalWriter, write_all
from filebucket.store.s3.access import S3Access
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.interfaces import IBody, ObjectError
from filebucket.store.s3.multipart import Multipart, again
from filebucket.store.s3.records import Record, new_id
from filebucket.store.s3.several import AT_ONCE, Several

T = TypeVar("T")

MOST_SIZE = 5 * 1024**4
"""Bytes of the largest object of S3."""

MOST_PARTS = 10_000
"""Parts of a multipart upload."""

_MOST_PART = 5 * 1024**3
"""Bytes of the largest part."""

GROWTH = 1250
"""If the size of a file is unknown, a part has at least 1/1250 of what came before it:
10,000 parts of at least 5 MiB then hold the largest file."""


def part_size(least: int, announced: int, before: int) -> int:
    """The size of the next part, in bytes.

    :param least: bytes of the smallest part, except the last one
    :param announced: size of the file, as far as known
    :param before: bytes of the parts before it
    """
    # If the size is known, all parts have one size: some stores want that.
    known = before < announced
    size = -(-announced // MOST_PARTS) if known else before // GROWTH
    return min(max(least, size), _MOST_PART)


class PartFile:
    """A part that gathers in a file without a name."""

    def __init__(self, home: Home, size: int) -> None:
        """Open the file, in a thread.

        :param size: bytes of the part, if it is not the last one
        """
        name = secrets.token_hex(16)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        self.fd = os.open(name, flags, 0o600, dir_fd=home.incoming_fd)
        os.unlink(name, dir_fd=home.incoming_fd)
        self.size = 0
        self.left = size
        self.sha256 = sha256()

    def write(self, chunks: Sequence[bytes], size: int) -> None:
        """Append chunks, in a thread.

        :param size: their bytes
        """
        for chunk in chunks:
            self.sha256.update(chunk)
        write_all(self.fd, chunks)
        self.size += size
        self.left -= size

    def close(self) -> None:
        """Close the file, which deletes it."""
        fd, self.fd = self.fd, -1
        os.close(fd)


@implementer(IBody)
@frozen
class FileBody:
    """The bytes of a file.

    :param run: calls a function in a thread
    """

    fd: int
    size: int
    sha256: bytes
    run: Callable[..., Awaitable[bytes]]

    async def read(self, offset: int, most: int) -> bytes:
        # It was written a moment ago, and is almost always still in memory: to ask a
        # thread for each piece took a tenth of the processor time of a push.
        found = read_cached(self.fd, offset, most)
        if found is None:
            found = await self.run(os.pread, self.fd, most, offset)
        return found


@implementer(IWriter)
class S3Writer(LocalWriter):
    """A file that is received into an object store."""

    def __init__(
        self,
        store: S3Access,
        directory: str,
        name: str,
        algorithms: Collection[str],
        quota: int | None,
    ) -> None:
        super().__init__(store, directory, algorithms, quota)
        self._store = store
        self._name = name
        self._id = new_id()
        self._key = store.keys.data(directory, name, self._id)
        self._announced, self._begun = 0, False
        self._part: PartFile | None = None
        # The multipart upload, and the parts on their way.
        self._multipart = Multipart(store.clock, store.data, self._key)
        self._beginning = DeferredLock()
        self._number = 0
        self._sending = Several()
        self._calls: set[Deferred[Any]] = set()
        self._given_up: Refusal | None = None

    async def begin(self, size: int, overwrite: bool) -> None:
        if not self._entered:
            await self._enter(size)
        check_size(size)
        self._announced, self._begun = size, True
        await self._check_free(overwrite)
        await self._reserve(size)

    async def _check_free(self, overwrite: bool) -> None:
        if not overwrite and not await self._store.is_free(self._directory, self._name):
            raise NameTaken()

    async def _reserve(self, size: int) -> None:
        self._reserved = await self._store.home.run(
            self._directory,
            self._store.room.set_aside,
            self._store.home.fd,
            self._directory,
            size,
            self._quota,
            "",
            2 * part_size(self._store.part_size, size, 0),
        )

    async def _store_batch(self, batch: Sequence[bytes]) -> None:
        check_size(self._size + sum(map(len, batch)))
        if self._reserved is None:
            await self._reserve(sum(map(len, batch)))
        while any(map(len, batch)):
            if self._part is not None and not self._part.left:
                await self._send_part()
            batch = await self._run(self._write_part, batch)

    def _write_part(self, chunks: Sequence[bytes]) -> Sequence[bytes]:
        """Append to the part, in a thread, which opens it if there is none.

        :returns: the chunks that did not fit into it
        """
        assert self._reserved is not None
        if self._part is None:
            size = part_size(self._store.part_size, self._announced, self._size)
            self._part = PartFile(self._store.home, size)
        some, rest = split(chunks, self._part.left)
        size = sum(map(len, some))
        self._store.room.take(self._reserved, size, self._part.fd)
        self._hashes.update(some)
        self._part.write(some, size)
        self._size += size
        return rest

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        return await self._store.home.run(self._directory, function, *args)

    # Multipart uploads.

    async def _send_part(self) -> None:
        """Begin to send the part that has gathered."""
        await self._sending.wait(AT_ONCE - 1)
        while (count := self._sending.count) and not await self._has_space_for_more():
            await self._sending.wait(count - 1)
        part, self._part = self._part, None
        assert part is not None
        self._number += 1
        self._sending.start(self._send(part, self._number))

    async def _has_space_for_more(self) -> bool:
        """Whether the next part may gather beside the one that has, and those on their
        way. Each push has space for one of these: more is an offer to fast clients.
        """
        if not self._store.places.free:
            return False
        part, reserved = self._part, self._reserved
        assert part is not None
        assert reserved is not None
        more = self._store.room.has_more
        return await self._run(more, reserved, part.size, part.fd)

    async def _send(self, part: PartFile, number: int) -> None:
        data, key = self._store.data, self._key
        try:
            body, upload = self._body(part), await self._begun_multipart()
            sent = self._in_turn("part", data.part, key, upload, number, body)
            self._multipart.parts[number] = await sent
        finally:
            await self._run(part.close)
        assert self._reserved is not None
        self._store.room.sent(self._reserved, part.size)

    async def _begun_multipart(self) -> str:
        """Id of the multipart upload, which the first part begins."""
        await self._beginning.acquire()
        try:
            if not self._multipart.id:
                begin = self._store.data.begin
                self._multipart.id = await self._ask("begin", begin, self._key)
            return self._multipart.id
        finally:
            self._beginning.release()

    def _body(self, part: PartFile) -> FileBody:
        def run(function: Callable[..., T], *args: Any) -> Deferred[T]:
            return self._store.home.lines.run(self._directory, function, *args)

        return FileBody(part.fd, part.size, part.sha256.digest(), run)

    async def _in_turn(
        self, what: str, call: Callable[..., Awaitable[T]], *args: Any
    ) -> T:
        """As :meth:`_ask`, for a call that takes long, when it is the bucket's turn."""
        await self._store.places.acquire(self._directory)
        try:
            return await self._ask(what, call, *args)
        finally:
            self._store.places.release()

    async def _ask(self, what: str, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Make a call of the object store that may be repeated, and cancelled.

        :param what: the call, for the log
        :raises Refusal: it failed, which is logged
        """
        if self._given_up is not None:
            raise self._given_up
        clock, goes_on = self._store.clock, lambda: self._given_up is None
        made = started(again(clock, goes_on, partial(call, *args)))
        self._calls.add(made)
        try:
            return await made
        except (ObjectError, OSError, CancelledError) as error:
            refusal = self._given_up
            if isinstance(error, OSError):
                refusal = self._store.home.refusal(error, "read")
            elif isinstance(error, ObjectError) and refusal is None:
                refusal = self._store.refusal(error, what)
            # Without it the other parts are useless.
            raise self._give_up(refusal) from None
        finally:
            self._calls.discard(made)

    def _give_up(self, refusal: Refusal | None = None) -> Refusal:
        """Send nothing more.

        :returns: the first refusal
        """
        # Only once: a second time would cancel what a call does to end.
        if self._given_up is None:
            self._given_up = refusal or Refusal(503, "the push has ended")
            for each in list(self._calls):
                each.cancel()
        return self._given_up

    # The end.

    async def commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        if not self._entered:
            await self._enter(self._waiting_size)
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        in_memory = self._part is None
        if not in_memory:
            await self._store_batch(waiting)
        if self._number:
            await self._send_part()
            await self._sending.wait()
        # The digests first, unless the name is not checked yet.
        if not self._begun:
            await self._check_free(overwrite)
        if in_memory:
            self._take_in_memory(waiting)
        self._hashes.compare(promised)
        if self._begun:
            await self._check_free(overwrite)
        if self._number:
            await self._store.asked("complete", self._multipart.complete(self._size))
        elif self._part is None:
            await self._store.put(self._key, MemoryBody.of(b"".join(waiting)))
        else:
            put, body = self._store.data.put, self._body(self._part)
            await self._in_turn("put", put, self._key, body)
        return await self._publish(overwrite)

    def _take_in_memory(self, chunks: Sequence[bytes]) -> None:
        """The whole file is in memory. It takes the reactor less time to hash it than
        to ask a thread.
        """
        self._size = sum(map(len, chunks))
        room = self._store.room
        if self._reserved is None:
            self._reserved = room.set_aside_none(
                self._directory, self._size, self._quota
            )
        room.take_in_memory(self._reserved, self._size)
        self._hashes.update(chunks)

    async def _publish(self, overwrite: bool) -> Receipt:
        digest, now = self._hashes.hexdigest("sha256"), self._store.wall()
        record = Record(self._id, self._key, self._size, digest, now)
        found = await self._store.publish(
            self._directory, self._name, record, overwrite
        )
        self._published = True
        await self._end()
        url = self._store.url(self._key)
        order, replaced = found.order, found.replaced
        return Receipt(self._key, self._size, digest, order, replaced, url)

    async def abort(self) -> None:
        self._give_up()
        with suppress(Refusal):
            await self._sending.wait()
        await self._end()
        try:
            await self._multipart.abandon()
        except ObjectError as error:
            self._store.left_behind(error)
        self._multipart.id = ""

    async def _end(self) -> None:
        part, self._part = self._part, None
        reserved, self._reserved = self._reserved, None
        try:
            if part is not None:
                await self._run(part.close)
        finally:
            if reserved is not None:
                # A file that was replaced takes space until it is swept.
                self._store.room.give_back(reserved, self._published)


def check_size(size: int) -> None:
    """Check the size of a file.

    :raises Refusal: 413: it is too large
    """
    if size > MOST_SIZE:
        raise Refusal(413, f"the file is larger than {MOST_SIZE} bytes")


def split(chunks: Sequence[bytes], most: int) -> tuple[list[bytes], list[bytes]]:
    """The first bytes of chunks, and the others.

    :param most: number of the first bytes
    """
    some: list[bytes] = []
    for number, chunk in enumerate(chunks):
        if len(chunk) > most:
            rest = [chunk[most:], *chunks[number + 1 :]]
            return ([*some, chunk[:most]] if most else some), rest
        some.append(chunk)
        most -= len(chunk)
    return some, []
