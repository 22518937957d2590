"""Tests of :mod:`filebucket.catalogue.postgresql`."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue import postgresql
from filebucket.catalogue.connection import CatalogueError
from filebucket.catalogue.database import Database
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.postgresql import translated
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.place import PostgreSQL
from filebucket.model.records import Failed, Received, Refused, Space
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import all_series, new_database
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import PATIENCE

BUCKET = Bucket((Token(bytes(32)),), "web01", "web01")
BATCHES = 30


class TranslatedTests(SynchronousTestCase):
    """Statements for psycopg."""

    def test_placeholders(self) -> None:
        for query, expected in (
            ("a = ? AND b = ?", "a = %(1)s AND b = %(2)s"),
            ("a = ?2 OR ?1 = ?2", "a = %(2)s OR %(1)s = %(2)s"),
            (":name, :at", "%(name)s, %(at)s"),
            ("a LIKE '%?:x''?'", "a LIKE '%%?:x''?'"),
            ("a::int % 2", "a::int %% 2"),
            ("a -- isn't? :x\n= ?", "a \n= %(1)s"),
        ):
            self.assertEqual(expected, translated(query))


class DatabaseCase(SynchronousTestCase):
    """Has an empty database."""

    def setUp(self) -> None:
        self.place = new_database()

    def open(self, place: PostgreSQL | None = None) -> Journal:
        journal = Journal.open(place or self.place)
        self.addCleanup(journal.close)
        return journal

    def raw(self, journal: Journal) -> psycopg.Connection[Any]:
        assert isinstance(journal._connection, postgresql.Database)
        return journal._connection.raw

    def sql(self, statement: str) -> Any:
        """Execute a statement as another program does."""
        with closing(psycopg.connect(self.place.conninfo, autocommit=True)) as other:
            found = other.execute(statement)
            return found.fetchall() if found.description else None


class OpeningTests(DatabaseCase):
    def test_at_once(self) -> None:
        """Several daemons that start at the same moment create one catalogue."""
        together = threading.Barrier(4)
        found: list[object] = []

        def open_it() -> None:
            together.wait(PATIENCE)
            with closing(Journal.open(self.place)) as journal:
                found.append(journal.identity)

        threads = [threading.Thread(target=open_it) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(PATIENCE)
        self.assertEqual((4, 1), (len(found), len(set(found))))

    def test_emptied(self) -> None:
        """If the row that identifies it is gone, it is another catalogue."""
        journal = self.open()
        self.sql("TRUNCATE filebucket.identity")
        self.assertFalse(journal.is_there())
        self.assertNotEqual(journal.identity, self.open().identity)

    def test_tables_damaged(self) -> None:
        self.open()
        self.sql("TRUNCATE filebucket.version")
        with self.assertRaisesRegex(CatalogueError, "DROP SCHEMA filebucket CASCADE"):
            self.open()

    def test_other_defaults(self) -> None:
        """Those of the role or the database do not matter."""
        options = (
            "-c extra_float_digits=0 -c default_transaction_isolation=serializable"
        )
        conninfo = f"{self.place.conninfo} options='{options}'"
        journal = self.open(PostgreSQL(conninfo))
        at = 1_795_000_000.1234567
        journal.note_space(Space(at, 1, 2))
        self.assertEqual([(at,)], journal._ask("SELECT at FROM space"))
        with journal._change() as do:
            self.assertEqual(
                ("read committed",), do("SHOW transaction_isolation").fetchone()
            )

    def test_encoding(self) -> None:
        """Names could not be stored in any but UTF-8."""
        self.sql("DROP DATABASE IF EXISTS latin")
        self.sql(
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        )
        conninfo = psycopg.conninfo.make_conninfo(self.place.conninfo, dbname="latin")
        with self.assertRaisesRegex(CatalogueError, "encoding is LATIN1, not UTF8$"):
            self.open(PostgreSQL(conninfo))


class WritingTests(DatabaseCase):
    def test_one_at_a_time(self) -> None:
        """A transaction waits for that of another daemon."""
        self.patch(postgresql, "_SESSION", {**postgresql._SESSION, "lock_timeout": "1"})
        first, second = self.open(), self.open()
        with (
            first._change(),
            self.assertRaisesRegex(CatalogueError, "^PostgreSQL: .* lock timeout$"),
        ):
            second.note_space(Space(1.0, 1, 2))
        second.note_space(Space(1.0, 1, 2))

    def test_repeated(self) -> None:
        """A lost connection is made again, and is as before."""
        journal = self.open()
        journal.note_space(Space(1.0, 1, 2))
        for _ in range(2):
            self.terminate()
            self.assertTrue(journal.is_there())
            self.terminate()
            journal.note_space(Space(2.0, 1, 2))
        refused = Refused("web01", 1.0, "x", 1, 405, "exists", "c", "q")
        journal.record([], [refused], lambda key: None)

    def test_many(self) -> None:
        """Several daemons add pushes, some with the same names, and lose their
        connections: in the end, each push is there once, and the totals are right.
        """

        def add(daemon: int, journal: Journal) -> None:
            for number in range(BATCHES):
                rows = [
                    Received(
                        *("web01", f"s{name % 2}", f"n{name}", 10, "ab", float(number)),
                        request=f"{daemon}-{number}-{name}",
                    )
                    for name in range(number % 5, number % 5 + 4)
                ]
                while True:
                    try:
                        journal.record(rows, [], {"web01": BUCKET}.get)
                    except CatalogueError as error:
                        lost.append(str(error))
                    else:
                        break
            ended.append(daemon)

        lost: list[str] = []
        ended: list[int] = []
        threads = [
            threading.Thread(target=add, args=(number, self.open()))
            for number in range(3)
        ]
        for each in threads:
            each.start()
        kills = 0
        while any(each.is_alive() for each in threads):
            if kills < 40:
                self.terminate()
                kills += 1
            threads[kills % 3].join(0.02)
        self.assertEqual({0, 1, 2}, set(ended))
        view = View.open(self.place)
        self.addCleanup(view.close)
        found = [each.received.request for each in view.latest(10_000)]
        self.assertEqual(3 * BATCHES * 4, len(found))
        self.assertEqual(len(found), len(set(found)))
        query = (
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE fate = 'kept'),"
            " SUM(size) FILTER (WHERE fate = 'kept') FROM push WHERE series = ?"
        )
        for series in all_series(view):
            totals = series.pushes, series.files, series.bytes
            self.assertEqual([totals], view._ask(query, series.id))

    def terminate(self) -> None:
        """End all connections, as a restart of the server does."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )

    def test_replaced_meanwhile(self) -> None:
        """Nothing is written to another catalogue than before."""
        journal = self.open()
        self.raw(journal).close()
        self.sql("DROP SCHEMA filebucket CASCADE")
        self.open()
        with self.assertRaisesRegex(CatalogueError, "another catalogue$"):
            journal.note_space(Space(1.0, 1, 2))
        self.assertFalse(journal.is_there())

    def test_characters(self) -> None:
        """A client cannot choose a name that cannot be stored."""
        journal = self.open()
        name = 'a\0\\u0000"\u20ac'
        refused = Refused("web01", 1.0, name, 1, 400, f"bad: {name}", "c", "q")
        journal.record([], [refused], lambda key: None)
        (found,) = View.open(self.place).refusals(9)
        self.assertEqual(name.replace("\0", "\ufffd"), found.name)
        self.assertEqual("\ufffd", postgresql._storable("\0"))
        kept = ["\\u0000", "\\\\u0000", "\U0001f4be", "\\ud800", "\xe9"]
        self.assertEqual(kept, json.loads(postgresql._storable(json.dumps(kept))))

    def test_halves(self) -> None:
        """Half of a surrogate pair is no character."""
        sent = ["\ud83d", "a\udcbe\U0001f4be", "\ud83d\ud83d", "\0\udc80"]
        stored = json.loads(postgresql._storable(json.dumps(sent)))
        self.assertEqual(
            ["\ufffd", "a\ufffd\U0001f4be", "\ufffd\ufffd", "\ufffd\ufffd"], stored
        )
        self.open()._ask("SELECT value FROM json_each(?)", json.dumps(sent))

    def test_looks_like_json(self) -> None:
        """A client's report of a failed backup is stored, whatever it consists of."""
        journal = self.open()
        for text in ("[error] bad \\u0000", '["\\u0000"', "[\0"):
            failed = Failed("web01", "s", 1.0, text)
            journal.fail([failed], {"web01": BUCKET}.get, 1.0)
            (series,) = all_series(journal)
            assert series.failed_text is not None
            self.assertEqual(text[:2], series.failed_text[:2].replace("\ufffd", "\0"))


class ErrorTests(DatabaseCase):
    """One line, without the connection string."""

    def reason(self, **given: Any) -> str:
        given = {"password": "secret", **given}
        conninfo = psycopg.conninfo.make_conninfo(self.place.conninfo, **given)
        with self.assertRaises(CatalogueError) as caught:
            Database.open(PostgreSQL(conninfo))
        self.assertFalse(caught.exception.damaged)
        return str(caught.exception)

    def test_connection(self) -> None:
        (port,) = free_ports(1)
        self.assertEqual("PostgreSQL: Connection refused", self.reason(port=port))
        self.assertEqual(
            'PostgreSQL: database "x" does not exist', self.reason(dbname="x")
        )
        self.assertEqual('PostgreSQL: role "x" does not exist', self.reason(user="x"))

    def test_not_allowed(self) -> None:
        self.open()
        self.sql("DROP ROLE IF EXISTS stranger")
        self.sql("CREATE ROLE stranger LOGIN")
        self.assertIn("permission denied", self.reason(user="stranger"))

    def test_conninfo(self) -> None:
        """A part of it could be the password."""
        for conninfo in ("host=db password=two secrets", "secret", "postgresql://[se"):
            with self.assertRaises(CatalogueError) as caught:
                Database.open(PostgreSQL(conninfo))
            self.assertEqual("not a connection string", str(caught.exception))

    def test_bug(self) -> None:
        """A wrong statement is no error of the database."""
        with self.assertRaises(psycopg.ProgrammingError):
            self.open()._ask("SELECT nothing FROM push")

    def test_hangs(self) -> None:
        """A server that does not answer."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)

        def dialogue() -> Generator[int, int, bytes]:
            self.assertEqual(2, (yield 2))
            near.send(b"question")
            self.assertEqual(1, (yield 1))
            return near.recv(99)

        with self.assertRaises(psycopg.OperationalError):
            postgresql._answer(dialogue(), near.fileno(), 0.01)
        far.send(b"answer")
        found = postgresql._answer(dialogue(), near.fileno(), PATIENCE)
        self.assertEqual(b"answer", found)
        far.send(b"more")
        found = postgresql._answer(dialogue(), near.fileno(), math.inf)
        self.assertEqual(b"more", found)

    def test_timeout(self) -> None:
        """The wait ends, and the next call makes another connection."""
        journal = self.open()
        self.patch(postgresql, "ANSWER_TIMEOUT", 0.0)
        with self.assertRaisesRegex(CatalogueError, "^PostgreSQL: no answer$"):
            journal._ask("SELECT pg_sleep(30)")
        self.patch(postgresql, "ANSWER_TIMEOUT", 60.0)
        self.assertEqual([(1,)], journal._ask("SELECT 1"))
