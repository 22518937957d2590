"""Tests of :mod:`filebucket.store.archive`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import asdict, evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.fs import directory
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store import archive, remove
from filebucket.store.archive import DirectoryArchive, Folder, StoredFile
from filebucket.store.interfaces import (
    Content,
    IArchive,
    NoFileError,
    NotAFileError,
    Stat,
    UnsteadyError,
)
from filebucket.store.remove import RemovalError, prune_lock
from filebucket.test.kit.fakes import MemoryArchive
from filebucket.test.store.archive_contract import AT, ArchiveContract


class ContractTests(ArchiveContract, SynchronousTestCase):
    """The archive of a home."""

    def make(self) -> IArchive:
        self.home = Path(self.mktemp())
        (self.home / "web01").mkdir(parents=True)
        return DirectoryArchive(str(self.home))

    def store(self, name: str, content: bytes, at: float = AT) -> None:
        path = self.home / "web01" / name
        path.write_bytes(content)
        os.utime(path, (at, at))


class FakeTests(ArchiveContract, SynchronousTestCase):
    """The archive in memory."""

    def make(self) -> IArchive:
        self.fake = MemoryArchive({"web01": {}})
        return self.fake

    def store(self, name: str, content: bytes, at: float = AT) -> None:
        self.fake.buckets["web01"][name] = content, at


class ArchiveTests(SynchronousTestCase):
    """A home with one bucket."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.bucket = self.home / "web01"
        self.bucket.mkdir(parents=True)
        self.archive = DirectoryArchive(str(self.home))

    def put(self, name: str, content: bytes = b"content") -> Path:
        path = self.bucket / name
        path.write_bytes(content)
        return path

    def read(
        self, name: str, pace: Callable[[int], object] = lambda size: None
    ) -> Content:
        with self.archive.open("web01") as folder:
            return folder.read(name, pace)

    def test_unfinished(self) -> None:
        """Records of uploads that go on; what is none of them is left out."""
        self.assertEqual([], self.archive.unfinished())
        folder = self.home / archive.UPLOADS
        folder.mkdir(parents=True)

        def make(number: int, **given: Any) -> Unfinished:
            upload = Unfinished(
                f"{number:032x}",
                *("web01", "ab" * 32, "db.gz", "r1", 1.0, 2.0, "cd" * 32),
            )
            return evolve(upload, **given)

        one = make(1, offset=7, length=9)
        other = make(2, promised={"sha512": "ab" * 64})

        ended = make(3, finished=Finished(7, "cd" * 32))
        for each in (one, other, ended):
            path = folder / f"{each.id}{archive.RECORD}"
            path.write_text(json.dumps(asdict(each)))
        (folder / one.id).write_bytes(b"content")
        (folder / f"{one.id}.new").write_text("{")
        (folder / f"{4:032x}.json").write_text("{")
        (folder / f"{5:032x}.json").symlink_to(f"{one.id}.json")
        os.mkfifo(folder / f"{6:032x}.json")
        (folder / f"{7:032x}.json").write_text(json.dumps(asdict(one)))
        found = sorted(self.archive.unfinished(), key=lambda each: each.id)
        self.assertEqual([one, other], found)

    def test_upload_ends_meanwhile(self) -> None:
        """The file of a resumable upload has two names until its end is recorded."""
        path = self.put("db.gz")
        (self.home / archive.UPLOADS).mkdir(parents=True)
        other = self.home / archive.UPLOADS / ("0" * 32)
        os.link(path, other)
        found = self.read("db.gz", lambda size: other.unlink())
        self.assertEqual(hashlib.sha256(b"content").hexdigest(), found.sha256)
        self.assertFalse(other.exists())

    def test_unpruned(self) -> None:
        """Whether a prune is running, if that is known; none can begin then."""
        (self.home / ".filebucket").mkdir()
        lock = self.home / archive.LOCK

        def nobody() -> bool:
            with self.archive.unpruned() as found:
                return found

        self.assertTrue(nobody())
        with prune_lock(str(self.home)):
            self.assertFalse(nobody())
        self.assertTrue(nobody())
        self.patch(remove, "WAIT", 0.0)
        with self.archive.unpruned():
            self.assertRaises(RemovalError, prune_lock(str(self.home)).__enter__)
        lock.unlink()
        lock.symlink_to("prune")
        self.assertFalse(nobody())

    def test_no_bucket(self) -> None:
        """A missing folder has no files; a file in its place is an error."""
        with self.archive.open("web02") as folder:
            self.assertEqual([], list(folder.list(10)))
            self.assertRaises(NoFileError, folder.look, "a")
            self.assertRaises(NoFileError, folder.read, "a", lambda size: None)
        (self.home / "web02").touch()
        block = self.archive.open("web02")
        self.assertRaises(NotADirectoryError, block.__enter__)

    def test_list(self) -> None:
        """All entries, a few at a time, whatever their names."""
        self.put("a")
        (self.bucket / "b").mkdir()
        (self.bucket / "c").symlink_to("nowhere")
        with open(os.path.join(os.fsencode(self.bucket), b"\xe4"), "wb"):
            pass
        with self.archive.open("web01") as folder:
            pieces = list(folder.list(3))
        self.assertEqual([3, 1], [len(piece) for piece in pieces])
        self.assertEqual(
            {b"a", b"b", b"c", b"\xe4"}, {name for piece in pieces for name in piece}
        )

    def test_look(self) -> None:
        """Distinguishes files from other entries, and detects changes."""
        path = self.put("\xe4", b"1234")
        os.utime(path, (1, 2))
        (self.bucket / "folder").mkdir()
        with self.archive.open("web01") as folder:
            found = folder.look("\xe4")
            self.assertEqual((4, 2.0), (found.size, found.written_at))
            self.assertEqual(path.stat().st_ctime, found.changed_at)
            self.assertEqual(found, folder.look("\xe4"))
            os.utime(path, (1, 3))
            self.assertNotEqual(found.version, folder.look("\xe4").version)
            self.assertRaises(NotAFileError, folder.look, "folder")

    def test_read(self) -> None:
        content = bytes(range(256)) * 3
        self.patch(archive, "READ_SIZE", 512)
        self.put("a", content)
        sizes: list[int] = []
        found = self.read("a", sizes.append)
        self.assertEqual([512, 256], sizes)
        self.assertEqual(hashlib.sha256(content).hexdigest(), found.sha256)
        self.assertEqual((768, 768), (found.size, found.stat.size))

    def test_file_of_another(self) -> None:
        """It is read, too, but only its owner may keep the access time."""
        open_ = os.open

        def refuse(
            path: bytes, flags: int, *mode: int, dir_fd: int | None = None
        ) -> int:
            if flags & os.O_NOATIME == os.O_NOATIME:
                raise PermissionError
            return open_(path, flags, *mode, dir_fd=dir_fd)

        self.put("a")
        self.patch(os, "open", refuse)
        self.assertEqual(7, self.read("a").size)

    def test_no_file(self) -> None:
        """Nothing but a file is opened, and no link is followed."""
        self.put("a")
        (self.bucket / "link").symlink_to("a")
        os.mkfifo(self.bucket / "pipe")
        for name in ("link", "pipe"):
            self.assertRaises(NotAFileError, self.read, name)
        self.assertRaises(NoFileError, self.read, "b")

    def test_unsteady(self) -> None:
        """A file that is written to, replaced or removed meanwhile has no content."""

        def append() -> None:
            with open(self.bucket / "a", "ab") as file:
                file.write(b"more")

        def replace() -> None:
            self.put("new")
            os.rename(self.bucket / "new", self.bucket / "a")

        def remove() -> None:
            (self.bucket / "a").unlink()

        for do in (append, replace, remove):
            self.put("a")
            once = iter([do])
            self.assertRaises(
                UnsteadyError, self.read, "a", lambda size, once=once: _next(once)
            )

    def test_copied(self) -> None:
        """All bytes are passed on, even if the file is deleted meanwhile."""
        self.patch(archive, "READ_SIZE", 512)
        content = os.urandom(1200)
        path = self.put("a", content)
        pieces: list[bytes] = []
        with self.archive.open("web01") as folder, folder.open("a") as file:
            path.unlink()
            found = file.copy(lambda piece: pieces.append(bytes(piece)))
        self.assertEqual([512, 512, 176], [len(each) for each in pieces])
        self.assertEqual(content, b"".join(pieces))
        self.assertEqual(
            (1200, hashlib.sha256(content).hexdigest()), (found.size, found.sha256)
        )

    def test_grows_all_the_time(self) -> None:
        """Reading it ends."""
        self.patch(archive, "READ_SIZE", 512)
        path = self.put("a", bytes(700))
        sizes: list[int] = []

        def append(size: int) -> None:
            sizes.append(size)
            self.assertLess(len(sizes), 9)
            with path.open("ab") as file:
                file.write(bytes(512))

        self.assertRaises(UnsteadyError, self.read, "a", append)

    def test_opened_elsewhere(self) -> None:
        """Another process may open the file; it must be one."""
        path = self.put("a")
        with path.open("rb") as file:
            found = StoredFile.of(file.fileno())
            self.assertEqual(7, found.copy(len).size)
        self.assertRaises(NotAFileError, self.of_folder)

    def of_folder(self) -> None:
        with directory(str(self.bucket)) as fd:
            StoredFile.of(fd)

    def test_replaced_before_it_is_open(self) -> None:
        self.put("a")
        look = Folder.look

        def replaced(folder: Folder, name: str) -> Stat:
            found = look(folder, name)
            self.put("new", b"other")
            os.rename(self.bucket / "new", self.bucket / "a")
            return found

        self.patch(Folder, "look", replaced)
        self.assertRaises(UnsteadyError, self.read, "a")

    def test_stopped(self) -> None:
        """The pace may stop it."""
        self.put("a")

        def stop(size: int) -> None:
            raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, self.read, "a", stop)


def _next(calls: Iterator[Callable[[], object]]) -> None:
    """Run one step."""
    for call in calls:
        call()
        return
