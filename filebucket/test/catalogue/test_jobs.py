"""Tests of :mod:`filebucket.catalogue.jobs`."""

from __future__ import annotations

from filebucket.base.errors import BusyError
from filebucket.catalogue.connection import CatalogueError
from filebucket.catalogue.election import Lock
from filebucket.catalogue.jobs import job
from filebucket.model.place import PostgreSQL
from filebucket.test.catalogue.test_election import END, ElectionCase
from filebucket.test.kit.programs import free_ports


class JobTests(ElectionCase):
    def test_file(self) -> None:
        """The catalogue of one machine needs no lock."""
        with job("/home", "prune") as one, job("/home", "prune") as other:
            one.check()
            other.check()

    def test_one_at_a_time(self) -> None:
        """The same work is done once at a time, other work beside it."""
        with job(self.place, "prune") as prune, job(self.place, "verify"):
            with self.assertRaises(BusyError) as raised, job(self.place, "prune"):
                pass
            self.assertEqual(
                "another filebucket prune is running, on this or another machine:"
                " nothing was done",
                str(raised.exception),
            )
            prune.check()
        self.wait_for_no_lock()
        with job(self.place, "prune"):
            pass

    def test_leader(self) -> None:
        """Work needs no leader, and keeps none from leading."""
        with job(self.place, "prune"):
            self.assertTrue(self.join("a", "1").hold())

    def test_failed(self) -> None:
        """The lock ends with the work, also if that fails."""
        with self.assertRaises(ZeroDivisionError), job(self.place, "prune"):
            raise ZeroDivisionError
        self.wait_for_no_lock()
        with job(self.place, "prune"):
            pass

    def test_lost(self) -> None:
        """Without its connection, the lock is lost, and not taken again."""
        with job(self.place, "prune") as prune:
            self.sql(END)
            self.assertRaises(CatalogueError, prune.check)
            self.assertRaises(CatalogueError, prune.check)
            with job(self.place, "prune"):
                pass

    def test_session_of_another(self) -> None:
        """As with a pooler that lends sessions for a transaction."""
        with job(self.place, "prune") as prune:
            assert isinstance(prune, Lock)
            prune._raw.execute("SELECT set_config('filebucket.session', 'x', false)")
            self.assertRaises(CatalogueError, prune.check)

    def test_no_database(self) -> None:
        (port,) = free_ports(1)
        place = PostgreSQL(f"host=127.0.0.1 port={port}")
        with self.assertRaises(CatalogueError), job(place, "prune"):
            pass
