"""One S3 bucket, for commands and threads, to read objects.

The daemon's pushes do not use it (:mod:`filebucket.store.s3.client`). Its calls wait.
They are repeated a few times, at the next endpoint.
"""

from __future__ import annotations

import hashlib
import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

from attrs import frozen
from zope.interface import Attribute, Interface, implementer

from filebucket.base.errors import OperatorError
from filebucket.base.text import printable
from filebucket.model.objects import S3
from filebucket.store.s3.answers import code_of, error_of, parse
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import ObjectError, UnsureError
from filebucket.store.s3.signing import Signer

T = TypeVar("T")

CONNECT = 10.0
"""Seconds to connect, with TLS."""

QUIET = 30.0
"""Seconds without a byte after which a call has failed. An engine that repairs itself
may need some."""

WHOLE = 60.0
"""Seconds in which an answer that is kept in memory must be whole."""

PAUSES = (0.2, 1.0, 5.0)
"""Seconds to wait before a call that only reads is made again."""

AGAIN = 45.0
"""Seconds after which it is not made again: a store that hangs takes long each time."""

IDLE = 8
"""Connections that are kept for the next calls."""

MOST_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer that is kept in memory. A list of 1000 keys has 2 MB."""

PAGE = 1000
"""Keys in a page of a list, S3's limit."""


@frozen
class Listed:
    """An object in a list.

    :param size: in bytes
    :param modified: by the store's clock, in seconds since the epoch
    :param etag: as the store tells it
    """

    key: str
    size: int
    modified: float
    etag: str

    @property
    def is_multipart(self) -> bool:
        """Whether it was made of parts, as far as the etag shows."""
        return "-" in self.etag


@frozen
class Page:
    """A part of a list.

    :param objects: in the order of their keys
    :param after: what to pass for the next page; None if this is the last one
    :param at: the time of the answer, by the store's clock, in seconds since the epoch
    """

    objects: Sequence[Listed]
    after: str | None
    at: float


class IReading(Interface):
    """An object that is being read."""

    size: int = Attribute("of the whole object, in bytes")

    def read(most: int) -> bytes:
        """The next bytes, at least one; none at the end.

        :raises ObjectError: the store cannot be read now
        """

    def close() -> None:
        """End it."""


class IBlocking(Interface):
    """One S3 bucket. Its calls wait, within bounds, and can be made in threads.

    Each call may raise :class:`ObjectError`, and :class:`NotThereError` if there is no
    such object. An error of another kind does not mean that the object is not there.
    """

    place: str = Attribute("the bucket, for messages")

    def get(key: str, most: int) -> bytes:
        """The content of a small object.

        :param most: bytes; a larger one is :class:`UnsureError`
        """

    def modified(key: str) -> float:
        """When a small object was put, by the store's clock, in seconds since the
        epoch. No client can choose that.
        """

    def open(key: str, offset: int = 0) -> IReading:
        """Read an object.

        :param offset: where to begin, in bytes; less than its size, unless that is 0
        """

    def page(prefix: str, after: str = "") -> Page:
        """A page of the objects whose keys begin with ``prefix``.

        :param after: begin after this key
        """

    def versioned() -> bool:
        """Whether the bucket keeps versions, or has kept some."""

    def close() -> None:
        """Close connections that are not in use. Further calls open new ones."""


@implementer(IBlocking)
class Bucket:
    """A bucket of a real store."""

    def __init__(
        self,
        s3: S3,
        bucket: str,
        credentials: Credentials | Callable[[], Credentials],
    ) -> None:
        """
        :param bucket: its name
        :param credentials: or a function that returns those of now
        :raises OperatorError: botocore is not installed, or the certificates cannot be
            read
        """
        self.place = f"S3 bucket {bucket}"
        self._bucket = bucket
        self._credentials: Callable[[], Credentials] = (
            (lambda: credentials)
            if isinstance(credentials, Credentials)
            else credentials
        )
        self._signer = Signer(s3.region)
        self._endpoints = [
            _Endpoint(url, _tls(s3.ca) if url.startswith("https:") else None)
            for url in s3.endpoints
        ]
        self._now = 0

    def get(self, key: str, most: int) -> bytes:
        def read(answer: Answer) -> bytes:
            return answer.whole(most)

        return self._repeated(lambda: self._call("GET", key, read))

    def modified(self, key: str) -> float:
        def read(answer: Answer) -> float:
            answer.whole(MOST_ANSWER)
            return answer.time("last-modified")

        return self._repeated(lambda: self._call("GET", key, read))

    def open(self, key: str, offset: int = 0) -> _Reading:
        return _Reading(lambda at: self._repeated(lambda: self._begin(key, at)), offset)

    def page(self, prefix: str, after: str = "") -> Page:
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        if after:
            query["start-after"] = after

        def read(answer: Answer) -> Page:
            return _page(answer.whole(MOST_ANSWER), answer.time("date"))

        try:
            found = self._repeated(lambda: self._call("GET", "", read, query))
            _check_page(found, prefix, after)
            return found
        except ValueError as error:
            raise UnsureError(f"cannot list {self.place}: {error}") from None

    def versioned(self) -> bool:
        def read(answer: Answer) -> bool:
            return any(
                path == "Status" for path, _ in parse(answer.whole(MOST_ANSWER))[1]
            )

        try:
            return self._repeated(
                lambda: self._call("GET", "", read, {"versioning": ""})
            )
        except ValueError as error:
            raise UnsureError(
                f"{self.place}: cannot read its versioning: {error}"
            ) from None

    def close(self) -> None:
        for each in self._endpoints:
            each.close()

    def _begin(self, key: str, offset: int) -> tuple[Answer, int, str]:
        """Begin to read an object."""
        # At the end, there is no such range.
        headers = {"range": f"bytes={offset}-"} if offset else {}
        answer = self._send("GET", key, headers=headers)
        try:
            size = answer.size(offset)
        except BaseException:
            answer.close()
            raise
        return answer, size, answer.header("etag")

    def _call(
        self,
        method: str,
        key: str,
        read: Callable[[Answer], T],
        query: Mapping[str, str] | None = None,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Make a call whose answer is short, once, unless it was not sent."""
        answer = self._send(method, key, query, content, headers)
        try:
            return read(answer)
        finally:
            answer.close()

    def _repeated(self, call: Callable[[], T]) -> T:
        """Make a call that only reads, again if that may help."""
        end = time.monotonic() + AGAIN
        for pause in PAUSES:
            try:
                return call()
            except UnsureError:
                self._now += 1
                if time.monotonic() >= end:
                    raise
                time.sleep(pause)
        return call()

    def _send(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, and begin to read its answer.

        An endpoint that cannot be reached gets no request, so the next one is tried.
        """
        path = f"/{self._bucket}/{quote(key)}" if key else f"/{self._bucket}"
        if query:
            path += "?" + urlencode(sorted(query.items()), quote_via=quote)
        digest = hashlib.sha256(content).digest()
        problem = None
        for turn in range(len(self._endpoints)):
            number = (self._now + turn) % len(self._endpoints)
            endpoint = self._endpoints[number]
            try:
                connection = endpoint.take()
            except OSError as error:
                problem = problem or UnsureError(
                    f"{endpoint.place} cannot be reached: {_reason(error)}"
                )
                continue
            self._now = number
            signed = self._signer.sign(
                self._credentials(),
                method,
                endpoint.url + path,
                headers or {},
                digest,
            )
            return endpoint.send(connection, method, path, content, signed)
        assert problem is not None
        raise problem


class _Endpoint:
    """A gateway of the store, and connections to it."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self.place = printable(parts.netloc)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._tls = tls
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def take(self) -> http.client.HTTPConnection:
        """A connection that is open.

        :raises OSError: the gateway cannot be reached
        """
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if _is_open(connection):
                return connection
            connection.close()
        return connect(self._host, self._port, self._tls)

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for another request."""
        with self._lock:
            if len(self._idle) < IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        content: bytes,
        headers: Mapping[str, str],
    ) -> Answer:
        try:
            connection.request(method, path, content or None, dict(headers))
            _hurry(connection)
            answer = Answer(self, connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise UnsureError(f"{self.place}: {_reason(error)}") from None
        except BaseException:
            connection.close()
            raise
        try:
            answer.check(method)
        except BaseException:
            answer.close()
            raise
        return answer


class Answer:
    """An answer that is being read."""

    def __init__(
        self,
        endpoint: _Endpoint,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
    ) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._response = response
        self._end = time.monotonic() + WHOLE

    def check(self, method: str) -> None:
        """:raises ObjectError: it is an error"""
        status = self._response.status
        if status in {200, 204, 206}:
            return
        code = code_of(self.whole(MOST_ANSWER))
        if status == 404 and not code and method != "HEAD":
            # From a proxy, not from the store: it does not mean that nothing is there.
            raise UnsureError(f"{self._endpoint.place} answered 404 without a reason")
        raise error_of(self._endpoint.place, status, code)

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    def time(self, header: str) -> float:
        """A time in a header, by the store's clock, in seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.header(header)).timestamp()
        except ValueError:
            raise UnsureError(
                f"{self._endpoint.place}: the answer has no valid time"
            ) from None

    def size(self, offset: int) -> int:
        """The size of the object that begins here."""
        length, expected = self._response.length, 206 if offset else 200
        if length is None or self._response.status != expected:
            raise UnsureError(
                f"{self._endpoint.place}: the answer has no length, or another range"
                " than was asked for"
            )
        return offset + length

    def read(self, most: int) -> bytes:
        """The next bytes; none at the end, which may be too early."""
        try:
            piece = self._response.read(most)
            _hurry(self._connection)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnsureError(f"{self._endpoint.place}: {_reason(error)}") from None
        return piece

    def whole(self, most: int) -> bytes:
        """All of it."""
        found = bytearray()
        while piece := self.read(min(most + 1, 64 * 1024)):
            found += piece
            if len(found) > most:
                raise UnsureError(f"{self._endpoint.place}: the answer is too large")
            if time.monotonic() > self._end:
                raise UnsureError(f"{self._endpoint.place}: the answer takes too long")
        if self._response.length:
            raise UnsureError(f"{self._endpoint.place}: the answer is cut off")
        return bytes(found)

    @staticmethod
    def nothing(answer: Answer) -> None:
        """What such an answer is for is done."""
        answer.whole(MOST_ANSWER)

    def close(self) -> None:
        """Give the connection back, if it can be used again."""
        is_whole = self._response.isclosed() and not self._response.length
        if is_whole and self._connection.sock is not None:
            self._endpoint.give_back(self._connection)
        else:
            self._response.close()
            self._connection.close()


def connect(
    host: str, port: int | None, tls: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    """A new connection.

    :param port: None is the usual one
    :param tls: None is without TLS
    :raises OSError: there is none
    """
    if tls is None:
        connection = http.client.HTTPConnection(host, port, CONNECT)
    else:
        connection = http.client.HTTPSConnection(
            host, port, timeout=CONNECT, context=tls
        )
    try:
        connection.connect()
        connection.sock.settimeout(QUIET)
    except BaseException:
        connection.close()
        raise
    return connection


@implementer(IReading)
class _Reading:
    """An object that is being read: again from where an answer ended too early."""

    def __init__(
        self, begin: Callable[[int], tuple[Answer, int, str]], offset: int
    ) -> None:
        """
        :param begin: begins at an offset
        """
        self._begin = begin
        self._at = offset
        self._answer: Answer | None
        self._answer, self.size, self._etag = begin(offset)
        # Pauses that are left until there is a byte.
        self._pauses = list(PAUSES)

    def read(self, most: int) -> bytes:
        if self._at >= self.size:
            return b""
        while True:
            try:
                if self._answer is None:
                    self._again()
                assert self._answer is not None
                piece = self._answer.read(min(most, self.size - self._at))
                if piece:
                    break
                raise UnsureError("the store ended its answer too early")
            except UnsureError:
                self.close()
                if not self._pauses:
                    raise
                time.sleep(self._pauses.pop(0))
        self._pauses = list(PAUSES)
        self._at += len(piece)
        return piece

    def _again(self) -> None:
        self._answer, size, etag = self._begin(self._at)
        if (size, etag) != (self.size, self._etag):
            self.close()
            raise ObjectError("the object changed while it was read")

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Whether the gateway has not closed a connection that is not in use."""
    try:
        return not select.select([connection.sock], [], [], 0)[0]
    except (OSError, ValueError):
        return False


def _hurry(connection: http.client.HTTPConnection) -> None:
    """Acknowledge what comes at once. An answer is often in two packets, and a gateway
    that uses Nagle's algorithm, as Ceph's does, sends the second one only when the
    first is acknowledged: 40 ms later.
    """
    with suppress(OSError, AttributeError):
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, http.client.HTTPException):
        return "the connection was closed or is broken"
    text = getattr(error, "strerror", None) or type(error).__name__
    return printable(text)


def _tls(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "no certificates"
        raise OperatorError(f"{ca}: {reason}") from None


def _check_page(page: Page, prefix: str, after: str) -> None:
    """
    :raises ValueError: it is not the page that was asked for, so the list may not end
    """
    if not all(each.key.startswith(prefix) for each in page.objects):
        raise ValueError("the list has keys that were not asked for")
    # Of a list in another order, too: each page must go on.
    if page.after is not None and page.after <= after:
        raise ValueError(
            "the list does not end: a page does not continue after the last one"
        )


_LISTED = frozenset({"Key", "Size", "LastModified", "ETag"})


def _page(content: bytes, at: float) -> Page:
    """
    :raises ValueError: it is not a list
    """
    root, leaves = parse(content)
    if root != "ListBucketResult":
        raise ValueError("the answer is not a list")
    encoded = ("EncodingType", "url") in leaves
    rows: list[dict[str, str]] = []
    truncated = False

    def text(value: str) -> str:
        # Some encode a space as a plus, and all a plus as %2B.
        return unquote(value.replace("+", " "), errors="strict") if encoded else value

    for path, value in leaves:
        if path == "IsTruncated":
            truncated = value == "true"
        elif path.startswith("Contents/"):
            name = path.removeprefix("Contents/")
            if name in _LISTED:
                if not rows or name in rows[-1]:
                    rows.append({})
                rows[-1][name] = value
    try:
        objects = [
            Listed(
                text(row["Key"]),
                int(row["Size"]),
                datetime.fromisoformat(row["LastModified"]).timestamp(),
                row.get("ETag", ""),
            )
            for row in rows
        ]
    except KeyError:
        raise ValueError(
            "the list has an object without a key, a size or a time"
        ) from None
    after = None
    if truncated:
        if not objects:
            raise ValueError("the list has an empty page that is not the last one")
        after = objects[-1].key
    return Page(objects, after, at)
