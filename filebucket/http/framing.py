"""What the framing of a request may not have, and what its target means.

Where two readers of one request might see its end in two places, a request can be
hidden in another one. So what could be read in two ways is refused, also where
Twisted, or the RFC, would let it pass: each line of the head, the headers that frame
the body or name the host, and the chunks of a body.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError
from twisted.web.http_headers import Headers

MOST_CHUNK = 2**63 - 1
"""Bytes of a chunk: more make other readers' integers overflow (RFC 9112, 7.1)."""

# Lines of the head, as they come before their LF: with the CR that must be there (RFC
# 9112, 2.2), and without control characters. The request line is ASCII (RFC 9112,
# 3); a header is not continued on a next line (RFC 9112, 5.2).
REQUEST_LINE = re.compile(rb"[\x20-\x7e]*\r")
HEADER_LINE = re.compile(rb"([\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*)?\r")

# RFC 9110, 5.1 and 5.5.
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
# RFC 3986, 3.2.2 and 3.2.3.
_HOST = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(:[0-9]*)?")
_ORIGIN = re.compile(rb"^https?://[^/]*", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Chunks(_ChunkedTransferDecoder):
    """Takes a chunked body apart; as Twisted does, but stricter (RFC 9112, 7.1)."""

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        known = super()._dataReceived_CHUNK_LENGTH()
        if known and self.length > MOST_CHUNK:
            raise _MalformedChunkedDataError("a chunk of more bytes than there are")
        return known

    def _dataReceived_TRAILER(self) -> bool:
        more = super()._dataReceived_TRAILER()
        # Nobody wants them, and a tiny one takes much more memory than bytes.
        for line in self._trailerHeaders:
            if not _FIELD_LINE.fullmatch(line):
                raise _MalformedChunkedDataError("a trailer that is no header")
        self._trailerHeaders.clear()
        return more


def fault(headers: Headers, version: bytes) -> str | None:
    """What is wrong with the headers that Twisted does not mind, if anything."""
    coding = headers.getRawHeaders(b"Transfer-Encoding", [])
    if coding and [each.lower() for each in coding] != [b"chunked"]:
        # Twisted takes "identity" for no body at all.
        return "a Transfer-Encoding other than chunked"
    if coding and version != b"HTTP/1.1":
        return "a Transfer-Encoding in HTTP/1.0"  # RFC 9112, 6.1
    hosts = headers.getRawHeaders(b"Host", [])
    if len(hosts) > 1 or (not hosts and version == b"HTTP/1.1"):
        return "not one Host header"  # RFC 9112, 3.2
    if not all(map(_HOST.fullmatch, hosts)):
        return "malformed Host"  # the same
    return None


def segments(path: bytes) -> tuple[list[bytes], str | None]:
    """The path's components, percent-decoded once (RFC 3986, 2.4), and what is
    wrong with it.
    """
    if path == b"*":
        return [b""], None
    # The absolute form, as proxies send it (RFC 9112, 3.2.2).
    path = _ORIGIN.sub(b"", path, count=1) or b"/"
    if not path.startswith(b"/"):
        return [b""], "the request's target is not a path"
    wrong = None
    if _BAD_ESCAPE.search(path):
        wrong = "the path has a '%' that is not an escape"
    return [unquote_to_bytes(segment) for segment in path[1:].split(b"/")], wrong
