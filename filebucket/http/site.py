"""The factory of connections, and their common limits and shutdown.

Twisted's access log is disabled, because it contains each request's target, and with it
the token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web import http, server
from twisted.web.resource import IResource

from filebucket.base.errors import Refusal
from filebucket.http import admission
from filebucket.http.admission import Admission
from filebucket.http.channel import Limits, StreamingChannel, StreamingRequest
from filebucket.http.peer import client_of
from filebucket.http.turns import Turns
from filebucket.model.client import NOBODY, Client, Networks

LEAST_SHARE = 16 * 1024
"""Bytes of a body that may wait, whatever the number of connections."""

DEFAULTS = Limits()


class PushConnection(admission.Connection, Protocol):
    """A connection, as the site sees it: a channel, or a protocol that becomes one."""

    def close_if_idle(self) -> None:
        """Close, unless a request waits for its answer."""

    def turn_away(self, refusal: Refusal) -> None:
        """Stop reading: answer an incomplete request with ``refusal``."""


class StreamingSite(server.Site):
    """The factory of the channels.

    :ivar trusted: networks whose ``X-Forwarded-For`` is believed
    :ivar stopping: whether each connection closes after its next answer
    :ivar admission: limits the connections
    :ivar turns: the queue of connections with chunks left to decode
    """

    # Without the proxy class that Twisted puts before a channel for HTTP/2.
    protocol = StreamingChannel  # type: ignore[assignment]
    requestFactory = StreamingRequest
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        refused: Callable[[Client, Refusal], object],
        limits: Limits = DEFAULTS,
        trusted: Networks = NOBODY,
        trailers: frozenset[bytes] = frozenset(),
    ) -> None:
        """
        :param resource: the root of the tree
        :param refused: called with each refusal of input that was not a request
        :param trailers: the trailers that are kept, in lower case
        """
        # The channel has its own timeouts: see its module.
        super().__init__(resource, reactor=reactor, timeout=None)
        self.refused = refused
        self.limits = limits
        self.trusted = trusted
        self.trailers = trailers
        self.stopping = False
        self.admission = Admission(reactor, limits.connections)
        self.turns = Turns(reactor)
        self._emptied: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel: Any = super().buildProtocol(addr)
        channel.client = client_of(addr)
        return channel

    @property
    def channels(self) -> list[PushConnection]:
        """The open connections."""
        return self.admission.all

    def share(self) -> int:
        """Bytes of its body that a connection may hold."""
        share = self.limits.buffers // max(len(self.admission), 1)
        return min(max(share, LEAST_SHARE), self.limits.buffer)

    def closed(self, channel: PushConnection) -> None:
        """A connection has closed."""
        self.admission.disconnected(channel)
        if not self.admission.anybody:
            emptied, self._emptied = self._emptied, []
            for waiting in emptied:
                waiting.callback(None)

    def emptied(self) -> Deferred[None]:
        """Fires when no connection is left."""
        waiting: Deferred[None] = Deferred()
        if self.admission.anybody:
            self._emptied.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols that TLS offers: Twisted would add HTTP/2, if h2 is there."""
        return [b"http/1.1"]

    def log(self, request: http.Request) -> None:
        """Log nothing: Twisted's access log contains the target, and so the token."""

    def wind_down(self) -> None:
        """Close idle connections now, and the others after their next answer."""
        self.stopping = True
        for channel in self.channels:
            channel.close_if_idle()

    def turn_away(self, refusal: Refusal) -> None:
        """Stop reading: answer each incomplete request with ``refusal``.

        No request begins after this. Complete requests get their normal answer.
        """
        for channel in self.channels:
            channel.turn_away(refusal)

    def abort(self) -> None:
        """Drop all open connections."""
        for channel in self.channels:
            channel.drop()
