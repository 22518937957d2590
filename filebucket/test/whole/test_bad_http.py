"""Malformed HTTP, row by row: none of it is stored, and nothing after it is read.

Over a wire in memory, and all of it against one real daemon.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import frozen
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.http.channel import Limits
from filebucket.model.bucket import Bucket
from filebucket.model.push import Outcome
from filebucket.model.registry import Registry
from filebucket.model.token import Token, token_digest
from filebucket.push.failures import Failures
from filebucket.push.receive import Uploads
from filebucket.test.kit.bad_http import (
    BUCKET,
    CHUNKS,
    FRAMING,
    NEXT,
    ODD,
    PUSHES,
    REPORTS,
    RESUMED,
    Row,
)
from filebucket.test.kit.fakes import FakeHooks, MemoryStore
from filebucket.test.kit.server import OTHER, PATIENCE, TOKEN, UNKNOWN, Server
from filebucket.test.kit.uploads import make_sessions
from filebucket.test.kit.wire import Connection
from filebucket.web.tree import Root

LARGEST = 10**9


@frozen
class Seen:
    """The effect of a row and of the request sent after it.

    :ivar answers: the statuses
    :ivar refused: the statuses that were sent before there was a request
    :ivar pushes: the statuses of pushes that had begun
    :ivar stored: names and contents
    :ivar closed: whether the client's sending side is closed, or the connection
    :ivar left: leftovers at the connection's end: errors and warnings in the log,
        timers, writers
    """

    answers: list[int]
    refused: list[int]
    pushes: list[int]
    stored: dict[str, bytes]
    closed: bool
    left: list[object]


class MemoryCase(SynchronousTestCase):
    """Provides buckets in memory."""

    def see(self, *segments: bytes, half_close: bool = False) -> Seen:
        """Send it to a bucket in memory."""
        store = MemoryStore()
        pushes: list[Outcome] = []
        clock = Clock()
        uploads = Uploads(
            store, FakeHooks(), clock, clock.seconds, pushes.append, LARGEST
        )
        bucket = Bucket(
            (Token(token_digest(BUCKET)),), directory="bucket", name="bucket"
        )
        registry = Registry([bucket])
        sessions = make_sessions(uploads, store, registry, clock)
        root = Root(
            uploads, sessions, Failures(uploads, clock), registry, clock.seconds
        )
        connection = Connection(root, Limits())
        connection.send(*segments)
        if half_close:
            connection.half_close()
        # If there are many chunks, only a few are parsed in a turn.
        connection.clock.advance(0)
        closed = connection.wire.half_closed or connection.closed
        answers = connection.statuses()
        connection.lose()
        return Seen(
            answers,
            [each.status for each in connection.refused],
            [each.status for each in pushes],
            {name: content for (_, name), content in store.files.items()},
            closed,
            [
                *self.flushLoggedErrors(),
                *self.flushWarnings(),
                *connection.clock.getDelayedCalls(),
                *["a writer"] * store.receiving,
            ],
        )


class RowTests(MemoryCase):
    """Each row, in one segment and byte by byte, with another request after it."""

    def check(self, rows: Iterable[Row], expected: Callable[[Row, bool], Seen]) -> None:
        """Send all of them, and report every unexpected one.

        :param expected: checks a row, and whether the connection is closed after it
        """
        wrong = {}
        for row in rows:
            message = row.message + NEXT
            for how, segments in (
                ("whole", [message]),
                ("byte by byte", [bytes([byte]) for byte in message]),
            ):
                seen = self.see(*segments)
                if seen != expected(row, seen.closed):
                    wrong[f"{row.says}, {how}"] = seen
        self.assertEqual({}, wrong)

    def test_framing(self) -> None:
        """One answer and a closed connection; no push begins."""
        self.check(
            FRAMING,
            lambda row, _: Seen([row.status], [row.status], [], {}, True, []),
        )

    def test_chunks(self) -> None:
        """The push fails, and the connection is closed."""
        self.check(
            CHUNKS,
            lambda row, _: Seen([row.status], [], [row.status], {}, True, []),
        )

    def test_pushes(self) -> None:
        """The push fails. Bytes after it are a request of their own, or not read."""

        def expected(row: Row, closed: bool) -> Seen:
            if row.closes or closed:
                return Seen([row.status], [], [row.status], {}, True, [])
            both = [row.status, 200]
            return Seen(both, [], both, {"next": b"abc"}, False, [])

        self.check(PUSHES, expected)

    def test_resumed(self) -> None:
        """The same for parts, and for uploads that are not created."""

        def expected(row: Row, closed: bool) -> Seen:
            if closed:
                return Seen([row.status], [], [row.status], {}, True, [])
            both = [row.status, 200]
            return Seen(both, [], both, {"next": b"abc"}, False, [])

        self.check(RESUMED, expected)

    def test_reports(self) -> None:
        """Reports are accepted, and no file is stored."""

        def expected(row: Row, closed: bool) -> Seen:
            both = [row.status, 200]
            return Seen(both, [], both, {"next": b"abc"}, False, [])

        self.check(REPORTS, expected)

    def test_odd(self) -> None:
        """Valid but odd requests are stored."""

        def expected(row: Row, closed: bool) -> Seen:
            if row.closes:
                return Seen([200], [], [200], {"row": b"hello"}, True, [])
            stored = {"row": b"hello", "next": b"abc"}
            return Seen([200, 200], [], [200, 200], stored, False, [])

        self.check(ODD, expected)

    def test_alone(self) -> None:
        """No answer waits for further bytes."""
        wrong = {}
        for row in (*FRAMING, *CHUNKS, *PUSHES, *RESUMED, *REPORTS, *ODD):
            seen = self.see(row.message)
            if (seen.answers, seen.left) != ([row.status], []):
                wrong[row.says] = seen
        self.assertEqual({}, wrong)

    def test_strangers(self) -> None:
        """Anything that is not HTTP gets the same answer, from any client."""
        for row in FRAMING:
            message = row.message.replace(BUCKET, UNKNOWN.encode("ascii"))
            expected = Seen([row.status], [row.status], [], {}, True, [])
            self.assertEqual(expected, self.see(message), row.says)


class CutShortTests(MemoryCase):
    """Valid requests that are cut short."""

    def test_half_closed(self) -> None:
        """Wherever the client stops sending, nothing is stored."""
        for row in ODD:
            for cut in range(len(row.message)):
                seen = self.see(row.message[:cut], half_close=True)
                where = f"{row.says}, {cut} of {len(row.message)} bytes"
                self.assertEqual(({}, True, []), (seen.stored, seen.closed, seen.left))
                # None in the headers, and in a body that ended early.
                self.assertIn(seen.answers, ([], [400]), where)

    def test_half_closed_at_the_end(self) -> None:
        """A client that has sent everything gets the answer."""
        for row in ODD:
            seen = self.see(row.message, half_close=True)
            self.assertEqual(([200], []), (seen.answers, seen.left), row.says)
            self.assertEqual({"row": b"hello"}, seen.stored)


class DaemonTests(SynchronousTestCase):
    """All rows, against a real daemon."""

    def test_all(self) -> None:
        """Each gets the expected answer, and leaves nothing behind."""
        server = Server(Path(self.mktemp()).absolute(), max_file_size=10**9).start()
        self.addCleanup(server.stop)
        # At its start the daemon lists all folders.
        server.wait_for("catalogue: ")
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as it:
            # Descriptors that are opened only once are open after the first answer.
            it.sendall(NEXT.replace(BUCKET, OTHER.encode("ascii")))
            self.assertIn(b" 200 ", it.recv(65536))
            files = server.open_files() - 1
        first = {"web01/next": b"abc"}
        for row in (*FRAMING, *CHUNKS):
            self.assertEqual([row.status], exchange(server, row.message), row.says)
            both = exchange(server, row.message + NEXT)
            self.assertEqual([row.status], both, row.says)
        for row in (*PUSHES, *RESUMED, *REPORTS[:-2]):
            statuses = exchange(server, row.message, ends=True)
            self.assertEqual([row.status], statuses, row.says)
        for row in ODD:
            self.assertIn(exchange(server, row.message[:-1], ends=True), ([], [400]))
        self.assertEqual(first, server.stored())
        for number, row in enumerate(ODD):
            message = row.message.replace(b"row", b"r%02d" % number)
            self.assertEqual([200], exchange(server, message, ends=True), row.says)
        odd = {f"{TOKEN}/r{number:02}": b"hello" for number in range(len(ODD))}
        self.assertEqual({**first, **odd}, server.stored())
        self.assertTrue(server.wait_for_open_files(files), server.open_files())
        self.assertEqual([], server.incoming())
        uploads = server.home / ".filebucket" / "uploads"
        self.assertEqual([], list(uploads.iterdir()))
        self.assertNotIn("Traceback", server.log)


def exchange(server: Server, message: bytes, ends: bool = False) -> list[int]:
    """Send it on a new connection, and read until the daemon closes it.

    :param ends: whether the client stops sending first
    :returns: the statuses of the answers
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as it:
        it.sendall(message)
        if ends:
            it.shutdown(socket.SHUT_WR)
        while got := it.recv(65536):
            answer += got
    return [
        int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d+) ", answer, re.M)
    ]
