"""Large catalogues: commands must still answer quickly.

Rows are added as the daemon adds them. The commands run as an operator runs them, each
in its own process; the fastest of several runs counts, since the machine has other
work.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from attrs import frozen

from filebucket.catalogue.database import FILE
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.overview import Known, make_overview
from filebucket.catalogue.view import View
from filebucket.config.load import load
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.test.kit.server import PATIENCE
from proofs.outcome import Outcome

BUCKETS = 500
BATCH = 5_000
CALLS = 5
SIZE = 1000
LINE = ("status", "--no-daemon", "--line")
JSON = ("status", "--no-daemon", "--json")
"""Bytes of every push, so that totals are known."""

MOST_SECONDS = 1.0
"""Seconds that ``status`` takes, from start to end."""
MOST_MEMORY = 128
"""MiB of memory that it takes."""


def million(folder: Path, trials: int) -> Outcome:
    """A number of pushes into 500 buckets."""
    return _prove(folder, trials, lambda number: f"db-{number:07}.sql.gz")


_LETTERS = str.maketrans("0123456789", "abcdefghij")


def many_series(folder: Path, trials: int) -> Outcome:
    """A number of pushes, each a series of its own: the letters of their names differ,
    as hex digits do."""
    return _prove(folder, trials, lambda number: f"{number:07}.gz".translate(_LETTERS))


def _prove(folder: Path, pushes: int, name: Callable[[int], str]) -> Outcome:
    now = time.time()
    file = configuration(folder)
    began = time.monotonic()
    record(folder, file, pushes, name, now)
    recorded = time.monotonic() - began
    faults: list[str] = []
    calls = {words: _fastest(file, *words) for words in (LINE, JSON, ("log", "--json"))}
    expected = f"files={pushes};;;0 bytes={pushes * SIZE}B"
    if expected not in calls[LINE].output:
        faults.append(f"not {expected}: {calls[LINE].output}")
    if len(json.loads(calls[JSON].output)["buckets"]) != BUCKETS:
        faults.append("some buckets are missing")
    if calls["log", "--json"].output.count("\n") != 50:
        faults.append("these are not the latest 50")
    for words, call in calls.items():
        if call.seconds > MOST_SECONDS or call.memory > MOST_MEMORY:
            faults.append(f"{' '.join(words)}: {call}")
    size = os.stat(folder / FILE).st_size
    status = calls[LINE]
    return Outcome(
        f"{pushes:,} pushes, {size / 1e6:.0f} MB, entered in {recorded:.0f} s; status:"
        f" {status}, of which the overview {_overview(folder, file, now):.3f} s;"
        f" as JSON: {calls[JSON]}; log: {calls['log', '--json']}",
        faults,
    )


@frozen
class Call:
    """A command that ended.

    :ivar seconds: wall-clock time
    :ivar memory: peak memory in MiB
    """

    output: str
    seconds: float
    memory: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.memory:.0f} MiB"


def configuration(folder: Path, **more: object) -> Path:
    """Write a configuration with :data:`BUCKETS` buckets.

    :param more: other keys
    """
    buckets = [
        {"name": f"web{number:03}", "token_sha256": f"{number:064x}", "expect": "26h"}
        for number in range(BUCKETS)
    ]
    content = {"home": str(folder), "min_free_space": 0, "buckets": buckets, **more}
    file = folder / "config.json"
    file.write_text(json.dumps(content))
    (folder / ".filebucket").mkdir()
    return file


def received_at(number: int, pushes: int, now: float) -> float:
    """When a push was received."""
    return now - 86400 + 86000 * number / pushes


def record(
    folder: Path,
    file: Path,
    pushes: int,
    name: Callable[[int], str],
    now: float,
    most: int | None = None,
) -> None:
    """Add them in order of time, spread over the last day.

    :param most: stop after this many
    """
    buckets = load(str(file)).buckets
    known = {each.key: each for each in buckets}

    def received() -> Iterator[Received]:
        for number in range(pushes if most is None else most):
            called = name(number)
            yield Received(
                buckets[number % BUCKETS].key,
                series_of(called, ()),
                called,
                SIZE,
                f"{number:064x}",
                received_at(number, pushes, now),
                seconds=0.1,
                client="192.0.2.7:54321",
                request=f"{number:016x}",
            )

    journal = Journal.open(str(folder))
    rest = received()
    while batch := list(islice(rest, BATCH)):
        journal.record(batch, [], known.get)
    list(journal.watch(buckets, str, now))
    journal.close()


def _fastest(file: Path, *words: str) -> Call:
    calls = [call(file, *words) for _ in range(CALLS)]
    return min(calls, key=lambda call: call.seconds)


def call(file: Path, *words: str, patience: float = PATIENCE) -> Call:
    """Run a command.

    :param patience: its timeout in seconds
    """
    began = time.monotonic()
    # The kernel's maximum for children includes their parent's memory before exec.
    program = (
        "import atexit, sys; from pathlib import Path;"
        "status = Path('/proc/self/status');"
        "atexit.register(lambda: sys.stderr.write(status.read_text()));"
        "from filebucket.cli.main import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *words, "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=patience,
    )
    seconds = time.monotonic() - began
    (peak,) = re.findall(r"(?m)^VmHWM:\s+(\d+) kB$", ended.stderr)
    return Call(ended.stdout, seconds, int(peak) / 1024)


def _overview(folder: Path, file: Path, now: float) -> float:
    """Seconds that the overview takes alone."""
    buckets = load(str(file)).buckets
    view = View.open(str(folder), create=False)
    began = time.monotonic()
    make_overview(view, Known(buckets, now), sizes=0)
    seconds = time.monotonic() - began
    view.close()
    return seconds
