"""HTTP to one server, over real sockets of this machine."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from http.client import HTTPMessage, HTTPSConnection
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.client import connection as module
from filebucket.client.access import Server, server
from filebucket.client.connection import IDLE, MOST_ANSWER, PIECE, Answer, Connection
from filebucket.client.errors import PushError, RefusedError
from filebucket.client.source import Bytes
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.properties import trying
from filebucket.test.kit.pushes import Peer, Talk, answer, answering, read_request
from filebucket.test.kit.server import PATIENCE

TOKEN = "0123456789abcdefABCDEF_-01234567"
LARGE = Bytes(memoryview(bytes(16 * PIECE)))
"""More than the buffers of a connection take."""


class Interrupted:
    """A body whose sending fails."""

    size = 10

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def send(self, sock: socket.socket, start: int, most: int) -> int:
        raise self._error


class Failing:
    """The same with a new error."""

    size = 10

    def send(self, sock: socket.socket, start: int, most: int) -> int:
        raise ConnectionResetError(104, "reset")


class ConnectionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def connection(self, to: Server) -> Connection:
        made = Connection(to, "filebucket-push/0", self.clock.seconds)
        self.addCleanup(made.close)
        return made

    def to(self, *talks: Talk, prefix: str = "") -> Connection:
        """A connection to a server that talks like that."""
        peer = Peer(self, *talks)
        return self.connection(server(f"{peer.url}{prefix}", TOKEN))

    def error(self, call: Callable[[], object]) -> str:
        found = self.assertRaises(OSError, call)
        self.assertNotIn(TOKEN, f"{found} {found!r}")
        return found.strerror or str(found)


class MemoryTests(ConnectionCase):
    def test_body(self) -> None:
        """A body that failed is forgotten at once: a part has 64 MiB."""
        made = self.to(lambda _: None)
        gc.disable()
        self.addCleanup(gc.enable)
        body = Failing()
        there = weakref.ref(body)
        with contextlib.suppress(ConnectionResetError):
            made.request("PATCH", "db", {}, body)
        del body
        self.assertIsNone(there())


class RequestTests(ConnectionCase):
    def test_head(self) -> None:
        heard: list[bytes] = []
        made = self.to(answering(answer(b"yes\n"), heard=heard), prefix="/a%20b")
        found = made.request("PUT", "db%C3%A4.gz", {"Upload-Complete": "?0"})
        self.assertEqual((200, b"yes\n", "yes"), (found.status, found.body, found.line))
        head = heard[0].decode().split("\r\n")
        self.assertEqual("PUT /a%20b/db%C3%A4.gz HTTP/1.1", head[0])
        self.assertRegex(head[1], r"Host: 127\.0\.0\.1:\d+")
        self.assertEqual(
            [
                "User-Agent: filebucket-push/0",
                f"Authorization: Bearer {TOKEN}",
                "Upload-Complete: ?0",
                "",
                "",
            ],
            head[2:],
        )

    def test_body(self) -> None:
        """It tells how much of it was sent."""
        heard: list[bytes] = []
        sent: list[int] = []
        made = self.to(answering(answer(), heard=heard))
        made.request("PUT", "db", {}, LARGE, sent.append)
        self.assertTrue(heard[0].endswith(bytes(LARGE.size)))
        self.assertIn(f"\r\nContent-Length: {LARGE.size}\r\n".encode(), heard[0])
        self.assertEqual(sorted(set(sent)), sent)
        self.assertEqual(LARGE.size, sent[-1])

    def test_no_body(self) -> None:
        """An answer to HEAD has none, whatever its length."""
        head = answer(b"", "204 No Content", "Upload-Offset: 7", length=False)
        made = self.to(
            answering(head, answer(b"", "200 OK", "Content-Length: 9", length=False))
        )
        found = made.request("HEAD", "uploads/1", {})
        self.assertEqual("7", found.headers["Upload-Offset"])
        self.assertEqual(b"", made.request("HEAD", "uploads/1", {}).body)

    def test_continue(self) -> None:
        """It is no answer."""
        made = self.to(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"yes")))
        self.assertEqual(b"yes", made.request("PUT", "db", {}).body)

    def test_chunked(self) -> None:
        head = answer(b"", "200 OK", "Transfer-Encoding: chunked", length=False)
        chunks = head + b"3\r\nyes\r\n0\r\n\r\n"
        made = self.to(answering(chunks, answer(b"no")))
        self.assertEqual(b"yes", made.request("GET", "", {}).body)
        self.assertEqual(b"no", made.request("GET", "", {}).body)


class KeepAliveTests(ConnectionCase):
    def test_kept(self) -> None:
        made = self.to(answering(answer(b"1"), answer(b"2")))
        self.assertEqual(b"1", made.request("GET", "", {}).body)
        self.clock.advance(IDLE)
        self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_idle(self) -> None:
        """The server may be about to close it."""
        made = self.to(answering(answer(b"1"), answer(b"2")), answering(answer(b"3")))
        self.assertEqual(b"1", made.request("GET", "", {}).body)
        self.clock.advance(IDLE + 1)
        self.assertEqual(b"3", made.request("GET", "", {}).body)

    def test_closed_by_both(self) -> None:
        """The answer says that it is the last one."""
        last = answer(b"1", "503 Busy", "Connection: close")
        made = self.to(answering(last), answering(answer(b"2")))
        self.assertEqual(b"1", made.request("GET", "", {}).body)
        self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_old_server(self) -> None:
        """HTTP/1.0 closes after each answer, and ends it in that way."""
        made = self.to(
            answering(b"HTTP/1.0 200 OK\r\n\r\nall"), answering(answer(b"2"))
        )
        self.assertEqual(b"all", made.request("GET", "", {}).body)
        self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_stale(self) -> None:
        """The server closed an idle connection: that is not worth an error."""
        closed = threading.Event()

        def talk(connection: socket.socket) -> None:
            answering(answer(b"1"))(connection)
            connection.close()
            closed.set()

        made = self.to(talk, answering(answer(b"2")))
        self.assertEqual(b"1", made.request("GET", "", {}).body)
        self.assertTrue(closed.wait(PATIENCE))
        self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_after_error(self) -> None:
        made = self.to(answering(b"nonsense\r\n\r\n"), answering(answer(b"2")))
        self.error(lambda: made.request("GET", "", {}))
        self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_dead_peer(self) -> None:
        """It is noticed: see _keep_alive."""
        made = self.to(answering(answer()))
        made.request("GET", "", {})
        assert made._http is not None
        sock = made._http.sock
        for level, option, expected in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
        ):
            self.assertEqual(expected, sock.getsockopt(level, option))


class EarlyTests(ConnectionCase):
    """Answers before the end of the body."""

    REFUSAL = answer(b"too large\n", "413 Content Too Large")

    def head_only(self, connection: socket.socket) -> None:
        """Read the head, answer, and go on as a test says."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(1)
        connection.sendall(self.REFUSAL)

    def test_heard(self) -> None:
        """The rest of the body is not sent, and the connection not used again."""
        done = threading.Event()

        def talk(connection: socket.socket) -> None:
            self.head_only(connection)
            done.wait(PATIENCE)

        made = self.to(talk, answering(answer(b"2")))
        sent: list[int] = []

        class Waiting(Bytes):
            """It sends its second piece after the answer has come."""

            def send(self, sock: socket.socket, start: int, most: int) -> int:
                if start:
                    sock.recv(1, socket.MSG_PEEK)
                return super().send(sock, start, 1)

        found = made.request(
            "PUT", "db", {}, Waiting(memoryview(bytes(9))), sent.append
        )
        done.set()
        self.assertEqual((413, "too large"), (found.status, found.line))
        self.assertLess(len(sent), 9)
        self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_stalled(self) -> None:
        """A proxy answers, and reads nothing any more."""
        self.patch(module, "SEND_TIMEOUT", 0.2)
        done = threading.Event()

        def talk(connection: socket.socket) -> None:
            while b"\r\n\r\n" not in connection.recv(4096, socket.MSG_PEEK):
                pass
            connection.recv(4096)
            filled.wait(PATIENCE)
            connection.sendall(self.REFUSAL)
            done.wait(PATIENCE)

        filled = threading.Event()

        class Filling(Bytes):
            """It blocks in the buffers, as sendfile does."""

            def send(self, sock: socket.socket, start: int, most: int) -> int:
                sock.sendall(bytes(LARGE.size // 2))
                raise AssertionError

        def fill(connection: socket.socket) -> None:
            threading.Timer(0.05, filled.set).start()
            talk(connection)

        made = self.to(fill)
        found = made.request("PUT", "db", {}, Filling(memoryview(bytes(LARGE.size))))
        done.set()
        self.assertEqual((413, "too large"), (found.status, found.line))

    def test_reset(self) -> None:
        """The answer that came before is read."""
        for error in (
            BrokenPipeError(),
            ConnectionResetError(),
            TimeoutError(),
            ssl.SSLEOFError(),
        ):
            made = self.to(self.head_only, answering(answer(b"2")))
            found = made.request("PUT", "db", {}, Interrupted(error))
            self.assertEqual(413, found.status)
            self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_reset_without_answer(self) -> None:
        """The error is that of sending, not the one of reading."""
        self.patch(module, "LATE_TIMEOUT", 0.05)
        made = self.to(read_request, read_request)
        for error in (ConnectionResetError(104, "reset"), OSError(5, "disk")):
            found = self.error(lambda: made.request("PUT", "", {}, Interrupted(error)))  # noqa: B023
            self.assertEqual(error.strerror, found.partition(":")[0])

    def test_refused_to_read(self) -> None:
        """The server closes with bytes in its buffer: that is a reset."""
        made = self.to(self.head_only)
        try:
            found = made.request("PUT", "db", {}, LARGE)
        except OSError:
            # The reset was faster than the answer.
            return
        self.assertEqual(413, found.status)

    def test_own_error(self) -> None:
        """The file has changed: there is nothing to wait for."""
        made = self.to(answering(answer(b"1")), answering(answer(b"2")))
        error = PushError("changed")
        self.assertIs(
            error,
            self.assertRaises(
                PushError, made.request, "PUT", "db", {}, Interrupted(error)
            ),
        )
        self.assertEqual(b"2", made.request("GET", "", {}).body)


class ErrorTests(ConnectionCase):
    def test_refused(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            made = self.connection(server(f"http://127.0.0.1:{port}", TOKEN))
            self.assertEqual(
                f"cannot connect to http://127.0.0.1:{port}: Connection refused",
                self.error(lambda: made.request("GET", "", {})),
            )

    def test_no_answer(self) -> None:
        """Before the first answer, the server may expect TLS."""
        made = self.to(answering(b""), answering(answer()), answering(b""))
        closed = "the server closed the connection"
        found = self.error(lambda: made.request("GET", "", {}))
        hint = ": if it uses TLS, write https:// in place of http://"
        self.assertEqual(f"{closed}{hint}", found)
        made.request("GET", "", {})
        self.clock.advance(IDLE + 1)
        found = self.error(lambda: made.request("GET", "", {}))
        self.assertEqual(closed, found)

    def test_malformed(self) -> None:
        for data in (
            b"SSH-2.0-OpenSSH_10.0\r\n",
            b"HTTP/1.1 abc No\r\n\r\n",
            b"HTTP/1.1 20 No\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\n",
            b"HTTP/1.1 200 " + b"a" * 100_000 + b"\r\n\r\n",
            answer(b"", "200 OK", "X: " + "a" * 100_000),
            answer(b"", "200 OK", *["X: a"] * 200),
            answer(b"", "200 OK", "Transfer-Encoding: chunked", length=False)
            + b"zz\r\n",
        ):
            made = self.to(answering(data))
            found = self.error(lambda: made.request("GET", "", {}))  # noqa: B023
            self.assertRegex(found, "^no valid answer: [A-Z][A-Za-z]+$")

    @trying
    @given(st.binary(max_size=60), st.booleans())
    def test_any(self, data: bytes, well_begun: bool) -> None:
        """No bytes are a traceback."""
        begin = b"HTTP/1.1 200 OK\r\n" if well_begun else b""
        made = self.to(answering(begin + data))
        try:
            made.request("GET", "", {})
        except OSError as error:
            self.assertTrue(str(error))
        finally:
            made.close()

    def test_huge(self) -> None:
        """Only its beginning is read, and the connection is not used again."""
        large = answer(b"a" * (2 * MOST_ANSWER), "502 Bad Gateway")
        made = self.to(answering(large), answering(answer(b"2")))
        self.assertEqual(MOST_ANSWER, len(made.request("GET", "", {}).body))
        self.assertEqual(b"2", made.request("GET", "", {}).body)

    def test_timeout(self) -> None:
        """The caller chooses how long to wait for the answer."""
        done = threading.Event()
        made = self.to(lambda connection: done.wait(PATIENCE))
        self.assertEqual(
            "timed out", self.error(lambda: made.request("GET", "", {}, patience=0.05))
        )
        done.set()

    def test_endless(self) -> None:
        """Each byte in time, but no answer."""
        for begin, more in (
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        ):

            def talk(
                connection: socket.socket, begin: bytes = begin, more: bytes = more
            ) -> None:
                connection.sendall(begin)
                closed = threading.Event()
                while not closed.wait(0.01):
                    connection.sendall(more)

            made = self.to(talk)
            self.assertEqual(
                "timed out",
                self.error(lambda: made.request("GET", "", {}, patience=0.2)),  # noqa: B023
            )

    def test_token_repeated(self) -> None:
        """By a server that is another product."""
        place = f"Location: https://other/{TOKEN}"
        text = f"bad header: Bearer {TOKEN}\n".encode()
        made = self.to(answering(answer(text, "400 Bad Request", place)))
        found = made.request("GET", "", {})
        self.assertEqual(b"bad header: Bearer TOKEN\n", found.body)
        self.assertEqual("https://other/TOKEN", found.headers["location"])

    def test_timeout_to_connect(self) -> None:
        """It is not longer than that for the answer."""
        made = self.connection(server("http://127.0.0.1:1", TOKEN))
        seen: list[float | None] = []

        def connect(address: object, timeout: float, *more: object) -> None:
            seen.append(timeout)
            raise TimeoutError("timed out")

        self.patch(socket, "create_connection", connect)
        for patience in (10.0, 900.0):
            self.assertEqual(
                "cannot connect to http://127.0.0.1:1: timed out",
                self.error(lambda: made.request("GET", "", {}, patience=patience)),  # noqa: B023
            )
        self.assertEqual([10.0, module.CONNECT_TIMEOUT], seen)


class UnixTests(ConnectionCase):
    def test_unix(self) -> None:
        path = Path(self.mktemp()).name
        heard: list[bytes] = []
        Peer(self, answering(answer(b"yes"), heard=heard), path=path)
        self.addCleanup(Path(path).unlink)
        made = self.connection(server("http://localhost", TOKEN, path))
        self.assertEqual(b"yes", made.request("GET", "a", {}).body)
        self.assertIn(b"\r\nHost: localhost\r\n", heard[0])

    def test_missing(self) -> None:
        made = self.connection(server("http://localhost", TOKEN, "missing"))
        self.assertEqual(
            "cannot connect to missing: No such file or directory",
            self.error(lambda: made.request("GET", "", {})),
        )


class TlsTests(ConnectionCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        write_pair(self.folder)
        self.cacert = str(self.folder / "cert.pem")
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(self.cacert, self.folder / "key.pem")

    def secure(self, talk: Talk) -> Talk:
        def secured(connection: socket.socket) -> None:
            with self.context.wrap_socket(connection, server_side=True) as tls:
                talk(tls)

        return secured

    def url(self, *talks: Talk) -> str:
        return Peer(self, *map(self.secure, talks)).url.replace("http:", "https:")

    def test_trusted(self) -> None:
        heard: list[bytes] = []
        url = self.url(answering(answer(b"1"), answer(b"2"), heard=heard))
        made = self.connection(server(url, TOKEN, cacert=self.cacert))
        self.assertEqual(b"1", made.request("PUT", "db", {}, LARGE).body)
        self.assertEqual(b"2", made.request("GET", "", {}).body)
        self.assertTrue(heard[0].endswith(bytes(LARGE.size)))

    def test_not_trusted(self) -> None:
        """It is refused at once, and says what to do."""
        url = self.url(answering(answer()))
        made = self.connection(server(url, TOKEN))
        error = self.assertRaises(RefusedError, made.request, "GET", "", {})
        self.assertEqual(
            f"{url}: the server's certificate is not trusted: self-signed certificate;"
            " if it is your own, pass it as --cacert",
            str(error).replace("self signed", "self-signed"),
        )

    def test_another_name(self) -> None:
        """The certificate is trusted, so --cacert does not help."""
        path = Path(self.mktemp()).name
        Peer(self, *[self.secure(answering(answer()))] * 2, path=path)
        self.addCleanup(Path(path).unlink)
        for host in ("localhost", "127.0.0.2"):
            url = f"https://{host}"
            made = self.connection(server(url, TOKEN, path, cacert=self.cacert))
            error = self.assertRaises(RefusedError, made.request, "GET", "", {})
            self.assertEqual(
                f"{path}: the server's certificate is not valid for {host!r}: use a"
                " name of the certificate in the URL",
                str(error),
            )

    def test_client_certificate(self) -> None:
        """The server wants another one, or one at all."""
        other = self.folder / "other"
        other.mkdir()
        write_pair(other)
        cert, key = str(other / "cert.pem"), str(other / "key.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(self.cacert)
        for pair, reason in (
            (
                (None, None),
                "requires a certificate of the client: use --cert and --key",
            ),
            ((cert, key), "does not accept the certificate of --cert: unknown ca"),
        ):
            url = self.url(answering(answer()))
            made = self.connection(server(url, TOKEN, None, self.cacert, *pair))
            error = self.assertRaises(RefusedError, made.request, "GET", "", {})
            self.assertEqual(f"{url}: the server {reason}", str(error))

    def test_plain(self) -> None:
        """A server without TLS."""
        peer = Peer(self, lambda talk: talk.sendall(answer(b"", "400 Bad Request")))
        made = self.connection(
            server(peer.url.replace("http:", "https:"), TOKEN, cacert=self.cacert)
        )
        error = self.assertRaises(RefusedError, made.request, "GET", "", {})
        self.assertIn("the server does not speak TLS on this port", str(error))

    def test_cut(self) -> None:
        """A handshake that is cut may succeed later."""
        peer = Peer(self, lambda talk: talk.recv(1))
        made = self.connection(
            server(peer.url.replace("http:", "https:"), TOKEN, cacert=self.cacert)
        )
        self.error(lambda: made.request("GET", "", {}))

    def test_late_alert(self) -> None:
        """The alert is read even if the rest cannot be sent any more."""
        other = self.folder / "other"
        other.mkdir()
        write_pair(other)
        pair = str(other / "cert.pem"), str(other / "key.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(self.cacert)

        def talk(connection: socket.socket) -> None:
            try:
                self.secure(answering())(connection)
            finally:
                connection.close()
                closed.set()

        class Late(Bytes):
            def send(self, sock: socket.socket, start: int, most: int) -> int:
                closed.wait(PATIENCE)
                return super().send(sock, start, most)

        def connect(http: HTTPSConnection) -> None:
            real(http)
            closed.wait(PATIENCE)

        real = HTTPSConnection.connect
        for patched, body in (
            (connect, None),
            (real, Late(memoryview(bytes(LARGE.size)))),
        ):
            closed = threading.Event()
            self.patch(HTTPSConnection, "connect", patched)
            url = Peer(self, talk).url.replace("http:", "https:")
            made = self.connection(server(url, TOKEN, None, self.cacert, *pair))
            error = self.assertRaises(RefusedError, made.request, "PUT", "", {}, body)
            self.assertIn("the certificate of --cert: unknown ca", str(error))

    def test_certificate_may_be_refused(self) -> None:
        """The server's alert may be lost."""
        hint = ": the server may not accept --cert"
        own = (self.cacert, str(self.folder / "key.pem"))
        bodies = (None, Failing(), Interrupted(ssl.SSLEOFError(8, "EOF occurred")))
        for pair in (own, (None, None)):
            cut = Peer(self, lambda talk: talk.recv(1)).url.replace("http:", "https:")
            ends = [(self.url(read_request), each) for each in bodies]
            for url, body in [(cut, None), *ends]:
                made = self.connection(server(url, TOKEN, None, self.cacert, *pair))
                found = self.error(lambda: made.request("PUT", "", {}, body))  # noqa: B023
                self.assertEqual(pair is own, found.endswith(hint), found)

    def test_certificate_was_accepted(self) -> None:
        """Then the end of a later connection has another reason."""
        key = str(self.folder / "key.pem")
        url = self.url(answering(answer()), read_request)
        made = self.connection(server(url, TOKEN, None, self.cacert, self.cacert, key))
        made.request("GET", "", {})
        self.clock.advance(IDLE + 1)
        found = self.error(lambda: made.request("GET", "", {}))
        self.assertEqual("the server closed the connection", found)

    def test_unix(self) -> None:
        """The URL decides, as with curl: a socket in a shared folder proves nothing."""
        path = Path(self.mktemp()).name
        Peer(self, self.secure(answering(answer(b"yes"))), path=path)
        self.addCleanup(Path(path).unlink)
        made = self.connection(
            server("https://127.0.0.1", TOKEN, path, cacert=self.cacert)
        )
        self.assertEqual(b"yes", made.request("GET", "", {}).body)


class AnswerTests(SynchronousTestCase):
    def made(self, body: bytes, status: int = 503, **headers: str) -> Answer:
        message = HTTPMessage()
        for name, value in headers.items():
            message[name.replace("_", "-")] = value
        return Answer(status, message, body)

    def test_line(self) -> None:
        for body, expected in (
            (b"disk full\n", "disk full"),
            (b"\n  disk full  \nmore\n", "disk full"),
            (
                b"a\x1b[31mb\x00c\x9b\r\nd",
                "a[31mb\ufffdc\ufffd".replace("\ufffdc", "c"),
            ),
            ("\u202eabc".encode(), "abc"),
            (b"a" * 1000, "a" * 300),
            (b"", "Service Unavailable"),
            (b" \n", "Service Unavailable"),
        ):
            self.assertEqual(expected, self.made(body).line)

    def test_not_text(self) -> None:
        """The first line of a proxy's page says nothing."""
        html = "text/html; charset=utf-8"
        self.assertEqual(
            "Bad Gateway", self.made(b"<html>\n", 502, Content_Type=html).line
        )
        self.assertEqual(
            "no reason given", self.made(b"<html>\n", 599, Content_Type=html).line
        )
        self.assertEqual(
            "no", self.made(b"no", 502, Content_Type="text/plain; charset=utf-8").line
        )

    def test_of_file_bucket(self) -> None:
        self.assertTrue(self.made(b"", x_request_id="1").is_of_file_bucket)
        self.assertFalse(self.made(b"").is_of_file_bucket)
