"""Clients' addresses, and which proxies are trusted to name them.

A client is an IP address and a port, or a UNIX socket on this machine. Behind a proxy,
the connection has the proxy's address, and a header has the client's. Only headers from
trusted proxies are used, because any client can send one.

An IPv4 client of an IPv6 socket (``::ffff:192.0.2.1``, RFC 4291, 2.5.5.2) counts as
that IPv4 client: in logs, for hooks, and wherever addresses are compared.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from attrs import frozen

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

_NO_NETWORK = "must be a network such as 192.0.2.0/24 or 2001:db8::/32"
_MAPPED = IPv6Network("::ffff:0:0/96")


@frozen
class Client:
    """A client.

    :param ip: None for a client on this machine that uses a UNIX socket
    :param port: 0 if only the proxy knows it
    """

    ip: IPAddress | None = None
    port: int = 0

    @cached_property
    def text(self) -> str:
        """``ip:port`` for logs and hooks, with IPv6 in brackets."""
        if self.ip is None:
            return "local"
        if self.ip.version == 6:
            return f"[{self.ip}]:{self.port}"
        return f"{self.ip}:{self.port}"


LOCAL = Client()


def client(host: str, port: int) -> Client:
    """The client with this address.

    :raises ValueError: ``host`` is not an IP address
    """
    ip = ipaddress.ip_address(host)
    return Client(getattr(ip, "ipv4_mapped", None) or ip, port)


def network(text: str) -> IPNetwork:
    """Parse a network such as ``192.0.2.0/24``, or a single address.

    :raises ValueError: the mistake in a few words
    """
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(_NO_NETWORK) from None
    if "%" in text:
        raise ValueError(_NO_NETWORK)
    found = interface.network
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        raise ValueError("is IPv4 mapped into IPv6; write the IPv4 network")
    if interface.ip != found.network_address:
        raise ValueError(f"has host bits set; the network is {found}")
    return found


@frozen
class Networks:
    """A set of addresses.

    :param networks: the networks in it
    :param local: whether clients on this machine that use a UNIX socket are in it
    """

    networks: Sequence[IPNetwork] = ()
    local: bool = False

    @property
    def texts(self) -> list[str]:
        """The networks as they are in the configuration."""
        return [str(each) for each in self.networks] + ["unix"] * self.local

    def __bool__(self) -> bool:
        return bool(self.networks) or self.local

    def __contains__(self, client: Client) -> bool:
        ip = client.ip
        if ip is None:
            return self.local
        # An address is in no network of the other IP version.
        return any(ip in each for each in self.networks)


NOBODY = Networks()


def forwarded(peer: Client, values: Iterable[str], trusted: Networks) -> Client:
    """The client that sent a request, by its ``X-Forwarded-For``.

    Each proxy appends the address that connected to it. So the list is read from its
    end, while the address before is a trusted proxy. The first address that is not
    trusted is the client; the rest of the list, which it may have sent itself, is
    ignored. Something that is not an address ends the list: then the client is the
    last known address, since a push is worth more than its sender's address.

    :param peer: the address that connected to the daemon
    :param values: the values of these headers, in order
    :param trusted: trusted proxies
    """
    found = peer
    for each in reversed(",".join(values).split(",")):
        if found not in trusted:
            break
        try:
            found = _forwarded_client(each.strip(" \t"))
        except ValueError:
            break
    return found


def _forwarded_client(text: str) -> Client:
    """An address of the list, with a port if the proxy adds one."""
    match = _WITH_PORT.fullmatch(text)
    if match is None:
        raise ValueError("not an address")
    host = match["v6"] or match["v4"] or match["alone"]
    port = int(match["port"] or 0)
    if port > 65535:
        raise ValueError("not a port")
    return client(host, port)


# No zone (RFC 4007, 11): it would be one of the proxy's, and may contain anything.
_WITH_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?"
    r"|(?P<alone>[0-9A-Fa-f:.]+)"
)
