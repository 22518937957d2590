"""The peer of a connection, and the log line about one that closed before a request."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger

from filebucket.model.client import LOCAL, Client, client

log = Logger()


def log_dropped(client: Client, reason: str) -> None:
    """Log a connection that ended before there was a request."""
    log.warn(
        "dropped client={client} reason={reason!r}",
        event="dropped",
        client=client.text,
        reason=reason,
    )


def client_of(address: object) -> Client:
    """The client with an address of Twisted's."""
    if isinstance(address, IPv4Address | IPv6Address):
        return client(address.host, address.port)
    return LOCAL
