"""Tests of :mod:`filebucket.daemon.certificates`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.config.load import parse
from filebucket.daemon.certificates import ends_of
from filebucket.test.kit.certificates import (
    certify,
    key_pem,
    make_key,
    write_chain,
)


class EndsTests(SynchronousTestCase):
    """:func:`ends_of`."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def names(self, *listen: str, admin: str | None = None) -> list[str]:
        """The names of the certificates of these endpoints."""
        keys: dict[str, object] = {"home": "home", "buckets": [], "listen": listen}
        if admin is not None:
            keys["admin"] = admin
        config = parse(json.dumps(keys), str(self.folder / "config.json"))
        found = list(ends_of(config))
        for _, ends in found:
            day = (ends - datetime.now(UTC).timestamp()) / 86400
            self.assertEqual(1, round(day))
        return [name for name, _ in found]

    def test_names(self) -> None:
        write_chain(self.folder)
        pair = "privateKey=key.pem:certKey=cert.pem"
        self.assertEqual(
            ["CN=server", "CN=middle", "CN=server"],
            self.names(
                "tcp:1",
                f"ssl:2:{pair}:extraCertChain=middle.pem",
                admin=f"ssl:3:{pair}:clientCA=root.pem",
            ),
        )

    def test_escapes(self) -> None:
        """A certificate cannot control the terminal."""
        key = make_key()
        (self.folder / "evil.pem").write_bytes(key_pem(key) + certify("\x1b[2J", key))
        self.assertEqual(["CN=\\x1b[2J"], self.names("ssl:1:evil.pem"))

    def test_unreadable(self) -> None:
        (self.folder / "broken.pem").write_text("x")
        self.assertEqual([], self.names("ssl:1:no.pem", "ssl:2:broken.pem"))
