"""Connections between two protocols, without a socket and without time.

As with TCP, an end that is paused gets nothing, a full buffer pauses the producer, and
what an end does to the connection shows at the other end only later: when the test
moves the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

_ADDRESS = IPv4Address("TCP", "127.0.0.1", 1)

_SEGMENT = 65536


@implementer(ITCPTransport, IConsumer, IPushProducer)
class End:
    """The transport at one end.

    :ivar lost: whether its protocol knows that the connection is gone
    """

    bufferSize = 65536

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.out = bytearray()
        self.disconnecting = False
        self.aborted = False
        self.lost = False
        self.paused = False
        self.producer: Any = None
        self._producer_paused = False

    def write(self, data: bytes) -> None:
        if self.lost or self.aborted or (self.disconnecting and not self.producer):
            return
        self.out += data
        if self.producer is not None and len(self.out) > self.bufferSize:
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None or not streaming:
            raise AssertionError("not such a producer")
        self.producer = producer
        if self.lost:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.aborted = True

    def loseWriteConnection(self) -> None:
        raise NotImplementedError

    def getHost(self) -> IPv4Address:
        return _ADDRESS

    def getPeer(self) -> IPv4Address:
        return _ADDRESS

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay."""

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing is between the ends."""

    def getTcpKeepAlive(self) -> bool:
        return False

    def drained(self) -> None:
        """Some of what was written has gone."""
        if self._producer_paused and len(self.out) <= self.bufferSize:
            self._producer_paused = False
            if self.producer is not None:
                self.producer.resumeProducing()

    def lose(self, reason: Exception) -> None:
        """Tell the protocol that the connection is gone."""
        if not self.lost:
            self.lost = True
            self.out.clear()
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))


class Cable:
    """A connection."""

    def __init__(self, client: IProtocol, server: IProtocol) -> None:
        self.client, self.server = End(client), End(server)
        server.makeConnection(self.server)
        client.makeConnection(self.client)

    def move(self) -> bool:
        """Let happen what can.

        :returns: whether something did
        """
        moved = self._move(self.client, self.server)
        return self._move(self.server, self.client) or moved

    def _move(self, source: End, target: End) -> bool:
        if source.lost:
            return False
        if source.aborted:
            source.lose(ConnectionAborted())
            target.lose(ConnectionLost())
            return True
        if source.out and not target.paused:
            segment = bytes(source.out[:_SEGMENT])
            del source.out[:_SEGMENT]
            target.protocol.dataReceived(segment)
            source.drained()
            return True
        if source.disconnecting and not source.out and source.producer is None:
            source.lose(ConnectionDone())
            target.lose(ConnectionDone())
            return True
        return False


@implementer(IStreamClientEndpoint)
class Socket:
    """Where a server listens.

    :ivar refuses: whether it is down
    :ivar hangs: whether connecting takes forever
    :ivar cables: all connections
    """

    def __init__(self, server: Callable[[], IProtocol]) -> None:
        self._server = server
        self.refuses = False
        self.hangs = False
        self.cables: list[Cable] = []

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if self.hangs:
            return Deferred()
        if self.refuses:
            return fail(error.ConnectionRefusedError())
        client = factory.buildProtocol(_ADDRESS)
        assert client is not None
        self.cables.append(Cable(client, self._server()))
        return succeed(client)

    def move(self) -> None:
        """Move all data to where it goes."""
        while sum(each.move() for each in self.cables):
            pass

    @property
    def open(self) -> int:
        """Number of connections that their clients have open."""
        return sum(not each.client.lost for each in self.cables)
