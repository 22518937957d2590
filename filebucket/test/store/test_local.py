"""Tests of :mod:`filebucket.store.local`, over a store in folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from hashlib import sha256

from filebucket.store import local
from filebucket.store.aside import UnnamedFile
from filebucket.store.local import LocalWriter
from filebucket.test.store.contract import NAME
from filebucket.test.store.test_disk import DirectoryCase, fails


class LocalWriterTests(DirectoryCase):
    """How chunks come to a file."""

    tier = UnnamedFile

    def setUp(self) -> None:
        super().setUp()
        # Every byte is written at once, unless a test says otherwise.
        self.patch(local, "BATCH", 1)
        self.store.prepare()
        self.kernel.calls.clear()

    def test_write_back(self) -> None:
        """The disk begins to write before the file has come whole."""
        self.patch(local, "WRITE_BACK", 4)
        writer = self.idle_writer()
        for chunk in (b"abc", b"de", b"fgh", b"ijkl"):
            self.result(writer.write([chunk]))
        self.assertEqual(
            ["writev", "writev", "advise 0 5", "writev", "writev", "advise 5 7"],
            self.kernel.only("advise", "writev"),
        )
        self.result(writer.commit({}, overwrite=False))

    def test_write_back_fails(self) -> None:
        """It is only an advice."""
        self.patch(local, "WRITE_BACK", 1)
        self.kernel.faults["advise 0 7"] = fails(errno.EIO)
        self.push(b"content")
        self.assertIn("advise 0 7", self.kernel.calls)

    def test_batches(self) -> None:
        """Chunks are collected into batches."""
        self.patch(local, "BATCH", 8)
        writer = self.writer()
        for chunk, writes in ((b"1234", 0), (b"567", 0), (b"8", 1), (b"9", 1)):
            self.result(writer.write([chunk]))
            self.assertEqual(writes, self.kernel.calls.count("writev"))
        self.result(writer.commit({}, overwrite=False))
        self.assertEqual(2, self.kernel.calls.count("writev"))
        self.assertEqual({NAME: b"123456789"}, self.published())

    def test_pieces(self) -> None:
        """A large batch is hashed and written in pieces, while the cache has them."""
        self.patch(local, "_PIECE", 4)
        writer = self.writer()
        assert isinstance(writer, LocalWriter)
        seen: list[tuple[list[bytes], str]] = []

        def writev(fd: int, chunks: Sequence[bytes]) -> int:
            hashed = writer._hashes.hexdigest("sha256")
            seen.append(([bytes(each) for each in chunks], hashed))
            return os.writev(fd, chunks)

        self.kernel.faults["writev"] = writev
        self.result(writer.write([b"ab", b"c", b"de", b"fghijklmn", b"o", b"pq"]))
        self.assertEqual(
            ["ab c", "de", "fghi", "jklm", "n", "o pq"],
            [b" ".join(chunks).decode() for chunks, _ in seen],
        )
        whole = b"abcdefghijklmnopq"
        self.assertEqual(
            [sha256(whole[:end]).hexdigest() for end in (3, 5, 9, 13, 14, 17)],
            [hashed for _, hashed in seen],
        )
        self.result(writer.commit({}, overwrite=False))
        self.assertEqual({NAME: whole}, self.published())

    def test_small_chunks(self) -> None:
        """Chunks smaller than their overhead in Python are joined; large ones are not
        copied.
        """
        self.patch(local, "BATCH", 24 * 1024)
        writer = self.writer()
        assert isinstance(writer, LocalWriter)
        for _ in range(1000):
            self.result(writer.write([b"ab"]))
            self.assertLessEqual(len(writer._waiting), 32)
        self.result(writer.write([b"cd"] * 11_000))
        self.assertEqual(1, len(writer._waiting))
        large = [bytes(1024)] * 40
        seen: list[int] = []

        def writev(fd: int, chunks: Sequence[bytes]) -> int:
            seen.append(len(chunks))
            return os.writev(fd, chunks)

        self.kernel.faults["writev"] = writev
        self.result(writer.write(large))
        self.result(writer.write([b"ef"] * 20_000))
        self.assertEqual([41, 1], seen)
        self.result(writer.commit({}, overwrite=False))
        content = b"ab" * 1000 + b"cd" * 11_000 + b"".join(large) + b"ef" * 20_000
        self.assertEqual({NAME: content}, self.published())
