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
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
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

WAYS = ("file", "folder", "standard output", "overwrite", "command")
"""The ways to write the copy, and a restore test."""

CHANGES = ("none", "rot", "prune", "push", "full", "fail", "term", "kill")
"""The kinds of trouble."""

CALLS = 15
"""Calls of the command, from its start to its end, besides two for each MiB."""

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)

OLD = b"before"
"""The file that is overwritten."""

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
        if way == "overwrite":
            (target / "given").write_bytes(OLD)
        right = [content(f"{number}{OWN}", SIZES[number % len(SIZES)])]
        failing = self.chance.choice(ERRORS) if change == "fail" else 0
        pieces = len(right[0]) // 2**20 + 1
        at = self.chance.randrange(1, CALLS + 2 * pieces) if change != "none" else 0
        # The place may be full, and get must be able to print its message.
        folder = place.root if way == "standard output" else self.server.folder
        printed, seen = folder / "printed", self.server.folder / "seen"
        command = (
            *(sys.executable, "-c", _STOPPING.format(flaw=self.flaw)),
            *(f"{at}", f"{failing}", "get", f"of-{number}", OWN),
            *_options(way, target, seen),
            *("--config", str(self.server.config_file)),
        )
        with (
            printed.open("wb") as output,
            subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE) as process,
            bounded(process),
        ):
            if _stops(process):
                self.stopped += 1
                self._change(change, number, process, place, right)
                process.send_signal(signal.SIGCONT)
            _, errors = process.communicate()
        (place.root / "ballast").unlink(missing_ok=True)
        status = process.returncode
        self.results[f"{change} {status}"] += 1
        found = {each.name: each.read_bytes() for each in target.iterdir()}
        shutil.rmtree(target)
        faults: list[str] = []
        if status == -signal.SIGKILL:
            private = {each for each in found if each.startswith(PRIVATE_PREFIX)}
            self.results["private"] += len(private)
            for each in private:
                faults += _private_faults(way, place, found.pop(each), right)
        if found not in list(_allowed(way, change, status, right)):
            sizes = {name: len(data) for name, data in found.items()}
            faults.append(f"{sizes} in the folder")
        if way == "standard output" and not status:
            faults += _differs(printed, right)
        if way == "command":
            faults += _seen_faults(seen, status, right)
        if b"Traceback" in errors or (status and change == "none"):
            faults.append(errors.decode())
        said = f"{change} before call {at} of {way}: exit status {status}"
        return [f"{said}: {each}" for each in faults]

    def _next_change(self, place: Place) -> str:
        """Each one comes as often as any other."""
        if not self.next_changes:
            is_small = _size(place) <= SMALL
            found = [each for each in self.changes if is_small or each != "full"]
            self.next_changes = self.chance.sample(found, len(found))
        return self.next_changes.pop()

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
            _fill(place, self.chance.randrange(len(right[0])))
        elif change in {"term", "kill"}:
            process.send_signal(signal.SIGTERM if change == "term" else signal.SIGKILL)

    def _prune(self, bucket: Bucket) -> None:
        home = str(self.server.home)
        now = time.time() + 1
        with closing(Inventory.open(home)) as inventory, removing(home) as remover:
            list(prune(inventory, remover, [bucket], now, UTC, str))


def _options(way: str, target: Path, seen: Path) -> tuple[str, ...]:
    """How to write the copy.

    :param seen: a file for the command of a restore test, which is told apart from one
        that ended early by an empty file beside it
    """
    given = str(target / "given")
    whole = _whole(seen)
    whole.unlink(missing_ok=True)
    return {
        "file": ("-o", given),
        "folder": ("-o", str(target)),
        "standard output": ("-o", "-"),
        "overwrite": ("-o", given, "--overwrite"),
        "command": ("--exec", f"cat >{seen} && touch {whole}"),
    }[way]


def _whole(seen: Path) -> Path:
    return seen.with_suffix(".whole")


def _allowed(
    way: str, change: str, status: int, right: Sequence[bytes]
) -> Iterator[dict[str, bytes]]:
    """What may be in the target folder."""
    before = {"given": OLD} if way == "overwrite" else {}
    if way in {"standard output", "command"}:
        yield {}
        return
    if status:
        yield before
    # A signal may come when the copy is there already. The folder may be synced too
    # late to bring the old file back.
    signaled = change in {"term", "kill"}
    if not status or signaled or (way == "overwrite" and change == "fail"):
        for each in right:
            yield {OWN if way == "folder" else "given": each}


def _private_faults(
    way: str, place: Place, data: bytes, right: Sequence[bytes]
) -> Iterator[str]:
    """Faults of a private file of a command that was killed.

    On a filesystem that has files without a name, there is one only at the moment at
    which it replaces another file.
    """
    is_whole = way == "overwrite" and data in right
    if not isinstance(place, Fuse) and not is_whole:
        yield "a private file is left"


def _differs(path: Path, right: Sequence[bytes]) -> Iterator[str]:
    if path.read_bytes() not in right:
        yield "wrong bytes"


def _seen_faults(seen: Path, status: int, right: Sequence[bytes]) -> Iterator[str]:
    """Faults of a restore test: its command must never take wrong bytes for a file."""
    is_whole = _whole(seen).exists()
    if not status and not is_whole:
        yield "passed, though the command did not end"
    # After SIGKILL, the command sees the end of the file.
    if is_whole and status != -signal.SIGKILL:
        yield from _differs(seen, right)


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
        file.write(bytes(max(found.f_bfree * found.f_bsize - free, 0)))


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
