"""Tests of :mod:`filebucket.store.s3.blocking`. Those with real servers are in
:mod:`filebucket.test.whole.test_s3_bucket`.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.objects import S3
from filebucket.store.s3 import blocking
from filebucket.store.s3.blocking import PAUSES, QUIET
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import (
    DeniedError,
    NotThereError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.remove import DeletingBucket, IDeleting
from filebucket.test.kit.blocking import MemoryBucket
from filebucket.test.store.s3.contract import BlockingContract

DATE = "Date: Sat, 28 Nov 2026 20:00:00 GMT\r\n"


class MemoryTests(BlockingContract, SynchronousTestCase):
    def make(self) -> IDeleting:
        return MemoryBucket()

    def test_pages(self) -> None:
        """A page ends where the next one begins."""
        bucket = MemoryBucket(page_size=2)
        for name in "abcde":
            bucket.put(name, b"")
        self.bucket, self.prefix = bucket, ""
        self.assertEqual(list("abcde"), self.all_keys())
        self.assertEqual(3, len(self.all_pages()))


def answer(
    status: int, content: bytes | str = b"", *headers: str, length: int | None = None
) -> bytes:
    """The bytes of an answer.

    :param length: what it claims, if that differs
    """
    content = content.encode() if isinstance(content, str) else content
    lines = [f"HTTP/1.1 {status} X", *headers]
    lines.append(f"Content-Length: {len(content) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n" + DATE.encode() + b"\r\n" + content


def error(status: int, code: str) -> bytes:
    """The answer that is an error of S3."""
    return answer(status, f"<Error><Code>{code}</Code><Key>secret</Key></Error>")


class ScriptedTests(SynchronousTestCase):
    """Connections whose answers are there before the requests."""

    def setUp(self) -> None:
        self.script: Sequence[bytes | Exception] = []
        self.hosts: list[str] = []
        self.peers: list[socket.socket] = []
        self.slept: list[float] = []
        self.patch(blocking, "connect", self.connect)
        self.patch(time, "sleep", self.slept.append)
        store = S3(("http://one", "http://two:81/"), "names", "data")
        self.bucket = DeletingBucket(store, "names", Credentials("key", "hidden"))
        self.addCleanup(self.bucket.close)

    def connect(
        self, host: str, port: int | None, tls: ssl.SSLContext | None
    ) -> http.client.HTTPConnection:
        self.hosts.append(host)
        step, *self.script = self.script
        if isinstance(step, Exception):
            raise step
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        theirs.sendall(step)
        # The client only sees the end if there is more to read.
        theirs.shutdown(socket.SHUT_WR)
        self.peers.append(theirs)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = ours
        return connection

    def requests(self) -> list[str]:
        """The first lines of all requests."""
        found = []
        for each in self.peers:
            each.setblocking(False)
            found += [
                line
                for line in each.recv(65536).decode("latin-1").split("\r\n")
                if line.endswith("HTTP/1.1")
            ]
        return found

    def fails(
        self, kind: type[ObjectError], call: Callable[..., Any], *args: Any
    ) -> str:
        caught = self.assertRaises(kind, call, *args)
        for hidden in ("hidden", "secret", "Signature"):
            self.assertNotIn(hidden, str(caught))
        self.assertNotIn("\n", str(caught))
        return str(caught)

    def test_signed(self) -> None:
        self.script = [answer(200, b"content")]
        self.assertEqual(b"content", self.bucket.get("names/web01/a b", 10))
        sent = self.peers[0].recv(65536).decode()
        self.assertIn("GET /names/names/web01/a%20b HTTP/1.1\r\nHost: one\r\n", sent)
        self.assertIn("Authorization: AWS4-HMAC-SHA256 Credential=key/", sent)

    def test_changed_credentials(self) -> None:
        """Each request is signed with those of now."""
        keys = iter(["first", "second"])
        store = S3(("http://one",), "names", "data")
        bucket = DeletingBucket(
            store, "names", lambda: Credentials(next(keys), "hidden")
        )
        self.addCleanup(bucket.close)
        for key in ("first", "second"):
            self.script = [answer(200, b"content")]
            bucket.get("a", 10)
            sent = self.peers[-1].recv(65536).decode()
            self.assertIn(f"Credential={key}/", sent)

    def test_next_endpoint(self) -> None:
        """It is asked if one cannot be reached, or answers no read; it stays in use."""
        self.script = [
            ConnectionRefusedError(111, "Connection refused"),
            answer(200, b"1"),
            answer(503),
            answer(200, b"2"),
            answer(200, b"3"),
        ]
        for content in (b"1", b"2", b"3"):
            self.assertEqual(content, self.bucket.get("a", 10))
        self.assertEqual(["one", "two", "two", "one", "one"], self.hosts)
        self.assertEqual([PAUSES[0]], self.slept)

    def test_out_of_reach(self) -> None:
        """All endpoints are tried a few times."""
        self.script = [TimeoutError()] * (2 * len(PAUSES) + 2)
        text = self.fails(UnsureError, self.bucket.get, "a", 10)
        self.assertEqual(
            "two cannot be reached: timeout",
            text.replace("one", "two").replace(":81", ""),
        )
        self.assertEqual(list(PAUSES), self.slept)
        self.assertEqual([], self.script)

    def test_hangs(self) -> None:
        """A store that takes long each time is not asked again for minutes."""
        now = 0.0

        def monotonic() -> float:
            nonlocal now
            now += QUIET
            return now

        self.patch(time, "monotonic", monotonic)
        self.script = [TimeoutError()] * 10
        self.fails(UnsureError, self.bucket.get, "a", 10)
        self.assertEqual([PAUSES[0]], self.slept)

    def test_change_is_made_once(self) -> None:
        """Unless it was not sent."""
        for call in (
            lambda: self.bucket.delete("a"),
            lambda: self.bucket.put("a", b""),
        ):
            for status in (500, 503):
                self.script = [answer(status)]
                self.fails(UnsureError, call)
            self.script = [b""]
            self.fails(UnsureError, call)
            self.script = [ConnectionRefusedError(), answer(204)]
            call()
        self.assertEqual([], self.slept)

    def test_errors(self) -> None:
        """A key that is not there differs from all other errors, also those of a
        proxy.
        """
        for given, kind in (
            (error(404, "NoSuchKey"), NotThereError),
            (error(404, "NoSuchBucket"), DeniedError),
            (error(403, "AccessDenied"), DeniedError),
        ):
            self.script = [given]
            self.fails(kind, self.bucket.get, "a", 10)
            self.script = [given]
            self.fails(kind, self.bucket.open, "a")
        self.script = [answer(404, "<html>no such route</html>")] * 4
        self.fails(UnsureError, self.bucket.get, "a", 10)

    def test_cut_off(self) -> None:
        """A small object must be whole."""
        self.script = [answer(200, b"12", length=3)] * 3 + [answer(200, b"123")]
        self.assertEqual(b"123", self.bucket.get("a", 10))
        self.script = [answer(200, b"12", length=3)] * 4
        self.fails(UnsureError, self.bucket.get, "a", 10)

    def test_read_goes_on(self) -> None:
        """From where it was cut off, if it is the same object."""
        tag = 'ETag: "x"'
        self.script = [
            answer(200, b"12", tag, length=5),
            answer(206, b"34", tag, length=3),
            answer(206, b"5", tag),
        ]
        reading = self.bucket.open("a")
        self.assertEqual(5, reading.size)
        found = [reading.read(3) for _ in range(4)]
        self.assertEqual([b"12", b"34", b"5", b""], found)
        reading.close()
        sent = [each.recv(65536).decode().lower() for each in self.peers]
        self.assertNotIn("range:", sent[0])
        self.assertIn("range: bytes=2-\r\n", sent[1])
        self.assertIn("range: bytes=4-\r\n", sent[2])
        self.script = [
            answer(200, b"12", tag, length=5),
            answer(206, b"345", "ETag: y"),
        ]
        reading = self.bucket.open("a")
        reading.read(5)
        self.fails(ObjectError, reading.read, 5)

    def test_read_gives_up(self) -> None:
        self.script = [answer(200, b"", length=5)]
        reading = self.bucket.open("a")
        self.script = [answer(200, b"", length=5)] * len(PAUSES)
        self.fails(UnsureError, reading.read, 5)
        self.assertEqual(list(PAUSES), self.slept)

    def test_range_is_ignored(self) -> None:
        """The whole object is not what was asked for."""
        self.script = [answer(200, b"12345")] * 4
        self.fails(UnsureError, self.bucket.open, "a", 2)

    def test_list(self) -> None:
        """What else is in it does not matter, nor the order."""
        self.script = [
            answer(
                200,
                "<ListBucketResult><EncodingType>url</EncodingType>"
                "<Contents><Key>a+b%2B</Key><Size>3</Size>"
                "<LastModified>1970-01-01T00:00:05.000Z</LastModified>"
                "<ChecksumAlgorithm>1</ChecksumAlgorithm>"
                "<ChecksumAlgorithm>2</ChecksumAlgorithm></Contents>"
                "<Contents><Size>4</Size><ETag>x-2</ETag><Key>b</Key>"
                "<LastModified>1970-01-01T00:00:06Z</LastModified></Contents>"
                "<IsTruncated>true</IsTruncated></ListBucketResult>",
            )
        ]
        page = self.bucket.page("")
        self.assertEqual(["a b+", "b"], [each.key for each in page.objects])
        self.assertEqual([3, 4], [each.size for each in page.objects])
        self.assertEqual([5, 6], [each.modified for each in page.objects])
        self.assertEqual([False, True], [each.is_multipart for each in page.objects])
        self.assertEqual("b", page.after)
        self.assertEqual(1795896000, page.at)

    def test_no_list(self) -> None:
        """A senseless answer is not an empty list."""
        for content in (
            "",
            "<html/>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        ):
            self.script = [answer(200, content)]
            self.fails(UnsureError, self.bucket.page, "")

    def test_endless_list(self) -> None:
        """A page comes again, or the store does not heed what was asked for."""
        row = (
            "<Contents><Key>a/b</Key><Size>1</Size>"
            "<LastModified>1970-01-01T00:00:05Z</LastModified></Contents>"
        )
        more = "<IsTruncated>true</IsTruncated>"
        text = f"<ListBucketResult>{row}%s</ListBucketResult>"
        for prefix, after, rest, wanted in (
            ("a/", "a/b", more, "does not end"),
            ("a/", "a/c", more, "does not end"),
            ("b/", "", "", "keys that were not asked for"),
        ):
            self.script = [answer(200, text % rest)]
            found = self.fails(UnsureError, self.bucket.page, prefix, after)
            self.assertIn(wanted, found)
        self.script = [answer(200, text % more)]
        self.assertEqual("a/b", self.bucket.page("a/", "a/a").after)

    def test_versioned(self) -> None:
        for content, expected in (
            ("<VersioningConfiguration/>", False),
            (
                "<VersioningConfiguration><Status>Enabled</Status>"
                "</VersioningConfiguration>",
                True,
            ),
        ):
            self.script = [answer(200, content)]
            self.assertIs(expected, self.bucket.versioned())
        self.assertEqual(["GET /names?versioning= HTTP/1.1"], self.requests()[:1])
