"""Files that wait aside, without a name or under a private one, until they are whole.

A file is written, brought to the disk by ``seal`` and published by ``link``, which
fails if the name exists, or by ``replace``. ``discard`` ends it in any case.
"""

from __future__ import annotations

import errno
import os
import secrets
from typing import TypeAlias

from filebucket.base.errors import ConfigError
from filebucket.base.fs import sync_directory


class UnnamedFile:
    """A file without a name, until it is linked."""

    tier = "O_TMPFILE"

    def __init__(self, bucket_fd: int, incoming_fd: int) -> None:
        self._bucket_fd = bucket_fd
        self._incoming_fd = incoming_fd
        self.fd = os.open(
            ".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=bucket_fd
        )

    def seal(self) -> None:
        """Bring the content to the disk."""
        os.fsync(self.fd)

    def link(self, name: bytes) -> None:
        """Give it its name.

        :raises FileExistsError: something has that name
        """
        self._link(name, self._bucket_fd)

    def replace(self, name: bytes) -> None:
        """Give it its name, though something may have it."""
        # linkat never replaces: a name of its own first, then a rename.
        private = secrets.token_hex(16).encode("ascii")
        self._link(private, self._incoming_fd)
        try:
            _rename(private, self._incoming_fd, name, self._bucket_fd)
        except OSError:
            os.unlink(private, dir_fd=self._incoming_fd)
            raise

    def has(self, name: bytes) -> bool:
        """Whether that name is still its own."""
        found = os.lstat(name, dir_fd=self._bucket_fd)
        return os.path.samestat(os.fstat(self.fd), found)

    def discard(self) -> None:
        """Close it; without a name, that is its end."""
        os.close(self.fd)

    def _link(self, name: bytes, directory_fd: int) -> None:
        # With a directory's descriptor CPython calls linkat, which can follow
        # the link in /proc; without one it calls link, which gives EXDEV.
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=directory_fd)


class StagedFile:
    """A file under a private name in the incoming directory."""

    tier = "temporary name and hard link"

    def __init__(self, bucket_fd: int, incoming_fd: int) -> None:
        if os.fstat(bucket_fd).st_dev != os.fstat(incoming_fd).st_dev:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self._bucket_fd = bucket_fd
        self._incoming_fd = incoming_fd
        self._private: bytes | None = secrets.token_hex(16).encode("ascii")
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        self.fd = os.open(self._private, flags, 0o600, dir_fd=incoming_fd)

    def seal(self) -> None:
        """Bring the content to the disk."""
        os.fsync(self.fd)
        # A network filesystem may keep an error for close to tell.
        fd, self.fd = self.fd, -1
        os.close(fd)

    def link(self, name: bytes) -> None:
        """Give it its name.

        :raises FileExistsError: something has that name
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
            # NFS may have lost the answer to a link that succeeded.
            if not self.has(name):
                raise

    def replace(self, name: bytes) -> None:
        """Give it its name, though something may have it."""
        assert self._private is not None
        _rename(self._private, self._incoming_fd, name, self._bucket_fd)
        self._private = None

    def has(self, name: bytes) -> bool:
        """Whether that name is its own, too."""
        assert self._private is not None
        ours = os.lstat(self._private, dir_fd=self._incoming_fd)
        return os.path.samestat(ours, os.lstat(name, dir_fd=self._bucket_fd))

    def discard(self) -> None:
        """Close it and take its private name away."""
        try:
            if self.fd >= 0:
                os.close(self.fd)
        finally:
            if self._private is not None:
                os.unlink(self._private, dir_fd=self._incoming_fd)


AsideFile: TypeAlias = UnnamedFile | StagedFile

TIERS: tuple[type[AsideFile], ...] = (UnnamedFile, StagedFile)
"""How a file can wait aside, the best first."""


def find_tier(home: str, directory_fd: int) -> type[AsideFile]:
    """How a file can wait aside on this filesystem, the best first: tried with one
    that is called ``probe`` for a moment.

    :param home: what the error names
    :param directory_fd: a folder of the home that nobody else writes into
    :raises ConfigError: it cannot
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


def _rename(old: bytes, old_fd: int, new: bytes, new_fd: int) -> None:
    os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)
