"""Tests that every store passes, including the fake one. A back end's test case
inherits :class:`StoreContract`, and from :class:`StoreCase` the means to look into its
store; for its resumable uploads :class:`PartsContract` and :class:`PartsCase`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import traceback
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.model.bucket import FILE_COST
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store.interfaces import (
    IParts,
    IPartWriter,
    IStore,
    IWriter,
    LostError,
    Receipt,
)

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
    no_room = 507
    """Status of the refusal of a file that is too large for any disk."""
    longest_name = 255
    """In bytes."""

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
        return self.successResultOf(self.made(wait))

    def made(self, wait: Awaitable[T]) -> Deferred[T]:
        """Whatever ``wait`` waits for happens at once."""
        return Deferred.fromCoroutine(wait_for(wait))

    def assert_refused(self, status: int, wait: Awaitable[object]) -> Refusal:
        """Refused, and no path in the reason."""
        failure = self.failureResultOf(self.made(wait), Refusal)
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

    def assert_path(self, receipt: Receipt) -> None:
        """The receipt of a file with the usual name has its path."""
        self.assertTrue(os.path.isabs(receipt.path))
        self.assertEqual([TOKEN, NAME], receipt.path.split("/")[-2:])
        self.assertEqual("", receipt.url)

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
        self.assert_path(receipt)
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
        content = sha256(b"content")
        self.assertIsNone(self.result(self.store.recorded(TOKEN, NAME)))
        self.assertFalse(self.result(self.store.confirm(TOKEN, NAME, 0, content)))
        self.push(b"content")
        self.assertTrue(self.result(self.store.confirm(TOKEN, NAME, 7, content)))
        self.assertFalse(self.result(self.store.confirm(TOKEN, NAME, 8, content)))
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
        names = ["größe.sql", "日本.tar", "a b", "-rf", ".hidden", "\xa0"]
        names.append("n" * self.longest_name)
        for name in names:
            self.push(name.encode(), name=name)
            self.assert_taken(name)
        self.assertEqual({name: name.encode() for name in names}, self.published())

    def test_check_room(self) -> None:
        """There is space for a byte, but not for more than any disk has."""
        self.result(self.store.check_room(TOKEN, 0))
        self.result(self.store.check_room(TOKEN, 1))
        self.assert_refused(self.no_room, self.store.check_room(TOKEN, 2**64))

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


class PartsCase(StoreCase):
    """Has resumable uploads to its store, and can look at them."""

    parts: IParts

    def setUp(self) -> None:
        super().setUp()
        self._ids = itertools.count(1)

    def restart(self) -> list[Unfinished]:
        """The uploads that a new daemon finds, which counts them. Writers of the old
        one are gone, as after a kill.
        """
        raise NotImplementedError

    def received(self) -> dict[str, bytes]:
        """The data of each upload that has some, by id."""
        raise NotImplementedError

    def recorded(self) -> set[str]:
        """The ids of the uploads that have a record."""
        raise NotImplementedError

    def spoil(self, upload: Unfinished, data: bytes) -> None:
        """Change its data behind the daemon's back."""
        raise NotImplementedError

    def assert_nothing_of(self, upload: Unfinished) -> None:
        self.assertNotIn(upload.id, self.received())
        self.assertNotIn(upload.id, self.recorded())

    def directory_of(self, key: str) -> str | None:
        return TOKEN if key == "bucket" else None

    def loaded(self) -> list[Unfinished]:
        """Load, count what is found, and record what has ended all the same."""
        found = self.parts.load(self.directory_of)
        for upload in list(found):
            self.parts.count(TOKEN, upload)
            finished = self.result(self.parts.ended(TOKEN, upload))
            if finished is not None:
                ended = evolve(upload, finished=finished)
                self.result(self.parts.finish(TOKEN, ended))
                found.remove(upload)
        return found

    def new(self, name: str = NAME, **other: Any) -> Unfinished:
        """An upload of which nothing is stored yet."""
        return Unfinished(
            id=f"{next(self._ids):032x}",
            bucket="bucket",
            token="ab" * 32,
            name=name,
            request="0a1b",
            created_at=100.0,
            touched_at=100.0,
            sha256="",
            **other,
        )

    def part_writer(
        self, upload: Unfinished, hashes: Hashes | None = None, quota: int | None = None
    ) -> IPartWriter:
        """A writer that has not begun; aborted at the end of the test."""
        if hashes is None:
            hashes = Hashes({"sha256", *upload.promised})
            if upload.offset:
                hashes = self.read_again(upload)
        writer = self.parts.open(TOKEN, upload, hashes, quota)
        self.writers.append(writer)
        return writer

    def read_again(self, upload: Unfinished) -> Hashes:
        """The digests of an upload, as it is on the disk."""
        offset, hashes = 0, Hashes({"sha256", *upload.promised})
        while offset < upload.offset:
            piece = self.parts.read(upload, offset)
            hashes.update([piece])
            offset += len(piece)
        return hashes

    def begun(
        self, upload: Unfinished, size: int = 0, quota: int | None = None
    ) -> IPartWriter:
        writer = self.part_writer(upload, quota=quota)
        self.result(writer.begin(size, overwrite=True))
        return writer

    def kept(self, writer: IPartWriter, upload: Unfinished, size: int) -> Unfinished:
        """The upload after ``size`` more bytes, not recorded yet."""
        hashes = self.result(writer.keep())
        sha256 = hashes.hexdigest("sha256")
        return evolve(upload, offset=upload.offset + size, sha256=sha256)

    def append(
        self, upload: Unfinished, *chunks: bytes, quota: int | None = None
    ) -> Unfinished:
        """Append in one request, or create the upload with this content."""
        size = sum(map(len, chunks))
        writer = self.begun(upload, size, quota)
        self.result(writer.write(list(chunks)))
        upload = self.kept(writer, upload, size)
        self.result(self.parts.record(TOKEN, upload))
        self.result(writer.abort())
        self.parts.count(TOKEN, upload)
        return upload

    def commit(
        self, upload: Unfinished, *chunks: bytes, overwrite: bool = False
    ) -> Receipt:
        """Append what is left, and publish."""
        writer = self.begun(upload)
        self.result(writer.write(list(chunks)))
        return self.result(writer.commit(upload.digests(), overwrite))

    def finish(self, upload: Unfinished, receipt: Receipt) -> Unfinished:
        finished = Finished(receipt.size, receipt.sha256)
        upload = evolve(upload, finished=finished)
        self.result(self.parts.finish(TOKEN, upload))
        return upload

    def assert_quota_left(self, quota: int, size: int) -> None:
        """Of the bucket's quota, a file of this size is left, and no more."""
        for more in (1, 0):
            writer = self.idle_writer(name="probe", quota=quota)
            begin = writer.begin(size + more, overwrite=True)
            if more:
                self.assert_refused(507, begin)
            else:
                self.result(begin)
            self.result(writer.abort())


if TYPE_CHECKING:
    AnyParts = PartsCase
else:
    AnyParts = object


class PartsContract(AnyParts):
    """How every store keeps resumable uploads."""

    def test_interfaces(self) -> None:
        verifyObject(IParts, self.parts)
        verifyObject(IPartWriter, self.part_writer(self.new()))

    def test_open_touches_nothing(self) -> None:
        self.part_writer(self.new())
        self.assertEqual({}, self.received())
        self.assertEqual(set(), self.recorded())

    def test_create(self) -> None:
        """An upload exists from its record on, and its file does not."""
        upload = self.append(self.new(length=7, metadata="filename ZGI=", promised={}))
        self.assertEqual({upload.id: b""}, self.received())
        self.assertEqual({}, self.published())
        self.assert_free()
        self.assertEqual([upload], self.restart())

    def test_everything_is_recorded(self) -> None:
        """A restart loses nothing of what is known about an upload."""
        upload = self.append(
            self.new(
                "gr\xf6\xdfe \u65e5.sql",
                length=7,
                told=7,
                pre_push=3,
                overwrite=True,
                promised={"sha512": "00" * 64},
                metadata="filename ZGI=,b c",
                seconds=1.25,
            ),
            b"abc",
        )
        self.assertEqual([upload], self.restart())

    def test_parts(self) -> None:
        """Parts of any shape follow each other, through restarts."""
        for shape, writes in SHAPES.items():
            content = b"".join(b"".join(chunks) for chunks in writes)
            upload = self.append(self.new(name=shape), b"first")
            for number in range(3):
                writer = self.begun(upload)
                for chunks in writes:
                    self.result(writer.write([bytes(chunk) for chunk in chunks]))
                upload = self.kept(writer, upload, len(content))
                self.result(self.parts.record(TOKEN, upload))
                self.result(writer.abort())
                if number == 1:
                    self.assertEqual([upload], self.restart(), shape)
            whole = b"first" + content * 3
            self.assertEqual(whole, self.received()[upload.id], shape)
            self.assertEqual(sha256(whole), upload.sha256, shape)
            receipt = self.commit(upload, b"last")
            self.assertEqual(len(whole) + 4, receipt.size, shape)
            self.assertEqual(sha256(whole + b"last"), receipt.sha256, shape)
            self.assertEqual(whole + b"last", self.published()[shape], shape)
            self.finish(upload, receipt)

    def test_without_begin(self) -> None:
        """``begin`` is optional, also to keep."""
        upload = self.new()
        writer = self.part_writer(upload)
        upload = self.kept(writer, upload, 0)
        self.result(self.parts.record(TOKEN, upload))
        self.result(writer.abort())
        writer = self.part_writer(upload)
        self.result(writer.write([b"abc"]))
        upload = self.kept(writer, upload, 3)
        self.result(self.parts.record(TOKEN, upload))
        self.result(writer.abort())
        self.result(self.part_writer(upload).abort())
        writer = self.part_writer(upload)
        receipt = self.result(writer.commit({}, overwrite=False))
        self.assertEqual(sha256(b"abc"), receipt.sha256)
        self.assertEqual({NAME: b"abc"}, self.published())

    def test_keep_again(self) -> None:
        """Within one request, as often as the caller likes."""
        upload = self.append(self.new())
        writer = self.begun(upload)
        for number in range(1, 4):
            self.result(writer.write([b"ab"]))
            for _ in range(2):
                hashes = self.result(writer.keep())
                self.assertEqual(sha256(b"ab" * number), hashes.hexdigest("sha256"))
                self.assertEqual(b"ab" * number, self.received()[upload.id])

    def test_digests_are_a_copy(self) -> None:
        """Those of a keep do not change with the next write."""
        writer = self.begun(self.append(self.new()))
        self.result(writer.write([b"ab"]))
        hashes = self.result(writer.keep())
        self.result(writer.write([b"cd"]))
        self.result(writer.keep())
        self.assertEqual(sha256(b"ab"), hashes.hexdigest("sha256"))

    def test_abort_cuts_off(self) -> None:
        """Bytes that were not kept are gone; the others stay."""
        upload = self.append(self.new(), b"first")
        writer = self.begun(upload)
        self.result(writer.write([b"second"]))
        upload = self.kept(writer, upload, 6)
        self.result(self.parts.record(TOKEN, upload))
        self.result(writer.write([b"third"] * 10_000))
        self.result(writer.abort())
        self.result(writer.abort())
        self.assertEqual({upload.id: b"firstsecond"}, self.received())
        upload = self.append(upload, b"third")
        self.assertEqual({upload.id: b"firstsecondthird"}, self.received())
        self.assertEqual(sha256(b"firstsecondthird"), upload.sha256)

    def test_commit(self) -> None:
        """The end: it is published, its record says so, and its data is one file."""
        upload = self.append(self.new(), b"con")
        receipt = self.commit(upload, b"tent")
        self.assert_path(receipt)
        self.assertEqual((7, sha256(b"content")), (receipt.size, receipt.sha256))
        self.assertFalse(receipt.replaced)
        self.assertEqual({NAME: b"content"}, self.published())
        ended = self.finish(upload, receipt)
        self.assertEqual({}, self.received())
        self.assertEqual(ended, self.result(self.parts.find(TOKEN, upload.id)))
        self.assertEqual([], self.restart())
        self.assertEqual(ended, self.result(self.parts.find(TOKEN, upload.id)))
        self.assertEqual({NAME: b"content"}, self.published())

    def test_end_of_a_repeat(self) -> None:
        """If its file was stored already, nothing of it takes room any more."""
        quota = 3 * FILE_COST + 100
        self.push(b"content")
        upload = self.append(self.new(), b"content", quota=quota)
        self.assert_quota_left(quota, 86)
        self.finish(upload, Receipt("", 7, upload.sha256, 0, False))
        self.assert_quota_left(quota, 93 + FILE_COST)
        self.assertEqual({}, self.received())

    def test_abort_after_commit(self) -> None:
        """Abort does not undo a commit."""
        upload = self.append(self.new(), b"con")
        writer = self.begun(upload)
        self.result(writer.write([b"tent"]))
        self.result(writer.commit({}, overwrite=False))
        self.result(writer.abort())
        self.assertEqual({NAME: b"content"}, self.published())

    def prepared(
        self, upload: Unfinished, overwrite: bool = False, **promised: str
    ) -> IPartWriter:
        """A writer that did what takes long."""
        writer = self.begun(upload)
        digests = {name: bytes.fromhex(each) for name, each in promised.items()}
        self.result(writer.prepare(digests, overwrite))
        return writer

    def test_prepare(self) -> None:
        """That publishes nothing yet; a later writer goes on from there."""
        upload = self.append(self.new(), b"con")
        upload = self.append(upload, b"tent")
        for _ in range(2):
            self.result(self.prepared(upload, sha256=upload.sha256).abort())
            self.assertEqual({}, self.published())
            self.assertEqual({upload.id: b"content"}, self.received())
            self.assertEqual([upload], self.restart())
        writer = self.prepared(upload)
        receipt = self.result(writer.commit({}, overwrite=False))
        self.assertEqual((7, upload.sha256), (receipt.size, receipt.sha256))
        self.assertEqual({NAME: b"content"}, self.published())
        self.finish(upload, receipt)

    def test_prepare_and_remove(self) -> None:
        upload = self.append(self.new(), b"content")
        self.result(self.prepared(upload).abort())
        self.result(self.parts.remove(TOKEN, upload))
        self.assert_nothing_of(upload)
        self.assertEqual({}, self.published())

    def test_prepare_and_taken(self) -> None:
        """The name may be taken by the time of the end."""
        upload = self.append(self.new(), b"content")
        writer = self.prepared(upload)
        self.push(b"old")
        self.assert_refused(405, writer.commit({}, overwrite=False))
        self.assertEqual({NAME: b"old"}, self.published())
        self.result(writer.commit({}, overwrite=True))
        self.assertEqual({NAME: b"content"}, self.published())

    def test_prepare_and_wrong(self) -> None:
        """A digest that is sent late is compared, too."""
        upload = self.append(self.new(), b"content")
        writer = self.prepared(upload)
        wrong = {"sha256": bytes(32)}
        self.assert_refused(422, writer.commit(wrong, overwrite=False))
        self.assertEqual({}, self.published())

    def test_digests(self) -> None:
        """They cover the whole file, however many parts it has."""
        digest = hashlib.sha512(b"content").hexdigest()
        upload = self.append(self.new(promised={"sha512": digest}), b"con")
        self.assertEqual([upload], self.restart())
        self.commit(self.append(upload, b"te"), b"nt")
        self.assertEqual({NAME: b"content"}, self.published())

    def test_wrong_digest(self) -> None:
        """Then it is not published, and replaces nothing; what was kept stays until it
        is removed.
        """
        self.push(b"old")
        upload = self.append(self.new(promised={"sha256": "00" * 32}), b"con")
        for overwrite in (False, True):
            writer = self.begun(upload)
            self.result(writer.write([b"tent"]))
            upload_whole = self.kept(writer, upload, 4)
            self.result(self.parts.record(TOKEN, upload_whole))
            commit = writer.commit(upload.digests(), overwrite)
            self.assert_refused(422, commit)
            self.result(writer.abort())
            upload = upload_whole
            self.assertEqual({NAME: b"old"}, self.published())
            self.assertEqual({upload.id: upload_data(upload)}, self.received())
            self.assertEqual([upload], self.restart())
            upload = self.cut(upload, 3)
        self.result(self.parts.remove(TOKEN, upload))
        self.assert_nothing_of(upload)

    def cut(self, upload: Unfinished, size: int) -> Unfinished:
        """A new upload, with the first bytes of another one."""
        content = self.received()[upload.id][:size]
        self.result(self.parts.remove(TOKEN, upload))
        return self.append(self.new(promised=upload.promised), content)

    def test_name_taken(self) -> None:
        """A file that came first stays, and so does the upload; then the same writer
        may replace it.
        """
        upload = self.append(self.new(), b"new")
        self.push(b"old")
        writer = self.begun(upload)
        for _ in range(2):
            self.assert_refused(405, writer.commit({}, overwrite=False))
            self.assertEqual({NAME: b"old"}, self.published())
            self.assertEqual({upload.id: b"new"}, self.received())
        self.assertTrue(self.result(writer.commit({}, overwrite=True)).replaced)
        self.assertEqual({NAME: b"new"}, self.published())

    def test_name_taken_at_the_beginning(self) -> None:
        """If it is asked for."""
        self.push(b"old")
        writer = self.part_writer(self.new())
        self.assert_refused(405, writer.begin(0, overwrite=False))
        self.result(writer.abort())
        self.assertEqual({}, self.received())

    def test_not_doubled_by_a_second_commit(self) -> None:
        """Bytes that were not kept before the first one are in the file once."""
        upload = self.append(self.new(), b"n")
        self.push(b"old")
        writer = self.begun(upload)
        self.result(writer.write([b"ew"]))
        self.assert_refused(405, writer.commit({}, overwrite=False))
        self.result(writer.commit({}, overwrite=True))
        self.assertEqual({NAME: b"new"}, self.published())

    def test_overwrite(self) -> None:
        self.push(b"a file that is longer than the new one")
        upload = self.append(self.new(), b"n")
        receipt = self.commit(upload, b"ew", overwrite=True)
        self.assertTrue(receipt.replaced)
        self.assertEqual({NAME: b"new"}, self.published())
        self.finish(upload, receipt)
        self.assertEqual({}, self.received())
        other = self.append(self.new("other"), b"x")
        self.assertFalse(self.commit(other, overwrite=True).replaced)

    def test_which_is_later(self) -> None:
        """The order of receipts shows which file was later, of uploads and pushes."""
        receipts = []
        for number in range(4):
            if number % 2:
                receipts.append(self.push(b"x", overwrite=True))
            else:
                upload = self.append(self.new(), b"x")
                receipts.append(self.commit(upload, overwrite=True))
        orders = [each.order for each in receipts]
        self.assertEqual(sorted(set(orders)), orders)

    def test_one_wins(self) -> None:
        """Of several uploads of one name and a push, the first to commit wins."""
        uploads = [self.append(self.new(), b"%d" % number) for number in range(3)]
        writers = [self.begun(upload) for upload in uploads]
        push = self.written(b"push")
        self.result(writers[1].commit({}, overwrite=False))
        for loser in (writers[0], writers[2], push):
            self.assert_refused(405, loser.commit({}, overwrite=False))
            self.result(loser.abort())
        self.assertEqual({NAME: b"1"}, self.published())

    def test_published_is_closed(self) -> None:
        """A file that is published cannot be appended to, recorded or not."""
        upload = self.append(self.new(), b"content")
        self.commit(upload)
        writer = self.part_writer(upload, Hashes({"sha256"}))
        self.assert_refused(503, writer.begin(0, overwrite=True))
        self.result(writer.abort())
        self.assertEqual({NAME: b"content"}, self.published())

    def test_find(self) -> None:
        """Only uploads that have ended, and only by an id."""
        upload = self.append(self.new(), b"content")
        for identity in (upload.id, "0" * 32, "", "..", "a/b", "\0", "x" * 300, "\xe4"):
            self.assertIsNone(self.result(self.parts.find(TOKEN, identity)))
        ended = self.finish(upload, self.commit(upload))
        self.assertEqual(ended, self.result(self.parts.find(TOKEN, upload.id)))

    def test_remove(self) -> None:
        """At any time, more than once, and nothing else."""
        other = self.append(self.new("other"), b"other")
        unrecorded = self.new()
        self.result(self.begun(unrecorded).abort())
        for upload in (
            self.new(),
            unrecorded,
            self.append(self.new()),
            self.append(self.new(), b"content"),
        ):
            for _ in range(2):
                self.result(self.parts.remove(TOKEN, upload))
                self.assert_nothing_of(upload)
        self.assertEqual([other], self.restart())
        self.assertEqual({other.id: b"other"}, self.received())

    def test_remove_what_has_ended(self) -> None:
        """The file stays."""
        upload = self.append(self.new(), b"content")
        ended = self.finish(upload, self.commit(upload))
        self.result(self.parts.remove(TOKEN, ended))
        self.assert_nothing_of(upload)
        self.assertEqual({NAME: b"content"}, self.published())

    def test_read(self) -> None:
        """Its bytes up to the offset, in pieces; the digests can be continued."""
        digest = hashlib.sha512(b"content").hexdigest()
        upload = self.append(self.new(promised={"sha512": digest}), b"con")
        self.spoil(upload, b"content")
        self.assertEqual(b"n", self.parts.read(upload, 2))
        hashes = self.read_again(upload)
        self.assertEqual(sha256(b"con"), hashes.hexdigest("sha256"))
        hashes.update([b"tent"])
        self.assertEqual(digest, hashes.hexdigest("sha512"))

    def test_lost(self) -> None:
        """Less data than was recorded, or none."""
        upload = self.append(self.new(), b"content")
        for data in (b"conten", b""):
            self.spoil(upload, data)
            self.assertRaises(LostError, self.read_again, upload)
        self.result(self.parts.remove(TOKEN, upload))
        self.assertRaises(LostError, self.read_again, upload)

    def assert_lost(self, writer: IPartWriter) -> None:
        beginning = writer.begin(0, overwrite=True)
        self.failureResultOf(Deferred.fromCoroutine(wait_for(beginning)), LostError)

    def test_lost_meanwhile(self) -> None:
        """Less data than was recorded is not continued, and stays as it is."""
        upload = self.append(self.new(), b"content")
        for data in (b"conten", b""):
            writer = self.part_writer(upload)
            self.spoil(upload, data)
            self.assert_lost(writer)
            self.result(writer.abort())
            self.assertEqual(data, self.received()[upload.id])
            self.spoil(upload, b"content")
        self.append(upload, b"!")

    def test_sweep(self) -> None:
        """Old records of ends go; uploads that go on and files stay."""
        going_on = self.append(self.new("other"), b"abc")
        upload = self.append(self.new(), b"content")
        ended = self.finish(upload, self.commit(upload))
        self.result(self.parts.sweep(0.0))
        self.assertEqual(ended, self.result(self.parts.find(TOKEN, upload.id)))
        self.result(self.parts.sweep(2.0**33))
        self.assertIsNone(self.result(self.parts.find(TOKEN, upload.id)))
        self.assert_nothing_of(upload)
        self.assertEqual({NAME: b"content"}, self.published())
        self.assertEqual([going_on], self.restart())

    # Crashes

    def test_crash_before_the_record(self) -> None:
        """Of an upload that was never told, nothing is left."""
        for size in (0, 100_000):
            upload = self.new()
            writer = self.begun(upload)
            self.result(writer.write([bytes(size)]))
            self.result(writer.keep())
            self.assertEqual([], self.restart())
            self.assert_nothing_of(upload)

    def test_crash_in_a_part(self) -> None:
        """Recorded bytes stay, and the others are cut off."""
        upload = self.append(self.new(), b"first")
        writer = self.begun(upload)
        self.result(writer.write([b"second"] * 10_000))
        self.result(writer.keep())
        self.result(writer.write([b"third"]))
        self.assertEqual([upload], self.restart())
        upload = self.append(upload, b", then another")
        self.assertEqual({upload.id: b"first, then another"}, self.received())
        self.assertEqual(sha256(b"first, then another"), upload.sha256)

    def test_crash_after_the_end(self) -> None:
        """A file that was published, but not recorded as that, counts as finished."""
        for overwrite in (False, True):
            upload = self.append(self.new(f"{overwrite}"), b"content")
            if overwrite:
                self.push(b"old", name="True")
            self.commit(upload, overwrite=overwrite)
            self.assertEqual([], self.restart())
            self.assertEqual({}, self.received())
            ended = evolve(upload, finished=Finished(7, sha256(b"content")))
            self.assertEqual(ended, self.result(self.parts.find(TOKEN, upload.id)))
            self.assertEqual(b"content", self.published()[f"{overwrite}"])
            self.assertEqual([], self.restart())

    def test_crash_with_less_data(self) -> None:
        """An upload whose data is gone is not offered any more."""
        other = self.append(self.new("other"), b"other")
        upload = self.append(self.new(), b"content")
        self.spoil(upload, b"conten")
        self.assertEqual([other], self.restart())
        self.assert_nothing_of(upload)

    # Quotas

    def test_quota(self) -> None:
        """An upload takes what is durable of it, and as much as a file of its size in
        the end.
        """
        quota = 2 * FILE_COST + 100
        self.assert_quota_left(quota, 100 + FILE_COST)
        upload = self.append(self.new(length=30), quota=quota)
        self.assert_quota_left(quota, 100)
        for size in (90, 80):
            upload = self.append(upload, bytes(10), quota=quota)
            self.assert_quota_left(quota, size)
        self.assertEqual([upload], self.restart())
        self.assert_quota_left(quota, 80)
        writer = self.begun(upload, 10, quota)
        self.assert_quota_left(quota, 70)
        self.result(writer.write([bytes(10)]))
        self.assert_quota_left(quota, 70)
        receipt = self.result(writer.commit({}, overwrite=False))
        self.assert_quota_left(quota, 70)
        self.finish(upload, receipt)
        self.assert_quota_left(quota, 70)
        self.assertEqual([], self.restart())
        self.assert_quota_left(quota, 70)

    def test_quota_to_the_last_byte(self) -> None:
        """A file that fits in one push fits in parts, and no byte more."""
        quota = FILE_COST + 10
        upload = self.append(self.new(), quota=quota)
        upload = self.append(upload, b"12345", quota=quota)
        writer = self.part_writer(upload, quota=quota)
        self.assert_refused(507, writer.begin(6, overwrite=False))
        self.result(writer.abort())
        upload = self.append(upload, b"67890", quota=quota)
        writer = self.begun(upload, quota=quota)

        async def one_more() -> None:
            await writer.write([b"x"])
            await writer.keep()

        self.assert_refused(507, one_more())
        self.result(writer.abort())
        self.commit(upload)
        self.assertEqual({NAME: b"1234567890"}, self.published())

    def test_quota_of_what_goes(self) -> None:
        """Bytes that are cut off or removed do not count."""
        quota = 2 * FILE_COST + 100
        upload = self.append(self.new(), bytes(10), quota=quota)
        writer = self.begun(upload, quota=quota)
        self.result(writer.write([bytes(20)]))
        self.assert_quota_left(quota, 70)
        self.result(writer.abort())
        self.assert_quota_left(quota, 90)
        for _ in range(2):
            self.result(self.parts.remove(TOKEN, upload))
            self.assert_quota_left(quota, 100 + FILE_COST)

    def test_quota_of_a_creation_that_failed(self) -> None:
        quota = FILE_COST + 100
        upload = self.new()
        writer = self.begun(upload, 50, quota)
        self.assert_refused(507, self.idle_writer(quota=quota).begin(0, True))
        self.result(writer.write([bytes(50)]))
        self.result(writer.keep())
        self.result(writer.abort())
        self.result(self.parts.remove(TOKEN, upload))
        self.assert_quota_left(quota, 100)

    def test_quota_is_not_counted_twice(self) -> None:
        """Bytes that were kept but could not be recorded are sent again."""
        quota = 2 * FILE_COST + 100
        upload = self.append(self.new(), bytes(10), quota=quota)
        for _ in range(3):
            writer = self.begun(upload, quota=quota)
            self.result(writer.write([bytes(20)]))
            self.result(writer.keep())
            self.result(writer.abort())
        upload = self.append(upload, bytes(20), quota=quota)
        self.assert_quota_left(quota, 70)
        self.commit(upload)
        self.assert_quota_left(quota, 70)

    def test_quota_of_what_is_replaced(self) -> None:
        quota = 2 * FILE_COST + 100
        writer = self.idle_writer(quota=quota)
        self.result(push_whole(writer, bytes(40)))
        upload = self.append(self.new(), bytes(30), quota=quota)
        writer = self.begun(upload, quota=quota)
        self.result(writer.commit({}, overwrite=True))
        self.assert_quota_left(quota, 70)


def upload_data(upload: Unfinished) -> bytes:
    """The content of the uploads in :meth:`PartsContract.test_wrong_digest`."""
    return b"content"[: upload.offset]
