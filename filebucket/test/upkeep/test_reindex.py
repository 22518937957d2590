"""Reconciling the catalogue with the files on disk."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.records import File, Received
from filebucket.model.series import series_of
from filebucket.model.state import State
from filebucket.model.token import Token, token_digest
from filebucket.store import archive
from filebucket.store.archive import DirectoryArchive
from filebucket.test.kit.catalogue import all_series, new_home, opened
from filebucket.test.kit.server import PATIENCE
from filebucket.upkeep import reindex as reindexing
from filebucket.upkeep import survey
from filebucket.upkeep.reindex import reindex
from filebucket.upkeep.survey import Finding, Found

TOKEN = "d41d8cd98f00b204e9800998ecf8427e"
OTHER = "e" * 32
NOW = 1_800_000_000.0
DAY = 24 * 3600.0


def bucket_of(token: str = TOKEN, name: str | None = "web01") -> Bucket:
    """A bucket as in the configuration."""
    digest = Token(token_digest(token.encode()))
    return Bucket((digest,), directory=name or token, name=name)


class HomeCase(SynchronousTestCase):
    """Provides a home with two buckets, one without a name, and its catalogue."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.bucket = bucket_of()
        self.nameless = bucket_of(OTHER, None)
        self.buckets = [self.bucket, self.nameless]
        self.inventory = self.open()
        self.view = opened(self, View, self.home)
        self.now = NOW
        self.findings: list[Finding] = []

    def open(self) -> Inventory:
        """A separate connection."""
        return opened(self, Inventory, self.home)

    def put(
        self,
        name: str,
        content: bytes = b"content",
        at: float = NOW - DAY,
        bucket: Bucket | None = None,
    ) -> Path:
        """Write a file with this time."""
        folder = self.home / (bucket or self.bucket).directory
        folder.mkdir(exist_ok=True)
        path = folder / name
        # As a push that overwrites does.
        new = self.home / ".filebucket" / "new"
        new.write_bytes(content)
        os.utime(new, (at, at))
        new.rename(path)
        return path

    def received(
        self,
        name: str,
        content: bytes = b"content",
        at: float = NOW - DAY,
        bucket: Bucket | None = None,
    ) -> Received:
        """The daemon's values for such a push."""
        return Received(
            (bucket or self.bucket).key,
            series_of(name, ()),
            name,
            len(content),
            hashlib.sha256(content).hexdigest(),
            at,
            1.5,
            "192.0.2.1:1",
            request=f"request-{name}-{at}",
        )

    def record(self, *received: Received) -> None:
        """Add a push's row, as the daemon does, with a separate connection."""
        by_key = {each.key: each for each in self.buckets}
        with closing(Journal.open(str(self.home))) as journal:
            journal.record(received, [], by_key.get)

    def push(
        self,
        name: str,
        content: bytes = b"content",
        at: float = NOW - DAY,
        bucket: Bucket | None = None,
    ) -> Path:
        """Push a file: publish it and add its row."""
        path = self.put(name, content, at, bucket)
        self.record(self.received(name, content, at, bucket))
        return path

    def overwrite(self) -> None:
        """Allow overwriting."""
        self.bucket = evolve(self.bucket, overwrite=True)
        self.buckets = [self.bucket, self.nameless]

    def reindex(
        self, stopped: Callable[[], bool] = lambda: False, accept: bool = False
    ) -> Found:
        self.findings = []
        return reindex(
            self.inventory,
            DirectoryArchive(str(self.home)),
            self.buckets,
            lambda: self.now,
            stopped,
            self.findings.append,
            accept=accept,
        )

    def files(self, bucket: Bucket | None = None) -> list[File]:
        """All rows, the oldest first."""
        return self.view.latest(10_000, (bucket or self.bucket).key)[::-1]

    def fates(self) -> list[tuple[str, str]]:
        return [(each.received.name, each.fate) for each in self.files()]

    def kinds(self) -> list[tuple[str, str | None]]:
        return [(each.kind, each.name) for each in self.findings]


class EnterTests(HomeCase):
    def test_in_order(self) -> None:
        """If every file has its row, nothing is read and nothing changes."""
        self.push("a")
        self.push("b", bucket=self.nameless)
        before = self.files()
        found = self.reindex()
        self.assertEqual(Found(files=2), found)
        self.assertEqual("", found.text)
        self.assertEqual(before, self.files())

    def test_without_a_catalogue(self) -> None:
        """Everything is added again, except data that only pushes have."""
        self.put("db-1.gz", b"one", NOW - 3 * DAY)
        self.put("db-2.gz", b"three", NOW - DAY)
        self.put(f"of-{OTHER}", bucket=self.nameless)
        found = self.reindex()
        self.assertEqual(Found(files=3, read=3, bytes=15, entered=3), found)
        self.assertEqual("3 added", found.text)
        one, two = self.files()
        self.assertEqual(
            Received(
                "web01",
                "db-#.gz",
                "db-1.gz",
                3,
                hashlib.sha256(b"one").hexdigest(),
                NOW - 3 * DAY,
            ),
            one.received,
        )
        self.assertEqual(NOW - DAY, two.received.received_at)
        (series,) = all_series(self.view, "web01")
        self.assertEqual(
            (2, 8, "db-2.gz", State.FRESH),
            (series.files, series.bytes, series.last_name, series.state),
        )
        (series,) = all_series(self.view, self.nameless.key)
        self.assertEqual(series_of(f"of-{self.nameless.label}", ()), series.name)
        self.assertNotIn(OTHER, repr((series, self.findings)))
        self.assertEqual(Found(files=3), self.reindex())

    def test_patterns(self) -> None:
        """Series follow the bucket's patterns."""
        self.bucket = evolve(self.bucket, series=("db-*",))
        self.buckets = [self.bucket]
        self.put("db-1.gz")
        self.put("1.gz")
        self.reindex()
        self.assertEqual(
            {"db-1.gz": "db-*", "1.gz": "#.gz"},
            {each.received.name: each.received.series for each in self.files()},
        )

    def test_from_the_future(self) -> None:
        """A time in the future becomes now."""
        self.put("a", at=NOW + DAY)
        self.reindex()
        self.assertEqual(NOW, self.files()[0].received.received_at)
        self.assertEqual(0, self.reindex().bytes)

    def test_judged_empty(self) -> None:
        """Files without content are recognized, and do not change the usual size."""
        for number, size in enumerate((0, 0, 100, 100, 100, 0)):
            self.put(f"db-{number}", b"x" * size, NOW - DAY + number)
        self.reindex()
        judgements = [each.judgement.value for each in self.files()]
        self.assertEqual(["empty"] * 2 + ["fresh"] * 3 + ["empty"], judgements)

    def test_judged(self) -> None:
        """Sizes are compared in order of time, whatever the order of names."""
        for day, size in enumerate((100, 100, 100, 10, 100, 100)):
            self.put(f"db-{day}", b"x" * size, NOW - (9 - day) * DAY)
        self.patch(reindexing, "ENTER_FILES", 2)
        self.reindex()
        judgements = [each.judgement.value for each in self.files()]
        self.assertEqual(["fresh"] * 3 + ["shrunk"] + ["fresh"] * 2, judgements)

    def test_strangers(self) -> None:
        """Files that no push can have stored are reported and left alone."""
        folder = self.put("a").parent
        (folder / "link").symlink_to(folder / "a")
        (folder / "folder").mkdir()
        (folder / OTHER).mkdir()
        (folder / ".filebucket-x").write_bytes(b"")
        (folder / "back\\slash").write_bytes(b"")
        (folder / "line\nend").write_bytes(b"")
        Path(os.fsdecode(os.fsencode(folder) + b"/latin-\xe4")).write_bytes(b"")
        os.mkfifo(folder / "pipe")
        bound = socket.socket(socket.AF_UNIX)
        self.addCleanup(bound.close)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        bound.bind("socket")
        found = self.reindex()
        self.assertEqual(
            {
                ".filebucket-x",
                "link",
                "back\\slash",
                "line\nend",
                "latin-\\xe4",
                "pipe",
                "socket",
            },
            {name for kind, name in self.kinds() if kind == "stranger"},
        )
        self.assertEqual(
            {"folder", self.nameless.label},
            {name for kind, name in self.kinds() if kind == "folder"},
        )
        self.assertEqual((1, 7, 2), (found.entered, found.stranger, found.folder))
        self.assertEqual("7 unknown, 1 added", found.text)
        self.assertEqual([("a", "kept")], self.fates())

    def test_not_of_a_bucket(self) -> None:
        """Other folders in the home are ignored."""
        (self.home / "removed").mkdir()
        (self.home / "removed" / "file").write_bytes(b"x")
        self.assertEqual(Found(), self.reindex())

    def test_bounded(self) -> None:
        self.patch(survey, "PIECE", 50)
        self.patch(reindexing, "ENTER_FILES", 50)

        def peak() -> int:
            tracemalloc.start()
            self.reindex()
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.findings = []
            return most

        for number in range(200):
            self.put(f"a-{number}")
        peak()
        few = peak()
        for number in range(3000):
            self.put(f"b-{number}")
        self.reindex()
        self.assertLess(peak(), few * 1.5)


class PushTests(HomeCase):
    """Beside a daemon: a push is published, and its row is written later."""

    def test_found_first(self) -> None:
        """A push's row replaces the row of a file that was found."""
        self.put("a")
        self.reindex()
        self.record(self.received("a"))
        (row,) = self.files()
        self.assertEqual(self.received("a"), row.received)
        (series,) = all_series(self.view, "web01")
        self.assertEqual((1, 1), (series.files, series.pushes))

    def test_entered_while_read(self) -> None:
        """A push's row stays."""
        self.put("a")
        self.during_reading(lambda: self.record(self.received("a")))
        found = self.reindex()
        self.assertEqual((0, 7), (found.entered, found.bytes))
        (row,) = self.files()
        self.assertEqual(self.received("a"), row.received)
        self.assertEqual([], self.findings)

    def during_reading(self, do: Callable[[], object]) -> None:
        """Call something once, after the next file was read."""
        done: list[bool] = []

        hash_ = archive._hash

        def hashed(
            fd: int, size: int, write: Callable[[memoryview], object]
        ) -> tuple[int, str]:
            result = hash_(fd, size, write)
            if not done:
                done.append(True)
                do()
            return result

        self.patch(archive, "_hash", hashed)

    def test_overwritten_while_read(self) -> None:
        """A file that is replaced while it is read is left to its push or to the next
        run."""
        self.put("a")
        self.during_reading(lambda: self.put("a", b"other", NOW))
        found = self.reindex()
        self.assertEqual((0, 1), (found.entered, found.left))
        self.assertEqual([("left", "a")], self.kinds())
        self.assertEqual([], self.files())
        self.record(self.received("a"), self.received("a", b"other", NOW))
        self.assertEqual([("a", "overwritten"), ("a", "kept")], self.fates())
        self.assertEqual(Found(files=1), self.reindex())

    def test_written_to_while_read(self) -> None:
        path = self.put("a")

        def append() -> None:
            with path.open("ab") as file:
                file.write(b"more")

        self.during_reading(append)
        self.assertEqual(1, self.reindex().left)
        self.assertEqual([], self.files())

    def test_replaced_before_it_is_entered(self) -> None:
        """A file is checked again before it is added."""
        folder = self.put("a").parent
        self.put("b")
        first, second = os.listdir(folder)
        read: list[int] = []

        def pace(bucket: object, size: int) -> None:
            read.append(size)
            if len(read) == 2:
                self.put(first, b"other", NOW)

        self.patch(reindexing._Reindexing, "_pace", pace)
        self.assertEqual(1, self.reindex().entered)
        self.assertEqual([(second, "kept")], self.fates())

    def test_published_after_the_listing(self) -> None:
        """A row that was written after the listing: the file is not missing."""
        self.push("a")
        rows = self.inventory.rows

        def late(*given: object) -> object:
            found = rows(*given)  # type: ignore[arg-type]
            if given[1] == "kept" and not (self.home / "web01" / "b").exists():
                self.push("b")
            return found

        self.patch(self.inventory, "rows", late)
        self.assertEqual(0, self.reindex().missing)
        self.assertEqual([("a", "kept"), ("b", "kept")], self.fates())

    def test_overwritten_and_found_first(self) -> None:
        """A push replaced a file, and its row comes after the file was found."""
        self.overwrite()
        self.push("a")
        self.put("a", b"new content", NOW)
        found = self.reindex()
        self.assertEqual(1, found.replaced)
        self.assertEqual([("a", "overwritten"), ("a", "kept")], self.fates())
        self.record(self.received("a", b"new content", NOW + 1))
        self.assertEqual([("a", "overwritten"), ("a", "kept")], self.fates())
        self.assertEqual(
            self.received("a", b"new content", NOW + 1), self.files()[1].received
        )

    def test_overwritten_at_once(self) -> None:
        """A push replaced a file within moments with one of the same size, and its row
        was lost."""
        self.overwrite()
        self.push("a", b"first", NOW - 2)
        self.put("a", b"other", NOW - 1)
        self.assertEqual(1, self.reindex().replaced)
        kept = self.files()[1].received
        self.assertEqual(self.received("a", b"other").sha256, kept.sha256)
        self.assertEqual(Found(files=1), self.reindex())

    def test_overwritten_though_it_may_not(self) -> None:
        """The pre-push hook allowed it: wait for the row."""
        self.now = time.time()
        self.push("a", at=self.now - DAY)
        self.put("a", b"new content", self.now)
        self.assertEqual(Found(files=1, read=1, bytes=11, left=1), self.reindex())
        self.assertFalse(self.files()[0].damaged)

    def test_two_pushes_found_between(self) -> None:
        """The first push was found, then both rows are added."""
        self.put("a")
        self.reindex()
        self.put("a", b"other", NOW)
        self.record(self.received("a"), self.received("a", b"other", NOW))
        self.assertEqual([("a", "overwritten"), ("a", "kept")], self.fates())
        self.assertEqual(2, all_series(self.view, "web01")[0].pushes)

    def test_all_at_once(self) -> None:
        """Pushes overwrite each other during repeated runs: in the end, the rows match
        the pushes and the disk."""
        self.overwrite()
        self.now = time.time()
        self.patch(survey, "PIECE", 7)
        self.patch(reindexing, "ENTER_FILES", 3)
        ended = threading.Event()

        def push() -> None:
            journal = Journal.open(str(self.home))
            waiting = []
            for number in range(400):
                name, content = f"file-{number % 50}", b"%d" % number
                self.put(name, content, time.time())
                waiting.append(self.received(name, content, time.time()))
                # Some rows are added later, in one batch.
                if number % 20 == 19:
                    journal.record(waiting, [], {"web01": self.bucket}.get)
                    waiting = []
            journal.close()
            ended.set()

        pushing = threading.Thread(target=push)
        pushing.start()
        try:
            while not ended.is_set():
                self.now = time.time()
                self.reindex()
        finally:
            pushing.join(PATIENCE)
        self.reindex()
        kept = [each.received for each in self.files() if each.fate == "kept"]
        self.assertEqual(
            {f"file-{number % 50}": b"%d" % number for number in range(350, 400)},
            {
                each.name: (self.home / "web01" / each.name).read_bytes()
                for each in kept
                if each.request is not None
            },
        )
        for each in kept:
            content = (self.home / "web01" / each.name).read_bytes()
            self.assertEqual(hashlib.sha256(content).hexdigest(), each.sha256)
        self.assertEqual({"kept", "overwritten"}, {fate for _, fate in self.fates()})
        (series,) = all_series(self.view, "web01")
        self.assertEqual((50, 0, 0), (series.files, series.missing, series.damaged))


class MissingTests(HomeCase):
    def test_gone(self) -> None:
        """It is marked and counted once."""
        self.push("a")
        self.push("b").unlink()
        found = self.reindex()
        self.assertEqual(Found(files=2, missing=1), found)
        self.assertEqual([("missing", "b")], self.kinds())
        self.assertEqual([("a", "kept"), ("b", "missing")], self.fates())
        self.assertEqual(NOW, self.files()[1].fate_at)
        self.assertEqual(1, sum(s.missing for s in all_series(self.view, "web01")))
        self.assertEqual(Found(files=1), self.reindex())

    def test_no_file_any_more(self) -> None:
        """Something else has its name."""
        path = self.push("a")
        path.unlink()
        path.symlink_to("/etc/passwd")
        found = self.reindex()
        self.assertEqual((1, 1), (found.missing, found.stranger))

    def test_back(self) -> None:
        """A file that is back with its size and time is not read."""
        path = self.push("a")
        path.rename(self.home / "aside")
        self.reindex()
        (self.home / "aside").rename(path)
        found = self.reindex()
        self.assertEqual(Found(files=1, back=1), found)
        self.assertEqual([("a", "kept")], self.fates())
        self.assertEqual(0, all_series(self.view, "web01")[0].missing)

    def test_restored(self) -> None:
        """A file with the same content and a new time is read."""
        path = self.push("a")
        path.unlink()
        self.reindex()
        self.put("a", at=NOW)
        found = self.reindex()
        self.assertEqual((1, 7), (found.back, found.bytes))
        (row,) = self.files()
        self.assertEqual(("kept", NOW), (row.fate, row.verified_at))
        self.assertEqual(self.received("a"), row.received)
        self.assertEqual(Found(files=1), self.reindex())

    def test_another_in_its_place(self) -> None:
        """A new file with that name was found or pushed, so nothing is missing."""
        for push in (False, True):
            self.push("a").unlink()
            self.reindex()
            if push:
                self.push("a", b"other", NOW)
            else:
                self.put("a", b"other", NOW)
                self.assertEqual(1, self.reindex().entered)
            self.assertEqual({"overwritten", "kept"}, {f for _, f in self.fates()})
            self.assertEqual(0, all_series(self.view, "web01")[0].missing)

    def test_pruned_meanwhile(self) -> None:
        """Pruned files are not missing, before and after."""
        orders = ("pruned", "missing"), ("missing", "pruned")
        for number, fates in enumerate(orders):
            self.push("a", at=NOW - DAY + number)
            (row,) = [each for each in self.files() if each.fate == "kept"]
            for fate in fates:
                self.inventory.ended(row.id, fate, NOW)
            self.assertEqual("pruned", self.view.latest(1)[0].fate)

    def test_no_folder(self) -> None:
        """All its files are missing, and no others."""
        self.push("a").unlink()
        (self.home / "web01").rmdir()
        self.push("b", bucket=self.nameless)
        self.assertEqual(1, self.reindex().missing)
        self.assertEqual([("a", "missing")], self.fates())
        self.assertEqual("kept", self.files(self.nameless)[0].fate)

    def test_another_home(self) -> None:
        """If the home is gone, nothing is marked."""
        self.push("a")
        self.home.rename(f"{self.home}.aside")
        self.assertRaises(CatalogueError, self.reindex)
        (self.home / ".filebucket").mkdir(parents=True)
        (self.home / FILE).touch()
        self.assertRaises(CatalogueError, self.reindex)
        self.assertEqual([("a", "kept")], self.fates())

    def test_unreadable_folder(self) -> None:
        """Nothing is known about its files; the other buckets are checked."""
        self.push("a")
        self.put("b", bucket=self.nameless)
        (self.home / "web01").rename(self.home / "aside")
        (self.home / "web01").symlink_to("web01")
        found = self.reindex()
        self.assertEqual((0, 1, 1), (found.missing, found.unreadable, found.entered))
        (first, _) = self.findings
        self.assertEqual(
            ("unreadable", "web01", None), (first.kind, first.bucket, None)
        )
        self.assertNotIn(str(self.home), first.reason)
        self.assertEqual([("a", "kept")], self.fates())


class WrittenTests(HomeCase):
    """Files that differ from their rows."""

    def test_touched(self) -> None:
        """Only the time differs: it is read once."""
        self.push("a")
        self.put("a", at=NOW - 1)
        self.assertEqual(Found(files=1, read=1, bytes=7), self.reindex())
        self.assertEqual(NOW, self.files()[0].verified_at)
        self.assertEqual(Found(files=1), self.reindex())

    def test_overwritten(self) -> None:
        """If overwriting is allowed, it counts as a push and is judged as one."""
        self.overwrite()
        for days, content in ((2, b""), (1, b"CONTENT")):
            self.push("a", at=NOW - days * DAY)
            self.put("a", content, NOW - days * DAY + 3600)
            found = self.reindex()
            size = len(content)
            self.assertEqual(Found(files=1, read=1, bytes=size, replaced=1), found)
            self.assertEqual([("replaced", "a")], self.kinds())
            self.assertEqual(
                [("overwritten"), ("kept")], [fate for _, fate in self.fates()][-2:]
            )
            self.assertEqual(Found(files=1), self.reindex())

    def test_damaged(self) -> None:
        """Otherwise it is damaged, and its row stays as it is."""
        self.push("a")
        for content, at, reason in (
            (b"cont", NOW - DAY - 1, "4 bytes on disk, but 7 were received"),
            (b"", NOW, "0 bytes on disk, but 7 were received (modified since)"),
            (b"CONTENT", NOW, "content differs from what was received (modified"),
        ):
            self.put("a", content, at)
            self.now += 1
            found = self.reindex()
            size = len(content)
            self.assertEqual(Found(files=1, read=1, bytes=size, damaged=1), found)
            self.assertIn(reason, self.findings[0].reason)
            (row,) = self.files()
            self.assertTrue(row.damaged)
            self.assertEqual(self.received("a"), row.received)
            self.assertEqual(1, all_series(self.view, "web01")[0].damaged)
            # It is known to be damaged, so it is not read each time.
            self.assertEqual(Found(files=1), self.reindex())
            self.inventory.verified([(row.id, False, row.received.received_at)])

    def test_not_written_to(self) -> None:
        """Even then, a file with an old time was not pushed."""
        self.overwrite()
        self.push("a")
        self.put("a", b"cont", NOW - DAY - 1)
        self.assertEqual(1, self.reindex().damaged)

    def test_mended(self) -> None:
        """A good copy of a damaged file is fine again."""
        self.push("a")
        self.put("a", b"cont", NOW - DAY - 1)
        self.reindex()
        self.now += DAY
        self.put("a", at=self.now - 1)
        self.reindex()
        (row,) = self.files()
        self.assertEqual((False, "kept"), (row.damaged, row.fate))

    def test_pushed_again(self) -> None:
        self.push("a")
        self.put("a", b"cont", NOW - DAY - 1)
        self.reindex()
        self.push("a", b"new", NOW)
        self.assertEqual([("a", "overwritten"), ("a", "kept")], self.fates())
        self.assertEqual(0, all_series(self.view, "web01")[0].damaged)


class HealedTests(HomeCase):
    """A repeated push replaced a damaged file."""

    def heal(self, entered: bool) -> None:
        self.push("a")
        (file,) = self.files()
        self.inventory.verified([(file.id, True, NOW - 100)])
        self.put("a", at=NOW - 50)
        if entered:
            row = evolve(self.received("a"), received_at=NOW - 49, healed=True)
            self.record(row)

    def test_in_order(self) -> None:
        """It is not read again, even though its time is new."""
        self.heal(entered=True)
        self.assertEqual(Found(files=1), self.reindex())
        self.assertEqual([("a", "kept")], self.fates())

    def test_not_entered(self) -> None:
        """If the daemon died before the row was written, it is read and found to be
        good."""
        self.heal(entered=False)
        self.assertEqual(Found(files=1, read=1, bytes=7), self.reindex())
        (file,) = self.files()
        self.assertFalse(file.damaged)


class AcceptTests(HomeCase):
    """The operator accepts the current state."""

    def test_missing(self) -> None:
        """Removed files are no longer reported as missing."""
        self.push("a").unlink()
        self.push("b").unlink()
        self.push("c")
        self.assertEqual(2, self.reindex().missing)
        self.push("d").unlink()
        found = self.reindex(accept=True)
        self.assertEqual((3, 1), (found.accepted, found.missing))
        self.assertEqual(["pruned", "pruned", "kept", "pruned"], self.fates_only())
        self.assertEqual(Found(files=1), self.reindex())

    def fates_only(self) -> list[str]:
        return [fate for _, fate in sorted(self.fates())]

    def test_damaged(self) -> None:
        """Changed files are trusted."""
        self.push("a")
        self.push("b")
        self.put("a", b"cont", NOW - DAY - 1)
        self.reindex()
        self.put("b", b"CONTENT", NOW - DAY)
        rows = {each.received.name: each.id for each in self.files()}
        self.inventory.verified([(rows["b"], True, NOW)])
        self.assertEqual(2, self.reindex(accept=True).replaced)
        kept = {each.received.name: each for each in self.files() if not each.fate_at}
        self.assertEqual((4, False), (kept["a"].received.size, kept["a"].damaged))
        self.assertEqual((7, False), (kept["b"].received.size, kept["b"].damaged))
        self.assertEqual(Found(files=2), self.reindex())


class StopTests(HomeCase):
    def test_stopped(self) -> None:
        """Files that were read are added, and the rest is left to the next run."""
        for number in range(5):
            self.put(f"a-{number}")
        asked = iter([False] * 4)
        found = self.reindex(lambda: next(asked, True))
        self.assertTrue(found.stopped)
        self.assertIn("interrupted", found.text)
        self.assertEqual(found.entered, len(self.files()))
        self.assertLess(0, found.entered)
        self.assertLess(found.entered, 5)
        self.assertEqual(5, found.entered + self.reindex().entered)

    def test_catalogue_fails(self) -> None:
        self.put("a")
        other = sqlite3.connect(os.path.join(self.home, FILE))
        other.execute("DROP TABLE push")
        other.close()
        self.assertRaises(CatalogueError, self.reindex)
