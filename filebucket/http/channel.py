"""HTTP/1.1 with streamed request bodies, which twisted.web does not offer.

twisted.web looks up a resource only when the whole body has arrived. Here a request
finds its resource when its headers have arrived, and gets its body as an asynchronous
iterator with backpressure. The way of the bytes:

    transport -> StreamingChannel -> StreamingRequest -> Body -> ``async for``

The channel and the request extend Twisted's classes:

* ``dataReceived`` takes a usual head at once (:func:`framing.usual_head`), and leaves
  any other to Twisted.
* ``allHeadersReceived``: instead of sending ``100 Continue`` itself, the channel lets
  the request find its resource (by ``process``, called before the body has arrived).
* ``handleContentChunk`` feeds the :class:`Body`, which pauses the transport when too
  many bytes wait, and causes ``100 Continue`` when it is first read, and only then.
* ``requestReceived`` only reports that the body ended.

An answer is possible at any time (:meth:`StreamingRequest.answer`). Before the body's
end it is sent at once, and the rest of the body is discarded. The connection is kept if
that rest is at most :attr:`Limits.drain`. If it is longer, or of unknown length, the
sending side is closed (possible in TCP, not in TLS) and the channel lingers, within
limits of bytes and seconds, so that the client can read the answer instead of getting a
reset.

Ambiguous framing is refused: see :mod:`filebucket.http.framing`.

The client is the connected peer or, if that is a trusted proxy, the address in its
``X-Forwarded-For``: see :meth:`StreamingRequest.sender`.

Twisted's idle timer restarts at every byte, so one byte a minute would keep a
connection forever. It is off here; the channel has its own timeouts.

This module must not depend on buckets, nor write a request's target anywhere: the
target contains the token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.http import _IdentityTransferDecoder
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from zope.interface import implementer

from filebucket.base.alarm import Alarm
from filebucket.base.errors import Refusal, phrase
from filebucket.http import framing
from filebucket.http.admission import Admission
from filebucket.http.body import MOST_UNASKED, Body
from filebucket.http.framing import HEADER_LINE, REQUEST_LINE, Chunks
from filebucket.http.peer import log_dropped
from filebucket.http.turns import Turns
from filebucket.model.client import LOCAL, Client, Networks, forwarded

SERVER = "file-bucket"

NOWHERE = UNIXAddress(None)

LEAST_READ = 16 * 1024
MOST_READ = 1024 * 1024
"""Bytes of one read; doubled whenever a read was full. Compared with Twisted's 64 KiB,
the maximum saves 40 % of a large push's processor time, and the minimum saves 15 MB for
a thousand slow pushes."""

REQUESTS_AT_ONCE = 16
"""Requests of a connection that are answered in one turn of the reactor: one read may
contain thousands of times as many, and they took 20 seconds."""


@frozen
class Limits:
    """The limits of a connection. Times are in seconds, sizes in bytes.

    :param idle: longest wait for the next request on a kept connection
    :param headers: longest time from a request's first byte to the end of its headers
    :param rate_window: time over which the upload rate is measured
    :param rate: lowest average upload rate, in bytes per second
    :param buffer: bytes of a body that may wait before the transport is paused
    :param buffers: bytes that may wait in all bodies together, shared equally
    :param connections: maximum number of connections
    :param drain: longest rest of a refused body that is read to keep the connection
    :param linger: bytes that are read after the sending side was closed
    :param linger_time: time for which they are read
    """

    idle: float = 60.0
    headers: float = 30.0
    rate_window: float = 60.0
    rate: int = 1024
    buffer: int = 2 * 1024 * 1024
    buffers: int = 12 * 1024 * 1024
    connections: int = 1024
    drain: int = 1024 * 1024
    linger: int = 64 * 1024 * 1024
    linger_time: float = 30.0


class Site(Protocol):
    """What a channel needs of its site, in addition to Twisted's.

    :ivar trusted: networks whose ``X-Forwarded-For`` is believed
    :ivar stopping: whether each connection closes after its next answer
    :ivar trailers: the trailers that are kept, in lower case
    :ivar admission: limits the connections
    :ivar turns: the queue of connections with chunks left to decode
    :ivar refused: called with each refusal of input that was not a request
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
        """Bytes of its body that a connection may hold."""

    def closed(self, channel: StreamingChannel) -> None:
        """A connection has closed."""


def message(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    version: bytes = b"HTTP/1.1",
    method: bytes = b"",
) -> bytes:
    """An answer. Twisted's way to it takes five times as long: for each header it
    normalizes the name, and in the end it passes on 30 pieces.

    :param method: the request's; an answer to HEAD has no content
    """
    told = {"Server": SERVER, "Date": _date(int(time.time()))}
    if status != 204:  # which has no content, nor headers of it (RFC 9110, 8.6)
        told["Content-Type"] = "text/plain; charset=utf-8"
        told["Content-Length"] = str(len(content))
    told.update(headers)
    # A line break would begin another header, or another answer.
    lines = [f"{name}: {' '.join(told[name].splitlines())}\r\n" for name in told]
    head = b"%b %d %b\r\n%b\r\n" % (
        version,
        status,
        phrase(status),
        "".join(lines).encode("ascii"),
    )
    return head if method == b"HEAD" or status == 204 else head + content


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return str(http.datetimeToString(second), "ascii")


class StreamingRequest(server.Request):
    """A request whose resource is found, and rendered, before its body arrives.

    :ivar body: the body
    :ivar length: its declared length in bytes; None if it is chunked
    :ivar target_fault: why the target is not a path, if it is not. The resource reports
        it, because the answer depends on the client
    :ivar routed: whether the headers have arrived
    :ivar routes_late: whether the resource is found at the end of the body, because all
        of it arrived with the headers. So a small push never waits for its body
    :ivar answered: whether the answer was given
    :ivar trailers: the trailers that the site keeps
    :ivar expects_continue: whether the client still waits for ``100 Continue``
    """

    channel: StreamingChannel
    prepath: list[bytes]
    postpath: list[bytes]
    target_fault: str | None = None
    length: int | None = None
    routed = False
    routes_late = False
    expects_continue = False
    answered = False

    def __init__(self, channel: StreamingChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.trailers = Headers()
        self.body = Body(channel, channel.site.share, channel.body_wanted)

    def gotLength(self, length: int | None) -> None:
        self.length = length

    def parseCookies(self) -> None:
        """No cookie is looked at."""

    def headersReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Find the resource and render it.

        The arguments are those of ``requestReceived``. Twisted's parses the query and
        the body, too, which it has in memory.
        """
        self.routed = True
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self.process()

    def sender(self) -> Client:
        """The client, as far as it can be trusted. The headers must have arrived."""
        peer = self.channel.client
        trusted = self.channel.site.trusted
        if peer not in trusted:
            return peer
        values = self.requestHeaders.getRawHeaders(b"X-Forwarded-For", [])
        return forwarded(peer, [each.decode("latin-1") for each in values], trusted)

    def process(self) -> None:
        # Replaces server.Request's, whose error pages quote the target.
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
        """The body's last byte has arrived."""
        answered_early = self.answered
        self.body.end()
        if self.routes_late:
            self.headersReceived(command, path, version)
        elif answered_early:
            self.finish()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.body.fail(self.ends_early())

    def ends_early(self) -> Refusal:
        """The refusal of a body whose connection closed before its end."""
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
        """Answer now, whether or not the body has ended.

        Does nothing if the client is gone.

        :param last: whether to close the connection after it
        """
        if self._disconnected or self.answered:
            return
        self.answered = True
        if not last:
            self.channel.site.admission.answered(self.channel)
        drains = not self.body.ended and self.channel.drains(self, last)
        keeps = (self.body.ended or drains) and self.channel.keeps(last)
        told = dict(headers)
        if not keeps:
            told["Connection"] = "close"
        self.code, self.startedWriting = status, 1
        version = self.clientproto
        self.channel.send(message(status, told, content, version, self.method))
        self.body.drop()
        if self.body.ended:
            self.finish()
        elif drains:
            self.channel.drain()
        else:
            self.channel.linger()

    def processingFailed(self, reason: Failure) -> Failure:
        """Log a bug with its traceback, and answer 500; or 400 if a retry by the client
        would send the rest of a pipe.
        """
        self._log.failure("a bug in file-bucket", failure=reason, event="bug")
        status = 400 if self.length is None and not self.body.ended else 500
        self.answer(status, {}, b"internal error; see the server's log\n")
        return reason

    def __repr__(self) -> str:
        # Twisted's shows the target, which contains the token.
        return f"<{type(self).__name__} at {id(self):#x}>"


@implementer(IHalfCloseableProtocol)
class StreamingChannel(http.HTTPChannel):
    """One connection. The module's docstring lists the differences from Twisted's.

    At most one timeout is set at any time: for the next request, the end of its
    headers, its body's rate, or the end of closing.

    :ivar client: the connected peer
    """

    # Not CR LF, so that a line shows whether it has its CR (RFC 9112, 2.2).
    delimiter = b"\n"

    site: Site
    requests: list[StreamingRequest]
    # TCP, TLS or UNIX: no interface declares all methods used here.
    transport: Any
    _networkProducer: Any
    _reads: Any

    client = LOCAL

    _alarm: Alarm
    # Returns the bytes sent, or an exception; None if TLS must see them first.
    _send_now: Callable[[bytes], int | Exception] | None = None
    _peer: IAddress | None = None
    _idle = True
    _deaf = False
    _input_ended = False
    _closing = False
    _held = False
    _behind = False
    _answered = 0
    _drain_left = 0
    _linger_left: int | None = None
    _rate_mark: tuple[int, int | None] = (0, None)

    # Input from the transport.

    def connectionMade(self) -> None:
        super().connectionMade()
        self._alarm = Alarm(self.site.reactor)
        # TLS delivers one record at a time, whatever the size of the reads below it.
        secure = self.isSecure()
        self._reads = self.transport.transport if secure else self.transport
        self._reads.bufferSize = MOST_READ if secure else LEAST_READ
        if not secure:
            self._send_now = getattr(self.transport, "writeSomeData", None)
        self.site.admission.connected(self)

    def getHost(self) -> IAddress:
        # Twisted asks for it at each request, by a system call, and nothing reads it.
        return NOWHERE

    def getPeer(self) -> IAddress:
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer

    def hold(self) -> None:
        """Read nothing until the connection is admitted."""
        self._held = True
        self.transport.pauseProducing()

    def admit(self) -> None:
        """Read: the connection is admitted."""
        self._alarm.set(self.site.limits.idle, self.loseConnection)
        if self._held:
            self.transport.resumeProducing()

    def drop(self) -> None:
        """Close, to make place for another connection."""
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            # TLS delivers what the client sends until the client closes, too.
            return
        self._fit_reads(len(data))
        self._request_begins()
        if self.paused:
            self.stop_reading()
        elif self._reads is self.transport and not self._busyReceiving:
            # With TLS, one read may contain thousands of records.
            self._answered = 0
        waits = self.requests or self._buffer or self._deaf or self.paused
        if self.persistent and not waits:
            data = self._take_usual(data)
        if data and not self._closing:
            self._request_begins()
            super().dataReceived(data)

    def _take_usual(self, data: bytes) -> bytes:
        """Take a request with a usual head at once, and its body if that is there.
        Twisted's way, line by line, takes three times as long, and does the same.

        :returns: what is left of the data
        """
        head = framing.usual_head(data)
        if head is None:
            return data
        self._command, self._path, self._version = head.line
        self.length = length = head.length
        request: Any = self.requestFactory(self, 0)
        request.requestHeaders = head.headers
        self.requests.append(request)
        rest = data[head.size :]
        self._head_ended(request, len(rest))
        if request.routes_late:
            if length:
                request.handleContentChunk(rest[:length])
            self.allContentReceived()
            return rest[length:]
        self._transferDecoder = _IdentityTransferDecoder(
            length, request.handleContentChunk, self._finishRequestBody
        )
        self.setRawMode()
        return rest

    def send(self, data: bytes) -> None:
        """Send data, at once if possible. To let the reactor do it in its next turn
        takes four more system calls.
        """
        if self._send_now is not None:
            sent = self._send_now(data)
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            # From now on the reactor sends, in order. It finds out if the connection is
            # lost, too.
            self._send_now = None
            self.transport.write(data)

    def _fit_reads(self, size: int) -> None:
        """Choose the size of the next read.

        :param size: bytes that the last one delivered
        """
        most = max(min(self.site.share(), MOST_READ), LEAST_READ)
        reads = self._reads
        if reads.bufferSize > most:
            # More connections have come since, and the share of each is smaller.
            reads.bufferSize = most
        elif size == reads.bufferSize <= most // 2:
            reads.bufferSize *= 2

    def lineReceived(self, line: bytes) -> None:
        # A pipelined request has no dataReceived of its own.
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
        """More chunks have arrived than are decoded at once: serve others first."""
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

    def _go_on(self) -> None:
        """Take the requests that arrived while others were served."""
        self._behind = self.paused = False
        if self._closing or self._deaf:
            return
        self.read_on()
        data, self._buffer = self._buffer, b""
        if data:
            self.dataReceived(data)
        if self._input_ended:
            self._close_unless_answering()

    def stop_reading(self) -> None:
        """Read nothing until :meth:`read_on`."""
        self.transport.pauseProducing()

    def read_on(self) -> None:
        """Read again, unless something that was read is left for another turn."""
        if not self._behind:
            self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        """The client will send no more, but may still wait for an answer."""
        self._input_ended = True
        self._close_unless_answering()

    def writeConnectionLost(self) -> None:
        """Our sending side is closed; lingering continues."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if isinstance(reason.value, SSL.Error):
            # For example, the client has no certificate, but needs one.
            reasons = [each[-1] for each in next(iter(reason.value.args), ())]
            log_dropped(self.client, f"TLS: {', '.join(reasons) or 'failed'}")
        self._closing = True
        self._alarm.stop()
        # It has no socket any more, and a push that is complete goes on.
        self._send_now = None
        self.site.closed(self)
        super().connectionLost(reason)

    # The request line and the headers.

    def allHeadersReceived(self) -> None:
        self._head_ended(self.requests[-1], len(self._buffer))

    def _head_ended(self, request: StreamingRequest, there: int) -> None:
        """
        :param there: bytes that arrived after the head
        """
        self._alarm.rest()
        # Twisted would send 100 Continue now, so hide the Expect from it.
        headers = request.requestHeaders
        expect = headers.getRawHeaders(b"Expect", [])
        if expect:
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
            return
        size = MOST_UNASKED if self.length is None else self.length
        request.routes_late = size <= there and size < MOST_UNASKED
        if not request.routes_late:
            request.headersReceived(self._command, self._path, self._version)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # Python parses no number of more than 4,300 digits, and Twisted does not
            # expect that of a Content-Length.
            self.refuse(Refusal(400, "malformed Content-Length"))
            return False

    def lineLengthExceeded(self, line: bytes) -> None:
        if self.requests:
            self.refuse(Refusal(431, "a header is too long"))
        else:
            self.refuse(Refusal(414, "the request line is too long"))

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted calls this for all errors in the framing.
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
        """Answer input that is not a request, and close.

        :param sender: the client, if all headers have arrived; before that, a later
            header may still change it
        """
        if self._deaf:
            return
        told = {**refusal.headers, "Connection": "close"}
        self.send(message(refusal.status, told, f"{refusal.reason}\n".encode()))
        self.site.refused(sender or self.client, refusal)
        self.linger()

    # The body.

    def body_wanted(self) -> None:
        """The body is read for the first time: let the client send it."""
        request = self.requests[-1]
        body = request.body
        if request.expects_continue and request.length != 0 and not body.received:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
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
            self._alarm.rest()
        super().allContentReceived()

    # The answer, and what comes after it.

    def drains(self, request: StreamingRequest, last: bool) -> bool:
        """Whether to read the rest of a body that is not used."""
        # Decoding chunks would be wasted work.
        if last and request.length is None:
            return False
        # A client that waits for 100 Continue may send its body or its next request:
        # the server cannot know which (RFC 9110, 10.1.1).
        if request.body.failure or request.expects_continue:
            return False
        left = 0 if request.length is None else request.length - request.body.received
        return left <= self.site.limits.drain

    def keeps(self, last: bool = False) -> bool:
        """Whether another request may follow."""
        if last or self.site.stopping or self.site.admission.full:
            self.persistent = False
        return bool(self.persistent)

    def drain(self) -> None:
        """Read to the body's end, within limits, to keep the connection."""
        self._drain_left = self.site.limits.drain
        self._alarm.set(self.site.limits.linger_time, self.linger)

    def _drained(self, size: int) -> None:
        """``size`` bytes arrived after the answer, including the chunks' framing."""
        self._drain_left -= size
        if self._drain_left < 0:
            self.linger()

    def linger(self) -> None:
        """Close, but let the client read the answer.

        Closing at once would reset the connection of a client that still sends, and the
        reset may overtake the answer (RFC 9112, 9.6).
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
        # TLS provides its TCP transport's interfaces, but has no half-close.
        half = IHalfCloseableDescriptor.providedBy(self.transport)
        if half and not self.isSecure():
            # A transport that has paused its producer resumes it when its buffer is
            # empty, and then forgets to close its sending side.
            self._networkProducer.unregisterProducer()
            self.transport.loseWriteConnection()

    def requestDone(self, request: StreamingRequest) -> None:
        # An answer given before the shutdown did not announce that it is the last.
        self.keeps()
        self._idle = True
        self._alarm.set(self.site.limits.idle, self.loseConnection)
        self._answered += 1
        # While it is paused, Twisted's line receiver only gathers what arrives.
        self.paused = self._answered % REQUESTS_AT_ONCE == 0
        super().requestDone(request)
        if self.paused and not self._closing:
            self._behind = True
            self.site.turns.join(self._go_on)
        elif self._input_ended:
            # Not at once: a pipelined request may be next.
            self.callLater(0, self._close_unless_answering)

    def _close_unless_answering(self) -> None:
        if self.paused:
            # Requests may wait: it is called again after them.
            return
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
        """Whether a request waits for its answer."""
        request = self.requests[-1] if self.requests else None
        return request is not None and request.routed and not request.answered

    def close_if_idle(self) -> None:
        """Close, unless a request waits for its answer."""
        if not self.requests and not self._deaf:
            self.loseConnection()

    def turn_away(self, refusal: Refusal) -> None:
        """Stop reading: answer an incomplete request with ``refusal``.

        A complete request keeps its answer, and an answered one its way of closing.
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
