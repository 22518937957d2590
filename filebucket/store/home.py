"""The home of a running daemon: its lock, its private folders, and the threads for
calls that may wait for its disk.

Every store has a home, wherever it stores files: pushes in progress and resumable
uploads are there. No error leaves this module with a path below a bucket's folder,
since that can contain a token.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from filebucket.base.context import current_request
from filebucket.base.errors import ConfigError, Refusal
from filebucket.base.fs import make_directory, open_directory, sync_path
from filebucket.base.owner import giving, user_name
from filebucket.model.names import PRIVATE
from filebucket.store.aside import AsideFile, UnnamedFile, find_tier
from filebucket.store.interfaces import IHome, InLine

T = TypeVar("T")
Item = TypeVar("Item")

STUCK = 60.0
"""Seconds without an answer after which a disk counts as stuck. If none of a bucket's
threads has returned for that time, the bucket's pushes get 503."""


@implementer(IHome)
class Home:
    """The home of a daemon.

    :ivar path: absolute path
    :ivar fd: its descriptor, as the next ones only between :meth:`prepare` and
        :meth:`close`
    :ivar incoming_fd: the folder for files under private names, emptied at start
    :ivar parts_fd: the folder of resumable uploads
    :ivar lines: threads for calls that may wait for a disk
    """

    _log = Logger()

    def __init__(self, path: str, lines: InLine) -> None:
        """
        :param path: absolute path; created if missing
        :param lines: threads for calls that may wait for a disk, a line for each bucket
        """
        self.path = path
        self.lines = lines
        self.fd = self.incoming_fd = self.parts_fd = self._lock_fd = -1
        self._tier: type[AsideFile] = UnnamedFile

    def prepare(self) -> str:
        """Create missing folders, delete leftovers of a crash, and find out what the
        filesystem supports.

        :returns: the name of the tier
        :raises ConfigError: this home cannot be used
        """
        try:
            parents = []
            missing = self.path
            while not os.path.isdir(missing):
                missing = os.path.dirname(missing)
                parents.append(missing)
            if parents:
                os.makedirs(self.path, 0o700)
            for parent in parents:
                sync_path(parent)
            self.fd = open_directory(self.path)
            private_fd = make_directory(PRIVATE, self.fd)
            try:
                self.incoming_fd = make_directory("incoming", private_fd)
                self.parts_fd = make_directory("uploads", private_fd)
                flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
                self._lock_fd = os.open("lock", flags, 0o600, dir_fd=private_fd)
            finally:
                os.close(private_fd)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in os.listdir(self.incoming_fd):
                os.unlink(left, dir_fd=self.incoming_fd)
        except BlockingIOError:
            raise ConfigError(
                self.path, ["another file-bucket is using this home"]
            ) from None
        except OSError as error:
            raise ConfigError(self.path, [unusable(self.path, error)]) from None
        self._tier = find_tier(self.path, self.incoming_fd)
        return self._tier.tier

    def close(self) -> None:
        """Release the home."""
        for fd in (self.fd, self.incoming_fd, self._lock_fd, self.parts_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.incoming_fd = self._lock_fd = self.parts_fd = -1

    def check_moves(self, directory: str) -> None:
        """Check that the disk of a bucket is not stuck.

        :param directory: the bucket's folder
        :raises Refusal: 503: it is
        """
        if self.lines.is_stuck(directory, STUCK):
            raise Refusal(503, "the server's disk is not responding")

    async def run(self, directory: str, function: Callable[..., T], *args: Any) -> T:
        """Call ``function`` in a thread of the bucket.

        :raises Refusal: disk error, which is logged
        """
        try:
            return await self.lines.run(directory, function, *args)
        except OSError as error:
            raise self.refusal(error, function.__name__.strip("_")) from None

    async def together(
        self,
        directory: str,
        function: Callable[[str, Sequence[Item]], Sequence[T | Exception]],
        item: Item,
    ) -> T:
        """Commit ``item`` together with others of the bucket, in a thread.

        :param function: gets the folder and the items; returns the result or the
            exception of each
        :raises Refusal: disk error, which is logged
        """
        try:
            return await self.lines.together(directory, function, item)
        except OSError as error:
            raise self.refusal(error, "commit") from None

    def refusal(self, error: OSError, what: str) -> Refusal:
        """Log a disk error.

        :param what: what failed
        :returns: the refusal of the push
        """
        self._log.error(
            "request={request}: disk error during {what}: {error}",
            event="disk",
            request=current_request(),
            what=what,
            error=error.strerror,
        )
        return Refusal(
            *_STATUSES.get(error.errno or 0, (503, "disk error on the server"))
        )

    # Called in a thread, since it may wait for the disk.

    def open_aside(self, folder_fd: int) -> AsideFile:
        """Open a file to receive into.

        :param folder_fd: the folder that will have it, or any folder of the home
        """
        return self._tier(folder_fd, self.incoming_fd)


def unusable(home: str, error: OSError) -> str:
    """Why a home cannot be used: what the operator can do if it or a folder in it
    belongs to another user, as after root has started the daemon.
    """
    text = f"cannot be used as home: {error.strerror}"
    if not isinstance(error, PermissionError):
        return text
    user = os.geteuid()
    for each in ("", "incoming", "uploads", "lock"):
        path = os.path.join(home, PRIVATE, each).rstrip("/")
        with suppress(OSError):
            owner = os.lstat(path).st_uid
            if owner == user:
                continue
            text += f": {path} belongs to user {user_name(owner)}"
            if os.stat(home).st_uid == user:
                text += f"; as root, run: {giving(home, user, owner)}"
            break
    return text


_STATUSES = {
    **dict.fromkeys(
        (
            errno.EACCES,
            errno.ELOOP,
            errno.ENOENT,
            errno.ENOTDIR,
            errno.EOPNOTSUPP,
            errno.EPERM,
            errno.EROFS,
            errno.EXDEV,
        ),
        (401, "the bucket's folder cannot be created or written"),
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), (507, "not enough free space")),
    **dict.fromkeys(
        (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
        (503, "the server is overloaded"),
    ),
    errno.EFBIG: (413, "the file is too large for the server's filesystem"),
}
