"""The system calls for the disk that a push makes before its answer, and their order.

The comparison is exact: a sync that is missing, too early or superfluous is a fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from filebucket.test.kit.server import OTHER, TOKEN, Server
from proofs.daemons import DAEMON, without_sync
from proofs.filesystems import Folder, Fuse, Place
from proofs.outcome import Outcome, Prove, found_out
from proofs.pushes import WAYS, Ledger
from proofs.tracing import Call, Trace

_CALLS = ("mkdirat", "fsync", "fdatasync", "linkat", "renameat", "unlinkat")
_FIRST = ("mkdirat bucket", "fsync home")

EXPECTED: dict[tuple[type[Place], str], tuple[str, ...]] = {
    (Folder, "new"): ("fsync file", "linkat bucket", "fsync bucket", "200"),
    (Folder, "replaced"): (
        "fsync file",
        "linkat bucket",
        "linkat incoming",
        "renameat bucket",
        "fsync bucket",
        "200",
    ),
    (Fuse, "new"): (
        "fsync file",
        "linkat bucket",
        "fsync bucket",
        "unlinkat incoming",
        "200",
    ),
    (Fuse, "replaced"): (
        "fsync file",
        "linkat bucket",
        "renameat bucket",
        "fsync bucket",
        "200",
    ),
}
"""The calls that a push must make, by place and by what happens to its name. A push
that may overwrite and finds no file is like a new one."""

SIZES = (0, 4096, 100_000)


def order(
    place: type[Place], command: Sequence[str], folder: Path, trials: int
) -> Outcome:
    """Push in every way a number of times, and compare the calls."""
    faults: list[str] = []
    count = 0
    with place(folder / "place") as disk:
        server = Server(folder / "daemon", home=str(disk.root / "home"))
        server.hook("pre-push", 'case "$2" in re*|may*) exit 2;; esac')
        server.start(*command)
        try:
            # Creates the thread; the first push is not checked.
            Ledger().push(server.port, "first.10", token=OTHER)
            for number in range(trials):
                faults += _pushes(place, server, folder / "trace", number)
                count += len(WAYS) * len(SIZES) * 3
        finally:
            server.stop()
    wrong = f"{len(faults)} not in order"
    return Outcome(f"{count} pushes on {place.__name__}, {wrong}", faults)


def _pushes(
    place: type[Place], server: Server, output: Path, number: int
) -> Iterator[str]:
    ledger = Ledger()
    for how in WAYS:
        for size in SIZES:
            for what in ("new", "may-replace", "replaced"):
                name = f"{what}-{number}-{how}.{size}"
                if what == "replaced":
                    ledger.push(server.port, name, how)
                first = TOKEN not in os.listdir(server.home)
                with Trace(server.process.pid, output, follow=True) as trace:
                    status = ledger.push(server.port, name, how)
                asks = EXPECTED[place, "replaced" if what == "replaced" else "new"]
                expected = (*(_FIRST if first else ()), *asks)
                found = tuple(asked(trace.calls))
                if status != 200 or found != expected:
                    yield f"{name}: {status}, {', '.join(found)}"
    yield from ledger.faults(server.home / TOKEN)


def asked(calls: list[Call]) -> Iterator[str]:
    """The calls that matter, in a word or two, and those that overlap with the one
    before."""
    over = -1.0
    for call in calls:
        word = _word(call)
        if word is None:
            continue
        yield word if call.began > over else f"{word} too early"
        over = call.ended


def _word(call: Call) -> str | None:
    if call.name in ("sendto", "sendmsg", "writev") and "HTTP/1.1 200" in call.text:
        return "200"
    if call.name not in _CALLS:
        return None
    return f"{call.name} {_kind(call.paths[-1], call)}"


def _kind(path: str, call: Call) -> str:
    if call.name == "mkdirat":
        return "bucket"
    return {TOKEN: "bucket", "incoming": "incoming", "home": "home"}.get(
        os.path.basename(path), "file"
    )


def in_order(place: type[Place]) -> Prove:
    """Whether pushes to a home there make all calls in order."""
    return partial(order, place, DAEMON)


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects a missing sync."""
    return found_out(order(Folder, without_sync("directory"), folder, trials))
