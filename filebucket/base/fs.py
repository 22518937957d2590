"""Directories opened and made durable, files replaced at once, bytes that are free:
one function for each, whoever needs it.

Nothing here catches an ``OSError``: what it means, the caller knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


def open_directory(
    path: str, directory_fd: int | None = None, follow: bool = True
) -> int:
    """Open a directory.

    :param directory_fd: where a relative path begins; None is the working directory
    :param follow: whether the last component may be a symbolic link
    :returns: a descriptor, which the caller closes
    :raises OSError: it is not there, is no directory, or must not be read
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return os.open(path, flags | (0 if follow else os.O_NOFOLLOW), dir_fd=directory_fd)


@contextmanager
def directory(
    path: str, directory_fd: int | None = None, follow: bool = True
) -> Iterator[int]:
    """As :func:`open_directory`, and close it at the end of the block."""
    fd = open_directory(path, directory_fd, follow)
    try:
        yield fd
    finally:
        os.close(fd)


def make_directory(name: str, directory_fd: int) -> int:
    """Open ``name``, made with mode 0700 if it is missing. The name is durable then,
    whoever made it.

    :param directory_fd: the directory that it is in
    :returns: a descriptor, which the caller closes
    :raises OSError: it cannot be made, opened or brought to the disk
    """
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=directory_fd)
    sync_directory(directory_fd)
    return open_directory(name, directory_fd)


def sync_directory(fd: int) -> None:
    """Make durable what names a directory holds. The content of its files, and its own
    name, are not.

    :raises OSError: the names may be lost. Do not try again: the second fsync lies
    """
    os.fsync(fd)
    # XFS that has shut itself down, its disk being gone, has dropped what was on its
    # way and lets the fsync of a directory pass. A stat it does not (Linux,
    # xfs_dir_fsync and xfs_vn_getattr).
    os.fstat(fd)


def sync_path(path: str) -> None:
    """As :func:`sync_directory`, for a directory that is not open.

    :raises OSError: as there, or it cannot be opened
    """
    with directory(path) as fd:
        sync_directory(fd)


@contextmanager
def replacing(
    path: str, aside: str, durable: bool = False, directory_fd: int | None = None
) -> Iterator[BinaryIO]:
    """Write a file that takes the place of ``path`` at once, at the end of the block.
    If the block or anything else fails, ``path`` stays as it was.

    Only its owner may read or write it, unless the block changes its mode.

    :param aside: its path until then, in the same directory; what is there, such as
        what a killed process left, is removed
    :param durable: whether the content is on the disk before ``path`` has it. The name
        is not durable before :func:`sync_directory` of the directory
    :param directory_fd: where relative paths begin; None is the working directory
    :raises OSError: it cannot be written, brought to the disk or renamed
    """
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=directory_fd)
    # Never one that is there already: it may be another name of anything.
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    fd = os.open(aside, flags, 0o600, dir_fd=directory_fd)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(fd)
        os.rename(aside, path, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        os.unlink(aside, dir_fd=directory_fd)
        raise


def total_bytes(found: os.statvfs_result) -> int:
    """The size of a filesystem in bytes."""
    return found.f_blocks * found.f_frsize


def free_bytes(found: os.statvfs_result) -> int:
    """Bytes of a filesystem that are free for all users, and not for root only."""
    return found.f_bavail * found.f_frsize
