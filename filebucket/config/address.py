"""Commands for the operator to copy, such as those that push to a bucket with curl and
with filebucket-push, which contain the token.
"""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from cryptography.x509 import Certificate, load_pem_x509_certificate

from filebucket.config.certificate import dns_names
from filebucket.config.config import Config, command
from filebucket.config.endpoint import Endpoint

PORT = "PORT"
"""Placeholder for the port in a URL."""

PROXY = "PROXY"
"""Placeholder for the address of the proxy, if all listeners need a PROXY header."""

_HOST = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""A host name that needs no quoting in a shell. It is no wildcard."""


@frozen
class Address:
    """The address that clients connect to.

    :param url: URL without a slash at the end
    :param options: options of curl and of filebucket-push, quoted for a shell
    :param certificate: where the server's certificate is, if it is self-signed, so that
        clients need a copy
    :param unknown: the placeholder in the URL, :data:`PORT` or :data:`PROXY`, if there
        is one
    """

    url: str
    options: str = ""
    certificate: str | None = None
    unknown: str | None = None

    def lines(self, token: str) -> tuple[str, ...]:
        """Commands that push with the token in the URL, that write the token to a
        file, and that push with that file, by curl and by filebucket-push. They fail if
        the push is refused. A token needs no quoting.
        """
        curl = f"curl --fail-with-body{self.options}"
        return (
            f"{curl} -T FILE {self.url}/{token}/",
            "touch ~/.file-bucket && chmod 600 ~/.file-bucket",
            f"echo Authorization: Bearer {token} >~/.file-bucket",
            f"{curl} -H @$HOME/.file-bucket -T FILE {self.url}/",
            f"filebucket-push{self.options} --url {self.url} FILE",
        )


@frozen
class FirstSteps:
    """What an operator needs for the first push to a bucket, without a token.

    :param add: command that adds a bucket
    :param push: command that pushes a file, with the word TOKEN for the token
    :param certificate: as in :class:`Address`
    """

    add: str
    push: str
    certificate: str | None


def first_steps(config: Config, path: str, hostname: str) -> FirstSteps:
    """The first steps with this configuration.

    :param path: where it was read from
    :param hostname: as for :func:`address`
    """
    where = address(config, hostname)
    push, *_ = where.lines("TOKEN")
    return FirstSteps(command("bucket add NAME", path), push, where.certificate)


def address(config: Config, hostname: str) -> Address:
    """The listener that clients most likely use: reachable from other machines, and
    with TLS.

    :param hostname: the name of this machine, for a listener on all addresses whose
        certificate has no name
    """
    best = min(config.listen, key=_worse)
    if best.proxied:
        # Most proxies that send the header end TLS, or pass it through.
        return Address(f"https://{PROXY}", unknown=PROXY)
    if best.kind == "unix":
        path = shlex.quote(best.arguments["address"])
        return Address("http://localhost", f" --unix-socket {path}")
    interface = best.arguments.get("interface", "")
    port = best.arguments.get("port", "0")
    # The number of port 0, and of a socket from systemd, is only in the log.
    unknown = PORT if port == "0" else None
    place = _place(interface, unknown or port, hostname)
    if best.kind != "ssl":
        return Address(f"http://{place}", unknown=unknown)
    key = best.arguments["privateKey"]
    path = best.arguments.get("certKey", key)
    certificate = _read(path)
    if certificate is None:
        return Address(f"https://{place}", unknown=unknown)
    names = filter(_HOST.fullmatch, dns_names(certificate))
    # The names of the certificate need not resolve to a loopback address.
    if best.reachable and (name := next(names, None)):
        place = f"{name}:{unknown or port}"
    if certificate.issuer != certificate.subject:
        return Address(f"https://{place}", unknown=unknown)
    # A client must not get the private key.
    said = f"{path}, without the private key in this file" if path == key else path
    return Address(f"https://{place}", " --cacert CERT", said, unknown)


def _read(path: str) -> Certificate | None:
    """A certificate; None if it cannot be read."""
    try:
        return load_pem_x509_certificate(Path(path).read_bytes())
    except (OSError, ValueError):
        return None


def _worse(endpoint: Endpoint) -> tuple[bool, ...]:
    kind = endpoint.kind
    return (
        not endpoint.reachable,
        endpoint.proxied,
        kind != "ssl",
        kind in {"systemd", "unix"},
    )


def _place(host: str, port: str, hostname: str) -> str:
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - for display, not for listening
        return f"{hostname}:{port}"
    if host != "localhost" and ip_address(host).version == 6:
        return f"[{host}]:{port}"
    return f"{host}:{port}"
