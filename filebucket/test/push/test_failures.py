"""Tests of :mod:`filebucket.push.failures`, without any protocol."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from filebucket.base.errors import Refusal
from filebucket.model.bucket import Bucket
from filebucket.model.push import Outcome
from filebucket.push import failures
from filebucket.push.failures import AT_ONCE, INTERVAL, MOST_SIZE, Failures
from filebucket.push.interfaces import IIncoming
from filebucket.test.kit.fakes import FakeHooks
from filebucket.test.kit.uploads import BUCKET, SHA256, UploadCase, push


class FailuresTests(UploadCase):
    """Reports that backups failed."""

    def setUp(self) -> None:
        super().setUp()
        self.failures = Failures(self.uploads, self.clock)

    def receive(self, incoming: IIncoming, bucket: Bucket | None = BUCKET) -> Outcome:
        assert bucket is not None
        outcome = self.successResultOf(self.failures.receive(bucket, incoming))
        self.assertIs(outcome, self.observed[-1])
        return outcome

    def statuses(self, count: int, bucket: Bucket = BUCKET) -> list[int]:
        return [self.receive(push(), bucket).status for _ in range(count)]

    def test_accepted(self) -> None:
        """The text is in the outcome; nothing is stored, and no hook runs."""
        outcome = self.receive(push("pg_dump: änd\n".encode(), b"\xffx"))
        self.assertEqual(
            (202, None, "db.gz", "pg_dump: änd\n\ufffdx", 16),
            (
                outcome.status,
                outcome.reason,
                outcome.name,
                outcome.failed,
                outcome.size,
            ),
        )
        self.assertEqual({}, self.store.files)
        self.assertEqual(FakeHooks(), self.hooks)

    def test_whole_bucket(self) -> None:
        outcome = self.receive(push(named=False, called=""))
        self.assertEqual((202, None), (outcome.status, outcome.name))

    def test_empty(self) -> None:
        """A command may fail without a word."""
        outcome = self.receive(push(b""))
        self.assertEqual((202, ""), (outcome.status, outcome.failed))

    def test_order(self) -> None:
        """Of several faults, the first in the documented order is the answer."""
        unread = RuntimeError("read")
        wrong = Refusal(415, "encoded")
        retired = evolve(BUCKET, retired=True)
        self.assert_refused(403, push(unread, wrong=wrong), retired)
        self.assert_refused(415, push(unread, wrong=wrong, called=".."))
        self.assert_refused(400, push(unread, called="..", length=MOST_SIZE + 1))
        self.assert_refused(413, push(unread, length=MOST_SIZE + 1))
        self.statuses(AT_ONCE)
        self.assert_refused(429, push(unread, revoked=True))
        self.clock.advance(2 * INTERVAL)
        self.assert_refused(403, push(revoked=True, sha256="00" * 32))
        self.assert_refused(422, push(sha256="00" * 32))
        self.assertEqual([], self.flushLoggedErrors(RuntimeError))

    def test_digest(self) -> None:
        self.assertEqual(202, self.receive(push(sha256=SHA256)).status)

    def test_largest(self) -> None:
        """The limit applies to a body of unknown length, too."""
        half = b"x" * (MOST_SIZE // 2)
        self.assertEqual(202, self.receive(push(half, half)).status)
        self.assertEqual(202, self.receive(push(half, half, length=None)).status)
        self.assert_refused(413, push(half, half, b"x", length=None))

    def test_incomplete(self) -> None:
        """A report that does not come whole counts for nothing."""
        self.assert_refused(400, push(b"pg_", Refusal(400, "ended early"), length=9))

    def test_rate(self) -> None:
        """Some at once, and then one in each interval; each bucket has its own."""
        expected = [202] * AT_ONCE + [429]
        self.assertEqual(expected, self.statuses(AT_ONCE + 1))
        self.assertEqual({"Retry-After": "1"}, self.observed[-1].headers)
        other = evolve(BUCKET, name="web02")
        self.assertEqual([202], self.statuses(1, other))
        self.clock.advance(INTERVAL)
        self.assertEqual([202, 429], self.statuses(2))
        self.clock.advance(100 * AT_ONCE * INTERVAL)
        self.assertEqual(expected, self.statuses(AT_ONCE + 1))

    def test_forgets(self) -> None:
        """Buckets that sent nothing lately take no memory."""
        self.patch(failures, "MOST_IDLE", 3)
        buckets = [evolve(BUCKET, name=f"web{number}") for number in range(9)]
        for bucket in buckets:
            self.statuses(1, bucket)
        self.assertEqual(9, len(self.failures._calm_at))
        self.clock.advance(INTERVAL)
        self.statuses(1)
        self.assertEqual({BUCKET.key}, set(self.failures._calm_at))

    def test_is_no_file(self) -> None:
        """While it is received, it is not shown as a file."""
        gate: Deferred[None] = Deferred()

        async def slow() -> Any:
            await gate
            yield [b"late"]

        done = self.failures.receive(BUCKET, evolve(push(), chunks=slow()))
        self.assertEqual(1, self.uploads.under_way)
        self.assertEqual([], self.uploads.receiving())
        gate.callback(None)
        self.assertEqual("late", self.successResultOf(done).failed)
        self.assertEqual(0, self.uploads.under_way)
