"""Resumable uploads over HTTP, in two dialects.

The native one is draft-ietf-httpbis-resumable-upload, the other one is tus 1.0 with
creation, creation-defer-length, expiration and termination. Both are a thin front of
:mod:`filebucket.push.session`: they read what a request asks, and word its answer.

| PUT /<token>/<name>, Upload-Complete: ?0   creates an upload (tus: POST /<token>)
| HEAD /<token>/uploads/<id>                 its offset
| PATCH /<token>/uploads/<id>                the next part
| DELETE /<token>/uploads/<id>               gives it up
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import ClassVar

from twisted.web.http import datetimeToString
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.http.framing import members
from filebucket.model import names
from filebucket.model.push import Outcome, Progress, Step
from filebucket.push.interfaces import Action, IncomingFile, IResuming, Resume
from filebucket.web import digests
from filebucket.web.put import Request, answer, fields_of

FOLDER = b"uploads"
"""Where the uploads of a bucket are, as far as their URLs say."""

TUS = "1.0.0"
EXTENSIONS = "creation,creation-defer-length,expiration,termination"

PART_TYPE = "application/partial-upload"
TUS_PART_TYPE = "application/offset+octet-stream"

MOST_METADATA = 4096
"""Bytes of ``Upload-Metadata``, which each HEAD returns."""

_ACTIONS = {
    "HEAD": Action.LOOK,
    "PATCH": Action.APPEND,
    "DELETE": Action.GIVE_UP,
}

_NUMBER = re.compile("[0-9]{1,19}")
_METADATA = re.compile("[ -~]*")

_OF_WHOLE = {"repr-digest", "digest"}
"""Headers with digests of the whole file (RFC 9530, 3; RFC 3230); the others in
:data:`~filebucket.web.digests.HEADERS`, but for ``X-Checksum-...``, cover the body."""


class Resuming(Request):
    """What both dialects have in common."""

    overhead = 0
    parts = True
    methods: ClassVar[Sequence[str]] = ("HEAD", "PATCH", "DELETE")

    def name(self) -> str | None:
        return None

    async def find_file(self) -> IncomingFile:
        return IncomingFile("", -1, self.body)

    def spent(self) -> bool:
        # A client that tries again asks first how much has come.
        return False

    def promised(self) -> dict[str, bytes]:
        found = digests.of_file(self.fields)
        return digests.of_body(_only(self.fields, of_whole=True), found)

    def promised_late(self) -> dict[str, bytes]:
        trailers = fields_of(self.trailers)
        found = digests.of_file(trailers)
        return digests.of_body(_only(trailers, of_whole=True), found)

    def promised_of_part(self) -> dict[str, bytes]:
        return digests.of_body(_only(self.fields, of_whole=False))

    def number(self, header: str) -> int | None:
        """The value of a header, which is a number of bytes; None if it is not there.

        :raises Refusal: 400: it is something else
        """
        values = self.values(header)
        if not values:
            return None
        if len(values) > 1 or not _NUMBER.fullmatch(values[0]):
            raise Refusal(400, f"malformed {header}")
        return int(values[0])

    def identity(self) -> str:
        """The id of the upload in the URL."""
        return self.path[1].decode("ascii", "replace")

    def offset(self) -> int:
        offset = self.number("Upload-Offset")
        if offset is None:
            raise Refusal(400, "Upload-Offset is missing")
        return offset

    def check_type(self, wanted: str) -> None:
        """Refuse a part of another media type."""
        given = {each.partition(";")[0].strip() for each in self._types()}
        if given - {wanted}:
            raise Refusal(415, f"the Content-Type of a part is {wanted}")

    def _types(self) -> list[str]:
        return members(self.values("Content-Type"))


@implementer(IResuming)
class Native(Resuming):
    """A request of the draft about an upload."""

    def asks(self) -> Resume:
        action = _ACTIONS[self.method]
        if action is not Action.APPEND:
            return Resume(action, self.identity())
        self.check_type(PART_TYPE)
        complete = self.values("Upload-Complete")
        if complete not in (["?0"], ["?1"]):
            fault = "malformed Upload-Complete" if complete else "is missing"
            raise Refusal(400, fault if complete else f"Upload-Complete {fault}")
        return Resume(
            action,
            self.identity(),
            self.offset(),
            last=complete == ["?1"],
            length=self.number("Upload-Length"),
        )


class NativeCreation(Native):
    """A request of the draft that creates an upload."""

    methods: ClassVar[Sequence[str]] = ("PUT",)

    def name(self) -> str:
        return self.name_in_url()

    def asks(self) -> Resume:
        if self.number("Upload-Offset"):
            raise Refusal(400, "an upload is created with Upload-Offset: 0, or without")
        return Resume(Action.CREATE, last=False, length=self.number("Upload-Length"))


@implementer(IResuming)
class Tus(Resuming):
    """A request of tus about an upload."""

    def asks(self) -> Resume:
        self.check_version()
        action = _ACTIONS[self.method]
        if action is not Action.APPEND:
            return Resume(action, self.identity())
        if TUS_PART_TYPE not in self._types():
            raise Refusal(415, f"the Content-Type of a part is {TUS_PART_TYPE}")
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

    methods: ClassVar[Sequence[str]] = ("POST",)

    def asks(self) -> Resume:
        self.check_version()
        if self.length != 0:
            raise Refusal(400, "tus: the first part cannot come with the creation")
        if self.values("Upload-Concat"):
            raise Refusal(400, "tus: concatenation is not supported")
        length, deferred = (
            self.number("Upload-Length"),
            self.values("Upload-Defer-Length"),
        )
        if (length is None) == (not deferred) or deferred not in ([], ["1"]):
            raise Refusal(
                400, "tus: Upload-Length, or Upload-Defer-Length: 1, required"
            )
        return Resume(Action.CREATE, length=length, metadata=self.metadata())

    def metadata(self) -> str:
        """``Upload-Metadata``, which each HEAD returns.

        :raises Refusal: 400: it is malformed
        """
        metadata = ",".join(self.values("Upload-Metadata"))
        if len(metadata) > MOST_METADATA or not _METADATA.fullmatch(metadata):
            raise Refusal(400, "malformed Upload-Metadata")
        return metadata

    def name(self) -> str:
        if any(self.path) or len(self.path) > 1:
            raise Refusal(400, "tus: POST takes no name in the URL")
        pairs = (each.strip().partition(" ") for each in self.metadata().split(","))
        found = {key: value for key, _, value in pairs}
        value = found.get("filename") or found.get("name")
        if not value:
            raise Refusal(412, "no filename in Upload-Metadata")
        try:
            return names.decode(base64.b64decode(value, validate=True))
        except binascii.Error:
            raise Refusal(400, "malformed Upload-Metadata") from None
        except ValueError as error:
            raise Refusal(400, str(error)) from None


def kind_of(
    method: str, path: Sequence[bytes], tus: bool, part: bool
) -> type[Native | Tus] | None:
    """What a request about a resumable upload is; None if it is about none.

    :param path: after the token
    :param tus: whether it has ``Tus-Resumable``
    :param part: whether it has ``Upload-Complete: ?0``
    """
    if len(path) == 2 and path[0] == FOLDER and method in _ACTIONS:
        return Tus if tus else Native
    if method == "POST" and tus:
        return TusCreation
    if method == "PUT" and part:
        return NativeCreation
    return None


def answer_to(
    request: Request, outcome: Outcome, base: str
) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of the answer to such a request.

    :param base: of the uploads' URLs, relative to the request's
    """
    tus = isinstance(request, Tus)
    headers, body = answer(outcome)
    status = outcome.status
    if tus:
        headers["Tus-Resumable"] = TUS
    upload = outcome.upload
    if upload is None:
        return status, headers, body
    headers |= _of_tus(upload) if tus else _of_draft(upload)
    if outcome.step is Step.LOOKED:
        headers["Cache-Control"] = "no-store"
        if tus and upload.metadata:
            headers["Upload-Metadata"] = upload.metadata
    if status == 201:
        headers["Location"] = f"{base}uploads/{upload.id}"
    if outcome.step is not None and outcome.reason is None:
        body = b""
        headers.pop("X-Checksum-Sha256", None)
    elif tus and status == 200:
        # The receipt has no place in a 204; the header has the digest.
        status, body = 204, b""
    return status, headers, body


def base_of(path: bytes) -> str:
    """Where a bucket's uploads are, relative to the URL of a request that creates one:
    a bucket's URL may end with its token, or with a slash, or with a file's name.

    :param path: of the request
    """
    return "" if path.endswith(b"/") else path.rpartition(b"/")[2].decode("ascii") + "/"


def limits(most: int, left: float) -> str:
    """The value of ``Upload-Limit``.

    :param most: bytes that a file may have
    :param left: seconds until the upload expires
    """
    return f"max-size={most},max-age={int(left)}"


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
