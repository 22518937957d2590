"""Tests of :mod:`filebucket.catalogue.migrate`."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue import migrate as migrating
from filebucket.catalogue.connection import CatalogueError
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.migrate import TABLES, count_rows, migrate
from filebucket.catalogue.postgresql import Database
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.problem import Kind, ToldProblem
from filebucket.model.records import HookRun, Received, Refused, Space
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import all_series, new_database, new_home, opened

BUCKET = Bucket((Token(bytes(32)),), "web01", "web01")


class MigrateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = str(new_home(self))
        self.place = new_database()
        journal = opened(self, Journal, self.home)
        for number in range(12):
            row = Received(
                *("web01", "db-#", f"db-{number}", number, "ab", 100.0 + number),
                *(1.5, "c", number == 3, 2, None, f"r{number}"),
            )
            refused = Refused("web01", 1.0, "a\0b", -1, 400, "bad", "c", f"q{number}")
            journal.record([row], [refused], {"web01": BUCKET}.get)
        journal.mark_problem(ToldProblem(Kind.FULL, "", 1, 2.0, 3.0))
        journal.note_hooks([HookRun("alert", "", 5.0, "exited with 1")])
        journal.note_space(Space(9.0, 1, 2))
        inventory = opened(self, Inventory, self.home)
        ids = {row.name: row.id for row in inventory.rows("web01", "kept")}
        inventory.missed([ids["db-5"]], 200.0)
        inventory.verified([(ids["db-6"], True, 201.0)])
        inventory.prune([ids["db-7"]], 202.0)

    def everything(self, place: Any, node: str) -> list[Any]:
        with closing(View.open(place)) as view, closing(Journal.open(place)) as journal:
            return [
                all_series(view),
                view.latest(99),
                [evolve(each, name="") for each in view.refusals(99)],
                [evolve(each, node="") for each in journal.told_problems()],
                view.hook_failures(9, node),
                [evolve(each, node="") for each in view.space(0, node)],
                view.totals(["web01"]),
                view.activity(0.0),
            ]

    def test_copied(self) -> None:
        """With the whole history, as of this daemon; the next push continues it."""
        before = self.everything(self.home, "")
        done: list[int] = []
        self.patch(migrating, "AT_ONCE", 5)
        found = migrate(self.home, self.place, "web", done.append)
        self.assertEqual(count_rows(self.home), found)
        self.assertEqual(12, found["push"])
        self.assertEqual(sum(found.values()), done[-1])
        self.assertEqual(before, self.everything(self.place, "web"))
        journal = opened(self, Journal, self.home)
        with closing(Journal.open(self.place)) as other:
            row = Received("web01", "x-#", "x-1", 1, "ab", 300.0, request="r")
            for each in (journal, other):
                each.record([row], [], {"web01": BUCKET}.get)
        self.assertEqual(
            *(self.everything(*each) for each in ((self.home, ""), (self.place, "web")))
        )

    def test_repeated(self) -> None:
        """After a failure, nothing was copied."""
        real = Database.load

        def fails(this: Database, table: str, *given: Any) -> None:
            real(this, table, *given)
            if table == "refusal":
                raise CatalogueError("disk error")

        broken = self.patch(Database, "load", fails)
        with self.assertRaisesRegex(CatalogueError, "^disk error$"):
            migrate(self.home, self.place, "web")
        broken.restore()
        with closing(View.open(self.place)) as view:
            self.assertEqual([], view.latest(9))
        self.assertEqual(12, migrate(self.home, self.place, "web")["push"])

    def test_not_empty(self) -> None:
        """Nothing is mixed with another catalogue."""
        migrate(self.home, self.place, "web")
        before = self.everything(self.place, "web")
        with self.assertRaisesRegex(CatalogueError, "has a catalogue already"):
            migrate(self.home, self.place, "web")
        self.assertEqual(before, self.everything(self.place, "web"))

    def test_none(self) -> None:
        with self.assertRaisesRegex(CatalogueError, "not created yet"):
            migrate(str(new_home(self)), self.place, "web")

    def test_lost_rows(self) -> None:
        """Rows that are not there are noticed before the end."""
        real = Database.load

        def loses(this: Database, table: str, names: Any, rows: Any) -> None:
            real(this, table, names, rows[1:] if table == "refusal" else rows)

        self.patch(Database, "load", loses)
        with self.assertRaisesRegex(CatalogueError, "^copied .* instead of "):
            migrate(self.home, self.place, "web")
        with closing(View.open(self.place)) as view:
            self.assertEqual([], view.latest(9))

    def test_all_tables(self) -> None:
        """Each table of SQLite is copied."""
        with closing(View.open(self.home)) as view:
            tables = view._ask(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
                " AND name NOT LIKE 'sqlite%'"
            )
        self.assertEqual(set(TABLES), {name for (name,) in tables})
