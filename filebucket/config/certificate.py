"""The names of a certificate."""

from __future__ import annotations

from cryptography.x509 import (
    Certificate,
    DNSName,
    DuplicateExtension,
    ExtensionNotFound,
    SubjectAlternativeName,
    UnsupportedGeneralNameType,
)

from filebucket.base.text import printable


def name_of(certificate: Certificate) -> str:
    """The subject of a certificate, such as ``CN=drop.example.com``. If that is
    empty, the first name for which it is valid, such as ``DNS:drop.example.com``.
    """
    subject = certificate.subject.rfc4514_string()
    names = [f"DNS:{each}" for each in dns_names(certificate)]
    return printable(subject or "".join(names[:1]))


def dns_names(certificate: Certificate) -> list[str]:
    """The DNS names for which it is valid, wildcards among them; none if they cannot be
    read.
    """
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName)
    except _UNREADABLE:
        return []
    return names.value.get_values_for_type(DNSName)


_UNREADABLE = (
    DuplicateExtension,
    ExtensionNotFound,
    UnsupportedGeneralNameType,
    ValueError,
)
