"""The digests that a client may promise of what it sends.

Every promise is checked, or the push is refused: a promise that nobody checks is worse
than none. ``X-Checksum-Sha256: <hex>`` and its like promise the file's own bytes and go
with every kind of push. ``Content-Digest`` and ``Repr-Digest`` (RFC 9530), and what
older clients send in their place, promise the body's bytes: those are the file's where
the body is the file, and the form's where it is a form.

An algorithm that this server does not know is ignored if the header may name several,
as RFC 9530 asks. A value that it cannot read is refused, and so is a header whose only
algorithm is unknown.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from filebucket.base.errors import Refusal

LENGTHS: Mapping[str, int] = MappingProxyType(
    {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
)
"""What can be promised: hashlib's name of the algorithm, its digest's bytes."""

Fields: TypeAlias = Mapping[str, Sequence[str]]
"""The values of headers, by their names in lower case."""

_OF_FILE: Mapping[str, str] = {
    "X-Checksum-Md5": "md5",
    "X-Checksum-Sha1": "sha1",
    "X-Checksum-Sha256": "sha256",
    "X-Checksum-Sha512": "sha512",
}
"""In hex, of the file."""

_OF_BODY: Mapping[str, str] = {
    "Content-MD5": "md5",
    "X-Amz-Checksum-Sha1": "sha1",
    "X-Amz-Checksum-Sha256": "sha256",
}
"""In base64, of the body (RFC 1864; Amazon S3)."""

_DICTIONARIES = ("Content-Digest", "Repr-Digest")
_RFC_9530_NAMES = {"sha-256": "sha256", "sha-512": "sha512"}
_RFC_3230_NAMES = {"md5": "md5", "sha": "sha1", **_RFC_9530_NAMES}

_AMAZON = "X-Amz-Content-Sha256"
_NO_PROMISE = "UNSIGNED-PAYLOAD"

_NOT_CHECKED = (
    *(f"X-Checksum-{each}" for each in ("Crc32", "Crc32c", "Sha224", "Sha384")),
    *(f"X-Amz-Checksum-{each}" for each in ("Crc32", "Crc32c", "Crc64nvme")),
    *(f"X-Amz-Checksum-{each}" for each in ("Md5", "Sha512")),
    *(f"X-Amz-Checksum-Xxhash{each}" for each in ("3", "64", "128")),
    *("OC-Checksum", "Upload-Checksum", "X-Bz-Content-Sha1", "X-Content-Sha256"),
    *("X-Goog-Hash", "X-Ms-Content-Crc64"),
)
"""Some of S3, ownCloud, tus, Backblaze, Oracle, Google and Azure."""

HEADERS = frozenset(
    each.lower()
    for each in (
        *_OF_FILE,
        *_OF_BODY,
        *_DICTIONARIES,
        "Digest",
        _AMAZON,
        *_NOT_CHECKED,
    )
)
"""All that may promise a digest, in lower case."""

# A member of an RFC 8941 dictionary, as far as RFC 9530 uses it: a key, and a
# byte sequence between colons. What follows a ';' are parameters, ignored.
_MEMBER = re.compile(
    r"(?P<key>[a-z*][a-z0-9_.*-]*)"
    r"(?:=(?::(?P<bytes>[A-Za-z0-9+/=]*):|(?P<other>[^:,;\"]+|\"[^\"]*\")))?"
    r"(?:;[^,]*)?"
)


def of_file(fields: Fields) -> dict[str, bytes]:
    """What the headers promise of the file, however it is wrapped.

    :returns: the digest promised for each algorithm of :data:`LENGTHS` named
    :raises Refusal: 400 where a value is malformed or two contradict
    """
    found: dict[str, bytes] = {}
    if HEADERS.isdisjoint(fields):
        return found
    for header, algorithm in _OF_FILE.items():
        for value in fields.get(header.lower(), ()):
            merge(found, {algorithm: _hex(value, algorithm, header)}, header)
    return found


def of_body(fields: Fields, found: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """What the headers promise of the body, as :func:`of_file`.

    :param found: promises of the same bytes, to which these are added
    """
    found = {} if found is None else found
    if HEADERS.isdisjoint(fields):
        return found

    def values(header: str) -> Sequence[str]:
        return fields.get(header.lower(), ())

    for header in _NOT_CHECKED:
        if values(header):
            raise Refusal(400, f"{header} is not supported; use X-Checksum-Sha256")
    for header, algorithm in _OF_BODY.items():
        for value in values(header):
            merge(found, {algorithm: _base64(value, algorithm, header)}, header)
    for header in _DICTIONARIES:
        merge(found, _dictionary(values(header)), "Content-Digest or Repr-Digest")
    merge(found, _instance_digests(values("Digest")), "Digest")
    for value in values(_AMAZON):
        if value != _NO_PROMISE:
            merge(found, {"sha256": _hex(value, "sha256", _AMAZON)}, _AMAZON)
    return found


def merge(found: dict[str, bytes], more: Mapping[str, bytes], where: str) -> None:
    """Add promises to those that were found before.

    :param where: the header that has them
    :raises Refusal: 400 where they contradict
    """
    for algorithm, digest in more.items():
        if found.setdefault(algorithm, digest) != digest:
            raise Refusal(400, f"{where} contradicts another digest sent")


def _dictionary(values: Sequence[str]) -> dict[str, bytes]:
    """RFC 9530's; several fields of one name are one list (RFC 9110, 5.3)."""
    where = "Content-Digest or Repr-Digest"
    found: dict[str, bytes] = {}
    value = ", ".join(values)
    for member in value.split(",") if value.strip() else []:
        match = _MEMBER.fullmatch(member.strip(" \t"))
        if match is None:
            raise Refusal(400, f"malformed {where}")
        algorithm = _RFC_9530_NAMES.get(match["key"])
        if algorithm is not None:
            digest = _base64(match["bytes"] or "", algorithm, where)
            merge(found, {algorithm: digest}, where)
    return found


def _instance_digests(values: Sequence[str]) -> dict[str, bytes]:
    """RFC 3230's ``Digest: SHA-256=<base64>,MD5=<base64>``."""
    found: dict[str, bytes] = {}
    for member in _members(values):
        name, equals, value = member.partition("=")
        if not equals:
            raise Refusal(400, "malformed Digest")
        algorithm = _RFC_3230_NAMES.get(name.strip().lower())
        if algorithm is not None:
            merge(found, {algorithm: _base64(value, algorithm, "Digest")}, "Digest")
    return found


def _members(values: Sequence[str]) -> list[str]:
    """The members of a list, which may have empty ones (RFC 9110, 5.6.1.2)."""
    members = (each.strip(" \t") for each in ",".join(values).split(","))
    return [each for each in members if each]


def _hex(value: str, algorithm: str, where: str) -> bytes:
    try:
        digest = bytes.fromhex(value) if value.isalnum() else b""
    except ValueError:
        digest = b""
    return _fit(digest, algorithm, where)


def _base64(value: str, algorithm: str, where: str) -> bytes:
    try:
        digest = base64.b64decode(value.strip(" \t"), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    return _fit(digest, algorithm, where)


def _fit(digest: bytes, algorithm: str, where: str) -> bytes:
    if len(digest) != LENGTHS[algorithm]:
        raise Refusal(400, f"malformed {where}: not a {algorithm} digest")
    return digest
