"""Flags of files in memory, for tests that do not run as root, or where the filesystem
has no such flags. No file on the disk is ever immutable, so none is left so."""

from __future__ import annotations

import errno
import os
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.attributes import APPEND_ONLY, IMMUTABLE, KernelAttributes

Place = tuple[int, int]


def place_of(fd: int) -> Place:
    """A number for an open file, whatever its name."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


@define
class MemoryAttributes:
    """The flags of files.

    :ivar flags: by place; others have :attr:`usual`
    :ivar written: places that a process has open for writing
    :ivar allowed: whether this process may change the flags
    :ivar supported: whether the filesystem has flags
    """

    flags: dict[Place, int] = field(factory=dict)
    written: set[Place] = field(factory=set)
    allowed: bool = True
    supported: bool = True
    usual = 0x80000

    def get(self, fd: int) -> int:
        if not self.supported:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return self.flags.get(place_of(fd), self.usual)

    def set(self, fd: int, flags: int) -> None:
        if (self.get(fd) ^ flags) & (IMMUTABLE | APPEND_ONLY) and not self.allowed:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        self.flags[place_of(fd)] = flags

    def is_written(self, fd: int) -> bool:
        return place_of(fd) in self.written

    def of(self, path: str | os.PathLike[str]) -> int:
        """The unusual flags of a file or a folder."""
        fd = os.open(path, os.O_RDONLY)
        try:
            return self.get(fd) & ~self.usual
        finally:
            os.close(fd)

    def mark(self, path: str | os.PathLike[str], flags: int = IMMUTABLE) -> None:
        """Set flags, as root may."""
        found = os.stat(path)
        self.flags[found.st_dev, found.st_ino] = self.usual | flags

    def unlink(self, name: bytes, dir_fd: int) -> None:
        """As :func:`os.unlink`, but an immutable file stays."""
        found = os.lstat(name, dir_fd=dir_fd)
        if self.flags.get((found.st_dev, found.st_ino), 0) & IMMUTABLE:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        os.unlink(name, dir_fd=dir_fd)


def replace_kernel(case: SynchronousTestCase) -> MemoryAttributes:
    """Let a test's code use flags in memory wherever it would use real ones."""
    found = MemoryAttributes()
    for name in ("get", "set", "is_written"):

        def call(self: object, *args: Any, function: str = name) -> Any:
            return getattr(found, function)(*args)

        case.patch(KernelAttributes, name, call)
    return found
