"""The read-only view of the catalogue."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import evolve
from zope.interface import implementer

from filebucket.catalogue.batch import CLOCK_ERROR
from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.nodes import read_nodes
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
from filebucket.model.series import first_characters, is_series
from filebucket.model.state import WORST_FIRST, State

_LIVES = "(files > 0 OR watched OR missing > 0 OR state = 'failed')"
_BADNESS = (
    "CASE CASE WHEN due <= ?2 THEN 'late' ELSE state END"
    f"{''.join(f' WHEN {each.value!r} THEN {n}' for n, each in enumerate(WORST_FIRST))}"
    " END"
)
_WORST_FIRST = f"NOT (damaged > 0 OR missing > 0), {_BADNESS}, name"
_WORST_OF_BUCKET = (
    f"SELECT id FROM series AS other WHERE other.bucket = bucket.id AND {_LIVES}"
    f" ORDER BY {_WORST_FIRST} LIMIT ?3"
)
# SQLite has no LATERAL. Without it, PostgreSQL would compare each series with each
# bucket.
_WORST, _WORST_SHARED = (
    f"WHERE series.id IN (SELECT worst.id FROM bucket CROSS JOIN {each}"
    f" AND key IN (SELECT value FROM json_each(?1))) ORDER BY {_WORST_FIRST}"
    for each in (
        f"series AS worst WHERE worst.id IN ({_WORST_OF_BUCKET})",
        f"LATERAL ({_WORST_OF_BUCKET}) AS worst WHERE TRUE",
    )
)
_COUNTS = ", ".join(
    f"COUNT(*) FILTER (WHERE state = {each.value!r} AND (due <= ?1) IS NOT TRUE"
    f"{' OR due <= ?1' if each is State.LATE else ''}) AS n{number}"
    for number, each in enumerate(State)
)
_SUMS = (
    "SUM(files) AS files, SUM(bytes) AS bytes, MAX(last_at) AS last_at,"
    " SUM(damaged) AS damaged, SUM(missing) AS missing"
)
_SUMMED = "key, files, bytes, last_at, damaged, missing"
"""The fields of :class:`Totals`."""

_TALLIES = (
    f"SELECT {_SUMMED}, due, {', '.join(f'n{each}' for each in range(len(State)))}"
    f" FROM (SELECT bucket, {_SUMS}, MIN(due) AS due, {_COUNTS} FROM series"
    f" WHERE {_LIVES} GROUP BY bucket) AS total JOIN bucket ON bucket.id = total.bucket"
)

_TOTALS = (
    f"SELECT {_SUMMED} FROM (SELECT bucket, {_SUMS} FROM series WHERE {_LIVES}"
    " GROUP BY bucket) AS total JOIN bucket ON bucket.id = total.bucket"
    " WHERE damaged > 0 OR missing > 0 OR key IN (SELECT value FROM json_each(?))"
)

# By the index of the series that had a restore test.
_DRILLS = """
    SELECT key,
        MAX(since, COALESCE((SELECT MIN(received_at) FROM push
            WHERE push.bucket = bucket.id), since)),
        EXISTS (SELECT 1 FROM series WHERE bucket = bucket.id AND files > 0),
        passed_at, COALESCE(failed, 0)
    FROM bucket LEFT JOIN (
        SELECT bucket, MAX(restored_at) FILTER (WHERE restored_at <= ?1) AS passed_at,
            COUNT(*) FILTER (WHERE drill_error IS NOT NULL AND files > 0) AS failed
        FROM series WHERE drilled_at IS NOT NULL GROUP BY bucket
    ) AS drill ON drill.bucket = bucket.id
    WHERE failed IS NOT NULL OR key IN (SELECT value FROM json_each(?2))
"""
_LAST_FAILED = (
    "SELECT name, drilled_at, drill_error FROM series"
    " WHERE drilled_at IS NOT NULL AND drill_error IS NOT NULL"
    " AND files > 0 AND bucket = (SELECT id FROM bucket WHERE key = ?)"
    " ORDER BY drilled_at DESC, id DESC LIMIT 1"
)

_LATEST = (
    "FROM push WHERE series = CAST(value AS BIGINT)"
    " ORDER BY received_at DESC, id DESC LIMIT"
)
# One row for each series takes half the time of one for each push. Both databases keep
# the order of a subquery with a limit.
_SIZES = (
    "SELECT CAST(value AS BIGINT), (SELECT CAST({}(size) AS TEXT)"
    f" FROM (SELECT size {_LATEST} ?2) AS latest), (SELECT client {_LATEST} 1)"
    " FROM json_each(?1)"
)

_OF_SERIES = "push.series IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"

# The last row of a table is only deleted if a later one replaces it.
_NEWEST = (
    "SELECT COALESCE((SELECT MAX(id) FROM push), 0),"
    " COALESCE((SELECT MAX(id) FROM refusal), 0)"
)

# A file that is gone since then was there before; an overwritten one was replaced.
_ACTIVITY = """
    SELECT key, COALESCE(pushes, 0), COALESCE(received, 0),
        COALESCE(kept - gone, 0), COALESCE(kept_bytes, 0) - COALESCE(gone_bytes, 0),
        COALESCE(pruned, 0), COALESCE(pruned_bytes, 0),
        0, MIN(since, COALESCE(oldest, since))
    FROM (
        -- A found file may be older than its row, and than that of the bucket.
        SELECT id, key, since, (SELECT MIN(received_at) FROM push
            WHERE push.bucket = bucket.id) AS oldest
        FROM bucket
    ) AS known LEFT JOIN (
        SELECT bucket,
            COUNT(*) FILTER (WHERE came AND request IS NOT NULL) AS pushes,
            SUM(size) FILTER (WHERE came AND request IS NOT NULL) AS received,
            COUNT(*) FILTER (WHERE came AND fate = 'kept') AS kept,
            SUM(size) FILTER (WHERE came AND fate = 'kept') AS kept_bytes,
            COUNT(*) FILTER (WHERE NOT came AND went) AS gone,
            SUM(size) FILTER (WHERE NOT came AND went) AS gone_bytes,
            COUNT(*) FILTER (WHERE went AND fate = 'pruned') AS pruned,
            SUM(size) FILTER (WHERE went AND fate = 'pruned') AS pruned_bytes
        FROM (
            SELECT bucket, size, request, fate, received_at >= ?1 AS came,
                fate <> 'kept' AND fate_at >= ?1 AS went
            FROM push WHERE received_at >= ?1 OR fate_at >= ?1
        ) AS event GROUP BY bucket
    ) AS happened ON happened.bucket = known.id
"""
_REFUSED_SINCE = "SELECT bucket, COUNT(*) FROM refusal WHERE at >= ?1 GROUP BY bucket"


# The index by bucket and time begins with the first file that waits.
COPIES = """
    SELECT target, bucket, until, at, error, (
        SELECT received_at FROM push
        WHERE bucket = (SELECT id FROM bucket WHERE key = copy.bucket)
            AND received_at > COALESCE(until, -1e300)
            AND fate = 'kept' AND fate_at IS NULL
        ORDER BY received_at LIMIT 1)
    FROM copy ORDER BY target, bucket
"""


@implementer(IView)
class View(Database):
    """A connection for status, log, the page and the metrics."""

    def worst(
        self, buckets: Collection[str], now: float, limit: int
    ) -> dict[str, list[Series]]:
        rest = _WORST_SHARED if self._connection.is_shared else _WORST
        found: dict[str, list[Series]] = {each: [] for each in buckets}
        for each in read_series(self._ask, rest, json.dumps([*found]), now, limit):
            found[each.bucket].append(each)
        return found

    def tallies(self, now: float) -> list[Tally]:
        count = len(State)
        return [
            Tally(*[*row[:-count], _present(row[-count:])])
            for row in self._ask(_TALLIES, now)
        ]

    def totals(self, buckets: Collection[str]) -> list[Totals]:
        return [Totals(*row) for row in self._ask(_TOTALS, json.dumps([*buckets]))]

    def sizes(
        self, series: Collection[int], limit: int
    ) -> dict[int, tuple[list[int], str | None]]:
        aggregate = "json_agg" if self._connection.is_shared else "json_group_array"
        rows = self._ask(_SIZES.format(aggregate), json.dumps([*series]), limit)
        # PostgreSQL makes no empty list.
        return {
            each: (json.loads(sizes or "[]")[::-1], client)
            for each, sizes, client in rows
        }

    def latest(
        self,
        limit: int,
        bucket: str | None = None,
        series: str | None = None,
        since: float = -math.inf,
    ) -> list[File]:
        where, given = _only(
            ("bucket.key = ?", bucket),
            (_OF_SERIES, self._series_ids(series)),
            ("received_at >= ?", None if since == -math.inf else since),
        )
        return read_files(
            self._ask,
            f"{where} ORDER BY received_at DESC, push.id DESC LIMIT ?",
            *given,
            limit,
        )

    def _series_ids(self, wanted: str | None) -> str | None:
        """The ids of the series with that name, or that match that pattern, as JSON."""
        if wanted is None:
            return None
        first = first_characters(wanted)
        query = "SELECT id, name FROM series WHERE substr(name, 1, ?) = ?"
        some = self._each(query, len(first), first)
        return json.dumps([id_ for id_, name in some if is_series(name, wanted)])

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
        with self._connection.snapshot():
            yield

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
        # These terms keep the database from the indexes of the whole history.
        where, given = _only(
            ("push.id > ?", after),
            ("push.id <= ?", until),
            ("bucket.key || '' = ?", bucket),
            ("+received_at >= ?", since),
        )
        found = read_files(self._ask, f"{where} ORDER BY push.id", *given)
        return [
            each
            for each in found
            if series is None or is_series(each.received.series, series)
        ]

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
            ("bucket || '' = ?", bucket),
            ("at >= ?", since),
        )
        return self._refusals(f"{where} ORDER BY id", *given)

    def activity(self, since: float) -> list[Activity]:
        refused = dict(self._ask(_REFUSED_SINCE, since))
        found = [
            evolve(Activity(*row), refused=refused.pop(row[0], 0))
            for row in self._each(_ACTIVITY, since)
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
        query = (
            "SELECT bucket, at, reason FROM refusal WHERE status = 507 AND at ="
            " (SELECT MAX(at) FROM refusal AS other WHERE other.status = 507"
            " AND other.bucket = refusal.bucket) ORDER BY id"
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

    def nodes(self, now: float) -> list[Node]:
        return read_nodes(self._connection, now)


def _only(*conditions: tuple[str, Any]) -> tuple[str, list[Any]]:
    """A WHERE clause with the conditions whose value is not None, and these values."""
    given = [each for each in conditions if each[1] is not None]
    where = f"WHERE {' AND '.join(text for text, _ in given)}" if given else ""
    return where, [value for _, value in given]


# Listing an enumeration takes longer than to count its members.
_STATES = tuple(State)


def _present(counts: Sequence[int]) -> Counter[State]:
    """The counts of states that are not 0."""
    each = zip(_STATES, counts, strict=True)
    return Counter({state: count for state, count in each if count})
