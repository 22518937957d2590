"""Reads files that were pushed, to hash them, and leaves the page cache as it was.

Whoever reads all that there is would otherwise drive out of the cache what others of
the machine need; and what is to be known is what the disk has, not what the cache
remembers of it. Nor does it have the disk note when they were read. Nothing but a file
is ever opened, and no link is followed. What is written to or replaced while it is read
has no content that can be told.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from attrs import frozen

PIECE = 1024 * 1024
"""Bytes that are read at once."""

DROP_EVERY = 8 * PIECE
"""Bytes that this reading leaves in the cache at most."""

DAMAGE = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
"""What a disk says, or a filesystem that checks what it reads, where it is lost."""


class NoFileError(Exception):
    """There is no file of that name."""


class UnsteadyError(Exception):
    """It was written to or replaced while it was read."""


@frozen
class Content:
    """What a file holds.

    :param size: bytes
    :param sha256: in hex
    :param stat: what the filesystem says of it
    """

    size: int
    sha256: str
    stat: os.stat_result


def look(folder: int, name: str) -> os.stat_result:
    """What the filesystem says of a file.

    :param folder: a descriptor of the folder that it is in
    :raises NoFileError: there is none of that name
    :raises OSError: that cannot be known
    """
    try:
        found = os.lstat(_raw(name), dir_fd=folder)
    except FileNotFoundError:
        raise NoFileError from None
    if not stat.S_ISREG(found.st_mode):
        raise NoFileError
    return found


def read(folder: int, name: str, pace: Callable[[int], object]) -> Content:
    """Read a file from the disk.

    :param folder: a descriptor of the folder that it is in
    :param pace: told how many bytes each piece had; may sleep, or raise what ends
        the reading
    :raises NoFileError: there is none of that name
    :raises UnsteadyError: it is not what it was at the beginning
    :raises OSError: it cannot be read
    """
    before = look(folder, name)
    try:
        fd = _open(folder, name)
    except FileNotFoundError:
        raise NoFileError from None
    try:
        if not same(before, os.fstat(fd)):
            raise UnsteadyError
        try:
            size, sha256 = _hash(fd, before.st_size, pace)
        finally:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        after = os.fstat(fd)
    finally:
        os.close(fd)
    try:
        named = look(folder, name)
    except NoFileError:
        raise UnsteadyError from None
    if size != after.st_size or not same(before, after) or not same(after, named):
        raise UnsteadyError
    return Content(size, sha256, after)


def _open(folder: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    # When it was read is not to be written to the disk, once for each file that there
    # is; which only its owner may ask for.
    with suppress(PermissionError):
        return os.open(_raw(name), flags | os.O_NOATIME, dir_fd=folder)
    return os.open(_raw(name), flags, dir_fd=folder)


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether these are of one file that was not written to in between."""
    return (
        os.path.samestat(one, other)
        and one.st_size == other.st_size
        and one.st_mtime_ns == other.st_mtime_ns
    )


def _hash(fd: int, expected: int, pace: Callable[[int], object]) -> tuple[int, str]:
    # What is in the cache already says nothing of the disk.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    digest = hashlib.sha256()
    piece = memoryview(bytearray(min(max(expected, 1), PIECE)))
    size = dropped = 0
    while count := os.readv(fd, [piece]):
        digest.update(piece[:count])
        size += count
        if size - dropped >= DROP_EVERY:
            os.posix_fadvise(fd, dropped, size - dropped, os.POSIX_FADV_DONTNEED)
            dropped = size
        pace(count)
    return size, digest.hexdigest()


def _raw(name: str) -> bytes:
    # Names are UTF-8, whatever the locale says.
    return name.encode("utf-8")
