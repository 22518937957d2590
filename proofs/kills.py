"""The daemon is killed before each system call of a push, and at random times under
load. Then it is started again on the same home."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired

from filebucket.test.kit.server import OTHER, TOKEN, Server
from proofs import entries
from proofs.filesystems import Folder, Place
from proofs.outcome import Outcome, Prove, some
from proofs.pushes import Ledger, TogetherLedger, Uploaders, count, residue
from proofs.resumed import ResumedLedger
from proofs.tracing import Trace, Which, ordinals, reactor, recorder, worker

NAME = "file.4096"

LOOKS = (
    *("newfstatat", "fstat", "fstatfs", "lseek", "ioctl", "read", "getrandom"),
    *("getsockname", "setsockopt", "epoll_ctl", "epoll_wait"),
)
"""Calls that change nothing on the disk and tell a client nothing: a kill before one is
the same as a kill before the next other call."""

KILLED_WITHIN = 2.0
"""Seconds after the answer in which a call must come to be a point for a kill."""

MOST_SECONDS = 0.5
"""Seconds that clients push before the daemon is killed, at most."""


def at_every_call(
    place: type[Place],
    of: Sequence[Which],
    kind: type[Ledger],
    leave_out: Collection[str],
    folder: Path,
    trials: int,
) -> Outcome:
    """Kill before each call of each thread, or before only ``trials`` of them.

    :param leave_out: calls before which it is not killed
    """
    faults: list[str] = []
    answers: dict[str, int | None] = {}
    missed = 0
    with place(folder / "place") as disk:
        server = Server(folder / "daemon", home=str(disk.root / "home"))
        points = [
            (which, name, number)
            for which, name, number in _points(server, of, kind, folder / "trace")
            if name not in leave_out
        ]
        for which, name, number in some(points, trials):
            where = f"{name} {number} of the {which.__name__}"
            inject = f"{name}:signal=KILL:when={number}"
            ledger, killed = _pushed(server, which, kind, folder / "trace", inject)
            answers[where] = ledger.statuses[NAME]
            missed += not killed
            faults += [f"{where}: {each}" for each in entries.left(server.home)]
            faults += [f"{where}: {each}" for each in _after_restart(server, ledger)]
    return Outcome(
        f"killed before {len(answers) - missed} of {len(points)} calls on"
        f" {place.__name__}: {count(answers)}; {len(faults)} lost, torn or left",
        faults,
    )


def _points(
    server: Server, of: Sequence[Which], kind: type[Ledger], output: Path
) -> Iterator[tuple[Which, str, int]]:
    """Each call of a push: its thread, its name and its ordinal."""
    for which in of:
        with _without_the_bucket(server):
            before = server.idle_files()
            with Trace(which(server), output) as trace:
                kind().push(server.port, NAME)
                server.wait_for_open_files(before)
                if which is recorder:
                    entries.wait(server.home, NAME)
        if kind.makes and kind.makes not in {call.name for call in trace.calls}:
            raise AssertionError(f"no {kind.makes}")
        for name, number in ordinals(trace.calls):
            yield which, name, number


def _pushed(
    server: Server, which: Which, kind: type[Ledger], output: Path, inject: str
) -> tuple[Ledger, bool]:
    """Push to a daemon that will be killed, and return whether it was."""
    ledger = kind()
    with _without_the_bucket(server):
        with Trace(which(server), output, inject):
            ledger.push(server.port, NAME)
            # Some of its calls come after the answer.
            with suppress(TimeoutExpired):
                server.process.wait(KILLED_WITHIN)
        return ledger, server.process.returncode is not None


@contextmanager
def _without_the_bucket(server: Server) -> Iterator[None]:
    """Run a daemon without the bucket, until it has checked its disk and has an idle
    thread."""
    shutil.rmtree(server.home, ignore_errors=True)
    with _running(server):
        server.wait_for("catalogue: ")
        Ledger().push(server.port, NAME, token=OTHER)
        yield


@contextmanager
def _running(server: Server) -> Iterator[None]:
    """Run the daemon, and kill it if it is still running."""
    server.start()
    try:
        yield
    finally:
        if server.process.poll() is None:
            server.signal(signal.SIGKILL)
        server.stop()


def _after_restart(server: Server, ledger: Ledger) -> Iterator[str]:
    """Faults in the home, and in the answer to a retry."""
    was = ledger.statuses[NAME]
    with _running(server):
        yield from _wrong(server, ledger)
        yield from ledger.after(server.port, server.home)
        again = Ledger()
        status = again.push(server.port, NAME)
        if status not in ((405,) if was == 200 else (200, 405)):
            yield f"{was}, then {status}"
        yield from again.faults(server.home / TOKEN)


def _wrong(server: Server, ledger: Ledger) -> list[str]:
    return [
        *ledger.faults(server.home / TOKEN),
        *residue(server.home),
        *entries.faults(server),
    ]


def under_load(folder: Path, trials: int) -> Outcome:
    """Kill at random times while clients push, always on the same home."""
    chance = random.Random("kills")
    server = Server(folder / "daemon")
    faults: list[str] = []
    acknowledged = under_way = 0
    before = Ledger()
    for number in range(trials):
        ledger = Ledger()
        with _running(server):
            # Leftovers of the run before, after this start.
            faults += [f"kill {number}: {each}" for each in _wrong(server, before)]
            shutil.rmtree(server.home / TOKEN, ignore_errors=True)
            with Uploaders(server.port, ledger, f"{number}"):
                time.sleep(chance.uniform(0.01, MOST_SECONDS))
                server.signal(signal.SIGKILL)
        acknowledged += len(ledger.acknowledged)
        under_way += list(ledger.statuses.values()).count(None)
        before = ledger
    return Outcome(
        f"{trials} kills: {acknowledged:,} files acknowledged, {under_way} pushes cut"
        f" short, {len(faults)} lost, torn or left",
        faults,
    )


def survives_every_call(place: type[Place]) -> Prove:
    """Whether a home there survives a kill at every call of a push."""
    return partial(at_every_call, place, (reactor, worker), Ledger, ())


def survives_together(folder: Path, trials: int) -> Outcome:
    """Whether it survives a kill at every call of pushes that are published together
    that does more than look."""
    return at_every_call(Folder, (worker,), TogetherLedger, LOOKS, folder, trials)


def survives_resumed(folder: Path, trials: int) -> Outcome:
    """Whether it survives a kill at every call of a resumable upload that does more
    than look: of its creation, of its parts and of its end."""
    of = reactor, worker
    return at_every_call(Folder, of, ResumedLedger, LOOKS, folder, trials)


def survives_in_catalogue(place: type[Place]) -> Prove:
    """Whether it survives a kill at every call of adding a push to the catalogue."""
    return partial(at_every_call, place, (recorder,), Ledger, ())
