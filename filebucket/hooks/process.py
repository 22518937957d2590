"""A child process with limits on its time and on its output.

It runs without a shell, with /dev/null as standard input, and in its own session, so
that all its children can be killed together at its timeout; children that left the
session are found by their environment. Its standard error goes to the log.

It has ended when the process itself exits: a background child may hold the pipes open
for any time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import (
    IProcessTransport,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from filebucket.base.alarm import Alarm
from filebucket.hooks.interfaces import Exit

MOST_OUTPUT = 1024 * 1024
"""Bytes of standard output that are kept; the rest is dropped."""
MOST_STDERR = 64 * 1024
"""Bytes of standard error that are logged."""
MOST_LINE = 1024
"""Bytes of a line of standard error that are logged."""
MOST_LINES = 1000
"""Lines of standard error that are logged: each adds 100 bytes to the log, and takes
the reactor 0.1 ms."""

KILL_AFTER = 5.0
"""Seconds between TERM and KILL."""
PIPES_AFTER = 0.5
"""Seconds that the pipes stay open after the exit. The process's own output is in them
already; only a background child can hold them longer."""
TURNS = 8
"""Turns of the reactor, after that, in which it reads what is in the pipes: it may have
been busy until then. A pipe holds 64 KiB, and Twisted reads 8 KiB of it in a turn."""

END_TIMEOUT = KILL_AFTER + PIPES_AFTER + 1.0
"""Seconds after which a process that was told to end has ended, unless it cannot be
killed."""

MOST_SEARCHES = 16
"""Searches for the children of a process: each finds those that started during the one
before."""

SETSID = b"/usr/bin/setsid"
"""From util-linux: creates a session and executes the program, without a fork."""


class Reactor(IReactorProcess, IReactorTime):
    """The parts of the reactor that a process needs."""


class BoundedProcess(ProcessProtocol):
    """One child process.

    :ivar ended: fires with the :class:`Exit`, never with a failure
    """

    transport: IProcessTransport

    def __init__(
        self,
        reactor: Reactor,
        timeout: float,
        errors: LineLog,
        kill_group: Callable[[int, int], None],
        kill_strays: Callable[[Collection[bytes]], None],
    ) -> None:
        """
        :param timeout: seconds until it is ended
        :param errors: takes its standard error
        :param kill_group: sends a signal to a process group
        :param kill_strays: as :func:`kill_marked`
        """
        self._reactor = reactor
        self._timeout = timeout
        self._kill_group = kill_group
        self._kill_strays = kill_strays
        self._alarm = Alarm(reactor)
        self._output = bytearray()
        self._errors = errors
        self._marks: Sequence[bytes] = ()
        self._timed_out = False
        self._stopped = False
        self._exit: Exit | None = None
        self.ended: Deferred[Exit] = Deferred()

    def start(
        self,
        arguments: Sequence[bytes],
        environment: Mapping[bytes, bytes],
        marks: Sequence[bytes],
    ) -> None:
        """Start a program.

        :param arguments: its absolute path first
        :param marks: environment variables, as ``name=value``, that no other process
            has
        :raises OSError: no descriptors are left; or, if Twisted uses posix_spawn (24.11
            and later), there is no such program
        """
        self._marks = marks
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._reactor.spawnProcess(
                self,
                SETSID,
                [b"setsid", *arguments],
                env=environment,
                childFDs={0: null, 1: "r", 2: "r"},
            )
        finally:
            os.close(null)

    def connectionMade(self) -> None:
        self._pid: int = self.transport.pid
        self._alarm.set(self._timeout, self._deadline)

    def _deadline(self) -> None:
        self._timed_out = True
        self._end()

    def stop(self) -> None:
        """End it because the daemon shuts down, unless it is ending already."""
        # If it has exited, only its pipes are open, and not for long; if it is at its
        # timeout, a second request must not delay its KILL.
        if self._exit is None and not self._ending:
            self._stopped = True
            self._end()

    @property
    def _ending(self) -> bool:
        return self._timed_out or self._stopped

    def outReceived(self, data: bytes) -> None:
        self._output += data[: MOST_OUTPUT - len(self._output)]

    def errReceived(self, data: bytes) -> None:
        self._errors.write(data)

    def _end(self) -> None:
        """Send TERM to it and its children, and KILL after :data:`KILL_AFTER`."""
        self._signal(signal.SIGTERM)
        self._alarm.set(KILL_AFTER, self._kill)

    def processExited(self, reason: Failure) -> None:
        self._exit = self._ended_with(reason)
        self._alarm.stop()
        if self._ending:
            # Its children have had their TERM, and have no parent to wait for them. The
            # number was freed a moment ago but still means this group: Linux does not
            # reuse it while a group has it, and otherwise uses all other numbers first.
            self._kill_all()
        self._alarm.set(PIPES_AFTER, partial(self._close_pipes, TURNS))

    def processEnded(self, reason: Failure) -> None:
        self._alarm.stop()
        self._errors.close()
        ended = self._exit or self._ended_with(reason)
        self.ended.callback(evolve(ended, output=bytes(self._output)))

    def _ended_with(self, reason: Failure) -> Exit:
        return Exit(_exit_status(reason), b"", self._timed_out, self._stopped)

    def _kill(self) -> None:
        self._kill_all()

    def _kill_all(self) -> None:
        self._signal(signal.SIGKILL)
        self._kill_strays(self._marks)

    def _close_pipes(self, turns: int) -> None:
        if turns:
            self._alarm.set(0, partial(self._close_pipes, turns - 1))
        else:
            # processEnded is called once they are closed.
            self.transport.loseConnection()

    def _signal(self, number: int) -> None:
        # setsid made it the leader of a process group with its own pid.
        with suppress(ProcessLookupError, PermissionError):
            self._kill_group(self._pid, number)


class LineLog:
    """Logs lines, with a limit on each and on all together, and with the bucket's token
    hidden: a script under ``set -x`` prints all its arguments.
    """

    def __init__(
        self, log_line: Callable[[str], object], secret: str, label: str
    ) -> None:
        self._log_line = log_line
        self._secret = secret.encode("utf-8")
        self._label = label.encode("utf-8")
        self._cut = False
        self._left = MOST_STDERR
        self._lines_left = MOST_LINES
        self._line = bytearray()

    def write(self, data: bytes) -> None:
        """Take bytes, and log the lines that are complete."""
        taken = data[: self._left]
        self._cut = self._cut or len(taken) < len(data)
        self._left -= len(taken)
        *ended, rest = (bytes(self._line) + taken).split(b"\n")
        for line in ended[: self._lines_left]:
            self._say(line)
        self._lines_left -= len(ended)
        if self._lines_left < 0:
            self._cut, self._left, self._lines_left, rest = True, 0, 0, b""
        # One byte more shows that the line was longer.
        self._line = bytearray(rest[: MOST_LINE + 1])

    def close(self) -> None:
        """Log the last line, if it has no line feed."""
        if self._line:
            self._say(bytes(self._line), self._cut)
        if self._cut:
            self._log_line(
                f"(the rest is not logged: over {MOST_STDERR} bytes"
                f" or {MOST_LINES} lines)"
            )

    def _say(self, line: bytes, cut: bool = False) -> None:
        cut = cut or len(line) > MOST_LINE
        line = line[:MOST_LINE].replace(self._secret, self._label)
        if cut:
            line = _without_part(line, self._secret)
        text = line.decode("utf-8", "replace")
        # One line of the hook must be one line of the log.
        self._log_line("".join(c if c.isprintable() else "\ufffd" for c in text))


def kill_marked(marks: Collection[bytes]) -> None:
    """Send KILL to all processes that have ``marks`` in their environment.

    This finds a process's children in any session, unless they have cleared their
    environment or belong to another user.
    """
    killed: set[int] = set()
    for _ in range(MOST_SEARCHES):
        found = {pid for pid in _processes() - killed if _kill_if_marked(pid, marks)}
        if not found:
            break
        # The killed ones start no more children, but may have started some that this
        # search did not see.
        killed |= found


def _processes() -> set[int]:
    with suppress(OSError):
        return {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return set()


def _kill_if_marked(pid: int, marks: Collection[bytes]) -> bool:
    with suppress(OSError):
        # The descriptor pins the process, in case its pid is reused.
        fd = os.pidfd_open(pid)
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if all(mark in environment for mark in marks):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                return True
        finally:
            os.close(fd)
    return False


def _without_part(line: bytes, secret: bytes) -> bytes:
    """``line`` without the beginning of ``secret``, if it ends with one."""
    for length in range(len(secret) - 1, 0, -1):
        if line.endswith(secret[:length]):
            return line[:-length]
    return line


def _exit_status(reason: Failure) -> int:
    if reason.check(ProcessDone):
        return 0
    ended = reason.value
    assert isinstance(ended, ProcessTerminated)
    if ended.signal is not None:
        return 128 + int(ended.signal)
    return int(ended.exitCode if ended.exitCode is not None else 1)
