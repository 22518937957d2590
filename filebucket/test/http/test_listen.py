"""Listeners from a configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from OpenSSL import SSL
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.web import http
from twisted.web.resource import Resource

from filebucket.base.errors import ConfigError
from filebucket.config.load import parse
from filebucket.http.listen import BACKLOG, Listener, listeners
from filebucket.http.site import StreamingSite
from filebucket.test.kit.certificates import certify, key_pem, make_key, write_pair


class ListeningCase(SynchronousTestCase):
    """Has a folder with a key and a certificate."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        write_pair(self.folder)
        self.reactor = MemoryReactorClock()

    def listeners(self, **keys: object) -> list[Listener]:
        path = str(self.folder / "config.json")
        text = json.dumps({"home": "home", "buckets": [], **keys})
        given = parse(text, path)
        return listeners(self.reactor, given.places, given.trusted_proxies, path)

    def mistakes(self, *listen: str) -> tuple[str, ...]:
        with self.assertRaises(ConfigError) as caught:
            self.listeners(listen=listen)
        error: ConfigError = caught.exception
        self.assertEqual(str(self.folder / "config.json"), error.source)
        return error.mistakes

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)


class OpeningTests(ListeningCase):
    """Endpoints that are opened."""

    def test_host_and_port(self) -> None:
        for host in ("127.0.0.1", "::1"):
            (made,) = self.listeners(host=host, port=7)
            made.endpoint.listen(Factory())
            port, _, backlog, interface = self.reactor.tcpServers.pop()
            self.assertEqual((7, BACKLOG, host), (port, backlog, interface))
            self.assertEqual((f"{host}, port 7", None), (made.name, made.certificates))

    def test_tcp(self) -> None:
        first, second = self.listeners(
            listen=["tcp:1:127.0.0.1:9", r"tcp6:2:interface=\:\:1"]
        )
        for each in (first, second):
            each.endpoint.listen(Factory())
        found = [(each[0], *each[2:]) for each in self.reactor.tcpServers]
        self.assertEqual([(1, 9, "127.0.0.1"), (2, BACKLOG, "::1")], found)
        self.assertEqual("tcp:1:127.0.0.1:9", first.name)

    def test_unix(self) -> None:
        (made,) = self.listeners(listen=[r"unix:a\:b\=\\c:mode=600"])
        self.assertIsNone(made.certificates)
        made.endpoint.listen(Factory())
        ((address, _, backlog, mode, locked),) = self.reactor.unixServers
        self.assertEqual(str(self.folder / r"a:b=\c"), os.fsdecode(address))
        self.assertEqual((BACKLOG, 0o600, True), (backlog, mode, locked))

    def test_tls(self) -> None:
        (made,) = self.listeners(
            listen=["ssl:1:key.pem:cert.pem:interface=127.0.0.1:backlog=9"]
        )
        self.assertTrue(made.certificates)
        made.endpoint.listen(Factory())
        ((port, _, options, backlog, interface),) = self.reactor.sslServers
        self.assertEqual((1, 9, "127.0.0.1"), (port, backlog, interface))
        connection = SSL.Connection(options.getContext(), None)
        for cipher in connection.get_cipher_list():
            # All of TLS 1.3, and nothing without forward secrecy or AEAD.
            self.assertRegex(cipher, "^TLS_|^ECDHE-.*(GCM|CHACHA20)")

    def test_one_file(self) -> None:
        both = (self.folder / "key.pem").read_bytes()
        self.write("both.pem", both + (self.folder / "cert.pem").read_bytes())
        (made,) = self.listeners(listen=["ssl:1:both.pem"])
        self.assertIsInstance(made.endpoint, SSL4ServerEndpoint)

    def test_line_ends(self) -> None:
        for name in ("key.pem", "cert.pem"):
            content = (self.folder / name).read_bytes()
            self.write(name, content.replace(b"\n", b"\r\n"))
        self.listeners(listen=["ssl:1:key.pem:cert.pem"])


class ProtocolTests(SynchronousTestCase):
    """The protocol within TLS."""

    def test_http_1_1_only(self) -> None:
        """HTTP/2 is not offered, whatever else is installed.

        Twisted offers it (RFC 7301) if the h2 package is installed, and curl accepts
        the offer.
        """
        self.patch(http, "H2_ENABLED", True)
        site = StreamingSite(Resource(), Clock(), lambda *_: None)
        self.assertEqual([b"http/1.1"], site.acceptableProtocols())


class MistakeTests(ListeningCase):
    """Errors in the files."""

    def test_all_at_once(self) -> None:
        self.assertEqual(
            (
                f"$.listen[1]: certKey: {self.folder}/no.pem:"
                " No such file or directory",
                f"$.listen[2]: privateKey: {self.folder}: Is a directory",
                "$.listen[3]: systemd passed no such socket",
                "$.listen[4]: systemd passed no such socket",
            ),
            self.mistakes(
                "tcp:1",
                "ssl:2:key.pem:no.pem",
                "ssl:3:.:cert.pem",
                "systemd:INET:0",
                "systemd:INET:name=x",
            ),
        )

    def test_forbidden(self) -> None:
        """A key that may not be read."""
        if os.geteuid() == 0:
            raise SkipTest("root may read everything")
        (self.folder / "key.pem").chmod(0)
        (mistake,) = self.mistakes("ssl:1:key.pem:cert.pem")
        self.assertTrue(mistake.endswith("/key.pem: Permission denied"), mistake)

    def test_content(self) -> None:
        self.write("encrypted.pem", key_pem(make_key(), b"secret"))
        self.write("other.pem", key_pem(make_key()))
        self.write("text.pem", b"nothing")
        self.write("binary.pem", bytes(range(256)))
        self.write("broken.pem", (self.folder / "cert.pem").read_bytes()[:200])
        self.write(
            "odd.pem",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        for files, mistake in (
            ("encrypted.pem:cert.pem", "privateKey: encrypted; use an unencrypted key"),
            ("other.pem:cert.pem", "privateKey: does not match the certificate"),
            ("text.pem:cert.pem", "privateKey: no PEM private key found"),
            ("cert.pem:cert.pem", "privateKey: no PEM private key found"),
            ("binary.pem:cert.pem", "privateKey: no PEM private key found"),
            ("key.pem:text.pem", "certKey: no PEM certificate found"),
            ("key.pem:broken.pem", "certKey: no PEM certificate found"),
            ("key.pem:odd.pem", "certKey: no PEM certificate found"),
            ("key.pem", "privateKey: no PEM certificate found"),
            (
                "key.pem:cert.pem:extraCertChain=text.pem",
                "extraCertChain: no PEM certificate found",
            ),
        ):
            self.assertEqual(
                (f"$.listen[0]: {mistake}",), self.mistakes(f"ssl:1:{files}")
            )

    def test_weak_key(self) -> None:
        """A key that OpenSSL rejects is reported at the start, not to every client."""
        key = generate_private_key(65537, 1024)
        self.write("key.pem", key_pem(key))
        self.write("cert.pem", certify("server", key))
        (mistake,) = self.mistakes("ssl:1:key.pem:cert.pem")
        self.assertEqual(
            "$.listen[0]: TLS cannot use the certificate: ee key too small", mistake
        )
