"""A connection without a socket, for tests of what speaks HTTP.

The whole stack runs, from the channel up; only the transport and the clock
are stood in for.
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
"""Small enough to reach."""


@implementer(IHalfCloseableDescriptor)
class Wire(StringTransport):
    """A transport with a half-close, after which nothing may be written.

    TCP would drop that without a word, and an answer with it.

    :ivar half_closed: whether our sending side was closed
    """

    half_closed = False
    bufferSize = 65536  # as Twisted's have it

    def __init__(self) -> None:
        # Lenient, as TCP is: resuming what was closed does nothing.
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
        raise NotImplementedError("the reactor's, of which there is none")

    writeConnectionLost = readConnectionLost

    def unregisterProducer(self) -> None:
        # TCP does not mind a second time.
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As TLS has it, and TCP."""

    @property
    def paused(self) -> bool:
        return bool(self.producerState == "paused")


class SecureWire(Wire):
    """The same with TLS around it: its ``transport`` is what is beneath."""

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
        """Send each of ``data`` in a segment of its own."""
        for each in data:
            self.channel.dataReceived(each)

    def half_close(self) -> None:
        """Send no more, but still read."""
        self.channel.readConnectionLost()

    def lose(self) -> None:
        """The connection is gone."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def received(self) -> bytes:
        """What was answered since the last call."""
        value: bytes = self.wire.value()
        self.wire.clear()
        return value

    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        """As :meth:`received`, taken apart: status, headers, content."""
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
        """The statuses of what was answered since the last call."""
        return [status for status, _, _ in self.answers()]

    @property
    def closed(self) -> bool:
        """Whether the server closed it, or dropped it."""
        return bool(self.wire.disconnecting)


class Recorder(Resource):
    """Keeps what it is asked to render; ``script`` says what becomes of it."""

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
    """Let the test do it."""


def refuse(request: StreamingRequest) -> None:
    """Answer at once, whatever the body."""
    request.answer(403, {}, b"no\n")


def no(request: StreamingRequest) -> None:
    """Do not even render it."""
    raise Refusal(400, "no")


def echo(request: StreamingRequest) -> None:
    """Read the body and send it back; a refusal is answered."""

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
        """No connection may leave a timer behind, nor make Twisted wonder."""
        self.connection.lose()
        self.assertEqual([], self.connection.clock.getDelayedCalls())
        self.assertEqual([], self.flushWarnings())

    def batch(self, request: StreamingRequest) -> Deferred[list[bytes]]:
        """The next chunks of the body."""
        return Deferred.fromCoroutine(request.body.__anext__())


PUT = b"PUT /t/name HTTP/1.1\r\nHost: h\r\n"


CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"


def put(length: int, *headers: bytes) -> bytes:
    """The head of a PUT with so many bytes to come."""
    lines = [b"Content-Length: %d" % length, *headers]
    return PUT + b"\r\n".join(lines) + b"\r\n\r\n"
