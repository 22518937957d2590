"""The admin listener: answers, refusals and limits."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from filebucket.admin.site import (
    CONNECTIONS,
    DEADLINE,
    PAGE_POLICY,
    TIMEOUT,
    AdminAnswer,
    AdminChannel,
    AdminRequest,
    AdminSite,
    Message,
    SharedAnswer,
)
from filebucket.http.admission import DROP_AFTER
from filebucket.test.kit.wire import Wire


class Page(Resource):
    """A resource of Twisted."""

    def render_GET(self, request: AdminRequest) -> bytes:
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        request.setHeader(b"Content-Security-Policy", PAGE_POLICY)
        return b"<p>hello"


class Waiting(Resource):
    """A resource that answers later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[AdminRequest] = []

    def render(self, request: AdminRequest) -> int:
        self.asked.append(request)
        return NOT_DONE_YET


class Broken(Resource):
    """A resource with a bug."""

    def render(self, request: AdminRequest) -> bytes:
        raise RuntimeError("secret")


class Client:
    def __init__(self, site: AdminSite, host: object = None) -> None:
        self.wire = Wire()
        if host is not None:
            self.wire.hostAddr = host
        channel = site.buildProtocol(self.wire.getPeer())
        assert isinstance(channel, AdminChannel)
        self.channel = channel
        channel.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def received(self) -> bytes:
        value: bytes = self.wire.value()
        self.wire.clear()
        return value

    def ask(
        self, target: str = "/", method: str = "GET", head: str = "Host: h\r\n"
    ) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and content of the answer."""
        self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
        head_, _, content = self.received().partition(b"\r\n\r\n")
        line, *lines = head_.decode("ascii").split("\r\n")
        headers = dict(each.split(": ", 1) for each in lines)
        return int(line.split()[1]), headers, content


class AdminCase(SynchronousTestCase):
    """A site with one resource of each kind."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting = Waiting()
        resources: Mapping[str, IResource] = {
            "": Page(),
            "healthz": Message(200, "ok"),
            "waiting": self.waiting,
            "broken": Broken(),
        }
        self.site = AdminSite(self.clock, resources)

    def connect(self, host: object = None) -> Client:
        return Client(self.site, host)


class AnswerTests(AdminCase):
    def test_line(self) -> None:
        """One line of text, and the default headers."""
        status, headers, content = self.connect().ask("/healthz")
        self.assertEqual((200, b"ok\n"), (status, content))
        del headers["Date"]
        self.assertEqual(
            {
                "Cache-Control": "no-store",
                "Content-Length": "3",
                "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
                "Content-Type": "text/plain; charset=utf-8",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
            },
            headers,
        )

    def test_page(self) -> None:
        """The headers of a resource stay, and a query is ignored."""
        for target in ("/", "/?a=b"):
            status, headers, content = self.connect().ask(target)
            self.assertEqual((200, b"<p>hello"), (status, content))
            self.assertEqual("text/html; charset=utf-8", headers["Content-Type"])
            self.assertEqual(PAGE_POLICY.decode(), headers["Content-Security-Policy"])
            self.assertEqual("nosniff", headers["X-Content-Type-Options"])

    def test_head(self) -> None:
        """HEAD has the same headers and no content, and is not logged."""
        client = self.connect()
        with capturedLogs() as events:
            for target, length in (("/", "8"), ("/healthz", "3"), ("/no", "10")):
                _, headers, content = client.ask(target, "HEAD")
                self.assertEqual((b"", length), (content, headers["Content-Length"]))
        self.assertEqual([], list(events))

    def test_nothing(self) -> None:
        """A path of two components is 404."""
        client = self.connect()
        for target in ("/no", "/healthz/", "/healthz/x", "//", "/%2e%2e", "/%ff"):
            status, _, content = client.ask(target)
            self.assertEqual((404, b"not found\n"), (status, content))

    def test_later(self) -> None:
        """A late answer is sent before the next one."""
        client = self.connect()
        client.send(b"GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n" * 2)
        self.clock.advance(TIMEOUT)
        self.assertEqual(1, len(self.waiting.asked))
        self.waiting.asked[0].answer(503, b"busy\n")
        self.assertTrue(client.received().startswith(b"HTTP/1.1 503 Service"))
        self.waiting.asked[1].answer(200, b"fine\n")
        self.assertTrue(client.received().endswith(b"\r\n\r\nfine\n"))

    def test_later_and_nobody(self) -> None:
        """An answer after a disconnect is dropped."""
        client = self.connect()
        client.send(b"GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n")
        client.channel.connectionLost()
        self.waiting.asked[0].answer(200, b"fine\n")
        self.assertEqual(b"", client.received())

    def test_bug(self) -> None:
        """The traceback is logged, but not sent."""
        status, headers, content = self.connect().ask("/broken")
        self.assertEqual(500, status)
        self.assertEqual(b"internal error; see the server's log\n", content)
        self.assertEqual("text/plain; charset=utf-8", headers["Content-Type"])
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_no_access_log(self) -> None:
        """A URL with a token is not logged."""
        with capturedLogs() as events:
            self.connect().ask("/0123456789abcdef0123456789abcdef/x")
        self.assertEqual([], list(events))


class RefusalTests(AdminCase):
    def test_methods(self) -> None:
        """Only GET and HEAD are allowed."""
        client = self.connect()
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"):
            status, headers, content = client.ask(method=method)
            self.assertEqual(405, status)
            self.assertEqual(b"only GET and HEAD are allowed\n", content)
            self.assertEqual("GET, HEAD", headers["Allow"])
            self.assertEqual("nosniff", headers["X-Content-Type-Options"])

    def test_bodies(self) -> None:
        """No body is requested, and none is read."""
        for method, expected in (("POST", 405), ("GET", 400)):
            for length in ("Content-Length: 9999999", "Transfer-Encoding: chunked"):
                client = self.connect()
                head = f"Host: h\r\n{length}\r\nExpect: 100-continue\r\n"
                status, headers, _ = client.ask("/healthz", method, head)
                self.assertEqual((expected, "close"), (status, headers["Connection"]))
                self.assertTrue(client.wire.disconnecting)
                client.send(b"GET /healthz HTTP/1.1\r\n\r\n")
                self.assertEqual(b"", client.received())

    def test_names(self) -> None:
        """On a loopback address, Host must not be a foreign name."""
        own = ("localhost", "LocalHost:1", "127.0.0.1:1235", "[::1]:1235", "192.0.2.1")
        foreign = (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "",
            "[",
        )
        for address, names, expected in (
            (IPv4Address("TCP", "127.0.0.1", 1), own, 200),
            (IPv4Address("TCP", "127.0.0.1", 1), foreign, 421),
            (IPv6Address("TCP", "::1", 1), foreign, 421),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), foreign, 421),
            (IPv4Address("TCP", "192.0.2.1", 1), own + foreign, 200),
            (UNIXAddress("/socket"), own + foreign, 200),
        ):
            client = self.connect(address)
            for name in names:
                for target in ("/healthz", "/"):
                    status, _, _ = client.ask(target, head=f"Host: {name}\r\n")
                    self.assertEqual(expected, status, (address, name))
        client = self.connect(IPv4Address("TCP", "127.0.0.1", 1))
        twice = "Host: localhost\r\nHost: evil.example\r\n"
        self.assertEqual(421, client.ask(head=twice)[0])

    def test_malformed(self) -> None:
        """One line, and the connection closes."""
        for sent in (
            b"nonsense\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % (b"1" * 5000),
            b"GET /" + b"a" * 20000,
            b"GET /%b HTTP/1.1\r\n" % (b"a" * 20000),
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + b"a: %b\r\n" % (b"b" * 9000) * 2 + b"\r\n",
        ):
            client = self.connect()
            client.send(sent)
            head, _, content = client.received().partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 400 Bad Request\r\n"), head)
            self.assertIn(b"\r\nX-Content-Type-Options: nosniff", head)
            self.assertEqual(b"malformed or oversized request\n", content)
            self.assertTrue(client.wire.disconnecting)
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            self.assertEqual(b"", client.received())


class SharedAnswerTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.looks: list[Deferred[AdminAnswer]] = []
        self.site = AdminSite(self.clock, {"": SharedAnswer(self.clock, self.look)})

    async def look(self) -> AdminAnswer:
        self.looks.append(Deferred())
        return await self.looks[-1]

    def ask(self) -> Client:
        client = self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        return client

    def test_once(self) -> None:
        """Clients that ask meanwhile share the answer; the next one gets a new one."""
        clients = [self.ask() for _ in range(3)]
        self.assertEqual(1, len(self.looks))
        self.looks[0].callback(AdminAnswer(200, b"first", b"a/b"))
        for client in clients:
            self.assertTrue(client.received().endswith(b"\r\n\r\nfirst"))
        client = self.ask()
        self.assertEqual(2, len(self.looks))
        self.looks[1].callback(AdminAnswer(200, b"second"))
        self.assertTrue(client.received().endswith(b"\r\n\r\nsecond"))

    def test_slow(self) -> None:
        """Clients get 503 after the timeout, and no requests pile up."""
        first = self.ask()
        self.clock.advance(DEADLINE / 2)
        second = self.ask()
        self.clock.advance(DEADLINE / 2)
        late = b"\r\n\r\nthe disk did not answer within 8 seconds\n"
        got = first.received()
        self.assertTrue(got.startswith(b"HTTP/1.1 503 ") and got.endswith(late), got)
        self.assertTrue(second.received().endswith(late))
        for _ in range(3):
            self.assertTrue(self.ask().received().endswith(late))
            self.clock.advance(DEADLINE)
        self.assertEqual(1, len(self.looks))
        self.looks[0].callback(AdminAnswer(200, b"too late"))
        last = self.ask()
        self.looks[1].callback(AdminAnswer(200, b"at last"))
        self.assertTrue(last.received().endswith(b"at last"))

    def test_gone(self) -> None:
        """A disconnected client is forgotten, and not logged as a bug."""
        gone, stays = self.ask(), self.ask()
        gone.channel.connectionLost(Failure(ConnectionDone()))
        self.looks[0].callback(AdminAnswer(200, b"found"))
        self.assertEqual(b"", gone.received())
        self.assertTrue(stays.received().endswith(b"found"))
        self.assertEqual([], self.flushLoggedErrors())

    def test_headers_and_packed(self) -> None:
        """Additional headers are sent, and gzip only if accepted."""
        answer = AdminAnswer(
            200, b"plain", b"a/b", packed=b"gzip", headers=((b"X-Y", b"z"),), kept=9
        )
        self.ask()
        self.looks[0].callback(answer)
        for accepted, expected in (("gzip", b"gzip"), ("br", b"plain")):
            head = f"Host: h\r\nAccept-Encoding: {accepted}\r\n"
            status, headers, content = self.connect().ask(head=head)
            self.assertEqual((200, expected), (status, content))
            self.assertEqual(("z", "a/b"), (headers["X-Y"], headers["Content-Type"]))
            self.assertEqual("Accept-Encoding", headers["Vary"])
            self.assertEqual(
                "gzip" if expected == b"gzip" else None, headers.get("Content-Encoding")
            )

    def test_bug(self) -> None:
        """All clients get 500, and the log a traceback."""
        clients = [self.ask() for _ in range(2)]
        self.looks[0].errback(RuntimeError("secret"))
        for client in clients:
            self.assertTrue(client.received().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(2, len(self.flushLoggedErrors(RuntimeError)))


class TimeTests(AdminCase):
    """Slow clients, and many clients."""

    def test_slow_request(self) -> None:
        """Single bytes do not extend the timeout; an answer does."""
        client = self.connect()
        client.ask()
        for byte in b"GET / HTTP/1.1\r\n"[:9]:
            self.clock.advance(TIMEOUT / 10)
            client.send(bytes([byte]))
        self.assertFalse(client.wire.disconnected)
        self.clock.advance(TIMEOUT / 10)
        self.assertTrue(client.wire.disconnected)
        client.channel.connectionLost()

    def test_idle(self) -> None:
        """A request within the timeout keeps the connection open."""
        client = self.connect()
        for _ in range(5):
            self.clock.advance(TIMEOUT - 1)
            self.assertEqual(200, client.ask()[0])
        self.clock.advance(TIMEOUT)
        self.assertTrue(client.wire.disconnected)
        client.channel.connectionLost()

    def test_answer_that_nobody_reads(self) -> None:
        """The connection is closed, and then aborted."""
        client = self.connect()
        client.ask(head="Host: h\r\nConnection: close\r\n")
        self.assertTrue(client.wire.disconnecting)
        self.assertFalse(client.wire.disconnected)
        self.clock.advance(TIMEOUT)
        self.assertTrue(client.wire.disconnected)
        client.channel.connectionLost()

    def test_answers_that_nobody_reads(self) -> None:
        """Of pipelined requests, the next is answered when the buffers have space."""
        client = self.connect()
        client.channel.pauseProducing()
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 1000)
        self.assertEqual(1, client.received().count(b"HTTP/1.1 200 "))
        self.assertEqual("paused", client.wire.producerState)
        client.channel.resumeProducing()
        self.assertEqual(999, client.received().count(b"HTTP/1.1 200 "))
        self.assertEqual("producing", client.wire.producerState)
        client.channel.pauseProducing()
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 2)
        self.clock.advance(TIMEOUT)
        self.assertTrue(client.wire.disconnected)
        client.channel.connectionLost()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_many(self) -> None:
        """A new connection closes an idle one, and no other."""
        busy = self.connect()
        busy.send(b"GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n")
        idle = [self.connect() for _ in range(CONNECTIONS - 1)]
        late = self.connect()
        self.assertEqual("paused", late.wire.producerState)
        self.clock.advance(DROP_AFTER)
        self.assertTrue(idle[0].wire.disconnected)
        self.assertFalse(idle[1].wire.disconnected)
        self.assertFalse(busy.wire.disconnected)
        self.assertEqual("producing", late.wire.producerState)
        self.assertEqual(200, late.ask()[0])
        for each in (busy, late, *idle):
            each.channel.connectionLost()
        self.assertFalse(self.site.admission.anybody)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_close(self) -> None:
        """All connections are closed at once."""
        client = self.connect()
        client.send(b"GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n")
        self.site.close()
        self.assertTrue(client.wire.disconnected)
        client.channel.connectionLost()
        self.assertEqual([], self.clock.getDelayedCalls())
