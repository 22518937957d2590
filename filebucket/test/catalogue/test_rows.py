"""Tests of :mod:`filebucket.catalogue.rows`."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.rows import (
    RECEIVED,
    REFUSED,
    extracted,
    read_files,
    read_series,
    received_values,
    refused_values,
)
from filebucket.catalogue.schema import UPGRADES
from filebucket.model.records import File, Received, Refused, Series
from filebucket.model.state import State

ROWS = """
INSERT INTO bucket (id, key, since) VALUES (1, 'web01', 1.0);
INSERT INTO series (id, bucket, name, since, state, state_at, told)
    VALUES (2, 1, 'db-#', 2.0, 'late', 3.0, 'fresh'),
        (3, 1, '', 2.5, 'never', 2.5, 'never');
INSERT INTO push (id, bucket, series, name, size, sha256, received_at, overwrote,
    request, judgement, damaged, fate, fate_at)
    VALUES (4, 1, 2, 'db-1', 7, 'ab', 5.0, 1, 'r', 'shrunk', 1, 'kept', 6.0);
UPDATE series SET due = 9.0, usual = 8 WHERE id = 2;
"""


class RowsTests(SynchronousTestCase):
    """Reading rows."""

    def setUp(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.addCleanup(self.connection.close)
        for script in (*UPGRADES, ROWS):
            self.connection.executescript(script)

    def ask(self, query: str, *values: Any) -> list[Any]:
        return self.connection.execute(query, values).fetchall()

    def test_series(self) -> None:
        """With the key of its bucket; without a schedule it is due at infinity."""
        late, never = read_series(self.ask, "ORDER BY series.id")
        self.assertEqual(
            Series(
                id=2,
                bucket="web01",
                name="db-#",
                since=2.0,
                files=1,
                bytes=7,
                pushes=1,
                last_at=5.0,
                last_size=7,
                last_name="db-1",
                state=State.LATE,
                state_at=3.0,
                due=9.0,
                usual=8,
                told=State.FRESH,
                damaged=0,
                missing=0,
            ),
            late,
        )
        self.assertEqual(("", math.inf), (never.name, never.due))
        self.assertEqual([never], read_series(self.ask, "WHERE series.id = ?", 3))

    def test_files(self) -> None:
        """With the names of their buckets and series."""
        (file,) = read_files(self.ask, "WHERE push.size = ? AND fate = ?", 7, "kept")
        received = Received(
            "web01", "db-#", "db-1", 7, "ab", 5.0, overwrote=True, request="r"
        )
        expected = File(4, received, State.SHRUNK, "kept", 6.0, None, True)
        self.assertEqual(expected, file)
        self.assertIs(True, file.damaged)
        self.assertEqual([], read_files(self.ask, "WHERE push.id = 5"))


class ValuesTests(SynchronousTestCase):
    """Writing rows."""

    def test_order(self) -> None:
        """In the order of the columns; fields for the batch only are left out."""
        received = Received("b", "s", "n", 1, "ab", 2.0, superseded=True)
        self.assertEqual(
            ("b", "s", "n", 1, "ab", 2.0, *(None, None, False), *[None] * 4),
            received_values(received),
        )
        self.assertEqual(len(RECEIVED), len(received_values(received)))
        self.assertNotIn("superseded", RECEIVED)
        refused = Refused("b", 2.0, None, 1, 405, "exists", "c", "q")
        values = ("b", 2.0, None, 1, 405, "exists", "c", "q")
        self.assertEqual(values, refused_values(refused))
        self.assertEqual(len(REFUSED), len(values))

    def test_extracted(self) -> None:
        """SQLite reads a list in the order in which it was written."""
        names = ("name", "client", "seconds")
        value = json.dumps(["x", None, 1.5])
        with closing(sqlite3.connect(":memory:")) as connection:
            query = f"SELECT {extracted(names)} FROM (SELECT ? AS value)"
            self.assertEqual(
                ("x", None, 1.5), connection.execute(query, [value]).fetchone()
            )
