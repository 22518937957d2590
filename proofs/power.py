"""Power cuts: the filesystem is shut down while clients push.

Data that was not flushed does not reach the disk, not even the journal. Then the daemon
is killed and the filesystem mounted again, as after a start of the machine.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from filebucket.test.kit.server import TOKEN, Server
from proofs import entries
from proofs.daemons import DAEMON, KEEPING, told_early, without_sync
from proofs.filesystems import Ext4, Loop
from proofs.outcome import Outcome, Prove, found_out
from proofs.pushes import SIZES, Ledger, OverwritingLedger, Uploaders
from proofs.resumed import ResumedLedger

MOST_SECONDS = 0.7
"""Seconds that clients push before a cut, at most."""


def cut(
    filesystem: type[Loop],
    command: Sequence[str],
    kind: type[Ledger],
    folder: Path,
    trials: int,
    clients: int = 4,
    sizes: tuple[int, ...] = SIZES,
) -> Outcome:
    """Push, cut, check; a number of times, each on a new filesystem.

    :param clients: number of clients that push at once
    """
    chance = random.Random(filesystem.__name__)
    acknowledged = under_way = 0
    faults: list[str] = []
    for number in range(trials):
        ledger = kind()
        seconds = chance.uniform(0.01, MOST_SECONDS)
        with filesystem(folder / f"disk-{number}") as disk:
            home = disk.root / "home"
            server = Server(
                folder / f"daemon-{number}", home=str(home), max_unfinished=1000
            )
            if kind is OverwritingLedger:
                server.config["buckets"] = [{"token": TOKEN, "overwrite": True}]
                server.write_config()
            server.start(*command)
            try:
                with Uploaders(server.port, ledger, f"{number}", clients, sizes):
                    time.sleep(seconds)
                    disk.cut()
                    server.signal(signal.SIGKILL)
            finally:
                server.stop()
            disk.restore()
            found = [*ledger.faults(home / TOKEN), *entries.left(home)]
            server.start(*command)
            try:
                found += entries.faults(server)
                found += ledger.after(server.port, home)
            finally:
                server.stop()
        acknowledged += len(ledger.acknowledged)
        under_way += list(ledger.statuses.values()).count(None)
        faults += [f"cut {number}: {fault}" for fault in found]
    return Outcome(
        f"{trials} cuts of {filesystem.__name__}: {acknowledged:,} files acknowledged,"
        f" {under_way} pushes cut short, {len(faults)} lost or torn",
        faults,
    )


def survives(filesystem: type[Loop]) -> Prove:
    """Whether files that were answered with 200 survive."""
    return partial(cut, filesystem, DAEMON, Ledger)


def survives_together(filesystem: type[Loop]) -> Prove:
    """The same for small files, which the daemon publishes together."""
    small = SIZES[:3]
    return partial(cut, filesystem, DAEMON, Ledger, clients=16, sizes=small)


def survives_overwriting(filesystem: type[Loop]) -> Prove:
    """Whether the last or a later one of several overwriting pushes survives."""
    return partial(cut, filesystem, DAEMON, OverwritingLedger)


def survives_resumed(filesystem: type[Loop]) -> Prove:
    """Whether the offsets that clients were told survive, and whole files."""
    return partial(cut, filesystem, KEEPING, ResumedLedger)


def tells_resumed(what: str) -> Prove:
    """Whether the experiment detects an offset that is told too early."""

    def prove(folder: Path, trials: int) -> Outcome:
        return found_out(cut(Ext4, told_early(what), ResumedLedger, folder, trials))

    return prove


def tells(kind: str) -> Prove:
    """Whether the experiment detects a missing sync."""

    def prove(folder: Path, trials: int) -> Outcome:
        return found_out(cut(Ext4, without_sync(kind), Ledger, folder, trials))

    return prove
