"""A connection without a socket, for tests of HTTP.

Everything from the channel up is real; only the transport and the clock are fake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    ISSLTransport,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import directlyProvides, implementer, providedBy

from filebucket.base.errors import Refusal
from filebucket.http.channel import (
    Limits,
    StreamingChannel,
    StreamingRequest,
)
from filebucket.http.site import StreamingSite
from filebucket.model.client import NOBODY, Client, Networks
from filebucket.web import digests

LIMITS = Limits(
    idle=60,
    headers=30,
    rate_window=60,
    rate=10,
    buffer=500,
    drain=1000,
    linger=5000,
    linger_time=20,
)
"""Limits that are small enough to reach."""


@implementer(IHalfCloseableDescriptor)
class Wire(StringTransport):
    """A transport with a half-close, after which nothing may be written.

    TCP would drop such data silently, and an answer with it.

    :ivar half_closed: whether our sending side is closed
    """

    half_closed = False
    bufferSize = 65536  # as in Twisted's

    def __init__(self) -> None:
        # As lenient as TCP: resuming a closed connection does nothing.
        super().__init__(lenient=True)

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def write(self, data: bytes) -> None:
        self._check_open(data)
        super().write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        data = list(data)
        self._check_open(*data)
        super().writeSequence(data)

    def _check_open(self, *data: bytes) -> None:
        if self.half_closed:
            raise AssertionError(f"{data!r} is written after the half-close")

    def readConnectionLost(self, reason: Failure) -> None:
        raise NotImplementedError("there is no reactor")

    writeConnectionLost = readConnectionLost

    def unregisterProducer(self) -> None:
        # TCP allows a second close.
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """For TLS and TCP."""

    @property
    def paused(self) -> bool:
        return bool(self.producerState == "paused")


class SecureWire(Wire):
    """With TLS; its ``transport`` is the TCP beneath."""

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, providedBy(self), ISSLTransport)
        self.transport = Wire()


class Connection:
    """A client's end of a connection to a resource tree."""

    def __init__(
        self,
        root: Resource,
        limits: Limits = LIMITS,
        wire: Wire | None = None,
        trusted: Networks = NOBODY,
    ) -> None:
        self.clock = Clock()
        self.refused: list[Refusal] = []
        self.refused_from: list[str] = []
        trailers = frozenset(each.encode("ascii") for each in digests.HEADERS)
        self.site = StreamingSite(
            root, self.clock, self._refuse, limits, trusted, trailers
        )
        self.wire = wire or Wire()
        self.channel = self.connect(self.wire)

    def connect(self, wire: Wire) -> StreamingChannel:
        """Another connection to the same site."""
        channel = self.site.buildProtocol(wire.getPeer())
        assert isinstance(channel, StreamingChannel)
        channel.makeConnection(wire)
        return channel

    def _refuse(self, client: Client, refusal: Refusal) -> None:
        self.refused.append(refusal)
        self.refused_from.append(client.text)

    def send(self, *data: bytes) -> None:
        """Send each of ``data`` in its own segment."""
        for each in data:
            self.channel.dataReceived(each)

    def half_close(self) -> None:
        """Send no more, but still read."""
        self.channel.readConnectionLost()

    def lose(self) -> None:
        """The connection is lost."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def received(self) -> bytes:
        """The answers since the last call, as bytes."""
        value: bytes = self.wire.value()
        self.wire.clear()
        return value

    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        """The answers since the last call: status, headers, content."""
        found = []
        rest = self.received()
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            line, *lines = head.decode("ascii").split("\r\n")
            headers = {}
            for each in lines:
                name, _, value = each.partition(": ")
                headers[name.lower()] = value
            length = int(headers.get("content-length", 0))
            found.append((int(line.split()[1]), headers, rest[:length]))
            rest = rest[length:]
        return found

    def statuses(self) -> list[int]:
        """The statuses since the last call."""
        return [status for status, _, _ in self.answers()]

    @property
    def closed(self) -> bool:
        """Whether the server closed or dropped it."""
        return bool(self.wire.disconnecting)


class Recorder(Resource):
    """Records requests; ``script`` answers them."""

    isLeaf = True

    def __init__(self, script: Callable[[StreamingRequest], object]) -> None:
        super().__init__()
        self.script = script
        self.requests: list[StreamingRequest] = []

    def render(self, request: StreamingRequest) -> int:
        self.requests.append(request)
        self.script(request)
        return NOT_DONE_YET


def nothing(request: StreamingRequest) -> None:
    """Leave the answer to the test."""


def refuse(request: StreamingRequest) -> None:
    """Answer at once, whatever the body."""
    request.answer(403, {}, b"no\n")


def no(request: StreamingRequest) -> None:
    """Refuse to render it."""
    raise Refusal(400, "no")


def echo(request: StreamingRequest) -> None:
    """Send the body back, or answer its refusal."""

    async def reading() -> None:
        try:
            content = b"".join([b"".join(batch) async for batch in request.body])
        except Refusal as refusal:
            request.answer(refusal.status, {}, refusal.reason.encode())
        else:
            request.answer(200, {}, content)

    Deferred.fromCoroutine(reading())


class StreamingCase(SynchronousTestCase):
    """Has a connection to a :class:`Recorder`."""

    def connect(
        self,
        script: Callable[[StreamingRequest], object] = nothing,
        wire: Wire | None = None,
        limits: Limits = LIMITS,
        trusted: Networks = NOBODY,
    ) -> Connection:
        self.root = Recorder(script)
        self.connection = Connection(self.root, limits, wire, trusted)
        self.addCleanup(self.check_clock)
        return self.connection

    def check_clock(self) -> None:
        """No connection may leave a timer, and Twisted must log nothing."""
        self.connection.lose()
        self.assertEqual([], self.connection.clock.getDelayedCalls())
        self.assertEqual([], self.flushWarnings())

    def batch(self, request: StreamingRequest) -> Deferred[list[bytes]]:
        """The next chunks of the body."""
        return Deferred.fromCoroutine(request.body.__anext__())


PUT = b"PUT /t/name HTTP/1.1\r\nHost: h\r\n"


CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"


def put(length: int, *headers: bytes) -> bytes:
    """The head of a PUT with a body of this size."""
    lines = [b"Content-Length: %d" % length, *headers]
    return PUT + b"\r\n".join(lines) + b"\r\n\r\n"
