"""Tests of :mod:`filebucket.catalogue.leader`: which daemon leads, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IElection
from filebucket.catalogue.leader import (
    ALONE,
    LEASE,
    PATIENCE,
    REPORT_EVERY,
    SILENT,
    TRY_EVERY,
    Leader,
    Leadership,
)
from filebucket.model.node import Node, NodeReport
from filebucket.test.catalogue.election_contract import ElectionContract
from filebucket.test.kit.elections import REPORT, MemoryElection, MemoryServer
from filebucket.test.kit.fakes import AtOnce


@define(eq=False)
class Machine:
    """A daemon on a machine with a clock of its own."""

    server: MemoryServer
    name: str
    instance: str = "1"
    clock: Clock = field(factory=Clock)
    report: NodeReport = REPORT
    events: list[str] = field(factory=list)
    threads: AtOnce = field(init=False)
    leadership: Leadership = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.threads = AtOnce(self.clock)
        self.leadership = Leadership(
            self.clock,
            self.threads,
            MemoryElection(self.server, self.name, self.instance),
            lambda: self.report,
            self.clock.seconds,
        )
        for register, event in (
            (self.leadership.on_begin, "begin"),
            (self.leadership.on_look, "look"),
            (self.leadership.on_crash, "crash"),
        ):
            register(partial(self.events.append, event))
        self.leadership.startService()

    @property
    def term(self) -> int:
        return self.leadership.term


class MemoryElectionTests(ElectionContract, SynchronousTestCase):
    """The fake."""

    def setUp(self) -> None:
        self.server = MemoryServer()

    def join(self, name: str, instance: str) -> IElection:
        return MemoryElection(self.server, name, instance)

    def nodes(self) -> Sequence[Node]:
        return [node for _, node in sorted(self.server.nodes.items())]

    def pass_time(self) -> None:
        self.server.clock.advance(1)


class LeadershipTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer()
        self.machines: list[Machine] = []
        capture = capturedLogs()
        self.events: Sequence[LogEvent] = capture.__enter__()
        self.addCleanup(capture.__exit__, None, None, None)
        self.addCleanup(self.stop_all)

    def stop_all(self) -> None:
        for each in self.machines:
            if each.leadership.running:
                each.threads.hangs = False
                each.leadership.stopService()

    def machine(self, name: str, instance: str = "1") -> Machine:
        self.machines.append(Machine(self.server, name, instance))
        return self.machines[-1]

    def advance(self, seconds: float, *asleep: Machine) -> None:
        """Let time pass everywhere, except on machines that sleep."""
        awake = [each.clock for each in self.machines if each not in asleep]
        steps = round(seconds * 4)
        for _ in range(steps):
            self.server.clock.advance(0.25)
            for clock in awake:
                clock.advance(0.25)

    def terms(self) -> list[int]:
        return [each.term for each in self.machines]

    def logged(self) -> list[str | None]:
        return [formatEvent(each) for each in self.events]

    def test_alone(self) -> None:
        self.assertEqual(1, ALONE.term)
        self.assertTrue(self.successResultOf(_confirmed(ALONE, 1)))

    def test_one(self) -> None:
        """One of several leads, and keeps leading."""
        for name in "abc":
            self.machine(name)
        for _ in range(60):
            self.advance(1)
            self.assertEqual([1, 0, 0], self.terms())
        self.assertEqual([True, False, False], self.reported())
        a, b, _ = self.machines
        self.assertEqual(["begin", *["look"] * 6], a.events[:7])
        self.assertEqual([], b.events)

    def reported(self) -> list[bool]:
        """Whether each daemon leads, as others see it."""
        return [each.leads for each in self.server.nodes.values()]

    def test_stop(self) -> None:
        """A daemon that stops gives up, and another one follows."""
        a, b = self.machine("a"), self.machine("b")
        self.successResultOf(a.leadership.stopService())
        self.assertEqual(0, a.term)
        self.assertTrue(self.server.nodes["a"].stopped)
        self.advance(TRY_EVERY)
        self.assertEqual([0, 1], self.terms())
        self.assertEqual([False, True], self.reported())
        self.assertEqual(["begin", "look"], b.events)

    def test_silence(self) -> None:
        """A daemon that cannot reach the database stops leading before another begins,
        although nothing tells it so.
        """
        a, b = self.machine("a"), self.machine("b")
        a.threads.hangs = True
        ended = began = None
        for tick in range(4 * 20):
            self.advance(0.25)
            self.assertNotEqual([1, 1], self.terms())
            if ended is None and not a.term:
                ended = (tick + 1) / 4
            if began is None and b.term:
                began = (tick + 1) / 4
        assert ended is not None
        assert began is not None
        self.assertTrue(ended <= LEASE, ended)
        self.assertTrue(SILENT <= began <= SILENT + 2 * TRY_EVERY, began)
        a.threads.go_on()
        self.advance(TRY_EVERY)
        self.assertEqual([0, 1], self.terms())

    def test_asleep(self) -> None:
        """A machine that slept does not lead when it wakes up."""
        a, b = self.machine("a"), self.machine("b")
        self.advance(3 * SILENT, a)
        self.assertEqual(1, b.term)
        # Its clock has counted the time.
        a.clock.rightNow += 3 * SILENT
        self.assertEqual(0, a.term)
        self.advance(TRY_EVERY)
        self.assertEqual([0, 1], self.terms())

    def test_restarted_database(self) -> None:
        """A daemon that loses its connection stops leading at its next sign of life,
        and each time that a daemon leads has its own number.
        """
        a = self.machine("a")
        self.advance(1)
        self.server.restart()
        b = self.machine("b")
        self.assertEqual(1, b.term)
        self.advance(TRY_EVERY)
        self.assertEqual(0, a.term)
        self.successResultOf(b.leadership.stopService())
        self.advance(2 * TRY_EVERY)
        self.assertEqual(2, a.term)
        self.assertEqual(2, a.events.count("begin"))

    def test_no_database(self) -> None:
        """Without the database no daemon leads; the log has the reason once."""
        a, b = self.machine("a"), self.machine("b")
        self.server.failure = CatalogueError("connection refused")
        self.advance(60)
        self.assertEqual([0, 0], self.terms())
        text = (
            "the catalogue's database cannot be used, so this daemon does not lead:"
            " connection refused"
        )
        self.assertEqual(2, self.logged().count(text))
        self.server.failure = None
        self.advance(2 * TRY_EVERY)
        self.assertEqual(1, len([each for each in (a.term, b.term) if each]))
        text = "the catalogue's database can be used again"
        self.assertEqual(2, self.logged().count(text))

    def test_confirm(self) -> None:
        """Before it reports anything, a daemon asks whether it still leads."""
        a, b = self.machine("a"), self.machine("b")
        self.assertTrue(self.successResultOf(_confirmed(a.leadership, 1)))
        self.assertFalse(self.successResultOf(_confirmed(a.leadership, 2)))
        self.assertFalse(self.successResultOf(_confirmed(b.leadership, 0)))
        self.advance(0.5)
        self.server.restart()
        # It does not know yet.
        self.assertEqual(1, a.term)
        self.assertFalse(self.successResultOf(_confirmed(a.leadership, 1)))
        self.assertEqual(0, a.term)

    def test_confirm_hangs(self) -> None:
        """A database that does not answer confirms nothing."""
        a = self.machine("a")
        a.threads.hangs = True
        confirmed = _confirmed(a.leadership, 1)
        self.assertNoResult(confirmed)
        self.advance(PATIENCE)
        self.assertFalse(self.successResultOf(confirmed))
        self.assertEqual(0, a.term)
        a.threads.go_on()
        self.advance(2 * TRY_EVERY)
        self.assertTrue(a.term)

    def test_crashed(self) -> None:
        """A daemon learns that the one before it crashed."""
        self.machine("a").threads.hangs = True
        b = self.machine("a", "2")
        self.assertEqual(["crash"], b.events)
        self.advance(2 * REPORT_EVERY)
        self.assertEqual(1, b.events.count("crash"))

    def test_rival(self) -> None:
        """Two daemons with one name: both log it, and know when it is over."""
        a, b = self.machine("a"), self.machine("a", "2")
        self.assertEqual([False, False], [each.leadership.rival for each in (a, b)])
        self.advance(2 * REPORT_EVERY)
        self.assertEqual([True, True], [each.leadership.rival for each in (a, b)])
        text = "another daemon has the same name: change 'node' of one of them"
        self.assertEqual(2, self.logged().count(text))
        self.successResultOf(b.leadership.stopService())
        self.advance(2 * REPORT_EVERY)
        self.assertFalse(a.leadership.rival)

    def test_reports(self) -> None:
        """A daemon reports itself regularly, and when it begins to lead."""
        a, b = self.machine("a"), self.machine("b")
        b.report = evolve(REPORT, version="1.1")
        self.advance(REPORT_EVERY / 2)
        self.assertEqual("1.0", self.server.nodes["b"].report.version)
        self.advance(REPORT_EVERY)
        self.assertEqual("1.1", self.server.nodes["b"].report.version)
        b.report = evolve(REPORT, version="1.2")
        self.successResultOf(a.leadership.stopService())
        self.advance(TRY_EVERY)
        found = self.server.nodes["b"]
        self.assertEqual(("1.2", True), (found.report.version, found.leads))

    def test_bug(self) -> None:
        """A bug ends neither the daemon's turns nor stays unseen."""
        a = self.machine("a")

        def fail() -> None:
            raise ZeroDivisionError

        a.leadership.on_look(fail)
        self.advance(2 * REPORT_EVERY)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertEqual(1, a.term)


def _confirmed(leader: Leader, term: int) -> Deferred[bool]:
    return Deferred.fromCoroutine(leader.confirm(term))
