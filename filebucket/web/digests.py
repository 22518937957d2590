"""The digests that a client may promise of what it sends.

``X-Checksum-Sha256: <hex>`` promises the file's own bytes and goes with every
kind of push. ``Content-Digest`` and ``Repr-Digest`` (RFC 9530) promise the
body's bytes, so they mean the file only where the body is the file: PUT.
An algorithm that this server does not know is ignored, as RFC 9530 asks; a
value that it cannot read is refused, because a promise that nobody checks is
worse than none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from filebucket.base.errors import Refusal

LENGTHS: Mapping[str, int] = {"sha256": 32, "sha512": 64}
"""What can be promised: hashlib's name of the algorithm, its digest's bytes."""

_RFC_9530_NAMES = {"sha-256": "sha256", "sha-512": "sha512"}

# A member of an RFC 8941 dictionary, as far as RFC 9530 uses it: a key, and a
# byte sequence between colons. What follows a ';' are parameters, ignored.
_MEMBER = re.compile(
    r"(?P<key>[a-z*][a-z0-9_.*-]*)"
    r"(?:=(?::(?P<bytes>[A-Za-z0-9+/=]*):|(?P<other>[^:,;\"]+|\"[^\"]*\")))?"
    r"(?:;[^,]*)?"
)


def promised(
    x_checksum_sha256: Sequence[str], *dictionaries: Sequence[str]
) -> dict[str, bytes]:
    """What a push's headers promise.

    :param x_checksum_sha256: the values of that header, if any
    :param dictionaries: the values of ``Content-Digest`` and ``Repr-Digest``
    :returns: the digest promised for each algorithm of :data:`LENGTHS` named
    :raises Refusal: 400 where a value is malformed or two contradict
    """
    found: dict[str, bytes] = {}
    for value in x_checksum_sha256:
        try:
            digest = bytes.fromhex(value) if value.isalnum() else b""
        except ValueError:
            digest = b""
        _promise(found, "sha256", digest, "X-Checksum-Sha256")
    for values in dictionaries:
        # RFC 9110, 5.3: several fields of one name are one list.
        if values:
            _read_dictionary(found, ", ".join(values))
    return found


def _read_dictionary(found: dict[str, bytes], value: str) -> None:
    for member in value.split(","):
        match = _MEMBER.fullmatch(member.strip(" \t"))
        if match is None:
            raise Refusal(400, "malformed Content-Digest or Repr-Digest")
        algorithm = _RFC_9530_NAMES.get(match["key"])
        if algorithm is None:
            continue
        try:
            digest = base64.b64decode(match["bytes"] or "", validate=True)
        except binascii.Error:
            digest = b""
        _promise(found, algorithm, digest, "Content-Digest or Repr-Digest")


def _promise(
    found: dict[str, bytes], algorithm: str, digest: bytes, where: str
) -> None:
    if len(digest) != LENGTHS[algorithm]:
        raise Refusal(400, f"malformed {where}: not a {algorithm} digest")
    if found.setdefault(algorithm, digest) != digest:
        raise Refusal(400, f"{where} contradicts another digest promised")
