"""The digests that a client may send with a push.

Every digest is compared, or the push is refused: ignoring one would be worse than none.
``X-Checksum-Sha256: <hex>`` and similar headers hold the digest of the file, in every
kind of push. ``Content-Digest`` and ``Repr-Digest`` (RFC 9530), and the older headers
that they replace, hold the digest of the body: that is the file in a PUT, and the whole
form in a POST.

An unknown algorithm is ignored if the header may name several, as RFC 9530 requires. A
malformed value is refused, and so is a header whose only algorithm is unknown.
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
"""Supported algorithms: hashlib's name, and the length of the digest in bytes."""

Fields: TypeAlias = Mapping[str, Sequence[str]]
"""The values of each header, by its name in lower case."""

_OF_FILE: Mapping[str, str] = {
    "X-Checksum-Md5": "md5",
    "X-Checksum-Sha1": "sha1",
    "X-Checksum-Sha256": "sha256",
    "X-Checksum-Sha512": "sha512",
}
"""Digests of the file, in hex."""

_OF_BODY: Mapping[str, str] = {
    "Content-MD5": "md5",
    "X-Amz-Checksum-Sha1": "sha1",
    "X-Amz-Checksum-Sha256": "sha256",
}
"""Digests of the body, in base64 (RFC 1864; Amazon S3)."""

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
"""Refused headers of S3, ownCloud, tus, Backblaze, Oracle, Google and Azure."""

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
"""All headers that may hold a digest, in lower case."""

# A member of an RFC 8941 dictionary, as RFC 9530 uses it: a key, and a byte sequence
# between colons. Parameters after a ';' are ignored.
_MEMBER = re.compile(
    r"(?P<key>[a-z*][a-z0-9_.*-]*)"
    r"(?:=(?::(?P<bytes>[A-Za-z0-9+/=]*):|(?P<other>[^:,;\"]+|\"[^\"]*\")))?"
    r"(?:;[^,]*)?"
)


OF_FILE = frozenset(each.lower() for each in _OF_FILE)
"""The headers with digests of the file, whatever the body is, in lower case."""


def of_file(fields: Fields) -> dict[str, bytes]:
    """The digests of the file that the headers hold.

    :returns: the digest for each algorithm of :data:`LENGTHS` that is named
    :raises Refusal: 400 if a value is malformed or two contradict each other
    """
    found: dict[str, bytes] = {}
    if HEADERS.isdisjoint(fields):
        return found
    for header, algorithm in _OF_FILE.items():
        for value in fields.get(header.lower(), ()):
            merge(found, {algorithm: _hex(value, algorithm, header)}, header)
    return found


def of_body(fields: Fields, found: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """The digests of the body that the headers hold; see :func:`of_file`.

    :param found: other digests of the same bytes, to which these are added
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
    """Add digests to those found before.

    :param where: the header that holds them
    :raises Refusal: 400 if two contradict each other
    """
    for algorithm, digest in more.items():
        if found.setdefault(algorithm, digest) != digest:
            raise Refusal(400, f"{where} contradicts another digest sent")


def _dictionary(values: Sequence[str]) -> dict[str, bytes]:
    """Parse RFC 9530; several fields with one name form one list (RFC 9110, 5.3)."""
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
    """Parse RFC 3230, ``Digest: SHA-256=<base64>,MD5=<base64>``."""
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
    """The members of a list, without empty ones (RFC 9110, 5.6.1.2)."""
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
