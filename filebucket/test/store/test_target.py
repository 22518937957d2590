"""Tests of :mod:`filebucket.store.target`."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.store import target
from filebucket.store.aside import StagedFile, UnnamedFile
from filebucket.store.target import TargetError


class TargetCase(SynchronousTestCase):
    """A folder to write into."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def write(
        self, path: str = "db", own: str = "own", overwrite: bool = False
    ) -> list[str]:
        """Write a file.

        :returns: the names in the folder just before it is published
        """
        place = f"{self.folder}/{path}"
        with target.target(place, own, overwrite, lambda name: name) as found:
            found.write(memoryview(b"con"))
            found.write(memoryview(b"tent"))
            before = os.listdir(self.folder)
            found.publish()
        return before

    def refused(self, *arguments: Any, **given: Any) -> str:
        """The error, after which everything is as before."""
        before = self.there()
        error = self.assertRaises(TargetError, self.write, *arguments, **given)
        self.assertEqual(before, self.there())
        return str(error).replace(f"{self.folder}/", "")

    def there(self) -> dict[str, bytes | None]:
        return {
            each.name: each.read_bytes() if each.is_file() else None
            for each in self.folder.iterdir()
        }


class PublishTests(TargetCase):
    """As files without a name are written."""

    kind: type = UnnamedFile

    def test_written(self) -> None:
        before = self.write()
        if self.kind is UnnamedFile:
            self.assertEqual([], before)
        else:
            (private,) = before
            self.assertRegex(private, r"\A\.filebucket-get-[0-9a-f]{32}-db\Z")
        self.assertEqual({"db": b"content"}, self.there())
        self.assertEqual(0o600, (self.folder / "db").stat().st_mode & 0o777)
        self.write("")
        self.assertEqual({"db": b"content", "own": b"content"}, self.there())

    def test_taken(self) -> None:
        """Also if it is taken in the meantime."""
        (self.folder / "db").write_bytes(b"mine")
        text = "db: already exists; --overwrite replaces it"
        self.assertEqual(text, self.refused())
        self.patch(target, "_refuse", lambda *arguments: None)
        self.assertEqual(text, self.refused())

    def test_overwritten(self) -> None:
        other = self.folder / "other"
        other.write_bytes(b"mine")
        os.link(other, self.folder / "db")
        self.write(overwrite=True)
        self.assertEqual({"db": b"content", "other": b"mine"}, self.there())

    def test_not_a_file(self) -> None:
        """No link is followed, and no device is replaced."""
        os.mkfifo(self.folder / "fifo")
        (self.folder / "link").symlink_to("fifo")
        (self.folder / "dangling").symlink_to("nowhere")
        for name in ("fifo", "link", "dangling"):
            self.assertEqual(
                f"{name}: not a regular file", self.refused(name, overwrite=True)
            )
            self.assertIn("already exists", self.refused(name))

    def test_no_folder(self) -> None:
        for path in ("x/db", "x/"):
            self.assertEqual(f"{path}: No such file or directory", self.refused(path))

    def test_names_with_an_effect(self) -> None:
        """A client chose them; an operator may choose the same."""
        for name in (".profile", "-rf"):
            self.assertIn("a client chose this name", self.refused("", name))
            self.write(name, name)
            self.assertIn(name, self.there())

    def test_given_up(self) -> None:
        """Nothing is left, whatever happened."""

        def give_up() -> None:
            with target.target(str(self.folder), "own", False, str) as found:
                found.write(memoryview(b"content"))
                raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, give_up)
        self.assertEqual({}, self.there())

    def test_part_of_a_write(self) -> None:
        """The rest is written, too."""
        write = os.write
        self.patch(os, "write", lambda fd, piece: write(fd, piece[:2]))
        self.write()
        self.assertEqual({"db": b"content"}, self.there())

    def test_fails(self) -> None:
        """At each step, with one line."""

        def fail(*arguments: object, **given: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        for where, name in (
            (os, "write"),
            (os, "fsync"),
            (self.kind, "link"),
        ):
            with self.subTest(name=name):
                patch = self.patch(where, name, fail)
                self.assertEqual("db: No space left on device", self.refused())
                patch.restore()

    def test_folder_not_durable(self) -> None:
        """A new file is gone; one that has replaced another cannot be undone."""

        def fail(fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(target, "sync_directory", fail)
        self.assertEqual("db: Input/output error", self.refused())
        (self.folder / "db").write_bytes(b"mine")
        with self.assertRaises(TargetError) as caught:
            self.write(overwrite=True)
        self.assertIn(
            "db: written, but a power failure may undo it: Input/output error",
            str(caught.exception),
        )
        self.assertEqual({"db": b"content"}, self.there())

    def test_private(self) -> None:
        """If it replaces a file, it has a name that shows whose it is."""
        names: list[bytes] = []

        def rename(old: bytes, *arguments: object, **given: object) -> None:
            names.append(old)
            raise KeyboardInterrupt

        self.patch(os, "rename", rename)
        self.assertRaises(KeyboardInterrupt, self.write, overwrite=True)
        self.assertRegex(names[0], rb"\A\.filebucket-get-[0-9a-f]{32}(-db)?\Z")
        self.assertEqual({}, self.there())

    def test_interrupted(self) -> None:
        """A signal waits while a file is created, and while it gets its name."""

        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        create = vars(self.kind)["__init__"]

        def interrupted(*arguments: Any) -> None:
            create(*arguments)
            signal.raise_signal(signal.SIGTERM)

        patch = self.patch(self.kind, "__init__", interrupted)
        self.assertRaises(KeyboardInterrupt, self.write)
        self.assertEqual({}, self.there())
        patch.restore()
        rename = os.rename

        def renamed(*arguments: Any, **given: Any) -> None:
            signal.raise_signal(signal.SIGTERM)
            rename(*arguments, **given)

        self.patch(os, "rename", renamed)
        self.assertRaises(KeyboardInterrupt, self.write, overwrite=True)
        self.assertEqual({"db": b"content"}, self.there())

    def test_durable_first(self) -> None:
        """The content, then the name."""
        calls: list[list[str]] = []
        fsync = os.fsync

        def sync(fd: int) -> None:
            calls.append(sorted(self.there()))
            fsync(fd)

        self.patch(os, "fsync", sync)
        self.write()
        self.assertNotIn("db", calls[0])
        self.assertIn("db", calls[1])


class StagedTests(PublishTests):
    """As files with a private name are written, where the filesystem needs that."""

    kind = StagedFile

    def setUp(self) -> None:
        super().setUp()

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        self.patch(UnnamedFile, "__init__", refuse)


class NameTests(TargetCase):
    """A filesystem with private names, such as FAT."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(target, "_Unnamed", _no_unnamed)

    def test_refused(self) -> None:
        """A name that the filesystem does not have is refused before the copy."""
        create = os.open

        def refuse(name: Any, *arguments: Any, **given: Any) -> int:
            if b":" in os.fsencode(name):
                raise OSError(errno.EINVAL, "Invalid argument")
            return create(name, *arguments, **given)

        self.patch(os, "open", refuse)
        self.patch(os, "write", lambda *arguments: self.fail("written"))
        self.assertEqual(
            "a:b: the filesystem refuses this name (Invalid argument); give another"
            " with -o",
            self.refused("a:b"),
        )

    def test_long(self) -> None:
        """A private name is never too long."""
        self.write("x" * 255)
        self.assertEqual({"x" * 255: b"content"}, self.there())

    def test_cannot_write(self) -> None:
        """If no file can be created, it is not the name's fault."""
        create = os.open

        def refuse(name: Any, flags: int, *arguments: Any, **given: Any) -> int:
            if flags & os.O_CREAT:
                raise OSError(errno.EROFS, "Read-only file system")
            return create(name, flags, *arguments, **given)

        self.patch(os, "open", refuse)
        self.assertEqual("db: Read-only file system", self.refused())


def _no_unnamed(*arguments: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


class NoLinksTests(TargetCase):
    """A filesystem without hard links."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(target, "_aside", lambda fd, name: target._Staged(fd, fd))
        self.patch(StagedFile, "link", self.refuse)

    def refuse(self, *arguments: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def test_written(self) -> None:
        self.write()
        self.assertEqual({"db": b"content"}, self.there())

    def test_taken(self) -> None:
        (self.folder / "db").write_bytes(b"mine")
        self.patch(target, "_refuse", lambda *arguments: None)
        self.assertIn("already exists", self.refused())

    def test_never_empty(self) -> None:
        """The name appears with the content: a kill leaves no empty file."""
        self.patch(os, "rename", self.refuse)
        self.write()
        self.assertEqual({"db": b"content"}, self.there())


class NoExclusiveRenameTests(NoLinksTests):
    """Nor is there a way to rename a file only if the name is free."""

    def setUp(self) -> None:
        super().setUp()

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        self.patch(target, "_rename_new", refuse)

    def test_never_empty(self) -> None:
        """Here, it is empty for a moment."""

    def test_fails(self) -> None:
        """The name is free again."""
        self.patch(StagedFile, "replace", self.refuse)
        self.assertIn("not permitted", self.refused())


class NoProcTests(TargetCase):
    def test_written(self) -> None:
        """An unnamed file could get no name."""
        self.patch(os.path, "exists", lambda path: False)
        self.assertEqual(1, len(self.write()))
        self.assertEqual({"db": b"content"}, self.there())
