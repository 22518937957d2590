"""Reject ambiguous framing of requests, and parse their targets.

If two programs may see the end of a request in different places, a second request can
be smuggled in it. So everything that can be read in two ways is refused, even if
Twisted or the RFC would allow it: in each line of the head, in the headers that frame
the body or name the host, and in the chunks of a body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote_to_bytes

from attrs import frozen
from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError
from twisted.web.http_headers import Headers

CHUNKS_AT_ONCE = 50
"""Chunks of a connection that are decoded in one turn of the reactor, which takes half
a millisecond: one read may contain a thousand times as many."""

MOST_CHUNK = 2**63 - 1
"""Bytes of a chunk: a larger size overflows integers of other programs (RFC 9112,
7.1)."""

# Lines of the head before their LF, with the CR that is required (RFC 9112, 2.2) and
# without control characters. The request line is ASCII (RFC 9112, 3); a header must not
# be folded (RFC 9112, 5.2).
REQUEST_LINE = re.compile(rb"[\x20-\x7e]*\r")
HEADER_LINE = re.compile(rb"([\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*)?\r")

# RFC 9110, 5.1 and 5.5.
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
# RFC 3986, 3.2.2 and 3.2.3.
_HOST = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(:[0-9]*)?")
ORIGIN = re.compile(rb"^https?://[^/]*", re.IGNORECASE)
"""The beginning of a target in the absolute form (RFC 9112, 3.2.2)."""

# The end of a chunk and the size of the next one, which is not the last.
_NEXT_CHUNK = re.compile(rb"\r\n(0{0,8}[1-9A-Fa-f][0-9A-Fa-f]{0,14})\r\n")

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


_USUAL_HEAD = re.compile(
    rb"([A-Z]+) (/[\x21-\x7e]*) (HTTP/1\.1)\r\n"
    rb"((?:(?!(?i:transfer-encoding|expect):)[!#$%&'*+.^_`|~0-9A-Za-z-]++"
    rb":[\t\x20-\x7e\x80-\xff]*+\r\n){1,50}+)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
MOST_USUAL = 4 * 1024
"""Bytes of a usual head: far from every limit of a head."""


@frozen
class Head:
    """The head of a request.

    :param line: method, target and version
    :param length: bytes of the body
    :param size: bytes of the head
    """

    line: tuple[bytes, bytes, bytes]
    headers: Headers
    length: int
    size: int


def usual_head(data: bytes) -> Head | None:
    """The head at the beginning of the data, if it is complete and as usual: in it
    everything is well-formed, and framing is by one Content-Length. None for any other
    one, which may be well-formed, too.
    """
    found = _USUAL_HEAD.match(data, 0, MOST_USUAL)
    if found is None:
        return None
    method, target, version, fields = found.groups()
    headers = Headers()
    for field in fields.split(b"\r\n")[:-1]:
        name, _, value = field.partition(b":")
        headers.addRawHeader(name, value.strip(b" \t"))
    lengths = headers.getRawHeaders(b"Content-Length", ())
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        return None
    line = method, target, version
    return Head(line, headers, int(lengths[0]), found.end())


class Chunks(_ChunkedTransferDecoder):
    """Decodes a chunked body like Twisted, but more strictly (RFC 9112, 7.1), with a
    limit on the chunks decoded at once, and joins the data that arrived at once.
    """

    def __init__(
        self,
        data: Callable[[bytes], object],
        finish: Callable[[bytes], object],
        pause: Callable[[], object],
        wanted: frozenset[bytes] = frozenset(),
    ) -> None:
        """
        :param data: takes the body's bytes
        :param finish: takes the bytes after the body
        :param pause: called if more chunks have arrived than are decoded at once; to
            continue, call ``dataReceived`` with no bytes in another turn of the reactor
        :param wanted: the trailers that are kept, in lower case
        """
        super().__init__(self._gather, self._finish)
        self._data = data
        self._finished = finish
        self._pause = pause
        self._wanted = wanted
        self.trailers = Headers()
        self._gathered: list[bytes | memoryview] = []
        self._left = 0

    def dataReceived(self, data: bytes) -> None:
        self._left = CHUNKS_AT_ONCE
        try:
            super().dataReceived(data[self._skim(data) :])
        finally:
            self._flush()

    def _skim(self, data: bytes) -> int:
        """Decode usual chunks without Twisted, which copies their data twice and takes
        20 µs for each.

        :returns: number of bytes up to something else
        """
        view, at = memoryview(data), 0
        while at < len(data) and not self._buffer:
            if self.state == "BODY":
                piece = view[at : at + self.length]
                at += len(piece)
                self.length -= len(piece)
                self._gathered.append(data if len(piece) == len(data) else piece)
                if not self.length:
                    self.state = "CRLF"
                continue
            found = _NEXT_CHUNK.match(data, at) if self.state == "CRLF" else None
            if found is None or not self._left:
                break
            self._left -= 1
            self.length, self.state, at = int(found[1], 16), "BODY", found.end()
        return at

    def _gather(self, data: bytes) -> None:
        self._gathered.append(data)

    def _finish(self, rest: bytes) -> None:
        self._flush()
        self._finished(rest)

    def _flush(self) -> None:
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._data(b"".join(gathered))

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        if not self._left:
            self._pause()
            return False
        self._left -= 1
        known = super()._dataReceived_CHUNK_LENGTH()
        if known and self.length > MOST_CHUNK:
            raise _MalformedChunkedDataError("too large a chunk")
        return known

    def _dataReceived_TRAILER(self) -> bool:
        more = super()._dataReceived_TRAILER()
        # Keep only these: a tiny trailer takes much more memory than its bytes.
        for line in self._trailerHeaders:
            if not _FIELD_LINE.fullmatch(line):
                raise _MalformedChunkedDataError("a malformed trailer")
            name, _, value = bytes(line).partition(b":")
            if name.lower() in self._wanted:
                self.trailers.addRawHeader(name, value.strip(b" \t"))
        self._trailerHeaders.clear()
        return more


def members(values: Sequence[str]) -> list[str]:
    """The members of a list in lower case. A header may have several members, some of
    them empty (RFC 9110, 5.6.1.2).
    """
    if not values:
        return []
    found = (each.strip(" \t").lower() for each in ",".join(values).split(","))
    return [each for each in found if each]


def fault(headers: Headers, version: bytes) -> str | None:
    """An error in the headers that Twisted ignores, or None."""
    coding = headers.getRawHeaders(b"Transfer-Encoding", [])
    if coding and [each.lower() for each in coding] != [b"chunked"]:
        # Twisted treats "identity" as no body at all.
        return "unsupported Transfer-Encoding; only chunked is supported"
    if coding and version != b"HTTP/1.1":
        return "Transfer-Encoding is not allowed in HTTP/1.0"  # RFC 9112, 6.1
    hosts = headers.getRawHeaders(b"Host", [])
    if len(hosts) > 1 or (not hosts and version == b"HTTP/1.1"):
        return "exactly one Host header required"  # RFC 9112, 3.2
    if not all(map(_HOST.fullmatch, hosts)):
        return "malformed Host"  # RFC 9112, 3.2
    return None


def segments(path: bytes) -> tuple[list[bytes], str | None]:
    """The path's components, percent-decoded once (RFC 3986, 2.4), and an error or
    None.
    """
    if path == b"*":
        return [b""], None
    if not path.startswith(b"/"):
        # The absolute form, which proxies send (RFC 9112, 3.2.2).
        path = ORIGIN.sub(b"", path, count=1) or b"/"
    if not path.startswith(b"/"):
        return [b""], "the request target is not a path"
    if b"%" not in path:
        return path[1:].split(b"/"), None
    wrong = None
    if _BAD_ESCAPE.search(path):
        wrong = "the path has a '%' that is not an escape"
    return [unquote_to_bytes(segment) for segment in path[1:].split(b"/")], wrong
