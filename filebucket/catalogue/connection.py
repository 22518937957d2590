"""A connection to a catalogue, in SQLite or PostgreSQL.

Both understand the same statements: these are SQL that both know, with ``?``, ``?1`` or
``:name`` for values, and with SQLite's ``json_each``, ``->>``, ``MAX`` and ``MIN`` of
two values, which are functions in PostgreSQL's schema. Booleans are ``TRUE`` and
``FALSE``, and not compared with numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from filebucket.base.errors import OperatorError


class CatalogueError(OperatorError):
    """The catalogue cannot be used. The message is one line, without a path and without
    a password.

    :ivar damaged: whether the file is damaged, so that a retry cannot succeed
    """

    def __init__(self, reason: str, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


class NewerError(Exception):
    """The catalogue was made by a newer file-bucket."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"made by a newer file-bucket (version {version}): install that again, or"
            " see docs/how-to/upgrading.rst"
        )


NOT_CREATED = "not created yet; start the daemon or run filebucket reindex to create it"


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """Rows that it changed."""

    def fetchone(self) -> Any:
        """The next row; None if there is none."""

    def fetchall(self) -> list[Any]:
        """The rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """The rows that are left."""


Do = Callable[..., Cursor]
"""Executes a statement of a transaction, with a sequence or a dictionary of values."""


class Connection(Protocol):
    """A connection, used by one thread at a time. Every method may raise
    :class:`CatalogueError`.
    """

    @property
    def is_shared(self) -> bool:
        """Whether several daemons may use the catalogue."""

    @property
    def identity(self) -> object:
        """Differs for another catalogue in the same place."""

    def close(self) -> None:
        """Close the connection."""

    def check(self) -> None:
        """Check the whole catalogue, as far as it is not known to be sound."""

    def is_there(self) -> bool:
        """Whether the catalogue was neither removed nor replaced."""

    def execute(self, query: str, values: Any = ()) -> Cursor:
        """Execute one statement."""

    def ask(self, query: str, *values: Any) -> list[Any]:
        """Run a query, and return its rows."""

    def each(self, query: str, *values: Any) -> Iterator[Any]:
        """The same row by row: there may be a million."""

    def change(self, durable: bool = False) -> AbstractContextManager[Do]:
        """One transaction, all or nothing. No other connection writes meanwhile.

        :param durable: whether a power cut must not undo it
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """All reads in the block see the catalogue at the same moment."""
