"""The main results as an SVG picture: bars that are read in five seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from xml.sax.saxutils import escape

from attrs import frozen

from bench.cases import FILE_BUCKET, FLOOR
from bench.measure import Case, Row, Sample

_NOTES = {
    FILE_BUCKET: "hashes, syncs",
    FLOOR: "hashes, syncs",
    "copyparty": "hashes, never syncs",
    "nginx": "neither",
}
"""The contestants, and what they do beside storing a file."""

_COLORS = {FILE_BUCKET: "#1f6feb", FLOOR: "#57606a"}
_OTHER = "#b6bec8"
_WIDTH, _LEFT, _LONGEST, _LINE, _BAR = 760, 230, 440, 30, 20


@frozen
class Chart:
    """Bars of one kind.

    :ivar bars: a value of each contestant
    :ivar text: the value in words
    """

    title: str
    bars: Mapping[str, float]
    text: Callable[[float], str]


_Found = Mapping[Row, Sequence[Sample]]


def small_chart(case: Case, found: _Found) -> Chart:
    """Pushes a second."""

    def rate(row: Row) -> float:
        return case.amount(row) * 1000 / _wall(found, row)

    return Chart(
        "Files of 4 KiB a second, over 16 connections (longer is better)",
        {name: rate(Row("PUT, 16 kept", name)) for name in _NOTES},
        lambda value: f"{value:,.0f}",
    )


def large_chart(case: Case, found: _Found) -> Chart:
    """Seconds of a push."""
    rows = {name: Row("PUT, 1 at once", name) for name in _NOTES}
    size = case.amount(rows[FILE_BUCKET]) * 1024
    return Chart(
        f"Seconds for a file of {size:.0f} MiB (shorter is better)",
        {name: _wall(found, row) for name, row in rows.items()},
        lambda value: f"{value:.2f} s",
    )


def _wall(found: _Found, row: Row) -> float:
    return median(sample.wall for sample in found[row])


def draw(charts: Sequence[Chart]) -> str:
    """The charts, one below the other."""
    lines, y = [], 0
    for chart in charts:
        y += 2 * _LINE
        lines.append(_text(20, y - 22, chart.title, "b"))
        # A bar that is much longer than all others is cut.
        *_, second, first = sorted(chart.bars.values())
        longest = min(first, 2 * second)
        for name, value in chart.bars.items():
            middle, width = y + 15, max(min(value / longest, 1) * _LONGEST, 1)
            color = _COLORS.get(name, _OTHER)
            weight = "b" if name == FILE_BUCKET else "n"
            lines += [
                _text(20, middle, name, weight),
                _text(105, middle, _NOTES[name], "s"),
                f'<rect x="{_LEFT}" y="{y}" width="{width:.0f}" height="{_BAR}"'
                f' fill="{color}"/>',
                _text(_LEFT + round(width) + 8, middle, chart.text(value), weight),
            ]
            if value > longest:
                at = _LEFT + round(width) - 24
                lines.append(
                    f'<path d="M{at} {y + _BAR} l8 -{_BAR}" stroke="white"'
                    ' stroke-width="6"/>'
                )
            y += _LINE
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}"'
            f' height="{y + 20}" font-family="sans-serif" font-size="14">',
            "<style>.b{font-weight:bold}.s{font-size:12px;fill:#57606a}</style>",
            f'<rect width="{_WIDTH}" height="{y + 20}" fill="white"/>',
            *lines,
            "</svg>",
            "",
        )
    )


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'
