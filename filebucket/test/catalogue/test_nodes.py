"""Tests of :mod:`filebucket.catalogue.nodes`."""

from __future__ import annotations

from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.journal import Journal
from filebucket.catalogue.nodes import Nodes
from filebucket.catalogue.view import View
from filebucket.model.problem import Kind, ToldProblem
from filebucket.model.records import HookRun, Space
from filebucket.test.catalogue.election_contract import REPORT
from filebucket.test.catalogue.test_election import NOW, ElectionCase
from filebucket.test.kit.catalogue import new_home, opened


class FileTests(SynchronousTestCase):
    def test_none(self) -> None:
        """No daemon shares a file."""
        view = opened(self, View, new_home(self))
        self.assertEqual([], view.nodes(NOW))


class NodesTests(ElectionCase):
    """The daemons that share a database."""

    def test_clock(self) -> None:
        """Times are adapted to the clock of the reader."""
        self.join("a", "1").report(REPORT, leads=True)
        (node,) = self.nodes()
        self.assertTrue(NOW - 60 < node.seen <= NOW, node)
        self.assertTrue(node.is_alive(NOW))

    def test_later_version(self) -> None:
        """A problem of a kind that this version does not know is left out."""
        self.join("a", "1").report(REPORT, leads=True)
        problems = '[["battery", 2, "low", 2], ["full", 1, "a: full", 1]]'
        self.sql(f"UPDATE filebucket.node SET problems = '{problems}'")
        (node,) = self.nodes()
        self.assertEqual(["a: full"], [each.text for each in node.report.problems])

    def test_forget(self) -> None:
        """All that is recorded about a daemon is forgotten, and nothing else."""
        for name in "ab":
            self.join(name, "1").report(REPORT, leads=False)
        with closing(Journal.open(self.place)) as journal:
            for name in ("a", "b", ""):
                told = ToldProblem(Kind.FULL, "", 1, NOW, NOW, name)
                journal.mark_problem(told)
                journal.note_space(Space(NOW, 1, 2, name))
                journal.note_hooks([HookRun("alert", "", NOW, "timed out", name)])
        with closing(Nodes.open(self.place)) as nodes:
            self.assertEqual(["a", "b"], [each.name for each in nodes.nodes(NOW)])
            nodes.forget("a")
            self.assertEqual(["b"], [each.name for each in nodes.nodes(NOW)])
        for table in ("problem", "space", "hook_failure"):
            left = self.sql(f"SELECT node FROM filebucket.{table} ORDER BY node")
            self.assertEqual([("",), ("b",)], left, table)
