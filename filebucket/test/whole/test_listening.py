"""The real daemon on real endpoints: TLS, UNIX sockets, systemd's sockets."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import signal
import socket
import ssl
import sys
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from twisted.trial.unittest import SkipTest

from filebucket.test.kit.certificates import (
    certify,
    key_pem,
    make_key,
    write_chain,
    write_pair,
)
from filebucket.test.kit.integration import (
    MIB,
    Client,
    IntegrationCase,
    need,
    put_head,
    run,
)
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import PATIENCE, TOKEN, TWISTD, UNKNOWN, Server, hurried

TLS = "ssl:0:key.pem:cert.pem:interface=127.0.0.1"


class TlsClient(Client):
    """A raw connection over TLS."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        context = ssl.create_default_context(cafile=str(server.folder / "cert.pem"))
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")


class TlsCase(IntegrationCase):
    """Provides a daemon with TLS, and the folder of its certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.certificates = self.folder / "server"
        self.certificates.mkdir()
        write_pair(self.certificates)

    def tls(
        self, *arguments: str, ca: str = "cert.pem", stdin: bytes | None = None
    ) -> tuple[int, bytes]:
        """The output of curl, which trusts the certificate."""
        known = str(self.certificates / ca)
        return self.curl("--cacert", known, *arguments, stdin=stdin)


class TlsTests(TlsCase):
    """Pushes over TLS."""

    def test_push(self) -> None:
        """The bytes arrive, with both TLS versions, with and without a length."""
        server = self.server(listen=[TLS])
        content = os.urandom(8 * MIB)
        path = str(self.file(content=content))
        url = f"{server.url}/{TOKEN}"
        for version in ("1.2", "1.3"):
            for way, *arguments in (
                ("put", "-T", path, f"{url}/put{version}"),
                ("chunked", "-T", "-", f"{url}/chunked{version}"),
                ("form", "-F", f"file=@{path};filename=form{version}", url),
            ):
                only = (f"--tlsv{version}", "--tls-max", version)
                status, answer = self.tls(*only, *arguments, stdin=content)
                name = f"{way}{version}"
                receipt = f"{hashlib.sha256(content).hexdigest()}  {name}\n"
                self.assertEqual((200, receipt.encode()), (status, answer))
                self.assertEqual(content, server.stored()[f"{TOKEN}/{name}"])

    def handshake(self, server: Server, context: ssl.SSLContext) -> str:
        """The cipher that a client and the daemon negotiate."""
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain,
            context.wrap_socket(plain) as secure,
        ):
            cipher = secure.cipher()
        assert cipher is not None
        return str(cipher[0])

    def test_old_version(self) -> None:
        """A client that speaks only TLS 1.1 is rejected."""
        server = self.server(listen=[TLS])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers(
            "ALL:@SECLEVEL=0"
        )  # else the client would not even offer it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises(ssl.SSLError) as caught:
            self.handshake(server, context)
        self.assertEqual("TLSV1_ALERT_PROTOCOL_VERSION", caught.exception.reason)

    def test_ciphers(self) -> None:
        """Without forward secrecy the handshake fails; with it, it works."""
        write_pair(self.certificates, generate_private_key(65537, 2048))
        server = self.server(listen=[TLS])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        self.assertEqual("ECDHE-RSA-AES128-GCM-SHA256", self.handshake(server, context))
        for cipher in ("AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA"):
            context.set_ciphers(cipher)
            with self.assertRaises(ssl.SSLError) as caught:
                self.handshake(server, context)
            self.assertIn("HANDSHAKE_FAILURE", caught.exception.reason)

    def test_chain(self) -> None:
        """Clients that trust only the root get the intermediate certificate."""
        write_chain(self.certificates)
        middle = (self.certificates / "middle.pem").read_bytes()
        full = (self.certificates / "cert.pem").read_bytes() + middle
        (self.certificates / "full.pem").write_bytes(full)
        path = str(self.file())
        for name, chain in (
            ("full", "certKey=full.pem"),
            ("apart", "certKey=cert.pem:extraCertChain=middle.pem"),
        ):
            server = self.server(listen=[f"ssl:0:key.pem:{chain}:interface=127.0.0.1"])
            url = f"{server.url}/{TOKEN}/{name}"
            self.assertEqual(200, self.tls("-T", path, url, ca="root.pem")[0])
            server.stop()

    def test_early_answer(self) -> None:
        """curl reads an answer that comes while it sends a large file."""
        server = self.server(listen=[TLS])
        path = self.folder / "large"
        with path.open("wb") as file:
            file.truncate(200 * MIB)
        url = f"{server.url}/{TOKEN}/x"
        self.assertEqual(200, self.tls("-T", str(self.file()), url)[0])
        for status, *arguments in (
            (403, f"{server.url}/{UNKNOWN}/x"),
            (405, url),
            (403, "-H", "Expect:", f"{server.url}/{UNKNOWN}/x"),
            (405, "-H", "Expect:", url),
            (405, "-H", "Expect:", "-H", "Transfer-Encoding: chunked", url),
        ):
            for version in ("1.2", "1.3"):
                for _ in range(3):
                    got, answer = self.tls(
                        "--tls-max", version, "-T", str(path), *arguments
                    )
                    self.assertEqual(status, got, (arguments, answer))
                    self.assertEqual(1, answer.count(b"\n"), answer)

    def test_answer_in_the_body(self) -> None:
        """The same if the verdict comes while the daemon does not read, or late."""
        server = self.server(listen=[TLS], max_file_size=150 * MIB)
        path = self.folder / "large"
        with path.open("wb") as file:
            file.truncate(200 * MIB)
        push = ("-H", "Expect:", "-T", str(path), f"{server.url}/{TOKEN}/x")
        chunked = ("-H", "Transfer-Encoding: chunked", *push)
        self.assertEqual(413, self.tls(*chunked)[0])
        server.hook("pre-push", "sleep 0.5; exit 1")
        self.assertEqual(409, self.tls(*chunked)[0])
        with path.open("wb") as file:
            file.truncate(100 * MIB)
        self.assertEqual(409, self.tls(*push)[0])
        self.assertEqual({}, server.stored())

    def test_reads_only_when_done(self) -> None:
        """An early answer reaches a client that sends 20 MB before it reads."""
        server = self.server(listen=[TLS])
        for _ in range(10):
            client = TlsClient(server)
            client.send(put_head("x", 20_000_000, token=UNKNOWN), b"x" * 20_000_000)
            self.assertEqual(403, client.answer()[0])
            client.close()

    def test_gone(self) -> None:
        """A client that disconnects during its body leaves nothing behind."""
        server = self.server(listen=[TLS])

        def push(client: Client) -> None:
            client.begin("x", 100_000)
            client.send(b"x" * 50_000)

        self.assert_nothing_left(server, TlsClient, push)

    def wait_for_end(self, client: Client) -> None:
        """Wait until a connection is closed, maybe by a reset."""
        with contextlib.suppress(ConnectionResetError):
            while client.socket.recv(1000):
                pass

    def test_plain(self) -> None:
        """Plain HTTP to a TLS port is no push and no traceback."""
        server = self.server(listen=[TLS])
        client = self.client(server)
        client.send(put_head("x", 3), b"abc")
        self.wait_for_end(client)
        path = str(self.file())
        self.assertEqual(200, self.tls("-T", path, f"{server.url}/{TOKEN}/y")[0])
        self.assertEqual([f"{TOKEN}/y"], list(server.stored()))
        self.assertNotIn("Traceback", server.log)

    def test_stop(self) -> None:
        """Pushes in progress finish; idle connections, and those without a handshake,
        are closed."""
        server = self.server(listen=[TLS])
        idle = TlsClient(server)
        self.addCleanup(idle.close)
        idle.send(put_head("idle", 0))
        self.assertEqual(200, idle.answer()[0])
        silent = self.client(server)
        busy = TlsClient(server)
        self.addCleanup(busy.close)
        busy.begin("busy", 2)
        busy.send(b"x")
        server.signal(signal.SIGTERM)
        self.assertEqual(b"", idle.socket.recv(1))
        self.wait_for_end(silent)
        busy.send(b"x")
        self.assertEqual(200, busy.answer()[0])
        self.assertEqual(b"", busy.socket.recv(1))
        busy.close()
        idle.close()
        self.assertEqual(-signal.SIGTERM, server.wait())
        self.assertEqual(b"xx", server.stored()[f"{TOKEN}/busy"])


class ClientCertificateTests(TlsCase):
    """Client certificates, as a second factor beside the token."""

    def write_client(self, name: str) -> None:
        """A pair for a client, and the issuer's certificate."""
        issuer_key, key = make_key(), make_key()
        folder = self.certificates
        (folder / f"{name}-ca.pem").write_bytes(certify(f"{name}-ca", issuer_key))
        (folder / f"{name}.key").write_bytes(key_pem(key))
        (folder / f"{name}.pem").write_bytes(
            certify(name, key, f"{name}-ca", issuer_key)
        )

    def pair(self, name: str) -> tuple[str, ...]:
        """The options with which curl sends it."""
        path = self.certificates / name
        return ("--cert", f"{path}.pem", "--key", f"{path}.key")

    def test_both_are_needed(self) -> None:
        """Without the certificate, the token does not matter."""
        need("curl")
        self.write_client("ours")
        self.write_client("other")
        server = self.server(listen=[f"{TLS}:clientCA=ours-ca.pem"])
        path = str(self.file())
        url = f"{server.url}/{TOKEN}"
        known = ("--cacert", str(self.certificates / "cert.pem"), "-T", path)
        refused = 0
        for count, version in enumerate(("1.2", "1.3"), 1):
            only = (f"--tlsv{version}", "--tls-max", version)
            push = (*only, *self.pair("ours"), "-T", path)
            self.assertEqual(200, self.tls(*push, f"{url}/{version}")[0])
            self.assertEqual(403, self.tls(*push, f"{server.url}/{UNKNOWN}/x")[0])
            for pair, reason in (
                ((), "peer did not return a certificate"),
                (self.pair("other"), "certificate verify failed"),
            ):
                done = run("curl", "-sS", *only, *known, *pair, f"{url}/no")
                # 35 and 56: TLS failed before or instead of the answer; 55: during the
                # push.
                self.assertIn(done.returncode, (35, 55, 56), done.stderr)
                self.assertEqual(b"", done.stdout)
                dropped = f"dropped client=127.0.0.1:.* reason='TLS: .*{reason}"
                server.wait_for(dropped, count)
                refused += 1
        self.assertEqual(refused, server.log.count("dropped"))
        self.assertEqual([f"{TOKEN}/1.2", f"{TOKEN}/1.3"], list(server.stored()))
        self.assertNotIn("Traceback", server.log)


class RenewalTests(TlsCase):
    """The certificate is replaced while pushes are received."""

    def setUp(self) -> None:
        super().setUp()
        self.issuer_key = make_key()
        issuer = certify("root", self.issuer_key).decode()
        self.context = ssl.create_default_context(cadata=issuer)
        self.renew()
        self.write(self.key, self.certificate)

    def renew(self) -> None:
        """Make a pair."""
        key = make_key()
        self.key = key_pem(key)
        self.certificate = certify("server", key, "root", self.issuer_key)

    def write(self, key: bytes | None = None, certificate: bytes | None = None) -> None:
        """Replace both files or one of them."""
        for name, content in (("key.pem", key), ("cert.pem", certificate)):
            if content is not None:
                (self.certificates / name).write_bytes(content)

    def connect(self, server: Server) -> tuple[Client, bytes]:
        """A connection, and the daemon's certificate."""
        client = Client(server)
        secure = self.context.wrap_socket(client.socket, server_hostname="127.0.0.1")
        client.socket = secure
        shown = secure.getpeercert(binary_form=True)
        assert shown is not None
        return client, ssl.DER_cert_to_PEM_cert(shown).encode()

    def push_until(self, stop: threading.Event, server: Server) -> list[bytes]:
        """Push on a new connection each time.

        :returns: the certificates that the daemon sent, in order
        """
        shown: list[bytes] = []
        while not stop.is_set():
            client, certificate = self.connect(server)
            name = f"{threading.get_ident()}-{len(shown)}"
            client.send(put_head(name, 3), b"abc")
            self.assertEqual(200, client.answer()[0])
            client.close()
            shown.append(certificate)
        return shown

    def test_under_load(self) -> None:
        """No push fails, in whatever order the files are replaced."""
        command = hurried("http.tls", LOOK_EVERY=0.2)
        server = self.server(*command, listen=[TLS])
        old, _ = self.connect(server)
        self.addCleanup(old.close)
        old.begin("old", 2)
        old.send(b"a")
        idle, _ = self.connect(server)
        self.addCleanup(idle.close)
        stop = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            workers = [pool.submit(self.push_until, stop, server) for _ in range(2)]
            try:
                expected = self.replace_twice(server)
            finally:
                stop.set()
        for each in workers:
            shown = list(dict.fromkeys(each.result()))
            self.assertEqual(expected[: len(shown)], shown)
            self.assertGreaterEqual(len(shown), 2)
        old.send(b"b")
        self.assertEqual(200, old.answer()[0])
        idle.send(put_head("idle", 0))
        self.assertEqual(200, idle.answer()[0])
        self.assertEqual(b"ab", server.stored()[f"{TOKEN}/old"])
        self.assertEqual(1, server.log.count("changed files not loaded"))

    def replace_twice(self, server: Server) -> list[bytes]:
        """Replace the pair twice; the certificates that were used, in order."""
        expected = [self.certificate]
        # The key first, with a pause in which the daemon sees it.
        self.renew()
        self.write(key=self.key)
        server.wait_for("TLS: changed files not loaded: .*does not match the")
        self.write(certificate=self.certificate)
        server.wait_for("TLS: new certificate loaded, valid until ")
        expected.append(self.certificate)
        # The certificate first.
        self.renew()
        self.write(certificate=self.certificate)
        self.write(key=self.key)
        server.wait_for("TLS: new certificate loaded, valid until ", 2)
        expected.append(self.certificate)
        last, certificate = self.connect(server)
        last.close()
        self.assertEqual(self.certificate, certificate)
        return expected

    def test_rights_given_up(self) -> None:
        """A key that only root can read is kept, and the log says that it cannot be
        reloaded."""
        if os.geteuid() != 0:
            raise SkipTest("only root has rights to give up")
        nobody = pwd.getpwnam("nobody")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # The folder belongs to that user, and its content does not.
        os.chown(folder.name, nobody.pw_uid, nobody.pw_gid)
        key = Path(folder.name) / "key.pem"
        write_pair(key.parent)
        key.chmod(0o600)
        server = Server(key.parent, listen=[TLS])
        self.addCleanup(server.stop)
        server.start(
            *(*TWISTD, "-n", "--pidfile=", "--uid", str(nobody.pw_uid)),
            *("--gid", str(nobody.pw_gid), "filebucket"),
        )
        stays = "TLS: changed files not loaded: .* privateKey: "
        server.wait_for(f"{stays}{key}: Permission denied")
        known = ("--cacert", str(key.with_name("cert.pem")))
        url = f"{server.url}/{TOKEN}/x"
        self.assertEqual(200, self.curl(*known, "-T", str(self.file()), url)[0])


class ProxyHeaderTests(TlsCase):
    """Connections that begin with a PROXY header."""

    LINE = b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 443\r\n"
    BINARY = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\x09\x12\x67\x01\xbb"

    def test_push(self) -> None:
        """The log and the hooks get the client from the header."""
        server = self.server(listen=["haproxy:tcp:0:127.0.0.1"])
        server.hook("pre-push", 'echo "told $4 $FILEBUCKET_REMOTE" >&2')
        for name, header in (("v1", self.LINE), ("v2", self.BINARY)):
            client = self.client(server)
            # Byte by byte.
            for index in range(len(header)):
                client.send(header[index : index + 1])
            client.send(put_head(name, 3), b"abc")
            self.assertEqual(200, client.answer()[0])
            server.wait_for(f"push .*name='{name}' .* client=192.0.2.1:4711 ")
            client.send(put_head(name, 3), b"abc")
            self.assertEqual(405, client.answer()[0])
        server.wait_for("told 192.0.2.1:4711 192.0.2.1:4711", 4)

    def test_half_close(self) -> None:
        """A client that stops sending after its push gets the answer."""
        server = self.server(listen=["haproxy:tcp:0:127.0.0.1"])
        server.hook("pre-push", "sleep 0.3")
        client = self.client(server)
        client.send(self.LINE + put_head("x", 3) + b"abc")
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(200, client.answer()[0])
        self.assertEqual(b"", client.socket.recv(1))

    def test_early_answer(self) -> None:
        """An early answer reaches a client that sends 20 MB before it reads."""
        server = self.server(listen=["haproxy:tcp:0:127.0.0.1"])
        for _ in range(5):
            client = self.client(server)
            head = put_head("x", 20_000_000, token=UNKNOWN)
            client.send(self.LINE, head, b"x" * 20_000_000)
            self.assertEqual(403, client.answer()[0])

    def test_tls(self) -> None:
        """TLS begins after the header."""
        listen = "haproxy:ssl:0:key.pem:cert.pem:interface=127.0.0.1"
        server = self.server(listen=[listen])
        known = str(self.certificates / "cert.pem")
        context = ssl.create_default_context(cafile=known)
        client = self.client(server)
        client.send(self.BINARY)
        plain = client.socket
        client.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        client.begin("x", 200_000)
        client.send(bytes(200_000))
        self.assertEqual(200, client.answer()[0])
        client.close()
        server.wait_for("push .*name='x' .* client=192.0.2.1:4711 ")

    def test_curl(self) -> None:
        """curl can send the header, too."""
        server = self.server(listen=["haproxy:tcp:0:127.0.0.1", f"haproxy:{TLS}"])
        push = ("--haproxy-protocol", "-T", str(self.file()))
        plain, secure = (each.partition(" ")[0] for each in server.places)
        for name, url in (("plain", f"http://{plain}"), ("tls", f"https://{secure}")):
            self.assertEqual(200, self.tls(*push, f"{url}/{TOKEN}/{name}")[0])
            server.wait_for(f"push .*name='{name}' .* client=127.0.0.1:[1-9]")

    def test_unix(self) -> None:
        """The same over a UNIX socket."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/s"
        server = self.server(listen=[f"haproxy:unix:{path}"])
        self.assertEqual([f"unix:{path} with PROXY header"], server.places)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            client.sendall(self.LINE + put_head("x", 3) + b"abc")
            self.assertTrue(client.recv(1000).startswith(b"HTTP/1.1 200 "))
        server.wait_for("push .*name='x' .* client=192.0.2.1:4711 ")

    def test_none(self) -> None:
        """A connection without the header is dropped, with one log line."""
        server = self.server(listen=["haproxy:tcp:0:127.0.0.1"])
        begins = (b"", b"PROXY TCP4 x\r\n", b"PROXY UNKNOWN")
        for number, begin in enumerate(begins, start=1):
            client = self.client(server)
            client.send(begin + put_head("x", 3) + b"abc")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(b"", client.socket.recv(1))
            server.wait_for("dropped client=127.0.0.1:.* PROXY header'", number)
            # Not before the first connection: then not all descriptors are open yet.
            before = server.unconnected_files()
        said = server.log.partition("ready on")[2].splitlines()[1:]
        self.assertEqual(3, len([line for line in said if "catalogue: " not in line]))
        self.assertEqual({}, server.stored())
        self.assertTrue(server.wait_for_open_files(before), server.open_files())

    def test_not_trusted(self) -> None:
        """With ``trusted_proxies``, other clients are dropped before the header."""
        server = self.server(
            listen=["haproxy:tcp:0:127.0.0.1"], trusted_proxies=["192.0.2.0/24"]
        )
        client = self.client(server)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b"", client.socket.recv(1))
        server.wait_for("dropped client=127.0.0.1:.* reason='not in trusted")


class OthersTests(TlsCase):
    """UNIX sockets, inherited sockets, and several endpoints at once."""

    def socket_folder(self) -> Path:
        """A folder with a short path: a UNIX socket's path has up to 107 bytes."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)

    def test_unix(self) -> None:
        """A push over a UNIX socket, whose file is removed when the daemon ends."""
        path = self.socket_folder() / "s"
        server = self.server(listen=[f"unix:{path}:mode=600"])
        self.assertEqual([f"unix:{path}"], server.places)
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        push = ("--unix-socket", str(path), "-T", str(self.file()))
        status, _ = self.curl(*push, f"http://h/{TOKEN}/x")
        self.assertEqual(200, status)
        server.wait_for("push .*client=local ")
        self.assertEqual({f"{TOKEN}/x": b"content"}, server.stored())
        large = self.folder / "large"
        with large.open("wb") as file:
            file.truncate(100 * MIB)
        early = (*push[:2], "-H", "Expect:", "-T", str(large))
        self.assertEqual(405, self.curl(*early, f"http://h/{TOKEN}/x")[0])
        server.signal(signal.SIGTERM)
        server.wait()
        self.assertEqual([], os.listdir(path.parent))

    def test_killed(self) -> None:
        """The socket of a killed daemon is replaced."""
        path = self.socket_folder() / "s"
        server = Server(self.folder / "server", listen=[f"unix:{path}"]).start()
        server.signal(signal.SIGKILL)
        server.wait()
        server.stop()
        self.server(listen=[f"unix:{path}"])
        done = run("curl", "-sS", "--unix-socket", str(path), "http://h/")
        self.assertEqual(0, done.returncode, done.stderr)

    def test_all(self) -> None:
        """Several endpoints serve the same buckets."""
        need("curl")
        path = self.socket_folder() / "s"
        server = self.server(listen=["tcp:0:127.0.0.1", TLS, f"unix:{path}"])
        plain, secure, local = server.places
        self.assertRegex(plain, r"^127\.0\.0\.1:\d+$")
        self.assertRegex(secure, r"^127\.0\.0\.1:\d+ with TLS$")
        self.assertEqual(f"unix:{path}", local)
        url = f"https://{secure.removesuffix(' with TLS')}/{TOKEN}/x"
        file = str(self.file())
        self.assertEqual(200, self.tls("-T", file, url)[0])
        self.assertEqual(405, self.curl("-T", file, f"http://{plain}/{TOKEN}/x")[0])
        here = ("--unix-socket", str(path))
        self.assertEqual(405, self.curl(*here, "-T", file, f"http://h/{TOKEN}/x")[0])

    def test_all_or_none(self) -> None:
        """If one endpoint is in use, none stays open."""
        port = self.server().port
        folder = self.socket_folder()
        taken = f"tcp:{port}:127.0.0.1"
        server = Server(
            self.folder / "second", listen=[f"unix:{folder}/s", taken, "tcp:0"]
        )
        line = f"cannot listen on {taken}: Address already in use\n"
        self.assertIn(line, self.refused(server))
        self.assertEqual([], os.listdir(folder))

    def test_cannot_listen(self) -> None:
        """The reason, in one line."""
        folder = self.socket_folder()
        (folder / "file").write_text("kept")
        for listen, reason in (
            (f"unix:{folder}/no/s", "No such file or directory"),
            (f"unix:{folder}/file", "Address already in use"),
            (f"unix:{folder}/{'s' * 100}", "AF_UNIX path too long"),
            ("tcp:0:192.0.2.1", "Cannot assign requested address"),
        ):
            server = Server(self.folder / "second", listen=[listen])
            line = f"cannot listen on {listen}: {reason}\n"
            self.assertIn(line, self.refused(server))
        self.assertEqual("kept", (folder / "file").read_text())

    def test_mistakes(self) -> None:
        """A missing certificate."""
        server = Server(self.folder / "second", listen=["tcp:0", "ssl:0:no.pem"])
        path = server.folder / "no.pem"
        line = f"$.listen[1]: privateKey: {path}: No such file or directory\n"
        self.assertIn(line, self.refused(server))

    def inherit(self, family: str, listen: str = "made.listen()") -> tuple[str, ...]:
        """A command that passes a listening socket as systemd does."""
        if family == "UNIX":
            bind = repr(str(self.socket_folder() / "s"))
        else:
            bind = "('127.0.0.1', 0)"
        script = (
            "import os, socket, sys\n"
            f"made = socket.socket(socket.AF_{family})\n"
            f"made.bind({bind})\n"
            f"{listen}\n"
            "fd = os.dup(made.fileno())\n"
            "os.dup2(fd, 3)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1',"
            " LISTEN_FDNAMES='drop')\n"
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
        )
        serve = (*TWISTD[1:], "-n", "--pidfile=", "filebucket")
        return (sys.executable, "-c", script, *serve)

    def test_systemd(self) -> None:
        """A socket that was open before the daemon started."""
        for index, listen in enumerate(("INET:index=0", "INET:name=drop")):
            server = Server(self.folder / str(index), listen=[f"systemd:{listen}"])
            self.addCleanup(server.stop)
            server.start(*self.inherit("INET"))
            url = f"{server.url}/{TOKEN}/x"
            self.assertEqual(200, self.curl("-T", str(self.file()), url)[0])

    def test_systemd_unix(self) -> None:
        """The same for a UNIX socket."""
        server = Server(self.folder / "x", listen=["systemd:UNIX:0"])
        self.addCleanup(server.stop)
        server.start(*self.inherit("UNIX"))
        (place,) = server.places
        path = place.removeprefix("unix:")
        push = ("--unix-socket", path, "-T", str(self.file()))
        self.assertEqual(200, self.curl(*push, f"http://h/{TOKEN}/x")[0])

    def test_socket_activation(self) -> None:
        """The first push starts the daemon, which receives it."""
        need("systemd-socket-activate")
        (port,) = free_ports(1)
        server = Server(self.folder / "x", listen=["systemd:INET:name=drop"])
        self.addCleanup(server.stop)
        activate = ("systemd-socket-activate", "--fdname=drop", "-l")
        serve = (*TWISTD, "-n", "--pidfile=", "filebucket")
        command = (*activate, f"127.0.0.1:{port}", *serve)
        starting = threading.Thread(target=server.start, args=command)
        starting.start()
        server.wait_for("Listening on ")
        path = str(self.file())
        url = f"http://127.0.0.1:{port}/{TOKEN}/x"
        self.assertEqual(200, self.curl("-T", path, url)[0])
        starting.join(PATIENCE)
        self.assertEqual([f"127.0.0.1:{port}"], server.places)
        self.assertEqual(405, self.curl("-T", path, url)[0])
        server.wait_for("push .* client=127.0.0.1:")

    def test_both_families(self) -> None:
        """A client over IPv4 counts as IPv4 on an IPv6 socket."""
        try:
            socket.create_server(("::", 0), family=socket.AF_INET6).close()
        except OSError:
            raise SkipTest("no IPv6 here") from None
        server = self.server(listen=["tcp6:0"])
        path = str(self.file())
        for host, client in (("127.0.0.1", "127.0.0.1"), ("[::1]", r"\[::1\]")):
            url = f"http://{host}:{server.port}/{TOKEN}/{len(host)}"
            status, _ = self.curl("-T", path, url)
            self.assertEqual(200, status)
            server.wait_for(rf"push .*name='{len(host)}' .* client={client}:\d+ ")

    def test_systemd_mistakes(self) -> None:
        """The passed socket does not match the configuration, or cannot be used."""
        not_a_socket = "made = open('/dev/null')"
        for listen, command, mistake in (
            ("INET6:0", self.inherit("INET"), "domain: .* systemd is not INET6"),
            ("UNIX:0", self.inherit("INET"), "domain: .* systemd is not UNIX"),
            ("INET:0", self.inherit("INET", ""), "socket from systemd does not listen"),
            ("INET:0", self.inherit("INET", not_a_socket), "operation on non-socket"),
            ("INET:1", self.inherit("INET"), "systemd passed no such socket"),
        ):
            server = Server(self.folder / "x", listen=[f"systemd:{listen}"])
            output = self.refused(server, *command)
            self.assertRegex(output, rf"\$\.listen\[0\]: .*{mistake}")
