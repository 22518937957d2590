"""Resumable uploads over HTTP, in two dialects.

The native one is draft-ietf-httpbis-resumable-upload, the other one is tus 1.0 with
creation, creation-defer-length, expiration and termination. Both are a thin front of
:mod:`filebucket.push.sessions`: they read what a request asks, and word its answer.

| PUT /<token>/<name>, Upload-Complete: ?0   creates an upload, and so does POST
| POST /<token>, Tus-Resumable: 1.0.0        the same with tus
| HEAD /<token>/uploads/<id>                 its offset
| PATCH /<token>/uploads/<id>                the next part
| DELETE /<token>/uploads/<id>               gives it up
| OPTIONS /<token>                           versions, extensions and limits

Where the draft has a header ignored, because it is malformed, the request is refused
instead: without the header it would mean another thing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import ClassVar

from twisted.web.http import datetimeToString
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.http.framing import ORIGIN, members
from filebucket.model import names
from filebucket.model.push import Outcome, Progress
from filebucket.push.interfaces import Action, IncomingFile, IResuming, Resume
from filebucket.push.receive import MOST_SIZE
from filebucket.web import digests
from filebucket.web.put import Request, answer, check_no_form, fields_of

FOLDER = b"uploads"
"""Where the uploads of a bucket are, as far as their URLs say."""

TUS = "1.0.0"
EXTENSIONS = "creation,creation-defer-length,expiration,termination"

PART_TYPE = "application/partial-upload"
TUS_PART_TYPE = "application/offset+octet-stream"

MOST_METADATA = 4096
"""Bytes of ``Upload-Metadata``, which each HEAD returns."""

MOST_TOLD = 10**15 - 1
"""The largest number in a structured field (RFC 9651, 3.3.1): a client would ignore a
header with a larger one, and cannot send one either."""

_ACTIONS = {
    "HEAD": Action.LOOK,
    "PATCH": Action.APPEND,
    "DELETE": Action.GIVE_UP,
}

_ALLOWED = "DELETE, HEAD, OPTIONS, PATCH"
"""Methods of an upload."""

# An item may have parameters (RFC 9651, 3.1.2), and neither dialect defines any.
_BOOLEAN = re.compile(r"\?([01]) *(?:;.*)?")
# A key without spaces and commas, and a value in base64. Python would accept more or
# less padding than that, depending on its version.
_PAIR = re.compile(
    r"([!-+\--~]+)"
    "(?: ((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?))?"
)

_OF_WHOLE = frozenset({"repr-digest", "digest"})
"""Headers with digests of the whole file (RFC 9530, 3; RFC 3230); the others in
:data:`~filebucket.web.digests.HEADERS`, but for ``X-Checksum-...``, cover the body."""

_OF_PART = digests.HEADERS - _OF_WHOLE - digests.OF_FILE


class Resuming(Request):
    """What both dialects have in common."""

    overhead = 0
    parts = True
    methods: ClassVar[Sequence[str]] = ("HEAD", "PATCH", "DELETE")

    def not_allowed(self) -> Refusal:
        reason = "an upload takes only DELETE, HEAD, OPTIONS and PATCH"
        return Refusal(405, reason, {"Allow": _ALLOWED})

    def name(self) -> str | None:
        return None

    async def find_file(self) -> IncomingFile:
        return IncomingFile("", -1, self.body)

    def promised(self) -> dict[str, bytes]:
        found = digests.of_file(self.fields)
        return digests.of_body(_only(self.fields, of_whole=True), found)

    def promised_late(self) -> dict[str, bytes]:
        trailers = fields_of(self.trailers)
        found = digests.of_file(trailers)
        return digests.of_body(_only(trailers, of_whole=True), found)

    def algorithms_of_part(self) -> set[str]:
        announced = members(self.values("Trailer"))
        if not _OF_PART.isdisjoint(announced):
            return set(digests.LENGTHS)
        return set(digests.of_body(_only(self.fields, of_whole=False)))

    def promised_of_part(self) -> dict[str, bytes]:
        found = digests.of_body(_only(self.fields, of_whole=False))
        late = _only(fields_of(self.trailers), of_whole=False)
        digests.of_body(late, found)
        if not found.keys() <= self.algorithms_of_part():
            raise Refusal(400, "a digest in a trailer that no Trailer header announced")
        return found

    def identity(self) -> str:
        """The id of the upload in the URL."""
        return self.path[1].decode("ascii", "replace")

    def offset(self) -> int:
        offset = self.number("Upload-Offset")
        if offset is None:
            raise Refusal(400, "Upload-Offset is missing")
        return offset

    def types(self) -> set[str]:
        """The media types of the body, without parameters."""
        given = members(self.values("Content-Type"))
        return {each.partition(";")[0].strip() for each in given}

    def check_empty(self) -> None:
        """Compare the digests of a body that is empty."""
        if self.length == 0:
            promised = self.promised_of_part()
            Hashes(promised).compare(promised, "part")


@implementer(IResuming)
class Native(Resuming):
    """A request of the draft about an upload."""

    def asks(self) -> Resume:
        action = _ACTIONS[self.method]
        if action is not Action.APPEND:
            return Resume(action, self.identity())
        # Clients of older drafts send no type.
        if self.types() - {PART_TYPE}:
            raise Refusal(415, f"the Content-Type of a part must be {PART_TYPE}")
        values = self.values("Upload-Complete")
        if not values:
            raise Refusal(400, "Upload-Complete is missing")
        complete = completeness(values)
        if complete is None:
            raise Refusal(400, "malformed Upload-Complete")
        return Resume(
            action,
            self.identity(),
            self.offset(),
            last=complete,
            length=self.number("Upload-Length"),
        )


class NativeCreation(Native):
    """A request of the draft that creates an upload."""

    creates = True
    methods: ClassVar[Sequence[str]] = ("PUT", "POST")

    def name(self) -> str:
        return self.name_in_url()

    def asks(self) -> Resume:
        check_no_form(self.types())
        if self.number("Upload-Offset"):
            raise Refusal(400, "an upload is created with Upload-Offset: 0, or without")
        self.check_empty()
        return Resume(Action.CREATE, last=False, length=self.number("Upload-Length"))


@implementer(IResuming)
class Tus(Resuming):
    """A request of tus about an upload."""

    def asks(self) -> Resume:
        self.check_version()
        action = _ACTIONS[self.method]
        if action is not Action.APPEND:
            return Resume(action, self.identity())
        if self.types() != {TUS_PART_TYPE}:
            raise Refusal(415, f"the Content-Type of a part must be {TUS_PART_TYPE}")
        return Resume(
            action,
            self.identity(),
            self.offset(),
            length=self.number("Upload-Length"),
        )

    def check_version(self) -> None:
        """Refuse another version of tus."""
        if self.values("Tus-Resumable") != [TUS]:
            raise Refusal(412, f"only tus {TUS} is supported", {"Tus-Version": TUS})


class TusCreation(Tus):
    """A request of tus that creates an upload."""

    creates = True
    methods: ClassVar[Sequence[str]] = ("POST",)

    def asks(self) -> Resume:
        self.check_version()
        if self.length != 0:
            raise Refusal(400, "tus: the first part cannot come with the creation")
        if self.values("Upload-Concat"):
            raise Refusal(400, "tus: concatenation is not supported")
        self.check_empty()
        length = self.number("Upload-Length")
        deferred = self.values("Upload-Defer-Length")
        if (length is None) == (not deferred) or deferred not in ([], ["1"]):
            raise Refusal(
                400, "tus: Upload-Length, or Upload-Defer-Length: 1, required"
            )
        return Resume(Action.CREATE, length=length, metadata=self._metadata)

    @property
    def _metadata(self) -> str:
        # Several headers are one list (RFC 9110, 5.3).
        return ",".join(self.values("Upload-Metadata"))

    def name(self) -> str:
        if any(self.path) or len(self.path) > 1:
            raise Refusal(400, "tus: POST takes no name in the URL")
        found = self._pairs()
        value = found.get("filename") or found.get("name")
        if not value:
            raise Refusal(412, "no filename in Upload-Metadata")
        try:
            return names.decode(base64.b64decode(value, validate=True))
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    def _pairs(self) -> dict[str, str]:
        """The keys of ``Upload-Metadata``, with their values in base64.

        :raises Refusal: 400: it is malformed
        """
        metadata = self._metadata
        if len(metadata) > MOST_METADATA:
            raise Refusal(400, f"more than {MOST_METADATA} bytes of Upload-Metadata")
        found: dict[str, str] = {}
        for each in metadata.split(",") if metadata.strip() else []:
            pair = _PAIR.fullmatch(each.strip(" \t"))
            if pair is None:
                raise Refusal(400, "malformed Upload-Metadata")
            if pair[1] in found:
                raise Refusal(400, "Upload-Metadata has a key twice")
            found[pair[1]] = pair[2] or ""
        return found


@implementer(IResuming)
class Options(Resuming):
    """A request for versions, extensions and limits; of both dialects."""

    methods: ClassVar[Sequence[str]] = ("OPTIONS",)

    def asks(self) -> Resume:
        return Resume(Action.ASK)


def completeness(values: Sequence[str]) -> bool | None:
    """The value of ``Upload-Complete``; None if it is missing or malformed."""
    found = _BOOLEAN.fullmatch(values[0]) if len(values) == 1 else None
    return None if found is None else found[1] == "1"


def kind_of(
    method: str, path: Sequence[bytes], tus: bool, part: bool
) -> type[Native | Tus | Options] | None:
    """What a request about resumable uploads is; None if it is about none.

    :param path: after the token
    :param tus: whether it has ``Tus-Resumable``
    :param part: whether it has ``Upload-Complete: ?0``
    """
    if method == "OPTIONS":
        return Options
    if _is_upload(path) and method not in ("POST", "PUT"):
        return Tus if tus else Native
    if method == "POST" and tus:
        return TusCreation
    if method in NativeCreation.methods and part:
        return NativeCreation
    return None


def _is_upload(path: Sequence[bytes]) -> bool:
    return len(path) == 2 and path[0] == FOLDER


def answer_to(
    request: Resuming, outcome: Outcome, base: str, most: int, lifetime: float
) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of the answer to such a request.

    :param base: of the uploads' URLs, relative to the request's
    :param most: bytes that a file of the bucket may have
    :param lifetime: seconds for which an upload is kept after its last byte
    """
    tus = isinstance(request, Tus)
    headers: dict[str, str] = {}
    if outcome.step is not None and outcome.reason is None:
        # There is no file yet.
        body = b""
    else:
        headers, body = answer(outcome)
    status, upload = outcome.status, outcome.upload
    if tus:
        headers["Tus-Resumable"] = TUS
    if request.method == "HEAD":
        headers["Cache-Control"] = "no-store"
    if isinstance(request, Options) and outcome.reason is None:
        allowed = _ALLOWED if _is_upload(request.path) else "OPTIONS, POST, PUT"
        return status, {"Allow": allowed, **_offers(most, lifetime)}, b""
    if upload is None:
        if status == 413 and not tus:
            headers["Upload-Limit"] = limits(most, lifetime)
        return status, headers, body
    headers |= _of_tus(upload) if tus else _of_draft(upload)
    if request.method == "HEAD" and tus and upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    if request.creates and (status == 201 or not upload.complete):
        # Also if only the first part is refused.
        headers["Location"] = f"{base}uploads/{upload.id}"
    if status == 200 and (request.method == "HEAD" or (tus and not request.creates)):
        # The receipt has no place in a 204; the header has the digest.
        status, body = 204, b""
    return status, headers, body


def _offers(most: int, lifetime: float) -> dict[str, str]:
    headers = {
        "Tus-Resumable": TUS,
        "Tus-Version": TUS,
        "Tus-Extension": EXTENSIONS,
        "Upload-Limit": limits(most, lifetime),
    }
    if most < MOST_SIZE:
        headers["Tus-Max-Size"] = str(most)
    return headers


def base_of(path: bytes) -> str:
    """Where a bucket's uploads are, relative to the URL of a request that creates one:
    a bucket's URL may end with its token, or with a slash, or with a file's name.

    :param path: of the request
    """
    last = path.rpartition(b"/")[2]
    # The target "*" and a URL without a path have no last component.
    at_root = not last or b"/" not in ORIGIN.sub(b"", path, count=1)
    return "" if at_root else last.decode("ascii") + "/"


def limits(most: int, left: float) -> str:
    """The value of ``Upload-Limit``.

    :param most: bytes that a file may have
    :param left: seconds until the upload expires
    """
    return f"max-size={min(most, MOST_TOLD)},max-age={int(left)}"


def _of_draft(upload: Progress) -> dict[str, str]:
    headers = {
        "Upload-Complete": "?1" if upload.complete else "?0",
        "Upload-Offset": str(upload.offset),
        "Upload-Limit": limits(upload.largest, upload.left),
    }
    if upload.length is not None:
        headers["Upload-Length"] = str(upload.length)
    return headers


def _of_tus(upload: Progress) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(upload.offset),
        "Upload-Expires": datetimeToString(upload.expires).decode("ascii"),
    }
    if upload.length is None:
        headers["Upload-Defer-Length"] = "1"
    else:
        headers["Upload-Length"] = str(upload.length)
    return headers


def _only(fields: digests.Fields, of_whole: bool) -> digests.Fields:
    return {
        name: values
        for name, values in fields.items()
        if (name in _OF_WHOLE) == of_whole
    }
