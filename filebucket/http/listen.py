"""Make Twisted's endpoints from those of the configuration.

:mod:`filebucket.config.endpoint` parses them; the daemon opens them. Certificates and
    keys are read here (:mod:`tls <filebucket.http.tls>`); errors in them are reported
    as errors of the configuration, never as a traceback.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.interfaces import IStreamServerEndpoint

from filebucket.base.errors import ConfigError
from filebucket.config.endpoint import Endpoint
from filebucket.http.proxy import HeaderFirstEndpoint
from filebucket.http.tls import Certificates
from filebucket.model.client import Networks

BACKLOG = 1024
"""Connections that may wait to be accepted. Twisted's default of 50 is less than a
thousand cron jobs at the full hour; a client that finds the queue full retries after
one second, then after two. The kernel has a limit of its own, net.core.somaxconn."""


@frozen
class Listener:
    """One listener.

    :param name: the endpoint, as the operator wrote it
    :param certificates: its certificates, if it uses TLS
    :param proxied: whether each connection begins with a PROXY header
    """

    name: str
    endpoint: IStreamServerEndpoint
    certificates: Certificates | None = None
    proxied: bool = False


def listeners(
    reactor: Any, given: Mapping[str, Endpoint], trusted: Networks, path: str
) -> list[Listener]:
    """Make the listeners. Nothing is opened yet.

    :param reactor: provides TCP, TLS, UNIX sockets and inherited ones
    :param given: the endpoints, by their place in the configuration
    :param trusted: networks whose PROXY headers are believed
    :param path: the configuration's file
    :raises ConfigError: certificates, keys or inherited sockets are missing or cannot
        be used; all mistakes at once
    """
    found: list[Listener] = []
    mistakes: list[str] = []
    for place, each in given.items():
        try:
            found.append(_listener(reactor, each, trusted))
        except ValueError as error:
            mistakes.append(f"{place}: {error}")
    if mistakes:
        raise ConfigError(path, mistakes)
    return found


def _listener(reactor: Any, given: Endpoint, trusted: Networks) -> Listener:
    arguments = dict(given.arguments)
    if given.kind != "systemd":
        arguments.setdefault("backlog", str(BACKLOG))
    certificates = None
    endpoint: IStreamServerEndpoint
    if given.kind == "ssl":
        certificates = Certificates(given.text, arguments)
        # With a PROXY header, TLS begins after it, so it cannot be the endpoint's.
        if given.proxied:
            make: Any = TCP4ServerEndpoint
        else:
            make = partial(SSL4ServerEndpoint, sslContextFactory=certificates)
        endpoint = make(
            reactor,
            int(arguments["port"]),
            backlog=int(arguments["backlog"]),
            interface=arguments.get("interface", ""),
        )
    else:
        endpoint = _plain(reactor, given.kind, arguments)
    if given.proxied:
        secure = certificates.around if certificates else None
        endpoint = HeaderFirstEndpoint(endpoint, trusted, secure)
    return Listener(given.text, endpoint, certificates, given.proxied)


def _plain(reactor: Any, kind: str, arguments: dict[str, str]) -> IStreamServerEndpoint:
    quoted = [f"{key}={quoteStringArgument(value)}" for key, value in arguments.items()]
    try:
        endpoint: Any = serverFromString(reactor, ":".join((kind, *quoted)))
    except LookupError:
        raise ValueError("systemd passed no such socket") from None
    if kind == "systemd":
        _check_inherited(endpoint.fileno, arguments["domain"])
    return IStreamServerEndpoint(endpoint)


def _check_inherited(fd: int, domain: str) -> None:
    """Twisted accepts any descriptor, and fails at the first connection or never."""
    try:
        with socket.socket(fileno=os.dup(fd)) as made:
            family = made.family
            listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ValueError(f"the socket from systemd: {error.strerror}") from None
    if family != getattr(socket, f"AF_{domain}"):
        raise ValueError(f"domain: the socket from systemd is not {domain}")
    if not listens:
        raise ValueError("the socket from systemd does not listen; set Accept=no")
