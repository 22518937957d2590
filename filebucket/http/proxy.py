"""The PROXY header, with which a load balancer begins a connection that it forwards.

This is HAProxy's protocol, in both versions
(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt): one line, or a binary
header, with the client's address, followed by the client's own bytes.

:func:`read_header` parses a header. :class:`HeaderFirst` is a connection's first
    protocol: it waits for the header, creates the next protocol with the client's
    address, and hands it the transport. So that protocol has the real transport, with
    half-close and buffers, at no extra cost. Twisted's own wrapper hides these, does
    not accept a header that arrives in pieces, and raises on some malformed ones. TLS,
    if used, begins after the header.

A connection that does not begin with a header is dropped and logged: its client is
unknown, so it must never be treated as a push.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from filebucket.base.alarm import Alarm
from filebucket.base.errors import Refusal
from filebucket.http.peer import client_of, log_dropped
from filebucket.http.site import StreamingSite
from filebucket.model.client import Networks

HEADER_TIMEOUT = 10.0
"""Seconds from a connection's start to the end of its header. The header is sent at
once, in one piece; this allows for three lost packets."""

MOST_TEXT = 107
"""Bytes of the longest possible header of version 1, with its CR LF."""

MOST_BINARY = 4096
"""Bytes of a header of version 2, with the fields after the addresses, such as names or
the subject of a certificate."""

_LINE_BEGIN = b"PROXY "
_BINARY_BEGIN = b"\r\n\r\n\0\r\nQUIT\n"
_BINARY_HEAD = len(_BINARY_BEGIN) + 4


@frozen
class Header:
    """A parsed header.

    :param client: the proxy's client; None if the header does not name one, as in a
        health check by the proxy itself
    :param size: bytes of the header
    """

    client: IAddress | None
    size: int


def read_header(data: bytes) -> Header | None:
    """Parse the header at the beginning of a connection.

    :returns: None if it is not complete
    :raises ValueError: there is none, or it is malformed
    """
    if data.startswith(_BINARY_BEGIN[: len(data)]):
        return _read_binary(data) if len(data) >= _BINARY_HEAD else None
    if data.startswith(_LINE_BEGIN[: len(data)]):
        return _read_line(data)
    raise ValueError("no PROXY header")


def _read_line(data: bytes) -> Header | None:
    line, end, _ = data[:MOST_TEXT].partition(b"\r\n")
    if not end:
        if len(data) >= MOST_TEXT:
            raise ValueError("unterminated PROXY header")
        return None
    size = len(line) + len(end)
    match line.decode("latin-1").split(" "):
        case ["PROXY", "UNKNOWN", *_]:
            return Header(None, size)
        case ["PROXY", "TCP4" | "TCP6" as family, source, to, port, to_port]:
            _address(family, to, to_port)
            return Header(_address(family, source, port), size)
    raise ValueError("malformed PROXY header")


def _address(family: str, host: str, port: str) -> IAddress:
    try:
        ip = ip_address(host)
    except ValueError:
        raise ValueError("malformed address in the PROXY header") from None
    if ip.version != int(family[-1]) or "%" in host:
        raise ValueError("address of another family in the PROXY header")
    # No sign, no space, no other digits, no leading zeros.
    if not port.isdecimal() or str(int(port)) != port or int(port) > 65535:
        raise ValueError("malformed port in the PROXY header")
    return _made(host, int(port))


def _made(host: str, port: int) -> IAddress:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


# By address family and transport protocol.
_PACKED = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}
_PACKED_UNIX = 0x31
_UNSPECIFIED = 0x00


def _read_binary(data: bytes) -> Header | None:
    version, family, length = struct.unpack_from("!BBH", data, len(_BINARY_BEGIN))
    size = _BINARY_HEAD + length
    if version not in {0x20, 0x21}:
        raise ValueError("unknown version or command in the PROXY header")
    if size > MOST_BINARY:
        raise ValueError("the PROXY header is too long")
    if len(data) < size:
        return None
    if version == 0x20 or family == _UNSPECIFIED:
        return Header(None, size)
    if family == _PACKED_UNIX:
        return Header(UNIXAddress(None), size)
    if family not in _PACKED:
        raise ValueError("unknown address family in the PROXY header")
    packed = _PACKED[family]
    if length < packed.size:
        raise ValueError("no addresses in the PROXY header")
    source, _, port, _ = packed.unpack_from(data, _BINARY_HEAD)
    return Header(_made(str(ip_address(source)), port), size)


class HeaderFirst(Protocol):
    """Waits for the header, then hands its transport to the next protocol.

    To the site it is a connection without a push from the beginning, so connections
    that send no header count, too.
    """

    transport: Any
    _held = False

    def __init__(
        self,
        site: StreamingSite,
        make: Callable[[IAddress | None], IProtocol | None],
        peer: IAddress,
    ) -> None:
        """
        :param make: makes the next protocol for a client's address
        :param peer: the connected peer
        """
        self._site = site
        self._deadline = Alarm(site.reactor)
        self._make = make
        self._peer = peer
        self._data = b""

    def connectionMade(self) -> None:
        self._site.admission.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            header = read_header(self._data)
        except ValueError as error:
            self._drop(str(error))
            return
        if header is not None:
            self._hand_over(header)

    def _hand_over(self, header: Header) -> None:
        rest = self._data[header.size :]
        self._deadline.stop()
        following = self._make(header.client or self._peer)
        assert following is not None
        # Like Twisted for STARTTLS.
        self.transport.protocol = following
        # Keep this connection's place: if a waiting connection got it, the next
        # protocol would have to wait with a request that may have arrived already.
        self._site.admission.hand_over(
            self, partial(following.makeConnection, self.transport)
        )
        if rest:
            following.dataReceived(rest)

    def _late(self) -> None:
        self._drop(f"no PROXY header within {HEADER_TIMEOUT:g} seconds")

    def _drop(self, reason: str) -> None:
        log_dropped(client_of(self._peer), reason)
        # Ignore everything that still arrives.
        self._data = b""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._data:
            log_dropped(client_of(self._peer), "incomplete PROXY header")
        # A connection without any bytes is a load balancer's health check.
        self._gone()

    def _gone(self) -> None:
        self._deadline.stop()
        self._site.closed(self)

    # The site's interface of a connection.

    busy = False

    def hold(self) -> None:
        self._held = True
        self.transport.pauseProducing()

    def admit(self) -> None:
        self._deadline.set(HEADER_TIMEOUT, self._late)
        if self._held:
            self.transport.resumeProducing()

    def drop(self) -> None:
        self.transport.abortConnection()

    def close_if_idle(self) -> None:
        self.transport.abortConnection()

    def turn_away(self, refusal: Refusal) -> None:
        self.transport.abortConnection()


class HeaderFirstFactory(Factory):
    """Makes the first protocols.

    :ivar following: the factory of the next protocols
    """

    noisy = False

    def __init__(self, site: StreamingSite, following: Any, trusted: Networks) -> None:
        """
        :param trusted: networks whose header is believed; if empty, every client's is
        """
        self._site = site
        self.following = following
        self._trusted = trusted

    def doStart(self) -> None:
        self.following.doStart()
        super().doStart()

    def doStop(self) -> None:
        self.following.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> HeaderFirst | None:
        peer = addr or UNIXAddress(None)
        client = client_of(peer)
        if self._trusted and client not in self._trusted:
            log_dropped(client, "not in trusted_proxies")
            return None
        return HeaderFirst(self._site, self.following.buildProtocol, peer)


@implementer(IStreamServerEndpoint)
class HeaderFirstEndpoint:
    """An endpoint whose connections begin with a header."""

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        trusted: Networks,
        secure: Callable[[IProtocolFactory], IProtocolFactory] | None = None,
    ) -> None:
        """
        :param trusted: networks whose header is believed; if empty, every client's is
        :param secure: wraps a factory in TLS, if it is used
        """
        self._endpoint = endpoint
        self._trusted = trusted
        self._secure = secure

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        following = protocolFactory
        if self._secure is not None:
            following = self._secure(following)
        assert isinstance(protocolFactory, StreamingSite)
        factory = HeaderFirstFactory(protocolFactory, following, self._trusted)
        return self._endpoint.listen(factory)
