"""Pushes whose answers are remembered, and compared with what was kept.

What a push is called decides what is in it, so that whatever is found can be told
from whatever should be there, without keeping a copy.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import Factory, define

from filebucket.test.server import TOKEN

ANSWER_WITHIN = 60.0
"""Seconds in which an answer must come."""

SIZES = (0, 1, 4096, 24 * 1024, 100_000, 1_500_000)
"""Bytes of a push: less than a batch, one, and several."""

BUCKETS = {TOKEN: TOKEN}
"""The directories of the buckets that are pushed to, by token."""


def content(name: str, size: int) -> bytes:
    """What a file of that name holds."""
    return hashlib.shake_128(name.encode()).digest(size)


def named(prefix: str, size: int) -> str:
    """A name that says how much is in the file."""
    return f"{prefix}.{size}"


def expected(name: str) -> bytes:
    """What must be in the file that :func:`named` named."""
    return content(name, int(name.rpartition(".")[2]))


def put(name: str, data: bytes, token: str = TOKEN, chunked: bool = False) -> bytes:
    """A PUT as it goes over the wire; the connection is closed after it."""
    head = f"PUT /{token}/{name} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
    if chunked:
        half = len(data) // 2
        body = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part)
            for part in (data[:half], data[half:])
            if part
        )
        return (
            f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body + b"0\r\n\r\n"
        )
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def post(name: str, data: bytes, token: str = TOKEN) -> bytes:
    """The same as a form."""
    boundary = "----------------------------0123456789abcdef"
    body = (
        f"--{boundary}\r\nContent-Disposition: form-data; name=file;"
        f' filename="{name}"\r\n\r\n'
    ).encode()
    body += data + f"\r\n--{boundary}--\r\n".encode()
    return (
        f"POST /{token} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def status_of(answer: bytes) -> int | None:
    """The status of an answer that came whole, whatever ``100 Continue`` went
    before it; None where none did.
    """
    while answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, found, body = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name.lower() == b"content-length" and found and len(body) >= int(value):
            return int(head.split(b" ", 2)[1])
    return None


def send(port: int, request: bytes, within: float = ANSWER_WITHIN) -> bytes:
    """Send a request on a connection of its own.

    :returns: all that was answered until the connection ended, however it did
    """
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), within) as it:
        # Refused early, the rest may not go out; the answer is there all the same.
        with suppress(OSError):
            it.sendall(request)
        while got := it.recv(65536):
            answer += got
    return answer


@define
class Ledger:
    """What was answered, by the name of the push.

    :ivar statuses: the answer of each; None where there was none
    """

    statuses: dict[str, int | None] = Factory(dict)
    _lock: threading.Lock = Factory(threading.Lock)

    def enter(self, name: str, status: int | None) -> None:
        """Note the answer of a push."""
        with self._lock:
            self.statuses[name] = status

    def push(self, port: int, name: str, how: str = "PUT") -> int | None:
        """Push the file of that name, and note the answer."""
        data = expected(name)
        request = (
            post(name, data) if how == "POST" else put(name, data, chunked=how != "PUT")
        )
        status = status_of(send(port, request))
        self.enter(name, status)
        return status

    @property
    def acknowledged(self) -> list[str]:
        """The pushes that were answered with 200."""
        with self._lock:
            return [name for name, status in self.statuses.items() if status == 200]

    def faults(self, bucket: Path) -> list[str]:
        """Every push that was answered with 200 and is not there as it was sent, and
        everything there that is not whole.
        """
        kept = _names(bucket)
        lost = [f"{name}: lost" for name in self.acknowledged if name not in kept]
        return lost + [
            f"{name}: not what was sent"
            for name in kept
            if (bucket / name).read_bytes() != expected(name)
        ]


def _names(bucket: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return set(os.listdir(bucket))
    return set()


def residue(home: Path) -> list[str]:
    """What is in a home beside files in buckets: nothing may be."""
    inside = (home / ".filebucket" / "incoming").iterdir()
    beside = (path for path in home.iterdir() if not path.is_dir())
    return [f"{path}: left" for path in (*inside, *beside)]


class Uploaders:
    """Clients that push one file after the other until they are stopped."""

    def __init__(
        self,
        port: int,
        ledger: Ledger,
        prefix: str,
        count: int = 4,
        sizes: tuple[int, ...] = SIZES,
        gone_ends: bool = True,
    ) -> None:
        """
        :param prefix: what the names begin with
        :param gone_ends: whether a client gives up at a push without an answer
        """
        self._port = port
        self._ledger = ledger
        self._sizes = sizes
        self._gone_ends = gone_ends
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(f"{prefix}-{number}",))
            for number in range(count)
        ]

    def __enter__(self) -> Uploaders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _work(self, prefix: str) -> None:
        # Seeded: the same names hold the same sizes in every run.
        chance = random.Random(prefix)
        for name in self._pushes(prefix, chance):
            how = chance.choice(("PUT", "POST", "chunked"))
            status = self._ledger.push(self._port, name, how)
            if self._stopped.is_set() or (status is None and self._gone_ends):
                return

    def _pushes(self, prefix: str, chance: random.Random) -> Iterator[str]:
        number = 0
        while True:
            yield named(f"{prefix}-{number}", chance.choice(self._sizes))
            number += 1


def count(statuses: Mapping[str, int | None]) -> str:
    """How many of each answer there were: ``12 x 200, 3 x none``."""
    found: dict[str, int] = {}
    for status in statuses.values():
        found[str(status or "none")] = found.get(str(status or "none"), 0) + 1
    return ", ".join(f"{number} x {status}" for status, number in sorted(found.items()))
