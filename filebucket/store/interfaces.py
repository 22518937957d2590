"""What a store is, whatever is behind it.

A push gets a writer; the writer takes chunks, and at the end commits: the file
is there for good, whole and under its name, or it never was there at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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


class InThread(Protocol):
    """``deferToThread``, or what stands in for it."""

    def __call__(self, function: Callable[..., T], *args: Any) -> Deferred[T]: ...


class NameTaken(Refusal):
    """The refusal of a name that is taken."""

    def __init__(self) -> None:
        super().__init__(405, "a file of that name exists")


@frozen
class Receipt:
    """A file that is durable.

    :param path: where it is, absolute
    :param size: its size in bytes
    :param sha256: its SHA-256 in hex
    :param order: of two that took a name from each other the later one has the larger
    """

    path: str = field(repr=False)
    size: int
    sha256: str
    order: int


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

    def check_room(size: int) -> Awaitable[None]:
        """See whether ``size`` more bytes would fit.

        :raises Refusal: 507 where they would not
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
