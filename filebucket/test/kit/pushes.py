"""Servers for the tests of the client that pushes."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, cast
from urllib.parse import unquote

from twisted.trial.unittest import SynchronousTestCase

from filebucket.client.access import server
from filebucket.client.connection import ANSWER_TIMEOUT, Answer, Body, Connection
from filebucket.test.kit.server import PATIENCE


class Sink:
    """A socket that keeps what is sent."""

    def __init__(self) -> None:
        self.data = bytearray()

    def send(self, data: memoryview) -> int:
        self.data += data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.data += data

    def sendfile(self, file: IO[bytes], offset: int, count: int) -> int:
        file.seek(offset)
        data = file.read(count)
        self.data += data
        return len(data)


def content(body: Body, most: int = 1 << 20) -> bytes:
    """The bytes of a body.

    :param most: number of bytes to send at once
    """
    sink = Sink()
    while len(sink.data) < body.size:
        body.send(cast(socket.socket, sink), len(sink.data), most)
    return bytes(sink.data)


Talk = Callable[[socket.socket], object]
"""One side of a connection."""


class Peer:
    """A server on this machine whose every byte is the test's.

    :ivar address: its port, or the path of its UNIX socket
    """

    def __init__(
        self, case: SynchronousTestCase, *talks: Talk, path: str | None = None
    ) -> None:
        """
        :param talks: for the first connection, the second one, and so on
        :param path: of a UNIX socket
        """
        self._listening = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listening.settimeout(PATIENCE)
        self._listening.bind(path or ("127.0.0.1", 0))
        self._listening.listen()
        self.address = self._listening.getsockname()
        self._talks = talks
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        case.addCleanup(self.end)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def _serve(self) -> None:
        for talk in self._talks:
            with suppress(OSError):
                connection, _ = self._listening.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    talk(connection)

    def end(self) -> None:
        """Wait until the last connection has ended."""
        with suppress(OSError):
            # It wakes accept().
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listening.close()


def answer(
    content: bytes = b"", status: str = "200 OK", *headers: str, length: bool = True
) -> bytes:
    """An answer, as bytes."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def read_request(connection: socket.socket) -> bytes:
    """A request, with a body of known length."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1)
        if not more:
            return data
        data += more
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", data)
    left = int(found[1]) if found else 0
    while left:
        more = connection.recv(min(left, 1 << 20))
        if not more:
            break
        data += more
        left -= len(more)
    return data


def answering(*answers: bytes, heard: list[bytes] | None = None) -> Talk:
    """Give one answer to each request; then close the connection."""

    def talk(connection: socket.socket) -> None:
        for each in answers:
            data = read_request(connection)
            if heard is not None:
                heard.append(data)
            connection.sendall(each)

    return talk


def reply(status: int, text: str = "", **headers: str) -> Answer:
    """An answer of file-bucket; a header ``X_Request_Id=""`` makes it a proxy's."""
    message = HTTPMessage()
    for name, value in {"X_Request_Id": "62e4731d", **headers}.items():
        if value:
            message[name.replace("_", "-")] = value
    return Answer(status, message, f"{text}\n".encode() if text else b"")


@dataclass
class Asked:
    """A request.

    :param body: None if it had none
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


class MemoryUpload:
    """A resumable upload.

    :ivar receipt: None until it has ended
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = b""
        self.receipt: Answer | None = None


Fault = Callable[[Asked], "Answer | BaseException | None"]


class MemoryServer(Connection):
    """A server in memory, and the connection to it.

    :ivar stored: content of the files by name
    :ivar uploads: unfinished and ended uploads by path
    :ivar asked: all requests
    :ivar faults: each is called with the next request, before it is carried out: an
        answer or an error is given instead, and None is no fault
    :ivar losses: numbers of requests whose answer is lost, from 0
    :ivar resumes: whether it has resumable uploads
    :ivar most: bytes of a body that the proxy before it takes
    :ivar replaces: whether a push may replace another file
    :ivar reports: names and texts of failures
    """

    def __init__(self) -> None:
        super().__init__(server("http://localhost", "0" * 32), "test")
        self.stored: dict[str, bytes] = {}
        self.uploads: dict[str, MemoryUpload] = {}
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.losses: set[int] = set()
        self.resumes = True
        self.replaces = False
        self.most: int | None = None
        self.patiences: list[float] = []
        self.reports: list[tuple[str, bytes]] = []

    @property
    def methods(self) -> list[str]:
        return [each.method for each in self.asked]

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        sent: Callable[[int], object] = lambda _: None,
        patience: float = ANSWER_TIMEOUT,
    ) -> Answer:
        self.patiences.append(patience)
        asked = Asked(method, path, dict(headers), None)
        number = len(self.asked)
        self.asked.append(asked)
        fault = self.faults.pop(0)(asked) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            return fault
        if body is not None:
            if self.most is not None and body.size > self.most:
                return reply(413, "<html>", X_Request_Id="")
            asked.body = content(body)
            sent(body.size)
        if method == "OPTIONS":
            return reply(204 if self.resumes else 501)
        answer = self._answer(asked)
        if number in self.losses:
            raise ConnectionResetError(104, "Connection reset by peer")
        return answer

    def _answer(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            assert asked.headers["Content-Type"].startswith("text/plain")
            assert asked.body is not None
            self.reports.append((unquote(asked.path), asked.body))
            return reply(202, "the failure is reported")
        if not asked.path.startswith("uploads/"):
            return self._creation(asked)
        found = self.uploads.get(asked.path)
        if found is None:
            return reply(404, "no such upload")
        complete = "?0" if found.receipt is None else "?1"
        offset = {"Upload_Offset": str(len(found.data)), "Upload_Complete": complete}
        if asked.method == "HEAD":
            return reply(204, **offset)
        if asked.method == "DELETE":
            del self.uploads[asked.path]
            return reply(204)
        return self._append(asked, found, offset)

    def _append(
        self, asked: Asked, found: MemoryUpload, offset: dict[str, str]
    ) -> Answer:
        assert asked.method == "PATCH"
        assert asked.headers["Content-Type"] == "application/partial-upload"
        if asked.headers["Upload-Offset"] != offset["Upload_Offset"]:
            return reply(409, "another offset", **offset)
        assert asked.body is not None
        if found.receipt is not None:
            return found.receipt
        found.data += asked.body
        if asked.headers["Upload-Complete"] == "?0":
            return reply(204, Upload_Offset=str(len(found.data)), Upload_Complete="?0")
        found.receipt = self._end(found.name, found.data, asked.headers, "?1")
        if found.receipt.status == 422:
            del self.uploads[asked.path]
        return found.receipt

    def _creation(self, asked: Asked) -> Answer:
        assert asked.method == "PUT"
        name = unquote(asked.path)
        promised = asked.headers.get("X-Checksum-Sha256")
        if name in self.stored and promised == _sha256(self.stored[name]):
            return self._receipt(name)
        if name in self.stored and self.replaces:
            if "If-None-Match" in asked.headers:
                return reply(412, "a file with that name already exists")
            del self.stored[name]
        if "Upload-Complete" not in asked.headers:
            assert asked.body is not None
            return self._end(name, asked.body, asked.headers)
        if not self.resumes:
            return reply(501, "resumable uploads are switched off")
        if name in self.stored:
            return reply(405, "a file with that name already exists")
        path = f"uploads/{len(self.uploads):032x}"
        self.uploads[path] = MemoryUpload(name)
        return reply(201, Location=path, Upload_Offset="0")

    def _end(
        self, name: str, data: bytes, headers: Mapping[str, str], complete: str = ""
    ) -> Answer:
        if headers.get("X-Checksum-Sha256", _sha256(data)) != _sha256(data):
            return reply(422, "sha256 mismatch", Upload_Complete=complete)
        if name in self.stored:
            return reply(
                405, "a file with that name already exists", Upload_Complete=complete
            )
        self.stored[name] = data
        return self._receipt(name)

    def _receipt(self, name: str) -> Answer:
        sha256 = _sha256(self.stored[name])
        return reply(200, f"{sha256}  {name}", X_Checksum_Sha256=sha256)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
