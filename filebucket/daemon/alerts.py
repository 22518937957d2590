"""Run the alert hook for every change, and for reminders.

:mod:`~filebucket.daemon.changes` finds them. A change is recorded after it was
reported: only if the daemon dies in between, an alert is repeated.

One alert runs at a time, so that many of them do not delay the hooks of pushes. A hook
that fails is run again, after longer and longer waits.

A client can change the states of its bucket's series as often as it likes, so the
alerts of a bucket are limited: :data:`MOST_AN_HOUR` an hour, late series counted
separately, and then one alert with the number of the others. In the same way, the
alerts of all buckets together are limited to :data:`MOST_TOGETHER`: if the network
fails, all backups are late at once. Half of these are for the first ones of each
bucket.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Sequence

from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.base.alarm import Alarm, within
from filebucket.base.text import printable, span
from filebucket.catalogue.database import CatalogueError
from filebucket.daemon.changes import Change, Share, Source
from filebucket.hooks.interfaces import SERVER, Alert, Exit, IHooks
from filebucket.hooks.process import END_TIMEOUT

RETRY = 60.0
"""Seconds until a failed hook is run again; doubled each time."""
MOST_RETRY = 3600.0
"""Upper limit of that wait, in seconds."""
LEAST_WAIT = 1.0
"""Seconds until the daemon looks again by itself, so that no mistake here keeps the
processor busy."""

HOUR = 3600.0
MOST_AN_HOUR = 20
"""Alerts of a bucket in an hour, one for each change. Late series have a limit of their
own, so that other changes do not delay them."""

MOST_TOGETHER = 100
"""Alerts of all buckets and the server in an hour."""

MOST_OF_FEW = 50
"""Alerts of all buckets in an hour after which each bucket has only its first
:data:`FEW`: otherwise three clients could spend the alerts of all."""
FEW = 2


@define
class _Allowance:
    """The alerts of a share, or of all, in the last hour.

    :ivar most: their limit
    :ivar times: when each alert was run
    :ivar sum_at: the earliest time of the next alert that sums up the rest
    :ivar failures: how often in a row the hook failed at such an alert
    """

    most: int = MOST_AN_HOUR
    times: deque[float] = field(factory=deque)
    sum_at: float = -math.inf
    failures: int = 0

    def count(self, now: float) -> int:
        """The number of alerts in the last hour."""
        while self.times and self.times[0] <= now - HOUR:
            self.times.popleft()
        return len(self.times)

    def spent(self, now: float) -> bool:
        """Whether the limit is reached."""
        return self.count(now) >= self.most

    def silent(self, now: float) -> bool:
        """Whether no alert is possible, not even one that sums up the rest."""
        return self.spent(now) and self.sum_at > now

    def silent_until(self) -> float:
        """When the next alert is possible, if none is now."""
        return min(self.times[0] + HOUR, self.sum_at)


class Alerts(Service):
    """Reports changes while it is started."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, sources: Sequence[Source], hooks: IHooks
    ) -> None:
        """
        :param sources: find the changes
        """
        self._clock = clock
        self._sources = sources
        self._hooks = hooks
        self._telling: Deferred[None] | None = None
        self._again = False
        # For each change whose hook failed: how often, and when to run it again.
        self._failed: dict[Hashable, tuple[int, float]] = {}
        # Reported, but the catalogue could not be written.
        self._unrecorded: dict[Hashable, Change] = {}
        self._allowances: dict[Share, _Allowance] = {}
        self._together = _Allowance(MOST_TOGETHER)
        self._timer = Alarm(clock)

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
            waiting = self._waiting()
            if waiting:
                left = min(waiting) - self._clock.seconds()
                self._timer.set(max(left, LEAST_WAIT), self.look)

    def _waiting(self) -> Sequence[float]:
        """When to look again for alerts that wait for a retry or for their limit."""
        now = self._clock.seconds()
        if self._together.silent(now):
            return [self._together.silent_until()]
        spent = self._spent().values()
        # Of the others nothing is left: it was summed up.
        limited = [each.silent_until() for each in spent if each.silent(now)]
        return [*limited, *(when for _, when in self._failed.values())]

    def _spent(self) -> dict[Share, _Allowance]:
        """The shares whose limit is reached."""
        now = self._clock.seconds()
        spent = {key: each for key, each in self._allowances.items() if each.spent(now)}
        self._allowances = {
            key: each for key, each in self._allowances.items() if each.times
        }
        return spent

    async def _tell_all(self) -> None:
        now = self._clock.seconds()
        together = self._together
        if together.silent(now):
            return
        silent = [key for key, each in self._spent().items() if each.silent(now)]
        untold = await self._untold(silent)
        more: dict[Share, list[Change]] = {}
        rest: list[Change] = []
        for change in sorted(untold, key=_urgency):
            if not self.running:
                return
            allowance = self._allowances.setdefault(change.share, _Allowance())
            if self._is_spent(allowance):
                more.setdefault(change.share, []).append(change)
                # The next sum is its retry.
                self._failed.pop(change.id, None)
            elif together.spent(self._clock.seconds()):
                rest.append(change)
            elif await self._tell(change, allowance):
                # That took a while: look for more urgent changes first.
                self._again = True
                return
        for share, changes in more.items():
            if not self.running:
                return
            if together.spent(self._clock.seconds()):
                rest += changes
            else:
                await self._sum_up(changes, self._allowances[share])
        if rest and self.running:
            await self._sum_up(rest, together, everywhere=True)
        self._forget({change.id for change in untold})

    def _is_spent(self, allowance: _Allowance) -> bool:
        """Whether the limit of a share is reached."""
        now = self._clock.seconds()
        few = self._together.count(now) >= MOST_OF_FEW
        return allowance.count(now) >= (FEW if few else allowance.most)

    async def _untold(self, silent: Sequence[Share]) -> list[Change]:
        """All changes, but those that only could not be recorded."""
        for change in list(self._unrecorded.values()):
            await self._record(change)
        found: list[Change] = []
        for source in self._sources:
            try:
                found += await source.untold(silent)
            except CatalogueError:
                # It is logged elsewhere, and look() is called when the catalogue works
                # again.
                continue
            except Exception:
                # It must not hide other changes.
                self._log.failure("a bug in file-bucket", event="bug")
        return [each for each in found if not self._is_unrecorded(each)]

    def _is_unrecorded(self, change: Change) -> bool:
        told = self._unrecorded.get(change.id)
        return told is not None and told.alert.new == change.alert.new

    async def _record(self, change: Change) -> None:
        try:
            await change.record()
        except CatalogueError:
            self._unrecorded[change.id] = change
        else:
            self._unrecorded.pop(change.id, None)

    def _forget(self, there: set[Hashable]) -> None:
        """Forget retries of changes that need no alert any more."""
        self._failed = {id_: each for id_, each in self._failed.items() if id_ in there}

    async def _sum_up(
        self, rest: Sequence[Change], allowance: _Allowance, everywhere: bool = False
    ) -> None:
        """Run one alert with the number of the remaining changes.

        :param everywhere: whether they are of several buckets
        """
        now = self._clock.seconds()
        if now < allowance.sum_at:
            return
        rest = [each for each in rest if await each.confirm()]
        if not rest:
            return
        worst = max(rest, key=lambda change: change.badness)
        alert = _sum(worst.alert, len(rest), everywhere)
        ended = await self._hooks.alert(alert)
        if ended is not None and ended.status:
            wait = min(RETRY * 2**allowance.failures, MOST_RETRY)
            allowance.failures, allowance.sum_at = allowance.failures + 1, now + wait
            self._not_delivered(alert, ended, wait)
            return
        allowance.failures, allowance.sum_at = 0, now + HOUR
        if ended is not None and not everywhere:
            self._together.times.append(now)
        for each in rest:
            self._failed.pop(each.id, None)
            await self._record(each)

    async def _tell(self, change: Change, allowance: _Allowance) -> bool:
        """Run the alert of one change, unless it waits for its retry.

        :returns: whether the hook timed out
        """
        count, when = self._failed.get(change.id, (0, -math.inf))
        if self._clock.seconds() < when or not await change.confirm():
            return False
        ended = await self._hooks.alert(change.alert)
        if ended is not None and ended.status:
            wait = min(RETRY * 2**count, MOST_RETRY)
            self._failed[change.id] = count + 1, self._clock.seconds() + wait
            self._not_delivered(change.alert, ended, wait)
            return ended.timed_out
        if ended is not None:
            for each in (allowance, self._together):
                each.times.append(self._clock.seconds())
        self._failed.pop(change.id, None)
        await self._record(change)
        return False

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


def _urgency(change: Change) -> tuple[bool, bool, int]:
    """Late series first, and reminders last."""
    severity, _ = change.badness
    return not change.share[1], change.reminds, -severity


def _sum(worst: Alert, count: int, everywhere: bool) -> Alert:
    """The alert that sums up ``count`` changes."""
    name = worst.series
    if everywhere:
        name = f"{worst.bucket}: {name}" if name else worst.bucket
    the_worst = f"{printable(name)} {worst.text}".strip()
    return evolve(
        worst,
        bucket=SERVER if everywhere else worst.bucket,
        series=f"({count:,} more)",
        text=f"has {count:,} more changes, the worst: {the_worst}",
        more=str(count),
    )
