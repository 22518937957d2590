"""Tests of :mod:`filebucket.store.s3.transfer`."""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from filebucket.store.interfaces import LostError
from filebucket.store.s3 import transfer as module
from filebucket.store.s3.interfaces import (
    DeniedError,
    IBody,
    IObjects,
    NotThereError,
    ObjectError,
    Part,
    UnsureError,
)
from filebucket.store.s3.multipart import LOOK
from filebucket.store.s3.publish import SETTLE
from filebucket.store.s3.sweep import LEAST_GRACE, SETTLED
from filebucket.store.s3.transfer import FRESH, MOST_AGE, Transfer
from filebucket.test.kit.fakes import at_once

T = TypeVar("T")

CONTENT = b"abcdefghijk"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
UNSURE = UnsureError("no answer")
NO_SUCH = DeniedError("no such upload", "NoSuchUpload")


@implementer(IObjects)
class Objects:
    """An object store in a dict.

    :ivar objects: the objects, by key
    :ivar uploads: the parts of multipart uploads that go on, by id and number
    :ivar calls: names of the calls
    :ivar before: errors of the next calls by name, which have no effect
    :ivar after: the same, but they have
    :ivar gates: what the next calls wait for, by name
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.calls: list[str] = []
        self.before: dict[str, list[Exception | None]] = {}
        self.after: dict[str, list[Exception | None]] = {}
        self.gates: dict[str, list[Deferred[None]]] = {}

    async def _enter(self, name: str) -> None:
        self.calls.append(name)
        if self.gates.get(name):
            await self.gates[name].pop(0)
        self._fail(self.before, name)

    def _fail(self, errors: dict[str, list[Exception | None]], name: str) -> None:
        error = errors[name].pop(0) if errors.get(name) else None
        if error is not None:
            raise error

    async def put(self, key: str, body: IBody, only_new: bool = False) -> None:
        await self._enter("put")
        self.objects[key] = await content_of(body)
        self._fail(self.after, "put")

    async def get(self, key: str, most: int) -> bytes:
        raise NotImplementedError

    async def size(self, key: str) -> int:
        await self._enter("size")
        if key not in self.objects:
            raise NotThereError("no such object")
        return len(self.objects[key])

    async def begin(self, key: str) -> str:
        await self._enter("begin")
        identity = f"{key} {len(self.calls)}"
        self.uploads[identity] = {}
        self._fail(self.after, "begin")
        return identity

    async def part(self, key: str, upload: str, number: int, body: IBody) -> Part:
        await self._enter("part")
        if upload not in self.uploads:
            raise NO_SUCH
        content = await content_of(body)
        self.uploads[upload][number] = content
        self._fail(self.after, "part")
        return Part(number, sha256(content).hex(), body.size, body.sha256)

    async def complete(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        await self._enter("complete")
        found = self.uploads.pop(upload, None)
        if found is None:
            raise NO_SUCH
        assert [each.number for each in parts] == sorted(found)
        for each in parts:
            assert each.etag == sha256(found[each.number]).hex()
        self.objects[key] = b"".join(found[number] for number in sorted(found))
        self._fail(self.after, "complete")

    async def abandon(self, key: str, upload: str) -> None:
        await self._enter("abandon")
        del self.uploads[upload]

    async def sizes(self, prefix: str, after: str = "") -> tuple[int, int, str]:
        raise NotImplementedError


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


async def content_of(body: IBody) -> bytes:
    """Its content, read in pieces of two bytes; its size and digest are right."""
    content = b""
    while len(content) < body.size:
        content += await body.read(len(content), 2)
    assert (len(content), sha256(content)) == (body.size, body.sha256)
    return content


class TransferCase(SynchronousTestCase):
    """Has data, and a store with parts of three bytes.

    :ivar content: the data in the home
    :ivar failure: raised by each read, while it is set
    """

    def setUp(self) -> None:
        self.content = CONTENT
        self.failure: Exception | None = None
        self.clock = Clock()
        self.objects = Objects()
        self.ids = 0
        self.transfer = self.make()

    def make(self) -> Transfer:
        return Transfer(
            self.objects,
            self.new_id,
            lambda identity: f"data/{identity}",
            self.read,
            at_once,
            self.clock,
            lambda before: 3 if before < 9 else 6,
        )

    def new_id(self) -> str:
        self.ids += 1
        return str(self.ids)

    def read(self, offset: int, most: int) -> bytes:
        if self.failure is not None:
            raise self.failure
        piece = self.content[offset : offset + most]
        if not piece:
            raise LostError
        return piece

    def begin(self, work: Awaitable[T]) -> Deferred[T]:
        async def wait() -> T:
            return await work

        return Deferred.fromCoroutine(wait())

    def result(self, work: Awaitable[T]) -> T:
        return self.successResultOf(self.begin(work))

    def fails(self, work: Awaitable[object], kind: type[Exception]) -> Exception:
        """It fails, after all tries."""
        done = self.begin(work)
        self.clock.pump([1.0] * 70)
        error: Exception = self.failureResultOf(done, kind).value
        return error

    def finish(self, size: int | None = None) -> str:
        return self.result(self.finishing(size))

    def finishing(self, size: int | None = None) -> Awaitable[str]:
        size = len(CONTENT) if size is None else size
        return self.transfer.finish(size, sha256(CONTENT[:size]).hex())

    def assert_stored(self, identity: str, *others: str) -> None:
        """Whole, once, and nothing else."""
        keys = {f"data/{each}" for each in (identity, *others)}
        self.assertEqual(keys, self.objects.objects.keys())
        self.assertEqual(CONTENT, self.objects.objects[f"data/{identity}"])

    def count(self, name: str) -> int:
        return self.objects.calls.count(name)


class TransferTests(TransferCase):
    """Data that is sent, early or at the end."""

    def test_interfaces(self) -> None:
        verifyObject(IObjects, self.objects)
        self.result(self.transfer.advance(9))
        verifyObject(IBody, self.transfer._ranges[0])

    def test_sizes(self) -> None:
        """Files of any size, around a number of parts."""
        for size in range(len(CONTENT) + 1):
            self.objects, self.ids = Objects(), 0
            self.transfer = self.make()
            self.assertEqual("1", self.finish(size))
            self.assertEqual({"data/1": CONTENT[:size]}, self.objects.objects)
            self.assertEqual({}, self.objects.uploads)
            self.assertEqual(int(size <= 3), self.count("put"))
            parts = 0 if size <= 3 else -(-min(size, 10) // 3)
            self.assertEqual(parts, self.count("part"))
            self.assertEqual(1, self.count("size"))

    def test_early(self) -> None:
        """Whole parts are sent when they are durable, and only the rest at the end."""
        for offset, parts in (0, 0), (3, 0), (4, 1), (5, 1), (9, 3), (9, 3), (10, 3):
            self.result(self.transfer.advance(offset))
            self.assertEqual(parts, self.count("part"), offset)
        self.objects.calls.clear()
        self.assert_stored(self.finish())
        self.assertEqual(["part", "complete", "size"], self.objects.calls)

    def test_early_without_a_rest(self) -> None:
        self.result(self.transfer.advance(9))
        self.assertEqual("1", self.finish(9))
        self.assertEqual(3, self.count("part"))
        self.assertEqual({"data/1": CONTENT[:9]}, self.objects.objects)

    def test_once(self) -> None:
        """Nothing is sent twice."""
        identity = self.finish()
        self.objects.calls.clear()
        self.assertEqual(identity, self.finish())
        self.result(self.transfer.advance(len(CONTENT)))
        self.assertEqual([], self.objects.calls)

    def test_hashed_in_pieces(self) -> None:
        self.patch(module, "PIECE", 2)
        self.assert_stored(self.finish())

    def test_at_once(self) -> None:
        """Some parts are sent at once, and the end waits for the early ones."""
        self.patch(module, "AT_ONCE", 3)
        gates: list[Deferred[None]] = [Deferred() for _ in range(4)]
        self.objects.gates["part"] = list(gates)
        early = self.begin(self.transfer.advance(9))
        self.assertEqual(3, self.count("part"))
        done = self.begin(self.finishing())
        for gate in gates[2::-1]:
            self.assertNoResult(early)
            gate.callback(None)
        self.successResultOf(early)
        self.assertNoResult(done)
        gates[3].callback(None)
        self.assert_stored(self.successResultOf(done))
        self.assertEqual(4, self.count("part"))

    def test_abandon(self) -> None:
        """The parts are deleted as far as possible, and no more are sent."""
        self.result(self.transfer.abandon())
        self.transfer = self.make()
        self.result(self.transfer.advance(6))
        for _ in range(2):
            self.result(self.transfer.abandon())
            self.result(self.transfer.advance(9))
            self.assertEqual(({}, 2), (self.objects.uploads, self.count("part")))
        self.assertEqual(1, self.count("abandon"))

    def test_abandon_in_vain(self) -> None:
        """Then it is swept."""
        self.result(self.transfer.advance(6))
        self.objects.before["abandon"] = [UNSURE]
        self.result(self.transfer.abandon())
        self.assertEqual(1, len(self.objects.uploads))

    def test_abandon_what_is_whole(self) -> None:
        """A multipart upload that was completed is left alone."""
        self.finish()
        self.result(self.transfer.abandon())
        self.assertEqual(0, self.count("abandon"))

    def test_abandon_waits(self) -> None:
        """A part on its way would come back to life."""
        gate: Deferred[None] = Deferred()
        self.objects.gates["part"] = [gate]
        early = self.begin(self.transfer.advance(9))
        done = self.begin(self.transfer.abandon())
        self.assertEqual(0, self.count("abandon"))
        gate.callback(None)
        self.successResultOf(early)
        self.successResultOf(done)
        self.assertEqual({}, self.objects.uploads)

    def test_appended_after_the_end(self) -> None:
        """An end that fails may turn out to be none."""
        self.objects.before["complete"] = [DeniedError("no")]
        self.fails(self.finishing(7), DeniedError)
        self.assert_stored(self.finish())
        self.assertEqual({}, self.objects.uploads)


class ErrorTests(TransferCase):
    """Errors of the store and of the disk."""

    def test_each_call(self) -> None:
        """Each call fails in each way, once or at each try: the next try ends with the
        file, whole, under one key; whatever else there is was never told.
        """
        for early in False, True:
            for size in 3, len(CONTENT):
                for name in ("put", "begin", "part", "complete", "size"):
                    for effect in "before", "after":
                        for error in UNSURE, DeniedError("no"), NO_SUCH:
                            for times in 1, 12:
                                self.assert_recovers(
                                    early, size, name, effect, error, times
                                )

    def assert_recovers(
        self,
        early: bool,
        size: int,
        name: str,
        effect: str,
        error: Exception,
        times: int,
    ) -> None:
        if (effect == "after") != (error is UNSURE) and effect == "after":
            # Other errors have no effect.
            return
        self.setUp()
        getattr(self.objects, effect)[name] = [error] * times
        told: list[str] = []
        if early:
            self.begin(self.transfer.advance(size - 1)).addErrback(lambda _: None)
        for _ in range(30):
            done = self.begin(self.finishing(size))
            self.clock.pump([1.0] * 70)
            done.addCallbacks(
                told.append, lambda failure: failure.trap(ObjectError) and None
            )
            if told:
                break
        case = early, size, name, effect, error, times
        self.assertEqual(1, len(told), case)
        self.assertEqual(CONTENT[:size], self.objects.objects[f"data/{told[0]}"], case)

    def test_part_again(self) -> None:
        """A part whose answer is lost is sent again, and no other one is."""
        self.objects.after["part"] = [None, UNSURE, UNSURE]
        done = self.begin(self.finishing())
        self.clock.pump([1.0] * 2)
        self.assert_stored(self.successResultOf(done))
        self.assertEqual(6, self.count("part"))

    def test_parts_are_remembered(self) -> None:
        """If a part cannot be sent, the next try sends those that are left."""
        self.objects.before["part"] = [None] + [UNSURE] * 99
        self.fails(self.finishing(), UnsureError)
        self.objects.before.clear()
        self.assertEqual(1, len(self.objects.uploads))
        (sent,) = self.objects.uploads.values()
        before = self.count("part")
        left = 4 - len(sent)
        self.assert_stored(self.finish())
        self.assertEqual(left, self.count("part") - before)
        self.assertEqual(1, self.count("begin"))

    def test_early_once(self) -> None:
        """An early part is not sent again at once: there is time."""
        self.objects.before["part"] = [UNSURE]
        self.fails(self.transfer.advance(5), UnsureError)
        self.assertEqual(1, self.count("part"))
        self.result(self.transfer.advance(5))
        self.assertEqual(2, self.count("part"))

    def test_unsure_completion(self) -> None:
        """The object tells whether it was completed."""
        self.objects.after["complete"] = [UNSURE]
        self.assert_stored(self.finish())
        self.assertEqual(1, self.count("complete"))

    def test_late_completion(self) -> None:
        """It may take a while."""
        for error in NotThereError("no such object"), UNSURE:
            self.setUp()
            self.objects.after["complete"] = [UNSURE]
            self.objects.before["size"] = [error] * int(LOOK - 1)
            done = self.begin(self.finishing())
            self.clock.pump([1.0] * int(LOOK - 2))
            self.assertNoResult(done)
            self.clock.advance(1)
            self.assert_stored(self.successResultOf(done))
            self.assertEqual(1, self.count("complete"))

    def test_never_completed(self) -> None:
        """Then all is sent under another key: the multipart upload is neither completed
        nor abandoned.
        """
        self.objects.before["complete"] = [UNSURE]
        self.fails(self.finishing(), NotThereError)
        left = dict(self.objects.uploads)
        self.assert_stored(self.finish())
        self.assertEqual(2, self.ids)
        self.assertEqual(left, self.objects.uploads)
        self.assertEqual((2, 0), (self.count("complete"), self.count("abandon")))

    def test_completed_behind_a_cut(self) -> None:
        """If the store cannot be asked either, the next try asks, and sends nothing."""
        self.objects.after["complete"] = [UNSURE]
        self.objects.before["size"] = [UNSURE] * 99
        self.fails(self.finishing(), UnsureError)
        self.result(self.transfer.advance(9))
        self.objects.before.clear()
        self.objects.calls.clear()
        self.assert_stored(self.finish())
        self.assertEqual(["size"], self.objects.calls)

    def test_lost_multipart_upload(self) -> None:
        """If the store has forgotten it, all is sent again at once."""
        self.result(self.transfer.advance(9))
        self.objects.uploads.clear()
        self.assert_stored(self.finish())
        self.assertEqual(
            {"begin": 2, "part": 8},
            {
                name: count
                for name, count in Counter(self.objects.calls).items()
                if name in ("begin", "part")
            },
        )

    def test_deleted(self) -> None:
        """Data may be published in spite of an error, and pruned: then it is sent
        again. Other errors of the store say nothing about it.
        """
        self.finish()
        self.clock.advance(FRESH + 1)
        self.objects.calls.clear()
        self.assertEqual("1", self.finish())
        self.assertEqual(["size"], self.objects.calls)
        self.objects.before["size"] = [UNSURE]
        self.fails(self.finishing(), UnsureError)
        self.objects.objects.clear()
        self.assert_stored(self.finish())
        self.assertEqual(2, self.ids)

    def test_wrong_size(self) -> None:
        """An object of another size is not used."""
        real = self.objects.complete

        async def complete(key: str, upload: str, parts: Sequence[Part]) -> None:
            await real(key, upload, parts)
            self.objects.objects[key] += b"!"

        self.patch(self.objects, "complete", complete)
        self.fails(self.finishing(), ObjectError)
        self.patch(self.objects, "complete", real)
        identity = self.finish()
        self.assertEqual(CONTENT, self.objects.objects[f"data/{identity}"])

    def test_old(self) -> None:
        """Data that was not published in time is sent again: it may be swept. Parts of
        it are not.
        """
        self.result(self.transfer.advance(9))
        self.clock.advance(2 * MOST_AGE)
        self.assertEqual("1", self.finish())
        self.assertEqual(4, self.count("part"))
        self.clock.advance(MOST_AGE)
        self.assertEqual("1", self.finish())
        self.clock.advance(1)
        self.assertEqual("2", self.finish())
        self.assert_stored("2", "1")
        self.assertEqual(0, self.count("abandon"))

    def test_unsure_for_long(self) -> None:
        """Its age counts from the call that may have made it whole."""
        self.objects.after["complete"] = [UNSURE]
        self.objects.before["size"] = [UNSURE] * 99
        self.fails(self.finishing(), UnsureError)
        self.objects.before.clear()
        self.clock.advance(MOST_AGE)
        self.assert_stored(self.finish(), "1")
        self.assertEqual((2, 0), (self.ids, self.count("abandon")))

    def test_in_time_for_sweep(self) -> None:
        """What sweep waits for is much longer."""
        self.assertLess(MOST_AGE + 2 * SETTLE, SETTLED)
        self.assertLess(MOST_AGE + 2 * SETTLE, LEAST_GRACE)

    def test_wrong_data(self) -> None:
        """Data that is not what was received is not made an object."""
        for size in 3, len(CONTENT):
            for content in CONTENT.upper(), CONTENT[: size - 1]:
                self.setUp()
                self.content = content
                self.fails(self.finishing(size), LostError)
                self.assertEqual({}, self.objects.objects)

    def test_changed_data(self) -> None:
        """Nor is data that changes after it was hashed."""
        real = self.objects.part

        async def part(*args: Any) -> Part:
            self.content = b"ab"
            return await real(*args)

        self.patch(self.objects, "part", part)
        self.fails(self.finishing(), OSError)
        self.assertEqual({}, self.objects.objects)

    def test_disk(self) -> None:
        """A disk error is one, and another try may succeed."""
        works: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: self.transfer.advance(9),
            self.finishing,
            lambda: self.finishing(3),
        )
        for work in works:
            self.setUp()
            self.failure = OSError(errno.EIO, "broken")
            self.fails(work(), OSError)
            self.failure = None
            self.result(work())
