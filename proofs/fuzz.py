"""Malformed HTTP with random mutations, against the real daemon.

Mutated and valid requests are sent at the same time. Whatever is sent: the daemon runs
on, logs no traceback and frees every descriptor; every status in an answer is one of
its own; and the stored files are exactly those whose SHA-256 was in an answer. Some
requests report that a backup failed. Some are about resumable uploads, of both
dialects, that the client has created: the offset of an upload never decreases, and
never exceeds its length.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import secrets
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import Factory, define

from filebucket.base.errors import STATUSES
from filebucket.test.kit.bad_http import (
    AT_0,
    BUCKET,
    CHUNKS,
    FRAMING,
    LOST,
    NEXT,
    ODD,
    PUSHES,
    REPORTS,
    RESUMED,
    UPLOADS,
    creates,
    tus_creates,
)
from filebucket.test.kit.server import OTHER, TOKEN, Server
from proofs.daemons import DAEMON, OPTIONS
from proofs.outcome import Outcome, Prove, found_out
from proofs.pushes import ANSWER_WITHIN, WAYS, expected, named, residue, wrapped

CLIENTS = 4

LENGTH = 10
"""Bytes of a resumable upload, if its length is known: two parts of a row."""

LARGEST = 10**9

SEEDS = [row.message for row in (*FRAMING, *CHUNKS, *PUSHES, *RESUMED, *REPORTS, *ODD)]
PARTS = [
    row.message for row in RESUMED if row.status == 404 and row.message[:1] == b"P"
]
SHORT = [seed for seed in SEEDS if len(seed) < 5000]

WORDS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"%", b"0\r\n\r\n"),
    *(b"\r\n\r\n", b"\r\n ", b"--b", b"--b--\r\n", b'"', b"\\", b"=", b"-1", b"5"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\xff", b"/"),
    *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.0", b"HEAD "),
    *(b"Authorization: Bearer %b\r\n" % BUCKET, b"ffffffffffffffff", b"..", b"?"),
    *(b"X-Checksum-Sha256: 00\r\n", b"Content-Digest: sha-256=:AA==:\r\n", NEXT),
    *(
        b"Upload-Complete: ?0\r\n",
        b"Upload-Complete: ?1\r\n",
        b"Tus-Resumable: 1.0.0\r\n",
    ),
    *(b"Upload-Offset: 5\r\n", b"Upload-Length: 10\r\n", b"Upload-Defer-Length: 1\r\n"),
    *(b"Trailer: Content-Digest\r\n", b"PATCH ", b"DELETE ", b"OPTIONS ", b"/uploads/"),
)

_OFFSET = re.compile(rb"\r\nUpload-Offset: (\d+)\r\n")
_LOCATION = re.compile(rb"\r\nLocation: [^\r]*?([0-9a-f]{32})\r\n")
_DIGEST = re.compile(rb"\r\nX-Checksum-Sha256: ([0-9a-f]{64})\r\n")
_RECEIPT = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")


def mutated(chance: random.Random) -> bytes:
    """One of the rows, changed in a few places."""
    seeds = SEEDS if chance.random() < 0.02 else SHORT
    message = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        at = chance.randrange(len(message) + 1)
        to = min(at + chance.choice((1, 1, 2, 4, 8, 40)), len(message))
        match chance.randrange(7):
            case 0:
                message[at:to] = chance.randbytes(to - at)
            case 1:
                message[at:at] = chance.choice(WORDS)
            case 2:
                message[at:to] = chance.choice(WORDS)
            case 3:
                del message[at:to]
            case 4:
                message[at:at] = message[at:to] * chance.choice((1, 2, 50))
            case 5:
                del message[at:]
            case _:
                other = chance.choice(SHORT)
                message[at:] = other[chance.randrange(len(other)) :]
    return bytes(message)


@define
class Seen:
    """The answers to all clients together."""

    requests: int = 0
    statuses: Counter[int] = Factory(Counter)
    receipts: dict[str, str] = Factory(dict)
    nameless: set[str] = Factory(set)
    offsets: int = 0
    faults: list[str] = Factory(list)
    lock: threading.Lock = Factory(threading.Lock)

    def answer(self, sent: bytes, answer: bytes) -> list[int]:
        """Parse all answers on a connection.

        :returns: the statuses
        """
        statuses = []
        with self.lock:
            self.requests += 1
            while answer:
                head, end, rest = answer.partition(b"\r\n\r\n")
                start = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
                if not start or not end:
                    self.faults.append(f"{sent!r} was answered with {answer!r}")
                    break
                status = int(start[1])
                statuses.append(status)
                length = re.search(rb"\r\nContent-Length: (\d+)", head)
                # The answer to HEAD has a Content-Length and no content.
                size = int(length[1]) if length and rest[:7] != b"HTTP/1." else 0
                content, answer = rest[:size], rest[size:]
                if status not in {*STATUSES, 100} or status == 500:
                    self.faults.append(f"{sent!r} was answered with {status}")
                digest = _DIGEST.search(head + end)
                if status == 200:
                    again = b"\r\nUpload-Complete: ?1" in head
                    self._receipt(sent, content, again)
                elif digest:
                    # The end of an upload with tus, or its offset: there is no name.
                    self.nameless.add(digest[1].decode("ascii"))
            self.statuses.update(statuses or [0])
        return statuses

    def _receipt(self, sent: bytes, content: bytes, again: bool) -> None:
        receipt = _RECEIPT.fullmatch(content)
        if receipt is None:
            self.faults.append(f"{sent!r} was answered with 200 and {content!r}")
        else:
            name = receipt[2].decode("utf-8", "surrogateescape")
            digest = receipt[1].decode("ascii")
            if name in self.receipts and not (again and self.receipts[name] == digest):
                self.faults.append(f"two receipts for {name!r}")
            self.receipts[name] = digest


class _Client(threading.Thread):
    """Sends one request after the other until its time is up."""

    def __init__(self, port: int, seed: str, end: float, seen: Seen) -> None:
        super().__init__()
        self._port = port
        self._seed = seed
        self._chance = random.Random(seed)
        self._end = end
        self._seen = seen
        self._url = b""
        self._offset = 0

    def run(self) -> None:
        number = 0
        try:
            while time.monotonic() < self._end:
                number += 1
                self._one(f"{self._seed.rpartition('-')[2]}-{number}")
        except Exception as error:  # any error: else it would go unnoticed
            with self._seen.lock:
                self._seen.faults.append(f"the client of seed {self._seed}: {error!r}")

    def _one(self, name: str) -> None:
        chance = self._chance
        if chance.random() < 0.2:
            name = named(name, chance.choice((0, 1, 5000, 100_000)))
            message = wrapped(chance.choice(WAYS), name, expected(name))
            statuses = self._seen.answer(message[:99], self._exchange(message))
            if statuses != [200]:
                with self._seen.lock:
                    self._seen.faults.append(f"{name}, a valid push, got {statuses}")
            return
        message = mutated(chance)
        if chance.random() < 0.3:
            self._upload(name, message)
            return
        # A unique name, or only the first push of a name would be stored.
        message = message.replace(b"row", name.encode()).replace(
            b"/next", f"/next-{name}".encode()
        )
        if chance.random() < 0.1:
            # Into the other bucket, which is not checked: no answer is read.
            self._leave(message.replace(BUCKET, OTHER.encode("ascii")))
        else:
            self._seen.answer(message, self._exchange(message))

    def _upload(self, name: str, message: bytes) -> None:
        """Send it as a request about a resumable upload: a new one, or an older one."""
        chance = self._chance
        if not self._url or chance.random() < 0.3:
            encoded = base64.b64encode(name.encode())
            create = chance.choice(
                (
                    creates(),
                    creates(b"Upload-Length: %d" % LENGTH),
                    tus_creates(
                        b"Upload-Length: %d" % LENGTH,
                        b"Upload-Metadata: filename " + encoded,
                    ),
                    tus_creates(
                        b"Upload-Defer-Length: 1",
                        b"Upload-Metadata: filename " + encoded,
                    ),
                )
            ).replace(b"row", name.encode())
            answer = self._exchange(create)
            self._seen.answer(create, answer)
            found = _LOCATION.search(answer)
            if found is None:
                self._fault(f"{name}, a valid creation, got {answer!r}")
                return
            self._url, self._offset = UPLOADS + found[1], 0
        if LOST not in message:
            # An unharmed one, so that uploads end, too.
            message = chance.choice(PARTS)
        message = message.replace(LOST, self._url).replace(b"row", name.encode())
        if chance.random() < 0.7:
            message = message.replace(AT_0, b"Upload-Offset: %d" % self._offset)
        self._seen.answer(message, self._exchange(message))
        look = b"HEAD %b HTTP/1.1\r\nHost: h\r\n\r\n" % self._url
        answer = self._exchange(look)
        self._seen.answer(look, answer)
        found = _OFFSET.search(answer)
        if found is None:
            self._url = b""
            return
        if not self._offset <= int(found[1]):
            self._fault(f"{message!r}: the offset {self._offset} became {found[1]!r}")
        self._offset = int(found[1])
        with self._seen.lock:
            self._seen.offsets += 1

    def _fault(self, fault: str) -> None:
        with self._seen.lock:
            self._seen.faults.append(fault)

    def _connect(self, message: bytes) -> socket.socket:
        it = socket.create_connection(("127.0.0.1", self._port), ANSWER_WITHIN)
        it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):
            at = 0
            for cut in sorted(self._chance.choices(range(len(message) + 1), k=3)):
                it.sendall(message[at:cut])
                at = cut
            it.sendall(message[at:])
        return it

    def _exchange(self, message: bytes) -> bytes:
        """Send it, end the sending side, and read to the end."""
        answer = b""
        with self._connect(message) as it:
            with suppress(OSError):
                it.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while got := it.recv(65536):
                    answer += got
        return answer

    def _leave(self, message: bytes) -> None:
        """Send it, and close the connection."""
        self._connect(message).close()


def fuzz(
    command: Sequence[str], folder: Path, seconds: int, seed: str | None = None
) -> Outcome:
    """Send for a number of seconds, then check the stored files.

    :param seed: the seed of a reported fault, to send the same again
    """
    seed = seed or secrets.token_hex(4)
    seen = Seen()
    server = Server(
        folder / "daemon", max_file_size=LARGEST, max_unfinished=10**6
    ).start(*command)
    try:
        before = server.idle_files()
        end = time.monotonic() + seconds
        clients = [
            _Client(server.port, f"{seed}-{number}", end, seen)
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        if server.process.poll() is not None:
            seen.faults.append("the daemon is gone")
        elif not server.wait_for_open_files(before):
            after = server.open_files()
            seen.faults.append(f"{after} descriptors, {before} at first")
    finally:
        server.stop()
    # The daemon's bugs, and errors that only the reactor caught.
    tracebacks = server.log.count("Traceback (most recent")
    if tracebacks:
        seen.faults.append(f"{tracebacks} tracebacks in its log")
    bucket = f"{TOKEN}/"
    stored = {
        path.removeprefix(bucket): hashlib.sha256(content).hexdigest()
        for path, content in server.stored().items()
        if path.startswith(bucket)
    }
    for name, digest in seen.receipts.items() - stored.items():
        seen.faults.append(f"{name!r}: 200 for {digest}, stored {stored.get(name)}")
    for name in stored.keys() - seen.receipts.keys():
        if stored[name] not in seen.nameless:
            seen.faults.append(f"{name!r}: stored without a 200")
    seen.faults += residue(server.home)
    counts = ", ".join(
        f"{number} x {status or 'none'}"
        for status, number in sorted(seen.statuses.items())
    )
    faults = [f"seed {seed}: {fault[:400]}" for fault in seen.faults]
    return Outcome(
        f"{seen.requests:,} requests, {seen.requests / seconds:,.0f}/s: {counts};"
        f" {len(stored):,} files, {seen.offsets:,} offsets, {len(faults)} faults",
        faults,
    )


prove: Prove = partial(fuzz, DAEMON)
"""Whether the daemon withstands it."""

_WITHOUT = """
from twisted.web import http
from filebucket.http import channel
from filebucket.store import disk
{flaw}
from twisted.scripts.twistd import run
run()
"""

FLAWS = {
    "lengths": """
channel.StreamingChannel.headerReceived = http.HTTPChannel.headerReceived
""",
    "contents": """
commit = disk.DirectoryWriter.commit
async def commit_and_cut(self, promised, overwrite):
    receipt = await commit(self, promised, overwrite)
    open(receipt.path, "wb").close()
    return receipt
disk.DirectoryWriter.commit = commit_and_cut
""",
    "offsets": """
from itertools import count
from filebucket.web import resume
of_draft, turns = resume._of_draft, count()
def more_than_there_is(upload):
    headers = of_draft(upload)
    headers["Upload-Offset"] = str(upload.offset + next(turns) % 2)
    return headers
resume._of_draft = more_than_there_is
""",
    "early ends": """
channel.StreamingChannel.readConnectionLost = lambda self: (
    self.requests[-1].body.end() if self.requests else None,
    self.loseConnection(),
)
""",
}
"""Rules that can be removed from the daemon."""


def tells(flaw: str) -> Prove:
    """Whether the experiment detects a removed rule."""
    script = _WITHOUT.format(flaw=FLAWS[flaw])
    command = (sys.executable, "-c", script, *OPTIONS)

    def prove(folder: Path, seconds: int) -> Outcome:
        return found_out(fuzz(command, folder, seconds))

    return prove
