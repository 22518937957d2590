"""Adds pushes to the catalogue in batches, and judges their sizes.

A batch is one JSON text and takes a handful of statements, whatever its size: SQLite
works through it without holding Python's lock, so other threads go on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from filebucket.catalogue.connection import Do
from filebucket.catalogue.rows import RECEIVED, extracted, received_values, type_of
from filebucket.model.bucket import Bucket
from filebucket.model.empty import holds_nothing
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.model.state import COMPARED, Facts, State, assess, judge, usual_size

CLOCK_ERROR = 24 * 3600.0
"""Seconds by which a time of receipt may lie in the future. Later times are not
trusted."""

MOST_WATCHED = 100
"""Series of a bucket that are expected to continue, oldest first. Limited, since a
client can create any number of series."""


def enter_batch(
    do: Do,
    received: Sequence[Received],
    buckets: Callable[[str], Bucket | None],
    hide: Callable[[str], str] | None = None,
    since: float | None = None,
) -> None:
    """Add pushes in their order, and update the states of their series.

    :param do: executes statements on a connection after :data:`MAKE_BATCH`
    :param buckets: returns the bucket with a key, if it is configured
    :param hide: masks tokens in names, to find the series anew: the files of the bucket
        may have been sorted by other patterns since the push ended. None does not
    :param since: when a bucket that is new here was seen; None is its first push
    """
    patterns = _patterns(do, received, buckets, since)
    if hide is not None:
        received = [
            each if series == each.series else evolve(each, series=series)
            for each in received
            for series in [series_of(hide(each.name), patterns[each.bucket])]
        ]
    batch = _batch(received)
    for statement in _RECORD:
        do(statement, {"batch": batch} if ":batch" in statement else {})
    for series, key, count, newest in do(_TOUCHED).fetchall():
        bucket = buckets(key)
        if bucket is not None:
            sizes = _judge_latest(do, bucket, series, count, newest)
            assess_series(do, bucket, series, newest, sizes=sizes)


def _patterns(
    do: Do,
    received: Sequence[Received],
    buckets: Callable[[str], Bucket | None],
    since: float | None,
) -> dict[str, list[str]]:
    """The patterns by which the files of each bucket are sorted. A bucket that the
    catalogue does not know is added, with the configured ones.
    """
    first: dict[str, float] = {}
    for each in received:
        at = each.received_at
        first[each.bucket] = min(first.get(each.bucket, at), at)
    known = (
        "SELECT key, patterns FROM bucket WHERE key IN (SELECT value FROM json_each(?))"
    )
    found: dict[str, str] = dict(do(known, (json.dumps(list(first)),)).fetchall())
    for key in first.keys() - found.keys():
        bucket = buckets(key)
        found[key] = json.dumps(bucket.series if bucket else [])
        do(
            "INSERT INTO bucket (key, since, patterns) VALUES (?, ?, ?)",
            (key, first[key] if since is None else since, found[key]),
        )
    return {key: json.loads(text) for key, text in found.items()}


def _judge_latest(
    do: Do, bucket: Bucket, series: int, count: int, newest: float
) -> list[int]:
    """Judge the latest pushes of a series by their sizes, which it returns."""
    latest = _latest(do, series, newest, count + COMPARED)
    sizes = [content_size(*each) for _, *each in latest]
    for index in range(min(count, len(latest))):
        found = judge(
            bucket,
            sizes[index],
            usual_size(sizes[index + 1 : index + 1 + COMPARED]),
        )
        if found is not State.FRESH:
            judged = (found.value, latest[index][0])
            do("UPDATE push SET judgement = ? WHERE id = ?", judged)
    return sizes[: COMPARED + 1]


def _latest(do: Do, series: int, now: float, limit: int) -> list[tuple[Any, ...]]:
    """The latest pushes of a series, but none from the future."""
    return do(_LATEST, (series, now + CLOCK_ERROR, limit)).fetchall()


def assess_series(
    do: Do,
    bucket: Bucket,
    series: int,
    now: float,
    is_right: bool = True,
    sizes: Sequence[int] | None = None,
) -> None:
    """Update the state of a series.

    :param is_right: whether to trust ``now`` even if the last push is later
    :param sizes: those of its latest pushes in bytes, if they are known
    """
    ((since, last, watched, unfinished, failed),) = do(
        "SELECT since, last_at, watched, unfinished_at, failed_at FROM series"
        " WHERE id = ?",
        (series,),
    )
    if sizes is None:
        until = now if is_right else max(now, last or now)
        latest = _latest(do, series, until, COMPARED + 1)
        sizes = [content_size(*each) for _, *each in latest]
    facts = Facts(since, last, sizes, unfinished, failed)
    found = assess(bucket, bool(watched), facts, now)
    if failed is not None and not facts.has_failed:
        do(SUCCEEDED, (series,))
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


def content_size(name: str, size: int, sha256: str) -> int:
    """Size of a push in bytes, or 0 if its content is empty."""
    return 0 if holds_nothing(name, size, sha256) else size


def _batch(received: Sequence[Received]) -> str:
    """Pushes as JSON. A push whose file was replaced by a later one is not kept."""
    last = {
        (each.bucket, each.name): index
        for index, each in enumerate(received)
        if not each.superseded
    }
    return json.dumps(
        [
            (
                *received_values(each),
                "kept"
                if last.get((each.bucket, each.name)) == index
                else "overwritten",
            )
            for index, each in enumerate(received)
        ]
    )


_BATCH = ("bucket_key", "series_name", *RECEIVED[2:], "fate")
"""The columns of a batch, in their order."""

_PUSH = ", ".join(RECEIVED)

MAKE_BATCH = (
    "CREATE TEMP TABLE batch (place INTEGER PRIMARY KEY,"
    f" {', '.join(f'{each} {type_of(each)}' for each in _BATCH)},"
    " bucket BIGINT, series BIGINT)"
)

_RECORD = (
    "DELETE FROM batch",
    f"INSERT INTO batch (place, {', '.join(_BATCH)}) SELECT key,"
    f" {extracted(_BATCH)}"
    " FROM json_each(:batch)",
    "UPDATE batch SET bucket = (SELECT id FROM bucket WHERE key = bucket_key)",
    # A batch is repeated if the answer to its last statement was lost.
    "DELETE FROM batch WHERE EXISTS (SELECT 1 FROM push"
    " WHERE push.bucket = batch.bucket AND push.received_at = batch.received_at"
    " AND push.name = batch.name AND push.request = batch.request)",
    # The series without a name awaits the first push, whatever its name. It replaces a
    # series that was added for a report that its backup failed.
    "DELETE FROM series WHERE pushes = 0"
    " AND bucket IN (SELECT bucket FROM series AS first WHERE name = '' AND watched"
    " AND bucket IN (SELECT bucket FROM batch))"
    " AND name = (SELECT series_name FROM batch"
    " WHERE batch.bucket = series.bucket ORDER BY place LIMIT 1)",
    "UPDATE series SET name = (SELECT series_name FROM batch"
    " WHERE batch.bucket = series.bucket ORDER BY place LIMIT 1)"
    " WHERE name = '' AND watched AND bucket IN (SELECT bucket FROM batch)"
    " AND NOT EXISTS (SELECT 1 FROM series AS known"
    " WHERE known.bucket = series.bucket AND known.name = (SELECT series_name"
    " FROM batch WHERE batch.bucket = series.bucket ORDER BY place LIMIT 1))",
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
    # A file that was found on the disk before its push was added is the same file.
    "DELETE FROM push WHERE id IN (SELECT push.id FROM batch JOIN push"
    " ON push.bucket = batch.bucket AND push.name = batch.name"
    " AND push.sha256 = batch.sha256"
    " WHERE push.fate = 'kept' AND push.request IS NULL)",
    "UPDATE push SET fate = 'overwritten', fate_at = batch.received_at FROM batch"
    " WHERE push.bucket = batch.bucket AND push.name = batch.name"
    " AND push.fate = 'kept' AND batch.fate = 'kept'",
    # A missing file exists again, with whatever content. ("fate <> 'kept'" makes the
    # query planner use the index push_gone.)
    "UPDATE push SET fate = 'overwritten', fate_at = batch.received_at FROM batch"
    " WHERE push.bucket = batch.bucket AND push.name = batch.name"
    " AND push.fate <> 'kept' AND push.fate = 'missing'",
    f"INSERT INTO push ({_PUSH}, fate, fate_at) SELECT {_PUSH}, fate,"
    " CASE fate WHEN 'kept' THEN NULL ELSE received_at END"
    " FROM batch ORDER BY place",
    # A failure of the whole bucket ends with any push.
    "UPDATE series SET failed_at = NULL, failed_text = NULL, state = 'fresh',"
    " state_at = (SELECT MAX(received_at) FROM batch"
    " WHERE batch.bucket = series.bucket)"
    " WHERE name = '' AND bucket IN (SELECT bucket FROM batch) AND failed_at <="
    " (SELECT MAX(received_at) FROM batch WHERE batch.bucket = series.bucket)",
)

SUCCEEDED = "UPDATE series SET failed_at = NULL, failed_text = NULL WHERE id = ?"
"""Ends the failure of a series."""

_LATEST = (
    "SELECT id, name, size, sha256 FROM push WHERE series = ? AND received_at <= ?"
    " ORDER BY received_at DESC, id DESC LIMIT ?"
)

_TOUCHED = (
    "SELECT series, bucket_key, COUNT(*), MAX(received_at) FROM batch"
    " GROUP BY series, bucket_key"
)
