"""A request's body as an asynchronous iterator, with backpressure.

The connection delivers chunks as they arrive; whoever wants the body iterates over
batches of them. While more waits than may, the transport is paused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from filebucket.base.errors import Refusal

CHUNK_COST = 64
"""Bytes that a chunk is counted for beside its own: a client that sends one
byte a chunk would else fill 40 times the memory that it may."""

MANY = 16
"""Chunks of a batch that are handed on one by one; more are put together first."""

UNASKED = 64 * 1024
"""Bytes of a body that may wait before anybody asks for it: for its pre-push, say,
which may take minutes."""


class Flow(Protocol):
    """What brings the chunks."""

    def stop_reading(self) -> None:
        """Bring no more."""

    def read_on(self) -> None:
        """Go on."""


class Body:
    """A request's body: batches of chunks, in order, as they arrive.

    Iterate it once. Each step gives all chunks that wait, at least one; the
    transport is paused while as many bytes wait as may.

    :ivar received: bytes that arrived so far, dropped ones included
    :ivar ended: whether the last byte arrived
    :ivar paused: whether it is our turn, not the client's
    :ivar pauses: how often it became our turn
    """

    def __init__(
        self,
        flow: Flow,
        high_water: Callable[[], int],
        wanted: Callable[[], None],
    ) -> None:
        """
        :param flow: what brings the chunks: the connection
        :param high_water: bytes that may wait, :data:`UNASKED` at most until somebody
            asks for the body
        :param wanted: called once, when somebody first asks for the body
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
        """Why the body will not come whole, if it will not."""
        return self._failure

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> list[bytes]:
        """The chunks that wait, or the next ones.

        :raises Refusal: the body will not come whole
        """
        wanted, self._wanted = self._wanted, None
        if wanted is not None and self._failure is None:
            wanted()
        if not self._chunks and not self.ended and self._failure is None:
            self._waiting = Deferred()
            await self._waiting
        if self._failure is not None:
            raise self._failure
        if not self._chunks:
            raise StopAsyncIteration
        batch, self._chunks, self._size = self._chunks, [], 0
        if len(batch) > MANY:
            # Each has a cost of its own, and whoever gets them would bear it, too.
            batch = [b"".join(batch)]
        self._resume()
        return batch

    def deliver(self, chunk: bytes) -> None:
        """The connection brought ``chunk``."""
        self.received += len(chunk)
        if self._dropped or not chunk:
            return
        self._chunks.append(chunk)
        self._size += len(chunk) + CHUNK_COST
        self._wake()
        # Again and again, not once: bytes of a read that was under way still
        # come after a pause, and Twisted resumes when its write buffer drains.
        most = self._high_water()
        if self._wanted is not None:
            most = min(most, UNASKED)
        if self._size >= most:
            self.paused = True
            self.pauses += 1
            self._flow.stop_reading()

    def end(self) -> None:
        """The connection brought the last byte."""
        self.ended = True
        self._wake()

    def fail(self, refusal: Refusal) -> None:
        """The body will not come whole; whoever reads it gets ``refusal``."""
        if not self.ended and self._failure is None:
            self._failure = refusal
            self.drop()
            self._wake()

    def drop(self) -> None:
        """Nobody wants what is left: let it come, and forget it."""
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
