"""The kernel says no, once, at each system call of a push.

What is done to a call is done by strace: the call is not made, and its error is
given in place of its result.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from attrs import frozen

from filebucket.test.kit.server import OTHER, PATIENCE, TOKEN, Server
from proofs import entries
from proofs.filesystems import Place
from proofs.outcome import Outcome, Prove, some
from proofs.pushes import Ledger, residue
from proofs.tracing import Trace, Which, ordinals, reactor, recorder, threads, worker

ERRORS: dict[str, Collection[int]] = {
    "EIO": (503,),
    "ENOSPC": (507,),
    "EDQUOT": (507,),
    "EMFILE": (503,),
    # Most calls are made again then, by Python.
    "EINTR": (200, 503),
}
"""What may be said to a call to the disk, and what may be answered then."""

HARMLESS = ("close", "unlinkat")
"""Calls that clear away: where they fail, the push may have its 200."""

CALLS: dict[Which, Collection[str]] = {
    worker: (
        *("mkdirat", "openat", "newfstatat", "fstat", "fstatfs", "writev"),
        *("fsync", "linkat", "renameat", *HARMLESS),
    ),
    reactor: (
        *("accept4", "getsockname", "setsockopt", "ioctl", "recvfrom", "sendto"),
        *("newfstatat", "write", "shutdown", "close"),
    ),
}
"""The calls that are made to fail. What is left out no kernel refuses so: to be woken
through a pipe, to be told of a descriptor's events, random numbers.
"""

ENTERING = ("openat", "newfstatat", "fstat", "pread64", "pwrite64", "fsync")
"""The same of the thread that enters pushes into the catalogue. To give a lock back is
refused by no kernel, and looks like to take one."""

NAMES = ("new.4096", "new.100000")


@frozen
class _Fault:
    """One fault of one push.

    :param which: the thread that has it
    :param number: which of the calls of that name
    """

    which: Which
    call: str
    number: int
    error: str
    name: str

    def __str__(self) -> str:
        return f"{self.error} from {self.call} {self.number} at {self.name}"

    @property
    def right(self) -> Collection[int | None]:
        """What may be answered."""
        if self.which is worker:
            also = (200,) if self.call in HARMLESS else ()
            return (*ERRORS[self.error], *also)
        if self.call == "newfstatat":
            # Is there a pre-push, or a post-push? Who cannot say refuses the first.
            return (409, 200)
        # The connection's own: it may be lost, and what is answered is checked.
        return (200, None)


def everywhere(place: type[Place], folder: Path, trials: int) -> Outcome:
    """Let each call fail in each way; so many faults, where there are more."""
    wrong: list[str] = []
    answers: Counter[str] = Counter()
    with place(folder / "place") as disk:
        server = Server(folder / "daemon", home=str(disk.root / "home"))
        these = _start(server)
        try:
            faults = list(_faults(server, folder / "trace"))
            for fault in some(faults, trials):
                if threads(server) != these:
                    # A client that was lost left its push beside the next one; or it
                    # was started again.
                    server.stop()
                    these = _start(server)
                status, found = _push(server, fault, folder / "trace")
                answers[str(status or "none")] += 1
                wrong += [f"{fault}: {status}: {each}" for each in found]
        finally:
            server.stop()
    counts = ", ".join(f"{count} x {status}" for status, count in answers.items())
    return Outcome(
        f"{answers.total()} of {len(faults)} faults on {place.__name__}: {counts};"
        f" {len(wrong)} wrong",
        wrong,
    )


def _start(server: Server) -> set[int]:
    """With a thread that has nothing to do, and a catalogue that knows the disk.

    :returns: its threads
    """
    server.start()
    server.wait_for("catalogue: ")
    Ledger().push(server.port, "first.10", token=OTHER)
    return threads(server)


def _faults(server: Server, output: Path) -> Iterator[_Fault]:
    for name in NAMES:
        for which in (reactor, worker):
            shutil.rmtree(server.home / TOKEN, ignore_errors=True)
            before = server.idle_files()
            with Trace(which(server), output) as trace:
                Ledger().push(server.port, name)
                server.wait_for_open_files(before)
            for call, number in ordinals(trace.calls):
                if call in CALLS[which]:
                    for error in ERRORS:
                        yield _Fault(which, call, number, error, name)


def _push(server: Server, fault: _Fault, output: Path) -> tuple[int | None, list[str]]:
    """What a push gets that has this fault, and all that is wrong then."""
    bucket = server.home / TOKEN
    shutil.rmtree(bucket, ignore_errors=True)
    before = server.idle_files()
    ledger = Ledger()
    inject = f"{fault.call}:error={fault.error}:when={fault.number}"
    with Trace(fault.which(server), output, inject) as trace:
        status = ledger.push(server.port, fault.name)
    happened = any(call.failed for call in trace.calls)
    wrong = ledger.faults(bucket)
    if happened and status not in fault.right:
        wrong.append("not the right answer")
    if status not in (200, None) and (bucket / fault.name).exists():
        wrong.append("refused, but there")
    if fault.call in HARMLESS:
        # What could not be cleared away is, at the next start.
        server.stop()
        _start(server)
    again = Ledger()
    if again.push(server.port, "next.4096") != 200:
        wrong.append(f"the next push got {again.statuses}")
    wrong += again.faults(bucket)
    if not server.wait_for_open_files(before):
        wrong.append(f"{server.open_files()} descriptors, not {before}")
    wrong += residue(server.home)
    return status, wrong


def behind_pushes(folder: Path, trials: int) -> Outcome:
    """Let each call fail by which a push is entered into the catalogue; or so many."""
    wrong: list[str] = []
    server = Server(folder / "daemon")
    _start(server)
    calls = list(_entering(server, folder / "trace"))
    faults = [(call, number, error) for call, number in calls for error in ERRORS]
    entered = failed = 0
    try:
        for index, (call, number, error) in enumerate(some(faults, trials)):
            inject = f"{call}:error={error}:when={number}"
            ledger = Ledger()
            with Trace(recorder(server), folder / "trace", inject):
                ledger.push(server.port, f"first-{index}.4096")
                said = _said(server, f"first-{index}.4096")
            entered += said is None
            failed += said is not None
            # It is tried again after a while; nobody waits for that.
            ledger.push(server.port, f"next-{index}.4096")
            found = [f"{name}: {got}" for name, got in ledger.statuses.items()]
            found = [each for each in found if not each.endswith(" 200")]
            if said and "damaged" in said:
                found.append(said)
            server.stop()
            _start(server)
            found += [*ledger.faults(server.home / TOKEN), *entries.faults(server)]
            wrong += [f"{error} from {call} {number}: {each}" for each in found]
    finally:
        server.stop()
    return Outcome(
        f"{entered + failed} of {len(faults)} faults: {entered} entered all the same,"
        f" {failed} not before the next start; {len(wrong)} wrong",
        wrong,
    )


def _entering(server: Server, output: Path) -> list[tuple[str, int]]:
    with Trace(recorder(server), output) as trace:
        Ledger().push(server.port, NAMES[0])
        entries.wait(server.home, NAMES[0])
    found = ordinals(trace.calls)
    return [each for each in found if each[0] in ENTERING]


def _said(server: Server, name: str) -> str | None:
    """What the log says of the catalogue; None when that push is entered."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for line in server.log.splitlines():
            if entries.TROUBLE.search(line):
                return line
        if entries.is_there(server.home, name):
            return None
        time.sleep(0.01)
    raise AssertionError(f"{name} is not entered, and nothing is said")


def answered_rightly(place: type[Place]) -> Prove:
    """Whether no fault there gets a wrong answer, or leaves anything."""
    return partial(everywhere, place)
