"""The election of a leader in a PostgreSQL database.

The lock of the leader is an advisory lock of a session: it ends with the connection.
PostgreSQL ends the connection after :data:`~filebucket.catalogue.leader.SILENT` seconds
without a statement, so a machine that was cut off, or sleeps, does not keep the lock.
Every answer is waited for shorter than that.
"""

from __future__ import annotations

from contextlib import suppress

import psycopg
from zope.interface import implementer

from filebucket.catalogue.connection import CatalogueError
from filebucket.catalogue.interfaces import IElection
from filebucket.catalogue.leader import SILENT
from filebucket.catalogue.nodes import NOW, values_of
from filebucket.catalogue.postgresql import (
    Raw,
    ask_own_session,
    connect,
    set_up,
    translated_errors,
    upgraded,
    value_of,
)
from filebucket.model.node import NodeReport, Reported
from filebucket.model.place import PostgreSQL

ANSWER_TIMEOUT = 4.0
"""Seconds to wait for an answer."""

LEAST_VERSION = 140000
"""The first version of PostgreSQL that ends idle connections."""

_SESSION = {
    "idle_session_timeout": f"{SILENT}s",
    "statement_timeout": "3s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "3s",
    "tcp_user_timeout": f"{SILENT}s",
}

_LEADER = "file-bucket: leader"

_TRY = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"

_BEFORE = "SELECT instance, stopped FROM node WHERE name = %s FOR UPDATE"

_REPORT = f"""
    INSERT INTO node (name, instance, version, settings, problems, leads, stopped,
        started_at, changed_at, seen_at)
    SELECT %s, %s, %s, %s, %s, %s, FALSE, now, now, now FROM (SELECT {NOW} AS now) AS at
    ON CONFLICT (name) DO UPDATE SET
        instance = excluded.instance,
        version = excluded.version,
        settings = excluded.settings,
        problems = excluded.problems,
        leads = excluded.leads,
        stopped = FALSE,
        started_at = CASE WHEN node.instance = excluded.instance
            THEN node.started_at ELSE excluded.started_at END,
        changed_at = CASE
            WHEN (node.version, node.settings) = (excluded.version, excluded.settings)
            THEN node.changed_at ELSE excluded.changed_at END,
        seen_at = excluded.seen_at
"""

_LEADS = "UPDATE node SET leads = FALSE WHERE leads AND name <> %s"

_LEAVE = f"""
    UPDATE node SET stopped = TRUE, leads = FALSE, seen_at = {NOW}
    WHERE name = %s AND instance = %s
"""


@implementer(IElection)
class Election:
    """The part of a daemon."""

    def __init__(self, place: PostgreSQL, name: str, instance: str) -> None:
        """
        :param name: the daemon's name
        :param instance: identifies its process
        """
        self._place = place
        self._name = name
        self._instance = instance
        self._raw: Raw | None = None
        self._holds = self._reported = False

    def hold(self) -> bool:
        with translated_errors():
            raw = self._connected()
            if self._holds:
                ask_own_session(raw)
            else:
                self._holds = bool(value_of(raw, _TRY, _LEADER))
            return self._holds

    def _connected(self) -> Raw:
        if self._raw is not None:
            return self._raw
        raw = connect(self._place)
        try:
            if raw.info.server_version < LEAST_VERSION:
                raise CatalogueError("several daemons need PostgreSQL 14 or newer")
            upgraded(raw, create=True)
            raw.patience = ANSWER_TIMEOUT
            set_up(raw, _SESSION)
        except BaseException:
            raw.close()
            raise
        self._raw = raw
        return raw

    def report(self, report: NodeReport, leads: bool) -> Reported:
        values = self._name, self._instance, *values_of(report), leads
        with translated_errors():
            raw = self._connected()
            with raw.transaction():
                before = raw.execute(_BEFORE, (self._name,)).fetchone()
                raw.execute(_REPORT, values)
                if leads:
                    raw.execute(_LEADS, (self._name,))
        instance, stopped = before or (self._instance, True)
        other = instance != self._instance and not stopped
        found = Reported(other and self._reported, other and not self._reported)
        self._reported = True
        return found

    def leave(self) -> None:
        with translated_errors():
            self._connected().execute(_LEAVE, (self._name, self._instance))

    def close(self) -> None:
        raw, self._raw = self._raw, None
        self._holds = False
        if raw is not None:
            with suppress(psycopg.Error):
                raw.close()


class Lock:
    """A lock of one session, for :func:`filebucket.catalogue.jobs.job`. Unlike other
    connections, this one is not made again if it is lost: then the lock is lost, too.
    """

    def __init__(self, place: PostgreSQL, name: str) -> None:
        """
        :param name: of the lock
        :raises CatalogueError: the database cannot be used
        """
        self._name = name
        with translated_errors():
            self._raw = connect(place)

    def take(self) -> bool:
        """Take the lock, if it is free.

        :raises CatalogueError: the database cannot be used
        """
        with translated_errors():
            return bool(value_of(self._raw, _TRY, self._name))

    def check(self) -> None:
        """As :meth:`filebucket.catalogue.jobs.Job.check`."""
        with translated_errors():
            ask_own_session(self._raw)

    def close(self) -> None:
        """End the connection, and so give up the lock."""
        with suppress(psycopg.Error):
            self._raw.close()
