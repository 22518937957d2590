"""Connections to the endpoints of an object store, with TLS if the URL asks for it.

The certificate of an endpoint must be valid for its host name or address, and signed by
an authority that the system trusts, or by one of those that the operator chose.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.base.text import printable
from filebucket.model.objects import S3

TLS_ERRORS = (SSL.Error, VerificationError)
"""What a TLS handshake fails with."""


@implementer(IHandshakeListener)
class Wire(ProtocolWrapper):
    """A connection.

    :ivar secured: fires when it can be used: at once, or after the TLS handshake
    :ivar left: bytes that may still come
    """

    left = 0
    _sending = False

    transport: Any
    factory: Any

    def __init__(self, factory: Any, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self.secured: Deferred[None] = Deferred()

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        self._hurry()
        if not self.factory.secure:
            self._fire(None)

    def handshakeCompleted(self) -> None:
        # Twisted 24.11 calls it, too, after it found the name of another host and
        # dropped the connection. The reason is coming.
        if not self.transport.disconnecting:
            self._fire(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fire(reason)
        super().connectionLost(reason)

    def _fire(self, result: Failure | None) -> None:
        if not self.secured.called:
            self.secured.callback(result)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._sending = True
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._sending = False
        super().unregisterProducer()

    def pauseProducing(self) -> None:
        # Twisted pauses at the end of the headers, until the answer is asked for, which
        # it gives away only after the request. A store that refuses a body does not
        # read it.
        if not self._sending:
            self.transport.pauseProducing()

    def write(self, data: bytes) -> None:
        super().write(data)
        self._hurry()

    def _hurry(self) -> None:
        """Acknowledge what comes at once, until Linux decides otherwise again.

        An answer is often in two packets, and a gateway that uses Nagle's algorithm, as
        Ceph's does, sends the second one only when the first is acknowledged: 40 ms
        later.
        """
        transport: Any = self.transport
        while transport is not None:
            # Under TLS there is another transport.
            connection = getattr(transport, "socket", None)
            if connection is not None:
                with suppress(OSError, AttributeError):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                return
            transport = getattr(transport, "transport", None)

    def dataReceived(self, data: bytes) -> None:
        self._hurry()
        self.left -= len(data)
        if self.left < 0:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)


class Wires(WrappingFactory):
    """Makes connections.

    :ivar secure: whether they have TLS
    """

    noisy = False
    protocol = Wire

    def __init__(
        self, wrapped: IProtocolFactory, secure: bool, every: set[Wire]
    ) -> None:
        """
        :param every: all open ones
        """
        super().__init__(wrapped)
        self.secure = secure
        self._every = every

    def doStart(self) -> None:
        """The wrapped factory would write a log line for each connection."""

    doStop = doStart

    def registerProtocol(self, p: Wire) -> None:
        self._every.add(p)

    def unregisterProtocol(self, p: Wire) -> None:
        self._every.discard(p)


@implementer(IStreamClientEndpoint)
class Place:
    """An endpoint.

    :ivar url: as it is configured
    :ivar host: as the ``Host`` of requests
    :ivar name: for messages
    """

    def __init__(
        self, url: str, endpoint: IStreamClientEndpoint, every: set[Wire]
    ) -> None:
        self.url = url
        self.host = urlsplit(url).netloc
        self.name = f"object store {self.host}"
        self._endpoint = endpoint
        self._every = every

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and do the TLS handshake."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        secure = self.url.startswith("https:")
        wire: Any = await self._endpoint.connect(Wires(factory, secure, self._every))
        try:
            await wire.secured
        except BaseException:
            wire.abortConnection()
            raise
        protocol: IProtocol = wire.wrappedProtocol
        return protocol


def tls_text(error: Exception) -> str:
    """The reason of one of :data:`TLS_ERRORS`."""
    if isinstance(error, VerificationError):
        return "its certificate is for another host"
    try:
        return printable(str(error.args[0][0][2]))
    except (IndexError, TypeError):
        return "no reason given"


def connector(reactor: Any, s3: S3) -> Callable[[str], IStreamClientEndpoint]:
    """How to connect to an endpoint by its URL.

    :raises OperatorError: the file with the certificates cannot be used
    """
    trusted = None if s3.ca is None else _authorities(s3.ca)

    def connect(url: str) -> IStreamClientEndpoint:
        parts = urlsplit(url)
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        endpoint = HostnameEndpoint(reactor, host, port)
        if not secure:
            return endpoint
        options = optionsForClientTLS(host, trustRoot=trusted)
        found: IStreamClientEndpoint = wrapClientTLS(options, endpoint)
        return found

    return connect


def _authorities(path: str) -> Any:
    place = printable(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise OperatorError(f"{place}: {error.strerror}") from None
    try:
        found = load_pem_x509_certificates(content)
    except ValueError:
        raise OperatorError(f"{place}: no certificates in PEM format") from None
    return trustRootFromCertificates(
        [TwistedCertificate(X509.from_cryptography(each)) for each in found]
    )
