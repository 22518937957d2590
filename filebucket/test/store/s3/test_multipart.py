"""Tests of :mod:`filebucket.store.s3.multipart`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.alarm import started
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.interfaces import NotThereError, ObjectError, UnsureError
from filebucket.store.s3.multipart import LOOK, Multipart, again, look
from filebucket.store.s3.publish import PAUSE, SETTLE
from filebucket.test.kit.objects import DENIED, LOST, MemoryObjects

T = TypeVar("T")


class MultipartCase(SynchronousTestCase):
    """Has an object store in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.objects = MemoryObjects()

    def result(self, work: Awaitable[T]) -> T:
        return self.successResultOf(self.made(work))

    def fails(self, work: Awaitable[T], kind: type[ObjectError]) -> ObjectError:
        error: ObjectError = self.failureResultOf(self.made(work), kind).value
        return error

    def made(self, work: Awaitable[T]) -> Deferred[T]:
        """The work, after all that it waits for."""
        done = started(work)
        while not done.called:
            (call, *_) = self.clock.getDelayedCalls()
            self.clock.advance(call.getTime() - self.clock.seconds())
        return done


class AgainTests(MultipartCase):
    """Calls that are made again."""

    def begin(self, most: int = 1000) -> Awaitable[str]:
        calls = self.objects.calls

        async def call() -> str:
            return await self.objects.begin("key")

        return again(self.clock, lambda: len(calls) < most, call)

    def test_pauses(self) -> None:
        """They grow, and there is an end."""
        self.objects.fail("begin", times=1000)
        self.assertIs(LOST, self.fails(self.begin(), UnsureError))
        self.assertEqual({"begin": 6}, self.objects.counted)
        self.assertEqual((2**5 - 1) * PAUSE, self.clock.seconds())
        self.objects.go_on("begin")
        self.objects.fail("begin", times=5)
        self.assertEqual("upload-0", self.result(self.begin()))

    def test_stops(self) -> None:
        """At once, if the push has ended, and after an error that is sure."""
        self.objects.fail("begin", times=4)
        self.fails(self.begin(most=3), UnsureError)
        self.assertEqual({"begin": 3}, self.objects.counted)
        self.objects.fail("begin", DENIED)
        self.assertIs(DENIED, self.fails(self.begin(), ObjectError))
        self.assertEqual({"begin": 5}, self.objects.counted)


class LookTests(MultipartCase):
    """The object that was stored."""

    def look(self, size: int = 3) -> Awaitable[None]:
        return look(self.clock, self.objects, "key", size)

    def test_there(self) -> None:
        self.objects.objects["key"] = b"abc"
        self.result(self.look())
        self.assertEqual({"size": 1}, self.objects.counted)
        self.fails(self.look(4), NotThereError)
        self.assertEqual({"size": 2}, self.objects.counted)

    def test_late(self) -> None:
        self.objects.objects["key"] = b"abc"
        self.objects.fail("size", NotThereError("not there"), times=100)
        self.result(self.look())
        self.assertLess(SETTLE, self.clock.seconds())

    def test_never(self) -> None:
        self.fails(self.look(), NotThereError)
        self.assertTrue(LOOK - PAUSE <= self.clock.seconds() <= LOOK)

    def test_silent(self) -> None:
        """The store does not answer."""
        for _ in range(100):
            self.objects.hang("size")
        self.fails(self.look(), UnsureError)
        self.assertTrue(LOOK - PAUSE <= self.clock.seconds() <= LOOK)


class MultipartTests(MultipartCase):
    """Multipart uploads."""

    def begun(self) -> Multipart:
        """One that has two parts."""
        it = Multipart(self.clock, self.objects, "key")
        it.id = self.result(self.objects.begin("key"))
        # They may be sent in any order.
        for number, content in ((2, b"b"), (1, b"a")):
            body = MemoryBody.of(content)
            part = self.objects.part("key", it.id, number, body)
            it.parts[number] = self.result(part)
        return it

    def test_complete(self) -> None:
        for lose in (lambda: None, lambda: self.objects.lose("complete")):
            lose()
            it = self.begun()
            for _ in range(2):
                self.result(it.complete(2))
            self.result(it.abandon())
            self.assertEqual(b"ab", self.objects.objects.pop("key"))
        self.assertEqual(2, self.objects.counted["complete"])
        self.assertNotIn("abandon", self.objects.counted)

    def test_unsure(self) -> None:
        """The error says both what failed, and that the object is not there."""
        it = self.begun()
        self.objects.fail("complete")
        error = self.fails(it.complete(2), NotThereError)
        self.assertIn(f"{LOST}, and ", str(error))
        self.assertEqual("NoSuchKey", error.code)
        self.result(it.abandon())
        self.assertNotIn("abandon", self.objects.counted)

    def test_denied(self) -> None:
        it = self.begun()
        self.objects.fail("complete", DENIED)
        self.assertIs(DENIED, self.fails(it.complete(2), ObjectError))
        self.result(it.complete(2))
        it = self.begun()
        self.result(it.abandon())
        self.assertEqual({}, self.objects.uploads)

    def test_not_begun(self) -> None:
        self.result(Multipart(self.clock, self.objects, "key").abandon())
        self.assertEqual([], self.objects.calls)
