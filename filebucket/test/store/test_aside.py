"""Tests of :mod:`filebucket.store.aside`."""

from __future__ import annotations

import builtins
import errno
import itertools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import ConfigError
from filebucket.base.fs import open_directory
from filebucket.store.aside import (
    AsideFile,
    PartFile,
    StagedFile,
    UnnamedFile,
    _place,
    find_tier,
)
from filebucket.store.interfaces import LostError
from filebucket.test.kit.descriptors import open_descriptors
from filebucket.test.kit.server import PATIENCE


class FolderCase(SynchronousTestCase):
    """Has a bucket, and a folder for private names."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        self.bucket, self.incoming = folder / "bucket", folder / "incoming"
        self.fds = []
        for each in (self.bucket, self.incoming):
            each.mkdir(parents=True)
            fd = open_directory(str(each))
            self.addCleanup(os.close, fd)
            self.fds.append(fd)
        self.descriptors = open_descriptors()

    def assert_nothing_left(self) -> None:
        """No file is left, and no descriptor open."""
        self.assertEqual([], os.listdir(self.incoming))
        self.assertEqual(set(), open_descriptors() - self.descriptors)

    def published(self) -> dict[str, bytes]:
        """The files in the bucket, by name."""
        return {each.name: each.read_bytes() for each in self.bucket.iterdir()}


if TYPE_CHECKING:
    AnyFolder = FolderCase
else:
    AnyFolder = object  # or the tests would run without a tier


class TierContract(AnyFolder):
    """What each tier does."""

    def open(self) -> AsideFile | PartFile:
        """A file to write to."""
        raise NotImplementedError

    def make(self, content: bytes = b"new") -> AsideFile | PartFile:
        """A sealed file."""
        aside = self.open()
        os.write(aside.fd, content)
        self.assertFalse(os.get_inheritable(aside.fd))
        self.assertEqual({}, {k: v for k, v in self.published().items() if k != "a"})
        aside.seal()
        return aside

    def test_link(self) -> None:
        """Only its owner can read the published file."""
        self.addCleanup(os.umask, os.umask(0))
        aside = self.make()
        aside.link(b"a")
        self.assertTrue(aside.has(b"a"))
        aside.discard()
        self.assertEqual({"a": b"new"}, self.published())
        self.assertEqual(0o100600, (self.bucket / "a").stat().st_mode)
        self.assert_nothing_left()

    def test_name_taken(self) -> None:
        """A link never replaces anything, not even a dangling symlink."""
        (self.bucket / "a").write_bytes(b"old")
        (self.bucket / "b").symlink_to("nowhere")
        aside = self.open()
        aside.seal()
        for name in (b"a", b"b"):
            self.assertRaises(FileExistsError, aside.link, name)
            self.assertFalse(aside.has(name))
        aside.discard()
        self.assertEqual(b"old", (self.bucket / "a").read_bytes())
        self.assert_nothing_left()

    def test_replace(self) -> None:
        """It gets the name, whether that is taken or not."""
        for content in (b"first", b"second"):
            aside = self.make(content)
            aside.replace(b"a")
            aside.discard()
            self.assertEqual({"a": content}, self.published())
        self.assert_nothing_left()

    def test_replace_fails(self) -> None:
        """Nothing is left of it, and the old file stays."""
        (self.bucket / "a").mkdir()
        aside = self.open()
        aside.seal()
        self.assertRaises(IsADirectoryError, aside.replace, b"a")
        aside.discard()
        self.assertEqual(["a"], os.listdir(self.bucket))
        self.assert_nothing_left()

    def test_has(self) -> None:
        """A name that another file took does not belong to it any more."""
        aside = self.make()
        aside.link(b"a")
        other = self.make(b"other")
        other.replace(b"a")
        self.assertFalse(aside.has(b"a"))
        for each in (aside, other):
            each.discard()

    def test_discard(self) -> None:
        """Before it is sealed, and after."""
        self.open().discard()
        self.make().discard()
        self.assertEqual({}, self.published())
        self.assert_nothing_left()

    def test_seal(self) -> None:
        synced: list[int] = []
        aside = self.open()
        fd = aside.fd
        self.patch(os, "fsync", synced.append)
        aside.seal()
        self.assertEqual([fd], synced)
        aside.discard()


class UnnamedFileTests(TierContract, FolderCase):
    def open(self) -> UnnamedFile:
        return UnnamedFile(*self.fds)

    def test_no_name(self) -> None:
        """Until then it is in no folder."""
        aside = self.open()
        self.assertEqual(([], {}), (os.listdir(self.incoming), self.published()))
        aside.discard()


class StagedFileTests(TierContract, FolderCase):
    def open(self) -> StagedFile:
        bucket_fd, incoming_fd = self.fds
        return StagedFile(bucket_fd, incoming_fd)

    def test_private_name(self) -> None:
        """Until then it is in the incoming folder, for its owner only."""
        self.addCleanup(os.umask, os.umask(0))
        aside = self.open()
        (private,) = self.incoming.iterdir()
        self.assertEqual(0o100600, private.stat().st_mode)
        aside.discard()
        self.assert_nothing_left()

    def test_other_filesystem(self) -> None:
        """A bucket on another filesystem is refused before anything is received."""
        proc = open_directory("/proc")
        self.addCleanup(os.close, proc)
        error = self.assertRaises(OSError, StagedFile, proc, self.fds[1])
        self.assertEqual(errno.EXDEV, error.errno)
        self.assertEqual([], os.listdir(self.incoming))


class PartFileTests(TierContract, FolderCase):
    """A file that keeps its private name."""

    def setUp(self) -> None:
        super().setUp()
        self.parts = self.incoming.with_name("parts")
        self.parts.mkdir()
        self.parts_fd = open_directory(str(self.parts))
        self.addCleanup(os.close, self.parts_fd)
        self.descriptors = open_descriptors()
        self.names = itertools.count()

    def open(self) -> PartFile:
        return self.part(f"{next(self.names)}".encode(), None)

    def part(self, name: bytes, offset: int | None) -> PartFile:
        bucket_fd, incoming_fd = self.fds
        return PartFile(bucket_fd, incoming_fd, self.parts_fd, name, offset)

    def write(self, name: bytes, offset: int | None, content: bytes) -> None:
        """Write and close."""
        part = self.part(name, offset)
        os.write(part.fd, content)
        part.seal()
        part.discard()

    def assert_error(self, number: int, name: bytes, offset: int | None) -> None:
        error = self.assertRaises(OSError, self.part, name, offset)
        self.assertEqual(number, error.errno)
        self.assert_nothing_left()

    def assert_lost(self, name: bytes, offset: int) -> None:
        self.assertRaises(LostError, self.part, name, offset)
        self.assert_nothing_left()

    def test_private_name(self) -> None:
        """For its owner only, from the beginning until it is removed."""
        self.addCleanup(os.umask, os.umask(0))
        part = self.part(b"part", None)
        self.assertEqual(0o100600, (self.parts / "part").stat().st_mode)
        part.link(b"a")
        part.discard()
        self.assertTrue((self.parts / "part").samefile(self.bucket / "a"))

    def test_go_on(self) -> None:
        """At the offset, also if there is more."""
        self.write(b"part", None, b"first")
        self.write(b"part", 5, b"second")
        self.write(b"part", 5, b"2nd")
        self.assertEqual(b"first2nd", (self.parts / "part").read_bytes())

    def test_create_what_is_there(self) -> None:
        """Nothing is overwritten."""
        self.write(b"part", None, b"first")
        self.assert_error(errno.EEXIST, b"part", None)
        self.assertEqual(b"first", (self.parts / "part").read_bytes())

    def test_go_on_with_less(self) -> None:
        """A file that is missing, or shorter than it was, is not continued."""
        self.assert_lost(b"part", 0)
        self.write(b"part", None, b"first")
        self.assert_lost(b"part", 6)

    def test_go_on_with_another_name(self) -> None:
        """A published file, or one with another name, is never written to."""
        self.write(b"part", None, b"first")
        os.link(self.parts / "part", self.bucket / "a")
        self.assert_error(errno.EMLINK, b"part", 5)
        self.assertEqual({"a": b"first"}, self.published())

    def test_go_on_with_a_link(self) -> None:
        (self.bucket / "a").write_bytes(b"precious")
        (self.parts / "part").symlink_to((self.bucket / "a").absolute())
        self.assert_lost(b"part", 3)
        self.assertEqual({"a": b"precious"}, self.published())

    def test_go_on_out_of_reach(self) -> None:
        """A file that cannot be opened now is not lost."""
        self.write(b"part", None, b"first")
        for number in (errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE):
            self.fail_to_open(b"part", number)
            self.assert_error(number, b"part", 5)

    def fail_to_open(self, name: bytes, number: int) -> None:
        real = os.open

        def fail(path: Any, *args: Any, **kwargs: Any) -> int:
            if path == name:
                raise OSError(number, os.strerror(number))
            return real(path, *args, **kwargs)

        self.patch(os, "open", fail)

    def test_cut(self) -> None:
        """The next byte follows, and the cut is made durable, too."""
        synced: list[int] = []
        self.patch(os, "fsync", synced.append)
        part = self.part(b"part", None)
        part.seal()
        os.write(part.fd, b"first wrong")
        part.seal()
        part.seal()
        part.cut(5)
        self.assertEqual(2, len(synced))
        os.write(part.fd, b" right")
        part.seal()
        self.assertEqual(3, len(synced))
        part.cut(11)
        part.seal()
        self.assertEqual(4, len(synced))
        part.discard()
        self.assertEqual(b"first right", (self.parts / "part").read_bytes())

    def test_a_failed_seal(self) -> None:
        """It does not count."""

        def fail(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        part = self.part(b"part", None)
        synced: list[int] = []
        for _ in range(2):
            self.patch(os, "fsync", fail)
            self.assertRaises(OSError, part.seal)
        self.patch(os, "fsync", synced.append)
        part.seal()
        self.assertEqual([part.fd], synced)
        part.discard()

    def test_other_filesystem(self) -> None:
        """It could never be linked there."""
        proc = open_directory("/proc")
        self.addCleanup(os.close, proc)
        self.fds[0] = proc
        self.descriptors = open_descriptors()
        self.assert_error(errno.EXDEV, b"part", None)
        self.assertEqual([], os.listdir(self.parts))

    def test_place(self) -> None:
        """Two folders of one mount are one place; without /proc, of one filesystem."""
        self.assertEqual(*map(_place, self.fds))
        device, mount = _place(self.fds[0])
        self.assertRegex(mount, rb"\Amnt_id:\s*\d+\n\Z")

        def missing(*given: Any, **more: Any) -> Any:
            raise FileNotFoundError

        self.patch(builtins, "open", missing)
        self.assertEqual((device, b""), _place(self.fds[0]))

    def test_a_mount(self) -> None:
        """A folder mounted from the same filesystem is another place."""
        if os.geteuid():
            raise SkipTest("only root can mount")
        mounted = self.bucket / "mounted"
        mounted.mkdir()
        run = ["mount", "--bind", str(self.incoming), str(mounted)]
        mounting = subprocess.run(
            run, check=False, stderr=subprocess.DEVNULL, timeout=PATIENCE
        )
        if mounting.returncode:
            raise SkipTest("mount does not work here")
        try:
            self.fds[0] = open_directory(str(mounted))
            try:
                self.descriptors = open_descriptors()
                self.assert_error(errno.EXDEV, b"part", None)
            finally:
                os.close(self.fds[0])
                self.fds[0] = os.dup(self.fds[1])
                self.addCleanup(os.close, self.fds[0])
        finally:
            subprocess.run(["umount", str(mounted)], check=True, timeout=PATIENCE)


class FindTierTests(FolderCase):
    """Which tier a filesystem supports."""

    def find(self) -> str:
        return find_tier("/home", self.fds[1]).tier

    def break_(self, call: str, when: Any = lambda *given, **more: True) -> None:
        """Make a call fail if the condition is true."""
        real = getattr(os, call)

        def fails(*given: Any, **more: Any) -> Any:
            if when(*given, **more):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return real(*given, **more)

        self.patch(os, call, fails)

    def test_best(self) -> None:
        """Prefers the one that leaves nothing behind."""
        self.assertEqual(UnnamedFile.tier, self.find())
        self.assert_nothing_left()

    def test_no_unnamed_files(self) -> None:
        self.break_("open", lambda path, *given, **more: path == ".")
        self.assertEqual(StagedFile.tier, self.find())
        self.assert_nothing_left()

    def test_none(self) -> None:
        """The error names the home, and a reason for each tier."""
        self.break_("link")
        error = self.assertRaises(ConfigError, self.find)
        self.assertEqual(
            "/home: the filesystem supports no atomic publish (O_TMPFILE:"
            " Invalid argument; temporary name and hard link: Invalid argument)",
            str(error),
        )
        self.assert_nothing_left()
