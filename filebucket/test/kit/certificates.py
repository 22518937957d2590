"""Certificates and keys for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
"""The middle of each certificate's two days: all that a test makes end at once, also if
another second, or another day, begins meanwhile.
"""

SigningKey = EllipticCurvePrivateKey | RSAPrivateKey
Key = SigningKey | X25519PrivateKey


def make_key() -> EllipticCurvePrivateKey:
    """A key of a type that is quick to generate."""
    return generate_private_key(SECP256R1())


def key_pem(key: Key, passphrase: bytes | None = None) -> bytes:
    """A key in PEM."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def certify(
    subject: str,
    key: Key,
    issuer: str | None = None,
    issuer_key: SigningKey | None = None,
    names: Sequence[str] = (),
) -> bytes:
    """A certificate for 127.0.0.1, in PEM.

    :param issuer: the issuer; by default it is self-signed
    :param names: DNS names for which it is valid, too
    """
    builder = x509.CertificateBuilder(
        subject_name=_name(subject),
        issuer_name=_name(issuer or subject),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=NOW - timedelta(days=1),
        not_valid_after=NOW + timedelta(days=1),
    )
    address = x509.IPAddress(ip_address("127.0.0.1"))
    valid_for = x509.SubjectAlternativeName([address, *map(x509.DNSName, names)])
    signs = subject != "server"
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signing = issuer_key or key
    assert not isinstance(signing, X25519PrivateKey)
    # Python 3.13 requires these (RFC 5280, 4.2.1.1 to 4.2.1.3).
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    certificate = (
        builder.add_extension(valid_for, critical=False)
        .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
        .add_extension(own, critical=False)
        .add_extension(issued_by, critical=False)
        .add_extension(_usage(signs), critical=True)
        .sign(signing, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def write_pair(folder: Path, key: Key | None = None) -> None:
    """Write ``key.pem`` and a self-signed ``cert.pem`` to ``folder``."""
    key = key or make_key()
    (folder / "key.pem").write_bytes(key_pem(key))
    (folder / "cert.pem").write_bytes(certify("server", key))


def write_chain(folder: Path) -> None:
    """Write ``root.pem``, which clients trust, ``middle.pem``, which they do not have,
    and a key pair that the latter has issued, to ``folder``.
    """
    root, middle, key = make_key(), make_key(), make_key()
    (folder / "root.pem").write_bytes(certify("root", root))
    (folder / "middle.pem").write_bytes(certify("middle", middle, "root", root))
    (folder / "key.pem").write_bytes(key_pem(key))
    (folder / "cert.pem").write_bytes(certify("server", key, "middle", middle))
