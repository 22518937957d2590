"""Tests of :mod:`filebucket.catalogue.copies`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.copies import Copies
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import COPIES, View
from filebucket.model.bucket import Bucket
from filebucket.model.records import Copy, Received
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import new_home, on_both, opened

BUCKET = Bucket((Token(b"x" * 32),), "web01", "web01")
FAR = "https://far.example"


class CopiesCase(SynchronousTestCase):
    def setUp(self) -> None:
        home = new_home(self)
        self.copies = opened(self, Copies, home)
        self.inventory = opened(self, Inventory, home)
        self.journal = opened(self, Journal, home)
        self.view = opened(self, View, home)

    def push(self, name: str, at: float, size: int = 100) -> None:
        row = Received("web01", "db", name, size, "0" * 64, at, request="r")
        self.journal.record([row], (), lambda key: BUCKET)

    def waiting_since(self) -> float | None:
        (found,) = self.view.copies()
        return found.waiting_since


@on_both
class CopiesTests(CopiesCase):
    def test_recorded(self) -> None:
        """The last result of each target and bucket."""
        self.assertIsNone(self.copies.copied_until(FAR, "web01"))
        self.copies.copied(FAR, "web01", None, 1.0, "no", new=False)
        self.assertEqual([], self.view.copies())
        self.copies.copied(FAR, "web01", 2.0, 3.0, None)
        self.copies.copied(FAR, "web02", None, 6.0, "no", new=False)
        self.copies.copied("https://other", "web01", 7.0, 8.0, None)
        self.assertEqual(
            [
                Copy(FAR, "web01", 2.0, 3.0),
                Copy(FAR, "web02", None, 6.0, "no"),
                Copy("https://other", "web01", 7.0, 8.0),
            ],
            self.view.copies(),
        )
        self.assertEqual(2.0, self.copies.copied_until(FAR, "web01"))
        self.assertEqual(sorted([FAR, "https://other"]), self.copies.targets())
        self.assertEqual(2, self.copies.forget(FAR))
        self.assertEqual(0, self.copies.forget(FAR))
        self.assertEqual(["https://other"], self.copies.targets())
        (left,) = self.view.copies()
        self.assertEqual("https://other", left.target)

    def test_going_on(self) -> None:
        """Only the time changes."""
        self.copies.copying(FAR, "web01", 2.0, 3.0)
        self.assertEqual([Copy(FAR, "web01", 2.0, 3.0)], self.view.copies())
        self.copies.copied(FAR, "web01", 5.0, 6.0, "no")
        for until in (4.0, 7.0, None):
            self.copies.copying(FAR, "web01", until, 9.0)
            found = [Copy(FAR, "web01", until, 6.0, "no")]
            self.assertEqual(found, self.view.copies())

    def test_waiting(self) -> None:
        """The first file that was received later, and is there."""
        self.copies.copied(FAR, "web01", 0.5, 1.0, None)
        self.assertIsNone(self.waiting_since())
        for at in (1.0, 2.0, 3.0, 4.0, 5.0):
            self.push(f"db-{at}", at)
        self.assertEqual(1.0, self.waiting_since())
        self.copies.copied(FAR, "web01", None, 1.0, None)
        self.assertEqual(1.0, self.waiting_since())
        self.copies.copied(FAR, "web01", 2.0, 1.0, None)
        self.assertEqual(3.0, self.waiting_since())
        ids = {row.name: row.id for row in self.inventory.rows("web01", "kept")}
        self.inventory.missed([ids["db-3.0"]], 9.0)
        self.assertEqual(4.0, self.waiting_since())
        self.inventory.prune([ids["db-4.0"]], 9.0)
        self.assertEqual(5.0, self.waiting_since())
        self.copies.copied(FAR, "web01", 5.0, 1.0, None)
        self.assertIsNone(self.waiting_since())

    def test_bytes(self) -> None:
        self.assertEqual(0, self.copies.bytes_of(["web01"]))
        self.push("a", 1.0, 100)
        self.push("b", 1.0, 23)
        self.assertEqual(123, self.copies.bytes_of(["web01", "web02"]))
        self.assertEqual(0, self.copies.bytes_of(["web02"]))


class IndexTests(CopiesCase):
    """The query plans of SQLite."""

    def test_index(self) -> None:
        """Files that are copied are not read."""
        plan = self.view._ask(f"EXPLAIN QUERY PLAN {COPIES}")
        steps = " | ".join(step for *_, step in plan)
        self.assertIn(
            "push USING INDEX push_bucket (bucket=? AND received_at>?)", steps
        )
        self.assertNotIn("TEMP B-TREE", steps)
