"""Tests of :mod:`filebucket.web.put`, with a store in memory."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.web.http_headers import Headers

from filebucket.base.errors import Refusal
from filebucket.hooks.interfaces import Exit, Verdict
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.push.interfaces import IIncoming
from filebucket.store.interfaces import BATCH
from filebucket.test.kit.uploads import BUCKET, SHA256, UploadCase, stream
from filebucket.web import form
from filebucket.web.put import Form, Put, answer

FORM = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="db.gz"\r\n\r\n'
    b"content\r\n--B"
)
MORE = b'\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--B'


def in_base64(digest: str) -> str:
    """Convert hex to base64, as in headers with digests."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def put(
    *chunks: bytes | Refusal, headers: Mapping[str, str] | None = None, **other: Any
) -> Put:
    """A PUT of db.gz, with ``content`` if given."""
    return Put(**asked(chunks or (b"con", b"tent"), headers, other))


def post(
    *chunks: bytes | Refusal, headers: Mapping[str, str] | None = None, **other: Any
) -> Form:
    """A POST of a form with db.gz."""
    lines = {"Content-Type": "multipart/form-data; boundary=B", **(headers or {})}
    told = {"method": "POST", "path": [b""], **other}
    return Form(**asked(chunks or (FORM + b"--\r\n",), lines, told))


def asked(
    chunks: tuple[bytes | Refusal, ...],
    headers: Mapping[str, str] | None,
    other: Mapping[str, Any],
) -> dict[str, Any]:
    """Parse a request."""
    length = sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes))
    lines = {"Content-Length": str(length), **(headers or {})}
    return {
        "method": "PUT",
        "path": [b"db.gz"],
        "has_query": False,
        "headers": Headers({name: [value] for name, value in lines.items()}),
        "length": length,
        "client": "192.0.2.1:9",
        "body": stream(*chunks),
        "failed": lambda: None,
        "received": lambda: length,
        "closed": lambda: None,
        "trailers": Headers(),
        **other,
    }


class HttpCase(UploadCase):
    """Has answers, too."""

    def answer(self, outcome: Outcome) -> bytes:
        """The body of the answer."""
        return answer(outcome)[1]

    def headers(self, outcome: Outcome) -> dict[str, str]:
        """The headers of the answer."""
        return answer(outcome)[0]

    def assert_refused(
        self, status: int, push: IIncoming, bucket: Bucket | None = BUCKET
    ) -> Outcome:
        """The answer is one line with the reason."""
        outcome = super().assert_refused(status, push, bucket)
        self.assertEqual(f"{outcome.reason}\n".encode(), self.answer(outcome))
        self.assertEqual(1, self.answer(outcome).count(b"\n"))
        return outcome


class StoredTests(HttpCase):
    """Pushes that succeed."""

    def test_put(self) -> None:
        """The file is stored; the answer is a line of sha256sum."""
        outcome = self.receive(put())
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)
        self.assertEqual(200, outcome.status)
        self.assertEqual(f"{SHA256}  db.gz\n".encode(), self.answer(outcome))
        self.assertEqual({"X-Checksum-Sha256": SHA256}, self.headers(outcome))
        self.assertEqual(
            ("web01", "db.gz", 7, SHA256, "192.0.2.1:9", False),
            (
                outcome.bucket,
                outcome.name,
                outcome.size,
                outcome.sha256,
                outcome.client,
                outcome.overwrote,
            ),
        )
        self.assertIsNone(outcome.reason)

    def test_post(self) -> None:
        outcome = self.receive(post())
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)
        self.assertEqual(f"{SHA256}  db.gz\n".encode(), self.answer(outcome))

    def test_post_without_slash(self) -> None:
        """The token is the last component, with or without a slash."""
        self.receive(post(path=[]))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_chunked(self) -> None:
        """A body of unknown length."""
        push = put(headers={"Transfer-Encoding": "chunked"}, length=None)
        self.assertEqual(200, self.receive(push).status)
        self.assertEqual([-1], [each.size for each in self.hooks.asked])

    def test_name_from_the_path(self) -> None:
        """The name is the last component of the path, byte for byte."""
        for name in ("-rf", "a b", "ünï.gz", '"; rm', "$(id)", "a.", "x" * 255):
            self.receive(put(path=[name.encode()]))
            self.assertIn(("web01", name), self.store.files)

    def test_promises_kept(self) -> None:
        """Matching digests, alone and together."""
        sha512 = base64.b64encode(hashlib.sha512(b"content").digest()).decode()
        sha256 = base64.b64encode(bytes.fromhex(SHA256)).decode()
        for number, headers in enumerate(
            (
                {"X-Checksum-Sha256": SHA256},
                {"X-Checksum-Sha256": SHA256.upper()},
                {"Content-Digest": f"sha-256=:{sha256}:"},
                {"Repr-Digest": f"sha-512=:{sha512}:, sha-256=:{sha256}:"},
                {"Repr-Digest": "md5=:AAAA:"},
            )
        ):
            push = put(headers=headers, path=[b"%d" % number])
            self.assertEqual(200, self.receive(push).status, headers)

    def test_promises_of_other_clients(self) -> None:
        """Digests that S3 and older clients send are compared, or refused."""
        md5 = hashlib.md5(b"content")
        sha1 = base64.b64encode(hashlib.sha1(b"content").digest()).decode()
        in_64 = base64.b64encode(md5.digest()).decode()
        other = {16: "00" * 16, 32: "00" * 32}
        for headers, wrong in (
            ({"Content-MD5": in_64}, {"Content-MD5": "A" * 22 + "=="}),
            ({"X-Checksum-Md5": md5.hexdigest()}, {"X-Checksum-Md5": other[16]}),
            ({"Digest": f"MD5={in_64},UNIXsum=1"}, {"Digest": f"md5={'A' * 22}=="}),
            ({"Digest": f"SHA={sha1}"}, {"Digest": f"SHA={'A' * 27}="}),
            ({"X-Amz-Content-Sha256": SHA256}, {"X-Amz-Content-Sha256": other[32]}),
            ({"X-Amz-Checksum-Sha1": sha1}, {"X-Amz-Checksum-Sha1": "A" * 27 + "="}),
            ({"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD"}, None),
        ):
            self.store.files.clear()
            self.assertEqual(200, self.receive(put(headers=headers)).status, headers)
            self.store.files.clear()
            self.hooks.told.clear()
            if wrong is not None:
                self.assert_refused(422, put(headers=wrong))
        for headers in (
            {"X-Amz-Checksum-Crc32": "AAAAAA=="},
            {"X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
            {"Content-MD5": "nonsense"},
            {"Digest": "nonsense"},
            {"Content-MD5": in_64, "X-Checksum-Md5": other[16]},
        ):
            self.assert_refused(400, put(headers=headers))

    def test_trailers(self) -> None:
        """A digest after the body is compared, like one before it."""
        for kind in (put, post):
            for value, status in ((SHA256, 200), ("00" * 32, 422), ("x", 400)):
                trailers = Headers({"X-Checksum-Sha256": [value]})
                self.store.files.clear()
                outcome = self.receive(kind(trailers=trailers, length=None))
                self.assertEqual(status, outcome.status, outcome.reason)

    def test_trailers_of_a_form(self) -> None:
        """A digest of the form must be announced, since the form is hashed while it
        arrives.
        """
        digest = in_base64(hashlib.sha256(FORM + b"--\r\n").hexdigest())
        right = Headers({"Content-Digest": [f"sha-256=:{digest}:"]})
        wrong = Headers({"Content-Digest": [f"sha-256=:{in_base64(SHA256)}:"]})
        announced = {"Trailer": "Content-Digest"}
        for trailers, headers, status in (
            (right, announced, 200),
            (wrong, announced, 422),
            (right, {}, 400),
        ):
            self.store.files.clear()
            push = post(trailers=trailers, headers=headers, length=None)
            self.assertEqual(status, self.receive(push).status)

    def test_promise_of_a_form(self) -> None:
        """X-Checksum-Sha256 is the digest of the file. The headers of RFC 9530 and
        older ones are digests of the form.
        """
        self.receive(post(headers={"X-Checksum-Sha256": SHA256}))
        self.hooks.told.clear()
        push = post(headers={"X-Checksum-Sha256": "0" * 64})
        self.store.files.clear()
        self.assert_refused(422, push)
        whole = FORM + b"--\r\n"
        sha256, other = in_base64(hashlib.sha256(whole).hexdigest()), in_base64(SHA256)
        md5 = base64.b64encode(hashlib.md5(whole).digest()).decode()
        for headers, status in (
            ({"Content-Digest": f"sha-256=:{other}:"}, 422),
            ({"Content-MD5": md5.replace(md5[0], "+" if md5[0] != "+" else "/")}, 422),
            ({"Content-Digest": f"sha-256=:{sha256}:", "Content-MD5": md5}, 200),
        ):
            self.assertEqual(status, self.receive(post(headers=headers)).status)


class RefusedTests(HttpCase):
    """Each cause of a refusal."""

    def test_method(self) -> None:
        """The answer to another method names the two that are allowed."""
        for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "put"):
            outcome = self.assert_refused(405, put(method=method))
            self.assertEqual("POST, PUT", self.headers(outcome)["Allow"])

    def test_headers(self) -> None:
        """Refusals by the headers alone."""
        for status, headers in (
            (400, {"Content-Range": "bytes 0-6/7"}),
            (400, {"X-Checksum-Sha256": "short"}),
            (400, {"Content-Digest": "sha-256=:short:"}),
            (400, {"Repr-Digest": "sha-256=nonsense"}),
            (415, {"Content-Encoding": "gzip"}),
            (417, {"Expect": "200-ok"}),
        ):
            self.assert_refused(status, put(headers=headers))
        self.assert_refused(415, post(headers={"Content-Encoding": "gzip"}))
        headers = {"Expect": "100-Continue", "Content-Encoding": "Identity"}
        self.assertEqual(200, self.receive(put(headers=headers)).status)

    def test_lists(self) -> None:
        """A list may be empty, repeat itself, and have empty members (RFC 9110,
        5.6.1.2).
        """
        for headers in (
            {"Expect": ""},
            {"Expect": "100-continue, 100-Continue"},
            {"Expect": ", 100-continue ,"},
            {"Content-Encoding": ""},
            {"Content-Encoding": "identity, Identity"},
            {"Content-Digest": ""},
        ):
            self.store.files.clear()
            self.assertEqual(200, self.receive(put(headers=headers)).status, headers)
        self.hooks.told.clear()
        self.store.files.clear()
        self.assertFalse(put(headers={"Expect": ""}).waits)
        self.assert_refused(417, put(headers={"Expect": "100-continue, x"}))
        self.assert_refused(415, put(headers={"Content-Encoding": "identity, gzip"}))

    def test_form_by_put(self) -> None:
        """For example, requests.put(files=): the form would be stored instead of the
        file.
        """
        for kind in ("multipart/form-data; boundary=B", "Multipart/Form-Data"):
            outcome = self.assert_refused(415, put(headers={"Content-Type": kind}))
            self.assertIn(b"curl -T", self.answer(outcome))
        self.assertEqual(
            200, self.receive(put(headers={"Content-Type": "text/plain"})).status
        )

    def test_part_of_an_upload(self) -> None:
        """A header that announces more parts is refused, unless its value means that
        this is all.
        """
        for value in ("?0", "0", "?1, ?0", "nonsense"):
            self.assert_refused(400, put(b"", headers={"Upload-Complete": value}))
        push = put(headers={"Upload-Complete": "?1"})
        self.assertEqual(200, self.receive(push).status)

    def test_other_length(self) -> None:
        """A file is whole only if it has the length that its client told."""
        for told in "5", "8", "0", "x", "-1":
            for push in put, post:
                headers = {"Upload-Length": told}
                self.assert_refused(400, push(headers=headers))
                headers["Upload-Complete"] = "?1"
                self.assert_refused(400, push(headers=headers))
                chunked = {"Content-Length": "", "Transfer-Encoding": "chunked"}
                self.assert_refused(
                    400, push(headers={**headers, **chunked}, length=None)
                )
        self.assertEqual(200, self.receive(put(headers={"Upload-Length": "7"})).status)

    def test_empty_for_a_challenge(self) -> None:
        """curl --ntlm sends the file only after its first request was refused."""
        for scheme in ("NTLM x", "Negotiate x", "Digest username=x", "Basic eDp5"):
            self.assert_refused(400, put(b"", headers={"Authorization": scheme}))
        for content, scheme in ((b"", "Bearer x"), (b"x", "Basic eDp5")):
            push = put(content, headers={"Authorization": scheme})
            self.store.files.clear()
            self.assertEqual(200, self.receive(push).status, scheme)

    def test_conditions(self) -> None:
        """Conditions are respected if overwriting is allowed; nothing is written."""
        overwrites = evolve(BUCKET, overwrite=True)
        self.store.files["web01", "db.gz"] = b"old"
        for headers in (
            {"If-None-Match": "*"},
            {"If-Match": '"x"'},
            {"If-Match": "*"},
            {"If-Unmodified-Since": "Sat, 28 Nov 2026 00:00:00 GMT"},
            {"If": "(<urn:uuid:1>)"},
        ):
            self.assert_refused(412, put(headers=headers), overwrites)
            self.assert_refused(405, put(headers=headers))
        push = put(headers={"If-None-Match": '"x"'})
        self.assertEqual(200, self.receive(push, overwrites).status)
        push = put(path=[b"new"], headers={"If-None-Match": "*"})
        self.assertEqual(200, self.receive(push, overwrites).status)

    def test_ignored_conditions(self) -> None:
        """If overwriting is not allowed, a condition does not matter."""
        for header in ("If-None-Match", "If-Match", "If-Unmodified-Since", "If"):
            push = put(path=[header.encode()], headers={header: "*"})
            self.assertEqual(200, self.receive(push).status, header)

    def test_headers_that_are_no_text(self) -> None:
        """Headers that are not UTF-8 are refused like other invalid ones."""
        for status, name in (
            (417, b"Expect"),
            (415, b"Content-Encoding"),
            (400, b"X-Checksum-Sha256"),
            (400, b"Content-Digest"),
        ):
            push = put()
            push.headers.setRawHeaders(name, [b"\xff\xfe"])
            self.assert_refused(status, push)
        form = post()
        form.headers.setRawHeaders(b"Content-Type", [b"\xff"])
        self.assert_refused(412, form)

    def test_no_length(self) -> None:
        """Neither Content-Length nor chunked."""
        self.assert_refused(411, evolve(put(), headers=Headers()))

    def test_no_file(self) -> None:
        """No name in the URL, no form, no file in the form."""
        self.assert_refused(412, put(path=[]))
        self.assert_refused(412, put(path=[b""]))
        self.assert_refused(412, post(headers={"Content-Type": "text/plain"}))
        self.assert_refused(412, post(FORM.replace(b'"file"', b'"x"') + b"--\r\n"))

    def test_unfit_names(self) -> None:
        """Invalid names are refused, never changed."""
        for name in (b".", b"..", b"a/b", b"a\\b", b"a\0", b"\n", b"\xff", b"x" * 256):
            outcome = self.assert_refused(400, put(path=[name]))
            self.assertIsNone(outcome.name)
        self.assert_refused(400, put(path=[b".filebucket"]))
        self.assert_refused(400, put(path=[b"a", b"b"]))
        self.assert_refused(400, put(path=[b"a", b""]))
        self.assert_refused(400, put(has_query=True))
        self.assert_refused(400, post(FORM.replace(b"db.gz", b"..") + b"--\r\n"))

    def test_post_with_a_name(self) -> None:
        """The answer explains how to POST."""
        for path in ([b"db.gz"], [b"", b""], [b"a", b"b"]):
            outcome = self.assert_refused(400, post(path=path))
            self.assertIn(b"curl -F file=@", self.answer(outcome))
            # "curl --data-binary" sends another type unless it is told.
            self.assertIn(b"Content-Type: text/plain", self.answer(outcome))

    def test_too_large(self) -> None:
        """Known from the length before the body, or found while it arrives."""
        self.uploads = self.make(max_file_size=6)
        self.assert_refused(413, put(Refusal(400, "not read"), length=7))
        self.assert_refused(413, put(length=None))
        self.assert_refused(413, post())
        self.assert_refused(413, post(b"not read", length=6 + form.MOST_OVERHEAD + 1))
        self.uploads = self.make(max_file_size=7)
        self.assertEqual(200, self.receive(put()).status)

    def test_larger_than_any(self) -> None:
        """Larger than any file can be, without another limit."""
        for push in (put, post):
            self.assert_refused(413, push(length=2**64))
        self.store.room = 2**65
        self.assert_refused(413, put(length=2**63))

    def test_no_room(self) -> None:
        """The same for free space: a large file is refused before it is read."""
        self.store.room = BATCH - 1
        unread = Refusal(400, "not read")
        self.assert_refused(507, put(unread, length=BATCH))
        self.assert_refused(507, post(unread, length=BATCH))
        self.store.room = 6
        self.assert_refused(507, put(length=None))
        self.assert_refused(507, put())
        self.assert_refused(507, post())

    def test_exists(self) -> None:
        """The file stays as it is; the answer offers no method instead."""
        self.store.files["web01", "db.gz"] = b"old"
        self.assertEqual({}, self.headers(self.assert_refused(405, put())))
        self.assert_refused(405, post())

    def test_exists_unread(self) -> None:
        """Refused before the body is read, if that is not here yet."""
        self.store.files["web01", "db.gz"] = b"old"
        unread = Refusal(400, "not read")
        waits = {"Expect": "100-continue", "Content-Length": "7"}
        for push in (
            put(unread, length=BATCH),
            put(unread, length=None),
            put(unread, length=7, headers=waits),
        ):
            self.assert_refused(405, push)

    def test_exists_as_promised(self) -> None:
        """A retry of a stored file succeeds; post-push does not run again, and the body
        need not be sent.
        """
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        unread = Refusal(400, "not read")
        promise = {"X-Checksum-Sha256": SHA256}
        asks = {"Expect": "100-continue", **promise}
        for push in (
            put(headers=promise),
            put(unread, length=BATCH, headers=asks),
            put(headers={"Repr-Digest": f"sha-256=:{in_base64(SHA256)}:"}),
            post(headers={"X-Checksum-Sha256": SHA256}),
        ):
            outcome = self.receive(push)
            self.assertEqual((200, None), (outcome.status, outcome.reason))
            self.assertEqual(f"{SHA256}  db.gz\n".encode(), self.answer(outcome))
            self.assertEqual(SHA256, self.headers(outcome)["X-Checksum-Sha256"])
            self.assertTrue(outcome.repeated)
        self.assertEqual([], self.hooks.told)
        self.assertEqual([("web01", "db.gz")] * 4, self.store.confirmed)

    def test_exists_and_is_sent_again(self) -> None:
        """A client without Expect sends the whole body before it reads the answer."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        promise = {"X-Checksum-Sha256": SHA256}
        outcome = self.receive(put(b"con", b"tent", length=BATCH, headers=promise))
        self.assertEqual((200, True, 7), (outcome.status, outcome.repeated, 7))
        ends = Refusal(400, "it ended early")
        self.assert_refused(400, put(b"con", ends, length=BATCH, headers=promise))
        self.uploads = self.make(max_file_size=8)
        self.assert_refused(413, put(b"con" * 3, length=None, headers=promise))

    def test_body_breaks_off(self) -> None:
        gone = Refusal(400, "the body ended early")
        self.assert_refused(400, put(gone))
        outcome = self.assert_refused(400, put(b"con", gone))
        self.assertEqual(3, outcome.size)
        for cut in range(len(FORM) + 1):
            self.assert_refused(400, post(FORM[:cut]))


class HookTests(HttpCase):
    """What hooks get, and what their answers do."""

    def test_size_of_a_form(self) -> None:
        """Exact if the file is the last part; unknown without a length."""
        self.receive(post())
        self.store.files.clear()
        headers = {"Transfer-Encoding": "chunked"}
        self.receive(post(length=None, headers=headers))
        self.assertEqual([7, -1], [each.size for each in self.hooks.asked])

    def test_size_of_a_form_that_goes_on(self) -> None:
        """Unknown if the next part is here already; else pre-push runs again with the
        right size.
        """
        self.assertEqual(200, self.receive(post(FORM + MORE + b"--\r\n")).status)
        self.store.files.clear()
        self.assertEqual(200, self.receive(post(FORM, MORE + b"--\r\n")).status)
        self.assertEqual(
            [-1, 7 + len(MORE), 7], [each.size for each in self.hooks.asked]
        )

    def test_second_verdict_counts(self) -> None:
        """Whether it refuses, or allows overwriting."""
        push = (FORM, MORE + b"--\r\n")
        self.hooks.verdicts = [Verdict.GO_ON, Refusal(409, "no")]
        self.assert_refused(409, post(*push))
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Verdict.OVERWRITE, Verdict.GO_ON]
        self.assert_refused(405, post(*push))
        self.hooks.verdicts = [Verdict.OVERWRITE]
        self.assertEqual(200, self.receive(post(*push)).status)

    def test_post_push_answers(self) -> None:
        """The output of post-push is the answer, whatever its exit status."""
        self.hooks.exit = Exit(0, b"thank you\n")
        outcome = self.receive(put())
        self.assertEqual((200, b"thank you\n"), (outcome.status, self.answer(outcome)))
        self.assertEqual({"X-Checksum-Sha256": SHA256}, self.headers(outcome))

    def test_post_push_fails(self) -> None:
        """A failure does not undo a durable file, and is reported."""
        self.hooks.exit = Exit(143, b"half a wo", timed_out=True)
        outcome = self.receive(put())
        self.assertEqual((200, b"half a wo"), (outcome.status, self.answer(outcome)))
        self.assertEqual("143", self.headers(outcome)["X-Post-Push-Exit"])
        self.assertIn(("web01", "db.gz"), self.store.files)
