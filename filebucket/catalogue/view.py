"""The read-only view of the catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zope.interface import implementer

from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.rows import REFUSED, read_files, read_series
from filebucket.model.records import File, HookFailure, Refused, Series, Space, Tally
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
_TALLIES = (
    "SELECT key, SUM(files), SUM(bytes), MAX(last_at), MIN(due),"
    f" SUM(damaged), SUM(missing), {_COUNTS} FROM series"
    f" JOIN bucket ON bucket.id = series.bucket WHERE {_LIVES} GROUP BY series.bucket"
)


@implementer(IView)
class View(Database):
    """A connection for status, log, the page and the metrics."""

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

    def sizes(self, series: int, limit: int) -> list[tuple[float, int]]:
        query = (
            "SELECT received_at, size FROM push WHERE series = ?"
            " ORDER BY received_at DESC, id DESC LIMIT ?"
        )
        return self._ask(query, series, limit)[::-1]

    def latest(self, limit: int, bucket: str | None = None) -> list[File]:
        where = "" if bucket is None else "WHERE bucket.key = ?"
        given = () if bucket is None else (bucket,)
        return read_files(
            self._ask,
            f"{where} ORDER BY received_at DESC, push.id DESC LIMIT ?",
            *given,
            limit,
        )

    def refusals(self, limit: int, bucket: str | None = None) -> list[Refused]:
        where = "" if bucket is None else "WHERE bucket = ?"
        given = () if bucket is None else (bucket,)
        return [
            Refused(*row)
            for row in self._ask(
                f"SELECT {', '.join(REFUSED)} FROM refusal {where}"
                " ORDER BY id DESC LIMIT ?",
                *given,
                limit,
            )
        ]

    def hook_failures(self, limit: int) -> list[HookFailure]:
        query = (
            "SELECT hook, bucket, since, at, reason FROM hook_failure"
            " ORDER BY at DESC, hook, bucket LIMIT ?"
        )
        return [HookFailure(*row) for row in self._ask(query, limit)]

    def full(self) -> dict[str, tuple[float, str]]:
        # With MAX, SQLite takes the other columns from the same row.
        query = (
            "SELECT bucket, MAX(at), reason FROM refusal WHERE status = 507"
            " GROUP BY bucket"
        )
        return {bucket: (at, reason) for bucket, at, reason in self._ask(query)}

    def space(self, since: float) -> list[Space]:
        query = "SELECT at, free, total FROM space WHERE at >= ? ORDER BY at"
        return [Space(*row) for row in self._ask(query, since)]


def _present(counts: Sequence[int]) -> Counter[State]:
    """The counts of states that are not 0."""
    each = zip(State, counts, strict=True)
    return Counter({state: count for state, count in each if count})
