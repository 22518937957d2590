"""Tests of :mod:`filebucket.catalogue.files`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue import files
from filebucket.catalogue.files import Files
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.model.bucket import Bucket
from filebucket.model.records import Drill, File, Received
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import (
    all_series,
    new_home,
    on_both,
    opened,
    sqlite_of,
)

BUCKET = Bucket((Token(b"x" * 32),), "web01", "web01")


class FilesCase(SynchronousTestCase):
    def setUp(self) -> None:
        home = new_home(self)
        self.files = opened(self, Files, home)
        self.inventory = opened(self, Inventory, home)
        self.journal = opened(self, Journal, home)

    def enter(
        self, *names: str, at: float = 1.0, series: str = "db-#", bucket: str = "web01"
    ) -> None:
        rows = [
            Received(bucket, series, name, 100, "0" * 64, at, request="r")
            for name in names
        ]
        self.journal.record(rows, (), lambda key: BUCKET)

    def names(self, found: Iterable[File]) -> list[str]:
        return [each.received.name for each in found]

    def ask(self, query: str) -> list[Any]:
        return [value for (value,) in self.files._ask(query)]


@on_both
class FilesTests(FilesCase):
    def test_order(self) -> None:
        """By time, then as they were recorded, over the ends of pages."""
        for at in range(4):
            self.enter(*(f"db-{at}{n}" for n in range(3)), at=float(at))
        expected = [f"db-{at}{n}" for at in range(4) for n in range(3)]
        for page in (1, 2, 3, 100):
            self.patch(files, "PAGE", page)
            self.assertEqual(expected, self.names(self.files.oldest_first("web01")))
            found = self.names(self.files.newest_first("web01"))
            self.assertEqual(expected[::-1], found)
            found = self.names(self.files.newest_first("web01", until=2.0))
            self.assertEqual(expected[5::-1], found)

    def test_missed(self) -> None:
        """A file that is there or missing, but not one that prune has deleted."""
        self.enter("kept", "lost", "pruned")
        for name, fate in (("lost", "missing"), ("pruned", "pruned")):
            file = self.files.named("web01", name)
            assert file is not None
            self.inventory.ended(file.id, fate, 2.0)
        found = [
            name
            for name in ("kept", "lost", "pruned", "never")
            if self.files.is_missed("web01", name)
        ]
        self.assertEqual(["kept", "lost"], found)
        self.assertFalse(self.files.is_missed("web02", "kept"))

    def test_series(self) -> None:
        """By its name or a pattern, of this bucket only."""
        self.enter("db-1")
        self.enter("etc", at=2.0, series="etc")
        self.enter("db-9", at=3.0, bucket="web02")
        for series, names in (
            (None, ["db-1", "etc"]),
            ("db-#", ["db-1"]),
            ("[a-e]*", ["db-1", "etc"]),
            ("db", []),
            ("\udcff", []),
        ):
            found = self.files.oldest_first("web01", series=series)
            self.assertEqual(names, self.names(found), series)
        self.assertEqual([], self.names(self.files.newest_first("web03")))

    def test_kept(self) -> None:
        """Files that are gone are left out."""
        self.enter("a", "b")
        (lost,) = self.inventory.rows("web01", "kept", "a")
        self.inventory.missed([lost.id], 5.0)
        self.assertEqual(["a"], self.names(self.files.newest_first("web01")))
        found = self.files.named("web01", "a")
        assert found is not None
        self.assertEqual("a", found.received.name)
        for bucket, name in (("web01", "b"), ("web02", "a"), ("web01", "\udcff")):
            self.assertIsNone(self.files.named(bucket, name))

    def test_drilled(self) -> None:
        """In the series of the file; the time of the last passed test stays."""
        self.enter("db-1", "db-2")
        self.enter("etc", series="etc")
        first, second = self.files.oldest_first("web01", series="db-#")
        for drill, expected in (
            (Drill(first, 5.0, "no"), (5.0, "db-1", "no", None)),
            (Drill(first, 6.0), (6.0, "db-1", None, 6.0)),
            (Drill(second, 7.0, "no"), (7.0, "db-2", "no", 6.0)),
        ):
            self.assertTrue(self.files.drilled(drill))
            db, etc = all_series(self.files)
            found = db.drilled_at, db.drilled_name, db.drill_error, db.restored_at
            self.assertEqual(expected, found)
            self.assertIsNone(etc.drilled_at)

    def test_drilled_and_gone(self) -> None:
        """A file that is gone now was restored; another one with its id was not."""
        self.enter("db-1")
        (file,) = self.files.oldest_first("web01")
        self.inventory.ended(file.id, "pruned", 2.0)
        self.assertTrue(self.files.drilled(Drill(file, 5.0)))
        for received in (
            evolve(file.received, name="db-2"),
            evolve(file.received, sha256="1" * 64),
            evolve(file.received, bucket="web02"),
        ):
            other = Drill(evolve(file, received=received), 6.0)
            self.assertFalse(self.files.drilled(other), received)
        self.assertEqual([5.0], self.ask("SELECT drilled_at FROM series"))


class IndexTests(FilesCase):
    """The query plans of SQLite."""

    def test_index(self) -> None:
        """A page is not the result of sorting all files of a bucket."""
        self.enter("a")
        self.enter("etc", series="etc")
        for series, index in ((None, "bucket"), ("etc", "series"), ("*", "bucket")):
            asked: list[str] = []
            sqlite_of(self.files).set_trace_callback(asked.append)
            list(self.files.newest_first("web01", series, until=5.0))
            sqlite_of(self.files).set_trace_callback(None)
            (query, *_) = [each for each in asked if "ORDER BY received_at" in each]
            plan = self.files._ask(f"EXPLAIN QUERY PLAN {query}")
            steps = " | ".join(step for *_, step in plan)
            self.assertIn(f"push USING INDEX push_{index}", steps)
            for slow in ("TEMP B-TREE", "CORRELATED"):
                self.assertNotIn(slow, steps)
