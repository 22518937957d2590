"""Tests of :mod:`filebucket.upkeep.copy`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from filebucket.catalogue.copies import Copies
from filebucket.catalogue.database import Database
from filebucket.catalogue.files import Files
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.view import View
from filebucket.model.mask import mask
from filebucket.model.records import Copy, File
from filebucket.store.archive import DirectoryArchive, Folder
from filebucket.store.interfaces import IStoredFile
from filebucket.test.kit.catalogue import opened
from filebucket.test.kit.commands import DAY, TOKEN, UpkeepCase
from filebucket.upkeep import copy as module
from filebucket.upkeep.copy import (
    BucketCopy,
    DamagedError,
    Done,
    IFar,
    NotCopiedError,
    StoppedError,
    TakenError,
    in_turn,
)

FAR = "https://far.example"


@implementer(IFar)
class MemoryFar:
    """Another server.

    :ivar stored: the SHA-256 of its files
    :ivar faults: raised for the files with these names
    :ivar losses: raised for the files with these names when it is known that they are
        not there
    :ivar before: called with the name of each file before it is sent
    """

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.faults: dict[str, Exception] = {}
        self.losses: dict[str, Exception] = {}
        self.before: Callable[[str], object] = lambda name: None
        self.asked: list[str] = []
        self.closed = 0

    def check(self) -> None:
        if "" in self.faults:
            raise self.faults[""]

    def send(
        self,
        file: File,
        opened: Callable[[], AbstractContextManager[IStoredFile]],
        expected: bool,
    ) -> bool:
        name, sha256 = file.received.name, file.received.sha256
        self.asked.append(name)
        self.before(name)
        if name in self.faults:
            raise self.faults[name]
        if self.stored.get(name) == sha256:
            return False
        if name in self.stored:
            raise TakenError("taken")
        with opened() as stored:
            if name in self.losses:
                raise self.losses[name]
            content = stored.copy(lambda piece: None)
        if content.sha256 != sha256:
            raise DamagedError
        self.stored[name] = sha256
        return True

    def close(self) -> None:
        self.closed += 1


class CopyCase(UpkeepCase):
    def setUp(self) -> None:
        super().setUp()
        self.far = MemoryFar()
        self.clock = Clock()
        self.told: list[tuple[str, str]] = []
        self.bytes = 0
        self.wall = 0.0
        self.bucket = self.named
        self.copies = opened(self, Copies, self.home)

    def made(self) -> BucketCopy:
        return BucketCopy(
            opened(self, Files, self.home),
            opened(self, Inventory, self.home),
            self.copies,
            DirectoryArchive(str(self.home)),
            self.bucket,
            self.far,
            FAR,
            mask((self.named, self.nameless)),
            lambda: self.wall or time.time(),
            self.clock.seconds,
            2.0,
            lambda name, reason: self.told.append((name, reason)),
            self.moved,
        )

    def moved(self, size: int) -> None:
        self.bytes += size

    def copy(self) -> Done:
        made = self.made()
        for _ in made.run():
            pass
        return made.done

    def recorded(self) -> Copy:
        with closing(View.open(str(self.home))) as view:
            (found,) = view.copies()
        return found

    def received(self, name: str) -> float:
        return self.files()[name].received.received_at


class CopiedTests(CopyCase):
    def test_all(self) -> None:
        """Oldest first; the next time they are there."""
        self.push("new", b"12345", age=DAY)
        self.push("old", b"123", age=2 * DAY)
        done = self.copy()
        self.assertEqual(["old", "new"], self.far.asked)
        self.assertEqual((2, 8, 0, 0), _counts(done))
        self.assertEqual(8, self.bytes)
        found = self.recorded()
        self.assertEqual((FAR, "web01", None, None), _result(found))
        assert found.until is not None
        self.assertLess(time.time() - found.until, 60)
        self.assertEqual((0, 0, 2, 0), _counts(self.copy()))
        self.assertEqual(2, self.far.closed)

    def test_lost_there(self) -> None:
        """It is copied again, which is an error: backups get lost there."""
        for number in range(3):
            self.push(f"db-{number}", age=DAY * (9 - number))
        self.copy()
        until = self.recorded().until
        del self.far.stored["db-1"]
        seen = []
        self.far.before = lambda name: seen.append(self.recorded().until)
        done = self.copy()
        self.assertEqual((1, 7, 2, 0), _counts(done))
        self.assertEqual(1, done.again)
        # It is not claimed to be there while it is sent.
        self.assertEqual([until, until, self.received("db-0")], seen)
        error = "1 file copied before was no longer there, and was sent again"
        self.assertEqual(error, self.recorded().error)
        self.far.stored.clear()
        error = "3 files copied before were no longer there, and were sent again"
        self.assertEqual(error, self.copy().error)
        self.assertIsNone(self.copy().error)

    def test_nothing(self) -> None:
        self.assertEqual((0, 0, 0, 0), _counts(self.copy()))
        self.assertIsNotNone(self.recorded().until)

    def test_just_received(self) -> None:
        """The row of an older file may come later."""
        self.push("db", age=1.0)
        began = time.time()
        self.copy()
        self.assertIn("db", self.far.stored)
        until = self.recorded().until
        assert until is not None
        self.assertTrue(began - 2 <= until < self.received("db"))

    def test_received_meanwhile(self) -> None:
        """During a copy that takes long; also if its row comes later."""
        self.push("db-0", age=DAY)
        began = self.wall = time.time()

        def happens(name: str) -> None:
            if name == "db-0":
                self.wall += 7200
                self.push("db-1", age=-60)
                self.push("db-3", age=-7199.5)
            if name == "db-3":
                self.push("db-2", age=-7199)

        self.far.before = happens
        self.copy()
        self.assertEqual(["db-0", "db-1", "db-3"], self.far.asked)
        found = self.recorded()
        self.assertEqual(began + 7200 - 2, found.until)
        self.assertEqual(self.received("db-2"), found.waiting_since)

    def test_clocks(self) -> None:
        """A time in the future is an error of a clock, here or of a file."""
        self.push("db-0", age=DAY)
        self.push("db-1", age=-DAY)
        self.copies.copied(FAR, "web01", time.time() + DAY, 1.0, None)
        for error in (StoppedError("the server is away"), None):
            self.far.faults = {} if error is None else {"db-1": error}
            self.copy()
            until = self.recorded().until
            assert until is not None
            self.assertLess(until, time.time())
        self.assertEqual({"db-0", "db-1"}, set(self.far.stored))

    def test_entered(self) -> None:
        """An old file that another program brought is not there yet."""
        self.push("db-1", age=DAY)
        self.copy()
        path = self.put("db-0")
        os.utime(path, (time.time() - 9 * DAY,) * 2)
        self.run_("reindex")
        found = self.recorded()
        self.assertEqual(self.received("db-0"), found.waiting_since)
        done = self.copy()
        self.assertEqual((1, 0, None), (done.sent, done.again, done.error))
        self.assertIsNone(self.recorded().waiting_since)

    def test_progress(self) -> None:
        """It is recorded once a minute, and does not get less without a reason."""
        for number in range(3):
            self.push(f"db-{number}", age=DAY * (9 - number))
        at = [self.received(f"db-{number}") for number in range(3)]
        for before, expected in ((None, at[1]), (at[2], at[2])):
            if before is not None:
                self.copies.copied(FAR, "web01", before, 1.0, None)
            run = self.made().run()
            next(run)
            self.assertEqual(before, self.copies.copied_until(FAR, "web01"))
            self.clock.advance(60)
            next(run)
            self.assertEqual(expected, self.copies.copied_until(FAR, "web01"))

    def test_pause(self) -> None:
        """Neither rows nor the connection are kept: there may be many buckets."""
        pages: list[str] = []
        pages_of = Files._pages

        def counted(*given: Any) -> Iterator[File]:
            pages.append("begin")
            try:
                yield from pages_of(*given)
            finally:
                pages.append("end")

        self.patch(Files, "_pages", counted)
        for number in range(3):
            self.push(f"db-{number}", age=DAY)
        run = self.made().run()
        next(run)
        run.send(True)
        self.assertEqual((["begin", "end"], 1), (pages, self.far.closed))
        self.assertEqual(["db-0"], self.far.asked)
        next(run)
        next(run)
        run.send(True)
        self.assertEqual(["db-0", "db-1", "db-2"], self.far.asked)
        self.assertEqual([], list(run))
        found = self.recorded()
        self.assertEqual((None, None), (found.error, found.waiting_since))


def _counts(done: Done) -> tuple[int, int, int, int]:
    return done.sent, done.sent_bytes, done.there, done.failed


def _result(copy: Copy) -> tuple[str, str, str | None, float | None]:
    return copy.target, copy.bucket, copy.error, copy.waiting_since


class FailedTests(CopyCase):
    """A file that is not there at the end."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(4):
            self.push(f"db-{number}", age=DAY * (9 - number))

    def fails(self, name: str, reason: str, sent: int = 3) -> None:
        """One file fails, and the others are copied."""
        done = self.copy()
        self.assertEqual((sent, 1), (done.sent, done.failed))
        self.assertEqual([(name, reason)], self.told)
        found = self.recorded()
        self.assertEqual(f"{name}: {reason}", found.error)
        self.assertEqual(self.received("db-1"), found.until)
        self.assertEqual(self.received(name), found.waiting_since)

    def test_refused(self) -> None:
        self.far.faults["db-2"] = NotCopiedError("no")
        self.fails("db-2", "no")

    def test_taken(self) -> None:
        self.far.stored["db-2"] = "other"
        self.fails("db-2", "taken")

    def test_rotten(self) -> None:
        """It is damaged from now on, and not tried again."""
        self.damage(self.home / "web01" / "db-2")
        self.fails("db-2", "damaged here, and not on the other server")
        self.assertTrue(self.files()["db-2"].damaged)
        self.damage(self.home / "web01" / "db-2")
        self.told.clear()
        self.fails("db-2", "damaged here, and not on the other server", sent=0)

    def test_rotten_but_there(self) -> None:
        """A copy from before it was damaged is as good."""
        self.copy()
        self.damage(self.home / "web01" / "db-2")
        self.found("verify")
        done = self.copy()
        self.assertEqual((4, 0), (done.there, done.failed))

    def test_truncated(self) -> None:
        os.truncate(self.home / "web01" / "db-2", 3)
        self.fails("db-2", "damaged here, and not on the other server")

    def test_gone(self) -> None:
        (self.home / "web01" / "db-2").unlink()
        self.fails("db-2", "the file is gone; 'filebucket verify' finds missing files")

    def test_not_a_file(self) -> None:
        path = self.home / "web01" / "db-2"
        path.unlink()
        os.mkfifo(path)
        self.fails("db-2", "not a regular file")

    def test_changes(self) -> None:
        """While it is opened."""
        open_ = Folder._open

        def replaced(folder: Folder, name: str) -> int:
            if name == "db-2":
                (self.home / "web01" / "db-2").unlink()
                self.put("db-2")
            return open_(folder, name)

        self.patch(Folder, "_open", replaced)
        self.fails("db-2", "it changed while it was read")

    def test_disk_error(self) -> None:
        open_ = Folder._open

        def broken(folder: Folder, name: str) -> int:
            if name == "db-2":
                raise OSError(13, "Permission denied")
            return open_(folder, name)

        self.patch(Folder, "_open", broken)
        self.fails("db-2", "Permission denied")
        self.assertFalse(self.files()["db-2"].damaged)

    def test_lost(self) -> None:
        """The disk cannot read it."""
        open_ = Folder._open

        def broken(folder: Folder, name: str) -> int:
            if name == "db-2":
                raise OSError(5, "Input/output error")
            return open_(folder, name)

        self.patch(Folder, "_open", broken)
        self.fails("db-2", "damaged here, and not on the other server")
        self.assertTrue(self.files()["db-2"].damaged)

    def test_impossible(self) -> None:
        """A row that no push can have keeps no other file from its copy."""
        with (
            closing(Database.open(str(self.home))) as catalogue,
            catalogue._change() as do,
        ):
            do("UPDATE push SET sha256 = ? WHERE name = 'db-2'", ("\u202e\r\n",))
        self.fails(
            "db-2",
            "the catalogue has an invalid entry: a checksum must be 64 hexadecimal"
            " digits",
        )

    def test_several(self) -> None:
        for number in (0, 2, 3):
            self.far.faults[f"db-{number}"] = NotCopiedError("no")
        self.assertEqual("db-0: no (and 2 more files)", self.copy().error)
        self.assertIsNone(self.recorded().until)

    def test_names(self) -> None:
        """Tokens are masked, also if the server repeats a name, and other characters
        escaped.
        """
        self.push(f"{TOKEN}\u202e", age=DAY)
        for fault in (NotCopiedError(f"no {TOKEN}"), StoppedError(f"{TOKEN} is bad")):
            self.far.faults[f"{TOKEN}\u202e"] = fault
            error = self.copy().error
            assert error is not None
            self.assertNotIn(TOKEN, error)
            self.assertNotIn("\u202e", error)
            self.assertNotIn(TOKEN, str(self.told))


class StoppedTests(CopyCase):
    """The others are not tried."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(4):
            self.push(f"db-{number}", age=DAY * (9 - number))

    def test_stopped(self) -> None:
        """The time before which everything is there does not become earlier."""
        self.far.faults["db-2"] = StoppedError("the server is away")
        for before, until in (
            (None, self.received("db-1")),
            (self.received("db-3"), self.received("db-3")),
        ):
            if before is not None:
                self.copies.copied(FAR, "web01", before, 1.0, None)
            self.far.asked.clear()
            done = self.copy()
            self.assertEqual(["db-0", "db-1", "db-2"], self.far.asked)
            self.assertEqual("the server is away", done.error)
            self.assertEqual(until, self.recorded().until)
        self.assertEqual(2, self.far.closed)

    def test_stopped_at_a_lost_one(self) -> None:
        """The one that cannot be sent is known not to be there."""
        for number in range(4):
            row = self.files()[f"db-{number}"]
            self.far.stored[row.received.name] = row.received.sha256
        self.copy()
        del self.far.stored["db-2"]
        self.far.losses["db-2"] = StoppedError("the disk is full")
        self.copy()
        self.assertEqual(self.received("db-1"), self.recorded().until)

    def test_stopped_after_a_failure(self) -> None:
        """It is known that not everything is there."""
        self.copies.copied(FAR, "web01", self.received("db-3"), 1.0, None)
        self.far.faults["db-1"] = NotCopiedError("no")
        self.far.faults["db-2"] = StoppedError("the server is away")
        self.copy()
        self.assertEqual(self.received("db-0"), self.recorded().until)

    def test_not_there(self) -> None:
        """Nothing is recorded about a server to which nothing was ever copied."""
        self.far.faults[""] = StoppedError("no file-bucket")
        self.assertEqual("no file-bucket", self.copy().error)
        self.assertEqual([], self.far.asked)
        with closing(View.open(str(self.home))) as view:
            self.assertEqual([], view.copies())
        del self.far.faults[""]
        self.copy()
        self.far.faults[""] = StoppedError("no file-bucket")
        self.copy()
        self.assertEqual("no file-bucket", self.recorded().error)

    def test_too_many_taken(self) -> None:
        self.patch(module, "MOST_TAKEN", 2)
        self.far.stored = {"db-0": "other", "db-2": "other"}
        done = self.copy()
        self.assertEqual(["db-0", "db-1", "db-2"], self.far.asked)
        self.assertEqual(
            "stopped after 2 files with other content on that server", done.error
        )

    def test_too_many_refused(self) -> None:
        """In a row, by the server."""
        self.patch(module, "MOST_REFUSED", 2)
        for number in (0, 2, 3):
            self.far.faults[f"db-{number}"] = NotCopiedError("no")
        self.push("db-4", age=DAY)
        done = self.copy()
        self.assertEqual([f"db-{number}" for number in range(4)], self.far.asked)
        self.assertEqual("stopped after 2 refused files: db-0: no", done.error)

    def test_too_many_damaged(self) -> None:
        """Nothing is wrong with the server."""
        self.patch(module, "MOST_REFUSED", 2)
        for number in range(3):
            self.damage(self.home / "web01" / f"db-{number}")
        self.assertEqual((1, 3), (self.copy().sent, self.told and 3))


class MeanwhileTests(CopyCase):
    """What happens between the choice of a file and its copy."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(3):
            self.push(f"db-{number}", age=DAY * (9 - number))

    def meanwhile(self, happens: Callable[[], object]) -> Done:
        self.far.before = lambda name: happens() if name == "db-0" else None
        done = self.copy()
        self.assertEqual([], self.told)
        self.assertIsNone(done.error)
        return done

    def test_replaced(self) -> None:
        """The new file is copied when its turn comes."""
        row = self.files()["db-1"]

        def happens() -> None:
            self.push("db-1", b"newer", age=DAY)

        done = self.meanwhile(happens)
        self.assertEqual(3, done.sent)
        self.assertNotEqual(row.received.sha256, self.far.stored["db-1"])

    def test_pruned(self) -> None:
        def happens() -> None:
            with closing(Inventory.open(str(self.home))) as inventory:
                inventory.prune([self.files()["db-1"].id], time.time())
            (self.home / "web01" / "db-1").unlink()

        self.assertEqual(2, self.meanwhile(happens).sent)

    def test_being_pruned(self) -> None:
        """Known before."""
        with closing(Inventory.open(str(self.home))) as inventory:
            inventory.prune([self.files()["db-1"].id], time.time())
        self.copy()
        self.assertEqual(["db-0", "db-2"], self.far.asked)

    def test_replaced_while_sent(self) -> None:
        """The server notices that the bytes are others: they belong to the new file."""
        send = self.far.send

        def replaced(
            file: File,
            opened: Callable[[], AbstractContextManager[IStoredFile]],
            expected: bool,
        ) -> bool:
            if file.received.name == "db-1":
                self.far.send = send  # type: ignore[method-assign]
                self.push("db-1", b"newer", age=DAY)
                raise DamagedError
            return send(file, opened, expected)

        self.far.send = replaced  # type: ignore[method-assign]
        done = self.copy()
        self.assertIsNone(done.error)
        self.assertEqual(3, done.sent)
        self.assertFalse(self.files()["db-1"].damaged)


class TurnTests(SynchronousTestCase):
    def test_turns(self) -> None:
        """Each may run for a minute at a time."""
        clock = Clock()
        done: list[str] = []

        def run(name: str, count: int, seconds: float) -> module.Run:
            for _ in range(count):
                clock.advance(seconds)
                done.append(name)
                if (yield):
                    done.append(" ")
                    yield

        in_turn([run("a", 4, 30.0), run("b", 3, 1.0), run("c", 2, 90.0)], clock.seconds)
        self.assertEqual("aa bbbc aa c ", "".join(done))
