"""The power is cut while ``filebucket prune`` deletes files.

Files that prune did not list are there, complete. Files that it listed as pruned stay
away. If a file is gone, its row has the reason, since that is written before the file
is removed. After another prune, exactly the right files are left.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from subprocess import Popen

from filebucket.catalogue.journal import Journal
from filebucket.config.load import load
from filebucket.model.bucket import Bucket
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.test.kit.children import bounded
from filebucket.test.kit.server import Server
from proofs import entries
from proofs.daemons import PRUNE, prune_without_sync
from proofs.filesystems import Ext4
from proofs.outcome import Outcome, found_out
from proofs.pushes import expected, named

SERIES = 60
"""Series in the bucket: each is a round of catalogue, files, folder and catalogue."""

FILES = 8
"""Files of each series, two of which are kept."""

DAY = 24 * 3600.0

BUCKET = "web01"

MOST_SECONDS = 0.01
"""Seconds between an output line and a cut, at most."""


def cut(command: Sequence[str], folder: Path, trials: int) -> Outcome:
    """Prune, cut, check; a number of times, each on a new filesystem."""
    chance = random.Random("prune")
    faults: list[str] = []
    said = back = begun = 0
    for number in range(trials):
        with Ext4(folder / f"disk-{number}") as disk:
            home = disk.root / "home"
            server = Server(folder / f"daemon-{number}", home=str(home))
            server.config["buckets"][1]["keep"] = {"last": 2}
            server.write_config()
            going = fill(home, load(str(server.config_file)).buckets[1])
            with bounded(_prune(server, command)) as pruning:
                # Each line is flushed, so after this number of lines the cut comes in
                # the middle of work.
                wanted = chance.randrange(SERIES * FILES)
                removed = _removed(pruning.stdout, wanted)
                time.sleep(chance.uniform(0, MOST_SECONDS))
                disk.cut()
                pruning.send_signal(signal.SIGKILL)
                removed |= _removed(pruning.stdout)
            disk.restore()
            found = [*entries.left(home), *_faults(home, going, removed)]
            there = _there(home)
            begun += any(
                at and fate == "kept"
                for fate, at in entries.fates(home, BUCKET).values()
            )
            found += _afterwards(server, going)
        said += len(removed)
        back += len(going & there)
        faults += [f"cut {number}: {fault}" for fault in found]
    return Outcome(
        f"{trials} cuts of Ext4: {begun} of them amid a round; {said:,} files said to"
        f" be removed, {back:,} still there; {len(faults)} lost, back or without a"
        " reason",
        faults,
    )


def fill(home: Path, bucket: Bucket) -> set[str]:
    """Files that were pushed some time ago, and are on the disk.

    :returns: those that must be pruned
    """
    (home / ".filebucket").mkdir(parents=True)
    (home / BUCKET).mkdir()
    now = time.time()
    going = set()
    rows = []
    for series in range(SERIES):
        letters = chr(97 + series // 26) + chr(97 + series % 26)
        for age in range(1, FILES + 1):
            name = named(f"{letters}-{age}", 1000)
            file = home / BUCKET / name
            file.write_bytes(expected(name))
            at = now - (age + 30) * DAY
            os.utime(file, (at, at))
            size, sha256 = entries.said(file)
            of = series_of(name, bucket.series)
            rows.append(
                Received(bucket.key, of, name, size, sha256, at, request="proof")
            )
            if age > 2:
                going.add(name)
    with closing(Journal.open(str(home))) as journal:
        journal.record(rows, (), lambda key: bucket)
    os.sync()
    return going


def _prune(server: Server, command: Sequence[str]) -> Popen[str]:
    return Popen(
        [*command, "--config", str(server.config_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _removed(output: Iterable[str] | None, lines: int | None = None) -> set[str]:
    """The files listed as pruned, in this number of lines or in all."""
    assert output is not None
    found = set()
    for line in islice(output, lines):
        if match := re.match(r"  pruned .* (\S+)$", line):
            found.add(match[1])
    return found


def _there(home: Path) -> set[str]:
    return set(os.listdir(home / BUCKET))


def _faults(home: Path, going: set[str], removed: set[str]) -> Iterator[str]:
    """Faults on the disk and in the rows."""
    there = _there(home)
    kept = {
        named(f"{chr(97 + n // 26)}{chr(97 + n % 26)}-{age}", 1000)
        for n in range(SERIES)
        for age in (1, 2)
    }
    yield from (f"{name}: lost" for name in kept - there)
    yield from (f"{name}: back" for name in removed & there)
    yield from (f"{name}: removed, though it must stay" for name in removed - going)
    for name in there:
        if (home / BUCKET / name).read_bytes() != expected(name):
            yield f"{name}: changed"
    fates = entries.fates(home, BUCKET)
    for name in (kept | going) - set(fates):
        yield f"{name}: no row"
    for name, (fate, at) in fates.items():
        if fate == "pruned" and name in there:
            yield f"{name}: there, though its row has it as pruned"
        if name not in there and fate != "pruned" and at is None:
            yield f"{name}: gone, though its row has it as kept"


def _afterwards(server: Server, going: set[str]) -> Iterator[str]:
    """Faults after a start of the daemon and another prune."""
    server.start()
    try:
        yield from entries.faults(server, BUCKET, BUCKET)
    finally:
        server.stop()
    yield from _missing(server.home)
    with bounded(_prune(server, PRUNE)) as pruning:
        _removed(pruning.stdout)
    if pruning.returncode:
        yield f"the second prune ended with {pruning.returncode}"
    if (left := _there(server.home) & going) or len(_there(server.home)) != SERIES * 2:
        yield f"after the second prune, {len(left)} files are left"
    yield from _missing(server.home)


def _missing(home: Path) -> Iterator[str]:
    for name, (fate, _) in entries.fates(home, BUCKET).items():
        if fate not in ("kept", "pruned"):
            yield f"{name}: {fate} in its row"


def survives(folder: Path, trials: int) -> Outcome:
    """Whether no file is lost, comes back, or has an unclear state."""
    return cut(PRUNE, folder, trials)


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects that the folder is not synced."""
    return found_out(cut(prune_without_sync(), folder, trials))
