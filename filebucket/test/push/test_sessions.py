"""Tests of :mod:`filebucket.push.sessions`, without any protocol or disk."""

from __future__ import annotations

import hashlib
from typing import Any

from attrs import define, evolve, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.hooks.interfaces import Exit, Verdict
from filebucket.model.bucket import FILE_COST, Held
from filebucket.model.push import Kept, Outcome, Step
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.token import Token
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.push.part import KEEP_AFTER
from filebucket.push.reread import LOOK_EVERY
from filebucket.push.sessions import SWEEP_EVERY
from filebucket.test.kit.fakes import MemoryParts
from filebucket.test.kit.properties import trying
from filebucket.test.kit.sessions import (
    BROKEN,
    CONTENT,
    CUT,
    DAY,
    FILE,
    OTHER,
    BrokenParts,
    SessionCase,
    creation,
    give_up,
    look,
    opened_by,
    part,
)
from filebucket.test.kit.uploads import (
    BUCKET,
    SHA256,
    FakeResuming,
    push,
)


class WholeTests(SessionCase):
    """Uploads that become files."""

    def test_stored(self) -> None:
        """An upload in two parts is a push like any other."""
        self.hooks.exit = Exit(0, b"thanks\n")
        identity = self.created()
        self.assertEqual([7], [each.size for each in self.hooks.asked])
        self.clock.advance(100)
        first = self.outcome(204, part(identity, 0, b"con", size=None))
        self.assertEqual((Step.PART, 3), (first.step, first.size))
        self.assert_at(3, identity)
        last = self.outcome(200, part(identity, 3, b"te", b"nt"))
        self.assertEqual((None, 7, SHA256), (last.step, last.size, last.sha256))
        self.assertEqual(
            (0, 0, b"thanks\n"), (last.pre_push, last.post_push, last.output)
        )
        self.assertEqual(2, last.parts)
        assert last.upload is not None
        self.assertTrue(last.upload.complete)
        self.assert_stored()
        self.assertEqual(1, len(self.hooks.asked))
        self.assertEqual([(7, SHA256)], [(e.size, e.sha256) for e in self.hooks.told])

    def test_counts(self) -> None:
        """A push counts when it ends, or is refused; no step does, even if the client
        has to continue.
        """
        counted = []
        identity = self.created(creation(length=None))
        cut = part(identity, 0, b"c", size=3, end=False)
        done = self.ask(cut)
        cut.cut(CUT)
        counted.append(self.ended(400, done).counts)
        counted.append(self.outcome(409, part(identity, 0, b"con")).counts)
        counted.append(self.outcome(204, part(identity, 1, b"on")).counts)
        self.assertEqual([False] * 3, counted)
        self.store.room = 2
        self.assertTrue(self.outcome(507, part(identity, 3, b"tent")).counts)
        self.store.room = 7
        self.assertTrue(self.outcome(200, part(identity, 3, b"tent", last=True)).counts)

    def test_request_id(self) -> None:
        """Each request has the request id of the creation."""
        identity = self.created(creation(sha256=SHA256))
        self.outcome(409, part(identity, 1, b"x"))
        self.outcome(201, creation(sha256=SHA256))
        self.outcome(200, part(identity, 0, CONTENT))
        self.outcome(204, look(identity))
        self.assertEqual(5, len(self.observed))
        self.assertEqual(1, len({each.request_id for each in self.observed}))
        self.assertEqual({"db.gz"}, {each.name for each in self.observed})

    def test_seconds(self) -> None:
        """The time of all parts, without the time between them."""
        identity = self.created()
        incoming = part(identity, 0, size=3, end=False)
        done = self.ask(incoming)
        self.clock.advance(5)
        # The session is listed, not its part.
        self.assertEqual(1, self.uploads.under_way)
        self.assertEqual([], self.uploads.receiving())
        incoming.body.deliver(b"con")
        incoming.body.end()
        self.assertEqual(5, self.ended(204, done).seconds)
        self.clock.advance(1000)
        self.restart()
        incoming = part(identity, 3, size=4, end=False)
        done = self.ask(incoming)
        self.clock.advance(2)
        incoming.body.deliver(b"tent")
        incoming.body.end()
        self.assertEqual(7, self.ended(200, done).seconds)

    def test_length_at_the_end(self) -> None:
        """If the size is not known, pre-push is asked again when it is."""
        identity = self.created(creation(length=None))
        self.outcome(204, part(identity, 0, b"con", last=False))
        self.outcome(200, part(identity, 3, b"tent", last=True))
        self.assertEqual([-1, 7], [each.size for each in self.hooks.asked])
        self.assert_stored()

    def test_length_before_the_end(self) -> None:
        """So it is if the length comes with a part."""
        identity = self.created(creation(length=None))
        self.outcome(204, part(identity, 0, b"con", length=7))
        self.outcome(200, part(identity, 3, b"tent"))
        self.assertEqual([-1, 7], [each.size for each in self.hooks.asked])
        self.assert_stored()

    def test_with_the_creation(self) -> None:
        """The first part may come with the creation."""
        outcome = self.outcome(201, creation(b"con", last=False))
        assert outcome.upload is not None
        self.assertEqual((Step.CREATED, 3), (outcome.step, outcome.upload.offset))
        self.outcome(200, part(outcome.upload.id, 3, b"tent"))
        self.assert_stored()

    def test_empty(self) -> None:
        """A file of no bytes is whole when it is created, unless the client says that
        there is a last part.
        """
        outcome = self.outcome(201, creation(length=0))
        self.assertIsNone(outcome.step)
        self.assert_stored(b"")
        identity = self.created(creation(length=0, last=False, called="other"))
        self.outcome(200, part(identity, 0, last=True))

    def test_overwrite(self) -> None:
        """A verdict of pre-push to overwrite holds until the end."""
        self.store.files[FILE] = b"old"
        self.hooks.verdicts = [Verdict.OVERWRITE, Verdict.GO_ON]
        identity = self.created()
        self.restart()
        outcome = self.outcome(200, part(identity, 0, CONTENT))
        self.assertTrue(outcome.overwrote)
        self.assertEqual(2, outcome.pre_push)
        self.assert_stored()

    def test_overwrite_ends(self) -> None:
        """The last verdict counts, and the operator may change the bucket."""
        self.hooks.verdicts = [Verdict.OVERWRITE, Verdict.GO_ON]
        undeclared = self.created(creation(length=None))
        self.hooks.verdicts = [Verdict.GO_ON]
        writable = evolve(BUCKET, overwrite=True)
        outcome = self.outcome(201, creation(), writable)
        assert outcome.upload is not None
        self.store.files[FILE] = b"old"
        self.outcome(405, part(undeclared, 0, CONTENT, last=True))
        self.outcome(405, part(outcome.upload.id, 0, CONTENT))
        self.assert_stored(b"old")

    def test_held(self) -> None:
        """A file that is held is not replaced, even if it is held only at the end."""
        self.hooks.verdicts = [Verdict.OVERWRITE]
        self.store.files[FILE] = b"old"
        identity = self.created()
        self.current = evolve(BUCKET, held=(Held("db.gz", 1e12, "case 7"),))
        self.outcome(405, creation())
        self.outcome(405, part(identity, 0, CONTENT))
        self.assert_stored(b"old")
        self.current = None
        self.outcome(200, part(self.created(), 0, CONTENT))
        self.assert_stored()

    def test_only_new(self) -> None:
        """``If-None-Match: *`` at the creation holds at the end, too."""
        self.hooks.verdicts = [Verdict.OVERWRITE]
        identities = [
            self.created(creation(length=length, only_new=True)) for length in (7, None)
        ]
        self.store.files[FILE] = b"old"
        self.restart()
        for identity in identities:
            self.outcome(412, part(identity, 0, CONTENT, last=True))
        self.assert_stored(b"old")

    def test_only_new_of_a_part(self) -> None:
        """A condition of the last part holds, too."""
        self.hooks.verdicts = [Verdict.OVERWRITE]
        identities = [self.created(creation(length=length)) for length in (7, None)]
        self.store.files[FILE] = b"old"
        for identity in identities:
            last = part(identity, 0, CONTENT, last=True, only_new=True)
            self.outcome(412, last)
        self.assert_stored(b"old")

    def test_condition(self) -> None:
        """A condition that cannot be checked is refused."""
        condition = Refusal(412, "If-Match")
        self.outcome(412, creation(condition=condition))
        self.assertEqual([], self.sessions.all)
        self.hooks.verdicts = [Verdict.OVERWRITE]
        identity = self.created()
        self.outcome(412, part(identity, 0, CONTENT, condition=condition))
        self.assert_at(0, identity)


class CreationTests(SessionCase):
    """Creations: refused at once, or given an upload again."""

    def assert_none(self, status: int, incoming: FakeResuming) -> Outcome:
        """Nothing is created."""
        outcome = self.outcome(status, incoming)
        self.assertEqual({}, self.parts.data)
        self.assertEqual({}, self.parts.records)
        self.assert_idle()
        return outcome

    def test_switched_off(self) -> None:
        """With ``unfinished: 0`` what there was is removed."""
        identity = self.created()
        self.sessions.stopService()
        self.start(unfinished=0.0)
        self.assertEqual({}, self.parts.records)
        for incoming in creation(), look(identity), part(identity, 0, b"c"):
            self.assert_none(501, incoming)

    def test_taken(self) -> None:
        self.store.files[FILE] = b"old"
        self.assert_none(405, creation())
        self.assert_none(405, creation(sha256=SHA256))
        self.hooks.verdicts = [Verdict.OVERWRITE]
        self.assert_none(412, creation(only_new=True))

    def test_stored_already(self) -> None:
        """The client gets its receipt, and no upload."""
        self.store.files[FILE] = CONTENT
        self.known["db.gz"] = Kept(7, SHA256)
        outcome = self.assert_none(200, creation(sha256=SHA256))
        self.assertEqual(
            (None, True, SHA256), (outcome.step, outcome.repeated, outcome.sha256)
        )
        self.assertIsNone(outcome.upload)
        self.assert_none(405, creation(sha256="00" * 32))

    def test_damaged(self) -> None:
        """A damaged file is healed by the same file in parts."""
        self.store.files[FILE] = b"conTENT"
        self.known["db.gz"] = Kept(7, SHA256, damaged=True)
        identity = self.created(creation(sha256=SHA256))
        self.outcome(204, part(identity, 0, b"con"))
        outcome = self.outcome(200, part(identity, 3, b"tent"))
        self.assertTrue(outcome.healed)
        self.assert_stored()

    def test_name(self) -> None:
        self.assertIsNone(self.assert_none(400, creation(called="..")).name)

    def test_bounds(self) -> None:
        self.uploads = self.make(max_file_size=7, min_file_size=7)
        self.start()
        self.assert_none(413, creation(length=8))
        self.assert_none(400, creation(length=6))
        self.assert_none(413, creation(length=None, size=8, end=False))
        self.assertEqual([], self.hooks.asked)
        self.created()

    def test_room(self) -> None:
        """The whole of it must fit, but is not reserved."""
        self.store.room = 6
        self.assert_none(507, creation())
        self.store.room = 7
        self.created()
        self.created()
        quota = evolve(BUCKET, quota=3 * FILE_COST + 6)
        self.outcome(507, creation(), quota)
        self.assert_idle()

    def test_pre_push(self) -> None:
        self.hooks.verdicts = [Refusal(409, "no")]
        outcome = self.assert_none(409, creation())
        self.assertEqual((Step.CREATED, "no"), (outcome.step, outcome.reason))

    def test_disk(self) -> None:
        """An upload that cannot be recorded does not exist."""
        self.parts.failure = BROKEN
        self.assert_none(503, creation())
        self.parts.failure = None
        self.created()

    def test_revoked_meanwhile(self) -> None:
        """The token is checked after pre-push, too."""
        self.hooks.gate = Deferred()
        incoming = creation()
        done = self.ask(incoming)
        incoming.revoked = True
        self.hooks.gate.callback(None)
        self.ended(403, done)
        self.assertEqual({}, self.parts.records)

    def test_given_again(self) -> None:
        """The same file again is the same upload, as far as it has come."""
        identity = self.created(creation(sha256=SHA256))
        self.outcome(204, part(identity, 0, b"con"))
        for restart in False, True:
            if restart:
                self.restart()
            outcome = self.outcome(201, creation(sha256=SHA256))
            assert outcome.upload is not None
            self.assertEqual((identity, 3), (outcome.upload.id, outcome.upload.offset))
            self.assertEqual(Step.CREATED, outcome.step)
        self.assertEqual(1, len(self.hooks.asked))
        self.assertEqual(identity, self.created(creation(b"co", sha256=SHA256)))
        self.assert_at(3, identity)
        others = [
            creation(),
            creation(sha256=SHA256, length=None),
            creation(sha256=SHA256, length=8),
            creation(sha256="00" * 32),
            creation(sha256=SHA256, called="other"),
        ]
        for other in others:
            self.assertNotEqual(identity, self.created(other))
        found = self.outcome(
            201, creation(sha256=SHA256), evolve(BUCKET, name="db01", directory="db01")
        )
        assert found.upload is not None
        self.assertNotEqual(identity, found.upload.id)

    def test_given_again_cuts(self) -> None:
        """The connection of the earlier request is dead, so it is cut off."""
        identity = self.created(creation(sha256=SHA256))
        older = self.ask(part(identity, 0, b"con", size=7, end=False))
        outcome = self.outcome(201, creation(sha256=SHA256))
        self.ended(409, older)
        assert outcome.upload is not None
        self.assertEqual((identity, 3), (outcome.upload.id, outcome.upload.offset))

    def test_given_again_at_its_end(self) -> None:
        """If the upload ends in the meantime, its file is stored already."""
        identity = self.created(creation(sha256=SHA256))
        self.store.end_gate = Deferred()
        last = self.ask(part(identity, 0, CONTENT))
        again = self.ask(creation(sha256=SHA256))
        self.store.end_gate.callback(None)
        self.ended(200, last)
        outcome = self.ended(200, again)
        self.assertTrue(outcome.repeated)
        self.assert_stored()

    def test_given_again_after_its_end(self) -> None:
        """If it turns out to be wrong in the meantime, a new one is created, with a
        request id of its own.
        """
        identity = self.created(creation(sha256=SHA256))
        gate = self.store.gate = Deferred()
        last = self.ask(part(identity, 0, b"CONTENT"))
        again = self.ask(creation(sha256=SHA256))
        self.store.gate = None
        gate.callback(None)
        wrong = self.ended(422, last)
        outcome = self.ended(201, again)
        assert outcome.upload is not None
        self.assertNotEqual(identity, outcome.upload.id)
        self.assertNotEqual(wrong.request_id, outcome.request_id)
        self.assert_at(0, outcome.upload.id)

    def test_not_given_for_another_condition(self) -> None:
        """An upload that may overwrite is not for a client that does not want to."""
        self.hooks.verdicts = [Verdict.OVERWRITE]
        identity = self.created(creation(sha256=SHA256))
        other = self.created(creation(sha256=SHA256, only_new=True))
        self.assertNotEqual(identity, other)

    def test_too_many(self) -> None:
        self.sessions.stopService()
        self.start(most=2)
        first = self.created()
        self.created()
        self.assertIn("Retry-After", self.outcome(503, creation()).headers)
        other = evolve(BUCKET, name="db01", directory="db01")
        self.outcome(201, creation(), other)
        self.outcome(204, give_up(first))
        self.created()

    def test_too_many_at_once(self) -> None:
        """Creations that wait for pre-push count, and those that failed do not."""
        self.sessions.stopService()
        self.start(most=2)
        self.hooks.gate = Deferred()
        waiting = [self.ask(creation()) for _ in range(2)]
        self.outcome(503, creation())
        self.hooks.verdicts = [Verdict.GO_ON, Refusal(409, "no")]
        gate, self.hooks.gate = self.hooks.gate, None
        gate.callback(None)
        self.ended(201, waiting[0])
        self.ended(409, waiting[1])
        self.hooks.verdicts = [Verdict.GO_ON]
        self.created()
        self.outcome(503, creation())

    def test_first_part_refused(self) -> None:
        """An upload whose id the client never learns is not left behind."""
        self.assert_none(422, creation(b"con", of_part={"sha256": bytes(32)}))
        cut = creation(b"con", size=7, end=False)
        done = self.ask(cut)
        cut.cut(CUT)
        ended = self.ended(400, done)
        self.assertEqual((Step.CREATED, True), (ended.step, ended.counts))
        self.assertEqual([], self.sessions.all)
        self.assert_idle()

    def test_first_part_cut(self) -> None:
        """If the client can find it again, what has come is kept."""
        cut = creation(b"con", size=7, end=False, sha256=SHA256)
        done = self.ask(cut)
        cut.cut(CUT)
        self.ended(400, done)
        self.assert_at(3, self.created(creation(sha256=SHA256)))


class TakeOverTests(SessionCase):
    """A newer request about an upload ends an older one."""

    def setUp(self) -> None:
        super().setUp()
        self.identity = self.created()
        self.older = part(self.identity, 0, b"con", size=7, end=False)

    def test_by_any(self) -> None:
        """A PATCH, a HEAD or a DELETE ends it at once."""
        done = self.ask(self.older)
        looked = self.outcome(204, look(self.identity))
        assert looked.upload is not None
        self.assertEqual(3, looked.upload.offset)
        self.assertEqual(3, self.ended(409, done).size)
        self.older.body.deliver(b"tent")
        self.assert_at(3, self.identity)
        done = self.ask(part(self.identity, 3, b"t", size=4, end=False))
        outcome = self.outcome(409, part(self.identity, 3, b"t"))
        self.assertEqual("the upload is at offset 4", outcome.reason)
        self.ended(409, done)
        done = self.ask(part(self.identity, 4, b"e", size=3, end=False))
        self.outcome(204, give_up(self.identity))
        self.ended(409, done)
        self.assert_gone(self.identity)

    def test_waits_for_the_write(self) -> None:
        """The bytes that are being written are neither lost nor doubled."""
        gate = self.store.gate = Deferred()
        older = self.ask(self.older)
        newer = self.ask(part(self.identity, 3, b"tent"))
        self.assertNoResult(older)
        self.assertNoResult(newer)
        self.store.gate = None
        gate.callback(None)
        self.ended(409, older)
        self.ended(200, newer)
        self.assert_stored()

    def test_three(self) -> None:
        """Of several that wait, the last one gets it."""
        gate = self.store.gate = Deferred()
        older = self.ask(self.older)
        waiting = [self.ask(part(self.identity, 3, b"tent")) for _ in range(2)]
        looked = self.ask(look(self.identity))
        self.store.gate = None
        gate.callback(None)
        for each in (older, *waiting):
            self.assertIsNotNone(self.ended(409, each).reason)
        self.ended(204, looked)
        self.assert_at(3, self.identity)
        self.assert_idle()

    def test_hundreds(self) -> None:
        """A client that asks again and again while the disk is slow."""
        gate = self.store.gate = Deferred()
        older = self.ask(self.older)
        *waiting, newest = [self.ask(look(self.identity)) for _ in range(500)]
        self.store.gate = None
        gate.callback(None)
        for each in (older, *waiting):
            self.assertIsNotNone(self.ended(409, each).upload)
        self.ended(204, newest)
        self.assert_at(3, self.identity)
        self.assert_idle()

    def test_after_a_restart(self) -> None:
        """A request that waits until the upload is read again is cut off, too."""
        self.outcome(204, part(self.identity, 0, b"con"))
        self.restart()
        self.reading.hangs = True
        older = self.ask(part(self.identity, 3, b"TENT"))
        newer = self.ask(part(self.identity, 3, b"tent"))
        self.clock.advance(LOOK_EVERY)
        self.ended(409, older)
        looked = self.ask(look(self.identity))
        self.clock.advance(LOOK_EVERY)
        self.ended(409, newer)
        self.ended(204, looked)

    def test_in_its_commit(self) -> None:
        """An older request that has everything ends the upload, and the newer one gets
        the receipt.
        """
        for ask, status in (look, 204), (give_up, 204):
            identity = self.created(creation(called=ask.__name__))
            gate = self.store.end_gate = Deferred()
            older = self.ask(part(identity, 0, CONTENT))
            newer = self.ask(ask(identity))
            self.assertNoResult(newer)
            self.store.end_gate = None
            gate.callback(None)
            self.ended(200, older)
            outcome = self.ended(status, newer)
            assert outcome.upload is not None
            self.assertEqual(
                (7, True), (outcome.upload.offset, outcome.upload.complete)
            )
            self.assertEqual(CONTENT, self.store.files["web01", ask.__name__])

    def test_the_same_again_in_its_commit(self) -> None:
        for offset, status in (0, 409), (7, 200):
            identity = self.created(creation(called=str(offset)))
            gate = self.store.end_gate = Deferred()
            older = self.ask(part(identity, 0, CONTENT))
            newer = self.ask(part(identity, offset, CONTENT[offset:]))
            self.store.end_gate = None
            gate.callback(None)
            self.ended(200, older)
            outcome = self.ended(status, newer)
            assert outcome.upload is not None
            self.assertEqual(7, outcome.upload.offset)

    def test_in_its_post_push(self) -> None:
        """The file is there: other requests do not wait for the hook."""
        gate = self.hooks.post_gate = Deferred()
        done = self.ask(part(self.identity, 0, CONTENT))
        self.assertNoResult(done)
        looked = self.outcome(204, look(self.identity))
        assert looked.upload is not None
        self.assertTrue(looked.upload.complete)
        again = self.outcome(200, part(self.identity, 7))
        self.assertEqual((True, SHA256), (again.repeated, again.sha256))
        self.assertEqual({}, self.parts.data)
        gate.callback(None)
        self.ended(200, done)
        self.assertEqual(1, len(self.hooks.told))
        self.assert_stored()

    def test_before_its_post_push(self) -> None:
        """Nor does a request that came during the commit."""
        self.hooks.post_gate = Deferred()
        gate = self.store.end_gate = Deferred()
        done = self.ask(part(self.identity, 0, CONTENT))
        looked = self.ask(look(self.identity))
        self.assertNoResult(looked)
        gate.callback(None)
        self.ended(204, looked)
        self.assertNoResult(done)
        self.hooks.post_gate.callback(None)
        self.ended(200, done)

    def test_before_its_end_is_recorded(self) -> None:
        """The file has its name already: the answer is not that there is no upload."""
        gate = self.parts.end_gate = Deferred()
        done = self.ask(part(self.identity, 0, CONTENT))
        self.assertEqual({FILE: CONTENT}, self.store.files)
        looked = self.ask(look(self.identity))
        self.assertNoResult(looked)
        gate.callback(None)
        self.ended(200, done)
        outcome = self.ended(204, looked)
        assert outcome.upload is not None
        self.assertTrue(outcome.upload.complete)
        self.assert_stored()

    def test_in_its_last_pre_push(self) -> None:
        """The end of an upload of unknown size is not cut off, but waited for."""
        identity = self.created(creation(length=None, called="other"))
        gate = self.hooks.gate = Deferred()
        done = self.ask(part(identity, 0, CONTENT, last=True))
        looked = self.ask(look(identity))
        self.assertNoResult(looked)
        self.hooks.gate = None
        gate.callback(None)
        self.ended(200, done)
        self.ended(204, looked)


class TokenTests(SessionCase):
    """An upload ends with the token that created it."""

    def setUp(self) -> None:
        super().setUp()
        self.first = BUCKET.tokens[0]
        self.use(self.first, OTHER)
        self.identity = self.created()

    def use(self, *tokens: Token) -> None:
        """Reload with these tokens of the bucket."""
        buckets = [opened_by(*tokens)] if tokens else []
        self.registry.replace(BucketIndex(buckets))

    def by_other(self, *args: Any, **kwargs: Any) -> FakeResuming:
        """A part that comes with the other token."""
        return part(self.identity, *args, token=OTHER.sha256.hex(), **kwargs)

    def test_idle(self) -> None:
        """It ends at once, and says so."""
        with capturedLogs() as logged:
            self.use(OTHER)
        (event,) = [each for each in logged if each.get("event") == "upload-expired"]
        self.assertIn("token", event["reason"])
        self.assertEqual(self.observed[0].request_id, event["request"])
        self.assert_gone(self.identity)

    def test_bucket_removed(self) -> None:
        self.use()
        self.assert_gone(self.identity)

    def test_bucket_retired(self) -> None:
        """It ends, and says why."""
        retired = evolve(opened_by(self.first, OTHER), retired=True)
        with capturedLogs() as logged:
            self.registry.replace(BucketIndex([retired]))
        (event,) = [each for each in logged if each.get("event") == "upload-expired"]
        self.assertEqual("the bucket is retired", event["reason"])
        self.assertEqual([], self.sessions.all)

    def test_still_valid(self) -> None:
        """Either token may continue it."""
        self.use(OTHER, self.first)
        self.outcome(204, self.by_other(0, b"con"))
        self.outcome(200, part(self.identity, 3, b"tent"))

    def test_expires(self) -> None:
        """A token may expire by itself."""
        self.use(evolve(self.first, expires=1e9 + 100), OTHER)
        self.assert_at(0, self.identity)
        self.clock.advance(100 + SWEEP_EVERY)
        self.assert_gone(self.identity)

    def test_during_a_part(self) -> None:
        """A part with the other token goes on, but the upload is over."""
        incoming = self.by_other(0, b"con", size=7, end=False)
        done = self.ask(incoming)
        self.use(OTHER)
        self.assertNoResult(done)
        incoming.cut(CUT)
        self.ended(400, done)
        self.assert_gone(self.identity)

    def test_during_the_last_part(self) -> None:
        """The file is not published."""
        incoming = self.by_other(0, b"con", size=7, end=False)
        done = self.ask(incoming)
        self.use(OTHER)
        incoming.body.deliver(b"tent")
        incoming.body.end()
        self.ended(403, done)
        self.assert_gone(self.identity)
        self.assertEqual({}, self.store.files)

    def test_during_the_last_pre_push(self) -> None:
        """Nor is it if the token ends while the hook runs."""
        for by_part in True, False:
            self.use(self.first, OTHER)
            self.identity = self.created(creation(length=None))
            gate = self.hooks.gate = Deferred()
            incoming = self.by_other(0, CONTENT, last=True)
            done = self.ask(incoming)
            if by_part:
                incoming.revoked = True
            else:
                self.use(OTHER)
            self.hooks.gate = None
            gate.callback(None)
            self.ended(403, done)
            self.outcome(404, look(self.identity))
        self.assertEqual({}, self.store.files)

    def test_after_a_restart(self) -> None:
        self.sessions.stopService()
        self.registry = Registry([opened_by(OTHER)])
        self.start()
        self.assert_gone(self.identity)

    def test_on_a_broken_disk(self) -> None:
        """A disk that cannot delete the upload does not change the answer."""
        self.sessions.stopService()
        self.parts = BrokenParts(self.store, self.parts.data, self.parts.records)
        self.start()
        incoming = self.by_other(0, b"con", size=3, end=False)
        done = self.ask(incoming)
        self.use(OTHER)
        incoming.body.end()
        self.ended(204, done)
        self.outcome(404, look(self.identity))


class StartTests(SessionCase):
    """Uploads whose file the last daemon published as its last act, in a store that is
    asked after the start.
    """

    def setUp(self) -> None:
        super().setUp()
        self.parts.remote = True
        self.identity = self.created()
        gate = self.store.end_gate = Deferred()
        done = self.ask(part(self.identity, 0, CONTENT))
        self.parts.failure = BROKEN
        self.store.end_gate = None
        gate.callback(None)
        self.ended(200, done)
        self.parts.failure = None
        self.assertIsNone(self.parts.records[self.identity].finished)

    def test_recorded(self) -> None:
        """It is recorded, and a request that comes meanwhile waits for that."""
        gate = self.parts.ended_gate = Deferred()
        self.restart()
        looked = self.ask(look(self.identity))
        self.assertNoResult(looked)
        gate.callback(None)
        outcome = self.ended(204, looked)
        assert outcome.upload is not None
        self.assertTrue(outcome.upload.complete)
        self.assertEqual([self.identity], self.parts.prepared)
        self.assert_stored()

    def test_cannot_be_asked(self) -> None:
        """Then the upload goes on."""
        gate = self.parts.ended_gate = Deferred()
        self.restart()
        gate.errback(Refusal(503, "the object store does not answer"))
        self.assertEqual([7], [each.offset for each in self.sessions.all])

    def test_going_on(self) -> None:
        """Others are as they were; those with bytes to come are not asked about."""
        other = self.created(creation(called="other", length=None))
        third = self.created(creation(called="third"))
        self.outcome(204, part(other, 0, b"con"))
        self.outcome(204, part(third, 0, b"con"))
        asked: list[str] = []
        real = self.parts.ended

        async def ended(directory: str, upload: Unfinished) -> Finished | None:
            asked.append(upload.id)
            return await real(directory, upload)

        self.patch(MemoryParts, "ended", lambda _, *args: ended(*args))
        self.restart()
        self.assertEqual({self.identity, other}, set(asked))
        self.assert_at(3, other)
        self.assert_at(3, third)


class ExpiryTests(SessionCase):
    """Uploads end a day after their last byte."""

    def test_idle(self) -> None:
        """The last byte counts, and requests without one do not."""
        identity = self.created()
        self.clock.advance(DAY - 100)
        self.outcome(204, part(identity, 0, b"con"))
        self.clock.advance(DAY - 100)
        self.outcome(204, part(identity, 3))
        self.assert_at(3, identity)
        with capturedLogs() as logged:
            self.clock.pump([SWEEP_EVERY] * 3)
        (event,) = [each for each in logged if each.get("event") == "upload-expired"]
        self.assertEqual((3, "it has expired"), (event["offset"], event["reason"]))
        self.assert_gone(identity)

    def test_during_a_part(self) -> None:
        """A part may take longer than a day."""
        identity = self.created()
        incoming = part(identity, 0, size=7, end=False)
        done = self.ask(incoming)
        self.clock.pump([SWEEP_EVERY] * int(DAY / SWEEP_EVERY + 2))
        self.assertNoResult(done)
        incoming.body.deliver(b"con")
        incoming.cut(CUT)
        self.ended(400, done)
        self.assert_at(3, identity)

    def test_after_a_part(self) -> None:
        """If it has brought nothing, the upload ends with it."""
        identity = self.created()
        incoming = part(identity, 0, size=7, end=False)
        done = self.ask(incoming)
        self.clock.pump([SWEEP_EVERY] * int(DAY / SWEEP_EVERY + 2))
        incoming.cut(CUT)
        self.ended(400, done)
        self.assert_gone(identity)

    def test_clock_set_back(self) -> None:
        """An upload from the future lives for a day from now on."""
        identity = self.created()
        self.ahead -= 1000 * DAY
        self.clock.advance(SWEEP_EVERY)
        self.assert_at(0, identity)
        self.clock.advance(DAY)
        self.assert_gone(identity)

    def test_stopped(self) -> None:
        """A daemon that has stopped sweeps no more."""
        self.sessions.stopService()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_tokens_in_names(self) -> None:
        """No log line shows a token."""
        token = "t" * 32
        digest = hashlib.sha256(token.encode()).digest()
        self.registry.replace(BucketIndex([opened_by(BUCKET.tokens[0], Token(digest))]))
        self.created(creation(called=token))
        with capturedLogs() as logged:
            self.clock.pump([DAY, SWEEP_EVERY])
        (event,) = [each for each in logged if each.get("event") == "upload-expired"]
        self.assertNotIn(token, event["name"])


@define(eq=False)
class _Model:
    """An upload as its client knows it.

    :ivar data: the bytes that must be durable
    :ivar told: the last offset that the client heard of
    :ivar open: the request whose body has not ended yet
    :ivar done: the outcome of that
    :ivar pending: the bytes that it has brought so far
    """

    id: str
    name: str
    length: int | None
    data: bytes = b""
    told: int = 0
    open: FakeResuming | None = None
    done: Deferred[Outcome] = field(factory=Deferred)
    pending: bytes = b""

    @property
    def sent(self) -> int:
        """Bytes that the client has sent."""
        return len(self.data + self.pending)

    @property
    def is_whole(self) -> bool:
        return len(self.data) == self.length

    def fitting(self, body: bytes) -> bytes:
        """The part of ``body`` that does not exceed the length."""
        return body if self.length is None else body[: self.length - self.sent]

    def keep(self) -> None:
        """The open request has ended, and its bytes are durable."""
        self.data += self.pending
        self.pending, self.open = b"", None


BYTES = st.binary(max_size=5)
NAMES = st.sampled_from(["a", "b", "c"])


class MachineCase(SessionCase):
    """A daemon for :class:`UploadMachine`."""

    def start(self, unfinished: float = DAY, most: int = 1000) -> None:
        super().start(unfinished, most)


class UploadMachine(RuleBasedStateMachine):
    """Clients that do anything with their uploads, and a daemon that restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.case = MachineCase()
        self.case.setUp()
        self.alive: list[_Model] = []
        self.ended: list[_Model] = []
        self.files: dict[str, bytes] = {}

    # Rules.

    @rule(name=NAMES, length=st.none() | st.integers(1, 12))
    def create(self, name: str, length: int | None) -> None:
        taken = name in self.files
        outcome = self.answer(creation(length=length, called=name))
        assert outcome.status == (405 if taken else 201), outcome
        if not taken:
            assert outcome.upload is not None
            self.alive.append(_Model(outcome.upload.id, name, length))

    @precondition(lambda self: self.alive)
    @rule(
        data=st.data(),
        off=st.sampled_from([0, 0, 0, 0, -1, 1, 5]),
        body=BYTES,
        last=st.none() | st.booleans(),
        is_sized=st.booleans(),
        is_right=st.none() | st.booleans(),
        is_broken=st.sampled_from([False, False, False, True]),
    )
    def append(
        self,
        data: st.DataObject,
        off: int,
        body: bytes,
        last: bool | None,
        is_sized: bool,
        is_right: bool | None,
        is_broken: bool,
    ) -> None:
        """A part that comes whole, perhaps to the wrong place or with a wrong digest,
        perhaps on a broken disk.
        """
        upload = self.one(data)
        if is_broken:
            self.close(upload)
        digest = {}
        if is_right is not None:
            digest["sha256"] = hashlib.sha256(body if is_right else b"wrong!").digest()
        incoming = part(
            upload.id,
            upload.sent + off,
            body,
            last=last,
            of_part=digest,
            size=len(body) if is_sized else None,
        )
        self.case.parts.failure = BROKEN if is_broken else None
        outcome = self.answer(incoming)
        self.case.parts.failure = None
        self.settle(upload)
        end = upload.sent + len(body)
        if off:
            expected = 409
        elif upload.length is not None and (
            end > upload.length or (last and is_sized and end != upload.length)
        ):
            expected = 400
        elif is_right is False:
            expected = 422
        elif last and upload.length not in (None, end):
            expected = 400
        elif is_broken:
            # A client must not send the rest of a pipe again.
            expected = 503 if is_sized else 400
        else:
            expected = 204
            upload.data += body
            if last or (last is None and upload.is_whole):
                self.expect_end(upload, outcome)
                return
        assert outcome.status == expected, (expected, outcome)
        self.heard(upload, outcome)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), body=BYTES)
    def begin(self, data: st.DataObject, body: bytes) -> None:
        """A part whose body comes slowly."""
        upload = self.one(data)
        body = upload.fitting(body)
        incoming = part(upload.id, upload.sent, body, size=None, end=False)
        done = self.case.ask(incoming)
        self.settle(upload)
        upload.open, upload.done, upload.pending = incoming, done, body

    @precondition(lambda self: self.opened())
    @rule(data=st.data(), body=BYTES, seconds=st.sampled_from([0.0, 1.0, KEEP_AFTER]))
    def go_on(self, data: st.DataObject, body: bytes, seconds: float) -> None:
        upload = data.draw(st.sampled_from(self.opened()))
        assert upload.open is not None
        body = upload.fitting(body)
        self.case.clock.advance(seconds)
        upload.open.body.deliver(body)
        upload.pending += body

    @precondition(lambda self: self.opened())
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        self.close(data.draw(st.sampled_from(self.opened())))

    @precondition(lambda self: self.opened())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """The body ends."""
        upload = data.draw(st.sampled_from(self.opened()))
        assert upload.open is not None
        upload.open.body.end()
        outcome = self.case.successResultOf(upload.done)
        upload.keep()
        self.expect_offset(upload, outcome)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), first=BYTES, second=BYTES)
    def take_over_a_write(
        self, data: st.DataObject, first: bytes, second: bytes
    ) -> None:
        """A newer request comes while the older one writes."""
        upload = self.one(data)
        first = upload.fitting(first)
        gate = self.case.store.gate = Deferred()
        incoming = part(upload.id, upload.sent, first, size=None, end=False)
        older = self.case.ask(incoming)
        self.settle(upload)
        upload.open, upload.done, upload.pending = incoming, older, first
        second = upload.fitting(second)
        incoming.body.deliver(second)
        # The second bytes wait in the body until the first ones are written, and then
        # they are kept, too.
        upload.pending = first + second
        newer = self.case.ask(look(upload.id))
        self.case.store.gate = None
        gate.callback(None)
        self.settle(upload)
        self.expect_offset(upload, self.case.successResultOf(newer))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        upload = self.one(data)
        outcome = self.answer(look(upload.id))
        self.settle(upload)
        self.expect_offset(upload, outcome)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        upload = self.one(data)
        outcome = self.answer(give_up(upload.id))
        self.settle(upload)
        assert outcome.status == 204, outcome
        self.alive.remove(upload)
        assert self.answer(look(upload.id)).status == 404

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def tell_again(self, data: st.DataObject) -> None:
        upload = data.draw(st.sampled_from(self.ended))
        again = self.answer(part(upload.id, upload.sent))
        sha256 = hashlib.sha256(upload.data).hexdigest()
        assert (again.status, again.sha256) == (200, sha256)

    @rule(name=NAMES, content=BYTES)
    def push_whole(self, name: str, content: bytes) -> None:
        """A plain push."""
        outcome = self.case.successResultOf(
            self.case.uploads.receive(BUCKET, push(content, called=name))
        )
        assert outcome.status == (405 if name in self.files else 200)
        self.files.setdefault(name, content)

    @rule()
    def restart(self) -> None:
        for upload in self.opened():
            self.close(upload)
        self.case.restart()

    @rule()
    def expire(self) -> None:
        """Only a body that still brings bytes keeps its upload alive."""
        self.case.clock.advance(DAY + SWEEP_EVERY)
        self.alive = self.opened()
        for upload in self.opened():
            offset = self.case.parts.records[upload.id].offset
            is_late = offset == upload.sent
            self.close(upload)
            if is_late:
                self.alive.remove(upload)
        self.ended = []

    # Invariants.

    @invariant()
    def nothing_else(self) -> None:
        """The published files are those of the model, and quotas count all bytes that
        are kept.
        """
        files = {name: content for (_, name), content in self.case.store.files.items()}
        assert files == self.files
        records = self.case.parts.records.values()
        unfinished = [each for each in records if each.finished is None]
        assert {each.id for each in unfinished} == {each.id for each in self.alive}
        data = self.case.parts.data
        assert data.keys() == {each.id for each in unfinished}
        counted = sum(len(each) + FILE_COST for each in data.values())
        assert sum(self.case.parts.counted.values()) == counted

    @invariant()
    def durable(self) -> None:
        """Exactly the bytes of the model are durable, or some more of an open body."""
        for upload in self.alive:
            offset = self.case.parts.records[upload.id].offset
            sent = upload.data + upload.pending
            assert upload.told <= len(upload.data) <= offset <= len(sent)
            assert self.case.parts.data[upload.id][:offset] == sent[:offset]
            assert upload.open is not None or offset == len(upload.data)

    # Steps of rules.

    def one(self, data: st.DataObject) -> _Model:
        found: _Model = data.draw(st.sampled_from(self.alive))
        return found

    def opened(self) -> list[_Model]:
        """The uploads that have a request."""
        return [each for each in self.alive if each.open is not None]

    def answer(self, incoming: FakeResuming) -> Outcome:
        outcome: Outcome = self.case.successResultOf(self.case.ask(incoming))
        return outcome

    def close(self, upload: _Model) -> None:
        """The connection is lost, if there is a request."""
        if upload.open is not None:
            upload.open.cut(CUT)
            self.settle(upload, CUT.status)

    def settle(self, upload: _Model, status: int = 409) -> None:
        """The open request, if there was one, has been cut off; its bytes are kept."""
        if upload.open is not None:
            outcome = self.case.successResultOf(upload.done)
            assert outcome.status == status, outcome
            upload.keep()

    def heard(self, upload: _Model, outcome: Outcome) -> None:
        """The client is told the offset, which never decreases."""
        assert outcome.upload is not None
        assert outcome.upload.offset == len(upload.data) >= upload.told
        upload.told = outcome.upload.offset

    def expect_offset(self, upload: _Model, outcome: Outcome) -> None:
        """The client is told the offset; if that is the length, it is the end."""
        if upload.is_whole:
            self.expect_end(upload, outcome)
        else:
            assert outcome.status == 204, outcome
            self.heard(upload, outcome)

    def expect_end(self, upload: _Model, outcome: Outcome) -> None:
        """The upload is over: published, or refused for good."""
        expected = 200
        if not upload.data:
            expected = 400
        elif upload.name in self.files:
            expected = 405
        assert outcome.status == expected, (expected, outcome)
        self.alive.remove(upload)
        if expected == 200:
            self.files[upload.name] = upload.data
            self.ended.append(upload)


class MachineTests(SynchronousTestCase):
    """Any order of requests."""

    def test_any_order(self) -> None:
        run_state_machine_as_test(
            UploadMachine,
            settings=settings(
                trying, max_examples=trying.max_examples // 2, stateful_step_count=30
            ),
        )
