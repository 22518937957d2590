"""Pushes whose answers are recorded and compared with the stored files.

A push's name determines its content, so that files can be checked without a copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar, Self

from attrs import Factory, define, frozen

from filebucket.test.kit.server import TOKEN

ANSWER_WITHIN = 60.0
"""Seconds in which an answer must come."""

SIZES = (0, 1, 4096, 24 * 1024, 100_000, 1_500_000)
"""Bytes of a push: less than a batch, one, and several."""

WAYS = ("PUT", "POST", "chunked")
"""The ways to push a file."""


def content(name: str, size: int) -> bytes:
    """The content of the file with that name."""
    return hashlib.shake_128(name.encode()).digest(size)


def named(prefix: str, size: int) -> str:
    """A name that contains the file's size."""
    return f"{prefix}.{size}"


def expected(name: str) -> bytes:
    """The expected content of a file that :func:`named` named."""
    return content(name, int(name.rpartition(".")[2]))


@frozen
class Wrapping:
    """The bytes around a file in a request.

    :param before: bytes before the file, including the head
    :param after: bytes after the file
    :param chunked: whether each block is a chunk
    """

    before: bytes
    after: bytes
    chunked: bool

    def block(self, data: bytes) -> bytes:
        """A block of the file."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data


_BOUNDARY = "----------------------------0123456789abcdef"


def wrapping(how: str, name: str, size: int, token: str = TOKEN) -> Wrapping:
    """The bytes around a file; the connection is closed after the push.

    :param how: ``PUT``, ``POST``, or ``chunked``, which is a PUT with chunks if the
        file is not empty
    :param size: bytes of the file
    """
    if not size and how == "chunked":
        # The server would take that for a pipe whose command failed.
        how = "PUT"
    path, kind, form, end = f"/{token}/{name}", "", "", ""
    if how == "POST":
        path = f"/{token}"
        kind = f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
        form = (
            f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name=file;"
            f' filename="{name}"\r\n\r\n'
        )
        end = f"\r\n--{_BOUNDARY}--\r\n"
    length = f"Content-Length: {len(form) + size + len(end)}"
    head = (
        f"{'PUT' if how == 'chunked' else how} {path} HTTP/1.1\r\n"
        "Host: h\r\nConnection: close\r\n"
        f"{kind}{'Transfer-Encoding: chunked' if how == 'chunked' else length}\r\n\r\n"
    )
    after = "0\r\n\r\n" if how == "chunked" else end
    return Wrapping((head + form).encode(), after.encode(), how == "chunked")


def wrapped(how: str, name: str, data: bytes, token: str = TOKEN) -> bytes:
    """A whole push as bytes, with several chunks if it is chunked."""
    wrap = wrapping(how, name, len(data), token)
    half = len(data) // 2
    blocks = [wrap.block(part) for part in (data[:half], data[half:]) if part]
    return b"".join((wrap.before, *blocks, wrap.after))


def status_of(answer: bytes) -> int | None:
    """The status of a complete answer, after any ``100 Continue``; None if there is
    none."""
    while answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, found, body = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name.lower() == b"content-length" and found and len(body) >= int(value):
            return int(head.split(b" ", 2)[1])
    return None


def send(
    port: int, request: bytes, within: float = ANSWER_WITHIN, half_close: bool = False
) -> bytes:
    """Send a request on a new connection.

    :param half_close: whether to end the sending side
    :returns: all answers until the connection ends in any way
    """
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), within) as it:
        # If it is refused early, the rest may not go out; the answer is there anyway.
        with suppress(OSError):
            it.sendall(request)
            if half_close:
                it.shutdown(socket.SHUT_WR)
        while got := it.recv(65536):
            answer += got
    return answer


@define
class Ledger:
    """The answers, by the name of the push.

    :ivar statuses: the status of each; None if there was no answer
    :ivar within: seconds in which an answer must come
    :cvar makes: a system call without which a push is not of this kind
    """

    makes: ClassVar[str] = ""

    statuses: dict[str, int | None] = Factory(dict)
    within: float = ANSWER_WITHIN
    _lock: threading.Lock = Factory(threading.Lock)

    def enter(self, name: str, status: int | None) -> None:
        """Record the answer to a push."""
        with self._lock:
            self.statuses[name] = status

    def push(
        self, port: int, name: str, how: str = "PUT", token: str = TOKEN
    ) -> int | None:
        """Push the file of that name, and record the answer."""
        request = wrapped(how, self.path(name), expected(name), token)
        status = status_of(send(port, request, self.within))
        self.enter(name, status)
        return status

    def path(self, name: str) -> str:
        """The file's path."""
        return name

    @property
    def acknowledged(self) -> list[str]:
        """The pushes that were answered with 200."""
        with self._lock:
            return [name for name, status in self.statuses.items() if status == 200]

    def faults(self, bucket: Path) -> list[str]:
        """Every push that was answered with 200 and is not stored as it was sent, and
        every incomplete file."""
        kept = _names(bucket)
        lost = [f"{name}: lost" for name in self.acknowledged if name not in kept]
        return lost + [
            f"{name}: differs from what was sent"
            for name in kept
            if (bucket / name).read_bytes() != expected(name)
        ]

    def after(self, port: int, home: Path) -> list[str]:
        """Faults of what follows on a restart; plain pushes leave nothing."""
        return []


@define
class TogetherLedger(Ledger):
    """The same if pushes end at one moment, so that the daemon publishes them together.

    The first one begins alone, and the others wait for it.
    """

    # A file that is published alone is synced at once.
    makes: ClassVar[str] = "fadvise64"

    def push(
        self, port: int, name: str, how: str = "PUT", token: str = TOKEN
    ) -> int | None:
        names = [name, *(f"beside-{each}.{4096 + each}" for each in range(4))]
        with ExitStack() as stack:
            clients = []
            for each in names:
                self.enter(each, None)
                request = wrapped(how, each, expected(each), token)
                with suppress(OSError):
                    address = "127.0.0.1", port
                    client = socket.create_connection(address, self.within)
                    clients.append((each, stack.enter_context(client), request[-1:]))
                    client.sendall(request[:-1])
            for _, client, last in clients:
                with suppress(OSError):
                    client.sendall(last)
            for each, client, _ in clients:
                answer = b""
                with suppress(OSError):
                    while got := client.recv(65536):
                        answer += got
                self.enter(each, status_of(answer))
        return self.statuses[name]


@define
class OverwritingLedger(Ledger):
    """The same if all pushes of a client have one name, and overwrite."""

    def path(self, name: str) -> str:
        return name.rpartition("-")[0]

    def faults(self, bucket: Path) -> list[str]:
        """Every file that is neither the last push answered with 200 nor a
        later one."""
        right: dict[str, list[str]] = {}
        for name, status in self.statuses.items():
            # Each push begins after the answer to the one before.
            sent = right.setdefault(self.path(name), [])
            if status == 200:
                sent.clear()
            sent.append(name)
        faults = []
        for path, names in right.items():
            kept = (bucket / path).read_bytes() if path in _names(bucket) else None
            if kept is None and self.statuses[names[0]] == 200:
                faults.append(f"{path}: lost")
            if kept is not None and kept not in map(expected, names):
                faults.append(f"{path}: not one of the last pushes")
        return faults


def _names(bucket: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return set(os.listdir(bucket))
    return set()


def residue(home: Path) -> list[str]:
    """Anything in a home except files in buckets and resumable uploads: there must be
    nothing."""
    inside = (home / ".filebucket" / "incoming").iterdir()
    beside = (path for path in home.iterdir() if not path.is_dir())
    uploads = list((home / ".filebucket" / "uploads").iterdir())
    # The data of an upload goes with its end.
    whole = {
        path.stem
        for path in uploads
        if path.suffix == ".json"
        and path.with_suffix("").exists()
        == (json.loads(path.read_bytes())["finished"] is None)
    }
    apart = (path for path in uploads if path.name.removesuffix(".json") not in whole)
    return [f"{path}: left" for path in (*inside, *beside, *apart)]


class Uploaders:
    """Clients that push one file after the other until they are stopped."""

    def __init__(
        self,
        port: int,
        ledger: Ledger,
        prefix: str,
        count: int = 4,
        sizes: tuple[int, ...] = SIZES,
        pause: float = 0.0,
    ) -> None:
        """
        :param prefix: the beginning of names
        :param pause: seconds from an answer to the client's next push
        """
        self._port = port
        self._ledger = ledger
        self._sizes = sizes
        self._pause = pause
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(f"{prefix}-{number}",))
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let them push until this is true, or until the last of them has given up."""
        while not condition() and any(each.is_alive() for each in self._threads):
            time.sleep(0.01)

    def _work(self, prefix: str) -> None:
        # Seeded: a name has the same size in every run.
        chance = random.Random(prefix)
        for name in self._pushes(prefix, chance):
            how = chance.choice(WAYS)
            status = self._ledger.push(self._port, name, how)
            # A push without an answer: the daemon is gone.
            if self._stopped.wait(self._pause) or status is None:
                return

    def _pushes(self, prefix: str, chance: random.Random) -> Iterator[str]:
        number = 0
        while True:
            yield named(f"{prefix}-{number}", chance.choice(self._sizes))
            number += 1


def count(statuses: Mapping[str, int | None]) -> str:
    """The number of each answer: ``12 x 200, 3 x none``."""
    found: dict[str, int] = {}
    for status in statuses.values():
        found[str(status or "none")] = found.get(str(status or "none"), 0) + 1
    return ", ".join(f"{number} x {status}" for status, number in sorted(found.items()))
