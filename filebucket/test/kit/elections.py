"""The election of a leader, in memory."""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.task import Clock
from zope.interface import implementer

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IElection
from filebucket.catalogue.leader import SILENT
from filebucket.model.node import Node, NodeReport, Reported

REPORT = NodeReport("1.0")


@define(eq=False)
class MemoryServer:
    """A database.

    :ivar nodes: the reports, by name
    :ivar failure: why it does not answer, if it does not
    """

    clock: Clock = field(factory=Clock)
    nodes: dict[str, Node] = field(factory=dict)
    failure: CatalogueError | None = None
    _leads: MemoryElection | None = None

    def leader(self) -> MemoryElection | None:
        """The connection that has the lock."""
        one = self._leads
        if one is not None and self.clock.seconds() - one.spoke_at >= SILENT:
            one.broken = True
            self._leads = None
        return self._leads

    def restart(self) -> None:
        """End all connections."""
        if self._leads is not None:
            self._leads.broken = True
        self._leads = None

    def take(self, election: MemoryElection | None) -> None:
        """Give the lock to a connection, or to none."""
        self._leads = election


@implementer(IElection)
@define(eq=False)
class MemoryElection:
    """A daemon's connection to it.

    :ivar broken: whether the database has ended the connection
    """

    server: MemoryServer
    name: str
    instance: str
    broken: bool = False
    spoke_at: float = 0.0
    _reported: bool = False

    def hold(self) -> bool:
        self._speak()
        if self.server.leader() is None:
            self.server.take(self)
        return self.server.leader() is self

    def _speak(self) -> None:
        if self.server.failure is not None:
            self.server.restart()
            raise self.server.failure
        self.server.leader()
        if self.broken:
            raise CatalogueError("the connection was closed")
        self.spoke_at = self.server.clock.seconds()

    def report(self, report: NodeReport, leads: bool) -> Reported:
        self._speak()
        now = self.server.clock.seconds()
        nodes = self.server.nodes
        before = nodes.get(self.name)
        same = before is not None and before.instance == self.instance
        known = before is not None and (
            (before.report.version, before.report.settings)
            == (report.version, report.settings)
        )
        if leads:
            for name, each in nodes.items():
                nodes[name] = evolve(each, leads=False)
        nodes[self.name] = Node(
            self.name,
            self.instance,
            started=before.started if before and same else now,
            changed=before.changed if before and known else now,
            seen=now,
            leads=leads,
            stopped=False,
            report=report,
        )
        other = before is not None and not same and not before.stopped
        found = Reported(other and self._reported, other and not self._reported)
        self._reported = True
        return found

    def leave(self) -> None:
        self._speak()
        found = self.server.nodes.get(self.name)
        if found is not None and found.instance == self.instance:
            stopped = evolve(found, leads=False, stopped=True)
            self.server.nodes[self.name] = stopped

    def close(self) -> None:
        if self.server.leader() is self:
            self.server.take(None)
        self.broken = False
