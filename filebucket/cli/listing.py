"""The list of buckets, as a table and as JSON, and a file as JSON.

A token is shown as the first digits of its SHA-256; the log names a bucket without a
name by them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import asdict

from filebucket.base.text import (
    age_text,
    counted,
    exact_size_text,
    moment_text,
    rfc3339,
    size_text,
)
from filebucket.cli.table import Column, table
from filebucket.model.bucket import (
    HOLD,
    SHRINK_ALERT,
    Bucket,
    Keep,
    Pause,
)
from filebucket.model.client import NOBODY
from filebucket.model.records import File, Tally
from filebucket.model.schedule import GRACE, Expectation, Schedule
from filebucket.model.token import Token

_LEAST = 30
"""Width that the settings get at least, in columns."""


def file_json(file: File, label: str, hide: Callable[[str], str]) -> dict[str, Any]:
    """A stored file as JSON.

    :param label: that of its bucket
    :param hide: masks tokens in names
    """
    received = file.received
    return {
        "bucket": label,
        "series": hide(received.series),
        "name": hide(received.name),
        "size": received.size,
        "sha256": received.sha256,
        "received_at": rfc3339(received.received_at),
    }


def bucket_json(bucket: Bucket) -> dict[str, Any]:
    """A bucket as JSON."""
    return {
        "name": bucket.name,
        "label": bucket.label,
        "tokens": [
            {
                "sha256": each.sha256.hex()[:12],
                "expires": None if each.expires is None else moment_text(each.expires),
            }
            for each in bucket.tokens
        ],
        "max_file_size": bucket.max_file_size,
        "min_file_size": bucket.min_file_size,
        "quota": bucket.quota,
        "allow_from": bucket.allow_from and bucket.allow_from.texts,
        "overwrite": bucket.overwrite,
        "series": bucket.series,
        "expect": None if bucket.expect is None else bucket.expect.text,
        "shrink_alert": bucket.shrink_alert,
        "grow_alert": bucket.grow_alert,
        "keep": None if bucket.keep is None else _kept(bucket.keep),
        "hold": bucket.hold,
        "drill": bucket.drill,
        "comment": bucket.comment,
        "paused": None if bucket.paused is None else pause_json(bucket.paused),
        "retired": bucket.retired,
        # Their names may contain tokens; 'filebucket hold' prints them.
        "held": len(bucket.held),
    }


def pause_json(pause: Pause) -> dict[str, str]:
    """A pause as JSON, as in the configuration."""
    return {"until": moment_text(pause.until), "reason": pause.reason}


def pause_text(pause: Pause) -> str:
    """A pause in words."""
    return f"paused until {moment_text(pause.until)}: {pause.reason}"


_TABLE = (
    Column("NAME", name=True),
    Column("TOKEN"),
    Column("EXPIRES"),
    Column("FILES", right=True),
    Column("USED", right=True),
    Column("QUOTA"),
    Column("SETTINGS", text=_LEAST, below=True),
)


def bucket_table(
    buckets: Sequence[Bucket],
    used: Callable[[str], Tally | None],
    now: float,
    width: int | None,
) -> Iterator[str]:
    """The lines of the table; each token of a bucket has its own line.

    :param used: returns the totals of the bucket with a key, if they are known
    :param now: seconds since the epoch
    :param width: columns of the terminal; None is unlimited
    """
    rows = (row for each in buckets for row in _rows(each, used(each.key), now))
    return table(_TABLE, rows, width)


def _rows(bucket: Bucket, used: Tally | None, now: float) -> Iterator[list[str]]:
    settings = [
        *(["retired"] if bucket.retired else []),
        *_pause(bucket.paused, now),
        *_sizes(bucket),
        *(f"from {each}" for each in (bucket.allow_from or NOBODY).texts),
        *(["overwrite"] if bucket.overwrite else []),
        *(f"series {each}" for each in bucket.series),
        *_schedule(bucket.expect),
        *_alerts(bucket),
        *([] if bucket.keep is None else [f"keep {_keep_text(bucket.keep)}"]),
        *([] if bucket.hold == HOLD else [f"hold {age_text(bucket.hold)}"]),
        *_held(bucket, now),
        *([] if bucket.drill is None else [f"drill {age_text(bucket.drill)}"]),
        *([f"({bucket.comment})"] if bucket.comment else []),
    ]
    first, *others = (
        [each.sha256.hex()[:6], _expiry(each, now)] for each in bucket.tokens
    )
    yield [
        bucket.label,
        *first,
        "-" if used is None else str(used.files),
        "-" if used is None or not used.files else size_text(used.bytes),
        _quota(bucket.quota, used),
        ", ".join(settings) or "-",
    ]
    for token in others:
        yield ["", *token, "", "", "", "-"]


def _schedule(expect: Expectation | None) -> Iterator[str]:
    if expect is not None:
        yield f"expect {expect.text}"
    if isinstance(expect, Schedule) and expect.grace != GRACE:
        yield f"grace {age_text(expect.grace)}"


def _quota(quota: int | None, used: Tally | None) -> str:
    """The quota, and how much of it is used."""
    if quota is None:
        return "-"
    text = exact_size_text(quota)
    if not quota or used is None:
        return text
    return f"{100 * used.quota_taken // quota} % of {text}"


def used_json(used: Tally | None) -> dict[str, int | None]:
    """The totals of a bucket; null if they are unknown."""
    if used is None:
        return {"files": None, "bytes": None, "quota_used": None}
    return {
        "files": used.files,
        "bytes": used.bytes,
        "quota_used": used.quota_taken,
    }


def _sizes(bucket: Bucket) -> Iterator[str]:
    least, most = bucket.min_file_size, bucket.max_file_size
    least_text = "" if least is None else exact_size_text(least)
    most_text = "" if most is None else exact_size_text(most)
    if least_text and most_text:
        yield f"file size {least_text} to {most_text}"
    elif least_text:
        yield f"min file size {least_text}"
    elif most_text:
        yield f"max file size {most_text}"


def _pause(pause: Pause | None, now: float) -> Iterator[str]:
    """A pause that is not over."""
    if pause is not None and pause.until > now:
        yield pause_text(pause)


def _held(bucket: Bucket, now: float) -> Iterator[str]:
    """The number of files that are held, if there are any."""
    count = sum(each.until > now for each in bucket.held)
    if count:
        yield f"{counted(count, 'file')} held"


def _alerts(bucket: Bucket) -> Iterator[str]:
    if bucket.shrink_alert != SHRINK_ALERT:
        yield f"shrink alert {bucket.shrink_alert:g}"
    if bucket.grow_alert is not None:
        yield f"grow alert {bucket.grow_alert:g}"


def _kept(keep: Keep) -> dict[str, int]:
    """The rules that are set."""
    return {rule: count for rule, count in asdict(keep).items() if count is not None}


def _keep_text(keep: Keep) -> str:
    return " and ".join(f"{count} {rule}" for rule, count in _kept(keep).items())


def _expiry(token: Token, now: float) -> str:
    if token.expires is None:
        return "never"
    return f"{'EXPIRED ' if token.expires <= now else ''}{moment_text(token.expires)}"
