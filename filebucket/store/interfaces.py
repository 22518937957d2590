"""The interfaces of the store, one for each of its users.

A push uses :class:`IStore`: its writer takes chunks and then commits. After that the
file is durable, whole and under its name; without it, no trace of the file remains.
``filebucket verify`` and others read through :class:`IArchive`, and only ``filebucket
prune`` has an :class:`IRemover`.
"""

from __future__ import annotations

import errno
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.model.push import Kept
from filebucket.model.unfinished import Finished, Unfinished

T = TypeVar("T")
Item = TypeVar("Item")

BATCH = 24 * 1024
"""Bytes that a writer collects before it writes to the disk, which takes a thread and
about 0.1 ms. A smaller file is opened, written and published in one call. A thousand
slow clients hold a batch each."""


class InLine(Protocol):
    """:class:`~filebucket.base.lines.Lines`, or a fake."""

    def run(self, key: str, function: Callable[..., T], *args: Any) -> Deferred[T]: ...

    def together(
        self,
        key: str,
        function: Callable[[str, Sequence[Item]], Sequence[T | Exception]],
        item: Item,
    ) -> Deferred[T]: ...

    def is_stuck(self, key: str, seconds: float) -> bool: ...


class NameTaken(Refusal):
    """The refusal of a file whose name is taken."""

    def __init__(self) -> None:
        super().__init__(405, "a file with that name already exists")


class NameSealed(NameTaken):
    """The refusal of a file that would replace a sealed one."""

    def __init__(self) -> None:
        Refusal.__init__(
            self, 405, "a file with that name already exists, and is sealed"
        )


@frozen
class Receipt:
    """A file that is durable.

    :param path: absolute path; in an object store, the key of its data
    :param size: in bytes
    :param sha256: in hex
    :param order: a number that grows: of two files published under one name, the later
        one has the larger number
    :param replaced: whether the file replaced another one
    :param url: where its data is, if that is not on this machine
    """

    path: str = field(repr=False)
    size: int
    sha256: str
    order: int
    replaced: bool = False
    url: str = field(default="", repr=False)


class IWriter(Interface):
    """One file that is being received. Await each call before the next one."""

    def begin(size: int, overwrite: bool) -> Awaitable[None]:
        """Check what can be checked before the first byte.

        This call is optional: for a small file it is faster to leave it out, and
        :meth:`commit` makes the same checks.

        :param size: size of the file in bytes, as far as known
        :param overwrite: whether a file with the same name may be replaced
        :raises Refusal: 405 if the name is taken, 400 if the store does not support the
            name, 507 if there is not enough free space, 401 if the folder cannot be
            created or written
        """

    def write(chunks: Sequence[bytes]) -> Awaitable[None]:
        """Append ``chunks``. The caller must not use them afterwards.

        Returns when the writer can take more: while it writes to the disk, it takes
        nothing.

        :raises Refusal: 507 if there is not enough free space, 503 on a disk error
        """

    def commit(promised: Mapping[str, bytes], overwrite: bool) -> Awaitable[Receipt]:
        """Make the file durable and publish it under its name.

        :param promised: digests that the client sent, by algorithm
        :param overwrite: whether a file with the same name may be replaced
        :raises Refusal: 422 if a digest does not match, and the refusals of
            :meth:`begin` and :meth:`write`. Then nothing was published, with one
            exception: if the folder's fsync failed after another file was replaced,
            the new file stays.
        """

    def abort() -> Awaitable[None]:
        """Delete what was received. Does nothing after :meth:`commit`."""


class IPartWriter(IWriter):
    """A resumable upload, while one request is about it.

    What was not kept is gone after :meth:`IWriter.abort`; what was kept stays.
    Its calls also raise :class:`LostError`, if they find less data than was recorded,
    or other data.
    """

    def keep() -> Awaitable[Hashes]:
        """Make all that was written durable. The caller has to record it.

        :returns: the digests of the upload so far
        :raises Refusal: as :meth:`IWriter.write`, also if an earlier write failed
        """

    def prepare(promised: Mapping[str, bytes], overwrite: bool) -> Awaitable[None]:
        """Do what takes long of :meth:`IWriter.commit`, such as to send the data to
        another machine. The caller has kept all bytes.

        This call is optional. What it did is not done again by later calls, also of
        another writer of the upload.

        :raises Refusal: as :meth:`IWriter.commit`
        """


class IParts(Interface):
    """Stores resumable uploads until they end, through a restart and a power cut."""

    def load(directory_of: Callable[[str], str | None]) -> list[Unfinished]:
        """Read all uploads that go on, and remove what a crash left. Blocks.

        An upload whose file was published before the crash is recorded as finished, as
        far as that can be determined without another machine (:meth:`ended`). One
        whose record or data is lost is logged and removed; one that cannot be read now
        is logged, and left for the next start.

        :param directory_of: the folder of the bucket with a key; None if there is none
        :raises OSError: the folder cannot be read
        """

    def ended(directory: str, upload: Unfinished) -> Awaitable[Finished | None]:
        """The end of an upload that :meth:`load` found, if its file was published all
        the same: a store on another machine is not asked by :meth:`load`. The caller
        has to record the end.

        :raises Refusal: 503: that cannot be determined now
        """

    def count(directory: str, upload: Unfinished) -> None:
        """Count an upload as part of its bucket's quota, once it is recorded. A second
        call changes nothing."""

    def open(
        directory: str, upload: Unfinished, hashes: Hashes, quota: int | None
    ) -> IPartWriter:
        """A writer that continues an upload at its offset; it creates the upload's file
        if nothing is recorded of it yet. Touches no disk yet.

        :param hashes: the digests of the upload so far; the writer continues them
        :param quota: the folder's quota in bytes; None is unlimited
        """

    def record(directory: str, upload: Unfinished) -> Awaitable[None]:
        """Record durably how far an upload has come.

        :raises Refusal: 503 on a disk error
        """

    def finish(directory: str, upload: Unfinished) -> Awaitable[None]:
        """Record the end of an upload whose file is published, by this upload or an
        earlier push, and count it no more. If there are many such records of the
        bucket, the oldest one goes.

        :raises Refusal: 503 on a disk error
        """

    def remove(directory: str, upload: Unfinished) -> Awaitable[None]:
        """Delete an upload, and then count it no more.

        :raises Refusal: 503 on a disk error
        """

    def find(directory: str, identity: str) -> Awaitable[Unfinished | None]:
        """The record of an upload that has ended, if there still is one.

        :param directory: the bucket's folder
        :raises Refusal: 503 on a disk error
        """

    def read(upload: Unfinished, offset: int) -> bytes:
        """Read the next piece of an upload, some megabytes at most. Blocks; for a
        thread.

        :param offset: less than the upload's
        :raises LostError: there is less data than was recorded, or it is damaged
        :raises OSError: it cannot be read now
        """

    def sweep(before: float) -> Awaitable[None]:
        """Delete the records of uploads that ended before a time.

        :param before: seconds since the epoch
        """


class LostError(Exception):
    """The data of a resumable upload is not what was recorded."""


class IStore(Interface):
    """Stores files in folders. For clients it is write-only."""

    def check_room(directory: str, size: int) -> Awaitable[None]:
        """Check that there is enough free space for ``size`` more bytes.

        :param directory: the bucket's folder
        :raises Refusal: 507 if there is not, 503 on a disk error
        """

    def recorded(directory: str, name: str) -> Awaitable[Kept | None]:
        """The published file with that name, if the store keeps digests. It may be of
        another daemon, and not in the catalogue yet; it is none that a prune in
        progress may delete.

        :raises Refusal: that cannot be determined now
        """

    def confirm(directory: str, name: str, size: int, sha256: str) -> Awaitable[bool]:
        """Make a published file durable again: the daemon that published it may have
        exited before it could.

        :param size: expected size in bytes
        :param sha256: expected digest, in hex; compared if the store knows the file's,
            which another daemon may have replaced
        :returns: whether the file exists with that size, and is durable now
        :raises Refusal: disk error
        """

    def open(
        directory: str, name: str, algorithms: Collection[str], quota: int | None
    ) -> IWriter:
        """A writer for a file. It does not touch the disk yet.

        :param algorithms: digests to compute besides SHA-256
        :param quota: limit in bytes for all files of the folder, including this one;
            None is unlimited
        """


class IHome(Interface):
    """The home of a daemon."""

    path: str = Attribute("absolute path")


class IDaemonStore(IStore):
    """A store, as the daemon starts and stops it."""

    home: IHome = Attribute("the home, which every store has")

    def prepare() -> str:
        """Lock the home, and check that files can be stored. May block.

        :returns: how files are published, for the log
        :raises ConfigError: they cannot be
        """

    def find_outage() -> Awaitable[str | None]:
        """Why no push can be stored, for a reason that the home does not show; None if
        there is none. It ends within 30 seconds.
        """

    def close() -> None:
        """Release the home."""


DAMAGE = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
"""Error numbers by which a disk, or a filesystem that verifies what it reads, reports
that a file is lost."""


OUT_OF_REACH = errno.EHOSTUNREACH
"""Error number by which an object store reports that it cannot be reached: other files
can probably not be read now, either."""


class NoFileError(Exception):
    """There is no file with that name."""


class NotAFileError(NoFileError):
    """Something has that name, but it is not a file."""


class IsFolderError(NotAFileError):
    """A folder has that name."""


class SealedError(Exception):
    """The file is immutable, and this process may not change that."""


class UnsettledError(OSError):
    """Whether the file was deleted is not known, and it may be deleted later."""


class UnsteadyError(Exception):
    """The file was written to or replaced while it was read."""


@frozen
class Stat:
    """The properties of a file that are known without reading it.

    :param size: in bytes
    :param written_at: last change of the content, in seconds since the epoch
    :param changed_at: last change of anything, including the name and the mode
    :param version: a value that differs for another file, and after a write
    :param sha256: as the store recorded it when the file was pushed, in hex; None if it
        records none
    """

    size: int
    written_at: float
    changed_at: float
    version: object
    sha256: str | None = None


@frozen
class Content:
    """The content of a file.

    :param size: in bytes
    :param sha256: in hex
    """

    size: int
    sha256: str
    stat: Stat


class IStoredFile(Interface):
    """A file that is open for reading, even if its name is deleted."""

    stat: Stat = Attribute("its stat when it was opened")

    def copy(write: Callable[[memoryview], object]) -> Content:
        """Read it once from the disk, not from a cache.

        :param write: called with each piece, which is valid only during the call; may
            raise an exception to stop reading
        :raises UnsteadyError: the file changed in the meantime
        :raises OSError: the file cannot be read; it is lost if the number is in
            :data:`DAMAGE`
        """

    def piece(offset: int, most: int) -> bytes:
        """Read ``most`` bytes from ``offset``, or less at the end.

        :raises OSError: as :meth:`copy`
        """


class IFolder(Interface):
    """The files of one bucket, opened for reading."""

    def list(most: int) -> Iterator[Sequence[bytes]]:
        """The names of all directory entries, files or not, ``most`` at a time.

        :raises OSError: the folder cannot be read
        """

    def untouched(before: Mapping[str, float]) -> Collection[str]:
        """Those of some files that are there, and were not written after a time, as far
        as a list shows that: it is faster than :meth:`look`. Files that are left out
        may be the same. A store whose :meth:`look` is fast leaves all out.

        :param before: the time for each name, in seconds since the epoch
        :raises OSError: the folder cannot be read
        """

    def expect(names: Sequence[str]) -> None:
        """Announce the names that :meth:`look` is called with next, each once, in about
        this order. A store that takes long for each can look at several at once.
        """

    def look(name: str) -> Stat:
        """Stat a file.

        :raises NoFileError: there is no file with that name
        :raises OSError: stat failed
        """

    def is_sealed(name: str) -> bool:
        """Whether a file is immutable; not if the filesystem has no such flag.

        :raises NoFileError: there is no file with that name
        :raises OSError: that cannot be determined
        """

    def open(name: str) -> AbstractContextManager[IStoredFile]:
        """Open a file.

        :raises NoFileError: there is no file with that name
        :raises UnsteadyError: the file was replaced in the meantime
        :raises OSError: the file cannot be opened
        """

    def read(name: str, pace: Callable[[int], object]) -> Content:
        """Read a file from the disk, not from a cache.

        :param pace: called with the bytes of each piece; may sleep, or raise an
            exception to stop reading
        :raises NoFileError: there is no file with that name
        :raises UnsteadyError: the file changed in the meantime
        :raises OSError: the file cannot be read; it is lost if the number is in
            :data:`DAMAGE`
        """


class IArchive(Interface):
    """Reads stored files. Calls may wait for the disk, so make them in threads."""

    def open(directory: str) -> AbstractContextManager[IFolder]:
        """Open a bucket's folder. A folder that does not exist yet has no files.

        :param directory: the bucket's folder
        :raises OSError: the folder cannot be opened
        """

    def is_foreign(stored: Iterable[tuple[str, float]]) -> bool:
        """Whether this is not where files were stored: it has no file in any of their
        folders, and was first used after they were stored.

        :param stored: folders, and when a file of each was stored, in seconds since the
            epoch; taken only as far as needed. If there are none, it is not foreign
        :raises OSError: it cannot be read
        """

    def unpruned() -> AbstractContextManager[bool]:
        """Keep ``filebucket prune`` from deleting files; yields False if it is running,
        or if that cannot be determined.
        """

    def unfinished() -> list[Unfinished]:
        """The resumable uploads that go on, in any order, as the daemon recorded them
        last. Records that cannot be read are left out.

        :raises OSError: their folder cannot be read
        """


class IRemovals(Interface):
    """The files of one bucket, opened for deleting some of them."""

    def expect(names: Sequence[str]) -> None:
        """As :meth:`IFolder.expect`, until the next :meth:`remove`."""

    def look(name: str) -> Stat:
        """As :meth:`IFolder.look`."""

    def is_sealed(name: str) -> bool:
        """As :meth:`IFolder.is_sealed`."""

    def remove(name: str, objection: Callable[[], str | None]) -> str | None:
        """Delete a file, sealed or not, unless there is an objection. No push can
        replace the file between the check and the deletion.

        :param objection: checks the file once more; returns what is wrong, if anything
        :returns: the objection, if any
        :raises OperatorError: a process keeps the folder locked
        :raises SealedError: the file is sealed, and this process may not lift that
        :raises UnsettledError: the file may be deleted later
        :raises OSError: the file cannot be deleted
        """

    def sync() -> None:
        """Make the deletions durable.

        :raises OSError: the deleted files may reappear
        """


class IRemover(Interface):
    """Deletes stored files."""

    def open(directory: str) -> AbstractContextManager[IRemovals]:
        """Open a bucket's folder to delete files.

        :param directory: the bucket's folder
        :raises OSError: the folder does not exist, is a link, or cannot be opened
        """
