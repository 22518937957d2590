"""Tests of :mod:`filebucket.catalogue.view`."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.files import Files
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.rows import _SELECT_SERIES
from filebucket.catalogue.sqlite import SQLite
from filebucket.catalogue.view import _DRILLS, _WORST, View
from filebucket.model.bucket import Bucket
from filebucket.model.records import (
    Drill,
    Drills,
    Failed,
    File,
    FoundFile,
    Received,
    Refused,
    Series,
)
from filebucket.model.schedule import Interval
from filebucket.model.state import WORST_FIRST, State
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import (
    all_series,
    new_home,
    on_both,
    opened,
    sqlite_of,
)

NOW = 1_800_000_000.0
HOUR = 3600.0


class ManySeriesCase(SynchronousTestCase):
    """Has three buckets, one of them with many series that a client created."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.inventory = opened(self, Inventory, self.home)
        self.journal = opened(self, Journal, self.home)
        self.view = opened(self, View, self.home)
        self.buckets = [
            Bucket(
                (Token(bytes([index]) * 32),),
                name,
                name,
                expect=Interval(26 * HOUR, "26h"),
                grow_alert=2.0,
            )
            for index, name in enumerate(("many", "few", "none"))
        ]
        names = [f"s{chr(97 + index % 26)}{index // 26}" for index in range(60)]
        self.record(
            *(
                each
                for index, name in enumerate(names)
                for each in rows("many", name, 100, 80, 60, 40 if index % 2 else 20)
            ),
            *rows("many", "shrunk", *(30, 20, 10, 2), last=100),
            *rows("many", "grown", *(30, 20, 10, 2), last=9000),
            *rows("many", "lost", 3),
            *rows("few", "x", 1),
            *rows("unknown", "x", 1),
        )
        list(self.journal.watch(self.buckets, str, NOW))
        file = self.journal.find("many", "lost3")
        assert file is not None
        self.inventory.verified([(file.id, True, NOW)])

    def push(self, key: str, series: str, *hours: int, last: int = 1000) -> None:
        """Push this many hours ago."""
        self.record(*rows(key, series, *hours, last=last))

    def record(self, *pushes: Received) -> None:
        known = {each.key: each for each in self.buckets}
        self.journal.record(pushes, [], known.get)


def rows(key: str, series: str, *hours: int, last: int = 1000) -> Iterator[Received]:
    """Pushes of this many hours ago.

    :param last: size of the last one
    """
    for each in hours:
        size = last if each == hours[-1] else 1000
        name, at = f"{series}{each}", NOW - each * HOUR
        yield Received(key, series, name, size, "ab" * 32, at, request="r")


@on_both
class ManySeriesTests(ManySeriesCase):
    """All series are counted, and the worst ones shown."""

    def test_tallies(self) -> None:
        """The totals equal the sum of all series, at any time."""
        for now in (NOW - 10 * HOUR, NOW, NOW + 10 * HOUR, NOW + 1000 * HOUR):
            found = {each.bucket: each for each in self.view.tallies(now)}
            keys = {each.bucket for each in all_series(self.view)}
            self.assertEqual({"many", "few", "unknown", "none"}, keys)
            self.assertEqual(keys, set(found))
            for key, tally in found.items():
                series = all_series(self.view, key)
                states = [
                    State.LATE if each.due <= now else each.state for each in series
                ]
                self.assertEqual(
                    {state: states.count(state) for state in states}, dict(tally.states)
                )
                self.assertEqual(sum(each.files for each in series), tally.files)
                self.assertEqual(sum(each.bytes for each in series), tally.bytes)
                self.assertEqual(sum(each.damaged for each in series), tally.damaged)
                self.assertEqual(sum(each.missing for each in series), tally.missing)
                came = [each.last_at for each in series if each.last_at is not None]
                self.assertEqual(max(came, default=None), tally.last_at)
                self.assertEqual(min(each.due for each in series), tally.due)

    def test_failed(self) -> None:
        """Series without a file, and the whole bucket, are counted and shown."""
        few = self.buckets[1]
        for series in ("", "invented"):
            failed = Failed("few", series, NOW - HOUR, "exited with 1")
            self.journal.fail([failed], {"few": few}.get, NOW)
        worst = self.view.worst(["few"], NOW, 9)["few"]
        self.assertEqual(["", "invented", "x"], [each.name for each in worst])
        self.assertEqual("exited with 1", worst[0].failed_text)
        tallies = {each.bucket: each.states for each in self.view.tallies(NOW)}
        self.assertEqual({State.FAILED: 2, State.FRESH: 1}, dict(+tallies["few"]))

    def test_worst(self) -> None:
        """Lost files first, then by the state at that time, then by name."""

        def badness(series: Series) -> tuple[bool, int, str]:
            state = State.LATE if series.due <= now else series.state
            return not series.damaged, WORST_FIRST.index(state), series.name

        for now in (NOW - 10 * HOUR, NOW, NOW + 10 * HOUR):
            series = sorted(all_series(self.view, "many"), key=badness)
            for limit in (0, 1, 20, 1000):
                found = self.view.worst(["nowhere", "many", "few"], now, limit)
                self.assertEqual(["nowhere", "many", "few"], [*found])
                self.assertEqual(series[:limit], found["many"])
                few = [each.name for each in found["few"]]
                self.assertEqual((["x"][:limit], []), (few, found["nowhere"]))

    def test_plan(self) -> None:
        """SQLite looks at each series of a bucket once, not once for each of them."""
        if isinstance(self.view._connection, SQLite):
            query = f"EXPLAIN QUERY PLAN {_SELECT_SERIES} {_WORST}"
            plan = [row[3] for row in self.view._ask(query, "[]", NOW, 9)]
            for table in ("series", "worst"):
                self.assertIn(
                    f"SEARCH {table} USING INTEGER PRIMARY KEY (rowid=?)", plan
                )


class HistoryCase(ManySeriesCase):
    """Pushes and refusals, by bucket, series and time."""

    def names(self, files: list[File]) -> list[str]:
        return [each.received.name for each in files]

    def refuse(self, key: str, *hours: int) -> None:
        """Refuse a push this many hours ago."""
        for each in hours:
            refused = Refused(key, NOW - each * HOUR, "x", 0, 405, "no", "::1", "r")
            self.journal.record([], [refused], lambda key: None)


@on_both
class HistoryTests(HistoryCase):
    def test_of_series(self) -> None:
        """By the exact name, or by a pattern."""
        for series, expected in (
            ("shrunk", ["shrunk2", "shrunk10", "shrunk20", "shrunk30"]),
            ("shr*", ["shrunk2", "shrunk10", "shrunk20", "shrunk30"]),
            ("[!s]*t", ["lost3"]),
            ("x", ["x1", "x1"]),
            ("Shrunk", []),
        ):
            self.assertEqual(expected, self.names(self.view.latest(9, None, series)))
        self.assertEqual(["x1"], self.names(self.view.latest(9, "few", "x")))
        self.assertEqual([], self.view.latest(9, "few", "shrunk"))
        self.assertEqual(["shrunk2"], self.names(self.view.latest(1, None, "shrunk")))

    def test_series_with_the_name_of_a_pattern(self) -> None:
        self.push("few", "[a-z].gz", 1)
        found = self.view.latest(9, None, "[a-z].gz")
        self.assertEqual(["[a-z].gz1"], self.names(found))

    def test_since(self) -> None:
        """The earliest time is included."""
        found = self.view.latest(9, None, "shrunk", NOW - 10 * HOUR)
        self.assertEqual(["shrunk2", "shrunk10"], self.names(found))
        self.refuse("many", 1, 3)
        self.refuse("few", 2)
        refusals = self.view.refusals(9, since=NOW - 2 * HOUR)
        self.assertEqual(
            [("few", 2.0), ("many", 1.0)],
            [(each.bucket, (NOW - each.at) / HOUR) for each in refusals],
        )
        self.assertEqual(1, len(self.view.refusals(9, "many", NOW - 2 * HOUR)))

    def test_between(self) -> None:
        """In the order in which they were recorded, whatever their times."""
        push, refusal = self.view.newest()
        self.assertEqual(0, refusal)
        self.push("few", "y", 5, 9)
        self.push("many", "y", 7)
        self.refuse("few", 4, 8)
        self.refuse("many", 6)
        self.assertEqual((push + 3, 3), self.view.newest())
        between = self.view.pushes_between
        names = self.names(between(push, push + 3))
        self.assertEqual(["y5", "y9", "y7"], names)
        self.assertEqual(["y9"], self.names(between(push + 1, push + 2)))
        self.assertEqual(["y7"], self.names(between(push, push + 3, "many")))
        self.assertEqual([], between(push, push + 3, None, "z"))
        found = between(push, push + 3, None, "y", NOW - 7 * HOUR)
        self.assertEqual(["y5", "y7"], self.names(found))
        refusals = self.view.refusals_between
        for given, expected in (
            ((0, 3), [4, 8, 6]),
            ((1, 2), [8]),
            ((0, 3, "many"), [6]),
            ((0, 3, None, NOW - 7 * HOUR), [4, 6]),
        ):
            hours = [(NOW - each.at) / HOUR for each in refusals(*given)]
            self.assertEqual(expected, hours)

    def test_sizes(self) -> None:
        """The latest of each series, oldest first; those with one time as added."""
        self.push("few", "y", 3, 2)
        ids = {each.name: each.id for each in all_series(self.view, "few")}
        x, y = ids["x"], ids["y"]
        for size, hours in ((6, 0), (7, 0), (8, 9999)):
            at = NOW + 60 - hours * HOUR
            row = Received("few", "x", f"x{size}", size, "ab", at, 1.0, f"c{size}")
            self.journal.record([row], [], lambda key: None)
        for limit, expected in ((1, [7]), (2, [6, 7]), (9, [8, 1000, 6, 7])):
            found = self.view.sizes([y, x, 0], limit)
            self.assertEqual(
                {x: (expected, "c7"), y: ([1000, 1000][:limit], None), 0: ([], None)},
                found,
            )
        self.assertEqual({}, self.view.sizes([], 2))

    def test_snapshot(self) -> None:
        """Reads in the block do not see later writes."""
        before = self.view.newest()
        with self.view.snapshot():
            self.assertEqual(before, self.view.newest())
            self.push("few", "y", 5)
            self.assertEqual(before, self.view.newest())
        self.assertNotEqual(before, self.view.newest())


class HistoryInSQLiteTests(HistoryCase):
    """The query plans and transactions of SQLite."""

    def test_between_reads_no_more(self) -> None:
        """It uses the ids alone, since it is called every second."""
        asked: list[str] = []
        sqlite_of(self.view).set_trace_callback(asked.append)
        self.view.pushes_between(1, 2, "many", "y", NOW)
        self.view.refusals_between(1, 2, "many", NOW)
        sqlite_of(self.view).set_trace_callback(None)
        for query, table in zip(asked, ("push", "refusal"), strict=True):
            plan = [row[3] for row in self.view._ask(f"EXPLAIN QUERY PLAN {query}")]
            expected = "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
            self.assertIn(f"SEARCH {table} {expected}", plan)
            self.assertFalse([each for each in plan if "TEMP B-TREE" in each], plan)

    def test_snapshot_fails(self) -> None:
        """It ends with the error of the block."""
        with self.assertRaises(CatalogueError), self.view.snapshot():
            self.view._ask("SELECT * FROM nowhere")
        self.assertFalse(sqlite_of(self.view).in_transaction)


@on_both
class DrillTests(ManySeriesCase):
    """Restore tests."""

    def setUp(self) -> None:
        super().setUp()
        self.files = opened(self, Files, self.home)

    def drill(self, name: str, hours: float, error: str | None = None) -> None:
        """Test a file of the bucket ``many``."""
        file = self.files.named("many", name)
        assert file is not None
        self.assertTrue(self.files.drilled(Drill(file, NOW - hours * HOUR, error)))

    def drills(self, *keys: str) -> dict[str, Drills]:
        return {each.bucket: each for each in self.view.drills(keys, NOW)}

    def test_none(self) -> None:
        """Only buckets that need one; without files there is nothing to test."""
        self.assertEqual({}, self.drills())
        if isinstance(self.view._connection, SQLite):
            rows = self.view._ask(f"EXPLAIN QUERY PLAN {_DRILLS}", NOW, "[]")
            plan = [row[3] for row in rows]
            self.assertIn("SCAN series USING INDEX series_drilled", plan)
        found = self.drills("few", "none", "nowhere")
        self.assertEqual(
            {"few": (True, None, 0, None), "none": (False, None, 0, None)},
            {
                key: (each.has_files, each.passed_at, each.failed, each.last)
                for key, each in found.items()
            },
        )

    def test_since(self) -> None:
        """The first push, or when the bucket was known, if that was later."""
        # Since it is expected.
        self.assertEqual(NOW, self.drills("none")["none"].since)
        self.push("none", "x", -5, -6)
        self.assertEqual(NOW + 5 * HOUR, self.drills("none")["none"].since)
        self.assertEqual(NOW - HOUR, self.drills("few")["few"].since)

    def test_passed(self) -> None:
        """That of any series; a time in the future is wrong."""
        self.drill("sa020", 9)
        self.drill("sb040", 5)
        self.drill("sc020", -48)
        found = self.drills()["many"]
        self.assertEqual((NOW - 5 * HOUR, 0), (found.passed_at, found.failed))

    def test_failed(self) -> None:
        """The last of them; not one that passed since, or has no file any more."""
        self.drill("sa020", 9)
        self.drill("sa020", 8, "older")
        self.drill("sb040", 7, "newer")
        self.drill("sc020", 6, "passed since")
        self.drill("sc020", 5)
        self.drill("lost3", 4, "pruned since")
        file = self.files.named("many", "lost3")
        assert file is not None
        self.inventory.ended(file.id, "pruned", NOW)
        found = self.drills()["many"]
        self.assertEqual(NOW - 5 * HOUR, found.passed_at)
        self.assertEqual(
            (2, ("sb0", NOW - 7 * HOUR, "newer")), (found.failed, found.last)
        )


@on_both
class ActivityTests(ManySeriesCase):
    def test_found_files(self) -> None:
        """They may be older than the row of their bucket."""
        old = Received("none", "x", "x", 1, "cd" * 32, NOW - 90 * HOUR)
        by_key = {each.key: each for each in self.buckets}
        self.inventory.enter([FoundFile(old)], NOW, by_key)
        (found,) = [each for each in self.view.activity(0.0) if each.bucket == "none"]
        self.assertEqual(NOW - 90 * HOUR, found.since)
