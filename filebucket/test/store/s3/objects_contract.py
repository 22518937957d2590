"""Tests that every client of an object store passes, and the fake one. A test case
inherits :class:`ObjectsContract`, and has a store in ``objects``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from filebucket.model.objects import LEAST_PART
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    IObjects,
    NotThereError,
    ObjectError,
)

KEYS = [
    "a",
    "with space/plus+percent%",
    "größe/日本~0",
    "names/web01/-rf",
    "?&=;:@!$'()*,",
    "n" * 255,
]


class ObjectsCase(TestCase):
    """Has an object store.

    :ivar prefix: what all keys of this test begin with
    """

    objects: IObjects
    prefix = "contract/"

    async def raises(self, kind: type[ObjectError], wait: Awaitable[object]) -> str:
        """The code of the error that a call must raise."""
        try:
            await wait
        except ObjectError as error:
            self.assertIsInstance(error, kind)
            self.assertEqual(1, len(str(error).splitlines()))
            self.assertNotIn(self.prefix, str(error))
            return error.code
        raise AssertionError(f"no {kind.__name__}")


if TYPE_CHECKING:
    AnyObjects = ObjectsCase
else:
    AnyObjects = object  # or the contract itself would run as a test


class ObjectsContract(AnyObjects):
    """What every object store does."""

    async def put(self, key: str, content: bytes, only_new: bool = False) -> None:
        await self.objects.put(self.prefix + key, MemoryBody.of(content), only_new)

    async def get(self, key: str) -> bytes:
        return await self.objects.get(self.prefix + key, 1000)

    async def test_interface(self) -> None:
        verifyObject(IObjects, self.objects)

    async def test_put(self) -> None:
        """An object has its content and its size at once, whatever its key is."""
        for number, key in enumerate(KEYS):
            content = b"%d" % number * number
            await self.put(key, content)
            self.assertEqual(content, await self.get(key))
            self.assertEqual(number, await self.objects.size(self.prefix + key))

    async def test_put_again(self) -> None:
        """The later content replaces the earlier one."""
        await self.put("key", b"a longer content")
        await self.put("key", b"new")
        self.assertEqual(b"new", await self.get("key"))
        self.assertEqual(3, await self.objects.size(f"{self.prefix}key"))

    async def test_only_new(self) -> None:
        """One PUT creates the object; those after it change nothing."""
        await self.put("new", b"first", only_new=True)
        for content in (b"second", b"first"):
            await self.raises(AlreadyThereError, self.put("new", content, True))
        self.assertEqual(b"first", await self.get("new"))

    async def test_race(self) -> None:
        """Of several PUTs at once, one creates the object."""
        for turn in range(3):
            key = f"race {turn}"
            waits = [
                Deferred.fromCoroutine(self.put(key, b"%d" % each, only_new=True))
                for each in range(8)
            ]
            won = []
            for number, wait in enumerate(waits):
                try:
                    await wait
                    won.append(b"%d" % number)
                except AlreadyThereError:
                    pass
            self.assertEqual([await self.get(key)], won)

    async def test_nothing_there(self) -> None:
        await self.raises(NotThereError, self.get("nothing"))
        await self.raises(NotThereError, self.objects.size(f"{self.prefix}nothing"))

    async def test_get_too_much(self) -> None:
        """Content that is too large is never returned."""
        await self.put("large", bytes(1001))
        await self.raises(ObjectError, self.get("large"))

    async def test_wrong_digest(self) -> None:
        """An object with another digest than announced is never stored."""
        body = MemoryBody(b"content", 7, bytes(32))
        key = f"{self.prefix}wrong"
        await self.raises(ObjectError, self.objects.put(key, body))
        await self.raises(NotThereError, self.get("wrong"))

    async def test_multipart(self) -> None:
        """An object has all its parts, in order, and does not exist before that."""
        key = f"{self.prefix}many/parts"
        upload = await self.objects.begin(key)
        contents = [bytes([number]) * LEAST_PART for number in (1, 2)] + [b"rest"]
        parts = {}
        for number in (3, 1, 2):
            body = MemoryBody.of(contents[number - 1])
            # The second one replaces the first one.
            for _ in range(2):
                parts[number] = await self.objects.part(key, upload, number, body)
        await self.raises(NotThereError, self.objects.size(key))
        await self.objects.complete(key, upload, [parts[each] for each in (1, 2, 3)])
        self.assertEqual(2 * LEAST_PART + 4, await self.objects.size(key))
        code = await self.raises(ObjectError, self.objects.get(key, 1000))
        self.assertEqual("", code)

    async def test_abandon(self) -> None:
        """A multipart upload that is abandoned does not go on."""
        key = f"{self.prefix}abandoned"
        upload = await self.objects.begin(key)
        part = await self.objects.part(key, upload, 1, MemoryBody.of(b"x"))
        await self.objects.abandon(key, upload)
        await self.raises(ObjectError, self.objects.complete(key, upload, [part]))
        await self.raises(NotThereError, self.objects.size(key))
        await self.objects.abandon(key, upload)

    async def test_sizes(self) -> None:
        """A list counts all objects whose keys begin with something."""
        for number in range(5):
            await self.put(f"list/{number} &~+", bytes(number))
        await self.put("list", bytes(100))
        await self.put("liszt/1", bytes(100))
        total, size, after, pages = 0, 0, "", 0
        while pages == 0 or after:
            found = await self.objects.sizes(f"{self.prefix}list/", after)
            total, size, after = total + found[0], size + found[1], found[2]
            pages += 1
        self.assertEqual((5, 10), (total, size))
        self.assertEqual((0, 0, ""), await self.objects.sizes(f"{self.prefix}none/"))
