"""Tokens, of which nothing but their SHA-256 is kept."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.token import TOKEN_LENGTH, Token, token_digest, token_like

TOKEN = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"


class TokenTests(SynchronousTestCase):
    """:class:`Token`, and what it is looked up by."""

    def test_digest(self) -> None:
        """The same as ``sha256sum`` has it."""
        expected = hashlib.sha256(TOKEN.encode()).digest()
        self.assertEqual(expected, token_digest(TOKEN.encode()))

    def test_holds_no_secret(self) -> None:
        """Who sees one cannot open its bucket."""
        self.assertNotIn(TOKEN, repr(Token(token_digest(TOKEN.encode()))))

    def test_does_not_expire(self) -> None:
        """But where it is said."""
        self.assertIsNone(Token(b"").expires)


class LikeTests(SynchronousTestCase):
    """:func:`token_like`."""

    def test_found(self) -> None:
        """Alone, in a path, and beside what could not be in one."""
        self.assertEqual(TOKEN_LENGTH, len(TOKEN))
        for text in (TOKEN, f"/{TOKEN}/x", f"db.{TOKEN}.gz", f"ü{TOKEN}ü"):
            self.assertEqual([TOKEN], list(token_like(text)), text)

    def test_in_a_longer_word(self) -> None:
        """At every position: none hides between letters of a name."""
        self.assertEqual(
            [f"a{TOKEN[:-1]}", TOKEN, f"{TOKEN[1:]}b"], list(token_like(f"a{TOKEN}b"))
        )

    def test_too_short(self) -> None:
        """One character fewer is no token, and no two words are one."""
        for text in ("", TOKEN[1:], f"{TOKEN[:16]}.{TOKEN[16:]}", "ü" * TOKEN_LENGTH):
            self.assertEqual([], list(token_like(text)), text)
