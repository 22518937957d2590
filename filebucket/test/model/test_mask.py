"""Masking tokens in text that a client chose."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.model.token import Token, token_digest

TOKEN = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"
OLD = "Xo3_hTq6-MzE1yKf8rVwBi5CnPlA7jDs"
OTHER = "f0e1d2c3b4a5968778695a4b3c2d1e0f"


def bucket(name: str | None, *tokens: str) -> Bucket:
    return Bucket(
        tuple(Token(token_digest(each.encode())) for each in tokens), "", name
    )


class MaskTests(SynchronousTestCase):
    """:func:`mask`."""

    def setUp(self) -> None:
        self.mask = mask([bucket("web01", TOKEN, OLD), bucket(None, OTHER)])

    def test_named(self) -> None:
        """The bucket's name replaces each of its tokens."""
        for token in (TOKEN, OLD):
            self.assertEqual("a-web01-b", self.mask(f"a-{token}-b"))
        self.assertEqual("web01/web01/web01", self.mask(f"{TOKEN}/{OLD}/{TOKEN}"))

    def test_nameless(self) -> None:
        """For a bucket without a name, it is the beginning of the digest."""
        digest = token_digest(OTHER.encode()).hex()
        self.assertEqual(f"#{digest[:6]}.gz", self.mask(f"{OTHER}.gz"))

    def test_nobodys(self) -> None:
        """Unknown tokens are no secret and stay."""
        for text in ("", "db-1.sql.gz", TOKEN[1:], TOKEN[::-1], "\ud800\n\u202e" * 20):
            self.assertEqual(text, self.mask(text))
