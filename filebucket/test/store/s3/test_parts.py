"""Tests of :mod:`filebucket.store.s3.parts`."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from filebucket.base.places import Places
from filebucket.model.bucket import FILE_COST, FreeSpace
from filebucket.model.unfinished import Unfinished
from filebucket.store import local
from filebucket.store.aside import PartFile
from filebucket.store.home import Home
from filebucket.store.interfaces import LostError
from filebucket.store.parts import read_piece
from filebucket.store.s3 import parts
from filebucket.store.s3.interfaces import FullError
from filebucket.store.s3.parts import EARLY, S3Parts
from filebucket.store.s3.records import Record
from filebucket.store.s3.store import S3Store
from filebucket.store.s3.writer import MOST_SIZE, check_size
from filebucket.test.kit.objects import DENIED, MemoryObjects
from filebucket.test.store.contract import (
    NAME,
    TOKEN,
    PartsCase,
    PartsContract,
    wait_for,
)
from filebucket.test.store.s3.case import NOW, PART, CountingRoom, S3Case

T = TypeVar("T")


class S3PartsCase(S3Case, PartsCase):
    """Has resumable uploads to an object store in memory."""

    parts: S3Parts

    def setUp(self) -> None:
        super().setUp()
        self.wrap: Callable[[MemoryObjects], Any] = lambda objects: objects
        # Every byte is written at once.
        self.patch(local, "BATCH", 1)
        self.uploads = os.path.join(self.home, ".filebucket", "uploads")
        self.parts = S3Parts(self.store)

    def restart(self) -> list[Unfinished]:
        self.kill()
        return self.loaded()

    def kill(self) -> None:
        """Another daemon, in place of this one."""
        self.result(self.drop_writers())
        self.store.close()
        self.room = CountingRoom(FreeSpace(bytes=0), self.clock.seconds)
        self.store = S3Store(
            Home(self.home, self.lines),
            self.room,
            self.wrap(self.names),
            self.wrap(self.data),
            self.keys,
            "data-bucket",
            PART,
            self.clock,
            lambda: NOW,
            lambda: "checked",
        )
        self.addCleanup(self.store.close)
        self.store.prepare()
        self.parts = S3Parts(self.store)

    async def drop_writers(self) -> None:
        """Let them end without an effect on the disk, as those of a killed daemon."""

        def cut(*args: object) -> None:
            raise OSError(errno.EIO, "")

        real, PartFile.cut = PartFile.cut, cut  # type: ignore[assignment,method-assign]
        try:
            for writer in self.writers:
                await writer.abort()
        finally:
            PartFile.cut = real  # type: ignore[method-assign]
        self.writers.clear()

    def left_aside(self) -> int:
        # Data that was sent in vain is swept.
        return len(self.room.open)

    @contextmanager
    def breaking(self, number: int) -> Iterator[None]:
        """While data that is sent cannot be opened."""

        def fail(*args: object, **named: object) -> bytes:
            raise OSError(number, os.strerror(number), f"/{TOKEN}")

        self.patch(parts, "read_piece", fail)
        yield
        self.patch(parts, "read_piece", read_piece)

    def names_of_files(self) -> list[str]:
        return sorted(os.listdir(self.uploads))

    def path(self, name: str) -> str:
        return os.path.join(self.uploads, name)

    def received(self) -> dict[str, bytes]:
        found = {}
        for name in self.names_of_files():
            if len(name) == 32:
                with open(self.path(name), "rb") as file:
                    found[name] = file.read()
        return found

    def recorded(self) -> set[str]:
        return {name[:-5] for name in self.names_of_files() if name.endswith(".json")}

    def spoil(self, upload: Unfinished, data: bytes) -> None:
        with open(self.path(upload.id), "wb") as file:
            file.write(data)


class S3PartsTests(PartsContract, S3PartsCase):
    """Uploads to an object store."""

    def test_quota_of_what_is_replaced(self) -> None:
        """A file counts until it is swept."""
        quota = 2 * FILE_COST + 100
        self.push(bytes(40))
        upload = self.append(self.new(), bytes(30), quota=quota)
        writer = self.begun(upload, quota=quota)
        self.result(writer.commit({}, overwrite=True))
        probe = self.idle_writer(name="probe", quota=quota)
        self.assert_refused(507, probe.begin(0, overwrite=True))

    # The data

    def whole(self, size: int = 250) -> Unfinished:
        """An upload that has all its bytes, three parts of them."""
        return self.append(self.new(length=size), content(size))

    def assert_stored(self, size: int = 250) -> None:
        self.assertEqual({NAME: content(size)}, self.published())

    def test_sent_early(self) -> None:
        """Parts are sent when they are recorded, and only the rest at the end."""
        upload = self.append(self.new(), content(100))
        self.assertEqual({}, self.data.counted)
        for size, sent in (101, 1), (199, 1), (200, 2), (250, 2):
            upload = self.append(upload, content(size)[upload.offset :])
            self.assertEqual({"begin": 1, "part": sent}, self.data.counted)
        self.commit(upload)
        self.assertEqual(
            {"begin": 1, "part": 3, "complete": 1, "size": 1}, self.data.counted
        )
        self.assert_stored()
        self.assertEqual({}, self.data.uploads)

    def test_sent_at_the_end(self) -> None:
        """A file of one part is one object from the start."""
        self.commit(self.append(self.new(), content(100)))
        self.assertEqual({"put": 1, "size": 1}, self.data.counted)
        self.assert_stored(100)

    def test_secrets(self) -> None:
        """No key shows the id of an upload, which is secret."""
        upload = self.whole()
        self.commit(upload)
        for call in self.data.calls + self.names.calls:
            self.assertNotIn(upload.id, call)
            self.assertNotIn(upload.id[:8], call)

    def test_taken_before_it_is_sent(self) -> None:
        self.push(b"old")
        self.data.calls.clear()
        upload = self.append(self.new(), content(50))
        writer = self.begun(upload)
        self.assert_refused(405, writer.prepare({}, overwrite=False))
        self.assert_refused(405, writer.commit({}, overwrite=False))
        self.assertEqual([], self.data.calls)

    def test_wrong_before_it_is_sent(self) -> None:
        """The parts that were sent early are no object, and go with the upload."""
        upload = self.append(self.new(promised={"sha256": "00" * 32}), content(250))
        writer = self.begun(upload)
        self.assert_refused(422, writer.prepare(upload.digests(), overwrite=False))
        self.assertEqual({"begin": 1, "part": 2}, self.data.counted)
        self.result(writer.abort())
        self.result(self.parts.remove(TOKEN, upload))
        self.assertEqual(({}, {}), (self.data.objects, self.data.uploads))

    def test_too_large(self) -> None:
        """S3 has no larger objects."""
        upload = self.append(self.new())
        writer = self.part_writer(upload)
        self.assert_refused(413, writer.begin(MOST_SIZE + 1, overwrite=True))
        writer = self.begun(self.append(self.new(), content(250)))
        self.patch(parts, "check_size", lambda size: check_size(size + MOST_SIZE))
        self.assert_refused(413, writer.prepare({}, overwrite=False))
        self.assertEqual({}, self.published())

    def test_unrecorded(self) -> None:
        """Bytes that are cut off are never in the file, although an end has failed with
        them.
        """
        upload = self.append(self.new(), content(150))
        writer = self.begun(upload)
        self.result(writer.write([b"x" * 100]))
        self.names.fail("get", DENIED)
        self.assert_refused(503, writer.commit({}, overwrite=False))
        self.data.fail("complete", DENIED)
        self.assert_refused(503, writer.commit({}, overwrite=False))
        self.result(writer.abort())
        upload = self.append(upload, content(250)[150:])
        self.commit(upload)
        self.assert_stored()

    def test_early_ones_take_turns(self) -> None:
        """Few uploads are sent at once before their end; the end does not wait."""
        gates = [self.data.hang("begin") for _ in range(EARLY)]
        for number in range(EARLY + 1):
            last = self.append(self.new(f"{number}"), content(250))
        self.assertEqual(EARLY, self.data.counted["begin"])
        self.commit(last)
        self.assertEqual(["4"], list(self.published()))
        for gate in gates:
            gate.callback(None)
        self.assertEqual(EARLY + 1, self.data.counted["begin"])

    def test_in_turn(self) -> None:
        """Parts wait for their bucket's turn, as those of pushes, early or not."""
        self.store.places = Places(1)
        for size in 50, 250:
            upload = self.append(self.new(f"{size}"), b"")
            gate = self.data.hang("put" if size == 50 else "part")
            other = Deferred.fromCoroutine(wait_for(self.appended(upload, size)))
            waiting = self.store.places.acquire("other")
            self.assertNoResult(waiting)
            gate.callback(None)
            self.successResultOf(waiting)
            if size == 250:
                self.assertNoResult(other)
            self.store.places.release()
            self.successResultOf(other)

    async def appended(self, upload: Unfinished, size: int) -> None:
        """All of an upload, and its end."""
        writer = self.part_writer(upload)
        await writer.begin(size, overwrite=True)
        await writer.write([content(size)])
        await writer.commit({}, overwrite=False)

    # Errors

    def test_store_is_down(self) -> None:
        """An upload needs no object store before its end."""
        for name in "begin", "put", "part":
            self.data.fail(name, times=1000)
        self.names.fail("get", times=1000)
        uploads = [self.whole(), self.append(self.new("small"), b"content")]
        self.assertEqual([], self.logged())
        for upload in uploads:
            writer = self.begun(upload)
            self.assert_refused(503, writer.commit({}, overwrite=False))
            self.names.go_on("get")
            self.assert_refused(503, writer.commit({}, overwrite=False))
            self.result(writer.abort())
        self.assertEqual(["store"] * 4, [each["event"] for each in self.events])
        self.assertEqual(uploads, sorted(self.restart(), key=attrgetter("id")))
        for name in "begin", "put", "part":
            self.data.go_on(name)
        for upload in uploads:
            self.commit(upload)
        self.assertEqual({NAME: content(250), "small": b"content"}, self.published())

    def test_full(self) -> None:
        self.data.fail("put", FullError("full"))
        writer = self.begun(self.append(self.new(), b"content"))
        self.assert_refused(507, writer.commit({}, overwrite=False))
        self.result(writer.commit({}, overwrite=False))

    def test_disk(self) -> None:
        """A disk that cannot be read now is no loss."""
        upload = self.append(self.new(), content(50))
        writer = self.begun(upload)
        with self.breaking(errno.EMFILE):
            self.assert_refused(503, writer.prepare({}, overwrite=False))
        self.result(writer.commit({}, overwrite=False))
        self.assert_stored(50)

    def test_spoiled(self) -> None:
        """Data that another program has written to is not published."""
        for size in 50, 250:
            for spoiled in content(size)[::-1], content(size - 1), b"":
                upload = self.append(self.new(), b"")
                writer = self.begun(upload)
                self.result(writer.write([content(size)]))
                self.result(writer.keep())
                self.spoil(upload, spoiled)
                done = self.made(writer.prepare({}, overwrite=False))
                self.failureResultOf(done, LostError)
                self.result(writer.abort())
                self.result(self.parts.remove(TOKEN, upload))
        self.assertEqual(({}, {}), (self.data.objects, self.data.uploads))

    def test_answer_of_the_record_is_lost(self) -> None:
        """Whether it is known by the same daemon or another one, the upload that
        published a file gets its receipt, and sends and publishes nothing again.
        """
        for kill in False, True:
            for overwrite in False, True:
                self.setUp()
                if overwrite:
                    self.push(b"old")
                upload = self.whole()
                writer = self.begun(upload)
                self.names.lose("put" if overwrite else "create", times=1000)
                self.assert_refused(503, writer.commit({}, overwrite))
                self.assert_stored()
                self.result(writer.abort())
                self.names.go_on("create")
                self.names.go_on("put")
                before = dict(self.names.objects), list(self.data.calls)
                if kill:
                    self.kill()
                receipt = self.commit(upload, overwrite=overwrite)
                self.assertEqual(before, (self.names.objects, self.data.calls))
                self.assertEqual((250, upload.sha256), (receipt.size, receipt.sha256))
                self.assert_path(receipt)
                self.finish(upload, receipt)
                self.assertEqual(0, self.left_aside())

    def test_published_while_prune_deletes(self) -> None:
        """Prune may have read the old record, and delete that of an earlier try of this
        upload: it is no success before prune has ended.
        """
        name, mark = self.keys.name(TOKEN, NAME), self.keys.mark(TOKEN, NAME)
        for deletes in False, True:
            self.setUp()
            self.push(b"old")
            upload = self.whole()
            self.names.objects[mark] = b""
            writer = self.begun(upload)
            self.assert_refused(503, writer.commit({}, overwrite=True))
            self.result(writer.abort())
            self.kill()
            self.assert_refused(503, self.parts.ended(TOKEN, upload))
            writer = self.begun(upload)
            self.assert_refused(503, writer.commit({}, overwrite=True))
            done = Deferred.fromCoroutine(wait_for(writer.commit({}, overwrite=True)))
            self.assertNoResult(done)
            if deletes:
                del self.names.objects[name]
            del self.names.objects[mark]
            self.result(done)
            self.assert_stored()
            self.result(self.parts.remove(TOKEN, upload))

    def test_late_record_of_a_killed_daemon(self) -> None:
        """The record of an earlier try may arrive just before that of the next one."""
        upload = self.whole()
        self.result(self.prepared(upload).abort())
        (key,) = self.data.objects
        late = Record(key[-32:], key, 250, upload.sha256, NOW - 1)
        self.kill()
        name = self.keys.name(TOKEN, NAME)

        def arrive(call: str) -> None:
            if call == f"create {name}":
                self.names.objects[name] = late.text()

        self.names.before = arrive
        receipt = self.commit(upload)
        self.assertEqual(late, self.record())
        self.assertEqual((key, False), (receipt.path, receipt.replaced))
        self.assert_stored()
        self.assertEqual(1, len(self.orphans()))

    def test_killed_anywhere(self) -> None:
        """A daemon that is killed before or after any call of the store leaves an
        upload that the next daemon publishes, or has published, once.
        """
        for size in 50, 250:
            for overwrite in False, True:
                for before in False, True:
                    for number in itertools.count(1):
                        if not self.killed(size, overwrite, Kill(number, before)):
                            self.assertGreater(number, 4)
                            break

    def killed(self, size: int, overwrite: bool, kill: Kill) -> bool:
        """Whether the daemon was killed in the end of an upload, or earlier."""
        self.setUp()
        if overwrite:
            self.push(b"old")
        self.wrap = kill.during
        self.kill()
        upload = self.append(self.new(length=size), content(size))
        done = Deferred.fromCoroutine(
            wait_for(self.begun(upload).commit({}, overwrite))
        )
        self.wrap = lambda objects: objects
        self.kill()
        if done.called:
            self.successResultOf(done)
            return False
        if self.loaded():
            self.commit(upload, overwrite=overwrite)
        self.assert_stored(size)
        self.assertEqual(1, len(self.names.objects))
        self.assertEqual([], self.loaded())
        self.assertEqual(0, self.left_aside())
        return True


class Kill:
    """A daemon that is killed in a call of the store.

    :ivar left: calls until then
    """

    def __init__(self, left: int, before: bool) -> None:
        """
        :param before: whether the call has no effect any more
        """
        self.left = left
        self._before = before

    def during(self, objects: MemoryObjects) -> Any:
        """The same store, for this daemon."""
        return Killed(objects, self)

    async def call(
        self, real: Callable[..., Awaitable[T]], *args: Any, **named: Any
    ) -> T:
        """A call. The daemon never sees the answer to its last one."""
        self.left -= 1
        if self.left < 0 or (self._before and not self.left):
            await never()
        answer = await real(*args, **named)
        if not self.left:
            await never()
        return answer


class Killed:
    """An object store of a daemon that will be killed."""

    def __init__(self, objects: MemoryObjects, kill: Kill) -> None:
        self._objects = objects
        self._kill = kill

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(self._kill.call, getattr(self._objects, name))


def never() -> Deferred[None]:
    """An answer that does not come."""
    return Deferred()


def content(size: int) -> bytes:
    """The first bytes of a file in which no two parts are equal."""
    return b"".join(b"%d," % number for number in range(size))[:size]
