"""Verifying stored files."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from filebucket.catalogue.database import CatalogueError
from filebucket.model.bucket import Bucket
from filebucket.model.records import File
from filebucket.store.archive import DirectoryArchive, Folder
from filebucket.store.interfaces import Content, NoFileError
from filebucket.store.remove import prune_lock
from filebucket.test.kit.catalogue import all_series
from filebucket.test.kit.sealed import replace_kernel
from filebucket.test.upkeep.test_reindex import DAY, NOW, OTHER, HomeCase
from filebucket.upkeep import survey
from filebucket.upkeep import verify as verifying
from filebucket.upkeep.survey import Found
from filebucket.upkeep.verify import due, sums, verify


class VerifyCase(HomeCase):
    """Provides a clock that only waiting moves."""

    def setUp(self) -> None:
        super().setUp()
        self.read: list[str] = []
        self.waited: list[float] = []
        self.late = survey.ROW_WITHIN
        self.sealed: float | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        read = Folder.read

        def remember(
            folder: Folder, name: str, pace: Callable[[int], object]
        ) -> Content:
            self.read.append(name)
            return read(folder, name, pace)

        self.patch(Folder, "read", remember)

    def verify(
        self, older_than: float = 0, *buckets: Bucket, stop_after: int = -1
    ) -> Found:
        self.findings, self.read = [], []

        def wait(seconds: float) -> None:
            self.waited.append(seconds)
            self.meanwhile()

        def pace(size: int) -> None:
            if len(self.read) == stop_after:
                raise KeyboardInterrupt

        chosen = buckets or self.buckets
        return verify(
            self.inventory,
            DirectoryArchive(str(self.home)),
            chosen,
            self.buckets,
            due(self.inventory, chosen, self.now - older_than),
            lambda: self.now,
            pace=pace,
            late=self.late,
            wait=wait,
            report=self.findings.append,
            sealed=self.sealed,
        )

    def row(self, name: str) -> File:
        """The latest row."""
        return next(each for each in self.files()[::-1] if each.received.name == name)

    def flip(self, path: Path) -> None:
        """Flip one bit without a change of times, as a failing disk does."""
        at = path.stat()
        with path.open("r+b") as file:
            byte = file.read(1)
            file.seek(0)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


class SealedTests(VerifyCase):
    """Files that should be sealed."""

    def setUp(self) -> None:
        super().setUp()
        self.attributes = replace_kernel(self)
        self.push("a")
        self.push("b", at=NOW - 60)

    def unsealed(self) -> list[str | None]:
        """The files that are reported."""
        count = self.verify().unsealed
        found = [each.name for each in self.findings if each.kind == "unsealed"]
        self.assertEqual(count, len(found))
        return found

    def test_unsealed(self) -> None:
        """Files that were received before that time; without one, none."""
        self.assertEqual([], self.unsealed())
        self.sealed = NOW - 3600
        self.assertEqual(["a"], self.unsealed())
        self.sealed = NOW
        self.assertEqual(["a", "b"], self.unsealed())
        self.attributes.mark(self.home / "web01" / "a")
        self.assertEqual(["b"], self.unsealed())

    def test_many(self) -> None:
        """All are counted, but not all reported."""
        self.patch(verifying, "MOST_UNSEALED", 1)
        self.sealed = NOW
        self.assertEqual(2, self.verify().unsealed)
        self.assertEqual(["unsealed"], [each.kind for each in self.findings])

    def test_wrong_clock(self) -> None:
        """A file from a time when the clock was ahead is not new for years."""
        self.sealed = NOW - 3600
        self.push("c", at=NOW + 1800)
        self.push("d", at=NOW + 7200)
        self.assertEqual(["a", "d"], self.unsealed())

    def test_touched(self) -> None:
        """The daemon's user keeps a file from being sealed by changing it again and
        again: that is reported."""
        self.sealed = NOW - 3600
        (self.home / "web01" / "a").chmod(0o600)
        self.assertEqual(["a"], self.unsealed())

    def test_overwrite(self) -> None:
        """Such a bucket is not sealed."""
        self.sealed = NOW
        self.overwrite()
        self.assertEqual([], self.unsealed())

    def test_no_such_flag(self) -> None:
        """No file is sealed then."""
        self.sealed, self.attributes.supported = NOW, False
        self.assertEqual(["a", "b"], self.unsealed())


class ContentTests(VerifyCase):
    """Files that exist."""

    def test_in_order(self) -> None:
        """All are read, those not verified for the longest time first, and the time is
        saved."""
        self.push("young", at=NOW - DAY)
        self.push("old", b"", at=NOW - 3 * DAY)
        self.push("middle", at=NOW - 2 * DAY, bucket=self.nameless)
        found = self.verify()
        self.assertEqual(Found(files=3, read=3, bytes=14), found)
        self.assertEqual(["old", "middle", "young"], self.read)
        self.assertEqual([NOW] * 2, [each.verified_at for each in self.files()])
        self.assertEqual([], self.findings)

    def test_access_times(self) -> None:
        """Reading does not change access times."""
        path = self.push("a", at=NOW - DAY)
        self.assertEqual(1, self.verify().read)
        self.assertEqual(NOW - DAY, path.stat().st_atime)

    def test_rot(self) -> None:
        """A flipped bit is damage until a good copy is there."""
        self.push("a")
        path = self.push("b")
        self.flip(path)
        found = self.verify()
        self.assertEqual(Found(files=2, read=2, bytes=14, damaged=1), found)
        (finding,) = self.findings
        self.assertEqual(
            ("damaged", "web01", "b", "content differs from what was received"),
            (finding.kind, finding.bucket, finding.name, finding.reason),
        )
        self.assertTrue(self.row("b").damaged)
        series = all_series(self.inventory, "web01")
        self.assertEqual([0, 1], [each.damaged for each in series])
        self.flip(path)
        self.assertEqual("", self.verify().text)
        self.assertFalse(self.row("b").damaged)

    def test_all_that_was_damaged(self) -> None:
        """A damaged file is read and reported each time."""
        path = self.push("a")
        self.push("b")
        self.flip(path)
        for _ in range(2):
            self.now += 1
            self.assertEqual(1, self.verify(0 if not self.read else 30 * DAY).damaged)
        self.assertEqual(["a"], self.read)

    def test_older_than(self) -> None:
        """Files received or verified since then are skipped."""
        self.push("a", at=NOW - 40 * DAY)
        self.push("b", at=NOW - 30 * DAY)
        self.push("c", at=NOW - 20 * DAY)
        self.verify(30 * DAY)
        self.assertEqual(["a", "b"], self.read)
        self.now += 29 * DAY
        self.verify(30 * DAY)
        self.assertEqual(["c"], self.read)

    def test_another_size(self) -> None:
        """A wrong size is reported without reading, whenever the file was verified."""
        self.push("a")
        self.put("a", b"cont", NOW - DAY)
        found = self.verify(30 * DAY)
        self.assertEqual((1, 4), (found.damaged, found.bytes))
        self.assertEqual(
            "4 bytes on disk, but 7 were received", self.findings[0].reason
        )

    def test_once(self) -> None:
        self.push("a")
        self.put("a", b"cont", NOW - DAY)
        self.assertEqual((1, ["a"]), (self.verify().damaged, self.read))

    def test_chosen(self) -> None:
        """Other buckets are skipped."""
        self.push("a").unlink()
        self.push("b", bucket=self.nameless)
        found = self.verify(0, self.nameless)
        self.assertEqual(Found(files=1, read=1, bytes=7), found)
        self.assertEqual("kept", self.row("a").fate)

    def test_disk_fails(self) -> None:
        """A permanent read error is damage; other errors mean unreadable."""
        self.push("a")
        self.push("b")

        def fail(folder: int, name: str, pace: object) -> None:
            number = errno.EIO if name == "a" else errno.EACCES
            raise OSError(number, os.strerror(number), "/a/path")

        self.patch(Folder, "read", fail)
        found = self.verify()
        self.assertEqual((1, 1), (found.damaged, found.unreadable))
        self.assertEqual(
            ["Input/output error", "Permission denied"],
            [each.reason for each in self.findings],
        )
        self.assertEqual([True, False], [each.damaged for each in self.files()])
        self.assertIsNone(self.row("b").verified_at)

    def test_stopped(self) -> None:
        """Results so far are saved, and the next run does the rest."""
        for number in range(5):
            self.push(f"{number}")
        self.assertRaises(KeyboardInterrupt, self.verify, stop_after=4)
        self.verify(1)
        self.assertEqual(["3", "4"], self.read)

    def test_bounded(self) -> None:
        """Results are saved as it goes."""
        self.patch(verifying, "ENTER_FILES", 2)
        self.patch(verifying, "ROWS", 2)
        entered: list[int] = []
        verified = self.inventory.verified

        def remember(files: list[tuple[int, bool, float]]) -> None:
            entered.append(len(files))
            verified(files)

        self.patch(self.inventory, "verified", remember)
        for number in range(5):
            self.push(f"{number}")
        self.verify()
        self.assertEqual([2, 2, 1], entered)


class MeanwhileTests(VerifyCase):
    """The daemon takes pushes, and prune removes files."""

    def new(self) -> None:
        """Files have their real age."""
        self.now = time.time()

    def test_replaced(self) -> None:
        """A push has replaced it, and its row follows shortly."""
        self.push("a", at=time.time() - DAY)
        self.put("a", b"other")
        self.new()
        self.meanwhile = lambda: self.record(self.received("a", b"other", self.now))
        self.assertEqual(Found(files=1, read=1, bytes=5), self.verify())
        self.assertEqual(1, len(self.waited))
        self.assertTrue(0 < self.waited[0] <= survey.ROW_WITHIN)
        self.assertEqual([], self.findings)
        self.assertFalse(self.row("a").damaged)

    def test_changed(self) -> None:
        """It was no push: no row follows."""
        path = self.push("a", at=time.time() - DAY)
        self.new()
        self.flip(path)
        self.assertEqual(1, self.verify().damaged)

    def test_replaced_while_read(self) -> None:
        """Its row has changed meanwhile."""
        self.push("a")
        read = Folder.read

        def replace(folder: Folder, name: str, pace: Callable[[int], object]) -> object:
            self.put("a", b"other", NOW)
            self.record(self.received("a", b"other", NOW))
            return read(folder, name, pace)

        self.patch(Folder, "read", replace)
        self.assertEqual("", self.verify().text)
        self.assertFalse(self.row("a").damaged)

    def test_healed_while_read(self) -> None:
        """A push has healed it: it is not reported as damaged, whether it differed or
        could not be read."""
        read = Folder.read

        def heal(folder: Folder, name: str, pace: Callable[[int], object]) -> object:
            try:
                return read(folder, name, pace)
            finally:
                self.put(name, at=NOW)
                row = evolve(self.received(name), received_at=NOW, healed=True)
                self.record(row)
                if name == "b":
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

        for name in ("a", "b"):
            self.flip(self.push(name))
        self.verify()
        self.patch(Folder, "read", heal)
        self.now += 5
        self.assertEqual("", self.verify().text)
        self.assertEqual([False, False], [each.damaged for each in self.files()])
        self.assertEqual([NOW, NOW], [each.verified_at for each in self.files()])

    def test_hook_takes_long(self) -> None:
        """Then the row may come much later: the file is skipped."""
        self.late = 300.0
        self.push("a")
        self.put("a", b"other")
        self.put("b")
        self.new()
        self.assertEqual(2, self.verify().left)
        self.assertFalse(self.row("a").damaged)
        self.now += 300
        found = self.verify()
        self.assertEqual((1, 1), (found.damaged, found.stranger))

    def test_pruned_while_read(self) -> None:
        path = self.push("a")
        (row,) = self.files()

        def prune(folder: Folder, name: str, pace: object) -> None:
            self.inventory.ended(row.id, "pruned", NOW)
            path.unlink()
            raise NoFileError

        self.patch(Folder, "read", prune)
        self.assertEqual("", self.verify().text)
        self.assertEqual("pruned", self.row("a").fate)

    def test_pruned_before(self) -> None:
        self.push("a", at=NOW - 3 * DAY)
        self.push("b")
        wanted = due(self.inventory, self.buckets, NOW)
        self.inventory.ended(self.row("a").id, "pruned", NOW)
        (self.home / "web01" / "a").unlink()
        self.patch(verifying, "due", lambda *given: wanted)
        self.assertEqual("", self.verify().text)
        self.assertEqual(["b"], self.read)


class LossTests(VerifyCase):
    """Missing and unknown files."""

    def test_missing(self) -> None:
        """It is reported each time, whenever it was verified, until it is back."""
        path = self.push("a")
        path.rename(self.home / "aside")
        for _ in range(2):
            found = self.verify(30 * DAY)
            self.assertEqual(1, found.missing)
            self.assertEqual([("missing", "a")], self.kinds())
            self.assertEqual("missing", self.row("a").fate)
        (self.home / "aside").rename(path)
        self.assertEqual(1, self.verify(30 * DAY).back)
        self.assertEqual("kept", self.row("a").fate)

    def test_strangers(self) -> None:
        """Unknown files are reported, and not added."""
        folder = self.push("a").parent
        self.put("b")
        self.put(OTHER)
        (folder / "link").symlink_to("a")
        os.mkfifo(folder / "pipe")
        found = self.verify()
        self.assertEqual(Found(files=1, read=1, bytes=7, stranger=4), found)
        self.assertEqual(
            {
                "b": "not received by file-bucket",
                "link": "not a regular file",
                "pipe": "",
            }.keys()
            | {self.nameless.label},
            {each.name for each in self.findings},
        )
        self.assertEqual(1, len(self.files()))
        self.assertNotIn(OTHER, repr(self.findings))

    def test_of_systems(self) -> None:
        """Files that filesystems and storage boxes create are ignored, and other
        folders are only named; a file with the name of such a folder is unknown."""
        folder = self.push("a").parent
        for name in (
            "lost+found",
            ".snapshot",
            "@eaDir",
            ".zfs",
            "#recycle",
            ".Trash-1000",
            "System Volume Information",
            "mine",
        ):
            (folder / name).mkdir()
        for name in (".nfs0000000000000f2a00000001", ".DS_Store", "Thumbs.db", "._a"):
            self.put(name)
        for look in (self.verify, self.reindex):
            found = look()
            self.assertEqual(("", 1), (found.text, found.folder))
            self.assertEqual([("folder", "mine")], self.kinds())
        self.assertEqual(1, len(self.files()))
        (folder / "lost+found").rmdir()
        for name in ("lost+found", "thumbs.db.gz", ".nfs", "Thumbs.db"):
            self.put(name)
        self.assertEqual(3, self.verify().stranger)

    def test_new(self) -> None:
        self.put("a")
        self.now = time.time()
        self.meanwhile = lambda: self.record(self.received("a"))
        self.assertEqual("", self.verify().text)
        self.assertEqual(1, len(self.waited))

    def test_unreadable_folder(self) -> None:
        """The other buckets are verified."""
        (self.home / "web01").symlink_to("web01")
        self.push("b", bucket=self.nameless)
        found = self.verify()
        self.assertEqual((1, 1), (found.unreadable, found.read))


class KilledPruneTests(VerifyCase):
    """Files that a prune was about to remove when it was killed."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("removed", "left", "odd"):
            self.push(name)
        ids = [each.id for each in self.files()]
        self.inventory.prune(ids, NOW)
        folder = self.home / "web01"
        (folder / "removed").unlink()
        (folder / "odd").unlink()
        (folder / "odd").mkdir()

    def marked(self) -> list[str]:
        return [each.received.name for each in self.inventory.being_pruned()]

    def test_lost_afterwards(self) -> None:
        """A file that it did not remove and that goes later is missing; one that it
        removed is not."""
        for look in (self.verify, self.reindex):
            self.setUp()
            found = look()
            self.assertEqual(("pruned", 1), (self.row("removed").fate, found.missing))
            self.assertEqual([], self.marked())
            (self.home / "web01" / "left").unlink()
            self.assertTrue(self.verify().missing)
            self.assertEqual("missing", self.row("left").fate)

    def test_at_work(self) -> None:
        """While prune runs, its files are not reported."""
        with prune_lock(str(self.home)):
            self.verify()
        self.assertEqual(["left"], self.marked())
        self.assertEqual("pruned", self.row("removed").fate)

    def test_folder_is_away(self) -> None:
        """A folder that cannot be opened proves nothing."""
        folder = self.home / "web01"
        folder.rename(self.home / "aside")
        folder.symlink_to("web01")
        self.verify()
        self.assertEqual(3, len(self.marked()))

    def test_other_bucket(self) -> None:
        """Also if another bucket is verified, or one that keeps everything."""
        self.verify(0, self.nameless)
        self.assertEqual(["removed"], self.marked())


class SumsTests(VerifyCase):
    def test_lines(self) -> None:
        """Kept files, as they were received."""
        self.push("ä b", b"")
        self.flip(self.push("c"))
        self.push("gone").unlink()
        self.verify()
        self.push("d", bucket=self.nameless)
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        content = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
        self.assertEqual(
            [
                f"{content}  web01/c\n".encode(),
                f"{empty}  web01/ä b\n".encode(),
                f"{content}  {OTHER}/d\n".encode(),
            ],
            list(sums(self.inventory, self.buckets)),
        )

    def test_forged(self) -> None:
        """Forged rows add no line, and print nothing to a terminal."""
        self.push("a")
        (row,) = self.inventory.rows(self.bucket.key, "kept", "")
        for forged in (
            evolve(row, name="a\x1b[2J"),
            evolve(row, name="a\n00  b"),
            evolve(row, name="../x"),
            evolve(row, sha256="\x1b[2J"),
        ):
            self.patch(type(self.inventory), "rows", lambda *_, row=forged: [row])
            lines = sums(self.inventory, [self.bucket])
            self.assertRaises(CatalogueError, next, lines)

    def test_renamed(self) -> None:
        """A bucket that is no longer configured is left out."""
        self.push("a")
        self.assertEqual(
            [], list(sums(self.inventory, [evolve(self.bucket, name="x")]))
        )
