"""Sends bodies to an object store."""

from __future__ import annotations

from collections.abc import Awaitable
from hashlib import sha256

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from filebucket.store.s3.body import PIECE, MemoryBody, Sending
from filebucket.store.s3.interfaces import IBody


@implementer(IBody)
class AskedBody:
    """A body whose pieces come when the test says so."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sha256 = bytes(32)
        self.asked: list[tuple[int, int]] = []
        self.pieces: list[Deferred[bytes]] = []

    def read(self, offset: int, most: int) -> Awaitable[bytes]:
        self.asked.append((offset, most))
        self.pieces.append(Deferred())
        return self.pieces[-1]


class MemoryTests(SynchronousTestCase):
    def test_reads(self) -> None:
        body = MemoryBody.of(b"content")
        verifyObject(IBody, body)
        self.assertEqual((7, sha256(b"content").digest()), (body.size, body.sha256))
        for offset, most, found in ((0, 100, b"content"), (2, 3, b"nte")):
            reading = Deferred.fromCoroutine(body.read(offset, most))
            self.assertEqual(found, self.successResultOf(reading))

    def test_not_shown(self) -> None:
        self.assertNotIn("content", repr(MemoryBody.of(b"secret content")))


class SendingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.body = AskedBody(PIECE + 5)
        self.ends = 0
        self.sending = Sending(self.body, self.sent)
        self.consumer = StringTransport()

    def sent(self) -> None:
        self.ends += 1

    def test_pieces(self) -> None:
        """One after the other."""
        done = self.sending.startProducing(self.consumer)
        self.assertEqual(PIECE + 5, self.sending.length)
        self.assertEqual([(0, PIECE)], self.body.asked)
        self.body.pieces[0].callback(b"a" * PIECE)
        self.assertEqual(PIECE, self.sending.moved)
        self.assertEqual([(0, PIECE), (PIECE, 5)], self.body.asked)
        self.assertEqual((False, 0), (self.sending.done, self.ends))
        self.body.pieces[1].callback(b"bbbbb")
        self.successResultOf(done)
        self.assertEqual(b"a" * PIECE + b"bbbbb", self.consumer.value())
        self.assertEqual((True, 1), (self.sending.done, self.ends))

    def test_short_reads(self) -> None:
        """A piece may be shorter than asked for."""
        done = self.sending.startProducing(self.consumer)
        self.body.pieces[0].callback(b"a" * (PIECE - 1))
        self.body.pieces[1].callback(b"b" * 6)
        self.successResultOf(done)
        self.assertEqual((PIECE - 1, 6), self.body.asked[1])

    def test_paused(self) -> None:
        """Nothing is read ahead, so only the transport has a piece in memory."""
        done = self.sending.startProducing(self.consumer)
        self.sending.pauseProducing()
        self.body.pieces[0].callback(b"a" * PIECE)
        self.assertEqual(PIECE, len(self.consumer.value()))
        self.assertEqual(1, len(self.body.asked))
        self.assertNoResult(done)
        for _ in range(2):
            self.sending.resumeProducing()
        self.assertEqual(2, len(self.body.asked))
        self.body.pieces[1].callback(b"bbbbb")
        self.successResultOf(done)

    def test_fails(self) -> None:
        """A read fails, or brings too little or too much."""
        for result in (OSError(5, "no"), b"", b"x" * (PIECE + 1)):
            self.setUp()
            done = self.sending.startProducing(self.consumer)
            if isinstance(result, OSError):
                self.body.pieces[0].errback(result)
            else:
                self.body.pieces[0].callback(result)
            self.failureResultOf(done, OSError)
            self.assertEqual((False, 0), (self.sending.done, self.ends))

    def test_stopped(self) -> None:
        """A piece that is read then is dropped."""
        done = self.sending.startProducing(self.consumer)
        self.sending.stopProducing()
        ended = Deferred.fromCoroutine(self.sending.ended())
        self.assertNoResult(ended)
        self.body.pieces[0].callback(b"a" * PIECE)
        self.successResultOf(ended)
        self.assertEqual(b"", self.consumer.value())
        self.assertEqual(1, len(self.body.asked))
        self.assertNoResult(done)

    def test_stopped_while_paused(self) -> None:
        self.sending.startProducing(self.consumer)
        self.sending.pauseProducing()
        self.body.pieces[0].callback(b"a" * PIECE)
        self.sending.stopProducing()
        self.assertEqual(1, len(self.body.asked))
        self.successResultOf(Deferred.fromCoroutine(self.sending.ended()))

    def test_stopped_before_failure(self) -> None:
        """A failure of the disk then is nobody's."""
        self.sending.startProducing(self.consumer)
        self.sending.stopProducing()
        ended = Deferred.fromCoroutine(self.sending.ended())
        self.body.pieces[0].errback(OSError(5, "no"))
        self.successResultOf(ended)

    def test_cancelled(self) -> None:
        done = self.sending.startProducing(self.consumer)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.body.pieces[0].callback(b"a" * PIECE)
        self.assertEqual(b"", self.consumer.value())

    def test_never_started(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.sending.ended()))

    def test_empty(self) -> None:
        sending = Sending(MemoryBody.of(b""), self.sent)
        self.successResultOf(sending.startProducing(self.consumer))
        self.assertEqual((True, 1), (sending.done, self.ends))
