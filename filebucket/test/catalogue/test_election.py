"""Tests of :mod:`filebucket.catalogue.election`, on a real server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue import election as elections
from filebucket.catalogue.connection import CatalogueError
from filebucket.catalogue.election import Election
from filebucket.catalogue.leader import LEASE, SILENT
from filebucket.catalogue.view import View
from filebucket.model.node import Node
from filebucket.model.place import PostgreSQL
from filebucket.test.catalogue.election_contract import REPORT, ElectionContract
from filebucket.test.kit.catalogue import new_database
from filebucket.test.kit.postgres import shared_postgres
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import comes

NOW = 1_795_000_000.0

LOCKS = (
    "FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid"
    " FROM pg_database WHERE datname = current_database())"
)

END = f"SELECT pg_terminate_backend(pid) {LOCKS}"
"""Ends the connections that have a lock."""


class ElectionCase(SynchronousTestCase):
    """Has an empty database."""

    def setUp(self) -> None:
        self.place = new_database()

    def join(self, name: str, instance: str) -> Election:
        election = Election(self.place, name, instance)
        self.addCleanup(election.close)
        return election

    def nodes(self) -> Sequence[Node]:
        with closing(View.open(self.place)) as view:
            return view.nodes(NOW)

    def pass_time(self) -> None:
        """The server's clock does."""

    def wait_for_no_lock(self) -> None:
        """Until the server has noticed the end of each connection with a lock."""
        self.assertTrue(comes(lambda: self.sql(f"SELECT 1 {LOCKS}") == []))

    def sql(self, statement: str) -> Any:
        """Execute a statement as another program does."""
        with closing(psycopg.connect(self.place.conninfo, autocommit=True)) as other:
            found = other.execute(statement)
            return found.fetchall() if found.description else None


class ContractTests(ElectionCase, ElectionContract):
    """As the fake."""


class ConnectionTests(ElectionCase):
    """The lock ends with the connection."""

    def test_ended(self) -> None:
        """A daemon whose connection was ended does not hold the lock, and is told so,
        although its next connection could have it.
        """
        a = self.join("a", "1")
        self.assertTrue(a.hold())
        self.assertEqual([(True,)], self.sql(END))
        error = self.assertRaises(CatalogueError, a.hold)
        self.assertIn("PostgreSQL: ", str(error))
        b = self.join("b", "1")
        self.assertTrue(comes(b.hold))
        a.close()
        self.assertFalse(a.hold())

    def test_ends_in_silence(self) -> None:
        """The server ends a connection without a sign of life, and so the lock."""
        self.patch(
            elections, "_SESSION", {**elections._SESSION, "idle_session_timeout": "100"}
        )
        a, b = self.join("a", "1"), self.join("b", "1")
        self.assertTrue(a.hold())
        self.wait_for_no_lock()
        self.assertTrue(b.hold())
        self.assertRaises(CatalogueError, a.hold)

    def test_settings(self) -> None:
        """The server ends it later than the daemon stops to lead, and a statement ends
        before.
        """
        a = self.join("a", "1")
        a.hold()
        raw = a._raw
        assert raw is not None
        query = (
            "SELECT name, setting FROM pg_settings WHERE name IN"
            " ('idle_session_timeout', 'statement_timeout', 'tcp_user_timeout')"
        )
        silent = str(1000 * SILENT)
        self.assertEqual(
            {
                "idle_session_timeout": silent,
                "statement_timeout": "3000",
                "tcp_user_timeout": silent,
            },
            dict(raw.execute(query).fetchall()),
        )
        self.assertTrue(3 < elections.ANSWER_TIMEOUT < LEASE < SILENT)

    def test_other_catalogue(self) -> None:
        """The daemons of another database have their own leader."""
        a = self.join("a", "1")
        self.assertTrue(a.hold())
        other = PostgreSQL(shared_postgres().create("other"))
        b = Election(other, "b", "1")
        self.addCleanup(b.close)
        self.assertTrue(b.hold())

    def test_session_of_another(self) -> None:
        """A pooler that lends sessions for a transaction would let two daemons lead."""
        a = self.join("a", "1")
        self.assertTrue(a.hold())
        raw = a._raw
        assert raw is not None
        raw.execute("SELECT set_config('filebucket.session', 'of b', false)")
        error = self.assertRaises(CatalogueError, a.hold)
        self.assertIn("or through a pooler in session mode", str(error))
        options = "options='-c filebucket.session=of-a'"
        self.place = PostgreSQL(f"{self.place.conninfo} {options}")
        error = self.assertRaises(CatalogueError, self.join("b", "1").hold)
        self.assertIn("or through a pooler in session mode", str(error))

    def test_no_server(self) -> None:
        (port,) = free_ports(1)
        self.place = PostgreSQL(f"host=127.0.0.1 port={port} password=secret")
        a = self.join("a", "1")
        for call in (a.hold, a.leave, lambda: a.report(REPORT, leads=False)):
            error = self.assertRaises(CatalogueError, call)
            self.assertNotIn("secret", str(error))
        a.close()

    def test_old_server(self) -> None:
        self.patch(elections, "LEAST_VERSION", 990000)
        error = self.assertRaises(CatalogueError, self.join("a", "1").hold)
        self.assertEqual("several daemons need PostgreSQL 14 or newer", str(error))

    def test_newer(self) -> None:
        """A daemon that is too old for the catalogue does not lead."""
        self.join("a", "1").hold()
        self.sql("UPDATE filebucket.version SET version = 99")
        error = self.assertRaises(CatalogueError, self.join("b", "1").hold)
        self.assertIn("made by a newer file-bucket", str(error))
