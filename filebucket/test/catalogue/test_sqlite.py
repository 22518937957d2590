"""Tests of :mod:`filebucket.catalogue.sqlite`, in several processes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.catalogue import schema, sqlite
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.model.records import Space
from filebucket.test.kit.catalogue import new_home
from filebucket.test.kit.server import NOBODY, PATIENCE

LOOK = """
import sys
from filebucket.catalogue import sqlite
from filebucket.catalogue.view import View
sqlite.filesystem_type = lambda fd: sys.argv[2]
view = View.open(sys.argv[1], create=False)
print(len(view.space(0)))
view.close()
"""
"""What another process does."""


class DatabaseCase(SynchronousTestCase):
    """Has a home, as on a filesystem.

    :cvar filesystem: its type
    """

    filesystem = "ext4"

    def setUp(self) -> None:
        self.home = new_home(self)
        self.file = self.home / FILE
        self.move(self.filesystem)

    def move(self, filesystem: str) -> None:
        """Move the home to another filesystem."""
        self.filesystem = filesystem
        self.patch(sqlite, "filesystem_type", lambda fd: filesystem)

    def open(self, create: bool = True) -> Journal:
        journal = Journal.open(str(self.home), create)
        self.addCleanup(journal.close)
        return journal

    def seen_by_another(self) -> int:
        """The free space that another process reads."""
        # Another process, since SQLite's locks work between processes.
        command = [sys.executable, "-c", LOOK, str(self.home), self.filesystem]
        found = subprocess.run(
            command, capture_output=True, check=True, timeout=PATIENCE
        )
        return int(found.stdout)


class OpeningTests(DatabaseCase):
    """Several connections, in several processes."""

    def test_second_connection(self) -> None:
        """It does not disturb the first one, whose writes are not lost."""
        for create in (True, False):
            journal = self.open()
            journal.note_space(Space(1.0, 1, 2))
            self.open(create)
            self.assertEqual(1, self.seen_by_another())
            # If that had been the last user of the log, the log would be gone.
            self.assertTrue((self.home / f"{FILE}-wal").exists())
            journal.note_space(Space(2.0, 1, 2))
            self.assertEqual(2, self.seen_by_another())
            journal.close()
            self.setUp()

    def test_read_only(self) -> None:
        """SQLite does not tell that the filesystem is read-only."""
        path = self.home / FILE
        path.mkdir(parents=True)
        for flag, reason in (
            (0, "unable to open database file"),
            (os.ST_RDONLY, "Read-only file system"),
        ):
            self.patch(os, "statvfs", lambda path, f=flag: SimpleNamespace(f_flag=f))
            error = self.assertRaises(CatalogueError, self.open, create=False)
            self.assertEqual(reason, str(error))

    def test_made_by_another(self) -> None:
        """Opening waits until another process has created it; SQLite does not."""
        busy = sqlite3.OperationalError("database is locked")
        busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL

        class Connection(sqlite3.Connection):
            """Raises these errors first."""

            faults: ClassVar[list[Exception]] = []

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if "journal_mode" in sql and self.faults:
                    raise self.faults.pop()
                return super().execute(sql, *values)

        connect = partial(sqlite3.connect, factory=Connection)
        self.patch(sqlite3, "connect", connect)
        Connection.faults = [busy] * 3
        self.open().note_space(Space(1.0, 1, 2))
        Connection.faults = [full]
        self.assertRaises(CatalogueError, self.open)
        self.assertEqual([], Connection.faults)
        self.patch(sqlite, "BUSY_TIMEOUT", 0.0)
        Connection.faults = [busy] * 3
        self.assertRaises(CatalogueError, self.open)

    def test_gone_at_once(self) -> None:
        """A file that is removed meanwhile leaves no connection open."""

        def upgrade(connection: sqlite3.Connection) -> None:
            real(connection)
            connections.append(connection)
            self.file.unlink()

        connections: list[sqlite3.Connection] = []
        real = schema.upgrade
        self.patch(sqlite, "upgrade", upgrade)
        with self.assertRaisesRegex(CatalogueError, "^No such file or directory$"):
            self.open()
        (left,) = connections
        self.assertRaises(sqlite3.ProgrammingError, left.execute, "SELECT 1")

    def test_mode(self) -> None:
        """Only the owner can read it, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.open().note_space(Space(1.0, 1, 2))
        modes = {
            stat.S_IMODE(path.stat().st_mode)
            for path in (self.home / ".filebucket").iterdir()
        }
        self.assertEqual({0o600}, modes)

    def test_none(self) -> None:
        """It is not created."""
        with self.assertRaisesRegex(CatalogueError, "not created yet; "):
            self.open(create=False)
        self.assertEqual([], os.listdir(self.home / ".filebucket"))

    def test_not_to_be_seen(self) -> None:
        """Another error than a missing catalogue."""
        if os.geteuid():
            raise SkipTest("only root can become another user")
        self.open()
        (self.home / ".filebucket").chmod(0o700)
        os.seteuid(NOBODY)
        try:
            with self.assertRaisesRegex(CatalogueError, "^Permission denied$"):
                self.open(create=False)
        finally:
            os.seteuid(0)

    def test_made_by_two(self) -> None:
        """A process that finds it created does not write to a log that is then removed
        with that of an earlier catalogue.
        """
        others: list[threading.Thread] = []

        def open_and_write() -> None:
            with closing(Journal.open(str(self.home))) as journal:
                journal.note_space(Space(1.0, 1, 2))
                written.set()
                done.wait(60)

        def unlink(path: str) -> None:
            if not others:
                others.append(threading.Thread(target=open_and_write))
                others[0].start()
                # It must block, which only waiting can show.
                written.wait(0.5)
            real(path)

        written, done, real = threading.Event(), threading.Event(), os.unlink
        self.patch(os, "unlink", unlink)
        try:
            self.open().note_space(Space(2.0, 1, 2))
            self.assertTrue(written.wait(60))
            self.assertEqual(2, self.seen_by_another())
        finally:
            done.set()
            others[0].join(60)

    def test_log_does_not_stay_large(self) -> None:
        """It grows during a long read, and is truncated afterwards."""
        self.patch(sqlite, "MOST_LOG", 100_000)
        journal = self.open()
        with closing(sqlite3.connect(self.home / FILE)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM space").fetchall()
            for number in range(1000):
                journal.note_space(Space(number, 1, 2))
            log = self.home / f"{FILE}-wal"
            self.assertLess(1_000_000, log.stat().st_size)
        for number in range(3):
            journal.note_space(Space(2000 + number, 1, 2))
        self.assertGreaterEqual(100_000, log.stat().st_size)


class CopyOnWriteTests(DatabaseCase):
    """On a filesystem on which a change to mapped memory needs free space."""

    filesystem = "btrfs"

    def mapped(self) -> list[str]:
        """The files of the catalogue that this process has mapped into memory."""
        maps = Path("/proc/self/maps").read_text().splitlines()
        return [line for line in maps if str(self.file) in line]

    def files(self) -> set[str]:
        """The files of the catalogue, without the beginning of their names."""
        name = self.file.name
        return {
            path.name.removeprefix(name) for path in self.file.parent.glob(f"{name}*")
        }

    def leave_log(self) -> None:
        """Leave a catalogue with a row in its write-ahead log, as after a crash."""
        self.move("ext4")
        with closing(Journal.open(str(self.home))) as journal:
            journal.note_space(Space(1.0, 1, 2))
            for suffix in ("", "-wal"):
                shutil.copy(f"{self.file}{suffix}", f"{self.home}/copy{suffix}")
        for suffix in ("", "-wal"):
            os.replace(f"{self.home}/copy{suffix}", f"{self.file}{suffix}")
        self.move("btrfs")

    def test_elsewhere(self) -> None:
        """On other filesystems it is mapped, so that readers delay no writes."""
        for filesystem in ("ext4", "xfs", ""):
            self.move(filesystem)
            self.open().note_space(Space(1.0, 1, 2))
            self.assertNotEqual([], self.mapped())
            self.doCleanups()
            self.setUp()

    def test_nothing_is_mapped(self) -> None:
        for filesystem in ("btrfs", "bcachefs"):
            self.move(filesystem)
            journal = self.open()
            journal.note_space(Space(1.0, 1, 2))
            with closing(View.open(str(self.home))) as view:
                journal.note_space(Space(2.0, 1, 2))
                self.assertEqual(2, len(view.space(0)))
                self.assertEqual(2, self.seen_by_another())
                journal.note_space(Space(3.0, 1, 2))
                self.assertEqual([], self.mapped())
                self.assertEqual({"", "-journal"}, self.files())
            journal.close()
            self.setUp()

    def test_converted(self) -> None:
        """The write-ahead log of an earlier version is applied, and never mapped."""
        self.leave_log()
        # It cannot be mapped.
        Path(f"{self.file}-shm").mkdir()
        journal = self.open()
        self.assertEqual(1, self.seen_by_another())
        journal.note_space(Space(2.0, 1, 2))
        self.assertEqual(2, self.seen_by_another())
        self.assertEqual({"", "-shm", "-journal"}, self.files())

    def test_converted_by_many(self) -> None:
        """Several threads open it at the same moment."""
        self.leave_log()
        together = threading.Barrier(4)
        found: list[int] = []

        def look() -> None:
            together.wait(60)
            with closing(View.open(str(self.home))) as view:
                found.append(len(view.space(0)))
                together.wait(60)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        together.wait(60)
        together.wait(60)
        self.assertEqual([], self.mapped())
        for thread in threads:
            thread.join(60)
        self.assertEqual([1, 1, 1], found)

    def test_converted_one_after_the_other(self) -> None:
        """Two that convert a log at the same moment could both fail, and map it."""

        def roll_back(connection: sqlite3.Connection) -> None:
            converting.append(threading.current_thread())
            if len(converting) == 1:
                second.start()
                # It must block, which only waiting can show.
                both.wait(0.5)
                overlapped.append(both.is_set())
            else:
                both.set()
            real(connection)

        converting: list[threading.Thread] = []
        overlapped: list[bool] = []
        both = threading.Event()
        second = threading.Thread(target=lambda: View.open(str(self.home)).close())
        real = sqlite._roll_back
        self.patch(sqlite, "_roll_back", roll_back)
        self.leave_log()
        self.open()
        second.join(60)
        self.assertTrue(both.is_set())
        self.assertEqual([False], overlapped)

    def test_moved_away(self) -> None:
        """On another filesystem, it gets a write-ahead log again."""
        with closing(Journal.open(str(self.home))) as journal:
            journal.note_space(Space(1.0, 1, 2))
        self.move("ext4")
        journal = self.open()
        journal.note_space(Space(2.0, 1, 2))
        self.assertEqual(2, self.seen_by_another())
        self.assertIn("-wal", self.files())

    def test_log_in_use(self) -> None:
        """While another process uses a write-ahead log, so does this one."""
        self.patch(sqlite, "CONVERT_TIMEOUT", 0.0)
        self.move("ext4")
        other = self.open()
        self.move("btrfs")
        with closing(Journal.open(str(self.home))) as journal:
            other.note_space(Space(1.0, 1, 2))
            journal.note_space(Space(2.0, 1, 2))
            other.note_space(Space(3.0, 1, 2))
            self.assertEqual(3, self.seen_by_another())
        other.close()
        self.open()
        self.assertEqual([], self.mapped())

    def test_long_read(self) -> None:
        """A write waits for a read. Once it has timed out, the next write succeeds."""
        self.patch(sqlite, "BUSY_TIMEOUT", 0.0)
        journal = self.open()
        with closing(sqlite3.connect(self.file)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM space").fetchall()
            for number in range(2):
                with self.assertRaisesRegex(CatalogueError, "^database is locked$"):
                    journal.note_space(Space(number, 1, 2))
        journal.note_space(Space(2.0, 1, 2))
        self.assertEqual(1, self.seen_by_another())
