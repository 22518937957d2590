"""What is the matter, counted and in a sentence.

The page, ``status`` and its line for Nagios are made of this, so that they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from filebucket.base.text import counted, joined
from filebucket.catalogue.overview import LOST, SEVERITY_OF, BucketOverview, Overview
from filebucket.model.state import State


@frozen
class Trouble:
    """Something that may be the matter.

    :param word: a state, ``damaged`` or ``missing``
    :param severity: what it is where it is the matter
    :param count: series that have that state, or files
    :param labels: the buckets that have it; a bucket has one state, that of its worst
        series
    """

    word: str
    severity: int
    count: int
    labels: Sequence[str]


def troubles(overview: Overview) -> Sequence[Trouble]:
    """All that may be the matter, the worst first."""
    everything = overview.buckets
    expecting = [each for each in everything if each.expect]

    def of_state(state: State, buckets: Sequence[BucketOverview]) -> Trouble:
        # A bucket that the daemon has not seen yet waits, and has no series.
        count = sum(max(each.states[state], each.state is state) for each in buckets)
        labels = [each.label for each in buckets if each.state is state]
        return Trouble(state.value, SEVERITY_OF[state], count, labels)

    def of_files(word: str, count: Callable[[BucketOverview], int]) -> Trouble:
        labels = [each.label for each in everything if count(each)]
        return Trouble(word, LOST, sum(map(count, everything)), labels)

    return (
        of_state(State.LATE, everything),
        of_files("damaged", lambda each: each.damaged),
        of_files("missing", lambda each: each.missing),
        of_state(State.EMPTY, everything),
        of_state(State.SHRUNK, everything),
        of_state(State.GROWN, everything),
        of_state(State.NEVER, expecting),
    )


@frozen
class Summary:
    """Everything in a sentence or two.

    :param severity: 0: in order; 1: worth a look; 2: a backup is missing
    :param headline: one sentence, without its full stop
    :param more: what else there is to say; may be empty
    """

    severity: int
    headline: str
    more: str = ""


def summarize(overview: Overview) -> Summary:
    """What is to be thought of everything."""
    buckets = overview.buckets
    if not buckets:
        return Summary(0, "There are no buckets yet")
    found = troubles(overview)
    bad, look = (
        joined(
            [
                counted(each.count, *_PHRASES[each.word])
                for each in found
                if each.count and each.severity == severity
            ]
        )
        for severity in (2, 1)
    )
    if bad:
        return Summary(2, bad, f"{look}." if look else "")
    if look:
        return Summary(1, look)
    expecting = sum(each.expect is not None for each in buckets)
    if not expecting:
        return Summary(
            0,
            "No problems found",
            "No bucket has an expect schedule, so late backups cannot be detected.",
        )
    if expecting == len(buckets):
        return Summary(0, "Every backup arrived")
    rest = counted(len(buckets) - expecting, "bucket has", "buckets have")
    return Summary(0, "Every expected backup arrived", f"{rest} no schedule.")


_PHRASES = {
    "late": ("backup is late", "backups are late"),
    "damaged": ("file is damaged", "files are damaged"),
    "missing": ("file is missing", "files are missing"),
    "empty": ("backup is empty", "backups are empty"),
    "shrunk": ("backup has shrunk", "backups have shrunk"),
    "grown": ("backup has grown", "backups have grown"),
    "never": (
        "backup is awaiting its first push",
        "backups are awaiting their first push",
    ),
}
