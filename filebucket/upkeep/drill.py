"""Gives a file to a shell command, to test a restore of it.

The command reads the file from its standard input. It sees the end of the file only
when the caller has compared the checksum: if that is wrong, the command is ended
instead. It may stop reading at any time. Its exit status counts, not what processes do
that it leaves in the background.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fcntl import F_SETPIPE_SZ, fcntl

SHELL = "/bin/sh"

END_TIMEOUT = 5.0
"""Seconds between SIGTERM and SIGKILL."""

LOOK_EVERY = 0.1
"""Seconds after which a command that does not read is checked for its end."""

PIPE_SIZE = 1024 * 1024
"""Bytes that the pipe holds, if the system allows it."""

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class StartError(Exception):
    """The command cannot be started. The message is the reason."""


class Command:
    """A shell command that runs, as the leader of a session of its own."""

    def __init__(self, pid: int, pipe: int) -> None:
        """
        :param pipe: the writing end of its standard input, which does not block
        """
        self._pid = pid
        self._pipe: int | None = pipe
        self._reaped = False

    def write(self, piece: memoryview) -> None:
        """Pass on bytes, unless the command does not read any more."""
        while piece and self._pipe is not None:
            try:
                piece = piece[os.write(self._pipe, piece) :]
            except BlockingIOError:
                self._wait_for_reads(self._pipe)
            except BrokenPipeError:
                self._close()

    def _wait_for_reads(self, pipe: int) -> None:
        poll = select.poll()
        poll.register(pipe, select.POLLOUT)
        # A process that it left in the background may hold the pipe and never read.
        if not poll.poll(LOOK_EVERY * 1000) and self._has_ended():
            self._close()

    def finish(self) -> str | None:
        """Let the command see the end of the file, and wait for its exit.

        :returns: how it failed, as a clause; None if its exit status is 0
        """
        self._close()
        # The pid stays its own until it is reaped, so that no other group is ended.
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        return _how(self._reap())

    def end(self) -> None:
        """End the command with all its processes, unless it has finished."""
        if self._reaped:
            return
        self._signal(signal.SIGTERM)
        try:
            until = time.monotonic() + END_TIMEOUT
            while not self._has_ended() and time.monotonic() < until:
                time.sleep(LOOK_EVERY / 10)
        finally:
            self._signal(signal.SIGKILL)
            # Only now: it must not take this for the end of the file.
            self._close()
            self._reap()

    def _has_ended(self) -> bool:
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self._pid, flags) is not None

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _reap(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._reaped = True
        return os.waitstatus_to_exitcode(status)

    def _close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


@contextmanager
def running(
    line: str, environment: Mapping[str, str], quiet: bool = False
) -> Iterator[Command]:
    """Run a shell command. At the end of the block it is ended, unless it has finished.

    :param environment: variables in addition to those of this process
    :param quiet: whether its standard output is that for errors
    :raises StartError: it cannot be started
    """
    variables = {os.fsencode(key): each.encode() for key, each in environment.items()}
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, reading, 0)]
    if quiet:
        actions.append((os.POSIX_SPAWN_DUP2, 2, 1))
    # A signal now would leave a command that is never ended.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    command = None
    try:
        try:
            pid = os.posix_spawn(
                SHELL,
                [b"sh", b"-c", b"--", os.fsencode(line)],
                {**os.environb, **variables},
                file_actions=actions,
                setsid=True,
                setsigmask=before,
                # Python ignores these.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            os.close(writing)
            raise StartError(error.strerror) from None
        finally:
            os.close(reading)
        os.set_blocking(writing, False)
        with suppress(OSError):
            fcntl(writing, F_SETPIPE_SZ, PIPE_SIZE)
        command = Command(pid, writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield command
    finally:
        if command is not None:
            command.end()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how(status: int) -> str | None:
    if not status:
        return None
    if status > 0:
        return f"the command exited with {status}"
    try:
        return f"the command was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"the command was ended by signal {-status}"
