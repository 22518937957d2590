"""What recurs in a bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.series import series_of
from filebucket.test.kit.properties import trying


class SeriesTests(SynchronousTestCase):
    """Names, and what they are one of."""

    def test_digits(self) -> None:
        """Names that differ in their digits only are of one series."""
        for name, series in (
            ("db-2026-11-23.sql.gz", "db-#-#-#.sql.gz"),
            ("db.gz", "db.gz"),
            ("20261123", "#"),
            ("v1.2.tar", "v#.#.tar"),
            # Digits are those that dates are made of.
            ("db-\u0663.gz", "db-\u0663.gz"),
        ):
            self.assertEqual(series, series_of(name, ()))

    def test_patterns(self) -> None:
        """The first that fits; and by the digits where none does."""
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

    def test_no_name_takes_long(self) -> None:
        """However often a pattern has a star."""
        # Where each star is tried at each place this would end after the universe.
        self.assertEqual("a" * 255, series_of("a" * 255, ("*a" * 60 + "b",)))

    @trying
    @given(st.text(max_size=255))
    def test_idempotent(self, name: str) -> None:
        """A series is of itself."""
        series = series_of(name, ())
        self.assertEqual(series, series_of(series, ()))
