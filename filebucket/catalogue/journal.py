"""The journal: what was pushed, and when, entered behind the pushes.

The files are the truth; this is what is known about them beside. A row is written
after its file was published, and nothing that happens here can harm a push: without the
catalogue nothing is lost but history, and what is on the disk is entered again
(:mod:`filebucket.upkeep.reindex`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from zope.interface import implementer

from filebucket.catalogue.batch import (
    CLOCK_ERROR,
    MAKE_BATCH,
    MOST_WATCHED,
    Do,
    assess_series,
    enter_batch,
)
from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import IJournal
from filebucket.catalogue.rows import (
    REFUSED,
    extracted,
    read_files,
    read_series,
    refused_values,
)
from filebucket.model.bucket import Bucket
from filebucket.model.records import File, Received, Refused, Series, Space
from filebucket.model.series import series_of
from filebucket.model.state import State

T = TypeVar("T")

KEPT_REFUSALS = 100
"""The latest refusals of each bucket that are kept, and of strangers."""

KEPT_SPACE = 60 * 24 * 6
"""Looks at the free space that are kept: two months, of one every ten minutes."""


@implementer(IJournal)
class Journal(Database):
    """A connection that enters what became of pushes."""

    @classmethod
    def _prepare(cls, connection: sqlite3.Connection) -> None:
        connection.execute(MAKE_BATCH)

    # What arrives.

    def record(
        self,
        received: Sequence[Received],
        refused: Sequence[Refused],
        buckets: Callable[[str], Bucket | None],
    ) -> None:
        pushes = [each for each in received if not each.healed]
        with self._change() as do:
            if pushes:
                enter_batch(do, pushes, buckets)
            for each in received:
                if each.healed:
                    values = each.received_at, each.bucket, each.name, each.sha256
                    do(_HEAL, values)
            if refused:
                rows = json.dumps([refused_values(each) for each in refused])
                do(_REFUSE, {"batch": rows})
                do(_FORGET_REFUSALS, {"batch": rows, "kept": KEPT_REFUSALS})

    # What is watched.

    def watch(
        self, buckets: Iterable[Bucket], hide: Callable[[str], str], now: float
    ) -> None:
        configured = {bucket.key: bucket for bucket in buckets}
        with self._change() as do:
            do("UPDATE series SET watched = 0")
            known = {
                key: (id_, patterns)
                for id_, key, patterns in do("SELECT id, key, patterns FROM bucket")
            }
            for key, bucket in configured.items():
                # Of what nobody has pushed to or waits for, nothing is to be known.
                if key not in known and bucket.expect is None:
                    continue
                if key not in known:
                    do("INSERT INTO bucket (key, since) VALUES (?, ?)", (key, now))
                    ((id_,),) = do("SELECT id FROM bucket WHERE key = ?", (key,))
                    known[key] = id_, "[]"
                id_, patterns = known[key]
                if json.loads(patterns) != list(bucket.series):
                    self._sort_anew(do, id_, bucket, hide)
                self._watch_bucket(do, id_, bucket, now)
            do("DELETE FROM series WHERE pushes = 0 AND NOT watched")
        # Not in one transaction: others get their turn.
        for some in _chunks(self._ask(_SERIES_OF_BUCKETS), 1000):
            with self._change() as do:
                for series, key in some:
                    if key in configured:
                        assess_series(do, configured[key], series, now, is_right=False)
        with self._change() as do:
            do("UPDATE series SET due = NULL WHERE NOT watched")
            # Of what is not configured any more, nobody wants to hear.
            gone = [id_ for key, (id_, _) in known.items() if key not in configured]
            do(
                "UPDATE series SET told = state WHERE told <> state"
                " AND bucket IN (SELECT value FROM json_each(?))",
                (json.dumps(gone),),
            )

    def _watch_bucket(self, do: Do, id_: int, bucket: Bucket, now: float) -> None:
        expected = bucket.series
        if bucket.expect is None:
            do("DELETE FROM series WHERE bucket = ? AND pushes = 0", (id_,))
            expected = ()
        elif not bucket.series:
            ((some,),) = do("SELECT COUNT(*) FROM series WHERE bucket = ?", (id_,))
            # Whatever comes first will take its place.
            expected = () if some else ("",)
        for name in expected:
            do(
                "INSERT INTO series (bucket, name, since, state, state_at, told)"
                " VALUES (?, ?, ?, 'never', ?, 'never') ON CONFLICT DO NOTHING",
                (id_, name, now, now),
            )
        named = json.dumps(bucket.series)
        do(
            "UPDATE series SET watched = 1 WHERE id IN (SELECT id FROM series"
            " WHERE bucket = ?1 AND (?2 = '[]'"
            " OR name IN (SELECT value FROM json_each(?2))) ORDER BY id LIMIT ?3)",
            (id_, named, MOST_WATCHED),
        )

    def _sort_anew(
        self, do: Do, id_: int, bucket: Bucket, hide: Callable[[str], str]
    ) -> None:
        """The bucket's patterns are others: its pushes are of other series."""
        patterns = bucket.series

        def find(name: str) -> str:
            return series_of(hide(name), patterns)

        self._connection.create_function("series_of", 1, find, deterministic=True)
        do("UPDATE bucket SET patterns = ? WHERE id = ?", (json.dumps(patterns), id_))
        do(
            "INSERT INTO series (bucket, name, since, state, state_at, told)"
            " SELECT bucket, series_of(name), MIN(received_at), 'fresh',"
            " MAX(received_at), 'fresh' FROM push WHERE bucket = ?"
            " GROUP BY series_of(name) ON CONFLICT DO NOTHING",
            (id_,),
        )
        do(
            "UPDATE push SET series = (SELECT id FROM series WHERE"
            " series.bucket = push.bucket AND series.name = series_of(push.name))"
            " WHERE bucket = ?",
            (id_,),
        )
        do(_RECOUNT, (id_,))
        do("DELETE FROM series WHERE bucket = ? AND pushes = 0", (id_,))

    def pass_time(self, now: float) -> None:
        due = "due <= ? AND state <> 'late'"
        if self._ask(f"SELECT 1 FROM series WHERE {due} LIMIT 1", now):
            with self._change() as do:
                do(
                    f"UPDATE series SET state = 'late', state_at = due WHERE {due}",
                    (now,),
                )

    def mistrust(self, now: float, buckets: Callable[[str], Bucket | None]) -> int:
        future = "WHERE last_at > ?"
        found = read_series(self._ask, future, now + CLOCK_ERROR)
        if found:
            with self._change() as do:
                for each in found:
                    do("UPDATE series SET last_at = ? WHERE id = ?", (now, each.id))
                    bucket = buckets(each.bucket)
                    if bucket is not None:
                        assess_series(do, bucket, each.id, now)
        return len(found)

    def untold(self, limit: int) -> list[Series]:
        untold = "WHERE told <> state AND watched ORDER BY state_at LIMIT ?"
        return read_series(self._ask, untold, limit)

    def mark_told(self, series: int, state: State) -> None:
        with self._change() as do:
            do("UPDATE series SET told = ? WHERE id = ?", (state.value, series))

    def find(self, bucket: str, name: str) -> File | None:
        found = read_files(
            self._ask,
            "WHERE bucket.key = ? AND push.name = ? AND fate = 'kept'",
            bucket,
            name,
        )
        return found[0] if found else None

    def note_space(self, space: Space) -> None:
        with self._change() as do:
            do(
                "INSERT OR REPLACE INTO space (at, free, total) VALUES (?, ?, ?)",
                (space.at, space.free, space.total),
            )
            do(
                "DELETE FROM space WHERE at <= (SELECT at FROM space"
                " ORDER BY at DESC LIMIT 1 OFFSET ?)",
                (KEPT_SPACE,),
            )


def _chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


_SERIES_OF_BUCKETS = (
    "SELECT series.id, key FROM series JOIN bucket ON bucket.id = series.bucket"
)

_HEAL = (
    "UPDATE push SET damaged = 0, verified_at = ? WHERE fate = 'kept'"
    " AND bucket = (SELECT id FROM bucket WHERE key = ?) AND name = ? AND sha256 = ?"
)

_REFUSE = (
    f"INSERT INTO refusal ({', '.join(REFUSED)}) SELECT {extracted(REFUSED)}"
    " FROM json_each(:batch) ORDER BY key"
)

_FORGET_REFUSALS = (
    "DELETE FROM refusal WHERE bucket IN"
    " (SELECT json_extract(value, '$[0]') FROM json_each(:batch))"
    " AND id <= (SELECT id FROM refusal AS old WHERE old.bucket = refusal.bucket"
    " ORDER BY id DESC LIMIT 1 OFFSET :kept)"
)

_RECOUNT = """
UPDATE series SET
    pushes = (SELECT COUNT(*) FROM push WHERE series = series.id),
    files = (SELECT COUNT(*) FROM push WHERE series = series.id AND fate = 'kept'),
    bytes = (SELECT IFNULL(SUM(size), 0) FROM push
             WHERE series = series.id AND fate = 'kept'),
    missing = (SELECT COUNT(*) FROM push
               WHERE series = series.id AND fate = 'missing'),
    damaged = (SELECT COUNT(*) FROM push
               WHERE series = series.id AND fate = 'kept' AND push.damaged),
    (last_at, last_size, last_name) = (
        SELECT received_at, size, name FROM push WHERE series = series.id
        ORDER BY received_at DESC, id DESC LIMIT 1)
WHERE bucket = ?
"""
