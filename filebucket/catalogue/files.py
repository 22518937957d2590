"""The catalogue as files and get use it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from zope.interface import implementer

from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import IFiles
from filebucket.catalogue.rows import read_files
from filebucket.model.records import Drill, File
from filebucket.model.series import is_series

PAGE = 1000
"""Rows that one query reads."""

_KEPT = (
    "WHERE fate = 'kept' AND push.bucket = (SELECT id FROM bucket WHERE bucket.key = ?)"
)


@implementer(IFiles)
class Files(Database):
    """A connection for files and get."""

    def named(self, bucket: str, name: str) -> File | None:
        found = read_files(
            self._ask, f"{_KEPT} AND push.name = ?", bucket, _utf_8(name)
        )
        return found[0] if found else None

    def is_missed(self, bucket: str, name: str) -> bool:
        missing = (
            "SELECT 1 FROM push WHERE fate = 'missing' AND fate <> 'kept'"
            " AND bucket = (SELECT id FROM bucket WHERE key = ?) AND name = ? LIMIT 1"
        )
        return (
            self.named(bucket, name) is not None
            or next(iter(self._ask(missing, bucket, name)), None) is not None
        )

    def newest_first(
        self, bucket: str, series: str | None = None, until: float = math.inf
    ) -> Iterator[File]:
        return self._pages(bucket, series, (until, 0), "<", "DESC")

    def oldest_first(
        self,
        bucket: str,
        after: tuple[float, int] = (-math.inf, 0),
        series: str | None = None,
    ) -> Iterator[File]:
        return self._pages(bucket, series, after, ">", "ASC")

    def drilled(self, drill: Drill) -> bool:
        received = drill.file.received
        with self._change() as do:
            # In a catalogue that replaced a damaged one, ids are given anew.
            changed = do(
                "UPDATE series SET"
                " drilled_at = ?1, drilled_name = ?2, drill_error = ?3,"
                " restored_at ="
                " CASE WHEN CAST(?3 AS TEXT) IS NULL THEN ?1 ELSE restored_at END"
                " WHERE id = (SELECT series FROM push WHERE id = ?4 AND name = ?2"
                " AND sha256 = ?5 AND bucket = (SELECT id FROM bucket WHERE key = ?6))",
                (
                    drill.at,
                    received.name,
                    drill.error,
                    drill.file.id,
                    received.sha256,
                    received.bucket,
                ),
            )
        return changed.rowcount > 0

    def _pages(
        self,
        bucket: str,
        series: str | None,
        place: tuple[float, int],
        after: str,
        order: str,
    ) -> Iterator[File]:
        where, given = self._where(bucket, series)
        rest = (
            f"{where} AND (received_at, push.id) {after} (?, ?)"
            f" ORDER BY received_at {order}, push.id {order} LIMIT ?"
        )
        while page := read_files(self._ask, rest, *given, *place, PAGE):
            yield from page
            place = page[-1].received.received_at, page[-1].id

    def _where(self, bucket: str, series: str | None) -> tuple[str, list[Any]]:
        """The conditions, and their values."""
        if series is None:
            return _KEPT, [bucket]
        ids = [
            id_
            for id_, name in self._each(
                "SELECT id, name FROM series"
                " WHERE bucket = (SELECT id FROM bucket WHERE key = ?)",
                bucket,
            )
            if is_series(name, series)
        ]
        if len(ids) == 1:
            return "WHERE fate = 'kept' AND push.series = ?", ids
        # The plus sign keeps SQLite from an index by which it would have to sort.
        these = "+push.series IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
        return f"{_KEPT} AND {these}", [bucket, json.dumps(ids)]


def _utf_8(argument: str) -> str:
    """An argument of the command. If it is not UTF-8, it matches no name."""
    return argument.encode(errors="surrogateescape").decode(errors="replace")
