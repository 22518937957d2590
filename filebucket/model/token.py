"""Tokens, the secrets that open buckets.

Nothing here keeps a token: a :class:`Token` has only its SHA-256, by which it is looked
up.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterator

from attrs import frozen

TOKEN_LENGTH = 32
TOKEN_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_")


@frozen
class Token:
    """A token that opens a bucket.

    :param sha256: the SHA-256 of the token
    :param expires: when it expires, in seconds since the epoch
    """

    sha256: bytes
    expires: float | None = None


def token_digest(token: bytes) -> bytes:
    """The SHA-256 of ``token``, which is all that is kept of it."""
    return hashlib.sha256(token).digest()


# At every position, to find a token within a longer word.
_TOKEN_LIKE = re.compile(rf"(?=([A-Za-z0-9_-]{{{TOKEN_LENGTH}}}))")


def token_like(text: str) -> Iterator[str]:
    """All parts of ``text`` that could be a token."""
    for match in _TOKEN_LIKE.finditer(text):
        yield match[1]
