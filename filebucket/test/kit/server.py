"""The real daemon as a child process, for integration tests.

All its output is kept, and at its end searched for the known tokens: none may be in it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filebucket.config.config import EXAMPLE_TOKENS

TOKEN = "d41d8cd98f00b204e9800998ecf8427e"
OTHER = "cafebabe00112233445566778899aabb"
UNKNOWN = TOKEN[::-1]

TOKENS = (TOKEN, OTHER, UNKNOWN, *EXAMPLE_TOKENS)
"""Every token that any test uses, valid or not."""

NOBODY = 65534
"""A user and a group that own nothing."""

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
"""``twistd``, whatever its name is here."""

DAEMON = ("-n", "--pidfile=", "filebucket")
"""The arguments of ``twistd`` for a daemon."""


def hurried(
    module: str, others: Mapping[str, float] | None = None, **seconds: float
) -> tuple[str, ...]:
    """The daemon with some of its own waits shortened.

    The tests of the module check the real values with a fake clock.

    :param module: the module that has these constants
    :param others: constants of other modules, as ``daemon.drift.PATIENCE``
    """
    given = {f"{module}.{name}": value for name, value in seconds.items()}
    lines = []
    for name, value in {**given, **(others or {})}.items():
        constant = f"module.{name.rpartition('.')[2]}"
        lines.append(f"import filebucket.{name.rpartition('.')[0]} as module")
        lines += [f"assert {constant} > {value}", f"{constant} = {value}"]
    return (sys.executable, "-c", "\n".join([*lines, TWISTD[-1]]), *DAEMON)


PATIENCE = 60.0
"""Seconds after which an expected event counts as missing."""


def comes(true: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Poll a condition until it is true.

    If it takes long, such as a command, it is polled half of the time: what the test
    waits for needs the processor, too.

    :param patience: seconds
    :returns: whether it became true
    """
    end = time.monotonic() + patience
    while True:
        start = time.monotonic()
        if true():
            return True
        now = time.monotonic()
        if now >= end:
            return False
        time.sleep(max(0.01, now - start))


def listens(port: int) -> bool:
    """Whether a program listens on this port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def memory_of(pid: int, key: str = "VmHWM") -> int:
    """The memory of a process, in bytes; by default its largest so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


class Server:
    """A daemon in a folder of its own.

    :ivar home: the folder of its buckets
    :ivar url: the URL of its first listener
    :ivar places: its listeners, as in its log
    """

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_file = folder / "config.json"
        self.config: dict[str, Any] = {
            **({} if "listen" in config else {"host": "127.0.0.1", "port": 0}),
            "home": "home",
            "buckets": [TOKEN, {"name": "web01", "token": OTHER}],
            **config,
        }
        self.home = folder / self.config["home"]
        self.write_config()
        self.url = ""
        self.places: list[str] = []
        self._lines: list[str] = []
        self._news = threading.Condition()

    def write_config(self) -> None:
        """Write :attr:`config` to the file, atomically."""
        new = self.config_file.with_suffix(".new")
        new.write_text(json.dumps(self.config))
        new.replace(self.config_file)

    def hook(self, event: str, script: str) -> None:
        """Install a hook."""
        path = self.folder / f"{event}.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, *command: str, environ: Mapping[str, str] | None = None) -> Server:
        """Start or restart it, and wait until it is ready."""
        self._lines = []
        command = command or (*TWISTD, *DAEMON)
        self.process = subprocess.Popen(
            [*command, "--config", str(self.config_file)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.places = self.wait_for(r"ready on (.+?): home ")[1].split(", ")
        # At its start it searches all folders, or another daemon does.
        self.wait_for("catalogue: |another daemon leads")
        first = re.fullmatch(
            r"\S+:(\d+)(?: with (PROXY header)?(?: and )?(TLS)?)?", self.places[0]
        )
        if first:
            self.port = int(first[1])
            self.url = f"http{'s' if first[3] else ''}://127.0.0.1:{self.port}"
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._news:
                    self._lines.append(line.decode("utf-8", "backslashreplace"))
                    self._news.notify_all()
        with self._news:
            self._lines.append("(end)\n")
            self._news.notify_all()

    @property
    def log(self) -> str:
        """Its output since its start."""
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until ``count`` lines of the log match."""

        hits: list[re.Match[str]] = []
        seen = 0

        def over() -> bool:
            nonlocal seen
            news, seen = self._lines[seen:], len(self._lines)
            hits.extend(filter(None, (re.search(pattern, line) for line in news)))
            return len(hits) >= count or self._lines[-1:] == ["(end)\n"]

        with self._news:
            self._news.wait_for(over, PATIENCE)
        if len(hits) < count:
            raise AssertionError(f"no {pattern!r} in:\n{self.log}")
        return hits[count - 1]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def stop(self) -> None:
        """Stop it if it runs, and check that no token was printed."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.wait()
            raise
        for token in TOKENS:
            if token in self.log:
                raise AssertionError(f"a token was printed:\n{self.log}")

    def memory(self) -> int:
        """Its memory, in bytes."""
        return memory_of(self.process.pid, "VmRSS")

    def peak_memory(self) -> int:
        """Its largest memory so far, in bytes."""
        return memory_of(self.process.pid, "VmHWM")

    def open_files(self) -> int:
        """Number of its descriptors, except those of the catalogue, which it opens and
        closes independently of pushes.
        """
        return len(self._descriptors())

    def _descriptors(self) -> list[str]:
        """What its descriptors lead to."""
        found = []
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                leads_to = os.readlink(each)
                if "/.filebucket/catalogue." not in leads_to:
                    found.append(leads_to)
        return found

    def idle_files(self, host: str = "127.0.0.1") -> int:
        """Number of its descriptors without any connection."""
        # Some are opened after it is ready, but before its first answer.
        with socket.create_connection((host, self.port), PATIENCE) as client:
            client.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            if not client.recv(65536).startswith(b"HTTP/1.1 403 "):
                raise AssertionError("no answer to a stranger")
        return self.unconnected_files()

    def unconnected_files(self) -> int:
        """Number of its descriptors, except those of connections."""
        # At its start it searches all folders, and logs the result.
        self.wait_for("catalogue: ")
        others = [each for each in self._descriptors() if "socket:" not in each]
        return len(others) + len(self.places)

    def wait_for_open_files(self, count: int) -> bool:
        """Poll for a number of descriptors: no event reports a close."""
        return comes(lambda: self.open_files() == count)

    def stored(self) -> dict[str, bytes]:
        """All files in the home by path, except the daemon's own."""
        return {
            str(path.relative_to(self.home)): path.read_bytes()
            for path in sorted(self.home.rglob("*"))
            if path.is_file() and ".filebucket" not in path.parts
        }

    def incoming(self) -> list[str]:
        """The private names of files in progress."""
        return os.listdir(self.home / ".filebucket" / "incoming")
