"""Calls to an object store."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable
from hashlib import sha256

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs
from zope.interface import implementer

from filebucket.model.objects import S3
from filebucket.store.s3.body import PIECE, MemoryBody
from filebucket.store.s3.calls import Calls
from filebucket.store.s3.client import Objects
from filebucket.store.s3.interfaces import (
    DeniedError,
    FullError,
    IBody,
    NotSentError,
    UnsureError,
)
from filebucket.test.kit.lying_s3 import (
    SECRETS,
    Answer,
    Changes,
    Cuts,
    Early,
    Hangs,
    LyingCase,
    Says,
    Sends,
    Stalls,
    error,
)

BODY = MemoryBody.of(b"content")


@implementer(IBody)
class LargeBody:
    """Zeros, each piece made when it is read.

    :ivar read_sizes: of the pieces
    :ivar pieces: those that still are in memory
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.sha256 = sha256(bytes(size)).digest()
        self.read_sizes: list[int] = []

    def read(self, offset: int, most: int) -> Awaitable[bytes]:
        self.read_sizes.append(min(most, self.size - offset))
        return succeed(bytes(self.read_sizes[-1]))


@implementer(IBody)
class SlowBody(LargeBody):
    """Its pieces come when the test says so."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.reads: list[Deferred[bytes]] = []

    def read(self, offset: int, most: int) -> Awaitable[bytes]:
        self.reads.append(Deferred())
        return self.reads[-1]


class BodyTests(LyingCase):
    """Sends bodies that are larger than all buffers."""

    def test_large(self) -> None:
        body = LargeBody(3_000_000)
        self.result(self.objects.put("a", body))
        self.assertEqual(bytes(3_000_000), self.server.objects["bucket/a"])
        self.assertEqual(PIECE, max(body.read_sizes))
        self.result(self.objects.put("b", body))
        self.assertEqual(1, len(self.one.cables))

    def test_backpressure(self) -> None:
        """While the store reads nothing, one piece is read."""
        self.server.lie(Stalls())
        body = LargeBody(3_000_000)
        putting = self.begin(self.objects.put("a", body))
        self.assertEqual(1, len(body.read_sizes))
        self.wait(9)
        self.assertEqual(1, len(body.read_sizes))
        self.assertNoResult(putting)
        self.server.connections[0].transport.resumeProducing()
        self.move()
        self.successResultOf(putting)

    def test_stalled(self) -> None:
        self.server.lie(Stalls())
        body = LargeBody(3_000_000)
        putting = self.begin(self.objects.put("a", body))
        # The first window has what the buffers took.
        self.wait(10)
        self.wait(9)
        self.assertNoResult(putting)
        self.wait(1)
        message = self.error_of(putting, UnsureError)
        self.assertEqual("object store one:1 took no data in 10 seconds", message)
        self.assertEqual({}, self.server.objects)

    def test_slow(self) -> None:
        """No limit applies to a body that moves."""
        self.server.lie(Stalls())
        putting = self.begin(self.objects.put("a", LargeBody(3_000_000)))
        transport = self.server.connections[0].transport
        for _ in range(15):
            self.wait(9)
            transport.resumeProducing()
            self.one.cables[0].move()
            transport.pauseProducing()
        self.assertNoResult(putting)
        transport.resumeProducing()
        self.move()
        self.successResultOf(putting)

    def test_unreadable(self) -> None:
        """The store gets no whole request."""
        body = SlowBody(300_000)
        putting = self.begin(self.objects.put("a", body))
        body.reads[0].errback(OSError(5, "Input/output error"))
        self.move()
        self.failureResultOf(putting, OSError)
        self.assertEqual({}, self.server.objects)
        self.assertEqual(0, self.one.open)

    def test_shorter(self) -> None:
        """The body is not all there."""
        body = SlowBody(300_000)
        putting = self.begin(self.objects.put("a", body))
        body.reads[0].callback(b"")
        self.move()
        self.failureResultOf(putting, OSError)

    def test_reading_hangs(self) -> None:
        """The call ends when nothing reads its body any more."""
        body = SlowBody(300_000)
        putting = self.begin(self.objects.put("a", body))
        self.wait(10)
        self.assertEqual(0, self.one.open)
        self.assertNoResult(putting)
        body.reads[0].callback(bytes(PIECE))
        self.move()
        message = self.error_of(putting, UnsureError)
        self.assertIn("took no data in 10 seconds", message)
        self.assertEqual(1, len(body.reads))

    def test_memory(self) -> None:
        """The body is let go of when the call ends, without a search for garbage."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for lie in (Says(error(500, "x")), Cuts(), Cuts(does=True, after=0.5)):
            self.server.lie(lie, skip=1)
            for _ in range(2):
                body = LargeBody(1_000_000)
                gone = weakref.ref(body)
                putting = self.begin(self.objects.put("a", body))
                putting.addErrback(lambda failure: failure.trap(UnsureError))
                self.successResultOf(putting)
                del body, putting
                self.assertIsNone(gone(), lie)
            self.server.lie(Says(Answer(200)), times=0)


class EarlyTests(LyingCase):
    """Answers before the end of the body."""

    def test_refused(self) -> None:
        """The store reads no more, and its answer is heard."""
        for answer, kind in (
            (error(403, "QuotaExceeded"), FullError),
            (error(403, "AccessDenied"), DeniedError),
            (error(503, "SlowDown"), UnsureError),
        ):
            self.server.lie(Early(answer))
            body = LargeBody(3_000_000)
            self.error(self.objects.put("a", body), kind)
            self.assertGreater(4, len(body.read_sizes))
            self.move()
            self.assertEqual(0, self.one.open + self.two.open)

    def test_refused_in_pieces(self) -> None:
        """Twisted does not wait with the content until the request is sent."""
        self.server.lie(Stalls())
        putting = self.begin(self.objects.put("a", LargeBody(3_000_000)))
        answer = error(403, "QuotaExceeded").bytes_of("PUT")
        for part in (answer[:60], answer[60:-20], answer[-20:]):
            self.assertNoResult(putting)
            self.server.connections[0].say(part)
            self.move()
        self.error_of(putting, FullError)

    def test_success(self) -> None:
        """It cannot be one."""
        self.server.lie(Early(Answer(200, headers={"ETag": '"x"'})))
        message = self.error(self.objects.put("a", LargeBody(3_000_000)), UnsureError)
        self.assertIn("before it had received all data", message)


class LossTests(LyingCase):
    """Answers that do not come, or not whole."""

    def test_cut(self) -> None:
        for lie in (
            Cuts(),
            Cuts(after=0.3),
            Sends(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncon", closes=True),
            Sends(b"HTTP/1.1 200 OK\r\n\r\ncontent", closes=True),
            Sends(b"SSH-2.0-OpenSSH\r\n\r\n"),
            Sends(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
            Sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000),
        ):
            self.server.lie(lie)
            message = self.error(self.objects.get("a", 7), UnsureError)
            self.assertRegex(
                message,
                r"object store (one:1|two:2) (closed the connection before its answer|"
                "sent an answer without a length, and closed the connection|"
                "sent too large an answer|"
                "sent an answer that is not HTTP)$",
            )
            self.assertEqual(0, self.one.open + self.two.open)

    def test_endless(self) -> None:
        self.server.lie(Sends(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1_000_000)))
        message = self.error(self.objects.get("a", 7), UnsureError)
        self.assertIn("sent too large an answer", message)

    def test_hangs(self) -> None:
        """The answer has one timeout, from its first byte to its last."""
        self.server.lie(Hangs())
        getting = self.begin(self.objects.get("a", 7))
        self.wait(10)
        self.server.connections[0].say(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        self.move()
        self.wait(9)
        self.server.connections[0].say(b"con")
        self.move()
        self.assertNoResult(getting)
        self.wait(1)
        message = self.error_of(getting, UnsureError)
        self.assertEqual("object store one:1 did not answer in 20 seconds", message)
        self.assertEqual(0, self.one.open)

    def test_continue(self) -> None:
        """An interim answer is none."""
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        final = Answer(200, b"", {"ETag": '"x"'}).bytes_of("PUT")
        self.server.lie(Sends(interim + final))
        self.result(self.objects.put("a", BODY))

    def test_close_after(self) -> None:
        """A connection that the store closes is not used again."""

        def closing(answer: Answer) -> Answer:
            return evolve(answer, headers={**answer.headers, "Connection": "close"})

        self.server.lie(Changes(closing))
        self.result(self.objects.put("a", BODY))
        self.assertEqual(0, self.one.open)
        self.result(self.objects.put("b", BODY))

    def test_cancelled(self) -> None:
        """The client of a push has gone: the connection is closed at once."""
        for lie in (Hangs(), Stalls()):
            self.server.lie(lie)
            putting = self.begin(self.objects.put("a", LargeBody(3_000_000)))
            putting.cancel()
            self.move()
            message = self.error_of(putting, UnsureError)
            self.assertIn("the call was canceled", message)
            self.assertEqual(0, self.one.open + self.two.open)

    def test_cancelled_reading(self) -> None:
        """In the middle of the answer."""
        self.server.lie(Sends(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncon"))
        getting = self.begin(self.objects.get("a", 7))
        getting.cancel()
        self.move()
        self.error_of(getting, UnsureError)
        self.assertEqual(0, self.one.open)

    def test_stale(self) -> None:
        """The store closes an idle connection."""
        self.result(self.objects.put("a", BODY))
        self.server.connections[0].transport.loseConnection()
        self.move()
        self.result(self.objects.put("a", BODY))
        self.assertEqual(2, len(self.one.cables))

    def test_idle(self) -> None:
        """It is closed before the store would close it."""
        self.result(self.objects.put("a", BODY))
        self.wait(7)
        self.assertEqual(1, self.one.open)
        self.wait(1)
        self.assertEqual(0, self.one.open)


class EndpointTests(LyingCase):
    """One endpoint or the other."""

    def test_refuses(self) -> None:
        """The next one is used, and remains in use."""
        self.one.refuses = True
        with capturedLogs() as logged:
            for key in "ab":
                self.result(self.objects.put(key, BODY))
        self.assertEqual(["put", "put"], self.server.kinds())
        self.assertEqual(1, len(self.two.cables))
        (event,) = logged
        self.assertEqual("object-store", event["event"])
        self.assertIn("cannot connect to object store one:1", event["reason"])
        self.assertEqual("object store two:2", event["place"])

    def test_hangs(self) -> None:
        self.one.hangs = True
        putting = self.begin(self.objects.put("a", BODY))
        self.wait(2)
        self.assertNoResult(putting)
        self.wait(1)
        self.successResultOf(putting)

    def test_none(self) -> None:
        """Nothing was sent."""
        self.one.refuses = self.two.refuses = True
        message = self.error(self.objects.put("a", BODY), NotSentError)
        self.assertIn("cannot connect to object store two:2: ", message)
        self.two.refuses = False
        self.result(self.objects.put("a", BODY))

    def test_unsure(self) -> None:
        """A call is never sent twice; the next one goes elsewhere."""
        for lie in (
            Says(error(500, "InternalError")),
            Says(error(503, "SlowDown")),
            Cuts(),
        ):
            self.server.lie(lie)
            self.error(self.objects.put("a", BODY), UnsureError)
            self.result(self.objects.put("a", BODY))
        hosts = [each.headers["host"] for each in self.server.asked]
        one, two = "one:1", "two:2"
        self.assertEqual([one, two, two, one, one, two], hosts)

    def test_denied(self) -> None:
        """The other endpoint would say the same."""
        self.server.lie(Says(error(403, "AccessDenied")))
        self.error(self.objects.put("a", BODY), DeniedError)
        self.result(self.objects.put("a", BODY))
        self.assertEqual([], self.two.cables)

    def test_error_in_200(self) -> None:
        self.server.lie(Says(error(200, "InternalError")))
        self.error(self.objects.begin("a"), UnsureError)
        self.result(self.objects.put("a", BODY))
        self.assertEqual(1, len(self.two.cables))

    def test_left_once(self) -> None:
        """Two calls that fail together leave only the endpoint that they used."""
        self.server.lie(Hangs(), times=2)
        both = [self.begin(self.objects.put(key, BODY)) for key in "ab"]
        self.wait(20)
        for each in both:
            self.error_of(each, UnsureError)
        self.result(self.objects.put("c", BODY))
        self.assertEqual(1, len(self.two.cables))

    def test_few_messages(self) -> None:
        self.server.lie(Says(error(503, "SlowDown")), times=20)
        with capturedLogs() as logged:
            for _ in range(10):
                self.error(self.objects.put("a", BODY), UnsureError)
            self.assertEqual(1, len(logged))
            self.wait(60)
            self.error(self.objects.put("a", BODY), UnsureError)
        self.assertEqual(2, len(logged))

    def test_cancelled_connecting(self) -> None:
        """The next endpoint is not tried."""
        self.one.hangs = True
        putting = self.begin(self.objects.put("a", BODY))
        putting.cancel()
        self.error_of(putting, NotSentError)
        self.assertEqual([], self.two.cables)


class TurnTests(LyingCase):
    """The limit of calls in progress, which is two here."""

    def setUp(self) -> None:
        super().setUp()
        self.server.lie(Hangs(), times=2)
        self.first = [self.begin(self.objects.put(key, BODY)) for key in "ab"]

    def check_end(self) -> None:
        self.wait(20)
        for each in self.first:
            self.error_of(each, UnsureError)
        super().check_end()

    def test_waits(self) -> None:
        third = self.begin(self.objects.put("c", BODY))
        self.wait(4)
        self.assertEqual(2, len(self.server.asked))
        self.first[0].cancel()
        self.move()
        self.successResultOf(third)
        self.assertEqual(2, len(self.one.cables))

    def test_too_long(self) -> None:
        third = self.begin(self.objects.put("c", BODY))
        self.wait(5)
        message = self.error_of(third, NotSentError)
        self.assertIn("more than 2 calls", message)

    def test_cancelled(self) -> None:
        third = self.begin(self.objects.put("c", BODY))
        third.cancel()
        self.error_of(third, NotSentError)

    def test_other_bucket(self) -> None:
        """Large parts in one do not delay the records in the other."""
        other = Objects(self.calls, "other")
        self.result(other.put("a", BODY))
        self.assertEqual({"other/a": b"content"}, self.server.objects)


class HostTests(LyingCase):
    def test_signed(self) -> None:
        """The host is signed as it is sent, also with a port that is the default."""
        for url in ("http://[::1]:8000", "http://s3.example.org:80", "http://S3.local"):
            calls = Calls(
                self.clock,
                S3((url,), "bucket", "bucket"),
                lambda: self.credentials,
                connect=lambda _: self.one,
            )
            self.result(Objects(calls, "bucket").put("a", BODY))
            headers = self.server.asked[-1].headers
            self.assertEqual(url.removeprefix("http://"), headers["host"])
            self.assertIn(";host;", headers["authorization"])
            closing = Deferred.fromCoroutine(calls.close())
            self.move()
            self.successResultOf(closing)


class SecretTests(LyingCase):
    def test_log(self) -> None:
        """A message of the store goes nowhere."""
        with capturedLogs() as logged:
            for lie in (Says(error(503, "SlowDown")), Cuts(), Sends(b"x" * 20_000)):
                self.server.lie(lie)
                self.error(self.objects.put("KEY-OF-FILE", BODY), UnsureError)
        for secret in (*SECRETS, "KEY-OF-FILE"):
            self.assertNotIn(secret, repr(logged))

    def test_renewed(self) -> None:
        """Later calls use later credentials."""
        self.result(self.objects.put("a", BODY))
        self.credentials = evolve(self.credentials, access_key="NEXT", token=None)
        self.result(self.objects.put("a", BODY))
        headers = self.server.asked[1].headers
        self.assertIn("Credential=NEXT/", headers["authorization"])
        self.assertNotIn("x-amz-security-token", headers)
