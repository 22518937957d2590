"""The table, as reStructuredText that is readable as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from statistics import median

from bench.measure import Case, Row, Sample


def table(case: Case, found: Mapping[Row, Sequence[Sample]]) -> str:
    """One case: medians, minima and ratios of medians."""
    columns = [
        *("load", "contestant", "wall s", "min", "ratio"),
        *(f"CPU s/{case.unit}", "ratio", "peak MB"),
    ]
    extra = list(dict.fromkeys(key for s in found.values() for key in s[0].more))
    lines = [[*columns, *extra]]
    for row, samples in found.items():
        walls = [sample.wall for sample in samples]
        memory = max(sample.memory for sample in samples)
        wall, cpu = (
            partial(_cost, case, found, figure=attrgetter(name))
            for name in ("wall", "cpu")
        )
        beside = [each for each in case.reference(row) if each in found]
        lines.append(
            [
                row.load,
                row.contestant,
                _number(median(walls)),
                _number(min(walls)),
                _ratio(wall([row]), wall(beside)),
                _number(cpu([row])),
                _ratio(cpu([row]), cpu(beside)),
                f"{memory / 1e6:.1f}" if memory else "\\-",
                *(
                    _number(median(sample.more[key] for sample in samples))
                    if key in samples[0].more
                    else "\\-"
                    for key in extra
                ),
            ]
        )
    return f"{case.title}\n{'-' * len(case.title)}\n\n{_simple_table(lines)}"


def _cost(
    case: Case,
    found: Mapping[Row, Sequence[Sample]],
    rows: Iterable[Row],
    figure: Callable[[Sample], float],
) -> float:
    """The median of one figure per unit, of all rows together."""
    return sum(median(map(figure, found[row])) / case.amount(row) for row in rows)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference else "\\-"


def _simple_table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)

    def text(cells: Iterable[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "  ".join(padded).rstrip()

    head, *rest = map(text, lines)
    return "\n".join([rule, head, rule, *rest, rule, ""])
