"""Tests of :mod:`filebucket.catalogue.database`."""

from __future__ import annotations

import importlib
import sys

import psycopg
from twisted.trial.unittest import SynchronousTestCase

import filebucket.catalogue
from filebucket.catalogue.database import CatalogueError, Database
from filebucket.model.place import PostgreSQL
from filebucket.test.kit.catalogue import new_home, on_both, opened


@on_both
class OpeningTests(SynchronousTestCase):
    def test_closed(self) -> None:
        """It can be opened again, and is the same."""
        home = new_home(self)
        first = opened(self, Database, home)
        first.check()
        self.assertTrue(first.is_there())
        first.close()
        self.assertEqual(first.identity, opened(self, Database, home).identity)


class DriverTests(SynchronousTestCase):
    def test_none(self) -> None:
        """Without psycopg, one line names its package."""
        # As if it was never imported.
        name = "filebucket.catalogue.postgresql"
        module = importlib.import_module(name)
        self.addCleanup(setattr, filebucket.catalogue, "postgresql", module)
        self.addCleanup(sys.modules.update, {name: module, "psycopg": psycopg})
        del filebucket.catalogue.postgresql, sys.modules[name]
        sys.modules["psycopg"] = None  # type: ignore[assignment]
        with self.assertRaisesRegex(CatalogueError, "^needs .* python3-psycopg"):
            Database.open(PostgreSQL("host=db"))
