"""Schedules: when the next push of a series is due.

A push is due an interval after the last one, or at the times of a cron schedule plus a
grace period. cronsim parses cron's fields and handles changes of the clock as Debian's
cron does: a time in the skipped hour is due right after it, and a time in the repeated
hour is due once.
"""

from __future__ import annotations

import os
import zoneinfo
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NewType

from attrs import field, frozen
from cronsim import CronSim

Cron = NewType("Cron", str)
Zone = NewType("Zone", str)

GRACE = 3600.0
"""Seconds after a scheduled time until a push counts as late."""

EARLY = 60.0
"""Seconds before a scheduled time in which a push counts for it: the client's clock may
be ahead of the server's."""

LOCALTIME = "/etc/localtime"


class Expectation(ABC):
    """A schedule for pushes."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The schedule in a few words."""

    @abstractmethod
    def due(self, last: float) -> float:
        """When the push after the one at ``last`` becomes late.

        :param last: seconds since the epoch
        :returns: seconds since the epoch; infinity if no further push is expected
        """


@frozen
class Interval(Expectation):
    """A push is due an interval after the one before.

    :param seconds: the interval
    :param text: the interval as it is in the configuration
    """

    seconds: float
    text: str = field(eq=False)

    def due(self, last: float) -> float:
        return last + self.seconds


@frozen
class Schedule(Expectation):
    """A push is due at the times of a cron schedule.

    :param cron: the five fields
    :param grace: seconds after a scheduled time until a push is late
    :param timezone: the name of the schedule's time zone; None is the server's
    """

    cron: Cron
    grace: float = GRACE
    timezone: Zone | None = None

    @property
    def text(self) -> str:
        zone = f" {self.timezone}" if self.timezone else ""
        return f"{self.cron}{zone}"

    def due(self, last: float) -> float:
        start = datetime.fromtimestamp(last + EARLY, _zone(self.timezone))
        with suppress(StopIteration, OverflowError):
            return next(CronSim(self.cron, start)).timestamp() + self.grace
        return float("inf")


def local_zone() -> tzinfo:
    """The server's time zone, with its rules: ``TZ`` or ``/etc/localtime``.

    It is UTC if neither is a time zone.
    """
    named = os.environ.get("TZ", "").removeprefix(":")
    if named:
        with suppress(zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            return zoneinfo.ZoneInfo(named)
    with suppress(OSError, ValueError), open(LOCALTIME, "rb") as file:
        return zoneinfo.ZoneInfo.from_file(file)
    return UTC


@lru_cache(maxsize=1024)
def _zone(name: Zone | None) -> tzinfo:
    return local_zone() if name is None else zoneinfo.ZoneInfo(name)
