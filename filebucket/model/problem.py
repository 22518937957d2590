"""Problems of a bucket or of the whole server, besides the states of its series.

A series has one :class:`~filebucket.model.state.State`; a bucket and the server have
any number of problems, at most one of each kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum

from attrs import field, frozen

from filebucket.base.text import (
    about_text,
    age_text,
    ago,
    counted,
    moment_text,
    printable,
    size_text,
)
from filebucket.model.bucket import Bucket, label_of
from filebucket.model.filesystem import Filesystem
from filebucket.model.records import Copy, Drills, HookFailure, Totals

WARNING = 1
CRITICAL = 2
"""Severities of a problem; 0 is none."""

SEVERITIES = ("ok", "warning", "critical")
"""Names of the severities."""

SOON = 14 * 24 * 3600.0
"""Seconds before an end in which it is reported."""


NEARLY_FULL = 0.9
"""Used share of a quota from which on the bucket is nearly full."""

SCARCE = 0.05
"""Share of a filesystem that pushes may still use, below which it is nearly full."""

COPY_LATE = 2 * 24 * 3600.0
"""Seconds for which a file may wait for its copy to another server."""


class Kind(Enum):
    """The kind of a problem."""

    DAEMON = "daemon"
    """The daemon does not run."""
    CATALOGUE = "catalogue"
    """The catalogue cannot be written."""
    STORE = "store"
    """The object store cannot be used."""
    FULL = "full"
    """A bucket's quota, or the disk, is used up or soon will be."""
    DAMAGED = "damaged"
    """Files no longer match their checksums."""
    MISSING = "missing"
    """Files are gone."""
    DRILL = "drill"
    """A restore test failed, or is overdue."""
    TOKEN = "token"  # noqa: S105 - not a password
    """The last token of a bucket ends."""
    CERTIFICATE = "certificate"
    """A certificate of the server ends."""
    HOOK = "hook"
    """A hook fails."""
    COPY = "copy"
    """The files of a bucket are not copied to another server."""
    RELOAD = "reload"
    """The daemon has not read the present configuration."""
    NODE = "node"
    """A daemon that shares the catalogue is gone, or differs from the others."""


@frozen
class Problem:
    """A problem that exists now.

    :param severity: :data:`WARNING` or :data:`CRITICAL`
    :param text: what is wrong, as a sentence without a period; it names no bucket
    :param bucket: the bucket's key; empty for the whole server
    :param level: rises as the problem gets worse: each rise is reported
    :param node: name of the daemon that has the problem; empty if it is not about one,
        or if no other shares its catalogue
    """

    kind: Kind
    severity: int
    text: str
    bucket: str = ""
    level: int = field()
    node: str = ""

    @level.default
    def _severity(self) -> int:
        return self.severity


@frozen
class ToldProblem:
    """A problem that was reported to the operator.

    :param bucket: the bucket's key; empty for the whole server
    :param level: the level reported; 0 if it was reported that the problem is gone
    :param since: when it was first noticed
    :param told_at: when it was last reported
    :param node: name of the daemon that has the problem, if it is about one
    """

    kind: Kind = field(converter=Kind)
    bucket: str
    level: int
    since: float
    told_at: float
    node: str = ""


def ending_token(bucket: Bucket, now: float) -> Problem | None:
    """Whether the last token of a bucket has expired, or soon will.

    :param now: seconds since the epoch
    """
    if bucket.retired:
        return None
    ends = [each.expires for each in bucket.tokens if each.expires is not None]
    if len(ends) < len(bucket.tokens) or (last := max(ends)) > now + SOON:
        return None
    when = moment_text(last)
    if last > now:
        text = f"its last token expires soon: {when}"
        return Problem(Kind.TOKEN, WARNING, text, bucket.key)
    text = f"no client can push: its last token expired: {when}"
    return Problem(Kind.TOKEN, CRITICAL, text, bucket.key)


def ending_certificate(ends: Iterable[tuple[str, float]], now: float) -> Problem | None:
    """Whether a certificate has expired, or soon will; the first one is named.

    :param ends: the name of each, and when it expires, in seconds since the epoch
    :param now: seconds since the epoch
    """
    soon = sorted((at, name) for name, at in ends if at <= now + SOON)
    if not soon:
        return None
    at, name = soon[0]
    when = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
    more = f" (and {len(soon) - 1} more)" if len(soon) > 1 else ""
    if at > now:
        text = f"the certificate of {name} expires on {when}{more}"
        return Problem(Kind.CERTIFICATE, WARNING, text)
    text = f"the certificate of {name} expired on {when}{more}"
    return Problem(Kind.CERTIFICATE, CRITICAL, text)


def of_bucket(
    bucket: Bucket,
    totals: Totals,
    refused: tuple[float, str] | None,
    drills: Drills | None,
    now: float,
) -> Iterator[Problem]:
    """The problems of a bucket.

    :param drills: its restore tests; None if it had none, and needs none
    :param refused: time and reason of the last push that got 507
    :param now: seconds since the epoch
    """
    yield from lost_files(bucket.key, totals.damaged, totals.missing)
    failing = None if drills is None else failing_drills(bucket, drills, now)
    yield from [failing] if failing else []
    if bucket.retired:
        return
    reason = None
    if refused is not None and refused[0] > (totals.last_at or -math.inf):
        reason = refused[1]
    full = full_bucket(bucket, totals.quota_taken, reason)
    yield from filter(None, (full, ending_token(bucket, now)))


def full_bucket(bucket: Bucket, taken: int, refused: str | None) -> Problem | None:
    """Whether a bucket is full, or nearly.

    :param taken: bytes of its quota that are used
    :param refused: why the last push got 507; None if it did not
    """
    if refused is not None:
        text = f"the last push was refused: {refused}"
        return Problem(Kind.FULL, CRITICAL, text, bucket.key)
    if bucket.quota is None or taken < NEARLY_FULL * bucket.quota:
        return None
    share = f"{taken / bucket.quota:.0%}".replace("%", " %")
    text = f"{share} of the quota of {size_text(bucket.quota)} is used"
    return Problem(Kind.FULL, WARNING, text, bucket.key)


def late_copy(copies: Sequence[Copy], now: float) -> Problem | None:
    """Whether the files of a bucket are not copied to another server; the worst one is
    named.

    :param copies: one for each server
    :param now: seconds since the epoch
    """
    late = {
        each.target: now - each.waiting_since > COPY_LATE
        for each in copies
        if each.waiting_since is not None
    }
    bad = [each for each in copies if each.error is not None or late.get(each.target)]
    if not bad:
        return None
    worst = max(bad, key=lambda each: late.get(each.target, False))
    if late.get(worst.target) and worst.waiting_since is not None:
        since = moment_text(worst.waiting_since)
        text = f"files received since {since} are not copied to {worst.target}"
        severity = CRITICAL
    else:
        text, severity = f"the copy to {worst.target} failed", WARNING
    if worst.error is not None:
        text = f"{text}: {worst.error}"
    # Root may print it, and the daemon's user can write anything to the catalogue.
    return Problem(Kind.COPY, severity, printable(text), worst.bucket)


def full_disk(disk: Filesystem, full_at: float | None, now: float) -> Problem | None:
    """Whether the disk is full, or nearly.

    :param full_at: forecast of the time when it is full, in seconds since the epoch
    :param now: seconds since the epoch
    """
    if disk.fault is not None:
        text = f"no push can be stored: {disk.fault}"
        if disk.after_restart:
            return Problem(Kind.FULL, WARNING, f"after the restart, {text}")
        return Problem(Kind.FULL, CRITICAL, text)
    if full_at is not None and full_at - now < SOON:
        about = about_text(full_at - now)
        text = f"the disk is full in about {about} at this rate"
        return Problem(Kind.FULL, WARNING, text)
    left = disk.free - disk.reserved
    if left < SCARCE * disk.total:
        text = f"pushes may use only {size_text(left)} of the disk"
        return Problem(Kind.FULL, WARNING, text)
    return None


def store_outage(reason: str) -> Problem:
    """The object store cannot be used."""
    return Problem(Kind.STORE, CRITICAL, f"no push can be stored: {printable(reason)}")


def lost_files(bucket: str, damaged: int, missing: int) -> Sequence[Problem]:
    """The damaged and the missing files of a bucket.

    :param bucket: its key
    """
    return [
        Problem(
            kind,
            CRITICAL,
            f"{counted(count, 'file')} {'is' if count == 1 else 'are'} {kind.value}",
            bucket,
            level=count,
        )
        for kind, count in ((Kind.DAMAGED, damaged), (Kind.MISSING, missing))
        if count
    ]


def failing_drills(bucket: Bucket, drills: Drills, now: float) -> Problem | None:
    """Whether a restore test of a bucket failed, or is overdue.

    :param now: seconds since the epoch
    """
    clauses = []
    if drills.last is not None:
        name, at, error = drills.last
        rest = drills.failed - 1
        more = f" (and {counted(rest, 'more series', 'more series')})" if rest else ""
        clauses.append(
            f"the restore test of {name}{more} failed {ago(now - at)}: {error}"
        )
    if drill_due(bucket, drills) <= now:
        clauses.append(_overdue(bucket, drills, now))
    if not clauses:
        return None
    # Each doubling of the number of series is reported again.
    level = CRITICAL + drills.failed.bit_length()
    # The names come from clients.
    text = printable("; ".join(clauses))
    return Problem(Kind.DRILL, CRITICAL, text, bucket.key, level)


def drill_due(bucket: Bucket, drills: Drills) -> float:
    """When the next restore test becomes or became overdue; infinity is never. A bucket
    without a file needs none.
    """
    if bucket.drill is None or not drills.has_files:
        return math.inf
    last = drills.since if drills.passed_at is None else drills.passed_at
    until = -math.inf if bucket.paused is None else bucket.paused.until
    return max(last + bucket.drill, until)


def _overdue(bucket: Bucket, drills: Drills, now: float) -> str:
    every = f"one is due every {age_text(bucket.drill or 0)}"
    if drills.passed_at is None:
        return f"no restore test has passed yet; {every}"
    return f"the last restore test passed {ago(now - drills.passed_at)}; {every}"


def failing_hooks(failures: Sequence[HookFailure]) -> Problem | None:
    """The hooks that fail, as one problem: a hook may fail for all buckets at once.

    :param failures: the latest first
    """
    hooks = sorted({each.hook for each in failures})
    if not hooks:
        return None
    clauses = []
    for hook in hooks:
        last, *others = [each for each in failures if each.hook == hook]
        buckets = ""
        if last.bucket:
            more = f" and {counted(len(others), 'more bucket')}" if others else ""
            buckets = f" for {label_of(last.bucket)}{more}"
        clauses.append(f"the {hook} hook fails{buckets}: {last.reason}")
    # Without pre-push, no push is stored.
    severity = CRITICAL if "pre-push" in hooks else WARNING
    # It is reported again whenever the number of failing hooks has doubled: one bucket
    # must not hide the others, and a thousand must not cause as many alerts.
    level = 100 * severity + len(failures).bit_length()
    # Root may print it, and the daemon's user can write anything to the catalogue.
    return Problem(Kind.HOOK, severity, printable("; ".join(clauses)), level=level)
