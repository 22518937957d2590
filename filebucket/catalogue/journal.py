"""The journal: records pushes in the catalogue, after they have ended.

A row is written after its file was published, so that no error here can harm a push. If
the catalogue is lost, only history is: the files on the disk are added again
(:mod:`filebucket.upkeep.reindex`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import attrgetter

from zope.interface import implementer

from filebucket.catalogue.batch import (
    CLOCK_ERROR,
    MAKE_BATCH,
    MOST_WATCHED,
    SUCCEEDED,
    assess_series,
    enter_batch,
)
from filebucket.catalogue.connection import Do
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
from filebucket.model.problem import Kind, ToldProblem
from filebucket.model.records import (
    Abandoned,
    Failed,
    File,
    HookRun,
    Received,
    Refused,
    Series,
    Space,
)
from filebucket.model.series import series_of
from filebucket.model.state import State

KEPT_REFUSALS = 100
"""Number of refusals kept for each bucket, and for requests without a valid token."""

MOST_INVENTED = 20
"""Series of a bucket that are known only from reports that their backup failed: a
client can invent any number of names. The one that failed first is forgotten."""

KEPT_FAILURE = 14 * 24 * 3600.0
"""Seconds after its last report when such a series is forgotten: nothing else would end
the failure if its name was wrong."""

AT_ONCE = 500
"""Rows changed in one transaction, if there may be any number: 20 ms."""

KEPT_SPACE = 60 * 24 * 6
"""Samples of the free space that are kept: two months, one every ten minutes."""


@implementer(IJournal)
class Journal(Database):
    """A connection that records the outcomes of pushes."""

    _TEMPORARY = MAKE_BATCH

    # Pushes and refusals.

    def record(
        self,
        received: Sequence[Received],
        refused: Sequence[Refused],
        buckets: Callable[[str], Bucket | None],
        hide: Callable[[str], str] | None = None,
    ) -> None:
        pushes = [each for each in received if not each.healed]
        with self._change() as do:
            if pushes:
                enter_batch(do, pushes, buckets, hide)
            for each in received:
                if each.healed:
                    values = each.received_at, each.bucket, each.name, each.sha256
                    do(_HEAL, values)
            if refused:
                rows = json.dumps([refused_values(each) for each in refused])
                do(_REFUSE, {"batch": rows})
                do(_FORGET_REFUSALS, {"batch": rows, "kept": KEPT_REFUSALS})

    def abandon(
        self,
        abandoned: Sequence[Abandoned],
        buckets: Callable[[str], Bucket | None],
        now: float,
    ) -> None:
        with self._change() as do:
            for each in abandoned:
                bucket = buckets(each.bucket)
                if bucket is None:
                    continue
                found = do(_ABANDON, (each.at, each.bucket, each.series)).fetchall()
                for (series,) in found:
                    assess_series(do, bucket, series, now, is_right=False)

    def fail(
        self,
        failed: Sequence[Failed],
        buckets: Callable[[str], Bucket | None],
        now: float,
    ) -> None:
        with self._change() as do:
            for each in failed:
                bucket = buckets(each.bucket)
                if bucket is not None:
                    self._fail(do, each, bucket, now)

    def _fail(self, do: Do, failed: Failed, bucket: Bucket, now: float) -> None:
        patterns = json.dumps(bucket.series)
        do(
            "INSERT INTO bucket (key, since, patterns) VALUES (?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (failed.bucket, now, patterns),
        )
        found = do("SELECT id FROM bucket WHERE key = ?", (failed.bucket,))
        ((id_,),) = found.fetchall()
        values = {
            "bucket": id_,
            "name": failed.series,
            "at": failed.at,
            "text": failed.text,
            "patterns": patterns,
            "most": MOST_WATCHED,
        }
        for (series,) in do(_FAIL, values).fetchall():
            assess_series(do, bucket, series, now, is_right=False)
        do(_FORGET_INVENTED, {"bucket": id_, "most": MOST_INVENTED})

    def forget_failures(
        self, now: float, buckets: Callable[[str], Bucket | None]
    ) -> None:
        before = now - KEPT_FAILURE
        if not self._ask(f"SELECT 1 FROM series WHERE {_OLD_FAILURE} LIMIT 1", before):
            return
        with self._change() as do:
            do(f"DELETE FROM series WHERE {_OLD_FAILURE} AND {_INVENTED}", (before,))
            found = do(f"SELECT id, bucket FROM series WHERE {_OLD_FAILURE}", (before,))
            for series, id_ in found.fetchall():
                do(SUCCEEDED, (series,))
                ((key,),) = do("SELECT key FROM bucket WHERE id = ?", (id_,))
                bucket = buckets(key)
                if bucket is not None:
                    assess_series(do, bucket, series, now)

    # Series and their states.

    def watch(
        self,
        buckets: Iterable[Bucket],
        hide: Callable[[str], str],
        now: float,
        before: Iterable[Bucket] | None = None,
    ) -> Iterator[None]:
        configured = {bucket.key: bucket for bucket in buckets}
        watched = None if before is None else {each.key: each for each in before}
        known = {
            key: (id_, patterns)
            for id_, key, patterns in self._ask("SELECT id, key, patterns FROM bucket")
        }
        for key, (id_, _) in known.items():
            if key not in configured and (watched is None or key in watched):
                with self._change() as do:
                    do(_FORGET_BUCKET, (id_,))
                    do("DELETE FROM series WHERE bucket = ? AND pushes = 0", (id_,))
                yield
        if self._ask("SELECT 1 FROM hook_failure WHERE bucket <> '' LIMIT 1"):
            with self._change() as do:
                do(_FORGET_HOOKS, (json.dumps(list(configured)),))
            yield
        for key, bucket in configured.items():
            if watched is not None and _expects_the_same(watched.get(key), bucket):
                continue
            # A bucket without pushes and without a schedule needs no row.
            if key in known or bucket.expect is not None:
                yield from self._watch_bucket(bucket, known.get(key), hide, now)

    def _watch_bucket(
        self,
        bucket: Bucket,
        known: tuple[int, str] | None,
        hide: Callable[[str], str],
        now: float,
    ) -> Iterator[None]:
        if known is not None and (
            json.loads(known[1]) != list(bucket.series)
            or (bucket.series and self._has_strays(known[0], bucket, hide))
        ):
            yield from self._sort_anew(known[0], bucket, hide)
        with self._change() as do:
            do(
                "INSERT INTO bucket (key, since) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (bucket.key, now),
            )
            found = do("SELECT id FROM bucket WHERE key = ?", (bucket.key,))
            ((id_,),) = found.fetchall()
            self._expect(do, id_, bucket, now)
        yield
        after = ""
        while names := self._ask(_SERIES_BY_NAME, id_, after, AT_ONCE):
            # The smallest string that is larger than the last name: no name contains
            # the character 0.
            after = f"{names[-1][1]}\1"
            with self._change() as do:
                for series, _ in names:
                    assess_series(do, bucket, series, now, is_right=False)
            yield
        paused = bucket.paused is not None and bucket.paused.until > now
        if paused or bucket.retired:
            # Without a push, the end of an overdue state is no good news to report.
            with self._change() as do:
                do(_QUIET, (id_,))
            yield

    def _expect(self, do: Do, id_: int, bucket: Bucket, now: float) -> None:
        """Expect the series of the bucket, and no others of it."""
        patterns = json.dumps(bucket.series)
        do("UPDATE bucket SET patterns = ? WHERE id = ?", (patterns, id_))
        expected = bucket.series
        if bucket.expect is None or bucket.retired:
            expected = ()
        elif not bucket.series:
            some = do(
                "SELECT 1 FROM series WHERE bucket = ? AND pushes > 0 LIMIT 1", (id_,)
            )
            # The first push replaces the series without a name.
            expected = () if some.fetchall() else ("",)
        do(_FORGET_SERIES, (id_, json.dumps(expected)))
        for name in expected[:MOST_WATCHED]:
            do(
                "INSERT INTO series (bucket, name, since, state, state_at, told)"
                " VALUES (?, ?, ?, 'never', ?, 'never') ON CONFLICT DO NOTHING",
                (id_, name, now, now),
            )
        do("UPDATE series SET watched = FALSE WHERE bucket = ? AND watched", (id_,))
        do(
            "UPDATE series SET watched = TRUE WHERE id IN (SELECT id FROM series"
            " WHERE bucket = ?1 AND (?2 = '[]' AND name <> ''"
            " OR name IN (SELECT value FROM json_each(?3))) ORDER BY id LIMIT ?4)",
            (
                id_,
                patterns,
                json.dumps([*bucket.series, *expected]),
                0 if bucket.retired else MOST_WATCHED,
            ),
        )

    def _sort_anew(
        self, id_: int, bucket: Bucket, hide: Callable[[str], str]
    ) -> Iterator[None]:
        """Assign the bucket's pushes to series again, after its patterns changed. The
        new patterns are stored only afterwards, so that this starts over if it is
        interrupted.
        """
        self._move_drills(id_, bucket, hide)
        self._move_failures(id_, bucket, hide)
        after: Sequence[float] = (-math.inf, 0)
        while pushes := self._ask(_PUSHES_BY_TIME, id_, *after, AT_ONCE):
            _, *after, _ = pushes[-1]
            with self._change() as do:
                for name, at, push, _ in pushes:
                    series = series_of(hide(name), bucket.series)
                    do(_MAKE_SERIES, (id_, series, at, at))
                    do(_MOVE, {"push": push, "bucket": id_, "series": series})
                left = {series for *_, series in pushes}
                do(_FORGET_EMPTY, (json.dumps(list(left)),))
            yield
        with self._change() as do:
            # The next report is about one of the new series. An operator can end the
            # failure of a series that is not expected any more.
            do(_FORGET_FAILURES, (id_, json.dumps(bucket.series)))
            do(_FORGET_ENDED, (id_,))
        yield

    def _has_strays(self, id_: int, bucket: Bucket, hide: Callable[[str], str]) -> bool:
        """Whether a push is in a wrong series. Version 0.1.0 left some there, if they
        ended during a reload.
        """
        found = self._ask(_LAST_NAMES, id_)
        return any(
            series_of(hide(name), bucket.series) != series for series, name in found
        )

    def _move_drills(
        self, id_: int, bucket: Bucket, hide: Callable[[str], str]
    ) -> None:
        """Assign the restore tests to the series to which their files will belong. It
        comes first: a series without a push is forgotten.
        """
        with self._change() as do:
            drills = do(_DRILLS, (id_,)).fetchall()
            do(_FORGET_DRILLS, (id_,))
            for name, at, error, restored_at in drills:
                series = series_of(hide(name), bucket.series)
                do(_MAKE_SERIES, (id_, series, at, at))
                do(_DRILL, (at, name, error, restored_at, id_, series))

    def _move_failures(
        self, id_: int, bucket: Bucket, hide: Callable[[str], str]
    ) -> None:
        """Assign failed and unfinished backups to the series of the last push before
        them. A push that came later ends them.
        """
        with self._change() as do:
            for name, at, *values in do(_FAILURES, (id_,)).fetchall():
                series = series_of(hide(name), bucket.series)
                do(_MAKE_SERIES, (id_, series, at, at))
                do(_FAILED, (*values, id_, series))

    def pass_time(self, now: float) -> None:
        due = "due <= ? AND state <> 'late'"
        if self._ask(f"SELECT 1 FROM series WHERE {due} LIMIT 1", now):
            with self._change() as do:
                do(
                    f"UPDATE series SET state = 'late', state_at = due WHERE {due}",
                    (now,),
                )

    def mistrust(self, now: float, buckets: Callable[[str], Bucket | None]) -> int:
        if self._ask(_TOLD_LATER, now + CLOCK_ERROR):
            # Otherwise no reminder would come until that time.
            with self._change() as do:
                later = now, now + CLOCK_ERROR
                do("UPDATE series SET told_at = ? WHERE told_at > ?", later)
        future = "WHERE last_at > ?1 OR failed_at > ?1 LIMIT ?2"
        found = read_series(self._ask, future, now + CLOCK_ERROR, AT_ONCE)
        if found:
            with self._change() as do:
                for each in found:
                    do(_MISTRUST, (now, each.id))
                    bucket = buckets(each.bucket)
                    if bucket is not None:
                        assess_series(do, bucket, each.id, now)
        return len(found)

    def untold(
        self,
        limit: int,
        but: Collection[tuple[str, bool]] = (),
        again: float = -math.inf,
    ) -> list[Series]:
        left_out = json.dumps(list(but))
        return read_series(self._ask, _UNTOLD, again, left_out, limit)

    def mark_told(self, series: Series, state: State, at: float) -> None:
        told_at = None if state in (State.FRESH, State.NEVER) else at
        with self._change() as do:
            # In a catalogue that replaced a damaged one, ids are given anew. A state
            # that came back meanwhile has to be reported again.
            do(
                "UPDATE series SET told = ?1, told_at = ?2 WHERE id = ?3 AND since = ?4"
                " AND NOT (state = ?1 AND state_at <> ?5)",
                (state.value, told_at, series.id, series.since, series.state_at),
            )

    def told_problems(self) -> list[ToldProblem]:
        query = (
            "SELECT kind, bucket, level, since, told_at, node FROM problem"
            " WHERE kind IN (SELECT value FROM json_each(?))"
        )
        kinds = json.dumps([each.value for each in Kind])
        return [ToldProblem(*row) for row in self._ask(query, kinds)]

    def mark_problem(self, told: ToldProblem) -> None:
        key = told.kind.value, told.bucket, told.node
        with self._change() as do:
            do("DELETE FROM problem WHERE (kind, bucket, node) = (?, ?, ?)", key)
            if told.level:
                values = *key, told.level, told.since, told.told_at
                do(
                    "INSERT INTO problem (kind, bucket, node, level, since, told_at)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    values,
                )

    def find(self, bucket: str, name: str) -> File | None:
        found = read_files(
            self._ask,
            "WHERE bucket.key = ? AND push.name = ? AND fate = 'kept'",
            bucket,
            name,
        )
        return found[0] if found else None

    def note_hooks(self, runs: Iterable[HookRun]) -> None:
        with self._change() as do:
            for each in runs:
                if each.reason is None:
                    do(_HOOK_WORKS, (each.hook, each.node, each.bucket))
                else:
                    key = each.hook, each.bucket, each.node
                    do(_HOOK_FAILS, (*key, each.at, each.at, each.reason))

    def note_space(self, space: Space) -> None:
        with self._change() as do:
            do("DELETE FROM space WHERE node = ? AND at = ?", (space.node, space.at))
            do(
                "INSERT INTO space (at, free, total, node) VALUES (?, ?, ?, ?)",
                (space.at, space.free, space.total, space.node),
            )
            do(
                "DELETE FROM space WHERE node = ?1 AND at <= (SELECT at FROM space"
                " WHERE node = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
                (space.node, KEPT_SPACE),
            )


def _expects_the_same(before: Bucket | None, after: Bucket) -> bool:
    """Whether the states of a bucket's series cannot have changed."""
    return before is not None and _OF_STATES(before) == _OF_STATES(after)


_OF_STATES = attrgetter(
    *("expect", "series", "shrink_alert", "grow_alert", "paused", "retired")
)
"""The settings that the states of a bucket's series depend on."""


_FORGET_SERIES = (
    "DELETE FROM series WHERE bucket = ? AND pushes = 0"
    " AND name NOT IN (SELECT value FROM json_each(?)) AND failed_at IS NULL"
)

_FORGET_EMPTY = (
    "DELETE FROM series WHERE id IN (SELECT CAST(value AS BIGINT)"
    " FROM json_each(?)) AND pushes = 0 AND NOT watched"
)

# No alerts about a bucket that is not configured any more.
_FORGET_BUCKET = (
    "UPDATE series SET watched = FALSE, due = NULL, told = state, told_at = NULL"
    " WHERE bucket = ? AND (watched OR told <> state OR told_at IS NOT NULL)"
)

_REPORTED = "(watched OR state = 'failed' OR told = 'failed')"
"""The series whose changes are reported."""

# A job that fails again is reported at once, but at most once an hour.
_UNTOLD = (
    "WHERE series.id IN (SELECT id FROM series WHERE told <> state"
    f" AND {_REPORTED} UNION SELECT id FROM series WHERE told_at <= ?"
    f" AND told = state AND {_REPORTED} UNION SELECT id FROM series"
    " WHERE failed_at > told_at + 3600)"
    " AND NOT EXISTS (SELECT 1"
    " FROM json_each(?) WHERE value ->> 0 = bucket.key"
    " AND CAST(value ->> 1 AS BOOLEAN) = (state = 'late'))"
    " ORDER BY told = state, state_at LIMIT ?"
)

# A client can add series in this way, but only MOST_INVENTED. No schedule applies to
# the one without a name, unless the bucket awaits its first push.
_FAIL = (
    "INSERT INTO series (bucket, name, since, watched, state, state_at, told,"
    " failed_at, failed_text) VALUES (:bucket, :name, :at,"
    " :name IN (SELECT value FROM json_each(:patterns)) OR (:patterns = '[]'"
    " AND :name <> '' AND :most >"
    " (SELECT COUNT(*) FROM series WHERE bucket = :bucket AND watched)),"
    " 'never', :at, 'never', :at, :text)"
    " ON CONFLICT (bucket, name) DO UPDATE SET"
    " failed_at = excluded.failed_at, failed_text = excluded.failed_text"
    " WHERE excluded.failed_at >= COALESCE(series.failed_at, -1e300)"
    " RETURNING id"
)

_INVENTED = (
    "NOT (name = '' AND watched) AND name NOT IN (SELECT value FROM bucket,"
    " json_each(patterns) WHERE bucket.id = series.bucket)"
)
"""Whether no configuration expects a series without a push."""

_FORGET_INVENTED = (
    "DELETE FROM series WHERE id IN (SELECT id FROM series WHERE bucket = :bucket"
    f" AND failed_at IS NOT NULL AND pushes = 0 AND {_INVENTED}"
    " ORDER BY failed_at DESC, id DESC LIMIT 1000000 OFFSET :most)"
)

_OLD_FAILURE = "failed_at <= ? AND pushes = 0"

_FORGET_FAILURES = (
    "UPDATE series SET failed_at = NULL, failed_text = NULL"
    " WHERE bucket = ?1 AND failed_at IS NOT NULL AND (pushes = 0"
    " OR ?2 <> '[]' AND name NOT IN (SELECT value FROM json_each(?2)))"
)

_MISTRUST = (
    "UPDATE series SET last_at = MIN(last_at, ?1), failed_at = MIN(failed_at, ?1)"
    " WHERE id = ?2"
)

_TOLD_LATER = "SELECT 1 FROM series WHERE told_at > ? LIMIT 1"

_QUIET = (
    "UPDATE series SET told = state, told_at = NULL WHERE bucket = ? AND (NOT watched"
    " OR told = 'late' AND state <> 'late')"
)

_SERIES_BY_NAME = (
    "SELECT id, name FROM series WHERE bucket = ? AND name >= ? ORDER BY name LIMIT ?"
)

_LAST_NAMES = (
    "SELECT name, last_name FROM series WHERE bucket = ? AND last_name IS NOT NULL"
)

_PUSHES_BY_TIME = (
    "SELECT name, received_at, id, series FROM push WHERE bucket = ?"
    " AND (received_at, id) > (?, ?) ORDER BY received_at, id LIMIT ?"
)

_MAKE_SERIES = (
    "INSERT INTO series (bucket, name, since, state, state_at, told)"
    " VALUES (?, ?, ?, 'fresh', ?, 'fresh') ON CONFLICT DO NOTHING"
)

_MOVE = (
    "UPDATE push SET series = (SELECT id FROM series WHERE bucket = :bucket"
    " AND name = :series) WHERE id = :push AND series <> (SELECT id FROM series"
    " WHERE bucket = :bucket AND name = :series)"
)

_DRILLS = (
    "SELECT drilled_name, drilled_at, drill_error, restored_at FROM series"
    " WHERE bucket = ? AND drilled_at IS NOT NULL ORDER BY drilled_at"
)

_FAILURES = (
    "SELECT last_name, last_at, failed_at, failed_text, unfinished_at FROM series"
    " WHERE bucket = ? AND last_name IS NOT NULL"
    " AND (failed_at IS NOT NULL OR unfinished_at IS NOT NULL)"
    " ORDER BY failed_at, unfinished_at"
)

_FAILED = (
    "UPDATE series SET failed_at = COALESCE(?, failed_at),"
    " failed_text = COALESCE(?, failed_text),"
    " unfinished_at = COALESCE(?, unfinished_at) WHERE bucket = ? AND name = ?"
)

_FORGET_ENDED = (
    "UPDATE series SET failed_at = NULL, failed_text = NULL"
    " WHERE bucket = ? AND failed_at < last_at"
)

_FORGET_DRILLS = (
    "UPDATE series SET drilled_at = NULL, drilled_name = NULL, drill_error = NULL,"
    " restored_at = NULL WHERE bucket = ? AND drilled_at IS NOT NULL"
)

# An older test may have passed when a later one of the same series failed.
_DRILL = (
    "UPDATE series SET drilled_at = ?, drilled_name = ?, drill_error = ?,"
    " restored_at ="
    " NULLIF(MAX(COALESCE(?, -1e300), COALESCE(restored_at, -1e300)), -1e300)"
    " WHERE bucket = ? AND name = ?"
)

_HEAL = (
    "UPDATE push SET damaged = FALSE, verified_at = ? WHERE fate = 'kept'"
    " AND bucket = (SELECT id FROM bucket WHERE key = ?) AND name = ? AND sha256 = ?"
)

# Only of series that are there: a client can invent any number of names. The one
# without a name awaits the first push.
_ABANDON = (
    "UPDATE series SET unfinished_at = MAX(?, COALESCE(unfinished_at, -1e300))"
    " WHERE bucket = (SELECT id FROM bucket WHERE key = ?) AND name IN (?, '')"
    " RETURNING id"
)

_HOOK_WORKS = (
    "DELETE FROM hook_failure WHERE hook = ?1 AND node = ?2"
    " AND (bucket = ?3 OR CAST(?3 AS TEXT) IS NULL)"
)

_HOOK_FAILS = (
    "INSERT INTO hook_failure (hook, bucket, node, since, at, reason)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hook, bucket, node) DO UPDATE"
    " SET at = excluded.at, reason = excluded.reason"
)

# That of no bucket is the alert hook.
_FORGET_HOOKS = (
    "DELETE FROM hook_failure WHERE bucket <> ''"
    " AND bucket NOT IN (SELECT value FROM json_each(?))"
)

_REFUSE = (
    f"INSERT INTO refusal ({', '.join(REFUSED)}) SELECT {extracted(REFUSED)}"
    " FROM json_each(:batch) ORDER BY key"
)

_FORGET_REFUSALS = (
    "DELETE FROM refusal WHERE bucket IN"
    " (SELECT value ->> 0 FROM json_each(:batch))"
    " AND id <= (SELECT id FROM refusal AS old WHERE old.bucket = refusal.bucket"
    " ORDER BY id DESC LIMIT 1 OFFSET :kept)"
)
