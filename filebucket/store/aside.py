"""Files being received: unnamed, or under a private name, until they are whole.

A file is written, made durable by ``seal`` and published by ``link``, which fails if
the name exists, or by ``replace``. ``discard`` must be called in any case.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from typing import TypeAlias

from filebucket.base.errors import ConfigError
from filebucket.base.fs import mount_line, sync_directory
from filebucket.store.interfaces import LostError


class _LinkedFile:
    """A file that stays open and is published by a link, whatever other name it has.

    :ivar fd: its descriptor
    """

    prefix = b""
    """Start of its private names."""

    fd: int
    _bucket_fd: int
    _incoming_fd: int

    def link(self, name: bytes) -> None:
        """Publish the file.

        :raises FileExistsError: the name is taken
        """
        self._link(name, self._bucket_fd)

    def replace(self, name: bytes) -> None:
        """Publish the file, and replace any other file with that name."""
        # linkat cannot replace a file: link under a private name, then rename.
        private = _private_name(self.prefix)
        try:
            self._link(private, self._incoming_fd)
            _rename(private, self._incoming_fd, name, self._bucket_fd)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(private, dir_fd=self._incoming_fd)
            raise

    def has(self, name: bytes) -> bool:
        """Whether the name still belongs to this file."""
        found = os.lstat(name, dir_fd=self._bucket_fd)
        return os.path.samestat(os.fstat(self.fd), found)

    def _link(self, name: bytes, directory_fd: int) -> None:
        """Link it into a folder."""
        raise NotImplementedError


class UnnamedFile(_LinkedFile):
    """A file that has no name until it is linked."""

    tier = "O_TMPFILE"

    def __init__(self, bucket_fd: int, incoming_fd: int) -> None:
        self._bucket_fd = bucket_fd
        self._incoming_fd = incoming_fd
        self.fd = os.open(
            ".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=bucket_fd
        )

    def seal(self) -> None:
        """Make the content durable."""
        os.fsync(self.fd)

    def discard(self) -> None:
        """Close the file. Without a name, that deletes it."""
        os.close(self.fd)

    def _link(self, name: bytes, directory_fd: int) -> None:
        # With a directory descriptor CPython calls linkat, which can follow the link in
        # /proc. Without one it calls link, which fails with EXDEV.
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=directory_fd)


class StagedFile:
    """A file under a private name in the incoming folder."""

    tier = "temporary name and hard link"
    prefix = b""

    def __init__(self, bucket_fd: int, incoming_fd: int, suffix: bytes = b"") -> None:
        """
        :param suffix: end of its private name
        """
        if os.fstat(bucket_fd).st_dev != os.fstat(incoming_fd).st_dev:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self._bucket_fd = bucket_fd
        self._incoming_fd = incoming_fd
        self._private: bytes | None = _private_name(self.prefix) + suffix
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        self.fd = os.open(self._private, flags, 0o600, dir_fd=incoming_fd)

    def seal(self) -> None:
        """Make the content durable."""
        os.fsync(self.fd)
        # A network filesystem may report an error only on close.
        fd, self.fd = self.fd, -1
        os.close(fd)

    def link(self, name: bytes) -> None:
        """Publish the file.

        :raises FileExistsError: the name is taken
        """
        assert self._private is not None
        try:
            os.link(
                self._private,
                name,
                src_dir_fd=self._incoming_fd,
                dst_dir_fd=self._bucket_fd,
                follow_symlinks=False,
            )
        except FileExistsError:
            # NFS may lose the reply to a link that succeeded.
            if not self.has(name):
                raise

    def replace(self, name: bytes) -> None:
        """Publish the file, and replace any other file with that name."""
        assert self._private is not None
        _rename(self._private, self._incoming_fd, name, self._bucket_fd)
        self._private = None

    def has(self, name: bytes) -> bool:
        """Whether the name belongs to this file."""
        assert self._private is not None
        ours = os.lstat(self._private, dir_fd=self._incoming_fd)
        return os.path.samestat(ours, os.lstat(name, dir_fd=self._bucket_fd))

    def discard(self) -> None:
        """Close the file and remove its private name."""
        try:
            if self.fd >= 0:
                os.close(self.fd)
        finally:
            if self._private is not None:
                os.unlink(self._private, dir_fd=self._incoming_fd)


_GONE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO})
"""Error numbers of opening a file to write to it if there is none, or a link or a pipe
in its place."""


class PartFile(_LinkedFile):
    """A file that is received in parts. It stays under its private name when it is
    closed, and may be linked while it has that.
    """

    def __init__(
        self,
        bucket_fd: int,
        incoming_fd: int,
        parts_fd: int,
        name: bytes,
        offset: int | None,
    ) -> None:
        """
        :param parts_fd: the folder that has the private name
        :param offset: bytes that it has; what follows is cut off. None creates it
        :raises LostError: it has fewer bytes, or is gone
        :raises OSError: EXDEV or EACCES if it cannot be linked into the bucket; EMLINK
            if it has another name, as a published one
        """
        if _place(bucket_fd) != _place(parts_fd):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        # Nothing is written there before the link.
        mode = os.W_OK | os.X_OK
        if not os.access(".", mode, dir_fd=bucket_fd, effective_ids=True):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        self._bucket_fd = bucket_fd
        self._incoming_fd = incoming_fd
        self._parts_fd = parts_fd
        self._private = name
        self._sealed = -1
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if offset is None:
            flags |= os.O_CREAT | os.O_EXCL
        try:
            self.fd = os.open(name, flags, 0o600, dir_fd=parts_fd)
        except OSError as error:
            if offset is not None and error.errno in _GONE:
                raise LostError from None
            raise
        try:
            found = os.fstat(self.fd)
            if found.st_size < (offset or 0):
                raise LostError
            if found.st_nlink != 1:
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
            self.cut(offset or 0)
        except BaseException:
            os.close(self.fd)
            raise

    def cut(self, size: int) -> None:
        """Remove what follows the first ``size`` bytes; the next byte goes there."""
        self._sealed = -1
        os.ftruncate(self.fd, size)
        os.lseek(self.fd, size, os.SEEK_SET)

    def seal(self) -> None:
        """Make the content durable, unless nothing was written since the last time."""
        size = os.lseek(self.fd, 0, os.SEEK_CUR)
        if size != self._sealed:
            os.fsync(self.fd)
            self._sealed = size

    def discard(self) -> None:
        """Close it; the private name stays."""
        os.close(self.fd)

    def _link(self, name: bytes, directory_fd: int) -> None:
        os.link(
            self._private,
            name,
            src_dir_fd=self._parts_fd,
            dst_dir_fd=directory_fd,
            follow_symlinks=False,
        )


AsideFile: TypeAlias = UnnamedFile | StagedFile

TIERS: tuple[type[AsideFile], ...] = (UnnamedFile, StagedFile)
"""The ways to receive a file, best first."""


def find_tier(home: str, directory_fd: int) -> type[AsideFile]:
    """Find the best way to receive a file that this filesystem supports. The test
    creates a file named ``probe`` and deletes it.

    :param home: path of the home, for the error
    :param directory_fd: a folder of the home that no other process writes to
    :raises ConfigError: there is none
    """
    reasons = []
    for tier in TIERS:
        try:
            aside = tier(directory_fd, directory_fd)
            try:
                aside.seal()
                aside.link(b"probe")
                os.unlink(b"probe", dir_fd=directory_fd)
            finally:
                aside.discard()
            sync_directory(directory_fd)
        except OSError as error:
            reasons.append(f"{tier.tier}: {error.strerror}")
        else:
            return tier
    raise ConfigError(
        home, [f"the filesystem supports no atomic publish ({'; '.join(reasons)})"]
    )


def _place(fd: int) -> tuple[int, bytes]:
    """Two places that differ cannot have links to one file: the filesystem, or the
    subvolume, and where it is mounted.
    """
    found = os.fstat(fd).st_dev
    try:
        return found, mount_line(fd)
    except FileNotFoundError:
        return found, b""


def _private_name(prefix: bytes) -> bytes:
    return prefix + secrets.token_hex(16).encode("ascii")


def _rename(old: bytes, old_fd: int, new: bytes, new_fd: int) -> None:
    os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)
