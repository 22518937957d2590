"""Runs strace on threads of a running daemon: records their system calls, and injects
errors.

Calls that only wait for another thread or free memory are left out: their number is
random, and they cannot lose anything.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from attrs import frozen

from filebucket.test.kit.children import deadline
from filebucket.test.kit.server import OTHER, PATIENCE, Server
from proofs import entries
from proofs.pushes import Ledger

CALLS = "!futex,mmap,munmap,mprotect,madvise,brk,rt_sigreturn,restart_syscall"
"""The calls that are traced, for strace."""


@frozen
class Call:
    """A system call.

    :param began: its first line in the trace
    :param ended: its last line in the trace; infinity if it did not end
    :param text: its arguments and its result
    """

    thread: int
    name: str
    text: str
    began: int
    ended: float

    @property
    def failed(self) -> bool:
        """Whether strace made it fail."""
        return self.text.endswith("(INJECTED)")

    @property
    def paths(self) -> list[str]:
        """The paths of its descriptors."""
        return re.findall(r"\d+<(.*?)>", self.text)

    @property
    def on(self) -> str:
        """The path of the descriptor that is its first argument; empty if there is
        none."""
        found = re.match(r"\d+<(.*?)>", self.text)
        return found[1] if found else ""

    @property
    def stats(self) -> bool:
        """Whether it stats a descriptor."""
        return self.name == "fstat" or (
            self.name == "newfstatat" and "AT_EMPTY_PATH" in self.text
        )


class Trace:
    """A trace, from enter to exit."""

    def __init__(
        self, thread: int, output: Path, inject: str = "", follow: bool = False
    ) -> None:
        """
        :param thread: the thread to trace
        :param inject: the call and its error, as strace's ``inject``
        :param follow: whether to trace all threads of its process
        """
        self._thread = thread
        self._output = output
        self._options = [f"--inject={inject}"] if inject else []
        self._options += ["--follow-forks"] if follow else []

    def __enter__(self) -> Trace:
        self._process = subprocess.Popen(
            [
                "strace",
                "--decode-fds=path",
                "--string-limit=16",
                f"--output={self._output}",
                f"--trace={CALLS}",
                f"--attach={self._thread}",
                *self._options,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        with deadline(self._process):
            line = self._process.stderr.readline()
        if "attached" not in line:
            raise RuntimeError(line)
        return self

    def __exit__(self, *ignored: object) -> None:
        # At SIGINT it detaches from the threads.
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=PATIENCE)

    @property
    def calls(self) -> list[Call]:
        """The calls, in the order in which they began."""
        return read(self._output.read_text().splitlines())


# If several threads are traced, each line begins with the thread's number.
_LINE = re.compile(r"(?:(?P<thread>\d+) +)?(?P<rest>.*)")
_BEGUN = re.compile(r"(?P<name>\w+)\((?P<text>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<text>.*)")


def read(lines: Sequence[str]) -> list[Call]:
    """The calls that strace printed, in the order in which they began."""
    found: list[Call] = []
    open_calls: dict[int, int] = {}
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        thread, rest = int(match["thread"] or 0), match["rest"]
        if resumed := _RESUMED.match(rest):
            begun = open_calls.pop(thread, None)
            if begun is not None:
                call = found[begun]
                text = call.text + resumed["text"]
                found[begun] = Call(thread, call.name, text, call.began, number)
        elif begun_now := _BEGUN.match(rest):
            name, text = begun_now["name"], begun_now["text"]
            unfinished = text.endswith("<unfinished ...>")
            if unfinished:
                open_calls[thread] = len(found)
                text = text.removesuffix("<unfinished ...>")
            ended = float("inf") if unfinished else number
            found.append(Call(thread, name, text, number, ended))
    return found


def ordinals(calls: Sequence[Call]) -> list[tuple[str, int]]:
    """Each call's name with its ordinal among calls of that name, as strace counts."""
    counts: Counter[str] = Counter()
    found = []
    for call in calls:
        counts[call.name] += 1
        found.append((call.name, counts[call.name]))
    return found


Which: TypeAlias = Callable[[Server], int]
"""Finds a thread of a running daemon."""


def reactor(server: Server) -> int:
    """The thread of the reactor."""
    return server.process.pid


def worker(server: Server) -> int:
    """The thread that publishes pushes, in a daemon that never had two at once."""
    return _who(server, lambda call: call.name == "linkat")


def recorder(server: Server) -> int:
    """The thread that writes the catalogue."""
    return _who(
        server,
        lambda call: call.name == "pwrite64" and call.paths[0].endswith(entries.LOGS),
        entered=True,
    )


def _who(server: Server, does: Callable[[Call], bool], entered: bool = False) -> int:
    """The one thread that makes such a call for a push.

    :param entered: whether it makes the call only after the push has a row
    """
    name = f"who-{time.monotonic_ns()}.10"
    with tempfile.NamedTemporaryFile() as output:
        with Trace(server.process.pid, Path(output.name), follow=True) as trace:
            Ledger().push(server.port, name, token=OTHER)
            if entered:
                entries.wait(server.home, name, "web01")
        (found,) = {call.thread for call in trace.calls if does(call)}
    return found


def threads(server: Server) -> set[int]:
    """All threads."""
    return {int(each) for each in os.listdir(f"/proc/{server.process.pid}/task")}
