"""Compares the catalogue with the disk, using only SQLite, from outside the daemon."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filebucket.catalogue import database
from filebucket.test.kit.server import PATIENCE, TOKEN, Server, comes

FILE = database.FILE
"""The catalogue's path in a home."""

LOGS = f"{FILE}-wal", f"{FILE}-journal"
"""The paths of its write-ahead log, and of its rollback journal."""

KEY = f"#{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""The key of the bucket that has no name."""

TROUBLE = re.compile("catalogue: can(not)? be written|catalogue file is ")
"""Log lines about a catalogue that failed."""

_KEPT = """
    SELECT push.name, push.size, push.sha256, push.damaged
    FROM push JOIN bucket ON bucket.id = push.bucket
    WHERE bucket.key = ? AND push.fate = 'kept'
"""

_FATES = """
    SELECT push.name, push.fate, push.fate_at
    FROM push JOIN bucket ON bucket.id = push.bucket
    WHERE bucket.key = ? ORDER BY push.id
"""


def faults(server: Server, bucket: str = TOKEN, key: str = KEY) -> list[str]:
    """Faults in the catalogue of a daemon that was started, and differences from the
    disk.

    :param bucket: the name of a bucket's folder
    :param key: the bucket's key in the catalogue
    """
    # Once it has checked the disk, it has added all unknown files.
    server.wait_for(r"catalogue: (in order|\d)")
    bad = (
        f"the log: {line}"
        for line in server.log.splitlines()
        if TROUBLE.search(line) or "a bug in file-bucket" in line
    )
    return [*bad, *differences(server.home, bucket, key)]


def differences(home: Path, bucket: str, key: str) -> list[str]:
    """Faults in a catalogue, and differences from the disk."""
    with closing(_read(home / FILE)) as catalogue:
        found = _not_whole(catalogue)
        kept = catalogue.execute(_KEPT, [key]).fetchall()
    rows = {name: (size, sha256) for name, size, sha256, _ in kept}
    folder = home / bucket
    there = set(os.listdir(folder)) if folder.exists() else set()
    return [
        *found,
        *(f"{name}: marked as damaged" for name, *_, damaged in kept if damaged),
        *(f"{name}: no row" for name in there - set(rows)),
        *(f"{name}: a row without a file" for name in set(rows) - there),
        *(
            f"{name}: differs from its row"
            for name in there & set(rows)
            if rows[name] != said(folder / name)
        ),
    ]


def left(home: Path) -> list[str]:
    """Faults in a catalogue that no process has opened since its daemon was killed."""
    with _copy(home) as catalogue:
        return _not_whole(catalogue)


def fates(home: Path, key: str) -> dict[str, tuple[str, float | None]]:
    """The fate of each file of a bucket in the catalogue, and its time."""
    with _copy(home) as catalogue:
        return {name: (fate, at) for name, fate, at in catalogue.execute(_FATES, [key])}


@contextmanager
def _copy(home: Path) -> Iterator[sqlite3.Connection]:
    """A copy of a catalogue, to be opened: opening the original would repair it."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (home / FILE).parent.glob(f"{Path(FILE).name}*"):
            # The shared memory is created again.
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / Path(FILE).name)) as catalogue:
            yield catalogue


def wait(home: Path, name: str, key: str = KEY) -> None:
    """Wait until a push of that name has its row."""
    if not comes(lambda: is_there(home, name, key)):
        raise AssertionError(f"{name} is not in the catalogue")


def is_there(home: Path, name: str, key: str = KEY) -> bool:
    """Whether a push of that name has its row."""
    asked = f"{_KEPT} AND push.name = ?"
    with closing(_read(home / FILE)) as catalogue:
        try:
            return bool(catalogue.execute(asked, [key, name]).fetchall())
        except sqlite3.OperationalError as error:
            # A transaction failed, and the daemon has not rolled it back yet.
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            return False


def _read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)


def _not_whole(catalogue: sqlite3.Connection) -> list[str]:
    try:
        said = [line for (line,) in catalogue.execute("PRAGMA integrity_check")]
        said += [str(line) for line in catalogue.execute("PRAGMA foreign_key_check")]
    except sqlite3.DatabaseError as error:
        said = [str(error)]
    return [f"the catalogue: {line}" for line in said if line != "ok"]


def said(path: Path) -> tuple[int, str]:
    """The expected values of a file's row."""
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()
