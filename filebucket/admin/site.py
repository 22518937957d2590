"""The admin listener: HTTP for whoever watches the daemon, on an address of its own.

It shows and never changes anything: GET and HEAD, no body is read, and there is no
password, so it is for this machine, or for a proxy that asks for one. What is answered
is a table, :class:`AdminSite`'s ``resources``: under the only component of a path
(``""`` is ``/``, ``"metrics"`` is ``/metrics``) a resource of Twisted's, whose
``render(request)`` returns bytes, with what it set by ``request.setHeader``, or
``NOT_DONE_YET``; then ``request.answer(status, content, type)`` follows, whether or not
the client is still there, or ``request.processingFailed(failure)``. HEAD needs no
thought. What has to wait for a disk is a :class:`SharedAnswer`. Everything else is
answered here, by one line of text.

Every answer forbids browsers to do anything with it but show it. A page that has
styles, scripts or images beside it sets ``Content-Security-Policy`` to
:data:`PAGE_POLICY`, with which it may take them from here and from nowhere else.

A browser on the same machine can reach what listens there for nobody else, and could be
led to by a foreign name that is made to mean 127.0.0.1 (DNS rebinding). So what comes
to a loopback address must call it ``localhost`` or by an IP address. Elsewhere any name
is taken: nobody here knows what the others call this machine.

A connection has :data:`TIMEOUT` for each request, from the answer before to the end of
the headers, and as long to read the answer; as long as that does not fit into the
kernel's and the transport's buffers there is no other. Of :data:`CONNECTIONS` the one
on which nothing has been asked for longest makes room.

This module must never know what a bucket is, nor write a request's target anywhere:
people paste URLs.
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
"""There may be at once: a scraper, some browsers, and many that do not mean well."""

TIMEOUT = 90.0
"""Seconds. More than the minute after which most scrapers come again."""

DEADLINE = 8.0
"""Seconds that a :class:`SharedAnswer` may take: Prometheus gives up after 10."""

TEXT = b"text/plain; charset=utf-8"

PAGE_POLICY = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
    b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page of ours may do."""

_HEADERS: Mapping[bytes, bytes] = {
    b"Cache-Control": b"no-store",
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Referrer-Policy": b"no-referrer",
    b"X-Content-Type-Options": b"nosniff",
}
"""What every answer has, where it does not say otherwise itself."""

_GZIP = re.compile(rb"(?:^|[,\s])gzip\s*(?:$|,|;\s*q=(?:1|0?\.0*[1-9]))")

_HOST = re.compile(rb"(?:\[(?P<ip>[^\]]*)\]|(?P<name>[^:]*))(?::[0-9]*)?")


class Message(Resource):
    """One line of text, whatever is asked."""

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
    """What is answered.

    :param kind: the type of ``content``
    :param packed: ``content`` in gzip, for those who take that
    :param headers: what it has besides
    :param kept: seconds for which it may be answered to others, too
    """

    status: int
    content: bytes
    kind: bytes = TEXT
    packed: bytes | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    kept: float = 0.0


TOO_SLOW = AdminAnswer(503, b"the disk did not answer within %d seconds\n" % DEADLINE)


class SharedAnswer(Resource):
    """An answer that may take a while: it is found once, for all who ask meanwhile.
    If it takes too long they are told so, and it is still not looked for a second time.
    """

    isLeaf = True

    def __init__(
        self,
        clock: IReactorTime,
        find: Callable[[], Awaitable[AdminAnswer]],
        deadline: float = DEADLINE,
        too_slow: AdminAnswer = TOO_SLOW,
    ) -> None:
        """
        :param find: finds it
        :param deadline: seconds that it may take
        :param too_slow: what is answered after that
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
        # Or the client has gone.
        asked.addErrback(lambda failure: failure.trap(CancelledError))
        asked.addErrback(request.processingFailed)
        return server.NOT_DONE_YET

    def _replace(self, failure: Failure) -> AdminAnswer:
        failure.trap(TooSlowError)
        return self._too_slow


class AdminRequest(server.Request):
    """A request to the admin listener.

    :ivar has_body: whether there is more than headers
    """

    _log = Logger()

    has_body = False

    def render(self, resource: IResource) -> None:
        content: Any = resource.render(self)
        if content is not server.NOT_DONE_YET:
            kinds = self.responseHeaders.getRawHeaders(b"Content-Type") or [TEXT]
            self.answer(200, content, kinds[0])

    def answer(self, status: int, content: bytes, kind: bytes = TEXT) -> None:
        """Answer, once; if the client is gone, that is nobody's loss."""
        if self.channel is None:
            return
        self.setResponseCode(status, phrase(status))
        self.setHeader(b"Content-Type", kind)
        self.setHeader(b"Content-Length", b"%d" % len(content))
        self.write(content)
        self.finish()

    def give(self, answer: AdminAnswer) -> None:
        """Answer that."""
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
        """Log it, and say no more than that. It may be an errback."""
        self._log.failure("a bug in file-bucket", reason, event="bug")
        if not self.startedWriting:
            self.answer(500, b"internal error; see the server's log\n")
        elif self.channel is not None:
            self.channel.loseConnection()

    @property
    def refused(self) -> Message | None:
        """The answer, where it does not matter what is asked for."""
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
    """Whether no resolver can have been asked for it."""
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

    # Whether a request waits for its answer.
    busy = False
    _held = False
    _closing = False
    # The request whose answer is to be read before there is another one.
    _unread: AdminRequest | None = None

    # Its place among the others.

    def connectionMade(self) -> None:
        super().connectionMade()
        # From when it is admitted.
        self.setTimeout(None)
        self.site.admission.connected(self)

    def hold(self) -> None:
        """Read nothing until there is room for one more connection."""
        self._held = True
        self.transport.pauseProducing()

    def admit(self) -> None:
        """Read: there is room."""
        self.setTimeout(TIMEOUT)
        if self._held:
            self.transport.resumeProducing()

    def drop(self) -> None:
        """Make room for another connection."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        self.site.admission.disconnected(self)
        super().connectionLost(reason)

    # Its time.

    def resetTimeout(self) -> None:
        """Nothing: at every byte Twisted would give as much time again."""

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def loseConnection(self) -> None:
        self._closing = True
        self.setTimeout(TIMEOUT)
        super().loseConnection()

    # What it brings.

    def dataReceived(self, data: bytes) -> None:
        # TLS brings on what the other side sends until that closes, too.
        if not self._closing:
            super().dataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # Python reads no number of more than 4,300 digits, and Twisted takes a
            # Content-Length to be one that it does.
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        request.has_body = self.length != 0
        # Nobody reads it: Twisted shall neither wait for it nor ask for it.
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
            # Of thousands of requests that came at once each would be answered into
            # memory, whether or not anybody reads that.
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
        # Where Twisted comes to with all that is no request.
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

    # What it answers.

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Any
    ) -> None:
        # All answers come through here, whoever made them.
        headers.removeHeader(b"Server")
        for name, value in _HEADERS.items():
            if not headers.hasHeader(name):
                headers.setRawHeaders(name, [value])
        if not self.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)


class AdminSite(server.Site):
    """The factory of the channels.

    :ivar admission: which connections there are
    """

    # Without the proxy that Twisted puts before a channel to speak HTTP/2.
    protocol = AdminChannel  # type: ignore[assignment]
    requestFactory = AdminRequest
    displayTracebacks = False
    noisy = False

    def __init__(
        self, reactor: IReactorTime, resources: Mapping[str, IResource]
    ) -> None:
        """
        :param resources: by the only component of their path
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
        """What TLS offers: Twisted's own has HTTP/2 where h2 is installed."""
        return [b"http/1.1"]

    def log(self, request: http.Request) -> None:
        """Nothing: somebody may have pasted a URL with a token in it."""

    def close(self) -> None:
        """Drop all connections, whatever is being answered on them."""
        self.admission.stop()
        for each in self.admission.all:
            each.drop()
