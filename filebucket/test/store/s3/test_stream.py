"""Tests of :mod:`filebucket.store.s3.stream`."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from filebucket.store.interfaces import (
    DAMAGE,
    Content,
    IsFolderError,
    IStoredFile,
    NoFileError,
    Stat,
    UnsteadyError,
)
from filebucket.store.s3.stream import StreamedFile, streamed

STAT = Stat(7, 1.5, 2.5, "version", "ab" * 32)


@implementer(IStoredFile)
class File:
    """A file with given pieces, which may end with an error."""

    stat = STAT

    def __init__(self, *pieces: bytes | Exception | Callable[[], object]) -> None:
        self._pieces = pieces

    def copy(self, write: Callable[[memoryview], object]) -> Content:
        for each in self._pieces:
            if isinstance(each, bytes):
                write(memoryview(each))
            elif isinstance(each, Exception):
                raise each
            else:
                each()
        return Content(0, "", STAT)

    def piece(self, offset: int, most: int) -> bytes:
        raise NotImplementedError


class StreamTests(SynchronousTestCase):
    def stream(self, *pieces: bytes | Exception | Callable[[], object]) -> StreamedFile:
        @contextmanager
        def opened() -> Iterator[IStoredFile]:
            if pieces and isinstance(pieces[0], Exception):
                raise pieces[0]
            yield File(*pieces)

        fd = streamed(opened)
        self.addCleanup(os.close, fd)
        return StreamedFile.of(fd)

    def read(self, file: StreamedFile) -> tuple[bytes, Content]:
        found: list[bytes] = []
        content = file.copy(lambda piece: found.append(bytes(piece)))
        return b"".join(found), content

    def test_all(self) -> None:
        """Every byte arrives, and the digest is that of the bytes that arrived."""
        pieces = [os.urandom(size) for size in (1, 3_000_000, 5)]
        file = self.stream(*pieces)
        verifyObject(IStoredFile, file)
        self.assertEqual(STAT, file.stat)
        data, content = self.read(file)
        self.assertEqual(b"".join(pieces), data)
        digest = hashlib.sha256(data).hexdigest()
        self.assertEqual((len(data), digest), (content.size, content.sha256))

    def test_empty(self) -> None:
        data, content = self.read(self.stream())
        self.assertEqual((b"", 0), (data, content.size))

    def test_cannot_be_opened(self) -> None:
        for error in (NoFileError(), IsFolderError(), UnsteadyError()):
            caught = self.assertRaises(type(error), self.stream, error)
            self.assertIs(type(error), type(caught))
        lost = OSError(errno.EBADMSG, "its data is gone")
        found = self.assertRaises(OSError, self.stream, lost)
        self.assertEqual((errno.EBADMSG, "its data is gone"), found.args)

    def test_fails(self) -> None:
        """In the middle; the end of the pipe alone is no end of the file."""
        for error in (UnsteadyError(), OSError(errno.EREMOTEIO, "timeout")):
            file = self.stream(b"content", error)
            self.assertRaises(type(error), self.read, file)

        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        for pieces in ((die,), (b"content", die)):
            found = self.assertRaises(OSError, self.read, self.stream(*pieces))
            self.assertNotIn(found.errno, DAMAGE)
            self.assertIn("failed", found.strerror)

    def test_nobody_reads(self) -> None:
        """The child ends if the pipe is closed."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)

        @contextmanager
        def opened() -> Iterator[IStoredFile]:
            yield File(*[bytes(1_000_000)] * 100)

        os.close(streamed(opened))
        os.close(writing)
        # The child has the other end until it ends.
        self.assertEqual(b"", os.read(reading, 1))

    def test_once(self) -> None:
        """It cannot be read at an offset."""
        self.assertRaises(OSError, self.stream(b"content").piece, 3, 1)
