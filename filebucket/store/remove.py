"""Deletes stored files, for ``filebucket prune`` only: the daemon never loads it.

A file is deleted under a lock on its bucket's folder, after a last check. Overwriting
pushes take the same lock, so none of their files is deleted.

Folders are opened by descriptor, and no link is followed: neither the name of a file
nor that of a bucket leads out of the home. The error messages of this module contain no
path, since a token can be the name of a folder.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from attrs import frozen
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.base.fs import directory as opened
from filebucket.base.fs import open_directory, sync_directory
from filebucket.base.owner import become_owner_of, opened_as_owner_of
from filebucket.model.names import PRIVATE
from filebucket.store.archive import LOCK, Folder
from filebucket.store.attributes import (
    IMMUTABLE,
    KERNEL,
    Attributes,
    looking_at,
)
from filebucket.store.interfaces import IRemovals, IRemover, SealedError, Stat

WAIT = 1.0
"""Seconds to wait for processes that only check whether a prune is running."""

REMOVAL = 5.0
"""Seconds to wait for the removal of a file."""

STUCK = 60.0
"""Seconds to wait for pushes that replace files. An attacker must not be able to stop
prune without a trace."""


class RemovalError(OperatorError):
    """Nothing was deleted. The message is one line, without a path."""


@contextmanager
def prune_lock(home: str) -> Iterator[None]:
    """Keep other processes from deleting files. Root keeps its rights, but the lock is
    taken with those of the home's owner.

    :raises OperatorError: another process deletes files, or that cannot be determined
    """

    def work() -> tuple[str, int]:
        become_owner_of(home, PRIVATE)
        return "", _locked(home)

    # Until all copies of the descriptor are closed, the home is locked.
    _, fd = opened_as_owner_of(home, PRIVATE, work)
    try:
        yield
    finally:
        os.close(fd)


def _locked(home: str) -> int:
    """A descriptor that has the lock."""
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(os.path.join(home, LOCK), flags, 0o600)
    except OSError as error:
        raise RemovalError(f"the home cannot be locked: {error.strerror}") from None
    try:
        _lock(fd, WAIT)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise RemovalError("another filebucket prune is running") from None
        if isinstance(error, OSError):
            raise RemovalError(f"the home cannot be locked: {error.strerror}") from None
        raise
    return fd


def _lock(fd: int, wait: float) -> None:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(WAIT / 20)
        else:
            return


def await_removal(home: str, directory: str) -> None:
    """Wait until no file of a bucket is being deleted. Each later removal begins with a
    check, which sees what the caller has changed before.

    :raises RemovalError: a process keeps the folder locked
    :raises OSError: the folder cannot be opened
    """
    with (
        opened(home) as home_fd,
        opened(directory, home_fd, follow=False) as fd,
    ):
        try:
            _lock(fd, REMOVAL)
        except BlockingIOError:
            raise RemovalError(
                "a process keeps the bucket's folder locked, and may delete the file"
            ) from None


@contextmanager
def removing(
    home: str,
    unlink: Callable[..., None] = os.unlink,
    attributes: Attributes = KERNEL,
) -> Iterator[DirectoryRemover]:
    """Open a home to delete files, under :func:`prune_lock`.

    :param unlink: deletes a file
    :param attributes: the flags of sealed files
    :raises RemovalError: the home cannot be opened
    """
    try:
        home_fd = open_directory(home)
    except OSError as error:
        raise RemovalError(f"the home cannot be opened: {error.strerror}") from None
    try:
        yield DirectoryRemover(home_fd, unlink, attributes)
    finally:
        os.close(home_fd)


@implementer(IRemover)
@frozen
class DirectoryRemover:
    """Deletes what a :class:`~filebucket.store.disk.DirectoryStore` stores."""

    home_fd: int
    unlink: Callable[..., None]
    attributes: Attributes

    @contextmanager
    def open(self, directory: str) -> Iterator[Removals]:
        with opened(directory, self.home_fd, follow=False) as fd:
            yield Removals(fd, self.unlink, self.attributes)


@implementer(IRemovals)
@frozen
class Removals:
    """A bucket's folder, opened for deleting files."""

    fd: int
    unlink: Callable[..., None]
    attributes: Attributes

    def expect(self, names: Sequence[str]) -> None:
        pass

    def look(self, name: str) -> Stat:
        return Folder(self.fd).look(name)

    def is_sealed(self, name: str) -> bool:
        return Folder(self.fd, self.attributes).is_sealed(name)

    def remove(self, name: str, objection: Callable[[], str | None]) -> str | None:
        try:
            _lock(self.fd, STUCK)
        except BlockingIOError:
            # Not only this file: each one would take as long.
            raise RemovalError("a process keeps a bucket's folder locked") from None
        try:
            found = objection()
            if found is None:
                self._remove(name.encode("utf-8"))
            return found
        finally:
            with suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_UN)

    def _remove(self, name: bytes) -> None:
        try:
            self.unlink(name, dir_fd=self.fd)
        except PermissionError:
            # The flag is lifted only now: filebucket seal may have set it just before.
            with looking_at(name, self.fd) as fd:
                flags = self.attributes.get(fd)
                if not flags & IMMUTABLE:
                    raise
                self._remove_sealed(name, fd, flags)

    def _remove_sealed(self, name: bytes, fd: int, flags: int) -> None:
        try:
            self.attributes.set(fd, flags & ~IMMUTABLE)
        except PermissionError:
            raise SealedError from None
        try:
            self.unlink(name, dir_fd=self.fd)
        except BaseException:
            self.attributes.set(fd, flags)
            raise

    def sync(self) -> None:
        sync_directory(self.fd)
