"""Tests of :mod:`filebucket.push.receive`, without any protocol."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from filebucket.base.errors import STATUSES, Refusal
from filebucket.hooks.interfaces import Exit, Subject, Verdict
from filebucket.model.bucket import FILE_COST, Bucket, Held
from filebucket.model.push import Kept, Outcome, Receiving
from filebucket.model.token import Token
from filebucket.push.guesses import MOST_WRONG, WINDOW
from filebucket.push.interfaces import IncomingFile
from filebucket.push.receive import REPEATED, RETIRED, PendingNames, Upload, Uploads
from filebucket.store.interfaces import BATCH
from filebucket.test.kit.fakes import FakeHooks
from filebucket.test.kit.uploads import (
    BUCKET,
    SHA256,
    FakeIncoming,
    UploadCase,
    push,
    stream,
)


class StoredTests(UploadCase):
    """Pushes that succeed."""

    def test_stored(self) -> None:
        """The file is stored, and the outcome is complete."""
        outcome = self.receive(push())
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)
        self.assertEqual(
            (200, None, "web01", "db.gz", 7, SHA256, "192.0.2.1:9", False, False),
            (
                outcome.status,
                outcome.reason,
                outcome.bucket,
                outcome.name,
                outcome.size,
                outcome.sha256,
                outcome.client,
                outcome.overwrote,
                outcome.repeated,
            ),
        )

    def test_name_with_the_body(self) -> None:
        """A name that comes with the body is checked, too."""
        self.assertEqual(200, self.receive(push(named=False)).status)
        self.hooks.told.clear()
        outcome = self.assert_refused(400, push(named=False, called=".."))
        self.assertIsNone(outcome.name)

    def test_promise(self) -> None:
        """Digests that the client sent are compared."""
        self.assertEqual(200, self.receive(push(sha256=SHA256)).status)
        self.hooks.told.clear()
        self.assert_refused(422, push(sha256="00" * 32, called="other"))

    def test_empty(self) -> None:
        self.assertEqual(200, self.receive(push(b"")).status)
        self.assertEqual({("web01", "db.gz"): b""}, self.store.files)

    def test_seconds(self) -> None:
        self.store.gate = Deferred()
        done = self.uploads.receive(BUCKET, push())
        self.clock.advance(1.5)
        self.store.gate.callback(None)
        self.assertEqual(1.5, self.successResultOf(done).seconds)

    def test_receiving(self) -> None:
        """The files that are being received, the longest first."""
        self.assertEqual([], self.uploads.receiving())
        self.clock.advance(1000)
        rest: Deferred[None] = Deferred()
        more: Deferred[None] = Deferred()

        async def slow(until: Deferred[None]) -> AsyncIterator[Sequence[bytes]]:
            yield [b"con"]
            await until
            yield [b"tent"]

        first = push(length=BATCH)
        first.chunks = slow(rest)
        pipe = push(length=None, called="pipe", client="local")
        pipe.chunks = slow(more)
        stored = self.uploads.receive(BUCKET, first)
        self.clock.advance(5)
        self.uploads.receive(BUCKET, pipe)
        self.clock.advance(2)
        self.assertEqual(
            [
                Receiving("web01", "db.gz", "192.0.2.1:9", 3, BATCH, 1000, 7),
                Receiving("web01", "pipe", "local", 3, None, 1005, 2),
            ],
            self.uploads.receiving(),
        )
        rest.callback(None)
        self.successResultOf(stored)
        more.callback(None)
        self.assertEqual([], self.uploads.receiving())

    def test_receiving_without_a_name(self) -> None:
        """Until its name is known, a push is not listed."""
        named: Deferred[IncomingFile] = Deferred()

        class Form(FakeIncoming):
            async def find_file(self) -> IncomingFile:
                return await named

        self.uploads.receive(BUCKET, Form(stream(), None, -1, named=False))
        self.assertEqual(1, self.uploads.under_way)
        self.assertEqual([], self.uploads.receiving())
        named.errback(Refusal(412, "no file"))

    def test_observer_fails(self) -> None:
        """A bug in the observer does not undo a durable file."""

        def observe(outcome: Outcome) -> None:
            raise RuntimeError("a bug")

        uploads = Uploads(
            self.store, self.hooks, self.clock, self.clock.seconds, observe
        )
        outcome = self.successResultOf(uploads.receive(BUCKET, push()))
        self.assertEqual(200, outcome.status)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class RefusedTests(UploadCase):
    """Each cause of a refusal."""

    def test_order(self) -> None:
        """Of several faults, the first in the documented order is the answer."""
        wrong = Refusal(415, "encoded")
        unread = RuntimeError("read")
        self.uploads = self.make(max_file_size=6, most=0)
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(403, push(wrong=wrong, called=".."), None)
        self.assert_refused(415, push(wrong=wrong, called=".."))
        self.assert_refused(503, push(called=".."))
        self.uploads = self.make(max_file_size=6)
        self.assert_refused(400, push(unread, called="..", length=7))
        self.assert_refused(413, push(unread, length=7))
        self.store.room = 0
        self.uploads = self.make()
        self.assert_refused(507, push(unread, named=False, length=BATCH))
        self.assert_refused(409, push(unread, length=BATCH))
        self.hooks.verdicts = [Verdict.GO_ON]
        self.assert_refused(405, push(unread, length=BATCH))
        self.store.files.clear()
        self.assert_refused(507, push(unread, length=BATCH))
        self.assertEqual([], self.flushLoggedErrors(RuntimeError))

    def test_overhead(self) -> None:
        """The wrapping does not count for the size of the file."""
        self.uploads = self.make(max_file_size=7)
        self.assert_refused(413, push(length=10, overhead=2))
        wrapped = push(length=10, size=7, overhead=3)
        self.assertEqual(200, self.receive(wrapped).status)

    def test_exists_as_promised(self) -> None:
        """A retry gets its receipt; a client that waits need not send the body."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        unread = RuntimeError("read")
        for asked in (push(sha256=SHA256), push(unread, sha256=SHA256, waits=True)):
            outcome = self.receive(asked)
            self.assertEqual((200, True), (outcome.status, outcome.repeated))
            self.assertEqual(SHA256, outcome.sha256)
        self.assertEqual([], self.hooks.told)

    def test_exists_as_recorded(self) -> None:
        """A file that another daemon received is known to the store before it is in the
        catalogue, or has replaced the one there.
        """
        self.store.files["web01", "db.gz"] = b"content"
        self.store.records["web01", "db.gz"] = Kept(7, SHA256)
        for known in (None, Kept(7, "00" * 32)):
            self.known.pop("db.gz", None)
            if known is not None:
                self.known["db.gz"] = known
            outcome = self.receive(push(sha256=SHA256))
            self.assertEqual((200, True), (outcome.status, outcome.repeated))
            self.assert_refused(405, push(sha256="00" * 32))
        self.known["db.gz"] = Kept(7, SHA256)
        self.store.records["web01", "db.gz"] = Kept(7, "00" * 32)
        self.assert_refused(405, push(sha256=SHA256))

    def test_found(self) -> None:
        """The catalogue is asked together with what the store tells, once."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        self.assertEqual(200, self.receive(push(sha256=SHA256)).status)
        recorded = self.store.records["web01", "db.gz"] = Kept(7, SHA256)
        self.assertEqual(200, self.receive(push(sha256=SHA256)).status)
        self.assertEqual([None, recorded], self.asked)

    def test_about_to_be_pruned(self) -> None:
        """The record of a file that prune is about to delete does not confirm it."""
        self.store.files["web01", "db.gz"] = b"content"
        self.store.records["web01", "db.gz"] = Kept(7, SHA256)
        self.pruned.add("db.gz")
        self.assert_refused(405, push(sha256=SHA256))

    def test_repeated_with_another_body(self) -> None:
        """The body of a retry is compared even if the digest matches."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        for length in (7, BATCH):
            self.assert_refused(422, push(b"CONTENT", sha256=SHA256, length=length))

    def test_repeated_with_another_promise(self) -> None:
        """A second digest is wrong: even a client that waits has to send the body."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        sha512 = hashlib.sha512(b"content").digest()
        for digest, status in ((sha512, 200), (bytes(64), 422)):
            promise = {"sha256": bytes.fromhex(SHA256), "sha512": digest}
            for waits in (False, True):
                outcome = self.receive(push(promise=promise, waits=waits))
                self.assertEqual(status, outcome.status)

    def test_guesses(self) -> None:
        """Only a few digests can be tried for an existing file."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        for number in range(MOST_WRONG):
            self.assert_refused(405, push(sha256=f"{number:064x}"))
        self.assert_refused(405, push(sha256=SHA256))
        self.clock.advance(WINDOW)
        self.assertEqual(200, self.receive(push(sha256=SHA256)).status)

    def test_heals(self) -> None:
        """A damaged file gets no receipt until its original content replaces it."""
        for length, waits in ((7, False), (BATCH, False), (7, True), (None, False)):
            self.store.files["web01", "db.gz"] = b"CONTENT"
            self.known["db.gz"] = Kept(7, SHA256, damaged=True)
            asked = push(sha256=SHA256, length=length, waits=waits)
            outcome = self.receive(asked)
            self.assertEqual(
                (200, True, True, SHA256),
                (outcome.status, outcome.repeated, outcome.healed, outcome.sha256),
            )
            self.assertEqual(b"content", self.store.files["web01", "db.gz"])
        self.assertEqual([], self.hooks.told)

    def test_does_not_heal(self) -> None:
        """Only the original content replaces a damaged file."""
        self.store.files["web01", "db.gz"] = b"CONTENT"
        self.known["db.gz"] = Kept(7, SHA256, damaged=True)
        for length in (7, BATCH):
            self.assert_refused(422, push(b"another", sha256=SHA256, length=length))
            self.assert_refused(405, push(b"another", sha256="00" * 32, length=length))
            breaks = push(b"con", Refusal(400, "gone"), sha256=SHA256, length=length)
            self.assert_refused(400, breaks)
            revoked = push(sha256=SHA256, length=length, revoked=True)
            self.assert_refused(403, revoked)

    def test_late_promises(self) -> None:
        """Digests after the body."""
        sha256, sha512 = bytes.fromhex(SHA256), hashlib.sha512(b"content").digest()
        for late, status in (
            ({"sha256": bytes(32)}, 422),
            ({"sha512": sha512}, 400),
            ({"sha256": sha256}, 200),
        ):
            self.assertEqual(status, self.receive(push(late=late)).status)
        self.hooks.told.clear()
        both = push(late={"sha256": bytes(32)}, sha256=SHA256, called="other")
        self.assert_refused(400, both)
        known = push(late={"sha512": bytes(64)}, promise={"sha512": sha512}, called="o")
        self.assert_refused(400, known)

    def test_revoked(self) -> None:
        """If a token is removed, its pushes in progress are not published."""
        self.assert_refused(403, push(revoked=True))

    def test_retired(self) -> None:
        """A retired bucket accepts nothing, and tells so before any other check."""
        retired = evolve(BUCKET, retired=True)
        wrong = Refusal(405, "no push")
        for incoming in (push(), push(wrong=wrong), push(called="..")):
            outcome = self.receive(incoming, retired)
            self.assertEqual((403, RETIRED), (outcome.status, outcome.reason))
        self.assertEqual({}, self.store.files)

    def test_nothing_came(self) -> None:
        """A pipe whose command failed is refused; a declared empty file is not."""
        self.assert_refused(400, push(b"", length=None))
        self.assertEqual(200, self.receive(push(b"")).status)

    def test_too_small(self) -> None:
        """The global limit and that of a bucket; from the length, or at the end."""
        unread = RuntimeError("read")
        self.uploads = self.make(min_file_size=8)
        self.assert_refused(400, push(unread, length=7))
        self.assert_refused(400, push(length=None))
        self.assert_refused(400, push(length=9, size=7, overhead=2))
        lenient, strict = (evolve(BUCKET, min_file_size=size) for size in (0, 9))
        self.assertEqual(200, self.receive(push(b"", length=None), lenient).status)
        self.assertEqual(200, self.receive(push(b"12345678", called="b")).status)
        self.hooks.told.clear()
        outcome = self.assert_refused(400, push(b"12345678", called="c"), strict)
        self.assertEqual("the file is smaller than 9 bytes", outcome.reason)

    def test_spent(self) -> None:
        """curl --retry would send the rest of a pipe."""
        for status in REPEATED & set(STATUSES):
            fails = Refusal(status, "for now")
            self.assert_refused(status, push(b"con", fails))
            outcome = self.assert_refused(400, push(b"con", fails, length=None))
            self.assertEqual(("for now", {}), (outcome.reason, outcome.headers))
        self.assert_refused(422, push(b"con", Refusal(422, "no"), length=None))

    def test_only_new(self) -> None:
        """Overwriting is allowed, but the client does not want it."""
        overwrites = evolve(BUCKET, overwrite=True)
        self.store.files["web01", "db.gz"] = b"old"
        self.assert_refused(412, push(only_new=True), overwrites)
        self.assert_refused(412, push(condition=Refusal(412, "if")), overwrites)
        self.assert_refused(405, push(only_new=True))
        self.store.files.clear()
        self.assertEqual(200, self.receive(push(only_new=True), overwrites).status)

    def test_breaks_off(self) -> None:
        """Nothing is left of an incomplete push."""
        outcome = self.assert_refused(400, push(b"con", Refusal(400, "ended early")))
        self.assertEqual((3, "ended early"), (outcome.size, outcome.reason))

    def test_no_such_token(self) -> None:
        """The token comes before any other fault."""
        wrong = Refusal(405, "a method")
        for asked in (push(), push(wrong=wrong), push(called="..")):
            outcome = self.assert_refused(403, asked, bucket=None)
            self.assertEqual("no such token", outcome.reason)
            self.assertEqual({}, outcome.headers)
            self.assertEqual("-", outcome.bucket)

    def test_bucket_has_its_own_size(self) -> None:
        """The limit of a bucket replaces the global one."""
        self.uploads = self.make(max_file_size=10)
        small, large = (evolve(BUCKET, max_file_size=size) for size in (6, 100))
        self.assert_refused(413, push(b"7 bytes"), small)
        self.assert_refused(413, push(b"11 bytes..!"))
        self.assertEqual(200, self.receive(push(b"11 bytes..!"), large).status)

    def test_quota(self) -> None:
        bucket = evolve(BUCKET, quota=FILE_COST + 10)
        self.assertEqual(200, self.receive(push(called="a"), bucket).status)
        self.hooks.told.clear()
        self.assert_refused(507, push(called="b"), bucket)
        self.assertEqual(200, self.receive(push(called="b")).status)

    def test_too_many(self) -> None:
        """A push beyond the limit gets 503 and Retry-After."""
        self.uploads = self.make(most=2)
        self.hooks.gate = Deferred()
        first = [self.uploads.receive(BUCKET, push(called=name)) for name in "ab"]
        outcome = self.assert_refused(503, push())
        self.assertIn("Retry-After", outcome.headers)
        self.assert_refused(403, push(), None)
        self.hooks.gate.callback(None)
        for each in first:
            self.assertEqual(200, self.successResultOf(each).status)
        self.assertEqual(200, self.receive(push()).status)

    def test_too_many_of_one(self) -> None:
        """One bucket gets three quarters of the pushes, other buckets the rest."""
        self.uploads = self.make(most=4)
        self.hooks.gate = Deferred()
        first = [self.uploads.receive(BUCKET, push(called=name)) for name in "abc"]
        self.assert_refused(503, push())
        other = evolve(BUCKET, name="web02", directory="web02")
        first.append(self.uploads.receive(other, push()))
        self.assertNoResult(first[-1])
        self.hooks.gate.callback(None)
        for each in first:
            self.assertEqual(200, self.successResultOf(each).status)
        self.assertEqual(200, self.receive(push()).status)

    def test_exists_and_is_still_told_of(self) -> None:
        """While its post-push hook runs, the catalogue does not know the file yet."""
        self.hooks.post_gate = Deferred()
        first = self.uploads.receive(BUCKET, push())
        self.assertNoResult(first)
        outcome = self.receive(push(sha256=SHA256))
        self.assertEqual((200, True), (outcome.status, outcome.repeated))
        self.assert_exists("00" * 32)
        self.hooks.post_gate.callback(None)
        self.assertFalse(self.successResultOf(first).repeated)
        self.assert_exists(SHA256)  # the catalogue does not know it now

    def assert_exists(self, promised: str) -> None:
        outcome = self.receive(push(sha256=promised))
        self.assertEqual(405, outcome.status)

    def test_exists_and_was_replaced(self) -> None:
        """A file that was replaced while its post-push hook ran does not count,
        whatever its size and whatever the catalogue knows.
        """
        overwrites = evolve(BUCKET, overwrite=True)
        gate: Deferred[None] = Deferred()
        self.hooks.post_gate = gate
        first = self.uploads.receive(overwrites, push())
        self.hooks.post_gate = None
        other = self.receive(push(b"CONTENT"), overwrites)
        self.known["db.gz"] = Kept(7, SHA256)
        self.assert_exists(SHA256)
        gate.callback(None)
        self.assertTrue(self.successResultOf(first).superseded)
        self.assertFalse(other.superseded)

    def test_replaced_and_heard_of_later(self) -> None:
        """Of two pushes that replace each other the last one counts, whichever returns
        from the disk first.
        """
        overwrites = evolve(BUCKET, overwrite=True)
        gate: Deferred[None] = Deferred()
        self.store.end_gate = gate
        first = self.uploads.receive(overwrites, push())
        self.store.end_gate = None
        self.assertFalse(self.receive(push(b"other"), overwrites).superseded)
        gate.callback(None)
        self.assertTrue(self.successResultOf(first).superseded)
        self.assertFalse(self.receive(push(), overwrites).superseded)

    def test_exists_otherwise(self) -> None:
        """With any other digest or content the answer is a plain 405."""
        self.store.files["web01", "db.gz"] = b"content"
        other = "00" * 32
        promise = {"sha256": bytes.fromhex(SHA256)}
        for known, promised in (
            (Kept(7, SHA256), {}),
            (Kept(7, SHA256), {"sha256": bytes.fromhex(other)}),
            (Kept(7, SHA256), {"sha512": hashlib.sha512(b"content").digest()}),
            (Kept(7, other), promise),
            (Kept(8, SHA256), promise),  # its content has changed
            (None, promise),
        ):
            self.known = {"db.gz": known} if known else {}
            outcome = self.assert_refused(405, push(promise=promised))
            self.assertEqual("a file with that name already exists", outcome.reason)
            self.assertFalse(outcome.repeated)

    def test_exists_and_refused(self) -> None:
        """Earlier checks refuse a retry, too."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        self.assert_refused(403, push(sha256=SHA256), bucket=None)
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, push(sha256=SHA256))

    def test_exists_meanwhile(self) -> None:
        """Of two pushes at the same time, the first to complete wins."""
        self.store.gate = Deferred()
        first = self.uploads.receive(BUCKET, push(b"first"))
        second = self.uploads.receive(BUCKET, push(b"second"))
        self.store.gate.callback(None)
        self.assertEqual(200, self.successResultOf(first).status)
        self.assertEqual(405, self.successResultOf(second).status)
        self.assertEqual({("web01", "db.gz"): b"first"}, self.store.files)
        self.assertEqual(0, self.store.receiving)

    def test_promise_broken(self) -> None:
        """Nothing is stored if a digest does not match."""
        outcome = self.assert_refused(422, push(sha256="0" * 64))
        self.assertEqual(7, outcome.size)

    def test_bug(self) -> None:
        """A bug is a traceback in the log, and a 500 without details."""

        async def broken() -> AsyncIterator[Sequence[bytes]]:
            yield [b"x"]
            raise RuntimeError("a bug")

        outcome = self.assert_refused(500, evolve(push(), chunks=broken()))
        self.assertNotIn("a bug", outcome.reason or "")
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class HookTests(UploadCase):
    """What hooks get, and what their answers do."""

    def test_asked(self) -> None:
        """pre-push gets what is known before the body."""
        self.receive(push())
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
        """post-push gets the result."""
        self.receive(push(length=None))
        (subject,) = self.hooks.told
        self.assertEqual(
            ("/home/web01/db.gz", SHA256, 7),
            (subject.path, subject.sha256, subject.size),
        )

    def test_unnamed_bucket(self) -> None:
        """Hooks get the token as the bucket's folder, logs do not show it."""
        bucket = Bucket((Token(b"\xab" * 32),), directory="t" * 32)
        outcome = self.receive(push(), bucket)
        self.assertEqual("t" * 32, self.hooks.asked[0].bucket)
        self.assertEqual("#ababab", outcome.bucket)

    def test_refuses(self) -> None:
        """pre-push refuses before the body is requested."""
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, push(RuntimeError("read")))

    def test_comes_before_existence(self) -> None:
        """A push that pre-push refuses does not learn whether the file exists."""
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, push())

    def test_waits(self) -> None:
        """Nothing is opened while pre-push runs."""
        self.hooks.gate = Deferred()
        done = self.uploads.receive(BUCKET, push())
        self.assertEqual(0, self.store.receiving)
        self.assertNoResult(done)
        self.hooks.gate.callback(None)
        self.assertEqual(200, self.successResultOf(done).status)

    def test_overwrite(self) -> None:
        """Without a setting, only pre-push can allow it."""
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Verdict.OVERWRITE]
        outcome = self.receive(push())
        self.assertEqual((200, True), (outcome.status, outcome.overwrote))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_bucket_overwrites(self) -> None:
        """The bucket's setting allows it without a hook."""
        self.store.files["web01", "db.gz"] = b"old"
        outcome = self.receive(push(), evolve(BUCKET, overwrite=True))
        self.assertEqual((200, True), (outcome.status, outcome.overwrote))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_held(self) -> None:
        """Neither the bucket nor pre-push can allow to replace a file that is held."""
        self.clock.advance(100)
        self.store.files["web01", "db.gz"] = b"old"
        for until, status in ((100.1, 405), (100.0, 200)):
            held = (Held("db.gz", until, "case 7"),)
            for overwrite in (True, False):
                verdict = Verdict.GO_ON if overwrite else Verdict.OVERWRITE
                self.store.files["web01", "db.gz"] = b"old"
                self.current = evolve(BUCKET, overwrite=overwrite, held=held)
                for length in (7, BATCH, None):
                    self.hooks.verdicts = [verdict]
                    outcome = self.receive(push(length=length), self.current)
                    self.assertEqual(status, outcome.status)
                    if status == 405:
                        reason = "a file with that name already exists"
                        self.assertEqual(reason, outcome.reason)
                        self.assertEqual(b"old", self.store.files["web01", "db.gz"])
        self.assertEqual(200, self.receive(push(called="a"), self.current).status)

    def test_held_in_upper_case(self) -> None:
        """Some filesystems do not distinguish it."""
        held = (Held("db.gz", 100.1, "case 7"),)
        self.current = evolve(BUCKET, overwrite=True, held=held)
        self.store.files["web01", "DB.gz"] = b"old"
        outcome = self.receive(push(called="DB.gz"), self.current)
        self.assertEqual(405, outcome.status)

    def test_held_meanwhile(self) -> None:
        """A hold counts from the reload on, also for a push in progress."""
        overwrites = evolve(BUCKET, overwrite=True)
        self.store.files["web01", "db.gz"] = b"old"
        for length in (7, BATCH):
            self.current = None
            self.store.gate = Deferred()
            done = self.uploads.receive(overwrites, push(length=length))
            self.assertNoResult(done)
            held = (Held("db.gz", 100.0, "case 7"),)
            self.current = evolve(overwrites, held=held)
            self.store.gate.callback(None)
            self.assertEqual(405, self.successResultOf(done).status)
            self.assertEqual(b"old", self.store.files["web01", "db.gz"])

    def test_held_and_damaged(self) -> None:
        """A hold does not keep a damaged file from being healed."""
        self.current = evolve(BUCKET, held=(Held("db.gz", 100.0, "case 7"),))
        self.store.files["web01", "db.gz"] = b"CONTENT"
        self.known["db.gz"] = Kept(7, SHA256, damaged=True)
        outcome = self.receive(push(sha256=SHA256))
        self.assertEqual((200, True), (outcome.status, outcome.healed))
        self.assertEqual(b"content", self.store.files["web01", "db.gz"])

    def test_nothing_to_overwrite(self) -> None:
        """If the name was free, nothing counts as overwritten."""
        outcome = self.receive(push(called="a"), evolve(BUCKET, overwrite=True))
        self.assertEqual((200, False), (outcome.status, outcome.overwrote))
        self.hooks.verdicts = [Verdict.OVERWRITE]
        outcome = self.receive(push(called="b"))
        self.assertEqual((200, False), (outcome.status, outcome.overwrote))

    def test_post_push_has_a_bug(self) -> None:
        """Not even a bug can undo a durable file."""

        async def post_push(subject: Subject) -> Exit | None:
            raise RuntimeError("a bug")

        self.patch(FakeHooks, "post_push", lambda self, subject: post_push(subject))
        outcome = self.receive(push())
        self.assertEqual((200, SHA256), (outcome.status, outcome.sha256))
        self.assertEqual(255, outcome.post_push)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class StepTests(UploadCase):
    """A file that arrives in steps."""

    def setUp(self) -> None:
        super().setUp()
        self.outcome = Outcome("0a1b", "web01", "192.0.2.1:9", "db.gz", config=BUCKET)
        self.upload = Upload(
            self.store,
            self.hooks,
            self.clock.seconds,
            PendingNames(),
            BUCKET,
            lambda: BUCKET,
            10,
            1,
            {"sha256": bytes.fromhex(SHA256)},
            push(length=None),
            self.outcome,
        )

    def run_step(self, step: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run a step that does not have to wait."""
        self.successResultOf(Deferred.fromCoroutine(step))

    def assert_step_refused(
        self, status: int, step: Coroutine[Deferred[Any], Any, None]
    ) -> None:
        failure = self.failureResultOf(Deferred.fromCoroutine(step), Refusal)
        self.assertEqual(status, failure.value.status)

    def test_whole(self) -> None:
        self.run_step(self.upload.admit(-1, look=True))
        self.assertEqual(1, self.store.receiving)
        self.run_step(self.upload.append([b"con"]))
        self.run_step(self.upload.append([b"te", b"nt"]))
        self.assertEqual({}, self.store.files)
        self.run_step(self.upload.finish())
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)
        self.assertEqual((200, 7), (self.outcome.status, self.outcome.size))
        self.assertEqual([-1], [each.size for each in self.hooks.asked])

    def test_not_admitted(self) -> None:
        """Refused by pre-push, for its name, or for lack of space."""
        self.hooks.verdicts = [Refusal(409, "no"), Verdict.GO_ON]
        self.assert_step_refused(409, self.upload.admit(7, look=True))
        self.store.files["web01", "db.gz"] = b"old"
        self.assert_step_refused(405, self.upload.admit(7, look=True))
        self.store.files.clear()
        self.store.room = 6
        self.assert_step_refused(507, self.upload.admit(7, look=True))
        self.run_step(self.upload.abort())
        self.assertEqual(0, self.store.receiving)

    def test_size_learned_late(self) -> None:
        """pre-push runs again at the end if the size was another."""
        self.run_step(self.upload.admit(9, look=True))
        self.run_step(self.upload.append([b"content"]))
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_step_refused(409, self.upload.finish())
        self.assertEqual([9, 7], [each.size for each in self.hooks.asked])

    def test_too_large(self) -> None:
        """The limit applies to every way of sending."""
        self.run_step(self.upload.admit(-1, look=True))
        self.run_step(self.upload.append([b"x" * 10]))
        self.assert_step_refused(413, self.upload.append([b"x"]))

    def test_given_up(self) -> None:
        """Aborting leaves nothing behind, even before the upload begins."""
        self.run_step(self.upload.abort())
        self.run_step(self.upload.admit(7, look=True))
        self.run_step(self.upload.append([b"con"]))
        self.run_step(self.upload.abort())
        self.assertEqual((0, {}), (self.store.receiving, self.store.files))


class IdleTests(UploadCase):
    """Waiting until no push is in progress."""

    def test_idle(self) -> None:
        """Returns at once without pushes, else after the last one, including later
        ones.
        """
        self.successResultOf(Deferred.fromCoroutine(self.uploads.idle()))
        gates: list[Deferred[None]] = [Deferred(), Deferred()]
        self.store.gate = gates[0]
        self.uploads.receive(BUCKET, push(called="1"))
        idle = Deferred.fromCoroutine(self.uploads.idle())
        self.store.gate = gates[1]
        self.uploads.receive(BUCKET, push(called="2"))
        gates[0].callback(None)
        self.assertNoResult(idle)
        gates[1].callback(None)
        self.successResultOf(idle)
