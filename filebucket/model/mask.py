"""Masks tokens in text that a client chose.

A client may use a token as a file's name, or as a part of it. Wherever such a name is
shown, the bucket's label replaces the token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from filebucket.model.bucket import Bucket
from filebucket.model.token import token_digest, token_like


def hide_tokens(text: str, opened: Callable[[bytes], Bucket | None]) -> str:
    """``text`` with each token replaced by its bucket's label.

    :param opened: gives the bucket that the token with this SHA-256 opens, if any
    """
    for word in token_like(text):
        bucket = opened(token_digest(word.encode("ascii")))
        if bucket is not None:
            text = text.replace(word, bucket.label)
    return text


def mask(buckets: Iterable[Bucket]) -> Callable[[str], str]:
    """:func:`hide_tokens` for the tokens of these buckets."""
    known = {token.sha256: bucket for bucket in buckets for token in bucket.tokens}
    return lambda text: hide_tokens(text, known.get)
