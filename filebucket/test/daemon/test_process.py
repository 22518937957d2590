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


READ_IN_THREADS = """
import os
import threading
from filebucket.daemon.process import keep_freed_memory, share_heap
keep_freed_memory()
{call}

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def read():
    started.wait()
    with turn:
        [os.read(fd, 100_000) for _ in range(30)]
    ended.wait()

fd = os.open("/dev/zero", os.O_RDONLY)
started, turn, ended = threading.Barrier(16), threading.Lock(), threading.Barrier(17)
before = resident()
for _ in range(16):
    threading.Thread(target=read).start()
ended.wait()
print(resident() - before)
"""
"""Let 16 threads read 3 MB and free them, one after the other."""


class AllocatorTests(SynchronousTestCase):
    """In child processes, because malloc's settings cannot be undone."""

    def printed(self, script: str) -> int:
        """The number that a script prints."""
        ended = subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        return int(ended.stdout)

    def need_mallopt(self) -> None:
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            raise SkipTest("this C library has no mallopt")

    def test_kept(self) -> None:
        """A few MiB are, whose pages need not be filled again."""
        self.need_mallopt()
        call = "keep_freed_memory()"
        self.assertGreater(self.printed(COUNT_FAULTS.format(call="")), 20_000)
        self.assertLess(self.printed(COUNT_FAULTS.format(call=call)), 2_000)

    def test_shared(self) -> None:
        """Threads do not keep a few MiB each."""
        self.need_mallopt()
        call = "share_heap()"
        self.assertGreater(self.printed(READ_IN_THREADS.format(call="")), 30_000_000)
        self.assertLess(self.printed(READ_IN_THREADS.format(call=call)), 20_000_000)

    def test_without_glibc(self) -> None:
        self.patch(ctypes, "CDLL", lambda name: object())
        process.keep_freed_memory()
        process.share_heap()

    def test_refused(self) -> None:
        class Library:
            def mallopt(self, *args: Any) -> int:
                return 0

        self.patch(ctypes, "CDLL", lambda name: Library())
        process.keep_freed_memory()
        process.share_heap()
