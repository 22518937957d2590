"""Files are copied back with ``filebucket get`` while something goes wrong.

The command stops before one of its calls to the kernel. Then a bit of the stored file
is flipped below its filesystem, the file is pruned or replaced by a push, the target is
filled, or the command gets a signal. Or the call fails. Either the copy is right and
the exit status 0, or nothing is left in the target folder.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC
from functools import partial
from pathlib import Path

from attrs import define, field

from filebucket.catalogue.inventory import Inventory
from filebucket.config.load import load
from filebucket.model.bucket import Bucket
from filebucket.store.remove import removing
from filebucket.store.target import PRIVATE_PREFIX
from filebucket.test.kit.children import bounded
from filebucket.test.kit.server import Server
from filebucket.upkeep.prune import prune
from proofs import entries
from proofs.filesystems import SMALL, Ext4, Fuse, Place, Tmpfs
from proofs.outcome import Outcome, Prove, found_out
from proofs.pushes import content, send, status_of, wrapped
from proofs.rot import bit

SIZES = (1, 100_000, 2_500_000)
"""Bytes of the stored files: one read, or several."""

_STOPPING = """
import os, signal, sys
{flaw}
import filebucket.cli.get
from filebucket.cli.main import main
at, failing = int(sys.argv.pop(1)), int(sys.argv.pop(1))
calls = 0
def stopping(real):
    def call(*given, **named):
        global calls
        calls += 1
        if calls == at:
            if failing:
                raise OSError(failing, os.strerror(failing))
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(*given, **named)
    return call
for name in "open readv write fsync link rename lstat".split():
    setattr(os, name, stopping(getattr(os, name)))
main()
"""
"""The command, which stops or fails before a call."""

_UNCHECKED = """
from filebucket.upkeep import restore
restore.difference = lambda *given: ""
"""

_IN_PLACE = """
from filebucket.store import target
class InPlace:
    def __init__(self, folder, name):
        self.fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder)
    def seal(self):
        os.fsync(self.fd)
    def link(self, name):
        pass
    replace = link
    def discard(self):
        os.close(self.fd)
target._aside = InPlace
"""

WAYS = ("file", "folder", "standard output", "overwrite")
"""The ways to write the copy."""

CHANGES = ("none", "rot", "prune", "push", "full", "fail", "term", "kill")
"""The kinds of trouble."""

CALLS = 15
"""Calls of the command, from its start to its end, besides two for each MiB."""

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)

OWN = "db-1"
"""The name of each stored file."""

NEW = "'"
"""Added to the name for the content of a push that overwrites."""


@define
class _Home:
    """A home with two files for each trial, in a bucket of its own.

    :ivar disk: its filesystem
    :ivar chance: decides what happens
    :ivar flaw: a program that puts a flaw into the command
    :ivar changes: what may go wrong
    :ivar results: number of trials by change and exit status
    :ivar stopped: number of trials in which the command stopped
    """

    disk: Ext4
    server: Server
    chance: random.Random
    flaw: str
    changes: Sequence[str]
    next_changes: list[str] = field(factory=list)
    buckets: dict[str, Bucket] = field(factory=dict)
    results: Counter[str] = field(factory=Counter)
    stopped: int = 0

    def fill(self, trials: int) -> None:
        """Push the files, and wait until they are in the catalogue."""
        self.server.config["buckets"] = [
            {
                "name": f"of-{number}",
                "token": _token(number),
                "overwrite": True,
                "keep": {"last": 1},
                "hold": "0s",
            }
            for number in range(trials)
        ]
        self.server.write_config()
        loaded = load(str(self.server.config_file)).buckets
        self.buckets = {each.label: each for each in loaded}
        self.server.start()
        for number in range(trials):
            # The second one is the last of its series, so that the first is pruned.
            self.push(number, OWN)
            self.push(number, "db-2")
        entries.wait(self.server.home, "db-2", f"of-{trials - 1}")

    def push(self, number: int, name: str, new: str = "") -> None:
        """Push a file.

        :param new: added to its name for its content
        """
        data = content(f"{number}{name}{new}", SIZES[number % len(SIZES)])
        request = wrapped("PUT", name, data, _token(number))
        status = status_of(send(self.server.port, request))
        if status != 200:
            raise AssertionError(f"{name}: {status}")

    def trial(self, number: int, place: Place) -> list[str]:
        """Get a file while something goes wrong; the faults."""
        way = WAYS[number % len(WAYS)]
        change = self._next_change(place)
        target = place.root / f"target-{number}"
        target.mkdir()
        output = {"folder": OWN, "standard output": ""}.get(way, "given")
        before = {"given": b"before"} if way == "overwrite" else {}
        for name, data in before.items():
            (target / name).write_bytes(data)
        right = [content(f"{number}{OWN}", SIZES[number % len(SIZES)])]
        words = {
            "folder": (str(target),),
            "standard output": ("-",),
            "overwrite": (str(target / "given"), "--overwrite"),
        }.get(way, (str(target / "given"),))
        failing = self.chance.choice(ERRORS) if change == "fail" else 0
        pieces = len(right[0]) // 2**20 + 1
        at = self.chance.randrange(1, CALLS + 2 * pieces) if change != "none" else 0
        command = (
            *(sys.executable, "-c", _STOPPING.format(flaw=self.flaw)),
            *(f"{at}", f"{failing}"),
            *("get", f"of-{number}", OWN, "-o", *words),
            *("--config", str(self.server.config_file)),
        )
        # The place may be full, and get must be able to print its message.
        folder = place.root if way == "standard output" else self.server.folder
        printed = folder / "printed"
        with (
            printed.open("wb") as output_file,
            subprocess.Popen(
                command, stdout=output_file, stderr=subprocess.PIPE
            ) as process,
            bounded(process),
        ):
            if _stops(process):
                self.stopped += 1
                self._change(change, number, process, place, right)
                process.send_signal(signal.SIGCONT)
            _, errors = process.communicate()
        (place.root / "ballast").unlink(missing_ok=True)
        there = {each.name: each.read_bytes() for each in target.iterdir()}
        status = process.returncode
        said = f"{change} before call {at} of {way}: exit status {status}"
        self.results[f"{change} {status}"] += 1
        faults = [f"{said}: {errors.decode()}"] if b"Traceback" in errors else []
        wanted = [{**before, output: each} for each in right]
        if way == "standard output":
            wanted = [{}]
            if status == 0 and printed.read_bytes() not in right:
                faults.append(f"{said}: wrong bytes on standard output")
        # A signal may come when the copy is there already.
        elif status and (status < 0 or change == "term"):
            wanted.append(before)
        # The old file cannot be brought back.
        elif status and not (way == "overwrite" and change == "fail"):
            wanted = [before]
        elif status:
            wanted.append(before)
        if status < 0:
            there = self._without_private(there, way, place, right, faults)
        if there not in wanted:
            sizes = {name: len(data) for name, data in there.items()}
            faults.append(f"{said}: {sizes} in the folder")
        if change == "none" and status:
            faults.append(f"{said}: {errors.decode()}")
        for each in target.iterdir():
            each.unlink()
        target.rmdir()
        return faults

    def _next_change(self, place: Place) -> str:
        """Each one comes as often as any other."""
        if not self.next_changes:
            is_small = _size(place) <= SMALL
            found = [each for each in self.changes if is_small or each != "full"]
            self.next_changes = self.chance.sample(found, len(found))
        return self.next_changes.pop()

    def _without_private(
        self,
        there: dict[str, bytes],
        way: str,
        place: Place,
        right: list[bytes],
        faults: list[str],
    ) -> dict[str, bytes]:
        """The files in the folder, without the private file of a killed command.

        On a filesystem with unnamed files, there is none, except a whole one that is
        about to replace another.
        """
        found = {}
        for name, data in there.items():
            if not name.startswith(PRIVATE_PREFIX):
                found[name] = data
                continue
            self.results["private"] += 1
            is_whole = way == "overwrite" and data in right
            if not isinstance(place, Fuse) and not is_whole:
                faults.append(f"a private file is left after {way}")
        return found

    def _change(
        self,
        change: str,
        number: int,
        process: subprocess.Popen[bytes],
        place: Place,
        right: list[bytes],
    ) -> None:
        stored = self.server.home / f"of-{number}" / OWN
        if change == "rot":
            bit(self.disk.image, stored, self.chance)()
        elif change == "push":
            self.push(number, OWN, NEW)
            right.append(content(f"{number}{OWN}{NEW}", len(right[0])))
        elif change == "prune":
            self._prune(self.buckets[f"of-{number}"])
            if stored.exists():
                raise AssertionError("not pruned")
        elif change == "full":
            _fill(place, self.chance.randrange(2 * len(right[0])))
        elif change in {"term", "kill"}:
            process.send_signal(signal.SIGTERM if change == "term" else signal.SIGKILL)

    def _prune(self, bucket: Bucket) -> None:
        home = str(self.server.home)
        now = time.time() + 1
        with closing(Inventory.open(home)) as inventory, removing(home) as remover:
            list(prune(inventory, remover, [bucket], now, UTC, str))


def _token(number: int) -> str:
    return f"{number:032}"


def _size(place: Place) -> int:
    """Bytes of a filesystem."""
    found = os.statvfs(place.root)
    return found.f_blocks * found.f_frsize


def _stops(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a process stops or ends."""
    how = os.WSTOPPED | os.WEXITED | os.WNOWAIT
    found = os.waitid(os.P_PID, process.pid, how)
    return found is not None and found.si_code == os.CLD_STOPPED


def _fill(place: Place, free: int) -> None:
    """Fill a filesystem, except for that many bytes."""
    with suppress(OSError), (place.root / "ballast").open("wb", buffering=0) as file:
        found = os.statvfs(place.root)
        file.write(bytes(max(found.f_bavail * found.f_bsize - free, 0)))


def get(
    place: type[Place],
    folder: Path,
    trials: int,
    flaw: str = "",
    changes: Sequence[str] = CHANGES,
) -> Outcome:
    """Get files into a place."""
    chance = random.Random(f"{place.__name__}{flaw}")
    faults: list[str] = []
    disk = Ext4(folder / "disk")
    disk.size = 4 << 30
    with disk, place(folder / "place") as target:
        server = Server(folder / "daemon", home=str(disk.root / "home"))
        home = _Home(disk, server, chance, flaw, changes)
        try:
            home.fill(trials)
            for number in range(trials):
                faults += home.trial(number, target)
        finally:
            server.stop()
    private = home.results.pop("private", 0)
    counts = ", ".join(f"{n} x {each}" for each, n in sorted(home.results.items()))
    return Outcome(
        f"{trials} files onto {place.__name__}, {home.stopped} stops; by change and"
        f" exit status: {counts}; {private} private files left by SIGKILL;"
        f" {len(faults)} wrong or left",
        faults,
    )


def gets(place: type[Place]) -> Prove:
    """Whether a copy is right, or nothing is left."""
    return partial(get, place)


def unchecked(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects that the checksum is not compared."""
    return found_out(get(Tmpfs, folder, trials, _UNCHECKED, ["rot"]))


def in_place(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects that the file has its name from the start."""
    return found_out(get(Tmpfs, folder, trials, _IN_PLACE, ["kill", "fail"]))
