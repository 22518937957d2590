"""Tests of :mod:`filebucket.config.certificate`."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from filebucket.config.certificate import name_of
from filebucket.test.kit.certificates import NOW, make_key


class NameTests(SynchronousTestCase):
    """:func:`name_of`."""

    def name(self, common: str = "", *names: str) -> str:
        """The name of a certificate.

        :param common: its subject; empty if it has none
        :param names: for which it is valid
        """
        key = make_key()
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
        builder = x509.CertificateBuilder(
            subject_name=x509.Name(attributes),
            issuer_name=x509.Name([]),
            public_key=key.public_key(),
            serial_number=1,
            not_valid_before=NOW,
            not_valid_after=NOW + timedelta(days=1),
        )
        if names:
            others = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
            builder = builder.add_extension(others, critical=not common)
        return name_of(builder.sign(key, SHA256()))

    def test_subject(self) -> None:
        self.assertEqual("CN=a.example", self.name("a.example", "b.example"))

    def test_no_subject(self) -> None:
        """As in the short-lived certificates of Let's Encrypt."""
        self.assertEqual("DNS:a.example", self.name("", "a.example", "b.example"))

    def test_no_name(self) -> None:
        self.assertEqual("", self.name())

    def test_escapes(self) -> None:
        """It cannot control the terminal."""
        self.assertEqual("CN=\\x1b[2J", self.name("\x1b[2J"))
