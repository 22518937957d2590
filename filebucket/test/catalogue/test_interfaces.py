"""Tests of :mod:`filebucket.catalogue.interfaces`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from filebucket.catalogue.copies import Copies
from filebucket.catalogue.database import Database
from filebucket.catalogue.files import Files
from filebucket.catalogue.interfaces import (
    ICopies,
    IFiles,
    IInventory,
    IJournal,
    IView,
)
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View

KINDS = (
    (IJournal, Journal),
    (IView, View),
    (IInventory, Inventory),
    (IFiles, Files),
    (ICopies, Copies),
)


class InterfaceTests(SynchronousTestCase):
    """Each connection implements its interface, and nothing else."""

    def test_implemented(self) -> None:
        """All of it, with these arguments."""
        for interface, kind in KINDS:
            self.assertTrue(verifyClass(interface, kind))

    def test_narrow(self) -> None:
        """Public methods are in the interface, except those about the file."""
        for interface, kind in KINDS:
            public = {each for each in vars(kind) if not each.startswith("_")}
            self.assertEqual(set(interface) - set(vars(Database)), public)

    def test_apart(self) -> None:
        """No method is in two interfaces."""
        names = [set(interface) for interface, _ in KINDS]
        self.assertEqual(sum(map(len, names)), len(set().union(*names)))
