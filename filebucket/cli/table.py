"""Tables for a terminal.

If the terminal is too narrow, optional columns are left out first, then long texts wrap
or move to a second line, and names are cut in the middle last. If the width is
unknown, as in a pipe, the table is complete.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

from attrs import frozen

from filebucket.base.text import CUT, columns_of, cut, printable, wrapped

GAP = "  "
INDENT = "    "
"""Before the second line of a row."""

ENOUGH = 20
"""Width that each name gets before texts get more than they need."""
LEAST = 12
"""Minimum width of all names together, and of a text."""
MOST_LINES = 8
"""Maximum number of lines of a text."""


@frozen
class Column:
    """A column.

    :param title: heading
    :param right: whether cells are right-aligned, as numbers are
    :param name: whether cells are names, which may be cut
    :param ample: width that a name gets before optional columns get any
    :param text: width from which on cells wrap, if they are texts; they get this width
        before optional columns get any
    :param optional: the order in which columns are left out to make names and texts
        fit; 0 is never
    :param below: whether it and the columns after it may move to a second line, which
        is left out for a row that has only ``-`` there
    """

    title: str
    right: bool = False
    name: bool = False
    ample: int = ENOUGH
    text: int = 0
    optional: int = 0
    below: bool = False

    def enough(self, widest: int) -> int:
        """The width that it gets before optional columns get any.

        :param widest: width of the widest cell
        """
        return min(widest, self.ample if self.name else self.text or widest)


_Widths = Mapping[int, int]
"""Widths of the columns in a line, by their indexes."""


class Table:
    """A table to which rows are added. Columns become wider for new rows, but never
    narrower.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._widest = [columns_of(each.title) for each in columns]
        self._heading: list[list[int]] = []

    def lines(self, rows: Iterable[Sequence[str]], width: int | None) -> Iterator[str]:
        """The heading, if it is not that of the last call, and each row. A row has
        several lines if it does not fit in one.

        :param rows: rows with one cell for each column
        :param width: columns of the terminal; None is unlimited
        """
        # In case a caller forgot to.
        shown = [list(map(printable, row)) for row in rows]
        for row in shown:
            self._widest = list(map(max, self._widest, map(columns_of, row)))
        layout = _layout(self._columns, self._widest, width)
        heading = list(map(list, layout))
        if heading != self._heading:
            self._heading = heading
            shown.insert(0, [each.title for each in self._columns])
        for row in shown:
            yield "\n".join(self._row(row, *layout))

    def _row(
        self, row: Sequence[str], first: _Widths, second: _Widths
    ) -> Iterator[str]:
        yield from self._line(row, first)
        if any(row[index] != "-" for index in second):
            yield from (f"{INDENT}{line}" for line in self._line(row, second))

    def _line(self, row: Sequence[str], widths: _Widths) -> Iterator[str]:
        cells = [
            _few(row[index], width)
            if self._columns[index].text
            else [cut(row[index], width)]
            for index, width in widths.items()
        ]
        for texts in zip_longest(*cells, fillvalue=""):
            aligned = [
                _aligned(text, widths[index], self._columns[index].right)
                for text, index in zip(texts, widths, strict=True)
            ]
            yield GAP.join(aligned).rstrip()


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None
) -> Iterator[str]:
    """A whole table, as :meth:`Table.lines` returns it."""
    return Table(columns).lines(rows, width)


def _layout(
    columns: Sequence[Column], widest: Sequence[int], width: int | None
) -> tuple[_Widths, _Widths]:
    """The columns of the first line and those of the second.

    :param widest: widths of the widest cells
    """
    first: _Widths = dict(enumerate(widest))
    second: _Widths = {}
    if width is None:
        return first, second
    widths = (width, width - len(INDENT))
    for first, second in _layouts(columns, widest):
        lines = zip((first, second), widths, strict=True)
        if all(_fits(columns, line, room) for line, room in lines):
            break
    return _narrowed(columns, first, widths[0]), _narrowed(columns, second, widths[1])


def _layouts(
    columns: Sequence[Column], widest: Sequence[int]
) -> Iterator[tuple[_Widths, _Widths]]:
    """The best layout first; the last one takes the least width."""
    order = sorted(
        (index for index, each in enumerate(columns) if each.optional),
        key=lambda index: columns[index].optional,
    )
    splits = [len(columns)]
    splits += [index for index, each in enumerate(columns) if each.below][:1]
    for split in splits:
        # A second line for little would be harder to read.
        if split < len(columns) and sum(widest[split:]) <= LEAST:
            return
        for count in range(len(order) + 1):
            left = {
                index: each
                for index, each in enumerate(widest)
                if index not in order[:count]
            }
            yield (
                {index: each for index, each in left.items() if index < split},
                {index: each for index, each in left.items() if index >= split},
            )


def _fits(columns: Sequence[Column], line: _Widths, width: int) -> bool:
    wanted = (columns[index].enough(each) for index, each in line.items())
    return sum(wanted) <= _room(line, width)


def _room(line: _Widths, width: int) -> int:
    """Columns of the terminal that are not gaps."""
    return width - len(GAP) * (len(line) - 1)


def _narrowed(columns: Sequence[Column], line: _Widths, width: int) -> _Widths:
    """Widths with which the columns fit."""
    names = [index for index in line if columns[index].name]
    texts = [index for index in line if columns[index].text]
    given = {**line, **dict.fromkeys([*names, *texts], 0)}
    room = _room(line, width) - sum(given.values())
    for group, most in (
        (texts, dict.fromkeys(texts, LEAST)),
        (names, dict.fromkeys(names, ENOUGH)),
        (texts, {index: columns[index].text for index in texts}),
        (names, line),
        (texts, line),
    ):
        room += sum(given[index] for index in group)
        room = max(room, min(LEAST, sum(line[index] for index in group)))
        # Short ones stay whole; the others share the rest.
        for left, index in enumerate(sorted(group, key=lambda index: line[index])):
            given[index] = min(line[index], most[index], room // (len(group) - left))
            room -= given[index]
    return given


def _few(text: str, width: int) -> list[str]:
    """The lines of a text. If there are too many, the end is cut."""
    lines = wrapped(text, width)
    if len(lines) > MOST_LINES:
        (end, *_) = wrapped(lines[MOST_LINES - 1], width - columns_of(CUT))
        lines[MOST_LINES - 1 :] = [end + CUT]
    return lines


def _aligned(text: str, width: int, right: bool) -> str:
    space = " " * (width - columns_of(text))
    return space + text if right else text + space


def paragraph(text: str, width: int | None, indent: str = "") -> list[str]:
    """The lines of a text that is not in a table. Names with hyphens are not broken.

    :param width: columns of the terminal; None is unlimited
    :param indent: before all lines but the first
    """
    if width is None:
        return [text] if text else []
    first, *rest = wrapped(text, max(width - len(indent), LEAST))
    return [first, *(f"{indent}{each}" for each in rest)] if text else []


def terminal_width() -> int | None:
    """Columns of the terminal; None if unknown."""
    return shutil.get_terminal_size((0, 0)).columns or None


def escape_unprintable() -> None:
    """Have stdout escape characters that its encoding lacks, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
