"""Schedules."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model import schedule as expecting
from filebucket.model.schedule import (
    GRACE,
    Cron,
    Interval,
    Schedule,
    Zone,
    local_zone,
)

BERLIN = Zone("Europe/Berlin")


def at(text: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


class DueTests(SynchronousTestCase):
    def test_interval(self) -> None:
        self.assertEqual(1000.0 + 3600, Interval(3600.0, "1h").due(1000.0))

    def test_schedule(self) -> None:
        """The first scheduled time after the last push, plus the grace period."""
        nightly = Schedule(Cron("30 2 * * *"), GRACE, Zone("UTC"))
        for last, due in (
            ("2026-11-23T02:31Z", "2026-11-24T03:30Z"),
            ("2026-11-23T23:59Z", "2026-11-24T03:30Z"),
            # A push counts up to a minute early: the client's clock may be ahead.
            ("2026-11-24T02:29:30Z", "2026-11-25T03:30Z"),
            ("2026-11-24T02:28:30Z", "2026-11-24T03:30Z"),
        ):
            self.assertEqual(at(due), nightly.due(at(last)), last)

    def test_working_days(self) -> None:
        schedule = Schedule(Cron("0 20 * * 1-5"), 7200.0, Zone("UTC"))
        friday, monday = at("2026-11-20T20:05Z"), at("2026-11-23T22:00Z")
        self.assertEqual(monday, schedule.due(friday))

    def test_left_out(self) -> None:
        """In March, a time in the skipped hour is due right after it."""
        schedule = Schedule(Cron("30 2 * * *"), 0.0, BERLIN)
        due = schedule.due(at("2026-03-28T02:31+01:00"))
        self.assertEqual(at("2026-03-29T03:00+02:00"), due)
        self.assertEqual(
            at("2026-03-30T02:30+02:00"), schedule.due(at("2026-03-29T03:01+02:00"))
        )

    def test_twice(self) -> None:
        """In October, a time in the repeated hour is due once."""
        schedule = Schedule(Cron("30 2 * * *"), 0.0, BERLIN)
        due = schedule.due(at("2026-10-24T02:31+02:00"))
        self.assertEqual(at("2026-10-25T02:30+02:00"), due)
        self.assertEqual(
            at("2026-10-26T02:30+01:00"), schedule.due(at("2026-10-25T02:31+02:00"))
        )

    def test_never(self) -> None:
        """The end of the calendar is no error."""
        schedule = Schedule(Cron("0 0 29 2 *"), 0.0, Zone("UTC"))
        self.assertEqual(math.inf, schedule.due(at("9999-12-30T00:00Z")))

    def test_texts(self) -> None:
        self.assertEqual("30 2 * * *", Schedule(Cron("30 2 * * *")).text)
        self.assertEqual(
            "30 2 * * * Europe/Berlin",
            Schedule(Cron("30 2 * * *"), GRACE, BERLIN).text,
        )


class ZoneTests(SynchronousTestCase):
    """The server's time zone."""

    def test_named(self) -> None:
        for name in ("Europe/Berlin", ":Europe/Berlin"):
            self.patch(os, "environ", {"TZ": name})
            self.assertEqual("Europe/Berlin", str(local_zone()))

    def test_file(self) -> None:
        """With the rules for other times of the year."""
        self.patch(os, "environ", {})
        self.patch(expecting, "LOCALTIME", "/usr/share/zoneinfo/Europe/Berlin")
        if not Path(expecting.LOCALTIME).exists():
            self.skipTest("there is no time zone database")
        found = local_zone()
        offsets = [
            datetime(2026, month, 1, tzinfo=UTC).astimezone(found).utcoffset()
            for month in (1, 7)
        ]
        self.assertEqual(
            [3600, 7200], [each.total_seconds() for each in offsets if each]
        )

    def test_none(self) -> None:
        self.patch(os, "environ", {"TZ": "nonsense"})
        for path in ("/nonexistent", "/dev/null"):
            self.patch(expecting, "LOCALTIME", path)
            self.assertIs(UTC, local_zone())
