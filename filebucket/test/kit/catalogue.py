"""Catalogues for tests and proofs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import Database
from filebucket.catalogue.rows import read_series
from filebucket.model.records import Series

D = TypeVar("D", bound=Database)


def new_home(case: SynchronousTestCase) -> Path:
    """A home with the folder that a daemon creates."""
    home = Path(case.mktemp()).absolute()
    (home / ".filebucket").mkdir(parents=True)
    return home


def opened(case: SynchronousTestCase, kind: type[D], home: str | os.PathLike[str]) -> D:
    """A connection to the catalogue of ``home``, until the end of the test."""
    found = kind.open(os.fspath(home))
    case.addCleanup(found.close)
    return found


def all_series(database: Database, bucket: str | None = None) -> list[Series]:
    """All series, or those of one bucket by its key, sorted by name."""
    lives = "WHERE (files OR watched OR missing OR state = 'failed')"
    if bucket is not None:
        return read_series(database._ask, f"{lives} AND key = ? ORDER BY name", bucket)
    return read_series(database._ask, f"{lives} ORDER BY key, name")
