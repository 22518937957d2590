"""Texts that a client chose, with no token in them.

A client may use a token for a file's name, or in one: where such a name is shown, the
bucket's label stands in the token's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from filebucket.model.bucket import Bucket
from filebucket.model.token import token_digest, token_like


def hide_tokens(text: str, opened: Callable[[bytes], Bucket | None]) -> str:
    """``text`` with a bucket's label in the place of every token in it.

    :param opened: the bucket that a token of this SHA-256 opens, if any
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
