"""The commands to push with."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.config.address import Address, FirstSteps, address, first_steps
from filebucket.config.config import DEFAULT_CONFIG
from filebucket.config.load import parse
from filebucket.test.kit.certificates import (
    certify,
    make_key,
    write_chain,
    write_pair,
)


class AddressTests(SynchronousTestCase):
    def address(self, **keys: object) -> Address:
        text = json.dumps({"home": "h", "buckets": [], **keys})
        return address(parse(text, "/etc/config.json"), "backup")

    def test_first_steps(self) -> None:
        """The commands for the first push, without a token."""
        token = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"
        config = parse(json.dumps({"home": "h", "buckets": [token]}), "c.json")
        curl = "curl --fail-with-body -T FILE http://backup:1234/TOKEN/"
        for path, add in (
            (DEFAULT_CONFIG, "filebucket bucket add NAME"),
            ("/a b.json", "filebucket bucket add NAME --config '/a b.json'"),
        ):
            self.assertEqual(
                FirstSteps(add, curl, None), first_steps(config, path, "backup")
            )

    def test_host(self) -> None:
        """The configured host, or this machine's name for all addresses."""
        for keys, url in (
            ({}, "http://backup:1234"),
            ({"host": "::", "port": 80}, "http://backup:80"),
            ({"host": "::1"}, "http://[::1]:1234"),
            ({"host": "localhost", "port": 0}, "http://localhost:PORT"),
        ):
            unknown = "PORT" if "PORT" in url else None
            self.assertEqual(Address(url, unknown=unknown), self.address(**keys))

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
            # A client cannot send the PROXY header.
            ([f"haproxy:{tls}", "tcp:80"], "http://backup:80"),
            (["haproxy:tcp:80"], "https://PROXY"),
            ([f"haproxy:{tls}:interface=127.0.0.1"], "https://PROXY"),
            (["haproxy:unix:s"], "https://PROXY"),
        ):
            unknown = next((each for each in ("PORT", "PROXY") if each in url), None)
            expected = Address(url, unknown=unknown)
            self.assertEqual(expected, self.address(listen=listen))

    def test_self_signed(self) -> None:
        """Clients need a copy of a self-signed certificate."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        key, certificate = folder / "key.pem", folder / "cert.pem"
        tls = f"ssl:1443:privateKey={key}:certKey={certificate}"
        url = "https://backup:1443"
        write_chain(folder)
        self.assertEqual(Address(url), self.address(listen=[tls]))
        write_pair(folder)
        made = self.address(listen=[tls])
        self.assertEqual(Address(url, " --cacert CERT", str(certificate)), made)
        self.assertIn(" --cacert CERT -T FILE ", made.lines("TOKEN")[0])
        key.write_bytes(key.read_bytes() + certificate.read_bytes())
        made = self.address(listen=[f"ssl:1443:privateKey={key}"])
        expected = f"{key}, without the private key in this file"
        self.assertEqual(expected, made.certificate)
        certificate.write_text("no certificate")
        self.assertEqual(Address(url), self.address(listen=[tls]))

    def test_name_of_certificate(self) -> None:
        """The name in the URL is one for which the certificate of that listener is
        valid. A wildcard is no host, and other names might need quoting in a shell.
        """
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        key = make_key()
        tls = f"ssl:1443:privateKey={folder}/key.pem:certKey={folder}/cert.pem"
        name = "drop.example.org"
        for listen, names, place in (
            ([tls], [name, "other.example.org"], f"{name}:1443"),
            ([tls], ["*.example.org", "$(id).example.org", name], f"{name}:1443"),
            ([tls], ["*.example.org"], "backup:1443"),
            ([tls], [], "backup:1443"),
            ([f"{tls}:interface=192.0.2.1"], [name], f"{name}:1443"),
            ([f"{tls}:interface=127.0.0.1"], [name], "127.0.0.1:1443"),
            ([tls.replace("1443", "0")], [name], f"{name}:PORT"),
            # The name goes with the URL of this listener, not with that of another.
            (["ssl:443:privateKey=none.pem", tls], [name], "backup:443"),
        ):
            made = certify("server", key, "root", make_key(), names=names)
            (folder / "cert.pem").write_bytes(made)
            self.assertEqual(f"https://{place}", self.address(listen=listen).url)

    def test_unix(self) -> None:
        """The path of a socket is quoted for a shell."""
        made = self.address(listen=["unix:/run/a b"])
        first, *_, curl, push = made.lines("TOKEN")
        self.assertEqual(
            "curl --fail-with-body --unix-socket '/run/a b' -T FILE"
            " http://localhost/TOKEN/",
            first,
        )
        self.assertIn("--unix-socket '/run/a b' -H @", curl)
        self.assertEqual(
            "filebucket-push --unix-socket '/run/a b' --url http://localhost FILE", push
        )
