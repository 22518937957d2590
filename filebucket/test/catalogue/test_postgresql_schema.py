"""Tests of :mod:`filebucket.catalogue.postgresql_schema`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.connection import Connection
from filebucket.catalogue.database import Database
from filebucket.catalogue.postgresql_schema import UPGRADES
from filebucket.test.kit.catalogue import new_database, new_home

RELEASED: Sequence[str] = ()
"""The first digits of the SHA-256 of each upgrade that was released. If one differs
after its release, undo the change and write another upgrade."""

TABLES = ("bucket", "series", "push", "refusal", "space", "problem", "copy")


class SchemaTests(SynchronousTestCase):
    def test_never_changed(self) -> None:
        """Released upgrades stay as they are."""
        digests = [hashlib.sha256(each.encode()).hexdigest() for each in UPGRADES]
        self.assertEqual(
            list(RELEASED), [each[:8] for each in digests[: len(RELEASED)]]
        )


class SameTests(SynchronousTestCase):
    """The tables and triggers are those of SQLite."""

    def setUp(self) -> None:
        self.both = [
            Database.open(place)._connection
            for place in (str(new_home(self)), new_database())
        ]
        for each in self.both:
            self.addCleanup(each.close)

    def do(self, statement: str, *values: Any) -> None:
        for each in self.both:
            with each.change() as do:
                do(statement, values)

    def content(self, connection: Connection, table: str) -> list[Any]:
        names = self.columns(connection, table)
        rows = connection.ask(f"SELECT {', '.join(names)} FROM {table}")
        return sorted(
            (dict(zip(names, map(plain, row), strict=True)) for row in rows),
            key=repr,
        )

    def columns(self, connection: Connection, table: str) -> list[str]:
        if connection is self.both[0]:
            rows = connection.ask("SELECT name FROM pragma_table_info(?)", table)
        else:
            rows = connection.ask(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = 'filebucket' AND table_name = ?",
                table,
            )
        return sorted(name for (name,) in rows)

    def test_columns(self) -> None:
        for table in (*TABLES, "hook_failure"):
            sqlite, postgresql = (self.columns(each, table) for each in self.both)
            self.assertEqual(sqlite, postgresql, table)

    def test_triggers(self) -> None:
        """Random changes have the same results."""
        chance = random.Random(20)
        self.do("INSERT INTO bucket (id, key, since) VALUES (1, 'web01', 1.0)")
        for number in range(3):
            self.do(
                "INSERT INTO series (id, bucket, name, since, state, state_at, told)"
                " VALUES (?, 1, ?, 1.0, 'fresh', 1.0, 'fresh')",
                number,
                f"s{number}",
            )
        added = 0
        for _ in range(200):
            some = f"id % 7 = {chance.randrange(7)}"
            kind = chance.randrange(8)
            if kind < 3:
                rows = []
                for _ in range(chance.randrange(1, 4)):
                    added += 1
                    rows.append(
                        f"({added}, 1, {chance.randrange(3)}, 'n{added}',"
                        f" {chance.randrange(100)}, 'ab', {chance.randrange(50)}.0,"
                        f" '{chance.choice(('kept', 'overwritten'))}')"
                    )
                self.do(
                    "INSERT INTO push (id, bucket, series, name, size, sha256,"
                    f" received_at, fate) VALUES {', '.join(rows)}"
                )
            elif kind == 3:
                fate = chance.choice(("missing", "pruned", "kept"))
                self.do(f"UPDATE push SET fate = '{fate}', fate_at = 5.0 WHERE {some}")
            elif kind == 4:
                at = chance.choice(("NULL", "7.0"))
                self.do(f"UPDATE push SET fate_at = {at} WHERE {some}")
            elif kind == 5:
                self.do(f"UPDATE push SET damaged = NOT damaged WHERE {some}")
            elif kind == 6:
                series = chance.randrange(3)
                self.do(f"UPDATE push SET series = {series} WHERE {some}")
            else:
                self.do(f"DELETE FROM push WHERE {some} AND id % 3 = 0")
            for table in ("series", "push"):
                sqlite, postgresql = (self.content(each, table) for each in self.both)
                self.assertEqual(sqlite, postgresql)
        self.assertLess(50, len(sqlite))


def plain(value: Any) -> Any:
    """A value as both databases have it: SQLite has no booleans."""
    return int(value) if isinstance(value, bool) else value
