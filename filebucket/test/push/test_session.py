"""Tests of :mod:`filebucket.push.session`."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.model.unfinished import Unfinished
from filebucket.push.interfaces import Action, Resume
from filebucket.push.session import (
    Index,
    Session,
    Turn,
    has_all,
    is_findable,
    length_of,
    lost,
    newer,
    promises_of,
    unknown,
)
from filebucket.test.kit.uploads import request

UPLOAD = Unfinished(
    id="0" * 32,
    bucket="web01",
    token="",
    name="db.gz",
    request="1",
    created_at=0.0,
    touched_at=0.0,
    sha256="ab" * 32,
    offset=3,
)


def part(*chunks: bytes, declared: bool = True, **asked: Any) -> Any:
    """A request that appends at offset 3, and what it asks."""
    resume = Resume(Action.APPEND, UPLOAD.id, 3, **asked)
    asking = request(resume, *chunks)
    return asking if declared else evolve(asking, length=None), resume


class LengthTests(SynchronousTestCase):
    """:func:`length_of`."""

    def refused(self, upload: Unfinished, *asked: Any) -> str:
        refusal = self.assertRaises(Refusal, length_of, upload, *asked)
        self.assertEqual(400, refusal.status)
        return str(refusal.reason)

    def test_known(self) -> None:
        known = evolve(UPLOAD, length=7)
        for upload, asked in (
            (known, part(b"1234")),
            (known, part(b"1")),
            (known, part(b"1234", declared=False)),
            (UPLOAD, part(b"1", length=7)),
            (UPLOAD, part(b"1234", last=True)),
            (known, part(b"1234", last=True, length=7)),
        ):
            self.assertEqual(7, length_of(upload, *asked))

    def test_unknown(self) -> None:
        """The last part tells the length only if its own is declared."""
        for asked in (part(b"1"), part(b"1", declared=False, last=True)):
            self.assertIsNone(length_of(UPLOAD, *asked))

    def test_contradictions(self) -> None:
        known = evolve(UPLOAD, length=7)
        for asked, lengths in (
            (part(b"1", length=8), "7, 8"),
            (part(b"1", last=True), "4, 7"),
        ):
            self.assertEqual(
                f"contradictory lengths: {lengths}", self.refused(known, *asked)
            )

    def test_too_long(self) -> None:
        known = evolve(UPLOAD, length=7)
        reason = "the data exceeds the upload's length of 7 bytes"
        self.assertEqual(reason, self.refused(known, *part(b"12345")))
        reason = "the data exceeds the upload's length of 2 bytes"
        late = part(b"1", declared=False, length=2)
        self.assertEqual(reason, self.refused(UPLOAD, *late))


class PromiseTests(SynchronousTestCase):
    """:func:`promises_of`."""

    def test_added(self) -> None:
        digest = bytes(32)
        self.assertEqual(
            {"sha256": digest.hex()}, promises_of(UPLOAD, {"sha256": digest})
        )

    def test_repeated(self) -> None:
        digests = {"sha512": bytes(64)}
        upload = evolve(UPLOAD, promised={"sha512": bytes(64).hex()})
        self.assertEqual(upload.promised, promises_of(upload, digests))

    def test_refused(self) -> None:
        """A digest that would need bytes that are gone, or a contradiction."""
        upload = evolve(UPLOAD, promised={"sha256": bytes(32).hex()})
        for digests in ({"sha512": bytes(64)}, {"sha256": b"1" * 32}):
            refusal = self.assertRaises(Refusal, promises_of, upload, digests)
            self.assertEqual(400, refusal.status)


class IndexTests(SynchronousTestCase):
    """Uploads are found by their id and by their bucket."""

    def test_found(self) -> None:
        index = Index()
        first, second, other = (
            Session(evolve(UPLOAD, id=identity, bucket=bucket), bucket)
            for identity, bucket in (("1", "web01"), ("2", "web01"), ("3", "db01"))
        )
        for each in (first, second, other):
            index.add(each)
        self.assertEqual([first, second, other], list(index.all))
        self.assertEqual([first, second], list(index.of("web01")))
        self.assertIs(other, index.find("3"))
        for each in (first, other, other):
            index.remove(each)
        self.assertEqual([second], list(index.all))
        self.assertEqual([second], list(index.of("web01")))
        self.assertEqual([], list(index.of("db01")))
        self.assertIsNone(index.find("3"))


class SessionTests(SynchronousTestCase):
    """:class:`Session`, and the rest."""

    def test_leave(self) -> None:
        """Only the request that has the turn gives it away, and only once."""
        session = Session(UPLOAD, "web01")
        first, second = request(Resume(Action.LOOK)), request(Resume(Action.LOOK))
        self.successResultOf(session.turn.acquire())
        session.current = first
        waits = session.turn.acquire()
        session.leave(second)
        self.assertNoResult(waits)
        session.leave(first)
        self.successResultOf(waits)
        session.current = second
        session.leave(first)
        self.assertTrue(session.turn.locked)

    def test_turn(self) -> None:
        """Of several requests that wait, the newest one gets the turn."""
        turn = Turn()
        self.successResultOf(turn.acquire())
        first, second = turn.acquire(), turn.acquire()
        self.assertEqual(409, self.failureResultOf(first, Refusal).value.status)
        self.assertNoResult(second)
        turn.release()
        self.successResultOf(second)
        self.assertTrue(turn.locked)
        turn.release()
        self.assertFalse(turn.locked)

    def test_facts(self) -> None:
        digest = {"sha256": "ab" * 32}
        self.assertEqual(
            [False, False, False, True],
            [
                is_findable(evolve(UPLOAD, **each))
                for each in (
                    {},
                    {"told": 7},
                    {"promised": digest},
                    {"told": 7, "promised": digest},
                )
            ],
        )
        self.assertEqual(
            [False, False, True],
            [has_all(evolve(UPLOAD, length=each)) for each in (None, 4, 3)],
        )

    def test_refusals(self) -> None:
        self.assertEqual(
            [404, 410, 409], [each().status for each in (unknown, lost, newer)]
        )
