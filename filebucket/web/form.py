"""The ``file`` part of a multipart/form-data body, as a stream.

``multipart``'s push parser finds the parts and their headers. This module feeds it the
body as it arrives, skips other parts up to a limit, and returns the ``file`` part as a
name and a stream of chunks. The parser does not see the content of that part, which
:class:`_Content` finds faster. The stream ends only after the whole form was read: so a
second ``file``, or a missing final boundary, is found before anything is published.

Only forms of RFC 7578 are supported: no nesting, no transfer encodings.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from filebucket.base.errors import Refusal
from filebucket.model import names
from filebucket.web import digests

FIELD = "file"
"""The name of the field that holds the file."""

MOST_PARTS = 16
MOST_PART_HEADERS = 8 * 1024
"""Limit for the headers of one part, in bytes."""
MOST_CUTS = 64
"""Number of empty lines before the file at which a form is cut to find out where the
file begins. After more, the size is unknown until the end: each cut costs as much as a
read."""
MOST_SKIPPED = 1024 * 1024
"""Limit for all other fields together, in bytes."""
MOST_OVERHEAD = MOST_SKIPPED + MOST_PARTS * (MOST_PART_HEADERS + 100)
"""Largest size of a form without its file, in bytes."""

_EMPTY_LINE = b"\r\n\r\n"
_EXTRA_BYTES = "malformed form: extra bytes on a boundary line"
_MOST_BOUNDARY = 70  # RFC 2046, 5.1.1

Batches: TypeAlias = AsyncIterator[Sequence[bytes]]
# A MultipartSegment, bytes of its content, or None at its end.
_Event: TypeAlias = Any


class FormFile:
    """The file of a form; :func:`find_file` makes it.

    Iterate over its chunks once, to the end.

    :ivar name: file name, unchecked
    :ivar size: size in bytes if no other part follows, which is certain only at the end
        of the form; -1 if a part follows, or if the length of the form is unknown
    """

    def __init__(self, name: str, size: int, events: list[_Event], form: _Form) -> None:
        self.name = name
        self.size = size
        self._events = events
        self._form = form

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Batches of the file's bytes.

        :raises Refusal: the form is malformed, or ends early
        """
        in_file = True
        size = 0
        events = self._events
        while True:
            batch: list[bytes] = []
            for event in events:
                if event is None:
                    in_file = False
                elif isinstance(event, MultipartSegment):
                    if event.name == FIELD:
                        raise Refusal(400, f"more than one field {FIELD!r} in the form")
                elif in_file:
                    batch.append(event)
                else:
                    self._form.skip(len(event))
            size += sum(map(len, batch))
            self._form.check_overhead(size)
            if batch:
                yield batch
            more = await self._form.next_events()
            if more is None:
                return
            events = more


async def find_file(body: Batches, content_type: str, length: int | None) -> FormFile:
    """Read a form up to its file.

    :param body: the request's body
    :param content_type: value of the Content-Type header
    :param length: length of the body in bytes; None if unknown
    :raises Refusal: 412 if there is no file, 400 if the form is malformed
    """
    return await _Form(body, _boundary(content_type), length).find_file()


class _Form:
    """A form being read."""

    def __init__(self, body: Batches, boundary: str, length: int | None) -> None:
        self._body = body
        self._length = length
        # Bytes after the last part: CRLF, the final boundary, CRLF.
        self._closing = len(boundary) + 8
        self._delimiter = f"\r\n--{boundary}".encode("ascii")
        self._edge = b""
        self._content: _Content | None = None
        self._fed = 0
        self._cuts_left = MOST_CUTS
        self._skipped = 0
        # Not strict: a strict parser rejects the CRLF after the final boundary if it
        # comes in a separate chunk.
        self._parser = PushMultipartParser(
            boundary,
            max_header_size=MOST_PART_HEADERS,
            max_segment_count=MOST_PARTS,
            header_charset=_CHARSET,
        )

    async def find_file(self) -> FormFile:
        # Up to the file's headers, feed the parser in pieces that end where headers
        # end: so the number of bytes fed is the position where the file begins.
        seen = b""
        async for chunks in self._body:
            data = b"".join(chunks)
            pieces = self._cut(seen, data)
            seen = (seen + data)[-3:]
            for piece in pieces:
                events = self._feed([piece])
                for position, event in enumerate(events):
                    if isinstance(event, MultipartSegment) and event.name == FIELD:
                        _check_file(event)
                        name, size = _file_name(event), self._size_left()
                        rest = events[position + 1 :]
                        if self._cuts_left and not _has_length(event):
                            # The parser has got nothing after the headers.
                            self._content = _Content(self._delimiter)
                        more = b"".join(pieces)
                        if more:  # the parser takes an empty piece for the end
                            rest += self._feed([more])
                        if any(isinstance(each, MultipartSegment) for each in rest):
                            size = -1
                        return FormFile(name, size, rest, self)
                    if isinstance(event, bytes | bytearray):
                        self.skip(len(event))
                self.check_overhead(0)
        self._close()
        raise Refusal(412, f"no field {FIELD!r} in the form; use curl -F {FIELD}=@NAME")

    def _cut(self, before: bytes, data: bytes) -> Iterator[bytes]:
        """Cut ``data`` after empty lines, which may begin in ``before``."""
        start, both = 0, before + data
        at = both.find(_EMPTY_LINE)
        while at >= 0 and self._cuts_left:
            self._cuts_left -= 1
            end = at + len(_EMPTY_LINE) - len(before)
            yield data[start:end]
            start, at = end, both.find(_EMPTY_LINE, at + 1)
        if start < len(data):
            yield data[start:]

    def _size_left(self) -> int:
        if self._length is None or not self._cuts_left:
            return -1
        return max(self._length - self._fed - self._closing, 0)

    async def next_events(self) -> list[_Event] | None:
        """The events of the next chunks; None after the end of the form."""
        async for chunks in self._body:
            return self._feed(chunks)
        self._close()
        return None

    def skip(self, size: int) -> None:
        """Count ``size`` bytes of other fields."""
        self._skipped += size
        if self._skipped > MOST_SKIPPED:
            raise Refusal(400, f"the fields other than {FIELD!r} are too large")

    def _feed(self, chunks: Sequence[bytes]) -> list[_Event]:
        events: list[_Event] = []
        try:
            for chunk in chunks:
                self._fed += len(chunk)
                rest = chunk
                if self._content is not None:
                    events += self._content.take(chunk)
                    rest = self._content.rest
                    if not rest:
                        continue
                    self._content = None
                for event in self._parser.parse(rest):
                    if isinstance(event, MultipartSegment):
                        _check_headers(event)
                        self._edge = b"\r\n"
                    elif event is not None:
                        self._check_content(event)
                    events.append(event)
        except MultipartError as error:
            raise Refusal(400, f"malformed form: {error.args[0]}") from None
        except ValueError:
            # multipart 1.2.1 reads a number of any length; Python does not.
            raise Refusal(400, "malformed form: invalid length of a part") from None
        return events

    def _check_content(self, data: bytes) -> None:
        """Refuse content in which a line begins with the boundary (RFC 2046, 5.1.1).
        multipart 1.2.1 takes a boundary line with extra bytes for content, and may then
        miss the real boundary after it. All take one at the beginning of a part for
        content.
        """
        reach = len(self._delimiter) - 1
        edge = self._edge + data[:reach]
        if self._delimiter in edge or (_MISSES_LINES and self._delimiter in data):
            raise Refusal(400, _EXTRA_BYTES)
        self._edge = bytes(edge[-reach:] if len(data) < reach else data[-reach:])

    def check_overhead(self, size: int) -> None:
        """Check the limit for the form without its file, which has ``size`` bytes."""
        if self._fed - size > MOST_OVERHEAD:
            raise Refusal(
                400, f"too many bytes in the form besides its field {FIELD!r}"
            )

    def _close(self) -> None:
        try:
            self._parser.close()
        except MultipartError:
            raise Refusal(400, "the form has no final boundary") from None


class _Content:
    """Content up to the boundary after it.

    ``multipart`` searches with ``find``, which takes twice the time of ``rfind`` if
    there is no boundary. Version 1.2.1 also copies all content three times.

    :ivar rest: the boundary and what follows, once it has arrived
    """

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        # The line end of the headers: no boundary may follow it.
        self._held = b"\r\n"
        self._before = len(self._held)
        self.rest = b""

    def take(self, chunk: bytes) -> list[bytes]:
        """The content that is certain now.

        :raises Refusal: the content begins with a boundary
        """
        data = self._held + chunk
        end = data.rfind(self._delimiter)
        if end >= 0:
            end = data.find(self._delimiter)
            self.rest = data[end:]
            if end < self._before:
                raise Refusal(400, _EXTRA_BYTES)
        else:
            # A boundary may begin with the last CR; it contains only one.
            end = data.rfind(b"\r", -len(self._delimiter))
            if end < 0 or not self._delimiter.startswith(data[end:]):
                end = len(data)
        self._held = data[end:]
        content = data[self._before : end]
        self._before = max(self._before - end, 0)
        return [content] if content else []


def _misses_lines() -> bool:
    """Whether the parser takes a boundary line with extra bytes for content. Otherwise
    a file whose part has a length, which :class:`_Content` does not find, need not be
    searched a second time: that takes 8 % of a large push's processor time.
    """
    part = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--bx\r\n--b--"
    try:
        list(PushMultipartParser("b").parse(part))
    except MultipartError:
        return False
    return True


_MISSES_LINES = _misses_lines()


def _boundary(content_type: str) -> str:
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise Refusal(
            412, f"no file in the request; use curl -F {FIELD}=@NAME, or curl -T NAME"
        )
    boundary = _parameters(content_type, "Content-Type").get("boundary", "")
    if not 0 < len(boundary) <= _MOST_BOUNDARY or not boundary.isascii():
        raise Refusal(400, "the form has no valid boundary")
    return boundary


def _check_headers(part: MultipartSegment) -> None:
    if sum(name == "Content-Disposition" for name, _ in part.headerlist) != 1:
        raise Refusal(400, "malformed form: a part needs one Content-Disposition")
    size = sum(len(f"{name}{value}".encode()) for name, value in part.headerlist)
    if size > MOST_PART_HEADERS:
        raise Refusal(400, "malformed form: the headers of a part are too large")
    encoding = part.header("Content-Transfer-Encoding", "binary").strip().lower()
    if encoding not in ("7bit", "8bit", "binary"):
        reason = "malformed form: Content-Transfer-Encoding is not supported"
        raise Refusal(400, reason)


def _has_length(part: MultipartSegment) -> bool:
    """Whether the parser compares the part with a length."""
    return any(name.lower() == "content-length" for name, _ in part.headerlist)


def _check_file(part: MultipartSegment) -> None:
    """Refuse headers of the file's part that would be ignored; see
    :mod:`filebucket.web.put` for those of a request.
    """
    for name, value in part.headerlist:
        if name.lower() in digests.HEADERS:
            reason = f"{name} in a part of the form; send it as a request header"
            raise Refusal(400, reason)
        if name.lower() == "content-range":
            raise Refusal(400, "partial uploads are not supported (Content-Range)")
        if name.lower() == "content-encoding" and value.lower() != "identity":
            reason = "Content-Encoding is not supported; files are stored as sent"
            raise Refusal(415, reason)


def _file_name(part: MultipartSegment) -> str:
    """The file name as curl, browsers and Python libraries send it."""
    disposition = part.header("Content-Disposition", "")
    parameters = _parameters(disposition, "Content-Disposition")
    plain, extended = parameters.get("filename"), parameters.get("filename*")
    if plain is not None:
        # WHATWG, multipart/form-data encoding: only these three.
        for escape, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
            plain = plain.replace(escape, character)
    name = plain
    if extended is None and _ENCODED_WORD.search(plain or ""):
        # A '/' in its Base64 would cut the name.
        reason = "MIME encoded words in the file name; send filename*=UTF-8''..."
        raise Refusal(400, reason)
    if extended is not None:
        # filename* takes precedence (RFC 6266, 4.3): some clients put MIME encoded
        # words into filename.
        name = _extended(extended)
    # PHP, Go and Windows send a path (RFC 7578, 4.2).
    name = re.split(r"[/\\]", name or "")[-1]
    if not name:
        raise Refusal(412, f"the field {FIELD!r} has no file name")
    return name


def _extended(value: str) -> str:
    """The value of a ``filename*`` (RFC 8187, 3.2)."""
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    if charset.lower() != "utf-8" or not quote:
        raise Refusal(400, "filename* must have the form UTF-8''...")
    try:
        return names.decode(unquote_to_bytes(encoded))
    except ValueError as error:
        raise Refusal(400, str(error)) from None


# RFC 2047, 2.
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[BbQq]\?[^?\s]*\?=")

_PARAMETER = re.compile(
    r"""\s*;\s*
    (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
    \s*=\s*
    (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<token>[^\s;"]+) )
    """,
    re.VERBOSE,
)


def _parameters(value: str, header: str) -> dict[str, str]:
    """The parameters of a header value (RFC 9110, 5.6.6); 400 if one is malformed."""
    found: dict[str, str] = {}
    position = len(value.partition(";")[0])
    while position < len(value.rstrip("; \t")):
        match = _PARAMETER.match(value, position)
        if match is None or match["name"].lower() in found:
            raise Refusal(400, f"malformed {header}")
        text = match["token"]
        if text is None:
            # Only quotes are escaped: browsers send a backslash unescaped, and a name
            # that contains one is refused anyway.
            text = match["quoted"].replace('\\"', '"')
        found[match["name"].lower()] = text
        position = match.end()
    return found


# multipart 1.2.1 (Debian 13) backtracks over 2^n ways to parse a header value with n
# backslashes after an unclosed quote: 24 of them block the reactor for a second, 40 for
# a day; 8 in a line of 8 KiB, for 80 ms. If a quote follows the backslashes there is
# only one way. The parser decodes each header line of a part with the charset that it
# was given, so a codec can reject such a line.
_CHARSET = "x-filebucket-part-header"


def _decode_header(line: Any, errors: str = "strict") -> tuple[str, int]:
    data = bytes(line)
    if b'"' in data and b"\\" in data[data.rfind(b'"') :]:
        raise UnicodeDecodeError(
            _CHARSET, data, 0, len(data), "backslashes in open quotes"
        )
    if b"\n" in data or b"\r" in data:
        # Both versions detect it only if a chunk ends after it.
        raise UnicodeDecodeError(_CHARSET, data, 0, len(data), "a bare CR or LF")
    return data.decode("utf-8", errors), len(data)


def _find_codec(name: str) -> codecs.CodecInfo | None:
    # Python looks up normalized names, with '_' for '-'.
    if name.replace("_", "-") != _CHARSET:
        return None
    return codecs.CodecInfo(codecs.utf_8_encode, _decode_header, name=_CHARSET)


codecs.register(_find_codec)
