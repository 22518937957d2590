"""Tests of :mod:`filebucket.catalogue.database`, in several processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.catalogue import database
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.journal import Journal
from filebucket.model.records import Space
from filebucket.test.kit.catalogue import new_home
from filebucket.test.kit.server import NOBODY, PATIENCE

LOOK = """
import sys
from filebucket.catalogue.view import View
view = View.open(sys.argv[1], create=False)
print(len(view.space(0)))
view.close()
"""
"""What another process does."""


class OpeningTests(SynchronousTestCase):
    """Several connections, in several processes."""

    def setUp(self) -> None:
        self.home = new_home(self)

    def open(self, create: bool = True) -> Journal:
        journal = Journal.open(str(self.home), create)
        self.addCleanup(journal.close)
        return journal

    def seen_by_another(self) -> int:
        """The free space that another process reads."""
        # Another process, since SQLite's locks work between processes.
        command = [sys.executable, "-c", LOOK, str(self.home)]
        found = subprocess.run(
            command, capture_output=True, check=True, timeout=PATIENCE
        )
        return int(found.stdout)

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
        self.patch(database, "BUSY_TIMEOUT", 0.0)
        Connection.faults = [busy] * 3
        self.assertRaises(CatalogueError, self.open)

    def test_gone_at_once(self) -> None:
        """A file that is removed meanwhile leaves no connection open."""

        class Removed(Journal):
            """Its file is removed before it is used."""

            @classmethod
            def _prepare(cls, connection: sqlite3.Connection) -> None:
                super()._prepare(connection)
                connections.append(connection)
                (home / FILE).unlink()

        connections: list[sqlite3.Connection] = []
        home = self.home
        with self.assertRaisesRegex(CatalogueError, "^No such file or directory$"):
            Removed.open(str(home))
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
        self.patch(database, "MOST_LOG", 100_000)
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
