"""Tokens."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.token import TOKEN_LENGTH, Token, token_digest, token_like

TOKEN = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"


class TokenTests(SynchronousTestCase):
    def test_digest(self) -> None:
        """The same as ``sha256sum`` prints."""
        expected = hashlib.sha256(TOKEN.encode()).digest()
        self.assertEqual(expected, token_digest(TOKEN.encode()))

    def test_holds_no_secret(self) -> None:
        """The object does not contain the token."""
        self.assertNotIn(TOKEN, repr(Token(token_digest(TOKEN.encode()))))

    def test_does_not_expire(self) -> None:
        self.assertIsNone(Token(b"").expires)


class LikeTests(SynchronousTestCase):
    """:func:`token_like`."""

    def test_found(self) -> None:
        """Alone, in a path, and beside other characters."""
        self.assertEqual(TOKEN_LENGTH, len(TOKEN))
        for text in (TOKEN, f"/{TOKEN}/x", f"db.{TOKEN}.gz", f"ü{TOKEN}ü"):
            self.assertEqual([TOKEN], list(token_like(text)), text)

    def test_in_a_longer_word(self) -> None:
        """At every position of a longer word."""
        self.assertEqual(
            [f"a{TOKEN[:-1]}", TOKEN, f"{TOKEN[1:]}b"], list(token_like(f"a{TOKEN}b"))
        )

    def test_too_short(self) -> None:
        """31 characters are no token, and words are not joined."""
        for text in ("", TOKEN[1:], f"{TOKEN[:16]}.{TOKEN[16:]}", "ü" * TOKEN_LENGTH):
            self.assertEqual([], list(token_like(text)), text)
