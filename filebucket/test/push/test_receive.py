"""One push, from its first byte to its outcome, without any protocol."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from filebucket.base.errors import STATUSES, Refusal
from filebucket.hooks.interfaces import Exit, Subject, Verdict
from filebucket.model.bucket import FILE_COST, Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.model.token import Token
from filebucket.push.guesses import MOST_WRONG, WINDOW
from filebucket.push.receive import REPEATED, PendingNames, Upload, Uploads
from filebucket.store.interfaces import BATCH
from filebucket.test.kit.fakes import FakeHooks
from filebucket.test.kit.uploads import BUCKET, SHA256, UploadCase, push


class StoredTests(UploadCase):
    """Pushes that go well."""

    def test_stored(self) -> None:
        """The file is there, and all is said of it."""
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
        """The name may come later; it is checked all the same."""
        self.assertEqual(200, self.receive(push(named=False)).status)
        self.hooks.told.clear()
        outcome = self.assert_refused(400, push(named=False, called=".."))
        self.assertIsNone(outcome.name)

    def test_promise(self) -> None:
        """What was promised is compared."""
        self.assertEqual(200, self.receive(push(sha256=SHA256)).status)
        self.hooks.told.clear()
        self.assert_refused(422, push(sha256="00" * 32, called="other"))

    def test_empty(self) -> None:
        """An empty file is a file."""
        self.assertEqual(200, self.receive(push(b"")).status)
        self.assertEqual({("web01", "db.gz"): b""}, self.store.files)

    def test_seconds(self) -> None:
        """The time it took is told."""
        self.store.gate = Deferred()
        done = self.uploads.receive(BUCKET, push())
        self.clock.advance(1.5)
        self.store.gate.callback(None)
        self.assertEqual(1.5, self.successResultOf(done).seconds)

    def test_observer_fails(self) -> None:
        """An observer with a bug does not undo a durable file."""

        def observe(outcome: Outcome) -> None:
            raise RuntimeError("a bug")

        uploads = Uploads(
            self.store, self.hooks, self.clock, self.clock.seconds, observe
        )
        outcome = self.successResultOf(uploads.receive(BUCKET, push()))
        self.assertEqual(200, outcome.status)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class RefusedTests(UploadCase):
    """Pushes that are turned away, from each cause."""

    def test_order(self) -> None:
        """The first of several faults answers, in the order of the contract."""
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
        """What wraps the file does not count for its size."""
        self.uploads = self.make(max_file_size=7)
        self.assert_refused(413, push(length=10, overhead=2))
        wrapped = push(length=10, size=7, overhead=3)
        self.assertEqual(200, self.receive(wrapped).status)

    def test_exists_as_promised(self) -> None:
        """A second try gets its receipt; a client that waits need not send it."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        unread = RuntimeError("read")
        for asked in (push(sha256=SHA256), push(unread, sha256=SHA256, waits=True)):
            outcome = self.receive(asked)
            self.assertEqual((200, True), (outcome.status, outcome.repeated))
            self.assertEqual(SHA256, outcome.sha256)
        self.assertEqual([], self.hooks.told)

    def test_repeated_with_another_body(self) -> None:
        """What is sent is compared, whatever was promised and is there."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        for length in (7, BATCH):
            self.assert_refused(422, push(b"CONTENT", sha256=SHA256, length=length))

    def test_repeated_with_another_promise(self) -> None:
        """One of two that is wrong: a client that waits has to send it."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        sha512 = hashlib.sha512(b"content").digest()
        for digest, status in ((sha512, 200), (bytes(64), 422)):
            promise = {"sha256": bytes.fromhex(SHA256), "sha512": digest}
            for waits in (False, True):
                outcome = self.receive(push(promise=promise, waits=waits))
                self.assertEqual(status, outcome.status)

    def test_guesses(self) -> None:
        """Of a file that is there few digests can be tried."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        for number in range(MOST_WRONG):
            self.assert_refused(405, push(sha256=f"{number:064x}"))
        self.assert_refused(405, push(sha256=SHA256))
        self.clock.advance(WINDOW)
        self.assertEqual(200, self.receive(push(sha256=SHA256)).status)

    def test_heals(self) -> None:
        """What is known to be damaged gets no receipt before it is replaced by what was
        received at first.
        """
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
        """Anything else does not take its place."""
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
        """What is promised behind the body."""
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
        """A token that is taken away does not publish what it had under way."""
        self.assert_refused(403, push(revoked=True))

    def test_nothing_came(self) -> None:
        """The end of a pipe whose command failed; an empty file says that it is."""
        self.assert_refused(400, push(b"", length=None))
        self.assertEqual(200, self.receive(push(b"")).status)

    def test_too_small(self) -> None:
        """Of all buckets, and of one; known from the length, or found at the end."""
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
        """What curl --retry would repeat with what is left of a pipe."""
        for status in REPEATED & set(STATUSES):
            fails = Refusal(status, "for now")
            self.assert_refused(status, push(b"con", fails))
            outcome = self.assert_refused(400, push(b"con", fails, length=None))
            self.assertEqual(("for now", {}), (outcome.reason, outcome.headers))
        self.assert_refused(422, push(b"con", Refusal(422, "no"), length=None))

    def test_only_new(self) -> None:
        """A client that wants to replace nothing, where it could."""
        overwrites = evolve(BUCKET, overwrite=True)
        self.store.files["web01", "db.gz"] = b"old"
        self.assert_refused(412, push(only_new=True), overwrites)
        self.assert_refused(412, push(condition=Refusal(412, "if")), overwrites)
        self.assert_refused(405, push(only_new=True))
        self.store.files.clear()
        self.assertEqual(200, self.receive(push(only_new=True), overwrites).status)

    def test_breaks_off(self) -> None:
        """Nothing is left of what does not come whole."""
        outcome = self.assert_refused(400, push(b"con", Refusal(400, "ended early")))
        self.assertEqual((3, "ended early"), (outcome.size, outcome.reason))

    def test_no_such_token(self) -> None:
        """Whatever else is wrong."""
        wrong = Refusal(405, "a method")
        for asked in (push(), push(wrong=wrong), push(called="..")):
            outcome = self.assert_refused(403, asked, bucket=None)
            self.assertEqual("no such token", outcome.reason)
            self.assertEqual({}, outcome.headers)
            self.assertEqual("-", outcome.bucket)

    def test_bucket_has_its_own_size(self) -> None:
        """A bucket's largest file counts in place of everybody's."""
        self.uploads = self.make(max_file_size=10)
        small, large = (evolve(BUCKET, max_file_size=size) for size in (6, 100))
        self.assert_refused(413, push(b"7 bytes"), small)
        self.assert_refused(413, push(b"11 bytes..!"))
        self.assertEqual(200, self.receive(push(b"11 bytes..!"), large).status)

    def test_quota(self) -> None:
        """What a bucket may have in all."""
        bucket = evolve(BUCKET, quota=FILE_COST + 10)
        self.assertEqual(200, self.receive(push(called="a"), bucket).status)
        self.hooks.told.clear()
        self.assert_refused(507, push(called="b"), bucket)
        self.assertEqual(200, self.receive(push(called="b")).status)

    def test_too_many(self) -> None:
        """More pushes at once than there may be: the client shall come again."""
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
        """A bucket has three quarters of them; the others have the rest."""
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
        """Its post-push has not ended, so nobody else knows of it."""
        self.hooks.post_gate = Deferred()
        first = self.uploads.receive(BUCKET, push())
        self.assertNoResult(first)
        outcome = self.receive(push(sha256=SHA256))
        self.assertEqual((200, True), (outcome.status, outcome.repeated))
        self.assert_exists("00" * 32)
        self.hooks.post_gate.callback(None)
        self.assertFalse(self.successResultOf(first).repeated)
        self.assert_exists(SHA256)  # whoever is asked now does not know it

    def assert_exists(self, promised: str) -> None:
        outcome = self.receive(push(sha256=promised))
        self.assertEqual(405, outcome.status)

    def test_exists_and_was_replaced(self) -> None:
        """What was replaced while it was told of is not there, of whatever size it
        was, and whatever is known.
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
        """Of two that replace each other the last one is there, whichever of them the
        disk is done with first.
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
        """Whatever else is promised or known: it exists, and no more is said."""
        self.store.files["web01", "db.gz"] = b"content"
        other = "00" * 32
        promise = {"sha256": bytes.fromhex(SHA256)}
        for known, promised in (
            (Kept(7, SHA256), {}),
            (Kept(7, SHA256), {"sha256": bytes.fromhex(other)}),
            (Kept(7, SHA256), {"sha512": hashlib.sha512(b"content").digest()}),
            (Kept(7, other), promise),
            (Kept(8, SHA256), promise),  # it is not what was received any more
            (None, promise),
        ):
            self.known = {"db.gz": known} if known else {}
            outcome = self.assert_refused(405, push(promise=promised))
            self.assertEqual("a file with that name already exists", outcome.reason)
            self.assertFalse(outcome.repeated)

    def test_exists_and_refused(self) -> None:
        """What comes before it does so here, too."""
        self.store.files["web01", "db.gz"] = b"content"
        self.known["db.gz"] = Kept(7, SHA256)
        self.assert_refused(403, push(sha256=SHA256), bucket=None)
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, push(sha256=SHA256))

    def test_exists_meanwhile(self) -> None:
        """Two at once: the first to be whole wins."""
        self.store.gate = Deferred()
        first = self.uploads.receive(BUCKET, push(b"first"))
        second = self.uploads.receive(BUCKET, push(b"second"))
        self.store.gate.callback(None)
        self.assertEqual(200, self.successResultOf(first).status)
        self.assertEqual(405, self.successResultOf(second).status)
        self.assertEqual({("web01", "db.gz"): b"first"}, self.store.files)
        self.assertEqual(0, self.store.receiving)

    def test_promise_broken(self) -> None:
        """Nothing is stored of what is not what was promised."""
        outcome = self.assert_refused(422, push(sha256="0" * 64))
        self.assertEqual(7, outcome.size)

    def test_bug(self) -> None:
        """A bug of ours is a traceback in the log, and 500 without details."""

        async def broken() -> AsyncIterator[Sequence[bytes]]:
            yield [b"x"]
            raise RuntimeError("a bug")

        outcome = self.assert_refused(500, evolve(push(), chunks=broken()))
        self.assertNotIn("a bug", outcome.reason or "")
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class HookTests(UploadCase):
    """What hooks are asked, and what comes of it."""

    def test_asked(self) -> None:
        """pre-push is told what is known before the body."""
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
        """post-push is told what became of it."""
        self.receive(push(length=None))
        (subject,) = self.hooks.told
        self.assertEqual(
            ("/home/web01/db.gz", SHA256, 7),
            (subject.path, subject.sha256, subject.size),
        )

    def test_unnamed_bucket(self) -> None:
        """A bucket without a name is its token to hooks, and not to logs."""
        bucket = Bucket((Token(b"\xab" * 32),), directory="t" * 32)
        outcome = self.receive(push(), bucket)
        self.assertEqual("t" * 32, self.hooks.asked[0].bucket)
        self.assertEqual("#ababab", outcome.bucket)

    def test_refuses(self) -> None:
        """A refusal comes before the body is asked for."""
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, push(RuntimeError("read")))

    def test_comes_before_existence(self) -> None:
        """A push that pre-push refuses cannot learn what is there."""
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_refused(409, push())

    def test_waits(self) -> None:
        """Nothing is opened while pre-push thinks."""
        self.hooks.gate = Deferred()
        done = self.uploads.receive(BUCKET, push())
        self.assertEqual(0, self.store.receiving)
        self.assertNoResult(done)
        self.hooks.gate.callback(None)
        self.assertEqual(200, self.successResultOf(done).status)

    def test_overwrite(self) -> None:
        """Only pre-push can allow it."""
        self.store.files["web01", "db.gz"] = b"old"
        self.hooks.verdicts = [Verdict.OVERWRITE]
        outcome = self.receive(push())
        self.assertEqual((200, True), (outcome.status, outcome.overwrote))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_bucket_overwrites(self) -> None:
        """A bucket may allow it by itself; then no hook needs to."""
        self.store.files["web01", "db.gz"] = b"old"
        outcome = self.receive(push(), evolve(BUCKET, overwrite=True))
        self.assertEqual((200, True), (outcome.status, outcome.overwrote))
        self.assertEqual({("web01", "db.gz"): b"content"}, self.store.files)

    def test_nothing_to_overwrite(self) -> None:
        """Where nothing had the name, nothing was overwritten, whoever allowed it."""
        outcome = self.receive(push(called="a"), evolve(BUCKET, overwrite=True))
        self.assertEqual((200, False), (outcome.status, outcome.overwrote))
        self.hooks.verdicts = [Verdict.OVERWRITE]
        outcome = self.receive(push(called="b"))
        self.assertEqual((200, False), (outcome.status, outcome.overwrote))

    def test_post_push_has_a_bug(self) -> None:
        """Not even a bug of ours can undo a durable file."""

        async def post_push(subject: Subject) -> Exit | None:
            raise RuntimeError("a bug")

        self.patch(FakeHooks, "post_push", lambda self, subject: post_push(subject))
        outcome = self.receive(push())
        self.assertEqual((200, SHA256), (outcome.status, outcome.sha256))
        self.assertEqual(255, outcome.post_push)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class StepTests(UploadCase):
    """A file that comes in steps, with nothing kept between them but the upload."""

    def setUp(self) -> None:
        super().setUp()
        self.outcome = Outcome("0a1b", "web01", "192.0.2.1:9", "db.gz", config=BUCKET)
        self.upload = Upload(
            self.store,
            self.hooks,
            self.clock.seconds,
            PendingNames(),
            BUCKET,
            10,
            1,
            {"sha256": bytes.fromhex(SHA256)},
            push(length=None),
            self.outcome,
        )

    def run_step(self, step: Coroutine[Deferred[Any], Any, None]) -> None:
        """A step that needs nobody to wait for."""
        self.successResultOf(Deferred.fromCoroutine(step))

    def assert_step_refused(
        self, status: int, step: Coroutine[Deferred[Any], Any, None]
    ) -> None:
        failure = self.failureResultOf(Deferred.fromCoroutine(step), Refusal)
        self.assertEqual(status, failure.value.status)

    def test_whole(self) -> None:
        """Admitted, appended to, finished."""
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
        """By pre-push, by its name, or for want of room."""
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
        """pre-push that was told another size is asked again at the end."""
        self.run_step(self.upload.admit(9, look=True))
        self.run_step(self.upload.append([b"content"]))
        self.hooks.verdicts = [Refusal(409, "no")]
        self.assert_step_refused(409, self.upload.finish())
        self.assertEqual([9, 7], [each.size for each in self.hooks.asked])

    def test_too_large(self) -> None:
        """However it comes."""
        self.run_step(self.upload.admit(-1, look=True))
        self.run_step(self.upload.append([b"x" * 10]))
        self.assert_step_refused(413, self.upload.append([b"x"]))

    def test_given_up(self) -> None:
        """Nothing is left behind, whenever it is; before it began, too."""
        self.run_step(self.upload.abort())
        self.run_step(self.upload.admit(7, look=True))
        self.run_step(self.upload.append([b"con"]))
        self.run_step(self.upload.abort())
        self.assertEqual((0, {}), (self.store.receiving, self.store.files))


class IdleTests(UploadCase):
    """Knowing when no push is under way."""

    def test_idle(self) -> None:
        """With none, at once; with some, after the last, those that come later
        included.
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
