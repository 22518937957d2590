"""Tests of a file on its way to an object store."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.base.places import Places
from filebucket.model.bucket import FreeSpace
from filebucket.model.objects import LEAST_PART
from filebucket.model.push import Kept
from filebucket.store import local
from filebucket.store.interfaces import IWriter, Receipt
from filebucket.store.s3 import writer as module
from filebucket.store.s3.interfaces import DeniedError, FullError
from filebucket.store.s3.publish import PAUSE, SETTLE
from filebucket.store.s3.several import AT_ONCE
from filebucket.store.s3.writer import (
    MOST_PARTS,
    MOST_SIZE,
    PartFile,
    S3Writer,
    part_size,
    split,
)
from filebucket.test.kit.fakes import LinesAtOnce
from filebucket.test.kit.objects import DENIED, LOST, MemoryObjects
from filebucket.test.store.contract import NAME, TOKEN, sha256, wait_for
from filebucket.test.store.s3.case import PART, PREFIX, S3Case

T = TypeVar("T")


class PartSizeTests(SynchronousTestCase):
    """10,000 parts hold any file."""

    def test_known(self) -> None:
        """All parts of a file have one size."""
        for size in (0, 1, LEAST_PART * MOST_PARTS, MOST_SIZE - 1, MOST_SIZE):
            part = part_size(LEAST_PART, size, 0)
            self.assertGreaterEqual(part, LEAST_PART)
            self.assertGreaterEqual(part * MOST_PARTS, size)
            self.assertEqual(part, part_size(LEAST_PART, size, max(size - 1, 0)))

    def test_unknown(self) -> None:
        """Parts grow, but are never more than 1/1250 of the file, or the least size."""
        for least in (LEAST_PART, 8 * 1024**2, 512 * 1024**2):
            before = number = 0
            while before < MOST_SIZE:
                size = part_size(least, 0, before)
                self.assertLessEqual(size, max(least, before / 1250))
                before += size
                number += 1
            self.assertLessEqual(number, MOST_PARTS)


class SplitTests(SynchronousTestCase):
    def test_split(self) -> None:
        chunks = [b"ab", b"", b"cde"]
        for most in range(7):
            some, rest = split(chunks, most)
            self.assertEqual(b"abcde"[:most], b"".join(some))
            self.assertEqual(b"abcde"[most:], b"".join(rest))


class WriterCase(S3Case):
    """Files that are larger than a batch are on the disk at once."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(local, "BATCH", 10)

    def push_parts(self, content: bytes, **more: Any) -> S3Writer:
        """A writer that got ``content`` in pieces of 30 bytes."""
        writer = self.idle_writer(**more)
        assert isinstance(writer, S3Writer)
        self.result(writer.begin(0, overwrite=False))
        for start in range(0, len(content), 30):
            self.result(writer.write([content[start : start + 30]]))
        return writer


class CallTests(WriterCase):
    """Which calls a push makes."""

    def test_small(self) -> None:
        """Three calls, and nothing of the disk."""

        def run(key: str, function: Callable[..., object], *args: Any) -> None:
            self.fail(f"{function} was called")

        self.patch(self.lines, "run", run)
        writer = self.idle_writer()
        self.result(writer.write([b"content"]))
        self.result(writer.commit({}, overwrite=False))
        self.assertEqual({"get": 1, "create": 1}, self.names.counted)
        self.assertEqual({"put": 1}, self.data.counted)
        self.assertEqual({NAME: b"content"}, self.published())

    def test_one_part(self) -> None:
        """A file that fills one part is not sent in parts."""
        for size in (10, PART - 1, PART):
            self.data.calls.clear()
            content = os.urandom(size)
            name = f"{size}"
            self.result(self.push_parts(content, name=name).commit({}, False))
            self.assertEqual({"put": 1}, self.data.counted)
            self.assertEqual(content, self.published()[name])

    def test_parts(self) -> None:
        """A larger file is sent in parts of that size, and looked at."""
        for size in (PART + 1, 2 * PART - 1, 2 * PART, 5 * PART + 7):
            self.data.calls.clear()
            content = os.urandom(size)
            name = f"{size}"
            receipt = self.result(self.push_parts(content, name=name).commit({}, False))
            self.assertEqual(sha256(content), receipt.sha256)
            self.assertEqual(content, self.published()[name])
            parts = -(-size // PART)
            wanted = {"begin": 1, "part": parts, "complete": 1, "size": 1}
            self.assertEqual(wanted, self.data.counted)

    def test_empty_chunks(self) -> None:
        """No chunk without bytes makes a part without bytes."""
        for size, parts in ((PART, None), (2 * PART, 2)):
            self.data.calls.clear()
            content = os.urandom(size)
            writer = self.push_parts(content, name=f"{size}")
            self.result(writer.write([b"", bytearray()]))  # type: ignore[list-item]
            self.result(writer.commit({}, overwrite=False))
            self.assertEqual(parts, self.data.counted.get("part"))
            self.assertEqual(content, self.published()[f"{size}"])

    def test_large_chunk(self) -> None:
        """A chunk may be larger than a part."""
        content = os.urandom(7 * PART + 3)
        self.assertEqual(sha256(content), self.push(content).sha256)
        self.assertEqual({NAME: content}, self.published())
        self.assertEqual(8, self.data.counted["part"])

    def test_announced(self) -> None:
        """A name that is taken is found before the first byte."""
        self.push(b"old")
        self.data.calls.clear()
        writer = self.idle_writer()
        self.assert_refused(405, writer.begin(1000, overwrite=False))
        self.assertEqual([], self.data.calls)

    def test_taken_meanwhile(self) -> None:
        """And again before data becomes visible."""
        for size in (7, PART, 3 * PART):
            name = f"{size}"
            writer = self.push_parts(os.urandom(size), name=name)
            self.push(b"faster", name=name)
            self.data.calls.clear()
            self.assert_refused(405, writer.commit({}, overwrite=False))
            self.result(writer.abort())
            self.assertNotIn("put", self.data.counted)
            self.assertNotIn("complete", self.data.counted)
            self.assertEqual(b"faster", self.published()[name])
            self.assertEqual(set(), self.orphans())

    def test_wrong_digest(self) -> None:
        """So are digests."""
        for size in (7, PART, 3 * PART):
            writer = self.push_parts(os.urandom(size))
            self.assert_refused(422, writer.commit({"sha256": bytes(32)}, True))
            self.result(writer.abort())
            self.assertNotIn("put", self.data.counted)
            self.assertNotIn("complete", self.data.counted)
            self.assertEqual(set(), self.orphans())
        self.assertEqual({}, self.published())

    def test_too_large(self) -> None:
        """S3 has a largest object."""
        writer = self.idle_writer()
        self.assert_refused(413, writer.begin(MOST_SIZE + 1, overwrite=False))
        self.result(writer.abort())
        writer = self.push_parts(b"")
        assert isinstance(writer, S3Writer)
        writer._size = MOST_SIZE
        self.assert_refused(413, writer.write([b"more than a batch"]))
        self.assert_refused(413, self.store.check_room(TOKEN, MOST_SIZE + 1))

    def test_key(self) -> None:
        """Each push has its own data."""
        self.push(b"old")
        old = self.record().data
        self.push(b"new", overwrite=True)
        self.assertNotEqual(old, self.record().data)
        self.assertEqual(b"old", self.data.objects.pop(old))


class SlowTests(WriterCase):
    """A store that is slower than the client."""

    def hang(self, count: int) -> list[Deferred[None]]:
        """The next parts wait for these."""
        return [self.data.hang("part") for _ in range(count)]

    def written_later(self, writer: S3Writer, content: bytes) -> Deferred[None]:
        """Fires when the client can send more than ``content``."""

        async def write() -> None:
            for start in range(0, len(content), 30):
                await writer.write([content[start : start + 30]])

        return Deferred.fromCoroutine(write())

    def test_bound(self) -> None:
        """Some parts are on their way, and the next one gathers; then the client waits.
        Their order does not matter.
        """
        content = os.urandom((AT_ONCE + 2) * PART)
        for order in (1, -1):
            self.data.calls.clear()
            gates = self.hang(AT_ONCE)
            writer = self.push_parts(b"", name=f"{order}")
            waiting = self.written_later(writer, content)
            self.assertNoResult(waiting)
            self.assertEqual(AT_ONCE, self.data.counted["part"])
            self.assertEqual(1, self.data.counted["begin"])
            assert writer._reserved is not None
            on_disk = writer._reserved.taken - writer._reserved.gone
            self.assertEqual((AT_ONCE + 1) * PART, on_disk)
            for gate in gates[::order]:
                gate.callback(None)
            self.successResultOf(waiting)
            self.result(writer.commit({}, overwrite=False))
            self.assertEqual(AT_ONCE + 2, self.data.counted["part"])
            self.assertEqual(content, self.published()[f"{order}"])

    def test_no_place(self) -> None:
        """If others wait for places, a push takes no more than one."""
        self.store.places = Places(1)
        content = os.urandom(4 * PART)
        (gate,) = self.hang(1)
        writer = self.push_parts(b"")
        waiting = self.written_later(writer, content)
        self.assertNoResult(waiting)
        assert writer._reserved is not None
        on_disk = writer._reserved.taken - writer._reserved.gone
        self.assertEqual(2 * PART, on_disk)
        gate.callback(None)
        self.successResultOf(waiting)
        self.result(writer.commit({}, overwrite=False))
        self.assertEqual({NAME: content}, self.published())

    def test_one_fails(self) -> None:
        """The others are cancelled, the failure is logged once, and the client learns
        of it.
        """
        for end in ("write", "commit"):
            gates = self.hang(3)
            self.data.calls.clear()
            writer = self.push_parts(os.urandom(3 * PART + 20))
            self.assertEqual(3, self.data.counted["part"])
            before = len(self.events)
            gates[1].errback(DENIED)
            if end == "write":
                rest = self.written_later(writer, os.urandom(2 * PART))
                failure = self.failureResultOf(rest, Refusal)
                self.assertEqual(503, failure.value.status)
            else:
                self.assert_refused(503, writer.commit({}, overwrite=False))
            self.assertEqual(3, self.data.counted["part"])
            self.result(writer.abort())
            (event,) = self.events[before:]
            self.assertEqual("AccessDenied", event["code"])
            self.assertEqual({}, self.data.uploads)
            self.assertEqual([], self.room.open)
            self.assertNotIn("complete", self.data.counted)

    def test_one_is_too_many(self) -> None:
        """The client learns why the first one failed, not that the others ended."""
        gates = self.hang(3)
        writer = self.push_parts(os.urandom(3 * PART + 20))
        gates[1].errback(FullError("the store answered 507", "StorageFull"))
        refusal = self.assert_refused(507, writer.commit({}, overwrite=False))
        self.assertIn("not enough free space", refusal.reason)
        self.result(writer.abort())

    def test_commit_waits(self) -> None:
        gate = self.data.hang("part")
        writer = self.push_parts(os.urandom(PART + 1))
        done = Deferred.fromCoroutine(wait_for(writer.commit({}, overwrite=False)))
        self.assertNoResult(done)
        self.assertEqual({}, self.published())
        gate.callback(None)
        self.successResultOf(done)

    def test_client_goes_away(self) -> None:
        """All parts on their way are cancelled, and all parts are deleted."""
        self.hang(3)
        writer = self.push_parts(os.urandom(3 * PART + 20))
        self.assertEqual(3, self.data.counted["part"])
        self.assertEqual(1, len(self.data.uploads))
        before = len(self.events)
        self.result(writer.abort())
        self.assertEqual([], self.events[before:])
        self.assertEqual({}, self.data.uploads)
        self.assertEqual(1, self.data.counted["abandon"])
        self.result(writer.abort())
        self.assertEqual(1, self.data.counted["abandon"])

    def test_client_goes_away_at_the_start(self) -> None:
        """The upload that is being created has no parts yet."""
        self.data.hang("begin")
        writer = self.push_parts(os.urandom(3 * PART))
        self.assertEqual({"begin": 1}, self.data.counted)
        self.result(writer.abort())
        self.assertEqual({"begin": 1}, self.data.counted)

    def test_gives_up_once(self) -> None:
        """A call that was cancelled is not cancelled again while it ends."""
        end: Deferred[None] = Deferred()
        ended = []

        async def call() -> None:
            try:
                await Deferred()
            finally:
                await end
                ended.append(True)

        writer = self.push_parts(b"")
        made = Deferred.fromCoroutine(call())
        writer._calls.add(made)
        writer._give_up()
        self.result(writer.abort())
        end.callback(None)
        self.failureResultOf(made, CancelledError)
        self.assertEqual([True], ended)

    def test_client_goes_away_while_it_waits(self) -> None:
        """What it sent last is not sent to the store."""
        self.hang(AT_ONCE)
        writer = self.push_parts(b"")
        waiting = self.written_later(writer, os.urandom((AT_ONCE + 2) * PART))
        self.assertNoResult(waiting)
        self.result(writer.abort())
        self.failureResultOf(waiting, Refusal)
        self.assertEqual(AT_ONCE, self.data.counted["part"])
        self.assertEqual({}, self.data.uploads)


class TurnTests(WriterCase):
    """Buckets that share the connections to the store."""

    def test_in_turn(self) -> None:
        """A bucket with many pushes does not delay the others by all of them."""
        self.store.places = Places(1)
        gate = self.data.hang("part")
        content = os.urandom(PART + 1)
        waiting = []
        for number in range(3):
            writer = self.push_parts(content, name=f"{number}")
            waiting.append(self.made_later(writer.commit({}, overwrite=False)))
        other = self.push_parts(content, directory="web01")
        waiting.append(self.made_later(other.commit({}, overwrite=False)))
        small = self.idle_writer(name="small")
        self.result(small.write([b"x"]))
        self.result(small.commit({}, overwrite=False))
        self.assertEqual(1, self.data.counted["part"])
        self.data.calls.clear()
        gate.callback(None)
        for each in waiting:
            self.successResultOf(each)
        sent = [call.split("~")[0] for call in self.data.calls if "part " in call]
        web01 = f"part {PREFIX}data/web01/{NAME}"
        self.assertEqual(2, sent.count(web01))
        self.assertLess(sent.index(web01), 2)

    def test_places_are_given_back(self) -> None:
        """Whatever happens to the part."""
        self.store.places = Places(1)
        for error in (DENIED, LOST):
            self.data.fail("part", error, times=20)
            writer = self.push_parts(os.urandom(PART + 20))
            self.assert_refused(503, writer.commit({}, overwrite=False))
            self.result(writer.abort())
            self.data.go_on("part")
        self.data.hang("part")
        writer = self.push_parts(os.urandom(PART + 20))
        waits = self.push_parts(os.urandom(PART + 20), name="waits")
        done = self.made_later(waits.commit({}, overwrite=False))
        self.result(writer.abort())
        self.successResultOf(done)

    def made_later(self, wait: Awaitable[T]) -> Deferred[T]:
        done = Deferred.fromCoroutine(wait_for(wait))
        self.assertNoResult(done)
        return done


class ErrorTests(WriterCase):
    """Errors of the object store."""

    def assert_fails(self, status: int, size: int) -> Refusal:
        """A push of this size is refused at the end, and leaves nothing."""

        async def push() -> None:
            try:
                await writer.begin(0, overwrite=False)
                for start in range(0, size, 30):
                    await writer.write([bytes(min(30, size - start))])
                await writer.commit({}, overwrite=False)
            finally:
                await writer.abort()

        writer = self.idle_writer()
        refusal = self.assert_refused(status, push())
        self.assertEqual([], self.room.open)
        return refusal

    def test_lost_once(self) -> None:
        """Lost calls that change nothing if repeated are made again."""
        for lose in (self.data.lose, self.data.fail):
            for size in (7, PART, 3 * PART):
                name = f"{lose.__name__}-{size}"
                for call in ("put", "part", "begin", "size"):
                    self.data.go_on(call)
                    lose(call, times=2)
                content = os.urandom(size)
                self.result(self.push_parts(content, name=name).commit({}, False))
                self.assertEqual(content, self.published()[name])
        # The ids of two of them were in the lost answers.
        self.assertEqual(2, len(self.data.uploads))
        self.data.uploads.clear()

    def test_lost_always(self) -> None:
        """A push fails after half a minute."""
        for call, size in (("put", 7), ("put", PART), ("part", 300), ("begin", 300)):
            self.data.fail(call, times=1000)
            begun = self.clock.seconds()
            refusal = self.assert_fails(503, size)
            took = self.clock.seconds() - begun
            self.assertTrue(SETTLE / 2 <= took <= SETTLE, took)
            self.assertEqual("object store error on the server", refusal.reason)
            self.assertEqual(set(), self.orphans())
            self.assertEqual({}, self.published())
            self.data.go_on(call)
            line = self.logged()[-1]
            self.assertIn(f"object store error during {call}: {LOST}", line)

    def test_hanging(self) -> None:
        """A store that does not answer is asked once more, but not for small data: a
        client that waits for it has given up by then.
        """
        limit, tried = 60.0, []

        async def hang(*_: object) -> None:
            tried.append(True)
            await deferLater(self.clock, limit)
            raise LOST

        for call, size, tries in (
            ("put", PART, 2),
            ("part", 3 * PART, 6),
            ("begin", 3 * PART, 2),
        ):
            tried.clear()
            begun = self.clock.seconds()
            patched = self.patch(MemoryObjects, call, hang)
            self.assert_fails(503, size)
            patched.restore()
            took = self.clock.seconds() - begun
            self.assertEqual((tries, 2 * limit + PAUSE), (len(tried), took), call)

    def test_hanging_small(self) -> None:
        """A client that waits for the end of its small push does not wait for long: the
        same as for the name and the record.
        """
        for _ in range(9):
            self.data.hang("put")
        begun = self.clock.seconds()
        self.assert_fails(503, 7)
        self.assertEqual(SETTLE, self.clock.seconds() - begun)
        # Another gateway got a chance.
        self.assertGreater(self.data.counted["put"], 1)

    def test_denied(self) -> None:
        """A missing right is logged, and no fault of the client."""
        for objects, call, size in (
            (self.names, "get", 7),
            (self.data, "put", 7),
            (self.data, "begin", 3 * PART),
            (self.data, "part", 3 * PART),
            (self.data, "complete", 3 * PART),
        ):
            before = len(self.events)
            objects.fail(call, DENIED)
            self.assert_fails(503, size)
            (event,) = self.events[before:]
            self.assertEqual("store", event["event"])
            self.assertEqual("AccessDenied", event["code"])
        self.assertEqual({}, self.published())

    def test_outage(self) -> None:
        """A push that fails shows one that reading does not."""
        self.data.fail("put", DENIED, times=2)
        self.assertIsNone(self.result(self.store.find_outage()))
        self.assert_fails(503, 7)
        self.assertEqual(str(DENIED), self.result(self.store.find_outage()))
        self.assertIsNone(self.result(self.store.find_outage()))
        del self.data.objects[self.keys.probe("outage")]

    def test_record_denied(self) -> None:
        """The data is left to be swept."""
        self.names.fail("create", DENIED)
        writer = self.written(b"content")
        self.assert_refused(503, writer.commit({}, overwrite=False))
        self.result(writer.abort())
        self.assertEqual({}, self.published())
        self.assertEqual(1, len(self.orphans()))
        self.data.objects.clear()

    def test_name_too_long(self) -> None:
        """For the store, whose limit may be less than 255 bytes: no retry helps."""
        error = DeniedError("answered 400", "KeyTooLongError")
        for call, size in (("put", 7), ("put", PART), ("begin", 3 * PART)):
            self.data.fail(call, error)
            refusal = self.assert_fails(400, size)
            self.assertIn("too long", refusal.reason)

    def test_full(self) -> None:
        """The client learns that there is no space."""
        self.data.fail("put", FullError("the store answered 507", "StorageFull"))
        refusal = self.assert_fails(507, 7)
        self.assertEqual(
            "not enough free space in the server's object store", refusal.reason
        )

    def test_complete_lost(self) -> None:
        """It is not completed again; the data shows whether it is complete."""
        self.data.lose("complete")
        content = os.urandom(3 * PART)
        self.result(self.push_parts(content).commit({}, overwrite=False))
        self.assertEqual({NAME: content}, self.published())
        self.assertEqual(1, self.data.counted["complete"])

    def test_complete_unsure(self) -> None:
        """It is neither completed again nor abandoned: it may be complete later."""
        self.data.fail("complete")
        self.assert_fails(503, 3 * PART)
        self.assertEqual(1, self.data.counted["complete"])
        self.assertNotIn("abandon", self.data.counted)
        self.assertEqual(1, len(self.data.uploads))
        self.data.uploads.clear()

    def test_complete_late(self) -> None:
        """The store answers with an error, and has the data a moment later."""
        self.data.fail("complete")
        content = os.urandom(3 * PART)
        looks = 0

        def appear(call: str) -> None:
            nonlocal looks
            if call.startswith("size"):
                looks += 1
                if looks == 5:
                    key = call.removeprefix("size ")
                    self.data.objects[key] = content
                    self.data.uploads.clear()

        self.data.before = appear
        self.result(self.push_parts(content).commit({}, overwrite=False))
        self.assertEqual({NAME: content}, self.published())

    def test_complete_lies(self) -> None:
        """Data that is not there, or not whole, is not published."""
        for change in (bytes.upper, lambda content: content[:-1]):

            def spoil(call: str, change: Callable[[bytes], bytes] = change) -> None:
                if call.startswith("size"):
                    key = call.removeprefix("size ")
                    if change is bytes.upper:
                        self.data.objects.pop(key, None)
                    else:
                        self.data.objects[key] = change(self.data.objects[key])

            self.data.before = spoil
            self.assert_fails(503, 3 * PART)
            self.assertEqual({}, self.published())
            self.data.objects.clear()

    def test_abandon_fails(self) -> None:
        """Parts that stay are logged; the push has ended all the same."""
        self.data.fail("abandon", DENIED)
        writer = self.push_parts(os.urandom(2 * PART + 30))
        self.result(writer.abort())
        self.assertEqual(1, len(self.data.uploads))
        self.assertIn("during abandon: ", self.logged()[-1])
        self.data.uploads.clear()

    def test_name_unknown(self) -> None:
        """Without an answer about the name nothing is stored."""
        self.names.fail("get", times=1000)
        self.assert_fails(503, 7)
        self.assertEqual([], self.data.calls)

    def test_confirm(self) -> None:
        """Both the record and the data must be there, and be of that content: another
        daemon may have replaced the file.
        """
        known = self.push(b"content").sha256
        self.assertTrue(self.result(self.store.confirm(TOKEN, NAME, 7, known)))
        recorded = self.result(self.store.recorded(TOKEN, NAME))
        self.assertEqual(Kept(7, known), recorded)
        self.assertFalse(self.result(self.store.confirm(TOKEN, NAME, 7, "00" * 32)))
        self.names.fail("get", DENIED)
        self.assert_refused(503, self.store.confirm(TOKEN, NAME, 7, known))
        self.data.fail("size", DENIED)
        self.assert_refused(503, self.store.confirm(TOKEN, NAME, 7, known))
        self.data.objects[self.record().data] = b"other size"
        self.assertFalse(self.result(self.store.confirm(TOKEN, NAME, 7, known)))
        self.data.objects.clear()
        self.assertFalse(self.result(self.store.confirm(TOKEN, NAME, 7, known)))
        self.names.objects[self.keys.name(TOKEN, NAME)] = b"{}"
        self.assert_refused(503, self.store.confirm(TOKEN, NAME, 7, known))
        self.names.objects.clear()


class DiskTests(WriterCase):
    """The disk of the home."""

    def fail(self, function: str, number: int) -> None:  # type: ignore[override]
        """Calls with that name fail."""

        class Failing(LinesAtOnce):
            def run(self, key: str, call: Callable[..., T], *args: Any) -> Any:
                if call.__name__ != function:
                    return super().run(key, call, *args)

                def failing() -> None:
                    raise OSError(number, os.strerror(number), f"/home/{TOKEN}")

                return super().run(key, failing)

        self.store.home.lines = Failing()

    def test_errors(self) -> None:
        for function, number, status in (
            ("_write_part", errno.EMFILE, 503),
            ("_write_part", errno.EIO, 503),
            ("_write_part", errno.ENOSPC, 507),
            ("set_aside", errno.EIO, 503),
        ):
            self.fail(function, number)
            writer = self.idle_writer()
            self.assert_refused(status, writer.write([bytes(30)]))
            self.result(writer.abort())
            self.assertEqual([], self.room.open)

    def not_cached(self) -> None:
        """Memory has nothing of the parts."""

        def preadv(*_: object) -> int:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        self.patch(os, "preadv", preadv)

    def test_not_cached(self) -> None:
        """Only then a piece is read in a thread."""
        calls = Counter[str]()

        class Counting(LinesAtOnce):
            def run(self, key: str, call: Callable[..., T], *args: Any) -> Any:
                calls[call.__name__] += 1
                return super().run(key, call, *args)

        self.store.home.lines = Counting()
        for name, threads in (("cached", 0), ("disk", 4)):
            content = os.urandom(4 * PART)
            self.result(self.push_parts(content, name=name).commit({}, False))
            self.assertEqual(content, self.published()[name])
            self.assertEqual(threads, calls["pread"])
            self.not_cached()

    def test_unreadable(self) -> None:
        """A part that cannot be read back is a disk error."""
        self.not_cached()
        for size in (PART, 3 * PART):
            self.store.home.lines = self.lines
            writer = self.push_parts(os.urandom(size)[:PART])
            self.fail("pread", errno.EIO)
            if size == PART:
                self.assert_refused(503, writer.commit({}, overwrite=False))
            else:
                self.result(writer.write([bytes(30)]))
                self.assert_refused(503, writer.commit({}, overwrite=False))
            self.result(writer.abort())
            self.assertEqual("disk", self.events[-1]["event"])
            self.assertEqual(set(), self.orphans())

    def test_damaged(self) -> None:
        """Bytes that the disk changed are never stored."""
        writer = self.push_parts(os.urandom(PART))
        assert isinstance(writer, S3Writer)
        assert writer._part is not None
        os.pwrite(writer._part.fd, b"other", 0)
        self.assert_refused(503, writer.commit({}, overwrite=False))
        self.result(writer.abort())
        self.assertEqual({}, self.data.objects)

    def test_stuck(self) -> None:
        self.lines.stuck.add(TOKEN)
        self.assert_refused(503, self.idle_writer().begin(0, overwrite=True))
        self.assert_refused(503, self.store.check_room(TOKEN, 0))


class RoomTests(WriterCase):
    """Space on the home's disk, and quotas."""

    def left(self, free: int) -> None:
        """The disk has this many bytes left for pushes."""
        found = os.statvfs(self.home)
        least = found.f_bavail * found.f_frsize - free
        self.patch(self.room, "_min_free_space", FreeSpace(bytes=least))

        def fstatvfs(_: int) -> os.statvfs_result:
            return found

        self.patch(os, "fstatvfs", fstatvfs)

    def test_two_parts_are_enough(self) -> None:
        """A file may be larger than the disk."""
        self.left(2 * PART)
        self.result(self.idle_writer().begin(5000, overwrite=True))
        self.result(self.store.check_room(TOKEN, 0))

    def test_space_for_more(self) -> None:
        """Only as many parts are on their way as the disk has space for."""
        on_disk = 0

        class Counted(PartFile):
            def write(self, chunks: Sequence[bytes], size: int) -> None:
                nonlocal on_disk
                super().write(chunks, size)
                on_disk += size

            def close(self) -> None:
                nonlocal on_disk
                super().close()
                on_disk -= self.size

        self.patch(module, "PartFile", Counted)
        for parts in (2, 3, AT_ONCE + 1, AT_ONCE + 2):

            def left(_: object, parts: int = parts) -> int:
                return parts * PART - on_disk

            self.patch(self.room, "_left", left)
            self.data.calls.clear()
            gates = [self.data.hang("part") for _ in range(AT_ONCE)]
            content = os.urandom((AT_ONCE + 3) * PART)
            writer = self.idle_writer(name=f"{parts}")

            async def push(
                writer: IWriter = writer, content: bytes = content
            ) -> Receipt:
                await writer.begin(len(content), overwrite=False)
                for start in range(0, len(content), 30):
                    await writer.write([content[start : start + 30]])
                return await writer.commit({}, overwrite=False)

            done = Deferred.fromCoroutine(push())
            self.assertEqual(min(parts - 1, AT_ONCE), self.data.counted["part"])
            for gate in gates:
                gate.callback(None)
            self.assertEqual(sha256(content), self.result(done).sha256)
            self.assertEqual(0, self.room._buckets[TOKEN].set_aside)

    def test_no_space_for_two_parts(self) -> None:
        self.left(2 * PART - 1)
        writer = self.idle_writer()
        self.assert_refused(507, writer.begin(1000, overwrite=True))
        self.assert_refused(507, self.store.check_room(TOKEN, 1000))
        self.result(self.store.check_room(TOKEN, PART))

    def test_what_is_announced(self) -> None:
        """It reduces the space of its own bucket, and of no other one."""
        self.left(3 * PART)
        self.result(self.idle_writer().begin(1000, overwrite=True))
        other = self.idle_writer(name="other")
        self.assert_refused(507, other.begin(1000, overwrite=True))
        elsewhere = self.idle_writer(directory="web01")
        self.result(elsewhere.begin(1000, overwrite=True))

    def test_reserved(self) -> None:
        """A part that is sent frees its space for the next one."""
        writer = self.idle_writer()
        self.result(writer.begin(5 * PART, overwrite=True))
        (reserved,) = self.room.open
        seen = [reserved.aside]
        for _ in range(50):
            self.result(writer.write([bytes(10)]))
            seen.append(reserved.aside)
        self.assertEqual(2 * PART, max(seen))
        self.assertEqual(0, reserved.aside)
        self.assertEqual(0, reserved.expected)
        self.result(writer.commit({}, overwrite=True))
        self.assertEqual(0, self.room._buckets[TOKEN].set_aside)
        for filesystem in self.room._filesystems.values():
            self.assertEqual(0, filesystem.set_aside)
