"""The state of all backups, for ``filebucket status`` and the page.

By bucket, the worst series first, with limits on the amount, and without tokens.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from statistics import linear_regression
from typing import Any, Self

from attrs import AttrsInstance, evolve, fields, frozen

from filebucket.catalogue.interfaces import IView
from filebucket.model.bucket import Bucket, Pause
from filebucket.model.filesystem import Filesystem
from filebucket.model.mask import mask
from filebucket.model.node import Node, node_problems, of_node
from filebucket.model.problem import (
    Kind,
    Problem,
    drill_due,
    failing_hooks,
    full_disk,
    late_copy,
    of_bucket,
)
from filebucket.model.records import Copy, Drills, Refused, Series, Space, Tally, Totals
from filebucket.model.state import WORST_FIRST, State
from filebucket.model.unfinished import Unfinished

MOST_SERIES = 20
"""Number of series shown for a bucket, the worst first."""

SIZES = 30
"""Number of sizes shown for a series."""

MOST_FAILURES = 1000
"""Number of failing hooks that are counted."""

REFUSALS = 20
"""Number of refusals shown."""

FORECAST_FROM = 30 * 24 * 3600.0
"""Seconds of samples of the free space that the forecast is based on."""
FORECAST_LEAST = 24 * 3600.0
"""Seconds that the samples must span."""


LOST = 2
SEVERITY_OF = {
    State.LATE: 2,
    State.FAILED: 2,
    State.EMPTY: 2,
    State.UNFINISHED: 1,
    State.SHRUNK: 1,
    State.GROWN: 1,
    State.NEVER: 1,
    State.FRESH: 0,
}
"""0: OK; 1: warning; 2: a backup is missing. A damaged or missing file is
:data:`LOST`."""


@frozen
class SeriesOverview(Series):
    """A series and its state now, even if no daemon is running.

    :param last_name: name of the last file, with tokens masked
    :param sizes: sizes in bytes of the latest pushes, oldest first
    :param last_client: ``ip:port`` of the client of the last push; None if it is not
        known
    """

    sizes: Sequence[int] = ()
    last_client: str | None = None

    @property
    def change(self) -> float | None:
        """The last size as a multiple of the usual one."""
        if not self.usual or self.last_size is None:
            return None
        return self.last_size / self.usual

    @property
    def conditions(self) -> Sequence[tuple[str, int]]:
        """Its state, ``damaged`` and ``missing``, as far as they apply, each with the
        number of such files, or 0 for the state.
        """
        counts = (("damaged", self.damaged), ("missing", self.missing))
        lost = [(word, count) for word, count in counts if count]
        # A series with lost files is not fresh.
        if self.state is State.FRESH and lost:
            return lost
        return [(self.state.value, 0), *lost]


@frozen(kw_only=True)
class BucketOverview(Tally):
    """A bucket and the totals of its series, including those not shown.

    :param expect: the schedule as text; None if there is none
    :param series: the series shown, the worst first
    :param more: number of series not shown
    :param comment: as configured; may be empty
    :param paused: the pause, if there is one that is not over
    :param problems: of the bucket as a whole, the worst first
    :param copies: how far it is copied to other servers
    :param restored_at: when a restore test last passed; None if none did
    :param drill_due: when the next one becomes or became overdue; infinity is never
    """

    label: str
    expect: str | None
    quota: int | None
    series: tuple[SeriesOverview, ...]
    more: int
    comment: str = ""
    paused: Pause | None = None
    retired: bool = False
    problems: tuple[Problem, ...] = ()
    copies: tuple[Copy, ...] = ()
    restored_at: float | None = None
    drill_due: float = math.inf

    @property
    def awaited(self) -> bool:
        """Whether pushes are expected now."""
        return self.expect is not None and self.paused is None and not self.retired

    # Cached, since a page asks for it a dozen times, and for the severity three times.
    @cached_property
    def state(self) -> State:
        """The worst state of its series."""
        return min(self.states, key=WORST_FIRST.index, default=State.NEVER)

    @cached_property
    def severity(self) -> int:
        """That of its worst series, or of its worst problem: as in
        :data:`SEVERITY_OF`, but 0 for ``never`` if no push is expected now.
        """
        return max(self.series_severity, _worst(self.problems))

    @property
    def series_severity(self) -> int:
        """That of its worst series."""
        return self._severity(self.state, self)

    def only_problems(self) -> Self:
        """The same with only those series that have a problem."""
        bad = tuple(each for each in self.series if self.severity_of(each))
        known = sum(
            count for state, count in self.states.items() if self._severity_of(state)
        )
        shown = sum(self._severity_of(each.state) > 0 for each in bad)
        # Series with lost files come first, so they are shown.
        return evolve(self, series=bad, more=max(known - shown, 0))

    def severity_of(self, series: SeriesOverview) -> int:
        """The severity of a bucket with only this series."""
        return self._severity(series.state, series)

    def _severity(self, state: State, lost: Series | Tally) -> int:
        if lost.damaged or lost.missing:
            return LOST
        return self._severity_of(state)

    def _severity_of(self, state: State) -> int:
        # Without a schedule no push is missing.
        return 0 if state is State.NEVER and not self.awaited else SEVERITY_OF[state]


@frozen
class UploadOverview:
    """A resumable upload that goes on.

    :param bucket: the bucket's label
    :param name: of the file, with tokens masked
    :param offset: bytes that were received
    :param length: bytes of the whole file; None if not known yet
    :param rate: bytes per second while the client sent; None if not known yet
    :param since: when it began
    :param last_at: when the last byte came
    :param expires: when it is removed, if no more comes
    """

    bucket: str
    name: str
    offset: int
    length: int | None
    rate: float | None
    since: float
    last_at: float
    expires: float


@frozen
class Overview:
    """The state of all buckets.

    :param at: time of this overview, in seconds since the epoch
    :param buckets: in the order of the configuration
    :param space: the free space, now if the disk is known; None if it was not measured
        yet
    :param full_at: forecast of the time when no space is left; None if there is no
        downward trend or not enough history
    :param refusals: the latest, newest first, with labels of buckets instead of keys
    :param uploads: the resumable uploads that go on, the first to expire first
    :param problems: of the whole server, the worst first
    :param nodes: the daemons that share the catalogue
    :param has_objects: whether files are in an object store, not on the disk
    """

    at: float
    buckets: tuple[BucketOverview, ...]
    space: Space | None
    full_at: float | None
    refusals: tuple[Refused, ...]
    uploads: tuple[UploadOverview, ...] = ()
    problems: tuple[Problem, ...] = ()
    nodes: tuple[Node, ...] = ()
    has_objects: bool = False

    def only_problems(self) -> Self:
        """The same with only those buckets and series that have a problem."""
        bad = (each.only_problems() for each in self.buckets if each.severity)
        return evolve(self, buckets=tuple(bad), refusals=(), uploads=())

    @property
    def severity(self) -> int:
        """The severity of the worst bucket, or of the worst problem of the server."""
        worst = max((each.severity for each in self.buckets), default=0)
        return max(worst, _worst(self.problems))


def _worst(problems: Iterable[Problem]) -> int:
    return max((each.severity for each in problems), default=0)


@frozen
class Known:
    """Facts that are not in the catalogue.

    :param buckets: the configured buckets; files of removed buckets are not shown
    :param now: seconds since the epoch
    :param uploads: the resumable uploads that go on
    :param unfinished: seconds after its last byte when one expires
    :param disk: the home's filesystem; None if it cannot be examined
    :param problems: further ones, of the server and of buckets
    :param node: name of this daemon; empty if no other shares the catalogue
    :param has_objects: whether files are in an object store, not in the home
    """

    buckets: Sequence[Bucket]
    now: float
    uploads: Sequence[Unfinished] = ()
    unfinished: float = 0.0
    disk: Filesystem | None = None
    problems: Sequence[Problem] = ()
    node: str = ""
    has_objects: bool = False


def make_overview(
    view: IView,
    known: Known,
    sizes: int = SIZES,
    refusals: int = REFUSALS,
    most_series: int = MOST_SERIES,
) -> Overview:
    """Make the overview. It may wait for a disk.

    :param sizes: number of sizes for each series
    :param refusals: number of refusals
    :param most_series: number of series for each bucket
    :raises CatalogueError: the catalogue cannot be read
    """
    buckets, now, disk = known.buckets, known.now, known.disk
    # Most series are only counted, since a client can create any number of them.
    tallies = {each.bucket: each for each in view.tallies(now)}
    hide = mask(buckets)
    labels = {bucket.key: bucket.label for bucket in buckets}
    space = view.space(now - FORECAST_FROM, known.node)
    full_at = forecast(space, disk.reserved if disk else 0)
    refused = view.full()
    copies = _copies(view)
    drills = _drills(view, buckets, now)
    nodes = view.nodes(now)
    more: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in distinct(
        *of_server(view, known, full_at),
        *_of_others(nodes, known),
        *node_problems(nodes, now),
        *known.problems,
    ):
        more[problem.bucket].append(problem)
    keys = [each.key for each in buckets]
    worst = view.worst(keys, now, most_series) if most_series else {}
    shown = [each.id for some in worst.values() for each in some]
    latest = view.sizes(shown, sizes) if sizes and shown else {}
    return Overview(
        now,
        tuple(
            _bucket(
                each,
                tallies.get(each.key) or Tally(each.key),
                worst.get(each.key, ()),
                hide,
                now,
                latest,
                refused.get(each.key),
                drills.get(each.key),
                more[each.key],
                copies[each.key],
            )
            for each in buckets
        ),
        # The last sample may be an hour old.
        Space(now, disk.free, disk.total)
        if disk and space
        else next(reversed(space), None),
        full_at,
        tuple(
            evolve(
                each,
                bucket=labels.get(each.bucket, "-"),
                name=None if each.name is None else hide(each.name),
            )
            for each in view.refusals(refusals)
        ),
        tuple(
            _upload(each, labels[each.bucket], hide, known.unfinished)
            for each in sorted(known.uploads, key=lambda each: each.touched_at)
            if each.bucket in labels
        ),
        _sorted(more[""]),
        tuple(nodes),
        known.has_objects,
    )


def distinct(*problems: Problem) -> Sequence[Problem]:
    """One problem of each kind for each bucket and daemon: the last one."""
    found = {(each.kind, each.bucket, each.node): each for each in problems}
    return list(found.values())


def _of_others(nodes: Sequence[Node], known: Known) -> Iterator[Problem]:
    """What the other daemons report about themselves."""
    for each in nodes:
        if each.name != known.node and each.is_alive(known.now):
            yield from each.report.problems


def _copies(view: IView) -> Mapping[str, Sequence[Copy]]:
    """How far the buckets are copied, by their keys."""
    found: defaultdict[str, list[Copy]] = defaultdict(list)
    for each in view.copies():
        found[each.bucket].append(each)
    return found


def of_server(view: IView, known: Known, full_at: float | None) -> Iterator[Problem]:
    """The problems of the whole server that the catalogue and the disk reveal.

    :param full_at: forecast of the time when no space is left
    """
    for each in _of_server(view, known, full_at):
        yield of_node(each, known.node)


def _of_server(view: IView, known: Known, full_at: float | None) -> Iterator[Problem]:
    if known.disk is not None:
        full = full_disk(known.disk, full_at, known.now)
        yield from [full] if full else []
    failures = view.hook_failures(MOST_FAILURES, known.node)
    if failures:
        # A retired bucket gets no push that shows that its hook works again.
        keys = {"", *(each.key for each in known.buckets if not each.retired)}
        failing = failing_hooks([each for each in failures if each.bucket in keys])
        yield from [failing] if failing else []


def find_problems(view: IView, known: Known) -> list[Problem]:
    """All problems, as :func:`make_overview` finds them, but for less: most buckets
    have none; and without what this daemon has reported.

    :raises CatalogueError: the catalogue cannot be read
    """
    space = view.space(known.now - FORECAST_FROM, known.node)
    full_at = forecast(space, known.disk.reserved if known.disk else 0)
    refused = view.full()
    drills = _drills(view, known.buckets, known.now)
    quotas = [each.key for each in known.buckets if each.quota is not None]
    totals = {each.bucket: each for each in view.totals({*quotas, *refused})}
    found = [*of_server(view, known, full_at), *known.problems]
    found += node_problems(view.nodes(known.now), known.now, known.node)
    copies = _copies(view)
    for bucket in known.buckets:
        key = bucket.key
        found += filter(None, [late_copy(copies[key], known.now)])
        if any(key in each for each in (totals, refused, drills)) or _may_end(bucket):
            of_it = totals.get(key) or Totals(key)
            drilled = drills.get(key)
            found += of_bucket(bucket, of_it, refused.get(key), drilled, known.now)
    return found


def _drills(view: IView, buckets: Sequence[Bucket], now: float) -> dict[str, Drills]:
    """The restore tests of the buckets that had one, or need one, by key."""
    due = [each.key for each in buckets if each.drill is not None]
    return {each.bucket: each for each in view.drills(due, now)}


def _may_end(bucket: Bucket) -> bool:
    return all(each.expires is not None for each in bucket.tokens)


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The worst first; of those that are equally bad, as the kinds are listed."""
    return tuple(
        sorted(problems, key=lambda each: (-each.severity, _KINDS.index(each.kind)))
    )


# Listing an enumeration takes longer than most calls that need it.
_KINDS = tuple(Kind)


LEAST_SECONDS = 1.0
"""Seconds that a client must have sent for its rate to be known."""


def _upload(
    found: Unfinished, label: str, hide: Callable[[str], str], unfinished: float
) -> UploadOverview:
    known = found.offset and found.seconds >= LEAST_SECONDS
    return UploadOverview(
        label,
        hide(found.name),
        found.offset,
        found.length,
        found.offset / found.seconds if known else None,
        found.created_at,
        found.touched_at,
        found.touched_at + unfinished,
    )


def _bucket(
    bucket: Bucket,
    tally: Tally,
    worst: Sequence[Series],
    hide: Callable[[str], str],
    now: float,
    latest: Mapping[int, tuple[Sequence[int], str | None]],
    refused: tuple[float, str] | None,
    drills: Drills | None,
    problems: Sequence[Problem],
    copies: Sequence[Copy],
) -> BucketOverview:
    paused = bucket.paused
    if paused is not None and paused.until <= now:
        paused = None
    shown = [
        _calmed(
            _series(each, hide, now, *latest.get(each.id, ((), None))),
            paused,
            bucket.retired,
        )
        for each in worst
    ]
    if bucket.retired:
        states = _calmed_states(tally.states, None, retired=True)
        tally = evolve(tally, states=states, due=math.inf)
    elif paused is not None:
        states = _calmed_states(tally.states, paused, retired=False)
        tally = evolve(tally, states=states, due=max(tally.due, paused.until))
    return BucketOverview(
        **_OF_TALLY(tally),
        label=bucket.label,
        expect=bucket.expect.text if bucket.expect else None,
        quota=bucket.quota,
        series=tuple(shown),
        more=tally.states.total() - len(shown),
        comment=bucket.comment,
        paused=paused,
        retired=bucket.retired,
        problems=_sorted(
            [
                *of_bucket(bucket, tally, refused, drills, now),
                *filter(None, [late_copy(copies, now)]),
                *problems,
            ]
        ),
        copies=tuple(copies),
        restored_at=None if drills is None else drills.passed_at,
        drill_due=math.inf if drills is None else drill_due(bucket, drills),
    )


def _values(kind: type[AttrsInstance]) -> Callable[[Any], dict[str, Any]]:
    """A function for the values of a record of this kind, by name, which takes a sixth
    of the time of attrs.asdict.
    """
    names = tuple(each.name for each in fields(kind))
    values = attrgetter(*names)
    return lambda record: dict(zip(names, values(record), strict=True))


_OF_TALLY, _OF_SERIES = _values(Tally), _values(Series)


# The catalogue knows of a pause or a retirement only after a reload.


def _calmed(
    series: SeriesOverview, paused: Pause | None, retired: bool
) -> SeriesOverview:
    """The series, without a state that a pause or a retirement excludes."""
    calm = State.FRESH if series.pushes else State.NEVER
    if retired:
        series = evolve(series, failed_at=None, failed_text=None)
        return evolve(series, state=calm, due=math.inf)
    if paused is not None and series.state is State.LATE:
        return evolve(series, state=calm, due=max(series.due, paused.until))
    return series


def _calmed_states(
    states: Counter[State], paused: Pause | None, retired: bool
) -> Counter[State]:
    """The same for the counts of states."""
    if retired:
        calm = Counter({State.NEVER: states[State.NEVER]})
        return +(calm + Counter({State.FRESH: states.total() - states[State.NEVER]}))
    if paused is not None:
        calm = Counter({State.FRESH: states[State.LATE], State.LATE: 0})
        return +(states - Counter({State.LATE: states[State.LATE]}) + calm)
    return states


def _series(
    found: Series,
    hide: Callable[[str], str],
    now: float,
    sizes: Sequence[int],
    client: str | None,
) -> SeriesOverview:
    known = _OF_SERIES(found)
    known["last_name"] = found.last_name and hide(found.last_name)
    known["drilled_name"] = found.drilled_name and hide(found.drilled_name)
    known["failed_text"] = found.failed_text and hide(found.failed_text)
    if found.due <= now:
        known.update(state=State.LATE, state_at=found.due)
    return SeriesOverview(**known, sizes=sizes, last_client=client)


def forecast(space: Sequence[Space], reserved: int = 0) -> float | None:
    """The time when no free space is left, by linear regression.

    :param space: samples of the free space, oldest first
    :param reserved: bytes of it that pushes may not use
    :returns: seconds since the epoch; None if there is no downward trend or not enough
        history
    """
    if not space or space[-1].at - space[0].at < FORECAST_LEAST:
        return None
    last = space[-1]
    # Samples of another filesystem, or of this one before it was resized, do not count.
    same = [each for each in space if each.total == last.total]
    if len(same) < 3 or last.at - same[0].at < FORECAST_LEAST:
        return None
    line = linear_regression(
        [each.at - last.at for each in same], [each.free for each in same]
    )
    if line.slope >= 0:
        return None
    return last.at + max(last.free - reserved, 0) / -line.slope
