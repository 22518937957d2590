"""Files are copied with ``filebucket copy`` while something goes wrong.

Connections to the other server are reset at random bytes. At one of these moments
either daemon is ended or killed, and started again; or the command is killed; or a
second one is started; or the token is revoked; or files are replaced or pruned. Or some
files are rotten before. After that, a copy in peace must find or bring everything: each
file that is kept is on the other side once, as it was received, and in order.
"""

from __future__ import annotations

import hashlib
import json
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
from pathlib import Path

from attrs import define, field

from filebucket.catalogue.files import Files
from filebucket.catalogue.inventory import Inventory
from filebucket.config.load import load
from filebucket.store.remove import removing
from filebucket.test.kit.children import bounded
from filebucket.test.kit.cutter import Cutter
from filebucket.test.kit.server import (
    OTHER,
    PATIENCE,
    UNKNOWN,
    Server,
    comes,
    hurried,
)
from filebucket.upkeep.prune import prune
from proofs.outcome import Outcome, found_out
from proofs.pushes import content, residue, send, status_of, wrapped

SIZES = (0, 1, 4096, 100_000, 4 * 2**20, 4 * 2**20 + 1, 9_000_000)
"""Bytes of the files: up to 4 MiB are sent in one request."""

CHANGES = (
    *("none", "end far", "kill far", "end near", "kill near", "kill copy", "twice"),
    *("revoke", "replace", "prune", "rot"),
)
"""The kinds of trouble."""

BUCKETS = {"plain": OTHER, "replacing": "1" * 32}
"""Names and tokens."""

MOST_CUTS = 4
"""Connections that are cut in a trial."""

FILES = 4
"""Files that are new in a trial, in each bucket."""

LONGEST = 5 * PATIENCE
"""Seconds of a copy. A daemon that is shutting down has it wait for one minute."""

_UNCHECKED = """
import hashlib, os, sys
from filebucket.cli import copy
from filebucket.cli.main import main
def digest(self, wait):
    size = os.fstat(self._file().fd).st_size
    return hashlib.sha256(os.pread(self._file().fd, size, 0)).hexdigest()
copy._Stored.digest = digest
main()
"""
"""The command, which sends the checksum of what it reads."""


@define
class _Sites:
    """Two servers.

    :ivar command: the command
    :ivar versions: the contents that each file had
    :ivar statuses: number of disturbed copies by change and exit status
    """

    near: Server
    far: Server
    command: Sequence[str]
    chance: random.Random
    versions: dict[tuple[str, str], list[bytes]] = field(factory=dict)
    statuses: Counter[str] = field(factory=Counter)
    cuts: int = 0
    files: int = 0

    def start(self) -> None:
        for server in (self.near, self.far):
            server.start(*FORGIVING)
            # The same port after a restart.
            server.config["port"] = server.port
            server.write_config()
        (self.near.folder / "copy.json").write_text(json.dumps(BUCKETS))

    def push(self, bucket: str, name: str, data: bytes) -> None:
        """Push a file to the near server, and wait until it is in the catalogue."""
        request = wrapped("PUT", name, data, BUCKETS[bucket])
        status = status_of(send(self.near.port, request))
        if status != 200:
            raise AssertionError(f"{bucket}/{name}: {status}")
        digest = hashlib.sha256(data).hexdigest()
        if not comes(lambda: self._digest(bucket, name) == digest):
            raise AssertionError(f"{bucket}/{name} is not in the catalogue")
        self.versions.setdefault((bucket, name), []).append(data)

    def _digest(self, bucket: str, name: str) -> str:
        with closing(Files.open(str(self.near.home))) as files:
            found = files.named(bucket, name)
        return found.received.sha256 if found and not found.damaged else ""

    def trial(self, number: int, change: str) -> list[str]:
        """Push files, and copy them, disturbed and in peace; the faults."""
        for each in range(FILES):
            name, size = f"{number:04}-{each}", self.chance.choice(SIZES)
            for bucket in BUCKETS:
                self.push(bucket, name, content(f"{bucket}{name}", size))
                self.files += 1
        # Replaced before the copy: it must replace what was copied in an earlier trial.
        self._replace()
        rotten = self._rotten(number) if change == "rot" else []
        said, faults = f"trial {number}, {change}", []
        status, output = self._disturbed(change)
        self.statuses[f"{change} {status}"] += 1
        if "Traceback" in output:
            faults.append(f"{said}: {output}")
        if status == 0 and change != "replace":
            faults += self._missing(f"{said}, exit status 0", rotten)
        for bucket, name in rotten:
            # The client still has the file.
            self._heal(bucket, name)
        status, output = self.copy(self.far.port)
        if status:
            faults.append(f"{said}: a copy in peace fails: {output}")
        faults += self._missing(said, [])
        return faults + self._wrong(said)

    def _replace(self) -> None:
        old = [name for bucket, name in self.versions if bucket == "replacing"]
        name = self.chance.choice(old)
        self.push("replacing", name, content(f"{name}{time.time()}", 50_000))

    def _heal(self, bucket: str, name: str) -> None:
        data = self.versions[bucket, name][-1]
        done = subprocess.run(
            [*_FILEBUCKET, "verify", "--config", str(self.near.config_file)],
            check=False,
            timeout=PATIENCE,
            capture_output=True,
        )
        request = wrapped("PUT", name, data, BUCKETS[bucket])
        digest = hashlib.sha256(data).hexdigest()
        head = f"X-Checksum-Sha256: {digest}\r\n\r\n".encode()
        answer = send(self.near.port, request.replace(b"\r\n\r\n", b"\r\n" + head, 1))
        if status_of(answer) != 200:
            raise AssertionError(f"{name} is not healed: {answer!r} {done.stdout!r}")
        if not comes(lambda: self._digest(bucket, name) == digest):
            raise AssertionError(f"{name} is not healed in the catalogue")

    def _rotten(self, number: int) -> list[tuple[str, str]]:
        """Flip a bit of some files."""
        found = []
        for bucket in BUCKETS:
            for each in range(FILES):
                path = self.near.home / bucket / f"{number:04}-{each}"
                if path.stat().st_size and self.chance.random() < 0.5:
                    with path.open("r+b") as file:
                        file.seek(self.chance.randrange(path.stat().st_size))
                        (byte,) = file.read(1)
                        file.seek(-1, os.SEEK_CUR)
                        file.write(bytes([byte ^ 1]))
                    found.append((bucket, path.name))
        return found

    def _disturbed(self, change: str) -> tuple[int, str]:
        """The exit status and the output of a copy while something goes wrong."""
        spread = self.chance.choice((3_000, 300_000, 20_000_000))
        offsets = [self.chance.randrange(spread) for _ in range(MOST_CUTS)]
        at = self.chance.randrange(1, MOST_CUTS + 1)
        running: list[subprocess.Popen[str]] = []

        def between(cut: int) -> None:
            if cut == at:
                self._change(change, running)

        cutter = Cutter(self.far.port, offsets, between)
        try:
            with self._copying(cutter.port) as process, bounded(process, LONGEST):
                running.append(process)
                output, _ = process.communicate()
        finally:
            cutter.close()
        self.cuts += cutter.cuts
        for each in running[1:]:
            with bounded(each):
                second, _ = each.communicate()
                output += second
                self.statuses[f"second {each.returncode}"] += 1
        if change == "revoke":
            self._tokens(BUCKETS)
        return process.returncode, output

    def _change(self, change: str, running: list[subprocess.Popen[str]]) -> None:
        what, _, which = change.partition(" ")
        if which in {"far", "near"}:
            server = self.far if which == "far" else self.near
            server.signal(signal.SIGTERM if what == "end" else signal.SIGKILL)
            server.wait()
            server.start(*FORGIVING)
        elif change == "kill copy":
            running[0].kill()
        elif change == "twice":
            running.append(self._copying(self.far.port))
        elif change == "revoke":
            self._tokens(dict.fromkeys(BUCKETS, UNKNOWN), "plain")
        elif change == "replace":
            self._replace()
        elif change == "prune":
            self._prune()

    def _tokens(self, tokens: dict[str, str], *only: str) -> None:
        self.far.config["buckets"] = _buckets(
            {
                name: tokens[name] if not only or name in only else BUCKETS[name]
                for name in BUCKETS
            }
        )
        self.far.write_config()
        subprocess.run(
            [*_FILEBUCKET, "reload", "--config", str(self.far.config_file)],
            check=True,
            timeout=PATIENCE,
            capture_output=True,
        )

    def _prune(self) -> None:
        """Prune all but the newest files."""
        home = str(self.near.home)
        buckets = load(str(self.near.config_file)).buckets
        with closing(Inventory.open(home)) as inventory, removing(home) as remover:
            list(prune(inventory, remover, buckets, time.time() + 1, UTC, str))

    def _copying(self, port: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *self.command,
                *("copy", f"http://127.0.0.1:{port}", "--retry-for", "10m"),
                *("--config", str(self.near.config_file)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def copy(self, port: int) -> tuple[int, str]:
        """The exit status and the output of a copy."""
        with self._copying(port) as process, bounded(process, LONGEST):
            output, _ = process.communicate()
        return process.returncode, output

    def _missing(self, said: str, rotten: Sequence[tuple[str, str]]) -> list[str]:
        """The files of the near server that are not on the far one as they are."""
        there = self.far.stored()
        return [
            f"{said}: {path} {'differs' if path in there else 'is not there'}"
            for path, data in self.near.stored().items()
            if there.get(path) != data and tuple(path.split("/")) not in rotten
        ]

    def _wrong(self, said: str) -> list[str]:
        """Faults of the far server: damage, and content that was never pushed."""
        verified = subprocess.run(
            [*_FILEBUCKET, "verify", "--config", str(self.far.config_file)],
            check=False,
            timeout=PATIENCE,
            capture_output=True,
            text=True,
        )
        found = [] if verified.returncode == 0 else [f"{said}: {verified.stdout}"]
        for path, data in self.far.stored().items():
            bucket, _, name = path.partition("/")
            if data not in self.versions.get((bucket, name), []):
                found.append(f"{said}: {path} has content that was never pushed")
        return found


_FILEBUCKET = (sys.executable, "-m", "filebucket")


FORGIVING = hurried("push.guesses", WINDOW=1.0)
"""The daemon, which compares checksums again after many wrong ones in a second."""


def _buckets(tokens: dict[str, str]) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "token": token,
            "overwrite": name == "replacing",
            "keep": {"last": 3 * FILES},
            "hold": "0s",
        }
        for name, token in tokens.items()
    ]


def _sites(folder: Path, command: Sequence[str]) -> _Sites:
    near, far = (
        Server(folder / name, buckets=_buckets(BUCKETS)) for name in ("near", "far")
    )
    return _Sites(near, far, command, random.Random(0))


def arrive(folder: Path, trials: int) -> Outcome:
    """Copy while something goes wrong."""
    return _tried(_sites(folder, _FILEBUCKET), trials, CHANGES)


def unchecked(folder: Path, trials: int) -> Outcome:
    """The same with a command that does not use the checksums of the catalogue."""
    command = (sys.executable, "-c", _UNCHECKED)
    return found_out(_tried(_sites(folder, command), trials, ["rot"]))


def _tried(sites: _Sites, trials: int, changes: Sequence[str]) -> Outcome:
    faults: list[str] = []
    try:
        sites.start()
        for number in range(trials):
            faults += sites.trial(number, changes[number % len(changes)])
        faults += residue(sites.far.home)
    finally:
        for server in (sites.near, sites.far):
            with suppress(AttributeError):
                server.stop()
    statuses = ", ".join(f"{key}: {n}" for key, n in sorted(sites.statuses.items()))
    return Outcome(
        f"{trials} disturbed copies of {sites.files} new files, {sites.cuts}"
        f" connections cut; exit statuses {statuses}",
        faults,
    )
