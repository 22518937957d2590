"""Freed memory is kept, as far as the C library lets itself be told."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from filebucket.daemon import process
from filebucket.test.kit.server import PATIENCE

COUNT_FAULTS = """
import resource
from filebucket.daemon.process import keep_freed_memory
{call}

def push():
    return [b"x" * 200_000 for _ in range(20)]

push()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    push()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""What comes and goes fifty times is 4 MB, or some thousand pages."""


class AllocatorTests(SynchronousTestCase):
    """In processes of their own: nothing can be taken back."""

    def faults(self, call: str) -> int:
        """How often the kernel had to find a page."""
        ended = subprocess.run(
            [sys.executable, "-c", COUNT_FAULTS.format(call=call)],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        return int(ended.stdout)

    def test_kept(self) -> None:
        """The pages of one push are there for the next."""
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            raise SkipTest("this C library has no mallopt")
        self.assertGreater(self.faults(call=""), 20_000)
        self.assertLess(self.faults(call="keep_freed_memory()"), 2_000)

    def test_without_glibc(self) -> None:
        """Another C library is left as it is."""
        self.patch(ctypes, "CDLL", lambda name: object())
        process.keep_freed_memory()

    def test_refused(self) -> None:
        """Nor does it matter where it does not listen."""

        class Library:
            def mallopt(self, *args: Any) -> int:
                return 0

        self.patch(ctypes, "CDLL", lambda name: Library())
        process.keep_freed_memory()
