"""TLS: loading the files, and reloading them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.http import tls
from filebucket.http.tls import LOOK_EVERY, Certificates, Identity, Renewal
from filebucket.test.kit.certificates import (
    certify,
    key_pem,
    make_key,
    write_chain,
    write_pair,
)
from filebucket.test.kit.fakes import at_once

NAME = "ssl:443:key.pem:cert.pem"


class TlsCase(SynchronousTestCase):
    """Has a folder with a key and a certificate."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        write_pair(self.folder)
        self.arguments = {
            "privateKey": str(self.folder / "key.pem"),
            "certKey": str(self.folder / "cert.pem"),
        }

    def make(self, **more: str) -> Certificates:
        paths = {key: str(self.folder / value) for key, value in more.items()}
        return Certificates(NAME, {**self.arguments, **paths})

    def shake(
        self, certificates: Certificates, *pair: str
    ) -> tuple[X509 | None, X509 | None]:
        """The certificates that server and client see of each other."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if pair:
            key, certificate = (str(self.folder / each) for each in pair)
            context.use_privatekey_file(key)
            context.use_certificate_chain_file(certificate)
        server = SSL.Connection(certificates.getContext())
        server.set_accept_state()
        client = SSL.Connection(context)
        client.set_connect_state()
        for _ in range(4):
            for here, there in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    here.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    there.bio_write(here.bio_read(65536))
        return server.get_peer_certificate(), client.get_peer_certificate()

    def serial(self, certificates: Certificates) -> int:
        """The serial number of the certificate that a client sees."""
        _, seen = self.shake(certificates)
        assert seen is not None
        return seen.get_serial_number()


class ClientCertificateTests(TlsCase):
    """Client certificates."""

    def write_client(self, name: str) -> None:
        """A key pair for a client, and the certificate of its issuer."""
        issuer_key, key = make_key(), make_key()
        issuer = f"{name}-ca"
        (self.folder / f"{issuer}.pem").write_bytes(certify(issuer, issuer_key))
        (self.folder / f"{name}.key").write_bytes(key_pem(key))
        (self.folder / f"{name}.pem").write_bytes(
            certify("web01", key, issuer, issuer_key)
        )

    def test_not_asked(self) -> None:
        self.write_client("a")
        self.assertIsNone(self.shake(self.make(), "a.key", "a.pem")[0])

    def test_demanded(self) -> None:
        self.write_client("a")
        self.write_client("b")
        certificates = self.make(clientCA="a-ca.pem")
        seen, _ = self.shake(certificates, "a.key", "a.pem")
        assert seen is not None
        self.assertEqual("web01", seen.get_subject().CN)
        for pair in ((), ("b.key", "b.pem"), ("key.pem", "cert.pem")):
            self.assertRaises(SSL.Error, self.shake, certificates, *pair)

    def test_several_issuers(self) -> None:
        self.write_client("a")
        self.write_client("b")
        both = [(self.folder / f"{each}-ca.pem").read_bytes() for each in "ab"]
        (self.folder / "both.pem").write_bytes(b"".join(both))
        certificates = self.make(clientCA="both.pem")
        for name in "ab":
            self.assertTrue(self.shake(certificates, f"{name}.key", f"{name}.pem")[0])

    def test_issuer_in_the_middle(self) -> None:
        """An intermediate issuer is trusted without its own issuer."""
        write_chain(self.folder)
        certificates = self.make(clientCA="middle.pem")
        self.assertTrue(self.shake(certificates, "key.pem", "cert.pem")[0])

    def test_mistakes(self) -> None:
        (self.folder / "text").write_bytes(b"nothing")
        for name, mistake in (
            ("text", "clientCA: no PEM certificate found"),
            ("no", f"clientCA: {self.folder}/no: No such file or directory"),
        ):
            error = self.assertRaises(ValueError, self.make, clientCA=name)
            self.assertEqual(mistake, str(error))


class MemoryTests(TlsCase):
    """A system that forbids memory that is both writable and executable."""

    def test_told_at_once(self) -> None:
        """This is reported at the start, not at each connection."""

        def cannot(context: SSL.Context, callback: object) -> None:
            raise MemoryError("Cannot allocate write+execute memory")

        self.patch(SSL.Context, "set_alpn_select_callback", cannot)
        error = self.assertRaises(ValueError, self.make)
        self.assertIn("MemoryDenyWriteExecute", str(error))


class KeyKindTests(TlsCase):
    """Valid keys of unsupported types."""

    def test_told(self) -> None:
        (self.folder / "key.pem").write_bytes(key_pem(X25519PrivateKey.generate()))
        error = self.assertRaises(ValueError, self.make)
        self.assertIn("privateKey: does not match", str(error))
        issuer, key = make_key(), X25519PrivateKey.generate()
        (self.folder / "key.pem").write_bytes(key_pem(key))
        (self.folder / "cert.pem").write_bytes(certify("server", key, "root", issuer))
        error = self.assertRaises(ValueError, self.make)
        self.assertEqual("unsupported type of key", str(error))


class ChangedTests(TlsCase):
    """How changes of the files are found."""

    def test_subject(self) -> None:
        """It names the certificate for people, without the paths of the files."""
        self.assertEqual("CN=server", self.make().subject)

    def settled(self, certificates: Certificates) -> Identity | None:
        """The results of two examinations."""
        self.assertIsNone(certificates.changed())
        return certificates.changed()

    def test_nothing(self) -> None:
        certificates = self.make()
        self.patch(tls, "identify", None)
        for _ in range(3):
            self.assertIsNone(certificates.changed())

    def test_new_pair(self) -> None:
        """It is read once, when two examinations agree; that alone does not use it."""
        certificates = self.make()
        before = self.serial(certificates)
        write_pair(self.folder)
        identity = self.settled(certificates)
        assert identity is not None
        self.assertIsNone(certificates.changed())
        self.assertEqual(before, self.serial(certificates))
        certificates.use(identity)
        self.assertNotEqual(before, self.serial(certificates))

    def test_while_they_change(self) -> None:
        certificates = self.make()
        for _ in range(3):
            write_pair(self.folder)
            self.assertIsNone(certificates.changed())
        self.assertIsNotNone(certificates.changed())

    def test_half_of_it(self) -> None:
        """A key that does not match the certificate yet is reported once."""
        certificates = self.make()
        key = make_key()
        (self.folder / "key.pem").write_bytes(key_pem(key))
        error = self.assertRaises(ValueError, self.settled, certificates)
        self.assertEqual("privateKey: does not match the certificate", str(error))
        self.assertIsNone(self.settled(certificates))
        (self.folder / "cert.pem").write_bytes(certify("server", key))
        self.assertIsNotNone(self.settled(certificates))

    def test_gone(self) -> None:
        certificates = self.make()
        path = self.folder / "key.pem"
        path.rename(self.folder / "away")
        error = self.assertRaises(ValueError, self.settled, certificates)
        self.assertEqual(f"privateKey: {path}: No such file or directory", str(error))
        self.assertIsNone(self.settled(certificates))
        (self.folder / "away").rename(path)
        self.assertIsNotNone(self.settled(certificates))

    def test_link(self) -> None:
        """A link to another target, as Let's Encrypt uses, is a change."""
        for name in ("old", "new"):
            (self.folder / name).mkdir()
            write_pair(self.folder / name)
            for each in ("key.pem", "cert.pem"):
                os.utime(self.folder / name / each, (1, 1))
        link = self.folder / "live"
        link.symlink_to("old")
        certificates = self.make(privateKey="live/key.pem", certKey="live/cert.pem")
        link.unlink()
        link.symlink_to("new")
        self.assertIsNotNone(self.settled(certificates))

    def test_client_certificates(self) -> None:
        (self.folder / "ca.pem").write_bytes(certify("ca", make_key()))
        certificates = self.make(clientCA="ca.pem")
        (self.folder / "ca.pem").write_bytes(certify("ca", make_key()))
        self.assertIsNotNone(self.settled(certificates))

    def test_not_ours_any_more(self) -> None:
        """Rights dropped after the start are a change, reported once."""
        certificates = self.make()
        may_read = True
        access = os.access

        def changed_access(path: str, mode: int, **keys: bool) -> bool:
            return may_read and access(path, mode, **keys)

        self.patch(os, "access", changed_access)
        self.assertIsNone(self.settled(certificates))
        may_read = False
        self.patch(tls, "identify", self.forbidden)
        self.assertRaises(ValueError, self.settled, certificates)
        self.assertIsNone(self.settled(certificates))

    def forbidden(self, arguments: object) -> Identity:
        raise ValueError("privateKey: Permission denied")


class RenewalTests(TlsCase):
    """The examinations over time."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()

    def start(
        self,
        *certificates: Certificates,
        run: Callable[..., Deferred[Identity | None]] = at_once,
    ) -> Renewal:
        renewal = Renewal(self.clock, run, certificates)
        renewal.startService()
        return renewal

    def lines(self, seconds: float) -> list[str]:
        """The lines logged meanwhile."""
        with capturedLogs() as events:
            self.clock.pump([LOOK_EVERY] * int(seconds / LOOK_EVERY))
        return [formatEvent(event) for event in events]

    def test_new_certificate(self) -> None:
        certificates, other = self.make(), self.make()
        before = self.serial(certificates)
        self.start(certificates, other)
        self.assertEqual([], self.lines(60))
        write_pair(self.folder)
        lines = self.lines(2 * LOOK_EVERY)
        self.assertRegex(
            lines[0],
            r"^TLS: new certificate loaded, valid until \d{4}-\d\d-\d\d .*Z: ssl:443:k",
        )
        self.assertEqual(2, len(lines))
        self.assertNotEqual(before, self.serial(certificates))
        self.assertEqual([], self.lines(60))

    def test_unfit(self) -> None:
        certificates = self.make()
        before = self.serial(certificates)
        self.start(certificates)
        (self.folder / "key.pem").write_bytes(key_pem(make_key()))
        self.assertEqual(
            [
                "TLS: changed files not loaded: ssl:443:key.pem:cert.pem:"
                " privateKey: does not match the certificate"
            ],
            self.lines(60),
        )
        self.assertEqual(before, self.serial(certificates))

    def test_no_thread(self) -> None:
        """If no thread can be created, the next examination comes all the same."""
        tries = 0

        def run(function: object) -> Deferred[Identity | None]:
            nonlocal tries
            tries += 1
            raise OSError("no thread")

        self.start(self.make(), run=run)
        self.assertEqual(2, len(self.lines(2 * LOOK_EVERY)))
        self.assertEqual(2, tries)

    def test_stop(self) -> None:
        for certificates in ((self.make(),), ()):
            renewal = self.start(*certificates)
            self.assertEqual(len(certificates), len(self.clock.getDelayedCalls()))
            renewal.stopService()
            self.assertEqual([], self.clock.getDelayedCalls())

    def test_stop_while_it_looks(self) -> None:
        """A disk that hangs does not delay the stop."""
        waiting: Deferred[Identity | None] = Deferred()
        renewal = self.start(self.make(), run=lambda function: waiting)
        self.clock.advance(LOOK_EVERY)
        renewal.stopService()
        waiting.callback(None)
        self.assertEqual([], self.clock.getDelayedCalls())
