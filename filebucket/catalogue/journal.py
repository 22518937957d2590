"""What was pushed, and when: a row for each push, in SQLite, under the home.

The files are the truth; this is what is known about them beside. A row is written
after its file was published, and nothing that happens here can harm a push: without the
catalogue nothing is lost but history, and what is on the disk is entered again
(:mod:`filebucket.upkeep.reindex`).

A :class:`Catalogue` is one connection, to be used by one thread at a time. There may be
several, also of several processes: each change is one short transaction, and whoever
reads is not held up by who writes (SQLite's write-ahead log). A batch of pushes goes in
as one text of JSON, by a handful of statements whatever its size: so SQLite works it
off without Python's lock, and pushes go on beside it.

The totals of a series are kept by triggers, whichever program changes a row.

It holds no token: a bucket without a name is known by the SHA-256 of its token, and the
name of a series is made of what the masked name of a file is. The name of a file itself
is as the client gave it, so it is not to be shown without a mask.
"""

from __future__ import annotations

import json
import math
import sqlite3
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from filebucket.catalogue.database import Database, told
from filebucket.model.bucket import Bucket
from filebucket.model.records import (
    Entered,
    File,
    FoundFile,
    Received,
    Refused,
    Row,
    Series,
    Space,
    Tally,
    or_infinity,
)
from filebucket.model.series import series_of
from filebucket.model.state import (
    COMPARED,
    WORST_FIRST,
    Facts,
    State,
    assess,
    judge,
    usual_size,
)

T = TypeVar("T")

KEPT_REFUSALS = 100
"""The latest refusals of each bucket that are kept, and of strangers."""

KEPT_SPACE = 60 * 24 * 6
"""Looks at the free space that are kept: two months, of one every ten minutes."""

CLOCK_ERROR = 24 * 3600.0
"""Seconds that a push may have been received in the future: what is more is not to be
believed."""

MOST_WATCHED = 100
"""Series of a bucket that are expected to go on, the oldest first: a client can make up
as many as it likes."""

_SERIES = tuple(each.name for each in attrs.fields(Series))
_RECEIVED = tuple(
    each.name for each in attrs.fields(Received) if each.name != "superseded"
)
_FILE = tuple(each.name for each in attrs.fields(File) if each.name != "received")
_ROW = (
    "push.id, push.name, push.size, push.sha256, push.received_at,"
    " MAX(push.received_at, IFNULL(push.verified_at, push.received_at)), push.damaged"
)
_LIVES = "(files OR watched OR missing)"
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
    f"SELECT key, SUM(files), SUM(bytes), MAX(last_at), MIN(due),"
    f" SUM(damaged), SUM(missing), {_COUNTS} FROM series"
    f" JOIN bucket ON bucket.id = series.bucket WHERE {_LIVES} GROUP BY series.bucket"
)
_PLACES = {"bucket": "bucket.key", "series": "series.name", "since": "series.since"}
"""Where a field comes from, where it is not the column of its name."""


class Catalogue(Database):
    """A connection to the catalogue of a home."""

    @classmethod
    def _prepare(cls, connection: sqlite3.Connection) -> None:
        connection.execute(_MAKE_BATCH)

    # What arrives.

    def record(
        self,
        received: Sequence[Received],
        refused: Sequence[Refused],
        buckets: Callable[[str], Bucket | None],
    ) -> None:
        """Enter pushes and refusals, in their order.

        :param buckets: the bucket of a key, where it is configured
        """
        with self._change() as do:
            if received:
                self._record(do, received, buckets)
            if refused:
                rows = json.dumps([attrs.astuple(each) for each in refused])
                do(_REFUSE, {"batch": rows})
                do(_FORGET_REFUSALS, {"batch": rows, "kept": KEPT_REFUSALS})

    def _record(
        self,
        do: Callable[..., sqlite3.Cursor],
        received: Sequence[Received],
        buckets: Callable[[str], Bucket | None],
    ) -> None:
        batch = _batch(received)
        for statement in _RECORD:
            do(statement, {"batch": batch} if ":batch" in statement else {})
        self._assess_batch(do, buckets)

    def _assess_batch(
        self,
        do: Callable[..., sqlite3.Cursor],
        buckets: Callable[[str], Bucket | None],
    ) -> None:
        """Judge what came, and say how its series are now."""
        for series, key, count, newest in do(_TOUCHED).fetchall():
            bucket = buckets(key)
            if bucket is None:
                continue
            until = newest + CLOCK_ERROR
            latest = do(_LATEST, (series, until, count + COMPARED)).fetchall()
            sizes = [size for _, size in latest]
            for index in range(min(count, len(latest))):
                found = judge(
                    bucket,
                    sizes[index],
                    usual_size(sizes[index + 1 : index + 1 + COMPARED]),
                )
                if found is not State.FRESH:
                    judged = (found.value, latest[index][0])
                    do("UPDATE push SET judgement = ? WHERE id = ?", judged)
            self._assess(do, bucket, series, newest)

    def _assess(
        self,
        do: Callable[..., sqlite3.Cursor],
        bucket: Bucket,
        series: int,
        now: float,
        is_right: bool = True,
    ) -> None:
        """Say how a series is.

        :param is_right: whether ``now`` is to be believed rather than what is known
        """
        ((since, last, watched),) = do(
            "SELECT since, last_at, watched FROM series WHERE id = ?", (series,)
        )
        until = (now if is_right else max(now, last or now)) + CLOCK_ERROR
        sizes = [size for _, size in do(_LATEST, (series, until, COMPARED + 1))]
        found = assess(bucket, bool(watched), Facts(since, last, sizes), now)
        do(
            "UPDATE series SET due = ?, usual = ?,"
            " state_at = CASE state WHEN ? THEN state_at ELSE ? END, state = ?"
            " WHERE id = ?",
            (
                None if math.isinf(found.due) else found.due,
                found.usual,
                found.state.value,
                found.due if found.state is State.LATE else now,
                found.state.value,
                series,
            ),
        )

    # What is watched.

    def watch(
        self, buckets: Iterable[Bucket], hide: Callable[[str], str], now: float
    ) -> None:
        """Expect what these buckets expect from now on, and nothing else.

        :param hide: the mask of names
        """
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
                        self._assess(do, configured[key], series, now, is_right=False)
        with self._change() as do:
            do("UPDATE series SET due = NULL WHERE NOT watched")
            # Of what is not configured any more, nobody wants to hear.
            gone = [id_ for key, (id_, _) in known.items() if key not in configured]
            do(
                "UPDATE series SET told = state WHERE told <> state"
                " AND bucket IN (SELECT value FROM json_each(?))",
                (json.dumps(gone),),
            )

    def _watch_bucket(
        self,
        do: Callable[..., sqlite3.Cursor],
        id_: int,
        bucket: Bucket,
        now: float,
    ) -> None:
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
        self,
        do: Callable[..., sqlite3.Cursor],
        id_: int,
        bucket: Bucket,
        hide: Callable[[str], str],
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
        """See what has become late."""
        due = "due <= ? AND state <> 'late'"
        if self._ask(f"SELECT 1 FROM series WHERE {due} LIMIT 1", now):
            with self._change() as do:
                do(
                    f"UPDATE series SET state = 'late', state_at = due WHERE {due}",
                    (now,),
                )

    def mistrust(self, now: float, buckets: Callable[[str], Bucket | None]) -> int:
        """The clock is right: of what was received in its future is not known when it
        was, and so it counts as received now. Rows stay as they are.

        :returns: of how many series that was the last push
        """
        future = "WHERE last_at > ?"
        found = self._series(future, now + CLOCK_ERROR)
        if found:
            with self._change() as do:
                for each in found:
                    do("UPDATE series SET last_at = ? WHERE id = ?", (now, each.id))
                    bucket = buckets(each.bucket)
                    if bucket is not None:
                        self._assess(do, bucket, each.id, now)
        return len(found)

    def untold(self, limit: int) -> list[Series]:
        """Series whose state the operator has not been told, of those that are watched:
        a client can make up as many as it likes.
        """
        untold = "WHERE told <> state AND watched ORDER BY state_at LIMIT ?"
        return self._series(untold, limit)

    def tell(self, series: int, state: State) -> None:
        """The operator was told that a series has that state."""
        with self._change() as do:
            do("UPDATE series SET told = ? WHERE id = ?", (state.value, series))

    # What is known.

    def series(self, bucket: str | None = None) -> list[Series]:
        """All series, or those of the bucket of that key, in the order of their names.

        Of series whose files are all gone, and which nobody expects, there are none.
        """
        if bucket is not None:
            return self._series(f"WHERE {_LIVES} AND key = ? ORDER BY name", bucket)
        return self._series(f"WHERE {_LIVES} ORDER BY key, name")

    def worst(self, bucket: str, now: float, limit: int) -> list[Series]:
        """Some of these series, those first whose files are lost, then by their states
        at ``now``, the worst first."""
        return self._series(
            f"WHERE {_LIVES} AND key = ? ORDER BY NOT (damaged OR missing),"
            f" {_BADNESS}, name LIMIT ?",
            bucket,
            now,
            limit,
        )

    def tallies(self, now: float) -> list[Tally]:
        """What all these series come to, of each bucket, with their states at
        ``now``."""
        found = []
        for key, files, size, last_at, due, damaged, missing, *counts in self._ask(
            _TALLIES, now
        ):
            states = Counter(
                {
                    state: count
                    for state, count in zip(State, counts, strict=True)
                    if count
                }
            )
            tally = Tally(
                key,
                files,
                size,
                last_at,
                or_infinity(due),
                damaged,
                missing,
                states,
            )
            found.append(tally)
        return found

    def _series(self, rest: str, *values: Any) -> list[Series]:
        columns = ", ".join(_PLACES.get(each, f"series.{each}") for each in _SERIES)
        query = (
            f"SELECT {columns} FROM series JOIN bucket ON bucket.id = series.bucket"
            f" {rest}"
        )
        return [
            Series(**dict(zip(_SERIES, row, strict=True)))
            for row in self._ask(query, *values)
        ]

    def sizes(self, series: int, limit: int) -> list[tuple[float, int]]:
        """When the latest pushes of a series came, and their bytes, the last one
        last."""
        query = (
            "SELECT received_at, size FROM push WHERE series = ?"
            " ORDER BY received_at DESC, id DESC LIMIT ?"
        )
        return self._ask(query, series, limit)[::-1]

    def latest(self, limit: int, bucket: str | None = None) -> list[File]:
        """The latest pushes, of all buckets or of one, the last one first."""
        where = "" if bucket is None else "WHERE bucket.key = ?"
        given = () if bucket is None else (bucket,)
        return self._files(
            f"{where} ORDER BY received_at DESC, push.id DESC LIMIT ?", *given, limit
        )

    def series_with_files(
        self, bucket: str, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str]]:
        """The ids and names of series of a bucket that have files, by their ids.

        :param after: the id of the last one that is known already
        """
        return self._ask(
            "SELECT series.id, name FROM series JOIN bucket ON bucket.id = bucket"
            " WHERE key = ? AND files AND series.id > ? ORDER BY series.id LIMIT ?",
            bucket,
            after,
            limit,
        )

    def kept_in_series(
        self,
        series: int,
        before: tuple[float, int] = (math.inf, 0),
        limit: int = 1000,
    ) -> list[File]:
        """Files of a series that there should be, the latest first.

        :param before: when the last one that is known already was received, and its id
        """
        return self._files(
            "WHERE push.series = ? AND fate = 'kept'"
            " AND (received_at, push.id) < (?, ?)"
            " ORDER BY received_at DESC, push.id DESC LIMIT ?",
            series,
            *before,
            limit,
        )

    def find(self, bucket: str, name: str) -> File | None:
        """The file of that name that there should be."""
        found = self._files(
            "WHERE bucket.key = ? AND push.name = ? AND fate = 'kept'", bucket, name
        )
        return found[0] if found else None

    def _files(self, rest: str, *values: Any) -> list[File]:
        columns = (_PLACES.get(each, f"push.{each}") for each in _RECEIVED + _FILE)
        query = (
            f"SELECT {', '.join(columns)} FROM push"
            " JOIN bucket ON bucket.id = push.bucket"
            f" JOIN series ON series.id = push.series {rest}"
        )
        count = len(_RECEIVED)
        return [
            File(
                received=Received(**dict(zip(_RECEIVED, row[:count], strict=True))),
                **dict(zip(_FILE, row[count:], strict=True)),
            )
            for row in self._ask(query, *values)
        ]

    def refusals(self, limit: int, bucket: str | None = None) -> list[Refused]:
        """The latest refusals, of all or of one bucket, the last one first."""
        where = "" if bucket is None else "WHERE bucket = ?"
        given = () if bucket is None else (bucket,)
        return [
            Refused(*row)
            for row in self._ask(
                "SELECT bucket, at, name, size, status, reason, client, request"
                f" FROM refusal {where} ORDER BY id DESC LIMIT ?",
                *given,
                limit,
            )
        ]

    # What is on the disk.

    def rows(
        self, bucket: str, fate: str, after: str = "", limit: int = 1000
    ) -> list[Row]:
        """Files of a bucket, by their names.

        :param fate: ``kept`` or ``missing``
        :param after: the name of the last one that is known already
        """
        # The planner must see which index fits.
        gone = "" if fate == "kept" else "fate <> 'kept' AND"
        return [
            Row(*row)
            for row in self._ask(
                f"SELECT {_ROW} FROM push WHERE {gone} fate = '{fate}'"
                " AND bucket = (SELECT id FROM bucket WHERE key = ?)"
                " AND name > ? ORDER BY name LIMIT ?",
                bucket,
                after,
                limit,
            )
        ]

    def unknown(self, bucket: str, names: Sequence[str]) -> list[str]:
        """Those of these names that no file has which there should be."""
        query = (
            "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM push"
            " WHERE bucket = (SELECT id FROM bucket WHERE key = ?)"
            " AND name = value AND fate = 'kept') ORDER BY key"
        )
        return [name for (name,) in self._ask(query, json.dumps(names), bucket)]

    def enter(
        self,
        found: Sequence[FoundFile],
        now: float,
        buckets: Mapping[str, Bucket],
    ) -> list[Entered]:
        """Enter files that were found, but for those of which a push that was entered
        meanwhile says what they are.

        One that is missing and had the same content is kept again.

        :param now: seconds since the epoch
        :param buckets: by their keys
        :returns: of each what it was
        """
        of_name = (
            "FROM push WHERE bucket = (SELECT id FROM bucket WHERE key = ?)"
            " AND name = ?"
        )
        kinds: list[Entered] = []
        new = []
        with self._change() as do:
            for each in found:
                received = each.received
                name = received.bucket, received.name
                kept = do(f"SELECT id {of_name} AND fate = 'kept'", name).fetchone()
                back = do(
                    f"SELECT id {of_name} AND fate <> 'kept' AND fate = 'missing'"
                    " AND sha256 = ? AND size = ?",
                    (*name, received.sha256, received.size),
                ).fetchone()
                if (kept[0] if kept else None) != each.replaces:
                    kinds.append("known")
                elif back and not kept:
                    do(
                        "UPDATE push SET fate = 'kept', fate_at = NULL,"
                        " verified_at = ?, damaged = 0 WHERE id = ?",
                        (now, *back),
                    )
                    kinds.append("back")
                else:
                    if kept:
                        # Whatever the times say: it is not what is there.
                        do(
                            "UPDATE push SET fate = 'overwritten', fate_at = ?"
                            " WHERE id = ?",
                            (received.received_at, *kept),
                        )
                    new.append(received)
                    kinds.append("replaced" if kept else "entered")
            if new:
                self._record(do, new, buckets.get)
        return kinds

    def judge_anew(self, bucket: Bucket) -> None:
        """Judge all pushes of a bucket by their sizes: files were entered between
        those that were judged."""
        for (series,) in self._ask(
            "SELECT series.id FROM series JOIN bucket ON bucket.id = series.bucket"
            " WHERE key = ?",
            bucket.key,
        ):
            changed = []
            with told():
                # One by one: there may be a million.
                rows = self._connection.execute(
                    "SELECT id, size, judgement FROM push WHERE series = ?"
                    " ORDER BY received_at, id",
                    (series,),
                )
                before: deque[int] = deque(maxlen=COMPARED)
                for id_, size, judgement in rows:
                    found = judge(bucket, size, usual_size(list(before))).value
                    if found != judgement:
                        changed.append((found, id_))
                    before.appendleft(size)
            for start in range(0, len(changed), 1000):
                with self._change() as do:
                    for each in changed[start : start + 1000]:
                        do("UPDATE push SET judgement = ? WHERE id = ?", each)

    # What becomes of files.

    def ended(self, file: int, fate: str, at: float) -> None:
        """A file is there no more.

        :param fate: ``pruned`` or ``missing``
        """
        with self._change() as do:
            do(
                # Somebody may miss it before it is said to be pruned.
                "UPDATE push SET fate = ?1, fate_at = ?2 WHERE id = ?3 AND"
                " (fate = 'kept' OR fate = 'missing' AND ?1 = 'pruned')",
                (fate, at, file),
            )

    def prune(self, files: Sequence[int], at: float) -> None:
        """These files are about to be removed.

        This is on the disk when it returns: whatever happens then, a file of them that
        is found to be missing was pruned. It ends with :meth:`pruned` or
        :meth:`spared`.
        """
        with told():
            self._connection.execute("PRAGMA synchronous = FULL")
        try:
            with self._change() as do:
                do(
                    "UPDATE push SET fate_at = ? WHERE fate = 'kept'"
                    " AND id IN (SELECT value FROM json_each(?))",
                    (at, json.dumps(files)),
                )
        finally:
            with told():
                self._connection.execute("PRAGMA synchronous = NORMAL")

    def pruned(self, files: Sequence[int]) -> None:
        """These files were removed, and for good."""
        with self._change() as do:
            do(
                "UPDATE push SET fate = 'pruned' WHERE fate = 'kept'"
                " AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(files),),
            )

    def spared(self, files: Sequence[int]) -> None:
        """These files were not removed after all."""
        with self._change() as do:
            do(
                "UPDATE push SET fate_at = NULL WHERE fate = 'kept'"
                " AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(files),),
            )

    def being_pruned(self) -> list[File]:
        """Files that are about to be removed, or were when somebody was stopped."""
        return self._files("WHERE fate = 'kept' AND fate_at IS NOT NULL")

    def missed(self, files: Sequence[int], at: float) -> list[int]:
        """These files are gone, and nobody knows why.

        :returns: those of which that is so: others may have been pruned meanwhile
        """
        ids = json.dumps(files)
        with self._change() as do:
            do(
                "UPDATE push SET fate = 'missing', fate_at = ? WHERE fate = 'kept'"
                " AND id IN (SELECT value FROM json_each(?))",
                (at, ids),
            )
            missing = do(
                "SELECT id FROM push WHERE fate = 'missing'"
                " AND id IN (SELECT value FROM json_each(?))",
                (ids,),
            ).fetchall()
        return [id_ for (id_,) in missing]

    def came_back(self, files: Sequence[int]) -> list[int]:
        """These files that were missing are there again; nobody has read them yet.

        :returns: those of them that are missed no more
        """
        with self._change() as do:
            changed = do(
                "UPDATE OR IGNORE push SET fate = 'kept', fate_at = NULL,"
                " verified_at = NULL, damaged = 0 WHERE fate = 'missing'"
                " AND id IN (SELECT value FROM json_each(?)) RETURNING id",
                (json.dumps(files),),
            ).fetchall()
        return [id_ for (id_,) in changed]

    def verified(self, files: Sequence[tuple[int, bool, float]]) -> None:
        """The contents of files were compared with their SHA-256.

        :param files: their ids, whether they differed, and when that was
        """
        with self._change() as do:
            for file, damaged, at in files:
                do(
                    "UPDATE push SET verified_at = ?, damaged = ? WHERE id = ?",
                    (at, damaged, file),
                )

    def to_verify(
        self, buckets: Sequence[str], before: float
    ) -> tuple[array[int], int]:
        """Files whose content nobody has compared since ``before``, and those that
        differed when it was.

        :param buckets: the keys of those that they may be of
        :returns: their ids, those that wait longest first; and their bytes in all
        """
        ids, size = array("q"), 0
        with told():
            # One by one: there may be a million.
            for id_, bytes_ in self._connection.execute(
                "SELECT id, size FROM push WHERE fate = 'kept' AND bucket IN"
                " (SELECT id FROM bucket WHERE key IN (SELECT value FROM json_each(?)))"
                " AND (damaged OR IFNULL(verified_at, received_at) <= ?)"
                " ORDER BY IFNULL(verified_at, received_at), id",
                (json.dumps(buckets), before),
            ):
                ids.append(id_)
                size += bytes_
        return ids, size

    def kept_rows(self, ids: Sequence[int]) -> list[tuple[str, Row]]:
        """Those of these files that there should be, in this order, each with the key
        of its bucket."""
        return [
            (key, Row(*row))
            for key, *row in self._ask(
                f"SELECT bucket.key, {_ROW} FROM json_each(?) AS wanted"
                " JOIN push ON push.id = wanted.value"
                " JOIN bucket ON bucket.id = push.bucket"
                " WHERE fate = 'kept' ORDER BY wanted.key",
                json.dumps(list(ids)),
            )
        ]

    def look_at_space(self, space: Space) -> None:
        """Remember what is free."""
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

    def space(self, since: float) -> list[Space]:
        """What was free since then, in the order of time."""
        query = "SELECT at, free, total FROM space WHERE at >= ? ORDER BY at"
        return [Space(*row) for row in self._ask(query, since)]


def _chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _batch(received: Sequence[Received]) -> str:
    """Pushes as JSON; one whose name a later one took is not kept."""
    last = {
        (each.bucket, each.name): index
        for index, each in enumerate(received)
        if not each.superseded
    }
    return json.dumps(
        [
            (
                each.bucket,
                each.series,
                each.name,
                each.size,
                each.sha256,
                each.received_at,
                each.seconds,
                each.client,
                each.overwrote,
                each.pre_push,
                each.post_push,
                each.request,
                "kept"
                if last.get((each.bucket, each.name)) == index
                else "overwritten",
            )
            for index, each in enumerate(received)
        ]
    )


_BATCH = (
    "bucket_key",
    "series_name",
    "name",
    "size",
    "sha256",
    "received_at",
    "seconds",
    "client",
    "overwrote",
    "pre_push",
    "post_push",
    "request",
    "fate",
)
"""What stands in each row of a batch, in its order."""

_PLACE = "'$[%d]'"

_MAKE_BATCH = (
    "CREATE TEMP TABLE batch (place INTEGER PRIMARY KEY,"
    f" {', '.join(_BATCH)}, bucket INTEGER, series INTEGER)"
)

_RECORD = (
    "DELETE FROM batch",
    f"INSERT INTO batch (place, {', '.join(_BATCH)}) SELECT key,"
    f" {', '.join(f'json_extract(value, {_PLACE % i})' for i in range(len(_BATCH)))}"
    " FROM json_each(:batch)",
    "INSERT INTO bucket (key, since) SELECT bucket_key, MIN(received_at) FROM batch"
    " WHERE true GROUP BY bucket_key ON CONFLICT DO NOTHING",
    "UPDATE batch SET bucket = (SELECT id FROM bucket WHERE key = bucket_key)",
    # What was waited for, whatever its name, has come.
    "UPDATE OR IGNORE series SET name = (SELECT series_name FROM batch"
    " WHERE batch.bucket = series.bucket ORDER BY place LIMIT 1)"
    " WHERE name = '' AND bucket IN (SELECT bucket FROM batch)",
    "INSERT INTO series (bucket, name, since, watched, state, state_at, told)"
    " SELECT bucket, series_name, MIN(received_at),"
    " (SELECT patterns = '[]' FROM bucket WHERE bucket.id = batch.bucket)"
    " AND (SELECT COUNT(*) FROM series WHERE series.bucket = batch.bucket AND watched)"
    " + ROW_NUMBER() OVER (PARTITION BY bucket ORDER BY MIN(place))"
    f" <= {MOST_WATCHED}, 'fresh', MIN(received_at), 'fresh' FROM batch"
    " WHERE NOT EXISTS (SELECT 1 FROM series"
    " WHERE series.bucket = batch.bucket AND series.name = series_name)"
    " GROUP BY bucket, series_name",
    "UPDATE batch SET series = (SELECT id FROM series"
    " WHERE series.bucket = batch.bucket AND series.name = series_name)",
    # What was found before its push was entered is the same file.
    "DELETE FROM push WHERE id IN (SELECT push.id FROM batch JOIN push"
    " ON push.bucket = batch.bucket AND push.name = batch.name"
    " AND push.sha256 = batch.sha256"
    " WHERE push.fate = 'kept' AND push.request IS NULL)",
    "UPDATE push SET fate = 'overwritten', fate_at = batch.received_at FROM batch"
    " WHERE push.bucket = batch.bucket AND push.name = batch.name"
    " AND push.fate = 'kept' AND batch.fate = 'kept'",
    # What was missing is there again, in whatever form. (The planner takes the index
    # of what is gone only where it sees that it fits.)
    "UPDATE push SET fate = 'overwritten', fate_at = batch.received_at FROM batch"
    " WHERE push.bucket = batch.bucket AND push.name = batch.name"
    " AND push.fate <> 'kept' AND push.fate = 'missing'",
    "INSERT INTO push (bucket, series, name, size, sha256, received_at, seconds,"
    " client, overwrote, pre_push, post_push, request, fate, fate_at)"
    " SELECT bucket, series, name, size, sha256, received_at, seconds, client,"
    " overwrote, pre_push, post_push, request, fate,"
    " CASE fate WHEN 'kept' THEN NULL ELSE received_at END"
    " FROM batch ORDER BY place",
)

_SERIES_OF_BUCKETS = (
    "SELECT series.id, key FROM series JOIN bucket ON bucket.id = series.bucket"
)

_LATEST = (
    "SELECT id, size FROM push WHERE series = ? AND received_at <= ?"
    " ORDER BY received_at DESC, id DESC LIMIT ?"
)

_TOUCHED = (
    "SELECT series, bucket_key, COUNT(*), MAX(received_at) FROM batch GROUP BY series"
)

_REFUSE = (
    "INSERT INTO refusal (bucket, at, name, size, status, reason, client, request)"
    " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),"
    " json_extract(value, '$[2]'), json_extract(value, '$[3]'),"
    " json_extract(value, '$[4]'), json_extract(value, '$[5]'),"
    " json_extract(value, '$[6]'), json_extract(value, '$[7]')"
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
