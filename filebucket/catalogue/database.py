"""Opens the catalogue where it is, for the classes that read and write it.

Each change is one short transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

from filebucket.catalogue.connection import CatalogueError, Connection, Do
from filebucket.catalogue.sqlite import FILE, open_sqlite
from filebucket.model.place import Place, PostgreSQL

__all__ = ["FILE", "CatalogueError", "Database"]

NO_PSYCOPG = (
    "needs Python's psycopg 3 (Debian: python3-psycopg; pip: file-bucket[postgresql])"
)


class Database:
    """A connection to a catalogue."""

    _TEMPORARY: ClassVar = ""
    """The statement that creates the temporary table that the connection needs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, place: Place, create: bool = True) -> Self:
        """Open the catalogue, and upgrade its tables.

        :param create: whether to create it if it does not exist
        :raises CatalogueError: it cannot be used
        """
        return cls(_connect(place, create, cls._TEMPORARY))

    @property
    def identity(self) -> object:
        """Differs for another catalogue in the same place."""
        return self._connection.identity

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def check(self) -> None:
        """Check the whole file, which takes a while.

        :raises CatalogueError: the file is damaged
        """
        self._connection.check()

    def is_there(self) -> bool:
        """Whether the catalogue was neither removed nor replaced."""
        return self._connection.is_there()

    def _change(self, durable: bool = False) -> AbstractContextManager[Do]:
        """One transaction, all or nothing.

        :param durable: whether a power cut must not undo it
        """
        return self._connection.change(durable)

    def _ask(self, query: str, *values: Any) -> list[Any]:
        return self._connection.ask(query, *values)

    def _each(self, query: str, *values: Any) -> Iterator[Any]:
        """The rows one by one: there may be a million."""
        return self._connection.each(query, *values)


def load_driver() -> Any:
    """Load the module for PostgreSQL, which most servers do not need.

    :raises CatalogueError: psycopg is not installed
    """
    try:
        from filebucket.catalogue import postgresql  # noqa: PLC0415
    except ImportError:
        raise CatalogueError(NO_PSYCOPG) from None
    return postgresql


def _connect(place: Place, create: bool, temporary: str) -> Connection:
    if not isinstance(place, PostgreSQL):
        return open_sqlite(place, create, temporary)
    found: Connection = load_driver().Database(place, create, temporary)
    return found
