"""Counts problems, and sums them up in a sentence.

The page, ``filebucket status`` and its line for Nagios all use this, so that they
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen

from filebucket.base.text import counted, joined, sentence
from filebucket.catalogue.overview import LOST, SEVERITY_OF, BucketOverview, Overview
from filebucket.model.problem import CRITICAL, WARNING, Kind
from filebucket.model.state import State


@frozen
class Trouble:
    """A kind of problem of buckets, which may be absent.

    :param word: a state, or the kind of a problem
    :param severity: severity of the problem if it is present
    :param count: number of series with that state, of files, or of buckets
    :param labels: buckets with the problem; the state of a bucket is that of its worst
        series
    """

    word: str
    severity: int
    count: int
    labels: Sequence[str]


def troubles(overview: Overview) -> Sequence[Trouble]:
    """All kinds of problems of buckets, the worst first."""
    everything = overview.buckets
    expecting = [each for each in everything if each.awaited]
    problematic = [each for each in everything if each.problems]

    def of_state(state: State, buckets: Sequence[BucketOverview]) -> Trouble:
        # A bucket that is new to the daemon awaits its first push, but has no series.
        count = sum(each.states.get(state) or each.state is state for each in buckets)
        labels = [each.label for each in buckets if each.state is state]
        return Trouble(state.value, SEVERITY_OF[state], count, labels)

    def of_files(word: str, count: Callable[[BucketOverview], int]) -> Trouble:
        labels = [each.label for each in everything if count(each)]
        return Trouble(word, LOST, sum(map(count, everything)), labels)

    def of_kind(kind: Kind, severity: int) -> Trouble:
        labels = [
            each.label
            for each in problematic
            if any(
                (one.kind, one.severity) == (kind, severity) for one in each.problems
            )
        ]
        return Trouble(kind.value, severity, len(labels), labels)

    return (
        of_state(State.LATE, everything),
        of_state(State.FAILED, everything),
        of_files("damaged", lambda each: each.damaged),
        of_files("missing", lambda each: each.missing),
        of_state(State.EMPTY, everything),
        of_kind(Kind.FULL, CRITICAL),
        of_kind(Kind.TOKEN, CRITICAL),
        of_kind(Kind.COPY, CRITICAL),
        of_kind(Kind.DRILL, CRITICAL),
        of_kind(Kind.FULL, WARNING),
        of_kind(Kind.TOKEN, WARNING),
        of_kind(Kind.COPY, WARNING),
        of_state(State.UNFINISHED, everything),
        of_state(State.SHRUNK, everything),
        of_state(State.GROWN, everything),
        of_state(State.NEVER, expecting),
    )


@frozen
class Summary:
    """The state of all backups in a sentence or two.

    :param severity: 0: OK; 1: warning; 2: a backup is missing
    :param headline: one sentence, without its period
    :param more: a second sentence; may be empty
    """

    severity: int
    headline: str
    more: str = ""


def summarize(overview: Overview) -> Summary:
    """Sum up an overview."""
    buckets = overview.buckets
    found = troubles(overview)
    bad, look = (
        _sentence(
            [
                *(each.text for each in overview.problems if each.severity == severity),
                *(
                    counted(each.count, *_phrases(each))
                    for each in found
                    if each.count and each.severity == severity
                ),
            ]
        )
        for severity in (CRITICAL, WARNING)
    )
    if bad:
        return Summary(2, bad, f"{look}." if look else "")
    if look:
        return Summary(1, look)
    if not buckets:
        return Summary(0, "There are no buckets yet")
    return _calm(buckets)


def summarize_briefly(overview: Overview) -> Summary:
    """Sum up an overview whose problems of the server are listed below: they are only
    counted, unless there is nothing else.
    """
    found, problems = summarize(overview), overview.problems
    if not problems or [found.headline] == [sentence(each.text) for each in problems]:
        return found
    number = evolve(problems[0], text=server_problems(overview))
    return summarize(evolve(overview, problems=(number,)))


def server_problems(overview: Overview) -> str:
    """The number of the server's own problems, as a clause."""
    return f"the server has {counted(len(overview.problems), 'problem')}"


def _calm(buckets: Sequence[BucketOverview]) -> Summary:
    """The summary of buckets without a problem."""
    alive = [each for each in buckets if not each.retired]
    unscheduled = sum(each.expect is None for each in alive)
    if not alive:
        return Summary(0, "No problems found", "All buckets are retired.")
    if unscheduled == len(alive):
        return Summary(
            0,
            "No problems found",
            "No bucket has an expect schedule, so late backups cannot be detected.",
        )
    if all(each.awaited for each in alive):
        return Summary(0, "Every backup arrived")
    rest = counted(unscheduled, "bucket has", "buckets have")
    more = f"{rest} no schedule." if unscheduled else ""
    return Summary(0, "Every expected backup arrived", more)


def _sentence(clauses: Sequence[str]) -> str:
    return sentence(joined(clauses))


def _phrases(trouble: Trouble) -> tuple[str, str]:
    if trouble.severity == WARNING:
        return _WARNINGS.get(trouble.word) or _PHRASES[trouble.word]
    return _PHRASES[trouble.word]


_WARNINGS = {
    "full": ("bucket is nearly full", "buckets are nearly full"),
    "token": (
        "bucket has a token that expires soon",
        "buckets have tokens that expire soon",
    ),
    "copy": ("bucket could not be copied", "buckets could not be copied"),
}

_PHRASES = {
    "full": ("bucket is full", "buckets are full"),
    "token": ("bucket has no valid token", "buckets have no valid token"),
    "copy": ("bucket is not copied", "buckets are not copied"),
    "drill": (
        "bucket has a failed or overdue restore test",
        "buckets have a failed or overdue restore test",
    ),
    "late": ("backup is late", "backups are late"),
    "damaged": ("file is damaged", "files are damaged"),
    "missing": ("file is missing", "files are missing"),
    "failed": ("backup failed", "backups failed"),
    "empty": ("backup is empty", "backups are empty"),
    "unfinished": ("push never ended", "pushes never ended"),
    "shrunk": ("backup has shrunk", "backups have shrunk"),
    "grown": ("backup has grown", "backups have grown"),
    "never": (
        "backup is awaiting its first push",
        "backups are awaiting their first push",
    ),
}
