"""Directories that are opened and synced, files that are replaced, free bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.fs import (
    directory,
    free_bytes,
    make_directory,
    open_directory,
    replacing,
    sync_directory,
    sync_path,
    total_bytes,
)


class FolderCase(SynchronousTestCase):
    """With a folder of its own, and its descriptor."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.fd = open_directory(str(self.folder))
        self.addCleanup(os.close, self.fd)

    def watch(self, *calls: str) -> list[str]:
        """The names of these calls, as they are made from now on."""
        made: list[str] = []
        for call in calls:
            real = getattr(os, call)

            def called(
                *given: Any, call: str = call, real: Any = real, **more: Any
            ) -> Any:
                made.append(call)
                return real(*given, **more)

            self.patch(os, call, called)
        return made

    def break_(self, call: str) -> None:
        """Make a call fail."""

        def full(*given: object, **more: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, call, full)


class OpenTests(FolderCase):
    """Directories are opened, and nothing else."""

    def test_relative(self) -> None:
        """A relative path begins at a descriptor."""
        (self.folder / "a").mkdir()
        with directory("a", self.fd) as fd:
            found = os.fstat(fd)
            self.assertFalse(os.get_inheritable(fd))
        self.assertTrue(os.path.samestat(found, os.stat(self.folder / "a")))
        self.assertRaises(OSError, os.fstat, fd)

    def test_no_directory(self) -> None:
        """A file or a pipe is not opened, nor is what is not there."""
        (self.folder / "file").write_bytes(b"")
        os.mkfifo(self.folder / "pipe")
        for name in ("file", "pipe"):
            self.assertRaises(NotADirectoryError, open_directory, name, self.fd)
        self.assertRaises(FileNotFoundError, open_directory, "a", self.fd)

    def test_link(self) -> None:
        """It is followed, unless it must not be."""
        (self.folder / "a").mkdir()
        (self.folder / "link").symlink_to("a")
        os.close(open_directory("link", self.fd))
        os.close(open_directory("a", self.fd, follow=False))
        error = self.assertRaises(
            OSError, open_directory, "link", self.fd, follow=False
        )
        self.assertIsInstance(error, NotADirectoryError)

    def test_closed_after_error(self) -> None:
        """The block may fail."""
        try:
            with directory(str(self.folder)) as fd:
                raise ValueError
        except ValueError:
            self.assertRaises(OSError, os.fstat, fd)


class MakeTests(FolderCase):
    """A directory that is made, or is there."""

    def test_mode(self) -> None:
        """It is its owner's only, and its name is brought to the disk before it is
        opened."""
        made = self.watch("mkdir", "fsync", "open")
        fd = make_directory("a", self.fd)
        self.addCleanup(os.close, fd)
        self.assertEqual(["mkdir", "fsync", "open"], made)
        self.assertEqual(0o700, stat.S_IMODE(os.fstat(fd).st_mode))

    def test_is_there(self) -> None:
        """It stays as it is, and its name is brought to the disk all the same."""
        (self.folder / "a").mkdir(0o750)
        made = self.watch("fsync")
        os.close(make_directory("a", self.fd))
        self.assertEqual(["fsync"], made)
        self.assertEqual(0o750, stat.S_IMODE((self.folder / "a").stat().st_mode))

    def test_is_a_file(self) -> None:
        """It is not opened."""
        (self.folder / "a").write_bytes(b"")
        self.assertRaises(NotADirectoryError, make_directory, "a", self.fd)


class SyncTests(FolderCase):
    """A directory is brought to the disk."""

    def test_calls(self) -> None:
        """An fsync, and a stat that fails where XFS has lost its disk."""
        made = self.watch("fsync", "fstat")
        sync_directory(self.fd)
        self.assertEqual(["fsync", "fstat"], made)

    def test_errors(self) -> None:
        """Either call may tell that it failed."""
        for call in ("fsync", "fstat"):
            real = getattr(os, call)
            self.break_(call)
            self.assertRaises(OSError, sync_directory, self.fd)
            self.patch(os, call, real)

    def test_path(self) -> None:
        """It is opened for that, and closed."""
        synced: list[int] = []
        self.patch(os, "fsync", synced.append)
        sync_path(str(self.folder))
        (fd,) = synced
        self.assertNotEqual(self.fd, fd)
        self.assertRaises(OSError, os.fstat, fd)


class ReplaceTests(FolderCase):
    """A file is replaced at once."""

    def setUp(self) -> None:
        super().setUp()
        self.file, self.aside = self.folder / "file", self.folder / "file.new"
        self.file.write_bytes(b"old")

    def replace(self, durable: bool = False) -> None:
        with replacing(str(self.file), str(self.aside), durable) as file:
            file.write(b"new")
            self.assertEqual(b"old", self.file.read_bytes())

    def test_replaced(self) -> None:
        """What was there is untouched until the end; nobody else may read the new."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        made = self.watch("fsync")
        self.replace()
        self.assertEqual([], made)
        self.assertEqual(b"new", self.file.read_bytes())
        self.assertEqual(0o600, stat.S_IMODE(self.file.stat().st_mode))
        self.assertEqual(["file"], os.listdir(self.folder))

    def test_none_there(self) -> None:
        """It need not replace anything."""
        aside = str(self.folder / "b.new")
        with replacing(str(self.folder / "b"), aside) as file:
            file.write(b"new")
        self.assertEqual({"b", "file"}, set(os.listdir(self.folder)))

    def test_durable(self) -> None:
        """All of it is on the disk before it has its name."""
        sizes: list[int] = []
        real = os.fsync

        def sync(fd: int) -> None:
            sizes.append(os.fstat(fd).st_size)
            made.append("fsync")
            real(fd)

        made = self.watch("rename")
        self.patch(os, "fsync", sync)
        self.replace(durable=True)
        self.assertEqual((["fsync", "rename"], [3]), (made, sizes))

    def test_left_over(self) -> None:
        """What was left aside is removed, and not written to: it may be another name
        of anything."""
        victim = self.folder / "victim"
        victim.write_bytes(b"precious")
        os.link(victim, self.aside)
        self.replace()
        self.aside.symlink_to("victim")
        self.file.write_bytes(b"old")
        self.replace()
        self.assertEqual(b"precious", victim.read_bytes())
        self.assertEqual({"file", "victim"}, set(os.listdir(self.folder)))

    def test_failures(self) -> None:
        """Nothing has changed and nothing is left, whatever fails."""
        for call in ("fsync", "rename"):
            real = getattr(os, call)
            self.break_(call)
            self.assertRaises(OSError, self.replace, durable=True)
            self.patch(os, call, real)
            self.assertEqual(b"old", self.file.read_bytes())
            self.assertEqual(["file"], os.listdir(self.folder))

    def test_block_fails(self) -> None:
        """So it is when the block fails."""
        try:
            with replacing(str(self.file), str(self.aside)) as file:
                file.write(b"new")
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.assertEqual(b"old", self.file.read_bytes())
            self.assertEqual(["file"], os.listdir(self.folder))

    def test_no_folder(self) -> None:
        """The error is the one that says so."""
        path = str(self.folder / "a" / "file")
        block = replacing(path, f"{path}.new")
        self.assertRaises(FileNotFoundError, block.__enter__)


class BytesTests(SynchronousTestCase):
    """What statvfs counts in blocks."""

    def test_sizes(self) -> None:
        """In fragments; what is root's only is not free."""
        bsize, frsize, blocks, bfree, bavail = 4096, 512, 1000, 300, 200
        found = os.statvfs_result(
            (bsize, frsize, blocks, bfree, bavail, 0, 0, 0, 0, 255)
        )
        self.assertEqual(512_000, total_bytes(found))
        self.assertEqual(102_400, free_bytes(found))
