"""What an experiment comes to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from attrs import field, frozen

T = TypeVar("T")


@frozen
class Outcome:
    """What an experiment saw.

    :param figures: what was done and measured, in one line
    :param faults: each thing that was against the promise, in a line; none: it held
    """

    figures: str
    faults: list[str] = field(factory=list)


Prove: TypeAlias = Callable[[Path, int], Outcome]
"""An experiment: given an empty folder of its own and how often, or for how many
seconds, to try."""


@frozen
class Proof:
    """An experiment and how much of it there is.

    :param trials: how often, or for how many seconds
    :param quick: the same where one only wants to see that it works
    """

    prove: Prove
    trials: int
    quick: int


def found_out(outcome: Outcome) -> Outcome:
    """Of an experiment on what is broken: it has to have found that."""
    if outcome.faults:
        return Outcome(
            f"{outcome.figures}, {len(outcome.faults)} faults, as there must be"
        )
    return Outcome(outcome.figures, ["what was broken was not found out"])


def some(all_of_them: Sequence[T], most: int) -> list[T]:
    """All of them; or so many, which are the same in every run."""
    if most >= len(all_of_them):
        return list(all_of_them)
    return random.Random(most).sample(all_of_them, most)
