"""What keeps files, whatever is behind it: one interface for each who uses it.

A push has an :class:`IStore`: it gets a writer; the writer takes chunks, and at the end
commits: the file is there for good, whole and under its name, or it never was there at
all. Whoever looks after files later has an :class:`IArchive`, which only reads. Only
``filebucket prune`` has an :class:`IRemover`.
"""

from __future__ import annotations

import errno
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from filebucket.base.errors import Refusal

T = TypeVar("T")

BATCH = 24 * 1024
"""Bytes that a writer gathers before it goes to the disk, which takes a thread and
some 0.1 ms: what is less is opened, written and published in one go. A thousand
slow clients hold two of these each, and with 64 KiB 30 MB more."""


class InLine(Protocol):
    """:class:`~filebucket.base.lines.Lines`, or what stands in for them."""

    def run(self, key: str, function: Callable[..., T], *args: Any) -> Deferred[T]: ...

    def is_stuck(self, key: str, seconds: float) -> bool: ...


class NameTaken(Refusal):
    """The refusal of a name that is taken."""

    def __init__(self) -> None:
        super().__init__(405, "a file with that name already exists")


@frozen
class Receipt:
    """A file that is durable.

    :param path: where it is, absolute
    :param size: its size in bytes
    :param sha256: its SHA-256 in hex
    :param order: of two that took a name from each other the later one has the larger
    :param replaced: whether something had that name before
    """

    path: str = field(repr=False)
    size: int
    sha256: str
    order: int
    replaced: bool = False


class IWriter(Interface):
    """One file that is being received. One call at a time; each is awaited."""

    def begin(size: int, overwrite: bool) -> Awaitable[None]:
        """See what can be known before the first byte.

        It may be left out: whoever has a small file in hand already saves the
        time, and hears the same from :meth:`commit`.

        :param size: bytes that are to come, as far as that is known
        :param overwrite: whether a file of that name may be replaced
        :raises Refusal: 405 where the name exists, 400 where the store cannot
            have such a name, 507 where there is no room, 401 where the
            directory cannot be made or written
        """

    def write(chunks: Sequence[bytes]) -> Awaitable[None]:
        """Append ``chunks``, which are the writer's from now on.

        Returns when the writer can take more, which may be sooner than the disk
        has them.

        :raises Refusal: 507 without room, 503 where the disk fails, then or at
            an earlier write
        """

    def commit(promised: Mapping[str, bytes], overwrite: bool) -> Awaitable[Receipt]:
        """Make the file durable and publish it under its name.

        :param promised: digests that it must have, by algorithm
        :param overwrite: whether a file of that name may be replaced
        :raises Refusal: 422 where a digest differs, and whatever :meth:`begin`
            and :meth:`write` may say; nothing was published then, but that a
            file that was replaced when the directory's fsync failed stays so
        """

    def abort() -> Awaitable[None]:
        """Leave nothing behind. After :meth:`commit`, does nothing."""


class IStore(Interface):
    """Keeps files in directories: write-only, as far as clients go."""

    def check_room(directory: str, size: int) -> Awaitable[None]:
        """See whether ``size`` more bytes would fit.

        :param directory: whose they would be

        :raises Refusal: 507 where they would not, 503 where the disk does not say
        """

    def confirm(directory: str, name: str, size: int) -> Awaitable[bool]:
        """Bring a file that was published to the disk once more: it may have been
        published by a daemon that ended before it could.

        :param size: bytes that it should have
        :returns: whether it is there, with that size; for good, then
        :raises Refusal: the disk failed
        """

    def open(
        directory: str, name: str, algorithms: Collection[str], quota: int | None
    ) -> IWriter:
        """A writer for a file. Nothing is done yet.

        :param algorithms: digests to compute beside SHA-256
        :param quota: bytes that the directory's files may have in all, this one
            among them; None is no limit
        """


DAMAGE = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
"""Numbers of the errors by which a disk, or a filesystem that checks what it reads,
says that it has lost a file."""


class NoFileError(Exception):
    """There is no file of that name."""


class NotAFileError(NoFileError):
    """There is something of that name, but no file."""


class IsFolderError(NotAFileError):
    """It is a folder."""


class UnsteadyError(Exception):
    """It was written to or replaced while it was read."""


@frozen
class Stat:
    """What is known of a file without reading it.

    :param size: in bytes
    :param written_at: when its content was last written, in seconds since the epoch
    :param changed_at: when anything of it was, be it its name or its mode
    :param version: differs if it is another file, or was written to
    """

    size: int
    written_at: float
    changed_at: float
    version: object


@frozen
class Content:
    """What a file holds.

    :param size: in bytes
    :param sha256: in hex
    """

    size: int
    sha256: str
    stat: Stat


class IFolder(Interface):
    """The files of one bucket, while somebody looks at them."""

    def list(most: int) -> Iterator[Sequence[bytes]]:
        """The names of all that is there, be it files or not, ``most`` at a time.

        :raises OSError: they cannot be listed
        """

    def look(name: str) -> Stat:
        """What is known of a file.

        :raises NoFileError: there is none of that name
        :raises OSError: that cannot be known
        """

    def read(name: str, pace: Callable[[int], object]) -> Content:
        """Read a file, not from a cache but from where it is kept.

        :param pace: told how many bytes each piece had; may sleep, or raise what ends
            the reading
        :raises NoFileError: there is none of that name
        :raises UnsteadyError: it is not what it was at the beginning
        :raises OSError: it cannot be read; with a number of :data:`DAMAGE`, it is lost
        """


class IArchive(Interface):
    """Reads what was pushed. It may wait for a disk, and is for threads."""

    def open(directory: str) -> AbstractContextManager[IFolder]:
        """Look at a bucket; one to which nobody has pushed has no files.

        :param directory: of the bucket
        :raises OSError: it cannot be opened
        """

    def unpruned() -> AbstractContextManager[bool]:
        """While nobody removes files; yields whether that is so and can be known."""


class IRemovals(Interface):
    """The files of one bucket, while some of them are removed."""

    def look(name: str) -> Stat:
        """As :meth:`IFolder.look`."""

    def remove(name: str, objection: Callable[[], str | None]) -> str | None:
        """Remove a file, unless there is an objection. No push replaces the file in
        between.

        :param objection: looks once more and says what is wrong, if anything is
        :returns: what it said
        :raises OSError: it cannot be removed
        """

    def sync() -> None:
        """Make sure that what was removed does not come back.

        :raises OSError: it may
        """


class IRemover(Interface):
    """Removes what was pushed."""

    def open(directory: str) -> AbstractContextManager[IRemovals]:
        """Open a bucket to remove files of it.

        :param directory: of the bucket
        :raises OSError: it is not there, is a link, or cannot be opened
        """
