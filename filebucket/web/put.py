"""A push over HTTP: its headers, its URL, and the answer.

:class:`Put` is the raw body of a PUT, :class:`Form` a form sent by POST. Both implement
:class:`~filebucket.push.interfaces.IIncoming`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import cached_property
from typing import ClassVar, TypeAlias

from attrs import field, frozen
from twisted.web.http_headers import Headers
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.http.framing import members
from filebucket.model import names
from filebucket.model.push import Outcome
from filebucket.push.interfaces import IIncoming, IncomingFile
from filebucket.web import digests, form

METHODS = ("POST", "PUT")

BODILESS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
"""Methods that need no length, since their requests seldom have a body."""

_OF_PARTS = {"Upload-Complete": "?1", "Upload-Incomplete": "?0", "Upload-Offset": "0"}
"""Headers of partial uploads, each with the value that means that the file is whole
(draft-ietf-httpbis-resumable-upload, current and as in iOS 17).
"""

_OF_PART_TYPES = {"application/partial-upload", "multipart/byteranges"}

_OTHER_METHODS = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")

_JUDGED = frozenset(
    each.lower()
    for each in (
        "Authorization",
        "Content-Encoding",
        "Content-Range",
        "Expect",
        "Upload-Length",
        "X-Amz-Copy-Source",
        *_OF_PARTS,
        *_OTHER_METHODS,
    )
)
"""Headers that may change what a request means. Few requests have any."""

# An item of a structured field may have parameters (RFC 9651, 3.1.2); none is defined.
_NUMBER = re.compile("([0-9]{1,19}) *(?:;.*)?")


@frozen
class Request:
    """A request, as its headers describe it.

    :param path: components of the path after the token, percent-decoded
    :param has_query: whether a query string follows the path
    :param length: declared length of the body in bytes; None if it is chunked
    :param client: ``ip:port``
    :param body: batches of the body's chunks; may raise :class:`Refusal`
    :param failed: returns the reason that the body will not come whole, if known
    :param received: returns the number of bytes of the body received so far
    :param closed: returns why the token does not open the bucket any more; None if it
        does
    :param trailers: headers after the body
    :param token: SHA-256 of its token in hex
    :param cut: ends the body; a reader of it gets the refusal
    """

    method: str
    path: Sequence[bytes] = field(repr=False)
    has_query: bool
    headers: Headers = field(repr=False)
    length: int | None
    client: str
    body: AsyncIterator[Sequence[bytes]] = field(repr=False)
    failed: Callable[[], Refusal | None] = field(repr=False)
    received: Callable[[], int] = field(repr=False)
    closed: Callable[[], Refusal | None] = field(repr=False)
    trailers: Headers = field(repr=False)
    token: str = field(default="", repr=False)
    cut: Callable[[Refusal], None] = field(default=lambda _: None, repr=False)

    methods: ClassVar[Sequence[str]] = METHODS
    parts: ClassVar[bool] = False
    """Whether the request is about a part of a file."""
    creates: ClassVar[bool] = False
    """Whether it creates an upload, whose first part may be empty."""

    @property
    def waits(self) -> bool:
        return bool(members(self.values("Expect")))

    def check(self) -> None:
        if self.method not in self.methods:
            raise self.not_allowed()
        sized = self.values("Content-Length") or self.values("Transfer-Encoding")
        if self.method not in BODILESS and not sized:
            raise Refusal(411, "Content-Length or chunked encoding required")
        if not _JUDGED.isdisjoint(self.fields):
            self._judge()

    def not_allowed(self) -> Refusal:
        """The refusal of the method."""
        allowed = " and ".join(METHODS)
        reason = f"only {allowed} are allowed; files cannot be read"
        return Refusal(405, reason, {"Allow": ", ".join(METHODS)})

    def _judge(self) -> None:
        """Refuse what the less usual headers ask for."""
        if set(members(self.values("Expect"))) - {"100-continue"}:
            raise Refusal(417, "unsupported Expect header")
        if set(members(self.values("Content-Encoding"))) - {"identity"}:
            raise Refusal(
                415, "Content-Encoding is not supported; files are stored as sent"
            )
        if self.values("Content-Range"):
            # A server without partial PUT must not take a part for the whole (RFC 9110,
            # 14.5).
            raise Refusal(400, "partial uploads are not supported (Content-Range)")
        for header, whole in () if self.parts else _OF_PARTS.items():
            if set(members(self.values(header))) - {whole}:
                raise Refusal(400, f"partial uploads are not supported ({header})")
        for header in _OTHER_METHODS:
            if any(each.upper() != self.method for each in self.values(header)):
                raise Refusal(400, f"overriding the method is not supported ({header})")
        if self.values("X-Amz-Copy-Source"):
            # The empty body would be stored instead of the copy.
            raise Refusal(400, "copying is not supported (X-Amz-Copy-Source)")
        told = None if self.parts else self.number("Upload-Length")
        if told is not None and self.length is not None:
            _check_length(self.length, told)
        empty = self.length == 0 and not self.creates and self.method not in BODILESS
        for value in self.values("Authorization"):
            if empty and value.partition(" ")[0].lower() != "bearer":
                # curl --ntlm sends an empty body first, and the file only with its next
                # request.
                reason = "an empty file with an Authorization header other than Bearer"
                raise Refusal(400, reason)

    def name_in_url(self) -> str:
        """The name in the URL of a PUT.

        :raises Refusal: 400 or 412: it is missing or malformed
        """
        if not any(self.path):
            raise Refusal(412, "no file name in the URL; use curl -T FILE URL/NAME")
        if len(self.path) > 1:
            raise Refusal(400, "a name may not contain '/'")
        if self.has_query:
            raise Refusal(400, "a '?' ends the file name; write it as %3F in a URL")
        try:
            return names.decode(self.path[0])
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    @property
    def whole(self) -> AsyncIterator[Sequence[bytes]]:
        """The body of a push. If the client told a length, it must have that."""
        told = self.number("Upload-Length")
        return self.body if told is None else self._with_length(told)

    async def _with_length(self, told: int) -> AsyncIterator[Sequence[bytes]]:
        async for chunks in self.body:
            yield chunks
        _check_length(self.received(), told)

    def number(self, header: str) -> int | None:
        """The value of a header, which is a number of bytes; None if it is not there.

        :raises Refusal: 400: it is something else
        """
        values = self.values(header)
        if not values:
            return None
        found = _NUMBER.fullmatch(values[0])
        if found is None or len(values) > 1:
            raise Refusal(400, f"malformed {header}")
        return int(found[1])

    def failure(self) -> Refusal | None:
        return self.failed()

    def overwrites(self) -> bool:
        # The last one is from WebDAV (RFC 4918, 10.4).
        for header in ("If-Match", "If-Unmodified-Since", "If"):
            if self.values(header):
                raise Refusal(412, f"{header} is not supported; files cannot be read")
        return "*" not in members(self.values("If-None-Match"))

    def check_allowed(self) -> None:
        refusal = self.closed()
        if refusal is not None:
            raise refusal

    def spent(self) -> bool:
        # A client that does not wait has sent some of its pipe, even if nothing has
        # arrived yet.
        return self.length is None and (self.received() > 0 or not self.waits)

    @cached_property
    def fields(self) -> _Fields:
        # Converted once: a request has few headers, and many names are looked up.
        return fields_of(self.headers)

    @property
    def late_fields(self) -> _Fields:
        """The headers after the body, once that has come whole."""
        # Only a chunked body has any.
        return {} if self.length is not None else fields_of(self.trailers)

    def values(self, name: str) -> list[str]:
        return self.fields.get(name.lower(), [])


@implementer(IIncoming)
class Put(Request):
    """A file that is the body, with its name in the URL."""

    overhead = 0

    def check(self) -> None:
        super().check()
        given = members(self.values("Content-Type"))
        kinds = {each.partition(";")[0].strip() for each in given}
        check_no_form(kinds)
        if kinds & _OF_PART_TYPES:
            raise Refusal(400, "partial uploads are not supported (Content-Type)")

    def promised(self) -> dict[str, bytes]:
        return _promised_of_all(self.fields)

    def promised_late(self) -> dict[str, bytes]:
        return _promised_of_all(self.late_fields)

    def name(self) -> str:
        return self.name_in_url()

    async def find_file(self) -> IncomingFile:
        size = -1 if self.length is None else self.length
        return IncomingFile(self.name(), size, self.whole)


@implementer(IIncoming)
class Form(Request):
    """A file in a form, with its name in the form."""

    overhead = form.MOST_OVERHEAD

    def promised(self) -> dict[str, bytes]:
        return digests.of_file(self.fields)

    def promised_late(self) -> dict[str, bytes]:
        return digests.of_file(self.late_fields)

    def name(self) -> None:
        if any(self.path) or len(self.path) > 1:
            raise Refusal(
                400,
                "POST takes no name in the URL; use curl -F file=@NAME, or curl -T; a"
                " report of a failed backup needs Content-Type: text/plain",
            )

    async def find_file(self) -> IncomingFile:
        content_type = ", ".join(self.values("Content-Type"))
        found = await form.find_file(self._checked(), content_type, self.length)
        return IncomingFile(found.name, found.size, found)

    async def _checked(self) -> AsyncIterator[Sequence[bytes]]:
        """The form. At its end, the digests of the body, which include the boundaries,
        are compared (RFC 9530, 2).
        """
        promised = digests.of_body(self.fields)
        announced = self.values("Trailer")
        algorithms = set(digests.LENGTHS if announced else promised)
        hashes = Hashes(algorithms)
        async for chunks in self.whole:
            hashes.update(chunks)
            yield chunks
        digests.of_body(self.late_fields, promised)
        if not promised.keys() <= algorithms:
            raise Refusal(400, "a digest in a trailer that no Trailer header announced")
        hashes.compare(promised, "form")


def check_no_form(types: Collection[str]) -> None:
    """Refuse a form that is sent by PUT."""
    if "multipart/form-data" in types:
        reason = "PUT takes no form; use POST, or send the file: curl -T NAME"
        raise Refusal(415, reason)


def _check_length(length: int, told: int) -> None:
    if length != told:
        raise Refusal(400, f"the body has {length} bytes, and Upload-Length is {told}")


_Fields: TypeAlias = dict[str, list[str]]


def fields_of(headers: Headers) -> _Fields:
    """The values of each header, by its name in lower case. Bytes that are not UTF-8
    are replaced, so that they match nothing.
    """
    return {
        name.decode("latin-1").lower(): [
            each.decode("utf-8", "replace") for each in values
        ]
        for name, values in headers.getAllRawHeaders()
    }


def _promised_of_all(fields: _Fields) -> dict[str, bytes]:
    """The digests sent for a body that is the file."""
    return digests.of_body(fields, digests.of_file(fields))


def answer(outcome: Outcome) -> tuple[dict[str, str], bytes]:
    """The headers and the body of the answer to a push, or to a report that a backup
    failed.
    """
    if outcome.reason is not None:
        return dict(outcome.headers), f"{outcome.reason}\n".encode()
    if outcome.failed is not None:
        return {}, b"the failure is reported\n"
    headers = {"X-Checksum-Sha256": outcome.sha256 or ""}
    if outcome.post_push is None:
        # The format of sha256sum, for sha256sum -c.
        return headers, f"{outcome.sha256}  {outcome.name}\n".encode()
    if outcome.post_push:
        headers["X-Post-Push-Exit"] = str(outcome.post_push)
    return headers, outcome.output
