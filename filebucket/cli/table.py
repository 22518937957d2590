"""Tables for a terminal.

They fit where they can: where the terminal is too narrow, what matters less is left
out, and names are cut in the middle. Where nobody said how wide it is, as in a pipe,
nothing is.
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
"""Columns that names get, together, before what is optional gets any."""
LEAST = 12
"""Columns that they get in any case."""


@frozen
class Column:
    """A column.

    :param title: at its head
    :param right: whether it stands at the right: numbers do
    :param name: whether it holds names, which may be cut
    :param optional: whether it is left out where names get too little; the first
        one first
    """

    title: str
    right: bool = False
    name: bool = False
    optional: bool = False


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> Iterator[str]:
    """The lines of a table, its head first.

    :param rows: as many cells as columns
    :param width: columns of the terminal; None is without bounds
    """
    shown = [[each.title for each in columns]]
    # Whoever made the cells has thought of it, or has not.
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
    """The places that are shown; names get narrower ``widths``."""
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
    # The short ones are left whole, and the others share what remains.
    for left, index in enumerate(sorted(names, key=lambda index: widths[index])):
        widths[index] = min(widths[index], room // (len(names) - left))
        room -= widths[index]
    return places


def _cell(text: str, width: int, right: bool) -> str:
    text = cut(text, width)
    space = " " * (width - columns_of(text))
    return space + text if right else text + space


def terminal_width() -> int | None:
    """Columns of the terminal; None where there is none."""
    return shutil.get_terminal_size((0, 0)).columns or None


def escape_unprintable() -> None:
    """Have stdout escape letters that the terminal has not: a name with such is no
    reason to fail.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
