"""Commands that cannot print. ``whole`` tests it with processes."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import click
from twisted.trial.unittest import SynchronousTestCase

from filebucket.cli.output import CannotPrintError, unexpected, wait

FULL = OSError(errno.ENOSPC, "No space left on device")


class CannotPrintTests(SynchronousTestCase):
    def said(self, error: OSError) -> str:
        with redirect_stderr(io.StringIO()) as stream:
            CannotPrintError(error).show()
        return stream.getvalue()

    def test_line(self) -> None:
        self.assertEqual(
            "Error: cannot print: No space left on device\n", self.said(FULL)
        )

    def test_quiet(self) -> None:
        """A closed pipe is no error."""
        self.assertEqual("", self.said(BrokenPipeError(errno.EPIPE, "Broken pipe")))

    def test_status(self) -> None:
        """The exit status is the command's."""
        self.assertEqual(1, CannotPrintError(FULL).exit_code)
        self.assertEqual(3, CannotPrintError(FULL, 3).exit_code)

    def test_rest(self) -> None:
        """Python does not retry the write at exit."""
        with open("/dev/full", "w") as full, redirect_stderr(full):
            full.write("x")
            CannotPrintError(FULL).show()
            full.flush()
            self.assertEqual(
                os.stat("/dev/null").st_rdev, os.fstat(full.fileno()).st_rdev
            )


class UnexpectedTests(SynchronousTestCase):
    """An OSError of a command."""

    def found(self, call: Callable[..., object], *args: object) -> str:
        with self.assertRaises(OSError) as raised:
            call(*args)
        error = unexpected(raised.exception, 3)
        self.assertEqual(3, error.exit_code)
        return error.message

    def test_printing(self) -> None:
        with open("/dev/full", "w", encoding="utf-8") as full:
            self.assertEqual(
                "cannot print: No space left on device",
                self.found(click.echo, "x", full),
            )
            with contextlib.suppress(OSError):
                full.close()

    def test_file(self) -> None:
        self.assertEqual("/x: No such file or directory", self.found(os.stat, "/x"))

    def test_other(self) -> None:
        """An error of another kind names the line of the code."""
        self.assertRegex(
            self.found(os.close, -1), r"^Bad file descriptor \(test_output\.py:\d+\)$"
        )


class WaitTests(SynchronousTestCase):
    def test_reader(self) -> None:
        """It waits only while the pipe can be read."""
        read, write = os.pipe()
        with os.fdopen(write, "w") as pipe, redirect_stdout(pipe):
            wait(0)
            os.close(read)
            self.assertRaises(BrokenPipeError, wait, 60)

    def test_no_pipe(self) -> None:
        """A file, or no descriptor at all, is no reason to stop."""
        with open(self.mktemp(), "w") as file, redirect_stdout(file):
            wait(0)
        with redirect_stdout(io.StringIO()):
            wait(0)
