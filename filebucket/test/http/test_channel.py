"""The streaming layer over a transport in memory."""

from __future__ import annotations

from attrs import evolve
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from filebucket.http.admission import DROP_AFTER
from filebucket.http.body import UNASKED
from filebucket.http.channel import (
    LEAST_READ,
    MOST_READ,
    REQUESTS_AT_ONCE,
    Limits,
    StreamingChannel,
    StreamingRequest,
)
from filebucket.http.site import LEAST_SHARE
from filebucket.model.client import Networks, network
from filebucket.test.kit.wire import (
    CHUNKED,
    LIMITS,
    PUT,
    Connection,
    SecureWire,
    StreamingCase,
    Wire,
    echo,
    no,
    put,
    refuse,
)


class Eager(Wire):
    """A transport that can send at once.

    :ivar takes: bytes that it takes at most
    :ivar error: returned instead
    :ivar raises: whether it is raised
    :ivar sent: what was sent at once
    """

    def __init__(self, takes: int = 10_000, error: Exception | None = None) -> None:
        super().__init__()
        self.takes = takes
        self.error = error
        self.raises = False
        self.sent = b""

    def writeSomeData(self, data: bytes) -> int | Exception:
        if self.error is not None:
            if self.raises:
                raise self.error
            return self.error
        self.sent += data[: self.takes]
        return len(data[: self.takes])


class RoutingTests(StreamingCase):
    """The resource is found when the headers have arrived."""

    def test_before_the_body(self) -> None:
        connection = self.connect()
        connection.send(put(10)[:-1])
        self.assertEqual([], self.root.requests)
        connection.send(b"\n")
        (request,) = self.root.requests
        self.assertEqual(b"PUT", request.method)
        self.assertEqual([b"t", b"name"], request.postpath)
        self.assertEqual(10, request.length)

    def test_after_a_small_body(self) -> None:
        """A body that arrived with its headers is not waited for."""
        ended: list[bool] = []
        for sent, whole in (
            (put(3) + b"abc", True),
            (put(0), True),
            (put(3) + b"abc" + put(3), True),
            (put(3) + b"ab", False),
            (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", False),
            (put(UNASKED) + b"x" * UNASKED, False),
        ):
            connection = self.connect(lambda request: ended.append(request.body.ended))
            connection.send(sent)
            self.assertEqual(whole, ended.pop(), sent[:100])
            self.assertFalse(connection.wire.paused and whole)

    def test_refused_head_of_a_small_body(self) -> None:
        """A request that is refused for its head is not rendered at its end."""
        connection = self.connect()
        connection.send(put(3, b"Host: other") + b"abc")
        self.assertEqual([400], connection.statuses())
        self.assertEqual([], self.root.requests)

    def test_targets(self) -> None:
        for target, components in (
            (b"/", [b""]),
            (b"/a", [b"a"]),
            (b"/a/", [b"a", b""]),
            (b"/a/b%20c?x=y", [b"a", b"b c"]),
            (b"/a/%2525", [b"a", b"%25"]),
            (b"/a/%2F..%2f", [b"a", b"/../"]),
            (b"//a", [b"", b"a"]),
            (b"*", [b""]),
            (b"http://host:1/a/b", [b"a", b"b"]),
            (b"HTTPS://host/a", [b"a"]),
            (b"http://host", [b""]),
            (b"/http://host/a", [b"http:", b"", b"host", b"a"]),
        ):
            connection = self.connect()
            connection.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)
            (request,) = self.root.requests
            self.assertEqual(components, request.postpath, target)
            self.assertIsNone(request.target_fault)

    def test_not_a_path(self) -> None:
        """The resource refuses a target that is not a path."""
        for target, components, fault in (
            (b"a/b", [b""], "not a path"),
            (b"token", [b""], "not a path"),
            (b"host:80", [b""], "not a path"),
            (b"ftp://h/a", [b""], "not a path"),
            (b"/a%", [b"a%"], "not an escape"),
            (b"/a/%2", [b"a", b"%2"], "not an escape"),
            (b"/%zz/%20", [b"%zz", b" "], "not an escape"),
        ):
            connection = self.connect()
            connection.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)
            (request,) = self.root.requests
            self.assertEqual(components, request.postpath)
            self.assertIn(fault, request.target_fault or "")

    def test_refusal(self) -> None:
        connection = self.connect(no)
        connection.send(put(3) + b"abc" + put(3))
        self.assertEqual([400], connection.statuses())
        self.assertEqual(1, len(connection.refused))
        self.assertEqual(1, len(self.root.requests))

    def test_head(self) -> None:
        connection = self.connect(refuse)
        connection.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = connection.received()
        self.assertIn(b"Content-Length: 3\r\n", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)

    def test_bug(self) -> None:
        def fail(request: StreamingRequest) -> None:
            raise RuntimeError("a bug")

        connection = self.connect(fail)
        connection.send(put(3) + b"abc")
        ((status, _, content),) = connection.answers()
        self.assertEqual(500, status)
        self.assertNotIn(b"a bug", content)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_resource_that_does_not_answer_so(self) -> None:
        class Returns(Resource):
            isLeaf = True

            def render(self, request: object) -> bytes:
                return b"content"

        connection = Connection(Returns())
        connection.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual([500], connection.statuses())
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))

    def test_repr(self) -> None:
        connection = self.connect()
        connection.send(put(1))
        self.assertNotIn("name", repr(self.root.requests[0]))


class ReadTests(StreamingCase):
    """The size of reads."""

    def test_grows(self) -> None:
        connection = self.connect(limits=Limits())
        connection.send(put(10**7))
        expected = LEAST_READ
        while expected < MOST_READ:
            self.assertEqual(expected, connection.wire.bufferSize)
            connection.send(bytes(expected - 1))
            self.assertEqual(expected, connection.wire.bufferSize)
            connection.send(bytes(expected))
            expected *= 2
        connection.send(bytes(expected))
        self.assertEqual(MOST_READ, connection.wire.bufferSize)

    def test_tls(self) -> None:
        """TLS records have a fixed size: always the largest reads beneath them."""
        wire = SecureWire()
        connection = self.connect(wire=wire, limits=Limits())
        self.assertEqual(MOST_READ, wire.transport.bufferSize)
        connection.send(put(10**6), bytes(LEAST_READ))
        self.assertEqual(MOST_READ, wire.transport.bufferSize)


class ContinueTests(StreamingCase):
    """100 Continue is sent when the body is first read, and not before."""

    EXPECTS = put(3, b"Expect: 100-Continue")

    def test_held_back(self) -> None:
        connection = self.connect()
        connection.send(self.EXPECTS)
        self.assertEqual(b"", connection.received())
        waiting = self.batch(self.root.requests[0])
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", connection.received())
        connection.send(b"abc")
        self.assertEqual([b"abc"], self.successResultOf(waiting))
        self.failureResultOf(self.batch(self.root.requests[0]), StopAsyncIteration)
        self.assertEqual(b"", connection.received())

    def test_not_when_refused(self) -> None:
        connection = self.connect(refuse)
        connection.send(self.EXPECTS)
        ((status, headers, _),) = connection.answers()
        self.assertEqual(403, status)
        self.assertEqual("close", headers["connection"])
        self.assertTrue(connection.wire.half_closed)

    def test_not_when_the_body_came(self) -> None:
        """A client that did not wait is not told to go on (RFC 9110, 10.1.1)."""
        connection = self.connect()
        connection.send(self.EXPECTS + b"a")
        self.batch(self.root.requests[0])
        self.assertEqual(b"", connection.received())

    def test_not_for_an_empty_body(self) -> None:
        connection = self.connect(echo)
        connection.send(put(0, b"Expect: 100-continue"))
        self.assertEqual([200], connection.statuses())

    def test_not_in_1_0(self) -> None:
        connection = self.connect(echo)
        connection.send(self.EXPECTS.replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assertEqual(b"", connection.received())

    def test_the_header_stays(self) -> None:
        connection = self.connect()
        connection.send(put(3, b"Expect: tea"))
        (request,) = self.root.requests
        self.assertEqual("tea", request.getHeader("expect"))
        self.assertFalse(request.expects_continue)


class AnswerTests(StreamingCase):
    """Answers at any time, and what follows them."""

    def test_keep_alive(self) -> None:
        connection = self.connect(echo)
        connection.send(put(1) + b"a" + put(1) + b"b", put(1), b"c")
        self.assertEqual(
            [b"a", b"b", b"c"], [content for _, _, content in connection.answers()]
        )
        self.assertFalse(connection.closed)

    def test_pipelined_waits(self) -> None:
        connection = self.connect()
        connection.send(put(1) + b"a" + put(1) + b"b")
        self.assertEqual(1, len(self.root.requests))
        self.root.requests[0].answer(200, {}, b"")
        self.assertEqual(2, len(self.root.requests))

    def test_many_pipelined(self) -> None:
        """They take turns with other connections, in order and to the last one."""
        for half_closes in (False, True):
            connection = self.connect(echo)
            wanted = [b"%03d" % each for each in range(3 * REQUESTS_AT_ONCE + 5)]
            whole = b"".join(put(3) + each for each in wanted)
            connection.send(whole[:-50], whole[-50:])
            self.assertTrue(connection.wire.paused)
            if half_closes:
                connection.half_close()
            got = [content for _, _, content in connection.answers()]
            self.assertEqual(wanted[:REQUESTS_AT_ONCE], got)
            connection.clock.advance(0)
            got += [content for _, _, content in connection.answers()]
            self.assertEqual(wanted, got)
            self.assertFalse(connection.wire.paused)

    def test_many_one_by_one(self) -> None:
        """Requests that wait for answers are answered at once; but one read may contain
        thousands of TLS records.
        """
        for wire, now in ((Wire(), REQUESTS_AT_ONCE + 1), (SecureWire(), None)):
            connection = self.connect(echo, wire)
            connection.send(*[put(1) + b"a"] * (REQUESTS_AT_ONCE + 1))
            self.assertEqual(now or REQUESTS_AT_ONCE, len(connection.statuses()))
            connection.clock.advance(0)
            self.assertEqual(0 if now else 1, len(connection.statuses()))

    def test_half_closed_after_many(self) -> None:
        """A connection is closed after the last one."""
        connection = self.connect(echo)
        connection.send((put(1) + b"a") * 2 * REQUESTS_AT_ONCE)
        connection.half_close()
        self.assertFalse(connection.closed)
        connection.clock.advance(0)
        self.assertEqual([200] * 2 * REQUESTS_AT_ONCE, connection.statuses())
        self.assertTrue(connection.closed)

    def test_lost_before_the_body_is_read(self) -> None:
        """Nothing is sent to a connection that is lost; a complete push goes on."""
        wire = Eager()
        connection = self.connect(wire=wire)
        head = CHUNKED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        connection.send(head + b"0\r\n\r\n")
        connection.lose()
        # TCP has no socket any more, and Twisted's raises that.
        wire.error, wire.raises = AttributeError("socket"), True
        (request,) = self.root.requests
        self.failureResultOf(
            Deferred.fromCoroutine(request.body.__anext__()), StopAsyncIteration
        )

    def test_at_once(self) -> None:
        """An answer does not wait for the reactor; TLS has to see it first."""
        wire = Eager()
        connection = self.connect(echo, wire)
        connection.send(put(1) + b"a")
        self.assertTrue(wire.sent.endswith(b"\r\n\r\na"), wire.sent)
        self.assertEqual(b"", wire.value())
        secure = SecureWire()
        secure.writeSomeData = secure.transport.write  # type: ignore[attr-defined]
        connection = self.connect(echo, secure)
        connection.send(put(1) + b"a")
        self.assertEqual(b"", secure.transport.value())
        self.assertEqual([200], connection.statuses())

    def test_at_once_in_order(self) -> None:
        """What the transport does not take at once is sent before the next answer."""
        for takes, error in ((0, None), (10, None), (0, ConnectionLost())):
            wire = Eager(takes, error)
            connection = self.connect(echo, wire)
            connection.send(put(1) + b"a")
            wire.takes, wire.error = 10_000, None
            connection.send(put(1) + b"b")
            self.assertEqual(takes, len(wire.sent))
            answers = wire.sent + wire.value()
            self.assertEqual(2, answers.count(b"HTTP/1.1 200 OK\r\n"))
            self.assertLess(answers.index(b"\n\r\na"), answers.index(b"\n\r\nb"))

    def test_headers(self) -> None:
        """No header can begin another one."""

        def answer(request: StreamingRequest) -> None:
            request.answer(200, {"X-A": "a\r\nX-B: b\n\nX-C: c"}, b"")

        connection = self.connect(answer)
        connection.send(put(0))
        ((_, headers, _),) = connection.answers()
        self.assertEqual("a X-B: b  X-C: c", headers["x-a"])

    def test_no_content(self) -> None:
        connection = self.connect(lambda request: request.answer(204, {}, b"content"))
        connection.send(put(0))
        answer = connection.received()
        self.assertTrue(answer.startswith(b"HTTP/1.1 204 No Content\r\n"), answer)
        self.assertNotIn(b"ontent-", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)

    def test_drained(self) -> None:
        for head, body in ((put(900), b"x" * 900), (CHUNKED, b"3\r\nabc\r\n0\r\n\r\n")):
            connection = self.connect(refuse)
            connection.send(head, body, head + body)
            answers = connection.answers()
            self.assertEqual([403, 403], [status for status, _, _ in answers])
            self.assertNotIn("connection", answers[0][1])
            self.assertFalse(connection.closed)

    def test_drained_midway(self) -> None:
        connection = self.connect()
        connection.send(put(1900), b"x" * 950)
        self.root.requests[0].answer(413, {}, b"")
        connection.send(b"x" * 950, put(0))
        self.assertEqual([413], connection.statuses())
        self.assertEqual(2, len(self.root.requests))

    def test_too_long_to_drain(self) -> None:
        connection = self.connect(refuse)
        connection.send(put(LIMITS.drain + 1))
        ((status, headers, _),) = connection.answers()
        self.assertEqual((403, "close"), (status, headers["connection"]))
        self.assertTrue(connection.wire.half_closed)
        self.assertFalse(connection.closed)
        connection.send(b"x" * LIMITS.linger)
        self.assertFalse(connection.closed)
        connection.half_close()
        self.assertTrue(connection.closed)
        self.assertFalse(connection.wire.disconnected)

    def test_chunked_too_long_to_drain(self) -> None:
        connection = self.connect(refuse)
        head = b"fff\r\n"
        connection.send(CHUNKED, head, b"x" * (LIMITS.drain - len(head)))
        self.assertFalse(connection.wire.half_closed)
        connection.send(b"x")
        self.assertTrue(connection.wire.half_closed)
        self.assertEqual([403], connection.statuses())

    def test_drain_takes_too_long(self) -> None:
        connection = self.connect(refuse)
        connection.send(put(10))
        connection.clock.advance(LIMITS.linger_time)
        self.assertTrue(connection.wire.half_closed)
        connection.clock.advance(LIMITS.linger_time)
        self.assertTrue(connection.wire.disconnected)

    def test_linger_without_a_producer(self) -> None:
        """A TCP transport that resumes a producer forgets to half-close."""
        connection = self.connect(refuse)
        connection.send(put(10**6))
        self.assertTrue(connection.wire.half_closed)
        self.assertIsNone(connection.wire.producer)

    def test_linger_bytes(self) -> None:
        connection = self.connect(refuse)
        connection.send(put(10**6), b"x" * LIMITS.linger)
        self.assertFalse(connection.wire.disconnected)
        connection.send(b"x")
        self.assertTrue(connection.wire.disconnected)

    def test_linger_time(self) -> None:
        connection = self.connect(refuse)
        connection.send(put(10**6), b"x")
        connection.clock.advance(LIMITS.linger_time - 1)
        self.assertFalse(connection.wire.disconnected)
        connection.send(b"x")
        connection.clock.advance(1)
        self.assertTrue(connection.wire.disconnected)

    def test_no_half_close_in_tls(self) -> None:
        """TLS has no half-close: its TCP transport must not be closed under it."""
        wire = SecureWire()
        connection = self.connect(refuse, wire)
        connection.send(put(10**6), b"x")
        self.assertEqual([403], connection.statuses())
        self.assertFalse(wire.half_closed)
        self.assertFalse(connection.closed)

    def test_closed_but_for_the_other_side(self) -> None:
        """TLS delivers data until the other side closes: it is ignored, and has a time
        limit.
        """

        def answered(connection: Connection) -> None:
            connection.send(put(0, b"Connection: close"))

        def left_idle(connection: Connection) -> None:
            connection.clock.advance(LIMITS.idle)

        for close in (answered, left_idle):
            connection = self.connect(refuse, SecureWire())
            close(connection)
            self.assertTrue(connection.wire.disconnecting)
            before = len(self.root.requests), connection.received()
            for data in (b"x", b"\r\n\r\n", put(1) + b"a"):
                connection.send(data)
            self.assertEqual(
                (before[0], b""), (len(self.root.requests), connection.received())
            )
            self.assertEqual([], connection.refused)
            self.assertFalse(connection.wire.disconnected)
            connection.clock.advance(LIMITS.linger_time)
            self.assertTrue(connection.wire.disconnected)

    def test_close_wanted(self) -> None:
        connection = self.connect(echo)
        connection.send(put(1, b"Connection: close") + b"a" + put(1) + b"b")
        ((_, headers, content),) = connection.answers()
        self.assertEqual(("close", b"a"), (headers["connection"], content))
        self.assertTrue(connection.closed)

    def test_close_wanted_before_the_body(self) -> None:
        """The connection is closed at the end of a short body, so without a reset."""
        connection = self.connect(refuse)
        connection.send(put(3, b"Connection: close"))
        self.assertFalse(connection.closed)
        connection.send(b"abc")
        self.assertTrue(connection.closed)

    def test_close_that_hangs(self) -> None:
        connection = self.connect(echo)
        connection.send(put(0, b"Connection: close"))
        self.assertFalse(connection.wire.disconnected)
        connection.clock.advance(LIMITS.linger_time)
        self.assertTrue(connection.wire.disconnected)

    def test_once(self) -> None:
        connection = self.connect()
        connection.send(put(0))
        self.root.requests[0].answer(200, {}, b"one")
        self.root.requests[0].answer(500, {}, b"two")
        self.assertEqual([200], connection.statuses())


class CapacityTests(StreamingCase):
    """The limit of connections."""

    def come(self) -> tuple[Wire, StreamingChannel]:
        """Open one more."""
        wire = Wire()
        channel = self.connection.connect(wire)

        def lose() -> None:
            channel.connectionLost(Failure(ConnectionDone()))

        # Before the check that no timers are left.
        self.addCleanup(lose)
        return wire, channel

    def test_makes_room(self) -> None:
        """A refused client that still sends is dropped for another; one with a push is
        not.
        """
        connection = self.connect(limits=evolve(LIMITS, connections=2))
        connection.send(put(99))
        stranger, channel = self.come()
        channel.dataReceived(put(99))
        self.root.requests[1].answer(403, {}, b"", last=True)
        connection.clock.advance(DROP_AFTER)
        wire, channel = self.come()
        self.assertEqual(
            [False, True, False],
            [each.disconnected for each in (connection.wire, stranger, wire)],
        )
        channel.dataReceived(put(9))
        self.assertEqual(3, len(self.root.requests))

    def test_waits(self) -> None:
        """If all have pushes, a new connection is not read until one of them ends."""
        connection = self.connect(echo, limits=evolve(LIMITS, connections=1))
        connection.send(put(9))
        wire, channel = self.come()
        self.assertTrue(wire.paused)
        connection.clock.advance(DROP_AFTER)
        self.assertFalse(connection.wire.disconnected)
        connection.send(b"x" * 9)
        ((_, headers, _),) = connection.answers()
        # A connection that waits for its next request would not be kept.
        self.assertEqual("close", headers["connection"])
        connection.lose()
        self.assertFalse(wire.paused)
        channel.dataReceived(put(9))
        self.assertEqual(2, len(self.root.requests))

    def test_answered_last(self) -> None:
        """A client that was just answered can read the answer, and is not dropped
        before one that has been idle for longer.
        """
        connection = self.connect(echo, limits=evolve(LIMITS, connections=3))
        silent, _ = self.come()
        self.come()
        connection.send(put(0))
        connection.clock.advance(DROP_AFTER)
        self.come()
        self.assertTrue(silent.disconnected)
        self.assertFalse(connection.wire.disconnected)

    def test_gone_from_the_line(self) -> None:
        connection = self.connect(limits=evolve(LIMITS, connections=1))
        connection.send(put(9))
        _, channel = self.come()
        channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([connection.channel], connection.site.channels)

    def test_share(self) -> None:
        """The limit of all bodies together."""
        limits = evolve(LIMITS, buffer=8 * LEAST_SHARE, buffers=9 * LEAST_SHARE)
        connection = self.connect(limits=limits)
        self.assertEqual(8 * LEAST_SHARE, connection.site.share())
        for number in range(2, 20):
            self.come()
            self.assertEqual(
                max(9 * LEAST_SHARE // number, LEAST_SHARE), connection.site.share()
            )

    def test_reads(self) -> None:
        """One read is not larger than what may wait."""
        self.check_reads(wire := Wire(), wire)

    def test_reads_of_tls(self) -> None:
        self.check_reads(wire := SecureWire(), wire.transport)

    def check_reads(self, wire: Wire, reads: Wire) -> None:
        limits = evolve(Limits(), buffers=2 * MOST_READ)
        connection = self.connect(wire=wire, limits=limits)
        connection.send(put(10**7))
        while reads.bufferSize < MOST_READ:
            connection.send(bytes(reads.bufferSize))
        for count, expected in ((3, MOST_READ // 2), (200, LEAST_READ)):
            for _ in range(count):
                self.come()
            connection.send(b"x")
            self.assertEqual(expected, reads.bufferSize)
        connection.send(bytes(LEAST_READ))
        self.assertEqual(LEAST_READ, reads.bufferSize)


class DeadlineTests(StreamingCase):
    """Slow clients."""

    def test_idle(self) -> None:
        connection = self.connect(echo)
        connection.clock.advance(LIMITS.idle)
        self.assertTrue(connection.closed)
        self.assertEqual(b"", connection.received())

    def test_idle_after_a_request(self) -> None:
        connection = self.connect(echo)
        connection.clock.advance(LIMITS.idle - 1)
        connection.send(put(0))
        connection.clock.advance(LIMITS.idle - 1)
        self.assertFalse(connection.closed)
        connection.clock.advance(1)
        self.assertTrue(connection.closed)

    def test_headers(self) -> None:
        connection = self.connect(echo)
        for byte in range(int(LIMITS.headers)):
            self.assertEqual(b"", connection.received())
            connection.send(put(10)[byte : byte + 1])
            connection.clock.advance(1)
        self.assertEqual([408], connection.statuses())
        self.assertTrue(connection.wire.half_closed)

    def test_headers_of_a_pipelined_request(self) -> None:
        connection = self.connect(echo)
        connection.send(put(1) + b"a" + put(2), b"b")
        connection.clock.advance(LIMITS.headers + 1)
        connection.send(b"c")
        self.assertEqual([200, 200], connection.statuses())

    def test_headers_of_a_pipelined_request_that_stop(self) -> None:
        connection = self.connect(echo)
        connection.send(put(1) + b"a" + put(2)[:30])
        connection.clock.advance(LIMITS.headers)
        self.assertEqual([200, 408], connection.statuses())

    def test_first_byte_of_a_pipelined_request(self) -> None:
        connection = self.connect(echo)
        connection.send(put(1) + b"aP")
        connection.clock.advance(LIMITS.headers)
        self.assertEqual([200, 408], connection.statuses())

    def test_body_stops(self) -> None:
        connection = self.connect(echo)
        connection.send(put(10))
        connection.clock.advance(LIMITS.rate_window)
        self.assertEqual([408], connection.statuses())

    def test_body_drips(self) -> None:
        connection = self.connect(echo)
        connection.send(put(5000))
        window = int(LIMITS.rate * LIMITS.rate_window)
        connection.send(b"x" * window)
        connection.clock.advance(LIMITS.rate_window)
        self.assertEqual(b"", connection.received())
        connection.send(b"x" * (window - 1))
        connection.clock.advance(LIMITS.rate_window)
        self.assertEqual([408], connection.statuses())

    def test_not_while_it_is_our_turn(self) -> None:
        """A client that the server has paused is not slow."""
        connection = self.connect()
        connection.send(put(5000))
        (request,) = self.root.requests
        first = self.batch(request)
        connection.send(b"x")
        self.successResultOf(first)
        connection.send(b"x" * LIMITS.buffer)
        connection.clock.advance(LIMITS.rate_window)
        self.successResultOf(self.batch(request))
        connection.clock.advance(LIMITS.rate_window)
        self.assertFalse(request.body.failure)
        connection.clock.advance(LIMITS.rate_window)
        self.assertTrue(request.body.failure)

    def test_not_before_the_body_is_wanted(self) -> None:
        """Nor is one whose body is not read yet."""
        connection = self.connect()
        connection.send(put(5000))
        connection.clock.advance(LIMITS.rate_window * 3)
        self.assertFalse(self.root.requests[0].body.failure)

    def test_not_while_answering(self) -> None:
        connection = self.connect()
        connection.send(put(1) + b"x")
        connection.clock.advance(3600)
        self.root.requests[0].answer(200, {}, b"")
        self.assertEqual([200], connection.statuses())


class HalfCloseTests(StreamingCase):
    """Clients that close their sending side."""

    def test_idle(self) -> None:
        connection = self.connect(echo)
        connection.send(put(0))
        connection.half_close()
        self.assertTrue(connection.closed)

    def test_after_a_refusal(self) -> None:
        for message in (put(9), b"PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"):
            connection = self.connect(no)
            connection.send(message)
            self.assertEqual([400], connection.statuses())
            connection.half_close()
            self.assertTrue(connection.closed)

    def test_in_the_headers(self) -> None:
        connection = self.connect(echo)
        connection.send(put(0)[:20])
        connection.half_close()
        self.assertTrue(connection.closed)
        self.assertEqual(b"", connection.received())

    def test_in_the_body(self) -> None:
        for head in (put(10), CHUNKED + b"9\r\n"):
            connection = self.connect(echo)
            connection.send(head + b"abc")
            connection.half_close()
            ((status, _, content),) = connection.answers()
            self.assertEqual(400, status)
            self.assertIn(b"ended early, after 3", content)
            self.assertTrue(connection.closed)

    def test_after_the_body(self) -> None:
        connection = self.connect()
        connection.send(put(3) + b"abc")
        connection.half_close()
        self.assertFalse(connection.closed)
        self.root.requests[0].answer(200, {}, b"")
        connection.clock.advance(0)
        self.assertEqual([200], connection.statuses())
        self.assertTrue(connection.closed)

    def test_after_several(self) -> None:
        connection = self.connect()
        connection.send(put(1) + b"a" + put(1) + b"b" + put(1) + b"c")
        connection.half_close()
        for number in range(3):
            self.assertFalse(connection.closed)
            self.root.requests[number].answer(200, {}, b"")
            connection.clock.advance(0)
        self.assertEqual([200, 200, 200], connection.statuses())
        self.assertTrue(connection.closed)

    def test_after_one_and_a_half(self) -> None:
        connection = self.connect()
        connection.send(put(1) + b"a" + put(10) + b"b")
        connection.half_close()
        self.root.requests[0].answer(200, {}, b"")
        connection.clock.advance(0)
        self.assertTrue(self.root.requests[1].body.failure)

    def test_our_own(self) -> None:
        connection = self.connect(refuse)
        connection.send(put(10**6))
        connection.channel.writeConnectionLost()
        self.assertFalse(connection.closed)


class SenderTests(StreamingCase):
    """The client of a push."""

    def senders(self, trusted: str, *requests: bytes) -> list[str]:
        """The clients of these requests, sent over one connection to a site that trusts
        others.
        """
        found: list[str] = []

        def answer(request: StreamingRequest) -> None:
            found.append(request.sender().text)
            request.answer(200, {}, b"")

        self.connect(answer, trusted=Networks((network(trusted),)))
        self.connection.send(*requests)
        return found

    def test_trusted(self) -> None:
        self.assertEqual(
            ["203.0.113.1:0", "203.0.113.2:0", "203.0.113.4:0", "192.168.1.1:54321"],
            self.senders(
                "192.168.1.1",
                put(0, b"X-Forwarded-For: 203.0.113.1"),
                put(0, b"x-forwarded-for: 6.6.6.6, 203.0.113.2"),
                put(0, b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 203.0.113.4"),
                put(0),
            ),
        )

    def test_not_trusted(self) -> None:
        self.assertEqual(
            ["192.168.1.1:54321"],
            self.senders("192.168.1.2", put(0, b"X-Forwarded-For: 203.0.113.1")),
        )

    def test_refused(self) -> None:
        forwarded = PUT + b"X-Forwarded-For: 203.0.113.1\r\n"
        for request, sender in (
            (forwarded + b"Host: again\r\n\r\n", "203.0.113.1:0"),
            (forwarded + b"Transfer-Encoding: x\r\n\r\n", "192.168.1.1:54321"),
            (forwarded + b"X: \0\r\n", "192.168.1.1:54321"),
        ):
            self.senders("192.168.1.1", request)
            self.assertEqual([sender], self.connection.refused_from, request)

    def test_tls_failure(self) -> None:
        for error, reason in (
            (SSL.Error([("SSL routines", "", "no certificate")]), "no certificate"),
            (SSL.Error(), "failed"),
        ):
            connection = self.connect(wire=SecureWire())
            with capturedLogs() as events:
                connection.channel.connectionLost(Failure(error))
            self.assertEqual(
                [f"dropped client=192.168.1.1:54321 reason='TLS: {reason}'"],
                [formatEvent(event) for event in events],
            )
