"""Tests of :mod:`filebucket.catalogue.writer`."""

from __future__ import annotations

import itertools
from typing import Any

from attrs import evolve
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue import journal as journals
from filebucket.catalogue import writer as writers
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.catalogue.writer import LOOK_EVERY, SPACE_EVERY, STEADY, Writer
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept
from filebucket.model.records import Received, Refused
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.schedule import Interval
from filebucket.model.state import State
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import all_series, new_home, opened

NOW = 1_795_000_000.0
DAY = 24 * 3600.0
BUCKET = Bucket((Token(bytes(32)),), "web01", "web01", expect=Interval(3600.0, "1h"))


def received(name: str = "db-1.gz", at: float = NOW) -> Received:
    """A push."""
    return Received("web01", "db-#.gz", name, 7, "ab" * 32, at, request="r")


def refused() -> Refused:
    """A refused push."""
    return Refused("web01", NOW, "x", 7, 405, "exists", "192.0.2.1:9", "q")


class WriterCase(SynchronousTestCase):
    """Has a writer and a home."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.registry = Registry([BUCKET])
        self.writer = Writer(str(self.home), self.registry)
        self.addCleanup(self.writer.close)

    def remove(self) -> None:
        """Remove the catalogue's file."""
        for path in (self.home / ".filebucket").glob("catalogue*"):
            path.unlink()

    def names(self) -> list[str]:
        """The names of all files in the catalogue."""
        view = opened(self, View, self.home)
        return sorted(each.received.name for each in view.latest(100))


class WriteTests(WriterCase):
    """Writing pushes and refusals."""

    def test_entered(self) -> None:
        """And the lists are emptied."""
        pushes, refusals = [received(), received("db-2.gz")], [refused()]
        self.writer.write(pushes, refusals, NOW)
        self.assertEqual(([], []), (pushes, refusals))
        self.assertEqual(["db-1.gz", "db-2.gz"], self.names())
        view = opened(self, View, self.home)
        self.assertEqual([refused()], view.refusals(9))

    def test_is_new(self) -> None:
        """Reported once: when it was created, found, or recreated."""
        self.assertTrue(self.writer.write([], [], NOW))
        self.assertFalse(self.writer.write([], [], NOW))
        self.writer.close()
        self.assertFalse(self.writer.write([], [], NOW))
        self.writer.close()
        other = Writer(str(self.home), self.registry)
        self.addCleanup(other.close)
        self.assertTrue(other.write([], [], NOW))
        other.recheck()
        self.assertTrue(other.write([], [], NOW))

    def test_fails(self) -> None:
        """A push that was not added stays in the list for the next time."""

        def fail(*arguments: object) -> None:
            raise CatalogueError("database or disk is full")

        patch = self.patch(Journal, "record", fail)
        pushes = [received()]
        self.assertRaises(CatalogueError, self.writer.write, pushes, [], NOW)
        self.assertEqual([received()], pushes)
        patch.restore()
        self.writer.write(pushes, [], NOW)
        self.assertEqual([], pushes)
        self.assertEqual(["db-1.gz"], self.names())

    def test_watches(self) -> None:
        """The buckets of the last call, from the next write on."""
        self.writer.write([], [], NOW)
        view = opened(self, View, self.home)
        self.assertEqual([""], [each.name for each in all_series(view)])
        self.registry.replace(BucketIndex([]))
        self.assertEqual([""], [each.name for each in all_series(view)])
        self.writer.write([], [], NOW)
        self.assertEqual([], all_series(view))

    def test_turns(self) -> None:
        """Many series are processed in pieces, with other work in between."""
        seconds = itertools.count(0.0)
        writer = Writer(str(self.home), self.registry, lambda: next(seconds))
        self.addCleanup(writer.close)
        writer.write([], [], NOW)
        while writer.unfinished:
            writer.write([], [], NOW)
        rows = [
            evolve(received(f"{letter}.gz"), series=letter) for letter in "abcdefgh"
        ]
        writer.write(rows, [], NOW)
        self.patch(journals, "AT_ONCE", 2)
        late = evolve(BUCKET, expect=Interval(60.0, "1m"))
        self.registry.replace(BucketIndex([late]))
        turns = 0
        view = opened(self, View, self.home)
        while True:
            writer.write([], [], NOW + 600)
            turns += 1
            self.assertEqual(Kept(7, "ab" * 32), writer.find("web01", "a.gz")[0])
            if not writer.unfinished:
                break
        self.assertEqual(6, turns)
        states = {each.state for each in all_series(view)}
        self.assertEqual({State.LATE}, states)

    def test_changed_midway(self) -> None:
        """Unfinished work starts over, for all buckets."""
        self.writer.write([received()], [], NOW)
        self.patch(writers, "TURN", 0.0)
        odd = evolve(BUCKET, expect=None)
        self.registry.replace(BucketIndex([odd]))
        self.writer.write([], [], NOW)
        self.assertTrue(self.writer.unfinished)
        self.registry.replace(BucketIndex([BUCKET]))
        while self.writer.unfinished:
            self.writer.write([], [], NOW)
        (series,) = all_series(opened(self, View, self.home))
        self.assertEqual(NOW + 3600, series.due)

    def test_taken_away(self) -> None:
        """A new one is created, even if readers have the old one open."""
        self.writer.write([received()], [], NOW)
        self.remove()
        with capturedLogs() as events:
            self.assertTrue(self.writer.write([received("b")], [], NOW))
        self.assertEqual(["catalogue-gone"], [each["event"] for each in events])
        self.assertEqual(["b"], self.names())

    def test_damaged(self) -> None:
        """It is renamed, unchanged."""
        (self.home / FILE).write_bytes(b"no catalogue" * 1000)
        with capturedLogs() as events:
            self.assertTrue(self.writer.write([received()], [], NOW))
        self.assertEqual(["catalogue-damaged"], [each["event"] for each in events])
        self.assertEqual(["db-1.gz"], self.names())
        aside = self.home / f"{FILE}.damaged"
        self.assertEqual(b"no catalogue" * 1000, aside.read_bytes())

    def test_read_error(self) -> None:
        """SQLite reports a read that failed as damage. If it succeeds the next time,
        the catalogue is kept.
        """
        failures: list[CatalogueError] = []
        real = Journal.record

        def record(journal: Journal, *given: Any) -> None:
            if failures:
                raise failures.pop()
            real(journal, *given)

        self.patch(Journal, "record", record)
        for count in (1, 2):
            failures += [CatalogueError("malformed", damaged=True)] * count
            with capturedLogs() as events:
                self.writer.write([received(f"db-{count}.gz")], [], NOW)
            self.assertEqual(count > 1, bool(events))
            self.assertEqual([f"db-{count}.gz"], self.names())

    def test_cannot_be_put_aside(self) -> None:
        """The catalogue then counts as not writable."""
        (self.home / FILE).write_bytes(b"no catalogue" * 1000)
        (self.home / f"{FILE}.damaged" / "x").mkdir(parents=True)
        pushes = [received()]
        with capturedLogs(), self.assertRaises(CatalogueError) as caught:
            self.writer.write(pushes, [], NOW)
        self.assertFalse(caught.exception.damaged)
        self.assertEqual([received()], pushes)

    def test_the_next_one_fails(self) -> None:
        """It was renamed, and the new one cannot be written: it is closed."""
        (self.home / FILE).write_bytes(b"no catalogue" * 1000)

        def fail(*arguments: object) -> None:
            raise CatalogueError("database or disk is full")

        self.patch(Journal, "record", fail)
        with capturedLogs():
            self.assertRaises(CatalogueError, self.writer.write, [received()], [], NOW)
        self.assertTrue((self.home / f"{FILE}.damaged").exists())
        self.assertRaises(CatalogueError, self.writer.untold, 9)

    def test_space(self) -> None:
        """Sampled from time to time."""
        self.writer.write([], [], NOW)
        self.writer.write([], [], NOW + SPACE_EVERY - 1)
        self.writer.write([], [], NOW + SPACE_EVERY)
        view = opened(self, View, self.home)
        times = [each.at for each in view.space(0)]
        self.assertEqual([NOW, NOW + SPACE_EVERY], times)


class ClockTests(WriterCase):
    """A clock that was ahead."""

    def last(self) -> float | None:
        (series,) = all_series(opened(self, View, self.home))
        return series.last_at

    def test_steady(self) -> None:
        """It is trusted only after it has run steadily for long."""
        self.writer.write([received(at=NOW + 9 * DAY)], [], NOW)
        now = NOW
        with capturedLogs() as events:
            while now < NOW + STEADY - LOOK_EVERY:
                now += LOOK_EVERY
                self.writer.write([], [], now)
                self.assertEqual(NOW + 9 * DAY, self.last())
            now += LOOK_EVERY
            self.writer.write([], [], now)
        self.assertEqual(now, self.last())
        self.assertEqual(["clock"], [each["event"] for each in events])

    def test_set(self) -> None:
        """After a jump, that time starts over."""
        self.writer.write([received(at=NOW + 9 * DAY)], [], NOW)
        now = NOW
        for step in range(int(2 * STEADY / LOOK_EVERY)):
            # Set back repeatedly.
            now += -LOOK_EVERY if step % 50 == 49 else LOOK_EVERY
            self.writer.write([], [], now)
        self.assertEqual(NOW + 9 * DAY, self.last())


class AskTests(WriterCase):
    """Reads between writes."""

    def test_not_open(self) -> None:
        """Before the first write, and after one that failed."""
        for ask in (
            lambda: self.writer.find("web01", "x"),
            lambda: self.writer.untold(9),
            self.writer.told_problems,
        ):
            with self.assertRaisesRegex(CatalogueError, "^cannot be opened$"):
                ask()

    def test_find(self) -> None:
        """The file that should exist."""
        self.writer.write([received()], [], NOW)
        found = self.writer.find("web01", "db-1.gz")
        self.assertEqual((Kept(7, "ab" * 32), False), found)
        self.assertEqual((None, False), self.writer.find("web01", "db-2.gz"))
        view = opened(self, View, self.home)
        (file,) = view.latest(1)
        inventory = opened(self, Inventory, self.home)
        inventory.prune([file.id], NOW)
        self.assertEqual((None, True), self.writer.find("web01", "db-1.gz"))
        inventory.pruned([file.id])
        self.assertEqual((None, False), self.writer.find("web01", "db-1.gz"))

    def test_told(self) -> None:
        """Until the operator was told."""
        self.writer.write([], [], NOW)
        self.assertEqual([], self.writer.untold(9))
        self.writer.write([], [], NOW + 3600)
        (series,) = self.writer.untold(9)
        self.assertEqual((State.LATE, State.NEVER), (series.state, series.told))
        self.writer.mark_told(series, State.LATE, NOW)
        self.assertEqual([], self.writer.untold(9))
        self.writer.close()
        with self.assertRaisesRegex(CatalogueError, "^cannot be opened$"):
            self.writer.mark_told(series, State.FRESH, NOW)
