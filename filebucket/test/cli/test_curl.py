"""The curl commands."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from filebucket.cli.curl import Address, address
from filebucket.config.load import parse


class AddressTests(SynchronousTestCase):
    def address(self, **keys: object) -> Address:
        text = json.dumps({"home": "h", "buckets": [], **keys})
        return address(parse(text, "/etc/config.json"), "backup")

    def test_host(self) -> None:
        """The configured host, or this machine's name for all addresses."""
        for keys, url in (
            ({}, "http://backup:1234"),
            ({"host": "::", "port": 80}, "http://backup:80"),
            ({"host": "::1"}, "http://[::1]:1234"),
            ({"host": "localhost", "port": 0}, "http://localhost:PORT"),
        ):
            self.assertEqual(Address(url), self.address(**keys))

    def test_listen(self) -> None:
        """The preferred listener is reachable from other machines and has TLS."""
        tls = "ssl:1443:privateKey=key.pem"
        for listen, url in (
            (["tcp:80", tls], "https://backup:1443"),
            (["tcp:80", f"{tls}:interface=127.0.0.1"], "http://backup:80"),
            ([r"tcp6:80:interface=\:\:1"], "http://[::1]:80"),
            (["systemd:INET:index=0"], "http://backup:PORT"),
            (["systemd:INET:index=0", "tcp:80"], "http://backup:80"),
            (["unix:s", "tcp:80:interface=127.0.0.1"], "http://127.0.0.1:80"),
        ):
            self.assertEqual(Address(url), self.address(listen=listen))

    def test_unix(self) -> None:
        """The path of a socket is quoted for a shell."""
        made = self.address(listen=["unix:/run/a b"])
        first, *_, last = made.lines("TOKEN")
        self.assertEqual(
            "curl --fail-with-body --unix-socket '/run/a b' -T FILE"
            " http://localhost/TOKEN/",
            first,
        )
        self.assertIn("--unix-socket '/run/a b' -H @", last)
