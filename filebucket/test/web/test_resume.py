"""Tests of :mod:`filebucket.web.resume`: both dialects on the wire, in memory."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias
from urllib.parse import urljoin

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from filebucket.base.errors import Refusal
from filebucket.hooks.interfaces import Verdict
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept
from filebucket.model.registry import BucketIndex, Registry
from filebucket.push.failures import Failures
from filebucket.push.receive import Uploads
from filebucket.push.sessions import Sessions
from filebucket.test.kit.fakes import MemoryParts
from filebucket.test.kit.uploads import make_sessions
from filebucket.test.kit.wire import Connection
from filebucket.test.web.test_tree import (
    OTHER,
    TOKEN,
    ResourceCase,
    bearer,
    bucket,
    head,
    put,
)
from filebucket.web.resume import MOST_METADATA, base_of, limits
from filebucket.web.tree import Root

Answer: TypeAlias = tuple[int, dict[str, str], bytes]

FILE = b"the whole file"
SHA256 = hashlib.sha256(FILE).hexdigest()
RECEIPT = f"{SHA256}  f\n".encode()

DAY = 86400

EMPTY = b"Content-Length: 0"
EXPECTS = b"Expect: 100-continue"
CHUNKED = b"Transfer-Encoding: chunked"
MORE = b"Upload-Complete: ?0"
LAST = b"Upload-Complete: ?1"
TUS = b"Tus-Resumable: 1.0.0"
LENGTH = b"Upload-Length: %d" % len(FILE)
PART = b"Content-Type: application/partial-upload"
TUS_PART = b"Content-Type: application/offset+octet-stream"

OF_SERVER = {"server", "date", "x-request-id"}
"""Headers that all answers have."""

OF_DRAFT = {"upload-complete", "upload-offset", "upload-limit"}
OF_TUS = {"tus-resumable", "upload-offset", "upload-expires"}


def at(offset: int) -> bytes:
    return b"Upload-Offset: %d" % offset


def named(name: bytes = b"f", key: bytes = b"filename") -> bytes:
    """``Upload-Metadata`` with the file's name."""
    return b"Upload-Metadata: %b %b" % (key, base64.b64encode(name))


def digest(data: bytes) -> bytes:
    """The value of ``Content-Digest`` and the like."""
    return b"sha-256=:%b:" % base64.b64encode(hashlib.sha256(data).digest())


def in_chunks(*chunks: bytes, trailer: bytes = b"") -> bytes:
    parts = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
    return parts + b"0\r\n" + (trailer + b"\r\n" if trailer else b"") + b"\r\n"


class ResumeCase(ResourceCase):
    """Has resumable uploads, and finds the files that are stored."""

    def connect(
        self,
        max_file_size: int | None = None,
        unfinished: float = DAY,
        most: int = 16,
        min_file_size: int | None = None,
    ) -> Connection:
        self.clock = Clock()
        self.uploads = Uploads(
            self.store,
            self.hooks,
            self.clock,
            self.clock.seconds,
            self.observed.append,
            max_file_size,
            find=self.find,
            min_file_size=min_file_size,
        )
        self.registry = Registry([bucket(TOKEN, "one"), bucket(OTHER, "two")])
        self.sessions: Sessions = make_sessions(
            self.uploads, self.store, self.registry, self.clock, unfinished, most
        )
        self.root = Root(
            self.uploads,
            self.sessions,
            Failures(self.uploads, self.clock),
            self.registry,
            self.clock.seconds,
        )
        return Connection(self.root)

    async def find(
        self, bucket: Bucket, name: str, recorded: Kept | None
    ) -> Kept | None:
        content = self.store.files.get((bucket.directory, name))
        if content is None:
            return None
        return Kept(len(content), hashlib.sha256(content).hexdigest())

    def tearDown(self) -> None:
        self.assertEqual([], self.flushLoggedErrors())
        super().tearDown()

    def ask(
        self, method: bytes, target: bytes, *headers: bytes, body: bytes = b""
    ) -> Answer:
        """Send a request, and return its answer."""
        sized = any(
            each.lower().startswith((b"content-length", b"transfer-encoding"))
            for each in headers
        )
        if not sized and method in (b"PATCH", b"POST", b"PUT"):
            headers = (*headers, b"Content-Length: %d" % len(body))
        self.send(head(method, target, *headers) + body)
        raw = self.connection.received()
        lines, _, content = raw.partition(b"\r\n\r\n")
        first, *rest = lines.decode("ascii").split("\r\n")
        found = {
            name.lower(): value for name, _, value in (e.partition(": ") for e in rest)
        }
        self.assertEqual(len(rest), len(found), raw)
        return int(first.split()[1]), found, content

    def assert_headers(
        self, expected: set[str], headers: Mapping[str, str], server: bool = True
    ) -> None:
        """Exactly these, and those of every answer."""
        known = OF_SERVER if server else set()
        self.assertEqual(expected | known, set(headers))

    def assert_refused(
        self, status: int, answer: Answer, headers: Mapping[str, str] | None = None
    ) -> None:
        """The answer is one line with the reason."""
        found, got, content = answer
        self.assertEqual(status, found, (got, content))
        self.assertEqual("text/plain; charset=utf-8", got["content-type"])
        self.assertEqual(str(len(content)), got["content-length"])
        self.assertRegex(content, rb"\A[^\n]+\n\Z")
        for name, value in (headers or {}).items():
            self.assertEqual(value, got.get(name), name)

    def native(self, *headers: bytes, name: bytes = b"f") -> bytes:
        """Create an upload; returns the target of its URL."""
        target = b"/%b/%b" % (TOKEN, name)
        status, found, _ = self.ask(b"PUT", target, MORE, *headers)
        self.assertEqual(201, status, found)
        return urljoin(target.decode(), found["location"]).encode()

    def tus(self, *headers: bytes) -> bytes:
        """The same in tus' dialect."""
        target = b"/%b" % TOKEN
        headers = headers or (LENGTH, named())
        status, found, content = self.ask(b"POST", target, TUS, *headers)
        self.assertEqual(201, status, content)
        return urljoin(target.decode(), found["location"]).encode()

    def patch_native(
        self, url: bytes, offset: int, body: bytes, *more: bytes
    ) -> Answer:
        complete = () if MORE in more else (LAST,)
        return self.ask(b"PATCH", url, at(offset), PART, *complete, *more, body=body)

    def patch_tus(self, url: bytes, offset: int, body: bytes, *more: bytes) -> Answer:
        return self.ask(b"PATCH", url, TUS, at(offset), TUS_PART, *more, body=body)

    def offset(self, url: bytes, *headers: bytes) -> int:
        """The offset by HEAD."""
        status, found, content = self.ask(b"HEAD", url, *headers)
        self.assertEqual((204, b""), (status, content))
        return int(found["upload-offset"])

    def assert_unchanged(self, url: bytes, offset: int = 0) -> None:
        self.assertEqual(offset, self.offset(url))


class NativeTests(ResumeCase):
    """The dialect of the draft."""

    def test_creation(self) -> None:
        """4.2: the answer to the creation, byte for byte."""
        status, headers, content = self.ask(b"PUT", b"/%b/f" % TOKEN, MORE, LENGTH)
        self.assertEqual((201, b""), (status, content))
        self.assert_headers(
            {*OF_DRAFT, "location", "upload-length", "content-type", "content-length"},
            headers,
        )
        self.assertRegex(headers["location"], r"\Auploads/[0-9a-f]{32}\Z")
        self.assertEqual("?0", headers["upload-complete"])
        self.assertEqual("0", headers["upload-offset"])
        self.assertEqual(str(len(FILE)), headers["upload-length"])
        self.assertEqual("0", headers["content-length"])

    def test_in_parts(self) -> None:
        """4.3 and 4.4: the offset, parts, the last part with the receipt, and the
        receipt again.
        """
        url = self.native(LENGTH)
        status, headers, content = self.patch_native(url, 0, FILE[:4], MORE)
        self.assertEqual((204, b""), (status, content))
        self.assert_headers({*OF_DRAFT, "upload-length"}, headers)
        self.assertEqual(
            ("?0", "4"), (headers["upload-complete"], headers["upload-offset"])
        )
        status, headers, content = self.ask(b"HEAD", url)
        self.assertEqual((204, b""), (status, content))
        self.assert_headers({*OF_DRAFT, "upload-length", "cache-control"}, headers)
        self.assertEqual("no-store", headers["cache-control"])
        self.assertEqual(
            ("?0", "4"), (headers["upload-complete"], headers["upload-offset"])
        )
        self.assertEqual({}, self.store.files)
        status, headers, content = self.patch_native(url, 4, FILE[4:])
        self.assertEqual((200, RECEIPT), (status, content))
        self.assertEqual(SHA256, headers["x-checksum-sha256"])
        self.assertEqual("?1", headers["upload-complete"])
        self.assertEqual({("one", "f"): FILE}, self.store.files)
        status, headers, content = self.ask(b"HEAD", url)
        self.assertEqual((204, b""), (status, content))
        self.assertEqual(
            ("?1", str(len(FILE))),
            (headers["upload-complete"], headers["upload-offset"]),
        )
        self.assertNotIn("x-checksum-sha256", headers)
        status, headers, content = self.patch_native(url, len(FILE), b"")
        self.assertEqual((200, RECEIPT), (status, content))
        self.assertEqual("?1", headers["upload-complete"])
        self.assertEqual(["f"], [each.filename for each in self.hooks.told])

    def test_creation_by_post(self) -> None:
        """4.2.1: a POST to the file's URL creates it, too; one to the bucket not."""
        target = b"/%b/f" % TOKEN
        status, headers, _ = self.ask(b"POST", target, MORE, LENGTH)
        self.assertEqual(201, status)
        url = urljoin(target.decode(), headers["location"]).encode()
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])
        for base in (b"/%b" % TOKEN, b"/%b/" % TOKEN):
            self.assert_refused(412, self.ask(b"POST", base, MORE, LENGTH))

    def test_whole_already(self) -> None:
        """HEAD publishes an upload whose bytes are all there: many clients take such an
        offset for success.
        """
        url = self.native(LENGTH)
        self.patch_native(url, 0, FILE, MORE)
        status, headers, content = self.ask(b"HEAD", url)
        self.assertEqual((204, b""), (status, content))
        self.assertEqual(
            ("?1", SHA256), (headers["upload-complete"], headers["x-checksum-sha256"])
        )
        self.assertEqual({("one", "f"): FILE}, self.store.files)

    def test_first_part_with_the_creation(self) -> None:
        """4.2: it may come in any number of bytes."""
        target = b"/%b/f" % TOKEN
        status, headers, _ = self.ask(b"PUT", target, MORE, LENGTH, body=FILE[:4])
        self.assertEqual((201, "4"), (status, headers["upload-offset"]))
        self.assertIn("location", headers)
        url = urljoin(target.decode(), headers["location"]).encode()
        self.assertEqual(200, self.patch_native(url, 4, FILE[4:])[0])
        self.assertEqual({("one", "f"): FILE}, self.store.files)

    def test_first_part_refused(self) -> None:
        """The upload is there all the same if its client can ask for it again; then the
        answer has its URL.
        """
        target = b"/%b/f" % TOKEN
        wrong = b"Content-Digest: " + digest(b"other")
        answer = self.ask(b"PUT", target, MORE, wrong, body=FILE[:4])
        self.assert_refused(422, answer)
        self.assertNotIn("location", answer[1])
        self.assertEqual([], self.sessions.all)
        known = (LENGTH, b"X-Checksum-Sha256: " + SHA256.encode())
        answer = self.ask(b"PUT", target, MORE, wrong, *known, body=FILE[:4])
        self.assert_refused(422, answer, {"upload-complete": "?0"})
        url = urljoin(target.decode(), answer[1]["location"]).encode()
        self.assert_unchanged(url)
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])

    def test_another_offset(self) -> None:
        """4.4.2: 409 with the right one and ``Upload-Complete: ?0``."""
        url = self.native()
        self.assertEqual(204, self.patch_native(url, 0, FILE[:4], MORE)[0])
        right = {"upload-complete": "?0", "upload-offset": "4"}
        for offset in (0, 3, 5, 10**15, 10**19 - 1):
            for more in ((), (MORE,), (EXPECTS,)):
                answer = self.patch_native(url, offset, FILE[4:], *more)
                self.assert_refused(409, answer, right)
        self.assertEqual(200, self.patch_native(url, 4, FILE[4:])[0])
        right = {"upload-complete": "?0", "upload-offset": str(len(FILE))}
        for offset in (0, 4, len(FILE) + 1):
            answer = self.patch_native(url, offset, FILE[4:])
            self.assert_refused(409, answer, right)
        self.assertEqual({("one", "f"): FILE}, self.store.files)

    def test_unknown_length(self) -> None:
        """4.1.3: the length may be told later, by each of the three ways."""
        for more in ((LENGTH,), (), (CHUNKED,), (CHUNKED, LENGTH)):
            self.store.files.clear()
            url = self.native()
            _, headers, _ = self.ask(b"HEAD", url)
            self.assertNotIn("upload-length", headers)
            self.assertEqual(204, self.patch_native(url, 0, FILE[:4], MORE)[0])
            body = in_chunks(FILE[4:6], FILE[6:]) if CHUNKED in more else FILE[4:]
            answer = self.patch_native(url, 4, body, *more)
            self.assertEqual((200, RECEIPT), (answer[0], answer[2]), more)
            self.assertEqual({("one", "f"): FILE}, self.store.files)

    def test_only_the_client_completes(self) -> None:
        """4.1.3: at its length an upload is not complete by itself."""
        url = self.native(LENGTH)
        status, headers, _ = self.patch_native(url, 0, FILE, MORE)
        self.assertEqual((204, "?0"), (status, headers["upload-complete"]))
        self.assertEqual({}, self.store.files)
        self.assertEqual(200, self.patch_native(url, len(FILE), b"")[0])

    def test_contradictory_lengths(self) -> None:
        """4.1.3: 400, and the upload stays as it was."""
        url = self.native(LENGTH)
        for body, more in (
            (FILE, (b"Upload-Length: 13",)),
            (FILE, (b"Upload-Length: 15",)),
            (FILE[:-1], ()),
            (FILE + b"x", ()),
            (FILE + b"x", (MORE,)),
            (b"", ()),
        ):
            self.assert_refused(400, self.patch_native(url, 0, body, *more))
            self.assert_unchanged(url)
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])

    def test_chunks_beyond_the_length(self) -> None:
        """A body of undeclared length that is too long, or ends too early."""
        url = self.native(LENGTH)
        answer = self.patch_native(url, 0, in_chunks(FILE, b"x"), CHUNKED)
        self.assert_refused(400, answer)
        self.assert_unchanged(url)
        answer = self.patch_native(url, 0, in_chunks(FILE[:4]), CHUNKED)
        self.assert_refused(400, answer, {"upload-complete": "?0"})
        self.assertEqual({}, self.store.files)
        self.assert_unchanged(url)
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])

    def test_refused_length_is_forgotten(self) -> None:
        """A refused part leaves no length and no promise."""
        url = self.native()
        wrong = b"Content-Digest: " + digest(b"other")
        promise = b"X-Checksum-Sha256: " + b"0" * 64
        for more in ((b"Upload-Length: 5",), (promise,)):
            self.assert_refused(
                422, self.patch_native(url, 0, b"x", MORE, wrong, *more)
            )
            _, headers, _ = self.ask(b"HEAD", url)
            self.assertNotIn("upload-length", headers)
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])

    def test_missing_and_malformed(self) -> None:
        """Each header of a part; the upload stays as it was."""
        url = self.native()
        for headers, status in (
            ((PART, LAST), 400),
            ((PART, at(0)), 400),
            ((PART, LAST, at(0), at(0)), 400),
            ((PART, LAST, LAST, at(0)), 400),
            ((PART, LAST, MORE, at(0)), 400),
            ((PART, LAST, b"Upload-Offset: -1"), 400),
            ((PART, LAST, b"Upload-Offset: -0"), 400),
            ((PART, LAST, b"Upload-Offset: 0.0"), 400),
            ((PART, LAST, b"Upload-Offset: 0x0"), 400),
            ((PART, LAST, b"Upload-Offset: +0"), 400),
            ((PART, LAST, b"Upload-Offset: 0, 0"), 400),
            ((PART, LAST, b"Upload-Offset: x"), 400),
            ((PART, LAST, b"Upload-Offset:"), 400),
            ((PART, LAST, "Upload-Offset: \u0660".encode()), 400),
            ((PART, LAST, b"Upload-Offset: " + b"0" * 20), 400),
            ((PART, LAST, b"Upload-Offset: " + b"9" * 5000), 400),
            ((PART, at(0), b"Upload-Complete: 1"), 400),
            ((PART, at(0), b"Upload-Complete: ?2"), 400),
            ((PART, at(0), b"Upload-Complete: true"), 400),
            ((PART, at(0), b"Upload-Complete:"), 400),
            ((PART, at(0), LAST, LENGTH, LENGTH), 400),
            ((PART, at(0), LAST, b"Upload-Length: -14"), 400),
            ((PART, at(0), LAST, b"Upload-Length: x"), 400),
            ((TUS_PART, at(0), LAST), 415),
            ((b"Content-Type: text/plain", at(0), LAST), 415),
            ((PART, TUS_PART, at(0), LAST), 415),
            ((PART, at(0), LAST, b"Content-Encoding: gzip"), 415),
            ((PART, at(0), LAST, b"Content-Range: bytes 0-4/9"), 400),
            ((PART, at(0), LAST, b"Expect: tea"), 417),
            ((PART, at(0), LAST, b"X-HTTP-Method-Override: DELETE"), 400),
            ((PART, at(0), LAST, b"Upload-Checksum: sha1 AAAA"), 400),
            ((PART, at(0), LAST, b"X-Checksum-Sha384: x"), 400),
            ((PART, at(0), LAST, b"Content-Digest: sha-256=x"), 400),
            ((PART, at(0), LAST, b"X-Checksum-Sha256: x"), 400),
        ):
            answer = self.ask(b"PATCH", url, *headers, body=FILE)
            self.assert_refused(status, answer)
            self.assert_unchanged(url)
        self.send(head(b"PATCH", url, at(0), LAST))
        self.assertEqual([411], self.connection.statuses())
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])

    def test_structured_fields(self) -> None:
        """Items may have parameters (RFC 9651, 3.1.2); older clients send no type."""
        target = b"/%b/f" % TOKEN
        length = b"Upload-Length: 014 ;x"
        status, headers, _ = self.ask(b"PUT", target, MORE + b";a=b", length)
        self.assertEqual((201, "14"), (status, headers["upload-length"]))
        url = urljoin(target.decode(), headers["location"]).encode()
        answer = self.ask(b"PATCH", url, at(0) + b";x=y", LAST + b";x", body=FILE)
        self.assertEqual(200, answer[0])

    def test_creation_refused(self) -> None:
        """Nothing is created, so no URL is told."""
        self.store.files["one", "there"] = b"x"
        self.connection = self.connect(max_file_size=100, min_file_size=3)
        for status, name, headers in (
            (400, b"f", (at(1),)),
            (400, b"f", (b"Upload-Length: x",)),
            (400, b"f", (LENGTH, LENGTH)),
            (400, b"f", (b"Upload-Length: 2",)),
            (413, b"f", (b"Upload-Length: 101",)),
            (413, b"f", (b"Upload-Length: " + b"9" * 19,)),
            (405, b"there", ()),
            (400, b"..", ()),
            (400, b".filebucket", ()),
            (400, b"a/b", ()),
            (412, b"", ()),
            (400, b"f?x", ()),
            (415, b"f", (b"Content-Type: multipart/form-data; boundary=b",)),
            (415, b"f", (b"Content-Encoding: gzip",)),
            (400, b"f", (b"X-Checksum-Sha384: x",)),
            (400, b"f", (b"Upload-Checksum: sha1 AAAA",)),
            (422, b"f", (b"Content-Digest: " + digest(b"x"),)),
            (400, b"f", (b"X-HTTP-Method-Override: PATCH",)),
        ):
            answer = self.ask(b"PUT", b"/%b/%b" % (TOKEN, name), MORE, *headers)
            self.assert_refused(status, answer)
            self.assertNotIn("location", answer[1])
            limit = "max-size=100,max-age=86400" if status == 413 else None
            self.assertEqual(limit, answer[1].get("upload-limit"))
        self.assertEqual([], self.sessions.all)

    def test_refused_by_hook_and_room(self) -> None:
        self.store.room = 10
        self.assert_refused(507, self.ask(b"PUT", b"/%b/f" % TOKEN, MORE, LENGTH))
        self.store.room = 100
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, self.ask(b"PUT", b"/%b/f" % TOKEN, MORE, LENGTH))
        self.assertEqual([], self.sessions.all)

    def test_too_many(self) -> None:
        self.connection = self.connect(most=1)
        self.native()
        answer = self.ask(b"PUT", b"/%b/g" % TOKEN, MORE)
        self.assert_refused(503, answer, {"retry-after": "60"})

    def test_whole_in_one(self) -> None:
        """``Upload-Complete: ?1`` is a plain push, as ever."""
        status, headers, content = self.ask(
            b"PUT", b"/%b/f" % TOKEN, LAST, LENGTH, body=FILE
        )
        self.assertEqual((200, RECEIPT), (status, content))
        self.assertNotIn("location", headers)
        self.assertEqual({("one", "f"): FILE}, self.store.files)
        self.assertEqual([], self.sessions.all)

    def test_ambiguous_completeness(self) -> None:
        """A part is never stored as the whole, nor the whole as a part."""
        for headers in (
            (MORE, MORE),
            (MORE, LAST),
            (b"Upload-Complete: ?0, ?1",),
            (b"Upload-Complete: 0",),
            (b"Upload-Complete: false",),
        ):
            answer = self.ask(b"PUT", b"/%b/f" % TOKEN, *headers, body=FILE)
            self.assert_refused(400, answer)
        self.assertEqual(({}, []), (self.store.files, self.sessions.all))

    def test_limits(self) -> None:
        """4.1.4: the limits are integers of a structured field, of 15 digits."""
        self.assertEqual("max-size=999999999999999,max-age=9", limits(2**63 - 1, 9.9))
        url = self.native()
        self.clock.advance(100)
        _, headers, _ = self.ask(b"HEAD", url)
        self.assertEqual(
            "max-size=999999999999999,max-age=86300", headers["upload-limit"]
        )
        self.patch_native(url, 0, b"x", MORE)
        _, headers, _ = self.ask(b"HEAD", url)
        self.assertTrue(headers["upload-limit"].endswith(",max-age=86400"))

    def test_same_upload_again(self) -> None:
        """A client that lost the URL gets it again, if it promised the SHA-256."""
        promise = b"X-Checksum-Sha256: " + SHA256.encode()
        url = self.native(LENGTH, promise)
        self.patch_native(url, 0, FILE[:4], MORE)
        target = b"/%b/f" % TOKEN
        status, headers, _ = self.ask(b"PUT", target, MORE, LENGTH, promise)
        self.assertEqual((201, "4"), (status, headers["upload-offset"]))
        self.assertEqual(url, urljoin(target.decode(), headers["location"]).encode())
        # With its first part again, the client learns where to go on.
        status, found, _ = self.ask(b"PUT", target, MORE, LENGTH, promise, body=FILE)
        self.assertEqual((201, "4"), (status, found["upload-offset"]))
        self.assertEqual(headers["location"], found["location"])
        self.assertNotEqual(url, self.native(LENGTH))

    def test_stored_already(self) -> None:
        """Creation of a file that is there: 200 and its receipt, to both dialects."""
        self.store.files["one", "f"] = FILE
        promise = b"X-Checksum-Sha256: " + SHA256.encode()
        for answer in (
            self.ask(b"PUT", b"/%b/f" % TOKEN, MORE, LENGTH, promise),
            self.ask(b"POST", b"/%b" % TOKEN, TUS, LENGTH, promise, named()),
        ):
            status, headers, content = answer
            self.assertEqual((200, RECEIPT), (status, content))
            self.assertNotIn("location", headers)
        self.assertEqual([], self.sessions.all)


class TusTests(ResumeCase):
    """tus 1.0."""

    def test_creation(self) -> None:
        """The answer to the creation."""
        status, headers, content = self.ask(
            b"POST", b"/%b" % TOKEN, TUS, LENGTH, named()
        )
        self.assertEqual((201, b""), (status, content))
        self.assert_headers(
            {*OF_TUS, "location", "upload-length", "content-type", "content-length"},
            headers,
        )
        self.assertEqual("1.0.0", headers["tus-resumable"])
        self.assertRegex(headers["location"], rf"\A{TOKEN.decode()}/uploads/\w{{32}}\Z")
        expires = parsedate_to_datetime(headers["upload-expires"])
        self.assertEqual(datetime(1970, 1, 2, tzinfo=UTC), expires)

    def test_in_parts(self) -> None:
        """The core protocol: parts, the offset, and the end."""
        url = self.tus()
        status, headers, content = self.patch_tus(url, 0, FILE[:4])
        self.assertEqual((204, b""), (status, content))
        self.assert_headers({*OF_TUS, "upload-length"}, headers)
        self.assertEqual("4", headers["upload-offset"])
        status, headers, content = self.ask(b"HEAD", url, TUS)
        self.assertEqual((204, b""), (status, content))
        self.assert_headers(
            {*OF_TUS, "upload-length", "upload-metadata", "cache-control"}, headers
        )
        self.assertEqual("no-store", headers["cache-control"])
        self.assertEqual("filename Zg==", headers["upload-metadata"])
        status, headers, content = self.patch_tus(url, 4, FILE[4:])
        self.assertEqual((204, b""), (status, content))
        self.assert_headers({*OF_TUS, "upload-length", "x-checksum-sha256"}, headers)
        self.assertEqual(
            (str(len(FILE)), SHA256),
            (headers["upload-offset"], headers["x-checksum-sha256"]),
        )
        self.assertEqual({("one", "f"): FILE}, self.store.files)
        _, headers, _ = self.ask(b"HEAD", url, TUS)
        self.assertEqual(
            (str(len(FILE)), str(len(FILE))),
            (headers["upload-offset"], headers["upload-length"]),
        )
        status, headers, _ = self.patch_tus(url, len(FILE), b"")
        self.assertEqual((204, SHA256), (status, headers["x-checksum-sha256"]))

    def test_deferred_length(self) -> None:
        """HEAD tells that the length is not known yet; a part may tell it."""
        url = self.tus(b"Upload-Defer-Length: 1", named())
        _, headers, _ = self.ask(b"HEAD", url, TUS)
        self.assertEqual("1", headers["upload-defer-length"])
        self.assertNotIn("upload-length", headers)
        self.assertEqual(204, self.patch_tus(url, 0, FILE[:4])[0])
        self.assertEqual({}, self.store.files)
        self.assert_refused(400, self.patch_tus(url, 4, FILE[4:], b"Upload-Length: 3"))
        status, headers, _ = self.patch_tus(url, 4, FILE[4:5], LENGTH)
        self.assertEqual((204, "14"), (status, headers["upload-length"]))
        self.assertNotIn("upload-defer-length", headers)
        self.assert_refused(400, self.patch_tus(url, 5, b"x", b"Upload-Length: 15"))
        status, headers, _ = self.patch_tus(url, 5, FILE[5:])
        self.assertEqual((204, SHA256), (status, headers["x-checksum-sha256"]))

    def test_deferred_length_at_the_end(self) -> None:
        """An empty part may tell the length, which ends the upload."""
        url = self.tus(b"Upload-Defer-Length: 1", named())
        self.assertEqual(204, self.patch_tus(url, 0, FILE)[0])
        status, headers, _ = self.patch_tus(url, len(FILE), b"", LENGTH)
        self.assertEqual((204, SHA256), (status, headers["x-checksum-sha256"]))

    def test_empty_file(self) -> None:
        """Upload-Length: 0 is complete at its creation."""
        status, headers, content = self.ask(
            b"POST", b"/%b/" % TOKEN, TUS, b"Upload-Length: 0", named()
        )
        nothing = hashlib.sha256(b"").hexdigest()
        self.assertEqual((201, f"{nothing}  f\n".encode()), (status, content))
        self.assertEqual({("one", "f"): b""}, self.store.files)
        url = urljoin(f"/{TOKEN.decode()}/", headers["location"]).encode()
        self.assertEqual(0, self.offset(url, TUS))
        self.assertIsNone(self.observed[0].step)
        again = self.ask(b"POST", b"/%b/" % TOKEN, TUS, b"Upload-Length: 0", named())
        self.assert_refused(405, again)
        self.assertNotIn("location", again[1])

    def test_version(self) -> None:
        """412 with Tus-Version, whatever is asked."""
        url = self.tus()
        for version in (b"0.2.2", b"1", b"1.0.1", b"", b"1.0.0, 1.0.0", b"x" * 999):
            header = b"Tus-Resumable: " + version
            for method, target, more in (
                (b"POST", b"/" + TOKEN, (LENGTH, named())),
                (b"PATCH", url, (at(0), TUS_PART)),
                (b"DELETE", url, ()),
                (b"HEAD", url, ()),
            ):
                status, headers, content = self.ask(method, target, header, *more)
                self.assertEqual((412, "1.0.0"), (status, headers["tus-version"]))
                self.assertEqual("1.0.0", headers["tus-resumable"])
                self.assertEqual(method == b"HEAD", content == b"")
        self.assertEqual(0, self.offset(url, TUS))
        self.assert_refused(412, self.ask(b"PATCH", url, TUS, TUS, at(0), TUS_PART))

    def test_metadata(self) -> None:
        """Names in both usual keys; other pairs are returned as they came."""
        for headers, name in (
            ((named(),), "f"),
            ((named(key=b"name"),), "f"),
            ((named(b"a", b"name"), named(b"b")), "b"),
            ((b"Upload-Metadata: x,filename Zg==,y AA==,z ",), "f"),
            ((named("ü ä".encode()),), "ü ä"),
            ((b"Upload-Metadata:  filename Zg== , x",), "f"),
        ):
            url = self.tus(LENGTH, *headers)
            self.assertEqual(name, self.sessions.all[-1].name)
            _, found, _ = self.ask(b"HEAD", url, TUS)
            sent = ",".join(e.partition(b":")[2].strip().decode() for e in headers)
            self.assertEqual(sent, found["upload-metadata"])
            self.ask(b"DELETE", url, TUS)

    def test_malformed_metadata(self) -> None:
        for status, headers in (
            (412, ()),
            (412, (b"Upload-Metadata:",)),
            (412, (b"Upload-Metadata: filename",)),
            (412, (b"Upload-Metadata: filename ",)),
            (412, (b"Upload-Metadata: x Zg==",)),
            (412, (b"Upload-Metadata: Filename Zg==",)),
            (400, (named(), named())),
            (400, (b"Upload-Metadata: filename Zg==,filename Zg==",)),
            (400, (b"Upload-Metadata: filename Zg",)),
            (400, (b"Upload-Metadata: filename !!",)),
            (400, (b"Upload-Metadata: filename Zg== x",)),
            (400, (b"Upload-Metadata: filename  Zg==",)),
            (400, (b"Upload-Metadata: filename Zg==,",)),
            (400, (b"Upload-Metadata: ,filename Zg==",)),
            (400, (b"Upload-Metadata: filename\tZg==",)),
            (400, (b"Upload-Metadata: filename Zg==,x \xff",)),
            (400, (b"Upload-Metadata: filename Z=g=",)),
            (400, (b"Upload-Metadata: filename _-8=",)),
            (400, (named(b"\xff\xfe"),)),
            (400, (named(b"a/b"),)),
            (400, (named(b".."),)),
            (400, (named(b"a\r\nb"),)),
            (400, (named(b"a\0"),)),
            (400, (named(b"n" * 256),)),
            (400, (named(), b"Upload-Metadata: x " + b"A" * MOST_METADATA)),
            (400, (b"Upload-Metadata: " + b"a " * 4000 + b"\x7f",)),
            (400, (b"Upload-Metadata: " + b"=" * 8000,)),
            (400, (b"Upload-Metadata: x " + b"=" * 4000,)),
            (400, (b"Upload-Metadata: " + b"a," * 2000,)),
        ):
            answer = self.ask(b"POST", b"/%b" % TOKEN, TUS, LENGTH, *headers)
            self.assert_refused(status, answer, {"connection": "close"})
        self.assertEqual([], self.sessions.all)

    def test_creation_refused(self) -> None:
        self.store.files["one", "there"] = b"x"
        self.connection = self.connect(max_file_size=100)
        for status, headers in (
            (400, (named(),)),
            (400, (named(), LENGTH, LENGTH)),
            (400, (named(), LENGTH, b"Upload-Defer-Length: 1")),
            (400, (named(), b"Upload-Defer-Length: 0")),
            (400, (named(), b"Upload-Defer-Length: true")),
            (400, (named(), b"Upload-Defer-Length: 1", b"Upload-Defer-Length: 1")),
            (400, (named(), b"Upload-Length: -1")),
            (400, (named(), b"Upload-Length: 1e3")),
            (400, (named(), b"Upload-Length: " + b"1" * 20)),
            (413, (named(), b"Upload-Length: 101")),
            (413, (named(), b"Upload-Length: " + b"9" * 19)),
            (400, (named(), LENGTH, b"Upload-Concat: partial")),
            (400, (named(), LENGTH, b"Upload-Concat: final;/a /b")),
            (400, (named(), LENGTH, b"Upload-Checksum: sha1 AAAA")),
            (400, (named(), LENGTH, b"X-HTTP-Method-Override: PATCH")),
            (405, (named(b"there"), LENGTH)),
        ):
            answer = self.ask(b"POST", b"/%b" % TOKEN, TUS, *headers)
            self.assert_refused(status, answer, {"tus-resumable": "1.0.0"})
            self.assertNotIn("location", answer[1])
        answer = self.ask(b"POST", b"/%b" % TOKEN, TUS, LENGTH, named(), body=b"x")
        self.assert_refused(400, answer)
        answer = self.ask(
            b"POST", b"/%b" % TOKEN, TUS, LENGTH, named(), CHUNKED, body=in_chunks(b"x")
        )
        self.assert_refused(400, answer)
        answer = self.ask(b"POST", b"/%b/f" % TOKEN, TUS, LENGTH, named())
        self.assert_refused(400, answer)
        self.assertEqual([], self.sessions.all)

    def test_part_refused(self) -> None:
        """Each header of a part; the upload stays as it was."""
        url = self.tus()
        for status, headers in (
            (415, (at(0),)),
            (415, (at(0), PART)),
            (415, (at(0), TUS_PART, PART)),
            (400, (TUS_PART,)),
            (400, (at(0), at(0), TUS_PART)),
            (400, (b"Upload-Offset: x", TUS_PART)),
            (400, (b"Upload-Offset: -1", TUS_PART)),
            (409, (at(1), TUS_PART)),
            (409, (at(10**19 - 1), TUS_PART)),
            (400, (at(0), TUS_PART, b"Upload-Length: 13")),
            (400, (at(0), TUS_PART, b"Upload-Checksum: sha1 AAAA")),
            (400, (at(0), TUS_PART, b"X-HTTP-Method-Override: HEAD")),
            (415, (at(0), TUS_PART, b"Content-Encoding: gzip")),
        ):
            answer = self.ask(b"PATCH", url, TUS, *headers, body=FILE)
            self.assert_refused(status, answer, {"tus-resumable": "1.0.0"})
            self.assertEqual(0, self.offset(url, TUS))
        self.assert_refused(400, self.patch_tus(url, 0, FILE + b"x"))
        answer = self.patch_tus(url, 0, in_chunks(FILE, b"x"), CHUNKED)
        self.assert_refused(400, answer)
        self.assertEqual(0, self.offset(url, TUS))

    def test_wrong_promise(self) -> None:
        """After a 422 the upload is gone: tus clients take a good HEAD for success."""
        url = self.tus(LENGTH, named(), b"X-Checksum-Sha256: " + b"0" * 64)
        self.assertEqual(204, self.patch_tus(url, 0, FILE[:4])[0])
        self.assert_refused(422, self.patch_tus(url, 4, FILE[4:]))
        self.assertEqual(404, self.ask(b"HEAD", url, TUS)[0])
        self.assertEqual({}, self.store.files)


class BothTests(ResumeCase):
    """Requests that the dialects share."""

    def test_location(self) -> None:
        """It is right, relative to every URL at which an upload is created."""
        for method, path, headers, folder in (
            (b"PUT", f"/{TOKEN.decode()}/f", (MORE,), f"/{TOKEN.decode()}/"),
            # Python's urljoin removes the empty segment.
            (b"PUT", f"//{TOKEN.decode()}/f", (MORE,), f"/{TOKEN.decode()}/"),
            (b"PUT", "/f", (MORE, bearer(TOKEN)), "/"),
            (b"PUT", "http://h/f", (MORE, bearer(TOKEN)), "http://h/"),
            (b"POST", f"/{TOKEN.decode()}", (), f"/{TOKEN.decode()}/"),
            (b"POST", f"/{TOKEN.decode()}/", (), f"/{TOKEN.decode()}/"),
            (b"POST", f"//{TOKEN.decode()}", (), f"/{TOKEN.decode()}/"),
            (b"POST", f"/{TOKEN.decode()}?x=y/z", (), f"/{TOKEN.decode()}/"),
            (b"POST", f"http://h/{TOKEN.decode()}", (), f"http://h/{TOKEN.decode()}/"),
            (b"POST", "/", (bearer(TOKEN),), "/"),
            (b"POST", "http://h", (bearer(TOKEN),), "http://h/"),
            (b"POST", "http://h/", (bearer(TOKEN),), "http://h/"),
        ):
            more = headers if method == b"PUT" else (TUS, LENGTH, named(), *headers)
            status, found, content = self.ask(method, path.encode(), *more)
            self.assertEqual(201, status, (path, content))
            location = found["location"]
            self.assertNotIn(":", location)
            self.assertFalse(location.startswith("/"))
            # Behind a proxy that strips a prefix, too.
            for prefix in ("", "/backups"):
                if path.startswith("http"):
                    url = urljoin(path if path[8:] else path + "/", location)
                else:
                    url = urljoin(f"http://h{prefix}{path}", location)
                    url = url.removeprefix(f"http://h{prefix}")
                self.assertEqual(folder, url[: -len("uploads/") - 32], path)
            token = [each for each in headers if each.startswith(b"Auth")]
            self.assertEqual(0, self.offset(url.encode(), *token))
        self.assertEqual("", base_of(b"*"))

    def test_delete(self) -> None:
        """204, and the upload is gone; of one that has ended, the file stays."""
        for url, header in ((self.native(), ()), (self.tus(), (TUS,))):
            status, headers, content = self.ask(b"DELETE", url, *header)
            self.assertEqual((204, b""), (status, content))
            self.assert_headers({"tus-resumable"} if header else set(), headers)
            self.assertEqual(404, self.ask(b"DELETE", url, *header)[0])
            self.assertEqual(404, self.ask(b"HEAD", url, *header)[0])
        url = self.native()
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])
        self.assertEqual(204, self.ask(b"DELETE", url)[0])
        self.assertEqual({("one", "f"): FILE}, self.store.files)

    def test_head_has_no_body(self) -> None:
        """Not even its refusals: the next answer on the connection follows at once."""
        url = self.native()
        for target, status, *headers in (
            (url, 204),
            (url, 412, b"Tus-Resumable: 2"),
            (url, 417, b"Expect: tea"),
            (url, 400, b"X-HTTP-Method-Override: GET"),
            (b"/%b/uploads/%b" % (TOKEN, b"0" * 32), 404),
            (b"/%b/f" % TOKEN, 405),
        ):
            got, _, content = self.ask(b"HEAD", target, *headers)
            self.assertEqual((status, b""), (got, content), target)

    def test_caches(self) -> None:
        """No answer to HEAD may be stored by a cache, whatever it says."""
        url = self.native()
        for target in (url, url[:-1] + b"x"):
            _, headers, _ = self.ask(b"HEAD", target)
            self.assertEqual("no-store", headers["cache-control"])

    def test_unknown(self) -> None:
        """404, whether malformed, never there, or of another bucket."""
        url = self.native()
        foreign = url.replace(TOKEN, OTHER)
        answers = set()
        for target in (
            foreign,
            b"/%b/uploads/%b" % (OTHER, b"0" * 32),
            b"/%b/uploads/" % OTHER,
            b"/%b/uploads/x" % OTHER,
            b"/%b/uploads/%%00" % OTHER,
            b"/%b/uploads/..%%2f..%%2fone" % OTHER,
            b"/%b/uploads/%%ff" % OTHER,
            b"/%b/uploads/%b.json" % (OTHER, url[-32:]),
            url.upper().replace(TOKEN.upper(), OTHER).replace(b"UPLOADS", b"uploads"),
        ):
            for headers, method in (
                ((), b"DELETE"),
                ((at(0), LAST), b"PATCH"),
                ((TUS,), b"DELETE"),
                ((TUS, at(0), TUS_PART), b"PATCH"),
            ):
                status, found, content = self.ask(method, target, *headers)
                self.assertEqual(404, status, target)
                answers.add(content)
                self.assertNotIn("upload-offset", found)
            self.assertEqual(404, self.ask(b"HEAD", target)[0])
        self.assertEqual(1, len(answers))
        self.assert_unchanged(url)
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])
        self.assertEqual(404, self.ask(b"HEAD", foreign)[0])
        self.assertEqual(404, self.ask(b"PATCH", foreign, at(len(FILE)), LAST)[0])

    def test_expired(self) -> None:
        url = self.native()
        self.clock.advance(DAY)
        self.assertEqual(404, self.ask(b"HEAD", url)[0])
        self.assertEqual(404, self.patch_native(url, 0, FILE)[0])
        self.assertEqual({}, self.store.files)

    def test_methods(self) -> None:
        """405 with the methods of the resource."""
        url = self.native()
        for method in (b"GET", b"TRACE", b"patch", b"X"):
            for more in ((), (TUS,)):
                answer = self.ask(method, url, *more)
                self.assert_refused(
                    405, answer, {"allow": "DELETE, HEAD, OPTIONS, PATCH"}
                )
                self.assertNotIn("upload-offset", answer[1])
        for target in (b"/%b" % TOKEN, b"/%b/" % TOKEN, b"/%b/f" % TOKEN):
            for method in (b"GET", b"PATCH", b"DELETE"):
                answer = self.ask(method, target)
                self.assert_refused(405, answer, {"allow": "POST, PUT"})
        self.assert_refused(400, self.ask(b"PUT", url, body=FILE))
        self.assert_refused(400, self.ask(b"PUT", url, MORE, body=FILE))
        self.assert_refused(400, self.ask(b"POST", url, body=FILE))
        self.assert_refused(400, self.ask(b"POST", url, TUS, LENGTH, named()))
        for override in (b"X-HTTP-Method-Override", b"X-HTTP-Method"):
            for method in (b"POST", b"PUT"):
                answer = self.ask(
                    method, url, override + b": PATCH", TUS, at(0), TUS_PART, body=FILE
                )
                self.assert_refused(400, answer)
        self.assert_unchanged(url)

    def test_file_called_uploads(self) -> None:
        """A name like any other, by a plain push and in parts."""
        self.assertEqual([200], self.statuses(put(b"/%b/uploads" % TOKEN)))
        url = self.native(name=b"Uploads")
        self.assertEqual(200, self.patch_native(url, 0, FILE)[0])
        self.assertEqual([405], self.statuses(put(b"/%b/uploads" % TOKEN)))
        answer = self.ask(b"PUT", b"/%b/uploads" % TOKEN, MORE)
        self.assert_refused(405, answer)
        self.assertEqual([200], self.statuses(put(b"/uploads", b"x", bearer(OTHER))))

    def test_options(self) -> None:
        """OPTIONS of every target with a token: versions, extensions and limits."""
        self.connection = self.connect(max_file_size=1000)
        for target, headers, allow in (
            (b"/%b" % TOKEN, (), "OPTIONS, POST, PUT"),
            (b"/%b/" % TOKEN, (), "OPTIONS, POST, PUT"),
            (b"/%b/f" % TOKEN, (), "OPTIONS, POST, PUT"),
            (b"/", (bearer(TOKEN),), "OPTIONS, POST, PUT"),
            (b"*", (bearer(TOKEN),), "OPTIONS, POST, PUT"),
            (b"/%b" % TOKEN, (b"Tus-Resumable: 9",), "OPTIONS, POST, PUT"),
            (
                b"/%b/uploads/%b" % (TOKEN, b"0" * 32),
                (),
                "DELETE, HEAD, OPTIONS, PATCH",
            ),
        ):
            status, found, content = self.ask(b"OPTIONS", target, *headers)
            self.assertEqual((204, b""), (status, content), target)
            self.assertEqual(
                {
                    "allow": allow,
                    "tus-resumable": "1.0.0",
                    "tus-version": "1.0.0",
                    "tus-extension": "creation,creation-defer-length,expiration,"
                    "termination",
                    "tus-max-size": "1000",
                    "upload-limit": "max-size=1000,max-age=86400",
                },
                {name: each for name, each in found.items() if name not in OF_SERVER},
            )
            self.assertFalse(self.connection.closed)
        self.connection = self.connect()
        _, found, _ = self.ask(b"OPTIONS", b"/%b" % TOKEN)
        self.assertNotIn("tus-max-size", found)

    def test_credentials_of_a_proxy(self) -> None:
        """A proxy may have its own; only an empty part could be a client's first
        request before it has any.
        """
        basic = b"Authorization: Basic eDp5"
        url = self.native(basic)
        self.assert_refused(400, self.patch_native(url, 0, b"", basic))
        self.assertEqual(200, self.patch_native(url, 0, b"content", basic)[0])
        url = self.tus(LENGTH, named(b"g"), basic)
        self.assertEqual(0, self.offset(url, TUS, basic))
        self.assertEqual(204, self.ask(b"OPTIONS", url, basic)[0])
        self.assertEqual(204, self.ask(b"DELETE", url, TUS, basic)[0])

    def test_switched_off(self) -> None:
        """501 and one line; plain pushes go on."""
        self.connection = self.connect(unfinished=0)
        url = b"/%b/uploads/%b" % (TOKEN, b"0" * 32)
        for answer in (
            self.ask(b"OPTIONS", b"/%b" % TOKEN),
            self.ask(b"PUT", b"/%b/f" % TOKEN, MORE, body=FILE),
            self.ask(b"POST", b"/%b" % TOKEN, TUS, LENGTH, named()),
            self.patch_native(url, 0, FILE),
            self.patch_tus(url, 0, FILE),
            self.ask(b"DELETE", url),
        ):
            self.assert_refused(501, answer)
            self.assertNotIn("tus-version", answer[1])
        self.assertEqual([200], self.statuses(put(b"/%b/f" % TOKEN)))

    def test_pipelined(self) -> None:
        """Parts that are sent at once, on a connection that stays."""
        for headers, first, last, end in (
            ((), (PART, MORE), (PART, LAST), 200),
            ((TUS,), (TUS_PART, TUS), (TUS_PART, TUS), 204),
        ):
            self.store.files.clear()
            url = self.tus() if headers else self.native()
            requests = b"".join(
                head(
                    b"PATCH",
                    url,
                    at(offset),
                    b"Content-Length: %d" % size,
                    *(first if offset + size < len(FILE) else last),
                )
                + FILE[offset : offset + size]
                for offset, size in ((0, 4), (4, 1), (5, 9))
            )
            self.connection.send(*(bytes([each]) for each in requests))
            self.assertEqual([204, 204, end], self.connection.statuses())
            self.connection.send(head(b"HEAD", url) + head(b"HEAD", url, TUS))
            self.assertEqual([204, 204], self.connection.statuses())
            self.assertFalse(self.connection.closed)
            self.assertEqual({("one", "f"): FILE}, self.store.files)

    def test_continue(self) -> None:
        """100 Continue for a part that is taken, and none for one that is refused."""
        url = self.native()
        expects = (EXPECTS, b"Content-Length: 14", PART, LAST)
        for status, headers in (
            (409, (*expects, at(1))),
            (400, (*expects, at(0), b"Upload-Length: 3")),
            (415, (EXPECTS, b"Content-Length: 14", TUS_PART, LAST, at(0))),
            (400, (*expects, at(0), b"Content-Digest: sha-256=x")),
            (412, (*expects, at(0), b"Tus-Resumable: 2")),
        ):
            connection = Connection(self.root)
            connection.send(head(b"PATCH", url, *headers))
            self.assertEqual([status], connection.statuses())
        self.send(head(b"PATCH", url, *expects, at(0)))
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", self.connection.received())
        self.assertEqual([200], self.statuses(FILE))
        for status, name, length in ((405, b"f", b"9"), (400, b"g", b"x")):
            connection = Connection(self.root)
            create = (MORE, b"Content-Length: 4", b"Upload-Length: " + length)
            connection.send(head(b"PUT", b"/%b/%b" % (TOKEN, name), EXPECTS, *create))
            self.assertEqual([status], connection.statuses())

    def test_part_digests(self) -> None:
        """Digests of a part, before and after it: a wrong one leaves the offset."""
        url = self.native(LENGTH)
        name = b"Content-Digest: "
        for value, status in ((digest(b"other"), 422), (digest(FILE[:4]), 204)):
            self.assert_unchanged(url)
            answer = self.patch_native(url, 0, FILE[:4], MORE, name + value)
            self.assertEqual(status, answer[0], answer)
        for value, status in ((digest(b"other"), 422), (digest(FILE[4:]), 200)):
            self.assert_unchanged(url, 4)
            body = in_chunks(FILE[4:], trailer=name + value)
            more = (CHUNKED, b"Trailer: X, Content-Digest")
            answer = self.patch_native(url, 4, body, *more)
            self.assertEqual(status, answer[0], answer)
        self.assertEqual({("one", "f"): FILE}, self.store.files)

    def test_file_digest_behind(self) -> None:
        """A digest of the file may follow its last part."""
        for value, status in ((digest(b"other"), 422), (digest(FILE), 200)):
            url = self.native()
            self.patch_native(url, 0, FILE[:4], MORE)
            body = in_chunks(FILE[4:], trailer=b"Repr-Digest: " + value)
            self.assertEqual(status, self.patch_native(url, 4, body, CHUNKED)[0])

    def test_unannounced_trailer(self) -> None:
        """A digest of a part that comes unannounced cannot be compared: 400."""
        url = self.native()
        for trailer in (
            b"Content-Digest: " + digest(FILE[:4]),
            b"Upload-Checksum: sha1 AAAA",
            b"Content-MD5: x",
        ):
            body = in_chunks(FILE[:4], trailer=trailer)
            offset = self.offset(url)
            answer = self.patch_native(url, offset, body, CHUNKED, MORE)
            self.assert_refused(400, answer)
        self.assertEqual({}, self.store.files)

    def test_file_digests(self) -> None:
        """Digests of the file, at its creation or with any part, are compared."""
        right = b"X-Checksum-Sha256: " + SHA256.encode()
        wrong = b"X-Checksum-Sha256: " + b"0" * 64
        sha512 = b"X-Checksum-Sha512: " + hashlib.sha512(FILE).hexdigest().encode()
        for creation, first, last, statuses in (
            ((), (), (right,), (204, 200)),
            ((), (), (wrong,), (204, 422)),
            ((), (wrong,), (), (204, 422)),
            ((), (right,), (wrong,), (204, 400)),
            ((wrong,), (), (), (204, 422)),
            ((right,), (), (wrong,), (204, 400)),
            ((wrong,), (right,), (), (400, 409)),
            ((sha512,), (sha512,), (right,), (204, 200)),
            ((), (sha512,), (), (400, 409)),
            ((), (), (sha512,), (204, 400)),
            ((), (), (b"Repr-Digest: " + digest(FILE),), (204, 200)),
            ((), (), (b"Repr-Digest: " + digest(b"other"),), (204, 422)),
            ((b"Repr-Digest: " + digest(b"other"),), (), (), (204, 422)),
        ):
            self.store.files.clear()
            url = self.native(*creation)
            found = (
                self.patch_native(url, 0, FILE[:4], MORE, *first)[0],
                self.patch_native(url, 4, FILE[4:], *last)[0],
            )
            self.assertEqual(statuses, found, (creation, first, last))
            self.assertEqual(200 in found, ("one", "f") in self.store.files)
            self.ask(b"DELETE", url)

    def test_cut_short(self) -> None:
        """A connection that is lost in a part: what has come is kept."""
        url = self.native()
        connection = Connection(self.root)
        connection.send(
            head(b"PATCH", url, at(0), PART, LAST, b"Content-Length: 14") + FILE[:5]
        )
        connection.lose()
        self.assert_unchanged(url, 5)
        connection = Connection(self.root)
        connection.send(head(b"PATCH", url, at(5), PART, LAST, CHUNKED) + b"2\r\nho")
        connection.half_close()
        ((status, headers, _),) = connection.answers()
        self.assertEqual(
            (400, "7", "?0"),
            (status, headers["upload-offset"], headers["upload-complete"]),
        )
        connection.lose()
        self.assertEqual({}, self.store.files)
        self.assertEqual(200, self.patch_native(url, 7, FILE[7:])[0])

    def test_taken_over(self) -> None:
        """A newer request ends an older one, which gets 409, and goes on behind it."""
        url = self.native()
        old = Connection(self.root)
        old.send(
            head(b"PATCH", url, at(0), PART, LAST, b"Content-Length: 14") + FILE[:5]
        )
        self.assertEqual(5, self.offset(url))
        ((status, headers, _),) = old.answers()
        self.assertEqual((409, "5"), (status, headers["upload-offset"]))
        old.lose()
        self.assertEqual(200, self.patch_native(url, 5, FILE[5:])[0])

    def test_revoked(self) -> None:
        """An upload ends with its token, idle or in the middle of a part."""
        idle, busy = self.native(name=b"g"), self.native()
        connection = Connection(self.root)
        connection.send(
            head(b"PATCH", busy, at(0), PART, LAST, b"Content-Length: 14") + FILE[:5]
        )
        self.registry.replace(BucketIndex([bucket(b"n" * 32, "one")]))
        self.assertEqual([403], connection.statuses())
        connection.lose()
        self.assertEqual(403, self.ask(b"HEAD", idle)[0])
        self.assertEqual(({}, []), (self.store.files, self.sessions.all))
        self.assertEqual(404, self.ask(b"HEAD", idle.replace(TOKEN, b"n" * 32))[0])

    def test_retired(self) -> None:
        """An upload ends with its bucket, idle or in the middle of a part."""
        idle, busy = self.native(name=b"g"), self.native()
        connection = Connection(self.root)
        connection.send(
            head(b"PATCH", busy, at(0), PART, LAST, b"Content-Length: 14") + FILE[:5]
        )
        retired = evolve(bucket(TOKEN, "one"), retired=True)
        self.registry.replace(BucketIndex([retired]))
        self.assertEqual([403], connection.statuses())
        connection.lose()
        self.assertEqual(({}, []), (self.store.files, self.sessions.all))
        for method in (b"HEAD", b"DELETE", b"OPTIONS"):
            self.assertEqual(403, self.ask(method, idle)[0])
        self.assertEqual("the bucket is retired", self.observed[-1].reason)

    def test_no_half_pipe(self) -> None:
        """A body from a pipe of which some was taken gets no status that curl --retry
        repeats with the rest, unless the offset has advanced: then that is refused.
        """
        parts = self.sessions._parts
        assert isinstance(parts, MemoryParts)
        for method, sized, fails, statuses in (
            (b"PUT", CHUNKED, False, [400]),
            (b"PUT", b"Content-Length: 9", False, [408]),
            (b"PATCH", CHUNKED, False, [408]),
            (b"PATCH", CHUNKED, True, [400]),
            (b"PATCH", b"Content-Length: 9", True, [408]),
        ):
            target = self.native() if method == b"PATCH" else b"/%b/g" % TOKEN
            headers = (at(0), LAST) if method == b"PATCH" else (MORE,)
            connection = Connection(self.root)
            connection.send(head(method, target, sized, *headers))
            connection.send(b"1\r\nx" if sized == CHUNKED else b"x")
            parts.failure = Refusal(503, "disk error on the server") if fails else None
            connection.clock.advance(connection.site.limits.rate_window)
            self.assertEqual(statuses, connection.statuses(), (method, sized))
            connection.lose()
            parts.failure = None
            if method == b"PATCH":
                self.assert_unchanged(target, 0 if fails else 1)
                again = self.patch_native(target, 0, b"rest")
                self.assertEqual(200 if fails else 409, again[0])
                self.store.files.clear()

    def test_only_if_new(self) -> None:
        """``If-None-Match: *`` at the creation holds to the end."""
        self.hooks.verdicts = [Verdict.OVERWRITE]
        for headers in ((LENGTH,), ()):
            url = self.native(*headers, b"If-None-Match: *")
            self.store.files["one", "f"] = b"earlier"
            self.assert_refused(412, self.patch_native(url, 0, FILE))
            self.assertEqual({("one", "f"): b"earlier"}, self.store.files)
            self.store.files.clear()

    def test_name_taken_meanwhile(self) -> None:
        """A plain push that is faster wins: 405 to the last part."""
        for create, parts in (
            (self.native, self.patch_native),
            (self.tus, self.patch_tus),
        ):
            url = create()
            self.assertEqual([200], self.statuses(put(b"/%b/f" % TOKEN)))
            self.assert_refused(405, parts(url, 0, FILE))
            self.assertEqual({("one", "f"): b"content"}, self.store.files)
            self.assertEqual(404, self.ask(b"HEAD", url)[0])
            self.store.files.clear()

    def test_request_id(self) -> None:
        """All answers about an upload have the request id of its creation."""
        target = b"/%b/f" % TOKEN
        _, headers, _ = self.ask(b"PUT", target, MORE)
        url = urljoin(target.decode(), headers["location"]).encode()
        for answer in (
            self.ask(b"HEAD", url),
            self.patch_native(url, 9, b""),
            self.patch_native(url, 0, FILE),
            self.ask(b"HEAD", url),
        ):
            self.assertEqual(headers["x-request-id"], answer[1]["x-request-id"])

    def test_outcomes_show_no_secret(self) -> None:
        """Neither the token nor an upload's id is in an outcome or in a request."""
        url = self.native()
        self.patch_native(url, 0, FILE)
        text = repr(self.observed) + repr(self.sessions.all)
        self.assertNotIn(url[-32:].decode(), text)
        self.assertNotIn(TOKEN.decode(), text)

    def test_disk_slower_than_network(self) -> None:
        """A part is read no faster than it is written."""
        url = self.native()
        data = b"x" * 2000
        self.store.gate = Deferred()
        self.connection.send(
            head(b"PATCH", url, at(0), PART, LAST, b"Content-Length: 2000") + data[:900]
        )
        self.connection.send(data[900:1800])
        self.assertTrue(self.connection.wire.paused)
        gate, self.store.gate = self.store.gate, None
        gate.callback(None)
        self.assertEqual([200], self.statuses(data[1800:]))


class StrangerTests(ResumeCase):
    """Clients without a token of the bucket."""

    def test_same_answer(self) -> None:
        """Not a byte tells whether an upload's id is right, or what is asked."""
        url = self.native()
        answers = set()
        date = re.compile(rb"Date: [^\r]*\r\n")
        for method in (b"PATCH", b"DELETE", b"OPTIONS", b"POST", b"PUT"):
            for target in (
                b"/x/" + url.rpartition(b"/uploads")[0],
                url[:5] + b"x" + url[6:],
                b"/uploads/" + url[-32:],
                b"/uploads/" + b"0" * 32,
                b"/" + url[-32:],
            ):
                for headers in (
                    (MORE,),
                    (TUS, LENGTH, named()),
                    (b"Tus-Resumable: 2",),
                    (at(0), LAST, PART),
                    (at(0), LAST, bearer(b"x" * 32)),
                    (b"X-HTTP-Method-Override: PATCH",),
                ):
                    self.send(head(method, target, EMPTY, *headers))
                    answers.add(date.sub(b"", self.connection.received()))
        self.assertEqual(1, len(answers), answers)
        self.assertTrue(answers.pop().startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assert_unchanged(url)
