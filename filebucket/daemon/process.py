"""What the C library does with memory that was freed.

A large push frees a buffer for each that it takes. glibc gives the top of its
heap back to the kernel as soon as 128 KiB are free there, and the kernel wipes
it page by page when the next buffer takes it again, which a large push feels
(``docs/performance.rst``). Python has no word in this; glibc's mallopt has.
"""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

KEPT = 8 * 1024 * 1024
"""Bytes that may be free at the heap's top before they are given back."""


def keep_freed_memory() -> None:
    """Keep a few MiB for the next push. Without glibc, does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_TOP_PAD, 1024 * 1024)
        # To set one of the others freezes this, which glibc else adapts: it must
        # be more than the largest buffer that comes and goes.
        mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)
