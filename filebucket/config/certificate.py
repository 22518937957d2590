"""The name of a certificate, for messages."""

from __future__ import annotations

from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    SubjectAlternativeName,
)

from filebucket.base.text import printable


def name_of(certificate: Certificate) -> str:
    """The subject of a certificate, such as ``CN=drop.example.com``. If that is
    empty, the first name for which it is valid, such as ``DNS:drop.example.com``.
    """
    return printable(certificate.subject.rfc4514_string() or _first(certificate))


def _first(certificate: Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName)
    except (ExtensionNotFound, ValueError):
        return ""
    found = names.value.get_values_for_type(DNSName)
    return f"DNS:{found[0]}" if found else ""
