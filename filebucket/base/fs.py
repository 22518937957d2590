"""Open directories, make them durable, replace files atomically, measure free space,
and name the filesystem.

Nothing here catches an ``OSError``: the caller knows what it means.
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

    :param directory_fd: the directory that a relative path starts from; None is the
        working directory
    :param follow: whether the last component may be a symbolic link
    :returns: a descriptor, which the caller closes
    :raises OSError: it does not exist, is no directory, or may not be read
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return os.open(path, flags | (0 if follow else os.O_NOFOLLOW), dir_fd=directory_fd)


@contextmanager
def directory(
    path: str, directory_fd: int | None = None, follow: bool = True
) -> Iterator[int]:
    """Like :func:`open_directory`, but close it at the end of the block."""
    fd = open_directory(path, directory_fd, follow)
    try:
        yield fd
    finally:
        os.close(fd)


def make_directory(name: str, directory_fd: int) -> int:
    """Open ``name``, and create it with mode 0700 if it is missing. The name is made
    durable even if another process created it.

    :param directory_fd: the parent directory
    :returns: a descriptor, which the caller closes
    :raises OSError: it cannot be created, opened or synced
    """
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=directory_fd)
    sync_directory(directory_fd)
    return open_directory(name, directory_fd)


def sync_directory(fd: int) -> None:
    """Make the names in a directory durable, but not the content of its files nor its
    own name.

    :raises OSError: the names may be lost. Do not try again: a second fsync may report
        success although data was lost
    """
    os.fsync(fd)
    # If XFS has shut itself down because its disk is gone, it has dropped pending
    # changes, and fsync of a directory succeeds all the same. A stat does not (Linux,
    # xfs_dir_fsync and xfs_vn_getattr).
    os.fstat(fd)


def sync_path(path: str) -> None:
    """Like :func:`sync_directory`, for a directory that is not open.

    :raises OSError: as there, or it cannot be opened
    """
    with directory(path) as fd:
        sync_directory(fd)


@contextmanager
def replacing(
    path: str, aside: str, durable: bool = False, directory_fd: int | None = None
) -> Iterator[BinaryIO]:
    """Write a file that atomically replaces ``path`` at the end of the block. If the
    block or anything else fails, ``path`` is unchanged.

    Only its owner may read or write it, unless the block changes its mode.

    :param aside: its path until then, in the same directory; an existing file, such as
        one that a killed process left, is removed first
    :param durable: whether to sync the content before the rename. The name is durable
        only after :func:`sync_directory` of the directory
    :param directory_fd: the directory that relative paths start from; None is the
        working directory
    :raises OSError: it cannot be written, synced or renamed
    """
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=directory_fd)
    # Never open an existing file: it may be a hard link to any file.
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
    """The bytes of a filesystem that are free for all users, not only for root."""
    return found.f_bavail * found.f_frsize


def mount_line(fd: int) -> bytes:
    """The line ``mnt_id: NUMBER`` of an open file, which names its mount."""
    # As bytes: a codec would be imported here, and perhaps not found.
    with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
        return b"".join(line for line in info if line.startswith(b"mnt_id:"))


def filesystem_type(fd: int) -> str | None:
    """The type of the filesystem of an open file, such as ``ext4``; None if it cannot
    be determined, as without ``/proc``.
    """
    # Not by device number: the files of a Btrfs do not have that of their mount.
    with suppress(OSError, ValueError):
        _, number = mount_line(fd).split()
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                mount, _, described = line.partition(b" - ")
                if mount.split()[0] == number:
                    return os.fsdecode(described.split()[0])
    return None


def read_cached(fd: int, offset: int, most: int) -> bytes | None:
    """What memory has of a file, without waiting for the disk.

    :returns: at most ``most`` bytes from ``offset``; None if the disk must be asked, or
        if the filesystem does not tell
    """
    found = bytearray(most)
    try:
        size = os.preadv(fd, [found], offset, os.RWF_NOWAIT)
    except OSError:
        return None
    return bytes(memoryview(found)[:size])
