"""Injects one error from the kernel at each system call of a push.

strace injects it: the call is not made, and returns the error.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from attrs import frozen

from filebucket.test.kit.server import OTHER, PATIENCE, TOKEN, Server, comes
from proofs import entries
from proofs.daemons import STEADY
from proofs.filesystems import Folder, Place
from proofs.outcome import Outcome, Prove, some
from proofs.pushes import Ledger, residue, send
from proofs.resumed import SteadyLedger
from proofs.tracing import Call, Trace, Which, ordinals, reactor, recorder, worker

ERRORS: dict[str, Collection[int]] = {
    "EIO": (503,),
    "ENOSPC": (507,),
    "EDQUOT": (507,),
    "EMFILE": (503,),
    # Python repeats most calls after that.
    "EINTR": (200, 503),
}
"""Errors for calls to the disk, and the answers that are allowed then."""

HARMLESS = ("close", "unlinkat")
"""Calls that clean up: if they fail, the push may still get its 200."""

CALLS: dict[Which, Collection[str]] = {
    worker: (
        *("mkdirat", "openat", "newfstatat", "fstat", "fstatfs", "writev"),
        *("write", "ftruncate", "fsync", "linkat", "renameat", *HARMLESS),
    ),
    reactor: (
        *("accept4", "getsockname", "setsockopt", "ioctl", "recvfrom", "sendto"),
        *("newfstatat", "write", "shutdown", "close"),
    ),
}
"""The calls that are made to fail. The kernel never fails the others like this:
wake-ups through a pipe, polling of descriptors, random numbers."""

ENTERING = (
    *("openat", "newfstatat", "fstat", "pread64", "pwrite64", "fsync", "fdatasync"),
    "ftruncate",
)
"""The same for the thread that writes the catalogue. The kernel never fails to release
a lock, and strace cannot tell that from taking one."""

NAMES = ("new.4096", "new.100000")
"""A push of few bytes makes all its calls to the disk at its end."""

NAMES_OF_RESUMED = NAMES[1:]
"""A part of few bytes makes no other calls than one of many."""

OF_PYTHON = re.compile(r"/uploads/\w+\.new|/proc/\d+/fdinfo/\d+")
"""Files that Python's ``open`` stats, and uses although that fails: the record of a
resumable upload, and the description of a descriptor."""

_ABOUT = re.compile(r'(?:\w+<(.*?)>)?(?:, "(.*?)")?')
"""The descriptor and the name in the arguments of a call."""

_ID = re.compile(r"\b[0-9a-f]{32}\b|\b\d+\b")

STRANGER = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
"""A request that the daemon answers if it answers at all."""


@frozen
class _Fault:
    """One fault in one push.

    :param which: the thread in which the call fails
    :param number: the ordinal of the call among those of its name
    :param may_pass: whether the push may get its 200 all the same
    :param late: whether the push is published when the call fails
    :param about: what the call is about: the same in each push
    """

    which: Which
    call: str
    number: int
    error: str
    name: str
    may_pass: bool
    late: bool
    about: str

    def __str__(self) -> str:
        return (
            f"{self.error} from {self.call} {self.number} ({self.about}) at {self.name}"
        )

    @property
    def right(self) -> Collection[int | None]:
        """The answers that are allowed."""
        if self.which is worker:
            also = (200,) if self.may_pass else ()
            return (*ERRORS[self.error], *also)
        if self.call == "newfstatat":
            # Whether there is a pre-push or post-push hook: if the daemon cannot find
            # out, it refuses, except after the push. The 503 is that of the end of a
            # resumable upload, which is kept then.
            return (409, 503, 200)
        # The connection's own calls: it may break, and the answer is checked.
        return (200, None)


def everywhere(
    place: type[Place],
    kind: type[Ledger],
    names: Sequence[str],
    folder: Path,
    trials: int,
) -> Outcome:
    """Make each call fail in each way, or only ``trials`` of them."""
    wrong: list[str] = []
    answers: Counter[str] = Counter()
    with place(folder / "place") as disk:
        home = str(disk.root / "home")
        server = Server(folder / "daemon", home=home, max_unfinished=10_000)
        _start(server)
        try:
            faults = list(_faults(server, kind, names, folder / "trace"))
            for fault in some(faults, trials):
                status, found = _push(server, fault, kind, folder / "trace")
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


def _start(server: Server) -> None:
    """Start a daemon with an up-to-date catalogue."""
    server.start(*STEADY)
    server.wait_for("catalogue: ")
    Ledger().push(server.port, "first.10", token=OTHER)


def _faults(
    server: Server, kind: type[Ledger], names: Sequence[str], output: Path
) -> Iterator[_Fault]:
    for name in names:
        for which in (reactor, worker):
            shutil.rmtree(server.home / TOKEN, ignore_errors=True)
            before = server.idle_files()
            with Trace(which(server), output) as trace:
                kind().push(server.port, name)
                server.wait_for_open_files(before)
            found = zip(ordinals(trace.calls), allowed(trace.calls), strict=True)
            for call, (counted, (may_pass, late)) in zip(
                trace.calls, found, strict=True
            ):
                # A worker wakes the reactor through a pipe.
                wakes = which is worker and call.on.startswith("pipe:")
                if call.name in CALLS[which] and not wakes:
                    about = _about(call)
                    for error in ERRORS:
                        yield _Fault(
                            which, *counted, error, name, may_pass, late, about
                        )


def allowed(calls: Sequence[Call]) -> Iterator[tuple[bool, bool]]:
    """For each call of a worker: whether the push may get its 200 although the call
    fails, and whether the push is published by then."""
    linked = published = False
    before = None
    for call in calls:
        if call.name == "ftruncate":
            # An upload is cut to its size when it is opened, after a look at it; and
            # once more when it is closed.
            looked = before is not None and before.stats and before.on == call.on
            may_pass = not looked
        else:
            may_pass = call.stats and OF_PYTHON.search(call.on) is not None
        # After the sync of the folder, only the record of the end is missing.
        yield may_pass or call.name in HARMLESS or published, published
        linked = linked or call.name == "linkat"
        published = published or (linked and call.stats)
        before = call


def _about(call: Call) -> str:
    """The paths in a call, without what differs in each push."""
    found = _ABOUT.match(call.text)
    about = " ".join(each for each in found.groups() if each) if found else ""
    return _ID.sub("ID", about)


def _push(
    server: Server, fault: _Fault, kind: type[Ledger], output: Path
) -> tuple[int | None, list[str]]:
    """The answer to a push with this fault, and all problems after it."""
    bucket = server.home / TOKEN
    shutil.rmtree(bucket, ignore_errors=True)
    before = server.idle_files()
    ledger = kind()
    inject = f"{fault.call}:error={fault.error}:when={fault.number}"
    with Trace(fault.which(server), output, inject) as trace:
        status = ledger.push(server.port, fault.name)
    if status is None:
        # Out of descriptors, it drops all that connect at that moment.
        comes(lambda: send(server.port, STRANGER) != b"")
    failed = [_about(call) for call in trace.calls if call.failed]
    happened = bool(failed)
    wrong = ledger.faults(bucket)
    # The reactor makes more calls or fewer, as bytes come.
    if fault.which is worker and failed != [fault.about]:
        wrong.append(f"other calls failed: {failed}")
    if happened and status not in fault.right:
        wrong.append("the wrong answer")
    if status not in (200, None) and (bucket / fault.name).exists():
        wrong.append("refused, but stored")
    if fault.late or fault.call == "close" or (fault.may_pass and residue(server.home)):
        # Leftovers are removed at the next start, and a missing end is recorded. A
        # close that strace makes fail leaves a descriptor; the kernel would not.
        server.stop()
        _start(server)
    wrong += ledger.after(server.port, server.home)
    again = Ledger()
    if again.push(server.port, "next.4096") != 200:
        wrong.append(f"the next push got {again.statuses}")
    wrong += again.faults(bucket)
    if not server.wait_for_open_files(before):
        wrong.append(f"{server.open_files()} descriptors, not {before}")
    wrong += residue(server.home)
    return status, wrong


def behind(place: type[Place], folder: Path, trials: int) -> Outcome:
    """Make each call of adding a push to the catalogue fail, or only ``trials`` of
    them."""
    with place(folder / "place") as disk:
        server = Server(folder / "daemon", home=str(disk.root / "home"))
        _start(server)
        return _behind(server, folder, trials)


def _behind(server: Server, folder: Path, trials: int) -> Outcome:
    wrong: list[str] = []
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
            # It tries again after a while; no push waits for that.
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
    """The log lines about the catalogue; None once that push is added."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for line in server.log.splitlines():
            if entries.TROUBLE.search(line):
                return line
        if entries.is_there(server.home, name):
            return None
        time.sleep(0.01)
    raise AssertionError(f"{name} is not added, and nothing is logged")


def behind_pushes(place: type[Place]) -> Prove:
    """Whether no fault in adding a push to the catalogue affects pushes."""
    return partial(behind, place)


def answered_rightly(place: type[Place]) -> Prove:
    """Whether no fault causes a wrong answer, or leaves anything behind."""
    return partial(everywhere, place, Ledger, NAMES)


def resumed_answered_rightly(folder: Path, trials: int) -> Outcome:
    """The same for the creation, a part and the end of a resumable upload, which must
    go on after the fault."""
    return everywhere(Folder, SteadyLedger, NAMES_OF_RESUMED, folder, trials)
