"""Set up the process: malloc tuning, and the limit of descriptors.

A large push allocates and frees one buffer after the other. glibc returns the top of
its heap to the kernel as soon as 128 KiB are free there, and the kernel clears each
page when the next buffer needs it, which slows large pushes down
(``docs/explanation/performance.rst``).
"""

from __future__ import annotations

import ctypes
import resource

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

PER_PUSH = 4
"""Descriptors for each push: its connection, its bucket, its file, and one for hooks
and for waiting connections."""

OWN_DESCRIPTORS = 32
"""Descriptors of the daemon itself, with some to spare."""

KEPT = 8 * 1024 * 1024
"""Bytes that may be free at the heap's top before glibc returns them."""


def keep_freed_memory() -> None:
    """Keep a few MiB for the next push. Does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_TOP_PAD, 1024 * 1024)
        # Setting the others stops glibc from adapting this one: it must be larger than
        # the largest buffer that is allocated and freed.
        mallopt(_M_MMAP_THRESHOLD, 4 * 1024 * 1024)


def share_heap() -> None:
    """Let all threads use one heap. Does nothing without glibc.

    Otherwise each has its own, which keeps what its calls have read: 100 MiB in all
    with 64 parts on their way to an object store. For threads that only write it makes
    no difference.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def find_capacity(wanted: int, own: int) -> int:
    """Raise the limit of descriptors for ``wanted`` pushes, as far as the system
    allows: systemd's default is 1,024. Hooks inherit the limit.

    :param own: descriptors that are not for pushes
    :returns: the number of pushes that are possible at once
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted * PER_PUSH + own
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return min(max((most - own) // PER_PUSH, 1), wanted)
