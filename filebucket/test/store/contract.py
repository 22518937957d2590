"""Tests that every store passes, including the fake one. A back end's test case
inherits :class:`StoreContract`, and from :class:`StoreCase` the means to look into its
store.
"""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.base.errors import Refusal
from filebucket.model.bucket import FILE_COST
from filebucket.store.interfaces import IStore, IWriter, Receipt

T = TypeVar("T")

TOKEN = "0123456789abcdef0123456789ABCDEF"
"""The folder of a bucket without a name is named after its token."""
NAME = "db.sql.gz"

SHAPES: dict[str, list[list[Any]]] = {
    "no write at all": [],
    "an empty list": [[]],
    "an empty chunk": [[b""]],
    "one byte": [[b"x"]],
    "empty chunks among others": [[b"", b"a", b"", b"", b"b", b""]],
    "several writes": [[b"a", b"bc"], [], [b"d"], [b"efg" * 1000]],
    "more chunks than IOV_MAX": [[b"%d," % n for n in range(5000)]],
    "exactly IOV_MAX, twice": [[b"ab"] * 2048],
    "bytearrays": [[bytearray(b"abc"), b"d", bytearray(), bytearray(b"e" * 999)]],
    "a large chunk": [[bytes(range(256)) * 8192]],
}
"""Lists of writes; each write is a list of chunks."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class StoreCase(SynchronousTestCase):
    """Has a store, and can look into it."""

    store: IStore

    def setUp(self) -> None:
        self.writers: list[IWriter] = []

    def tearDown(self) -> None:
        for writer in self.writers:
            self.result(writer.abort())
        self.assertEqual(0, self.left_aside())

    def published(self) -> dict[str, bytes]:
        """The files in the bucket, by name."""
        raise NotImplementedError

    def left_aside(self) -> int:
        """The number of files that are neither published nor deleted."""
        raise NotImplementedError

    def result(self, wait: Awaitable[T]) -> T:
        """The result of ``wait``, which must be available."""
        return self.successResultOf(Deferred.fromCoroutine(wait_for(wait)))

    def assert_refused(self, status: int, wait: Awaitable[object]) -> Refusal:
        """Refused, and no path in the reason."""
        failure = self.failureResultOf(Deferred.fromCoroutine(wait_for(wait)), Refusal)
        refusal: Refusal = failure.value
        self.assertEqual(status, refusal.status, refusal.reason)
        self.assertEqual(1, len(refusal.reason.splitlines()))
        for text in (
            refusal.reason,
            str(refusal),
            repr(refusal),
            str(refusal.headers),
            failure.getTraceback(),
            "".join(traceback.format_exception(refusal)),
        ):
            self.assert_says_no_path(text)
        return refusal

    def assert_says_no_path(self, text: str) -> None:
        self.assertNotIn(TOKEN, text)

    def writer(self, *algorithms: str, name: str = NAME) -> IWriter:
        """A writer that has begun; aborted at the end of the test."""
        writer = self.idle_writer(*algorithms, name=name)
        self.result(writer.begin(0, overwrite=True))
        return writer

    def idle_writer(
        self,
        *algorithms: str,
        name: str = NAME,
        directory: str = TOKEN,
        quota: int | None = None,
    ) -> IWriter:
        """A writer that has not begun."""
        writer = self.store.open(directory, name, algorithms, quota)
        self.writers.append(writer)
        return writer

    def assert_taken(self, name: str = NAME, directory: str = TOKEN) -> None:
        """A push of a file with that name is refused at once."""
        writer = self.idle_writer(name=name, directory=directory)
        self.assert_refused(405, writer.begin(0, overwrite=False))
        self.result(writer.abort())

    def assert_free(self, name: str = NAME, directory: str = TOKEN) -> None:
        """There is no file with that name."""
        writer = self.idle_writer(name=name, directory=directory)
        self.result(writer.begin(0, overwrite=False))
        self.result(writer.abort())

    def written(self, *chunks: bytes, name: str = NAME) -> IWriter:
        """A writer that got ``chunks``."""
        writer = self.writer(name=name)
        self.result(writer.write(chunks))
        return writer

    def push(
        self, content: bytes, overwrite: bool = False, name: str = NAME
    ) -> Receipt:
        writer = self.written(content, name=name)
        return self.result(writer.commit({}, overwrite))

    def assert_push_refused(
        self, status: int, content: bytes = b"new", overwrite: bool = False
    ) -> Refusal:
        """A push is refused at the commit; nothing changes, nothing is left."""
        before = self.published()
        writer = self.written(content)
        refusal = self.assert_refused(status, writer.commit({}, overwrite))
        self.result(writer.abort())
        self.assertEqual(before, self.published())
        self.assertEqual(0, self.left_aside())
        return refusal


async def wait_for(wait: Awaitable[T]) -> T:
    return await wait


async def push_whole(writer: IWriter, content: bytes) -> Receipt:
    """Push without :meth:`IWriter.begin`."""
    await writer.write([content])
    return await writer.commit({}, overwrite=False)


if TYPE_CHECKING:
    AnyStore = StoreCase
else:
    AnyStore = object  # or the contract itself would run as a test


class StoreContract(AnyStore):
    """What every store does."""

    def test_interfaces(self) -> None:
        verifyObject(IStore, self.store)
        verifyObject(IWriter, self.writer())

    def test_receipt(self) -> None:
        """The receipt has the path of the file, its size and its SHA-256."""
        receipt = self.push(b"content")
        self.assertTrue(os.path.isabs(receipt.path))
        self.assertEqual([TOKEN, NAME], receipt.path.split("/")[-2:])
        self.assertEqual(7, receipt.size)
        self.assertEqual(sha256(b"content"), receipt.sha256)
        self.assertEqual({NAME: b"content"}, self.published())
        self.assertEqual(0, self.left_aside())

    def test_shapes(self) -> None:
        """Chunks of any sizes are stored in order."""
        for number, (shape, writes) in enumerate(SHAPES.items()):
            content = b"".join(b"".join(chunks) for chunks in writes)
            writer = self.writer(name=str(number))
            for chunks in writes:
                self.result(writer.write(chunks))
            receipt = self.result(writer.commit({}, overwrite=False))
            self.assertEqual(len(content), receipt.size, shape)
            self.assertEqual(sha256(content), receipt.sha256, shape)
            self.assertEqual(content, self.published()[str(number)], shape)

    def test_without_begin(self) -> None:
        """``begin`` is optional."""
        for number, (shape, writes) in enumerate(SHAPES.items()):
            content = b"".join(b"".join(chunks) for chunks in writes)
            writer = self.idle_writer(name=str(number))
            for chunks in writes:
                self.result(writer.write(chunks))
            receipt = self.result(writer.commit({}, overwrite=False))
            self.assertEqual(sha256(content), receipt.sha256, shape)
            self.assertEqual(content, self.published()[str(number)], shape)
        for overwrite, status in ((False, 405), (True, None)):
            writer = self.idle_writer(name="0")
            self.result(writer.write([b"new"]))
            if status:
                self.assert_refused(status, writer.commit({}, overwrite))
            else:
                self.result(writer.commit({}, overwrite))
            self.result(writer.abort())
        self.assertEqual(b"new", self.published()["0"])

    def test_abort_without_begin(self) -> None:
        self.result(self.idle_writer().abort())
        writer = self.idle_writer()
        self.result(writer.write([b"x"]))
        self.result(writer.abort())
        self.assertEqual({}, self.published())

    def test_nothing_before_commit(self) -> None:
        """A file that is being received does not exist yet."""
        self.written(b"content")
        self.assertEqual({}, self.published())
        self.assert_free()

    def test_name_taken(self) -> None:
        """Without overwrite, the existing file stays."""
        self.push(b"old")
        self.assert_push_refused(405)
        self.assertEqual({NAME: b"old"}, self.published())

    def test_confirm(self) -> None:
        """An existing file of that size; any other one is left as it is."""
        self.assertFalse(self.result(self.store.confirm(TOKEN, NAME, 0)))
        self.push(b"content")
        self.assertTrue(self.result(self.store.confirm(TOKEN, NAME, 7)))
        self.assertFalse(self.result(self.store.confirm(TOKEN, NAME, 8)))
        self.assertEqual({NAME: b"content"}, self.published())

    def test_overwrite(self) -> None:
        """With overwrite, the new file replaces the old one."""
        self.push(b"a file that is longer than the new one")
        receipt = self.push(b"new", overwrite=True)
        self.assertEqual(sha256(b"new"), receipt.sha256)
        self.assertEqual({NAME: b"new"}, self.published())
        self.assertEqual(0, self.left_aside())

    def test_which_is_later(self) -> None:
        """The order of receipts shows which file was later."""
        receipts = [self.push(b"x", overwrite=each) for each in (False, True, True)]
        self.assertEqual([False, True, True], [each.replaced for each in receipts])
        orders = [each.order for each in receipts]
        self.assertEqual(sorted(set(orders)), orders)

    def test_overwrite_nothing(self) -> None:
        """Overwrite does not need an existing file."""
        receipt = self.push(b"new", overwrite=True)
        self.assertFalse(receipt.replaced)
        self.assertEqual({NAME: b"new"}, self.published())
        self.assertEqual(0, self.left_aside())

    def test_digests_kept(self) -> None:
        """A file with matching digests is published."""
        for algorithm in ("sha256", "sha512"):
            digest = hashlib.new(algorithm, b"content").digest()
            writer = self.writer(algorithm, name=algorithm)
            self.result(writer.write([b"con", b"tent"]))
            receipt = self.result(writer.commit({algorithm: digest}, overwrite=False))
            self.assertEqual(sha256(b"content"), receipt.sha256)
        self.assertEqual({"sha256", "sha512"}, self.published().keys())

    def test_digests_broken(self) -> None:
        """A file with another digest is not, and replaces nothing."""
        self.push(b"old")
        right = {each: hashlib.new(each, b"new").digest() for each in ("sha256",)}
        for promised in (
            {"sha256": b"\0" * 32},
            {"sha512": b"\0" * 64},
            {"sha256": b""},
            {**right, "sha512": hashlib.sha512(b"newer").digest()},
        ):
            for overwrite in (False, True):
                writer = self.writer(*promised)
                self.result(writer.write([b"new"]))
                self.assert_refused(422, writer.commit(promised, overwrite))
                self.result(writer.abort())
                self.assertEqual({NAME: b"old"}, self.published())
                self.assertEqual(0, self.left_aside())

    def test_abort(self) -> None:
        """Abort at any time leaves nothing."""
        for writes in ([], [[b"x"]], [[b"x"] * 5000, [b"y"]]):
            writer = self.writer()
            for chunks in writes:
                self.result(writer.write(chunks))
            self.assertEqual(1, self.left_aside())
            self.result(writer.abort())
            self.assertEqual({}, self.published())
            self.assertEqual(0, self.left_aside())

    def test_abort_twice(self) -> None:
        writer = self.written(b"x")
        self.result(writer.abort())
        self.result(writer.abort())
        self.assertEqual(0, self.left_aside())

    def test_abort_after_commit(self) -> None:
        """Abort does not undo a commit."""
        writer = self.written(b"content")
        self.result(writer.commit({}, overwrite=False))
        self.result(writer.abort())
        self.assertEqual({NAME: b"content"}, self.published())
        self.assertEqual(0, self.left_aside())

    def test_taken(self) -> None:
        self.assert_free()
        self.push(b"content")
        self.assert_taken()
        self.assert_free(NAME.upper())
        self.assert_free(directory=TOKEN[::-1])

    def test_other_bucket(self) -> None:
        """The same name in another bucket is another file."""
        self.push(b"here")
        writer = self.idle_writer(directory="web01")
        self.result(writer.write([b"there"]))
        self.result(writer.commit({}, overwrite=False))
        self.assertEqual({NAME: b"here"}, self.published())

    def test_names(self) -> None:
        """Names are stored unchanged: UTF-8, spaces, dots and all."""
        names = ["größe.sql", "日本.tar", "a b", "-rf", ".hidden", "n" * 255, "\xa0"]
        for name in names:
            self.push(name.encode(), name=name)
            self.assert_taken(name)
        self.assertEqual({name: name.encode() for name in names}, self.published())

    def test_check_room(self) -> None:
        """There is space for a byte, but not for more than any disk has."""
        self.result(self.store.check_room(TOKEN, 0))
        self.result(self.store.check_room(TOKEN, 1))
        self.assert_refused(507, self.store.check_room(TOKEN, 2**64))

    def test_quota(self) -> None:
        """A folder holds no more than its quota, however pushes arrive."""
        quota = 2 * FILE_COST + 10
        self.result(push_whole(self.idle_writer(name="a", quota=quota), b"12345678"))
        for name, content, fits in (("b", b"123", False), ("b", b"12", True)):
            writer = self.idle_writer(name=name, quota=quota)
            if fits:
                self.result(push_whole(writer, content))
            else:
                self.assert_refused(507, push_whole(writer, content))
                self.result(writer.abort())
        # An empty file counts, too.
        writer = self.idle_writer(name="c", quota=quota + FILE_COST - 1)
        self.assert_refused(507, writer.begin(0, overwrite=False))
        self.result(writer.abort())
        self.result(push_whole(self.idle_writer(name="c"), b"no quota"))
        self.assertEqual({"a", "b", "c"}, set(self.published()))

    def test_quota_together(self) -> None:
        """Pushes that fit one by one but not together are refused early; unused
        reserved space is released.
        """
        quota = 2 * FILE_COST + 10
        first = self.idle_writer(name="a", quota=quota)
        self.result(first.begin(6, overwrite=False))
        second = self.idle_writer(name="b", quota=quota)
        self.assert_refused(507, second.begin(6, overwrite=False))
        self.result(second.abort())
        self.result(first.abort())
        second = self.idle_writer(name="b", quota=quota)
        self.result(second.begin(6, overwrite=False))
        self.result(second.write([b"123456"]))
        self.result(second.commit({}, overwrite=False))
        third = self.idle_writer(name="c", quota=quota)
        self.assert_refused(507, third.begin(5, overwrite=False))

    def test_quota_of_what_is_replaced(self) -> None:
        """A file counts until it is replaced."""
        quota = 2 * FILE_COST + 10

        def overwrite(size: int) -> IWriter:
            writer = self.idle_writer(quota=quota)
            self.result(writer.begin(size, overwrite=True))
            self.result(writer.write([bytes(size)]))
            self.result(writer.commit({}, overwrite=True))
            return writer

        for size in (2, 8, 0, 10, 0, 9):
            overwrite(size)
        writer = self.idle_writer(quota=quota)
        self.assert_refused(507, writer.begin(2, overwrite=True))

    def test_quota_of_unknown_length(self) -> None:
        """A file of unknown size counts as it arrives."""
        writer = self.idle_writer(quota=100_000)
        self.result(writer.begin(0, overwrite=False))

        async def write() -> None:
            for _ in range(3):
                await writer.write([bytes(50_000)])
            await writer.commit({}, overwrite=False)

        self.assert_refused(507, write())
        self.result(writer.abort())
        self.assertEqual({}, self.published())

    def test_one_wins(self) -> None:
        """Of several pushes of one name, the first to commit wins."""
        writers = [self.written(b"%d" % number) for number in range(3)]
        self.assertEqual(3, self.left_aside())
        receipt = self.result(writers[1].commit({}, overwrite=False))
        self.assertEqual(sha256(b"1"), receipt.sha256)
        for loser in (writers[0], writers[2]):
            self.assert_refused(405, loser.commit({}, overwrite=False))
            self.result(loser.abort())
        self.assertEqual({NAME: b"1"}, self.published())
        self.assertEqual(0, self.left_aside())
