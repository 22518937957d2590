"""Tests of :mod:`filebucket.store.aside`."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import ConfigError
from filebucket.base.fs import open_directory
from filebucket.store.aside import AsideFile, StagedFile, UnnamedFile, find_tier
from filebucket.test.kit.descriptors import open_descriptors


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

    tier: type[AsideFile]

    def make(self, content: bytes = b"new") -> AsideFile:
        """A sealed file."""
        aside = self.tier(*self.fds)
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
        aside = self.tier(*self.fds)
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
        aside = self.tier(*self.fds)
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
        self.tier(*self.fds).discard()
        self.make().discard()
        self.assertEqual({}, self.published())
        self.assert_nothing_left()

    def test_seal(self) -> None:
        synced: list[int] = []
        aside = self.tier(*self.fds)
        fd = aside.fd
        self.patch(os, "fsync", synced.append)
        aside.seal()
        self.assertEqual([fd], synced)
        aside.discard()


class UnnamedFileTests(TierContract, FolderCase):
    tier = UnnamedFile

    def test_no_name(self) -> None:
        """Until then it is in no folder."""
        aside = self.tier(*self.fds)
        self.assertEqual(([], {}), (os.listdir(self.incoming), self.published()))
        aside.discard()


class StagedFileTests(TierContract, FolderCase):
    tier = StagedFile

    def test_private_name(self) -> None:
        """Until then it is in the incoming folder, for its owner only."""
        self.addCleanup(os.umask, os.umask(0))
        aside = self.tier(*self.fds)
        (private,) = self.incoming.iterdir()
        self.assertEqual(0o100600, private.stat().st_mode)
        aside.discard()
        self.assert_nothing_left()

    def test_other_filesystem(self) -> None:
        """A bucket on another filesystem is refused before anything is received."""
        proc = open_directory("/proc")
        self.addCleanup(os.close, proc)
        error = self.assertRaises(OSError, self.tier, proc, self.fds[1])
        self.assertEqual(errno.EXDEV, error.errno)
        self.assertEqual([], os.listdir(self.incoming))


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
