"""Programs of a cluster on this machine, which can be killed and started again.

All of them end with the process that started them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.server import PATIENCE, comes, memory_of

ENDS = 20.0
"""Seconds that a program has to end before it is killed."""

_PORTS = range(15_000, 32_000)
"""Below those that Linux gives to connections (ip_local_port_range)."""

_numbers = itertools.count(251 * os.getpid())
"""Of the next ports. Processes that start together begin elsewhere."""

TIED = ("setpriv", "--pdeathsig=KILL")
"""Before a command: it ends with the thread that started it."""


def found(program: str, package: str) -> str:
    """The path of a program, which may be beside this Python.

    :raises SkipTest: it is not installed
    """
    beside = Path(sys.executable).parent / program
    path = shutil.which(program) or shutil.which(beside)
    if path is None:
        raise SkipTest(f"{package} is not installed")
    return path


def free_ports(count: int) -> list[int]:
    """Ports of this machine that are free now, and that no connection gets as its own
    end meanwhile. Each is given once: its program may not listen yet.
    """
    found: list[int] = []
    for number in itertools.islice(_numbers, len(_PORTS)):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no ports are free")


def answers(url: str) -> bool:
    """Whether an HTTP server answers, whatever the status."""
    return _status(url) is not None


def refuses(url: str) -> bool:
    """Whether an HTTP server answers, and refuses a request without a token or key."""
    return _status(url) == 403


def _status(url: str) -> int | None:
    """The status that a server answers with; None if there is no answer."""
    try:
        with urlopen(url, timeout=PATIENCE) as answer:
            status: int = answer.status
            return status
    except HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


class Program:
    """A program that runs until it is stopped.

    :ivar log: the file with all its output
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        command: Sequence[str],
        ready: Callable[[], bool],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """
        :param folder: its current folder, which gets its log
        :param ready: whether it has started
        """
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._ready = ready
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Program:
        """Start it or start it again, and wait until it is ready."""
        self.begin()
        self.wait()
        return self

    def begin(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*TIED, *self._command],
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(self._environ or {})},
                # Ctrl-C reaches only the process that started it.
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it is ready.

        :raises AssertionError: it has ended, or is not ready in time
        """
        if not comes(lambda: self._ready() or not self.runs) or not self.runs:
            end = self.log.read_text("utf-8", "replace")[-2000:]
            raise AssertionError(f"{self.name} does not start:\n{end}")

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def peak_memory(self) -> int:
        """Its largest memory so far, in bytes."""
        assert self._process is not None
        return memory_of(self._process.pid)

    def send(self, number: int) -> None:
        """Send it a signal. After SIGSTOP none of its threads runs any more."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """Kill it."""
        self._end(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Let it end, if it runs."""
        self._end(number)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(ENDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
