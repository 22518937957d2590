"""What to report to the operator: changes of series and problems, and reminders.

The catalogue keeps what was reported last beside the present state, and each difference
is reported: so a restart neither repeats nor loses an alert, and a change that was
reversed before it could be reported is dropped.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from contextlib import suppress
from datetime import tzinfo
from functools import partial
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from filebucket.base.text import (
    change_text,
    cut,
    local,
    printable,
    printable_lines,
    rfc3339,
    size_text,
)
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.leader import ALONE, Leader
from filebucket.catalogue.overview import SEVERITY_OF
from filebucket.hooks.interfaces import SERVER, Alert
from filebucket.model.bucket import label_of
from filebucket.model.problem import SEVERITIES, Kind, Problem, ToldProblem
from filebucket.model.records import Series
from filebucket.model.registry import Registry
from filebucket.model.state import WORST_FIRST, State

AT_ONCE = 1000
"""Series that are read from the catalogue at once."""

SETTLED = 600.0
"""Seconds for which a problem must be gone, or smaller, before that counts: the free
space, for example, may cross its threshold many times."""

LONGEST_REPORT = 500
"""Columns of a client's report in a text."""

Share = tuple[str, bool]
"""A bucket's key, which is empty for the whole server, and whether these are its late
series."""


@frozen
class Change:
    """Something that was not reported yet.

    :param id: of the series or the problem
    :param share: whose alerts it counts among
    :param badness: the larger, the worse
    :param record: records that it was reported; fails with
        :class:`~filebucket.catalogue.database.CatalogueError`
    :param confirm: whether it is still this daemon that has to report it
    """

    id: Hashable
    share: Share
    badness: tuple[int, int]
    alert: Alert
    record: Callable[[], Awaitable[None]]
    confirm: Callable[[], Awaitable[bool]]

    @property
    def reminds(self) -> bool:
        """Whether it was reported before."""
        return bool(self.alert.again)


class Source(Protocol):
    """Finds changes."""

    async def untold(self, silent: Collection[Share]) -> Sequence[Change]:
        """Those that were not reported yet, and those to report again.

        :param silent: leave these out
        :raises CatalogueError: the catalogue cannot be read
        """


class AlertStore(Protocol):
    """Keeps what was reported last: a
    :class:`~filebucket.catalogue.recorder.Recorder`.
    """

    def untold(
        self, limit: int, but: Collection[Share], again: float
    ) -> Awaitable[list[Series]]:
        """As :meth:`~filebucket.catalogue.interfaces.IJournal.untold`."""

    def mark_told(self, series: Series, state: State, at: float) -> Awaitable[None]:
        """Record that ``state`` was reported."""

    def told_problems(self) -> Awaitable[list[ToldProblem]]:
        """The problems that were reported, and not their end."""

    def mark_problem(self, told: ToldProblem) -> Awaitable[None]:
        """Record that a problem, or its end, was reported."""


class SeriesChanges:
    """Changes of the states of series, which the daemon that leads reports."""

    def __init__(
        self,
        store: AlertStore,
        registry: Registry,
        wall: Callable[[], float],
        again: float,
        zone: tzinfo,
        leader: Leader = ALONE,
    ) -> None:
        """
        :param registry: the current buckets
        :param wall: returns seconds since the epoch
        :param again: seconds until a reminder; 0 is never
        :param zone: time zone of the times in texts
        """
        self._leader = leader
        self._store = store
        self._registry = registry
        self._wall = wall
        self._again = again
        self._zone = zone

    async def untold(self, silent: Collection[Share]) -> Sequence[Change]:
        # Before the states are read: what another daemon reports later counts.
        term = self._leader.term
        if not term:
            return []
        again = self._wall() - self._again if self._again else -math.inf
        found = await self._store.untold(AT_ONCE, silent, again)
        confirm = partial(self._leader.confirm, term)
        return [self._change(each, confirm) for each in found]

    def _change(self, series: Series, confirm: Callable[[], Awaitable[bool]]) -> Change:
        bucket = self._registry.of_key(series.bucket)
        state = series.state
        severity = SEVERITY_OF[state]
        hide = self._registry.hide_tokens
        told_at = series.told_at if series.told is state else None
        # Not for all series of a bucket that names some.
        schedule = bucket.expect if bucket and series.expected else None

        async def record() -> None:
            await self._store.mark_told(series, state, self._wall())

        shown = evolve(
            series,
            last_name=hide(series.last_name or ""),
            failed_text=hide(series.failed_text or ""),
        )
        alert = Alert(
            bucket=label_of(series.bucket),
            series=series.name,
            old=series.told.value,
            new=state.value,
            request_id=secrets.token_hex(8),
            text=series_text(shown, self._zone),
            severity=SEVERITIES[severity],
            comment=bucket.comment if bucket else "",
            again=_moment(told_at),
            since=_moment(series.state_at),
            due=_moment(series.due),
            expect=schedule.text if schedule else "",
            last=_moment(series.last_at),
            last_name=shown.last_name or "",
            last_size=_number(series.last_size),
            usual_size=_number(series.usual),
            failure=printable_lines(shown.failed_text or "").strip("\n"),
        )
        share = series.bucket, state is State.LATE
        badness = severity, -WORST_FIRST.index(state)
        return Change(series.id, share, badness, alert, record, confirm)


class ProblemChanges:
    """Problems of buckets and of the server that come, grow or go.

    If several daemons share the catalogue, each reports its own problems, and the one
    that leads reports all others.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: AlertStore,
        registry: Registry,
        wall: Callable[[], float],
        again: float,
        leader: Leader = ALONE,
        node: str = "",
    ) -> None:
        """
        :param registry: the current buckets
        :param wall: returns seconds since the epoch
        :param again: seconds until a reminder; 0 is never
        :param leader: tells whether this daemon reports shared problems, too
        :param node: its name; empty if no other daemon shares the catalogue
        """
        self._leader = leader
        self._node = node
        self._term = 0
        self._clock = clock
        self._store = store
        self._registry = registry
        self._wall = wall
        self._again = again
        self._present: dict[_Key, Problem] = {}
        # Before the first look, nothing is known to be gone.
        self._looked = False
        self._since: dict[_Key, float] = {}
        self._smaller_since: dict[_Key, float] = {}
        self._told: dict[_Key, ToldProblem] = {}
        # What the catalogue does not have yet: it may be one of the problems.
        self._unmarked: dict[_Key, ToldProblem] = {}
        self._loaded = False

    def see(self, problems: Sequence[Problem]) -> None:
        """These are all problems that exist now."""
        now = self._wall()
        self._present = {(each.kind, each.bucket, each.node): each for each in problems}
        self._looked = True
        self._since = {key: self._since.get(key, now) for key in self._present}

    async def untold(self, silent: Collection[Share]) -> Sequence[Change]:
        if not self._looked:
            return []
        term = self._leader.term
        await self._load(term)
        self._forget_removed()
        await self._mark()
        changes = (
            self._change(key)
            for key in list({**self._present, **self._told})
            if self._is_own(key) or (term and self._is_shared(key))
        )
        return [each for each in changes if each and each.share not in silent]

    def _is_own(self, key: _Key) -> bool:
        """Whether this daemon reports it even if it does not lead."""
        kind, _, node = key
        return node == self._node != "" and kind is not Kind.NODE

    def _is_shared(self, key: _Key) -> bool:
        """Whether the daemon that leads reports it."""
        kind, _, node = key
        return not node or kind is Kind.NODE

    async def _load(self, term: int) -> None:
        if term != self._term:
            # Another daemon may have reported shared problems in the meantime.
            self._told = {
                key: each for key, each in self._told.items() if self._is_own(key)
            }
            self._term, self._loaded = term, False
        if self._loaded:
            return
        # Problems are reported without the catalogue, too: it may be one of them.
        with suppress(CatalogueError):
            for each in await self._store.told_problems():
                key = each.kind, each.bucket, each.node
                if key not in self._unmarked:
                    self._told.setdefault(key, each)
            self._loaded = True

    def _forget_removed(self) -> None:
        for key in [*{**self._present, **self._told}]:
            if key[1] and self._registry.of_key(key[1]) is None:
                self._present.pop(key, None)
                told = self._told.pop(key, None)
                if told is not None:
                    # If the bucket comes back, its problems are news.
                    self._unmarked[key] = evolve(told, level=0)

    async def _mark(self) -> None:
        """Record in the catalogue what was reported."""
        with suppress(CatalogueError):
            while self._unmarked:
                key, marked = next(iter(self._unmarked.items()))
                await self._store.mark_problem(marked)
                if self._unmarked.get(key) is marked:
                    del self._unmarked[key]

    def _change(self, key: _Key) -> Change | None:
        problem = self._present.get(key)
        told = self._told.get(key)
        level, before = problem.level if problem else 0, told.level if told else 0
        if level >= before:
            self._smaller_since.pop(key, None)
        elif not self._has_settled(key):
            return None
        elif told is not None and level:
            # A smaller problem is no news; but if it grows again, that is.
            self._told[key] = evolve(told, level=level)
            return None
        if level == before and not (problem and told and self._is_due(told)):
            return None
        return self._report(key, problem, told)

    def _has_settled(self, key: _Key) -> bool:
        now = self._clock.seconds()
        return now - self._smaller_since.setdefault(key, now) >= SETTLED

    def _is_due(self, told: ToldProblem) -> bool:
        # A time in the future came from a wrong clock.
        age = self._wall() - told.told_at
        return bool(self._again) and not 0 <= age < self._again

    def _report(
        self, key: _Key, problem: Problem | None, told: ToldProblem | None
    ) -> Change:
        kind, bucket_key, node = key
        level = problem.level if problem else 0
        now = self._wall()
        since = told.since if told else self._since.get(key, now)
        severity = problem.severity if problem else 0
        text = problem.text if problem else _gone(key)
        again = told is not None and told.level == level
        bucket = self._registry.of_key(bucket_key)

        async def record() -> None:
            marked = ToldProblem(kind, bucket_key, level, since, self._wall(), node)
            self._told[key] = self._unmarked[key] = marked
            if not level:
                del self._told[key]
                self._smaller_since.pop(key, None)
            await self._mark()

        alert = Alert(
            bucket=label_of(bucket_key) or SERVER,
            series="",
            old=kind.value if told else "ok",
            new=kind.value if problem else "ok",
            request_id=secrets.token_hex(8),
            text=printable(text),
            severity=SEVERITIES[severity],
            comment=bucket.comment if bucket else "",
            again=_moment(told.told_at) if told and again else "",
            since=_moment(since),
        )
        if self._is_own(key):
            confirm = partial(ALONE.confirm, ALONE.term)
        else:
            confirm = partial(self._leader.confirm, self._term)
        share = bucket_key, False
        return Change(key, share, (severity, 0), alert, record, confirm)


_Key = tuple[Kind, str, str]
"""The kind of a problem, its bucket and its daemon."""


def _gone(key: _Key) -> str:
    """The text about a problem that is gone."""
    kind, _, node = key
    if kind is Kind.NODE and node:
        return f"daemon {node} runs with the settings of the others, or was forgotten"
    return f"{node}: {_GONE[kind]}" if node else _GONE[kind]


_GONE = {
    Kind.DAEMON: "the daemon runs again",
    Kind.CATALOGUE: "the catalogue can be written again",
    Kind.STORE: "pushes can be stored again",
    Kind.FULL: "no longer full",
    Kind.DAMAGED: "no file is damaged any more",
    Kind.MISSING: "no file is missing any more",
    Kind.DRILL: "no restore test has failed or is overdue any more",
    Kind.TOKEN: "the last token does not expire soon any more",
    Kind.CERTIFICATE: "no certificate expires soon any more",
    Kind.HOOK: "no hook fails any more",
    Kind.COPY: "all files are copied again",
    Kind.RELOAD: "the configuration is applied",
    Kind.NODE: "a daemon leads again",
}
"""Texts about a problem that is gone."""


def series_text(series: Series, zone: tzinfo) -> str:
    """The state of a series as a sentence without its subject and period.

    :param series: its last name and its report have no tokens
    :param zone: time zone of the times
    """
    last = "no push yet"
    if series.last_at is not None:
        last = f"last push {_time(series.last_at, zone)}"
        last += f", {size_text(series.last_size or 0)}"
    usual = f", usual size {size_text(series.usual)}" if series.usual else ""
    change = ""
    if series.usual and series.last_size is not None:
        change = f" ({change_text(series.last_size, series.usual)})"
    told = series.told.value
    fresh = f"is fresh again, was {told}"
    if series.told is State.NEVER:
        fresh = "has its first push"
    lines = printable_lines(series.failed_text or "").split("\n")
    report = cut(" / ".join(filter(None, map(str.strip, lines))), LONGEST_REPORT)
    reported = f"; reported: {report}" if report else ""
    failed = f"has failed: {report}" if report else "has failed"
    fresh = f"{fresh}; {last}"
    if series.name:
        failed = f"{failed}; {last}"
    elif series.told is State.FAILED:
        # The pushes to a bucket that reports about all of it are in other series.
        fresh = "has a push again, after the report of a failed backup"
    return {
        State.LATE: f"is late; expected by {_time(series.due, zone)}, {last}{reported}",
        State.FAILED: failed,
        State.EMPTY: f"is empty; {last}{usual}",
        State.UNFINISHED: f"has a push that never ended; {last}",
        State.SHRUNK: f"has shrunk{change}; {last}{usual}",
        State.GROWN: f"has grown{change}; {last}{usual}",
        State.NEVER: f"is awaiting its first push, was {told}",
        State.FRESH: fresh,
    }[series.state]


def _time(at: float, zone: tzinfo) -> str:
    then = local(at, zone) if math.isfinite(at) else None
    return "-" if then is None else f"{then:%Y-%m-%d %H:%M}"


def _moment(at: float | None) -> str:
    return rfc3339(at, "seconds") or ""


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
