"""The certificates that the listeners present, as their files are now."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import suppress

from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import (
    Certificate,
    load_pem_x509_certificate,
    load_pem_x509_certificates,
)

from filebucket.config.certificate import name_of
from filebucket.config.config import Config
from filebucket.config.endpoint import Endpoint

_PEM = re.compile(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def read_roots(path: str) -> list[Certificate]:
    """The authorities in a file, without those that cannot be read; none if it is
    missing. It is for the main thread only.
    """
    found = []
    with suppress(OSError), open(path, "rb") as file, warnings.catch_warnings():
        # Some old roots have a serial number that RFC 5280 forbids.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for each in _PEM.findall(file.read()):
            with suppress(ValueError):
                found.append(load_pem_x509_certificate(each))
    return found


def read_certificates(path: str | None) -> list[Certificate]:
    """The certificates in a file; none if it is missing, unreadable or broken."""
    if path is None:
        return []
    try:
        with open(path, "rb") as file:
            return load_pem_x509_certificates(file.read())
    except (OSError, ValueError):
        return []


def chain_of(endpoint: Endpoint) -> list[Certificate]:
    """The certificates of an endpoint with TLS, its own first."""
    arguments = endpoint.arguments
    own = read_certificates(arguments.get("certKey", arguments["privateKey"]))
    return own + read_certificates(arguments.get("extraCertChain"))


def ends_of(config: Config) -> Iterator[tuple[str, float]]:
    """The name of each certificate that can be read, and when it expires, in seconds
    since the epoch.
    """
    for endpoint in (*config.listen, *([config.admin] if config.admin else [])):
        if endpoint.kind == "ssl":
            for each in chain_of(endpoint):
                yield name_of(each), each.not_valid_after_utc.timestamp()
