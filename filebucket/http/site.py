"""The factory of the connections, and what they have in common: limits, room, the end.

Twisted's access log has each request's target, and with it the token: there is none
here.
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

LEAST_SHARE = 32 * 1024
"""Bytes of a body that may wait however many connections there are."""

DEFAULTS = Limits()


class PushConnection(admission.Connection, Protocol):
    """What a site must know of a connection: a channel, or what becomes one."""

    def close_if_idle(self) -> None:
        """Close where nothing was asked that still wants an answer."""

    def turn_away(self, refusal: Refusal) -> None:
        """Take no more: what has not come whole is answered with ``refusal``."""


class StreamingSite(server.Site):
    """The factory of the channels.

    :ivar trusted: whose ``X-Forwarded-For`` is believed
    :ivar stopping: whether every answer is its connection's last
    :ivar admission: which connections there may be
    :ivar turns: whose chunks are taken apart next
    """

    # Without the proxy that Twisted puts before a channel to speak HTTP/2.
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
        :param refused: told of what was refused before it was a request
        :param trailers: those that are kept, in lower case
        """
        # Without Twisted's timeout: see the module's text.
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
        """The connections that are open."""
        return self.admission.all

    def share(self) -> int:
        """How many bytes of its body a connection may hold."""
        share = self.limits.buffers // max(len(self.admission), 1)
        return min(max(share, LEAST_SHARE), self.limits.buffer)

    def closed(self, channel: PushConnection) -> None:
        """A connection is gone."""
        self.admission.left(channel)
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
        """What TLS offers: Twisted's own has HTTP/2 where h2 is installed."""
        return [b"http/1.1"]

    def log(self, request: http.Request) -> None:
        """Nothing: Twisted's access log has the target, so the token."""

    def wind_down(self) -> None:
        """Close what is idle, and what is busy after its next answer."""
        self.stopping = True
        for channel in self.channels:
            channel.close_if_idle()

    def turn_away(self, refusal: Refusal) -> None:
        """Take no more bytes: whoever still sends is answered with ``refusal``.

        No request begins after this. Those that came whole are answered as they
        would have been.
        """
        for channel in self.channels:
            channel.turn_away(refusal)

    def abort(self) -> None:
        """Drop every connection that is still open."""
        for channel in self.channels:
            channel.drop()
