"""Run the alert hook for every series whose state has changed.

The catalogue keeps the state last reported beside the current one, and each difference
is reported: so a restart neither repeats nor loses an alert, and a change that was
reversed before it could be reported is dropped. Only if the daemon dies between the
hook's exit and its record of it, an alert is repeated.

One alert runs at a time, so that many of them do not delay the hooks of pushes. A hook
that fails is run again, after longer and longer waits.

A client can change the states of its bucket's series as often as it likes, so the
alerts of a bucket are limited: :data:`MOST_AN_HOUR` an hour, late series counted
separately, and then one alert with the number of the others.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Awaitable, Collection, Sequence
from typing import Protocol

from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.base.alarm import Alarm, within
from filebucket.base.text import printable_lines, rfc3339, span
from filebucket.catalogue.database import CatalogueError
from filebucket.hooks.interfaces import Alert, Exit, IHooks
from filebucket.hooks.process import END_TIMEOUT
from filebucket.model.bucket import label_of
from filebucket.model.records import Series
from filebucket.model.registry import Registry
from filebucket.model.state import WORST_FIRST, State

AT_ONCE = 1000
"""Series that are read from the catalogue at once."""

RETRY = 60.0
"""Seconds until a failed hook is run again; doubled each time."""
MOST_RETRY = 3600.0
"""Upper limit of that wait, in seconds."""

HOUR = 3600.0
MOST_AN_HOUR = 20
"""Alerts of a bucket in an hour, one for each series. Late series have a limit of their
own, so that other changes do not delay them."""

Share = tuple[str, bool]
"""A bucket's key, and whether these are its late series."""


class AlertStore(Protocol):
    """Keeps the states last reported: a
    :class:`~filebucket.catalogue.recorder.Recorder`.
    """

    def untold(self, limit: int, but: Collection[Share]) -> Awaitable[list[Series]]:
        """Series whose current state was not reported yet, except those of the shares
        ``but``.
        """

    def mark_told(self, series: int, state: State) -> Awaitable[None]:
        """Record that ``state`` was reported."""


@define
class _Allowance:
    """The alerts of a share in the last hour.

    :ivar times: when each alert was run
    :ivar sum_at: the earliest time of the next alert that sums up the rest
    :ivar failures: how often in a row the hook failed at such an alert
    """

    times: deque[float] = field(factory=deque)
    sum_at: float = -math.inf
    failures: int = 0

    def spent(self, now: float) -> bool:
        """Whether the limit is reached."""
        while self.times and self.times[0] <= now - HOUR:
            self.times.popleft()
        return len(self.times) >= MOST_AN_HOUR

    def silent_until(self) -> float:
        """When the next alert is possible, if the limit is reached."""
        return min(self.times[0] + HOUR, self.sum_at)


class Alerts(Service):
    """Reports changes while it is started."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: AlertStore,
        hooks: IHooks,
        registry: Registry,
    ) -> None:
        """
        :param registry: the current buckets
        """
        self._clock = clock
        self._store = store
        self._hooks = hooks
        self._registry = registry
        self._telling: Deferred[None] | None = None
        self._again = False
        # For each series whose hook failed: how often, and when to run it again.
        self._failed: dict[int, tuple[int, float]] = {}
        self._allowances: dict[Share, _Allowance] = {}
        self._timer = Alarm(clock)

    def _expectation(self, key: str) -> str:
        """The bucket's schedule, as configured."""
        bucket = self._registry.of_key(key)
        return bucket.expect.text if bucket and bucket.expect else ""

    def _failure(self, series: Series) -> str:
        """What the client reported of the last backup, if that failed."""
        return printable_lines(self._registry.hide_tokens(series.failed_text or ""))

    def startService(self) -> None:
        super().startService()
        self.look()

    def stopService(self) -> Deferred[bool] | None:
        super().stopService()
        self._timer.stop()
        telling = self._telling
        if telling is None:
            return None
        ended: Deferred[None] = Deferred()
        telling.addCallback(ended.callback)
        return Deferred.fromCoroutine(within(self._clock, END_TIMEOUT, ended))

    def look(self) -> None:
        """Report changes, if there are any."""
        if not self.running:
            return
        if self._telling is not None:
            self._again = True
            return
        self._telling = Deferred.fromCoroutine(self._tell_all())
        self._telling.addErrback(
            lambda failure: self._log.failure(
                "a bug in file-bucket", failure, event="bug"
            )
        )
        self._telling.addCallback(self._told_all)

    def _told_all(self, result: None) -> None:
        self._telling = None
        self._timer.stop()
        if self._again:
            self._again = False
            self.look()
        elif self.running:
            # Set the timer for alerts that wait for a retry or for their limit.
            waiting = [when for _, when in self._failed.values()]
            waiting += [each.silent_until() for each in self._spent().values()]
            if waiting:
                left = min(waiting) - self._clock.seconds()
                self._timer.set(max(left, 0), self.look)

    def _spent(self) -> dict[Share, _Allowance]:
        """The shares whose limit is reached."""
        now = self._clock.seconds()
        spent = {key: each for key, each in self._allowances.items() if each.spent(now)}
        self._allowances = {
            key: each for key, each in self._allowances.items() if each.times
        }
        return spent

    async def _tell_all(self) -> None:
        try:
            now = self._clock.seconds()
            silent = [
                key for key, each in self._spent().items() if each.silent_until() > now
            ]
            untold = await self._store.untold(AT_ONCE, silent)
            more: dict[Share, list[Series]] = {}
            for series in sorted(untold, key=lambda each: each.state is not State.LATE):
                if not self.running:
                    return
                share = series.bucket, series.state is State.LATE
                allowance = self._allowances.setdefault(share, _Allowance())
                if allowance.spent(self._clock.seconds()):
                    more.setdefault(share, []).append(series)
                else:
                    await self._tell(series, allowance)
            for share, rest in more.items():
                if not self.running:
                    return
                await self._sum_up(rest, self._allowances[share])
            # Forget retries of series that need no alert any more.
            there = {series.id for series in untold}
            if len(untold) < AT_ONCE:
                self._failed = {
                    id_: each for id_, each in self._failed.items() if id_ in there
                }
        except CatalogueError:
            # It is logged elsewhere, and look() is called when the catalogue works
            # again.
            return

    async def _sum_up(self, rest: Sequence[Series], allowance: _Allowance) -> None:
        """Run one alert with the number of the remaining series."""
        now = self._clock.seconds()
        if now < allowance.sum_at:
            return
        worst = min(rest, key=lambda each: WORST_FIRST.index(each.state))
        alert = self._alert(worst)
        details = {**alert.details, "MORE": str(len(rest))}
        name = f"({len(rest):,} more)"
        ended = await self._hooks.alert(evolve(alert, series=name, details=details))
        if ended is not None and ended.status:
            wait = min(RETRY * 2**allowance.failures, MOST_RETRY)
            allowance.failures, allowance.sum_at = allowance.failures + 1, now + wait
            self._not_delivered(alert, ended, wait)
            return
        allowance.failures, allowance.sum_at = 0, now + HOUR
        for each in rest:
            self._failed.pop(each.id, None)
            await self._store.mark_told(each.id, each.state)

    async def _tell(self, series: Series, allowance: _Allowance) -> None:
        count, when = self._failed.get(series.id, (0, -math.inf))
        if self._clock.seconds() < when:
            return
        alert = self._alert(series)
        ended = await self._hooks.alert(alert)
        if ended is not None and ended.status:
            wait = min(RETRY * 2**count, MOST_RETRY)
            self._failed[series.id] = count + 1, self._clock.seconds() + wait
            self._not_delivered(alert, ended, wait)
            return
        if ended is not None:
            allowance.times.append(self._clock.seconds())
        self._failed.pop(series.id, None)
        await self._store.mark_told(series.id, series.state)

    def _not_delivered(self, alert: Alert, ended: Exit, wait: float) -> None:
        if ended.stopped:
            return  # the next daemon runs it again
        self._log.error(
            "alert about bucket {bucket} not delivered: alert.sh exited with {status};"
            " next try in {wait}",
            event="alert-failed",
            bucket=alert.bucket,
            request=alert.request_id,
            status=ended.status,
            wait=span(wait),
        )

    def _alert(self, series: Series) -> Alert:
        return Alert(
            bucket=label_of(series.bucket),
            series=series.name,
            old=series.told.value,
            new=series.state.value,
            request_id=secrets.token_hex(8),
            details={
                "SINCE": _moment(series.state_at),
                "DUE": _moment(series.due),
                "EXPECT": self._expectation(series.bucket),
                "LAST": _moment(series.last_at),
                "LAST_NAME": self._registry.hide_tokens(series.last_name or ""),
                "LAST_SIZE": _number(series.last_size),
                "USUAL_SIZE": _number(series.usual),
                "FAILURE": self._failure(series),
                "MORE": "",
            },
        )


def _moment(at: float | None) -> str:
    return rfc3339(at, "seconds") or ""


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
