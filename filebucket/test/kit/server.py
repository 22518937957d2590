"""The real daemon as a child process, for integration tests.

Everything that it prints is kept, and at its end searched for the tokens that
it was given: none may be there.
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
"""Every token that any test uses, be it right or wrong."""

NOBODY = 65534
"""A user and a group that own nothing."""

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
"""``twistd``, under whatever name it is installed."""

_DAEMON = ("-n", "--pidfile=", "filebucket")


def hurried(module: str, **seconds: float) -> tuple[str, ...]:
    """The daemon, with some of its own waits made shorter.

    How long they are the tests of the module see, by a frozen clock.

    :param module: the one of ours whose constants these are
    """
    lines = [f"import filebucket.{module} as module"]
    for name, value in seconds.items():
        lines += [f"assert module.{name} > {value}", f"module.{name} = {value}"]
    return (sys.executable, "-c", "\n".join([*lines, TWISTD[-1]]), *_DAEMON)


PATIENCE = 60.0
"""Seconds after which something that should happen counts as not happening."""


def comes(true: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Wait until something is so of which nothing tells.

    :param patience: seconds
    :returns: whether it is
    """
    end = time.monotonic() + patience
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


class Server:
    """A daemon in a folder of its own.

    :ivar home: where its buckets are
    :ivar url: where it listens first
    :ivar places: all the places where it listens, as its log has them
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
        """Put :attr:`config` into the file, at once."""
        new = self.config_file.with_suffix(".new")
        new.write_text(json.dumps(self.config))
        new.replace(self.config_file)

    def hook(self, event: str, script: str) -> None:
        """Install a hook."""
        path = self.folder / f"{event}.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, *command: str, environ: Mapping[str, str] | None = None) -> Server:
        """Start it, or start it again, and wait until it is ready."""
        self._lines = []
        command = command or (*TWISTD, *_DAEMON)
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
        # At its start it looks into all folders.
        self.wait_for("catalogue: ")
        first = re.fullmatch(
            r"\S+:(\d+)(?: with (PROXY header)?(?: and )?(TLS)?)?", self.places[0]
        )
        if first:
            self.port = int(first[1])
            self.url = f"http{'s' if first[3] else ''}://127.0.0.1:{self.port}"
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line.decode("utf-8", "backslashreplace"))
                self._news.notify_all()
        with self._news:
            self._lines.append("(end)\n")
            self._news.notify_all()

    @property
    def log(self) -> str:
        """Everything that it printed since it was started."""
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until a line of the log matches, for the ``count``th time."""

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
        """Wait for its end; its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def stop(self) -> None:
        """End it, be it running still, and see that no token was printed."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.wait()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()
        for token in TOKENS:
            if token in self.log:
                raise AssertionError(f"a token was printed:\n{self.log}")

    def memory(self) -> int:
        """The memory that it has, in bytes."""
        return self._status("VmRSS") * 1024

    def peak_memory(self) -> int:
        """The most memory that it had so far, in bytes."""
        return self._status("VmHWM") * 1024

    def _status(self, key: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def open_files(self) -> int:
        """How many descriptors it has, but for those of its catalogue, which it opens
        and closes behind pushes."""
        return len(self._descriptors())

    def _descriptors(self) -> list[str]:
        """What they lead to."""
        found = []
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                leads_to = os.readlink(each)
                if "/.filebucket/catalogue." not in leads_to:
                    found.append(leads_to)
        return found

    def idle_files(self, host: str = "127.0.0.1") -> int:
        """How many descriptors it has while nobody is connected."""
        # When it says that it is ready it has not opened all of them; when it answers
        # somebody it has.
        with socket.create_connection((host, self.port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            if not client.recv(65536).startswith(b"HTTP/1.1 403 "):
                raise AssertionError("no answer to a stranger")
        return self.unconnected_files()

    def unconnected_files(self) -> int:
        """How many descriptors it has beside those of its connections."""
        # At its start it looks into all folders, which it then says.
        self.wait_for("catalogue: ")
        others = [each for each in self._descriptors() if "socket:" not in each]
        return len(others) + len(self.places)

    def wait_for_open_files(self, count: int) -> bool:
        """Wait until it has so many: nothing tells when one is closed."""
        return comes(lambda: self.open_files() == count)

    def stored(self) -> dict[str, bytes]:
        """All files under the home but the daemon's own, by path."""
        return {
            str(path.relative_to(self.home)): path.read_bytes()
            for path in sorted(self.home.rglob("*"))
            if path.is_file() and ".filebucket" not in path.parts
        }

    def incoming(self) -> list[str]:
        """What waits under private names."""
        return os.listdir(self.home / ".filebucket" / "incoming")
