"""Tests of :mod:`filebucket.daemon.certificates`."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.config.load import parse
from filebucket.daemon.certificates import ends_of, read_roots
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


class RootsTests(SynchronousTestCase):
    """:func:`read_roots`."""

    def test_malformed(self) -> None:
        """Each system has some; the others count."""
        good, bad = certify("good", make_key()).decode(), certify("bad", make_key())
        der = bytearray(ssl.PEM_cert_to_DER_cert(bad.decode()))
        der[der.index(b"\xa0\x03\x02\x01\x02\x02") + 7] = 0x80
        negative = ssl.DER_cert_to_PEM_cert(bytes(der))
        file = Path(self.mktemp())
        file.write_text(good.replace("M", "A") + negative + "# text\n" + good)
        names = [each.subject.rfc4514_string() for each in read_roots(str(file))]
        # Newer versions of cryptography refuse the negative serial number.
        self.assertIn(names, (["CN=bad", "CN=good"], ["CN=good"]))
        self.assertEqual([], self.flushWarnings())

    def test_missing(self) -> None:
        self.assertEqual([], read_roots("missing"))
