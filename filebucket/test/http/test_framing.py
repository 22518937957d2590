""":mod:`filebucket.http.framing`, over a connection in memory."""

from __future__ import annotations

import tracemalloc
from urllib.parse import quote_from_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.http.framing import Chunks
from filebucket.test.kit.properties import PLACES, cut, trying
from filebucket.test.kit.wire import (
    Connection,
    Recorder,
    StreamingCase,
    echo,
    nothing,
    put,
)


class FramingTests(StreamingCase):
    """What is not HTTP/1.1 is refused before anything is dispatched."""

    def test_refused(self) -> None:
        """Each gets its status, one line of text, and a closed connection. What is
        refused is in ``test_bad_http``.
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
        """Wherever Twisted finds a second fault, the first has been told."""
        connection = self.connect()
        connection.send(b"nonsense\r\n")
        connection.channel.refuse(Refusal(400, "again"))
        self.assertEqual([400], connection.statuses())

    def test_after_a_good_one(self) -> None:
        """A request that follows a good one is judged alike."""
        connection = self.connect(echo)
        connection.send(put(1) + b"a" + b"nonsense\r\n\r\n" + put(1) + b"b")
        self.assertEqual([200, 400], connection.statuses())


class ChunksTests(SynchronousTestCase):
    """The chunks of a body."""

    def test_trailers_are_not_kept(self) -> None:
        """A line of three bytes takes twenty times as many: nobody wants it."""
        chunks = Chunks(lambda data: None, lambda rest: None)
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
        """Whatever is in the chunks, and wherever they are cut."""
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


class AnyTargetTests(SynchronousTestCase):
    """The components of a path."""

    @trying
    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
    def test_components(self, components: list[bytes]) -> None:
        """What was encoded comes out, in as many components."""
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
        """Any target is one, or is refused with 400."""
        root = Recorder(nothing)
        connection = Connection(root)
        connection.send(b"PUT %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)
        self.assertEqual([], self.flushLoggedErrors())
        if not root.requests:
            self.assertEqual([400], connection.statuses()[:1])
        else:
            self.assertTrue(target.isascii())
            self.assertEqual(1, len(root.requests))
