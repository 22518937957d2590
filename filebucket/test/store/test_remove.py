"""Tests of :mod:`filebucket.store.remove`."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.base.fs import directory
from filebucket.store import remove as module
from filebucket.store.attributes import IMMUTABLE
from filebucket.store.interfaces import (
    IRemovals,
    IRemover,
    NoFileError,
    NotAFileError,
    SealedError,
)
from filebucket.store.remove import (
    RemovalError,
    Removals,
    await_removal,
    prune_lock,
    removing,
)
from filebucket.test.kit.sealed import MemoryAttributes


class HomeCase(SynchronousTestCase):
    """Has a home with a bucket that has two files."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        (self.home / ".filebucket").mkdir(parents=True)
        self.bucket = self.home / "web01"
        self.bucket.mkdir()
        for name in ("a", "b"):
            (self.bucket / name).write_bytes(b"content")


class AloneTests(HomeCase):
    """The lock of prune."""

    def enter(self) -> None:
        with prune_lock(str(self.home)):
            pass

    def assert_refused(self, reason: str) -> None:
        error = self.assertRaises(RemovalError, self.enter)
        self.assertEqual(reason, str(error))

    def test_one_at_a_time(self) -> None:
        """A second prune is refused until the first one has ended."""
        with prune_lock(str(self.home)):
            self.assert_refused("another filebucket prune is running")
        self.enter()

    def test_no_lock(self) -> None:
        """Nothing is deleted without the lock; a link is none."""
        (self.home / ".filebucket" / "prune").symlink_to("elsewhere")
        self.assert_refused(
            "the home cannot be locked: Too many levels of symbolic links"
        )

    def test_filesystem_without_locks(self) -> None:
        """That is reported in one line, too."""

        def flock(fd: int, how: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        self.patch(fcntl, "flock", flock)
        self.assert_refused("the home cannot be locked: Function not implemented")


class AwaitTests(HomeCase):
    """Waiting for a removal."""

    def test_waits(self) -> None:
        """Only until it has ended."""
        self.patch(module, "REMOVAL", 0.0)
        await_removal(str(self.home), "web01")
        with removing(str(self.home)) as remover, remover.open("web01") as folder:

            def objection() -> None:
                with self.assertRaises(RemovalError):
                    await_removal(str(self.home), "web01")

            folder.remove("a", objection)
            await_removal(str(self.home), "web01")

    def test_stuck(self) -> None:
        """A removal does not wait for ever: the operator would not notice that."""
        self.patch(module, "STUCK", 0.0)
        with directory(str(self.bucket)) as fd, removing(str(self.home)) as remover:
            fcntl.flock(fd, fcntl.LOCK_SH)
            with remover.open("web01") as folder:
                self.assertRaises(RemovalError, folder.remove, "a", lambda: None)
        self.assertTrue((self.bucket / "a").exists())

    def test_no_folder(self) -> None:
        """Nor through a link: prune deletes nothing there."""
        (self.home / "web02").symlink_to("web01")
        for folder in ("web02", "web03"):
            self.assertRaises(OSError, await_removal, str(self.home), folder)


class RemoveTests(HomeCase):
    """Opening, checking and deleting."""

    def remove(self, name: str, objection: str | None = None) -> str | None:
        with removing(str(self.home)) as remover, remover.open("web01") as folder:
            verifyObject(IRemover, remover)
            verifyObject(IRemovals, folder)
            return folder.remove(name, lambda: objection)

    def test_no_home(self) -> None:
        error = self.assertRaises(RemovalError, removing("/nowhere").__enter__)
        self.assertEqual(
            "the home cannot be opened: No such file or directory", str(error)
        )

    def test_removed(self) -> None:
        """Only that file is deleted."""
        self.assertIsNone(self.remove("a"))
        self.assertEqual(["b"], os.listdir(self.bucket))

    def test_objection(self) -> None:
        """With an objection the file stays."""
        self.assertEqual("it is another", self.remove("a", "it is another"))
        self.assertEqual({"a", "b"}, set(os.listdir(self.bucket)))

    def test_gone(self) -> None:
        self.assertRaises(FileNotFoundError, self.remove, "c")

    def test_link_stays_in_the_bucket(self) -> None:
        """The link is deleted, not its target."""
        (self.bucket / "c").symlink_to("a")
        self.remove("c")
        self.assertEqual({"a", "b"}, set(os.listdir(self.bucket)))

    def test_locked(self) -> None:
        """From the objection to the deletion no push can replace the file; afterwards
        it can, whatever happened.
        """
        held: list[str] = []

        def try_lock(when: str) -> None:
            with directory(str(self.bucket)) as fd:
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(when)

        def objection() -> None:
            try_lock("objection")

        def unlink(name: bytes, dir_fd: int) -> None:
            try_lock("unlink")
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        with (
            removing(str(self.home), unlink) as remover,
            remover.open("web01") as folder,
        ):
            self.assertRaises(PermissionError, folder.remove, "a", objection)
            try_lock("afterwards")
        self.assertEqual(["objection", "unlink"], held)

    def test_sealed(self) -> None:
        """The flag of this file alone is lifted, and only if it stays otherwise."""
        attributes = MemoryAttributes()
        for name in ("a", "b"):
            attributes.mark(self.bucket / name)
        with (
            removing(str(self.home), attributes.unlink, attributes) as remover,
            remover.open("web01") as folder,
        ):
            self.assertTrue(folder.is_sealed("a"))
            self.assertEqual("no", folder.remove("a", lambda: "no"))
            self.assertTrue(folder.is_sealed("a"))
            self.assertIsNone(folder.remove("a", lambda: None))
            self.assertTrue(folder.is_sealed("b"))
            self.assertRaises(NoFileError, folder.is_sealed, "a")
        self.assertEqual(["b"], os.listdir(self.bucket))

    def test_sealed_and_not_allowed(self) -> None:
        attributes = MemoryAttributes(allowed=False)
        attributes.mark(self.bucket / "a")
        with (
            removing(str(self.home), attributes.unlink, attributes) as remover,
            remover.open("web01") as folder,
        ):
            self.assertRaises(SealedError, folder.remove, "a", lambda: None)
            self.assertTrue(folder.is_sealed("a"))
        self.assertEqual({"a", "b"}, set(os.listdir(self.bucket)))

    def test_sealed_and_unlink_fails(self) -> None:
        """The file is sealed again, also if the command is interrupted."""
        attributes = MemoryAttributes()
        attributes.mark(self.bucket / "a")
        for error in (OSError(errno.EIO, "disk"), KeyboardInterrupt()):

            def unlink(name: bytes, dir_fd: int, error: Any = error) -> None:
                if attributes.of(self.bucket / "a") & IMMUTABLE:
                    raise PermissionError(errno.EPERM, "sealed")
                raise error

            with (
                removing(str(self.home), unlink, attributes) as remover,
                remover.open("web01") as folder,
            ):
                self.assertRaises(type(error), folder.remove, "a", lambda: None)
                self.assertTrue(folder.is_sealed("a"))

    def test_look(self) -> None:
        """Of files only."""
        (self.bucket / "c").symlink_to("a")
        with removing(str(self.home)) as remover, remover.open("web01") as folder:
            self.assertEqual(7, folder.look("a").size)
            self.assertRaises(NotAFileError, folder.look, "c")
            error = self.assertRaises(NoFileError, folder.look, "d")
            self.assertNotIsInstance(error, NotAFileError)

    def test_sync(self) -> None:
        synced: list[int] = []
        with removing(str(self.home)) as remover, remover.open("web01") as folder:
            assert isinstance(folder, Removals)
            self.patch(os, "fsync", synced.append)
            folder.sync()
            self.assertEqual([folder.fd], synced)

    def test_bucket_is_a_link(self) -> None:
        """It is not followed: it may lead anywhere."""
        (self.home / "web02").symlink_to("web01")
        with removing(str(self.home)) as remover:
            for name, error in (
                ("web02", NotADirectoryError),
                ("web03", FileNotFoundError),
            ):
                self.assertRaises(error, remover.open(name).__enter__)
