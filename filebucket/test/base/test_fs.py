"""Opening and syncing directories, replacing files, and free space."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.base.fs import (
    directory,
    filesystem_type,
    free_bytes,
    make_directory,
    open_directory,
    read_cached,
    replacing,
    sync_directory,
    sync_path,
    total_bytes,
)


class FolderCase(SynchronousTestCase):
    """Has a folder, and its descriptor."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.fd = open_directory(str(self.folder))
        self.addCleanup(os.close, self.fd)

    def watch(self, *calls: str) -> list[str]:
        """The names of these calls, as they are made."""
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
    """Only directories are opened."""

    def test_relative(self) -> None:
        (self.folder / "a").mkdir()
        with directory("a", self.fd) as fd:
            found = os.fstat(fd)
            self.assertFalse(os.get_inheritable(fd))
        self.assertTrue(os.path.samestat(found, os.stat(self.folder / "a")))
        self.assertRaises(OSError, os.fstat, fd)

    def test_no_directory(self) -> None:
        (self.folder / "file").write_bytes(b"")
        os.mkfifo(self.folder / "pipe")
        for name in ("file", "pipe"):
            self.assertRaises(NotADirectoryError, open_directory, name, self.fd)
        self.assertRaises(FileNotFoundError, open_directory, "a", self.fd)

    def test_link(self) -> None:
        (self.folder / "a").mkdir()
        (self.folder / "link").symlink_to("a")
        os.close(open_directory("link", self.fd))
        os.close(open_directory("a", self.fd, follow=False))
        error = self.assertRaises(
            OSError, open_directory, "link", self.fd, follow=False
        )
        self.assertIsInstance(error, NotADirectoryError)

    def test_closed_after_error(self) -> None:
        try:
            with directory(str(self.folder)) as fd:
                raise ValueError
        except ValueError:
            self.assertRaises(OSError, os.fstat, fd)


class MakeTests(FolderCase):
    """Creating a directory, or opening an existing one."""

    def test_mode(self) -> None:
        """Only its owner has access, and its name is synced before it is opened."""
        made = self.watch("mkdir", "fsync", "open")
        fd = make_directory("a", self.fd)
        self.addCleanup(os.close, fd)
        self.assertEqual(["mkdir", "fsync", "open"], made)
        self.assertEqual(0o700, stat.S_IMODE(os.fstat(fd).st_mode))

    def test_is_there(self) -> None:
        (self.folder / "a").mkdir(0o750)
        made = self.watch("fsync")
        os.close(make_directory("a", self.fd))
        self.assertEqual(["fsync"], made)
        self.assertEqual(0o750, stat.S_IMODE((self.folder / "a").stat().st_mode))

    def test_is_a_file(self) -> None:
        (self.folder / "a").write_bytes(b"")
        self.assertRaises(NotADirectoryError, make_directory, "a", self.fd)


class SyncTests(FolderCase):
    """Syncing a directory."""

    def test_calls(self) -> None:
        """An fsync, and a stat, which fails if XFS has lost its disk."""
        made = self.watch("fsync", "fstat")
        sync_directory(self.fd)
        self.assertEqual(["fsync", "fstat"], made)

    def test_errors(self) -> None:
        for call in ("fsync", "fstat"):
            real = getattr(os, call)
            self.break_(call)
            self.assertRaises(OSError, sync_directory, self.fd)
            self.patch(os, call, real)

    def test_path(self) -> None:
        synced: list[int] = []
        self.patch(os, "fsync", synced.append)
        sync_path(str(self.folder))
        (fd,) = synced
        self.assertNotEqual(self.fd, fd)
        self.assertRaises(OSError, os.fstat, fd)


class ReplaceTests(FolderCase):
    """Atomic replacement of a file."""

    def setUp(self) -> None:
        super().setUp()
        self.file, self.aside = self.folder / "file", self.folder / "file.new"
        self.file.write_bytes(b"old")

    def replace(self, durable: bool = False) -> None:
        with replacing(str(self.file), str(self.aside), durable) as file:
            file.write(b"new")
            self.assertEqual(b"old", self.file.read_bytes())

    def test_replaced(self) -> None:
        """The old file is untouched until the end; only its owner reads the new one."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        made = self.watch("fsync")
        self.replace()
        self.assertEqual([], made)
        self.assertEqual(b"new", self.file.read_bytes())
        self.assertEqual(0o600, stat.S_IMODE(self.file.stat().st_mode))
        self.assertEqual(["file"], os.listdir(self.folder))

    def test_none_there(self) -> None:
        aside = str(self.folder / "b.new")
        with replacing(str(self.folder / "b"), aside) as file:
            file.write(b"new")
        self.assertEqual({"b", "file"}, set(os.listdir(self.folder)))

    def test_durable(self) -> None:
        """The content is synced before the rename."""
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
        """An existing temporary file is removed, not opened: it may be a hard link."""
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
        for call in ("fsync", "rename"):
            real = getattr(os, call)
            self.break_(call)
            self.assertRaises(OSError, self.replace, durable=True)
            self.patch(os, call, real)
            self.assertEqual(b"old", self.file.read_bytes())
            self.assertEqual(["file"], os.listdir(self.folder))

    def test_block_fails(self) -> None:
        try:
            with replacing(str(self.file), str(self.aside)) as file:
                file.write(b"new")
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.assertEqual(b"old", self.file.read_bytes())
            self.assertEqual(["file"], os.listdir(self.folder))

    def test_no_folder(self) -> None:
        path = str(self.folder / "a" / "file")
        block = replacing(path, f"{path}.new")
        self.assertRaises(FileNotFoundError, block.__enter__)


class CachedTests(FolderCase):
    """What memory has of a file."""

    def test_read(self) -> None:
        """It is there, in part or not at all, or the filesystem does not tell."""
        fd = os.open(f"{self.folder}/file", os.O_CREAT | os.O_RDWR)
        self.addCleanup(os.close, fd)
        os.write(fd, b"content")
        if read_cached(fd, 0, 1) is None:
            raise SkipTest("this filesystem cannot tell what is in memory")
        self.assertEqual(b"content", read_cached(fd, 0, 100))
        self.assertEqual(b"nte", read_cached(fd, 2, 3))
        self.assertEqual(b"", read_cached(fd, 7, 3))
        for number in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO):

            def preadv(*_: object, number: int = number) -> int:
                raise OSError(number, os.strerror(number))

            self.patch(os, "preadv", preadv)
            self.assertIsNone(read_cached(fd, 0, 100))


class BytesTests(SynchronousTestCase):
    """Sizes from statvfs."""

    def test_sizes(self) -> None:
        bsize, frsize, blocks, bfree, bavail = 4096, 512, 1000, 300, 200
        found = os.statvfs_result(
            (bsize, frsize, blocks, bfree, bavail, 0, 0, 0, 0, 255)
        )
        self.assertEqual(512_000, total_bytes(found))
        self.assertEqual(102_400, free_bytes(found))


class TypeTests(FolderCase):
    """The type of the filesystem of an open file."""

    def type_of(self, path: str) -> str | None:
        with directory(path) as fd:
            return filesystem_type(fd)

    def test_known(self) -> None:
        self.assertEqual("proc", self.type_of("/proc"))

    def test_unknown(self) -> None:
        """Not an open file, or a mount that is not listed, as one of a pipe."""
        self.assertIsNone(filesystem_type(10**9))
        for fd in os.pipe():
            self.addCleanup(os.close, fd)
            self.assertIsNone(filesystem_type(fd))
