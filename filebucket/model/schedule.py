"""When the next push of a series is due.

Either so and so long after the last one, or by a schedule as cron has them, with some
grace. cronsim knows what cron's fields mean, and what becomes of them on the two days
of the year on which clocks are set: as in Debian's cron, what would fall into the hour
that is left out is due right after it, and what falls into the hour that comes twice
is due once.
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
"""Seconds before a scheduled time in which a push counts for it: the clock that the
client's cron goes by may be ahead of ours."""

LOCALTIME = "/etc/localtime"


class Expectation(ABC):
    """When pushes are expected."""

    @property
    @abstractmethod
    def text(self) -> str:
        """In a few words."""

    @abstractmethod
    def due(self, last: float) -> float:
        """When the push after the one at ``last`` is late.

        :param last: seconds since the epoch
        :returns: the same; infinity where no more is expected
        """


@frozen
class Interval(Expectation):
    """A push is due so long after the one before.

    :param seconds: how long
    :param text: as the operator wrote it
    """

    seconds: float
    text: str = field(eq=False)

    def due(self, last: float) -> float:
        return last + self.seconds


@frozen
class Schedule(Expectation):
    """A push is due at times that a line of cron says.

    :param cron: its five fields
    :param grace: seconds after such a time until a push is late
    :param timezone: the name of the zone that the times are of; None is this
        machine's own
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
    """The time zone of this machine, with its rules: what TZ names, or
    /etc/localtime; UTC where neither is one.
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
