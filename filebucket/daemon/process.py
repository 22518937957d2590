"""What the daemon asks of its process: memory that is kept, and descriptors.

A large push frees a buffer for each that it takes. glibc gives the top of its
heap back to the kernel as soon as 128 KiB are free there, and the kernel wipes
it page by page when the next buffer takes it again, which a large push feels
(``docs/performance.rst``). Python has no word in this; glibc's mallopt has.
"""

from __future__ import annotations

import ctypes
import resource

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

PER_PUSH = 4
"""Descriptors of a push: its connection, its bucket and its file; and one for hooks and
for connections that wait."""

OWN_DESCRIPTORS = 32
"""Descriptors of the daemon itself, and some to spare."""

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


def find_capacity(wanted: int, own: int) -> int:
    """Let there be descriptors for so many pushes, or as many as the system allows:
    systemd gives 1,024 to whoever does not ask. Hooks inherit the limit.

    :param own: descriptors for what is no push
    :returns: how many pushes there may be at once
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted * PER_PUSH + own
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return min(max((most - own) // PER_PUSH, 1), wanted)
