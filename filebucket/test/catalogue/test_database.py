"""Connections to the file of the catalogue, of several processes."""

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
    """Several connections, of several processes."""

    def setUp(self) -> None:
        self.home = new_home(self)

    def open(self, create: bool = True) -> Journal:
        journal = Journal.open(str(self.home), create)
        self.addCleanup(journal.close)
        return journal

    def seen_by_another(self) -> int:
        """Looks at the free space that another process finds."""
        # SQLite's locks are between processes: in one it would see its own.
        command = [sys.executable, "-c", LOOK, str(self.home)]
        found = subprocess.run(
            command, capture_output=True, check=True, timeout=PATIENCE
        )
        return int(found.stdout)

    def test_second_connection(self) -> None:
        """It takes nothing from the first one: what that writes stays to be found."""
        for create in (True, False):
            journal = self.open()
            journal.note_space(Space(1.0, 1, 2))
            self.open(create)
            self.assertEqual(1, self.seen_by_another())
            # Had that been the last one to know of the log, the log would be gone.
            self.assertTrue((self.home / f"{FILE}-wal").exists())
            journal.note_space(Space(2.0, 1, 2))
            self.assertEqual(2, self.seen_by_another())
            journal.close()
            self.setUp()

    def test_made_by_another(self) -> None:
        """Who comes while it is being made waits until it is; SQLite does not."""
        busy = sqlite3.OperationalError("database is locked")
        busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL

        class Connection(sqlite3.Connection):
            """Says these first."""

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

    def test_mode(self) -> None:
        """It is its owner's only, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.open().note_space(Space(1.0, 1, 2))
        modes = {
            stat.S_IMODE(path.stat().st_mode)
            for path in (self.home / ".filebucket").iterdir()
        }
        self.assertEqual({0o600}, modes)

    def test_none(self) -> None:
        """Looked for, and not made."""
        with self.assertRaisesRegex(CatalogueError, "there is no catalogue yet; "):
            self.open(create=False)
        self.assertEqual([], os.listdir(self.home / ".filebucket"))

    def test_not_to_be_seen(self) -> None:
        """That is something else."""
        if os.geteuid():
            raise SkipTest("only root can become somebody else")
        self.open()
        (self.home / ".filebucket").chmod(0o700)
        os.seteuid(NOBODY)
        try:
            with self.assertRaisesRegex(CatalogueError, "^Permission denied$"):
                self.open(create=False)
        finally:
            os.seteuid(0)

    def test_made_by_two(self) -> None:
        """Who finds it made writes to no log that is then removed with the one of a
        catalogue that was there before.
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
                # It must be held up, and that is seen by nothing but waiting.
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
        """Whoever reads for long makes it grow, and afterwards it is cut."""
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
