"""Tests of :mod:`filebucket.store.seal`, with flags in memory. ``proofs/sealed.py`` has
real ones."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from filebucket.store import seal as module
from filebucket.store.attributes import APPEND_ONLY, IMMUTABLE
from filebucket.store.seal import (
    AHEAD,
    FOREIGN,
    LINKED,
    NOT_ALLOWED,
    OPEN,
    Fate,
    Result,
    SealError,
    sealing,
)
from filebucket.test.kit.sealed import MemoryAttributes, place_of
from filebucket.test.store.test_remove import HomeCase


class SealCase(HomeCase):
    """Seals the files of a bucket."""

    def setUp(self) -> None:
        super().setUp()
        self.attributes = MemoryAttributes()
        # All files are older.
        self.before = time.time() + 60

    def seal(self, directory: str = "web01") -> dict[str | None, tuple[Fate, str]]:
        """Seal, and return the results by name."""
        with sealing(str(self.home), self.attributes) as home:
            return by_name(home.seal(directory, self.before))

    def lift(self, *names: bytes) -> dict[str | None, tuple[Fate, str]]:
        with sealing(str(self.home), self.attributes) as home:
            return by_name(home.lift("web01", names or None))

    def sealed(self) -> set[str]:
        """The sealed files."""
        return {
            name
            for name in ("a", "b")
            if self.attributes.of(self.bucket / name) & IMMUTABLE
        }


def by_name(results: Iterable[Result]) -> dict[str | None, tuple[Fate, str]]:
    return {
        None if each.name is None else os.fsdecode(each.name): (each.fate, each.reason)
        for each in results
    }


class SealTests(SealCase):
    """Which files are sealed."""

    def test_seals(self) -> None:
        """Each file once; what is no file is passed over."""
        (self.bucket / "folder").mkdir()
        (self.bucket / "link").symlink_to("a")
        os.mkfifo(self.bucket / "pipe")
        self.assertEqual({"a": (Fate.SEALED, ""), "b": (Fate.SEALED, "")}, self.seal())
        self.assertEqual({"a", "b"}, self.sealed())
        already = (Fate.ALREADY, "")
        self.assertEqual({"a": already, "b": already}, self.seal())

    def test_too_new(self) -> None:
        """The time of the last change of anything counts: a client, and the daemon's
        user, can choose that of the content."""
        os.utime(self.bucket / "a", (1, 1))
        self.before = time.time() - 60
        young = (Fate.YOUNG, "")
        self.assertEqual({"a": young, "b": young}, self.seal())
        self.assertEqual(set(), self.sealed())

    def test_open_for_writing(self) -> None:
        """The flag would not stop that process: it is lifted again."""
        self.attributes.written.add(self.place("a"))
        self.assertEqual((Fate.FAILED, OPEN), self.seal()["a"])
        self.assertEqual({"b"}, self.sealed())

    def test_opened_in_between(self) -> None:
        """A process that is found only later is reported; the seal stays."""
        self.seal()
        self.attributes.written.add(self.place("a"))
        reason = f"{OPEN}, since before it was sealed"
        self.assertEqual((Fate.FAILED, reason), self.seal()["a"])
        self.assertEqual({"a", "b"}, self.sealed())

    def test_lease_fails(self) -> None:
        """A file of which that is not known is not sealed either."""

        def is_written(attributes: MemoryAttributes, fd: int) -> bool:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        self.patch(MemoryAttributes, "is_written", is_written)
        self.assertEqual(Fate.FAILED, self.seal()["a"][0])
        self.assertEqual(set(), self.sealed())

    def test_hard_link(self) -> None:
        """It may be a file of the system, or one that is still being published: the
        daemon could not remove its other name."""
        os.link(self.bucket / "a", self.home / ".filebucket" / "a")
        self.assertEqual((Fate.FAILED, LINKED), self.seal()["a"])
        self.assertEqual({"b"}, self.sealed())

    def test_owner(self) -> None:
        """A file of another user is left alone."""
        self.patch(module, "_owner", lambda fd: os.getuid() + 1)
        self.assertEqual((Fate.FAILED, FOREIGN), self.seal()["a"])
        self.assertEqual(set(), self.sealed())

    def test_not_allowed(self) -> None:
        self.attributes.allowed = False
        self.assertEqual((Fate.FAILED, NOT_ALLOWED), self.seal()["a"])

    def test_no_such_flag(self) -> None:
        self.attributes.supported = False
        reason = "the filesystem does not support immutable files"
        self.assertEqual((Fate.FAILED, reason), self.seal()["a"])

    def test_gone(self) -> None:
        """A file that is pruned after its name was read is passed over."""

        def get(attributes: MemoryAttributes, fd: int) -> int:
            for name in ("a", "b"):
                (self.bucket / name).unlink(missing_ok=True)
            return 0

        self.patch(MemoryAttributes, "get", get)
        self.assertEqual(1, len(self.seal()))

    def test_wrong_clock(self) -> None:
        """A file from a time when the clock was ahead is sealed, and not too new until
        the clock is there again."""
        now = time.time()
        for ahead, young in ((AHEAD - 60, True), (AHEAD + 60, False)):
            self.patch(time, "time", lambda ahead=ahead: now - ahead)
            self.before = now - ahead - 60
            with sealing(str(self.home), self.attributes) as home:
                count = home.unsealed("web01", self.before, 10)
            self.assertEqual(0 if young else 2, count)
            fate = Fate.YOUNG if young else Fate.SEALED
            self.assertEqual((fate, ""), self.seal()["a"])

    def test_lifted_meanwhile(self) -> None:
        """A file that prune lifts while it is looked at is not sealed again: prune
        could not remove it."""
        self.before = time.time() - 60
        self.attributes.mark(self.bucket / "a")
        get = self.attributes.get

        def lift(attributes: MemoryAttributes, fd: int) -> int:
            flags = get(fd)
            self.attributes.flags.clear()
            return flags

        self.patch(MemoryAttributes, "get", lift)
        found = self.seal()["a"][0]
        self.assertIn(found, (Fate.ALREADY, Fate.YOUNG))
        self.assertEqual({}, self.attributes.flags)

    def test_no_folder(self) -> None:
        """Before the first push there is none."""
        self.assertEqual({}, self.seal("web02"))

    def test_folder_is_a_link(self) -> None:
        """It is not followed: it may lead anywhere."""
        (self.home / "web02").symlink_to("web01")
        reason = "its folder is a symbolic link, or not a folder"
        self.assertEqual({None: (Fate.FAILED, reason)}, self.seal("web02"))
        self.assertEqual(set(), self.sealed())

    def test_fuse(self) -> None:
        """A user can mount such a filesystem, and let it hang."""
        self.patch(module, "filesystem_type", lambda fd: "fuse.sshfs")
        reason = "its filesystem does not support immutable files (fuse.sshfs)"
        self.assertEqual({None: (Fate.FAILED, reason)}, self.seal())

    def test_no_home(self) -> None:
        error = self.assertRaises(SealError, sealing("/nowhere").__enter__)
        self.assertEqual(
            "the home cannot be opened: No such file or directory", str(error)
        )

    def place(self, name: str) -> tuple[int, int]:
        fd = os.open(self.bucket / name, os.O_RDONLY)
        try:
            return place_of(fd)
        finally:
            os.close(fd)


class LiftTests(SealCase):
    def setUp(self) -> None:
        super().setUp()
        self.seal()

    def test_all(self) -> None:
        lifted = (Fate.LIFTED, "")
        self.assertEqual({"a": lifted, "b": lifted}, self.lift())
        self.assertEqual(set(), self.sealed())
        self.assertEqual({}, self.lift())

    def test_some(self) -> None:
        """A name that does not exist is reported."""
        missing = (Fate.FAILED, "there is no such file")
        self.assertEqual({"a": (Fate.LIFTED, ""), "c": missing}, self.lift(b"a", b"c"))
        self.assertEqual({"b"}, self.sealed())

    def test_path(self) -> None:
        """It may lead out of the folder, by a link of the daemon's user."""
        (self.bucket / "link").symlink_to(".")
        missing = (Fate.FAILED, "there is no such file")
        self.assertEqual({"link/a": missing}, self.lift(b"link/a"))
        self.assertEqual({"a", "b"}, self.sealed())

    def test_linked(self) -> None:
        """A file with another name may be any file of the system."""
        os.link(self.bucket / "a", self.home / "a")
        lifted = (Fate.LIFTED, "")
        self.assertEqual({"a": (Fate.FAILED, LINKED), "b": lifted}, self.lift())
        self.assertEqual({"a"}, self.sealed())

    def test_folder(self) -> None:
        """A name that is no file is left alone."""
        (self.bucket / "folder").mkdir()
        self.attributes.mark(self.bucket / "folder")
        self.assertEqual({}, self.lift(b"folder"))
        self.assertEqual(IMMUTABLE, self.attributes.of(self.bucket / "folder"))


class HomeTests(SealCase):
    """The storage folder itself."""

    def test_protect(self) -> None:
        with sealing(str(self.home), self.attributes) as home:
            for act, fate, flags in (
                (home.protect, Fate.SEALED, APPEND_ONLY),
                (home.protect, Fate.ALREADY, APPEND_ONLY),
                (home.unprotect, Fate.LIFTED, 0),
                (home.unprotect, Fate.ALREADY, 0),
            ):
                self.assertEqual(Result(None, fate), act())
                self.assertEqual(flags, self.attributes.of(self.home))
                self.assertEqual(bool(flags), home.is_protected())

    def test_not_allowed(self) -> None:
        self.attributes.allowed = False
        with sealing(str(self.home), self.attributes) as home:
            self.assertEqual(Result(None, Fate.FAILED, NOT_ALLOWED), home.protect())

    def test_unsealed(self) -> None:
        """Files that should be sealed are counted; new ones are not."""
        with sealing(str(self.home), self.attributes) as home:
            self.assertEqual(2, home.unsealed("web01", self.before, 10))
            self.assertEqual(1, home.unsealed("web01", self.before, 1))
            self.assertEqual(0, home.unsealed("web01", time.time() - 60, 10))
            self.seal()
            self.assertEqual(0, home.unsealed("web01", self.before, 10))
            self.assertRaises(FileNotFoundError, home.unsealed, "web02", 0, 10)
