"""A coverage-guided fuzzer for request bodies on a connection in memory.

It is a separate program, ``python -m proofs.atheris_body CORPUS -max_total_time=N``,
because libFuzzer takes over the process. The first byte of an input selects what
precedes the others (chunks, a form, a part of a resumable upload, the headers of one,
or nothing), and the second how they are split. For any input, no bug may be logged, no
timer and no writer may be left, and the number of files must equal the number of
answers with a SHA-256.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["filebucket", "multipart", "twisted.web"]):
    from twisted.internet.task import Clock
    from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
    from zope.interface import provider

    from filebucket.base.errors import STATUSES
    from filebucket.http.channel import Limits
    from filebucket.model.bucket import Bucket
    from filebucket.model.registry import Registry
    from filebucket.model.token import Token, token_digest
    from filebucket.push.failures import Failures
    from filebucket.push.receive import Uploads
    from filebucket.test.kit.bad_http import (
        BUCKET,
        CHUNKED,
        CHUNKS,
        LOST,
        NAMED,
        NONE,
        ODD,
        ON_UPLOAD,
        PUSHES,
        RESUMED,
        TUS,
        TUS_PART,
        UPLOADS,
        creates,
        put,
        tus_creates,
    )
    from filebucket.test.kit.fakes import FakeHooks, MemoryStore
    from filebucket.test.kit.uploads import make_sessions
    from filebucket.test.kit.wire import Connection
    from filebucket.web.tree import Root

FORM = b"multipart/form-data; boundary=b"


def _chunked(data: bytes) -> bytes:
    return put(CHUNKED, body=data)


def _form(data: bytes) -> bytes:
    return put(
        b"Content-Type: " + FORM,
        b"Content-Length: %d" % len(data),
        body=data,
        line=b"POST /%b HTTP/1.1" % BUCKET,
    )


def _chunked_form(data: bytes) -> bytes:
    return put(
        b"Content-Type: " + FORM, CHUNKED, body=data, line=b"POST /%b HTTP/1.1" % BUCKET
    )


def _typed_form(data: bytes) -> bytes:
    kind, _, body = data.partition(b"\n")
    return put(
        b"Content-Type: multipart/form-data;" + kind,
        b"Content-Length: %d" % len(body),
        body=body,
        line=b"POST /%b HTTP/1.1" % BUCKET,
    )


def _parts(data: bytes) -> bytes:
    """A part of chunks, and then the last one, of no bytes."""
    trailers = b"Trailer: Content-Digest"
    headers = b"Upload-Offset: 0", b"Upload-Complete: ?0"
    last = b"Upload-Offset: 5", b"Upload-Complete: ?1"
    return put(CHUNKED, trailers, *headers, body=data, line=ON_UPLOAD) + put(
        NONE, *last, body=b"", line=ON_UPLOAD
    )


def _tus_part(data: bytes) -> bytes:
    """A part of tus, to which the input gives more headers."""
    head, _, body = data.partition(b"\n\n")
    return put(
        TUS,
        TUS_PART,
        b"Content-Length: %d" % len(body),
        *head.split(b"\n"),
        body=body,
        line=ON_UPLOAD,
    )


def _metadata(data: bytes) -> bytes:
    """A creation of tus, with this metadata."""
    return tus_creates(b"Upload-Length: 5", b"Upload-Metadata: " + data)


def _as_it_is(data: bytes) -> bytes:
    return data


KINDS: tuple[Callable[[bytes], bytes], ...] = (
    _chunked,
    _form,
    _chunked_form,
    _typed_form,
    _as_it_is,
    _parts,
    _tus_part,
    _metadata,
)

_LOCATION = re.compile(rb"Location: [^\r]*([0-9a-f]{32})\r\n")
_ANSWER = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)

_bugs: list[LogEvent] = []


@provider(ILogObserver)
def _observe(event: LogEvent) -> None:
    if "log_failure" in event:
        _bugs.append(event)


def one_input(data: bytes) -> None:
    """Send it, end the connection, and check what is left."""
    if len(data) < 2:
        return
    message = KINDS[data[0] % len(KINDS)](data[2:])
    size = data[1] or len(message) or 1
    store = MemoryStore()
    clock = Clock()
    uploads = Uploads(
        store, FakeHooks(), clock, clock.seconds, lambda outcome: None, 10**9
    )
    bucket = Bucket((Token(token_digest(BUCKET)),), directory="bucket", name="bucket")
    registry = Registry([bucket])
    sessions = make_sessions(uploads, store, registry, clock)
    root = Root(uploads, sessions, Failures(uploads, clock), registry, clock.seconds)
    connection = Connection(root, Limits())
    if LOST in message:
        tus = tus_creates(b"Upload-Length: 5", NAMED)
        connection.send(tus if TUS in message else creates())
        created = _LOCATION.search(connection.received())
        if created is None:
            raise AssertionError("no upload was created")
        message = message.replace(LOST, UPLOADS + created[1])
    connection.send(*(message[i : i + size] for i in range(0, len(message), size)))
    connection.half_close()
    connection.clock.advance(0)
    received = connection.received()
    statuses = [int(status) for status in _ANSWER.findall(received)]
    connection.lose()
    if _bugs:
        raise AssertionError(_bugs.pop()["log_failure"].getTraceback())
    if set(statuses) - {*STATUSES, 100}:
        raise AssertionError(f"answered with {statuses}")
    if received.count(b"\r\nX-Checksum-Sha256: ") != len(store.files):
        raise AssertionError(f"{len(store.files)} files, answers {statuses}")
    if store.receiving or connection.clock.getDelayedCalls():
        raise AssertionError("leftovers at the end of the connection")


def seeds() -> list[bytes]:
    """Seeds: the rows with a fault in the body, and all odd ones."""
    rows = (*CHUNKS, *PUSHES, *RESUMED, *ODD)
    found = [bytes([4, 0]) + row.message for row in rows]
    found += [bytes([5, 0]) + row.message.partition(b"\r\n\r\n")[2] for row in CHUNKS]
    found += [
        bytes([5, 0]) + b"5\r\nhello\r\n0\r\n\r\n",
        bytes([6, 0]) + b"Upload-Offset: 0\n\nhello",
        bytes([6, 3]) + b"Upload-Offset: 0\nUpload-Length: 5\nExpect: x\n\nhel",
        bytes([7, 0]) + b"filename cm93,x AA==,y",
    ]
    for row in (*CHUNKS, *PUSHES, *ODD):
        head, _, body = row.message.partition(b"\r\n\r\n")
        kind = 1 if b"boundary=b\r\n" in head else 0
        found.append(bytes([kind, 0]) + body)
        if kind == 1:
            found.append(bytes([2, 7]) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            found.append(bytes([3, 3]) + b"boundary=b\n" + body)
    return [seed for seed in found if len(seed) < 5000]


if __name__ == "__main__":
    for number, seed in enumerate(seeds()):
        (Path(sys.argv[1]) / f"{number}").write_bytes(seed)
    globalLogPublisher.addObserver(_observe)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
