"""Tests of :mod:`filebucket.catalogue.recorder`."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import BusyError, Refusal
from filebucket.catalogue import jobs, journal, recorder, sqlite, writer
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.interfaces import IInventory, IView
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import KEPT_REFUSALS, MOST_INVENTED, Journal
from filebucket.catalogue.recorder import (
    BATCH,
    FIND_TIMEOUT,
    FLUSH_TIMEOUT,
    GATHER,
    REINDEX_AGAIN,
    RETRY,
    Recorder,
)
from filebucket.catalogue.view import View
from filebucket.catalogue.writer import LOOK_EVERY, SPACE_EVERY, Writer
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.model.records import File, HookRun
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.schedule import Interval
from filebucket.model.state import State
from filebucket.model.token import Token, token_digest
from filebucket.model.unfinished import Unfinished
from filebucket.test.kit.catalogue import all_series, new_home, opened
from filebucket.test.kit.fakes import AtOnce
from filebucket.test.kit.server import TOKEN

SHA256 = "ab" * 32
BUCKET = Bucket(
    (Token(token_digest(TOKEN.encode())),),
    "web01",
    "web01",
    expect=Interval(3600.0, "1h"),
)


def outcome(name: str | None = "db-1.gz", **given: Any) -> Outcome:
    """The outcome of a push that was published."""
    return Outcome(
        **{
            "request_id": "0a1b",
            "bucket": "web01",
            "client": "192.0.2.1:9",
            "name": name,
            "size": 7,
            "sha256": SHA256,
            "status": 200,
            "seconds": 0.5,
            "config": BUCKET,
            **given,
        }
    )


def broken(*_: Any) -> bool:
    """Write nothing."""
    raise CatalogueError("disk full")


def refused(**given: Any) -> Outcome:
    """The outcome of a refused push."""
    return outcome(**{"status": 405, "reason": "exists", "sha256": None, **given})


class RecorderCase(SynchronousTestCase):
    """Has a recorder for a home, whose threads are the test's own."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.file = self.home / FILE
        self.clock = Clock()
        self.clock.advance(1_795_000_000)
        self.pools: list[AtOnce] = []
        self.searches: list[Sequence[Bucket]] = []
        self.search: Callable[[IInventory], str] = lambda catalogue: ""
        self.changes = 0
        self.clock_set = 0.0
        self.recorder = self.make()

    def make(self, term: Callable[[], int] = lambda: 1) -> Recorder:
        self.pools = []
        self.registry = Registry([BUCKET])
        recorder = Recorder(
            self.clock,
            self.pool,
            str(self.home),
            self.registry,
            self.reindex,
            lambda: self.clock.seconds() + self.clock_set,
            term,
        )
        recorder.on_change(self.changed)
        return recorder

    def pool(self, most: int) -> AtOnce:
        self.assertEqual(1, most)
        self.pools.append(AtOnce(self.clock))
        return self.pools[-1]

    def reindex(
        self,
        catalogue: IInventory,
        buckets: Sequence[Bucket],
        stopped: Callable[[], bool],
    ) -> str:
        self.searches.append(buckets)
        return self.search(catalogue)

    def changed(self) -> None:
        self.changes += 1

    def start(self) -> None:
        self.recorder.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        if self.recorder.running:
            self.successResultOf(self.recorder.stopService())

    def read(self) -> View:
        """The catalogue as readers see it."""
        view = View.open(str(self.home), create=False)
        self.addCleanup(view.close)
        return view

    def names(self) -> list[str]:
        """The names of all files in the catalogue."""
        return [each.received.name for each in self.kept()]

    def kept(self) -> list[File]:
        """The files that should exist, in the order of their receipt."""
        latest = self.read().latest(10_000, "web01")
        return sorted(
            (each for each in latest if each.fate == "kept"), key=lambda each: each.id
        )

    def said(self, events: Sequence[LogEvent]) -> list[tuple[str, str]]:
        return [(each["event"], formatEvent(each)) for each in events]


class HookTests(RecorderCase):
    """Which hooks fail."""

    def setUp(self) -> None:
        super().setUp()
        self.start()
        self.written: list[HookRun] = []

        def note(journal: Journal, runs: Iterable[HookRun]) -> None:
            self.written += runs
            original(journal, runs)

        original = Journal.note_hooks
        self.patch(Journal, "note_hooks", note)

    def ran(self, *reasons: str | None, bucket: str | None = "web01") -> list[str]:
        """Record runs, and return the reasons of the failures that the catalogue has
        then.
        """
        for reason in reasons:
            now = self.clock.seconds()
            self.recorder.hook_ran(HookRun("post-push", bucket, now, reason))
        self.clock.advance(GATHER)
        return [each.reason for each in self.read().hook_failures(9)]

    def test_last_run(self) -> None:
        self.assertEqual(["b"], self.ran(None, "a", "b"))
        self.assertEqual([], self.ran("c", None))
        self.assertEqual(["d"], self.ran("d"))
        self.assertEqual([], self.ran(None, bucket=None))
        self.assertEqual(["e"], self.ran("e"))
        self.assertEqual([], self.ran(None, bucket=None))

    def test_order(self) -> None:
        """A hook that fails again after it was removed."""
        self.ran(None, bucket=None)
        for bucket, reason in (("web01", "a"), (None, None), ("web01", "b")):
            self.recorder.hook_ran(HookRun("post-push", bucket, 1.0, reason))
        self.assertEqual(["b"], self.ran())

    def test_successes(self) -> None:
        """Only the first is written, and the first after a reload."""
        for _ in range(100):
            self.ran(None)
            self.ran(None, bucket=None)
        self.assertEqual(2, len(self.written))
        self.registry.replace(BucketIndex([BUCKET]))
        self.ran(None, None)
        self.assertEqual(3, len(self.written))

    def test_cannot_be_written(self) -> None:
        """Runs wait in their order, one of each hook and bucket."""
        self.ran("a", bucket="web03")
        write = self.patch(Writer, "write", broken)
        self.ran("a")
        self.ran(None, "b")
        for _ in range(100):
            self.ran("c", bucket="web02")
        self.ran("d")
        write.restore()
        self.clock.advance(RETRY)
        self.assertEqual({"a", "c", "d"}, set(self.ran()))
        self.assertEqual(3, len(self.written))


class EnterTests(RecorderCase):
    """Adding pushes."""

    def test_push(self) -> None:
        """The complete row."""
        self.start()
        self.recorder.observe(outcome(overwrote=True, pre_push=2, post_push=0))
        self.clock.advance(GATHER)
        (file,) = self.read().latest(2)
        received = file.received
        self.assertEqual(
            ("web01", "db-#.gz", "db-1.gz", 7, SHA256, 1_795_000_000.0, 0.5),
            (
                received.bucket,
                received.series,
                received.name,
                received.size,
                received.sha256,
                received.received_at,
                received.seconds,
            ),
        )
        self.assertEqual(
            ("192.0.2.1:9", True, 2, 0, "0a1b"),
            (
                received.client,
                received.overwrote,
                received.pre_push,
                received.post_push,
                received.request,
            ),
        )
        self.assertEqual("kept", file.fate)

    def test_slow_post_push(self) -> None:
        """Of two pushes that overwrote each other the later one counts, even if it ends
        first: in one batch, and in two, whatever the clock did.
        """
        self.start()
        first = outcome(
            "a", sha256="11" * 32, published_at=1_795_000_003.0, superseded=True
        )
        last = outcome("a", sha256="22" * 32, published_at=1_795_000_002.0)
        self.recorder.observe(last)
        self.recorder.observe(first)
        self.clock.advance(GATHER)
        for each in (last, first):
            self.recorder.observe(evolve(each, name="b"))
            self.clock.advance(GATHER)
        kept = {each.received.name: each.received.sha256 for each in self.kept()}
        self.assertEqual({"a": "22" * 32, "b": "22" * 32}, kept)
        files = [each.files for each in all_series(self.read(), "web01")]
        self.assertEqual([1, 1], files)

    def test_nothing_waits(self) -> None:
        """Outcomes are written later, and together."""
        self.start()
        for number in range(10):
            self.recorder.observe(outcome(f"f{number}"))
        self.assertEqual([], self.names())
        self.assertEqual(10, self.recorder.health.waiting)
        self.clock.advance(GATHER)
        self.assertEqual(10, len(self.names()))
        self.assertEqual(0, self.recorder.health.waiting)

    def test_many(self) -> None:
        """In one batch after the other."""
        self.start()
        for number in range(2 * BATCH + 1):
            self.recorder.observe(outcome(f"f{number}"))
        self.clock.pump([GATHER, 0, GATHER])
        (series,) = all_series(self.read())
        self.assertEqual(2 * BATCH + 1, series.files)

    def test_before_the_start(self) -> None:
        """Early outcomes are not lost."""
        self.recorder.observe(outcome())
        self.start()
        self.assertEqual(["db-1.gz"], self.names())

    def test_repeated(self) -> None:
        """Nothing was stored, so nothing is added."""
        self.start()
        self.recorder.observe(outcome())
        self.recorder.observe(outcome(repeated=True))
        self.clock.advance(GATHER)
        self.assertEqual(1, len(self.read().latest(9)))

    def test_refusals(self) -> None:
        """The latest of each bucket, and those without a token; a limited number."""
        self.start()
        for number in range(KEPT_REFUSALS + 50):
            self.recorder.observe(refused(size=number))
        self.recorder.observe(refused(config=None, bucket="-", name=None, status=403))
        self.clock.advance(GATHER)
        for number in range(20):
            self.recorder.observe(refused(size=1000 + number))
        self.clock.advance(GATHER)
        kept = self.read().refusals(1000, "web01")
        self.assertEqual(KEPT_REFUSALS, len(kept))
        self.assertEqual((1019, 70), (kept[0].size, kept[-1].size))
        (stranger,) = self.read().refusals(1000, "")
        self.assertEqual(
            (403, "exists", "192.0.2.1:9", "0a1b"),
            (stranger.status, stranger.reason, stranger.client, stranger.request),
        )

    def test_token_for_a_name(self) -> None:
        """The name of its series does not contain it."""
        self.start()
        self.recorder.observe(outcome(f"{TOKEN}.gz"))
        self.clock.advance(GATHER)
        (series,) = all_series(self.read())
        self.assertEqual("web#.gz", series.name)

    def test_stop(self) -> None:
        """All that waits is written first."""
        self.start()
        for number in range(BATCH + 5):
            self.recorder.observe(outcome(f"f{number}"))
        self.stop()
        self.assertEqual(BATCH + 5, all_series(self.read())[0].files)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_bug_at_the_stop(self) -> None:
        """It is logged, and does not delay the stop."""
        self.start()
        self.recorder.on_change(lambda: 1 / 0)
        self.recorder.observe(outcome())
        self.stop()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(["db-1.gz"], self.names())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_changed(self) -> None:
        """Listeners are called."""
        self.start()
        before = self.changes
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        self.assertLess(before, self.changes)


class WatchTests(RecorderCase):
    """Watched series."""

    def state(self) -> State:
        (series,) = all_series(self.read(), "web01")
        return series.state

    def test_time_passes(self) -> None:
        """Lateness is detected within a minute."""
        self.start()
        self.assertEqual(State.NEVER, self.state())
        self.clock.advance(3600 - LOOK_EVERY)
        self.assertEqual(State.NEVER, self.state())
        self.clock.pump([LOOK_EVERY, LOOK_EVERY, 0])
        self.assertEqual(State.LATE, self.state())
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        self.assertEqual(State.FRESH, self.state())

    def unfinished(self, **given: Any) -> Unfinished:
        now = self.clock.seconds() + self.clock_set
        upload = Unfinished(
            *("00" * 16, "web01", "ab" * 32, "db-2.gz", "0a1c", now, now, SHA256)
        )
        return evolve(upload, **given)

    def test_abandoned(self) -> None:
        """A push that never ended, of a bucket that is there."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.pump([GATHER, 5])
        self.recorder.abandoned(self.unfinished(bucket="gone"))
        self.recorder.abandoned(self.unfinished(name="other"))
        self.clock.advance(GATHER)
        self.assertEqual(State.FRESH, self.state())
        self.recorder.abandoned(self.unfinished())
        self.clock.advance(GATHER)
        self.assertEqual(State.UNFINISHED, self.state())

    def test_failed(self) -> None:
        """A report that a backup failed; tokens in it are masked."""
        self.start()
        text = f"curl https://h/{TOKEN}/x\nfailed"
        self.recorder.observe(outcome(status=202, sha256=None, failed=text))
        self.recorder.observe(outcome(None, status=202, sha256=None, failed=""))
        self.clock.advance(GATHER)
        whole, series = all_series(self.read())
        self.assertEqual(("", ""), (whole.name, whole.failed_text))
        self.assertEqual(
            (State.FAILED, 1_795_000_000.0, "curl https://h/web01/x\nfailed"),
            (series.state, series.failed_at, series.failed_text),
        )
        self.recorder.observe(outcome(status=429, reason="too many", failed=None))
        self.recorder.observe(outcome(published_at=1_795_000_002.0))
        self.clock.advance(GATHER)
        (series,) = all_series(self.read())
        self.assertEqual(State.FRESH, series.state)

    def test_failed_is_kept(self) -> None:
        """A limited number for each bucket, until the catalogue can be written."""
        self.start()
        with capturedLogs():
            real = self.patch(Writer, "_write", broken)
            for number in range(2 * MOST_INVENTED):
                name = "x" * (number + 1)
                self.recorder.observe(outcome(name, status=202, failed="it failed"))
                self.clock.advance(1.0)
            real.restore()
            self.clock.advance(RETRY)
        names = {each.name for each in all_series(self.read())}
        latest = {
            "x" * (number + 1) for number in range(MOST_INVENTED, 2 * MOST_INVENTED)
        }
        self.assertEqual({*latest, ""}, names)

    def test_abandoned_is_kept(self) -> None:
        """Until the catalogue can be written, or the daemon stops."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.pump([GATHER, 5])
        write = self.patch(Writer, "write", broken)
        with capturedLogs():
            self.recorder.abandoned(self.unfinished())
            self.clock.advance(GATHER)
            self.assertEqual(State.FRESH, self.state())
            write.restore()
            self.clock.advance(RETRY)
        self.assertEqual(State.UNFINISHED, self.state())

    def test_abandoned_at_a_stop(self) -> None:
        self.start()
        self.recorder.observe(outcome())
        self.clock.pump([GATHER, 5])
        self.recorder.abandoned(self.unfinished())
        self.successResultOf(self.recorder.stopService())
        self.assertEqual(State.UNFINISHED, self.state())

    def test_reload(self) -> None:
        """The new schedule applies to earlier pushes, too."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.pump([GATHER, 600])
        self.registry.replace(
            BucketIndex([evolve(BUCKET, expect=Interval(300.0, "5m"))])
        )
        self.clock.advance(0)
        self.assertEqual(State.LATE, self.state())
        self.registry.replace(BucketIndex([evolve(BUCKET, expect=None)]))
        self.clock.advance(0)
        self.assertEqual(State.FRESH, self.state())

    def assert_sorted(self) -> None:
        """Pushes that end just before a reload, or began before it, are in the new
        series.
        """
        self.recorder.observe(outcome("db-2.gz"))
        sorts = evolve(BUCKET, series=("db-*",), expect=Interval(300.0, "5m"))
        self.registry.replace(BucketIndex([sorts]))
        self.clock.advance(0)
        self.recorder.observe(outcome("db-3.gz"))
        self.clock.advance(GATHER)
        self.assertEqual({"db-*"}, {each.received.series for each in self.kept()})
        names = [each.name for each in all_series(self.read(), "web01")]
        self.assertEqual(["db-*"], names)

    def test_reload_of_series(self) -> None:
        self.start()
        self.recorder.observe(outcome("db-1.gz"))
        self.clock.advance(GATHER)
        self.assert_sorted()

    def test_reload_before_the_first_push(self) -> None:
        self.start()
        self.assert_sorted()

    def test_reload_of_many(self) -> None:
        """In turns, between which other work runs; to the end."""
        self.start()
        for number in range(50):
            self.recorder.observe(outcome(f"{chr(0x4E00 + number)}.gz"))
        self.clock.pump([GATHER, 600])
        self.patch(journal, "AT_ONCE", 10)
        self.patch(writer, "TURN", 0.0)
        late = evolve(BUCKET, expect=Interval(300.0, "5m"))
        self.registry.replace(BucketIndex([late]))
        before = self.changes
        self.clock.advance(0)
        self.assertEqual(1 + 50 / 10 + 1, self.changes - before)
        states = {each.state for each in all_series(self.read(), "web01")}
        self.assertEqual({State.LATE}, states)

    def test_space(self) -> None:
        """The free space is sampled every ten minutes."""
        self.start()
        for _ in range(3):
            self.clock.pump([LOOK_EVERY] * int(SPACE_EVERY / LOOK_EVERY) + [0])
        found = self.read().space(0)
        self.assertEqual(4, len(found))
        self.assertEqual(SPACE_EVERY, found[1].at - found[0].at)
        self.assertLess(0, found[0].free)
        self.assertLess(found[0].free, found[0].total)

    def test_search(self) -> None:
        """At the start the catalogue is reconciled with the disk, once."""
        self.search = lambda catalogue: "1 entered"
        with capturedLogs() as events:
            self.start()
            self.clock.pump([LOOK_EVERY] * 3)
        self.assertEqual([(BUCKET,)], self.searches)
        self.assertEqual([("reindexed", "catalogue: 1 entered")], self.said(events))


class FailureTests(RecorderCase):
    """Pushes go on, whatever happens to the catalogue."""

    def lock(self) -> sqlite3.Connection:
        """Let another process hold a write transaction."""
        other = sqlite3.connect(self.file, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        return other

    def patch_timeout(self) -> None:
        """Do not wait for other transactions."""
        self.patch(sqlite, "BUSY_TIMEOUT", 0.0)

    def test_cannot_be_written(self) -> None:
        """Logged once, retried, and written in the end."""
        self.patch_timeout()
        self.start()
        other = self.lock()
        with capturedLogs() as events:
            self.recorder.observe(outcome("a"))
            self.clock.advance(GATHER)
            self.recorder.observe(outcome("b"))
            self.clock.pump([GATHER, RETRY, RETRY])
            self.assertEqual(2, self.recorder.health.waiting)
            self.assertEqual("database is locked", self.recorder.health.error)
            other.execute("ROLLBACK")
            self.clock.pump([RETRY, 0])
        self.assertEqual(["a", "b"], self.names())
        self.assertIsNone(self.recorder.health.error)
        said = (
            "catalogue: cannot be written (pushes are not affected): database is locked"
        )
        again = "catalogue: can be written again"
        self.assertEqual(
            [("catalogue-failed", said), ("catalogue", again)], self.said(events)
        )

    def test_fails_half_way(self) -> None:
        """A push is not added again, even if a later step failed."""
        self.start()

        def fail(*args: Any) -> None:
            raise CatalogueError("database or disk is full")

        patch = self.patch(Journal, "pass_time", fail)
        self.recorder.observe(outcome())
        self.recorder.observe(refused())
        self.clock.advance(GATHER)
        self.assertIn("full", self.recorder.health.error or "")
        patch.restore()
        self.clock.pump([RETRY, 0])
        self.assertIsNone(self.recorder.health.error)
        self.assertEqual(1, len(self.read().latest(9)))
        self.assertEqual(1, len(self.read().refusals(9)))

    def test_denied(self) -> None:
        """Clients with an expired token are listed with its bucket, with the same
        limit.
        """
        self.start()
        for _ in range(3):
            for number in range(KEPT_REFUSALS):
                self.recorder.observe(
                    refused(size=number, status=403, reason="no", cause="expired")
                )
            self.clock.advance(GATHER)
        kept = self.read().refusals(1000)
        self.assertEqual(KEPT_REFUSALS, len(kept))
        self.assertEqual(
            {("web01", "no: expired")}, {(e.bucket, e.reason) for e in kept}
        )

    def test_refusals_in_order(self) -> None:
        """Refusals of one batch are in the order in which they happened."""
        self.start()
        for number in range(6):
            config = BUCKET if number % 2 else None
            self.recorder.observe(refused(size=number, config=config))
            self.clock.advance(GATHER / 10)
        self.clock.advance(GATHER)
        kept = [each.size for each in self.read().refusals(10)]
        self.assertEqual([5, 4, 3, 2, 1, 0], kept)

    def test_refusals_wait(self) -> None:
        """They are kept if they cannot be written, up to the limit."""
        self.patch_timeout()
        self.start()
        other = self.lock()
        for number in range(KEPT_REFUSALS):
            self.recorder.observe(refused(size=number))
        self.clock.advance(GATHER)
        self.recorder.observe(refused(size=1000))
        self.clock.advance(RETRY)
        other.execute("ROLLBACK")
        self.clock.pump([RETRY, 0])
        kept = [each.size for each in self.read().refusals(1000)]
        self.assertEqual([1000, *range(KEPT_REFUSALS - 1, 0, -1)], kept)

    def test_clock_is_set_back(self) -> None:
        """It does not delay a retry."""
        self.start()
        self.recorder.observe(outcome("a"))
        self.clock_set -= 7200
        self.recorder.observe(outcome("b"))
        self.clock.advance(GATHER)
        self.assertEqual(["a", "b"], self.names())

    def test_too_many_wait(self) -> None:
        """The oldest are dropped, and found on the disk."""
        self.patch(recorder, "MOST_WAITING", 3)
        self.patch_timeout()
        self.start()
        self.clock.advance(1)
        self.searches.clear()
        other = self.lock()
        for number in range(5):
            self.recorder.observe(outcome(f"f{number}"))
            self.clock.advance(GATHER)
        self.assertEqual((3, 2), (self.recorder.health.waiting, self.dropped))
        other.execute("ROLLBACK")
        self.clock.pump([RETRY, 0])
        self.assertEqual(["f2", "f3", "f4"], self.names())
        self.assertEqual(1, len(self.searches))

    @property
    def dropped(self) -> int:
        return self.recorder.health.dropped

    def test_bug(self) -> None:
        """A write that fails by a bug is not retried forever."""
        self.start()
        self.clock.advance(1)
        self.searches.clear()
        self.recorder.observe(outcome(size=2**80))
        self.recorder.observe(outcome("b", client=object()))
        self.clock.advance(GATHER)
        self.assertEqual(1, len(self.flushLoggedErrors()))
        self.recorder.observe(outcome("c"))
        self.clock.pump([RETRY, 0])
        self.assertEqual(["c"], self.names())
        self.assertEqual((2, 1), (self.dropped, len(self.searches)))

    def test_taken_away(self) -> None:
        """It is rebuilt from the disk; its log files were removed, too."""
        self.start()
        self.recorder.observe(outcome("a"))
        self.clock.advance(GATHER)
        self.searches.clear()
        for path in (self.home / ".filebucket").glob("catalogue*"):
            path.unlink()
        with capturedLogs() as events:
            self.recorder.observe(outcome("b"))
            self.clock.advance(GATHER)
        self.assertEqual(["b"], self.names())
        self.assertEqual(1, len(self.searches))
        self.assertEqual(
            ["catalogue-gone", "reindexed"], [each["event"] for each in events]
        )
        self.assertEqual("ok", self.integrity())

    def test_taken_away_without_its_log(self) -> None:
        """The old log is not applied to the new file."""
        self.start()
        self.recorder.observe(outcome("a"))
        self.clock.advance(GATHER)
        self.file.unlink()
        # Of either kind, as the filesystem needs it.
        logs = [f"{self.file}{suffix}" for suffix in ("-wal", "-journal")]
        self.assertTrue(any(map(os.path.exists, logs)))
        self.recorder.observe(outcome("b"))
        self.clock.advance(GATHER)
        self.assertEqual(["b"], self.names())
        self.assertEqual("ok", self.integrity())

    def integrity(self) -> str:
        other = sqlite3.connect(self.file)
        self.addCleanup(other.close)
        ((found,),) = other.execute("PRAGMA integrity_check")
        return str(found)

    def assert_made_anew(self, events: Sequence[LogEvent]) -> None:
        self.assertEqual(
            ["catalogue-damaged", "reindexed"], [each["event"] for each in events]
        )
        self.assertTrue(Path(f"{self.file}.damaged").exists())
        self.assertEqual(1, len(self.searches))
        self.assertEqual("ok", self.integrity())

    def test_damaged_at_the_start(self) -> None:
        """It is renamed and rebuilt."""
        self.file.write_bytes(b"no catalogue, but as long as one" * 1000)
        with capturedLogs() as events:
            self.start()
        self.assert_made_anew(events)

    def test_rotten_at_the_start(self) -> None:
        """Also if only a check of the whole file finds the damage."""
        self.start()
        for number in range(200):
            self.recorder.observe(outcome(f"f{number}"))
        self.stop()
        self.searches.clear()
        with self.file.open("r+b") as file:
            for page in range(3, os.path.getsize(self.file) // 4096):
                file.seek(page * 4096)
                file.write(b"\xff" * 64)
        self.recorder = self.make()
        with capturedLogs() as events:
            self.start()
        self.assert_made_anew(events)
        self.recorder.observe(outcome("new"))
        self.clock.advance(GATHER)
        self.assertEqual(["new"], self.names())

    def test_no_folder(self) -> None:
        """Nothing is created if there is no home."""
        (self.home / ".filebucket").rmdir()
        with capturedLogs() as events:
            self.start()
            self.recorder.observe(outcome())
            self.clock.advance(RETRY)
        self.assertEqual(["catalogue-failed"], [each["event"] for each in events])
        self.assertIn("No such file", self.recorder.health.error or "")
        (self.home / ".filebucket").mkdir()
        self.clock.pump([RETRY, 0])
        self.assertEqual(["db-1.gz"], self.names())

    def test_newer(self) -> None:
        """A catalogue of a newer daemon is not touched."""
        other = sqlite3.connect(self.file)
        other.execute("PRAGMA user_version = 1000")
        other.close()
        before = self.file.read_bytes()
        self.start()
        self.recorder.observe(outcome())
        self.clock.pump([RETRY, 0])
        error = self.recorder.health.error or ""
        self.assertIn("made by a newer file-bucket (version 1000)", error)
        self.assertIn("upgrading.rst", error)
        self.stop()
        self.assertEqual(before, self.file.read_bytes())

    def test_search_fails(self) -> None:
        """It is logged, and retried at the next write."""

        def fail(catalogue: IInventory) -> str:
            raise CatalogueError("it is away")

        self.search = fail
        with capturedLogs() as events:
            self.start()
        self.assertEqual(
            [
                (
                    "catalogue-failed",
                    "catalogue: cannot add the files on disk: it is away",
                )
            ],
            self.said(events),
        )
        self.search = lambda catalogue: ""
        self.clock.pump([LOOK_EVERY, 0])
        self.assertEqual(2, len(self.searches))

    def test_search_elsewhere(self) -> None:
        """While another daemon searches, this one waits for its turn."""
        real, turns = jobs.job, [BusyError("it runs")] * 3

        def busy(*args: Any) -> Any:
            if turns:
                raise turns.pop()
            return real(*args)

        self.patch(recorder, "job", busy)
        with capturedLogs() as events:
            self.start()
        self.assertEqual(([], []), (self.searches, self.said(events)))
        # The first look for late backups tries again, too.
        self.clock.pump([0, 0, REINDEX_AGAIN, 0])
        self.assertEqual((0, []), (len(turns), self.searches))
        self.clock.pump([REINDEX_AGAIN, 0])
        self.assertEqual(1, len(self.searches))

    def test_stop_before_its_turn(self) -> None:
        """A daemon that stops while another one searches leaves no timer."""

        def busy(*args: Any) -> Any:
            raise BusyError("it runs")

        self.patch(recorder, "job", busy)
        self.start()
        self.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_follower(self) -> None:
        """A daemon that does not lead records its pushes, and leaves all other work to
        the one that leads.
        """
        term = 0
        self.recorder = self.make(lambda: term)
        self.start()
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        self.assertEqual((["db-1.gz"], []), (self.names(), self.searches))
        self.clock.pump([LOOK_EVERY] * 70)
        (series,) = all_series(self.read())
        self.assertEqual(State.FRESH, series.state)
        term = 1
        self.recorder.reindex()
        self.clock.pump([0, GATHER])
        (series,) = all_series(self.read())
        self.assertEqual((State.LATE, 1), (series.state, len(self.searches)))

    def test_damage_that_is_found_elsewhere(self) -> None:
        """A reader may find damage that the writer does not."""
        for find in (self.find_by_search, self.find_by_reading):
            with capturedLogs() as events:
                find()
                self.rot()
                self.clock.pump([LOOK_EVERY] * 3)
                self.recorder.observe(outcome("new"))
                self.clock.advance(GATHER)
            said = [each["event"] for each in events]
            self.assertEqual(1, said.count("catalogue-damaged"), said)
            self.assertEqual(["new"], self.names())
            self.stop()
            self.recorder = self.make()

    def find_by_search(self) -> None:
        def fail(catalogue: IInventory) -> str:
            raise CatalogueError("malformed", damaged=True)

        def fail_at_first(catalogue: IInventory) -> str:
            self.search = fail
            raise CatalogueError("it is away")

        self.search = fail_at_first
        self.start()
        self.fill()

    def find_by_reading(self) -> None:
        def fail(view: IView) -> None:
            raise CatalogueError("malformed", damaged=True)

        self.start()
        self.fill()
        self.failureResultOf(self.recorder.read(fail), CatalogueError)

    def test_not_damaged(self) -> None:
        """A reader's error alone does not rename it; while that persists, the check is
        not repeated all the time.
        """

        def fail(catalogue: IInventory) -> str:
            raise CatalogueError("malformed", damaged=True)

        self.search = fail
        self.start()
        self.clock.advance(GATHER)
        before = len(self.searches)
        for number in range(10):
            self.recorder.observe(outcome(f"f{number}"))
            self.clock.advance(GATHER)
        self.assertEqual(before, len(self.searches))
        self.clock.pump([LOOK_EVERY, GATHER])
        self.assertEqual(before + 1, len(self.searches))
        self.assertEqual(10, len(self.names()))

    def fill(self) -> None:
        """Add enough rows for pages that no query reads."""
        for number in range(200):
            self.recorder.observe(outcome(f"f{number}"))
        self.clock.advance(GATHER)

    def rot(self) -> None:
        self.read().check()
        with closing(sqlite3.connect(self.file)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            ((page,),) = other.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'push_being_pruned'"
            )
        with self.file.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 64)

    def test_stop_while_the_disk_hangs(self) -> None:
        """It ends within its timeouts."""
        self.start()
        self.pools[0].hangs = True
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        self.pools[1].hangs = True
        reading = self.recorder.read(lambda view: view.tallies(0))
        stopped = self.recorder.stopService()
        self.assertNoResult(stopped)
        self.clock.pump([FLUSH_TIMEOUT, FLUSH_TIMEOUT])
        self.successResultOf(stopped)
        for each in self.pools:
            each.go_on()
        self.assertEqual(1, len(self.successResultOf(reading)))

    def test_read_lets_the_reactor_run(self) -> None:
        """The interpreter switches threads more often meanwhile, and not afterwards."""
        usual = sys.getswitchinterval()
        self.start()
        self.fill()
        interval = self.recorder.read(lambda view: sys.getswitchinterval())
        self.assertLess(self.successResultOf(interval), usual / 2)
        self.assertAlmostEqual(usual, sys.getswitchinterval())

    def test_stop_after_a_read(self) -> None:
        """The catalogue is one file again, as a copy of it must be."""
        self.patch(sqlite, "filesystem_type", lambda fd: "ext4")
        self.start()
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        self.successResultOf(self.recorder.read(lambda view: view.tallies(0)))
        self.assertTrue(Path(f"{self.file}-wal").exists())
        self.stop()
        self.assertFalse(Path(f"{self.file}-wal").exists())
        self.assertEqual(["db-1.gz"], self.names())


class FindTests(RecorderCase):
    """Looking up a file."""

    def find(self, name: str, published: Kept | None = None) -> Deferred[Kept | None]:
        found = self.recorder.find(BUCKET, name, published)
        return Deferred.fromCoroutine(found)

    def test_find(self) -> None:
        """One that is added, and one that waits."""
        self.start()
        self.assertIsNone(self.successResultOf(self.find("db-1.gz")))
        self.recorder.observe(outcome())
        for _ in range(2):
            found = self.successResultOf(self.find("db-1.gz"))
            self.assertEqual(Kept(7, SHA256), found)
            self.clock.advance(GATHER)

    def test_latest(self) -> None:
        """The one that exists now."""
        self.start()
        self.recorder.observe(outcome())
        self.recorder.observe(outcome(size=8, overwrote=True))
        for _ in range(2):
            found = self.successResultOf(self.find("db-1.gz"))
            self.assertEqual(Kept(8, SHA256), found)
            self.clock.advance(GATHER)

    def test_superseded(self) -> None:
        """Not one that was replaced before it ended."""
        self.start()
        self.recorder.observe(outcome(size=8, overwrote=True))
        self.recorder.observe(outcome(superseded=True))
        for _ in range(2):
            found = self.successResultOf(self.find("db-1.gz"))
            self.assertEqual(Kept(8, SHA256), found)
            self.clock.advance(GATHER)

    def test_gone(self) -> None:
        """Not one that was pruned."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        (file,) = self.read().latest(1)
        inventory = opened(self, Inventory, self.home)
        inventory.ended(file.id, "pruned", 0.0)
        self.assertIsNone(self.successResultOf(self.find("db-1.gz")))

    def test_damaged(self) -> None:
        """A damaged file is reported as such until a push has healed it."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        (file,) = self.read().latest(1)
        inventory = opened(self, Inventory, self.home)
        inventory.verified([(file.id, True, 1_795_000_010.0)])
        found = self.successResultOf(self.find("db-1.gz"))
        self.assertEqual(Kept(7, SHA256, damaged=True), found)
        self.recorder.observe(
            outcome(repeated=True, healed=True, published_at=1_795_000_020.0)
        )
        for _ in range(2):
            found = self.successResultOf(self.find("db-1.gz"))
            self.assertEqual(Kept(7, SHA256), found)
            self.clock.advance(GATHER)

    def test_about_to_be_pruned(self) -> None:
        """It counts as gone."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        (file,) = self.read().latest(1)
        inventory = opened(self, Inventory, self.home)
        inventory.prune([file.id], 0.0)
        self.assertIsNone(self.successResultOf(self.find("db-1.gz")))
        inventory.spared([file.id])
        found = self.successResultOf(self.find("db-1.gz"))
        self.assertEqual(Kept(7, SHA256), found)

    def test_published(self) -> None:
        """If the store tells what it has, the catalogue only knows of damage: it may
        not have the push of another daemon yet.
        """
        self.start()
        other = Kept(8, "cd" * 32)
        for name in ("_reindexing", "_reindex_later"):
            patch = self.patch(self.recorder, name, True)
            found = self.successResultOf(self.find("db-1.gz", other))
            self.assertEqual(other, found)
            patch.restore()
        self.recorder.observe(outcome())
        for _ in range(2):
            found = self.successResultOf(self.find("db-1.gz", other))
            self.assertEqual(other, found)
            self.clock.advance(GATHER)
        (file,) = self.read().latest(1)
        inventory = opened(self, Inventory, self.home)
        inventory.verified([(file.id, True, 1_795_000_010.0)])
        same = Kept(7, SHA256)
        found = self.successResultOf(self.find("db-1.gz", same))
        self.assertEqual(Kept(7, SHA256, damaged=True), found)
        inventory.prune([file.id], 0.0)
        self.assertIsNone(self.successResultOf(self.find("db-1.gz", same)))

    def test_missing(self) -> None:
        """It counts as gone, too."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        (file,) = self.read().latest(1)
        opened(self, Inventory, self.home).missed([file.id], 0.0)
        self.assertIsNone(self.successResultOf(self.find("db-1.gz")))

    def assert_unknown(self, found: Deferred[Kept | None]) -> None:
        """The client gets 503, and may retry."""
        refusal = self.failureResultOf(found, Refusal).value
        self.assertEqual(503, refusal.status)
        self.assertIn("Retry-After", refusal.headers)

    def test_cannot_be_known(self) -> None:
        """Then no client gets a wrong answer, or waits for long."""
        self.assert_unknown(self.find("db-1.gz"))
        self.start()
        self.pools[0].hangs = True
        found = self.find("db-1.gz")
        self.assertNoResult(found)
        self.clock.advance(FIND_TIMEOUT)
        self.assert_unknown(found)
        self.pools[0].go_on()

    def test_not_entered_yet(self) -> None:
        """A file without a row may have been pushed, until the disk was searched."""
        self.start()
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        for name in ("_reindexing", "_reindex_wanted", "_reindex_later"):
            patch = self.patch(self.recorder, name, True)
            self.assert_unknown(self.find("db-2.gz"))
            found = self.successResultOf(self.find("db-1.gz"))
            self.assertEqual(Kept(7, SHA256), found)
            patch.restore()
        self.assertIsNone(self.successResultOf(self.find("db-2.gz")))

    def test_search_failed(self) -> None:
        """The same until a search of the disk has succeeded."""

        def fail(catalogue: IInventory) -> str:
            raise CatalogueError("it is away")

        self.search = fail
        self.start()
        self.assert_unknown(self.find("db-1.gz"))
        self.search = lambda catalogue: ""
        self.clock.pump([LOOK_EVERY, 0])
        self.assertIsNone(self.successResultOf(self.find("db-1.gz")))

    def test_bug(self) -> None:
        """It is logged."""
        self.start()
        self.patch(Writer, "find", lambda *arguments: 1 / 0)
        self.assert_unknown(self.find("db-1.gz"))
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertIn("division", failure.getErrorMessage())


class ReadTests(RecorderCase):
    """Readers."""

    def test_read(self) -> None:
        """Beside the writer, and after the catalogue was rebuilt."""
        self.start()
        self.pools[0].hangs = True
        self.assertEqual(1, len(self.successResultOf(self.read_tallies())))
        self.pools[0].go_on()
        for path in (self.home / ".filebucket").glob("catalogue*"):
            path.unlink()
        self.failureResultOf(self.read_tallies(), CatalogueError)
        self.recorder.observe(outcome())
        self.clock.advance(GATHER)
        self.assertEqual(1, len(self.successResultOf(self.read_tallies())))

    def read_tallies(self) -> Deferred[Any]:
        return self.recorder.read(lambda view: view.tallies(0))
