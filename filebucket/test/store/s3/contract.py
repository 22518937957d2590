"""Tests that each S3 bucket passes, as commands read it."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from typing import Any

from zope.interface.verify import verifyObject

from filebucket.store.s3.blocking import Page
from filebucket.store.s3.interfaces import NotThereError, UnsureError
from filebucket.store.s3.remove import IDeleting

ODD = (
    *("a", "a b", "a+b", "a%2Fb", "a&b", "a<b>", "a=b", 'a"b', "a'b", "a~b", "a;b"),
    *("a\xe4", "a\u20ac", "a\U0001f4be", "#a", "?a", "-a", ".a", "a.", " a", "a*"),
)
"""Names that are hard to quote."""


class BlockingContract:
    """Subclasses make a bucket. Each test has a prefix of its own."""

    bucket: IDeleting
    addCleanup: Any
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertRaises: Any
    assertLess: Any

    @abstractmethod
    def make(self) -> IDeleting:
        """A bucket that is not versioned."""

    def setUp(self) -> None:
        self.bucket = self.make()
        self.addCleanup(self.bucket.close)
        self.prefix = f"{secrets.token_hex(8)}/"

    def key(self, name: str) -> str:
        return self.prefix + name

    def all_pages(self, prefix: str = "", after: str = "") -> list[Page]:
        found = [self.bucket.page(self.prefix + prefix, after)]
        while (more := found[-1].after) is not None:
            found.append(self.bucket.page(self.prefix + prefix, more))
        return found

    def all_keys(self, prefix: str = "", after: str = "") -> list[str]:
        return [
            each.key for page in self.all_pages(prefix, after) for each in page.objects
        ]

    def test_interface(self) -> None:
        verifyObject(IDeleting, self.bucket)

    def test_object(self) -> None:
        """It is created, replaced and deleted."""
        key = self.key("a")
        self.assertRaises(NotThereError, self.bucket.get, key, 10)
        self.bucket.put(key, b"old")
        self.assertEqual(b"old", self.bucket.get(key, 3))
        self.bucket.put(key, b"newer")
        self.assertEqual(b"newer", self.bucket.get(key, 10))
        self.assertRaises(UnsureError, self.bucket.get, key, 4)
        self.bucket.delete(key)
        self.assertRaises(NotThereError, self.bucket.get, key, 10)
        self.bucket.delete(key)

    def test_odd_names(self) -> None:
        """They are the same in keys and in lists, whose order is that of UTF-8."""
        for name in ODD:
            self.bucket.put(self.key(name), name.encode())
        for name in ODD:
            self.assertEqual(name.encode(), self.bucket.get(self.key(name), 100))
        expected = sorted(map(self.key, ODD), key=str.encode)
        self.assertEqual(expected, self.all_keys())
        middle = expected[len(expected) // 2]
        self.assertEqual(
            [each for each in expected if each > middle], self.all_keys(after=middle)
        )
        for name in ODD:
            self.bucket.delete(self.key(name))
        self.assertEqual([], self.all_keys())

    def test_read(self) -> None:
        """From any offset, in pieces."""
        content = secrets.token_bytes(300_000)
        self.bucket.put(self.key("a"), content)
        for offset in (0, 1, 299_999):
            reading = self.bucket.open(self.key("a"), offset)
            self.assertEqual(300_000, reading.size)
            found = b""
            while piece := reading.read(65_536):
                self.assertLess(len(piece), 65_537)
                found += piece
            self.assertEqual(content[offset:], found)
            reading.close()
        reading = self.bucket.open(self.key("a"))
        reading.read(1)
        reading.close()
        self.assertEqual(content, self.bucket.get(self.key("a"), 300_000))

    def test_read_nothing(self) -> None:
        self.bucket.put(self.key("a"), b"")
        reading = self.bucket.open(self.key("a"))
        self.assertEqual((0, b""), (reading.size, reading.read(10)))
        reading.close()
        self.assertRaises(NotThereError, self.bucket.open, self.key("b"))

    def test_list(self) -> None:
        """Sizes, and times by the store's clock; only what begins with a prefix."""
        for name, size in (("a/1", 0), ("a/2", 5), ("a-b/1", 1), ("b/1", 1)):
            self.bucket.put(self.key(name), bytes(size))
        (page,) = self.all_pages("a/")
        self.assertEqual(
            [(self.key("a/1"), 0), (self.key("a/2"), 5)],
            [(each.key, each.size) for each in page.objects],
        )
        for each in page.objects:
            self.assertLess(abs(page.at - each.modified), 10)
            self.assertLess(abs(self.bucket.modified(each.key) - each.modified), 2)
            self.assertFalse(each.is_multipart)
        self.assertEqual([self.key("a/2")], self.all_keys("a/", self.key("a/1")))
        self.assertEqual([], self.all_keys("a/", self.key("a/2")))
        self.assertEqual([], self.all_keys("c/"))

    def test_not_versioned(self) -> None:
        self.assertFalse(self.bucket.versioned())
