"""Tests run by a script in the background, where SIGINT is ignored."""

from __future__ import annotations

import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.children import bounded
from filebucket.test.kit.server import PATIENCE

IGNORING = ("sh", "-c", "trap '' HUP INT QUIT; exec \"$@\"", "sh")
"""Start it as a shell without job control does for ``&``."""

STARTS = """
import subprocess, sys
from filebucket.test.kit.server import Server
command = ["grep", "SigIgn", "/proc/self/status"]
sys.stdout.write(subprocess.run(command, capture_output=True, text=True).stdout)
"""

INTERRUPTED = """
import subprocess, sys
from filebucket.test.kit.server import Server
command = ["sh", "-c", "kill -INT $$; echo goes on"]
sys.exit(-subprocess.run(command).returncode)
"""


class BackgroundTests(SynchronousTestCase):
    """Ignored signals, and processes that hang."""

    def run_(self, program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*IGNORING, sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def test_ignored_signals(self) -> None:
        """A test's children ignore no signal, so they can be interrupted."""
        _, ignored = self.run_(STARTS).stdout.split()
        self.assertEqual(0, int(ignored, 16) & 0b111)  # 1, 2, 3: HUP, INT, QUIT
        interrupted = self.run_(INTERRUPTED)
        self.assertEqual((2, ""), (interrupted.returncode, interrupted.stdout))

    def test_hangs(self) -> None:
        """A child that prints nothing and does not end is killed."""
        began = time.monotonic()
        silent = subprocess.Popen(["sleep", str(PATIENCE)], stdout=subprocess.PIPE)
        with bounded(silent, patience=0.1):
            assert silent.stdout is not None
            self.assertEqual(b"", silent.stdout.read())
        self.assertEqual(-9, silent.returncode)
        self.assertLess(time.monotonic() - began, PATIENCE)
