"""Sources: files, and pipes of this process."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.client import source as module
from filebucket.client.command import Pipeline
from filebucket.client.errors import (
    CommandFailedError,
    GaveUpError,
    PushError,
    UsageError,
)
from filebucket.client.source import (
    LEAST_PART,
    LONGEST_WAIT,
    MIB,
    MOST_PART,
    QUICK,
    SLOW,
    FileSource,
    PipeSource,
)
from filebucket.test.kit.descriptors import open_descriptors
from filebucket.test.kit.properties import trying
from filebucket.test.kit.pushes import content
from filebucket.test.kit.server import PATIENCE, comes

SHORT = 8
"""Bytes of a part in these tests."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"0123456789")

    def source(self) -> FileSource:
        made = FileSource(str(self.path), "db.gz")
        self.addCleanup(made.close)
        return made

    def test_parts(self) -> None:
        """Any part, in any order, and the last one is known."""
        source = self.source()
        self.assertEqual((10, "db.gz"), (source.length, source.name))
        for offset, most, expected, last in (
            (0, 4, b"0123", False),
            (8, 4, b"89", True),
            (4, 4, b"4567", False),
            (0, 4, b"0123", False),
            (0, 10, b"0123456789", True),
            (10, 4, b"", True),
        ):
            body, found = source.part(offset, most)
            self.assertEqual((expected, last), (content(body), found))
            self.assertEqual(len(expected), body.size)

    def test_too_far(self) -> None:
        error = self.assertRaises(GaveUpError, self.source().part, 11, 4)
        self.assertEqual("the server reports more bytes than the file has", str(error))

    def test_empty(self) -> None:
        self.path.write_bytes(b"")
        source = self.source()
        body, last = source.part(0, 4)
        self.assertEqual((0, b"", True), (body.size, content(body), last))
        self.assertEqual(sha256(b""), source.digest(wait=True))

    def test_digest(self) -> None:
        """Of the content, without disturbing the parts."""
        data = os.urandom(3 * MIB + 1)
        self.path.write_bytes(data)
        source = self.source()
        body, _ = source.part(MIB, MIB)
        self.assertEqual(sha256(data), source.digest(wait=True))
        self.assertEqual(data[MIB : 2 * MIB], content(body))
        self.assertEqual(sha256(data), source.digest(wait=False))

    def test_not_known_yet(self) -> None:
        """The digest is computed while the file is sent."""
        may = threading.Event()

        class Late:
            def update(self, data: memoryview) -> None:
                may.wait(PATIENCE)

            def hexdigest(self) -> str:
                return "late"

        self.patch(module, "hashlib", cast(Any, type("M", (), {"sha256": Late})))
        source = self.source()
        source.start()
        self.assertIsNone(source.digest(wait=False))
        may.set()
        self.assertEqual("late", source.digest(wait=True))

    def test_closed_early(self) -> None:
        """Nothing is hashed any more, and nothing stays open."""
        before = open_descriptors()
        source = FileSource(str(self.path), "db.gz")
        source.close()
        source = FileSource(str(self.path), "db.gz")
        may = threading.Event()
        readinto = source._hashed.readinto
        asked: list[int] = []

        class Slow:
            def readinto(self, piece: memoryview) -> int:
                may.wait(PATIENCE)
                asked.append(len(piece))
                return int(readinto(piece[:1]))

            def close(self) -> None:
                second.close()

        second = source._hashed
        source._hashed = cast(Any, Slow())
        source.start()
        source.close()
        may.set()
        assert source._hashing is not None
        source._hashing.join(PATIENCE)
        self.assertLessEqual(len(asked), 1)
        self.assertEqual(set(), open_descriptors() - before)

    def test_moved_away(self) -> None:
        """The file is the one that was opened, also if log rotation renames it."""
        source = self.source()
        self.path.rename(f"{self.path}.1")
        self.assertEqual(sha256(b"0123456789"), source.digest(wait=True))
        self.path.write_bytes(b"other")
        self.assertEqual(b"0123456789", content(source.part(0, 10)[0]))
        source.check()

    def test_changed(self) -> None:
        """A file that changes is not pushed, neither longer, shorter nor the same."""
        for change in (
            lambda: self.path.open("ab").write(b"more"),
            lambda: os.truncate(self.path, 9),
            lambda: os.utime(self.path, ns=(1, 1)),
        ):
            self.path.write_bytes(b"0123456789")
            source = self.source()
            change()
            for call in (source.check, lambda: source.part(0, 4)):  # noqa: B023
                error = self.assertRaises(PushError, call)
                self.assertEqual(
                    "changed while it was pushed; nothing is stored", str(error)
                )

    def test_shrinks(self) -> None:
        """Also while a part is sent."""
        source = self.source()
        body, _ = source.part(0, 10)
        os.truncate(self.path, 5)
        error = self.assertRaises(PushError, content, body)
        self.assertIn("changed while it was pushed", str(error))
        # A digest of less would be that of another file.
        self.assertIsNone(source.digest(wait=True))

    def test_replaced_between(self) -> None:
        """Both descriptors read the same file."""
        opened = io.FileIO

        def replacing(path: str) -> io.FileIO:
            found = opened(path)
            self.path.rename(f"{self.path}.1")
            self.path.write_bytes(b"other")
            return found

        self.patch(io, "FileIO", replacing)
        error = self.assertRaises(PushError, self.source)
        self.assertIn("changed while it was pushed", str(error))

    def test_read_error(self) -> None:
        source = self.source()

        class Broken:
            def readinto(self, piece: memoryview) -> int:
                raise OSError(5, "Input/output error")

            def close(self) -> None:
                second.close()

        second = source._hashed
        source._hashed = cast(Any, Broken())
        for _ in range(2):
            error = self.assertRaises(UsageError, source.digest, True)
            self.assertEqual("Input/output error", str(error))

    def test_refused(self) -> None:
        """Before anything is sent, and without waiting for the writer of a FIFO."""
        folder = Path(self.mktemp())
        folder.mkdir()
        fifo = folder / "fifo"
        os.mkfifo(fifo)
        for path, reason in (
            (folder / "missing", "No such file or directory"),
            (
                folder,
                "not a regular file; try tar -C FOLDER -cz . | filebucket-push --name"
                " NAME -",
            ),
            (fifo, "not a regular file; try --name NAME - <FILE"),
            (Path("/dev/null"), "not a regular file; try --name NAME - <FILE"),
            (folder / ("a" * 256), "File name too long"),
        ):
            error = self.assertRaises(UsageError, FileSource, str(path), "db.gz")
            self.assertEqual(reason, str(error))

    def test_again(self) -> None:
        """A file can always be read again."""
        source = self.source()
        source.restart()
        source.took(1.0)
        self.assertEqual(b"0123", content(source.part(0, 4)[0]))


class PipeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.patch(module, "LEAST_PART", SHORT)

    def source(self, stream: Any, most_part: int = SHORT) -> PipeSource:
        made = PipeSource(
            "db.gz", stream, most_part=most_part, monotonic=self.clock.seconds
        )
        self.addCleanup(made.close)
        made.start()
        return made

    def pipe(self) -> tuple[PipeSource, int]:
        """A source, and the end of a pipe that it reads."""
        out, into = os.pipe()
        stream = os.fdopen(out, "rb", buffering=0)
        self.addCleanup(stream.close)
        return self.source(stream), into

    def taken(self, source: PipeSource, most: int = MOST_PART) -> list[bytes]:
        """Each part, up to the last one."""
        found: list[bytes] = []
        last = False
        while not last:
            body, last = source.part(sum(map(len, found)), most)
            found.append(content(body))
        return found


class PipeTests(PipeCase):
    def test_parts(self) -> None:
        source = self.source(io.BytesIO(b"0123456789abcdefgh"))
        self.assertIsNone(source.length)
        self.assertIsNone(source.digest(wait=True))
        self.assertEqual([b"01234567", b"89abcdef", b"gh"], self.taken(source))
        self.assertEqual(sha256(b"0123456789abcdefgh"), source.digest(wait=False))

    def test_exact(self) -> None:
        """The end is known after the last byte only: the last part is empty."""
        self.assertEqual(
            [b"01234567", b""], self.taken(self.source(io.BytesIO(b"01234567")))
        )

    def test_empty(self) -> None:
        source = self.source(io.BytesIO())
        self.assertEqual([b""], self.taken(source))
        self.assertEqual(sha256(b""), source.digest(wait=True))

    def test_start_twice(self) -> None:
        source = self.source(io.BytesIO(b"0123"))
        source.start()
        self.assertEqual([b"0123"], self.taken(source))

    @trying
    @given(
        st.binary(max_size=40),
        st.lists(st.tuples(st.integers(1, 20), st.integers(0, 8)), max_size=20),
    )
    def test_replays(self, sent: bytes, tries: list[tuple[int, int]]) -> None:
        """The server may have any offset of the part that is not acknowledged: the
        bytes from there are sent again, in parts of any size.
        """
        source = PipeSource("db.gz", cast(Any, io.BytesIO(sent)), most_part=SHORT)
        source.start()
        stored = b""
        for most, arriving in tries:
            body, _ = source.part(len(stored), most)
            stored += content(body)[:arriving]
        last = False
        while not last:
            body, last = source.part(len(stored), MOST_PART)
            stored += content(body)
        self.assertEqual(sent, stored)
        self.assertEqual(sha256(sent), source.digest(wait=True))

    def test_lost(self) -> None:
        """The server has forgotten what this side has forgotten, too."""
        source = self.source(io.BytesIO(b"0123456789abcdefgh"))
        source.part(0, SHORT)
        source.restart()
        source.part(0, SHORT)
        source.part(SHORT, SHORT)
        for offset in (SHORT - 1, 2 * SHORT + 3):
            error = self.assertRaises(GaveUpError, source.part, offset, SHORT)
            self.assertIn("a pipe cannot be read again", str(error))
        error = self.assertRaises(GaveUpError, source.restart)
        self.assertIn("a pipe cannot be read again; nothing is stored", str(error))

    def test_memory(self) -> None:
        """Two parts at most are read and not acknowledged."""
        source, into = self.pipe()
        os.set_blocking(into, False)
        os.write(into, b"0" * 5 * SHORT)
        _, _ = source.part(0, SHORT)
        self.assertTrue(comes(lambda: source._parts.qsize() == 1))
        source.part(0, SHORT)
        self.assertEqual(1, source._parts.qsize())
        self.assertEqual(SHORT, len(source._parts.queue[0].data))
        # The third part is read only after the first one was acknowledged.
        source.part(SHORT, SHORT)
        self.assertTrue(comes(lambda: source._parts.qsize() == 1))
        os.close(into)
        self.assertEqual(b"0" * 4 * SHORT, b"".join(self.rest(source, SHORT)))

    def rest(self, source: PipeSource, offset: int) -> list[bytes]:
        found: list[bytes] = []
        last = False
        while not last:
            body, last = source.part(offset, SHORT)
            found.append(content(body))
            offset += body.size
        return found

    def test_slow(self) -> None:
        """A part is sent as it is after a while: see LONGEST_WAIT."""
        clock = self.clock

        class Slow(io.BytesIO):
            def readinto(self, buffer: Any) -> int:
                clock.advance(LONGEST_WAIT / 2)
                return super().readinto(buffer[:1])

        self.assertEqual([b"01", b"23", b""], self.taken(self.source(Slow(b"0123"))))

    def test_not_blocking(self) -> None:
        """Another process may have made standard input non-blocking: an empty pipe is
        not its end.
        """
        out, into = os.pipe()
        os.set_blocking(out, False)
        stream = os.fdopen(out, "rb", buffering=0)
        self.addCleanup(stream.close)

        def write() -> None:
            os.write(into, b"late")
            os.close(into)

        late = threading.Timer(0.05, write)
        late.start()
        self.assertEqual(b"late", b"".join(self.taken(self.source(stream))))
        late.join()

    def test_read_error(self) -> None:
        class Broken(io.BytesIO):
            def readinto(self, buffer: Any) -> int:
                raise OSError(5, "Input/output error")

        source = self.source(Broken())
        error = self.assertRaises(PushError, source.part, 0, SHORT)
        self.assertEqual("cannot read the input: Input/output error", str(error))

    def test_closed(self) -> None:
        """The reading thread ends with its next part."""
        source, into = self.pipe()
        source.close()
        os.write(into, b"0" * SHORT)
        assert source._reading is not None
        source._reading.join(PATIENCE)
        self.assertFalse(source._reading.is_alive())
        os.close(into)


class SizeTests(PipeCase):
    """The size of the parts."""

    def sizes(self, *seconds: float, most_part: int = 4 * SHORT) -> list[int]:
        """Of each part, after those before it took this long."""
        source = PipeSource("db.gz", cast(Any, io.BytesIO()), most_part=most_part)
        found = [source._size]
        for each in seconds:
            source.took(each)
            found.append(source._size)
        return found

    def test_adapts(self) -> None:
        """Quick lines get larger parts, slow ones smaller parts, within limits."""
        quick, slow, usual = QUICK - 0.1, SLOW + 0.1, QUICK + 0.1
        self.assertEqual(
            [8, 16, 32, 32, 32, 16, 8, 8],
            self.sizes(quick, quick, quick, usual, slow, slow, slow),
        )

    def test_small(self) -> None:
        """``--part-size`` may be smaller than the smallest part."""
        self.assertEqual([2, 2, 2], self.sizes(0.1, SLOW + 1, most_part=2))

    def test_real(self) -> None:
        """Many proxies take at most 100 MB."""
        self.assertLess(MOST_PART, 100 * 10**6)
        self.assertLess(LEAST_PART, MOST_PART)


class CommandTests(PipeCase):
    def piped(self, script: str) -> PipeSource:
        pipeline = Pipeline([["/bin/sh", "-c", script]])
        made = PipeSource("db.gz", pipeline=pipeline, most_part=SHORT)
        self.addCleanup(made.close)
        return made

    def test_started_later(self) -> None:
        """The command runs only after the server took the file."""
        path = Path(self.mktemp()).absolute()
        source = self.piped(f"touch {path}; printf data")
        self.assertFalse(path.exists())
        source.start()
        self.assertEqual([b"data"], self.taken(source))
        self.assertTrue(path.exists())

    def test_failure(self) -> None:
        """The last part is never handed out if the command failed."""
        for script, parts in (
            ("exit 3", 0),
            ("printf 0123; exit 3", 0),
            ("printf 01234567; exit 3", 1),
            ("printf 0123456789; exit 3", 1),
            ("printf 0123456789; kill -9 $$", 1),
        ):
            source = self.piped(script)
            source.start()
            for each in range(parts):
                _, last = source.part(each * SHORT, SHORT)
                self.assertFalse(last)
            self.assertRaises(CommandFailedError, source.part, parts * SHORT, SHORT)
            self.assertIsNone(source.digest(wait=False))

    def test_pipe_kept_open(self) -> None:
        """A child of a command that failed has its output: the failure is noticed."""
        source = self.piped("sleep 60 & exit 3")
        source.start()
        self.assertRaises(CommandFailedError, source.part, 0, SHORT)

    def test_check(self) -> None:
        """The caller may refuse the last part."""

        def check() -> None:
            raise PushError("changed")

        stream = cast(Any, io.BytesIO(b"0123456789"))
        source = PipeSource("db.gz", stream, check=check, most_part=SHORT)
        self.addCleanup(source.close)
        source.start()
        self.assertFalse(source.part(0, SHORT)[1])
        self.assertRaises(PushError, source.part, SHORT, SHORT)
        self.assertIsNone(source.digest(wait=False))

    def test_close(self) -> None:
        """It ends the command."""
        source = self.piped("exec sleep 60")
        source.start()
        source.close()
        assert source._reading is not None
        source._reading.join(PATIENCE)
        self.assertFalse(source._reading.is_alive())


class SpoolTests(PipeCase):
    def test_all(self) -> None:
        source = self.source(io.BytesIO(b"0123456789abcdefgh"))
        file = io.BytesIO()
        source.spooled(file)
        self.assertEqual(b"0123456789abcdefgh", file.getvalue())

    def test_bounded(self) -> None:
        """As for a push, two parts are in memory."""
        most: list[int] = []

        class Watching(io.BytesIO):
            def write(self, data: Any) -> int:
                most.append(source._parts.qsize())
                return super().write(data)

        source = self.source(io.BytesIO(b"0" * 100 * SHORT))
        source.spooled(Watching())
        self.assertLessEqual(max(most), 1)

    def test_full(self) -> None:
        class Full(io.BytesIO):
            def write(self, data: Any) -> int:
                raise OSError(28, "No space left on device")

        error = self.assertRaises(
            PushError, self.source(io.BytesIO(b"0")).spooled, Full()
        )
        self.assertEqual(
            "--spool: No space left on device; nothing is stored", str(error)
        )
