"""An S3 bucket for the daemon."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from filebucket.model.objects import S3
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.calls import Calls
from filebucket.store.s3.client import Objects
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    FullError,
    NotThereError,
    Part,
    UnsureError,
)
from filebucket.test.kit.lying_s3 import (
    Answer,
    Changes,
    Cuts,
    Hangs,
    LyingCase,
    LyingS3,
    NoConditions,
    Says,
    error,
)
from filebucket.test.store.s3.objects_contract import ObjectsCase, ObjectsContract

REACTOR: Any = reactor

BODY = MemoryBody.of(b"content")

PORTAL = Answer(200, b"<!DOCTYPE html><title>Welcome</title>")

KEY = "names/web 01/d\u00fc~%+\"'&.gz"


class HonestTests(LyingCase):
    """With a server that tells the truth."""

    def test_put(self) -> None:
        self.result(self.objects.put(KEY, BODY))
        self.assertEqual({f"bucket/{KEY}": b"content"}, self.server.objects)
        headers = self.server.asked[0].headers
        self.assertEqual(BODY.sha256.hex(), headers["x-amz-content-sha256"])
        self.assertEqual("application/octet-stream", headers["content-type"])
        self.assertEqual("SESSION-TOKEN", headers["x-amz-security-token"])
        signed = headers["authorization"]
        self.assertIn("/us-east-1/s3/aws4_request", signed)
        self.assertIn("x-amz-checksum-sha256;x-amz-content-sha256;", signed)
        self.assertEqual("one:1", headers["host"])

    def test_put_nothing(self) -> None:
        self.result(self.objects.put("a", MemoryBody.of(b"")))
        self.assertEqual({"bucket/a": b""}, self.server.objects)

    def test_put_again(self) -> None:
        """The connection is used again."""
        self.result(self.objects.put("a", BODY))
        self.result(self.objects.put("a", MemoryBody.of(b"other")))
        self.assertEqual({"bucket/a": b"other"}, self.server.objects)
        self.assertEqual(1, len(self.one.cables))

    def test_only_new(self) -> None:
        self.result(self.objects.put("a", BODY, only_new=True))
        self.assertEqual(["put-new"], self.server.kinds())
        self.assertIn("if-none-match", self.server.asked[0].headers["authorization"])
        other = MemoryBody.of(b"other")
        message = self.error(
            self.objects.put("a", other, only_new=True), AlreadyThereError
        )
        self.assertEqual("object store one:1 answered 412 PreconditionFailed", message)
        self.assertEqual({"bucket/a": b"content"}, self.server.objects)

    def test_get(self) -> None:
        self.result(self.objects.put(KEY, BODY))
        self.assertEqual(b"content", self.result(self.objects.get(KEY, 7)))
        self.assertEqual(7, self.result(self.objects.size(KEY)))

    def test_get_none(self) -> None:
        for call in (self.objects.get("a", 7), self.objects.size("a")):
            self.error(call, NotThereError)

    def test_get_large(self) -> None:
        """It is not read."""
        self.result(self.objects.put("a", BODY))
        message = self.error(self.objects.get("a", 6), UnsureError)
        self.assertIn("with more than 6 bytes", message)
        huge = MemoryBody.of(bytes(1024 * 1024))
        self.result(self.objects.put("b", huge))
        self.error(self.objects.get("b", 16 * 1024), UnsureError)

    def test_multipart(self) -> None:
        upload = self.result(self.objects.begin(KEY))
        self.assertEqual(
            "SHA256", self.server.asked[0].headers["x-amz-checksum-algorithm"]
        )
        contents = [os.urandom(300_000), b"end"]
        parts = [
            self.result(self.objects.part(KEY, upload, number, MemoryBody.of(each)))
            for number, each in enumerate(contents, 1)
        ]
        self.assertEqual([1, 2], [each.number for each in parts])
        self.assertEqual([300_000, 3], [each.size for each in parts])
        self.assertEqual(sha256(b"end").digest(), parts[1].sha256)
        self.assertEqual({}, self.server.objects)
        self.result(self.objects.complete(KEY, upload, parts))
        self.assertEqual({f"bucket/{KEY}": b"".join(contents)}, self.server.objects)

    def test_other_parts(self) -> None:
        """The store refuses what was not sent."""
        upload = self.result(self.objects.begin("a"))
        part = self.result(self.objects.part("a", upload, 1, BODY))
        for wrong in (
            [evolve(part, etag='"<&"')],
            [evolve(part, sha256=bytes(32))],
            [evolve(part, number=2)],
        ):
            self.error(self.objects.complete("a", upload, wrong), DeniedError)
        self.result(self.objects.complete("a", upload, [part]))

    def test_abandon(self) -> None:
        """A second time, too: the first answer may have been lost."""
        upload = self.result(self.objects.begin("a"))
        self.result(self.objects.abandon("a", upload))
        self.assertEqual({}, self.server.uploads)
        self.result(self.objects.abandon("a", upload))

    def test_sizes(self) -> None:
        for number in range(2500):
            self.server.objects[f"bucket/data/w/{number:04}&"] = b"12"
        self.server.objects["bucket/data/x/1"] = b"1"
        pages, after = [], ""
        for _ in range(3):
            count, size, after = self.result(self.objects.sizes("data/w/", after))
            pages.append((count, size))
        self.assertEqual([(1000, 2000), (1000, 2000), (500, 1000)], pages)
        self.assertEqual("", after)
        self.assertEqual((0, 0, ""), self.result(self.objects.sizes("none/")))


class ContractTests(ObjectsContract, ObjectsCase):
    """Over loopback, with a server that tells the truth."""

    def setUp(self) -> None:
        port = REACTOR.listenTCP(0, LyingS3(), interface="127.0.0.1")
        url = f"http://127.0.0.1:{port.getHost().port}"
        credentials = Credentials("a", "b")
        calls = Calls(REACTOR, S3((url,), "bucket", "bucket"), lambda: credentials)
        self.objects = Objects(calls, "bucket")
        # The connections go first.
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(calls.close()))


class ErrorTests(LyingCase):
    """With errors of the server."""

    def test_kinds(self) -> None:
        for answer, kind in (
            (error(403, "AccessDenied"), DeniedError),
            (error(403, "RequestTimeTooSkewed"), DeniedError),
            (error(404, "NoSuchBucket"), DeniedError),
            (error(403, "QuotaExceeded"), FullError),
            (error(507, "XMinioStorageFull"), FullError),
            (error(500, "InternalError"), UnsureError),
            (error(503, "SlowDown"), UnsureError),
            (error(409, "ConditionalRequestConflict"), UnsureError),
            (Answer(302, headers={"Location": "http://two:2/"}), DeniedError),
            (Answer(201), UnsureError),
            (Answer(502, b"<html>bad gateway</html>"), UnsureError),
        ):
            self.server.lie(Says(answer))
            self.error(self.objects.put("a", BODY), kind)
        self.assertEqual(11, len(self.server.asked))
        self.assertEqual({}, self.server.objects)

    def test_clock(self) -> None:
        self.server.lie(Says(error(403, "RequestTimeTooSkewed")))
        message = self.error(self.objects.put("a", BODY), DeniedError)
        self.assertIn("the clocks of this machine and the store differ", message)

    def test_conflict(self) -> None:
        """It may be our own earlier call, so it is not the name that is taken."""
        self.server.lie(Says(error(409, "ConditionalRequestConflict")))
        self.error(self.objects.put("a", BODY, only_new=True), UnsureError)
        self.result(self.objects.put("a", BODY, only_new=True))

    def test_bucket_gone(self) -> None:
        """That the S3 bucket is missing must not look like a free name."""
        self.server.lie(Says(error(404, "NoSuchBucket")))
        self.error(self.objects.get("a", 1), DeniedError)


class LieTests(LyingCase):
    """With answers that are not what they seem."""

    def test_error_in_200(self) -> None:
        upload = self.result(self.objects.begin("a"))
        part = self.result(self.objects.part("a", upload, 1, BODY))
        self.server.lie(Says(error(200, "InternalError")), "complete")
        message = self.error(self.objects.complete("a", upload, [part]), UnsureError)
        self.assertEqual("object store one:1 answered 200 InternalError", message)
        self.assertEqual({}, self.server.objects)

    def test_page(self) -> None:
        """A proxy's page is no success."""
        part = Part(1, '"x"', 7, BODY.sha256)
        for call in (
            self.objects.put("a", BODY),
            self.objects.begin("a"),
            self.objects.part("a", "id", 1, BODY),
            self.objects.complete("a", "id", [part]),
            self.objects.sizes("a"),
        ):
            self.server.lie(Says(PORTAL))
            self.error(call, UnsureError)
        self.assertEqual(5, len(self.server.asked))

    def test_empty(self) -> None:
        upload = self.result(self.objects.begin("a"))
        part = self.result(self.objects.part("a", upload, 1, BODY))
        self.server.lie(Says(Answer(200)), "complete")
        self.error(self.objects.complete("a", upload, [part]), UnsureError)

    def test_other_root(self) -> None:
        self.server.lie(Says(Answer(200, b"<ListBucketResult/>")), "complete")
        part = Part(1, '"x"', 7, BODY.sha256)
        message = self.error(self.objects.complete("a", "id", [part]), UnsureError)
        self.assertIn("other content than was asked for", message)

    def test_other_checksum(self) -> None:
        """The store says that it has something else."""

        def changed(answer: Answer) -> Answer:
            headers = {**answer.headers, "x-amz-checksum-sha256": "AAAA"}
            content = answer.content.replace(b"<ChecksumSHA256>", b"<ChecksumSHA256>A")
            return Answer(answer.status, content, headers)

        self.server.lie(Changes(changed), "put")
        message = self.error(self.objects.put("a", BODY), UnsureError)
        self.assertIn("with another checksum", message)
        upload = self.result(self.objects.begin("a"))
        self.server.lie(Changes(changed), "part")
        self.error(self.objects.part("a", upload, 1, BODY), UnsureError)
        part = self.result(self.objects.part("a", upload, 1, BODY))
        self.server.lie(Changes(changed), "complete")
        self.error(self.objects.complete("a", upload, [part]), UnsureError)

    def test_etag(self) -> None:
        """Of a part it must be there, and fit into the XML."""
        for etag in ("", "a b", '"' + "x" * 300 + '"', "\u00fc"):
            headers = {"ETag": etag} if etag else {}
            self.server.lie(Says(Answer(200, b"", headers)), "part")
            self.error(self.objects.part("a", "id", 1, BODY), UnsureError)

    def test_wrong_etag(self) -> None:
        """The store refuses to complete with it."""
        upload = self.result(self.objects.begin("a"))
        wrong = Answer(200, b"", {"ETag": '"0000"'})
        self.server.lie(Says(wrong, does=True), "part")
        part = self.result(self.objects.part("a", upload, 1, BODY))
        self.error(self.objects.complete("a", upload, [part]), DeniedError)

    def test_no_condition(self) -> None:
        """It cannot be noticed here."""
        self.result(self.objects.put("a", BODY))
        self.server.lie(NoConditions(), "put-new")
        self.result(self.objects.put("a", MemoryBody.of(b"x"), only_new=True))
        self.assertEqual({"bucket/a": b"x"}, self.server.objects)

    def test_upload_ids(self) -> None:
        for found in ("", "a b", "x" * 3000):
            text = f"<InitiateMultipartUploadResult><UploadId>{found}</UploadId>"
            content = f"{text}</InitiateMultipartUploadResult>".encode()
            self.server.lie(Says(Answer(200, content)), "begin")
            self.error(self.objects.begin("a"), UnsureError)

    def test_endless_list(self) -> None:
        """The next page is the same one."""
        content = (
            b"<ListBucketResult><IsTruncated>true</IsTruncated>"
            b"<NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
        )
        self.server.lie(Says(Answer(200, content)), "list", times=2)
        _, _, after = self.result(self.objects.sizes("a"))
        message = self.error(self.objects.sizes("a", after), UnsureError)
        self.assertIn("the same page", message)

    def test_lists(self) -> None:
        more = "<IsTruncated>true</IsTruncated>"
        for text in (more, "<Contents><Size>-1</Size></Contents>"):
            content = f"<ListBucketResult>{text}</ListBucketResult>".encode()
            self.server.lie(Says(Answer(200, content)), "list")
            self.error(self.objects.sizes("a"), UnsureError)

    def test_length(self) -> None:
        for length in ("", "x", "-5"):
            lie = Says(Answer(200, headers={"Content-Length": length}))
            self.server.lie(lie, "head")
            self.error(self.objects.size("a"), UnsureError)

    def test_bomb(self) -> None:
        """Entities are not expanded."""
        bomb = b'<!DOCTYPE a [<!ENTITY a "aa">]><Error><Code>&a;</Code></Error>'
        self.server.lie(Says(Answer(200, bomb)), "begin")
        message = self.error(self.objects.begin("a"), UnsureError)
        self.assertIn("document type declaration", message)


class LostTests(LyingCase):
    """Answers that are lost. The effect may be there, and the error says so."""

    def test_put(self) -> None:
        for number, lie in enumerate(
            (Cuts(does=True), Cuts(does=True, after=0.6), Says(Answer(500), does=True))
        ):
            self.server.lie(lie, "put")
            self.error(self.objects.put(f"{number}", BODY), UnsureError)
            self.assertIn(f"bucket/{number}", self.server.objects)

    def test_late(self) -> None:
        self.server.lie(Hangs(does=True), "put")
        putting = self.begin(self.objects.put("a", BODY))
        self.wait(19)
        self.assertNoResult(putting)
        self.wait(1)
        message = self.error_of(putting, UnsureError)
        self.assertEqual("object store one:1 did not answer in 20 seconds", message)
        self.assertIn("bucket/a", self.server.objects)

    def test_complete(self) -> None:
        """It may take longer. The same call once more says so."""
        upload = self.result(self.objects.begin("a"))
        part = self.result(self.objects.part("a", upload, 1, BODY))
        self.server.lie(Hangs(does=True), "complete")
        completing = self.begin(self.objects.complete("a", upload, [part]))
        self.wait(59)
        self.assertNoResult(completing)
        self.wait(1)
        self.error_of(completing, UnsureError)
        self.assertIn("bucket/a", self.server.objects)
