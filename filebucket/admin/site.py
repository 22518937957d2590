"""The admin listener: read-only HTTP for monitoring, on a separate address.

It answers GET and HEAD, and reads no request body. It has no password, so it is for
this machine, or for a reverse proxy that asks for a password.

Resources: :class:`AdminSite` has a table from the only component of a path (``""`` is
``/``, ``"metrics"`` is ``/metrics``) to a Twisted resource. ``render(request)`` returns
bytes, or ``NOT_DONE_YET`` and calls ``request.answer(status, content, type)`` or
``request.processingFailed(failure)`` later, even if the client has disconnected. HEAD
needs no code. A resource that waits for a disk is a :class:`SharedAnswer`. All other
requests get one line of text.

Browsers: the headers of every answer forbid everything except displaying it. A page
with styles, scripts or images sets ``Content-Security-Policy`` to :data:`PAGE_POLICY`,
which allows them from this listener only. A web page could use DNS rebinding to reach a
loopback listener through a browser on this machine, so on a loopback address ``Host``
must be ``localhost`` or an IP address. On other addresses any name is accepted, because
the names of this machine are unknown.

Limits: a connection has :data:`TIMEOUT` from an answer to the end of the next request's
headers, and the same to read the answer. While an answer does not fit into the buffers
of kernel and transport, no other request is read. With :data:`CONNECTIONS` open, a new
connection closes the one that has been idle for the longest time.

This module must not depend on buckets, and must never log a request's target, because
people paste URLs with tokens.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource

from filebucket.admin.singleflight import SingleFlight, TooSlowError
from filebucket.base.errors import phrase
from filebucket.http.admission import Admission
from filebucket.model.client import client

CONNECTIONS = 64
"""Maximum number of connections: a scraper, some browsers, and hostile clients."""

TIMEOUT = 90.0
"""Seconds. Longer than the usual scrape interval, one minute."""

DEADLINE = 8.0
"""Timeout of a :class:`SharedAnswer`, in seconds: less than the 10 of Prometheus."""

TEXT = b"text/plain; charset=utf-8"

PAGE_POLICY = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
    b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the status page."""

_HEADERS: Mapping[bytes, bytes] = {
    b"Cache-Control": b"no-store",
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Referrer-Policy": b"no-referrer",
    b"X-Content-Type-Options": b"nosniff",
}
"""Default headers of every answer."""

_GZIP = re.compile(rb"(?:^|[,\s])gzip\s*(?:$|,|;\s*q=(?:1|0?\.0*[1-9]))")

_HOST = re.compile(rb"(?:\[(?P<ip>[^\]]*)\]|(?P<name>[^:]*))(?::[0-9]*)?")


class Message(Resource):
    """A resource that answers one line of text."""

    isLeaf = True

    def __init__(self, status: int, text: str) -> None:
        super().__init__()
        self._status = status
        self._text = f"{text}\n".encode()

    def render(self, request: AdminRequest) -> int:
        request.answer(self._status, self._text)
        return server.NOT_DONE_YET


_NOTHING = Message(404, "not found")
_READ_ONLY = Message(405, "only GET and HEAD are allowed")
_NO_BODY = Message(400, "a request body is not accepted")
_OTHER_NAME = Message(
    421,
    "on a loopback address, the Host header must be localhost or an IP address; a"
    " reverse proxy must not pass on the client's Host header",
)


@frozen
class AdminAnswer:
    """An answer.

    :param kind: media type of ``content``
    :param packed: ``content`` compressed with gzip, for clients that accept that
    :param headers: additional headers
    :param kept: seconds for which the answer may be reused
    """

    status: int
    content: bytes
    kind: bytes = TEXT
    packed: bytes | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    kept: float = 0.0


TOO_SLOW = AdminAnswer(503, b"the disk did not answer within %d seconds\n" % DEADLINE)


class SharedAnswer(Resource):
    """A slow answer, which is computed once for all clients that ask meanwhile. If it
    takes too long, they get ``too_slow``, and no second computation starts.
    """

    isLeaf = True

    def __init__(
        self,
        clock: IReactorTime,
        find: Callable[[], Awaitable[AdminAnswer]],
        deadline: float = DEADLINE,
        too_slow: Callable[[], AdminAnswer] = lambda: TOO_SLOW,
    ) -> None:
        """
        :param find: computes the answer
        :param deadline: timeout in seconds
        :param too_slow: returns the answer after the timeout
        """
        super().__init__()
        self._too_slow = too_slow
        self._flight = SingleFlight(
            clock, find, deadline, kept=lambda answer: answer.kept
        )

    def render(self, request: AdminRequest) -> int:
        asked = self._flight.ask()
        request.notifyFinish().addErrback(lambda gone: asked.cancel())
        asked.addErrback(self._replace)
        asked.addCallback(request.give)
        # The client may have disconnected.
        asked.addErrback(lambda failure: failure.trap(CancelledError))
        asked.addErrback(request.processingFailed)
        return server.NOT_DONE_YET

    def _replace(self, failure: Failure) -> AdminAnswer:
        failure.trap(TooSlowError)
        return self._too_slow()


class AdminRequest(server.Request):
    """A request to the admin listener.

    :ivar has_body: whether the request has a body
    """

    _log = Logger()

    has_body = False

    def render(self, resource: IResource) -> None:
        content: Any = resource.render(self)
        if content is not server.NOT_DONE_YET:
            kinds = self.responseHeaders.getRawHeaders(b"Content-Type") or [TEXT]
            self.answer(200, content, kinds[0])

    def answer(self, status: int, content: bytes, kind: bytes = TEXT) -> None:
        """Send the answer, unless the client has disconnected. Call it once."""
        if self.channel is None:
            return
        self.setResponseCode(status, phrase(status))
        self.setHeader(b"Content-Type", kind)
        self.setHeader(b"Content-Length", b"%d" % len(content))
        self.write(content)
        self.finish()

    def give(self, answer: AdminAnswer) -> None:
        """Send ``answer``."""
        content = answer.content
        for name, value in answer.headers:
            self.setHeader(name, value)
        if answer.packed is not None:
            self.setHeader(b"Vary", b"Accept-Encoding")
            if _GZIP.search(self.getHeader(b"Accept-Encoding") or b""):
                self.setHeader(b"Content-Encoding", b"gzip")
                content = answer.packed
        self.answer(answer.status, content, answer.kind)

    def processingFailed(self, reason: Failure) -> None:
        """Log the failure, and answer 500. Usable as an errback."""
        self._log.failure("a bug in file-bucket", reason, event="bug")
        if not self.startedWriting:
            self.answer(500, b"internal error; see the server's log\n")
        elif self.channel is not None:
            self.channel.loseConnection()

    @property
    def refused(self) -> Message | None:
        """The answer if the request is refused regardless of its path."""
        if self.method not in {b"GET", b"HEAD"}:
            self.setHeader(b"Allow", b"GET, HEAD")
            return _READ_ONLY
        if self.has_body:
            return _NO_BODY
        if _is_loopback(self.getHost()):
            names = self.requestHeaders.getRawHeaders(b"Host", [])
            if not all(_is_own_name(name) for name in names):
                return _OTHER_NAME
        return None


def _is_loopback(address: object) -> bool:
    if not isinstance(address, IPv4Address | IPv6Address):
        return False
    ip = client(address.host, 0).ip
    return ip is not None and ip.is_loopback


def _is_own_name(host: bytes) -> bool:
    """Whether ``host`` is localhost or an IP address, which need no DNS."""
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return False
    name = (found["ip"] or found["name"] or b"").decode("latin-1").lower()
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class AdminChannel(http.HTTPChannel):
    """A connection to the admin listener."""

    site: AdminSite
    transport: Any

    totalHeadersSize = 16 * 1024
    maxHeaders = 100

    # Whether a request is being answered.
    busy = False
    _held = False
    _closing = False
    # The request whose answer the client must read before the next request.
    _unread: AdminRequest | None = None

    # Admission.

    def connectionMade(self) -> None:
        super().connectionMade()
        # The timeout starts when the connection is admitted.
        self.setTimeout(None)
        self.site.admission.connected(self)

    def hold(self) -> None:
        """Pause reading until another connection closes."""
        self._held = True
        self.transport.pauseProducing()

    def admit(self) -> None:
        """Start reading."""
        self.setTimeout(TIMEOUT)
        if self._held:
            self.transport.resumeProducing()

    def drop(self) -> None:
        """Close the connection in favor of another one."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        self.site.admission.disconnected(self)
        super().connectionLost(reason)

    # Timeouts.

    def resetTimeout(self) -> None:
        """Do nothing: Twisted would restart the timeout at every byte."""

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def loseConnection(self) -> None:
        self._closing = True
        self.setTimeout(TIMEOUT)
        super().loseConnection()

    # Requests.

    def dataReceived(self, data: bytes) -> None:
        # TLS delivers data until the other side closes, too.
        if not self._closing:
            super().dataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # Twisted does not catch the error of Python's int() for a Content-Length
            # of more than 4,300 digits.
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        request.has_body = self.length != 0
        # The body is not read: Twisted must not wait for it, nor send 100 Continue.
        self.length = 0
        request.requestHeaders.removeHeader(b"Expect")
        super().allHeadersReceived()
        if request.has_body:
            self.persistent = False
        self.busy = True

    def requestDone(self, request: AdminRequest) -> None:
        self.busy = False
        self.site.admission.answered(self)
        if self._waitingForTransport:
            # Otherwise the answers to thousands of pipelined requests would fill the
            # memory if the client does not read them.
            self._unread = request
            self._networkProducer.pauseProducing()
            self.setTimeout(TIMEOUT)
            return
        super().requestDone(request)

    def resumeProducing(self) -> None:
        super().resumeProducing()
        request, self._unread = self._unread, None
        if request is not None:
            super().requestDone(request)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted calls this for everything that is not a request.
        if self._closing:
            return
        content = b"malformed or oversized request\n"
        headers = Headers()
        for name, value in (
            (b"Content-Type", TEXT),
            (b"Content-Length", b"%d" % len(content)),
            (b"Connection", b"close"),
        ):
            headers.setRawHeaders(name, [value])
        self.writeHeaders(b"HTTP/1.1", b"400", phrase(400), headers)
        self.write(content)
        self.loseConnection()

    # Answers.

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Any
    ) -> None:
        # All answers pass here, including those of Twisted.
        headers.removeHeader(b"Server")
        for name, value in _HEADERS.items():
            if not headers.hasHeader(name):
                headers.setRawHeaders(name, [value])
        if not self.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)


class AdminSite(server.Site):
    """The factory of the connections.

    :ivar admission: the open connections
    """

    # Without Twisted's wrapper that negotiates HTTP/2.
    protocol = AdminChannel  # type: ignore[assignment]
    requestFactory = AdminRequest
    displayTracebacks = False
    noisy = False

    def __init__(
        self, reactor: IReactorTime, resources: Mapping[str, IResource]
    ) -> None:
        """
        :param resources: resources by the only component of their path
        """
        super().__init__(Resource(), reactor=reactor, timeout=TIMEOUT)
        self._resources = dict(resources)
        self.admission = Admission(reactor, CONNECTIONS)

    def getResourceFor(self, request: AdminRequest) -> IResource:
        refused = request.refused
        if refused is not None:
            return refused
        path: Any = request.postpath
        name, *rest = path
        if rest:
            return _NOTHING
        return self._resources.get(name.decode("latin-1"), _NOTHING)

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols for TLS: Twisted would offer HTTP/2 if h2 is installed."""
        return [b"http/1.1"]

    def log(self, request: http.Request) -> None:
        """Log nothing: a URL may contain a token."""

    def close(self) -> None:
        """Close all connections, even during an answer."""
        self.admission.stop()
        for each in self.admission.all:
            each.drop()
