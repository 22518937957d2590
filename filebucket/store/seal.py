"""Makes stored files immutable, for ``filebucket seal``, which root runs.

The daemon's user owns the home and may be in the hands of an attacker. So no content
and no catalogue is read here; names are only passed back to the kernel, folders are
opened by descriptor, no link is followed, and no pipe is waited for. A file that
belongs to another user or has another name may be any file of the system, so it is left
alone.

The immutable flag does not stop a process that has opened or mapped the file for
writing before (XFS and Btrfs; Ext4 does). Hence a look for such processes, after the
flag is set and at every later run. The messages contain no path: a folder's name can be
a token.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from itertools import islice

from attrs import frozen

from filebucket.base.errors import OperatorError
from filebucket.base.fs import directory as opened
from filebucket.base.fs import filesystem_type, open_directory
from filebucket.model.names import PRIVATE
from filebucket.store.attributes import (
    APPEND_ONLY,
    IMMUTABLE,
    KERNEL,
    Attributes,
    is_unsupported,
    looking_at,
)


class Fate(Enum):
    """The result for a file."""

    SEALED = "sealed"
    ALREADY = "sealed before"
    YOUNG = "too new"
    LIFTED = "unsealed"
    LEFT = "left alone"
    FAILED = "failed"


@frozen
class Result:
    """The result for a file, or for a whole bucket.

    :param name: None for a whole bucket or the home
    :param reason: a few words if it failed
    """

    name: bytes | None
    fate: Fate
    reason: str = ""


SEALED_WITHIN = 3600.0
"""Seconds after which a file that must be sealed is sealed: its timer may be late."""

AHEAD = 3600.0
"""Seconds in the future from which on a time is that of a wrong clock: the file counts
as old. Otherwise it would be too new until then, perhaps for years."""

OPEN = "a process has it open for writing"
FOREIGN = "it does not belong to the owner of the home"
LINKED = "it has another name (a hard link)"
NOT_ALLOWED = "not permitted: run this as root"


class SealError(OperatorError):
    """Nothing was sealed. The message is one line, without a path."""


@contextmanager
def sealing(home: str, attributes: Attributes = KERNEL) -> Iterator[Home]:
    """Open a home to seal its files.

    :raises SealError: the home cannot be opened
    """
    try:
        fd = open_directory(home)
    except OSError as error:
        raise SealError(f"the home cannot be opened: {error.strerror}") from None
    try:
        yield Home(fd, attributes)
    finally:
        os.close(fd)


def _owner(home_fd: int) -> int:
    """The daemon's user: the owner of the home or, if that is root, of its private
    folder, which the daemon created.
    """
    owner = os.fstat(home_fd).st_uid
    if owner == 0:
        try:
            owner = os.lstat(PRIVATE, dir_fd=home_fd).st_uid
        except OSError as error:
            raise SealError(f"no daemon has used it yet: {error.strerror}") from None
    return owner


@frozen
class Home:
    """A home, opened for sealing.

    :param fd: its descriptor
    """

    fd: int
    attributes: Attributes

    def protect(self) -> Result:
        """Keep its folders from being renamed or removed."""
        return self._home(APPEND_ONLY)

    def unprotect(self) -> Result:
        """The opposite."""
        return self._home(0)

    def is_protected(self) -> bool:
        """Whether it is.

        :raises OSError: that cannot be determined
        """
        return bool(self.attributes.get(self.fd) & APPEND_ONLY)

    def _home(self, wanted: int) -> Result:
        done = Fate.SEALED if wanted else Fate.LIFTED
        try:
            flags = self.attributes.get(self.fd)
            if flags & APPEND_ONLY == wanted:
                return Result(None, Fate.ALREADY)
            self.attributes.set(self.fd, flags & ~APPEND_ONLY | wanted)
        except OSError as error:
            return Result(None, Fate.FAILED, reason_of(error))
        return Result(None, done)

    def seal(self, directory: str, before: float) -> Iterator[Result]:
        """Seal the files of a bucket's folder.

        :param before: leave files alone that changed since then, in seconds since the
            epoch. That includes their mode, name and flags
        :raises SealError: the owner of stored files is not known
        """
        owner = _owner(self.fd)
        seal = partial(self._seal, owner=owner, before=before)
        yield from self._each(directory, seal, None)

    def lift(
        self, directory: str, names: Iterable[bytes] | None = None
    ) -> Iterator[Result]:
        """Make files of a bucket's folder changeable.

        :param names: None is all
        """
        yield from self._each(directory, self._lift, names)

    def unsealed(self, directory: str, before: float, most: int) -> int:
        """The number of files that should be sealed, but are not.

        :param before: as in :meth:`seal`
        :param most: the number of files to look at
        :raises OSError: the folder or a file cannot be opened, or the filesystem has no
            such flag
        """
        count = 0
        with opened(directory, self.fd, follow=False) as folder_fd:
            for name in islice(_files(folder_fd), most):
                with suppress(FileNotFoundError), looking_at(name, folder_fd) as fd:
                    if not self.attributes.get(fd) & IMMUTABLE:
                        count += not is_young(os.fstat(fd).st_ctime, before)
        return count

    def _each(
        self,
        directory: str,
        act: Callable[[int], tuple[Fate, str] | None],
        names: Iterable[bytes] | None,
    ) -> Iterator[Result]:
        try:
            with opened(directory, self.fd, follow=False) as folder_fd:
                kind = filesystem_type(folder_fd) or ""
                if kind.startswith("fuse"):
                    reason = f"its filesystem does not support immutable files ({kind})"
                    yield Result(None, Fate.FAILED, reason)
                    return
                for name in _files(folder_fd) if names is None else names:
                    try:
                        # A path may lead out of the folder, by a link in it.
                        if b"/" in name:
                            raise FileNotFoundError
                        found = _acted(act, name, folder_fd)
                    except FileNotFoundError:
                        if names is not None:
                            yield Result(name, Fate.FAILED, "there is no such file")
                    else:
                        if found is not None:
                            yield found
        except FileNotFoundError:
            # Before the first push there is no folder.
            return
        except OSError as error:
            reason = reason_of(error)
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                reason = "its folder is a symbolic link, or not a folder"
            yield Result(None, Fate.FAILED, reason)

    def _seal(self, fd: int, owner: int, before: float) -> tuple[Fate, str] | None:
        # The flags come first: if filebucket prune lifts the flag after that, its file
        # was sealed; if before, the file has changed just now.
        flags = self.attributes.get(fd)
        if flags & IMMUTABLE:
            if self.attributes.is_written(fd):
                return Fate.FAILED, f"{OPEN}, since before it was sealed"
            return Fate.ALREADY, ""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        if is_young(found.st_ctime, before):
            return Fate.YOUNG, ""
        if found.st_uid != owner or found.st_nlink != 1:
            return Fate.FAILED, FOREIGN if found.st_uid != owner else LINKED
        return self._seal_now(fd, flags)

    def _seal_now(self, fd: int, flags: int) -> tuple[Fate, str]:
        self.attributes.set(fd, flags | IMMUTABLE)
        is_written = True
        try:
            is_written = self.attributes.is_written(fd)
        finally:
            if is_written:
                self.attributes.set(fd, flags)
        return (Fate.FAILED, OPEN) if is_written else (Fate.SEALED, "")

    def _lift(self, fd: int) -> tuple[Fate, str] | None:
        flags = self.attributes.get(fd)
        found = os.fstat(fd)
        if not (flags & IMMUTABLE and stat.S_ISREG(found.st_mode)):
            return None
        # No sealed file has another name: it can get none.
        if found.st_nlink != 1:
            return Fate.FAILED, LINKED
        self.attributes.set(fd, flags & ~IMMUTABLE)
        return Fate.LIFTED, ""


def is_young(at: float, before: float) -> bool:
    """Whether a time is after ``before``, and not that of a wrong clock."""
    return before < at < time.time() + AHEAD


def _files(folder_fd: int) -> Iterator[bytes]:
    """The names of the regular files."""
    with os.scandir(folder_fd) as entries:
        for each in entries:
            if each.is_file(follow_symlinks=False):
                yield os.fsencode(each.name)


def _acted(
    act: Callable[[int], tuple[Fate, str] | None], name: bytes, folder_fd: int
) -> Result | None:
    """Act on a file.

    :raises FileNotFoundError: it is gone
    """
    try:
        with looking_at(name, folder_fd) as fd:
            found = act(fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        return Result(name, Fate.FAILED, reason_of(error))
    return None if found is None else Result(name, *found)


def reason_of(error: OSError) -> str:
    """The reason for people."""
    if is_unsupported(error):
        return "the filesystem does not support immutable files"
    if error.errno in (errno.EPERM, errno.EACCES):
        return NOT_ALLOWED
    return error.strerror or "disk error"
