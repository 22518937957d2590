"""Child processes: the command whose output is pushed, and the one that encrypts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from filebucket.client.errors import CommandFailedError, UsageError

END_TIMEOUT = 5.0
"""Seconds between SIGTERM and SIGKILL."""

MOST_MESSAGES = 2048
"""Bytes of error messages that are kept."""

MESSAGES_TIMEOUT = 0.5
"""Seconds without a message after which no more are awaited: the commands have ended,
but a process in the background may keep the pipe open."""

PIECE = 64 * 1024

_SIGPIPE = 13
"""Windows has no such signal."""


class Messages:
    """Error messages of commands: passed on as they come; the last ones are kept."""

    def __init__(self, out: int = 2) -> None:
        """
        :param out: descriptor to which they are passed on
        """
        self._out = out
        self._kept = b""
        self._writing = -1
        self._thread: threading.Thread | None = None
        # When a message came last; infinity while it is passed on.
        self._at = 0.0

    def open(self) -> int:
        """The descriptor to which the commands write. Close it with :meth:`started`."""
        reading, self._writing = os.pipe()
        self._at = time.monotonic()
        self._thread = threading.Thread(
            target=self._pass_on, args=(reading,), daemon=True
        )
        self._thread.start()
        return self._writing

    def started(self) -> None:
        """All commands have been started."""
        os.close(self._writing)

    def _pass_on(self, reading: int) -> None:
        with open(reading, "rb", buffering=0) as stream:
            while True:
                data = stream.read(PIECE)
                if not data:
                    return
                self._at = float("inf")
                self._kept = (self._kept + data)[-MOST_MESSAGES:]
                with suppress(OSError):
                    while data:
                        data = data[os.write(self._out, data) :]
                self._at = time.monotonic()

    def wait(self) -> None:
        """Wait until all messages of commands that have ended are passed on. Other
        processes that they started may still write some.
        """
        thread = self._thread
        while thread is not None and thread.is_alive():
            thread.join(MESSAGES_TIMEOUT)
            if time.monotonic() - self._at >= MESSAGES_TIMEOUT:
                return

    @property
    def last(self) -> str:
        """The last lines."""
        kept = self._kept
        if len(kept) == MOST_MESSAGES:
            # Its first line is not whole, unless there is only one.
            kept = kept.partition(b"\n")[2] or kept
        return kept.decode("utf-8", "replace")


class Pipeline:
    """Commands, each of which reads the output of the one before.

    Each is the leader of a session of its own, so that it can be ended together with
    all processes that it started.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        stdin: IO[bytes] | None = None,
        messages: Messages | None = None,
    ) -> None:
        """
        :param stdin: for the first one; None is that of this process
        :param messages: reads their standard error; None leaves them that of this
            process
        :raises CommandFailedError: a command does not exist
        """
        for argv in commands:
            if shutil.which(argv[0]) is None:
                raise CommandFailedError(
                    f"{argv[0]}: command not found, or not executable"
                )
        self._commands = commands
        self._stdin = stdin
        self._messages = messages
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> IO[bytes]:
        """Start all commands.

        :returns: the output of the last one
        :raises CommandFailedError: a command cannot be run
        """
        stderr = None if self._messages is None else self._messages.open()
        try:
            return self._start(stderr)
        finally:
            if self._messages is not None:
                self._messages.started()

    def _start(self, stderr: int | None) -> IO[bytes]:
        before = self._stdin
        for argv in self._commands:
            try:
                made = subprocess.Popen(  # noqa: S603 - the user's own command
                    argv,
                    stdin=before,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    start_new_session=os.name == "posix",
                )
            except OSError as error:
                self.end()
                raise CommandFailedError(f"{argv[0]}: {error.strerror}") from None
            if self._running and before is not None:
                # Only the next command may hold it, so that the one before gets
                # SIGPIPE if it ends.
                before.close()
            self._running.append(made)
            before = made.stdout
        assert before is not None
        return before

    def check(self) -> None:
        """Notice that a command has failed, although its output goes on.

        :raises CommandFailedError: one of them has
        """
        for argv, each in zip(self._commands, self._running):
            status = each.poll()
            # SIGPIPE: a later one has failed, and is about to be noticed.
            if status and status != -_SIGPIPE:
                raise CommandFailedError(f"{argv[0]} {_how(status)}")

    def wait(self) -> None:
        """Wait until all commands have ended.

        :raises CommandFailedError: one of them failed
        """
        failed = [
            (argv[0], each.returncode)
            for argv, each in zip(self._commands, self._running)
            if each.wait()
        ]
        if failed:
            # If a later one fails, SIGPIPE ends those before it.
            causes = [each for each in failed if each[1] != -_SIGPIPE]
            name, status = (causes or failed)[0]
            raise CommandFailedError(f"{name} {_how(status)}")
        self._forget()

    def end(self) -> None:
        """End all commands that still run, with all their processes."""
        for each in self._running:
            if os.name == "posix":
                # Also if the leader has ended: its children may still run.
                with suppress(OSError):
                    os.killpg(each.pid, signal.SIGTERM)
            elif each.poll() is None:
                _end_tree(each.pid)
        for each in self._running:
            with suppress(subprocess.TimeoutExpired):
                each.wait(END_TIMEOUT)
            if os.name == "posix":
                with suppress(OSError):
                    os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        self._forget()

    def _forget(self) -> None:
        """All have ended: other processes may have their pids soon."""
        if self._messages is not None:
            self._messages.wait()
        for each in self._running:
            if each.stdout is not None:
                each.stdout.close()
        self._running = []


def _end_tree(pid: int) -> None:
    """End a process and its children, on Windows."""
    taskkill = ["taskkill", "/T", "/F", "/PID", str(pid)]
    subprocess.run(taskkill, capture_output=True, check=False)  # noqa: S603


def _how(status: int) -> str:
    if status > 0:
        return f"exited with {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def age(recipients: Sequence[str]) -> list[str]:
    """The command that encrypts for these recipients.

    :raises UsageError: age is not installed
    """
    found = shutil.which("age")
    if found is None:
        hint = (
            "apt install age" if sys.platform == "linux" else "see age-encryption.org"
        )
        raise UsageError(f"--encrypt-to needs the program age: {hint}")
    return [found, *(word for each in recipients for word in ("--recipient", each))]
