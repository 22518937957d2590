"""Where connections are taken, from what the configuration says of it.

:mod:`filebucket.endpoints` says what was written; here it becomes Twisted's
endpoints, which the daemon opens. Certificates and keys are read now, at the
start, as long as the daemon may read what belongs to root; what is wrong with
them is a mistake in the configuration, and never a traceback.

TLS is 1.2 or newer, and only with ciphers that are authenticated and with keys
that are forgotten with the connection (RFC 9325, 4.2): what was recorded on
the network cannot be read by whoever gets the server's key one day. Twisted
would take RSA's exchange of keys, too, with which it could.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.ssl import AcceptableCiphers, CertificateOptions, TLSVersion

from filebucket.config import Config
from filebucket.endpoints import Endpoint
from filebucket.errors import ConfigError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Those of TLS 1.2, in OpenSSL's words. All of TLS 1.3 are as good."""

BACKLOG = 1024
"""Connections that may wait to be taken. Twisted's own 50 are fewer than a
thousand cron jobs at the full hour; who finds no place tries again a second
later, then two. The kernel has a bound of its own, net.core.somaxconn.
"""


@frozen
class Listener:
    """One place to listen.

    :param name: as the operator wrote it
    :param secure: whether it speaks TLS
    """

    name: str
    endpoint: IStreamServerEndpoint
    secure: bool = False


def listeners(reactor: Any, config: Config, path: str) -> list[Listener]:
    """Where to listen. Nothing is opened yet.

    :param reactor: provides TCP, TLS, UNIX sockets and inherited ones
    :param path: where ``config`` came from
    :raises ConfigError: certificates, keys and inherited sockets that are not
        there or cannot be used; every mistake at once
    """
    if not config.listen:
        tcp = TCP6ServerEndpoint if ":" in config.host else TCP4ServerEndpoint
        endpoint = tcp(reactor, config.port, BACKLOG, config.host)
        return [Listener(f"{config.host}, port {config.port}", endpoint)]
    found: list[Listener] = []
    mistakes: list[str] = []
    for index, each in enumerate(config.listen):
        try:
            found.append(_listener(reactor, each))
        except ValueError as error:
            mistakes.append(f"$.listen[{index}]: {error}")
    if mistakes:
        raise ConfigError(path, mistakes)
    return found


def _listener(reactor: Any, given: Endpoint) -> Listener:
    arguments = dict(given.arguments)
    if given.kind != "systemd":
        arguments.setdefault("backlog", str(BACKLOG))
    if given.kind == "ssl":
        return Listener(given.text, _tls(reactor, arguments), secure=True)
    quoted = [f"{key}={quoteStringArgument(value)}" for key, value in arguments.items()]
    try:
        endpoint = serverFromString(reactor, ":".join((given.kind, *quoted)))
    except LookupError:
        raise ValueError("systemd passed no such socket") from None
    if given.kind == "systemd":
        _check_inherited(endpoint.fileno, given.arguments["domain"])
    return Listener(given.text, endpoint)


def _check_inherited(fd: int, domain: str) -> None:
    """Twisted takes any descriptor, and fails at the first connection or never."""
    try:
        with socket.socket(fileno=os.dup(fd)) as made:
            family = made.family
            listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ValueError(f"what systemd passed: {error.strerror}") from None
    if family != getattr(socket, f"AF_{domain}"):
        raise ValueError(f"domain: what systemd passed is not of {domain}")
    if not listens:
        raise ValueError("what systemd passed does not listen; Accept= must be no")


def _tls(reactor: Any, arguments: Mapping[str, str]) -> SSL4ServerEndpoint:
    # Not by serverFromString: it chooses the ciphers, asks a terminal for the
    # passphrase of a key, and sends one certificate of a file that holds a chain.
    certificate, *chain = _certificates(arguments)
    try:
        options = CertificateOptions(
            privateKey=_private_key(arguments, certificate),
            certificate=X509.from_cryptography(certificate),
            extraCertChain=[X509.from_cryptography(each) for each in chain],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString(CIPHERS),
        )
        options.getContext()
    except SSL.Error as error:
        reasons = ", ".join(reason for *_, reason in error.args[0])
        raise ValueError(f"TLS cannot use the certificate: {reasons}") from None
    return SSL4ServerEndpoint(
        reactor,
        int(arguments["port"]),
        options,
        int(arguments["backlog"]),
        arguments.get("interface", ""),
    )


def _certificates(arguments: Mapping[str, str]) -> Iterator[Certificate]:
    """The server's own first, then those that lead from it to a known one."""
    own = "certKey" if "certKey" in arguments else "privateKey"
    for key in (own, "extraCertChain"):
        if key in arguments:
            pem = _content(arguments, key)
            try:
                yield from load_pem_x509_certificates(pem)
            except ValueError:
                raise ValueError(f"{key}: no certificate in PEM") from None


def _private_key(arguments: Mapping[str, str], certificate: Certificate) -> PKey:
    pem = _content(arguments, "privateKey")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("privateKey: encrypted, and nobody to ask") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("privateKey: no private key in PEM") from None
    if key.public_key() != certificate.public_key():
        raise ValueError("privateKey: not the key of the certificate")
    return PKey.from_cryptography_key(key)  # type: ignore[arg-type]


def _content(arguments: Mapping[str, str], key: str) -> bytes:
    path = arguments[key]
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{key}: {path}: {error.strerror}") from None
