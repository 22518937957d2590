"""What happened to all buckets in a period, for ``filebucket report``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import evolve, frozen

from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import (
    BucketOverview,
    Known,
    Overview,
    make_overview,
)
from filebucket.model.bucket import quota_taken
from filebucket.model.records import Activity

DAY = 24 * 3600.0
LEAST_HISTORY = DAY
"""Seconds that a bucket must be known for its rate to count."""


@frozen
class BucketReport:
    """A bucket in the period.

    :param now: its state at the end
    :param activity: what happened
    :param full_at: when its quota is used up at the present rate; None if it is not
        foreseeable
    """

    now: BucketOverview
    activity: Activity
    full_at: float | None

    @property
    def silent(self) -> bool:
        """Whether it received no push, although it could."""
        return not self.activity.pushes and not self.now.retired


@frozen
class Report:
    """All buckets in a period.

    :param since: when the period began, in seconds since the epoch
    :param overview: the state at the end
    :param buckets: the worst first, then those that received most
    :param strangers: number of refusals without a valid token, as far as they are kept
    """

    since: float
    overview: Overview
    buckets: Sequence[BucketReport]
    strangers: int

    @property
    def at(self) -> float:
        """When the period ended."""
        return self.overview.at


def make_report(view: IView, known: Known, since: float) -> Report:
    """Make the report. It may wait for a disk.

    :param since: when the period began
    :raises CatalogueError: the catalogue cannot be read
    """
    found = {each.bucket: each for each in view.activity(since)}
    overview = make_overview(view, known, sizes=0, refusals=0)
    reports = [
        _bucket(each, found.get(each.bucket) or Activity(each.bucket), since, known.now)
        for each in overview.buckets
    ]
    reports.sort(key=lambda each: (-each.now.severity, -each.activity.received))
    return Report(since, overview, reports, (found.get("") or Activity("")).refused)


def _bucket(
    bucket: BucketOverview, activity: Activity, since: float, now: float
) -> BucketReport:
    return BucketReport(bucket, activity, _full_at(bucket, activity, since, now))


def _full_at(
    bucket: BucketOverview, activity: Activity, since: float, now: float
) -> float | None:
    """When the quota is used up, if the bucket grows as in the period."""
    if bucket.quota is None or bucket.retired:
        return None
    left = bucket.quota - bucket.quota_taken
    if left <= 0:
        return now
    seconds = now - max(since, now if activity.since is None else activity.since)
    grown = quota_taken(activity.files, activity.bytes)
    if seconds < LEAST_HISTORY or grown <= 0:
        return None
    return now + left * seconds / grown


def total(reports: Sequence[BucketReport]) -> Activity:
    """The sum of these buckets."""
    found = Activity("")
    for each in reports:
        one = each.activity
        found = evolve(
            found,
            pushes=found.pushes + one.pushes,
            received=found.received + one.received,
            files=found.files + one.files,
            bytes=found.bytes + one.bytes,
            pruned=found.pruned + one.pruned,
            pruned_bytes=found.pruned_bytes + one.pruned_bytes,
            refused=found.refused + one.refused,
        )
    return found


def filling(report: Report) -> Sequence[BucketReport]:
    """The buckets whose quota is foreseeably used up, the first one first."""
    found = [each for each in report.buckets if each.full_at is not None]
    return sorted(found, key=lambda each: each.full_at or -math.inf)


def silent(report: Report) -> Sequence[BucketReport]:
    """The buckets that received no push, although they could: first those that expect
    one, then those whose last push is longest ago.
    """
    return sorted(
        (each for each in report.buckets if each.silent),
        key=lambda each: (not each.now.awaited, each.now.last_at or -math.inf),
    )
