"""Tests that each archive passes."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import Any

from zope.interface.verify import verifyObject

from filebucket.store.interfaces import (
    IArchive,
    IFolder,
    IStoredFile,
    NoFileError,
)

AT = 1_000_000.0
"""When the files were written."""


def ignore(size: int) -> None:
    """A pace without a limit."""


class ArchiveContract:
    """Subclasses make an archive, and store files."""

    archive: Any
    assertEqual: Any
    assertNotEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertRaises: Any
    assertIn: Any

    @abstractmethod
    def make(self) -> IArchive:
        """An archive without files."""

    @abstractmethod
    def store(self, name: str, content: bytes, at: float = AT) -> None:
        """Store a file in the folder ``web01``, or replace it.

        :param at: when, in seconds since the epoch
        """

    def setUp(self) -> None:
        self.archive = self.make()

    def test_interfaces(self) -> None:
        self.store("a", b"content")
        verifyObject(IArchive, self.archive)
        with self.archive.open("web01") as folder:
            verifyObject(IFolder, folder)
            with folder.open("a") as file:
                verifyObject(IStoredFile, file)

    def test_no_files(self) -> None:
        """As in a bucket before its first push."""
        with self.archive.open("web02") as folder:
            self.assertEqual([], list(folder.list(10)))
            folder.expect(["a", "b"])
            self.assertEqual(set(), set(folder.untouched({"a": AT})))
            self.assertRaises(NoFileError, folder.look, "a")
            self.assertRaises(NoFileError, folder.is_sealed, "a")
            self.assertRaises(NoFileError, folder.read, "a", ignore)
            self.assertRaises(NoFileError, folder.open("a").__enter__)

    def test_lists_all(self) -> None:
        """All names, a few at a time."""
        names = {f"{number}.gz" for number in range(7)} | {"\xe4 +%.gz"}
        for name in names:
            self.store(name, b"content")
        with self.archive.open("web01") as folder:
            pieces = list(folder.list(3))
        self.assertEqual([3, 3, 2], [len(piece) for piece in pieces])
        found = [name.decode() for piece in pieces for name in piece]
        self.assertEqual(sorted(names), sorted(found))

    def test_looks(self) -> None:
        """Size, time and version, which another file does not have."""
        self.store("a", b"12345")
        self.store("b", b"1234567")
        with self.archive.open("web01") as folder:
            folder.expect(["a", "b", "c"])
            one, two = folder.look("a"), folder.look("b")
            self.assertRaises(NoFileError, folder.look, "c")
            self.assertEqual((5, AT), (one.size, one.written_at))
            self.assertEqual(7, two.size)
            self.assertEqual(one, folder.look("a"))
            self.assertNotEqual(one.version, two.version)
            self.assertFalse(folder.is_sealed("a"))
        digest = hashlib.sha256(b"12345").hexdigest()
        self.assertIn(one.sha256, {None, digest})
        self.store("a", b"54321", AT + 1)
        with self.archive.open("web01") as folder:
            self.assertNotEqual(one.version, folder.look("a").version)

    def test_reads(self) -> None:
        """Content, in pieces, and its digest."""
        content = bytes(range(256)) * 9000
        self.store("a", content)
        sizes: list[int] = []
        with self.archive.open("web01") as folder:
            found = folder.read("a", sizes.append)
        self.assertEqual(len(content), sum(sizes))
        digest = hashlib.sha256(content).hexdigest()
        self.assertEqual((len(content), digest), (found.size, found.sha256))
        self.assertEqual(len(content), found.stat.size)

    def test_pieces(self) -> None:
        """From any offset, in any order, and again."""
        content = bytes(range(256)) * 9000
        self.store("a", content)
        with self.archive.open("web01") as folder, folder.open("a") as file:
            for offset, most in ((0, 5), (5, 100_000), (7, 3), (7, 3), (2**20, 2**22)):
                self.assertEqual(
                    content[offset : offset + most], file.piece(offset, most)
                )
            self.assertEqual(b"", file.piece(len(content), 5))
            pieces: list[bytes] = []
            file.copy(lambda piece: pieces.append(bytes(piece)))
            self.assertEqual(content, b"".join(pieces))

    def test_reads_nothing(self) -> None:
        self.store("a", b"")
        with self.archive.open("web01") as folder:
            self.assertEqual(0, folder.read("a", ignore).size)

    def test_stops(self) -> None:
        """If the pace does."""
        self.store("a", b"content")

        def stop(size: int) -> None:
            raise KeyboardInterrupt

        with self.archive.open("web01") as folder:
            self.assertRaises(KeyboardInterrupt, folder.read, "a", stop)
