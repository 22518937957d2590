"""TLS: load certificates and keys, and reload them when their files change.

TLS is 1.2 or newer, with authenticated ciphers and forward secrecy only (RFC 9325,
4.2): a server key that is stolen later does not decrypt recorded traffic. Twisted would
also accept RSA key exchange, with which it does.

The files are first read at the start, while the daemon may still read files of root.
After that they are examined every second, in a thread, and independent of connections,
so that the operator sees at once in the log whether new files can be used. Changed
files are read when two examinations in a row find them the same. Files that cannot be
used, such as a key that does not match its certificate, change nothing, are logged
once, and are tried again when they change again. New connections get the new
certificate; open ones keep theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey, X509StoreFlags
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLContextFactory,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.ssl import (
    AcceptableCiphers,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from filebucket.config.certificate import name_of

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The ciphers of TLS 1.2, in OpenSSL's syntax. All ciphers of TLS 1.3 are equally
good."""

LOOK_EVERY = 1.0
"""Seconds between two examinations of the files."""

_FILES = ("privateKey", "certKey", "extraCertChain", "clientCA")

_FileState: TypeAlias = tuple[object, ...]


@frozen
class Identity:
    """The loaded files of one endpoint, ready for connections.

    :param expires: the time at which the server's own certificate expires
    :param subject: that certificate's subject, such as ``CN=drop.example.com``
    """

    context: SSL.Context
    expires: datetime
    subject: str


@implementer(IOpenSSLContextFactory)
class Certificates:
    """The certificate, the key and the client CAs of one endpoint. To Twisted this is a
    context factory.
    """

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        """
        :param name: the endpoint, as the operator wrote it
        :param arguments: the endpoint's arguments, which name the files
        :raises ValueError: what is wrong with the files
        """
        self.name = name
        self._arguments = arguments
        # Before they are read, so that a change meanwhile is noticed.
        self._read = self._last = self._look()
        self._identity = identify(arguments)

    @property
    def expires(self) -> datetime:
        """When the server's own certificate expires."""
        return self._identity.expires

    @property
    def subject(self) -> str:
        """The subject of the server's own certificate."""
        return self._identity.subject

    def getContext(self) -> SSL.Context:
        """The context for a new connection."""
        return self._identity.context

    def around(self, factory: IProtocolFactory) -> IProtocolFactory:
        """Wrap ``factory`` in TLS, if the transport has none."""
        return TLSMemoryBIOFactory(self, False, factory)

    def use(self, identity: Identity) -> None:
        """Use this for new connections."""
        self._identity = identity

    def changed(self) -> Identity | None:
        """Examine the files. To be called in a thread, one call at a time.

        :returns: the new identity, once after a change; None otherwise
        :raises ValueError: the files have changed and cannot be used; once after a
            change
        """
        look = self._look()
        last, self._last = self._last, look
        if look != last or look == self._read:
            return None
        self._read = look
        return identify(self._arguments)

    def _look(self) -> _FileState:
        """The state of the files, for comparison."""
        return tuple(
            _look(self._arguments[key]) for key in _FILES if key in self._arguments
        )


def _look(path: str) -> _FileState:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno,)
    # Losing the right to read it, after root's rights were dropped, is a change, too.
    readable = os.access(path, os.R_OK, effective_ids=True)
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times, readable)


class Renewal(Service):
    """Examines the files while it is started."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        run: Callable[[Callable[[], Identity | None]], Deferred[Identity | None]],
        certificates: Sequence[Certificates],
    ) -> None:
        """
        :param run: calls a function in a thread
        """
        self._run = run
        self._certificates = certificates
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        super().startService()
        if self._certificates:
            looking = self._loop.start(LOOK_EVERY, now=False)
            looking.addErrback(
                lambda failure: self._log.failure(
                    "a bug in file-bucket", failure, event="bug"
                )
            )

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_at_all())

    async def _look_at_all(self) -> None:
        for each in self._certificates:
            try:
                identity = await self._run(each.changed)
            except (ValueError, OSError) as error:
                self._log.error(
                    "TLS: changed files not loaded: {name}: {error}",
                    event="certificate-unfit",
                    name=each.name,
                    error=str(error),
                )
                continue
            if identity is not None:
                each.use(identity)
                self._log.info(
                    "TLS: new certificate loaded, valid until {expires}: {name}",
                    event="certificate",
                    name=each.name,
                    expires=f"{identity.expires:%Y-%m-%d %H:%M:%S}Z",
                )


def identify(arguments: Mapping[str, str]) -> Identity:
    """Load the files.

    :raises ValueError: what is wrong with them
    """
    # Twisted's endpoint cannot be used: it chooses the ciphers, asks for a key's
    # passphrase on the terminal, and sends only one certificate of a file that contains
    # a chain.
    own = "certKey" if "certKey" in arguments else "privateKey"
    certificate, *chain = _certificates(arguments, own)
    if "extraCertChain" in arguments:
        chain += _certificates(arguments, "extraCertChain")
    options: dict[str, Any] = {}
    issuers = _certificates(arguments, "clientCA") if "clientCA" in arguments else []
    if issuers:
        options["trustRoot"] = trustRootFromCertificates(
            [TwistedCertificate(_openssl(each)) for each in issuers]
        )
    try:
        context = CertificateOptions(
            privateKey=_private_key(arguments, certificate),
            certificate=_openssl(certificate),
            extraCertChain=[_openssl(each) for each in chain],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString(CIPHERS),
            **options,
        ).getContext()
        if issuers:
            # An intermediate issuer is trusted without its own issuer.
            store = context.get_cert_store()
            assert store is not None
            store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
            # So that a client with several certificates knows which one to send.
            for each in issuers:
                context.add_client_ca(_openssl(each))
        # Twisted does this for each connection; an error must be raised here instead.
        context.set_alpn_select_callback(_no_protocol)
    except MemoryError:
        raise ValueError(
            "TLS needs memory that is both writable and executable, which the system"
            " denies (MemoryDenyWriteExecute=)"
        ) from None
    except SSL.Error as error:
        reasons = ", ".join(reason for *_, reason in error.args[0])
        raise ValueError(f"TLS cannot use the certificate: {reasons}") from None
    return Identity(context, certificate.not_valid_after_utc, name_of(certificate))


def _no_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """The choice if no other callback chooses."""
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _openssl(certificate: Certificate) -> X509:
    return X509.from_cryptography(certificate)


def _certificates(arguments: Mapping[str, str], key: str) -> list[Certificate]:
    """The certificates in a file: the server's own first, then its chain."""
    pem = _content(arguments, key)
    try:
        return load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"{key}: no PEM certificate found") from None


def _private_key(arguments: Mapping[str, str], certificate: Certificate) -> PKey:
    pem = _content(arguments, "privateKey")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("privateKey: encrypted; use an unencrypted key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("privateKey: no PEM private key found") from None
    try:
        if key.public_key() != certificate.public_key():
            raise ValueError("privateKey: does not match the certificate")
        return PKey.from_cryptography_key(key)  # type: ignore[arg-type]
    except (TypeError, UnsupportedAlgorithm):
        raise ValueError("unsupported type of key") from None


def _content(arguments: Mapping[str, str], key: str) -> bytes:
    path = arguments[key]
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{key}: {path}: {error.strerror}") from None
