"""Stores files in folders, and makes them durable.

A file that is being received has no name (O_TMPFILE), so a crash leaves nothing behind.
Publishing is: write, fsync the file, link (which fails if the name exists), fsync the
folder. All four are needed, in this order (:meth:`.group.Group.publish`). On a
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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TypeVar

from attrs import define, field
from twisted.logger import Logger
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.fs import make_directory, open_directory, sync_directory
from filebucket.model.push import Kept
from filebucket.store.aside import AsideFile, PartFile
from filebucket.store.attributes import KERNEL, Attributes, is_sealed
from filebucket.store.count import Counts, count, taken_by
from filebucket.store.group import Group, Result
from filebucket.store.home import Home
from filebucket.store.interfaces import (
    IDaemonStore,
    IWriter,
    NameSealed,
    NameTaken,
    Receipt,
)
from filebucket.store.local import LocalWriter
from filebucket.store.room import Free, Room

T = TypeVar("T")

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


@implementer(IDaemonStore)
class DirectoryStore:
    """Stores files in folders under one home."""

    _log = Logger()
    attributes: Attributes = KERNEL

    def __init__(self, home: Home, room: Room) -> None:
        """
        :param room: free space and quotas
        """
        self.home = home
        self.room = room
        self.counts = Counts(room, self._count)
        self._folders: dict[str, _Folder] = {}
        self.order = itertools.count()

    def prepare(self) -> str:
        return self.home.prepare()

    async def find_outage(self) -> str | None:
        return None

    def close(self) -> None:
        self.home.close()

    async def check_room(self, directory: str, size: int) -> None:
        self.home.check_moves(directory)
        await self.home.run(directory, self.room.check, self.home.fd, directory, size)

    async def recorded(self, directory: str, name: str) -> Kept | None:
        return None

    async def confirm(self, directory: str, name: str, size: int, sha256: str) -> bool:
        self.home.check_moves(directory)
        return await self.home.run(directory, self._confirm, directory, name, size)

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

    async def _count(self, directory: str) -> int:
        bucket_fd = await self.home.run(directory, self.open_bucket, directory)
        counting, taken = count(bucket_fd), 0
        try:
            # In steps, so that other calls for the bucket can run in between.
            more = await self.home.run(directory, _count, counting)
            while more is not None:
                taken += more
                more = await self.home.run(directory, _count, counting)
        finally:
            counting.close()
            await self.home.run(directory, os.close, bucket_fd)
        return taken

    # Called by a writer in a thread, since they may wait for the disk.

    def open_bucket(self, directory: str) -> int:
        """A descriptor of a bucket's folder, which is created if needed."""
        folder = self.folder(directory)
        if folder.known:
            # If the folder was removed in the meantime, it is created again.
            with suppress(FileNotFoundError):
                return open_directory(directory, self.home.fd)
        # The bucket's name in the home must be durable before any push to the bucket is
        # answered, whichever push or earlier daemon created it: hence the lock, and the
        # fsync at the first use after the start.
        with _locked(folder.making):
            fd = make_directory(directory, self.home.fd)
            folder.known = True
            return fd

    def publish_new(
        self, directory: str, writers: Sequence[DirectoryWriter]
    ) -> list[Result]:
        """Publish whole files of a bucket that are in memory, and replace none."""
        return self._publish(directory, writers, nullcontext)

    def publish_over(
        self, directory: str, writers: Sequence[DirectoryWriter]
    ) -> list[Result]:
        """Publish such files, and replace others. New files are not among them, since
        these may wait for a lock.
        """
        return self._publish(directory, writers, writers[0].replacing)

    def _publish(
        self,
        directory: str,
        writers: Sequence[DirectoryWriter],
        naming: Callable[[], AbstractContextManager[None]],
    ) -> list[Result]:
        folder_fd = self.open_bucket(directory)
        try:
            free, group = self.room.look(folder_fd), Group(writers)
            group.each(lambda writer: writer.join(folder_fd, free))
            group.publish(folder_fd, naming)
            results = group.results()
        finally:
            for writer in writers:
                writer.leave()
            with writers[0].leaving():
                os.close(folder_fd)
        return results

    def folder(self, directory: str) -> _Folder:
        """The bucket's folder and its locks."""
        found = self._folders.get(directory)
        # setdefault is atomic: two threads get the same one.
        return found or self._folders.setdefault(directory, _Folder())

    def open_part(self, bucket_fd: int, name: bytes, offset: int | None) -> PartFile:
        """Open the file of a resumable upload to that bucket, as :class:`PartFile`."""
        home = self.home
        return PartFile(bucket_fd, home.incoming_fd, home.parts_fd, name, offset)


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
        self._path = os.path.join(store.home.path, directory, name)
        self._promised: Mapping[str, bytes] = {}
        self._overwrite = self._has_replaced = False
        self._order = -1

    def _open_folder(self) -> int:
        return self._store.open_bucket(self._directory)

    def _check_name(self, overwrite: bool, look: bool) -> None:
        if not overwrite and self._exists():
            raise NameTaken()
        # The end of a resumable upload finds out.
        if overwrite and look and not self._upload and self._is_sealed():
            raise NameSealed()

    def _open_aside(self) -> AsideFile | PartFile:
        return self._store.home.open_aside(self._folder_fd)

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
        self._promised, self._overwrite = promised, overwrite
        home, store = self._store.home, self._store
        if self._aside is not None:
            return await home.run(self._directory, self._commit)
        # The whole file is in memory, so it takes others no time.
        publish = store.publish_over if overwrite else store.publish_new
        return await home.together(self._directory, publish, self)

    def _commit(self) -> Receipt:
        alone = Group([self])
        alone.publish(
            self._folder_fd, self.replacing if self._overwrite else nullcontext
        )
        (result,) = alone.results()
        if isinstance(result, Exception):
            raise result
        self._clear()
        return result

    # The steps of publishing, which are a Member's, as is send.

    def join(self, folder_fd: int, free: Free) -> None:
        """Begin a file that is in memory.

        :param folder_fd: stays open until :meth:`leave`
        :param free: the free space of its filesystem
        """
        self._folder_fd = folder_fd
        self._check_name(self._overwrite, look=False)
        self._reserved = self._local.room.set_aside(
            folder_fd, self._directory, self._waiting_size, self._quota, free=free
        )
        self._aside = self._open_aside()

    def fill(self) -> None:
        self._write(self._waiting, self._overwrite)
        self._hashes.compare(self._promised)

    def seal(self) -> None:
        assert self._aside is not None
        self._aside.seal()

    def give_name(self) -> None:
        assert self._aside is not None
        if self._overwrite:
            # Two pushes that replace each other may end in any order. Only here, under
            # the lock, is it known which one was last.
            self._has_replaced = self._publish_over()
            self._order = next(self._store.order)
        else:
            # A push that replaces this file gets a later number.
            self._order = next(self._store.order)
            self._publish(self._aside.link)

    def take_name(self) -> None:
        # This push gets no 200, so its file must go; unless it has replaced another
        # one, or another push has replaced it already, or may have.
        assert self._aside is not None
        if not self._has_replaced:
            with suppress(OSError, Refusal), self.replacing():
                if self._aside.has(self._name):
                    os.unlink(self._name, dir_fd=self._folder_fd)

    def receipt(self) -> Receipt:
        self._published = True
        sha256 = self._hashes.hexdigest("sha256")
        return Receipt(self._path, self._size, sha256, self._order, self._has_replaced)

    def leave(self) -> None:
        """End, published or not."""
        self._folder_fd = -1
        with self.leaving():
            self._drop()

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

    @contextmanager
    def replacing(self) -> Iterator[None]:
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


def _name_error(error: OSError) -> Exception:
    """A refusal if the name may be at fault, else ``error``: some filesystems accept
    only UTF-8, or no colon.
    """
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
        return Refusal(400, "the server's filesystem does not support that file name")
    return error
