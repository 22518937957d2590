"""Sizes, times and names as text."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis.strategies import integers, text
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.text import (
    about_text,
    age_text,
    ago,
    change_in_words,
    change_text,
    columns_of,
    counted,
    cut,
    exact_size_text,
    first_and_last_line,
    first_line,
    joined,
    local,
    moment_text,
    plural,
    printable,
    recent_text,
    rfc3339,
    sentence,
    size_text,
    span,
    time_text,
    wrapped,
)
from filebucket.test.kit.properties import trying

HOUR = 3600.0
DAY = 24 * HOUR
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 9, 5, 7, tzinfo=BERLIN).timestamp()


class SentenceTests(SynchronousTestCase):
    def test_sentence(self) -> None:
        """Names of files and of daemons keep their small letter."""
        for words, expected in (
            ("the disk is full", "The disk is full"),
            ("post-push.sh fails", "post-push.sh fails"),
            ("2 files are missing", "2 files are missing"),
            ("one: the daemon does not run", "one: the daemon does not run"),
            ("", ""),
        ):
            self.assertEqual(expected, sentence(words))


class QuantityTests(SynchronousTestCase):
    """Sizes, changes and times."""

    def test_sizes(self) -> None:
        for size, expected in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1024, "1.0 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (1_023_487, "999 KiB"),
            (1_023_488, "1.0 MiB"),
            (1_288_490_189, "1.2 GiB"),
            (3 << 40, "3.0 TiB"),
            (2**63 - 1, "8.0 EiB"),
            (2**70, "1024 EiB"),
        ):
            self.assertEqual(expected, size_text(size))

    @trying
    @given(integers(0, 2**63))
    def test_size_is_near(self, size: int) -> None:
        """The text is within a twentieth of the size, in seven columns."""
        number, unit = size_text(size).split()
        factor = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
        self.assertLessEqual(abs(float(number) * factor - size), size * 0.0501)
        self.assertLessEqual(len(size_text(size)), 7)

    def test_exact_sizes(self) -> None:
        for size, expected in (
            (0, "0 B"),
            (1, "1 B"),
            (1000, "1 kB"),
            (1024, "1 KiB"),
            (1500, "1500 B"),
            (20 << 30, "20 GiB"),
            (10**12, "1 TB"),
            (2**63 - 1, f"{2**63 - 1} B"),
        ):
            self.assertEqual(expected, exact_size_text(size))

    def test_changes(self) -> None:
        for size, usual, expected in (
            (100, 100, "0 %"),
            (101, 100, "+1 %"),
            (996, 1000, "0 %"),
            (18, 100, "-82 %"),
            (1, 1000, "-99 %"),
            (0, 1000, "-100 %"),
            (999, 100, "+899 %"),
            (1000, 100, "x10"),
            (40_500, 1000, "x40.5"),
            (10**12, 1, "x1e+12"),
        ):
            self.assertEqual(expected, change_text(size, usual))

    def test_ages(self) -> None:
        for seconds, expected in (
            (-5.0, "0s"),
            (0.0, "0s"),
            (89.9, "89s"),
            (90.0, "1m"),
            (89 * 60.0, "89m"),
            (90 * 60.0, "1h"),
            (26 * HOUR, "26h"),
            (47.9 * HOUR, "47h"),
            (48 * HOUR, "2d"),
            (400 * DAY, "400d"),
        ):
            self.assertEqual(expected, age_text(seconds))

    def test_about(self) -> None:
        for seconds, expected in (
            (-1.0, "an hour"),
            (0.0, "an hour"),
            (5 * HOUR, "5 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (60 * DAY, "9 weeks"),
            (120 * DAY, "4 months"),
            (3 * 365.25 * DAY, "3 years"),
            (10 * 365.25 * DAY, None),
            (math.inf, None),
        ):
            self.assertEqual(expected, about_text(seconds))

    def test_recent(self) -> None:
        for at, expected in (
            (NOW, "09:05"),
            (datetime(2026, 11, 24, 0, 0, tzinfo=BERLIN).timestamp(), "00:00"),
            (datetime(2026, 11, 23, 23, 59, tzinfo=BERLIN).timestamp(), "Mon 23:59"),
            (datetime(2026, 11, 18, 0, 0, tzinfo=BERLIN).timestamp(), "Wed 00:00"),
            (datetime(2026, 11, 17, 23, 59, tzinfo=BERLIN).timestamp(), "2026-11-17"),
            (NOW + 2 * DAY, "2026-11-26"),
            (1e15, "-"),
        ):
            self.assertEqual(expected, recent_text(at, NOW, BERLIN))

    def test_times(self) -> None:
        self.assertEqual("2026-11-24 09:05:07", time_text(NOW, BERLIN))
        self.assertEqual("2026-11-24 08:05:07", time_text(NOW, UTC))
        self.assertEqual("-", time_text(1e15, UTC))
        self.assertEqual("2026-11-24T08:05:07.250Z", rfc3339(NOW + 0.25))
        self.assertEqual("1970-01-01T00:00:00.000Z", rfc3339(0.0))
        for at in (None, math.inf, 1e15):
            self.assertIsNone(rfc3339(at))
        self.assertEqual(9, getattr(local(NOW, BERLIN), "hour", None))
        self.assertIsNone(local(math.inf, BERLIN))

    def test_moments(self) -> None:
        midnight = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
        self.assertEqual("2026-11-24", moment_text(midnight))
        self.assertEqual("2026-11-24T23:59:59Z", moment_text(midnight - 1))


class WordsTests(SynchronousTestCase):
    """Times and sizes in words."""

    def test_spans(self) -> None:
        for expected, seconds in (
            ("0 min", 0),
            ("59 min", 3599),
            ("1 h", HOUR),
            ("35 h", 36 * HOUR - 1),
            ("1 day", 36 * HOUR),
            ("13 days", 14 * DAY - 1),
            ("2 weeks", 14 * DAY),
            ("2 months", 63 * DAY),
            ("2 years", 2 * 365.25 * DAY),
            ("400 years", 400 * 365.25 * DAY),
        ):
            self.assertEqual(expected, span(seconds))

    def test_ago(self) -> None:
        self.assertEqual("just now", ago(59))
        self.assertEqual("1 min ago", ago(60))
        # The clock was set back.
        self.assertEqual("just now", ago(-5))

    def test_changes_in_words(self) -> None:
        for expected, size, usual in (
            ("", None, 100),
            ("empty", 0, 100),
            ("not enough history", 100, None),
            ("not enough history", 100, 0),
            ("as usual", 90, 100),
            ("as usual", 110, 100),
            ("12 % smaller", 88, 100),
            ("99 % smaller", 1, 10**9),
            ("50 % larger", 150, 100),
            ("2.0 times usual", 200, 100),
            ("1,500.0 times usual", 150_000, 100),
        ):
            self.assertEqual(expected, change_in_words(size, usual))

    def test_counts(self) -> None:
        self.assertEqual("1 file", counted(1, "file"))
        self.assertEqual("0 files", counted(0, "file"))
        self.assertEqual("1,234 files", counted(1234, "file"))
        self.assertEqual("2 series", counted(2, "series", "series"))
        self.assertEqual("pushes", plural(0, "push", "pushes"))

    def test_lists(self) -> None:
        self.assertEqual("", joined([]))
        self.assertEqual("a", joined(["a"]))
        self.assertEqual("a and b", joined(["a", "b"]))
        self.assertEqual("a, b or c", joined(["a", "b", "c"], "or"))


class NameTests(SynchronousTestCase):
    """Names that clients chose."""

    def test_printable(self) -> None:
        for name, expected in (
            ("db.sql.gz", "db.sql.gz"),
            ("caf\u00e9 \u65e5\u672c \U0001f4be", "caf\u00e9 \u65e5\u672c \U0001f4be"),
            ("a\x1b[2Jb", "a\\x1b[2Jb"),
            ("a\nb\tc\x7f\x9b", "a\\x0ab\\x09c\\x7f\\x9b"),
            ("\u202egz.\u2028", "\\u202egz.\\u2028"),
            ("\udc80\U000e0001", "\\udc80\\U000e0001"),
            ("a\u3164\u2800\ufe0fb", "a\\u3164\\u2800\\ufe0fb"),
            ("\U000e0100\uffa0", "\\U000e0100\\uffa0"),
        ):
            self.assertEqual(expected, printable(name))
        self.assertEqual("a\\x7cb", printable("a|b", "|"))

    @trying
    @given(text(max_size=40))
    def test_always_printable(self, name: str) -> None:
        found = printable(name)
        self.assertTrue(found.isprintable())
        found.encode("utf-8")

    def test_columns(self) -> None:
        for name, expected in (("abc", 3), ("\u65e5\u672c", 4), ("e\u0301", 1)):
            self.assertEqual(expected, columns_of(name))

    def test_cut(self) -> None:
        for name, columns, expected in (
            ("abcdefgh", 8, "abcdefgh"),
            ("abcdefgh", 7, "abc\u2026fgh"),
            ("abcdefgh", 6, "abc\u2026gh"),
            ("abcdefgh", 1, "\u2026"),
            ("\u65e5\u672c\u65e5\u672c", 6, "\u65e5\u2026\u672c"),
            ("abcde\u0301e\u0301fg", 6, "abc\u2026fg"),
            ("ab\u0301cdef\u0301", 3, "a\u2026f\u0301"),
        ):
            self.assertEqual(expected, cut(name, columns))

    def test_first_line(self) -> None:
        for whole, expected in (
            ("", ""),
            (" \n\t\n", ""),
            ("one", "one"),
            ("\r\n  pg_dump: failed \r\nmore", "pg_dump: failed"),
            ("a\x1b[2Jb\u2028c", "a\\x1b[2Jb"),
            ("123456789", "123…89"),
        ):
            self.assertEqual(expected, first_line(whole, 6 if "9" in whole else 40))

    def test_first_and_last_line(self) -> None:
        for whole, expected in (
            ("", ""),
            ("one\n", "one"),
            ("one\n\x1btw\n\n", "one; \\x1btw"),
            ("one\ntwo\nthree", "one; three"),
            ("123456789\n123456789", "123…89; 123…89"),
        ):
            self.assertEqual(expected, first_and_last_line(whole, 6))
        self.assertEqual("a\\x7cb", first_line("a|b", 40, "|"))

    def test_wrapped(self) -> None:
        for line, columns, expected in (
            ("", 4, [""]),
            ("ab cd ef", 8, ["ab cd ef"]),
            ("ab cd ef", 7, ["ab cd", "ef"]),
            ("ab cd ef", 5, ["ab cd", "ef"]),
            ("ab cd ef", 4, ["ab", "cd", "ef"]),
            ("abcdefgh ij", 4, ["abcd", "efgh", "ij"]),
            ("abcd    ", 4, ["abcd"]),
            ("\u65e5\u672c \u65e5\u672c", 4, ["\u65e5\u672c", "\u65e5\u672c"]),
            ("\u65e5\u672c\u65e5", 3, ["\u65e5", "\u672c", "\u65e5"]),
        ):
            self.assertEqual(expected, wrapped(line, columns))

    @trying
    @given(text(max_size=60), integers(2, 30))
    def test_wrapped_fits(self, line: str, columns: int) -> None:
        """Only spaces are lost."""
        line = printable(line)
        found = wrapped(line, columns)
        self.assertLessEqual(max(map(columns_of, found)), columns)
        self.assertEqual(line.replace(" ", ""), "".join(found).replace(" ", ""))

    @trying
    @given(text(max_size=40), integers(1, 30))
    def test_cut_fits(self, name: str, columns: int) -> None:
        self.assertLessEqual(columns_of(cut(printable(name), columns)), columns)
