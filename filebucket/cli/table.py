"""Tables for a terminal.

If the terminal is too narrow, optional columns are left out and names are cut in the
middle. If the width is unknown, as in a pipe, the table is complete.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Sequence

from attrs import frozen

from filebucket.base.text import columns_of, cut, printable

GAP = "  "

ENOUGH = 28
"""Width that all names together get before optional columns get any."""
LEAST = 12
"""Minimum width of all names together."""


@frozen
class Column:
    """A column.

    :param title: heading
    :param right: whether cells are right-aligned, as numbers are
    :param name: whether cells are names, which may be cut
    :param optional: whether the column may be left out to make names fit; the first
        optional column is left out first
    """

    title: str
    right: bool = False
    name: bool = False
    optional: bool = False


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> Iterator[str]:
    """The lines of a table, heading first.

    :param rows: rows with one cell for each column
    :param width: columns of the terminal; None is unlimited
    """
    shown = [[each.title for each in columns]]
    # In case a caller forgot to.
    shown += [list(map(printable, row)) for row in rows]
    widths = [
        max(columns_of(row[index]) for row in shown) for index in range(len(columns))
    ]
    places = list(range(len(columns)))
    if width is not None:
        places = _fit(columns, widths, width)
    for row in shown:
        cells = (
            _cell(row[index], widths[index], columns[index].right) for index in places
        )
        yield GAP.join(cells).rstrip()


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """The indexes of the columns to show. Narrows ``widths`` of names in place."""
    places = list(range(len(columns)))
    names = [index for index in places if columns[index].name]
    wanted = sum(widths[index] for index in names)
    optional = [index for index in places if columns[index].optional]
    while True:
        rest = sum(widths[index] for index in places) - wanted
        room = width - rest - len(GAP) * (len(places) - 1)
        if room >= min(wanted, ENOUGH) or not optional:
            break
        places.remove(optional.pop(0))
    room = max(room, LEAST)
    # Short names stay whole; the others share the rest.
    for left, index in enumerate(sorted(names, key=lambda index: widths[index])):
        widths[index] = min(widths[index], room // (len(names) - left))
        room -= widths[index]
    return places


def _cell(text: str, width: int, right: bool) -> str:
    text = cut(text, width)
    space = " " * (width - columns_of(text))
    return space + text if right else text + space


def terminal_width() -> int | None:
    """Columns of the terminal; None if unknown."""
    return shutil.get_terminal_size((0, 0)).columns or None


def escape_unprintable() -> None:
    """Have stdout escape characters that its encoding lacks, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
