"""Tests of :mod:`filebucket.catalogue.inventory`."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.records import FoundFile, Received
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import (
    all_series,
    new_home,
    on_both,
    opened,
    sqlite_of,
)

BUCKET = Bucket((Token(b"x" * 32),), "web01", "web01")


def received(name: str, at: float, series: str = "db-#", size: int = 100) -> Received:
    """A push to that bucket."""
    return Received("web01", series, name, size, "0" * 64, at, request="r")


class PruningQueryCase(SynchronousTestCase):
    """The methods that prune uses."""

    def setUp(self) -> None:
        home = Path(self.mktemp())
        (home / ".filebucket").mkdir(parents=True)
        self.inventory = opened(self, Inventory, home)
        self.journal = opened(self, Journal, home)
        self.view = opened(self, View, home)

    def enter(self, *files: Received) -> None:
        self.journal.record(files, (), lambda key: BUCKET)

    def fates(self) -> dict[str, tuple[str, float | None]]:
        rows = self.view.latest(100)
        return {each.received.name: (each.fate, each.fate_at) for each in rows}

    def ids(self, *names: str) -> list[int]:
        found = (self.journal.find("web01", name) for name in names)
        return [each.id for each in found if each is not None]

    def series(self, what: str) -> list[int]:
        return [getattr(each, what) for each in all_series(self.view)]


@on_both
class PruningQueryTests(PruningQueryCase):
    def test_pages(self) -> None:
        """Newest first, of the same time the one added last; none twice."""
        self.enter(*(received(f"db-{n}", float(n // 3)) for n in range(10)))
        self.enter(received("other", 99.0, "other"))
        ((series, name), _) = self.inventory.series_with_files("web01")
        self.assertEqual("db-#", name)
        for limit in range(1, 12):
            names: list[str] = []
            page = self.inventory.kept_in_series(series, limit=limit)
            while page:
                self.assertLessEqual(len(page), limit)
                names += [each.received.name for each in page]
                before = (page[-1].received.received_at, page[-1].id)
                page = self.inventory.kept_in_series(series, before, limit)
            self.assertEqual([f"db-{n}" for n in range(9, -1, -1)], names)

    def test_series(self) -> None:
        """Series with files, some at a time."""
        self.enter(*(received(f"{n}", 1.0, f"s{n}") for n in "abcd"))
        self.inventory.ended(self.ids("b")[0], "missing", 2.0)
        found: list[str] = []
        after = 0
        while page := self.inventory.series_with_files("web01", after, limit=2):
            self.assertLessEqual(len(page), 2)
            found += [name for _, name in page]
            after = page[-1][0]
        self.assertEqual(["sa", "sc", "sd"], found)
        self.assertEqual([], self.inventory.series_with_files("other"))

    def test_pruned(self) -> None:
        """Totals of a series change when the file is deleted, and not before."""
        self.enter(received("db-1", 1.0), received("db-2", 2.0))
        ids = self.ids("db-1")
        self.inventory.prune(ids, 9.0)
        self.assertEqual([2], self.series("files"))
        (going,) = self.inventory.being_pruned()
        self.assertEqual("db-1", going.received.name)
        self.inventory.pruned(ids)
        self.assertEqual(
            {"db-1": ("pruned", 9.0), "db-2": ("kept", None)}, self.fates()
        )
        self.assertEqual([1], self.series("files"))
        self.assertEqual([100], self.series("bytes"))
        self.assertEqual([], self.inventory.being_pruned())

    def test_spared(self) -> None:
        """As if nothing had happened."""
        self.enter(received("db-1", 1.0))
        self.inventory.prune(self.ids("db-1"), 9.0)
        self.inventory.spared(self.ids("db-1"))
        self.assertEqual({"db-1": ("kept", None)}, self.fates())
        self.assertEqual([], self.inventory.being_pruned())

    def test_missing_while_it_is_pruned(self) -> None:
        """A file that is found missing counts as pruned, so there is no alert."""
        self.enter(received("db-1", 1.0), received("db-2", 2.0))
        self.inventory.prune(self.ids("db-1"), 9.0)
        first, second = self.ids("db-1", "db-2")
        self.assertEqual([second], self.inventory.missed([first, second], 10.0))
        self.assertEqual(
            {"db-1": ("pruned", 9.0), "db-2": ("missing", 10.0)}, self.fates()
        )
        self.assertEqual([1], self.series("missing"))
        self.assertEqual([0], self.series("files"))
        self.assertEqual([0], self.series("bytes"))

    def test_replaced_while_it_is_pruned(self) -> None:
        """A push that takes the name is another file, and stays."""
        self.enter(received("db-1", 1.0))
        ids = self.ids("db-1")
        self.inventory.prune(ids, 9.0)
        self.enter(received("db-1", 5.0))
        self.inventory.pruned(ids)
        self.inventory.spared(ids)
        rows = self.view.latest(9)
        self.assertEqual(["kept", "overwritten"], [each.fate for each in rows])


class PruningInSQLiteTests(PruningQueryCase):
    """The query plans and the durability of SQLite."""

    def test_pages_are_looked_up(self) -> None:
        """Nothing is sorted, however many files there are."""
        said: list[str] = []
        sqlite_of(self.inventory).set_trace_callback(said.append)
        self.inventory.kept_in_series(1, (9.0, 9))
        sqlite_of(self.inventory).set_trace_callback(None)
        plan = [
            text for *_, text in self.inventory._ask(f"EXPLAIN QUERY PLAN {said[0]}")
        ]
        self.assertIn(
            "SEARCH push USING INDEX push_series (series=? AND received_at<?)", plan
        )
        self.assertEqual([], [each for each in plan if "TEMP" in each])

    def test_is_on_the_disk(self) -> None:
        """The intent to delete is durable first; nothing else waits for the disk."""
        said: list[str] = []
        sqlite_of(self.inventory).set_trace_callback(said.append)
        self.enter(received("db-1", 1.0))
        del said[:]
        self.inventory.prune(self.ids("db-1"), 9.0)
        order = [each.split()[0] for each in said if "SELECT" not in each.split()[0]]
        self.assertEqual(
            ["PRAGMA", "PRAGMA", "BEGIN", "UPDATE", "COMMIT", "PRAGMA"], order
        )
        pragmas = [each for each in said if each.startswith("PRAGMA")]
        self.assertEqual(
            [
                "PRAGMA synchronous",
                "PRAGMA synchronous = FULL",
                "PRAGMA synchronous = 1",
            ],
            pragmas,
        )


class OnDiskCase(SynchronousTestCase):
    """The methods for comparing the catalogue with the disk, with many files."""

    def setUp(self) -> None:
        home = new_home(self)
        self.inventory = opened(self, Inventory, home)
        self.journal = opened(self, Journal, home)
        self.view = opened(self, View, home)
        names = [f"{number:02}" for number in range(10)]
        self.journal.record(
            [Received("web01", "s", name, 1, "", 1.0, request=name) for name in names],
            [],
            lambda key: None,
        )
        self.ids = {
            each.received.name: each.id for each in self.view.latest(len(names))
        }


@on_both
class OnDiskTests(OnDiskCase):
    def test_pieces(self) -> None:
        """Sorted by name, for one bucket and one fate."""
        self.inventory.missed([self.ids["03"], self.ids["07"]], 2.0)
        found, after = [], ""
        while rows := self.inventory.rows("web01", "kept", after, 3):
            self.assertLessEqual(len(rows), 3)
            found += [each.name for each in rows]
            after = rows[-1].name
        self.assertEqual(["00", "01", "02", "04", "05", "06", "08", "09"], found)
        missing = self.inventory.rows("web01", "missing", "03")
        self.assertEqual(["07"], [each.name for each in missing])
        self.assertEqual([], self.inventory.rows("web02", "kept"))
        unknown = self.inventory.unknown("web01", ["x", "03", "02", "a"])
        self.assertEqual(["x", "03", "a"], unknown)

    def test_missed_and_back(self) -> None:
        """The files that changed are returned; a replaced file stays missing."""
        ids = [self.ids[name] for name in ("01", "02", "03")]
        self.inventory.ended(ids[0], "pruned", 2.0)
        self.assertEqual(ids[1:], self.inventory.missed(ids, 3.0))
        self.journal.record(
            [Received("web01", "s", "02", 1, "", 4.0, request="x")],
            [],
            lambda key: None,
        )
        self.assertEqual(ids[2:], self.inventory.came_back(ids))
        fates = {each.id: each.fate for each in self.view.latest(20)}
        self.assertEqual(
            ["pruned", "overwritten", "kept"], [fates[each] for each in ids]
        )

    def test_to_verify(self) -> None:
        """Longest unverified first; damaged files at any time."""
        by_name = [self.ids[name] for name in sorted(self.ids)]
        self.inventory.verified([(by_name[0], False, 5.0), (by_name[1], True, 9.0)])
        ids, size = self.inventory.to_verify(["web01", "web02"], 5.0)
        self.assertEqual([*by_name[2:], *by_name[:2]], list(ids))
        self.assertEqual(10, size)
        ids, _ = self.inventory.to_verify(["web01"], 4.0)
        self.assertEqual([*by_name[2:], by_name[1]], list(ids))
        self.assertEqual(([], 0), (list(self.inventory.to_verify([], 5.0)[0]), 0))
        rows = self.inventory.kept_rows([by_name[1], by_name[0], 99])
        self.assertEqual(
            [("web01", "01", 9.0, True), ("web01", "00", 5.0, False)],
            [(key, row.name, row.known_at, row.damaged) for key, row in rows],
        )


class IndexTests(OnDiskCase):
    """The query plans of SQLite."""

    def test_indexes(self) -> None:
        """No query for a piece scans all rows."""
        asked: list[str] = []
        connection = sqlite_of(self.inventory)
        connection.set_trace_callback(asked.append)
        self.inventory.rows("web01", "kept", "03")
        self.inventory.rows("web01", "missing", "03")
        self.inventory.unknown("web01", ["x"])
        self.inventory.kept_rows([1, 2])
        self.inventory.missed([1, 2], 2.0)
        self.inventory.came_back([1, 2])
        connection.set_trace_callback(None)
        plans = [
            detail
            for query in asked
            if query.startswith(("SELECT", "UPDATE"))
            for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {query}")
        ]
        self.assertIn("push_kept", " ".join(plans))
        self.assertIn("push_gone", " ".join(plans))
        self.assertEqual([], [plan for plan in plans if plan.startswith("SCAN push")])


@on_both
class EnterTests(SynchronousTestCase):
    """Files that were found."""

    def test_new_catalogue(self) -> None:
        """The bucket is known from now on, and not since its files were written: no
        restore test is overdue at once. A known bucket stays known.
        """
        home = new_home(self)
        inventory, view = opened(self, Inventory, home), opened(self, View, home)
        bucket = evolve(BUCKET, drill=10.0)
        for now in (1000.0, 2000.0):
            row = received(f"db-{now}", 1.0)
            inventory.enter([FoundFile(row)], now, {"web01": bucket})
            (found,) = view.drills(["web01"], now)
            self.assertEqual((1000.0, True), (found.since, found.has_files))

    def test_series(self) -> None:
        """A new bucket has the configured patterns. After that, those of the catalogue
        count, until the daemon sorts all files of the bucket anew.
        """
        home = new_home(self)
        inventory, view = opened(self, Inventory, home), opened(self, View, home)
        for number, patterns in enumerate((["db-*"], [])):
            found = FoundFile(received(f"db-{number}", 1.0))
            bucket = evolve(BUCKET, series=tuple(patterns))
            inventory.enter([found], 2.0, {"web01": bucket}, str)
        self.assertEqual({"db-*"}, {each.received.series for each in view.latest(9)})
