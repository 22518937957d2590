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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from attrs import frozen
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.base.fs import directory as opened
from filebucket.base.fs import open_directory, sync_directory
from filebucket.store.archive import LOCK, Folder
from filebucket.store.interfaces import IRemovals, IRemover, Stat

WAIT = 1.0
"""Seconds to wait for processes that only check whether a prune is running."""


class RemovalError(OperatorError):
    """Nothing was deleted. The message is one line, without a path."""


@contextmanager
def prune_lock(home: str) -> Iterator[None]:
    """Keep other processes from deleting files.

    :raises RemovalError: another one does, or that cannot be determined
    """
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(os.path.join(home, LOCK), flags, 0o600)
    except OSError as error:
        raise RemovalError(f"the home cannot be locked: {error.strerror}") from None
    try:
        try:
            _lock(fd)
        except BlockingIOError:
            raise RemovalError("another filebucket prune is running") from None
        except OSError as error:
            raise RemovalError(f"the home cannot be locked: {error.strerror}") from None
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    end = time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(WAIT / 20)
        else:
            return


@contextmanager
def removing(
    home: str, unlink: Callable[..., None] = os.unlink
) -> Iterator[DirectoryRemover]:
    """Open a home to delete files, under :func:`prune_lock`.

    :param unlink: deletes a file
    :raises RemovalError: the home cannot be opened
    """
    try:
        home_fd = open_directory(home)
    except OSError as error:
        raise RemovalError(f"the home cannot be opened: {error.strerror}") from None
    try:
        yield DirectoryRemover(home_fd, unlink)
    finally:
        os.close(home_fd)


@implementer(IRemover)
@frozen
class DirectoryRemover:
    """Deletes what a :class:`~filebucket.store.disk.DirectoryStore` stores."""

    home_fd: int
    unlink: Callable[..., None]

    @contextmanager
    def open(self, directory: str) -> Iterator[Removals]:
        with opened(directory, self.home_fd, follow=False) as fd:
            yield Removals(fd, self.unlink)


@implementer(IRemovals)
@frozen
class Removals:
    """A bucket's folder, opened for deleting files."""

    fd: int
    unlink: Callable[..., None]

    def look(self, name: str) -> Stat:
        return Folder(self.fd).look(name)

    def remove(self, name: str, objection: Callable[[], str | None]) -> str | None:
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        try:
            found = objection()
            if found is None:
                self.unlink(name.encode("utf-8"), dir_fd=self.fd)
            return found
        finally:
            with suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_UN)

    def sync(self) -> None:
        sync_directory(self.fd)
