"""The tables of the catalogue, and the upgrades of older ones.

SQLite's ``user_version`` holds the version. An upgrade must not be changed after its
release. Triggers keep the totals of a series right, whichever program changes a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from filebucket.catalogue.connection import NewerError

UPGRADES = (
    """
    CREATE TABLE bucket (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        since REAL NOT NULL,
        patterns TEXT NOT NULL DEFAULT '[]'
    );
    CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        bucket INTEGER NOT NULL REFERENCES bucket,
        name TEXT NOT NULL,
        since REAL NOT NULL,
        watched INTEGER NOT NULL DEFAULT 0,
        pushes INTEGER NOT NULL DEFAULT 0,
        files INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        missing INTEGER NOT NULL DEFAULT 0,
        damaged INTEGER NOT NULL DEFAULT 0,
        last_at REAL,
        last_size INTEGER,
        last_name TEXT,
        usual INTEGER,
        due REAL,
        state TEXT NOT NULL,
        state_at REAL NOT NULL,
        told TEXT NOT NULL,
        UNIQUE (bucket, name)
    );
    CREATE INDEX series_due ON series (due) WHERE state <> 'late';
    CREATE INDEX series_watched ON series (bucket) WHERE watched;
    CREATE INDEX series_untold ON series (state_at) WHERE told <> state;
    CREATE TABLE push (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        bucket INTEGER NOT NULL REFERENCES bucket,
        series INTEGER NOT NULL REFERENCES series,
        name TEXT NOT NULL,
        size INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        received_at REAL NOT NULL,
        seconds REAL,
        client TEXT,
        overwrote INTEGER NOT NULL DEFAULT 0,
        pre_push INTEGER,
        post_push INTEGER,
        request TEXT,
        judgement TEXT NOT NULL DEFAULT 'fresh',
        fate TEXT NOT NULL DEFAULT 'kept',
        fate_at REAL,
        verified_at REAL,
        damaged INTEGER NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX push_kept ON push (bucket, name) WHERE fate = 'kept';
    CREATE INDEX push_gone ON push (bucket, fate, name)
        WHERE fate <> 'kept';
    CREATE INDEX push_bucket ON push (bucket, received_at);
    CREATE INDEX push_series ON push (series, received_at);
    CREATE INDEX push_received ON push (received_at);
    CREATE INDEX push_being_pruned ON push (fate_at)
        WHERE fate = 'kept' AND fate_at IS NOT NULL;
    CREATE TRIGGER push_came AFTER INSERT ON push BEGIN
        UPDATE series SET
            pushes = pushes + 1,
            files = files + (new.fate = 'kept'),
            bytes = bytes + new.size * (new.fate = 'kept'),
            (last_at, last_size, last_name) = (
                SELECT new.received_at, new.size, new.name
                WHERE new.received_at >= IFNULL(last_at, -1e300)
                UNION ALL SELECT last_at, last_size, last_name LIMIT 1)
        WHERE id = new.series;
    END;
    CREATE TRIGGER push_ended AFTER UPDATE OF fate, damaged ON push BEGIN
        UPDATE series SET
            files = files + (new.fate = 'kept') - (old.fate = 'kept'),
            bytes = bytes + new.size * ((new.fate = 'kept') - (old.fate = 'kept')),
            missing = missing + (new.fate = 'missing') - (old.fate = 'missing'),
            damaged = damaged
                + (new.fate = 'kept' AND new.damaged)
                - (old.fate = 'kept' AND old.damaged)
        WHERE id = new.series;
    END;
    CREATE TRIGGER push_pruned AFTER UPDATE OF fate ON push
    WHEN old.fate = 'kept' AND old.fate_at IS NOT NULL AND new.fate = 'missing' BEGIN
        UPDATE push SET fate = 'pruned', fate_at = old.fate_at WHERE id = new.id;
    END;
    CREATE TRIGGER push_deleted AFTER DELETE ON push BEGIN
        UPDATE series SET
            pushes = pushes - 1,
            files = files - (old.fate = 'kept'),
            bytes = bytes - old.size * (old.fate = 'kept'),
            missing = missing - (old.fate = 'missing'),
            damaged = damaged - (old.fate = 'kept' AND old.damaged)
        WHERE id = old.series;
    END;
    CREATE TABLE refusal (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        bucket TEXT NOT NULL,
        at REAL NOT NULL,
        name TEXT,
        size INTEGER NOT NULL,
        status INTEGER NOT NULL,
        reason TEXT NOT NULL,
        client TEXT NOT NULL,
        request TEXT NOT NULL
    );
    CREATE INDEX refusal_bucket ON refusal (bucket, id);
    CREATE TABLE space (
        at REAL PRIMARY KEY,
        free INTEGER NOT NULL,
        total INTEGER NOT NULL
    );
    """,
    """
    UPDATE push SET judgement = 'empty'
    WHERE size = 0 OR size = 20 AND (name LIKE '%.gz' OR name LIKE '%.tgz');
    DROP INDEX series_untold;
    CREATE INDEX series_untold ON series (state_at) WHERE told <> state AND watched;
    CREATE TRIGGER push_moved AFTER UPDATE OF series ON push
    WHEN new.series <> old.series BEGIN
        UPDATE series SET
            pushes = pushes - 1,
            files = files - (old.fate = 'kept'),
            bytes = bytes - old.size * (old.fate = 'kept'),
            missing = missing - (old.fate = 'missing'),
            damaged = damaged - (old.fate = 'kept' AND old.damaged),
            (last_at, last_size, last_name) = (
                SELECT received_at, size, name FROM push WHERE series = old.series
                ORDER BY received_at DESC, id DESC LIMIT 1)
        WHERE id = old.series;
        UPDATE series SET
            pushes = pushes + 1,
            files = files + (new.fate = 'kept'),
            bytes = bytes + new.size * (new.fate = 'kept'),
            missing = missing + (new.fate = 'missing'),
            damaged = damaged + (new.fate = 'kept' AND new.damaged),
            (last_at, last_size, last_name) = (
                SELECT received_at, size, name FROM push WHERE series = new.series
                ORDER BY received_at DESC, id DESC LIMIT 1)
        WHERE id = new.series;
    END;
    """,
    """
    ALTER TABLE push ADD COLUMN parts INTEGER;
    ALTER TABLE series ADD COLUMN unfinished_at REAL;
    """,
    """
    ALTER TABLE series ADD COLUMN told_at REAL;
    ALTER TABLE series ADD COLUMN failed_at REAL;
    ALTER TABLE series ADD COLUMN failed_text TEXT;
    ALTER TABLE series ADD COLUMN drilled_at REAL;
    ALTER TABLE series ADD COLUMN drilled_name TEXT;
    ALTER TABLE series ADD COLUMN drill_error TEXT;
    ALTER TABLE series ADD COLUMN restored_at REAL;
    CREATE INDEX series_drilled ON series (bucket, drilled_at)
        WHERE drilled_at IS NOT NULL;
    UPDATE series SET told_at = state_at
    WHERE told = state AND watched AND state NOT IN ('fresh', 'never');
    CREATE INDEX refusal_full ON refusal (bucket, at) WHERE status = 507;
    DROP INDEX series_untold;
    CREATE INDEX series_untold ON series (state_at)
        WHERE told <> state AND (watched OR state = 'failed' OR told = 'failed');
    CREATE INDEX series_failed ON series (bucket, failed_at)
        WHERE failed_at IS NOT NULL AND pushes = 0;
    CREATE INDEX series_told ON series (told_at) WHERE told_at IS NOT NULL;
    CREATE INDEX series_failed_again ON series (failed_at)
        WHERE failed_at > told_at + 3600;
    CREATE TABLE problem (
        kind TEXT NOT NULL,
        bucket TEXT NOT NULL,
        node TEXT NOT NULL,
        level INTEGER NOT NULL,
        since REAL NOT NULL,
        told_at REAL NOT NULL,
        PRIMARY KEY (kind, bucket, node)
    ) WITHOUT ROWID;
    CREATE TABLE hook_failure (
        hook TEXT NOT NULL,
        bucket TEXT NOT NULL,
        node TEXT NOT NULL,
        since REAL NOT NULL,
        at REAL NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (hook, bucket, node)
    ) WITHOUT ROWID;
    ALTER TABLE space ADD COLUMN node TEXT NOT NULL DEFAULT '';
    CREATE TABLE copy (
        target TEXT NOT NULL,
        bucket TEXT NOT NULL,
        until REAL,
        at REAL NOT NULL,
        error TEXT,
        PRIMARY KEY (target, bucket)
    ) WITHOUT ROWID;
    """,
)
"""The upgrade from each version to the next; version 0 is an empty file."""

VERSION = len(UPGRADES)


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the catalogue.

    :raises NewerError: a newer file-bucket made it
    """
    ((version,),) = connection.execute("PRAGMA user_version")
    if version > VERSION:
        raise NewerError(version)
    return int(version)


def upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade a catalogue of any older version.

    :raises NewerError: a newer file-bucket made it
    """
    if version_of(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have upgraded it in the meantime.
        for script in UPGRADES[version_of(connection) :]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements: executescript would commit first."""
    waiting = ""
    for line in script.splitlines(keepends=True):
        waiting += line
        if sqlite3.complete_statement(waiting):
            yield waiting
            waiting = ""
