"""What ``filebucket-push`` shows of its token, and what a hostile server can do to it.
``docs/explanation/security.rst`` names these tests.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.integration import IntegrationCase
from filebucket.test.kit.server import OTHER, PATIENCE

_SHA256 = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
"""Of ``content``."""


class FakeServer:
    """Gives the same answer to every request.

    :ivar requests: the heads that came
    """

    def __init__(self, answer: Iterator[bytes], tls: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted = self._socket.accept()[0]
                accepted.settimeout(PATIENCE)
                # The client has ended the connection.
                with contextlib.suppress(OSError), accepted:
                    self._answer_one(accepted)

    def _answer_one(self, connection: socket.socket) -> None:
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            head = b""
            while not head.endswith(b"content"):
                head += connection.recv(65536)
            self.requests.append(head)
            for piece in self._answer:
                connection.sendall(piece)


class ClientCase(IntegrationCase):
    """Has a token's file, and a file to push."""

    def setUp(self) -> None:
        super().setUp()
        self.token = self.file("token", f"Authorization: Bearer {OTHER}\n".encode())
        self.token.chmod(0o600)
        self.path = self.file("db.gz", b"content")

    def push(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the client once. Its output never has the token."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "filebucket.client"),
                *("--url", url, "--token-file", str(self.token), "--retry-for", "0"),
                *arguments,
            ],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertNotIn(OTHER, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def fake(self, *answer: bytes, tls: ssl.SSLContext | None = None) -> FakeServer:
        server = FakeServer(iter(answer), tls)
        self.addCleanup(server.close)
        return server


class TokenTests(ClientCase):
    """Where the token is visible."""

    def test_process_list(self) -> None:
        """Neither in the arguments nor in the environment, of both processes."""
        server = self.server()
        shown = (
            "/proc/$PPID/cmdline /proc/$PPID/environ /proc/$$/cmdline /proc/$$/environ"
        )
        command = ("--name", "x", "--exec", "--", "sh", "-c", f"cat {shown}")
        done = self.push(server.url, *command)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        (stored,) = server.stored().values()
        self.assertIn(b"filebucket.client", stored)
        self.assertNotIn(OTHER.encode(), stored)

    def test_url(self) -> None:
        """A token in the URL is refused, without printing it."""
        done = self.push(f"http://127.0.0.1:1/{OTHER}/", str(self.path))
        self.assertEqual(2, done.returncode)
        self.assertIn("the URL must not have the token", done.stderr)

    def test_output(self) -> None:
        """In no message, receipt or JSON, whatever the result is."""
        server = self.server()
        receipt = self.folder / "receipt"
        options = ("--json", "--receipt", str(receipt), str(self.path))
        statuses = [self.push(server.url, *options).returncode]
        self.path.write_bytes(b"other")
        statuses.append(self.push(server.url, *options).returncode)
        server.stop()
        statuses.append(self.push(server.url, *options).returncode)
        self.token.write_text(f"Bearer: {OTHER}\n")
        statuses.append(self.push(server.url, *options).returncode)
        self.assertEqual([0, 1, 75, 2], statuses)
        self.assertNotIn(OTHER, receipt.read_text())


class NetworkTests(ClientCase):
    """Others in the network, and hostile servers."""

    def test_certificate(self) -> None:
        """A server whose certificate is not trusted gets no request."""
        write_pair(self.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
        server = self.fake(tls=context)
        done = self.push(f"https://127.0.0.1:{server.port}", str(self.path))
        self.assertEqual(1, done.returncode)
        self.assertIn("the server's certificate is not trusted", done.stderr)
        self.assertEqual([], server.requests)

    def test_redirect(self) -> None:
        """The token is sent to no other server."""
        other = self.fake()
        server = self.fake(
            b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:%d/\r\n" % other.port,
            b"Content-Length: 0\r\n\r\n",
        )
        done = self.push(f"http://127.0.0.1:{server.port}", str(self.path))
        self.assertEqual(1, done.returncode)
        self.assertIn("the server redirects to", done.stderr)
        self.assertEqual((1, 0), (len(server.requests), len(other.requests)))

    def test_receipt(self) -> None:
        """A receipt for other bytes, or none, is an error."""
        other = b"X-Checksum-Sha256: %b\r\n" % _SHA256[::-1].encode()
        for digest, expected in (
            (b"", "answer (200) is not file-bucket's"),
            (other, "receipt is for other bytes"),
        ):
            server = self.fake(
                b"HTTP/1.1 200 OK\r\n%bContent-Length: 3\r\n\r\nok\n" % digest
            )
            done = self.push(f"http://127.0.0.1:{server.port}", str(self.path))
            self.assertEqual(1, done.returncode)
            self.assertIn(expected, done.stderr)

    def test_escapes(self) -> None:
        """The server's reason reaches the terminal in one line, without escapes."""
        evil = b"\x1b[2J\x9b2Jevil\r\ninjected"
        server = self.fake(b"HTTP/1.1 409 x\r\nContent-Length: 20\r\n\r\n%b" % evil)
        done = self.push(f"http://127.0.0.1:{server.port}", str(self.path))
        self.assertEqual(1, done.returncode)
        self.assertEqual(
            f"filebucket-push: {self.path}: [2J\ufffd2Jevil (409)",
            done.stderr.rstrip("\n"),
        )

    def test_long_answer(self) -> None:
        """Of an endless answer, a mebibyte is read."""
        server = self.fake(
            b"HTTP/1.1 409 x\r\nContent-Length: 999999999999\r\n\r\n",
            *[b"x" * 65536] * 1000,
        )
        done = self.push(f"http://127.0.0.1:{server.port}", str(self.path))
        self.assertEqual(1, done.returncode)
        self.assertLess(len(done.stderr), 500)
