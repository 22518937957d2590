"""strace on threads of a running daemon: what they ask of the kernel, and what
becomes of them where the kernel says no.

Left out are calls that only wait for another thread or give memory back: how many
there are is a matter of chance, and nothing can be lost by them.
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
"""The calls that are looked at, as strace has it."""


@frozen
class Call:
    """A system call.

    :param began: where in the trace it began
    :param ended: where in the trace it was over; never, where it was not
    :param text: its arguments and what it gave
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
        """What its descriptors stand for."""
        return re.findall(r"\d+<(.*?)>", self.text)


class Trace:
    """A trace, from when it is entered until it is left."""

    def __init__(
        self, thread: int, output: Path, inject: str = "", follow: bool = False
    ) -> None:
        """
        :param thread: which to trace
        :param inject: what to do to which call, as strace's ``inject`` has it
        :param follow: whether to trace all threads of its process, too
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
        # At SIGINT it lets go of the threads.
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=PATIENCE)

    @property
    def calls(self) -> list[Call]:
        """What was called, in the order of beginning."""
        return read(self._output.read_text().splitlines())


# Where several threads are traced each line begins with its thread's number.
_LINE = re.compile(r"(?:(?P<thread>\d+) +)?(?P<rest>.*)")
_BEGUN = re.compile(r"(?P<name>\w+)\((?P<text>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<text>.*)")


def read(lines: Sequence[str]) -> list[Call]:
    """The calls that strace printed, in the order of beginning."""
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
    """Each call's name, and how many of that name there were up to it: so strace
    counts.
    """
    counts: Counter[str] = Counter()
    found = []
    for call in calls:
        counts[call.name] += 1
        found.append((call.name, counts[call.name]))
    return found


Which: TypeAlias = Callable[[Server], int]
"""Finds a thread of a daemon that runs."""


def reactor(server: Server) -> int:
    """The thread of the reactor."""
    return server.process.pid


def worker(server: Server) -> int:
    """The thread that goes to the disk for pushes, of a daemon that never had two at
    once: the one that publishes.
    """
    return _who(server, lambda call: call.name == "linkat")


def recorder(server: Server) -> int:
    """The thread that writes the catalogue."""
    return _who(
        server,
        lambda call: (
            call.name == "pwrite64" and call.paths[0].endswith(entries.FILE + "-wal")
        ),
        entered=True,
    )


def _who(server: Server, does: Callable[[Call], bool], entered: bool = False) -> int:
    """The one thread that does such a thing for a push.

    :param entered: whether it does so no sooner than the push has a row
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
    """All of them."""
    return {int(each) for each in os.listdir(f"/proc/{server.process.pid}/task")}
