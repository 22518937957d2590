"""Tests of :mod:`filebucket.store.parts`, with all kinds of disk errors: what a client
is told is durable by then, and nothing is left but uploads that go on.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import asdict, evolve
from twisted.internet.defer import Deferred

from filebucket.base.hashes import Hashes
from filebucket.model.bucket import FILE_COST as FILES
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store import archive, aside, local, parts
from filebucket.store.archive import MOST_RECORD
from filebucket.store.aside import PartFile, UnnamedFile
from filebucket.store.interfaces import IPartWriter, LostError
from filebucket.store.parts import DirectoryParts
from filebucket.test.kit.descriptors import open_descriptors
from filebucket.test.kit.server import PATIENCE
from filebucket.test.store.contract import (
    NAME,
    TOKEN,
    PartsCase,
    PartsContract,
    sha256,
    wait_for,
)
from filebucket.test.store.test_disk import (
    DirectoryCase,
    fails,
    no_more_descriptors,
)

ERRORS = ((errno.EIO, 503), (errno.ENOSPC, 507), (errno.EMFILE, 503))
"""Errors of any call, and their statuses."""


class DirectoryPartsCase(DirectoryCase, PartsCase):
    """Has resumable uploads in a folder."""

    tier = UnnamedFile

    def setUp(self) -> None:
        super().setUp()
        self.patch(parts, "os", self.kernel)
        self.patch(archive, "os", self.kernel)
        # Every byte is written at once.
        self.patch(local, "BATCH", 1)
        self.uploads = os.path.join(self.home, ".filebucket", "uploads")
        self.store.prepare()
        self.parts = DirectoryParts(self.store)
        self.kernel.calls.clear()

    def tearDown(self) -> None:
        self.kernel.faults.clear()
        super().tearDown()
        # The data of an upload whose end is recorded is gone.
        self.assertLessEqual(set(self.received()), self.recorded())
        self.assertEqual([], [each for each in self.names() if each.endswith(".new")])

    def names(self) -> list[str]:
        return sorted(os.listdir(self.uploads))

    def restart(self) -> list[Unfinished]:
        self.result(self.drop_writers())
        self.store.close()
        self.store = self.make()
        self.store.prepare()
        self.parts = DirectoryParts(self.store)
        return self.loaded()

    async def drop_writers(self) -> None:
        """Let them end without an effect on the disk, as those of a killed daemon."""
        real, self.kernel.faults = self.kernel.faults, {"ftruncate": fails(errno.EIO)}
        for writer in self.writers:
            await writer.abort()
        self.writers.clear()
        self.kernel.faults = real

    def path(self, name: str) -> str:
        return os.path.join(self.uploads, name)

    def received(self) -> dict[str, bytes]:
        found = {}
        for name in self.names():
            if len(name) == 32:
                with open(self.path(name), "rb") as file:
                    found[name] = file.read()
        return found

    def recorded(self) -> set[str]:
        return {name[:-5] for name in self.names() if name.endswith(".json")}

    def spoil(self, upload: Unfinished, data: bytes) -> None:
        self.put(upload.id, data)

    def put(self, name: str, data: bytes) -> None:
        """Write a file in the folder of uploads."""
        with open(self.path(name), "wb") as file:
            file.write(data)


class DirectoryPartsTests(PartsContract, DirectoryPartsCase):
    """Uploads in a folder."""

    def order(self, *more: str) -> list[str]:
        """The calls that make something durable, in order."""
        return self.kernel.only("writev", "fsync", "link", "rename", "unlink", *more)

    # The order

    def test_order_of_a_creation(self) -> None:
        """The data is durable before the record, and the record before the answer."""
        self.push(b"", name="other")
        self.kernel.calls.clear()
        self.append(self.new())
        self.assertEqual(
            [
                "fsync data",
                "unlink new record",
                "fsync new record",
                "rename new record",
                "fsync uploads",
            ],
            self.order(),
        )

    def test_order_of_a_part(self) -> None:
        upload = self.append(self.new())
        self.kernel.calls.clear()
        self.append(upload, b"content")
        self.assertEqual(
            [
                "writev",
                "fsync data",
                "unlink new record",
                "fsync new record",
                "rename new record",
                "fsync uploads",
            ],
            self.order(),
        )

    def test_order_of_an_end(self) -> None:
        """All of it is durable before it gets its name, that before the record of the
        end, and only then the first name goes.
        """
        upload = self.append(self.new(), b"con")
        writer = self.begun(upload)
        self.kernel.calls.clear()
        self.result(writer.write([b"tent"]))
        receipt = self.result(writer.commit({}, overwrite=False))
        self.finish(upload, receipt)
        self.assertEqual(
            [
                "writev",
                "fsync data",
                "link",
                "fsync bucket",
                "unlink new record",
                "fsync new record",
                "rename new record",
                "fsync uploads",
                "unlink data",
            ],
            self.order(),
        )

    def test_order_of_an_overwriting_end(self) -> None:
        self.push(b"old")
        upload = self.append(self.new(), b"new")
        writer = self.begun(upload)
        self.kernel.calls.clear()
        self.result(writer.commit({}, overwrite=True))
        self.assertEqual(
            ["fsync data", "link", "link", "rename", "fsync bucket"], self.order()
        )

    def test_order_of_a_removal(self) -> None:
        """A record without data would be reported as a loss."""
        upload = self.append(self.new(), b"content")
        self.kernel.calls.clear()
        self.result(self.parts.remove(TOKEN, upload))
        self.assertEqual(
            ["unlink record", "fsync uploads", "unlink data"], self.order()
        )

    def test_order_of_a_start(self) -> None:
        """A name that the last daemon gave is durable before it counts."""
        upload = self.append(self.new(), b"content")
        self.commit(upload)
        self.store.close()
        self.store = self.make()
        self.store.prepare()
        self.parts = DirectoryParts(self.store)
        self.kernel.calls.clear()
        self.assertEqual([], self.loaded())
        self.assertEqual(
            [
                "fsync home",
                "fsync bucket",
                "unlink new record",
                "fsync new record",
                "rename new record",
                "fsync uploads",
                "unlink data",
            ],
            self.order(),
        )

    def test_synced_once(self) -> None:
        """An end syncs nothing again that a part has just synced."""
        upload = self.append(self.new())
        writer = self.begun(upload)
        self.result(writer.write([b"content"]))
        upload = self.kept(writer, upload, 7)
        self.result(self.parts.record(TOKEN, upload))
        self.kernel.calls.clear()
        self.result(writer.commit({}, overwrite=False))
        self.assertEqual(["link", "fsync bucket"], self.order())

    def test_modes(self) -> None:
        """Only the daemon can read any of it, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        upload = self.append(self.new(), b"content")
        for name in (upload.id, f"{upload.id}.json"):
            self.assertEqual(0o600, self.mode(self.uploads, name))
        self.assertEqual(0o700, self.mode(self.uploads))
        self.commit(upload)
        self.assertEqual(0o600, self.mode(self.bucket, NAME))

    # Errors

    def each_call(
        self, work: Callable[[], Awaitable[object]], ready: Callable[[], object]
    ) -> list[str]:
        """The calls of ``work``, each in its words.

        :param ready: prepares what it needs
        """
        ready()
        self.kernel.calls.clear()
        self.result(work())
        return list(dict.fromkeys(self.kernel.calls))

    def assert_each_call_can_fail(
        self,
        work: Callable[[], Awaitable[object]],
        ready: Callable[[], object],
        check: Callable[[], object],
    ) -> None:
        """Each call of ``work`` fails in each way: then it is refused and nothing else,
        no descriptor is lost, and ``check`` passes after it.
        """
        calls = self.each_call(work, ready)
        check()
        tried = 0
        for call in calls:
            if call.startswith("close"):
                continue
            for number, status in ERRORS:
                ready()
                before = open_descriptors()
                self.kernel.faults = {call: fails(number)}
                try:
                    done = Deferred.fromCoroutine(wait_for(work()))
                finally:
                    self.kernel.faults = {}
                refusal = self.assert_refused(status, wait(done))
                self.assertNotIn(self.home, refusal.reason)
                self.assert_closed(before)
                check()
                tried += 1
        self.assertGreater(tried, 6)

    def test_errors_of_a_creation(self) -> None:
        """Then the caller removes it, and nothing is left."""
        self.push(b"")
        uploads: list[Unfinished] = []

        async def create() -> None:
            upload = self.new(length=7)
            uploads.append(upload)
            writer = self.part_writer(upload)
            try:
                await writer.begin(7, overwrite=True)
                hashes = await writer.keep()
                upload = evolve(upload, sha256=hashes.hexdigest("sha256"))
                await self.parts.record(TOKEN, upload)
            except BaseException:
                await writer.abort()
                self.kernel.faults = {}
                await self.parts.remove(TOKEN, upload)
                raise
            finally:
                await writer.abort()

        def check() -> None:
            upload = uploads.pop()
            if self.names():
                self.result(self.parts.remove(TOKEN, upload))
            self.assertEqual([], self.names())

        self.assert_each_call_can_fail(create, lambda: None, check)
        self.assert_quota_left(3 * FILES, FILES)

    def test_errors_of_a_part(self) -> None:
        """The upload is where it was told to be, and goes on from there."""
        self.push(b"")
        upload = self.append(self.new(), b"first")
        told = [upload]
        known: list[Hashes] = []

        def ready() -> None:
            known.append(self.read_again(told[-1]))

        async def append() -> None:
            writer = self.part_writer(told[-1], known[-1])
            try:
                await writer.begin(6, overwrite=True)
                await writer.write([b"second"])
                hashes = await writer.keep()
                upload = evolve(
                    told[-1],
                    offset=told[-1].offset + 6,
                    sha256=hashes.hexdigest("sha256"),
                )
                await self.parts.record(TOKEN, upload)
                told.append(upload)
            finally:
                await writer.abort()

        def check() -> None:
            """All told bytes are there, and those that were recorded later."""
            upload = told[-1]
            self.assertEqual(
                upload.sha256, sha256(self.received()[upload.id][: upload.offset])
            )
            (found,) = self.restart()
            self.assertGreaterEqual(found.offset, upload.offset)
            self.assertEqual(
                found.sha256, sha256(self.received()[found.id][: found.offset])
            )
            told.append(found)

        self.assert_each_call_can_fail(append, ready, check)
        content = self.received()[upload.id][: told[-1].offset]
        self.assertEqual(b"first" + b"second" * (len(content) // 6), content)

    def test_errors_of_an_end(self) -> None:
        """There is no file then, and the upload is as it was."""
        self.push(b"", name="other")
        upload = self.append(self.new(), b"content")
        hashes = self.read_again(upload)

        async def commit() -> None:
            writer = self.part_writer(upload, hashes)
            try:
                await writer.begin(0, overwrite=True)
                await writer.commit({}, overwrite=False)
            finally:
                await writer.abort()

        def ready() -> None:
            if NAME in self.published():
                os.unlink(os.path.join(self.bucket, NAME))

        def check() -> None:
            if NAME in self.published():
                # Nothing failed.
                ready()
            self.assertEqual({upload.id: b"content"}, self.received())
            self.assertEqual([upload], self.restart())

        self.assert_each_call_can_fail(commit, ready, check)

    def test_errors_of_the_record_of_an_end(self) -> None:
        """If it cannot be recorded, the next daemon finds out."""
        names: list[Unfinished] = []

        def ready() -> None:
            upload = self.append(self.new(f"{len(names)}"), b"content")
            self.commit(upload)
            self.result(self.drop_writers())
            names.append(upload)

        async def finish() -> None:
            receipt = Finished(7, sha256(b"content"))
            await self.parts.finish(TOKEN, evolve(names[-1], finished=receipt))

        def check() -> None:
            self.assertEqual([], self.restart())
            self.assertEqual({}, self.received())
            found = self.result(self.parts.find(TOKEN, names[-1].id))
            assert found is not None
            self.assertEqual(Finished(7, sha256(b"content")), found.finished)
            self.assertEqual(b"content", self.published()[names[-1].name])

        self.assert_each_call_can_fail(finish, ready, check)

    def test_errors_of_a_removal(self) -> None:
        """It counts until it is gone, and another try, or the next start, removes it or
        finds it whole.
        """
        quota = 2 * FILES
        self.push(b"", name="other")
        for call in ("unlink record", "fsync uploads", "unlink data"):
            for number, status in ERRORS:
                upload = self.append(self.new(), bytes(10))
                self.kernel.faults = {call: fails(number)}
                self.assert_refused(status, self.parts.remove(TOKEN, upload))
                self.kernel.faults = {}
                if number == errno.EIO:
                    gone = call != "unlink record"
                    self.assertEqual([] if gone else [upload], self.restart())
                else:
                    writer = self.idle_writer(quota=quota)
                    self.assert_refused(507, writer.begin(0, overwrite=False))
                    self.result(writer.abort())
                self.result(self.parts.remove(TOKEN, upload))
                self.assertEqual([], self.names())
                writer = self.idle_writer(quota=quota)
                self.result(writer.begin(0, overwrite=False))
                self.result(writer.abort())

    def test_errors_of_look_and_sweep(self) -> None:
        upload = self.append(self.new(), b"content")
        self.finish(upload, self.commit(upload))
        for call in ("open record", "fstat record"):
            for number, status in ERRORS:
                before = open_descriptors()
                self.kernel.faults = {call: fails(number)}
                self.assert_refused(status, self.parts.find(TOKEN, upload.id))
                self.assert_refused(status, self.parts.sweep(2.0**33))
                self.assert_closed(before)
        self.kernel.faults = {"unlink record": fails(errno.EIO)}
        self.assert_refused(503, self.parts.sweep(2.0**33))
        self.kernel.faults = {}
        self.assertIsNotNone(self.result(self.parts.find(TOKEN, upload.id)))

    def test_a_failed_sync_is_not_tried_again(self) -> None:
        """Bytes whose sync failed are written again, or are not in the upload."""
        upload = self.append(self.new(), b"first")
        writer = self.begun(upload)
        self.result(writer.write([b"second"]))
        self.kernel.faults["fsync data"] = fails(errno.EIO)
        self.kernel.calls.clear()
        self.assert_refused(503, writer.keep())
        self.kernel.faults.clear()
        self.assert_refused(503, writer.keep())
        self.assert_refused(503, writer.commit({}, overwrite=False))
        self.assertEqual(["fsync data"], self.kernel.only("fsync"))
        self.result(writer.abort())
        self.assertEqual({upload.id: b"first"}, self.received())
        self.append(upload, b"again")
        self.assertEqual(1, self.kernel.calls.count("fsync data") - 1)
        self.assertEqual({upload.id: b"firstagain"}, self.received())

    def test_a_failed_write(self) -> None:
        """How much of it came is unknown, so none of it is kept."""
        for number, status in ((errno.ENOSPC, 507), (errno.EIO, 503)):
            upload = self.append(self.new(f"{number}"), b"first")
            writer = self.begun(upload)

            def some(fd: int, chunks: Any, number: int = number) -> int:
                self.kernel.faults["writev"] = fails(number)
                return os.write(fd, bytes(chunks[0])[:2])

            self.kernel.faults["writev"] = some
            self.assert_refused(status, writer.write([b"sec" + bytes(30_000)]))
            self.kernel.faults.clear()
            self.assert_refused(503, writer.keep())
            self.assert_refused(503, writer.commit({}, overwrite=False))
            self.result(writer.abort())
            self.assertEqual(b"first", self.received()[upload.id])

    def test_cutting_off_failed(self) -> None:
        """If bytes cannot be cut off at the end of a request, the next one does it; if
        that fails, too, it is refused.
        """
        upload = self.append(self.new(), b"first")
        writer = self.begun(upload)
        self.result(writer.write([b"wrong" + bytes(30_000)]))
        self.kernel.faults["ftruncate"] = fails(errno.EIO)
        self.result(writer.abort())
        self.assertLess(30_000, len(self.received()[upload.id]))
        writer = self.part_writer(upload)
        self.assert_refused(503, writer.begin(0, overwrite=True))
        self.result(writer.abort())
        self.kernel.faults.clear()
        self.append(upload, b"second")
        self.assertEqual({upload.id: b"firstsecond"}, self.received())

    def test_bucket_sync_failed_and_name_stays(self) -> None:
        """A file whose name could not be removed after a failed sync is never written
        to again, and counts as published by the next start.
        """
        upload = self.append(self.new(), b"content")
        writer = self.begun(upload)
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        self.kernel.faults["unlink"] = fails(errno.EROFS)
        self.assert_refused(503, writer.commit({}, overwrite=False))
        self.result(writer.abort())
        self.kernel.faults.clear()
        writer = self.part_writer(upload)
        self.assert_refused(503, writer.begin(0, overwrite=True))
        self.result(writer.abort())
        self.assertEqual([], self.restart())
        self.assertEqual({NAME: b"content"}, self.published())

    def test_replaced_and_bucket_sync_failed(self) -> None:
        """A rename cannot be undone: the file is whole then, whatever was not kept."""
        self.push(b"old")
        upload = self.append(self.new(), b"n")
        writer = self.begun(upload)
        self.result(writer.write([b"ew"]))
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        self.assert_refused(503, writer.commit({}, overwrite=True))
        self.result(writer.abort())
        self.assertEqual({NAME: b"new"}, self.published())

    def test_out_of_descriptors(self) -> None:
        """Without free descriptors the server is overloaded, and recovers. Nothing is
        lost.
        """
        upload = self.append(self.new(), b"first")
        writer = self.part_writer(upload)
        with no_more_descriptors():
            beginning = Deferred.fromCoroutine(wait_for(writer.begin(0, True)))
            recording = Deferred.fromCoroutine(
                wait_for(self.parts.record(TOKEN, upload))
            )
            looking = Deferred.fromCoroutine(
                wait_for(self.parts.find(TOKEN, upload.id))
            )
            with self.assertRaises(OSError):
                self.read_again(upload)
            with self.assertRaises(OSError):
                self.parts.load(self.directory_of)
        for done in (beginning, recording, looking):
            self.assert_refused(503, wait(done))
        self.result(writer.abort())
        self.assertEqual([upload], self.restart())
        self.append(upload, b"second")

    def test_data_cannot_be_read_now(self) -> None:
        """That is not a loss; a damaged disk is."""
        upload = self.append(self.new(), b"content")
        before = open_descriptors()
        for number in (errno.EMFILE, errno.ENOMEM, errno.EACCES):
            self.kernel.faults = {"open data": fails(number)}
            self.assertRaises(OSError, self.read_again, upload)
        for number in (errno.EIO, errno.EUCLEAN, errno.ENOENT, errno.ELOOP):
            self.kernel.faults = {"open data": fails(number)}
            self.assertRaises(LostError, self.read_again, upload)
        self.assert_closed(before)

    def test_bucket_on_another_filesystem(self) -> None:
        """Its uploads are refused with a reason before anything is received."""
        os.symlink("/proc/self", self.bucket)
        writer = self.part_writer(self.new())
        refusal = self.assert_refused(501, writer.begin(0, overwrite=True))
        self.assertIn("another filesystem", refusal.reason)
        self.result(writer.abort())
        self.assertEqual([], self.names())

    def test_bucket_on_another_mount(self) -> None:
        """A folder that is mounted there from the same filesystem cannot have links
        either.
        """
        places = iter([(1, "mnt_id:\t2"), (1, "mnt_id:\t3")])
        self.patch(aside, "_place", lambda fd: next(places))
        writer = self.part_writer(self.new())
        self.assert_refused(501, writer.begin(0, overwrite=True))
        self.result(writer.abort())
        self.assertEqual([], self.names())

    def test_bucket_that_cannot_be_written(self) -> None:
        """Otherwise only the end of an upload would find out."""
        upload = self.append(self.new(), b"first")
        for each in self.new("other"), upload:
            self.kernel.faults = {"access bucket": lambda *_, **more: False}
            writer = self.part_writer(each)
            self.assert_refused(401, writer.begin(0, overwrite=True))
            self.result(writer.abort())
            self.kernel.faults = {}
        self.assertEqual({upload.id: b"first"}, self.received())
        self.append(upload, b"second")

    def test_stuck(self) -> None:
        """If the bucket's disk is stuck, a request is refused at once."""
        upload = self.append(self.new(), b"first")
        self.lines.stuck.add(TOKEN)
        works: tuple[Callable[[IPartWriter], Awaitable[object]], ...] = (
            lambda writer: writer.begin(0, overwrite=True),
            lambda writer: writer.keep(),
            lambda writer: writer.write([bytes(100_000)]),
        )
        for work in works:
            writer = self.part_writer(upload)
            self.assert_refused(503, work(writer))
            self.result(writer.abort())

    # Starts

    def test_what_a_crash_leaves(self) -> None:
        """Data without a record, half a record, and files of no upload."""
        upload = self.append(self.new(), b"content")
        for name in ("0" * 32, f"{upload.id}.new", "f" * 32 + ".new", "x", ".json"):
            self.put(name, b"left")
        os.symlink("/etc/passwd", self.path("link"))
        self.assertEqual([upload], self.restart())
        self.assertEqual([upload.id, f"{upload.id}.json"], self.names())
        self.assertTrue(os.path.exists("/etc/passwd"))

    def test_leftovers_that_stay(self) -> None:
        """A leftover that cannot be deleted keeps no daemon from its start."""
        upload = self.append(self.new(), b"content")
        os.mkdir(self.path("folder"))
        self.assertEqual([upload], self.restart())
        self.assertEqual(
            ["upload 'folder': cannot delete a leftover: Is a directory"],
            self.logged(),
        )
        os.rmdir(self.path("folder"))

    def test_records_that_are_none(self) -> None:
        """They are reported, without their secret id, and removed with their data."""
        other = self.append(self.new("other"), b"other")
        upload = self.append(self.new(promised={"sha512": "00" * 64}), b"content")
        good = asdict(upload)
        wrong: list[dict[str, Any]] = [
            {"id": other.id},
            {"id": "../lock"},
            {"offset": -1},
            {"offset": "x"},
            {"offset": 10**400},
            {"offset": None},
            {"length": 6},
            {"name": "../x"},
            {"name": "a/b"},
            {"name": ""},
            {"name": "\ud800"},
            {"token": "secret"},
            {"token": "ab"},
            {"sha256": ""},
            {"sha256": "ab" * 31},
            {"promised": {"sha512": "x"}},
            {"promised": {"none such": "ab"}},
            {"promised": [1]},
            {"touched_at": float("nan")},
            {"created_at": float("inf")},
            {"seconds": "long"},
            {"finished": 5},
        ]
        texts = [json.dumps({**good, **each}).encode() for each in wrong]
        whole = json.dumps(good).encode()
        texts += [whole[:size] for size in range(0, len(whole), 40)]
        texts += [b"[]", b"5", b"null", b'"x"', b"\xff", b"{", b"[" * 20_000]
        texts += [whole + b" " * MOST_RECORD, b"\0" * 4096]
        missing = [
            {k: v for k, v in good.items() if k != key} for key in ("id", "name")
        ]
        texts += [json.dumps(each).encode() for each in missing]
        for text in texts:
            self.put(upload.id, b"content")
            self.put(f"{upload.id}.json", text)
            self.assertEqual([other], self.restart(), text[:300])
            self.assert_nothing_of(upload)
        logged = self.logged()
        self.assertEqual(len(texts), len(logged))
        for line in logged:
            self.assertRegex(line, r"\Aupload '[0-9a-f]{6}': lost: its (record|data) ")
            self.assertNotIn(upload.id, line)

    def test_records_under_other_names(self) -> None:
        """Only this daemon's ids name an upload."""
        for identity in ("x", "A" * 32, "a" * 33, "a" * 31, "x.json"):
            upload = evolve(self.new(), id=identity, sha256=sha256(b""))
            self.put(identity, b"")
            self.put(f"{identity}.json", json.dumps(asdict(upload)).encode())
        self.assertEqual([], self.restart())
        self.assertEqual([], self.names())

    def test_records_that_are_no_files(self) -> None:
        """A link, a folder or a pipe is not followed, listed or waited for."""
        upload = self.append(self.new(), b"content")
        record = self.path(f"{upload.id}.json")
        precious = os.path.join(self.home, "precious")
        os.rename(record, precious)
        for make in (
            lambda: os.symlink(precious, record),
            lambda: os.symlink("nowhere", record),
            lambda: os.symlink(record, record),
            lambda: os.mkfifo(record),
        ):
            self.put(upload.id, b"content")
            make()
            before = open_descriptors()
            self.assertIsNone(self.result(self.look(upload)))
            self.assert_closed(before)
            self.assertEqual([], self.restart())
            self.assertEqual([], self.names())
        self.assertTrue(os.path.exists(precious))
        os.unlink(precious)

    async def look(self, upload: Unfinished) -> object:
        """Whether a request finds it."""
        try:
            return await self.parts.find(TOKEN, upload.id)
        except Exception:
            return None

    def test_data_that_is_no_file(self) -> None:
        """Nothing is read or written through a link or a pipe."""
        precious = os.path.join(self.home, "precious")
        with open(precious, "wb") as file:
            file.write(b"content, and more")
        makes: tuple[Callable[[str], None], ...] = (
            lambda path: os.symlink(precious, path),
            lambda path: os.symlink("nowhere", path),
            os.mkfifo,
        )
        for make in makes:
            upload = self.append(self.new(), b"content")
            hashes = self.read_again(upload)
            os.unlink(self.path(upload.id))
            make(self.path(upload.id))
            before = open_descriptors()
            self.assertRaises(LostError, self.read_again, upload)
            writer = self.part_writer(upload, hashes)
            self.assert_lost(writer)
            self.result(writer.abort())
            self.assert_closed(before)
            self.assertEqual([], self.restart())
            self.assertEqual([], self.names())
        with open(precious, "rb") as file:
            self.assertEqual(b"content, and more", file.read())
        os.unlink(precious)

    def test_data_with_another_name(self) -> None:
        """Data that has a name elsewhere would change there, too: it is neither
        continued nor taken for published.
        """
        os.mkdir(os.path.join(self.home, "elsewhere"))
        upload = self.append(self.new(), b"content")
        elsewhere = os.path.join(self.home, "elsewhere", NAME)
        os.link(self.path(upload.id), elsewhere)
        for name in ("", NAME):
            if name:
                upload = self.append(self.new(), b"content")
                os.unlink(elsewhere)
                os.link(self.path(upload.id), elsewhere)
                self.push(b"another")
            writer = self.part_writer(upload)
            self.assert_refused(503, writer.begin(0, overwrite=True))
            self.result(writer.abort())
            self.assertEqual([], self.restart())
            self.assertEqual([], self.names())
        with open(elsewhere, "rb") as file:
            self.assertEqual(b"content", file.read())
        self.assertEqual({NAME: b"another"}, self.published())
        os.unlink(elsewhere)

    def test_cannot_be_read_now(self) -> None:
        """An upload that is out of reach at the start is reported, and is there at the
        next one.
        """
        upload = self.append(self.new(), b"content")
        for call in ("open record", "lstat"):
            for number in (errno.EMFILE, errno.ENOMEM, errno.EACCES):
                self.kernel.faults = {call: fails(number)}
                self.assertEqual([], self.loaded())
                self.kernel.faults = {}
                self.assertEqual([upload], self.loaded())
        self.assertEqual(6, len(self.logged()))
        self.assertEqual(
            "upload '000000': cannot be read: Too many open files", self.logged()[0]
        )

    def test_damaged(self) -> None:
        """If its record is on a damaged part of the disk, it is lost."""
        for number in (errno.EIO, errno.EUCLEAN):
            self.append(self.new(), b"content")
            self.kernel.faults = {"open record": fails(number)}
            self.assertEqual([], self.loaded())
            self.kernel.faults = {}
            self.assertEqual([], self.names())

    def test_published_and_not_recorded(self) -> None:
        """If the end cannot be recorded at the start either, it is at a later one."""
        upload = self.append(self.new(), b"content")
        self.commit(upload)
        for call in ("fsync bucket", "fsync new record", "rename new record"):
            self.kernel.faults = {call: fails(errno.ENOSPC)}
            self.assertEqual([], self.loaded())
            self.kernel.faults = {}
            self.assertIsNone(self.result(self.parts.find(TOKEN, upload.id)))
        self.assertEqual([], self.loaded())
        self.assertIsNotNone(self.result(self.parts.find(TOKEN, upload.id)))
        self.assertEqual({NAME: b"content"}, self.published())

    def test_bucket_is_gone(self) -> None:
        """An upload to a bucket that is no longer configured is returned, for its
        removal; no folder is made for it.
        """
        upload = evolve(self.append(self.new(), b"content"), bucket="gone")
        self.result(self.parts.record(TOKEN, upload))
        self.assertEqual([upload], self.restart())
        self.result(self.parts.remove("", upload))
        self.assertEqual([], self.names())

    def test_most_that_have_ended(self) -> None:
        """The oldest records of a bucket make place for new ones, now and later."""
        self.patch(parts, "MOST_ENDED", 2)

        def end(name: str, at: float, bucket: str = TOKEN) -> str:
            upload = self.append(evolve(self.new(name), bucket=bucket), b"content")
            upload = evolve(upload, touched_at=at)
            self.finish(upload, self.commit(upload))
            return upload.id

        other = end("other", 1.0, "db01")
        _, second, third = (end(str(at), at) for at in (2.0, 3.0, 4.0))
        self.assertEqual({other, second, third}, self.recorded())
        self.assertEqual([], self.restart())
        fourth = end("4", 5.0)
        self.assertEqual({other, third, fourth}, self.recorded())
        self.patch(parts, "MOST_ENDED", 1)
        self.restart()
        self.assertEqual({other, fourth}, self.recorded())
        self.result(self.parts.sweep(2.0**33))
        self.assertEqual(set(), self.recorded())
        fifth = end("5", 6.0)
        self.assertEqual({fifth}, self.recorded())

    def test_many_that_have_ended(self) -> None:
        """A start reads 10,000 records within the bound of a start."""
        upload = self.append(self.new(), b"content")
        going_on = self.append(self.new("other"), b"other")
        ended = asdict(self.finish(upload, self.commit(upload)))
        for number in range(10_000):
            identity = f"{number:032x}".replace("0", "e", 8)
            bucket = f"bucket{number % 20}"
            record = json.dumps({**ended, "id": identity, "bucket": bucket}).encode()
            self.put(f"{identity}.json", record)
        self.patch(parts, "os", os)
        began = self.seconds()
        self.assertEqual([going_on], self.restart())
        self.assertLess(self.seconds() - began, PATIENCE)
        self.assertEqual(10_003, len(self.names()))
        self.result(self.parts.sweep(2.0**33))
        self.assertEqual([going_on.id, f"{going_on.id}.json"], self.names())

    def seconds(self) -> float:
        """Processor time, which other programs do not take."""
        found = os.times()
        return found.user + found.system

    def test_part_file(self) -> None:
        """A writer uses the upload's own file."""
        writer = self.begun(self.new())
        assert isinstance(writer, parts.DirectoryPartWriter)
        self.assertIsInstance(writer._aside, PartFile)
        self.assertEqual(["0" * 31 + "1"], self.names())
        self.result(self.parts.remove(TOKEN, evolve(self.new(), id="0" * 31 + "1")))


async def wait(done: Deferred[Any]) -> Any:
    return await done
