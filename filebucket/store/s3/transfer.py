"""Sends the data of a resumable upload to the object store.

The data lies in the home until the upload ends. Parts of it are sent as soon as they
are durable there, so that only the rest is left to send at the end. Only the memory of
the daemon knows which parts were sent: after a restart, or if the store has lost one,
all data is sent again, under another key. A multipart upload that may have been
completed is neither completed again nor abandoned.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from filebucket.store.interfaces import LostError
from filebucket.store.s3.interfaces import (
    DeniedError,
    IBody,
    IObjects,
    NotThereError,
    ObjectError,
)
from filebucket.store.s3.multipart import Multipart, again, look
from filebucket.store.s3.several import AT_ONCE, Several

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")

FRESH = 10.0
"""Seconds in which data is certainly there after it was sent."""

MOST_AGE = 600.0
"""Seconds in which data must be published after all of it is stored. Some minutes later
``filebucket sweep`` may delete it."""

PIECE = 4 * 1024 * 1024
"""Bytes that are hashed in one call in a thread."""

_UNUSABLE = frozenset(
    {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"}
)
"""Codes of a store that does not have the parts as they were sent."""


@asynccontextmanager
async def _anywhere() -> AsyncIterator[None]:
    """Without a limit."""
    yield


@implementer(IBody)
@frozen
class Range:
    """Bytes of an upload.

    :param start: offset of the first one
    :param size: in bytes
    :param sha256: 32 bytes
    """

    start: int
    size: int
    sha256: bytes
    _read: Callable[[int, int], Awaitable[bytes]] = field(repr=False)

    async def read(self, offset: int, most: int) -> bytes:
        return await self._read(self.start + offset, min(most, self.size - offset))


@define(eq=False)
class _Sent:
    """What the store has of an upload.

    :ivar id: the end of its key
    :ivar key: its key
    :ivar multipart: the multipart upload, if it is sent in parts
    :ivar whole: whether all of it is there
    :ivar since: when that may have begun, in monotonic seconds
    """

    id: str
    key: str
    multipart: Multipart
    whole: bool = False
    since: float = 0.0


class Transfer:
    """The data of one upload on its way to the store.

    :ivar hashed: bytes that are hashed, and so perhaps sent
    """

    def __init__(
        self,
        objects: IObjects,
        new_id: Callable[[], str],
        key_of: Callable[[str], str],
        read: Callable[[int, int], bytes],
        run: Callable[..., Awaitable[Any]],
        clock: IReactorTime,
        size_of: Callable[[int], int],
        place: Callable[[], AbstractAsyncContextManager[None]] = _anywhere,
    ) -> None:
        """
        :param objects: the store's data
        :param new_id: makes an id
        :param key_of: returns the key of the data with an id
        :param read: reads the upload from an offset on, in a thread; returns a number
            of bytes at most, and raises LostError if there are none
        :param run: calls a function in a thread, and passes its errors on
        :param size_of: returns the bytes of the part that follows a number of bytes, if
            it is not the last one
        :param place: waits for a place to send a part, and holds it
        """
        self._objects = objects
        self._new_id = new_id
        self._key_of = key_of
        self._read = read
        self._run = run
        self._clock = clock
        self._size_of = size_of
        self._place = place
        self._turn = DeferredLock()
        self._ended = False
        self._sent: _Sent | None = None
        self._start_over()

    def _start_over(self) -> None:
        self.hashed = 0
        self._sha256 = hashlib.sha256()
        self._ranges: list[Range] = []
        # The last range is smaller than a part.
        self._has_rest = False

    async def advance(self, offset: int) -> None:
        """Send the parts that are durable, once.

        :param offset: bytes that are durable
        :raises ObjectError: some could not be sent
        :raises OSError: some could not be read
        :raises LostError: some are not there any more
        """
        async with self._alone():
            # A file of one part is not sent in parts.
            if not self._ended and offset > self._size_of(0):
                await self._send(offset, rest=False, once=True)

    async def finish(self, size: int, sha256: str) -> str:
        """Send what is left. All of it is one object then.

        :param size: bytes of the whole file, which are durable
        :param sha256: of the whole file, in hex
        :returns: the id of the object
        :raises ObjectError: some could not be sent
        :raises OSError: some could not be read
        :raises LostError: it is not what was received
        """
        async with self._alone():
            try:
                return await self._finish(size, sha256)
            except DeniedError:
                if self._sent is not None:
                    raise
            # The store does not have what was sent any more.
            return await self._finish(size, sha256)

    async def abandon(self) -> None:
        """Delete what was sent, as far as pushes may, and send nothing any more."""
        self._ended = True
        async with self._alone():
            await self._let_go()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    async def _let_go(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            # Otherwise it is swept.
            with suppress(ObjectError):
                await sent.multipart.abandon()

    async def _begun(self, end: int) -> _Sent:
        """The data in the store, if it can still be used; otherwise no data yet.

        :param end: bytes that the store will have
        """
        if self._has_rest and self.hashed < end:
            # The last part was not the last one after all.
            await self._let_go()
            self._start_over()
        sent = self._sent
        if sent is not None and (sent.whole or sent.multipart.unsure):
            age = self._clock.seconds() - sent.since
            may_be_gone = sent.whole and age > FRESH
            if age > MOST_AGE or (may_be_gone and not await self._is_there(sent, end)):
                self._sent = None
        if self._sent is None:
            identity = self._new_id()
            key = self._key_of(identity)
            multipart = Multipart(self._clock, self._objects, key)
            self._sent = _Sent(identity, key, multipart)
        return self._sent

    async def _finish(self, size: int, sha256: str) -> str:
        sent = await self._begun(size)
        if not sent.whole:
            in_parts = size > self._size_of(0)
            if in_parts:
                sent = await self._send(size, rest=True, once=False)
            else:
                await self._hash(size, rest=True)
            self._check(size, sha256)
            if not sent.multipart.unsure:
                sent.since = self._clock.seconds()
            try:
                if in_parts:
                    await sent.multipart.complete(size)
                else:
                    await self._put(sent, size)
            except NotThereError:
                # It may be there later: leave it alone, and send all again.
                self._sent = None
                raise
            except DeniedError as error:
                self._doubt(sent, error)
                raise
            sent.whole = True
        return sent.id

    async def _is_there(self, sent: _Sent, size: int) -> bool:
        """Whether the store still has all of it: a record may have published it, in
        spite of an error, and prune may have deleted both.
        """
        try:
            return await self._objects.size(sent.key) == size
        except NotThereError:
            return False

    def _check(self, size: int, sha256: str) -> None:
        if (self.hashed, self._sha256.hexdigest()) != (size, sha256):
            raise LostError

    # In one piece.

    async def _put(self, sent: _Sent, size: int) -> None:
        empty = Range(0, 0, hashlib.sha256().digest(), self._read_range)
        body = self._ranges[0] if self._ranges else empty
        async with self._place():
            await self._try(False, self._objects.put, sent.key, body)
        await look(self._clock, self._objects, sent.key, size)

    # In parts.

    async def _send(self, end: int, rest: bool, once: bool) -> _Sent:
        """Send the parts before an offset that were not sent yet.

        :param rest: whether what is left after the last whole part is one, too
        :param once: whether to give up after the first try
        """
        sent = await self._begun(end)
        if not sent.multipart.id:
            begun = self._try(once, self._objects.begin, sent.key)
            sent.multipart.id = await begun
        number = 0
        async with Several() as sending:
            while number < len(self._ranges) or await self._hash_next(end, rest):
                number += 1
                if number not in sent.multipart.parts:
                    await sending.wait(AT_ONCE - 1)
                    sending.start(self._send_part(sent, number, once))
        return sent

    async def _send_part(self, sent: _Sent, number: int, once: bool) -> None:
        upload, body = sent.multipart, self._ranges[number - 1]
        try:
            part = self._objects.part
            # The same part, if it is sent twice.
            async with self._place():
                found = await self._try(once, part, sent.key, upload.id, number, body)
        except DeniedError as error:
            self._doubt(sent, error)
            raise
        upload.parts[number] = found

    def _doubt(self, sent: _Sent, error: DeniedError) -> None:
        """Use what was sent no more if the store says that it does not have it."""
        if error.code in _UNUSABLE and self._sent is sent:
            self._sent = None

    async def _try(
        self, once: bool, call: Callable[..., Awaitable[T]], *args: Any
    ) -> T:
        """Make a call that may be made twice."""
        made = partial(call, *args)
        return await again(self._clock, lambda: not (once or self._ended), made)

    # Digests.

    async def _hash(self, end: int, rest: bool) -> None:
        while await self._hash_next(end, rest):
            pass

    async def _hash_next(self, end: int, rest: bool) -> bool:
        """Hash the next part before an offset; returns whether there was one."""
        size = self._size_of(self.hashed)
        if self.hashed + size > end:
            size = end - self.hashed
            if not size or not rest:
                return False
        whole, part, offset = self._sha256.copy(), hashlib.sha256(), 0
        while offset < size:
            start, most = self.hashed + offset, min(size - offset, PIECE)
            offset += await self._run(self._hash_piece, start, most, (whole, part))
        found = Range(self.hashed, size, part.digest(), self._read_range)
        self._ranges.append(found)
        self._sha256 = whole
        self.hashed += size
        self._has_rest = self.hashed == end and rest
        return True

    def _hash_piece(self, start: int, most: int, hashes: tuple[Any, ...]) -> int:
        piece = self._read(start, most)
        for each in hashes:
            each.update(piece)
        return len(piece)

    async def _read_range(self, start: int, most: int) -> bytes:
        try:
            found: bytes = await self._run(self._read, start, most)
        except LostError:
            # It was there when it was hashed.
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
        return found
