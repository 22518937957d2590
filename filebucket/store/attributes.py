"""The flags of a file that ``chattr`` sets: immutable, and append-only for folders.

Linux lets only a process with CAP_LINUX_IMMUTABLE change them, in no user namespace but
the first one. Ext4, XFS and Btrfs keep them on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

IMMUTABLE = 0x10
"""No process can write to the file, rename it, delete it, link it, or change its mode,
owner or times."""

APPEND_ONLY = 0x20
"""New names can be created in the folder, but none can be renamed or deleted."""

# Linux, include/uapi/linux/fs.h and asm-generic/ioctl.h. The numbers are for a long,
# but the kernel reads and writes an int.
_READ, _WRITE = 0x80000000, 0x40000000
if os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc")):
    _READ, _WRITE = _WRITE, _READ
_SIZE = struct.calcsize("l")
_GET_FLAGS = _READ | _SIZE << 16 | ord("f") << 8 | 1
_SET_FLAGS = _WRITE | _SIZE << 16 | ord("f") << 8 | 2

_UNSUPPORTED = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Attributes(Protocol):
    """The flags of open files."""

    def get(self, fd: int) -> int:
        """The flags.

        :raises OSError: the filesystem has none
        """

    def set(self, fd: int, flags: int) -> None:
        """Replace the flags.

        :raises OSError: this process may not, or the filesystem has no such flag
        """

    def is_written(self, fd: int) -> bool:
        """Whether a process has the file open for writing, or mapped for writing.

        If a process opens it at this moment, this one gets SIGIO: ignore it.

        :param fd: opened for reading only
        :raises OSError: that cannot be determined
        """


class KernelAttributes:
    """The real flags."""

    def get(self, fd: int) -> int:
        found = fcntl.ioctl(fd, _GET_FLAGS, bytes(_SIZE))
        flags: int = struct.unpack_from("I", found)[0]
        return flags

    def set(self, fd: int, flags: int) -> None:
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("I", flags).ljust(_SIZE, b"\0"))

    def is_written(self, fd: int) -> bool:
        # The kernel grants a read lease only if no process has the file open for
        # writing; a mapping keeps it open.
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        # If a process opens it for writing now, the kernel wants the lease back.
        is_wanted = fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return is_wanted


KERNEL = KernelAttributes()


def is_unsupported(error: OSError) -> bool:
    """Whether a filesystem without such flags causes this error."""
    return error.errno in _UNSUPPORTED


@contextmanager
def looking_at(name: str | bytes, directory_fd: int) -> Iterator[int]:
    """Open a file for its flags. No link is followed, and no pipe is waited for.

    :raises OSError: it cannot be opened
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def is_sealed(name: bytes, directory_fd: int, attributes: Attributes = KERNEL) -> bool:
    """Whether a file is immutable; not if the filesystem has no such flag.

    :raises OSError: it cannot be opened, or its flags cannot be read
    """
    with looking_at(name, directory_fd) as fd:
        try:
            return bool(attributes.get(fd) & IMMUTABLE)
        except OSError as error:
            if not is_unsupported(error):
                raise
            return False
