"""What receiving a push asks of it, whatever it came by.

A front, such as HTTP, implements :class:`IIncoming`; nothing in this package knows it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Sequence

from attrs import frozen
from zope.interface import Attribute, Interface

from filebucket.base.errors import Refusal


@frozen
class IncomingFile:
    """The file of a push, however it is wrapped.

    :param name: as the client wrote it, not checked yet
    :param size: in bytes, or -1 where it is not known yet
    :param chunks: batches of its chunks, to be iterated once; may raise
        :class:`~filebucket.base.errors.Refusal`
    """

    name: str
    size: int
    chunks: AsyncIterable[Sequence[bytes]]


class IIncoming(Interface):
    """A push as its client asks for it."""

    client: str = Attribute("``ip:port``, for logs and hooks")
    length: int | None = Attribute(
        "bytes that are to come, the file's wrapping included; None where unknown"
    )
    overhead: int = Attribute("how many of these bytes may not be the file's")
    waits: bool = Attribute("whether the client waits for consent before it sends")

    def check() -> None:
        """See whether this can be a push at all.

        :raises Refusal: it cannot, whatever is in it
        """

    def promised() -> dict[str, bytes]:
        """The digests that the client promises of the file, by hashlib's names.

        :raises Refusal: 400: they cannot be read
        """

    def promised_late() -> dict[str, bytes]:
        """What is promised behind the body, when that has come whole.

        :raises Refusal: 400: it cannot be read
        """

    def overwrites() -> bool:
        """Whether a file of that name may be replaced, as far as the client wants it.

        :raises Refusal: 412: only on a condition that this server does not look at
        """

    def allowed() -> bool:
        """Whether the client may still push: a token may be taken away, or end."""

    def spent() -> bool:
        """Whether a client that tries again may send less than the whole: what it sent
        came from a pipe.
        """

    def name() -> str | None:
        """The file's name; None where it comes with the body.

        :raises Refusal: 400 or 412: there is none where one must be
        """

    def find_file() -> Awaitable[IncomingFile]:
        """The file. The body is asked for only if the name comes with it.

        :raises Refusal: 412: there is none; 400: what wraps it is malformed
        """

    def failure() -> Refusal | None:
        """Why the body will not come whole, if that is known."""
