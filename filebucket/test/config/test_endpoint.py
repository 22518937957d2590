"""Endpoint strings."""

from __future__ import annotations

from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.config.endpoint import Endpoint, parse_endpoint, tcp


class ParseTests(SynchronousTestCase):
    """Parsing."""

    def test_valid(self) -> None:
        """Arguments by position or by key, in Twisted's order."""
        for text, kind, arguments in (
            ("tcp:1234", "tcp", {"port": "1234"}),
            ("tcp:port=0", "tcp", {"port": "0"}),
            ("tcp:1:127.0.0.1:9", "tcp", {"interface": "127.0.0.1", "backlog": "9"}),
            ("tcp:1:interface=", "tcp", {"interface": ""}),
            ("tcp:1:localhost", "tcp", {"interface": "localhost"}),
            (r"tcp:1:interface=\:\:1", "tcp", {"interface": "::1"}),
            ("tcp6:1:9", "tcp6", {"port": "1", "backlog": "9"}),
            (r"tcp6:1:9:\:\:1", "tcp6", {"interface": "::1"}),
            ("ssl:443:key.pem:cert.pem", "ssl", {"certKey": "cert.pem"}),
            (
                r"ssl:443:privateKey=C\:\\k=y:extraCertChain=c",
                "ssl",
                {"privateKey": "C:\\k=y", "extraCertChain": "c"},
            ),
            ("ssl:1:k:clientCA=ca", "ssl", {"clientCA": "ca"}),
            ("haproxy:tcp:1:127.0.0.1", "tcp", {"interface": "127.0.0.1"}),
            (r"unix:a\=b", "unix", {"address": "a=b"}),
            ("unix:/run/ü x:660:lockfile=0", "unix", {"mode": "660", "lockfile": "0"}),
            ("systemd:INET6:index=0", "systemd", {"domain": "INET6", "index": "0"}),
            ("systemd:domain=UNIX:name=drop", "systemd", {"name": "drop"}),
        ):
            made = parse_endpoint(text)
            self.assertEqual((kind, text), (made.kind, made.text))
            self.assertEqual(made.arguments, {**made.arguments, **arguments}, text)
            self.assertIs(text.startswith("haproxy:"), made.proxied)

    def test_as_twisted(self) -> None:
        """Twisted accepts the same strings, and parses them alike."""
        for text, host, port in (
            ("tcp:1:127.0.0.1:9", "127.0.0.1", 1),
            (r"tcp6:1:9:\:\:1", "::1", 1),
            (r"tcp:2:interface=\:\:1", "::1", 2),
        ):
            reactor = MemoryReactorClock()
            serverFromString(reactor, text).listen(None)
            ((listened, _, backlog, interface),) = reactor.tcpServers
            arguments = parse_endpoint(text).arguments
            self.assertEqual((host, port), (interface, listened))
            self.assertEqual(
                (host, str(port)), (arguments["interface"], arguments["port"])
            )
            self.assertEqual(str(backlog), arguments.get("backlog", "50"))

    def test_invalid(self) -> None:
        types = "the known types are tcp, tcp6, ssl, unix, systemd and haproxy"
        proxied = "the known types are tcp, tcp6, ssl, unix and systemd"
        number = "must be a whole number"
        for text, mistake in (
            ("", f"unknown type ''; {types}"),
            ("1234", f"unknown type '1234'; {types}"),
            ("TCP:1234", f"unknown type 'TCP'; {types}"),
            ("tcp=1234", f"unknown type 'tcp=1234'; {types}"),
            ("haproxy", f"unknown type ''; {proxied}"),
            ("haproxy:", f"unknown type ''; {proxied}"),
            ("haproxy:1234", f"unknown type '1234'; {proxied}"),
            ("haproxy:haproxy:tcp:1", f"unknown type 'haproxy'; {proxied}"),
            ("haproxy=tcp:1", f"unknown type 'haproxy=tcp'; {types}"),
            ("haproxy:tcp:x", f"port: {number}"),
            ("tls:x:443", f"unknown type 'tls'; {types}"),
            ("stdio:", f"unknown type 'stdio'; {types}"),
            ("x" * 25, f"unknown type (a token?); {types}"),
            ("tcp", "port is missing"),
            ("tcp:", f"port: {number}"),
            ("tcp:-1", f"port: {number}"),
            ("tcp:65536", "port: must be from 0 to 65535"),
            ("tcp:\u0661", f"port: {number}"),
            ("tcp:" + "9" * 5000, f"port: {number}"),
            ("tcp:1:example.org", "interface: must be an IP address or localhost"),
            ("tcp:1:backlog=0", "backlog: must be from 1 to 65535"),
            ("tcp:1::9:x", "has more than 3 arguments"),
            ("tcp:1:port=2", "port is given twice"),
            (
                "tcp:1:prot=2",
                "unknown argument 'prot'; the known arguments are"
                " port, interface and backlog",
            ),
            (
                "tcp6:1:interface=::1",
                r"a value without a key after key=value;"
                r" write a ':' in a value as '\:';"
                " interface: must be an IPv6 address",
            ),
            ("tcp6:1:interface=127.0.0.1", "interface: must be an IPv6 address"),
            ("tcp:1\\", "ends with a backslash"),
            ("ssl:443", "privateKey is missing"),
            (
                "ssl:privateKey=:certKey=x",
                "privateKey: must not be empty; port is missing",
            ),
            (
                "ssl:1:k:c:TLSv1_METHOD",
                "sslmethod is not supported: TLS 1.2 and newer are always enabled",
            ),
            (
                "ssl:1:k:dhParameters=x",
                "dhParameters is not supported: keys are exchanged on elliptic curves",
            ),
            ("unix:", "address: must not be empty"),
            ("unix:x:mode=888", "mode: must be an octal mode such as 660"),
            ("unix:x:lockfile=no", "lockfile: must be 0 or 1"),
            ("systemd:domain=INET", "must have exactly one of index and name"),
            ("systemd:INET:0:drop", "must have exactly one of index and name"),
            ("systemd:X:0", "domain: must be INET, INET6 or UNIX"),
            ("systemd:index=x", f"index: {number}; domain is missing"),
        ):
            error = self.assertRaises(ValueError, parse_endpoint, text)
            self.assertEqual(mistake, str(error), text)


class EndpointTests(SynchronousTestCase):
    """Properties of an endpoint."""

    def test_in_folder(self) -> None:
        """Paths become absolute, and the rest stays."""
        text = "ssl:443:k:../c:extraCertChain=/x:clientCA=ca"
        made = parse_endpoint(text).in_folder("/etc/drop")
        self.assertEqual(
            {
                "port": "443",
                "privateKey": "/etc/drop/k",
                "certKey": "/etc/c",
                "extraCertChain": "/x",
                "clientCA": "/etc/drop/ca",
            },
            made.arguments,
        )
        self.assertEqual(
            {"domain": "INET", "name": "a"},
            parse_endpoint("systemd:INET:name=a").in_folder("/etc").arguments,
        )

    def test_reachable(self) -> None:
        """Whether other machines can connect, if that is known."""
        for text, expected in (
            ("tcp:1", True),
            ("tcp:1:0.0.0.0", True),
            ("tcp:1:127.0.0.2", False),
            ("tcp:1:localhost", False),
            ("tcp6:1", True),
            (r"tcp6:1:interface=\:\:1", False),
            ("ssl:1:k", True),
            ("ssl:1:k:interface=127.0.0.1", False),
            ("unix:x", False),
            ("systemd:INET:0", True),
            ("systemd:INET6:0", True),
            ("systemd:UNIX:0", False),
            ("haproxy:tcp:1", True),
            ("haproxy:unix:x", False),
        ):
            self.assertIs(expected, parse_endpoint(text).reachable, text)

    def test_host_and_port(self) -> None:
        """IPv4 and IPv6."""
        for host, kind in (("0.0.0.0", "tcp"), ("localhost", "tcp"), ("::1", "tcp6")):
            made = tcp(host, 7)
            self.assertEqual(Endpoint(kind, {"port": "7", "interface": host}, ""), made)
            self.assertEqual(f"{host}, port 7", made.text)
            with self.assertRaises(ValueError):
                parse_endpoint(made.text)

    def test_equal(self) -> None:
        """Different spellings are equal."""
        self.assertEqual(
            Endpoint("tcp", {"port": "1"}, "x"), parse_endpoint("tcp:port=1")
        )
        self.assertNotEqual(parse_endpoint("haproxy:tcp:1"), parse_endpoint("tcp:1"))
        self.assertNotEqual(parse_endpoint("tcp:2"), parse_endpoint("tcp:port=1"))
