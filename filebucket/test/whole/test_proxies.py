"""The real daemon behind real proxies, with the documented configurations."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.browser import shared_browser
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.children import bounded
from filebucket.test.kit.integration import MIB, need, run
from filebucket.test.kit.nginx import nginx_command, shipped
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import (
    OTHER,
    PATIENCE,
    TOKEN,
    UNKNOWN,
    Server,
    comes,
    listens,
)
from filebucket.test.whole.test_listening import TlsCase

CLIENT = "127.0.0.2"
"""The client's address, which differs from the proxy's."""


class ProxyCase(TlsCase):
    """Provides a folder, a certificate, a listening socket and a proxy."""

    program = ""
    sockets: tuple[socket.socket, ...] = ()

    def setUp(self) -> None:
        need(self.program)
        need("curl")
        super().setUp()
        self.open()

    def open(self) -> None:
        """A port for the proxy."""
        # Opened here, so that no other process takes it and nothing has to wait.
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.addCleanup(self.socket.close)
        self.port = self.socket.getsockname()[1]
        self.socket6 = socket.create_server(
            ("::1", 0), family=socket.AF_INET6, backlog=100
        )
        self.addCleanup(self.socket6.close)
        self.sockets = (self.socket, self.socket6)
        self.port6 = self.socket6.getsockname()[1]

    def begin(self, *command: str, environ: Mapping[str, str] | None = None) -> None:
        """Start the proxy, and end it with the test."""
        with (self.folder / "proxy.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[each.fileno() for each in self.sockets],
                env={**os.environ, **(environ or {})},
            )
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.terminate)

    def push(self, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes]:
        """The output of curl through the proxy, with the path as the last argument."""
        *others, path = arguments
        url = f"https://127.0.0.1:{self.port}/{path}"
        return self.tls("--interface", CLIENT, *others, url, stdin=stdin)

    def assert_v6(self, server: Server) -> None:
        """The IPv6 port takes pushes."""
        path = str(self.file())
        # The certificate has the IPv4 address.
        arguments = ("--connect-to", f"127.0.0.1:{self.port6}:[::1]:{self.port6}")
        url = f"https://127.0.0.1:{self.port6}/{TOKEN}/v6"
        status, answer = self.tls(*arguments, "-T", path, url)
        self.assertEqual(200, status, answer)
        server.wait_for("push .*name='v6' .* client=\\[::1\\]:")

    def assert_ways(self, server: Server) -> None:
        """Every way to push works."""
        content = os.urandom(8 * MIB)
        path = str(self.file(content=content))
        for way, *arguments in (
            ("put", "-T", path, f"{TOKEN}/put"),
            ("a b%", "-T", path, f"{TOKEN}/a%20b%25"),
            ("chunked", "-T", "-", f"{TOKEN}/chunked"),
            ("form", "-F", f"file=@{path};filename=form", TOKEN),
            ("bearer", "-H", f"Authorization: Bearer {TOKEN}", "-T", path, "bearer"),
        ):
            status, answer = self.push(*arguments, stdin=content)
            receipt = f"{hashlib.sha256(content).hexdigest()}  {way}\n"
            self.assertEqual((200, receipt.encode()), (status, answer))
            self.assertEqual(content, server.stored()[f"{TOKEN}/{way}"])

    def assert_parts(self, server: Server) -> None:
        """An upload arrives in parts, and what a cut part has brought counts."""
        # Much more than a proxy buffers.
        size = 8 * MIB
        content = os.urandom(3 * size)
        head = self.folder / "head"

        def ask(path: str, *arguments: str) -> tuple[int, str]:
            status, _ = self.push("-D", str(head), *arguments, f"{OTHER}/{path}")
            # The last head, after any 100 Continue.
            return status, head.read_text().split("HTTP/")[-1].lower()

        creation = ("-X", "PUT", "-d", "", "-H", "Upload-Complete: ?0")
        status, headers = ask("parts", *creation)
        self.assertEqual(201, status)
        found = re.search(r"\nlocation: (uploads/[0-9a-f]+)\n", headers)
        assert found is not None
        self.send_half(f"{OTHER}/{found[1]}", content[:size])
        server.wait_for(r"refused bucket=web01 name='parts' .*ended early")
        for end in (size, 2 * size, 3 * size):
            status, headers = ask(found[1], "-I")
            self.assertEqual(204, status)
            at = re.search(r"\nupload-offset: (\d+)\n", headers)
            assert at is not None
            offset = int(at[1])
            if end == size:
                # What the proxy or the daemon had not passed on yet is lost.
                self.assertTrue(0 < offset <= size // 2, offset)
            else:
                self.assertEqual(end - size, offset)
            part = str(self.file("part", content[offset:end]))
            complete = f"Upload-Complete: ?{int(end == len(content))}"
            headers = f"Upload-Offset: {offset}"
            patch = ("-X", "PATCH", "-T", part, "-H", headers, "-H", complete)
            status, _ = ask(found[1], *patch)
            self.assertEqual(204 if end < len(content) else 200, status)
        self.assertEqual(content, server.stored()["web01/parts"])

    def send_half(self, path: str, part: bytes) -> None:
        """Send half of a part, and disconnect."""
        context = ssl.create_default_context(cafile=str(self.certificates / "cert.pem"))
        place = ("127.0.0.1", self.port)
        with (
            socket.create_connection(place, PATIENCE, (CLIENT, 0)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            client.sendall(
                b"PATCH /%b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpload-Offset: 0\r\n"
                b"Upload-Complete: ?0\r\nContent-Length: %d\r\n\r\n%b"
                % (path.encode(), len(part), part[: len(part) // 2])
            )
            # Not closed at once: with something unread, that would be a reset, which
            # overtakes the bytes.
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ssl.SSLError, ConnectionResetError):
                while client.recv(65536):
                    pass

    def assert_early_answers(self) -> None:
        """An early answer reaches a client that sends a large file."""
        large = self.folder / "large"
        with large.open("wb") as file:
            # More than is drained to keep a connection, and less than the daemon goes
            # on reading: after that it resets, and a proxy may see the reset first.
            file.truncate(50 * MIB)
        self.assertEqual(200, self.push("-T", str(self.file()), f"{OTHER}/x")[0])
        for status, path in ((403, f"{UNKNOWN}/x"), (405, f"{OTHER}/x")):
            for expect in ("Expect:", "Expect: 100-continue"):
                for _ in range(3):
                    got, answer = self.push("-H", expect, "-T", str(large), path)
                    self.assertEqual(status, got, answer)
                    self.assertEqual(1, answer.count(b"\n"), answer)


class NginxTests(ProxyCase):
    """nginx, which sends X-Forwarded-For."""

    program = "nginx"

    def start(self, backend: str, changes: Mapping[str, str] | None = None) -> None:
        site = shipped(
            "nginx.conf",
            {
                **(changes or {}),
                "listen 443": f"listen 127.0.0.1:{self.port}",
                "listen [::]:443": f"listen [::1]:{self.port6}",
                "backup.example.org": "127.0.0.1",
                "/etc/ssl/backup/fullchain.pem": f"{self.certificates}/cert.pem",
                "/etc/ssl/backup/key.pem": f"{self.certificates}/key.pem",
                "/var/log/nginx/error.log": f"{self.folder}/error.log",
                "http://127.0.0.1:1234": backend,
            },
        )
        self.begin(
            *nginx_command(self.folder, site),
            environ={"NGINX": f"{self.socket.fileno()};{self.socket6.fileno()};"},
        )

    def test_push(self) -> None:
        """Every way to push works, and refusals come early."""
        server = self.server(listen=["tcp:0:127.0.0.1"], trusted_proxies=["127.0.0.1"])
        self.start(server.url)
        # curl chooses HTTP/2.
        self.assert_ways(server)
        self.assert_v6(server)
        self.assert_parts(server)
        self.assert_early_answers()
        self.assertEqual("", (self.folder / "error.log").read_text())

    def test_streams(self) -> None:
        """HTTP/2 and HTTP/1.1: the daemon gets a part while the client still sends."""
        daemon = socket.create_server(("127.0.0.1", 0))
        daemon.settimeout(PATIENCE)
        self.addCleanup(daemon.close)
        self.start(f"http://127.0.0.1:{daemon.getsockname()[1]}")
        url = f"https://127.0.0.1:{self.port}/{TOKEN}/x"
        known = f"{self.certificates}/cert.pem"
        for option, version in (("--http1.1", b"1.1"), ("--http2", b"2")):
            command = ("curl", "-sS", "--cacert", known, option, "-T", "-", url)
            client = subprocess.Popen(
                [*command, "-w", "%{http_version}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.addCleanup(client.wait, PATIENCE)
            self.addCleanup(client.kill)
            assert client.stdin is not None
            client.stdin.write(b"x" * 100_000)
            client.stdin.flush()
            pushed, _ = daemon.accept()
            with pushed, bounded(client):
                pushed.settimeout(PATIENCE)
                got = 0
                while got < 50_000:
                    got += pushed.recv(65536).count(b"x")
                client.stdin.close()
                while not pushed.recv(65536).endswith(b"0\r\n\r\n"):
                    pass
                pushed.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                assert client.stdout is not None
                self.assertEqual(version, client.stdout.read())

    def test_client(self) -> None:
        """The client is the address that connected to nginx, whatever it sends."""
        server = self.server(
            listen=["tcp:0:127.0.0.1"], trusted_proxies=["127.0.0.1", "::1"]
        )
        server.hook("post-push", 'echo "$3 $FILEBUCKET_REMOTE"')
        self.start(server.url)
        path = str(self.file())
        forged = ("-H", "X-Forwarded-For: 203.0.113.6")
        for name, *more in (("plain",), ("forged", *forged)):
            status, answer = self.push(*more, "-T", path, f"{TOKEN}/{name}")
            self.assertEqual((200, b"127.0.0.2:0 127.0.0.2:0\n"), (status, answer))
            server.wait_for(f"push .*name='{name}' .* client=127.0.0.2:0 ")
        direct = ("--interface", CLIENT, *forged, "-T", path)
        status, answer = self.curl(*direct, f"{server.url}/{TOKEN}/direct")
        self.assertEqual(200, status)
        self.assertRegex(answer.decode(), r"^127\.0\.0\.2:[1-9]\d* ")

    def test_drop_page(self) -> None:
        """The drop page below a path, and with the limit that nginx has by default."""
        server = self.server(
            listen=["tcp:0:127.0.0.1"], trusted_proxies=["127.0.0.1"], page=True
        )
        changes = {
            "location / {": "location /drop/ {",
            "client_max_body_size 0": "client_max_body_size 1m",
        }
        self.start(f"{server.url}/", changes)
        browser = shared_browser()
        self.addCleanup(browser.clear)
        browser.open(f"https://127.0.0.1:{self.port}/drop/")
        content = os.urandom(5 * MIB)
        browser.type("#chooser", str(self.file("a b%41\u00fc.bin", content)))
        browser.type("#token", TOKEN)
        browser.click("#send")
        browser.wait("document.querySelector('.done')")
        self.assertEqual({f"{TOKEN}/a b%41\u00fc.bin": content}, server.stored())
        complaints = browser.complaints()
        # One for each size of a part that was too large.
        self.assertEqual(2, len(complaints), complaints)
        for each in complaints:
            self.assertIn("status of 413", each)

    def test_unix(self) -> None:
        """The same over a UNIX socket."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # If root starts it, nginx's workers run as another user.
        Path(folder.name).chmod(0o755)
        path = f"{folder.name}/s"
        server = self.server(listen=[f"unix:{path}"], trusted_proxies=["unix"])
        self.start(f"http://unix:{path}:")
        self.assert_ways(server)
        server.wait_for("push .*name='put' .* client=127.0.0.2:0 ")


class CaddyTests(DocumentCase, ProxyCase):
    """Caddy, which sends X-Forwarded-For, with the configuration of the document."""

    program = "caddy"
    page = "reverse-proxy.rst"

    def open(self) -> None:
        """Caddy opens its port itself."""
        (self.port,) = free_ports(1)

    def start(self, *changes: tuple[str, str]) -> None:
        file = self.folder / "Caddyfile"
        pair = f"{self.certificates}/cert.pem {self.certificates}/key.pem"
        site = f"https://127.0.0.1:{self.port}"
        text = self.script("Caddy", "{")
        for old, new in (
            ("{", "{\n    admin off\n    auto_https disable_redirects"),
            ("backup.example.org {", f"{site} {{\n    tls {pair}"),
            *changes,
        ):
            self.assertIn(old, text)
            text = text.replace(old, new, 1)
        file.write_text(text)
        # No redirection of all http, and no file outside of the folder.
        environ = {"XDG_DATA_HOME": str(self.folder), "HOME": str(self.folder)}
        command = ("caddy", "run", "--adapter", "caddyfile", "--config", str(file))
        self.begin(*command, environ=environ)
        self.assertTrue(comes(lambda: listens(self.port)), self.output())

    def output(self) -> str:
        return (self.folder / "proxy.log").read_text()

    def test_push(self) -> None:
        """Every way to push works, refusals come early, and no log has a token."""
        server = self.server(listen=["tcp:0:127.0.0.1"], trusted_proxies=["127.0.0.1"])
        self.start(("127.0.0.1:1234", f"127.0.0.1:{server.port}"))
        self.assert_ways(server)
        self.assert_early_refusal(server)
        spoofed = ("-H", "X-Forwarded-For: 192.0.2.1", "-T", str(self.file()))
        self.assertEqual(200, self.push(*spoofed, f"{TOKEN}/spoofed")[0])
        server.wait_for(f"push .*name='spoofed' .* client={CLIENT}:0 ")
        server.stop()
        # Over HTTP/2, Caddy resets the stream of a request whose body it has not read,
        # and curl may lose the answer (exit status 92).
        status, _ = self.push("--http1.1", "-T", str(self.file()), f"{TOKEN}/gone")
        self.assertEqual(502, status)
        self.assertNotIn(TOKEN, self.output())

    def assert_early_refusal(self, server: Server) -> None:
        """filebucket-push prints why a large file is refused. curl may lose the
        connection, since Caddy may end it before all of the answer is sent; the daemon
        has the reason.
        """
        large = self.file("large", bytes(50 * MIB))
        self.assertEqual(200, self.push("-T", str(self.file()), f"{OTHER}/large")[0])
        url = f"https://127.0.0.1:{self.port}"
        known = ("--cacert", str(self.certificates / "cert.pem"))
        token = self.file("token", f"Authorization: Bearer {OTHER}\n".encode())
        token.chmod(0o600)
        client = (sys.executable, "-m", "filebucket.client", *known, "--url", url)
        done = run(*client, "--token-file", str(token), str(large))
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn(b"a file with that name already exists", done.stderr)
        server.wait_for("refused .*status=405")
        done = run("curl", "-sS", *known, "-T", str(large), f"{url}/{OTHER}/large")
        self.assertIn(done.returncode, {0, 18, 55, 56}, done.stderr)
        server.wait_for("refused .*status=405", 2)

    def test_parts(self) -> None:
        server = self.server(listen=["tcp:0:127.0.0.1"], trusted_proxies=["127.0.0.1"])
        self.start(("127.0.0.1:1234", f"127.0.0.1:{server.port}"))
        self.assert_parts(server)

    def test_path(self) -> None:
        """The daemon below a path of a site."""
        server = self.server(listen=["tcp:0:127.0.0.1"], trusted_proxies=["127.0.0.1"])
        lines = self.script("A path of a site", "example.org").splitlines()[1:-1]
        path = "\n".join(lines).replace("127.0.0.1:1234", f"127.0.0.1:{server.port}")
        self.start(("    reverse_proxy 127.0.0.1:1234", path))
        done = self.push("-T", str(self.file()), f"backup/{TOKEN}/below")
        self.assertEqual(200, done[0], done)
        self.assertIn(f"{TOKEN}/below", server.stored())


class HaproxyTests(ProxyCase):
    """HAProxy, which sends a PROXY header."""

    program = "haproxy"

    def start(self, server: Server, *changes: tuple[str, str]) -> None:
        text = shipped(
            "haproxy.cfg",
            {
                "bind :443": f"bind fd@{self.socket.fileno()}",
                "bind [::]:443 v6only": f"bind fd@{self.socket6.fileno()}",
                "127.0.0.1:1443": f"127.0.0.1:{server.port}",
                "    user haproxy\n    group haproxy\n": "",
                **dict(changes),
            },
        )
        main = self.folder / "haproxy.cfg"
        main.write_text(text)
        self.begin("haproxy", "-db", "-f", str(main))

    def daemon(self, endpoint: str) -> Server:
        return self.server(listen=[endpoint], trusted_proxies=["127.0.0.1"])

    def secure(self) -> Server:
        return self.daemon("haproxy:ssl:0:key.pem:cert.pem:interface=127.0.0.1")

    def push_from(self, *arguments: str) -> tuple[int, str]:
        """The status, and curl's source port."""
        status, answer = self.push("-w", "port=%{local_port} %{http_code}", *arguments)
        match = re.search(rb"port=(\d+) $", answer)
        assert match is not None
        return status, match[1].decode()

    def test_tls(self) -> None:
        """TLS passes through, as documented."""
        server = self.secure()
        self.start(server)
        self.assert_ways(server)
        self.assert_v6(server)
        self.assert_parts(server)
        self.assert_early_answers()
        self.assertNotIn("dropped", server.log)

    def test_client(self) -> None:
        """Both versions of the header have the client's address and port."""
        server = self.secure()
        server.hook("post-push", 'echo "$3 $FILEBUCKET_REMOTE"')
        self.start(server)
        path = str(self.file())
        status, port = self.push_from("-T", path, f"{TOKEN}/v2")
        self.assertEqual(200, status)
        server.wait_for(f"push .*name='v2' .* client=127.0.0.2:{port} ")
        self.open()
        self.start(server, ("send-proxy-v2", "send-proxy"))
        status, port = self.push_from("-T", path, f"{TOKEN}/v1")
        self.assertEqual(200, status)
        server.wait_for(f"push .*name='v1' .* client=127.0.0.2:{port} ")

    def test_checks(self) -> None:
        """Health checks write no log line, with or without a header."""
        server = self.secure()
        # It checks this server as often as the daemon.
        other = socket.create_server(("127.0.0.1", 0))
        other.settimeout(PATIENCE)
        self.addCleanup(other.close)
        place = f"127.0.0.1:{other.getsockname()[1]}"
        often = "send-proxy-v2 check inter 100ms"
        servers = f"{often}\n    server other {place} backup {often}"
        self.start(server, ("send-proxy-v2 check", servers))
        for _ in range(5):
            other.accept()[0].close()
            socket.create_connection(("127.0.0.1", server.port), PATIENCE).close()
        path = str(self.file())
        self.assertEqual(200, self.push("-T", path, f"{TOKEN}/x")[0])
        server.wait_for("push .*name='x'")
        said = server.log.partition("ready on")[2].splitlines()[1:]
        self.assertEqual(1, len([line for line in said if "catalogue: " not in line]))

    def test_http(self) -> None:
        """In HTTP mode it appends X-Forwarded-For to the client's."""
        server = self.daemon("tcp:0:127.0.0.1")
        write_pair(self.certificates)
        both = b"".join(
            (self.certificates / each).read_bytes() for each in ("key.pem", "cert.pem")
        )
        (self.certificates / "both.pem").write_bytes(both)
        tls = f"ssl crt {self.certificates}/both.pem"
        self.start(
            server,
            (f"fd@{self.socket.fileno()}", f"fd@{self.socket.fileno()} {tls}"),
            ("mode tcp", "mode http\n    option forwardfor"),
            (" send-proxy-v2 check", ""),
        )
        self.assert_ways(server)
        self.assert_parts(server)
        forged = ("-H", "X-Forwarded-For: 203.0.113.6, 127.0.0.1")
        path = str(self.file())
        self.assertEqual(200, self.push(*forged, "-T", path, f"{TOKEN}/forged")[0])
        server.wait_for("push .*name='forged' .* client=127.0.0.2:0 ")
