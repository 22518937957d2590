"""Where the server is, and its token."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.client.access import (
    LONGEST_TOKEN_FILE,
    Server,
    is_private,
    read_token,
    server,
    token_file,
)
from filebucket.client.errors import UsageError
from filebucket.test.kit.certificates import key_pem, make_key, write_pair

TOKEN = "0123456789abcdefABCDEF_-01234567"


class UrlTests(SynchronousTestCase):
    def refusal(self, url: str, **given: str) -> str:
        """Why it is refused: never with the token."""
        error = self.assertRaises(UsageError, server, url, TOKEN, **given)
        self.assertNotIn(TOKEN, str(error))
        return str(error)

    def test_forms(self) -> None:
        for url, scheme, host, port, prefix in (
            ("http://backup:1234", "http", "backup", 1234, ""),
            ("http://backup:1234/", "http", "backup", 1234, ""),
            ("HTTPS://Backup.Example.ORG", "https", "backup.example.org", None, ""),
            ("https://backup/to/here//", "https", "backup", None, "/to/here"),
            ("http://[::1]:80/", "http", "::1", 80, ""),
            ("http://b\u00fccher.example/", "http", "b\u00fccher.example", None, ""),
            ("http://h/a b/\u00e4%20;=~", "http", "h", None, "/a%20b/%C3%A4%20;=~"),
        ):
            found = server(url, TOKEN)
            self.assertEqual(
                (scheme, host, port, prefix),
                (found.scheme, found.host, found.port, found.prefix),
                url,
            )
            self.assertEqual(scheme == "https", found.tls is not None)
            self.assertEqual(TOKEN, found.token)

    def test_text(self) -> None:
        for url, expected in (
            ("http://backup:1234/", "http://backup:1234"),
            ("https://[::1]:1443/a/", "https://[::1]:1443/a"),
            ("https://backup", "https://backup"),
        ):
            self.assertEqual(expected, server(url, TOKEN).text)
        self.assertEqual("/run/s", server("http://localhost", TOKEN, "/run/s").text)

    def test_never_shown(self) -> None:
        for url in ("http://backup", "https://backup"):
            found = server(url, TOKEN)
            self.assertNotIn(TOKEN, f"{found} {found!r} {found.text}")

    def test_refused(self) -> None:
        for url, expected in (
            ("backup:1234", "must begin with http:// or https://"),
            ("ftp://backup", "must begin with http:// or https://"),
            ("http://", "and have a host"),
            ("http:///path", "and have a host"),
            ("http://backup:port/", "the URL is not valid"),
            ("http://backup:65536/", "the URL is not valid"),
            ("http://[::1/", "the URL is not valid"),
            ("http://backup/?a=b", "'?' or a '#'"),
            ("http://backup/#a", "'?' or a '#'"),
            (f"http://{'a' * 64}.example/", "is not a host"),
            ("http://a..b/", "is not a host"),
        ):
            self.assertIn(expected, self.refusal(url), url)

    def test_token_in_url(self) -> None:
        """It would be in the list of processes, and is not repeated in a message."""
        for url in (
            f"http://backup/{TOKEN}",
            f"http://backup/{TOKEN}/",
            f"http://backup/a/{TOKEN}/db.gz",
            f"http://{TOKEN}@backup/",
            f"http://user:{TOKEN}@backup/",
            "http://@backup/",
        ):
            self.assertIn("must not have the token", self.refusal(url), url)
        for url in (
            f"http://backup:{TOKEN}/",
            f"http://{TOKEN}@[::1/",
            f"http://{TOKEN}@a\u2100b/",
            f"http://backup/?token={TOKEN}",
        ):
            self.refusal(url)

    def test_exposed(self) -> None:
        for url, expected in (
            ("http://backup", True),
            ("http://192.0.2.1", True),
            ("http://localhost.example.org", True),
            ("https://backup", False),
            ("http://localhost:1", False),
            ("http://db.localhost", False),
            ("http://127.1.2.3", False),
            ("http://[::1]", False),
        ):
            self.assertEqual(expected, server(url, TOKEN).exposes_token, url)
        self.assertFalse(server("http://backup", TOKEN, "/run/s").exposes_token)

    def test_no_tls(self) -> None:
        for option in ("cacert", "cert", "key"):
            self.assertEqual(
                "--cacert, --cert and --key need an https:// URL",
                self.refusal("http://backup", **{option: "file"}),
            )


class CertificateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        write_pair(self.folder)
        self.cert = str(self.folder / "cert.pem")
        self.key = str(self.folder / "key.pem")

    def made(self, **given: str) -> Server:
        return server("https://backup", TOKEN, **given)

    def refusal(self, **given: str) -> str:
        return str(self.assertRaises(UsageError, self.made, **given))

    def test_system(self) -> None:
        """By default the server must have a certificate that the system trusts."""
        tls = self.made().tls
        assert tls is not None
        self.assertEqual(ssl.CERT_REQUIRED, tls.verify_mode)
        self.assertTrue(tls.check_hostname)

    def test_cacert(self) -> None:
        """It replaces the system's."""
        tls = self.made(cacert=self.cert).tls
        assert tls is not None
        self.assertEqual(1, tls.cert_store_stats()["x509"])

    def test_client_certificate(self) -> None:
        self.made(cert=self.cert, key=self.key)
        both = self.folder / "both.pem"
        both.write_bytes(Path(self.cert).read_bytes() + Path(self.key).read_bytes())
        self.made(cert=str(both))

    def test_refused(self) -> None:
        missing = str(self.folder / "missing")
        (self.folder / "text").write_text("text")
        text = str(self.folder / "text")
        locked = self.folder / "locked.pem"
        locked.write_bytes(key_pem(make_key(), b"secret"))
        other = self.folder / "other.pem"
        other.write_bytes(key_pem(make_key()))
        no_file = "No such file or directory"
        no_pair = (
            "not a certificate in PEM, or its private key is missing, wrong or has a"
            " passphrase"
        )
        for given, expected in (
            ({"key": self.key}, "--key needs --cert"),
            ({"cacert": missing}, f"--cacert {missing}: {no_file}"),
            ({"cacert": text}, f"--cacert {text}: no certificate in PEM"),
            ({"cert": missing}, f"--cert {missing}: {no_file}"),
            ({"cert": self.cert, "key": missing}, f"--key {missing}: {no_file}"),
            ({"cert": self.cert}, f"--cert {self.cert}: {no_pair}"),
            ({"cert": text, "key": self.key}, f"--cert {text}: {no_pair}"),
            ({"cert": self.cert, "key": str(other)}, f"--cert {self.cert}: {no_pair}"),
            # It must not ask for the passphrase.
            ({"cert": self.cert, "key": str(locked)}, f"--cert {self.cert}: {no_pair}"),
        ):
            self.assertEqual(expected, self.refusal(**given))


class TokenFileTests(SynchronousTestCase):
    """Where the token is looked for."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.home.mkdir()
        self.usual = self.home / ".file-bucket"
        self.credentials = self.home / "credentials"
        self.credentials.mkdir()

    def found(self, given: str | None = None, **environ: str) -> Path:
        return token_file(given, environ, str(self.home))

    def test_order(self) -> None:
        self.usual.touch()
        credential = self.credentials / "file-bucket"
        systemd = {"CREDENTIALS_DIRECTORY": str(self.credentials)}
        # A service without that credential.
        self.assertEqual(self.usual, self.found(**systemd))
        credential.touch()
        self.assertEqual(credential, self.found(**systemd))
        named = {**systemd, "FILEBUCKET_TOKEN_FILE": "named"}
        self.assertEqual(Path("named"), self.found(**named))
        self.assertEqual(Path("given"), self.found("given", **named))
        self.assertEqual(self.usual, self.found("", FILEBUCKET_TOKEN_FILE=""))

    def test_none(self) -> None:
        error = self.assertRaises(UsageError, self.found)
        self.assertIn(
            f"put the line 'Authorization: Bearer TOKEN' into {self.usual}", str(error)
        )

    def test_not_found_out(self) -> None:
        """A home that cannot be looked into, such as another user's, has none."""
        self.home = self.home / ("a" * 256)
        self.assertRaises(UsageError, self.found)


class ReadTokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def read(self, content: bytes) -> str:
        self.path.write_bytes(content)
        return read_token(self.path)

    def refusal(self, content: bytes) -> str:
        error = self.assertRaises(UsageError, self.read, content)
        self.assertNotIn(TOKEN[:-1], str(error))
        return str(error)

    def test_forms(self) -> None:
        for content in (
            TOKEN,
            f"{TOKEN}\n",
            f"  {TOKEN}\t\r\n",
            f"Authorization: Bearer {TOKEN}",
            f"Authorization: Bearer {TOKEN}\r\n",
            f"authorization:bearer   {TOKEN}\n",
            f"AUTHORIZATION : BEARER\t{TOKEN}\n",
            f"Bearer {TOKEN}\n",
            f"# of the bucket shop\n\nX-Other: 1\nAuthorization: Bearer {TOKEN}\n",
            f"{TOKEN}\n{TOKEN[::-1]}\n",
            f"\ufeffAuthorization: Bearer {TOKEN}\r\n",
        ):
            self.assertEqual(TOKEN, self.read(content.encode()), content)

    def test_powershell(self) -> None:
        """Its ``>`` writes UTF-16."""
        text = f"Authorization: Bearer {TOKEN}\r\n"
        self.assertEqual(TOKEN, self.read(text.encode("utf-16")))
        self.assertEqual(TOKEN, self.read(b"\xfe\xff" + text.encode("utf-16-be")))

    def test_none(self) -> None:
        for content in (
            b"",
            b"\n",
            b"\xff\xfe\x00",
            b"\x80\x81",
            TOKEN[:-1].encode(),
            f"{TOKEN}0".encode(),
            f"# {TOKEN}".encode(),
            f"Basic {TOKEN}".encode(),
            f"Authorization: Bearer {TOKEN} x".encode(),
            b"Authorization: Bearer TOKEN",
        ):
            self.assertIn("it has no token", self.refusal(content))

    def test_too_large(self) -> None:
        """Such a file is another one, even if it begins with a token."""
        token = TOKEN.encode()
        largest = LONGEST_TOKEN_FILE
        self.assertEqual(TOKEN, self.read(token.ljust(largest, b"\n")))
        self.assertIn("too large", self.refusal(token.ljust(largest + 1, b"\n")))

    def test_unreadable(self) -> None:
        for path, reason in (
            (self.path, "No such file or directory"),
            (Path(), "Is a directory"),
        ):
            error = self.assertRaises(UsageError, read_token, path)
            self.assertEqual(f"token file {path}: {reason}", str(error))

    def test_private(self) -> None:
        if os.name != "posix":
            raise SkipTest("it has no such modes")
        self.path.touch()
        for mode, expected in ((0o600, True), (0o400, True), (0o640, False)):
            self.path.chmod(mode)
            self.assertEqual(expected, is_private(self.path))
