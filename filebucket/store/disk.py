"""Stores files in folders, and makes them durable.

A file that is being received has no name (O_TMPFILE), so a crash leaves nothing behind.
Publishing is: write, fsync the file, link (which fails if the name exists), fsync the
folder. All four are needed, in this order (:meth:`DirectoryWriter._commit`). On a
filesystem without O_TMPFILE the file has a private name in
``<home>/.filebucket/incoming/``, which is emptied at start. An overwriting push does
the same if the name is free; else it renames over the old file, under a lock that keeps
``filebucket prune`` away.

Everything that may wait for a disk runs in a thread. A failed fsync is never retried:
the kernel has dropped the pages, and the second call would succeed wrongly. No error
leaves this module with a path in it, since a path can contain a token.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from filebucket.base.context import current_request
from filebucket.base.errors import ConfigError, Refusal
from filebucket.base.fs import (
    make_directory,
    open_directory,
    sync_directory,
    sync_path,
)
from filebucket.model.names import PRIVATE
from filebucket.store.aside import AsideFile, PartFile, UnnamedFile, find_tier
from filebucket.store.attributes import KERNEL, Attributes, is_sealed
from filebucket.store.count import count, taken_by
from filebucket.store.interfaces import (
    InLine,
    IStore,
    IWriter,
    NameSealed,
    NameTaken,
    Receipt,
)
from filebucket.store.local import LocalWriter
from filebucket.store.room import Room

T = TypeVar("T")

STUCK = 60.0
"""Seconds without an answer after which a disk counts as stuck. If none of a bucket's
threads has returned for that time, the bucket's pushes get 503."""

LOCK_TIMEOUT = 5.0
"""Seconds that a push waits for a lock, in a thread. Locks are held for at most a
rename, or the last check of a file and its deletion."""


@define(eq=False)
class _Folder:
    """A bucket's folder. Each bucket has its own locks, so that a stuck disk of one
    bucket does not block another.

    :ivar known: whether the folder exists durably
    :ivar making: held while the folder is created
    :ivar replacing: held while files are replaced
    """

    known: bool = False
    making: threading.Lock = field(factory=threading.Lock)
    replacing: threading.Lock = field(factory=threading.Lock)


@implementer(IStore)
class DirectoryStore:
    """Stores files in folders under one home."""

    _log = Logger()
    attributes: Attributes = KERNEL

    def __init__(self, home: str, lines: InLine, room: Room) -> None:
        """
        :param home: absolute path; created if missing
        :param lines: threads for calls that may wait for a disk, a line for each bucket
        :param room: free space and quotas
        """
        self.home = home
        self._lines = lines
        self.room = room
        self._home_fd = self._incoming_fd = self._lock_fd = self.parts_fd = -1
        self._tier: type[AsideFile] = UnnamedFile
        self._folders: dict[str, _Folder] = {}
        # Pushes that wait until a bucket is counted.
        self._counting: dict[str, list[Deferred[None]]] = {}
        self.order = itertools.count()

    def prepare(self) -> str:
        """Create missing folders, delete leftovers of a crash, and find out what the
        home's filesystem supports.

        :returns: the name of the tier
        :raises ConfigError: this home cannot be used
        """
        try:
            parents = []
            missing = self.home
            while not os.path.isdir(missing):
                missing = os.path.dirname(missing)
                parents.append(missing)
            if parents:
                os.makedirs(self.home, 0o700)
            for parent in parents:
                sync_path(parent)
            self._home_fd = open_directory(self.home)
            private_fd = make_directory(PRIVATE, self._home_fd)
            try:
                self._incoming_fd = make_directory("incoming", private_fd)
                self.parts_fd = make_directory("uploads", private_fd)
                flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
                self._lock_fd = os.open("lock", flags, 0o600, dir_fd=private_fd)
            finally:
                os.close(private_fd)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in os.listdir(self._incoming_fd):
                os.unlink(left, dir_fd=self._incoming_fd)
        except BlockingIOError:
            raise ConfigError(
                self.home, ["another file-bucket is using this home"]
            ) from None
        except OSError as error:
            raise ConfigError(
                self.home, [f"cannot be used as home: {error.strerror}"]
            ) from None
        self._tier = find_tier(self.home, self._incoming_fd)
        return self._tier.tier

    def close(self) -> None:
        """Release the home."""
        for fd in (self._home_fd, self._incoming_fd, self._lock_fd, self.parts_fd):
            if fd >= 0:
                os.close(fd)
        self._home_fd = self._incoming_fd = self._lock_fd = self.parts_fd = -1

    async def check_room(self, directory: str, size: int) -> None:
        self.check_moves(directory)
        await self.run(directory, self.room.check, self._home_fd, directory, size)

    async def confirm(self, directory: str, name: str, size: int) -> bool:
        self.check_moves(directory)
        return await self.run(directory, self._confirm, directory, name, size)

    def _confirm(self, directory: str, name: str, size: int) -> bool:
        bucket_fd = self.open_bucket(directory)
        try:
            # Never open anything but a file: opening a device may have effects.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                found = os.lstat(name.encode("utf-8"), dir_fd=bucket_fd)
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    return False
                fd = os.open(name.encode("utf-8"), flags, dir_fd=bucket_fd)
            except FileNotFoundError:
                return False
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_directory(bucket_fd)
            return True
        finally:
            os.close(bucket_fd)

    def open(
        self,
        directory: str,
        name: str,
        algorithms: Collection[str],
        quota: int | None,
    ) -> DirectoryWriter:
        return DirectoryWriter(self, directory, name, algorithms, quota)

    def check_moves(self, directory: str) -> None:
        """Check that the disk of a bucket is not stuck.

        :raises Refusal: 503: it is
        """
        if self._lines.is_stuck(directory, STUCK):
            raise Refusal(503, "the server's disk is not responding")

    async def know(self, directory: str, size: int, quota: int) -> None:
        """Make sure that a bucket's files are counted before a push to it.

        :param size: bytes of the push, as far as known
        :raises Refusal: disk error
        """
        if self.room.must_count(directory, size, quota):
            await self._counted(directory)
        elif self.room.is_old(directory):
            # In the background; disk errors are logged.
            counted = Deferred.fromCoroutine(self._counted(directory))
            counted.addErrback(lambda failure: failure.trap(Refusal))

    async def _counted(self, directory: str) -> None:
        """Count the bucket's files, or wait for a count in progress."""
        waiting = self._counting.setdefault(directory, [])
        wait: Deferred[None] = Deferred()
        waiting.append(wait)
        if len(waiting) == 1:
            counted = Deferred.fromCoroutine(self._count_all(directory))
            counted.addBoth(self._tell_counted, directory)
        await wait

    def _tell_counted(self, result: Failure | None, directory: str) -> None:
        for wait in self._counting.pop(directory):
            wait.callback(result)

    async def _count_all(self, directory: str) -> None:
        self.room.count_begins(directory)
        bucket_fd = await self.run(directory, self.open_bucket, directory)
        counting, taken = count(bucket_fd), 0
        try:
            # In steps, so that other calls for the bucket can run in between.
            more = await self.run(directory, _count, counting)
            while more is not None:
                taken += more
                more = await self.run(directory, _count, counting)
        finally:
            counting.close()
            await self.run(directory, os.close, bucket_fd)
        self.room.counted(directory, taken)

    async def run(self, directory: str, function: Callable[..., T], *args: Any) -> T:
        """Call ``function`` in a thread of the bucket.

        :raises Refusal: disk error, which is logged
        """
        try:
            return await self._lines.run(directory, function, *args)
        except OSError as error:
            self._log.error(
                "request={request}: disk error during {what}: {error}",
                event="disk",
                request=current_request(),
                what=function.__name__.strip("_"),
                error=error.strerror,
            )
            raise _refusal(error) from None

    # Called by a writer in a thread, since they may wait for the disk.

    def open_bucket(self, directory: str) -> int:
        """A descriptor of a bucket's folder, which is created if needed."""
        folder = self.folder(directory)
        if folder.known:
            # If the folder was removed in the meantime, it is created again.
            with suppress(FileNotFoundError):
                return open_directory(directory, self._home_fd)
        # The bucket's name in the home must be durable before any push to the bucket is
        # answered, whichever push or earlier daemon created it: hence the lock, and the
        # fsync at the first use after the start.
        with _locked(folder.making):
            fd = make_directory(directory, self._home_fd)
            folder.known = True
            return fd

    def folder(self, directory: str) -> _Folder:
        """The bucket's folder and its locks."""
        found = self._folders.get(directory)
        # setdefault is atomic: two threads get the same one.
        return found or self._folders.setdefault(directory, _Folder())

    def open_aside(self, bucket_fd: int) -> AsideFile:
        """Open a file to receive into, for that bucket."""
        return self._tier(bucket_fd, self._incoming_fd)

    def open_part(self, bucket_fd: int, name: bytes, offset: int | None) -> PartFile:
        """Open the file of a resumable upload to that bucket, as :class:`PartFile`."""
        return PartFile(bucket_fd, self._incoming_fd, self.parts_fd, name, offset)


@implementer(IWriter)
class DirectoryWriter(LocalWriter):
    """A file that a :class:`DirectoryStore` is receiving."""

    def __init__(
        self,
        store: DirectoryStore,
        directory: str,
        name: str,
        algorithms: Collection[str],
        quota: int | None,
    ) -> None:
        super().__init__(store, directory, algorithms, quota)
        self._store = store
        # Names are UTF-8, whatever the locale says.
        self._name = name.encode("utf-8")
        self._path = os.path.join(store.home, directory, name)

    def _open_folder(self) -> int:
        return self._store.open_bucket(self._directory)

    def _check_name(self, overwrite: bool, look: bool) -> None:
        if not overwrite and self._exists():
            raise NameTaken()
        # The end of a resumable upload finds out.
        if overwrite and look and not self._upload and self._is_sealed():
            raise NameSealed()

    def _open_aside(self) -> AsideFile | PartFile:
        return self._store.open_aside(self._folder_fd)

    def _exists(self) -> bool:
        try:
            self._look()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _name_error(error) from None
        return True

    def _look(self) -> os.stat_result:
        return os.lstat(self._name, dir_fd=self._folder_fd)

    async def commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        if not self._entered:
            await self._enter(self._waiting_size)
        await self._settle()
        return await self._store.run(self._directory, self._commit, promised, overwrite)

    def _commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        self._write(self._waiting, overwrite)
        assert self._aside is not None
        self._hashes.compare(promised)
        self._aside.seal()
        replaced = False
        if overwrite:
            # Two pushes that replace each other may end in any order. Only here, under
            # the lock, is it known which one was last.
            with self._replacing():
                replaced = self._publish_over()
                order = next(self._store.order)
            if replaced:
                sync_directory(self._folder_fd)
            else:
                self._sync_or_unlink()
        else:
            # A push that replaces this file gets a later number.
            order = next(self._store.order)
            self._publish(self._aside.link)
            self._sync_or_unlink()
        self._published = True
        self._clear()
        sha256 = self._hashes.hexdigest("sha256")
        return Receipt(self._path, self._size, sha256, order, replaced)

    def _publish_over(self) -> bool:
        """Publish the file, replacing any other; returns whether there was one."""
        assert self._aside is not None
        # A rename does not report whether it replaced a file, and a check before it
        # could be outdated: so try a link first.
        try:
            self._publish(self._aside.link)
        except NameTaken:
            if self._quota is not None:
                with suppress(FileNotFoundError):
                    self._replaced = taken_by(self._look())
            try:
                self._publish(self._aside.replace)
            except PermissionError:
                if self._is_sealed():
                    raise NameSealed() from None
                raise
            return True
        return False

    def _is_sealed(self) -> bool:
        with suppress(OSError):
            return is_sealed(self._name, self._folder_fd, self._store.attributes)
        return False

    def _publish(self, give_name: Callable[[bytes], None]) -> None:
        try:
            give_name(self._name)
        except (FileExistsError, IsADirectoryError):
            raise NameTaken() from None
        except OSError as error:
            raise _name_error(error) from None

    def _sync_or_unlink(self) -> None:
        assert self._aside is not None
        try:
            sync_directory(self._folder_fd)
        except OSError:
            # This push gets no 200, so its file must go; unless another push has
            # replaced it already, or may have.
            with suppress(OSError, Refusal), self._replacing():
                if self._aside.has(self._name):
                    os.unlink(self._name, dir_fd=self._folder_fd)
            raise

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        """Keep other pushes from replacing, and prune from deleting, files of the
        bucket.
        """
        folder = self._store.folder(self._directory)
        with _not_pruned(self._folder_fd), _locked(folder.replacing):
            yield


@contextmanager
def _not_pruned(bucket_fd: int) -> Iterator[None]:
    """Keep :mod:`filebucket.upkeep.prune` from deleting files of a bucket. It checks a
    file and then unlinks its name, which may belong to a new file by then. The lock is
    shared, so pushes do not wait for each other.
    """
    # On a filesystem without such locks, prune does not delete anything either.
    with suppress(OSError):
        _wait_for_lock(bucket_fd)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(bucket_fd, fcntl.LOCK_UN)


def _count(counting: Iterator[int]) -> int | None:
    return next(counting, None)


def _wait_for_lock(fd: int) -> None:
    end = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise _busy() from None
        else:
            return
        time.sleep(0.01)


@contextmanager
def _locked(lock: threading.Lock) -> Iterator[None]:
    if not lock.acquire(timeout=LOCK_TIMEOUT):
        raise _busy()
    try:
        yield
    finally:
        lock.release()


def _busy() -> Refusal:
    return Refusal(503, "the bucket's folder is locked by another process")


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


def _name_error(error: OSError) -> Exception:
    """A refusal if the name may be at fault, else ``error``: some filesystems accept
    only UTF-8, or no colon.
    """
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
        return Refusal(400, "the server's filesystem does not support that file name")
    return error


def _refusal(error: OSError) -> Refusal:
    return Refusal(*_STATUSES.get(error.errno or 0, (503, "disk error on the server")))
