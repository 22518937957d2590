"""Pushes of many times the daemon's memory limit."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filebucket.test.kit.server import TOKEN, Server
from proofs.daemons import DAEMON
from proofs.outcome import Outcome
from proofs.pushes import WAYS, status_of, wrapping
from proofs.resumed import answer_of, ask

SIZE = 8 << 30
"""Bytes of a push."""

LIMIT = 128 << 20
"""The daemon's memory limit in bytes, including its page cache."""

MOST_GROWTH = 20 << 20
"""Bytes by which it may grow from the first push to the last."""

PARTS = {"parts": 64 << 20, "one part": SIZE}
"""The ways to push a file as a resumable upload, with the bytes of a part."""

_BLOCK = os.urandom(1 << 20)
_ENDED_WITHIN = 600.0


def large(folder: Path, trials: int) -> Outcome:
    """Push 8 GiB a number of times, in each of the ways in turn."""
    ways = (*WAYS, *PARTS)
    faults: list[str] = []
    with _group() as group:
        server = Server(folder / "daemon")
        into = f'echo $$ >"{group}/cgroup.procs" && exec "$@"'
        server.start("/bin/sh", "-c", into, "sh", *DAEMON)
        try:
            _push(server.port, "first", 1 << 20, "PUT")
            before = server.peak_memory()
            for number in range(trials):
                how = ways[number % len(ways)]
                name = f"{number}-{how.replace(' ', '-')}"
                push = _resume if how in PARTS else _push
                status, sha256 = push(server.port, name, SIZE, how)
                path = server.home / TOKEN / name
                if status != 200:
                    faults.append(f"{name}: {status}")
                elif _sha256(path) != sha256:
                    faults.append(f"{name}: differs from what was sent")
                path.unlink(missing_ok=True)
            growth = server.peak_memory() - before
        finally:
            server.stop()
    if growth > MOST_GROWTH:
        faults.append(f"grew by {growth:,} bytes")
    return Outcome(
        f"{trials} pushes of {SIZE >> 30} GiB in {LIMIT >> 20} MiB:"
        f" {before / 1e6:.1f} MB before, {growth / 1e6:.1f} MB more after",
        faults,
    )


@contextmanager
def _group() -> Iterator[Path]:
    """A control group with that limit, in either version of the kernel's interface."""
    name = f"file-bucket-{os.getpid()}"
    first = Path("/sys/fs/cgroup/memory")
    if first.is_dir():
        group, key = first / name, "memory.limit_in_bytes"
    else:
        group, key = Path("/sys/fs/cgroup") / name, "memory.max"
    group.mkdir()
    try:
        (group / key).write_text(str(LIMIT))
        yield group
    finally:
        group.rmdir()


def _push(port: int, name: str, size: int, how: str) -> tuple[int | None, str]:
    """Push ``size`` bytes: the answer's status, and the SHA-256 of the data."""
    wrap = wrapping(how, name, size)
    block = wrap.block(_BLOCK)
    digest = hashlib.sha256()
    answer = b""
    with socket.create_connection(("127.0.0.1", port), _ENDED_WITHIN) as client:
        client.sendall(wrap.before)
        for _ in range(size // len(_BLOCK)):
            digest.update(_BLOCK)
            client.sendall(block)
        client.sendall(wrap.after)
        while got := client.recv(65536):
            answer += got
    return status_of(answer), digest.hexdigest()


def _resume(port: int, name: str, size: int, how: str) -> tuple[int | None, str]:
    """The same as a resumable upload."""
    digest = hashlib.sha256()
    length = PARTS[how]
    answer = ask(port, "PUT", name, {"Upload-Complete": "?0"})
    path = answer.headers.get("location", "").rpartition("/")[2] if answer else ""
    offset, expected = 0, 201
    while offset < size and answer is not None and answer.status == expected:
        whole = offset + length == size
        expected = 200 if whole else 204
        head = (
            f"PATCH /{TOKEN}/uploads/{path} HTTP/1.1",
            *("Host: h", "Connection: close"),
            "Content-Type: application/partial-upload",
            f"Content-Length: {length}",
            f"Upload-Offset: {offset}",
            f"Upload-Complete: ?{whole:d}",
            *("", ""),
        )
        received = b""
        with socket.create_connection(("127.0.0.1", port), _ENDED_WITHIN) as client:
            client.sendall("\r\n".join(head).encode())
            for _ in range(length // len(_BLOCK)):
                digest.update(_BLOCK)
                client.sendall(_BLOCK)
            while got := client.recv(65536):
                received += got
        answer = answer_of(received)
        offset += length
    return answer.status if answer else None, digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
