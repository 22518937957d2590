"""The interface between a push and the protocol that brings it.

A front end such as HTTP implements :class:`IIncoming`; this package knows no front end.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Collection, Sequence
from enum import Enum

from attrs import field, frozen
from zope.interface import Attribute, Interface

from filebucket.base.errors import Refusal


@frozen
class IncomingFile:
    """The file of a push, without any wrapping.

    :param name: as the client sent it, not checked yet
    :param size: in bytes, or -1 if not known yet
    :param chunks: batches of its chunks, for one iteration; may raise
        :class:`~filebucket.base.errors.Refusal`
    """

    name: str
    size: int
    chunks: AsyncIterable[Sequence[bytes]]


class IIncoming(Interface):
    """A push as the client requests it."""

    client: str = Attribute("``ip:port``, for logs and hooks")
    length: int | None = Attribute(
        "size of the body in bytes, including the file's wrapping; None if unknown"
    )
    overhead: int = Attribute("largest size of the wrapping in bytes")
    waits: bool = Attribute("whether the client sends only after 100 Continue")

    def check() -> None:
        """Check that this is a push.

        :raises Refusal: it is none, whatever its body
        """

    def promised() -> dict[str, bytes]:
        """The digests of the file that the client sent before the body.

        :returns: digests by hashlib's names
        :raises Refusal: 400: a digest is malformed
        """

    def promised_late() -> dict[str, bytes]:
        """The digests that the client sent after the body, once that has come whole.

        :raises Refusal: 400: a digest is malformed
        """

    def overwrites() -> bool:
        """Whether the client wants to replace a file with the same name.

        :raises Refusal: 412: the client set a condition that this server does not
            support
        """

    def check_allowed() -> None:
        """Check that the push may be stored now.

        :raises Refusal: 403: the token was removed, or has expired, or its bucket was
            retired
        """

    def spent() -> bool:
        """Whether a retry may send less than the whole file, because the client reads
        it from a pipe and has sent some of it.
        """

    def name() -> str | None:
        """The file's name; None if it comes with the body.

        :raises Refusal: 400 or 412: the name is missing or malformed
        """

    def find_file() -> Awaitable[IncomingFile]:
        """The file. This requests the body only if the name comes with it.

        :raises Refusal: 412: there is no file; 400: the wrapping is malformed
        """

    def failure() -> Refusal | None:
        """The reason that the body will not come whole, if there is one."""


class Action(Enum):
    """What a client asks of a resumable upload."""

    ASK = "ask what is possible"
    CREATE = "create"
    LOOK = "look"
    APPEND = "append"
    GIVE_UP = "give up"


@frozen
class Resume:
    """A request about a resumable upload.

    :param action: what the client asks
    :param id: of the upload; empty for a new one
    :param offset: at which the body begins, in bytes
    :param last: whether the upload is whole with this body; None if its length decides
    :param length: bytes of the whole file; None if the request does not tell
    :param metadata: ``Upload-Metadata`` of a tus client
    """

    action: Action
    id: str = field(default="", repr=False)
    offset: int = 0
    last: bool | None = None
    length: int | None = None
    metadata: str = field(default="", repr=False)


class IResuming(IIncoming):
    """A request about a resumable upload. Its body is a part of the file."""

    token: str = Attribute("SHA-256 in hex of the token that it came with")

    def asks() -> Resume:
        """What the client asks.

        :raises Refusal: 400 or 415: that is malformed
        """

    def algorithms_of_part() -> Collection[str]:
        """Hashlib's names of the algorithms by which the body must be hashed.

        :raises Refusal: 400: a digest is malformed
        """

    def promised_of_part() -> dict[str, bytes]:
        """The digests of the body that the client sent, by hashlib's names; once the
        body has come whole, those in its trailers, too.

        :raises Refusal: 400: a digest is malformed, or by another algorithm than
            :meth:`algorithms_of_part` names
        """

    def cut(refusal: Refusal) -> None:
        """End the body here: its reader gets ``refusal``."""
