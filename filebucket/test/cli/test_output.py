"""Commands that cannot print. ``whole`` tests it with processes."""

from __future__ import annotations

import errno
import io
import os
from contextlib import redirect_stderr, redirect_stdout

from twisted.trial.unittest import SynchronousTestCase

from filebucket.cli.output import CannotPrintError, wait

FULL = OSError(errno.ENOSPC, "No space left on device")


class CannotPrintTests(SynchronousTestCase):
    def said(self, error: OSError) -> str:
        with redirect_stderr(io.StringIO()) as stream:
            CannotPrintError(error).show()
        return stream.getvalue()

    def test_line(self) -> None:
        """The error, with the file if there is one."""
        self.assertEqual(
            "Error: cannot print: No space left on device\n", self.said(FULL)
        )
        denied = PermissionError(errno.EACCES, "Permission denied", "/x")
        self.assertEqual("Error: /x: Permission denied\n", self.said(denied))

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
