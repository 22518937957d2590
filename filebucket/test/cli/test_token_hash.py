"""``filebucket token-hash``."""

from __future__ import annotations

from filebucket.test.kit.commands import HASH, TOKEN, CliCase


class TokenHashTests(CliCase):
    def test_stdin(self) -> None:
        """With and without a newline."""
        for end in ("", "\n", "\r\n"):
            self.assertEqual(f"{HASH}\n", self.run_("token-hash", stdin=TOKEN + end))

    def test_no_token(self) -> None:
        """An invalid token is not printed."""
        for stdin, reason in (
            ("secret", "6 characters, expected 32"),
            ("", "0 characters"),
        ):
            line = self.refused("token-hash", stdin=stdin)
            self.assertIn(f"Error: not a valid token: {reason}", line)
            self.assertNotIn("secret", line)

    def test_not_as_an_argument(self) -> None:
        """All users of the machine can see arguments."""
        self.assertEqual(2, self.invoke("token-hash", TOKEN).exit_code)
