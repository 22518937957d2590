"""Kinds of values in the configuration."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.text import UNITS, exact_size_text, moment_text
from filebucket.config import values
from filebucket.model.bucket import FreeSpace
from filebucket.model.schedule import Cron, Interval, Schedule


class SizeTests(SynchronousTestCase):
    """Sizes and shares."""

    def test_sizes(self) -> None:
        """IEC and SI units, with or without a space."""
        for written, expected in (
            (0, 0),
            (2**63 - 1, 2**63 - 1),
            ("0 B", 0),
            ("7B", 7),
            ("20 GiB", 20 * 1024**3),
            ("20GiB", 20 * 1024**3),
            ("1.5 KiB", 1536),
            ("1 kB", 1000),
            ("1 MB", 10**6),
            ("1 TB", 10**12),
            ("2 PiB", 2 * 1024**5),
            ("0.1 kB", 100),
        ):
            self.assertEqual(expected, values.byte_count(written), written)

    def test_no_sizes(self) -> None:
        """Ambiguous sizes are refused."""
        written: Any
        for written in (
            *("", "5", "5 G", "5 KB", "5 gib", "5  GiB", " 5 B", "5 B ", "-5 B"),
            *("1,5 GiB", "1e3 B", ".5 GiB", "5. GiB", "9999999999999 PiB", "\u0665 B"),
            *(True, None, 1.0, [], -1, 2**63),
        ):
            with self.assertRaises(ValueError, msg=repr(written)):
                values.byte_count(written)

    def test_shares(self) -> None:
        """Shares of a filesystem of 1,000 bytes."""
        for written, expected in (
            (7, 7),
            ("1 kB", 1000),
            ("0 %", 0),
            ("5 %", 50),
            ("2.5%", 25),
            ("100 %", 1000),
        ):
            self.assertEqual(expected, values.free_space(written).of(1000), written)
        self.assertEqual(30, FreeSpace(bytes=30, share=Fraction(2, 100)).of(1000))

    def test_no_shares(self) -> None:
        """More than 100 %, or not a number."""
        for written in ("101 %", "100.1 %", "-1 %", "%", "x %", "5  %", "1e1 %", True):
            with self.assertRaises(ValueError, msg=repr(written)):
                values.free_space(written)


class MomentTests(SynchronousTestCase):
    def test_moments(self) -> None:
        """A date is valid to its end in UTC; a time needs an offset."""
        for written, expected in (
            ("1970-01-01", 86400.0),
            ("1970-01-01T00:00:00Z", 0.0),
            ("1970-01-01 00:00:00Z", 0.0),
            ("1970-01-01T01:00:00+01:00", 0.0),
            ("1970-01-01T00:00:00.500000Z", 0.5),
            ("2024-02-29", 1709251200.0),
        ):
            self.assertEqual(expected, values.moment(written), written)

    def test_no_moments(self) -> None:
        """Invalid dates, and times without an offset."""
        for written in (
            *("", "soon", "2026-13-01", "2026-02-29", "20261231", "2026-W01-1"),
            *("2026-12-31T12:00:00", "2026-12-31T25:00:00Z", "2026-12-31T12Z"),
            *("9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00"),
            *("9999-12-31", "31.12.2026", 1798761600, None),
        ):
            with self.assertRaises(ValueError, msg=repr(written)):
                values.moment(written)


class ExpectationTests(SynchronousTestCase):
    def test_interval(self) -> None:
        for text, seconds in (("90s", 90), ("26h", 26 * 3600), ("2 w", 14 * 86400)):
            found = values.expectation(text)
            assert isinstance(found, Interval)
            self.assertEqual((seconds, text), (found.seconds, found.text))

    def test_cron(self) -> None:
        """Five fields, with any space between them."""
        self.assertEqual(
            Schedule(Cron("30 2 * * MON-FRI")), values.expectation("30  2 * * MON-FRI")
        )

    def test_unfit(self) -> None:
        for text, reason in (
            ("", "or the five fields of a cron schedule"),
            ("26", "must be a time span"),
            ("0h", "must be longer than 0"),
            ("30 2 * *", "a cron schedule has 5 fields, not 4"),
            ("0 30 2 * * *", "a cron schedule has 5 fields, not 6"),
            ("61 2 * * *", "bad minute"),
            ("0 0 31 2 *", "bad day-of-month"),
            ("@daily", "must be a time span"),
        ):
            with self.assertRaisesRegex(ValueError, reason):
                values.expectation(text)

    def test_zones(self) -> None:
        """Only names of time zones, not paths."""
        self.assertEqual("Europe/Berlin", values.zone("Europe/Berlin"))
        for name in (
            "Europe/Nowhere",
            "",
            "/etc/localtime",
            "../../etc/passwd",
            "a\0b",
        ):
            with self.assertRaisesRegex(ValueError, "must be a time zone"):
                values.zone(name)


class WrittenTests(SynchronousTestCase):
    """Values that are shown can be written back."""

    def test_sizes(self) -> None:
        for size in (0, 1, 999, 1000, 1024, 1536 * 1024, 3 * 10**15, *UNITS.values()):
            self.assertEqual(size, values.byte_count(exact_size_text(size)))

    def test_moments(self) -> None:
        for text in ("2026-12-31", "2028-02-29", "2026-12-31T18:00:00Z"):
            self.assertEqual(text, moment_text(values.moment(text)))
