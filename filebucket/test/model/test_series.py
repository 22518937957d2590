"""Series."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.series import first_characters, is_series, series_of
from filebucket.test.kit.properties import trying


class SeriesTests(SynchronousTestCase):
    def test_digits(self) -> None:
        """Names that differ only in their digits are one series."""
        for name, series in (
            ("db-2026-11-23.sql.gz", "db-#-#-#.sql.gz"),
            ("db.gz", "db.gz"),
            ("20261123", "#"),
            ("v1.2.tar", "v#.#.tar"),
            # Only ASCII digits count.
            ("db-\u0663.gz", "db-\u0663.gz"),
        ):
            self.assertEqual(series, series_of(name, ()))

    def test_patterns(self) -> None:
        """The first pattern that matches; without one, the digits."""
        patterns = ("db-*.dump", "db-*", "[ab]?")
        for name, series in (
            ("db-1.dump", "db-*.dump"),
            ("db-1.tar", "db-*"),
            ("a1", "[ab]?"),
            ("c1", "c#"),
            ("DB-1.dump", "DB-#.dump"),
            ("a\n", "[ab]?"),
        ):
            self.assertEqual(series, series_of(name, patterns))

    def test_wanted(self) -> None:
        """A series is found by its name or by a pattern; case matters."""
        for series, wanted, expected in (
            ("db-#.gz", "db-#.gz", True),
            ("db-#.gz", "db-*", True),
            ("db-#.gz", "DB-*", False),
            ("db-#.gz", "db", False),
            ("[a-z].gz", "[a-z].gz", True),
            ("b.gz", "[a-z].gz", True),
        ):
            self.assertEqual(expected, is_series(series, wanted))

    def test_first_characters(self) -> None:
        for wanted, expected in (
            ("db-#.gz", "db-#.gz"),
            ("db-*", "db-"),
            ("d?[a-z]*", "d"),
            ("[a-z].gz", ""),
            ("*", ""),
            ("", ""),
        ):
            self.assertEqual(expected, first_characters(wanted))

    def test_no_name_takes_long(self) -> None:
        """Patterns with many stars do not backtrack."""
        # With backtracking, this would take longer than the age of the universe.
        self.assertEqual("a" * 255, series_of("a" * 255, ("*a" * 60 + "b",)))

    @trying
    @given(st.text(max_size=255))
    def test_idempotent(self, name: str) -> None:
        """A series' name belongs to that series."""
        series = series_of(name, ())
        self.assertEqual(series, series_of(series, ()))
