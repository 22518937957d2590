"""HTTP/1.1 with the body as a stream: what twisted.web does not offer.

twisted.web looks for a resource only when the whole body is in. Here a
request finds its resource when its headers are in, and is handed its body as
an asynchronous iterator with backpressure. The way of the bytes:

    transport -> StreamingChannel -> StreamingRequest -> Body -> ``async for``

The channel and the request are Twisted's own, overridden at their seams:

* ``allHeadersReceived``: instead of sending ``100 Continue`` on its own
  account, the channel lets the request find its resource (Request's own
  ``requestReceived`` and ``process``, one body too early for them to know).
* ``handleContentChunk`` feeds the :class:`Body`, which pauses the transport
  when more waits than it may hold, and sends ``100 Continue`` when, and only
  when, somebody first asks for the body.
* ``requestReceived``: all that is left for it to say is that the body ended.

An answer may be given at any moment (:meth:`StreamingRequest.answer`). Before
the body's end it is sent at once, and what the client still sends is dropped:
up to ``drain_bytes`` with the connection kept; past that, or where nobody can
know how much follows, the sending side is closed (TCP can; TLS cannot) and the
channel lingers, within bounds of bytes and seconds, so that the client gets
to read the answer instead of a reset.

What the framing may not have is refused: :mod:`filebucket.http.framing` says what.

Who pushes is who connected, or, where that is a proxy that is trusted, whom its
``X-Forwarded-For`` names: :meth:`StreamingRequest.sender`.

Twisted's idle timer restarts at every byte, which keeps a connection for ever
at a byte a minute. It is off here; the channel has deadlines of its own.

This module must never know what a bucket is, nor write a request's target
anywhere: it holds the token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Protocol

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from zope.interface import implementer

from filebucket.base.alarm import Alarm
from filebucket.base.errors import Refusal, phrase
from filebucket.http import framing
from filebucket.http.admission import Admission
from filebucket.http.body import Body
from filebucket.http.framing import HEADER_LINE, REQUEST_LINE, Chunks
from filebucket.http.peer import log_dropped
from filebucket.http.turns import Turns
from filebucket.model.client import LOCAL, Client, Networks, forwarded

SERVER = b"file-bucket"

LEAST_READ = 16 * 1024
MOST_READ = 256 * 1024
"""Bytes that are read at once: twice as many whenever there were more. Against
Twisted's 64 KiB the most takes 30 % off a large push's processor time, and the
least 15 MB off the memory of a thousand slow ones."""


@frozen
class Limits:
    """What a connection may cost. Times are seconds, sizes are bytes.

    :param idle: how long a kept connection may wait for its next request
    :param headers: from a request's first byte to the end of its headers
    :param rate_window: how long a body may be slower than ``rate``
    :param rate: the slowest body, in bytes per second
    :param buffer: how much of a body may wait before the transport is paused
    :param buffers: how much may wait of all bodies together, shared equally
    :param connections: how many there may be
    :param drain: how much of a refused body is read to keep the connection
    :param linger: how much is read after the sending side was closed
    :param linger_time: and for how long
    """

    idle: float = 60.0
    headers: float = 30.0
    rate_window: float = 60.0
    rate: int = 1024
    buffer: int = 1024 * 1024
    buffers: int = 128 * 1024 * 1024
    connections: int = 1024
    drain: int = 1024 * 1024
    linger: int = 64 * 1024 * 1024
    linger_time: float = 30.0


class Site(Protocol):
    """What a channel needs of its site; the rest is Twisted's.

    :ivar trusted: whose ``X-Forwarded-For`` is believed
    :ivar stopping: whether every answer is its connection's last
    :ivar trailers: the trailers that are kept, in lower case
    :ivar admission: which connections there may be
    :ivar turns: whose chunks are taken apart next
    :ivar refused: told of what was refused before it was a request
    """

    reactor: IReactorTime
    limits: Limits
    trusted: Networks
    stopping: bool
    trailers: frozenset[bytes]
    admission: Admission
    turns: Turns
    refused: Callable[[Client, Refusal], object]

    def getResourceFor(self, request: http.Request) -> IResource:
        """Twisted's: the resource of the request's path."""

    def share(self) -> int:
        """How many bytes of its body a connection may hold."""

    def closed(self, channel: StreamingChannel) -> None:
        """A connection is gone."""


class StreamingRequest(server.Request):
    """A request whose resource is found, and rendered, before its body is in.

    :ivar body: the body
    :ivar length: its length in bytes as declared; None where it is chunked
    :ivar target_fault: why the target is not a path, if it is none. To say so is
        the resource's, which knows to whom
    :ivar routed: whether the headers are in
    :ivar answered: whether the answer was given
    :ivar trailers: what came behind the body, of what the site wants
    :ivar expects_continue: whether the client still waits for ``100 Continue``
    """

    channel: StreamingChannel
    prepath: list[bytes]
    postpath: list[bytes]
    target_fault: str | None = None
    length: int | None = None
    routed = False
    expects_continue = False
    answered = False

    def __init__(self, channel: StreamingChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.trailers = Headers()
        self.body = Body(channel, channel.site.share, channel.body_wanted)

    def gotLength(self, length: int | None) -> None:
        # An empty file makes Twisted's requestReceived pass over its own,
        # whole-body-in-memory form parsing.
        self.content = BytesIO()
        self.length = length

    def headersReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Find the resource and render it: the headers are in.

        The arguments are those of ``requestReceived``.
        """
        self.routed = True
        super().requestReceived(command, path, version)

    def sender(self) -> Client:
        """Who pushes, as far as it can be believed. The headers must be in."""
        peer = self.channel.client
        trusted = self.channel.site.trusted
        if peer not in trusted:
            return peer
        values = self.requestHeaders.getRawHeaders(b"X-Forwarded-For", [])
        return forwarded(peer, [each.decode("latin-1") for each in values], trusted)

    def process(self) -> None:
        # In place of server.Request's, whose error pages quote the target.
        self.setHeader(b"Server", SERVER)
        self.setHeader(b"Date", http.datetimeToString())
        self.prepath = []
        try:
            self.postpath, self.target_fault = framing.segments(self.path)
            rendered = self.channel.site.getResourceFor(self).render(self)
            if rendered != server.NOT_DONE_YET:
                raise TypeError("a resource here answers by request.answer()")
        except Refusal as refusal:
            self.channel.refuse(refusal, self.sender())
        except Exception:
            self.processingFailed(Failure())

    def handleContentChunk(self, data: bytes) -> None:
        self.body.deliver(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body's last byte is in."""
        answered_early = self.answered
        self.body.end()
        if answered_early:
            self.finish()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.body.fail(self.ends_early())

    def ends_early(self) -> Refusal:
        """Why a body is refused whose connection ended before it did."""
        of = "" if self.length is None else f" of {self.length}"
        return Refusal(
            400, f"the body ended early, after {self.body.received}{of} bytes"
        )

    def answer(
        self,
        status: int,
        headers: Mapping[str, str],
        content: bytes,
        last: bool = False,
    ) -> None:
        """Answer, now, whether or not the body has come to its end.

        Does nothing where the client has gone.

        :param last: whether the connection is to be closed after it
        """
        if self._disconnected or self.answered:
            return
        self.answered = True
        if not last:
            self.channel.site.admission.answered(self.channel)
        drains = not self.body.ended and self.channel.drains(self, last)
        keeps = (self.body.ended or drains) and self.channel.keeps(last)
        self.setResponseCode(status, phrase(status))
        self.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        self.setHeader(b"Content-Length", b"%d" % len(content))
        for name, value in headers.items():
            self.setHeader(name.encode("ascii"), value.encode("ascii"))
        if not keeps:
            self.setHeader(b"Connection", b"close")
        self.write(content)
        self.body.drop()
        if self.body.ended:
            self.finish()
        elif drains:
            self.channel.drain()
        else:
            self.channel.linger()

    def processingFailed(self, reason: Failure) -> Failure:
        """Log a bug with its traceback, and answer 500; or 400 where a client that
        tries again would send what is left of a pipe.
        """
        self._log.failure("a bug in file-bucket", failure=reason, event="bug")
        status = 400 if self.length is None and not self.body.ended else 500
        self.answer(status, {}, b"internal error; the server's log says more\n")
        return reason

    def __repr__(self) -> str:
        # Twisted's shows the target, which holds the token.
        return f"<{type(self).__name__} at {id(self):#x}>"


@implementer(IHalfCloseableProtocol)
class StreamingChannel(http.HTTPChannel):
    """One connection. See the module's text for what it adds to Twisted's.

    At any moment at most one alarm is set: for the next request, for the end
    of its headers, for its body's rate, or for the end of a closing.

    :ivar client: who connected
    """

    # Not CR LF: so that a line shows whether it has the CR (RFC 9112, 2.2).
    delimiter = b"\n"

    site: Site
    requests: list[StreamingRequest]
    # TCP, TLS or UNIX: more than ITransport says, and no interface says it all.
    transport: Any
    _networkProducer: Any
    _reads: Any

    client = LOCAL

    _alarm: Alarm
    _idle = True
    _deaf = False
    _input_ended = False
    _closing = False
    _held = False
    _behind = False
    _drain_left = 0
    _linger_left: int | None = None
    _rate_mark: tuple[int, int | None] = (0, None)

    # What the transport brings.

    def connectionMade(self) -> None:
        super().connectionMade()
        self._alarm = Alarm(self.site.reactor)
        # TLS brings a record at a time, whatever is read at once beneath it.
        self._reads = self.transport.transport if self.isSecure() else self.transport
        self._reads.bufferSize = MOST_READ if self.isSecure() else LEAST_READ
        self.site.admission.came(self)

    def hold(self) -> None:
        """Read nothing until there is room for one more connection."""
        self._held = True
        self.transport.pauseProducing()

    def admit(self) -> None:
        """Read: there is room."""
        self._alarm.set(self.site.limits.idle, self.loseConnection)
        if self._held:
            self.transport.resumeProducing()

    def drop(self) -> None:
        """Make room for another connection."""
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            # TLS brings on what the other side sends until that closes, too.
            return
        if len(data) == self._reads.bufferSize < min(MOST_READ, self.site.share()):
            self._reads.bufferSize *= 2
        self._request_begins()
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        # A request that came along with the one before has no dataReceived of
        # its own.
        self._request_begins()
        if (HEADER_LINE if self.requests else REQUEST_LINE).fullmatch(line):
            super().lineReceived(line[:-1])
        elif self.requests:
            fault = "a control character, no CR LF at its end, or a folded line"
            self.refuse(Refusal(400, f"malformed header: {fault}"))
        else:
            self.refuse(Refusal(400, "malformed request line"))

    def _request_begins(self) -> None:
        if self._idle and not self._deaf:
            self._idle = False
            self._alarm.set(self.site.limits.headers, self._headers_late)

    def rawDataReceived(self, data: bytes) -> None:
        if not self._deaf:
            request = self.requests[-1] if self.requests else None
            if request is not None and request.answered and not request.body.ended:
                self._drained(len(data))
            super().rawDataReceived(data)
        elif self._linger_left is not None:
            self._linger_left -= len(data)
            if self._linger_left < 0:
                self.transport.abortConnection()

    def _take_turns(self) -> None:
        """More chunks have come than are taken apart at once: others come first."""
        self._behind = True
        self.stop_reading()
        self.site.turns.join(self._catch_up)

    def _catch_up(self) -> None:
        self._behind = False
        if self._closing or self._deaf:
            return
        self.rawDataReceived(b"")
        if not (self.requests and self.requests[-1].body.paused):
            self.read_on()

    def stop_reading(self) -> None:
        """Read nothing until :meth:`read_on`."""
        self.transport.pauseProducing()

    def read_on(self) -> None:
        """Read again, unless there are chunks that were not taken apart yet."""
        if not self._behind:
            self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        """The client will send no more, but may still wait for an answer."""
        self._input_ended = True
        self._close_unless_answering()

    def writeConnectionLost(self) -> None:
        """Our own half-close is done: nothing to do but linger."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if isinstance(reason.value, SSL.Error):
            # As where a client has no certificate, but needs one.
            reasons = [each[-1] for each in next(iter(reason.value.args), ())]
            log_dropped(self.client, f"TLS: {', '.join(reasons) or 'failed'}")
        self._closing = True
        self._alarm.stop()
        self.site.closed(self)
        super().connectionLost(reason)

    # What the request line and the headers bring.

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        self._alarm.stop()
        # Twisted would send 100 Continue now: it must not see the Expect.
        headers = request.requestHeaders
        expect = headers.getRawHeaders(b"Expect", [])
        headers.removeHeader(b"Expect")
        if self.length is None:
            self._transferDecoder = Chunks(
                request.handleContentChunk,
                self._finishRequestBody,
                self._take_turns,
                self.site.trailers,
            )
            request.trailers = self._transferDecoder.trailers
        super().allHeadersReceived()
        if expect:
            headers.setRawHeaders(b"Expect", expect)
        expected = framing.members([each.decode("latin-1") for each in expect])
        request.expects_continue = (
            self._version == b"HTTP/1.1" and "100-continue" in expected
        )
        fault = framing.fault(headers, self._version)
        if fault:
            self.refuse(Refusal(400, fault), request.sender())
        else:
            request.headersReceived(self._command, self._path, self._version)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # Python reads no number of more than 4,300 digits, and Twisted
            # takes a Content-Length to be one that it does.
            self.refuse(Refusal(400, "malformed Content-Length"))
            return False

    def lineLengthExceeded(self, line: bytes) -> None:
        if self.requests:
            self.refuse(Refusal(431, "a header is too long"))
        else:
            self.refuse(Refusal(414, "the request line is too long"))

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Where Twisted comes to with all that is wrong with the framing.
        request = self.requests[-1] if self.requests else None
        if request is not None and request.routed:
            self._deaf = True
            request.body.fail(Refusal(400, "malformed chunked body"))
            if request.answered:
                self.linger()
        elif self._receivedHeaderSize > self.totalHeadersSize:
            self.refuse(Refusal(431, "the headers are too large"))
        elif self._receivedHeaderCount > self.maxHeaders:
            self.refuse(Refusal(431, "too many headers"))
        else:
            self.refuse(Refusal(400, "malformed request"))

    def refuse(self, refusal: Refusal, sender: Client | None = None) -> None:
        """Answer what is not a request, and close.

        :param sender: who pushes, where all headers are in; while they are not, what
            was forwarded may still be contradicted
        """
        if self._deaf:
            return
        content = f"{refusal.reason}\n".encode()
        more = "".join(
            f"{name}: {value}\r\n" for name, value in refusal.headers.items()
        )
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nServer: %b\r\nDate: %b\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
            b"%bConnection: close\r\n\r\n%b"
            % (
                refusal.status,
                phrase(refusal.status),
                SERVER,
                http.datetimeToString(),
                len(content),
                more.encode("ascii"),
                content,
            )
        )
        self.site.refused(sender or self.client, refusal)
        self.linger()

    # The body.

    def body_wanted(self) -> None:
        """Somebody asks for the body: let the client send it."""
        request = self.requests[-1]
        body = request.body
        if request.expects_continue and request.length != 0 and not body.received:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.expects_continue = False
        if not body.ended:
            self._watch_rate()

    def _watch_rate(self) -> None:
        body = self.requests[-1].body
        self._rate_mark = (body.received, None if body.paused else body.pauses)
        self._alarm.set(self.site.limits.rate_window, self._check_rate)

    def _check_rate(self) -> None:
        limits = self.site.limits
        body = self.requests[-1].body
        received, pauses = self._rate_mark
        ours = body.paused or body.pauses != pauses
        if ours or body.received - received >= limits.rate * limits.rate_window:
            self._watch_rate()
        else:
            body.fail(
                Refusal(
                    408,
                    f"less than {limits.rate} bytes per second"
                    f" for {limits.rate_window:g} seconds",
                )
            )

    def _headers_late(self) -> None:
        limit = self.site.limits.headers
        self.refuse(Refusal(408, f"the headers took more than {limit:g} seconds"))

    def allContentReceived(self) -> None:
        if not self._deaf:
            self._alarm.stop()
        super().allContentReceived()

    # The answer, and what comes after it.

    def drains(self, request: StreamingRequest, last: bool) -> bool:
        """Whether the rest of a body that nobody wants is worth reading."""
        # Chunks would be taken apart for nothing.
        if last and request.length is None:
            return False
        # A client that waits for 100 Continue may send its body, or its next
        # request: nobody can know which (RFC 9110, 10.1.1).
        if request.body.failure or request.expects_continue:
            return False
        left = 0 if request.length is None else request.length - request.body.received
        return left <= self.site.limits.drain

    def keeps(self, last: bool = False) -> bool:
        """Whether there may be another request after this one."""
        if last or self.site.stopping or self.site.admission.full:
            self.persistent = False
        return bool(self.persistent)

    def drain(self) -> None:
        """Read on to the body's end, within bounds, to keep the connection."""
        self._drain_left = self.site.limits.drain
        self._alarm.set(self.site.limits.linger_time, self.linger)

    def _drained(self, size: int) -> None:
        """``size`` bytes came after the answer, the chunks' own among them."""
        self._drain_left -= size
        if self._drain_left < 0:
            self.linger()

    def linger(self) -> None:
        """Close, but let the client read what was answered.

        Closing at once would reset the connection under a client that still
        sends, and the reset overtakes the answer (RFC 9112, 9.6).
        """
        if self._linger_left is not None or self._closing:
            return
        self.persistent = False
        self._deaf = True
        if self._input_ended:
            self.loseConnection()
            return
        self._linger_left = self.site.limits.linger
        self._alarm.set(self.site.limits.linger_time, self.transport.abortConnection)
        self.setRawMode()
        self.transport.resumeProducing()
        # TLS shows its TCP transport's interfaces, but has no half-close.
        half = IHalfCloseableDescriptor.providedBy(self.transport)
        if half and not self.isSecure():
            # A transport that has paused its producer resumes it when its buffer
            # is empty, and then forgets that it was to close its sending side.
            self._networkProducer.unregisterProducer()
            self.transport.loseWriteConnection()

    def requestDone(self, request: StreamingRequest) -> None:
        # What was answered before the stop began was not told that it is the last.
        self.keeps()
        self._idle = True
        self._alarm.set(self.site.limits.idle, self.loseConnection)
        super().requestDone(request)
        if self._input_ended:
            # Not at once: a request that came along with this one may be next.
            self.callLater(0, self._close_unless_answering)

    def _close_unless_answering(self) -> None:
        request = self.requests[-1] if self.requests else None
        lingers = self._linger_left is not None
        if lingers or request is None or not request.routed or request.answered:
            self.loseConnection()
        elif not request.body.ended:
            self._deaf = True
            request.body.fail(request.ends_early())

    def loseConnection(self) -> None:
        if not self._closing:
            self._closing = True
            self._alarm.set(
                self.site.limits.linger_time, self.transport.abortConnection
            )
            super().loseConnection()

    @property
    def busy(self) -> bool:
        """Whether there is a request that waits for its answer."""
        request = self.requests[-1] if self.requests else None
        return request is not None and request.routed and not request.answered

    def close_if_idle(self) -> None:
        """Close where nothing was asked that still wants an answer."""
        if not self.requests and not self._deaf:
            self.loseConnection()

    def turn_away(self, refusal: Refusal) -> None:
        """Take no more: what has not come whole is answered with ``refusal``.

        What has come whole keeps its answer, and what is answered its closing.
        """
        if self._deaf:
            return
        request = self.requests[-1] if self.requests else None
        if request is None:
            self.loseConnection()
        elif not request.routed:
            self.refuse(refusal)
        elif not request.answered and not request.body.ended:
            self._deaf = True
            request.body.fail(refusal)
