"""Reads pushes and refusals from the catalogue, and follows it.

The daemon does not know of readers: they ask the catalogue for new rows at a fixed
pace. A new row has a larger id than all rows before it, unless the catalogue was
replaced, as after damage. Then the daemon adds the files on disk to the new one, which
are no new pushes: only rows with later times count.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from attrs import define, field, frozen

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.view import View
from filebucket.model.records import File, Refused
from filebucket.model.series import is_series

AT_ONCE = 1000
"""Number of rows that one query reads. After the daemon rebuilt the catalogue, any
number may be new."""

Event = File | Refused


@frozen
class Wanted:
    """The pushes and refusals to read.

    :param bucket: the bucket's key; None is all buckets
    :param series: name of the series, or a shell pattern; None is all series
    :param since: earliest time, in seconds since the epoch
    :param series_of: returns the series that a refused push would have had; None if it
        had no name
    """

    series_of: Callable[[Refused], str | None]
    bucket: str | None = None
    series: str | None = None
    since: float = -math.inf
    pushes: bool = True
    refusals: bool = True

    def refused(self, found: list[Refused]) -> list[Refused]:
        """The refusals of the series. The catalogue does not know to which series they
        belong.
        """
        if self.series is None:
            return found
        return [
            each
            for each in found
            if (series := self.series_of(each)) is not None
            and is_series(series, self.series)
        ]


def time_of(event: Event) -> float:
    """When it was received or refused."""
    return event.received.received_at if isinstance(event, File) else event.at


def latest(view: IView, wanted: Wanted, limit: int) -> list[Event]:
    """The latest ones, newest last."""
    pushes: list[Event] = []
    refusals: list[Event] = []
    if wanted.pushes:
        pushes += view.latest(limit, wanted.bucket, wanted.series, wanted.since)
    if wanted.refusals:
        # Not many: the catalogue keeps only the latest ones of each bucket.
        most = limit if wanted.series is None else sys.maxsize
        found = view.refusals(most, wanted.bucket, wanted.since)
        refusals += wanted.refused(found)[:limit]
    both = [*pushes[::-1], *refusals[::-1]]
    # Refusals alone stay in the order in which they were recorded.
    return sorted(both, key=time_of)[-limit:] if pushes and refusals else both


def follow(
    opened: Callable[[], AbstractContextManager[View]],
    wanted: Wanted,
    limit: int,
    wait: Callable[[], None],
    warn: Callable[[CatalogueError], None],
) -> Iterator[list[Event]]:
    """The latest ones, newest last, and then lists of those that are recorded later. It
    ends with an exception of ``wait``.

    :param opened: opens the catalogue
    :param wait: waits between reads
    :param warn: is called after an error that is not that of the last try; another try
        follows
    :raises CatalogueError: the first read failed
    """
    place: _Place | None = None
    said = ""
    while True:
        try:
            with opened() as view:
                if place is None:
                    with view.snapshot():
                        place = _Place(view.identity, *view.newest())
                        found = latest(view, wanted, limit)
                    place.saw(found)
                    yield found
                    wait()
                while True:
                    # Asked first: rows may be in a catalogue that is replaced now.
                    is_there = view.is_there()
                    yield from place.more(view, wanted)
                    said = ""
                    if not is_there:
                        break
                    wait()
                place.start_over()
        except CatalogueError as error:
            if place is None:
                raise
            if str(error) != said:
                said = str(error)
                warn(error)
            wait()


@define
class _Place:
    """How far the catalogue was read.

    :param identity: that of the catalogue
    :param push: id of the last push
    :param refusal: id of the last refusal
    """

    identity: object
    push: int
    refusal: int
    _times: dict[type, float] = field(factory=dict)
    """The latest time of an event of each kind."""
    _before: dict[type, float] = field(factory=dict)
    """The same for those in catalogues that were replaced."""
    _catches_up: bool = False

    def saw(self, found: Iterable[Event]) -> None:
        for each in found:
            last = self._times.get(type(each), -math.inf)
            self._times[type(each)] = max(last, time_of(each))

    def start_over(self) -> None:
        """Read another catalogue from its beginning."""
        self.push = self.refusal = 0
        self._before = {**self._times}
        self._catches_up = True

    def more(self, view: View, wanted: Wanted) -> Iterator[list[Event]]:
        """The events after that place, in the order of their times."""
        last_push, last_refusal = view.newest()
        is_older = last_push < self.push or last_refusal < self.refusal
        if view.identity != self.identity or is_older:
            self.identity = view.identity
            self.start_over()
        while self.push < last_push or self.refusal < last_refusal:
            push = min(last_push, self.push + AT_ONCE)
            refusal = min(last_refusal, self.refusal + AT_ONCE)
            found: list[Event] = []
            if wanted.pushes:
                found += view.pushes_between(
                    self.push, push, wanted.bucket, wanted.series, wanted.since
                )
            if wanted.refusals:
                found += wanted.refused(
                    view.refusals_between(
                        self.refusal, refusal, wanted.bucket, wanted.since
                    )
                )
            self.push, self.refusal = push, refusal
            found = sorted(filter(self._is_new, found), key=time_of)
            if found:
                self.saw(found)
                yield found
        self._catches_up = False

    def _is_new(self, event: Event) -> bool:
        """Whether it was not in a catalogue that was replaced. The daemon adds the
        files on disk to the new one, in any order.
        """
        if time_of(event) > self._before.get(type(event), -math.inf):
            return True
        is_found = isinstance(event, File) and event.received.request is None
        return not (self._catches_up or is_found)
