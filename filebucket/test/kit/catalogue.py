"""Catalogues for tests and proofs."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.catalogue.connection import Do
from filebucket.catalogue.database import Database
from filebucket.catalogue.postgresql_schema import SCHEMA, VERSION
from filebucket.catalogue.rows import read_series
from filebucket.catalogue.sqlite import SQLite
from filebucket.model.place import Place, PostgreSQL
from filebucket.model.records import Series
from filebucket.test.kit.postgres import shared_postgres

C = TypeVar("C", bound=type[SynchronousTestCase])
D = TypeVar("D", bound=Database)

_POSTGRESQL = "OnPostgreSQL"


def on_both(case: C) -> C:
    """Run the tests of the class with a catalogue in SQLite, and again with one in
    PostgreSQL.

    The second class is added to the module, as ``...OnPostgreSQL``. Its places are
    databases instead of homes.
    """
    name = f"{case.__name__}{_POSTGRESQL}"
    another = type(name, (case,), {"__module__": case.__module__, "__doc__": ""})
    setattr(another, _POSTGRESQL, True)
    setattr(sys.modules[case.__module__], name, another)
    return case


def new_home(case: SynchronousTestCase) -> Path:
    """A home with the folder that a daemon creates."""
    home = Path(case.mktemp()).absolute()
    (home / ".filebucket").mkdir(parents=True)
    return home


def place_of(case: SynchronousTestCase, home: str | os.PathLike[str]) -> Place:
    """Where the catalogue of a home is. A test on PostgreSQL has one database, which is
    emptied for each home.
    """
    if not hasattr(case, _POSTGRESQL):
        return os.fspath(home)
    place = _PLACES.get(os.fspath(home))
    if place is None:
        _PLACES.clear()
        place = _PLACES[os.fspath(home)] = new_database(created=True)
    return place


_PLACES: dict[str, PostgreSQL] = {}


def new_database(created: bool = False) -> PostgreSQL:
    """An empty database, which the next call empties again.

    :param created: whether it may have the tables, without rows; that is faster
    :raises SkipTest: PostgreSQL or psycopg is not installed
    """
    try:
        import psycopg  # noqa: PLC0415
    except ImportError:
        raise SkipTest("psycopg is not installed") from None
    place = PostgreSQL(_database())
    with closing(psycopg.connect(place.conninfo, autocommit=True)) as connection:
        if not created or not _empty(connection):
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    return place


def _empty(connection: Any) -> bool:
    """Delete all rows.

    :returns: whether there were tables of this version
    """
    tables = [
        name
        for (name,) in connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", [SCHEMA]
        )
    ]
    if "version" not in tables:
        return False
    connection.execute(f"SET search_path = {SCHEMA}, pg_catalog")
    if connection.execute("SELECT version FROM version").fetchall() != [(VERSION,)]:
        return False
    # Faster than TRUNCATE.
    first = ["push", "series"]
    others = {*tables} - {*first, "version"}
    connection.execute("; ".join(f"DELETE FROM {each}" for each in (*first, *others)))
    for table in ("bucket", "series", "push", "refusal"):
        connection.execute(f"SELECT setval('{table}_id_seq', 1, false)")
    return True


@cache
def _database() -> str:
    return shared_postgres().create("catalogue")


def opened(case: SynchronousTestCase, kind: type[D], home: str | os.PathLike[str]) -> D:
    """A connection to the catalogue of ``home``, until the end of the test."""
    found = kind.open(place_of(case, home))
    case.addCleanup(found.close)
    return found


def all_series(database: Database, bucket: str | None = None) -> list[Series]:
    """All series, or those of one bucket by its key, sorted by name."""
    lives = "WHERE (files > 0 OR watched OR missing > 0 OR state = 'failed')"
    if bucket is not None:
        return read_series(database._ask, f"{lives} AND key = ? ORDER BY name", bucket)
    return read_series(database._ask, f"{lives} ORDER BY key, name")


def sqlite_of(database: Database) -> sqlite3.Connection:
    """The connection of SQLite."""
    assert isinstance(database._connection, SQLite)
    return database._connection.raw


class Changes:
    """Counts the rows that a connection changes.

    :ivar rows: the number so far
    """

    def __init__(self, case: SynchronousTestCase, database: Database) -> None:
        self.rows = 0
        self._change = database._connection.change
        case.patch(database._connection, "change", self._counted)

    @contextmanager
    def _counted(self, durable: bool = False) -> Iterator[Do]:
        with self._change(durable) as do:

            def counted(query: str, values: Any = ()) -> Any:
                cursor = do(query, values)
                if not query.startswith("SELECT"):
                    self.rows += cursor.rowcount
                return cursor

            yield counted
