"""What every :class:`~filebucket.catalogue.interfaces.IElection` does."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from zope.interface.verify import verifyObject

from filebucket.catalogue.interfaces import IElection
from filebucket.model.node import Node, NodeReport, Reported
from filebucket.model.problem import WARNING, Kind, Problem
from filebucket.test.kit.server import comes

REPORT = NodeReport(
    "1.2.3",
    {"buckets": "0a1b"},
    (Problem(Kind.FULL, WARNING, "a: the disk is nearly full", level=7, node="a"),),
)


class ElectionContract:
    """Mix it into a test case."""

    def join(self, name: str, instance: str) -> IElection:
        """A daemon with that name."""
        raise NotImplementedError

    def nodes(self) -> Sequence[Node]:
        """The daemons, as readers of the catalogue see them."""
        raise NotImplementedError

    def node(self, name: str) -> Node:
        """One of them."""
        (found,) = [each for each in self.nodes() if each.name == name]
        return found

    def test_interface(self) -> None:
        assert verifyObject(IElection, self.join("a", "1"))

    def test_one(self) -> None:
        """One daemon has the lock, and keeps it, until its connection ends."""
        a, b = self.join("a", "1"), self.join("b", "2")
        held = [each.hold() for each in (a, b, a, b)]
        assert held == [True, False, True, False], held
        a.close()
        # The database notices that a moment later.
        assert comes(b.hold)
        assert not a.hold()
        b.close()
        assert comes(a.hold)

    def test_reports(self) -> None:
        """Readers see what each daemon reported last."""
        assert not self.nodes()
        a, b = self.join("a", "1"), self.join("b", "2")
        assert a.report(REPORT, leads=True) == Reported()
        assert b.report(NodeReport("1.2.2"), leads=False) == Reported()
        found = self.node("a")
        assert found.report == REPORT, found
        assert (found.instance, found.leads, found.stopped) == ("1", True, False)
        assert found.started == found.changed <= found.seen, found
        assert [each.name for each in self.nodes()] == ["a", "b"]
        assert self.node("b").report.version == "1.2.2"

    def test_changed(self) -> None:
        """A change of the settings has a time, one of the problems has not."""
        a = self.join("a", "1")
        a.report(REPORT, leads=False)
        self.pass_time()
        a.report(evolve(REPORT, problems=()), leads=False)
        found = self.node("a")
        assert found.started == found.changed < found.seen, found
        assert found.report.problems == ()
        a.report(evolve(REPORT, settings={}), leads=False)
        found = self.node("a")
        assert found.started < found.changed <= found.seen, found

    def pass_time(self) -> None:
        """Let the database's clock go on, a little."""
        raise NotImplementedError

    def test_one_leads(self) -> None:
        """A daemon that leads ends the report that another one does."""
        a, b = self.join("a", "1"), self.join("b", "2")
        b.report(REPORT, leads=False)
        a.report(REPORT, leads=True)
        b.report(REPORT, leads=True)
        assert [each.leads for each in self.nodes()] == [False, True]

    def test_stopped(self) -> None:
        """A daemon that stops says so, and the next one with that name is fine."""
        a = self.join("a", "1")
        a.leave()
        assert not self.nodes()
        a.report(REPORT, leads=True)
        a.leave()
        found = self.node("a")
        assert (found.leads, found.stopped) == (False, True), found
        again = self.join("a", "2")
        assert again.report(REPORT, leads=False) == Reported()
        found = self.node("a")
        assert (found.instance, found.stopped) == ("2", False), found

    def test_crashed(self) -> None:
        """A daemon learns that the last one with its name crashed, once."""
        self.join("a", "1").report(REPORT, leads=False)
        again = self.join("a", "2")
        assert again.report(REPORT, leads=False) == Reported(crashed=True)
        assert again.report(REPORT, leads=False) == Reported()

    def test_rival(self) -> None:
        """Two daemons with one name learn that, and the end of one is its own."""
        one, other = self.join("a", "1"), self.join("a", "2")
        one.report(REPORT, leads=False)
        other.report(REPORT, leads=False)
        for each in (one, other, one):
            assert each.report(REPORT, leads=False) == Reported(rival=True)
        other.leave()
        assert not self.node("a").stopped
        assert one.report(REPORT, leads=False) == Reported()
