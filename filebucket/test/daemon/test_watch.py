"""Tests of :mod:`filebucket.daemon.watch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.daemon.watch import LOOK_AGAIN, LOOK_EVERY, Watch
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem, store_outage
from filebucket.model.records import Refused
from filebucket.test.daemon.test_alerts import BUCKET, NOW
from filebucket.test.kit.catalogue import new_home, opened

FINE = Filesystem(total=1000, free=900, reserved=20, read_only=False)
STALE = Problem(Kind.RELOAD, WARNING, "a reload is due")


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        home = new_home(self)
        self.journal = opened(self, Journal, home)
        self.view = opened(self, View, home)
        self.clock = Clock()
        self.disk: Filesystem | OSError = FINE
        self.extra: Problem | None = None
        self.unreadable: str | None = None
        self.unwritable: str | None = None
        self.gate: Deferred[None] | None = None
        self.reading: Deferred[list[Problem]] | None = None
        self.asked = 0
        self.looks: list[list[tuple[str, str, int]]] = []
        self.watch = Watch(
            self.clock,
            self.read,
            lambda: [BUCKET],
            lambda: NOW + self.clock.seconds(),
            self.look_at_disk,
            lambda: self.unwritable,
            (self.check,),
            self.see,
        )
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    def read(
        self, function: Callable[[IView], list[Problem]]
    ) -> Deferred[list[Problem]]:
        if self.reading is not None:
            return self.reading
        if self.unreadable is not None:
            return fail(CatalogueError(self.unreadable))
        return execute(function, self.view)

    def look_at_disk(self) -> Filesystem:
        if isinstance(self.disk, OSError):
            raise self.disk
        return self.disk

    async def check(self) -> Problem | None:
        self.asked += 1
        if self.gate is not None:
            await self.gate
        return self.extra

    def see(self, problems: Sequence[Problem]) -> None:
        found = [(each.kind.value, each.bucket, each.severity) for each in problems]
        self.looks.append(found)

    def look(self) -> list[tuple[str, str, int]]:
        """Wait for the next look, and return the problems."""
        before = len(self.looks)
        self.clock.advance(LOOK_EVERY)
        self.assertEqual(before + 1, len(self.looks))
        return self.looks[-1]

    def test_fine(self) -> None:
        """The first look is at the start."""
        self.assertEqual([[]], self.looks)
        self.assertEqual([], self.look())

    def test_sources(self) -> None:
        """The disk, the catalogue and the checks."""
        self.disk = Filesystem(total=1000, free=10, reserved=20, read_only=False)
        refused = Refused("web01", NOW, "x", 9, 507, "full", "c", "r")
        self.journal.record([], [refused], lambda key: None)
        self.extra = STALE
        self.assertEqual(
            [("full", "", 2), ("full", "web01", 2), ("reload", "", 1)], self.look()
        )
        # The page and the metrics read the disk and the catalogue for themselves.
        self.assertEqual([STALE], list(self.watch.problems))
        self.extra = None
        self.disk = OSError(5, "Input/output error")
        self.assertEqual([("full", "web01", 2)], self.look())
        self.assertEqual([], list(self.watch.problems))

    def test_store(self) -> None:
        """While the object store is down, the next look is earlier."""
        self.extra = store_outage("no answer")
        self.assertEqual([("store", "", 2)], self.look())
        self.clock.advance(LOOK_AGAIN)
        self.assertEqual(3, len(self.looks))
        self.extra = None
        self.clock.advance(LOOK_AGAIN)
        self.assertEqual([], self.looks[-1])
        self.assertEqual([], self.look())

    def test_catalogue(self) -> None:
        """Two errors in a row count; other problems stay as they were."""
        refused = Refused("web01", NOW, "x", 9, 507, "full", "c", "r")
        self.journal.record([], [refused], lambda key: None)
        self.look()
        known = [("full", "web01", 2)]
        for attribute in ("unreadable", "unwritable"):
            setattr(self, attribute, "disk I/O error")
            self.assertEqual(known, self.look())
            self.assertEqual([*known, ("catalogue", "", 2)], self.look())
            (problem,) = self.watch.problems
            self.assertEqual(
                Problem(
                    Kind.CATALOGUE,
                    CRITICAL,
                    "the catalogue cannot be used: disk I/O error",
                ),
                problem,
            )
            setattr(self, attribute, None)
            self.assertEqual(known, self.look())

    def test_slow(self) -> None:
        """A check that hangs is asked once; the others go on without it."""
        self.extra = STALE
        self.assertEqual([("reload", "", 1)], self.look())
        gate = self.gate = Deferred()
        self.asked = 0
        self.clock.pump([LOOK_EVERY, *[1.0] * 200])
        self.assertEqual(1, self.asked)
        # Of the check, the last answer counts.
        self.assertEqual([[("reload", "", 1)]] * 3, self.looks[-3:])
        refused = Refused("web01", NOW, "x", 9, 507, "full", "c", "r")
        self.journal.record([], [refused], lambda key: None)
        self.clock.pump([1.0] * 100)
        self.assertEqual([("full", "web01", 2), ("reload", "", 1)], self.looks[-1])
        self.extra, self.gate = None, None
        gate.callback(None)
        self.clock.pump([1.0] * 100)
        self.assertEqual([("full", "web01", 2)], self.looks[-1])

    def test_slow_catalogue(self) -> None:
        self.reading = Deferred()
        self.clock.pump([LOOK_EVERY, *[1.0] * 200])
        (problem,) = self.watch.problems
        self.assertEqual(
            "the catalogue cannot be used: its disk does not answer", problem.text
        )
        reading, self.reading = self.reading, None
        reading.callback([])
        self.clock.pump([1.0] * 100)
        self.assertEqual([], list(self.watch.problems))

    def test_stop(self) -> None:
        self.gate = Deferred()
        self.clock.advance(LOOK_EVERY)
        self.watch.stopService()
        self.gate.callback(None)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_bug(self) -> None:
        """It is logged, hides no other problems, and the next look takes place."""
        self.disk = Filesystem(total=1000, free=10, reserved=20, read_only=False)
        gate = self.gate = Deferred()
        self.clock.advance(LOOK_EVERY)
        self.gate = None
        gate.errback(ZeroDivisionError())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual([("full", "", 2)], self.looks[-1])
        self.look()
