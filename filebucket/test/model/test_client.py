"""Clients' addresses, and trusted proxies."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.client import LOCAL, Client, Networks, client, forwarded, network
from filebucket.test.kit.properties import trying

TRUSTED = Networks((network("10.0.0.0/8"), network("2001:db8::/32")))
PROXY = client("10.0.0.1", 5)


class ClientTests(SynchronousTestCase):
    def test_text(self) -> None:
        """The text for logs and hooks; a mapped IPv4 address is IPv4."""
        for host, text in (
            ("192.0.2.1", "192.0.2.1:7"),
            ("2001:db8::1", "[2001:db8::1]:7"),
            ("2001:DB8:0::1", "[2001:db8::1]:7"),
            ("::ffff:192.0.2.1", "192.0.2.1:7"),
            ("::FFFF:c000:201", "192.0.2.1:7"),
            ("::192.0.2.1", "[::c000:201]:7"),
        ):
            self.assertEqual(text, client(host, 7).text)
        self.assertEqual("local", LOCAL.text)

    def test_ip(self) -> None:
        """Addresses can be compared."""
        self.assertEqual(
            Client(ip_address("192.0.2.1"), 7), client("::ffff:192.0.2.1", 7)
        )
        self.assertIsNone(LOCAL.ip)

    def test_no_address(self) -> None:
        """A host name is not an address."""
        with self.assertRaises(ValueError):
            client("localhost", 7)


class NetworksTests(SynchronousTestCase):
    def test_contains(self) -> None:
        """Each IP version by itself."""
        anybody = Networks((network("0.0.0.0/0"),))
        for networks, host, expected in (
            (TRUSTED, "10.255.255.255", True),
            (TRUSTED, "11.0.0.0", False),
            (TRUSTED, "2001:db8:ffff::", True),
            (TRUSTED, "2001:db9::", False),
            (TRUSTED, "::ffff:10.1.1.1", True),
            (anybody, "::1", False),
            (anybody, "::ffff:1.2.3.4", True),
            (Networks((network("fe80::/10"),)), "fe80::1%eth0", True),
            (Networks(local=True), "127.0.0.1", False),
        ):
            self.assertIs(expected, client(host, 1) in networks, (networks, host))

    def test_local(self) -> None:
        """A client that uses a UNIX socket is in no network."""
        self.assertIn(LOCAL, Networks(local=True))
        self.assertNotIn(LOCAL, Networks((network("0.0.0.0/0"), network("::/0"))))

    def test_true(self) -> None:
        """Whether any address is in them."""
        self.assertFalse(Networks())
        self.assertTrue(Networks(local=True))
        self.assertTrue(TRUSTED)


class ForwardedTests(SynchronousTestCase):
    """X-Forwarded-For."""

    def assert_sender(self, expected: str, *values: str, peer: Client = PROXY) -> None:
        found = forwarded(peer, values, TRUSTED)
        self.assertEqual(expected, found.text, values)

    def test_one(self) -> None:
        """The proxy's entry, with or without a port."""
        for value, expected in (
            ("192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("2001:db9::1", "[2001:db9::1]:0"),
            ("[2001:db9::1]", "[2001:db9::1]:0"),
            ("[2001:db9::1]:80", "[2001:db9::1]:80"),
            ("::ffff:192.0.2.1", "192.0.2.1:0"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
            ("\t 192.0.2.1 ", "192.0.2.1:0"),
        ):
            self.assert_sender(expected, value)

    def test_rightmost(self) -> None:
        """Entries that the client sent itself are not trusted."""
        self.assert_sender("192.0.2.1:0", "10.6.6.6, 192.0.2.1")
        self.assert_sender("192.0.2.1:0", "nonsense,192.0.2.1")
        self.assert_sender("192.0.2.1:0", "10.6.6.6", "6.6.6.6,192.0.2.1")

    def test_several_proxies(self) -> None:
        self.assert_sender("192.0.2.1:0", "6.6.6.6, 192.0.2.1, 2001:db8::1, 10.3.3.3")
        self.assert_sender("192.0.2.1:0", "6.6.6.6, 192.0.2.1", "10.3.3.3")

    def test_all_trusted(self) -> None:
        """If all are trusted, the first one is the client."""
        self.assert_sender("10.2.2.2:0", "10.2.2.2, 10.3.3.3")

    def test_stranger(self) -> None:
        stranger = client("192.0.2.9", 5)
        self.assert_sender("192.0.2.9:5", "192.0.2.1", peer=stranger)
        self.assert_sender("local", "192.0.2.1", peer=LOCAL)

    def test_nothing(self) -> None:
        """A trusted proxy without a header is the client."""
        self.assert_sender("10.0.0.1:5")
        self.assert_sender("10.0.0.1:5", "")

    def test_malformed(self) -> None:
        """The last known address counts as the client."""
        for value in (
            "unknown",
            "unix:",
            "_hidden",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.1:x",
            "192.0.2.1:65536",
            "[192.0.2.1]:80:1",
            "2001:db9::1::1",
            "[2001:db9::1",
            "fe80::1%eth0",
            "[fe80::1%eth0]:80",
            '"[2001:db9::1]"',
            "\xb2.0.2.1",
            "192.0.2.1:\xb2",
            "1:" * 5000,
        ):
            self.assert_sender("10.0.0.1:5", value)
            self.assert_sender("10.0.0.1:5", f"192.0.2.1, {value}")
            self.assert_sender("10.3.3.3:0", f"192.0.2.1, {value}, 10.3.3.3")


class AnyClientTests(SynchronousTestCase):
    """Properties for arbitrary input."""

    @trying
    @given(st.ip_addresses(), st.integers(0, 65535))
    def test_client(self, ip: IPv4Address | IPv6Address, port: int) -> None:
        """A client's text is parsed when a proxy sends it."""
        found = client(str(ip), port)
        trusted = Networks(local=True)
        self.assertEqual(found, forwarded(LOCAL, [found.text], trusted))

    @trying
    @given(st.lists(st.text(alphabet="0123456789abcf.:[], x%", max_size=40)))
    def test_forwarded(self, values: list[str]) -> None:
        """Any value gives a client."""
        everybody = Networks((network("0.0.0.0/0"), network("::/0")), local=True)
        found = forwarded(LOCAL, values, everybody)
        self.assertTrue(found.text.isprintable())
