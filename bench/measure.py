"""Interleaved rounds and their samples."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from attrs import field, frozen

from bench.loads import Load
from bench.process import run
from bench.servers import Start


@frozen
class Sample:
    """One contestant under one load, once.

    :ivar wall: seconds from the start of the load to its end
    :ivar cpu: the contestant's processor time in seconds meanwhile
    :ivar memory: peak resident memory in bytes; 0 if it was not measured
    :ivar more: further results of this case, by column
    """

    wall: float
    cpu: float = 0.0
    memory: int = 0
    more: Mapping[str, float] = field(factory=dict)


@frozen
class Row:
    """A row of the table."""

    load: str
    contestant: str


Samples: TypeAlias = Mapping[Row, Sample]


class Turn(Protocol):
    """The turn of one contestant in one round."""

    def take(self, folder: Path) -> Samples:
        """Run it in an empty folder."""


@frozen
class Case:
    """Contestants that do the same work.

    :ivar unit: the unit of work, and the amount of each row
    :ivar reference: the rows whose sum a row is compared with
    """

    name: str
    title: str
    turns: Sequence[Turn]
    unit: str
    amount: Callable[[Row], float]
    reference: Callable[[Row], Sequence[Row]]


@frozen
class ServerTurn:
    """Starts a server, warms it up, and gives it its loads in turn."""

    contestant: str
    start: Start
    loads: Mapping[str, Load]
    warm_up: Load = lambda server: {}

    def take(self, folder: Path) -> Samples:
        server = self.start(folder)
        process = server.process
        found: dict[Row, Sample] = {}
        try:
            self.warm_up(server)
            for name, load in self.loads.items():
                process.forget_peak()
                before, begin = process.cpu(), time.monotonic()
                try:
                    more = dict(load(server))
                except RuntimeError as error:
                    raise RuntimeError(f"{self.contestant}, {name}: {error}") from None
                wall = more.pop("wall", time.monotonic() - begin)
                sample = Sample(
                    wall, process.cpu() - before, process.peak_memory(), more
                )
                found[Row(name, self.contestant)] = sample
        finally:
            process.stop()
        return found


@frozen
class ProgramTurn:
    """Runs a program to its end. It may print only its own time."""

    contestant: str
    load: str
    command: Callable[[Path], Sequence[str]]

    def take(self, folder: Path) -> Samples:
        before, begin = _children(), time.monotonic()
        own = run(self.command(folder)).split()
        wall = time.monotonic() - begin
        if len(own) == 1:
            wall = float(own[0])
        sample = Sample(wall, _children() - before)
        return {Row(self.load, self.contestant): sample}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(case: Case, rounds: int, folder: Path) -> dict[Row, list[Sample]]:
    """Let all take their turns ``rounds`` times, after one round that does not count.

    :param folder: a place on the disk that is measured
    """
    found: dict[Row, list[Sample]] = {}
    here = folder / case.name
    for number in range(rounds + 1):
        print(f"{case.name}: round {number} of {rounds}", file=sys.stderr)
        for position, turn in enumerate(case.turns):
            # Nothing is deleted between the rounds: ext4 would check each inode that
            # was just freed, at the next contestant's expense.
            mine = here / f"{number}-{position}"
            mine.mkdir(parents=True)
            for row, sample in turn.take(mine).items():
                if number:
                    found.setdefault(row, []).append(sample)
    shutil.rmtree(here)
    return found
