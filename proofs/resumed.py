"""Resumable uploads whose answers are recorded and compared with what is stored.

A client creates an upload and sends parts of random sizes. It cuts some of them short,
and then asks for the offset. Each offset that it was told is a promise.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from attrs import Factory, define, frozen

from filebucket.test.kit.server import TOKEN
from proofs.pushes import ANSWER_WITHIN, Ledger, expected, residue


@frozen
class Answer:
    """A whole answer.

    :param headers: by name in lower case
    """

    status: int
    headers: dict[str, str]

    def number(self, name: str) -> int:
        """The value of a header that is a number; -1 if it is not there."""
        return int(self.headers.get(name, "-1"))


def answer_of(received: bytes, head_only: bool = False) -> Answer | None:
    """The answer to a request, after any interim ones; None if it is not whole.

    :param head_only: whether the answer has no body, as to HEAD
    """
    while re.match(rb"HTTP/1.1 1\d\d ", received):
        received = received.partition(b"\r\n\r\n")[2]
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    answer = Answer(int(first.split(" ")[1]), headers)
    if head_only or answer.status == 204:
        return answer
    return answer if len(body) >= answer.number("content-length") else None


def ask(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    cut: int = 0,
) -> Answer | None:
    """The answer to one request on a connection of its own; None if there is none.

    :param path: after the token
    :param cut: bytes at the end of the body that are not sent; then the connection ends
    """
    lines = [f"{method} /{TOKEN}/{path} HTTP/1.1", "Host: h", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    request = "\r\n".join(lines).encode() + body[: len(body) - cut]
    received = b""
    address = "127.0.0.1", port
    with suppress(OSError), socket.create_connection(address, ANSWER_WITHIN) as it:
        with suppress(OSError):
            it.sendall(request)
        if cut:
            return None
        while got := it.recv(65536):
            received += got
    return answer_of(received, method == "HEAD")


def _status(answer: Answer | None) -> int | None:
    return None if answer is None else answer.status


@define
class Told:
    """The promises about one upload.

    :ivar path: of its resource, after the token; empty until it was told
    :ivar offset: the largest that was told
    """

    path: str = ""
    offset: int = 0


@define
class ResumedLedger(Ledger):
    """The answers to resumable uploads. The status of one is its last answer's.

    :cvar cuts: whether some parts are cut short
    :cvar most_parts: parts of a file
    :cvar ends: statuses after which an upload does not go on
    """

    told: dict[str, Told] = Factory(dict)
    cuts: ClassVar[bool] = True
    most_parts: ClassVar[int] = 4
    ends: ClassVar[Collection[int]] = (200,)

    def push(
        self, port: int, name: str, how: str = "PUT", token: str = TOKEN
    ) -> int | None:
        self.enter(name, None)
        self.enter(name, status := self._push(port, name))
        return status

    def _push(self, port: int, name: str) -> int | None:
        told = self.told[name] = Told()
        data = expected(name)
        chance = random.Random(name)
        # An empty file of unknown length would be taken for a command that failed.
        known = not data or chance.random() < 0.5
        headers = {"Upload-Complete": "?0"}
        if known:
            headers["Upload-Length"] = str(len(data))
        answer = ask(port, "PUT", name, headers)
        if answer is None or answer.status != 201:
            return _status(answer)
        told.path = answer.headers["location"].partition("uploads/")[2]
        told.path = f"uploads/{told.path}"
        ends = sorted(chance.choices(range(len(data) + 1), k=self.most_parts - 1))
        for end in ends:
            if end <= told.offset:
                continue
            part = data[told.offset : end]
            cut = chance.choice((0, 0, (len(part) + 1) // 2)) if self.cuts else 0
            answer = self._part(port, told, part, last=False, cut=cut)
            if cut:
                answer = ask(port, "HEAD", told.path)
            if answer is None or answer.status != 204:
                return _status(answer)
            told.offset = max(told.offset, answer.number("upload-offset"))
        answer = self._part(port, told, data[told.offset :], last=True)
        return _status(answer)

    def _part(
        self, port: int, told: Told, part: bytes, last: bool, cut: int = 0
    ) -> Answer | None:
        headers = {
            "Content-Type": "application/partial-upload",
            "Upload-Offset": str(told.offset),
            "Upload-Complete": "?1" if last else "?0",
        }
        return ask(port, "PATCH", told.path, headers, part, cut)

    def faults(self, bucket: Path) -> list[str]:
        """Also every told offset that is beyond the stored data, and other data."""
        return [*super().faults(bucket), *self._lost(bucket)]

    def _lost(self, bucket: Path) -> Iterator[str]:
        uploads = bucket.parent / ".filebucket" / "uploads"
        for name, told in self.told.items():
            if not told.path or (bucket / name).exists():
                continue
            if self.statuses[name] in self.ends:
                continue  # reported already
            data, record = b"", None
            with suppress(OSError):
                data = (uploads / told.path.rpartition("/")[2]).read_bytes()
            with suppress(OSError, ValueError):
                path = uploads / f"{told.path.rpartition('/')[2]}.json"
                record = json.loads(path.read_bytes())
            if record is None:
                yield f"{name}: no record, and {told.offset} bytes were told"
                continue
            offset = record["offset"]
            if offset < told.offset:
                yield f"{name}: {offset} recorded, {told.offset} bytes were told"
            if len(data) < offset:
                yield f"{name}: {len(data)} bytes, and {offset} are recorded"
            elif data[:offset] != expected(name)[:offset]:
                yield f"{name}: the first {offset} bytes differ from those sent"
            elif hashlib.sha256(data[:offset]).hexdigest() != record["sha256"]:
                yield f"{name}: the digest recorded is not that of the data"

    def after(self, port: int, home: Path) -> list[str]:
        """Faults of the uploads that were not finished, when they are continued."""
        found = []
        for name, told in self.told.items():
            if told.path and self.statuses[name] not in self.ends:
                found += [f"{name}: {each}" for each in self._resume(port, name, told)]
        return [*found, *self.faults(home / TOKEN), *residue(home)]

    def _resume(self, port: int, name: str, told: Told) -> Iterator[str]:
        look = ask(port, "HEAD", told.path)
        if look is None or look.status != 204:
            yield f"asked again: {_status(look)}"
            return
        offset = look.number("upload-offset")
        if offset < told.offset:
            yield f"at {offset}, and {told.offset} were told"
        told.offset = offset
        answer = self._part(port, told, expected(name)[offset:], last=True)
        if answer is None or answer.status != 200:
            yield f"continued: {_status(answer)}"
            return
        self.enter(name, 200)


class SteadyLedger(ResumedLedger):
    """The same with no part cut short: a fault in keeping such a part has no answer.
    Between the creation and the last part there is one: another makes the same calls.
    """

    cuts = False
    most_parts = 2
