"""A measured program: its processor time, its memory, its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE = 120.0
"""Timeout in seconds for expected events."""

LONGEST = 1800.0
"""Seconds that a load takes at most."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A running server with all its children.

    :ivar log: the file with all its output
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
            )

    def wait_for_port(self, port: int) -> None:
        """Return when the port is open."""
        for _ in self._tries():
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return

    def wait_for_line(self, text: str, count: int = 1) -> None:
        """Return when it has printed ``count`` lines with ``text`` in them."""
        for _ in self._tries():
            if self.count_lines(text) >= count:
                return

    def count_lines(self, text: str) -> int:
        """The number of its output lines with ``text`` in them."""
        printed = self.log.read_text("utf-8", "replace")
        return sum(text in line for line in printed.splitlines())

    def _tries(self) -> Iterator[None]:
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._popen.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(
                    f"{self.log.stem} is not up:\n{self.log.read_text()}"
                )
            yield
            time.sleep(0.001)

    def stop(self) -> None:
        """End it."""
        self._popen.terminate()
        try:
            self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(LONGEST)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def cpu(self) -> float:
        """Seconds of processor time, user and system, so far: its own, its children's,
        and that of children that have ended."""
        return sum(_cpu(stat) for stat in self._read("stat"))

    def memory(self) -> int:
        """Bytes that are resident now."""
        return sum(_bytes(status, "VmRSS") for status in self._read("status"))

    def peak_memory(self) -> int:
        """Peak resident memory in bytes since :meth:`forget_peak`."""
        return sum(_bytes(status, "VmHWM") for status in self._read("status"))

    def forget_peak(self) -> None:
        """Reset the peak to the current value."""
        for pid in self._pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _read(self, name: str) -> Iterator[str]:
        """The kernel's data about each of its running processes."""
        for pid in self._pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield Path(f"/proc/{pid}/{name}").read_text()

    def _pids(self) -> list[int]:
        found = [self._popen.pid]
        for pid in found:
            with suppress(FileNotFoundError, ProcessLookupError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    children = (task / "children").read_text().split()
                    found.extend(int(child) for child in children)
        return found


def _cpu(stat: str) -> float:
    # proc(5): utime, stime, cutime and cstime are the fields 14 to 17; the second
    # field, the name, is in parentheses and may contain anything.
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / _TICKS


def _bytes(status: str, key: str) -> int:
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return 0


def run(command: Sequence[str]) -> str:
    """The output of a program that succeeds.

    :raises RuntimeError: it failed; with its output
    """
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=LONGEST
    )
    if ended.returncode:
        raise RuntimeError(f"{command[0]}: {ended.stderr.strip()}")
    return ended.stdout
