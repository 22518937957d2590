"""The catalogue in an SQLite file of the home.

Errors of SQLite and the disk become a :class:`CatalogueError` without a path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from filebucket.base.fs import directory, filesystem_type
from filebucket.base.text import printable
from filebucket.catalogue.connection import (
    NOT_CREATED,
    CatalogueError,
    Do,
    NewerError,
)
from filebucket.catalogue.schema import upgrade, version_of
from filebucket.model.names import PRIVATE

FILE = os.path.join(PRIVATE, "catalogue.sqlite3")
"""Its path under the home."""

MOST_LOG = 16 * 1024 * 1024
"""Bytes to which SQLite truncates its write-ahead log, which grows during long reads.
"""

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another transaction."""

CONVERT_TIMEOUT = 1.0
"""Seconds to wait for other processes that use a write-ahead log, to stop using one."""

COPY_ON_WRITE = ("btrfs", "bcachefs")
"""Filesystems on which a change to mapped memory needs free space, and ends the process
with SIGBUS if there is none."""


class SQLite:
    """A connection to the catalogue of a home.

    :ivar identity: the file's inode, which differs for another file with the same name
    """

    is_shared = False

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self.raw = connection
        self._path = path
        self.identity = os.stat(path).st_ino

    def close(self) -> None:
        self.raw.close()

    def check(self) -> None:
        """Have SQLite check the file, which takes a while.

        :raises CatalogueError: the file is damaged
        """
        with translated_errors():
            ((found,), *_) = self.raw.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise CatalogueError("damaged, according to SQLite", damaged=True)

    def is_there(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self.identity
        except OSError:
            return False

    def execute(self, query: str, values: Any = ()) -> sqlite3.Cursor:
        with translated_errors():
            return self.raw.execute(query, values)

    def ask(self, query: str, *values: Any) -> list[Any]:
        with translated_errors():
            return self.raw.execute(query, values).fetchall()

    def each(self, query: str, *values: Any) -> Iterator[Any]:
        with translated_errors():
            yield from self.raw.execute(query, values)

    @contextmanager
    def change(self, durable: bool = False) -> Iterator[Do]:
        with translated_errors():
            if durable:
                ((usual,),) = self.raw.execute("PRAGMA synchronous")
                self.raw.execute("PRAGMA synchronous = FULL")
            try:
                self.raw.execute("BEGIN IMMEDIATE")
                try:
                    yield self.raw.execute
                    # Without a write-ahead log this waits for readers, and may time
                    # out.
                    self.raw.execute("COMMIT")
                except BaseException:
                    # After a disk error SQLite has rolled back already.
                    if self.raw.in_transaction:
                        self.raw.execute("ROLLBACK")
                    raise
            finally:
                if durable:
                    self.raw.execute(f"PRAGMA synchronous = {usual}")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self.ask("BEGIN")
        try:
            yield
        finally:
            # After a disk error there may be none.
            if self.raw.in_transaction:
                self.ask("COMMIT")


def open_sqlite(home: str, create: bool, temporary: str) -> SQLite:
    """Open the catalogue of ``home``, and upgrade its tables.

    :param create: whether to create it if it does not exist
    :param temporary: the statement that creates its temporary table; may be empty
    :raises CatalogueError: it cannot be used
    """
    path = os.path.join(home, FILE)
    with translated_errors(), _read_only_told(path):
        if create:
            _make(path)
        try:
            os.stat(path)
        except FileNotFoundError:
            raise CatalogueError(NOT_CREATED) from None
        connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            with directory(os.path.dirname(path)) as fd:
                may_map = filesystem_type(fd) not in COPY_ON_WRITE
            if may_map:
                version_of(connection)
                _write_ahead(connection)
            else:
                # Two that convert a log at once can keep each other from it.
                with _lock(os.path.dirname(path)):
                    _roll_back(connection)
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            upgrade(connection)
            if temporary:
                connection.execute(temporary)
            return SQLite(connection, path)
        except BaseException:
            connection.close()
            raise


@contextmanager
def _read_only_told(path: str) -> Iterator[None]:
    """Raise OSError if a file cannot be opened because its filesystem is read-only,
    which SQLite does not tell. A unit's sandbox has such filesystems.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        unopenable = error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN
        if unopenable and os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS)) from None
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Use a write-ahead log, with which reads and writes do not wait for each other.
    SQLite itself does not wait for another process that switches at the same moment.
    """
    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)
        else:
            break
    # A power cut may lose the last rows, but not the files.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {MOST_LOG}")


def _roll_back(connection: sqlite3.Connection) -> None:
    """Use a rollback journal, for which SQLite maps no memory, unlike the index of a
    write-ahead log. If another process uses a write-ahead log, use it, too.
    """
    connection.execute(f"PRAGMA busy_timeout = {CONVERT_TIMEOUT * 1000:.0f}")
    # With this, the index of an existing log is not mapped even while it is converted.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    try:
        version_of(connection)
        connection.execute("PRAGMA journal_mode = TRUNCATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
    connection.execute("PRAGMA locking_mode = NORMAL")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
    # Only a read releases the lock.
    version_of(connection)
    # Less could damage the file in a power cut.
    connection.execute("PRAGMA synchronous = FULL")


def _make(path: str) -> None:
    """Create an empty file that only its owner can read, if there is none.

    An existing file must not even be opened: closing it would drop the locks of this
    process's other connections. Then another process that closes its connection would
    delete the log that they write to.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    with _lock(os.path.dirname(path)):
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            return
        os.close(fd)
        # SQLite would apply the log of a catalogue that was removed to this one.
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{path}{suffix}")


@contextmanager
def _lock(folder: str) -> Iterator[None]:
    """Keep other processes from creating the file, or converting its log. One that
    found it created already would write to a log that is about to be removed.
    """
    with directory(folder) as fd:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate errors of SQLite and the disk into :class:`CatalogueError`. Control
    characters are escaped: a message may quote the file's content.
    """
    try:
        yield
    except NewerError as error:
        raise CatalogueError(str(error)) from None
    except sqlite3.OperationalError as error:
        raise CatalogueError(printable(str(error))) from None
    except sqlite3.DatabaseError as error:
        # A subclass means a bug in a statement.
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise CatalogueError(printable(str(error)), damaged=True) from None
    except OSError as error:
        raise CatalogueError(error.strerror or "disk error") from None
