"""Where the catalogue is."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class PostgreSQL:
    """A catalogue in a PostgreSQL database, which several daemons can share.

    :param conninfo: connection string of libpq; it may contain a password
    """

    conninfo: str = field(repr=False)


Place = str | PostgreSQL
"""The path of a home, in which the catalogue is an SQLite file; or a database."""
