"""Tests of :mod:`filebucket.catalogue.connection`: what a connection must do, whatever
the database.
"""

from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.connection import CatalogueError, Connection
from filebucket.catalogue.database import Database
from filebucket.catalogue.postgresql import Database as PostgreSQL
from filebucket.catalogue.sqlite import SQLite
from filebucket.test.kit.catalogue import new_home, on_both, opened, place_of


class ConnectionCase(SynchronousTestCase):
    """Has a connection."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.connection = self.open()

    def open(self) -> Connection:
        return opened(self, Database, self.home)._connection

    def add(self, key: str) -> None:
        with self.connection.change() as do:
            do("INSERT INTO bucket (key, since) VALUES (?, ?)", (key, 1.0))

    def keys(self, connection: Connection | None = None) -> list[str]:
        connection = connection or self.connection
        return [key for (key,) in connection.ask("SELECT key FROM bucket ORDER BY key")]


@on_both
class ConnectionTests(ConnectionCase):
    def test_all_or_nothing(self) -> None:
        """An error undoes the transaction, and the connection goes on."""
        self.add("a")
        with self.assertRaises(ZeroDivisionError), self.connection.change() as do:
            do("DELETE FROM bucket")
            raise ZeroDivisionError
        with self.connection.change(durable=True) as do:
            do("INSERT INTO bucket (key, since) VALUES ('b', 1.0)")
        self.assertEqual(["a", "b"], self.keys(self.open()))

    def test_results(self) -> None:
        """What a statement of a transaction returns."""
        with self.connection.change() as do:
            for key in ("a", "b", "c"):
                found = do(
                    "INSERT INTO bucket (key, since) VALUES (:key, :at) RETURNING key",
                    {"key": key, "at": 1.0},
                )
                self.assertEqual([(key,)], found.fetchall())
            changed = do("UPDATE bucket SET since = ?1 + ?1 WHERE key <> ?2", (2, "c"))
            self.assertEqual(2, changed.rowcount)
            found = do("SELECT key, since FROM bucket ORDER BY key")
            self.assertEqual(("a", 4.0), found.fetchone())
            self.assertEqual([("b", 4.0), ("c", 1.0)], [tuple(each) for each in found])
            self.assertIsNone(do("SELECT 1 FROM bucket WHERE key = 'x'").fetchone())

    def test_each(self) -> None:
        """The same rows, one by one."""
        for key in ("b", "a", "c"):
            self.add(key)
        found = self.connection.each(
            "SELECT key FROM bucket WHERE key > ? ORDER BY key", "a"
        )
        self.assertEqual([("b",), ("c",)], [tuple(each) for each in found])
        self.add("d")

    def test_snapshot(self) -> None:
        """Reads do not see later writes; an error ends it."""
        other = self.open()
        with other.snapshot():
            self.assertEqual([], self.keys(other))
            self.add("a")
            self.assertEqual([], self.keys(other))
        self.assertEqual(["a"], self.keys(other))
        with other.snapshot():
            query = "SELECT key FROM bucket"
            self.assertEqual(1, len(list(other.each(query))))
            self.add("b")
            self.assertEqual(1, len(list(other.each(query))))
            self.assertEqual(1, len(other.ask(query)))
        self.assertEqual(["a", "b"], self.keys(other))
        with self.assertRaises(CatalogueError), other.snapshot():
            other.ask("SELECT * FROM nowhere")
        self.assertEqual(["a", "b"], self.keys(other))

    def test_values(self) -> None:
        """What one is given is what one gets."""
        for value in ("%s ?1 :x '", 2**40, 0.1, -math.inf, 5e-324, "\u20ac\n"):
            kind = {str: "TEXT", int: "BIGINT", float: "DOUBLE PRECISION"}[type(value)]
            query = f"SELECT CAST(? AS {kind}), '%s ? :x', 7 % 4"
            self.assertEqual([(value, "%s ? :x", 3)], self.connection.ask(query, value))

    def test_functions(self) -> None:
        """Those of SQLite that the statements use."""

        def value(expression: str, *values: Any) -> Any:
            ((found,),) = self.connection.ask(f"SELECT {expression}", *values)
            return found

        self.assertEqual(2.5, value("MAX(?, 1.0)", 2.5))
        self.assertEqual(1.0, value("MIN(?, 1.0)", 2.5))
        for function in ("MAX", "MIN"):
            self.assertIsNone(value(f"{function}(?, CAST(NULL AS FLOAT))", 2.5))
        rows = self.connection.ask(
            "SELECT key, value ->> 0, CAST(value ->> 1 AS BIGINT),"
            " CAST(value ->> 2 AS BOOLEAN) FROM json_each(?) ORDER BY key",
            '[["a\\"\u00e9\\u00e9", 5, true], [null, null, false]]',
        )
        expected = [(0, 'a"\u00e9\u00e9', 5, True), (1, None, None, False)]
        self.assertEqual(expected, rows)
        rows = self.connection.ask("SELECT value FROM json_each(?)", '["x", "%"]')
        self.assertEqual([("x",), ("%",)], rows)
        self.assertEqual([], self.connection.ask("SELECT 1 FROM json_each('[]')"))

    def test_order(self) -> None:
        """Names are sorted by their characters, as in Python."""
        names = ["B", "a", "ab", "b", "\u00e4", "\u20ac", "\U0001f600"]
        for name in reversed(names):
            self.add(name)
        self.assertEqual(names, self.keys())

    def test_is_there(self) -> None:
        """The same catalogue, for each connection; not one that replaced it."""
        other = self.open()
        self.assertEqual(self.connection.identity, other.identity)
        self.assertTrue(other.is_there())
        self.remove()
        self.assertFalse(other.is_there())
        with self.assertRaisesRegex(CatalogueError, "^not created yet; "):
            Database.open(place_of(self, self.home), create=False)
        new = self.open()
        self.assertFalse(other.is_there())
        self.assertNotEqual(other.identity, new.identity)
        self.assertTrue(new.is_there())

    def test_newer(self) -> None:
        """That of a newer version is left alone."""
        self.make_newer()
        with self.assertRaisesRegex(
            CatalogueError, r"^made by a newer file-bucket \(version 99\): install that"
        ):
            self.open()

    def remove(self) -> None:
        """Remove the catalogue."""
        if isinstance(self.connection, SQLite):
            # The inode of a file that is open is not given to another one.
            place = self.home / ".filebucket"
            for each in place.glob("catalogue*"):
                each.unlink()
        else:
            self.connection.execute("DROP SCHEMA filebucket CASCADE")

    def make_newer(self) -> None:
        if isinstance(self.connection, SQLite):
            self.connection.execute("PRAGMA user_version = 99")
        else:
            assert isinstance(self.connection, PostgreSQL)
            self.connection.execute("UPDATE version SET version = 99")
