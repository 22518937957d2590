"""Keeps two daemons' machines from the same upkeep at once.

Each machine has a timer for ``filebucket prune`` and for other commands. If the
catalogue is in a database, only one of them works at a time: it holds a lock, which
ends with its connection. If the catalogue is a file, there is one machine, and the home
has locks of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from filebucket.base.errors import BusyError
from filebucket.catalogue.database import load_driver
from filebucket.model.place import Place, PostgreSQL


class Job(Protocol):
    """The right to do some work."""

    def check(self) -> None:
        """Make sure that no other process can do it.

        :raises CatalogueError: that is not known any more
        """


class _Unshared:
    def check(self) -> None:
        """Nothing: no other machine can."""


@contextmanager
def job(place: Place, name: str) -> Iterator[Job]:
    """Do some work while no other process does it.

    :param place: where the catalogue is
    :param name: of the work, such as ``prune``
    :raises BusyError: another process does it already
    :raises CatalogueError: the database cannot be used
    """
    if not isinstance(place, PostgreSQL):
        yield _Unshared()
        return
    load_driver()
    # The driver may not be installed.
    from filebucket.catalogue.election import Lock  # noqa: PLC0415

    lock = Lock(place, f"file-bucket: {name}")
    try:
        if not lock.take():
            raise BusyError(
                f"another filebucket {name} is running, on this or another machine:"
                " nothing was done"
            )
        yield lock
    finally:
        lock.close()
