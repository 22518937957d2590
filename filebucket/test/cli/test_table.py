"""Tables for a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists, text, tuples
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.text import columns_of, printable
from filebucket.cli.table import Column, Table, paragraph, table
from filebucket.test.kit.properties import trying

COLUMNS = (
    Column("NAME", name=True),
    Column("SERIES", name=True),
    Column("WHEN", optional=2),
    Column("SIZE", right=True, optional=1),
    Column("STATE"),
)
ROWS = (
    ("web01", "db-#-#-#.sql.gz", "yesterday", "1.2 GiB", "fresh"),
    ("a.machine.example.org", "\u65e5\u672c-#.tar.zst", "today", "400 B", "late"),
)
NOTED = (
    Column("NAME", name=True),
    Column("SIZE", right=True, optional=1),
    Column("STATE", text=15),
    Column("CLIENT", below=True),
    Column("NOTE", text=20),
)
NOTES = (
    ("web01", "1.2 GiB", "late, 12 damaged, 3 missing", "-", "-"),
    ("a.machine.example.org", "4 B", "fresh", "::1", "moves to the new rack today"),
)


class TableTests(SynchronousTestCase):
    def lines(self, width: int | None) -> list[str]:
        """The lines, checked to fit."""
        found = list(table(COLUMNS, ROWS, width))
        if width is not None:
            self.assertLessEqual(max(map(columns_of, found)), width)
        return found

    def noted(self, width: int) -> list[str]:
        """The lines of a table with texts, checked to fit."""
        found = "\n".join(table(NOTED, NOTES, width)).splitlines()
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

    def test_left_out(self) -> None:
        """Optional columns are left out one by one, before a name gets less than 20
        columns.
        """
        self.assertEqual(
            [
                "NAME                  SERIES           WHEN          SIZE  STATE",
                "web01                 db-#-#-#.sql.gz  yesterday  1.2 GiB  fresh",
                "a.machine.\u2026ample.org  \u65e5\u672c-#.tar.zst   today        400 B  late",  # noqa: E501
            ],
            self.lines(64),
        )
        self.assertEqual(
            [
                "NAME                   SERIES           WHEN       STATE",
                "web01                  db-#-#-#.sql.gz  yesterday  fresh",
                "a.machine.example.org  \u65e5\u672c-#.tar.zst   today      late",
            ],
            self.lines(62),
        )
        self.assertEqual(
            [
                "NAME                   SERIES           STATE",
                "web01                  db-#-#-#.sql.gz  fresh",
                "a.machine.example.org  \u65e5\u672c-#.tar.zst   late",
            ],
            self.lines(52),
        )

    def test_cut(self) -> None:
        """Names are cut last, and the longest one first."""
        self.assertEqual(
            [
                "NAME             SERIES           STATE",
                "web01            db-#-#-#.sql.gz  fresh",
                "a.machi\u2026ple.org  \u65e5\u672c-#.tar.zst   late",
            ],
            self.lines(39),
        )
        self.assertEqual(
            [
                "NAME         SERIES      STATE",
                "web01        db-#-\u2026l.gz  fresh",
                "a.mac\u2026e.org  \u65e5\u672c-\u2026.zst  late",
            ],
            self.lines(30),
        )

    def test_wraps(self) -> None:
        """A text wraps in its column."""
        self.assertEqual(
            [
                "NAME                      SIZE  STATE               CLIENT  NOTE",
                "web01                  1.2 GiB  late, 12 damaged,   -       -",
                "                                3 missing",
                "a.machine.example.org      4 B  fresh               ::1     moves to the new",  # noqa: E501
                "                                                            rack today",  # noqa: E501
            ],
            self.noted(78),
        )

    def test_left_out_for_text(self) -> None:
        """Optional columns make room for texts, too."""
        self.assertEqual(
            [
                "NAME                   STATE                CLIENT  NOTE",
                "web01                  late, 12 damaged, 3  -       -",
                "                       missing",
                "a.machine.example.org  fresh                ::1     moves to the new",
                "                                                    rack today",
            ],
            self.noted(72),
        )

    def test_second_line(self) -> None:
        """If that is not enough, columns move below. A row without any of them has no
        second line.
        """
        self.assertEqual(
            [
                "NAME                      SIZE  STATE",
                "    CLIENT  NOTE",
                "web01                  1.2 GiB  late, 12 damaged,",
                "                                3 missing",
                "a.machine.example.org      4 B  fresh",
                "    ::1     moves to the new rack today",
            ],
            self.noted(50),
        )

    def test_short_second_line(self) -> None:
        """Little text stays in the line, even if names are cut."""
        columns = (Column("NAME", name=True), Column("NOTES", text=20, below=True))
        expected = ["NAME          NOTES", "x" * 6 + "\u2026" + "x" * 5 + "  -"]
        self.assertEqual(expected, list(table(columns, [["x" * 30, "-"]], 19)))

    def test_too_long(self) -> None:
        """A text has eight lines at most."""
        columns = (Column("NAME"), Column("STATE", text=20))
        rows = [["web01", " ".join(["twelve chars"] * 12)]]
        lines = "\n".join(table(columns, rows, 19)).splitlines()
        line = "       twelve chars"
        self.assertEqual(["web01  twelve chars", *[line] * 6], lines[1:-1])
        self.assertEqual("       twelve\u2026", lines[-1])

    def test_grows(self) -> None:
        """Later rows are aligned with the earlier ones, as far as they fit; the heading
        is shown again only if other columns are shown.
        """
        growing = Table(COLUMNS)
        first, second = ROWS
        self.assertEqual(
            [
                "NAME   SERIES           WHEN          SIZE  STATE",
                "web01  db-#-#-#.sql.gz  yesterday  1.2 GiB  fresh",
            ],
            list(growing.lines([first], 62)),
        )
        self.assertEqual([], list(growing.lines([], 62)))
        (again,) = growing.lines([first], 62)
        self.assertEqual("web01  db-#-#-#.sql.gz  yesterday  1.2 GiB  fresh", again)
        self.assertEqual(self.lines(62)[::2], list(growing.lines([second], 62)))
        self.assertEqual(self.lines(62)[1:2], list(growing.lines([first], 62)))

    def test_escapes(self) -> None:
        """Control characters in cells are escaped."""
        lines = table([Column("X"), Column("Y")], [["a\x1b[2J", "\u202e"]], None)
        self.assertEqual(["X         Y", "a\\x1b[2J  \\u202e"], list(lines))

    def test_no_rows(self) -> None:
        expected = ["NAME  SERIES  WHEN  SIZE  STATE"]
        self.assertEqual(expected, list(table(COLUMNS, [], 80)))

    def test_paragraph(self) -> None:
        """Names with hyphens are not broken."""
        text = "2 late (a-very-long-name, other)"
        self.assertEqual([text], paragraph(text, None))
        self.assertEqual([text], paragraph(text, 32))
        expected = ["2 late", "  (a-very-long-name,", "  other)"]
        self.assertEqual(expected, paragraph(text, 21, "  "))
        self.assertEqual([], paragraph("", 21))
        self.assertEqual([], paragraph("", None))

    @trying
    @given(
        lists(tuples(*[text(max_size=40).map(printable)] * 2)),
        text(max_size=90).map(printable),
        integers(36, 200),
    )
    def test_fits(self, names: list[tuple[str, str]], note: str, width: int) -> None:
        """All names and texts fit."""
        rows = [(*each, "yesterday", "1.2 GiB", note) for each in names]
        columns = (*COLUMNS[:-1], Column("STATE", text=28))
        for each in (columns, (*columns[:-1], Column("STATE", text=28, below=True))):
            found = list(table(each, rows, width))
            self.assertEqual(len(rows) + 1, len(found))
            lines = "\n".join(found).split("\n")
            self.assertLessEqual(max(map(columns_of, lines)), width)
