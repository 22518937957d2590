"""The loads for servers."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, nullcontext
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, TypeAlias

from bench.process import LONGEST, PATIENCE, run
from bench.servers import Server

Load: TypeAlias = Callable[[Server], Mapping[str, float]]
"""Puts a load on a server. Returns further results: ``wall``, its own time in seconds
if that is not all of it, and other columns of the table."""

PUT, POST, CHUNKED = "PUT", "POST", "chunked PUT"

SMALL = 4096
"""Bytes of a small file."""


def content(tools: Path, size: int) -> Path:
    """A file of that many random bytes."""
    path = tools / f"content-{size}"
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
    return path


def curl(kind: str, file: Path, at_once: int, server: Server) -> dict[str, float]:
    """Push with curl, and check that the stored file is the same."""
    begin = time.monotonic()
    sending = [
        _start_curl(kind, file, f"{number}.bin", server) for number in range(at_once)
    ]
    answers = [process.communicate(timeout=LONGEST) for process in sending]
    wall = time.monotonic() - begin
    for process, (_, errors) in zip(sending, answers, strict=True):
        if process.returncode:
            raise RuntimeError(f"curl: {errors.decode()}")
    kept = [path for path in server.kept.rglob("*") if path.suffix == ".bin"]
    if len(kept) != at_once:
        raise RuntimeError(f"{len(kept)} files were kept of {at_once}")
    for path in kept:
        run(["cmp", str(path), str(file)])
        path.unlink()
    return {"wall": wall}


def curl_told(file: Path, at_once: int, server: Server) -> dict[str, float]:
    """Push with curl, and compare the receipts with the file."""
    digest = run(["sha256sum", str(file)]).split()[0].encode()
    url = f"{server.origin}{server.path}{secrets.token_hex(4)}"
    command = ["curl", "-sS", "--fail", "-T", str(file)]
    begin = time.monotonic()
    sending = [
        subprocess.Popen([*command, f"{url}-{number}"], stdout=subprocess.PIPE)
        for number in range(at_once)
    ]
    receipts = [process.communicate(timeout=LONGEST)[0] for process in sending]
    wall = time.monotonic() - begin
    if any(receipt.split()[:1] != [digest] for receipt in receipts):
        raise RuntimeError(f"curl: {receipts}")
    return {"wall": wall}


def _start_curl(
    kind: str, file: Path, name: str, server: Server
) -> subprocess.Popen[bytes]:
    url = server.origin + server.path + name
    stdin: IO[bytes] | None = None
    if kind == POST:
        path, field = server.form
        url = server.origin + path
        how = ["-F", f"{field}=@{file};filename={name}"]
    elif kind == CHUNKED:
        stdin = file.open("rb")
        how = ["-T", "-"]
    else:
        how = ["-T", str(file)]
    with stdin or nullcontext():
        return subprocess.Popen(
            ["curl", "-sS", "--fail", "-o", "/dev/null", *server.curl, *how, url],
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def filebucket_push(file: Path, piped: bool, server: Server) -> dict[str, float]:
    """Push with filebucket-push; returns the client's own memory and processor time.

    :param piped: whether it reads the file from a pipe
    """
    home = server.kept.parent.parent
    token = home / ".file-bucket"
    token.write_text(f"Authorization: Bearer {server.path.strip('/')}\n")
    command = [sys.executable, "-m", "filebucket.client", "--url", server.origin]
    command += ["--name", "pushed.bin", "-" if piped else str(file)]
    begin = time.monotonic()
    with ExitStack() as closing:
        stdin: int | IO[bytes] | None = subprocess.DEVNULL
        if piped:
            reading = subprocess.Popen(["cat", str(file)], stdout=subprocess.PIPE)
            stdin = closing.enter_context(reading).stdout
        pushing = subprocess.Popen(
            command, stdin=stdin, env={**os.environ, "HOME": str(home)}
        )
        _, status, used = os.wait4(pushing.pid, 0)
    wall = time.monotonic() - begin
    pushing.returncode = os.waitstatus_to_exitcode(status)
    if pushing.returncode:
        raise RuntimeError(f"filebucket-push: {pushing.returncode}")
    _compare(server, file, "pushed.bin")
    return {
        "wall": wall,
        "client MB": used.ru_maxrss * 1024 / 1e6,
        "client CPU s": used.ru_utime + used.ru_stime,
    }


def whole(file: Path, server: Server) -> dict[str, float]:
    """Push with one PUT, sent by the kernel."""
    begin = time.monotonic()
    with _connected(server) as connection:
        _send(connection, f"PUT {server.path}whole.bin", file, 0, file.stat().st_size)
    wall = time.monotonic() - begin
    _compare(server, file, "whole.bin")
    return {"wall": wall}


def in_parts(file: Path, part: int, server: Server) -> dict[str, float]:
    """Push as a resumable upload, each part with a request of its own.

    :param part: bytes
    """
    begin = time.monotonic()
    size = file.stat().st_size
    with _connected(server) as connection:
        created = _send(
            connection,
            f"PUT {server.path}parts.bin",
            file,
            0,
            0,
            "Upload-Complete: ?0",
            f"Upload-Length: {size}",
        )
        place = created.partition("Location: ")[2].partition("\r\n")[0]
        for offset in range(0, size, part):
            count = min(part, size - offset)
            last = offset + count == size
            _send(
                connection,
                f"PATCH {server.path}{place}",
                file,
                offset,
                count,
                f"Upload-Complete: ?{int(last)}",
                f"Upload-Offset: {offset}",
                "Content-Type: application/partial-upload",
            )
    wall = time.monotonic() - begin
    _compare(server, file, "parts.bin")
    return {"wall": wall}


def idle_uploads(count: int, server: Server) -> dict[str, float]:
    """Uploads that stay unfinished: the memory of each."""
    before = server.process.memory()
    with _connected(server) as connection:
        for number in range(count):
            target = f"PUT {server.path}unfinished{number}.bin"
            nothing = Path(os.devnull)
            _send(connection, target, nothing, 0, 0, "Upload-Complete: ?0")
    return {"kB each": (server.process.memory() - before) / count / 1e3}


def _connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), LONGEST)


def _send(
    connection: socket.socket,
    target: str,
    file: Path,
    offset: int,
    count: int,
    *headers: str,
) -> str:
    """Send a piece of a file; returns the headers of the answer."""
    lines = (f"{target} HTTP/1.1", "Host: h", f"Content-Length: {count}", *headers)
    connection.sendall("\r\n".join((*lines, "", "")).encode())
    with file.open("rb") as opened:
        if count:
            connection.sendfile(opened, offset, count)
    answer = connection.recv(4096).decode()
    if not answer.startswith("HTTP/1.1 2"):
        raise RuntimeError(answer)
    return answer


def _compare(server: Server, file: Path, name: str) -> None:
    (kept,) = server.kept.rglob(name)
    run(["cmp", str(kept), str(file)])
    kept.unlink()


def pushes(
    tools: Path, method: str, connections: int, count: int, keep: bool = True
) -> Load:
    """``count`` small pushes; returns the time of the slowest."""

    def load(server: Server) -> dict[str, float]:
        path, field = (server.path, "-") if method == PUT else server.form
        prefix = secrets.token_hex(4)
        numbers = (SMALL, connections, count, int(keep))
        said = run(
            [
                *(str(tools / "push"), str(server.port), path, field, prefix),
                *map(str, numbers),
                *(["tls"] if server.scheme == "https" else []),
            ]
        )
        wall, slowest = map(float, said.split())
        return {"wall": wall, "slowest ms": slowest * 1e3}

    return load


def get(port: int, path: str, server: Server) -> dict[str, float]:
    """Get a page of the admin listener at ``port``."""
    begin = time.monotonic()
    with closing(HTTPConnection("127.0.0.1", port, timeout=LONGEST)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
    if answer.status != 200:
        raise RuntimeError(content.decode())
    return {"wall": time.monotonic() - begin}


def trickle(
    tools: Path, clients: int, rate: int, seconds: int, server: Server
) -> dict[str, float]:
    """Many slow clients at once, for a while."""
    numbers = map(str, (clients, rate, seconds))
    said = run([str(tools / "trickle"), str(server.port), server.path, *numbers])
    wall, latest, longest = map(float, said.split())
    return {"wall": wall, "latest ms": latest * 1e3, "answer ms": longest * 1e3}


def keep_idle(clients: int, server: Server) -> dict[str, float]:
    """Connections that stay open after a push: the memory of each."""
    before = server.process.memory()
    waiting = [_push_and_keep(server, number) for number in range(clients)]
    added = server.process.memory() - before
    for connection in waiting:
        connection.close()
    return {"kB each": added / clients / 1e3}


def _push_and_keep(server: Server, number: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    head = (
        f"PUT {server.path}idle{number} HTTP/1.1\r\nHost: h\r\nContent-Length: {SMALL}"
    )
    connection.sendall(head.encode() + b"\r\n\r\n" + bytes(SMALL))
    answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(answer.decode("latin-1"))
    return connection
