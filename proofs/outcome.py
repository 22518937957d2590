"""The outcome of an experiment."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from attrs import field, frozen

T = TypeVar("T")


@frozen
class Outcome:
    """The outcome of an experiment.

    :param figures: actions and measurements, in one line
    :param faults: each broken promise, in a line; empty if all held
    """

    figures: str
    faults: list[str] = field(factory=list)


Prove: TypeAlias = Callable[[Path, int], Outcome]
"""An experiment: it gets an empty folder, and the number of trials or seconds."""


@frozen
class Proof:
    """An experiment and its extent.

    :param trials: the number of trials or seconds
    :param quick: the same for a quick check that it works
    """

    prove: Prove
    trials: int
    quick: int


def found_out(outcome: Outcome) -> Outcome:
    """The outcome for a deliberately broken daemon: the experiment must detect it."""
    if outcome.faults:
        return Outcome(
            f"{outcome.figures}, {len(outcome.faults)} faults, as there must be"
        )
    return Outcome(outcome.figures, ["the broken daemon was not detected"])


def some(all_of_them: Sequence[T], most: int) -> list[T]:
    """All of them, or a number of them, the same in every run."""
    if most >= len(all_of_them):
        return list(all_of_them)
    return random.Random(most).sample(all_of_them, most)
