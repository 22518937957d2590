"""Calls to an object store: botocore signs them, Twisted's Agent sends them.

A call has timeouts: to get a connection, for its body to move, and for the answer. It
is sent once, on one connection; if there is none to the current endpoint, the next one
is tried. After an answer that leaves the effect unsure, too, later calls use the next
endpoint, but nothing here repeats a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    succeed,
)
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
)
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from filebucket.base.alarm import Alarm
from filebucket.base.text import printable
from filebucket.model.objects import S3
from filebucket.store.s3.answers import code_of, error_of
from filebucket.store.s3.body import MemoryBody, Sending
from filebucket.store.s3.connect import TLS_ERRORS, Place, Wire, connector, tls_text
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import (
    IBody,
    NotSentError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.signing import Signer

SHORT = 64 * 1024
"""Bytes of the longest answer that is not content; S3's have less than 1 KiB."""

_NOTHING = MemoryBody.of(b"")


@frozen
class Limits:
    """Limits of calls.

    :param calls: calls to one bucket that are in progress at once; each has a
        connection
    :param turn: seconds until it is a call's turn
    :param connect: seconds to connect to an endpoint, with TLS
    :param window: seconds in which at least ``least`` bytes of a body must move
    :param answer: seconds from the end of the body to the end of the answer
    :param complete: the same, for the end of a multipart upload, when the store may
        have to gather the parts
    :param idle: seconds for which an unused connection is kept; shorter than servers
        keep them, since a call on a connection that the server is closing is unsure
    :param quiet: seconds between two messages about endpoints
    """

    calls: int = 64
    turn: float = 30
    connect: float = 10
    window: float = 30
    least: int = 64 * 1024
    answer: float = 60
    complete: float = 300
    idle: int = 10
    quiet: float = 60


@frozen
class Answer:
    """The answer to a call.

    :param place: the endpoint, for messages
    """

    place: str
    status: int
    headers: Headers
    content: bytes

    def header(self, name: str) -> str:
        """The value of a header; empty if there is none."""
        values = self.headers.getRawHeaders(name, [])
        return str(values[0]) if values else ""

    def error(self) -> ObjectError:
        """The error that it is."""
        return error_of(self.place, self.status, code_of(self.content))

    def senseless(self, what: str) -> UnsureError:
        """The error of an answer that no S3 store gives."""
        return UnsureError(f"{self.place} answered {self.status}, but {what}")


@frozen
class Call:
    """A request to a store.

    :param path: quoted, with the query
    :param headers: besides those of every call
    :param most: bytes of the longest answer
    :param answer: seconds for the answer
    """

    method: str
    path: str
    answer: float
    headers: Mapping[str, str] = field(factory=dict)
    body: IBody | None = None
    most: int = SHORT


@implementer(IAgentEndpointFactory)
@frozen
class _Lent:
    """A connection for one request, as a pool."""

    connection: Any
    persistent: bool = True

    def getConnection(self, key: object, endpoint: object) -> Deferred[Any]:
        return succeed(self.connection)

    def endpointForURI(self, uri: object) -> None:
        """It is there already."""


class _ConnectError(Exception):
    """There is no connection to an endpoint, for the reason in the message."""


class _Reader(Protocol):
    """Reads the content of an answer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._most:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._size > self._most:
            self.ended.errback(UnsureError("sent too large an answer"))
        elif reason.check(ResponseDone):
            self.ended.callback(b"".join(self._pieces))
        else:
            self.ended.errback(reason)


class _Watch:
    """Aborts a connection if a call takes too long.

    :ivar reason: why, if it did
    """

    def __init__(
        self, clock: IReactorTime, limits: Limits, call: Call, wire: Wire
    ) -> None:
        self.reason = ""
        self._alarm = Alarm(clock)
        self._limits = limits
        self._answer = call.answer
        self._wire = wire
        self._sending: Sending | None = None
        self._last = 0

    def start(self, sending: Sending) -> None:
        """The request begins."""
        self._sending = sending
        self._alarm.set(self._limits.window, self._look)

    def sent(self) -> None:
        """All of it is sent, or the answer has begun."""
        if self._sending is None:
            return
        self._sending = None
        self._alarm.set(self._answer, self._late)

    def stop(self) -> None:
        """It has ended."""
        self._sending = None
        self._alarm.stop()

    def _look(self) -> None:
        assert self._sending is not None
        moved = self._sending.moved - self._last
        if moved < self._limits.least:
            took = f"took only {moved} bytes" if moved else "took no data"
            self._abort(f"{took} in {self._limits.window:g} seconds")
            return
        self._last += moved
        self._alarm.set(self._limits.window, self._look)

    def _late(self) -> None:
        self._abort(f"did not answer in {self._answer:g} seconds")

    def _abort(self, reason: str) -> None:
        self.reason = reason
        self._wire.abortConnection()


class Calls:
    """Sends calls to the endpoints of a store.

    A call goes to the endpoint that worked last.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        s3: S3,
        credentials: Callable[[], Credentials],
        limits: Limits | None = None,
        connect: Callable[[str], IStreamClientEndpoint] | None = None,
    ) -> None:
        """
        :param credentials: returns the current ones
        :param connect: the endpoint for a URL; for tests
        :raises OperatorError: botocore is not installed, or the file with the
            authorities' certificates cannot be used
        """
        self.limits = limits or Limits()
        self._reactor = reactor
        self._signer = Signer(s3.region)
        self._credentials = credentials
        self._every: set[Wire] = set()
        connect = connect or connector(reactor, s3)
        self._places = [Place(url, connect(url), self._every) for url in s3.endpoints]
        self._current = 0
        self._told: float | None = None
        self._pool = HTTPConnectionPool(reactor)
        self._pool.retryAutomatically = False
        self._pool.maxPersistentPerHost = self.limits.calls
        self._pool.cachedConnectionTimeout = self.limits.idle

    async def close(self) -> None:
        """Close all connections. Calls that are in progress fail."""
        closing = self._pool.closeCachedConnections()
        for each in list(self._every):
            each.abortConnection()
        await closing

    async def answer(self, call: Call, turns: DeferredSemaphore) -> Answer:
        """The answer to a call, whatever it is.

        :raises UnsureError: there is none
        :raises OSError: the body cannot be read
        """
        try:
            await self._within(self.limits.turn, turns.acquire())
        except _LateError:
            raise NotSentError(
                f"more than {self.limits.calls} calls to the object store are in"
                " progress"
            ) from None
        except CancelledError:
            raise NotSentError("the call was canceled") from None
        try:
            return await self._sent(call)
        finally:
            turns.release()

    async def _sent(self, call: Call) -> Answer:
        reason = ""
        for index, place in self._in_turn():
            try:
                connection = await self._connection(place)
            except _ConnectError as error:
                reason = f"cannot connect to {place.name}: {error}"
                self._leave(index, reason)
                continue
            try:
                return await self._exchange(place, connection, call)
            except UnsureError as error:
                self._leave(index, str(error))
                raise
        raise NotSentError(reason)

    def _in_turn(self) -> Iterator[tuple[int, Place]]:
        """Each endpoint once, from the current one on."""
        first, count = self._current, len(self._places)
        for each in range(first, first + count):
            yield each % count, self._places[each % count]

    def leave(self, place: str, reason: str) -> None:
        """Use another endpoint than that one from now on."""
        for index, each in enumerate(self._places):
            if each.name == place:
                self._leave(index, reason)

    def _leave(self, index: int, reason: str) -> None:
        # Other calls may have left it already.
        if index != self._current or len(self._places) == 1:
            return
        self._current = (index + 1) % len(self._places)
        now = self._reactor.seconds()
        if self._told is None or now - self._told >= self.limits.quiet:
            self._told = now
            self._log.warn(
                "{reason}; using {place}",
                event="object-store",
                reason=reason,
                place=self._places[self._current].name,
            )

    async def _within(self, seconds: float, wait: Deferred[Any]) -> Any:
        """Await ``wait``, but cancel it after some time.

        :raises _LateError: it took too long
        """
        late = []
        alarm = Alarm(self._reactor)

        def ring() -> None:
            late.append(True)
            wait.cancel()

        if not wait.called:
            alarm.set(seconds, ring)
        try:
            return await wait
        except (CancelledError, ConnectingCancelledError):
            if late:
                raise _LateError from None
            raise CancelledError from None
        finally:
            alarm.stop()

    async def _connection(self, place: Place) -> Any:
        """A connection that is not in use.

        :raises _ConnectError: there is none
        :raises NotSentError: cancelled
        """
        try:
            return await self._within(
                self.limits.connect, self._pool.getConnection(place.url, place)
            )
        except _LateError:
            reason = f"no connection in {self.limits.connect:g} seconds"
        except CancelledError:
            raise NotSentError("the call was canceled") from None
        except TLS_ERRORS as error:
            reason = f"TLS failed: {tls_text(error)}"
        except (ConnectError, ConnectionClosed, OSError) as error:
            reason = printable(str(error)).rstrip(".")
        raise _ConnectError(reason)

    async def _exchange(self, place: Place, connection: Any, call: Call) -> Answer:
        """Send a call on a connection.

        :raises UnsureError: there is no whole answer
        :raises OSError: the body cannot be read
        """
        wire: Wire = connection.transport
        wire.left = SHORT + 2 * call.most
        watch = _Watch(self._reactor, self.limits, call, wire)
        sending = Sending(call.body or _NOTHING, watch.sent)
        finished = False
        try:
            response = await self._request(place, connection, call, sending, watch)
            content = await self._content(response, call)
            finished = True
            if not sending.done and response.code < 300:
                raise UnsureError("answered before it had received all data")
            return Answer(place.name, response.code, response.headers, content)
        except RequestGenerationFailed as error:
            reason = _unreadable(error, watch)
        except (ResponseFailed, RequestTransmissionFailed, ConnectionClosed) as error:
            reason = watch.reason or _lost_text(error, wire)
            # Since Python 3.12, its frames lead back to it, and to the body.
            error.__traceback__ = None
        except PotentialDataLoss:
            reason = (
                watch.reason
                or "sent an answer without a length, and closed the connection"
            )
        except UnsureError as error:
            reason = str(error)
        except CancelledError:
            reason = "got the request before the call was canceled"
        finally:
            watch.stop()
            # Only a connection whose request and answer are whole is used again.
            if not (finished and sending.done and connection.state == "QUIESCENT"):
                wire.abortConnection()
            await sending.ended()
        raise UnsureError(f"{place.name} {reason}")

    async def _request(
        self,
        place: Place,
        connection: Any,
        call: Call,
        sending: Sending,
        watch: _Watch,
    ) -> IResponse:
        url = place.url + call.path
        body = call.body or _NOTHING
        # Sent as it is signed, whatever the libraries would make of the URL.
        headers = {**call.headers, "host": place.host}
        signed = self._signer.sign(
            self._credentials(), call.method, url, headers, body.sha256
        )
        lent = _Lent(connection)
        agent = Agent.usingEndpointFactory(self._reactor, lent, lent)
        watch.start(sending)
        if call.body is None:
            watch.sent()
        response: IResponse = await agent.request(
            call.method.encode(),
            url.encode(),
            Headers({name: [value] for name, value in signed.items()}),
            None if call.body is None else sending,
        )
        # It may have come before the end of the body.
        watch.sent()
        return response

    async def _content(self, response: IResponse, call: Call) -> bytes:
        reader = _Reader(call.most)
        response.deliverBody(reader)
        return await reader.ended


class _LateError(Exception):
    """It took too long."""


def _unreadable(error: RequestGenerationFailed, watch: _Watch) -> str:
    """
    :raises Exception: the body cannot be read
    """
    cause: Exception = error.reasons[0].value
    if isinstance(cause, CancelledError):
        return watch.reason or "got the request before the call was canceled"
    raise cause from None


def _lost_text(error: Exception, wire: Wire) -> str:
    if wire.left < 0:
        return "sent too large an answer"
    causes = [each.value for each in getattr(error, "reasons", [])]
    if any(isinstance(each, CancelledError) for each in causes):
        return "got the request before the call was canceled"
    lost = [each for each in causes if isinstance(each, ConnectionClosed)]
    if lost or isinstance(error, ConnectionClosed):
        return "closed the connection before its answer"
    return "sent an answer that is not HTTP"
