"""Copies a catalogue from SQLite into PostgreSQL, with its whole history.

That is one transaction: after a failure the database is empty as before, and the copy
can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from filebucket.catalogue.connection import CatalogueError, Connection
from filebucket.catalogue.database import load_driver
from filebucket.catalogue.sqlite import open_sqlite
from filebucket.model.place import PostgreSQL

TABLES = (
    *("bucket", "series", "push", "refusal", "problem", "hook_failure", "copy"),
    "space",
)
"""In an order in which each refers only to earlier ones."""

AT_ONCE = 10_000
"""Rows that are sent in one statement."""


def count_rows(home: str) -> dict[str, int]:
    """The number of rows in each table of the catalogue of a home.

    :raises CatalogueError: it cannot be read
    """
    source = open_sqlite(home, False, "")
    try:
        return _counts(source)
    finally:
        source.close()


def migrate(
    home: str,
    place: PostgreSQL,
    node: str,
    progress: Callable[[int], object] = lambda rows: None,
) -> dict[str, int]:
    """Copy the catalogue of a home into an empty database.

    :param node: name of the daemon that used it
    :param progress: is called with the number of rows that were copied
    :returns: the number of rows in each table
    :raises CatalogueError: one of them cannot be used, or the database is not empty
    """
    source = open_sqlite(home, False, "")
    try:
        target = load_driver().Database(place, True, "")
        try:
            with source.snapshot(), target.loading():
                return _copy(source, target, node, progress)
        finally:
            target.close()
    finally:
        source.close()


def _copy(
    source: Connection, target: Any, node: str, progress: Callable[[int], object]
) -> dict[str, int]:
    if any(_counts(target).values()):
        raise CatalogueError("the database has a catalogue already; nothing was copied")
    done = 0
    for table in TABLES:
        names = [
            name
            for (name,) in source.ask("SELECT name FROM pragma_table_info(?)", table)
        ]
        rows = _rows(source, table, names, node)
        while some := list(islice(rows, AT_ONCE)):
            target.load(table, names, some)
            done += len(some)
            progress(done)
    # Ids that were used once must not be used again.
    for table in ("bucket", "series", "push", "refusal"):
        ((last,),) = source.ask(f"SELECT COALESCE(MAX(id), 0) FROM {table}")
        used = source.ask("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        target.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), ?)",
            (max(1, last, *(seq for (seq,) in used)),),
        )
    expected, found = _counts(source), _counts(target)
    if expected != found:
        raise CatalogueError(f"copied {found} instead of {expected} rows")
    return found


def _rows(
    source: Connection, table: str, names: list[str], node: str
) -> Iterator[tuple[Any, ...]]:
    """The rows of a table. The only daemon of an SQLite file has no name in it."""
    place = names.index("node") if "node" in names else None
    for row in source.each(f"SELECT {', '.join(names)} FROM {table}"):
        yield row if place is None else (*row[:place], node, *row[place + 1 :])


def _counts(connection: Connection) -> dict[str, int]:
    """The number of rows in each table."""
    return {
        table: connection.ask(f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES
    }
