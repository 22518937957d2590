""":mod:`filebucket.http.peer`."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from filebucket.http.peer import client_of


class PeerTests(SynchronousTestCase):
    """Addresses of clients."""

    def test_client_of(self) -> None:
        """An IPv4 address on an IPv6 socket is shown as IPv4."""
        for address, text in (
            (IPv4Address("TCP", "1.2.3.4", 5), "1.2.3.4:5"),
            (IPv6Address("TCP", "::1", 5), "[::1]:5"),
            (IPv6Address("TCP", "fe80::1%eth0", 5), "[fe80::1%eth0]:5"),
            (IPv6Address("TCP", "::ffff:1.2.3.4", 5), "1.2.3.4:5"),
            (UNIXAddress(None), "local"),
        ):
            self.assertEqual(text, client_of(address).text)
