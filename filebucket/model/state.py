"""The state of a series: whether its last push was on time and of a normal size.

These are pure rules: nothing here waits, reads the clock or keeps anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

from attrs import frozen

from filebucket.model.bucket import Bucket

COMPARED = 5
"""Number of earlier pushes that the last push is compared with."""
LEAST_COMPARED = 3
"""Earlier pushes that are needed to know the usual size."""


class State(Enum):
    """The state of a series."""

    FRESH = "fresh"
    """The last push was on time and of normal size."""
    LATE = "late"
    """A push is overdue."""
    FAILED = "failed"
    """The client reported after the last push that a backup failed."""
    EMPTY = "empty"
    """The last push has no content."""
    UNFINISHED = "unfinished"
    """A push after the last one began and never ended."""
    SHRUNK = "shrunk"
    """The last push is much smaller than earlier ones."""
    GROWN = "grown"
    """The last push is much larger than earlier ones."""
    NEVER = "never"
    """There was no push yet, and none is overdue."""


WORST_FIRST = (
    State.LATE,
    State.FAILED,
    State.EMPTY,
    State.UNFINISHED,
    State.SHRUNK,
    State.GROWN,
    State.NEVER,
    State.FRESH,
)


@frozen
class Facts:
    """The facts about a series.

    :param since: when the series was first known, in seconds since the epoch
    :param last: time of its last push; None if there was none
    :param sizes: sizes of its latest pushes in bytes, the last one first; 0 for a push
        without content (:mod:`~filebucket.model.empty`)
    :param unfinished: when the last byte came of a push that never ended; None if there
        was none
    :param failed: when the client last reported that a backup failed; None if it never
        did
    """

    since: float
    last: float | None
    sizes: Sequence[int]
    unfinished: float | None = None
    failed: float | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a failure was reported after the last push."""
        return _or_never(self.failed) > _or_never(self.last)

    @property
    def is_unfinished(self) -> bool:
        """Whether a push after the last one never ended."""
        return _or_never(self.unfinished) > _or_never(self.last)


def _or_never(at: float | None) -> float:
    return -math.inf if at is None else at


@frozen
class Assessment:
    """The state of a series, and what it was derived from.

    :param due: when it becomes or became late; infinity is never
    :param usual: usual size of a push in bytes, if it is known
    """

    state: State
    due: float
    usual: int | None


def assess(bucket: Bucket, watched: bool, facts: Facts, now: float) -> Assessment:
    """Assess a series of ``bucket`` at ``now``. In a retired bucket, it is either fresh
    or never.

    :param watched: whether the bucket's schedule applies to the series
    """
    usual = usual_size(facts.sizes[1:])
    state = State.FRESH if facts.sizes else State.NEVER
    if bucket.retired:
        return Assessment(state, math.inf, usual)
    due = math.inf
    if bucket.expect is not None and watched:
        last = facts.since if facts.last is None else facts.last
        if bucket.paused is not None:
            # The schedule starts again when the pause ends.
            last = max(last, bucket.paused.until)
        due = bucket.expect.due(last)
    if facts.sizes:
        state = judge(bucket, facts.sizes[0], usual)
    if state is not State.EMPTY and facts.is_unfinished:
        state = State.UNFINISHED
    if facts.has_failed:
        state = State.FAILED
    if now >= due:
        state = State.LATE
    return Assessment(state, due, usual)


def usual_size(before: Sequence[int]) -> int | None:
    """The size to compare a push with; None if there were too few pushes.

    :param before: sizes of earlier pushes in bytes, the latest first; pushes without
        content are ignored
    """
    compared = sorted(filter(None, before[:COMPARED]))
    if len(compared) < LEAST_COMPARED:
        return None
    # The median; statistics.median uses floating point, which has too few digits.
    middle = len(compared) // 2
    return (compared[middle] + compared[~middle]) // 2


def judge(bucket: Bucket, size: int, usual: int | None) -> State:
    """The state of a series by the size of its last push, 0 if it has no content."""
    if not size:
        return State.EMPTY
    if usual is None:
        return State.FRESH
    if size < usual * bucket.shrink_alert:
        return State.SHRUNK
    if bucket.grow_alert is not None and size > usual * bucket.grow_alert:
        return State.GROWN
    return State.FRESH
