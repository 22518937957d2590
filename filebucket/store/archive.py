"""Reads stored files from the disk, to hash them, and leaves the page cache as it was;
and the records of resumable uploads.

Reading everything through the page cache would evict what other programs need, and
would check the cache instead of the disk. The access time is not updated if the user
owns the file. Only regular files are opened, and no link is followed. A file that is
written to or replaced while it is read has no definite content.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Self

import cattrs
from attrs import frozen
from zope.interface import implementer

from filebucket.base.fs import directory as opened
from filebucket.base.hashes import Hashes
from filebucket.model.names import PRIVATE, check
from filebucket.model.unfinished import Unfinished
from filebucket.store.attributes import KERNEL, Attributes, is_sealed
from filebucket.store.interfaces import (
    Content,
    IArchive,
    IFolder,
    IsFolderError,
    IStoredFile,
    NoFileError,
    NotAFileError,
    Stat,
    UnsteadyError,
)

LOCK = os.path.join(PRIVATE, "prune")
"""The lock file of prune, under the home."""

UPLOADS = os.path.join(PRIVATE, "uploads")
"""The folder of unfinished resumable uploads, under the home."""

RECORD = ".json"
"""End of the name of a record."""

ID = re.compile("[0-9a-f]{32}")
"""The names of uploads."""

MOST_RECORD = 64 * 1024
"""Bytes of a record. A name and the metadata of a client make most of it."""

READ_SIZE = 1024 * 1024
"""Bytes per read."""

DROP_EVERY = 8 * READ_SIZE
"""Bytes read until they are dropped from the page cache."""


@implementer(IArchive)
@frozen
class DirectoryArchive:
    """Reads what a :class:`~filebucket.store.disk.DirectoryStore` stores.

    :param home: absolute path
    """

    home: str
    attributes: Attributes = KERNEL

    @contextmanager
    def open(self, directory: str) -> Iterator[Folder]:
        path = os.path.join(self.home, directory)
        with ExitStack() as stack:
            fd = None
            with suppress(FileNotFoundError):
                fd = stack.enter_context(opened(path))
            yield Folder(fd, self.attributes)

    @contextmanager
    def unpruned(self) -> Iterator[bool]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with ExitStack() as stack:
            try:
                fd = os.open(os.path.join(self.home, LOCK), flags)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except FileNotFoundError:
                # No prune has ever run.
                yield True
            except OSError:
                yield False
            else:
                yield True

    def is_foreign(self, stored: Iterable[tuple[str, float]]) -> bool:
        # The catalogue is in the home, too.
        return False

    def unfinished(self) -> list[Unfinished]:
        path = os.path.join(self.home, UPLOADS)
        found = []
        with suppress(FileNotFoundError), opened(path, follow=False) as fd:
            for name in os.listdir(fd):
                # The daemon goes on, and reports the records that it cannot read.
                with suppress(ValueError, OSError):
                    if name.endswith(RECORD):
                        found.append(read_record(name.removesuffix(RECORD), fd))
        return [each for each in found if each is not None and each.finished is None]


def read_record(identity: str, directory_fd: int) -> Unfinished | None:
    """The record of a resumable upload; None if there is none.

    :param directory_fd: the folder of the uploads
    :raises ValueError: it is not one of the daemon's
    :raises OSError: it cannot be read
    """
    # A pipe in place of a file must not be waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(identity + RECORD, flags, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        text = os.read(fd, MOST_RECORD + 1) if is_file else b""
    finally:
        os.close(fd)
    if len(text) > MOST_RECORD:
        raise ValueError("its record is too large")
    try:
        return _checked(cattrs.structure(json.loads(text), Unfinished), identity)
    except (
        ValueError,
        TypeError,
        RecursionError,
        OverflowError,
        cattrs.BaseValidationError,
    ):
        raise ValueError("its record cannot be read") from None


def _checked(upload: Unfinished, identity: str) -> Unfinished:
    """An upload whose record another program may have written.

    :raises ValueError: something in it cannot be
    """
    check(upload.name)
    Hashes(upload.promised)
    upload.digests()
    times = (upload.created_at, upload.touched_at, upload.seconds)
    if not (
        upload.id == identity
        and ID.fullmatch(identity)
        and len(bytes.fromhex(upload.token)) == len(bytes.fromhex(upload.sha256)) == 32
        and upload.offset >= 0
        and (upload.length is None or upload.offset <= upload.length)
        and all(map(math.isfinite, times))
    ):
        raise ValueError(identity)
    return upload


@implementer(IFolder)
@frozen
class Folder:
    """A bucket's folder.

    :param fd: its descriptor; None if there is no such folder
    """

    fd: int | None
    attributes: Attributes = KERNEL

    def list(self, most: int) -> Iterator[Sequence[bytes]]:
        if self.fd is None:
            return
        with os.scandir(self.fd) as entries:
            while names := [os.fsencode(each.name) for each in islice(entries, most)]:
                yield names

    def untouched(self, before: Mapping[str, float]) -> Collection[str]:
        return ()

    def expect(self, names: Sequence[str]) -> None:
        pass

    def look(self, name: str) -> Stat:
        if self.fd is None:
            raise NoFileError
        try:
            found = os.lstat(_raw(name), dir_fd=self.fd)
        except FileNotFoundError:
            raise NoFileError from None
        if stat.S_ISDIR(found.st_mode):
            raise IsFolderError
        if not stat.S_ISREG(found.st_mode):
            raise NotAFileError
        return _stat(found)

    def is_sealed(self, name: str) -> bool:
        self.look(name)
        assert self.fd is not None
        try:
            return is_sealed(_raw(name), self.fd, self.attributes)
        except FileNotFoundError:
            raise NoFileError from None

    def read(self, name: str, pace: Callable[[int], object]) -> Content:
        with self.open(name) as file:
            content = file.copy(lambda piece: pace(len(piece)))
        try:
            named = self.look(name)
        except NoFileError:
            raise UnsteadyError from None
        if named.version != content.stat.version:
            raise UnsteadyError
        return content

    @contextmanager
    def open(self, name: str) -> Iterator[StoredFile]:
        before = self.look(name)
        try:
            fd = self._open(name)
        except FileNotFoundError:
            raise NoFileError from None
        try:
            if before.version != _stat(os.fstat(fd)).version:
                raise UnsteadyError
            yield StoredFile(fd, before)
        finally:
            os.close(fd)

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        # O_NOATIME saves a write of the access time for each file. Only the file's
        # owner may use it.
        with suppress(PermissionError):
            return os.open(_raw(name), flags | os.O_NOATIME, dir_fd=self.fd)
        return os.open(_raw(name), flags, dir_fd=self.fd)


@implementer(IStoredFile)
@frozen
class StoredFile:
    """A file that is open: it can be read even if it is deleted, and by a process that
    may not open it.

    :param fd: its descriptor
    :param stat: its stat when it was opened
    """

    fd: int
    stat: Stat

    @classmethod
    def of(cls, fd: int) -> Self:
        """A file that another process opened.

        :raises NotAFileError: it is something else
        """
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotAFileError
        return cls(fd, _stat(found))

    def copy(self, write: Callable[[memoryview], object]) -> Content:
        try:
            size, sha256 = _hash(self.fd, self.stat.size, write)
        finally:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        after = _stat(os.fstat(self.fd))
        if size != after.size or after.version != self.stat.version:
            raise UnsteadyError
        return Content(size, sha256, after)

    def piece(self, offset: int, most: int) -> bytes:
        data = os.pread(self.fd, most, offset)
        # Other programs need the cache more.
        os.posix_fadvise(self.fd, offset, len(data), os.POSIX_FADV_DONTNEED)
        return data


def _stat(found: os.stat_result) -> Stat:
    version = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return Stat(found.st_size, found.st_mtime, found.st_ctime, version)


def _hash(
    fd: int, expected: int, write: Callable[[memoryview], object]
) -> tuple[int, str]:
    # Cached pages prove nothing about the disk.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    digest = hashlib.sha256()
    piece = memoryview(bytearray(min(max(expected, 1), READ_SIZE)))
    size = dropped = 0
    # A file that grows all the time has no end.
    while size <= expected and (count := os.readv(fd, [piece])):
        digest.update(piece[:count])
        size += count
        if size - dropped >= DROP_EVERY:
            os.posix_fadvise(fd, dropped, size - dropped, os.POSIX_FADV_DONTNEED)
            dropped = size
        write(piece[:count])
    return size, digest.hexdigest()


def _raw(name: str) -> bytes:
    # Names are UTF-8, whatever the locale says.
    return name.encode("utf-8")
