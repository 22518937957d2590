"""How everything is, as the status command and the page show it.

What the catalogue knows, put in order: by bucket, the worst first, with bounds on how
much of it there is, and with no token in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import linear_regression

from attrs import asdict, evolve, frozen

from filebucket.catalogue.interfaces import IView
from filebucket.model.bucket import Bucket, quota_taken
from filebucket.model.mask import mask
from filebucket.model.records import Refused, Series, Space, Tally
from filebucket.model.state import WORST_FIRST, State

MOST_SERIES = 20
"""Series of a bucket that are shown, the worst first."""

SIZES = 30
"""Sizes of a series that are shown."""

REFUSALS = 20
"""Refusals that are shown."""

FORECAST_FROM = 30 * 24 * 3600.0
"""Seconds whose looks at the free space say how it goes on."""
FORECAST_LEAST = 24 * 3600.0
"""Seconds that these must span."""


LOST = 2
SEVERITY_OF = {
    State.LATE: 2,
    State.EMPTY: 2,
    State.SHRUNK: 1,
    State.GROWN: 1,
    State.NEVER: 1,
    State.FRESH: 0,
}
"""0: in order; 1: worth a look; 2: a backup is missing. A file that is damaged or
missing is :data:`LOST`."""


@frozen
class SeriesOverview(Series):
    """A series, and how it is now, even if no daemon runs to see it.

    :param last_name: with no token in it
    :param sizes: when its latest pushes came, and their bytes, the last one last
    """

    sizes: Sequence[tuple[float, int]] = ()

    @property
    def expected(self) -> bool:
        """Whether it can become late."""
        return math.isfinite(self.due)

    @property
    def change(self) -> float | None:
        """The last size as a multiple of the usual one."""
        if not self.usual or self.last_size is None:
            return None
        return self.last_size / self.usual

    @property
    def conditions(self) -> Sequence[tuple[str, int]]:
        """All that is to be said of its state: a state, or ``damaged`` or ``missing``,
        each with the number of files that are, or 0 for a state.
        """
        counts = (("damaged", self.damaged), ("missing", self.missing))
        lost = [(word, count) for word, count in counts if count]
        # What is lost is not in order.
        if self.state is State.FRESH and lost:
            return lost
        return [(self.state.value, 0), *lost]


@frozen(kw_only=True)
class BucketOverview(Tally):
    """A bucket, and what its series come to, also those that are not shown.

    :param expect: when pushes are expected, in a few words; None is never
    :param series: the worst first
    :param more: series that are not among them
    """

    label: str
    expect: str | None
    quota: int | None
    series: tuple[SeriesOverview, ...]
    more: int

    @property
    def state(self) -> State:
        """Of its series the worst."""
        return min(self.states, key=WORST_FIRST.index, default=State.NEVER)

    @property
    def quota_taken(self) -> int:
        """Bytes that its files take of a quota, as far as it knows them."""
        return quota_taken(self.files, self.bytes)

    @property
    def severity(self) -> int:
        """As in :data:`SEVERITY_OF`, but 0 where no first push is waited for."""
        return self._severity(self.state, self)

    def severity_of(self, series: SeriesOverview) -> int:
        """As of a bucket that had only this series."""
        return self._severity(series.state, series)

    def _severity(self, state: State, lost: Series | Tally) -> int:
        if lost.damaged or lost.missing:
            return LOST
        # What nobody expects is not missed.
        return 0 if state is State.NEVER and not self.expect else SEVERITY_OF[state]


@frozen
class Overview:
    """Everything.

    :param at: when it was so, in seconds since the epoch
    :param buckets: in the order of the configuration
    :param space: what is free; None where nobody has looked yet
    :param full_at: when it will be used up, if it goes on as it did; None where it
        does not, or where that cannot be said yet
    :param refusals: the latest, the last one first; their buckets are labels
    """

    at: float
    buckets: tuple[BucketOverview, ...]
    space: Space | None
    full_at: float | None
    refusals: tuple[Refused, ...]

    @property
    def severity(self) -> int:
        """As of the worst bucket."""
        return max((each.severity for each in self.buckets), default=0)


def make_overview(
    view: IView,
    buckets: Sequence[Bucket],
    now: float,
    sizes: int = SIZES,
    refusals: int = REFUSALS,
    most_series: int = MOST_SERIES,
) -> Overview:
    """Put everything together. It may wait for a disk.

    :param buckets: those of the configuration; what others left is not shown
    :param now: seconds since the epoch
    :param sizes: how many of each series
    :raises CatalogueError: it cannot be read
    """
    # A client can make up as many series as it likes: most of them are only counted.
    tallies = {each.bucket: each for each in view.tallies(now)}
    hide = mask(buckets)
    labels = {bucket.key: bucket.label for bucket in buckets}
    space = view.space(now - FORECAST_FROM)
    return Overview(
        now,
        tuple(
            _bucket(
                view,
                each,
                tallies.get(each.key) or Tally(each.key),
                view.worst(each.key, now, most_series) if most_series else (),
                hide,
                now,
                sizes,
            )
            for each in buckets
        ),
        space[-1] if space else None,
        forecast(space),
        tuple(
            evolve(
                each,
                bucket=labels.get(each.bucket, "-"),
                name=None if each.name is None else hide(each.name),
            )
            for each in view.refusals(refusals)
        ),
    )


def _bucket(
    view: IView,
    bucket: Bucket,
    tally: Tally,
    worst: Sequence[Series],
    hide: Callable[[str], str],
    now: float,
    sizes: int,
) -> BucketOverview:
    shown = [
        _series(each, hide, now, view.sizes(each.id, sizes) if sizes else ())
        for each in worst
    ]
    return BucketOverview(
        **asdict(tally, recurse=False),
        label=bucket.label,
        expect=bucket.expect.text if bucket.expect else None,
        quota=bucket.quota,
        series=tuple(shown),
        more=tally.states.total() - len(shown),
    )


def _series(
    found: Series,
    hide: Callable[[str], str],
    now: float,
    sizes: Sequence[tuple[float, int]],
) -> SeriesOverview:
    known = asdict(found, recurse=False)
    known["last_name"] = found.last_name and hide(found.last_name)
    if found.due <= now:
        known.update(state=State.LATE, state_at=found.due)
    return SeriesOverview(**known, sizes=sizes)


def forecast(space: Sequence[Space]) -> float | None:
    """When the free space is used up, if it goes on as it did.

    :param space: what was free, in the order of time
    :returns: seconds since the epoch; None where it does not shrink, or where there
        are too few looks to say
    """
    if not space or space[-1].at - space[0].at < FORECAST_LEAST:
        return None
    last = space[-1]
    # Of another filesystem, or of this one before it grew, nothing is to be learned.
    same = [each for each in space if each.total == last.total]
    if len(same) < 3 or last.at - same[0].at < FORECAST_LEAST:
        return None
    line = linear_regression(
        [each.at - last.at for each in same], [each.free for each in same]
    )
    if line.slope >= 0:
        return None
    return last.at + last.free / -line.slope
