""":mod:`filebucket.http.framing`, over a connection in memory."""

from __future__ import annotations

import re
import tracemalloc
from urllib.parse import quote_from_bytes

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import _MalformedChunkedDataError

from filebucket.base.errors import Refusal
from filebucket.http.channel import StreamingRequest
from filebucket.http.framing import (
    CHUNKS_AT_ONCE,
    MOST_USUAL,
    Chunks,
    members,
    usual_head,
)
from filebucket.http.turns import AT_ONCE
from filebucket.test.kit.properties import PLACES, cut, trying
from filebucket.test.kit.wire import (
    CHUNKED,
    LIMITS,
    PUT,
    Connection,
    Recorder,
    StreamingCase,
    Wire,
    echo,
    nothing,
    put,
)


class FramingTests(StreamingCase):
    """Input that is not HTTP/1.1 is refused before anything is dispatched."""

    def test_refused(self) -> None:
        """Each gets its status, one line of text, and a closed connection. The rows are
        in ``test_bad_http``.
        """
        get = b"GET / HTTP/1.1\r\n"
        for status, message in (
            (400, b"nonsense\r\n\r\n"),
            (400, b"GET / HTTP/1.1\n"),
            (400, get + b"\r\n"),
            (400, get + b"Host: h\r\nno colon\r\n\r\n"),
            (400, put(1).replace(b": 1", b": 1" + b"0" * 4300)),
            (414, b"GET /" + b"x" * 20000),
            (431, get + b"X: " + b"x" * 20000),
            (431, get + b"X: y\r\n" * 600 + b"\r\n"),
            (431, get + (b"X: " + b"y" * 1000 + b"\r\n") * 20 + b"\r\n"),
        ):
            connection = self.connect(echo)
            connection.send(message + b"more", b"and more")
            ((got, headers, content),) = connection.answers()
            self.assertEqual(status, got, message[:80])
            self.assertEqual("close", headers["connection"])
            self.assertEqual("text/plain; charset=utf-8", headers["content-type"])
            self.assertEqual(1, content.count(b"\n"))
            self.assertEqual([status], [each.status for each in connection.refused])
            self.assertEqual([], self.root.requests)
            self.assertTrue(connection.wire.half_closed)

    def test_only_once(self) -> None:
        """If Twisted finds a second fault, only the first is reported."""
        connection = self.connect()
        connection.send(b"nonsense\r\n")
        connection.channel.refuse(Refusal(400, "again"))
        self.assertEqual([400], connection.statuses())

    def test_after_a_good_one(self) -> None:
        connection = self.connect(echo)
        connection.send(put(1) + b"a" + b"nonsense\r\n\r\n" + put(1) + b"b")
        self.assertEqual([200, 400], connection.statuses())


class TurnTests(StreamingCase):
    """The work on one read is limited, however many chunks it contains."""

    def send_many(self, connection: Connection) -> StreamingRequest:
        """Send three times as many chunks as are decoded at once, and the end."""
        connection.send(CHUNKED, b"1\r\nx\r\n" * 3 * CHUNKS_AT_ONCE + b"0\r\n\r\n")
        return self.root.requests[0]

    def test_in_turns(self) -> None:
        """Other connections come first, and nothing more is read meanwhile."""
        connection = self.connect(limits=evolve(LIMITS, buffer=10**6))
        request = self.send_many(connection)
        body, seen = request.body, list[int]()
        self.assertEqual(CHUNKS_AT_ONCE, body.received)
        self.assertTrue(connection.wire.paused)
        connection.clock.callLater(0, lambda: seen.append(body.received))
        connection.clock.advance(0)
        self.assertEqual([2 * CHUNKS_AT_ONCE], seen)
        self.assertEqual(3 * CHUNKS_AT_ONCE, body.received)
        self.assertTrue(request.body.ended)
        self.assertFalse(connection.wire.paused)

    def test_in_turns_from_within_a_chunk(self) -> None:
        connection = self.connect(limits=evolve(LIMITS, buffer=10**6))
        many = b"\r\n1\r\nx" * 2 * CHUNKS_AT_ONCE
        connection.send(CHUNKED, b"1\r\nx", many + b"\r\n0\r\n\r\n")
        body = self.root.requests[0].body
        self.assertEqual(1 + CHUNKS_AT_ONCE, body.received)
        connection.clock.pump([0] * 5)
        self.assertEqual(1 + 2 * CHUNKS_AT_ONCE, body.received)
        self.assertTrue(body.ended)

    def test_many_connections(self) -> None:
        connection = self.connect()
        wires = [Wire() for _ in range(3 * AT_ONCE)]
        for wire in wires:
            connection.connect(wire).dataReceived(
                CHUNKED + b"1\r\nx\r\n" * 3 * CHUNKS_AT_ONCE
            )
        received: list[int] = []
        connection.clock.callLater(
            0,
            lambda: received.extend(each.body.received for each in self.root.requests),
        )
        connection.clock.advance(0)
        self.assertEqual((len(wires) + AT_ONCE) * CHUNKS_AT_ONCE, sum(received))
        self.assertEqual({CHUNKS_AT_ONCE, 2 * CHUNKS_AT_ONCE}, set(received))
        for request in self.root.requests:
            request.channel.connectionLost()

    def test_next_request(self) -> None:
        connection = self.connect(echo)
        chunks = b"1\r\nx\r\n" * (CHUNKS_AT_ONCE + 1) + b"0\r\n\r\n"
        connection.send(CHUNKED, chunks + put(1) + b"y")
        connection.clock.pump([0] * 5)
        answers = connection.answers()
        self.assertEqual(
            [b"x" * (CHUNKS_AT_ONCE + 1), b"y"], [content for _, _, content in answers]
        )

    def test_malformed_later(self) -> None:
        connection = self.connect()
        connection.send(CHUNKED, b"1\r\nx\r\n" * CHUNKS_AT_ONCE + b"nonsense\r\n")
        request = self.root.requests[0]
        self.assertIsNone(request.body.failure)
        connection.clock.advance(0)
        assert request.body.failure is not None
        self.assertEqual(400, request.body.failure.status)

    def test_gone_meanwhile(self) -> None:
        connection = self.connect()
        request = self.send_many(connection)
        connection.lose()
        connection.clock.pump([0] * 5)
        self.assertEqual(CHUNKS_AT_ONCE, request.body.received)

    def test_body_waits(self) -> None:
        connection = self.connect(limits=evolve(LIMITS, buffer=CHUNKS_AT_ONCE))
        request = self.send_many(connection)
        connection.clock.pump([0] * 5)
        self.assertTrue(request.body.paused)
        self.assertTrue(connection.wire.paused)

    def test_nothing_after_the_last_answer(self) -> None:
        connection = self.connect(lambda request: request.answer(403, {}, b"", True))
        request = self.send_many(connection)
        self.assertTrue(connection.wire.half_closed)
        self.assertEqual(
            (0, []), (request.body.received, connection.clock.getDelayedCalls()[1:])
        )


class MembersTests(SynchronousTestCase):
    """Lists in headers."""

    def test_members(self) -> None:
        for values, expected in (
            ([], []),
            ([""], []),
            ([", ,\t"], []),
            (["A"], ["a"]),
            (["a, B,", " c"], ["a", "b", "c"]),
        ):
            self.assertEqual(expected, members(values), values)


class ChunksTests(SynchronousTestCase):
    """Chunked bodies."""

    def test_wanted_trailers(self) -> None:
        chunks = Chunks(
            lambda data: None, lambda rest: None, lambda: None, frozenset({b"a"})
        )
        chunks.dataReceived(b"0\r\nA:  1 \r\nb: 2\r\na: 3\r\n\r\n")
        found = list(chunks.trailers.getAllRawHeaders())
        self.assertEqual([(b"A", [b"1", b"3"])], found)

    def test_in_one_piece(self) -> None:
        got: list[bytes] = []
        chunks = Chunks(got.append, lambda rest: got.append(b"end"), lambda: None)
        chunks.dataReceived(b"1\r\na\r\n2\r\nbc\r\n3\r\nd")
        chunks.dataReceived(b"ef\r\n0\r\n\r\n")
        self.assertEqual([b"abcd", b"ef", b"end"], got)

    def test_within_a_chunk(self) -> None:
        """Data is not copied if nothing else was read."""
        got: list[bytes] = []
        chunks = Chunks(got.append, lambda rest: got.append(b"end"), lambda: None)
        chunks.dataReceived(b"8\r\na")
        data = b"bcdefg"
        chunks.dataReceived(data)
        self.assertIs(data, got[1])
        chunks.dataReceived(b"h\r\n01\r\ni\r\n2\r\njk\r\n0\r\n\r\nrest")
        self.assertEqual([b"a", data, b"hijk", b"end"], got)

    def test_trailers_are_not_kept(self) -> None:
        """A tiny trailer takes twenty times its bytes in memory."""
        chunks = Chunks(lambda data: None, lambda rest: None, lambda: None)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        chunks.dataReceived(b"0\r\n")
        chunks.dataReceived(b"a:\r\n" * 16000)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 64 * 1024)


class AnyChunksTests(SynchronousTestCase):
    """Chunked bodies, over a connection in memory."""

    HEAD = b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

    @trying
    @given(st.lists(st.binary(min_size=1, max_size=60)), PLACES, st.booleans())
    def test_chunks(
        self, chunks: list[bytes], places: list[int], extended: bool
    ) -> None:
        extension = b";a=b" if extended else b""
        message = self.HEAD + b"".join(
            [b"%x%b\r\n%b\r\n" % (len(each), extension, each) for each in chunks]
            + [b"0\r\n\r\n"]
        )
        connection = Connection(Recorder(echo))
        connection.send(*cut(message * 2, places))
        self.assertEqual(
            [(200, b"".join(chunks))] * 2,
            [(status, content) for status, _, content in connection.answers()],
        )


class Whole(Chunks):
    """Leaves everything to Twisted."""

    def _skim(self, data: bytes) -> int:
        return 0


class AnyFramingTests(SynchronousTestCase):
    """Chunks that are decoded without Twisted are what it would have decoded."""

    BYTES = st.sampled_from([b"\r", b"\n", b"\r\n", b"0", b"1", b"00A", b";", b"x"])

    @trying
    @given(st.lists(BYTES, max_size=40), PLACES)
    def test_as_twisted(self, found: list[bytes], places: list[int]) -> None:
        pieces = [b"3\r\na", *cut(b"bc\r\n" + b"".join(found), places)]
        self.assertEqual(self.decoded(Whole, pieces), self.decoded(Chunks, pieces))

    def decoded(self, kind: type[Chunks], pieces: list[bytes]) -> list[bytes]:
        got = [b""]

        def add(data: bytes) -> None:
            got[0] += data

        chunks = kind(add, got.append, lambda: None)
        try:
            for piece in pieces:
                chunks.dataReceived(piece)
                if len(got) > 1:
                    break
        except _MalformedChunkedDataError:
            got.append(b"malformed")
        return got


class UsualHeadTests(SynchronousTestCase):
    """A head that is taken at once is what Twisted finds line by line."""

    LINES = st.sampled_from(
        [
            b"PUT /t/a%20b?c HTTP/1.1",
            b"POST /t HTTP/1.1",
            b"PUT /t HTTP/1.0",
            b"put  /t HTTP/1.1",
            b"PUT t HTTP/1.1",
            b"PUT http://h/t HTTP/1.1",
        ]
    )
    SOME = (
        b"Host: h",
        b"Host: /",
        b"Content-Length: 3",
        b"content-length:\t3 ",
        b"Content-Length: 03",
        b"Content-Length: +3",
        b"Content-Length: 9999999999999999999",
        b"Content-Length: 20",
        b"Transfer-Encoding: chunked",
        b"transfer-ENCODING: chunked",
        b"Connection: close",
        b"Connection: Keep-Alive, Close",
        b"Expect: 100-continue",
        b"expect:",
        b"x-A: \xe9 \t b\t",
        b"X-a:",
        b" folded",
        b": x",
        b"X y: z",
        b"X",
        b"",
        b"X: " + b"x" * 5000,
    )
    FIELDS = st.sampled_from(SOME)
    ENDS = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\0\r\n", b"\x7f\r\n"])
    MESSAGES = st.tuples(LINES, st.lists(st.tuples(FIELDS, ENDS), max_size=6))

    @trying
    @given(MESSAGES, st.booleans())
    def test_as_twisted(
        self, message: tuple[bytes, list[tuple[bytes, bytes]]], whole: bool
    ) -> None:
        line, fields = message
        head = line + b"\r\n" + b"Host: h\r\n" * whole
        head += b"".join(map(b"".join, fields)) + b"Content-Length: 3\r\n" * whole
        sent = head + b"\r\nabc" + put(3) + b"def" + put(3)[:30]
        found = self.outcome(sent)
        self.assertEqual([], self.flushLoggedErrors())
        # The first byte alone begins a head that Twisted has to parse.
        self.assertEqual(self.outcome(sent[:1], sent[1:]), found)

    def test_each_field(self) -> None:
        for field in self.SOME:
            for sent in (
                put(3, field) + b"abc",
                PUT + field + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ):
                found = self.outcome(sent + put(0))
                self.assertEqual(self.outcome(sent[:1], sent[1:] + put(0)), found)

    def test_taken(self) -> None:
        for head, taken in (
            (put(3), True),
            (put(3, *[b"X-%d: a" % each for each in range(48)]), True),
            (put(3, *[b"X-%d: a" % each for each in range(49)]), False),
            (put(3, b"X: " + b"x" * MOST_USUAL), False),
            (put(3, b"Expect: 100-continue"), False),
            (put(3, b"X: a", b"eXPECT:"), False),
            (put(3, b"TRANSFER-encoding: chunked"), False),
            (put(3, b"Expected: a", b"X-Expect: a"), True),
            (put(3, b"X: a\0"), False),
            (put(3, b"Content-Length: 3"), False),
            (put(3)[:-1], False),
            (CHUNKED, False),
            (b"\r\n" + put(3), False),
        ):
            found = usual_head(head + b"abc")
            self.assertEqual(taken, found is not None, head)
            if found is not None:
                self.assertEqual((len(head), 3), (found.size, found.length))

    def outcome(self, *sent: bytes) -> tuple[object, ...]:
        """What a server does with the request: what it sees, answers and logs."""
        root = Recorder(echo)
        connection = Connection(root)
        connection.send(*sent)
        answers = re.sub(rb"Date: [^\r]*", b"", connection.received())
        answers = answers.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        requests = [
            (
                each.method,
                each.uri,
                each.path,
                each.clientproto,
                each.length,
                each.body.received,
                dict(each.requestHeaders.getAllRawHeaders()),
            )
            for each in root.requests
        ]
        refused = [(each.status, each.reason) for each in connection.refused]
        ended = connection.closed, connection.wire.half_closed
        timers = [each.getTime() for each in connection.clock.getDelayedCalls()]
        return answers, requests, refused, ended, timers


class AnyTargetTests(SynchronousTestCase):
    """The components of a path."""

    @trying
    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
    def test_components(self, components: list[bytes]) -> None:
        path = "/".join(quote_from_bytes(each, safe="") for each in components)
        root = Recorder(nothing)
        connection = Connection(root)
        connection.send(f"PUT /{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        (request,) = root.requests
        self.assertEqual(components, request.postpath)
        self.assertIsNone(request.target_fault)

    @trying
    @given(st.binary(min_size=1, max_size=60))
    def test_anything(self, target: bytes) -> None:
        root = Recorder(nothing)
        connection = Connection(root)
        connection.send(b"PUT %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)
        self.assertEqual([], self.flushLoggedErrors())
        if not root.requests:
            self.assertEqual([400], connection.statuses()[:1])
        else:
            self.assertTrue(target.isascii())
            self.assertEqual(1, len(root.requests))
