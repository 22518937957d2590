"""Where the catalogue is."""

from __future__ import annotations

import re

from attrs import field, frozen


@frozen
class PostgreSQL:
    """A catalogue in a PostgreSQL database, which several daemons can share.

    :param conninfo: connection string of libpq; it may contain a password
    """

    conninfo: str = field(repr=False)

    @property
    def has_password(self) -> bool:
        """Whether it seems to contain a password."""
        return re.search(r"\bpassword\s*=|://[^/@]*:[^/@]*@", self.conninfo) is not None


Place = str | PostgreSQL
"""The path of a home, in which the catalogue is an SQLite file; or a database."""
