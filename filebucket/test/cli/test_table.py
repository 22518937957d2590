"""Tables for a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists, text, tuples
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.text import columns_of, printable
from filebucket.cli.table import Column, table
from filebucket.test.kit.properties import trying

COLUMNS = (
    Column("NAME", name=True),
    Column("SERIES", name=True),
    Column("WHEN", optional=True),
    Column("SIZE", right=True, optional=True),
    Column("STATE"),
)
ROWS = (
    ("web01", "db-#-#-#.sql.gz", "yesterday", "1.2 GiB", "fresh"),
    ("a.machine.example.org", "\u65e5\u672c-#.tar.zst", "today", "400 B", "late"),
)


class TableTests(SynchronousTestCase):
    def lines(self, width: int | None) -> list[str]:
        """The lines with a bar at the end, checked to fit."""
        found = list(table(COLUMNS, ROWS, width))
        if width is not None:
            self.assertLessEqual(max(map(columns_of, found)), width)
        return found

    def test_unbounded(self) -> None:
        """Without a width, the table is complete and aligned."""
        expected = [
            "NAME                   SERIES           WHEN          SIZE  STATE",
            "web01                  db-#-#-#.sql.gz  yesterday  1.2 GiB  fresh",
            "a.machine.example.org  \u65e5\u672c-#.tar.zst   today        400 B  late",
        ]
        self.assertEqual(expected, self.lines(None))
        self.assertEqual(expected, self.lines(65))

    def test_cut(self) -> None:
        """The longest name is cut first."""
        self.assertEqual(
            [
                "NAME            SERIES          WHEN          SIZE  STATE",
                "web01           db-#-#-\u2026sql.gz  yesterday  1.2 GiB  fresh",
                "a.machi\u2026le.org  \u65e5\u672c-#.tar.zst  today        400 B  late",
            ],
            self.lines(57),
        )

    def test_left_out(self) -> None:
        """Optional columns are left out one by one."""
        self.assertEqual(
            [
                "NAME                SERIES              SIZE  STATE",
                "web01               db-#-#-#.sql.gz  1.2 GiB  fresh",
                "a.machine\u2026mple.org  \u65e5\u672c-#.tar.zst     400 B  late",
            ],
            self.lines(51),
        )
        self.assertEqual(
            [
                "NAME         SERIES      STATE",
                "web01        db-#-\u2026l.gz  fresh",
                "a.mac\u2026e.org  \u65e5\u672c-\u2026.zst  late",
            ],
            self.lines(30),
        )

    def test_escapes(self) -> None:
        """Control characters in cells are escaped."""
        lines = table([Column("X"), Column("Y")], [["a\x1b[2J", "\u202e"]], None)
        self.assertEqual(["X         Y", "a\\x1b[2J  \\u202e"], list(lines))

    def test_no_rows(self) -> None:
        expected = ["NAME  SERIES  WHEN  SIZE  STATE"]
        self.assertEqual(expected, list(table(COLUMNS, [], 80)))

    @trying
    @given(lists(tuples(*[text(max_size=40).map(printable)] * 2)), integers(24, 200))
    def test_fits(self, names: list[tuple[str, str]], width: int) -> None:
        """All names fit."""
        rows = [(*each, "yesterday", "1.2 GiB", "fresh") for each in names]
        found = list(table(COLUMNS, rows, width))
        self.assertEqual(len(rows) + 1, len(found))
        self.assertLessEqual(max(map(columns_of, found)), width)
