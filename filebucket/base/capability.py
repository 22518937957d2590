"""Keep one capability of root while the rest of its rights is dropped."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

LINUX_IMMUTABLE = 9
"""The right to change the immutable and append-only flags of files."""

# Linux, include/uapi/linux/capability.h and prctl.h.
_VERSION = 0x20080522
_PR_SET_KEEPCAPS = 8


@contextmanager
def keeping(capability: int) -> Iterator[None]:
    """In the block, root becomes another user for good; afterwards this thread has this
    capability if it had it before, and no other one. Programs that it starts have none.

    :param capability: its number, less than 32
    :raises OSError: the kernel refuses that
    """
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = _permitted(libc) & 1 << capability
    _call(libc.prctl, _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    yield
    _call(libc.prctl, _PR_SET_KEEPCAPS, 0, 0, 0, 0)
    _call(libc.capset, _head(), struct.pack("6I", wanted, wanted, 0, 0, 0, 0))


def _permitted(libc: ctypes.CDLL) -> int:
    """The lower 32 of the permitted capabilities."""
    found = ctypes.create_string_buffer(24)
    _call(libc.capget, _head(), found)
    permitted: int = struct.unpack("6I", found.raw)[1]
    return permitted


def _head() -> bytes:
    return struct.pack("Ii", _VERSION, 0)


def _call(function: ctypes._NamedFuncPointer, *args: object) -> None:
    if function(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
