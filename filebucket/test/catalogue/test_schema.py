"""Tests of :mod:`filebucket.catalogue.schema`: upgrades from every version."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue import schema
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.records import Received, Refused, Space
from filebucket.model.state import State
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import all_series, new_home, opened
from filebucket.test.kit.server import PATIENCE

RELEASED = ("8bb6c2db", "0c4cd298", "cbe979d6", "47b40e7d")
"""The first digits of the SHA-256 of each upgrade. If one differs after its release,
undo the change and write another upgrade."""

SAMPLES = {
    0: "",
    1: """
    INSERT INTO bucket (id, key, since) VALUES (5, 'web01', 1000.0);
    INSERT INTO series (id, bucket, name, since, watched, state, state_at, told)
        VALUES (7, 5, 'db-#.gz', 1000.0, 1, 'late', 3000.0, 'fresh');
    INSERT INTO push (id, bucket, series, name, size, sha256, received_at, seconds,
        client, overwrote, pre_push, post_push, request)
        VALUES (9, 5, 7, 'db-1.gz', 70, 'ab', 2000.0, 1.5, '192.0.2.1:9', 1, 2, 0, 'r');
    INSERT INTO refusal (bucket, at, name, size, status, reason, client, request)
        VALUES ('web01', 2500.0, 'db-1.gz', 7, 405, 'exists', '192.0.2.1:9', 'q');
    INSERT INTO space (at, free, total) VALUES (2600.0, 10, 20);
    """,
}
SAMPLES[2] = SAMPLES[3] = SAMPLES[4] = SAMPLES[1]
"""Rows of a catalogue of each version, as that version would have written them: the
same for all versions except 0, which is empty."""

DIES = """
import os, signal, sys
from filebucket.catalogue import schema
from filebucket.catalogue.journal import Journal

def die(script):
    yield from list(real(script))[:2]
    os.kill(os.getpid(), signal.SIGKILL)

real = schema._statements
schema._statements = die
schema.UPGRADES = (*schema.UPGRADES, sys.argv[2])
schema.VERSION = len(schema.UPGRADES)
Journal.open(sys.argv[1])
"""
"""A daemon that is killed in the middle of an upgrade."""

NEXT = """
CREATE TABLE other (id INTEGER PRIMARY KEY);
ALTER TABLE push ADD COLUMN other INTEGER;
DELETE FROM push;
"""
"""A future upgrade."""


class UpgradeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = new_home(self)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.home / FILE)) as connection, connection:
            yield connection

    def make(self, version: int) -> None:
        """A catalogue of that version, with some rows."""
        self.setUp()
        with self.connection() as connection:
            for script in schema.UPGRADES[:version]:
                connection.executescript(script)
            connection.executescript(SAMPLES[version])
            connection.execute(f"PRAGMA user_version = {version}")

    def open(self) -> Journal:
        return opened(self, Journal, self.home)

    def shape(self) -> dict[str, Any]:
        """The tables, indexes and triggers, whatever the SQL that created them."""
        with self.connection() as connection:
            found: dict[str, Any] = {}
            for kind, name, sql in connection.execute(
                "SELECT type, name, sql FROM sqlite_master"
            ):
                columns = connection.execute(
                    "SELECT name, type, [notnull], dflt_value, pk"
                    " FROM pragma_table_info(?)",
                    (name,),
                ).fetchall()
                found[name] = kind, columns if kind == "table" else sql
            found["version"] = connection.execute("PRAGMA user_version").fetchone()
            found["sound"] = connection.execute("PRAGMA integrity_check").fetchall()
            found["refers"] = connection.execute("PRAGMA foreign_key_check").fetchall()
            return found

    def content(self) -> list[str]:
        with self.connection() as connection:
            return list(connection.iterdump())

    def test_never_changed(self) -> None:
        """Released upgrades stay as they are."""
        digests = (hashlib.sha256(each.encode()) for each in schema.UPGRADES)
        self.assertEqual(RELEASED, tuple(each.hexdigest()[:8] for each in digests))

    def test_from_every_version(self) -> None:
        """Each becomes like a new one, and keeps its rows."""
        self.assertEqual(list(range(schema.VERSION + 1)), sorted(SAMPLES))
        self.make(0)
        self.open()
        new = self.shape()
        self.assertEqual((schema.VERSION,), new["version"])
        for version in range(1, schema.VERSION + 1):
            self.make(version)
            journal = self.open()
            self.assertEqual(new, self.shape(), version)
            self.assert_there(journal)

    def assert_there(self, journal: Journal) -> None:
        """All rows of the sample exist, and new pushes can be added."""
        view = opened(self, View, self.home)
        (file,) = view.latest(9)
        self.assertEqual(9, file.id)
        self.assertEqual(
            Received(
                "web01",
                "db-#.gz",
                "db-1.gz",
                70,
                "ab",
                2000.0,
                1.5,
                "192.0.2.1:9",
                True,
                2,
                0,
                "r",
            ),
            file.received,
        )
        (series,) = journal.untold(9)
        self.assertEqual(
            (7, State.LATE, State.FRESH, 1, 1, 70, 2000.0, 70, "db-1.gz"),
            (
                series.id,
                series.state,
                series.told,
                series.pushes,
                series.files,
                series.bytes,
                series.last_at,
                series.last_size,
                series.last_name,
            ),
        )
        refused = Refused(
            "web01", 2500.0, "db-1.gz", 7, 405, "exists", "192.0.2.1:9", "q"
        )
        self.assertEqual([refused], view.refusals(9))
        self.assertEqual([Space(2600.0, 10, 20)], view.space(0))
        bucket = Bucket((Token(b"\xab" * 32),), "web01", "web01")
        more = Received("web01", "db-#.gz", "db-2.gz", 5, "cd", 4000.0)
        journal.record([more], [refused], lambda key: bucket)
        (series,) = all_series(view, "web01")
        self.assertEqual((2, 75, 5), (series.files, series.bytes, series.last_size))

    def test_empty(self) -> None:
        """Files that are empty by their size are judged so from version 2."""
        self.make(1)
        with self.connection() as connection:
            for id_, (name, size) in enumerate(
                [("a", 0), ("b.gz", 20), ("c.tgz", 20), ("d", 20), ("e.gz", 21)], 10
            ):
                connection.execute(
                    "INSERT INTO push (id, bucket, series, name, size, sha256,"
                    " received_at) VALUES (?, 5, 7, ?, ?, 'ab', 2000.0)",
                    (id_, name, size),
                )
        self.open()
        files = opened(self, View, self.home).latest(9)
        self.assertEqual(
            {"a", "b.gz", "c.tgz"},
            {each.received.name for each in files if each.judgement is State.EMPTY},
        )

    def test_in_order(self) -> None:
        """SQLite finds no fault in a row of any table. Version 3.40 does if the columns
        of the key are not the first ones of a table without row ids.
        """
        self.make(schema.VERSION)
        with self.connection() as connection:
            tables = connection.execute(
                "SELECT name FROM sqlite_schema WHERE sql LIKE '%WITHOUT ROWID%'"
            ).fetchall()
            self.assertGreater(len(tables), 2)
            for (table,) in tables:
                columns = connection.execute(
                    f"SELECT count(*) FROM pragma_table_info('{table}')"
                ).fetchone()[0]
                values = ", ".join(str(number) for number in range(1, columns + 1))
                connection.execute(f"INSERT INTO {table} VALUES ({values})")
            checked = connection.execute("PRAGMA quick_check").fetchall()
        self.assertEqual([("ok",)], checked)

    def test_fails_half_way(self) -> None:
        """It stays as it was, and can be upgraded later."""
        for version in range(schema.VERSION + 1):
            self.make(version)
            before = self.shape(), self.content()
            upgrades, current = (
                (*schema.UPGRADES, f"{NEXT} SELECT bug;\n"),
                schema.VERSION,
            )
            fails = self.patch(schema, "UPGRADES", upgrades)
            counts = self.patch(schema, "VERSION", current + 1)
            self.assertRaisesRegex(CatalogueError, "bug", self.open)
            fails.restore()
            counts.restore()
            self.assertEqual(before, (self.shape(), self.content()))
            self.open()
            self.assertEqual((schema.VERSION,), self.shape()["version"])

    def test_dies_half_way(self) -> None:
        """The same if the daemon is killed."""
        for version in range(schema.VERSION + 1):
            self.make(version)
            before = self.shape(), self.content()
            # This needs a process to kill.
            command = [sys.executable, "-c", DIES, str(self.home), NEXT]
            died = subprocess.run(command, check=False, timeout=PATIENCE)
            self.assertEqual(-signal.SIGKILL, died.returncode)
            self.assertEqual(before, (self.shape(), self.content()))
            self.open()
            self.assertEqual((schema.VERSION,), self.shape()["version"])
