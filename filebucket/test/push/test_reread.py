"""Tests of :mod:`filebucket.push.reread`: resumable uploads after a restart."""

from __future__ import annotations

import errno

from attrs import evolve
from twisted.logger import capturedLogs

from filebucket.base.errors import Refusal
from filebucket.model.registry import BucketIndex
from filebucket.push.reread import HASH_WAIT, LOOK_EVERY
from filebucket.test.kit.sessions import (
    CUT,
    OTHER,
    SessionCase,
    UnreadableParts,
    creation,
    give_up,
    look,
    opened_by,
    part,
)
from filebucket.test.kit.uploads import (
    BUCKET,
    SHA256,
)


class RestartTests(SessionCase):
    """After a restart, an upload is read again before it goes on."""

    def setUp(self) -> None:
        super().setUp()
        self.identity = self.created(creation(sha256=SHA256))
        self.outcome(204, part(self.identity, 0, b"con"))

    def test_goes_on(self) -> None:
        self.restart()
        self.outcome(204, part(self.identity, 3, b"te"))
        self.restart()
        self.outcome(200, part(self.identity, 5, b"nt"))
        self.assert_stored()

    def test_being_read(self) -> None:
        """The offset is known before; a part waits for a while."""
        self.restart()
        self.reading.hangs = True
        self.assert_at(3, self.identity)
        done = self.ask(part(self.identity, 3, b"tent"))
        self.clock.pump([LOOK_EVERY] * int(HASH_WAIT / LOOK_EVERY - 1))
        self.assertNoResult(done)
        self.clock.advance(LOOK_EVERY)
        self.assertIn("Retry-After", self.ended(503, done).headers)
        done = self.ask(part(self.identity, 3, b"tent"))
        self.assertEqual(1, self.reading.waiting)
        self.reading.go_on()
        self.ended(200, done)
        self.assert_stored()

    def test_in_turn(self) -> None:
        """A large upload keeps none waiting, neither of another bucket nor of its own:
        each has one piece read at a time.
        """
        db01 = opened_by(OTHER, name="db01", directory="db01")
        by_other = OTHER.sha256.hex()
        self.registry.replace(BucketIndex([BUCKET, db01]))
        large = self.created(creation(called="large", length=1000))
        self.outcome(204, part(large, 0, bytes(999)))
        outcome = self.outcome(201, creation(token=by_other), db01)
        assert outcome.upload is not None
        other = outcome.upload.id
        self.outcome(204, part(other, 0, b"con", token=by_other), db01)
        self.restart()
        self.reading.hangs = True
        self.outcome(204, look(large))
        self.outcome(204, look(self.identity))
        self.assertEqual(1, self.reading.waiting)
        self.outcome(204, look(other, token=by_other), db01)
        self.assertEqual(2, self.reading.waiting)
        for _ in range(4):
            self.reading.step()
        last = part(other, 3, b"tent", token=by_other)
        self.outcome(200, last, db01)
        for _ in range(2):
            self.reading.step()
        self.outcome(200, part(self.identity, 3, b"tent"))
        self.assertEqual(1, self.reading.waiting)
        done = self.ask(part(large, 999, b"x"))
        self.assertNoResult(done)
        self.reading.go_on()
        self.ended(200, done)

    def test_client_gone(self) -> None:
        """A client that is gone does not wait."""
        self.restart()
        self.reading.hangs = True
        incoming = part(self.identity, 3, b"t", size=4, end=False)
        done = self.ask(incoming)
        incoming.cut(CUT)
        self.clock.advance(LOOK_EVERY)
        self.ended(400, done)

    def test_lost(self) -> None:
        """Data that is not what was received is never published."""
        self.parts.data[self.identity] = b"CON"
        self.restart()
        with capturedLogs() as logged:
            self.outcome(410, part(self.identity, 3, b"tent"))
        (event,) = [each for each in logged if each.get("event") == "upload-lost"]
        self.assertEqual(
            (self.observed[0].request_id, "db.gz", 3),
            (event["request"], event["name"], event["offset"]),
        )
        self.outcome(410, look(self.identity))
        self.outcome(404, look(self.identity), evolve(BUCKET, name="db01"))
        self.assertEqual({}, self.parts.data)
        self.assert_idle()
        self.created(creation(sha256=SHA256))

    def test_lost_while_looked_at(self) -> None:
        """A client hears of it after a HEAD, too."""
        self.parts.data[self.identity] = b"CON"
        self.restart()
        self.reading.hangs = True
        self.outcome(204, look(self.identity))
        self.reading.go_on()
        self.outcome(410, part(self.identity, 3, b"tent"))

    def test_ends_while_read(self) -> None:
        """An upload that is given up is not lost."""
        self.restart()
        self.reading.hangs = True
        self.outcome(204, look(self.identity))
        self.outcome(204, give_up(self.identity))
        with capturedLogs() as logged:
            self.reading.go_on()
        self.assertEqual([], [e for e in logged if e.get("event") == "upload-lost"])
        self.assert_gone(self.identity)

    def test_stops_while_read(self) -> None:
        """A daemon that stops does not lose what it was reading."""
        self.restart()
        self.reading.hangs = True
        self.outcome(204, look(self.identity))
        self.sessions.stopService()
        self.reading.go_on()
        self.start()
        self.outcome(200, part(self.identity, 3, b"tent"))
        self.assert_stored()

    def test_unreadable(self) -> None:
        """If it cannot be read now, the next request tries again."""
        for error in OSError(errno.EMFILE, "too many"), RuntimeError("a bug"):
            self.sessions.stopService()
            parts = self.parts
            self.parts = UnreadableParts(error, self.store, parts.data, parts.records)
            self.start()
            self.outcome(503, part(self.identity, 3, b"tent"))
            self.sessions.stopService()
            self.parts = parts
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.start()
        self.outcome(200, part(self.identity, 3, b"tent"))

    def test_stop_during_a_part(self) -> None:
        """All bytes that have come are kept."""
        incoming = part(self.identity, 3, b"te", size=4, end=False)
        done = self.ask(incoming)
        incoming.cut(Refusal(503, "the server is shutting down"))
        self.ended(503, done)
        self.restart()
        self.assert_at(5, self.identity)
        self.outcome(200, part(self.identity, 5, b"nt"))
        self.assert_stored()
