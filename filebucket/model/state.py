"""Whether what should have arrived has, and whether it can be what it should be.

Nothing here waits, asks the time or keeps anything: it is given what is known of a
series and says what state that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

from attrs import frozen

from filebucket.model.bucket import Bucket

COMPARED = 5
"""Pushes before the last one that its size is compared with."""
LEAST_COMPARED = 3
"""Pushes that there must have been before: of fewer nobody knows what is usual."""


class State(Enum):
    """How a series is."""

    FRESH = "fresh"
    """The last push came in time and is of a usual size."""
    LATE = "late"
    """A push is overdue."""
    EMPTY = "empty"
    """The last push holds nothing."""
    SHRUNK = "shrunk"
    """The last push is much smaller than those before it."""
    GROWN = "grown"
    """It is much larger."""
    NEVER = "never"
    """There was none yet, and none is overdue."""


WORST_FIRST = (
    State.LATE,
    State.EMPTY,
    State.SHRUNK,
    State.GROWN,
    State.NEVER,
    State.FRESH,
)


@frozen
class Facts:
    """What is known of a series.

    :param since: when it was first known that there is such a series, in seconds
        since the epoch
    :param last: when its last push came; None where there was none
    :param sizes: bytes of its latest pushes, the last one first; of those that hold
        nothing (:mod:`~filebucket.model.empty`) 0
    """

    since: float
    last: float | None
    sizes: Sequence[int]


@frozen
class Assessment:
    """What is to be thought of a series.

    :param due: when it will be late, or was; infinity where that is never
    :param usual: bytes that a push of it has, where that is known
    """

    state: State
    due: float
    usual: int | None


def assess(bucket: Bucket, watched: bool, facts: Facts, now: float) -> Assessment:
    """What is to be thought of a series of ``bucket`` at ``now``.

    :param watched: whether pushes of it are expected when the bucket's are
    """
    due = math.inf
    if bucket.expect is not None and watched:
        due = bucket.expect.due(facts.since if facts.last is None else facts.last)
    usual = usual_size(facts.sizes[1:])
    state = State.FRESH if facts.sizes else State.NEVER
    if facts.sizes:
        state = judge(bucket, facts.sizes[0], usual)
    if now >= due:
        state = State.LATE
    return Assessment(state, due, usual)


def usual_size(before: Sequence[int]) -> int | None:
    """The size to compare a push with.

    :param before: bytes of the pushes before it, the latest first; those that hold
        nothing say nothing of what is usual
    """
    compared = sorted(filter(None, before[:COMPARED]))
    if len(compared) < LEAST_COMPARED:
        return None
    # The median; statistics has it in floating point, which is too few digits.
    middle = len(compared) // 2
    return (compared[middle] + compared[~middle]) // 2


def judge(bucket: Bucket, size: int, usual: int | None) -> State:
    """What is to be thought of a push of ``size`` bytes, 0 where it holds nothing."""
    if not size:
        return State.EMPTY
    if usual is None:
        return State.FRESH
    if size < usual * bucket.shrink_alert:
        return State.SHRUNK
    if bucket.grow_alert is not None and size > usual * bucket.grow_alert:
        return State.GROWN
    return State.FRESH
