"""What the answers of an object store mean.

An error is one line of the store's address, the status and S3's code, which is a word
of a known form. S3's message is left out: it may contain the signature, or the text
that was signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from xml.parsers import expat

from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    FullError,
    NotThereError,
    ObjectError,
    UnsureError,
)

_CODE = re.compile("[A-Za-z][A-Za-z0-9._-]{0,63}")

_DEEPEST = 8
"""Levels of elements in any answer that has a meaning here; S3's have 4."""

_FULL = frozenset(
    {
        "EntityTooLargeForQuota",
        "InsufficientStorage",
        "QuotaExceeded",  # Ceph, with a 403
        "StorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)

_UNSURE_STATUSES = frozenset({408, 409, 425, 429})

_UNSURE = frozenset({"RequestTimeout", "RequestTimeoutException"})
"""Codes that come with a 400, though nothing is wrong with the request."""

_REFUSED_STATUSES = frozenset({501, 505})
"""Statuses of requests that the server does not know, and does not try."""

_HINTS: Mapping[str, str] = MappingProxyType(
    {
        # Ceph and AWS give it for an object that is not there, too, to a client that
        # may not list.
        "AccessDenied": (
            "the credentials lack a permission, or the name of the S3 bucket is wrong"
        ),
        "ExpiredToken": "the session token has expired",
        "InvalidAccessKeyId": "the store does not know the access key",
        "NoSuchBucket": "there is no such S3 bucket",
        "NotImplemented": "the store lacks a feature that file-bucket needs",
        "PermanentRedirect": "the endpoint or the region is wrong",
        "RequestTimeTooSkewed": (
            "the clocks of this machine and the store differ by more than 15 minutes"
        ),
        "SignatureDoesNotMatch": "the secret key or the region is wrong",
    }
)


def parse(content: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Read the XML of an answer.

    :returns: the name of the root, and for each element without children its path
        below the root, such as ``Contents/Size``, and its text; in order
    :raises ValueError: it is not XML, or has declarations, which S3 never sends and
        which may expand to any size
    """
    path: list[str] = []
    roots: list[str] = []
    leaves: list[tuple[str, str]] = []
    texts: list[str] = []
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True

    def start(name: str, _: object) -> None:
        if len(path) == _DEEPEST:
            raise ValueError("the XML is nested too deeply")
        path.append(name.rpartition("}")[2])
        if len(path) == 1:
            roots.append(path[0])
        texts[:] = [""]

    def end(_: str) -> None:
        if texts:
            leaves.append(("/".join(path[1:]), "".join(texts)))
            texts.clear()
        path.pop()

    def text(found: str) -> None:
        if texts:
            texts.append(found)

    def declaration(*_: object) -> None:
        raise ValueError("the XML has a document type declaration")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = declaration
    try:
        # A store may send white space before it, while it still works.
        parser.Parse(content.lstrip(), True)
    except expat.ExpatError as error:
        raise ValueError(f"the answer is not XML: {error}") from None
    return roots[0], leaves


def code_of(content: bytes) -> str:
    """S3's code in the content of an error; empty if it has none."""
    try:
        root, leaves = parse(content)
    except ValueError:
        return ""
    code = dict(leaves).get("Code", "") if root == "Error" else ""
    return code if _CODE.fullmatch(code) else ""


def error_of(place: str, status: int, code: str) -> ObjectError:
    """The error that an answer is.

    :param place: the store, for the message
    :param status: of HTTP; 200 if the error is in the content of such an answer
    :param code: S3's; empty if there is none
    """
    reason = " ".join(filter(None, (f"{place} answered {status}", code)))
    if code in _HINTS:
        reason += f": {_HINTS[code]}"
    return _kind(status, code)(reason, code)


def _kind(status: int, code: str) -> type[ObjectError]:
    if status == 507 or code in _FULL:
        return FullError
    if status == 412:
        return AlreadyThereError
    # The code, unless there was no content, as in the answer to a HEAD. A bucket that
    # is gone must not look like an object that never was.
    if status == 404 and code in {"", "NoSuchKey", "NotFound", "404"}:
        return NotThereError
    refused = 300 <= status < 500 or status in _REFUSED_STATUSES
    if refused and status not in _UNSURE_STATUSES and code not in _UNSURE:
        return DeniedError
    return UnsureError
