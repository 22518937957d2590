"""Tests of :mod:`filebucket.push.part`: parts of resumable uploads, and their end."""

from __future__ import annotations

import hashlib
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from filebucket.base.errors import Refusal
from filebucket.hooks.interfaces import Exit, HookFailed, Verdict
from filebucket.model.push import Kept, Outcome, Step
from filebucket.push import part as module
from filebucket.push.interfaces import Resume
from filebucket.push.part import KEEP_AFTER
from filebucket.push.sessions import SWEEP_EVERY
from filebucket.store.interfaces import LostError
from filebucket.test.kit.sessions import (
    BROKEN,
    CONTENT,
    CUT,
    DAY,
    FILE,
    BrokenParts,
    DoubtfulParts,
    SessionCase,
    creation,
    give_up,
    look,
    part,
)
from filebucket.test.kit.uploads import (
    BUCKET,
    SHA256,
    FakeResuming,
    push,
)


class PartTests(SessionCase):
    """Parts, and what is kept of those that fail."""

    def setUp(self) -> None:
        super().setUp()
        self.identity = self.created()
        self.outcome(204, part(self.identity, 0, b"co"))

    def assert_unchanged(self, status: int, incoming: FakeResuming) -> Outcome:
        """The upload is as it was, and can go on."""
        before = self.parts.records[self.identity]
        outcome = self.outcome(status, incoming)
        self.assertEqual(before, self.parts.records[self.identity])
        self.assert_at(2, self.identity)
        self.assert_idle()
        return outcome

    def test_offset(self) -> None:
        for offset in 0, 1, 3, 7, 8:
            outcome = self.assert_unchanged(409, part(self.identity, offset, b"n"))
            assert outcome.upload is not None
            self.assertEqual(2, outcome.upload.offset)

    def test_lost(self) -> None:
        """An upload ends if its data shrinks, also while the daemon runs."""
        self.parts.data[self.identity] = b"c"
        with capturedLogs() as logged:
            self.outcome(410, part(self.identity, 2, b"ntent"))
        (event,) = [each for each in logged if each.get("event") == "upload-lost"]
        self.assertEqual(("db.gz", 2), (event["name"], event["offset"]))
        self.outcome(410, look(self.identity))
        self.assertEqual({}, self.parts.data)
        self.assertEqual({}, self.parts.records)
        self.assertEqual({}, self.store.files)
        self.assert_idle()
        self.created(creation(sha256=SHA256))

    def test_lengths(self) -> None:
        for incoming in (
            part(self.identity, 2, b"n", length=8),
            part(self.identity, 2, b"n", last=True),
            part(self.identity, 2, b"ntent!", last=True),
            part(self.identity, 2, b"ntent!", last=False),
            part(self.identity, 2, b"ntent", last=True, length=6),
        ):
            self.assert_unchanged(400, incoming)
        self.outcome(200, part(self.identity, 2, b"ntent", last=True, length=7))

    def test_lengths_of_unknown(self) -> None:
        """A length that is not known yet may not be less than has come."""
        identity = self.identity = self.created(creation(length=None))
        self.outcome(204, part(identity, 0, b"co", last=False))
        self.assert_unchanged(400, part(identity, 2, b"", length=1))
        self.assert_unchanged(400, part(identity, 2, b"nt", length=3))
        self.assert_unchanged(400, part(identity, 2, b"nt", last=True, length=5))
        self.assert_unchanged(
            400, part(identity, 2, b"ntent", last=True, length=6, size=None)
        )
        self.outcome(204, part(identity, 2, b"nt", length=7))
        self.outcome(400, part(identity, 4, b"ent", length=8))
        self.outcome(200, part(identity, 4, b"ent", length=7))

    def test_a_refused_length(self) -> None:
        """The length that a refused request tells is forgotten."""
        identity = self.identity = self.created(creation(length=None))
        self.outcome(204, part(identity, 0, b"co", last=False))
        self.store.room = 0
        self.assert_unchanged(507, part(identity, 2, b"n", length=3))
        self.store.room = 2**63
        wrong = {"sha256": bytes(32)}
        self.assert_unchanged(422, part(identity, 2, b"n", length=3, of_part=wrong))
        self.outcome(200, part(identity, 2, b"ntent", length=7))

    def test_body_too_long(self) -> None:
        """A body of unknown length is refused as soon as it has too much."""
        incoming = part(self.identity, 2, b"nten", size=None, end=False)
        done = self.ask(incoming)
        incoming.body.deliver(b"t!")
        self.ended(400, done)
        self.assert_at(2, self.identity)

    def test_body_too_short(self) -> None:
        """Nor does a body that ends early make the file whole."""
        incoming = part(self.identity, 2, b"nten", last=True, size=None)
        self.assert_unchanged(400, incoming)

    def test_too_large(self) -> None:
        """A limit on the size holds for bodies and uploads of unknown length."""
        self.uploads = self.make(max_file_size=7)
        self.start()
        identity = self.identity = self.created(creation(length=None))
        self.outcome(204, part(identity, 0, b"co", last=False))
        self.assert_unchanged(413, part(identity, 2, b"ntent!", last=False))
        self.assert_unchanged(413, part(identity, 2, b"n", length=8))
        self.assert_unchanged(413, part(identity, 2, b"ntent!", last=True, size=None))
        incoming = part(identity, 2, b"nt", last=True, size=None, end=False)
        done = self.ask(incoming)
        incoming.body.deliver(b"ent!")
        self.ended(413, done)
        self.assert_at(2, identity)
        self.outcome(200, part(identity, 2, b"ntent", last=True, size=None))
        self.assertEqual(CONTENT, self.store.files[FILE])

    def test_empty_file(self) -> None:
        """The command before a pipe may have failed."""
        identity = self.created(creation(length=None))
        self.outcome(400, part(identity, 0, last=True))
        self.outcome(404, look(identity))
        self.assertEqual({}, self.store.files)

    def test_digest_of_a_part(self) -> None:
        digest = {"sha256": hashlib.sha256(b"nt").digest()}
        self.assert_unchanged(422, part(self.identity, 2, b"NT", of_part=digest))
        self.outcome(204, part(self.identity, 2, b"nt", of_part=digest))
        self.assert_at(4, self.identity)

    def test_cut_with_a_digest(self) -> None:
        """Without its end, a part with a digest cannot be compared."""
        digest = {"sha256": hashlib.sha256(b"nt").digest()}
        incoming = part(self.identity, 2, b"NT", size=5, end=False, of_part=digest)
        done = self.ask(incoming)
        self.clock.advance(KEEP_AFTER)
        incoming.body.deliver(b"e")
        incoming.cut(CUT)
        self.ended(400, done)
        self.assert_at(2, self.identity)

    def test_promises(self) -> None:
        """A promise holds, whichever request made it, and cannot be changed."""
        identity = self.identity = self.created(creation(sha256=SHA256))
        self.outcome(204, part(identity, 0, b"co"))
        wrong = {"sha256": bytes(32)}
        self.assert_unchanged(400, part(identity, 2, b"ntent", promise=wrong))
        self.assert_unchanged(400, part(identity, 2, b"ntent", late=wrong))
        other = {"sha512": bytes(64)}
        self.assert_unchanged(400, part(identity, 2, b"ntent", promise=other))
        self.outcome(422, part(identity, 2, b"NTENT"))
        self.outcome(404, look(identity))

    def test_promised_with_a_part(self) -> None:
        """In its headers, or after its body."""
        wrong = {"sha256": bytes(32)}
        for sent in "promise", "late":
            identity = self.created()
            told: dict[str, Any] = {sent: wrong}
            self.outcome(204, part(identity, 0, b"con", **told))
            self.restart()
            self.outcome(422, part(identity, 3, b"tent"))
            self.assertEqual({}, self.store.files)

    def test_other_promises(self) -> None:
        """SHA-512 is compared, also after a restart."""
        for content, status in (b"ntent", 200), (b"NTENT", 422):
            promise = {"sha512": hashlib.sha512(CONTENT).digest()}
            identity = self.created(creation(promise=promise, called=content.decode()))
            self.outcome(204, part(identity, 0, b"co"))
            self.restart()
            self.outcome(status, part(identity, 2, content))

    def test_cut(self) -> None:
        """All bytes that have come are kept."""
        incoming = part(self.identity, 2, b"nte", size=5, end=False)
        done = self.ask(incoming)
        incoming.cut(CUT)
        self.assertEqual(5, self.ended(400, done).size)
        self.assert_at(5, self.identity)
        self.assert_idle()
        self.outcome(200, part(self.identity, 5, b"nt"))
        self.assert_stored()

    def test_cut_at_once(self) -> None:
        """If nothing has come, nothing is written."""
        self.parts.failure = BROKEN
        incoming = part(self.identity, 2, size=5, end=False)
        incoming.cut(CUT)
        self.assert_unchanged(400, incoming)

    def test_kept_by_size(self) -> None:
        """A kill loses at most ``KEEP_EVERY`` bytes of a long body."""
        most = 100
        self.patch(module, "KEEP_EVERY", most)
        identity = self.created(creation(length=most + 2))
        piece = bytes(most - 1)
        incoming = part(identity, 0, size=most + 2, end=False)
        done = self.ask(incoming)
        incoming.body.deliver(piece)
        self.assertEqual(0, self.parts.records[identity].offset)
        incoming.body.deliver(b"12")
        self.assertEqual(most + 1, self.parts.records[identity].offset)
        incoming.body.deliver(b"3")
        self.assertEqual(most + 1, self.parts.records[identity].offset)
        incoming.body.end()
        self.ended(200, done)
        self.assertEqual(piece + b"123", self.store.files[FILE])

    def test_kept_by_time(self) -> None:
        incoming = part(self.identity, 2, b"n", size=5, end=False)
        done = self.ask(incoming)
        self.clock.advance(KEEP_AFTER - 1)
        incoming.body.deliver(b"t")
        self.assertEqual(2, self.parts.records[self.identity].offset)
        self.clock.advance(1)
        incoming.body.deliver(b"e")
        self.assertEqual(5, self.parts.records[self.identity].offset)
        incoming.body.deliver(b"n")
        self.assertEqual(5, self.parts.records[self.identity].offset)
        incoming.body.deliver(b"t")
        incoming.body.end()
        self.ended(200, done)
        self.assert_stored()

    def test_disk_error(self) -> None:
        """No more is told than is durable, and the next part goes on there."""
        incoming = part(self.identity, 2, b"n", size=5, end=False)
        done = self.ask(incoming)
        self.clock.advance(KEEP_AFTER)
        self.parts.failure = BROKEN
        incoming.body.deliver(b"t")
        self.ended(503, done)
        self.parts.failure = None
        self.assert_at(2, self.identity)
        self.outcome(204, part(self.identity, 2, b"NT", last=False))
        self.outcome(404, part("0" * 32, 2, b"NT"))
        self.outcome(200, part(self.identity, 4, b"ent"))
        self.assert_stored(b"coNTent")

    def test_recorded_in_spite_of_an_error(self) -> None:
        """The record on the disk never promises more than there is."""
        self.sessions.stopService()
        self.parts = DoubtfulParts(self.store, self.parts.data, self.parts.records)
        self.start()
        self.parts.failure = BROKEN
        self.outcome(503, part(self.identity, 2, b"nte"))
        self.outcome(503, part(self.identity, 2, b"nte"))
        self.parts.failure = None
        self.ask(part(self.identity, 2, b"n", size=5, end=False))
        self.restart()
        self.assert_at(2, self.identity)

    def test_disk_full(self) -> None:
        incoming = part(self.identity, 2, b"n", size=5, end=False)
        done = self.ask(incoming)
        self.store.room = 0
        incoming.body.deliver(b"t")
        self.ended(507, done)
        self.assert_at(2, self.identity)
        self.store.room = 2**63
        self.outcome(200, part(self.identity, 2, b"ntent"))
        self.assert_stored()

    def test_no_room_is_reserved_twice(self) -> None:
        """A part reserves what it brings, or else what is left."""
        self.store.room = 5
        for size, expected in (1, 1), (0, 0), (None, 5):
            incoming = part(self.identity, 2, size=size, end=False)
            done = self.ask(incoming)
            self.assertEqual([expected], [e.expected for e in self.store.writers])
            incoming.cut(CUT)
            self.ended(400, done)
        identity = self.created(creation(length=None))
        self.outcome(204, part(identity, 0, b"co", last=False))
        self.ask(part(identity, 2, size=None, end=False))
        self.assertEqual([0], [each.expected for each in self.store.writers])

    def test_unknown(self) -> None:
        """Ids of nothing, and of another bucket."""
        other = evolve(BUCKET, name="db01", directory="db01")
        for incoming in (
            part(self.identity, 2, b"ntent"),
            look(self.identity),
            give_up(self.identity),
        ):
            outcome = self.outcome(404, incoming, other)
            self.assertEqual((None, None), (outcome.upload, outcome.name))
        for identity in "", "0" * 32, "../x", self.identity.upper():
            self.outcome(404, look(identity))
        self.assert_at(2, self.identity)

    def test_asked_wrongly(self) -> None:
        """A request that cannot be read."""

        class Wrong(FakeResuming):
            def asks(self) -> Resume:
                raise Refusal(400, "malformed Upload-Offset")

        incoming = part(self.identity, 2, b"ntent")
        wrong = Wrong(incoming.body, 5, -1, asked=incoming.asked)
        self.assert_unchanged(400, wrong)

    def test_given_up(self) -> None:
        outcome = self.outcome(204, give_up(self.identity))
        self.assertEqual((Step.GIVEN_UP, 2), (outcome.step, outcome.size))
        self.assert_gone(self.identity)

    def test_given_up_on_a_broken_disk(self) -> None:
        """It is over, even if the disk keeps it until the next start."""
        self.sessions.stopService()
        self.parts = BrokenParts(self.store, self.parts.data, self.parts.records)
        self.start()
        self.outcome(503, give_up(self.identity))
        self.outcome(404, look(self.identity))

    def test_progress(self) -> None:
        """The client hears what it may send, and until when."""
        self.uploads = self.make(max_file_size=100)
        self.sessions.stopService()
        self.start()
        self.clock.advance(1000)
        upload = self.outcome(204, look(self.identity)).upload
        assert upload is not None
        self.assertEqual(
            (2, 7, False, DAY - 1000, 100),
            (
                upload.offset,
                upload.length,
                upload.complete,
                upload.left,
                upload.largest,
            ),
        )
        self.assertEqual(1e9 + DAY, upload.expires)


class EndTests(SessionCase):
    """The last part, and what can be asked afterwards."""

    def last(self, identity: str, status: int, content: bytes = CONTENT) -> Outcome:
        """The outcome of the only part."""
        return self.outcome(status, part(identity, 0, content))

    def test_wrong(self) -> None:
        """An upload with a wrong digest is gone."""
        identity = self.created(creation(sha256=SHA256))
        outcome = self.last(identity, 422, b"CONTENT")
        self.assertIsNone(outcome.step)
        self.assert_gone(identity)
        self.assertEqual({}, self.store.files)

    def test_wrong_on_a_broken_disk(self) -> None:
        """The client hears that the digest is wrong, whatever the disk does."""
        self.sessions.stopService()
        self.parts = BrokenParts(self.store)
        self.start()
        self.last(self.created(creation(sha256=SHA256)), 422, b"CONTENT")

    def test_taken(self) -> None:
        """A plain push of that name was faster."""
        identity = self.created()
        self.assertEqual(200, self.receive(push()).status)
        self.hooks.told.clear()
        self.last(identity, 405)
        self.assert_gone(identity)
        self.assertEqual([], self.hooks.told)

    def test_faster(self) -> None:
        """The upload was faster than a plain push."""
        identity = self.created()
        gate = self.store.gate = Deferred()
        plain = self.uploads.receive(BUCKET, push(b"CONTENT"))
        self.store.gate = None
        self.last(identity, 200)
        gate.callback(None)
        self.ended(405, plain)
        self.assert_stored()

    def test_both_promised(self) -> None:
        """Whichever is second, its file is stored already."""
        identity = self.created(creation(sha256=SHA256))
        self.receive(push(sha256=SHA256))
        outcome = self.last(identity, 200)
        self.assertTrue(outcome.repeated)
        self.assertEqual(SHA256, outcome.sha256)
        self.assert_stored()
        self.outcome(204, look(identity))
        self.assertEqual(1, len(self.hooks.told))

    def test_promised_in_post_push(self) -> None:
        """A plain push of the same file is stored already, as soon as it is."""
        identity = self.created(creation(sha256=SHA256))
        self.hooks.post_gate = Deferred()
        done = self.ask(part(identity, 0, CONTENT))
        plain = self.successResultOf(self.uploads.receive(BUCKET, push(sha256=SHA256)))
        self.assertEqual((200, True), (plain.status, plain.repeated))
        self.hooks.post_gate.callback(None)
        self.ended(200, done)

    def test_pre_push(self) -> None:
        """A file that pre-push refuses at its end is gone."""
        self.hooks.verdicts = [Verdict.GO_ON, Refusal(409, "no")]
        identity = self.created(creation(length=None))
        self.outcome(409, part(identity, 0, CONTENT, last=True))
        self.assert_gone(identity)

    def test_pre_push_failed(self) -> None:
        """An upload whose pre-push hook cannot answer at its end waits for a retry."""
        failed = HookFailed("the server's pre-push hook timed out")
        self.hooks.verdicts = [Verdict.GO_ON, failed, Verdict.GO_ON]
        identity = self.created(creation(length=None))
        outcome = self.outcome(503, part(identity, 0, CONTENT, last=True))
        self.assertEqual(failed.reason, outcome.reason)
        self.outcome(200, part(identity, 7, last=True))
        self.assert_stored()

    def test_heals(self) -> None:
        """A file that was damaged since is healed."""
        identity = self.created(creation(sha256=SHA256))
        self.store.files[FILE] = b"conTENT"
        self.known["db.gz"] = Kept(7, SHA256, damaged=True)
        self.assertTrue(self.last(identity, 200).healed)
        self.assert_stored()

    def test_again(self) -> None:
        """If the server cannot do it now, an empty part may try again."""
        identity = self.created_unknown()
        for refusal in (
            Refusal(503, "busy"),
            Refusal(507, "full"),
            Refusal(401, "the bucket's folder cannot be created or written"),
        ):
            self.hooks.verdicts = [refusal]
            self.outcome(refusal.status, part(identity, 7, last=True))
            self.assertEqual(7, self.parts.records[identity].offset)
            self.restart()
        self.hooks.verdicts = [Verdict.GO_ON]
        self.outcome(200, part(identity, 7, last=True))
        self.assert_stored()

    def test_catalogue_busy(self) -> None:
        """A file that cannot be looked up now is no reason to lose the upload."""
        identity = self.created(creation(sha256=SHA256))
        self.store.files[FILE] = CONTENT
        self.busy = True
        self.last(identity, 503)
        self.assertEqual(7, self.parts.records[identity].offset)
        self.busy = False
        self.known["db.gz"] = Kept(7, SHA256)
        self.outcome(200, part(identity, 7))
        self.assert_stored()

    def created_unknown(self) -> str:
        """An upload of unknown size that has come whole."""
        self.hooks.verdicts = [Verdict.GO_ON]
        identity = self.created(creation(length=None))
        self.outcome(204, part(identity, 0, CONTENT, last=False))
        return identity

    def test_again_by_head(self) -> None:
        """Many clients ask for the offset, and take the end for a success."""
        identity = self.created_unknown()
        self.hooks.verdicts = [Refusal(503, "busy")]
        self.outcome(503, part(identity, 7, last=True))
        self.outcome(503, look(identity))
        self.restart()
        self.hooks.verdicts = [Verdict.GO_ON]
        outcome = self.ask(look(identity))
        self.assertIsNone(self.successResultOf(outcome).reason)
        self.assert_stored()
        looked = self.outcome(204, look(identity)).upload
        assert looked is not None
        self.assertEqual((7, True), (looked.offset, looked.complete))

    def test_told_again(self) -> None:
        """The receipt can be had for as long as an unfinished upload would live."""
        self.hooks.exit = Exit(0, b"thanks\n")
        identity = self.created()
        self.last(identity, 200)
        for _ in range(2):
            looked = self.outcome(204, look(identity))
            assert looked.upload is not None
            self.assertEqual(
                (7, 7, True),
                (looked.upload.offset, looked.upload.length, looked.upload.complete),
            )
            again = self.outcome(200, part(identity, 7))
            self.assertEqual(
                (True, 7, SHA256), (again.repeated, again.size, again.sha256)
            )
            self.outcome(409, part(identity, 3, b"tent"))
            self.outcome(400, part(identity, 7, b"more"))
            self.outcome(204, give_up(identity))
            self.restart()
        self.assertEqual({FILE: CONTENT}, self.store.files)
        self.assertEqual(1, len(self.hooks.told))
        other = evolve(BUCKET, name="db01", directory="db01")
        self.outcome(404, look(identity), other)
        self.clock.advance(DAY + SWEEP_EVERY)
        self.outcome(404, look(identity))

    def test_not_told_of_another_file(self) -> None:
        """A receipt is only for a file that is still what was received."""
        identity = self.created()
        self.last(identity, 200)
        self.known["db.gz"] = Kept(7, SHA256, damaged=True)
        self.outcome(404, look(identity))
        self.known["db.gz"] = Kept(7, "00" * 32)
        self.outcome(404, look(identity))
        del self.known["db.gz"]
        self.outcome(204, look(identity))
        del self.store.files[FILE]
        for incoming in look(identity), part(identity, 7), give_up(identity):
            self.outcome(404, incoming)

    def test_no_guesses(self) -> None:
        """An upload's id is enough to ask for its receipt, and no guess."""
        identity = self.created()
        self.last(identity, 200)
        self.known["db.gz"] = Kept(7, "00" * 32)
        for _ in range(100):
            self.outcome(404, look(identity))
        del self.known["db.gz"]
        self.outcome(204, look(identity))
        self.assertEqual(
            200,
            self.successResultOf(
                self.uploads.receive(BUCKET, push(sha256=SHA256))
            ).status,
        )

    def test_prepared_once(self) -> None:
        """While the data is sent to a store elsewhere, a newer request waits, and does
        not send it again.
        """
        identity = self.created()
        gate = self.parts.prepare_gate = Deferred()
        done = self.ask(part(identity, 0, CONTENT))
        asked = [self.ask(look(identity)), self.ask(part(identity, 7))]
        self.ended(409, asked[0])
        self.assertNoResult(asked[1])
        self.assertEqual({}, self.store.files)
        gate.callback(None)
        self.ended(200, done)
        self.ended(200, asked[1])
        self.assertEqual([identity], self.parts.prepared)
        self.assert_stored()

    def test_revoked_while_prepared(self) -> None:
        """That may take minutes, in which a token is removed or a file is held."""
        identity = self.created()
        gate = self.parts.prepare_gate = Deferred()
        last = part(identity, 0, CONTENT)
        done = self.ask(last)
        last.revoked = True
        gate.callback(None)
        self.ended(403, done)
        self.assert_gone(identity)
        self.assertEqual({}, self.store.files)

    def test_lost_while_prepared(self) -> None:
        """Data that is not what was received is not stored."""
        identity = self.created()
        self.parts.prepare_gate = Deferred()
        done = self.ask(part(identity, 0, CONTENT))
        self.parts.prepare_gate.errback(LostError())
        self.ended(410, done)
        self.outcome(410, look(identity))
        self.assertEqual({}, self.store.files)

    def test_not_prepared(self) -> None:
        """If the store cannot be reached, the upload waits for a retry."""
        identity = self.created()
        self.parts.prepare_gate = Deferred()
        done = self.ask(part(identity, 0, CONTENT))
        gate, self.parts.prepare_gate = self.parts.prepare_gate, None
        gate.errback(Refusal(503, "the object store does not answer"))
        self.ended(503, done)
        self.assertEqual(7, self.parts.records[identity].offset)
        self.outcome(200, look(identity))
        self.assert_stored()

    def test_not_recorded(self) -> None:
        """A disk error after the publication does not undo it."""
        identity = self.created()
        incoming = part(identity, 0, CONTENT, end=False)
        gate = self.store.end_gate = Deferred()
        done = self.ask(incoming)
        incoming.body.end()
        self.parts.failure = BROKEN
        gate.callback(None)
        self.ended(200, done)
        self.assertEqual({FILE: CONTENT}, self.store.files)
        self.assertEqual(1, len(self.hooks.told))
