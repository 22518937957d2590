"""Reads and writes rows of pushes and series as values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import attrs

from filebucket.model.records import File, Received, Refused, Series

_SERIES = tuple(each.name for each in attrs.fields(Series))
RECEIVED = tuple(
    each.name
    for each in attrs.fields(Received)
    if each.name not in {"superseded", "healed"}
)
REFUSED = tuple(each.name for each in attrs.fields(Refused))
received_values = attrgetter(*RECEIVED)
refused_values = attrgetter(*REFUSED)
_FILE = tuple(each.name for each in attrs.fields(File) if each.name != "received")
_PLACES = {"bucket": "bucket.key", "series": "series.name", "since": "series.since"}
"""The column of a field, if its name differs."""

Ask = Callable[..., list[Any]]
"""Runs a query with values, and returns the rows."""


_SELECT_SERIES = (
    f"SELECT {', '.join(_PLACES.get(each, f'series.{each}') for each in _SERIES)}"
    " FROM series JOIN bucket ON bucket.id = series.bucket"
)

_SQL = {"int": "BIGINT", "float": "DOUBLE PRECISION", "str": "TEXT", "bool": "BOOLEAN"}
_TYPES = {
    each.name: _SQL[str(each.type).partition(" ")[0]]
    for kind in (Received, Refused)
    for each in attrs.fields(kind)
}


def type_of(name: str) -> str:
    """The SQL type of a column of a batch."""
    return _TYPES.get(name, "TEXT")


def extracted(names: Sequence[str]) -> str:
    """SQL for the columns of a JSON list, such as that of a :class:`Received`."""
    return ", ".join(
        f"CAST(value ->> {i} AS {type_of(name)})" for i, name in enumerate(names)
    )


def read_series(ask: Ask, rest: str, *values: Any) -> list[Series]:
    """Series and their buckets.

    :param rest: the query from ``WHERE`` on
    """
    return [Series(*row) for row in ask(f"{_SELECT_SERIES} {rest}", *values)]


def read_files(ask: Ask, rest: str, *values: Any) -> list[File]:
    """Pushes, with their series and buckets.

    :param rest: the query from ``WHERE`` on
    """
    columns = (_PLACES.get(each, f"push.{each}") for each in RECEIVED + _FILE)
    query = (
        f"SELECT {', '.join(columns)} FROM push"
        " JOIN bucket ON bucket.id = push.bucket"
        f" JOIN series ON series.id = push.series {rest}"
    )
    count = len(RECEIVED)
    return [
        File(
            received=Received(**dict(zip(RECEIVED, row[:count], strict=True))),
            **dict(zip(_FILE, row[count:], strict=True)),
        )
        for row in ask(query, *values)
    ]
