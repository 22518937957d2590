"""The interface of an object store, as pushes use it: without deleting."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from attrs import frozen
from zope.interface import Attribute, Interface


class ObjectError(Exception):
    """A call of the object store failed.

    The message is one line for the log, without a key, an address with a key, or a
    secret.

    :ivar code: S3's code, such as ``AccessDenied``; empty if there is none
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.code = code


class NotThereError(ObjectError):
    """There is no such object."""


class AlreadyThereError(ObjectError):
    """There is an object with that key, and the call was to create it."""


class DeniedError(ObjectError):
    """The call was refused, and had no effect."""


class FullError(DeniedError):
    """The call was refused for want of space, and had no effect."""


class UnsureError(ObjectError):
    """The call may have had its effect or not, or may still have it: its answer was an
    error of the store, lost, late or senseless.
    """


class NotSentError(UnsureError):
    """The call was not sent, and had no effect: no endpoint can be reached, or too many
    calls are in progress. Another attempt may succeed.
    """


class IBody(Interface):
    """Bytes that become an object, or a part of one. It can be read several times."""

    size: int = Attribute("in bytes")
    sha256: bytes = Attribute("32 bytes")

    def read(offset: int, most: int) -> Awaitable[bytes]:
        """At most ``most`` bytes from ``offset``, at least one.

        :raises OSError: the disk cannot be read
        """


@frozen
class Part:
    """A part of a multipart upload that was sent.

    :param etag: as the store told it
    :param sha256: 32 bytes
    """

    number: int
    etag: str
    size: int
    sha256: bytes


class IObjects(Interface):
    """One S3 bucket.

    Each call may raise :class:`ObjectError`, and ends within a bounded time, unless
    the data of a body moves all that time. A call that is cancelled raises
    :class:`UnsureError`. No call is made twice. No body is read after its call ended.
    """

    def put(key: str, body: IBody, only_new: bool = False) -> Awaitable[None]:
        """Create an object, or replace it.

        :param only_new: create it, but only if there is none: atomic
        :raises AlreadyThereError: there is one
        :raises OSError: the body cannot be read; nothing was put
        """

    def get(key: str, most: int) -> Awaitable[bytes]:
        """The content of a small object.

        :param most: bytes; a larger one is :class:`UnsureError`
        :raises NotThereError: there is none
        """

    def size(key: str) -> Awaitable[int]:
        """The size of an object in bytes.

        :raises NotThereError: there is none
        """

    def begin(key: str) -> Awaitable[str]:
        """Begin a multipart upload.

        :returns: its id
        """

    def part(key: str, upload: str, number: int, body: IBody) -> Awaitable[Part]:
        """Send a part.

        :param upload: id of the multipart upload
        :param number: from 1 to 10,000
        :raises OSError: the body cannot be read; nothing was stored
        """

    def complete(key: str, upload: str, parts: Sequence[Part]) -> Awaitable[None]:
        """Make the object from its parts.

        :param parts: all, in order
        """

    def abandon(key: str, upload: str) -> Awaitable[None]:
        """Delete the parts of a multipart upload, which must not have been completed,
        or perhaps completed.
        """

    def sizes(prefix: str, after: str = "") -> Awaitable[tuple[int, int, str]]:
        """Number and total bytes of a page of objects, and where the next one begins.

        :param prefix: what their keys begin with
        :param after: what the last page returned; empty for the first one
        :returns: number, bytes, and what to pass for the next page; empty if there is
            none
        """
