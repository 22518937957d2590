"""The read-only view of the catalogue."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import evolve
from zope.interface import implementer

from filebucket.catalogue.batch import CLOCK_ERROR
from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.rows import REFUSED, read_files, read_series
from filebucket.model.node import Node
from filebucket.model.records import (
    Activity,
    Copy,
    Drills,
    File,
    HookFailure,
    Refused,
    Series,
    Space,
    Tally,
    Totals,
)
from filebucket.model.series import is_series
from filebucket.model.state import WORST_FIRST, State

_LIVES = "(files OR watched OR missing OR state = 'failed')"
_BADNESS = (
    "CASE CASE WHEN due <= ? THEN 'late' ELSE state END"
    f"{''.join(f' WHEN {each.value!r} THEN {n}' for n, each in enumerate(WORST_FIRST))}"
    " END"
)
_COUNTS = ", ".join(
    f"COUNT(*) FILTER (WHERE state = {each.value!r} AND (due <= ?1) IS NOT TRUE"
    f"{' OR due <= ?1' if each is State.LATE else ''})"
    for each in State
)
_SUMS = "key, SUM(files), SUM(bytes), MAX(last_at), SUM(damaged), SUM(missing)"
"""The fields of :class:`Totals`."""

_TALLIES = (
    f"SELECT {_SUMS}, MIN(due), {_COUNTS} FROM series"
    f" JOIN bucket ON bucket.id = series.bucket WHERE {_LIVES} GROUP BY series.bucket"
)

_TOTALS = (
    f"SELECT {_SUMS} FROM series"
    f" JOIN bucket ON bucket.id = series.bucket WHERE {_LIVES}"
    " GROUP BY series.bucket HAVING SUM(damaged) OR SUM(missing)"
    " OR key IN (SELECT value FROM json_each(?))"
)

# By the index of the series that had a restore test.
_DRILLS = """
    SELECT key,
        MAX(since, IFNULL((SELECT MIN(received_at) FROM push
            WHERE push.bucket = bucket.id), since)),
        EXISTS (SELECT 1 FROM series WHERE bucket = bucket.id AND files),
        passed_at, IFNULL(failed, 0)
    FROM bucket LEFT JOIN (
        SELECT bucket, MAX(restored_at) FILTER (WHERE restored_at <= ?1) AS passed_at,
            COUNT(*) FILTER (WHERE drill_error IS NOT NULL AND files) AS failed
        FROM series WHERE drilled_at IS NOT NULL GROUP BY bucket
    ) AS drill ON drill.bucket = bucket.id
    WHERE failed IS NOT NULL OR key IN (SELECT value FROM json_each(?2))
"""
_LAST_FAILED = (
    "SELECT name, drilled_at, drill_error FROM series"
    " WHERE drilled_at IS NOT NULL AND drill_error IS NOT NULL"
    " AND files AND bucket = (SELECT id FROM bucket WHERE key = ?)"
    " ORDER BY drilled_at DESC, id DESC LIMIT 1"
)

_OF_SERIES = "push.series IN (SELECT id FROM series WHERE is_series(name, ?))"

_NEWEST = (
    "SELECT IFNULL((SELECT seq FROM sqlite_sequence WHERE name = 'push'), 0),"
    " IFNULL((SELECT seq FROM sqlite_sequence WHERE name = 'refusal'), 0)"
)

# A file that is gone since then was there before; an overwritten one was replaced.
_ACTIVITY = """
    SELECT key,
        IFNULL(SUM(came AND request IS NOT NULL), 0),
        IFNULL(SUM(size) FILTER (WHERE came AND request IS NOT NULL), 0),
        IFNULL(SUM((came AND fate = 'kept') - (NOT came AND went)), 0),
        IFNULL(SUM(size * ((came AND fate = 'kept') - (NOT came AND went))), 0),
        IFNULL(SUM(went AND fate = 'pruned'), 0),
        IFNULL(SUM(size) FILTER (WHERE went AND fate = 'pruned'), 0),
        0, MIN(bucket.since, IFNULL(oldest, bucket.since))
    FROM (
        -- A found file may be older than its row, and than that of the bucket.
        SELECT id, key, since, (SELECT MIN(received_at) FROM push
            WHERE push.bucket = bucket.id) AS oldest
        FROM bucket
    ) AS bucket LEFT JOIN (
        SELECT bucket, size, request, fate, received_at >= ?1 AS came,
            fate <> 'kept' AND fate_at >= ?1 AS went
        FROM push WHERE received_at >= ?1 OR fate_at >= ?1
    ) AS event ON event.bucket = bucket.id
    GROUP BY bucket.id
"""
_REFUSED_SINCE = "SELECT bucket, COUNT(*) FROM refusal WHERE at >= ?1 GROUP BY bucket"


# The index by bucket and time begins with the first file that waits.
COPIES = """
    SELECT target, bucket, until, at, error, (
        SELECT received_at FROM push
        WHERE bucket = (SELECT id FROM bucket WHERE key = copy.bucket)
            AND received_at > IFNULL(until, -1e300)
            AND fate = 'kept' AND fate_at IS NULL
        ORDER BY received_at LIMIT 1)
    FROM copy ORDER BY target, bucket
"""


@implementer(IView)
class View(Database):
    """A connection for status, log, the page and the metrics."""

    @classmethod
    def _prepare(cls, connection: sqlite3.Connection) -> None:
        connection.create_function("is_series", 2, is_series, deterministic=True)

    def worst(self, bucket: str, now: float, limit: int) -> list[Series]:
        return read_series(
            self._ask,
            f"WHERE {_LIVES} AND key = ? ORDER BY NOT (damaged OR missing),"
            f" {_BADNESS}, name LIMIT ?",
            bucket,
            now,
            limit,
        )

    def tallies(self, now: float) -> list[Tally]:
        count = len(State)
        return [
            Tally(*[*row[:-count], _present(row[-count:])])
            for row in self._ask(_TALLIES, now)
        ]

    def totals(self, buckets: Collection[str]) -> list[Totals]:
        return [Totals(*row) for row in self._ask(_TOTALS, json.dumps([*buckets]))]

    def pushes(self, series: int, limit: int) -> list[tuple[float, int, str | None]]:
        query = (
            "SELECT received_at, size, client FROM push WHERE series = ?"
            " ORDER BY received_at DESC, id DESC LIMIT ?"
        )
        return self._ask(query, series, limit)[::-1]

    def latest(
        self,
        limit: int,
        bucket: str | None = None,
        series: str | None = None,
        since: float = -math.inf,
    ) -> list[File]:
        where, given = _only(
            ("bucket.key = ?", bucket),
            (_OF_SERIES, series),
            ("received_at >= ?", None if since == -math.inf else since),
        )
        return read_files(
            self._ask,
            f"{where} ORDER BY received_at DESC, push.id DESC LIMIT ?",
            *given,
            limit,
        )

    def refusals(
        self, limit: int, bucket: str | None = None, since: float = -math.inf
    ) -> list[Refused]:
        where, given = _only(("bucket = ?", bucket), ("at >= ?", since))
        return self._refusals(f"{where} ORDER BY id DESC LIMIT ?", *given, limit)

    def _refusals(self, rest: str, *values: Any) -> list[Refused]:
        query = f"SELECT {', '.join(REFUSED)} FROM refusal {rest}"
        return [Refused(*row) for row in self._ask(query, *values)]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._ask("BEGIN")
        try:
            yield
        finally:
            # After a disk error there may be none.
            if self._connection.in_transaction:
                self._ask("COMMIT")

    def newest(self) -> tuple[int, int]:
        ((push, refusal),) = self._ask(_NEWEST)
        return push, refusal

    def pushes_between(
        self,
        after: int,
        until: int,
        bucket: str | None = None,
        series: str | None = None,
        since: float = -math.inf,
    ) -> list[File]:
        # The plus signs keep SQLite from the indexes of the whole history.
        where, given = _only(
            ("push.id > ?", after),
            ("push.id <= ?", until),
            ("+bucket.key = ?", bucket),
            (f"+{_OF_SERIES}", series),
            ("+received_at >= ?", since),
        )
        return read_files(self._ask, f"{where} ORDER BY push.id", *given)

    def refusals_between(
        self,
        after: int,
        until: int,
        bucket: str | None = None,
        since: float = -math.inf,
    ) -> list[Refused]:
        where, given = _only(
            ("id > ?", after),
            ("id <= ?", until),
            ("+bucket = ?", bucket),
            ("at >= ?", since),
        )
        return self._refusals(f"{where} ORDER BY id", *given)

    def activity(self, since: float) -> list[Activity]:
        refused = dict(self._ask(_REFUSED_SINCE, since))
        found = [
            evolve(Activity(*row), refused=refused.pop(row[0], 0))
            for row in self._ask(_ACTIVITY, since)
        ]
        return found + [Activity(key, refused=count) for key, count in refused.items()]

    def hook_failures(self, limit: int, node: str = "") -> list[HookFailure]:
        query = (
            "SELECT hook, bucket, since, at, reason FROM hook_failure WHERE node = ?"
            " ORDER BY at DESC, hook, bucket LIMIT ?"
        )
        return [HookFailure(*row) for row in self._ask(query, node, limit)]

    def drills(self, buckets: Collection[str], now: float) -> list[Drills]:
        found = self._ask(_DRILLS, now + CLOCK_ERROR, json.dumps([*buckets]))
        return [
            Drills(*row, *(self._ask(_LAST_FAILED, row[0]) if row[-1] else ()))
            for row in found
        ]

    def full(self) -> dict[str, tuple[float, str]]:
        # With MAX, SQLite takes the other columns from the same row.
        query = (
            "SELECT bucket, MAX(at), reason FROM refusal WHERE status = 507"
            " GROUP BY bucket"
        )
        return {bucket: (at, reason) for bucket, at, reason in self._ask(query)}

    def copies(self) -> list[Copy]:
        return [Copy(*row) for row in self._ask(COPIES)]

    def space(self, since: float, node: str = "") -> list[Space]:
        query = (
            "SELECT at, free, total, node FROM space"
            " WHERE node = ? AND at >= ? ORDER BY at"
        )
        return [Space(*row) for row in self._ask(query, node, since)]

    def nodes(self) -> list[Node]:
        return []


def _only(*conditions: tuple[str, Any]) -> tuple[str, list[Any]]:
    """A WHERE clause with the conditions whose value is not None, and these values."""
    given = [each for each in conditions if each[1] is not None]
    where = f"WHERE {' AND '.join(text for text, _ in given)}" if given else ""
    return where, [value for _, value in given]


def _present(counts: Sequence[int]) -> Counter[State]:
    """The counts of states that are not 0."""
    each = zip(State, counts, strict=True)
    return Counter({state: count for state, count in each if count})
