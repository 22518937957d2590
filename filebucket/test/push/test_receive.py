"""One push, from its first byte to its outcome, without HTTP."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from filebucket.base.errors import Refusal
from filebucket.hooks.scripts import Exit, Subject, Verdict
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.model.token import Token
from filebucket.push.receive import Push, Uploads
from filebucket.store.interfaces import BATCH
from filebucket.test.kit.fakes import FakeHooks, MemoryStore
from filebucket.web import form

BUCKET = Bucket((Token(b"\xab" * 32),), directory="web01", name="web01")
SHA256 = hashlib.sha256(b"content").hexdigest()
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="db.gz"\r\n\r\n'
    b"content\r\n--B"
)
MORE = b'\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--B'


def in_base64(digest: str) -> str:
    """What is in hex, as digests in headers are."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


async def stream(*chunks: bytes | Refusal) -> AsyncIterator[Sequence[bytes]]:
    """A body: each chunk a batch, or where it breaks off."""
    for chunk in chunks:
        if isinstance(chunk, Refusal):
            raise chunk
        yield [chunk]


def put(
    *chunks: bytes | Refusal, headers: Mapping[str, str] | None = None, **other: Any
) -> Push:
    """A PUT of db.gz; of ``content``, if nothing else is given."""
    chunks = chunks or (b"con", b"tent")
    length = sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes))
    lines = {"Content-Length": str(length), **(headers or {})}
    push = Push(
        method="PUT",
        path=[b"db.gz"],
        has_query=False,
        headers=Headers({name: [value] for name, value in lines.items()}),
        length=length,
        client="192.0.2.1:9",
        body=stream(*chunks),
        failure=lambda: None,
    )
    return evolve(push, **other)


def post(
    *chunks: bytes | Refusal, headers: Mapping[str, str] | None = None, **other: Any
) -> Push:
    """A POST of a form with db.gz."""
    chunks = chunks or (FORM + b"--\r\n",)
    lines = {"Content-Type": "multipart/form-data; boundary=B", **(headers or {})}
    push = put(*chunks, headers=lines)
    return evolve(push, **{"method": "POST", "path": [b""], **other})


class UploadCase(SynchronousTestCase):
    """Has an :class:`Uploads` over fakes."""

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.hooks = FakeHooks()
        self.clock = Clock()
        self.observed: list[Outcome] = []
        self.known: dict[str, Kept] = {}
        self.uploads = self.make()

    def make(self, max_file_size: int | None = None, most: int = 100) -> Uploads:
        return Uploads(
            self.store,
            self.hooks,
            self.clock,
            self.observed.append,
            max_file_size,
            most,
            self.find,
        )

    async def find(self, bucket: Bucket, name: str) -> Kept | None:
        """What is known of a file."""
        self.assertIs(BUCKET, bucket)
        return self.known.get(name)

    def receive(self, push: Push, bucket: Bucket | None = BUCKET) -> Outcome:
        """The outcome of a push, which is what the observer was told."""
        outcome = self.successResultOf(self.uploads.receive(bucket, push))
        self.assertIs(outcome, self.observed[-1])
        self.assertEqual(0, self.store.receiving)
        return outcome

    def assert_refused(
        self, status: int, push: Push, bucket: Bucket | None = BUCKET
    ) -> Outcome:
        """Nothing is stored, post-push is not run, one line says why."""
        before = dict(self.store.files)
        outcome = self.receive(push, bucket)
        self.assertEqual(status, outcome.status, outcome.reason)
        self.assertEqual(before, self.store.files)
        self.assertEqual([], self.hooks.told)
        self.assertEqual(f"{outcome.reason}\n".encode(), outcome.body)
        self.assertEqual(1, outcome.body.count(b"\n"))
        self.assertIsNone(outcome.sha256)
        return outcome


class StoredTests(UploadCase):
    """Pushes that go well."""

    def test_put(self) -> None:
        """The file is stored; the answer is what sha256sum would print."""
        outcome = self.receive(put())
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)
        self.assertEqual(200, outcome.status)
        self.assertEqual(f"{SHA256}  db.gz\n".encode(), outcome.body)
        self.assertEqual({"X-Checksum-Sha256": SHA256}, outcome.headers)
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
        """So is the file of a form."""
        outcome = self.receive(post())
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)
        self.assertEqual(f"{SHA256}  db.gz\n".encode(), outcome.body)

    def test_post_without_slash(self) -> None:
        """With the token last in the URL, or a slash behind it."""
        self.receive(post(path=[]))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_chunked(self) -> None:
        """A body of a length that nobody knows is as good."""
        push = put(headers={"Transfer-Encoding": "chunked"}, length=None)
        self.assertEqual(200, self.receive(push).status)
        self.assertEqual([-1], [each.size for each in self.hooks.asked])

    def test_empty(self) -> None:
        """An empty file is a file."""
        self.assertEqual(200, self.receive(put(b"")).status)
        self.assertEqual({("web01", "db.gz"): b""}, self.store.files)

    def test_name_from_the_path(self) -> None:
        """The name is what the path's component says, byte for byte."""
        for name in ("-rf", "a b", "ünï.gz", '"; rm', "$(id)", "a.", "x" * 255):
            self.receive(put(path=[name.encode()]))
            self.assertIn(("web01", name), self.store.files)

    def test_seconds(self) -> None:
        """The time it took is told."""
        self.store.gate = Deferred()
        done = self.uploads.receive(BUCKET, put())
        self.clock.advance(1.5)
        self.store.gate.callback(None)
        self.assertEqual(1.5, self.successResultOf(done).seconds)

    def test_promises_kept(self) -> None:
        """Digests that are right, alone and together."""
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

    def test_promise_of_a_form(self) -> None:
        """X-Checksum-Sha256 speaks of the file; RFC 9530's of the form."""
        self.receive(post(headers={"X-Checksum-Sha256": SHA256}))
        self.hooks.told.clear()
        push = post(headers={"X-Checksum-Sha256": "0" * 64})
        self.store.files.clear()
        self.assert_refused(422, push)
        headers = {"Content-Digest": f"sha-256=:{'A' * 43}=:"}
        self.assertEqual(200, self.receive(post(headers=headers)).status)

    def test_observer_fails(self) -> None:
        """An observer with a bug does not undo a durable file."""

        def observe(outcome: Outcome) -> None:
            raise RuntimeError("a bug")

        uploads = Uploads(self.store, self.hooks, self.clock, observe)
        outcome = self.successResultOf(uploads.receive(BUCKET, put()))
        self.assertEqual(200, outcome.status)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class RefusedTests(UploadCase):
    """Pushes that are turned away, from each cause."""

    def test_no_such_token(self) -> None:
        """Whatever else is wrong."""
        for push in (put(), post(), put(method="GET"), put(path=[b".."])):
            outcome = self.assert_refused(403, push, bucket=None)
            self.assertEqual(b"no such token\n", outcome.body)
            self.assertEqual({}, outcome.headers)
            self.assertEqual("-", outcome.bucket)

    def test_method(self) -> None:
        """Only two methods are ours; the answer names them."""
        for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "put"):
            outcome = self.assert_refused(405, put(method=method))
            self.assertEqual("POST, PUT", outcome.headers["Allow"])

    def test_headers(self) -> None:
        """What the headers alone say."""
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

    def test_headers_that_are_no_text(self) -> None:
        """Bytes that are not UTF-8 are refused as anything else is."""
        for status, name in (
            (417, b"Expect"),
            (415, b"Content-Encoding"),
            (400, b"X-Checksum-Sha256"),
            (400, b"Content-Digest"),
        ):
            push = put()
            push.headers.setRawHeaders(name, [b"\xff\xfe"])
            self.assert_refused(status, push)
        push = post()
        push.headers.setRawHeaders(b"Content-Type", [b"\xff"])
        self.assert_refused(412, push)

    def test_no_length(self) -> None:
        """Neither a length nor chunks."""
        self.assert_refused(411, evolve(put(), headers=Headers()))

    def test_no_file(self) -> None:
        """No name in the URL; no form; no file in it."""
        self.assert_refused(412, put(path=[]))
        self.assert_refused(412, put(path=[b""]))
        self.assert_refused(412, post(headers={"Content-Type": "text/plain"}))
        self.assert_refused(412, post(FORM.replace(b'"file"', b'"x"') + b"--\r\n"))

    def test_unfit_names(self) -> None:
        """Refused, never changed."""
        for name in (b".", b"..", b"a/b", b"a\\b", b"a\0", b"\n", b"\xff", b"x" * 256):
            outcome = self.assert_refused(400, put(path=[name]))
            self.assertIsNone(outcome.name)
        self.assert_refused(400, put(path=[b".filebucket"]))
        self.assert_refused(400, put(path=[b"a", b"b"]))
        self.assert_refused(400, put(path=[b"a", b""]))
        self.assert_refused(400, put(has_query=True))
        self.assert_refused(400, post(FORM.replace(b"db.gz", b"..") + b"--\r\n"))

    def test_post_with_a_name(self) -> None:
        """POST takes its name from the form, and says how."""
        for path in ([b"db.gz"], [b"", b""], [b"a", b"b"]):
            outcome = self.assert_refused(400, post(path=path))
            self.assertIn(b"curl -F file=@", outcome.body)

    def test_too_large(self) -> None:
        """Known from the length, before the body; or found on the way."""
        self.uploads = self.make(max_file_size=6)
        self.assert_refused(413, put(Refusal(400, "not read"), length=7))
        self.assert_refused(413, put(length=None))
        self.assert_refused(413, post())
        self.assert_refused(413, post(b"not read", length=6 + form.MOST_OVERHEAD + 1))
        self.uploads = self.make(max_file_size=7)
        self.assertEqual(200, self.receive(put()).status)

    def test_larger_than_any(self) -> None:
        """More bytes than a file can have, where there is no other limit."""
        for push in (put, post):
            self.assert_refused(413, push(length=2**64))
        self.store.room = 2**65
        self.assert_refused(413, put(length=2**63))

    def test_bucket_has_its_own_size(self) -> None:
        """A bucket's largest file counts in place of everybody's."""
        self.uploads = self.make(max_file_size=10)
        small, large = (evolve(BUCKET, max_file_size=size) for size in (6, 100))
        self.assert_refused(413, put(b"7 bytes"), small)
        self.assert_refused(413, put(b"11 bytes..!"))
        self.assertEqual(200, self.receive(put(b"11 bytes..!"), large).status)

    def test_quota(self) -> None:
        """What a bucket may have in all."""
        bucket = evolve(BUCKET, quota=10)
        self.assertEqual(200, self.receive(put(path=[b"a"]), bucket).status)
        self.hooks.told.clear()
        self.assert_refused(507, put(path=[b"b"]), bucket)
        self.assertEqual(200, self.receive(put(path=[b"b"])).status)

    def test_no_room(self) -> None:
        """The same of the disk: what is large is refused before it is read."""
        self.store.room = BATCH - 1
        unread = Refusal(400, "not read")
        self.assert_refused(507, put(unread, length=BATCH))
        self.assert_refused(507, post(unread, length=BATCH))
        self.store.room = 6
        self.assert_refused(507, put(length=None))
        self.assert_refused(507, put())
        self.assert_refused(507, post())

    def test_too_many(self) -> None:
        """More pushes at once than there may be: the client shall come again."""
        self.uploads = self.make(most=2)
        self.hooks.gate = Deferred()
        first = [
            self.uploads.receive(BUCKET, put(path=[name])) for name in (b"a", b"b")
        ]
        outcome = self.assert_refused(503, put())
        self.assertIn("Retry-After", outcome.headers)
        self.assert_refused(403, put(), None)
        self.hooks.gate.callback(None)
        for each in first:
            self.assertEqual(200, self.successResultOf(each).status)
        self.assertEqual(200, self.receive(put()).status)

    def test_exists(self) -> None:
        """What is there stays; no method is offered instead."""
        self.store.files["web01", "db.gz"] = b"old"
        self.assertEqual({}, self.assert_refused(405, put()).headers)
        self.assert_refused(405, post())

    def test_exists_unread(self) -> None:
        """Where the body is not here at once, it is refused unread."""
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
        """A second try of what arrived is as good as the first; no post-push is run,
        and the body need not come.
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
            self.assertEqual(f"{SHA256}  db.gz\n".encode(), outcome.body)
            self.assertEqual(SHA256, outcome.headers["X-Checksum-Sha256"])
            self.assertTrue(outcome.repeated)
        self.assertEqual([], self.hooks.told)
        self.assertEqual([("web01", "db.gz")] * 4, self.store.confirmed)

    def test_exists_and_is_sent_again(self) -> None:
        """Whoever does not ask first sends all of it before he reads the answer."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        promise = {"X-Checksum-Sha256": SHA256}
        outcome = self.receive(put(b"con", b"tent", length=BATCH, headers=promise))
        self.assertEqual((200, True, 7), (outcome.status, outcome.repeated, 7))
        ends = Refusal(400, "it ended early")
        self.assert_refused(400, put(b"con", ends, length=BATCH, headers=promise))
        self.uploads = self.make(max_file_size=8)
        self.assert_refused(413, put(b"con" * 3, length=None, headers=promise))

    def test_exists_and_is_still_told_of(self) -> None:
        """Its post-push has not ended, so nobody else knows of it."""
        self.hooks.post_gate = Deferred()
        first = self.uploads.receive(BUCKET, put())
        self.assertNoResult(first)
        outcome = self.receive(put(headers={"X-Checksum-Sha256": SHA256}))
        self.assertEqual((200, True), (outcome.status, outcome.repeated))
        self.assert_exists("00" * 32)
        self.hooks.post_gate.callback(None)
        self.assertFalse(self.successResultOf(first).repeated)
        self.assert_exists(SHA256)  # whoever is asked now does not know it

    def assert_exists(self, promised: str) -> None:
        outcome = self.receive(put(headers={"X-Checksum-Sha256": promised}))
        self.assertEqual(405, outcome.status)

    def test_exists_and_was_replaced(self) -> None:
        """What was replaced while it was told of is not there, of whatever size it
        was, and whatever is known.
        """
        overwrites = evolve(BUCKET, overwrite=True)
        gate: Deferred[None] = Deferred()
        self.hooks.post_gate = gate
        first = self.uploads.receive(overwrites, put())
        self.hooks.post_gate = None
        other = self.receive(put(b"CONTENT"), overwrites)
        self.known["db.gz"] = Kept(7, SHA256)
        self.assert_exists(SHA256)
        gate.callback(None)
        self.assertTrue(self.successResultOf(first).superseded)
        self.assertFalse(other.superseded)

    def test_replaced_and_heard_of_later(self) -> None:
        """Of two that replace each other the last one is there, whichever of them the
        disk is done with first.
        """
        overwrites = evolve(BUCKET, overwrite=True)
        gate: Deferred[None] = Deferred()
        self.store.end_gate = gate
        first = self.uploads.receive(overwrites, put())
        self.store.end_gate = None
        self.assertFalse(self.receive(put(b"other"), overwrites).superseded)
        gate.callback(None)
        self.assertTrue(self.successResultOf(first).superseded)
        self.assertFalse(self.receive(put(), overwrites).superseded)

    def test_exists_otherwise(self) -> None:
        """Whatever else is promised or known: it exists, and no more is said."""
        self.store.files["web01", "db.gz"] = b"content"
        other = "00" * 32
        promise = {"X-Checksum-Sha256": SHA256}
        sha512 = base64.b64encode(hashlib.sha512(b"content").digest()).decode()
        for known, headers in (
            (Kept(7, SHA256), {}),
            (Kept(7, SHA256), {"X-Checksum-Sha256": other}),
            (Kept(7, SHA256), {"Content-Digest": f"sha-512=:{sha512}:"}),
            (Kept(7, other), promise),
            (Kept(8, SHA256), promise),  # it is not what was received any more
            (None, promise),
        ):
            self.known = {"db.gz": known} if known else {}
            outcome = self.assert_refused(405, put(headers=headers))
            self.assertEqual("a file of that name exists", outcome.reason)
            self.assertFalse(outcome.repeated)

    def test_exists_and_refused(self) -> None:
        """What comes before it does so here, too."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        promise = {"X-Checksum-Sha256": SHA256}
        self.assert_refused(403, put(headers=promise), bucket=None)
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, put(headers=promise))

    def test_exists_meanwhile(self) -> None:
        """Two at once: the first to be whole wins."""
        self.store.gate = Deferred()
        first = self.uploads.receive(BUCKET, put(b"first"))
        second = self.uploads.receive(BUCKET, put(b"second"))
        self.store.gate.callback(None)
        self.assertEqual(200, self.successResultOf(first).status)
        self.assertEqual(405, self.successResultOf(second).status)
        self.assertEqual({("web01", "db.gz"): b"first"}, self.store.files)
        self.assertEqual(0, self.store.receiving)

    def test_body_breaks_off(self) -> None:
        """Wherever it does."""
        gone = Refusal(400, "the body ended early")
        self.assert_refused(400, put(gone))
        outcome = self.assert_refused(400, put(b"con", gone))
        self.assertEqual(3, outcome.size)
        for cut in range(len(FORM) + 1):
            self.assert_refused(400, post(FORM[:cut]))

    def test_promise_broken(self) -> None:
        """Nothing is stored of what is not what was promised."""
        outcome = self.assert_refused(422, put(headers={"X-Checksum-Sha256": "0" * 64}))
        self.assertEqual(7, outcome.size)

    def test_bug(self) -> None:
        """A bug of ours is a traceback in the log, and 500 without details."""

        async def broken() -> AsyncIterator[Sequence[bytes]]:
            yield [b"x"]
            raise RuntimeError("a bug")

        outcome = self.assert_refused(500, put(body=broken()))
        self.assertNotIn(b"a bug", outcome.body)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class HookTests(UploadCase):
    """What hooks are asked, and what comes of it."""

    def test_asked(self) -> None:
        """pre-push is told what is known before the body."""
        self.receive(put())
        (subject,) = self.hooks.asked
        self.assertEqual(
            ("web01", "web01", "db.gz", 7, "192.0.2.1:9", ""),
            (
                subject.bucket,
                subject.label,
                subject.filename,
                subject.size,
                subject.remote,
                subject.path,
            ),
        )
        self.assertEqual(self.observed[0].request_id, subject.request_id)

    def test_told(self) -> None:
        """post-push is told what became of it."""
        self.receive(put(length=None, headers={"Transfer-Encoding": "chunked"}))
        (subject,) = self.hooks.told
        self.assertEqual(
            ("/home/web01/db.gz", SHA256, 7),
            (subject.path, subject.sha256, subject.size),
        )

    def test_unnamed_bucket(self) -> None:
        """A bucket without a name is its token to hooks, and not to logs."""
        bucket = Bucket((Token(b"\xab" * 32),), directory="t" * 32)
        outcome = self.receive(put(), bucket)
        self.assertEqual("t" * 32, self.hooks.asked[0].bucket)
        self.assertEqual("#ababab", outcome.bucket)

    def test_refuses(self) -> None:
        """A refusal comes before the body is asked for."""
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, put(RuntimeError("read")))  # type: ignore[arg-type]
        self.assert_refused(409, post())

    def test_comes_before_existence(self) -> None:
        """A push that pre-push refuses cannot learn what is there."""
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, put())

    def test_waits(self) -> None:
        """Nothing is opened while pre-push thinks."""
        self.hooks.gate = Deferred()
        done = self.uploads.receive(BUCKET, put())
        self.assertEqual(0, self.store.receiving)
        self.assertNoResult(done)
        self.hooks.gate.callback(None)
        self.assertEqual(200, self.successResultOf(done).status)

    def test_overwrite(self) -> None:
        """Only pre-push can allow it."""
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Verdict.OVERWRITE]
        outcome = self.receive(put())
        self.assertEqual((200, True), (outcome.status, outcome.overwrote))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_bucket_overwrites(self) -> None:
        """A bucket may allow it by itself; then no hook needs to."""
        self.store.files["web01", "db.gz"] = b"old"
        outcome = self.receive(put(), evolve(BUCKET, overwrite=True))
        self.assertEqual((200, True), (outcome.status, outcome.overwrote))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_size_of_a_form(self) -> None:
        """Exact where the file is the last part; unknown without a length."""
        self.receive(post())
        self.store.files.clear()
        headers = {"Transfer-Encoding": "chunked"}
        self.receive(post(length=None, headers=headers))
        self.assertEqual([7, -1], [each.size for each in self.hooks.asked])

    def test_size_of_a_form_that_goes_on(self) -> None:
        """Unknown where that is seen; or else pre-push is asked again, with
        what nobody could know before.
        """
        self.assertEqual(200, self.receive(post(FORM + MORE + b"--\r\n")).status)
        self.store.files.clear()
        self.assertEqual(200, self.receive(post(FORM, MORE + b"--\r\n")).status)
        self.assertEqual(
            [-1, 7 + len(MORE), 7], [each.size for each in self.hooks.asked]
        )

    def test_second_verdict_counts(self) -> None:
        """Be it a refusal, or the permission to overwrite."""
        push = (FORM, MORE + b"--\r\n")
        self.hooks.verdicts = [Verdict.GO_ON, Refusal(409, "no")]
        self.assert_refused(409, post(*push))
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Verdict.OVERWRITE, Verdict.GO_ON]
        self.assert_refused(405, post(*push))
        self.hooks.verdicts = [Verdict.OVERWRITE]
        self.assertEqual(200, self.receive(post(*push)).status)

    def test_post_push_answers(self) -> None:
        """Its output is the answer, whatever its verdict."""
        self.hooks.exit = Exit(0, b"thank you\n")
        outcome = self.receive(put())
        self.assertEqual((200, b"thank you\n"), (outcome.status, outcome.body))
        self.assertEqual({"X-Checksum-Sha256": SHA256}, outcome.headers)

    def test_post_push_fails(self) -> None:
        """A failure cannot undo a durable file, and is told."""
        self.hooks.exit = Exit(143, b"half a wo", timed_out=True)
        outcome = self.receive(put())
        self.assertEqual((200, b"half a wo"), (outcome.status, outcome.body))
        self.assertEqual("143", outcome.headers["X-Post-Push-Exit"])
        self.assertIn(("web01", "db.gz"), self.store.files)

    def test_post_push_has_a_bug(self) -> None:
        """Not even a bug of ours can undo a durable file."""

        async def post_push(subject: Subject) -> Exit | None:
            raise RuntimeError("a bug")

        self.patch(FakeHooks, "post_push", lambda self, subject: post_push(subject))
        outcome = self.receive(put())
        self.assertEqual((200, SHA256), (outcome.status, outcome.sha256))
        self.assertEqual("255", outcome.headers["X-Post-Push-Exit"])
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class IdleTests(UploadCase):
    """Knowing when no push is under way."""

    def test_idle(self) -> None:
        """With none, at once; with some, after the last, those that come later
        included.
        """
        self.successResultOf(Deferred.fromCoroutine(self.uploads.idle()))
        gates: list[Deferred[None]] = [Deferred(), Deferred()]
        self.store.gate = gates[0]
        self.uploads.receive(BUCKET, put(path=[b"1"]))
        idle = Deferred.fromCoroutine(self.uploads.idle())
        self.store.gate = gates[1]
        self.uploads.receive(BUCKET, put(path=[b"2"]))
        gates[0].callback(None)
        self.assertNoResult(idle)
        gates[1].callback(None)
        self.successResultOf(idle)
