"""Freed memory is kept, if the C library allows it."""

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
"""Allocate and free 4 MB fifty times: some thousand pages."""


class AllocatorTests(SynchronousTestCase):
    """In child processes, because malloc's settings cannot be undone."""

    def faults(self, call: str) -> int:
        """The number of page faults."""
        ended = subprocess.run(
            [sys.executable, "-c", COUNT_FAULTS.format(call=call)],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        return int(ended.stdout)

    def test_kept(self) -> None:
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            raise SkipTest("this C library has no mallopt")
        self.assertGreater(self.faults(call=""), 20_000)
        self.assertLess(self.faults(call="keep_freed_memory()"), 2_000)

    def test_without_glibc(self) -> None:
        self.patch(ctypes, "CDLL", lambda name: object())
        process.keep_freed_memory()

    def test_refused(self) -> None:
        class Library:
            def mallopt(self, *args: Any) -> int:
                return 0

        self.patch(ctypes, "CDLL", lambda name: Library())
        process.keep_freed_memory()
