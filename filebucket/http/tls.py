"""TLS: certificates and keys, what is made of them, and when they are read again.

TLS is 1.2 or newer, and only with ciphers that are authenticated and with keys
that are forgotten with the connection (RFC 9325, 4.2): what was recorded on
the network cannot be read by whoever gets the server's key one day. Twisted
would take RSA's exchange of keys, too, with which it could.

The files are read at the start, as long as the daemon may read what belongs to
root. From then on they are looked at every second, by a clock and not by
connections: so the log says at once, while the operator is still there, whether what
they put there is of use, and the disk is waited for in a thread. Files that changed
are read when a second look finds them as the first one did; what cannot be used, such
as a key that is not the key of the certificate, changes nothing, is said once, and
is tried again when the files change again. New connections get what is new; those that
are there keep what they have.
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

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Those of TLS 1.2, in OpenSSL's words. All of TLS 1.3 are as good."""

LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""

_FILES = ("privateKey", "certKey", "extraCertChain", "clientCA")

_Look: TypeAlias = tuple[object, ...]


@frozen
class Identity:
    """What the files of one endpoint say, ready for connections.

    :param expires: when the server's own certificate is no longer valid
    """

    context: SSL.Context
    expires: datetime


@implementer(IOpenSSLContextFactory)
class Certificates:
    """The certificate, the key and the client certificates' issuers of one endpoint.

    For Twisted it is a context factory.
    """

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        """
        :param name: the endpoint, as the operator wrote it
        :param arguments: the endpoint's, which name the files
        :raises ValueError: what is wrong with the files
        """
        self.name = name
        self._arguments = arguments
        # Before they are read: what changes meanwhile is then seen as changed.
        self._read = self._last = self._look()
        self._identity = identify(arguments)

    def getContext(self) -> SSL.Context:
        """What a new connection gets."""
        return self._identity.context

    def around(self, factory: IProtocolFactory) -> IProtocolFactory:
        """``factory`` with TLS, where the transport has none."""
        return TLSMemoryBIOFactory(self, False, factory)

    def use(self, identity: Identity) -> None:
        """Give new connections this from now on."""
        self._identity = identity

    def changed(self) -> Identity | None:
        """Look at the files. To be called in a thread, by one at a time.

        :returns: what they say now, if that is new; once
        :raises ValueError: they changed, and are of no use; once
        """
        look = self._look()
        last, self._last = self._last, look
        if look != last or look == self._read:
            return None
        self._read = look
        return identify(self._arguments)

    def _look(self) -> _Look:
        """What shows a change."""
        return tuple(
            _look(self._arguments[key]) for key in _FILES if key in self._arguments
        )


def _look(path: str) -> _Look:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno,)
    # That it can no longer be read, rights having been given up, is a change, too.
    readable = os.access(path, os.R_OK, effective_ids=True)
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times, readable)


class Renewal(Service):
    """Looks at the files, from when it is started until it is stopped."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        run: Callable[[Callable[[], Identity | None]], Deferred[Identity | None]],
        certificates: Sequence[Certificates],
    ) -> None:
        """
        :param run: calls what it is given in a thread
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
    """Read the files and make something of them.

    :raises ValueError: what is wrong with them
    """
    # Not by Twisted's endpoint: it chooses the ciphers, asks a terminal for the
    # passphrase of a key, and sends one certificate of a file that holds a chain.
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
            # An issuer that has one itself is trusted as it stands there.
            store = context.get_cert_store()
            assert store is not None
            store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
            # So that a client which has several knows which is asked for.
            for each in issuers:
                context.add_client_ca(_openssl(each))
        # As Twisted does for each connection: where it must fail, it shall do so now.
        context.set_alpn_select_callback(_no_protocol)
    except MemoryError:
        raise ValueError(
            "TLS needs memory that is both writable and executable, which the system"
            " denies (MemoryDenyWriteExecute=)"
        ) from None
    except SSL.Error as error:
        reasons = ", ".join(reason for *_, reason in error.args[0])
        raise ValueError(f"TLS cannot use the certificate: {reasons}") from None
    return Identity(context, certificate.not_valid_after_utc)


def _no_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """What is chosen where nobody else chooses."""
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _openssl(certificate: Certificate) -> X509:
    return X509.from_cryptography(certificate)


def _certificates(arguments: Mapping[str, str], key: str) -> list[Certificate]:
    """Those in a file. The server's own come first; what follows leads from it to
    one that clients know.
    """
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
