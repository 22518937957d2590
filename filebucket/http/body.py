"""A request's body as an asynchronous iterator, with backpressure.

The connection delivers chunks as they arrive, and the consumer iterates over batches of
them. The transport is paused while too many bytes wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from filebucket.base.errors import Refusal

CHUNK_COST = 64
"""Bytes counted for each chunk in addition to its content: otherwise a client that
sends one byte per chunk could fill 40 times the memory allowed."""

MANY = 16
"""Longest batch whose chunks are passed on as they are; those of a longer one are
joined."""

UNASKED = 16 * 1024
"""Bytes of a body that may wait before it is first read: a pre-push hook may take
minutes before that."""


MOST_UNASKED = UNASKED - CHUNK_COST
"""Bytes of a chunk from which on the transport is paused before the body is read."""


class Flow(Protocol):
    """The source of the chunks."""

    def stop_reading(self) -> None:
        """Stop delivering."""

    def read_on(self) -> None:
        """Continue to deliver."""


class Body:
    """A request's body: batches of chunks, in order, as they arrive.

    Iterate it once. Each step returns all chunks that wait, at least one. The transport
    is paused while the maximum number of bytes waits.

    :ivar received: bytes that arrived so far, including dropped ones
    :ivar ended: whether the last byte arrived
    :ivar paused: whether the server, not the client, is the one to continue
    :ivar pauses: number of pauses so far
    """

    def __init__(
        self,
        flow: Flow,
        high_water: Callable[[], int],
        wanted: Callable[[], None],
    ) -> None:
        """
        :param flow: the source of the chunks: the connection
        :param high_water: returns the bytes that may wait; at most :data:`UNASKED`
            apply until the body is first read
        :param wanted: called once, when the body is first read
        """
        self._flow = flow
        self._high_water = high_water
        self._wanted: Callable[[], None] | None = wanted
        self._chunks: list[bytes] = []
        self._size = 0
        self._failure: Refusal | None = None
        self._waiting: Deferred[None] | None = None
        self._dropped = False
        self.received = 0
        self.ended = False
        self.paused = False
        self.pauses = 0

    @property
    def failure(self) -> Refusal | None:
        """The reason if the body will not arrive completely."""
        return self._failure

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> list[bytes]:
        """The chunks that wait, or the next ones.

        :raises Refusal: the body will not arrive completely
        """
        wanted, self._wanted = self._wanted, None
        if wanted is not None and self._failure is None:
            wanted()
        if not self._chunks and not self.ended and self._failure is None:
            self._waiting = Deferred()
            await self._waiting
        if not self._chunks:
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        batch, self._chunks, self._size = self._chunks, [], 0
        if len(batch) > MANY:
            # Each chunk costs time in every later step, too.
            batch = [b"".join(batch)]
        self._resume()
        return batch

    def deliver(self, chunk: bytes) -> None:
        """Take a chunk from the connection."""
        self.received += len(chunk)
        if self._dropped or not chunk:
            return
        self._chunks.append(chunk)
        self._size += len(chunk) + CHUNK_COST
        self._wake()
        # On every chunk, not once: bytes of a read in progress still arrive after a
        # pause, and Twisted resumes when its write buffer drains.
        most = self._high_water()
        if self._wanted is not None:
            most = min(most, UNASKED)
        if self._size >= most:
            self.paused = True
            self.pauses += 1
            self._flow.stop_reading()

    def end(self) -> None:
        """The last byte has arrived."""
        self.ended = True
        self._wake()

    def fail(self, refusal: Refusal) -> None:
        """The body will not arrive completely; its reader gets ``refusal``, after the
        chunks that wait: they may belong to a resumable upload.
        """
        if not self.ended and self._failure is None:
            self._failure = refusal
            self._dropped = True
            if self._wanted is not None:
                # Whether they are ever read is unknown.
                self.drop()
            self._resume()
            self._wake()

    def drop(self) -> None:
        """Receive the rest of the body, but discard it."""
        self._dropped = True
        self._chunks.clear()
        self._size = 0
        self._resume()

    def _resume(self) -> None:
        if self.paused:
            self.paused = False
            self._flow.read_on()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
