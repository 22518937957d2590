"""A small S3 server that lies when it is told to.

It keeps objects in memory, and knows the calls that pushes make. It checks digests, but
no signatures. A test tells it how to lie: the first call of some kind, or each one,
gets an error, half an answer, or none; before or after it had its effect.

``python -m filebucket.test.kit.lying_s3 PORT`` runs it, honest, on this machine.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from base64 import b64encode
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.objects import S3
from filebucket.store.s3.answers import parse
from filebucket.store.s3.calls import Calls, Limits
from filebucket.store.s3.client import Objects
from filebucket.store.s3.credentials import Credentials
from filebucket.test.kit.cable import Socket

T = TypeVar("T")

SECRETS = ("ACCESS-KEY", "SECRET-KEY", "SESSION-TOKEN", "SECRET-MESSAGE")
"""What must be in no error and no log line."""

LIMITS = Limits(
    calls=2, turn=5, connect=3, window=10, least=1000, answer=20, complete=60, idle=8
)


@frozen
class Asked:
    """A call that came.

    :param kind: ``put``, ``put-new``, ``get``, ``head``, ``begin``, ``part``,
        ``complete``, ``abandon``, ``list`` or ``versioning``
    :param key: with the S3 bucket
    """

    kind: str
    key: str
    method: str
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)


@frozen
class Answer:
    """An answer to a call."""

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = field(factory=dict)

    def bytes_of(self, method: str) -> bytes:
        """As it is sent."""
        headers = {"Content-Length": str(len(self.content)), **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {self.status} Lie\r\n{lines}\r\n".encode()
        return head if method == "HEAD" else head + self.content


def error(status: int, code: str) -> Answer:
    """An error of S3."""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        "<Message>SECRET-MESSAGE</Message></Error>"
    )
    return Answer(status, text.encode())


Do: TypeAlias = Callable[[], Answer]
"""Does what was asked, and returns the honest answer."""


class Lie:
    """How to answer a call. This one is the truth."""

    def begun(self, connection: _Connection, asked: Asked) -> bool:
        """The headers are here.

        :returns: whether that was all that happens to this call
        """
        return False

    def answer(self, connection: _Connection, asked: Asked, do: Do) -> None:
        """The whole request is here."""
        connection.say(do().bytes_of(asked.method))


@frozen
class Says(Lie):
    """Gives this answer.

    :param does: whether it did what was asked
    """

    what: Answer
    does: bool = False

    def answer(self, connection: _Connection, asked: Asked, do: Do) -> None:
        if self.does:
            do()
        connection.say(self.what.bytes_of(asked.method))


@frozen
class Hangs(Lie):
    """Never answers."""

    does: bool = False

    def answer(self, connection: _Connection, asked: Asked, do: Do) -> None:
        if self.does:
            do()


@frozen
class Cuts(Lie):
    """Closes the connection.

    :param after: share of the answer that it sends before
    """

    does: bool = False
    after: float = 0

    def answer(self, connection: _Connection, asked: Asked, do: Do) -> None:
        answer = do() if self.does else Answer(200)
        text = answer.bytes_of(asked.method)
        connection.say(text[: int(len(text) * self.after)])
        connection.transport.loseConnection()


@frozen
class Sends(Lie):
    """Sends these bytes, and closes the connection if told to."""

    what: bytes
    closes: bool = False

    def answer(self, connection: _Connection, asked: Asked, do: Do) -> None:
        connection.say(self.what)
        if self.closes:
            connection.transport.loseConnection()


@frozen
class Changes(Lie):
    """Does what was asked, and changes the answer."""

    change: Callable[[Answer], Answer]

    def answer(self, connection: _Connection, asked: Asked, do: Do) -> None:
        connection.say(self.change(do()).bytes_of(asked.method))


@frozen
class Early(Lie):
    """Answers before the body, and does not read it.

    :param closes: whether it closes the connection then
    """

    what: Answer
    closes: bool = False

    def begun(self, connection: _Connection, asked: Asked) -> bool:
        connection.say(self.what.bytes_of(asked.method))
        connection.transport.pauseProducing()
        if self.closes:
            connection.transport.loseConnection()
        return True


class Stalls(Lie):
    """Reads nothing of the body until it is told to go on."""

    def begun(self, connection: _Connection, asked: Asked) -> bool:
        connection.transport.pauseProducing()
        return False


class NoConditions(Lie):
    """Ignores ``If-None-Match``."""

    def answer(self, connection: _Connection, asked: Asked, do: Do) -> None:
        connection.server.heeds = False
        connection.say(do().bytes_of(asked.method))
        connection.server.heeds = True


@define
class _Rule:
    lie: Lie
    kind: str
    skip: int
    left: int


class LyingS3(Factory):
    """The server.

    :ivar objects: contents by ``bucket/key``
    :ivar uploads: parts of multipart uploads, by id and number
    :ivar asked: all calls, in order
    :ivar bodies: their bodies, as far as they came
    :ivar heeds: whether it heeds conditions
    """

    noisy = False

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.asked: list[Asked] = []
        self.connections: list[_Connection] = []
        self.heeds = True
        self._rules: list[_Rule] = []

    def lie(self, lie: Lie, kind: str = "", skip: int = 0, times: int = 1) -> None:
        """Lie to calls of some kind.

        :param kind: as in :class:`Asked`; empty for any
        :param skip: how many such calls get the truth before
        :param times: to how many
        """
        self._rules.append(_Rule(lie, kind, skip, times))

    def kinds(self) -> list[str]:
        """Of the calls that came."""
        return [each.kind for each in self.asked]

    def buildProtocol(self, addr: object = None) -> _Connection:
        connection = _Connection(self)
        self.connections.append(connection)
        return connection

    def begun(self, asked: Asked) -> Lie:
        """A call has come. Returns how to answer it."""
        self.asked.append(asked)
        for each in self._rules:
            if each.kind in {"", asked.kind} and each.left:
                if each.skip:
                    each.skip -= 1
                    continue
                each.left -= 1
                return each.lie
        return Lie()

    def do(self, asked: Asked, body: bytes) -> Answer:
        """Do what is asked."""
        if "authorization" not in asked.headers:
            return error(403, "AccessDenied")
        digest = hashlib.sha256(body)
        if asked.headers.get("x-amz-content-sha256") != digest.hexdigest():
            return error(400, "XAmzContentSHA256Mismatch")
        checksum = asked.headers.get("x-amz-checksum-sha256")
        if checksum not in {None, b64encode(digest.digest()).decode()}:
            return error(400, "BadDigest")
        does: Callable[[Asked, bytes], Answer] = getattr(
            self, f"_do_{asked.kind.replace('-', '_')}"
        )
        return does(asked, body)

    def _do_put(self, asked: Asked, body: bytes) -> Answer:
        self.objects[asked.key] = body
        return _stored(body)

    def _do_put_new(self, asked: Asked, body: bytes) -> Answer:
        if self.heeds and asked.key in self.objects:
            return error(412, "PreconditionFailed")
        return self._do_put(asked, body)

    def _do_get(self, asked: Asked, _: bytes) -> Answer:
        if asked.key not in self.objects:
            return error(404, "NoSuchKey")
        return Answer(200, self.objects[asked.key])

    _do_head = _do_get

    def _do_begin(self, asked: Asked, _: bytes) -> Answer:
        upload = secrets.token_hex(8) + "~/+&="
        self.uploads[upload] = {}
        return _xml("InitiateMultipartUploadResult", UploadId=upload)

    def _do_part(self, asked: Asked, body: bytes) -> Answer:
        parts = self.uploads.get(asked.query["uploadId"])
        if parts is None:
            return error(404, "NoSuchUpload")
        parts[int(asked.query["partNumber"])] = body
        return _stored(body)

    def _do_complete(self, asked: Asked, body: bytes) -> Answer:
        parts = self.uploads.get(asked.query["uploadId"])
        if parts is None:
            return error(404, "NoSuchUpload")
        leaves = [text for _, text in parse(body)[1]]
        sent = zip(leaves[::3], leaves[1::3], leaves[2::3], strict=True)
        kept = [
            (str(number), _etag(part), _base64(part))
            for number, part in sorted(parts.items())
        ]
        if list(sent) != kept:
            return error(400, "InvalidPart")
        del self.uploads[asked.query["uploadId"]]
        self.objects[asked.key] = b"".join(part for _, part in sorted(parts.items()))
        digests = b"".join(
            hashlib.sha256(part).digest() for _, part in sorted(parts.items())
        )
        return _xml(
            "CompleteMultipartUploadResult",
            ChecksumSHA256=f"{_base64(digests)}-{len(parts)}",
            ETag='"etag-2"',
        )

    def _do_abandon(self, asked: Asked, _: bytes) -> Answer:
        if self.uploads.pop(asked.query["uploadId"], None) is None:
            return error(404, "NoSuchUpload")
        return Answer(204)

    def _do_versioning(self, asked: Asked, _: bytes) -> Answer:
        return _xml("VersioningConfiguration")

    def _do_list(self, asked: Asked, _: bytes) -> Answer:
        start = asked.key + "/" + asked.query["prefix"]
        most = int(asked.query.get("max-keys", "1000"))
        keys = sorted(key for key in self.objects if key.startswith(start))
        rest = [key for key in keys if key > asked.query.get("continuation-token", "")]
        page = rest[:most]
        more = len(rest) > most
        last = page[-1] if page else ""
        listed = "".join(
            f"<Contents><Key>{escape(key.removeprefix(asked.key + '/'))}</Key>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"
        text = (
            "<ListBucketResult><IsTruncated>"
            f"{'true' if more else 'false'}</IsTruncated>{listed}"
            f"{token if more else ''}</ListBucketResult>"
        )
        return Answer(200, text.encode())


def _xml(root: str, **leaves: str) -> Answer:
    text = "".join(f"<{name}>{escape(each)}</{name}>" for name, each in leaves.items())
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return Answer(200, f'<{root} xmlns="{space}">{text}</{root}>'.encode())


def _base64(content: bytes) -> str:
    return b64encode(hashlib.sha256(content).digest()).decode()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _stored(content: bytes) -> Answer:
    headers = {"ETag": _etag(content), "x-amz-checksum-sha256": _base64(content)}
    return Answer(200, b"", headers)


class _Connection(Protocol):
    """One connection, with one request after the other.

    :ivar body: the body of the current request, as far as it came
    """

    transport: Any

    def __init__(self, server: LyingS3) -> None:
        self.server = server
        self.body = bytearray()
        self._head = bytearray()
        self._asked: Asked | None = None
        self._lie = Lie()
        self._over = False

    def say(self, data: bytes) -> None:
        """Send these bytes."""
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        if self._asked is None:
            self._head += data
            head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
            if not end:
                return
            self._head.clear()
            self._asked = _asked(head.decode("ascii"))
            self._lie = self.server.begun(self._asked)
            if self._lie.begun(self, self._asked):
                self._over = True
                return
            data = rest
        self.body += data
        asked = self._asked
        if len(self.body) == int(asked.headers.get("content-length", "0")):
            body = bytes(self.body)
            self.body.clear()
            self._asked = None
            self._lie.answer(self, asked, lambda: self.server.do(asked, body))


def _asked(head: str) -> Asked:
    line, *lines = head.split("\r\n")
    method, uri, _ = line.split(" ")
    pairs = (each.partition(": ") for each in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    key = unquote(parts.path).removeprefix("/")
    return Asked(_kind(method, headers, query), key, method, headers, query)


def _kind(method: str, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    if "uploads" in query:
        return "begin"
    if "list-type" in query:
        return "list"
    if "versioning" in query:
        return "versioning"
    if "uploadId" in query:
        return {"PUT": "part", "POST": "complete", "DELETE": "abandon"}[method]
    kind = method.lower()
    return "put-new" if kind == "put" and "if-none-match" in headers else kind


class LyingCase(SynchronousTestCase):
    """Has two endpoints of one lying server, and a client of them.

    :ivar places: the endpoints ``http://one`` and ``http://two``
    :ivar objects: the S3 bucket ``bucket``
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = LyingS3()
        self.places = {
            f"http://{name}:{number}": Socket(self.server.buildProtocol)
            for number, name in enumerate(("one", "two"), 1)
        }
        self.one, self.two = self.places.values()
        self.credentials = Credentials(*SECRETS[:3])
        s3 = S3(tuple(self.places), "bucket", "bucket")
        self.calls = Calls(
            self.clock, s3, lambda: self.credentials, LIMITS, self.places.__getitem__
        )
        self.objects = Objects(self.calls, "bucket")
        self.addCleanup(self.check_end)

    def check_end(self) -> None:
        """No connection and no timer may stay, and Twisted must log nothing."""
        closing = Deferred.fromCoroutine(self.calls.close())
        self.move()
        self.successResultOf(closing)
        self.assertEqual(0, self.one.open + self.two.open)
        self.assertEqual([], self.clock.getDelayedCalls())
        # Debian's botocore is older than its Python.
        warnings = [str(each["message"]) for each in self.flushWarnings()]
        self.assertEqual([], [each for each in warnings if "utcnow()" not in each])

    def begin(self, call: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Begin a call, and let happen what can."""
        result = Deferred.fromCoroutine(call)
        self.move()
        return result

    def move(self) -> None:
        """Let happen what can."""
        self.one.move()
        self.two.move()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)
        self.move()

    def result(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of a call that takes no time."""
        return self.successResultOf(self.begin(call))

    def error(self, call: Coroutine[Any, Any, Any], kind: type[Exception]) -> str:
        """The message of the error of such a call."""
        return self.error_of(self.begin(call), kind)

    def error_of(self, result: Deferred[Any], kind: type[Exception]) -> str:
        """The message of the error that a call has failed with."""
        failure = self.failureResultOf(result)
        self.assertIs(kind, failure.type, failure.getErrorMessage())
        for secret in (*SECRETS, "Signature="):
            self.assertNotIn(secret, failure.getTraceback(detail="verbose"))
        return str(failure.value)


def main() -> None:
    """Run it until it is ended."""
    from twisted.internet import reactor  # noqa: PLC0415 - only as a program

    listening: Any = reactor
    listening.listenTCP(int(sys.argv[1]), LyingS3(), interface="127.0.0.1")
    listening.run()


if __name__ == "__main__":
    main()
