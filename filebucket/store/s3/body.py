"""Sends bodies to an object store, piece by piece.

A body is never in memory as a whole, unless it was there before: the transport has one
piece, and the next one is read when it has sent that.

A finished request of Twisted is a cycle that stays until Python looks for garbage, and
its producer with it, so a producer lets go of everything when it is done.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from filebucket.store.s3.interfaces import IBody

PIECE = 128 * 1024
"""Bytes of a piece. Twisted sends no more at once."""


@implementer(IBody)
@frozen
class MemoryBody:
    """A small body that is in memory."""

    content: bytes = field(repr=False)
    size: int
    sha256: bytes

    @classmethod
    def of(cls, content: bytes) -> MemoryBody:
        """The body with that content."""
        return cls(content, len(content), sha256(content).digest())

    async def read(self, offset: int, most: int) -> bytes:
        return self.content[offset : offset + most]


@implementer(IBodyProducer)
class Sending:
    """One body on its way, once.

    :ivar length: its size in bytes
    :ivar moved: bytes that the transport took so far
    """

    def __init__(self, body: IBody, sent: Callable[[], object]) -> None:
        """
        :param sent: called when the transport took all of the body
        """
        self.length: int = body.size
        self.moved = 0
        self._body: IBody | None = body
        self._sent = sent
        self._consumer: IConsumer | None = None
        self._result: Deferred[None] | None = None
        self._reading: Deferred[bytes] | None = None
        self._paused = False
        self._resumed: Deferred[None] | None = None

    @property
    def done(self) -> bool:
        """Whether the transport took all of the body."""
        return self.moved == self.length

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        result: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._result = result
        Deferred.fromCoroutine(self._produce()).addCallbacks(self._succeed, self._fail)
        return result

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._let_go()
        self.resumeProducing()

    async def ended(self) -> None:
        """Stop, and wait until nothing reads the body any more."""
        self.stopProducing()
        if self._reading is not None:
            waiting: Deferred[None] = Deferred()
            self._reading.addBoth(lambda _: waiting.callback(None))
            await waiting

    def _let_go(self) -> Deferred[None] | None:
        result, self._result = self._result, None
        self._body = self._consumer = None
        return result

    async def _produce(self) -> None:
        while (body := self._body) is not None and not self.done:
            if self._paused:
                self._resumed = Deferred()
                await self._resumed
                continue
            piece = await self._read(body)
            # It may have been stopped in the meantime.
            if self._consumer is not None:
                self.moved += len(piece)
                self._consumer.write(piece)

    async def _read(self, body: IBody) -> bytes:
        """The next piece.

        :raises OSError: it cannot be read, or is not there
        """
        most = min(PIECE, self.length - self.moved)
        self._reading = Deferred.fromCoroutine(_read(body, self.moved, most))
        try:
            piece = await self._reading
        finally:
            self._reading = None
        if not 0 < len(piece) <= most:
            raise OSError("the data of the body has another size")
        return piece

    def _succeed(self, _: None) -> None:
        result = self._let_go()
        if result is not None:
            self._sent()
            result.callback(None)

    def _fail(self, failure: Failure) -> None:
        result = self._let_go()
        if result is not None:
            result.errback(failure)
        else:
            # Stopped before: there is no request that it could fail.
            failure.trap(OSError)


async def _read(body: IBody, offset: int, most: int) -> bytes:
    found: bytes = await body.read(offset, most)
    return found
