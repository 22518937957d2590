"""Commands that cannot print. What comes of it for a process is in ``whole``."""

from __future__ import annotations

import errno
import io
import os
from contextlib import redirect_stderr

from twisted.trial.unittest import SynchronousTestCase

from filebucket.cli.output import CannotPrintError

FULL = OSError(errno.ENOSPC, "No space left on device")


class CannotPrintTests(SynchronousTestCase):
    """What is said of it."""

    def said(self, error: OSError) -> str:
        with redirect_stderr(io.StringIO()) as stream:
            CannotPrintError(error).show()
        return stream.getvalue()

    def test_line(self) -> None:
        """What failed, and the file, if it was one."""
        self.assertEqual(
            "Error: cannot print: No space left on device\n", self.said(FULL)
        )
        denied = PermissionError(errno.EACCES, "Permission denied", "/x")
        self.assertEqual("Error: /x: Permission denied\n", self.said(denied))

    def test_quiet(self) -> None:
        """A reader that has seen enough is told nothing."""
        self.assertEqual("", self.said(BrokenPipeError(errno.EPIPE, "Broken pipe")))

    def test_status(self) -> None:
        """It is the command's."""
        self.assertEqual(1, CannotPrintError(FULL).exit_code)
        self.assertEqual(3, CannotPrintError(FULL, 3).exit_code)

    def test_rest(self) -> None:
        """What could not be written is not tried again at Python's end."""
        with open("/dev/full", "w") as full, redirect_stderr(full):
            full.write("x")
            CannotPrintError(FULL).show()
            full.flush()
            self.assertEqual(
                os.stat("/dev/null").st_rdev, os.fstat(full.fileno()).st_rdev
            )
