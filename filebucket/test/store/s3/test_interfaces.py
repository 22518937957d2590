"""The errors of an object store, and the fake that other tests use."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.interfaces import (
    DeniedError,
    FullError,
    ObjectError,
    UnsureError,
)
from filebucket.test.kit.objects import MemoryObjects
from filebucket.test.store.s3.objects_contract import ObjectsCase, ObjectsContract


class ErrorTests(SynchronousTestCase):
    def test_code(self) -> None:
        error = DeniedError("the store refused it", "AccessDenied")
        self.assertEqual("AccessDenied", error.code)
        self.assertEqual("the store refused it", str(error))

    def test_kinds(self) -> None:
        """A full store had no effect, which an unsure call may have had."""
        self.assertTrue(issubclass(FullError, DeniedError))
        self.assertFalse(issubclass(UnsureError, DeniedError))
        self.assertTrue(issubclass(UnsureError, ObjectError))


class MemoryObjectsTests(ObjectsContract, ObjectsCase):
    """The fake is as good as a real store."""

    objects: MemoryObjects

    def setUp(self) -> None:
        self.objects = MemoryObjects()

    async def test_faults(self) -> None:
        """Calls and answers are lost on request."""
        for lose, content in ((self.objects.fail, b"old"), (self.objects.lose, b"new")):
            await self.put("key", b"old")
            lose("put")
            await self.raises(UnsureError, self.put("key", b"new"))
            self.assertEqual(content, await self.get("key"))
        self.assertEqual({"get": 2, "put": 4}, self.objects.counted)

    async def test_hangs(self) -> None:
        """A call waits until it is cancelled, or goes on."""
        gate = self.objects.hang("put")
        first = Deferred.fromCoroutine(self.put("key", b"first"))
        self.assertFalse(first.called)
        gate.callback(None)
        await first
        self.objects.hang("put")
        second = Deferred.fromCoroutine(self.put("key", b"second"))
        second.cancel()
        await self.raises(UnsureError, second)
        self.assertEqual(b"first", await self.get("key"))

    async def test_body_of_another_size(self) -> None:
        body = MemoryBody(b"short", 6, bytes(32))
        with self.assertRaises(OSError):
            await self.objects.put("key", body)
