"""Where the server is, and the token that opens a bucket there.

The token comes from a file, never from the command line or the environment: other users
of the machine can read those. It is never printed.
"""

from __future__ import annotations

import codecs
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, urlsplit

from filebucket.client.errors import UsageError

TOKEN = re.compile("[A-Za-z0-9_-]{32}")
_HEADER = re.compile(r"(?:authorization\s*:\s*)?bearer\s+(\S+)", re.IGNORECASE)

LONGEST_TOKEN_FILE = 64 * 1024
"""Bytes."""


@dataclass(frozen=True)
class Server:
    """A server, and how to connect to it.

    :param scheme: ``http`` or ``https``
    :param port: None is the default of the scheme
    :param prefix: path of the server behind a proxy, without a slash at its end
    :param unix_socket: path of a UNIX socket to connect to; None is the host and port
    :param tls: for https
    :param certified: whether the client presents a certificate
    """

    scheme: str
    host: str
    port: int | None
    prefix: str
    token: str = field(repr=False)
    unix_socket: str | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    certified: bool = False

    @property
    def text(self) -> str:
        """Its address, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return self.unix_socket or f"{self.scheme}://{host}{port}{self.prefix}"

    @property
    def exposes_token(self) -> bool:
        """Whether others in the network can read the token."""
        return (
            self.scheme == "http"
            and self.unix_socket is None
            and not _is_this_machine(self.host)
        )


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def server(
    url: str,
    token: str,
    unix_socket: str | None = None,
    cacert: str | None = None,
    cert: str | None = None,
    key: str | None = None,
) -> Server:
    """The server with this URL.

    :param cacert: file with the certificates to trust in place of the system's
    :param cert: file with the client's certificate
    :param key: file with its private key; None if ``cert`` has it
    :raises UsageError: one of them is wrong
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its text may have the token.
        raise UsageError("the URL is not valid") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError("the URL must begin with http:// or https://, and have a host")
    if parts.username is not None or any(map(TOKEN.fullmatch, parts.path.split("/"))):
        raise UsageError(
            "the URL must not have the token: keep it in a file (--token-file)"
        )
    if parts.query or parts.fragment:
        raise UsageError("the URL must not have a '?' or a '#'")
    tls = None
    if parts.scheme == "https":
        tls = _context(cacert, cert, key)
    elif cacert or cert or key:
        raise UsageError("--cacert, --cert and --key need an https:// URL")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise UsageError(f"the URL: {parts.hostname!r} is not a host") from None
    prefix = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    return Server(
        parts.scheme,
        parts.hostname,
        port,
        prefix,
        token,
        unix_socket,
        tls,
        certified=bool(cert),
    )


def _context(cacert: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    if key and not cert:
        raise UsageError("--key needs --cert")
    for option, path in (("--cacert", cacert), ("--cert", cert), ("--key", key)):
        if path:
            try:
                open(path, "rb").close()
            except OSError as error:
                raise UsageError(f"{option} {path}: {error.strerror}") from None
    # OpenSSL's own reasons are such as "[SSL] PEM lib".
    try:
        context = ssl.create_default_context(cafile=cacert)
    except (OSError, ValueError):
        raise UsageError(f"--cacert {cacert}: no certificate in PEM") from None
    if cert:
        try:
            # A passphrase cannot be entered by cron.
            context.load_cert_chain(cert, key, password="")
        except (OSError, ValueError):
            raise UsageError(
                f"--cert {cert}: not a certificate in PEM, or its private key is"
                " missing, wrong or has a passphrase"
            ) from None
    return context


def token_file(given: str | None, environ: Mapping[str, str], home: str) -> Path:
    """The file with the token.

    :param given: from the command line
    :param home: the user's home folder
    :raises UsageError: there is none
    """
    chosen = given or environ.get("FILEBUCKET_TOKEN_FILE")
    if chosen:
        return Path(chosen)
    usual = Path(home, ".file-bucket")
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    found = Path(credentials, "file-bucket") if credentials else usual
    for each in (found, usual):
        # Path.exists() raises an error in a folder of another user.
        if os.path.exists(each):
            return each
    raise UsageError(
        f"there is no token: put the line 'Authorization: Bearer TOKEN' into {usual},"
        " readable only by you, or name a file with --token-file"
    )


def read_token(path: Path) -> str:
    """The token in a file: alone, or in the header that ``curl -H @FILE`` sends.

    :raises UsageError: there is none
    """
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_TOKEN_FILE + 1)
    except OSError as error:
        raise UsageError(f"token file {path}: {error.strerror}") from None
    if len(data) > LONGEST_TOKEN_FILE:
        raise UsageError(f"token file {path}: too large")
    # PowerShell's > writes UTF-16.
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if utf_16 else "utf-8-sig", "replace")
    for line in map(str.strip, text.splitlines()):
        header = _HEADER.fullmatch(line)
        token = header[1] if header else line
        if TOKEN.fullmatch(token):
            return token
    raise UsageError(
        f"token file {path}: it has no token, which is 32 letters, digits, '-' and '_'"
    )


def is_private(path: Path) -> bool:
    """Whether no other user of the machine may read the file."""
    return os.name != "posix" or not path.stat().st_mode & 0o077
