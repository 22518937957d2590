"""filebucket-push pushes again and again through a proxy that resets connections."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filebucket.test.kit.cutter import Relay, reset
from filebucket.test.kit.server import OTHER, PATIENCE, Server
from proofs.outcome import Outcome, found_out
from proofs.pushes import expected, named, residue

RESET = 0.01
"""Share of connections that are reset before the first byte."""

CUT = 0.1
"""Share of connections that are cut later: after some bytes in one of the two
directions."""

WORKERS = 4

SIZES = {"small": 50_000, "file": 6_000_000, "command": 3_000_000, "failing": 3_000_000}
"""Mean number of bytes of each kind of push. ``failing`` is a command that fails."""

_LONGEST = 5 * PATIENCE


class Resetter(Relay):
    """Passes bytes on to a port of this machine, and resets some connections.

    :ivar connections: number of connections so far
    :ivar resets: number of those that it has reset
    """

    def __init__(self, target: int, chance: random.Random, cut: float) -> None:
        """
        :param target: the port
        :param cut: share of connections that are cut after some bytes
        """
        self._chance = chance
        self._cut = cut
        self.connections = self.resets = 0
        super().__init__(target)

    def _connected(self, near: socket.socket) -> None:
        self.connections += 1
        kind = self._chance.random()
        if kind < RESET:
            self._reset(near)
            return
        far = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
        limits: list[int | None] = [None, None]
        if kind < RESET + self._cut:
            # The answers to a push have a few hundred bytes.
            most = self._chance.choice([600, 6_000_000])
            way = 1 if most == 600 and self._chance.random() < 0.5 else 0
            limits[way] = self._chance.randrange(most)
        up, down = limits
        self._pass_on(
            near,
            far,
            lambda near, far: self._pass(near, far, up),
            lambda near, far: self._pass(far, near, down),
        )

    def _pass(
        self, source: socket.socket, sink: socket.socket, most: int | None
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if most is not None and len(data) > most:
                    sink.sendall(data[:most])
                    self._reset(source, sink)
                    return
                sink.sendall(data)
                most = None if most is None else most - len(data)
            sink.shutdown(socket.SHUT_WR)
            return
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _reset(self, *ends: socket.socket) -> None:
        with self._lock:
            self.resets += 1
        reset(*ends)


class Pushes:
    """Clients that push files and the output of commands until they are stopped.

    :ivar statuses: the exit status of each push, by its name
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        kinds: Sequence[str],
        command: Callable[[Path, str], Sequence[str]],
    ) -> None:
        """
        :param kinds: keys of :data:`SIZES`
        :param command: the command that pushes a file, for its path and its kind
        """
        self.statuses: dict[str, int] = {}
        self.said: dict[str, str] = {}
        self._folder = folder
        self._kinds = kinds
        self._command = command
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "FILEBUCKET_URL": url,
        }
        self._threads = [
            threading.Thread(target=self._work, args=(number,))
            for number in range(WORKERS)
        ]

    def run(self, seconds: float, meanwhile: Callable[[], object]) -> None:
        """Let them push for that time.

        :param meanwhile: is called again and again
        """
        for thread in self._threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            meanwhile()
            time.sleep(0.05)
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: int) -> None:
        chance = random.Random(worker)
        number = 0
        while not self._stopped.is_set():
            kind = chance.choice(self._kinds)
            size = chance.randrange(1, 2 * SIZES[kind])
            name = named(f"{kind}-{worker}-{number}", size)
            number += 1
            path = self._folder / name
            path.write_bytes(expected(name))
            done = subprocess.run(
                self._command(path, kind),
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LONGEST,
                check=False,
            )
            path.unlink()
            with self._lock:
                self.statuses[name] = done.returncode
                self.said[name] = done.stderr.strip()


def _push(path: Path, kind: str) -> Sequence[str]:
    client = (sys.executable, "-m", "filebucket.client", "--retry-for", "60")
    if kind in ("small", "file"):
        return (*client, str(path))
    script = 'cat "$0"; exit 1' if kind == "failing" else 'cat "$0"'
    return (
        *(*client, "--part-size", "1", "--name", path.name),
        *("--exec", "--", "sh", "-c", script, str(path)),
    )


def _curl(path: Path, kind: str) -> Sequence[str]:
    script = (
        f'cat "$0" | curl -sS --fail-with-body --retry 5 --retry-delay 1'
        f' --retry-all-errors -T - "$FILEBUCKET_URL/{OTHER}/$1"'
    )
    return ("sh", "-c", script, str(path), path.name)


def resets(folder: Path, trials: int) -> Outcome:
    """Push for some seconds; nothing may be lost, torn, stored twice or left."""
    return _prove(folder, trials, tuple(SIZES), _push, CUT)


def tells(folder: Path, trials: int) -> Outcome:
    """The same with the output of commands, and curl, which sends the rest of a pipe
    again."""
    return found_out(_prove(folder, trials, ("command",), _curl, 3 * CUT))


def _prove(
    folder: Path,
    seconds: int,
    kinds: Sequence[str],
    command: Callable[[Path, str], Sequence[str]],
    cut: float,
) -> Outcome:
    (folder / ".file-bucket").write_text(f"Authorization: Bearer {OTHER}\n")
    server = Server(folder / "daemon", max_unfinished=1000).start()
    bucket = server.home / "web01"
    partial: set[str] = set()

    def look() -> None:
        with suppress(FileNotFoundError):
            partial.update(
                f"{entry.name}: visible with {entry.stat().st_size} bytes"
                for entry in os.scandir(bucket)
                if entry.stat().st_size != int(entry.name.rpartition(".")[2])
            )

    try:
        proxy = Resetter(server.port, random.Random("resets"), cut)
        pushes = Pushes(folder, f"http://127.0.0.1:{proxy.port}", kinds, command)
        try:
            pushes.run(seconds, look)
        finally:
            proxy.close()
        look()
        faults = [*sorted(partial), *_faults(pushes, bucket), *residue(server.home)]
    finally:
        server.stop()
    stored = Counter(re.findall(r" push bucket=web01 name='(\S+)'", server.log))
    faults += [
        f"{name}: stored {count} times" for name, count in stored.items() if count > 1
    ]
    uploads = server.home / ".filebucket" / "uploads"
    left = sum(not each.suffix for each in uploads.iterdir())
    ends = Counter(pushes.statuses.values())
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(ends.items()))
    return Outcome(
        f"{seconds} s: {proxy.connections} connections, {proxy.resets} reset; exit"
        f" statuses {counts}; {left} unfinished uploads, which expire;"
        f" {len(faults)} lost, torn, partial, stored twice or left",
        faults,
    )


def _faults(pushes: Pushes, bucket: Path) -> list[str]:
    faults = []
    names = set(os.listdir(bucket)) if bucket.exists() else set()
    for name, status in pushes.statuses.items():
        fails = name.startswith("failing")
        if status == 0 and (fails or name not in names):
            faults.append(f"{name}: exit status 0, and not stored")
        if fails and name in names:
            faults.append(f"{name}: stored, although its command failed")
        if (fails and status == 1) or (not fails and status not in (0, 75)):
            faults.append(f"{name}: exit status {status}: {pushes.said[name]}")
    faults += [
        f"{name}: differs from the bytes that were sent"
        for name in sorted(names)
        if (bucket / name).read_bytes() != expected(name)
    ]
    return faults + [f"{name}: not pushed" for name in names - pushes.statuses.keys()]
