"""What the catalogue is asked, and by whom."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import IInventory, IJournal, IView
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View

KINDS = ((IJournal, Journal), (IView, View), (IInventory, Inventory))


class InterfaceTests(SynchronousTestCase):
    """Each connection has its interface, and nothing beside it."""

    def test_implemented(self) -> None:
        """All of it, with these arguments."""
        for interface, kind in KINDS:
            self.assertTrue(verifyClass(interface, kind))

    def test_narrow(self) -> None:
        """What is public is in the interface, but for the file's own life."""
        for interface, kind in KINDS:
            public = {each for each in vars(kind) if not each.startswith("_")}
            self.assertEqual(set(interface) - set(vars(Database)), public)

    def test_apart(self) -> None:
        """No question has two places."""
        names = [set(interface) for interface, _ in KINDS]
        self.assertEqual(sum(map(len, names)), len(set().union(*names)))
