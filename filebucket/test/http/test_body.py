""":class:`filebucket.http.body.Body`, over a connection in memory."""

from __future__ import annotations

from attrs import evolve

from filebucket.base.errors import Refusal
from filebucket.http.body import CHUNK_COST, UNASKED
from filebucket.test.kit.wire import (
    CHUNKED,
    LIMITS,
    PUT,
    StreamingCase,
    echo,
    put,
    refuse,
)


class BodyTests(StreamingCase):
    """The streamed body."""

    def test_every_split(self) -> None:
        chunked = (
            CHUNKED + b"5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nT: x\r\n\r\n"
        )
        whole = put(11) + b"hello world"
        for message in (chunked, whole):
            for cut in range(1, len(message)):
                connection = self.connect(echo)
                connection.send(message[:cut], message[cut:])
                ((status, _, content),) = connection.answers()
                self.assertEqual((200, b"hello world"), (status, content), cut)
            connection = self.connect(echo)
            connection.send(*(message[i : i + 1] for i in range(len(message))))
            ((status, _, content),) = connection.answers()
            self.assertEqual((200, b"hello world"), (status, content))

    def test_batches(self) -> None:
        connection = self.connect()
        connection.send(put(9), b"abc", b"def")
        (request,) = self.root.requests
        self.assertEqual([b"abc", b"def"], self.successResultOf(self.batch(request)))
        later = self.batch(request)
        self.assertNoResult(later)
        connection.send(b"ghi")
        self.assertEqual([b"ghi"], self.successResultOf(later))
        self.failureResultOf(self.batch(request), StopAsyncIteration)

    def test_empty(self) -> None:
        for head in (put(0), CHUNKED + b"0\r\n\r\n", PUT + b"\r\n"):
            connection = self.connect(echo)
            connection.send(head)
            self.assertEqual([200], connection.statuses())

    def test_backpressure(self) -> None:
        connection = self.connect()
        connection.send(put(1000), b"x" * (LIMITS.buffer - CHUNK_COST - 1))
        (request,) = self.root.requests
        self.assertFalse(connection.wire.paused)
        connection.send(b"x")
        self.assertTrue(connection.wire.paused)
        self.successResultOf(self.batch(request))
        self.assertFalse(connection.wire.paused)

    def test_backpressure_before_it_is_wanted(self) -> None:
        """Less of a body may wait before it is first read."""
        connection = self.connect(limits=evolve(LIMITS, buffer=4 * UNASKED))
        connection.send(put(9 * UNASKED), bytes(UNASKED - CHUNK_COST - 1))
        (request,) = self.root.requests
        self.assertFalse(connection.wire.paused)
        connection.send(b"x")
        self.assertTrue(connection.wire.paused)
        self.successResultOf(self.batch(request))
        self.assertFalse(connection.wire.paused)
        connection.send(bytes(3 * UNASKED))
        self.assertFalse(connection.wire.paused)

    def test_backpressure_of_many_small_chunks(self) -> None:
        """A chunk of one byte counts as more than one byte."""
        connection = self.connect()
        connection.send(CHUNKED)
        few = LIMITS.buffer // (CHUNK_COST + 1)
        connection.send(*[b"1\r\nx\r\n"] * few)
        self.assertFalse(connection.wire.paused)
        connection.send(b"1\r\nx\r\n")
        self.assertTrue(connection.wire.paused)

    def test_bytes_after_a_pause(self) -> None:
        """Bytes that were read before the pause still count, and pause again."""
        connection = self.connect()
        connection.send(put(1000), b"x" * LIMITS.buffer)
        connection.wire.resumeProducing()
        connection.send(b"y")
        self.assertTrue(connection.wire.paused)
        batch = self.successResultOf(self.batch(self.root.requests[0]))
        self.assertEqual(b"x" * LIMITS.buffer + b"y", b"".join(batch))

    def test_early_answer_resumes(self) -> None:
        connection = self.connect()
        connection.send(put(1000), b"x" * LIMITS.buffer)
        self.root.requests[0].answer(409, {}, b"")
        self.assertFalse(connection.wire.paused)

    def test_malformed_chunk(self) -> None:
        for bad in (b"x\r\n", b"5\r\nhelloxx", b"0\r\nx\r\n"):
            connection = self.connect(echo)
            connection.send(CHUNKED, bad, b"more")
            self.assertEqual([400], connection.statuses(), bad)
            self.assertTrue(connection.wire.half_closed)

    def test_malformed_chunk_and_a_slow_answer(self) -> None:
        connection = self.connect()
        connection.send(CHUNKED, b"x\r\n", b"1\r\nx\r\n0\r\n\r\n")
        (request,) = self.root.requests
        self.failureResultOf(self.batch(request), Refusal)
        self.assertEqual(0, request.body.received)
        request.answer(400, {}, b"")
        self.assertEqual([400], connection.statuses())

    def test_malformed_chunk_after_the_answer(self) -> None:
        connection = self.connect(refuse)
        connection.send(CHUNKED, b"x\r\n", b"more")
        self.assertEqual([403], connection.statuses())
        self.assertTrue(connection.wire.half_closed)

    def test_connection_lost(self) -> None:
        connection = self.connect()
        connection.send(put(10), b"abc")
        (request,) = self.root.requests
        self.successResultOf(self.batch(request))
        waiting = self.batch(request)
        connection.lose()
        refusal = self.failureResultOf(waiting, Refusal).value
        self.assertEqual(400, refusal.status)
        self.assertEqual("the body ended early, after 3 of 10 bytes", refusal.reason)
        request.answer(400, {}, b"into the void")
        self.assertEqual(b"", connection.received())

    def test_connection_lost_with_bytes_that_wait(self) -> None:
        """Bytes that have arrived are read before the refusal."""
        connection = self.connect()
        connection.send(put(10), b"abc")
        (request,) = self.root.requests
        self.successResultOf(self.batch(request))
        connection.send(b"de")
        connection.lose()
        self.assertEqual([b"de"], self.successResultOf(self.batch(request)))
        self.failureResultOf(self.batch(request), Refusal)

    def test_connection_lost_before_the_body_is_read(self) -> None:
        """Before the first read, they do not stay in memory."""
        connection = self.connect()
        connection.send(put(10), b"abc")
        connection.lose()
        (request,) = self.root.requests
        self.failureResultOf(self.batch(request), Refusal)

    def test_connection_lost_after_the_body(self) -> None:
        connection = self.connect()
        connection.send(put(3), b"abc")
        connection.lose()
        batch = self.batch(self.root.requests[0])
        self.assertEqual([b"abc"], self.successResultOf(batch))
