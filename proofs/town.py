"""What a misbehaving client has: the daemon's port, tokens, and words of HTTP."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.synchronize import Event

from attrs import frozen

from filebucket.test.kit.server import OTHER
from proofs.pushes import send

LOUD = OTHER
"""The misbehaving client's token; its bucket is ``loud``."""
FULL = "0f" * 16
"""The token of a bucket with a quota and many files, ``full``."""

PATIENCE = 10.0
"""Timeout in seconds."""

THERE = "there"
"""A file in their bucket, of one byte."""
ZEROS = bytes(8 << 20)
"""Another file there, called ``zeros``."""


@frozen
class Town:
    """The daemon and the folders under attack.

    :param home: the folder of all buckets
    :param uploads: targets of idle resumable uploads in the bucket ``loud``
    """

    port: int
    home: str
    uploads: Sequence[str]
    _stop: Event

    def stopped(self, seconds: float = 0.0) -> bool:
        """Whether to stop; waits up to this time for that."""
        return self._stop.wait(seconds)

    def connect(self) -> socket.socket:
        """Open another connection."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def crowd(self, requests: Iterable[bytes], seconds: float) -> None:
        """Send each on a connection of its own, and keep all of them open.

        :param seconds: for which they stay open after that
        """
        with ExitStack() as all_of_them:
            for request in requests:
                with suppress(OSError):
                    all_of_them.enter_context(self.connect()).sendall(request)
                if self.stopped():
                    return
            self.stopped(seconds)

    def send(self, *request: bytes) -> bytes:
        """Send it on a new connection, and return all answers."""
        return send(self.port, b"".join(request), PATIENCE)


@frozen
class Misbehavior:
    """A way to misbehave.

    :param says: what it is, in a word or two
    :param once: does it once, for the client of this number
    :param clients: how many clients do it at the same time
    :param hook: the text of a pre-push.sh during it
    :param reloads: whether the operator reloads again and again
    :param reads: whether the daemon's log is read
    """

    says: str
    once: Callable[[Town, int], object]
    clients: int = 4
    hook: str | None = None
    reloads: bool = False
    reads: bool = True


def head(target: str, *headers: str, method: str = "PUT", token: str = LOUD) -> bytes:
    """The head of a request.

    :param target: after the token
    """
    lines = (
        f"{method} /{token}{target} HTTP/1.1",
        *("Host: h", "Connection: close"),
        *headers,
        *("", ""),
    )
    return "\r\n".join(lines).encode()


def sized(size: int) -> str:
    """The header of a body of this many bytes."""
    return f"Content-Length: {size}"


def new(prefix: str) -> str:
    """The target of a new file."""
    return f"/{prefix}-{secrets.token_hex(8)}"
