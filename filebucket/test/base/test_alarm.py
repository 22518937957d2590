"""Alarms, and waits with a timeout."""

from __future__ import annotations

import math

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.alarm import Alarm, started, within


class AlarmTests(SynchronousTestCase):
    """An alarm."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.alarm = Alarm(self.clock)
        self.rung: list[str] = []

    def set(self, seconds: float, name: str) -> None:
        self.alarm.set(seconds, lambda: self.rung.append(name))

    def test_rings_once(self) -> None:
        self.set(3, "a")
        self.clock.advance(2.9)
        self.assertEqual(([], True), (self.rung, self.alarm.is_set))
        self.clock.advance(0.2)
        self.clock.advance(10)
        self.assertEqual((["a"], False), (self.rung, self.alarm.is_set))

    def test_set_again(self) -> None:
        self.set(3, "a")
        self.set(5, "b")
        self.clock.advance(4)
        self.assertEqual([], self.rung)
        self.clock.advance(1)
        self.assertEqual(["b"], self.rung)

    def test_set_again_for_sooner(self) -> None:
        self.set(5, "a")
        self.set(3, "b")
        self.clock.advance(3)
        self.assertEqual(["b"], self.rung)
        self.clock.advance(3)
        self.assertEqual((["b"], []), (self.rung, self.clock.getDelayedCalls()))

    def test_rest(self) -> None:
        """A timer that rests keeps its place in the reactor, for the next setting."""
        self.set(2, "a")
        self.alarm.rest()
        self.assertEqual((math.inf, False), (self.alarm.left, self.alarm.is_set))
        calls = self.clock.getDelayedCalls()
        self.set(3, "b")
        self.assertEqual(calls, self.clock.getDelayedCalls())
        self.clock.advance(2)
        self.assertEqual(([], 1), (self.rung, self.alarm.left))
        self.clock.advance(1)
        self.assertEqual(["b"], self.rung)
        self.set(2, "c")
        self.alarm.rest()
        self.clock.advance(2)
        self.assertEqual((["b"], []), (self.rung, self.clock.getDelayedCalls()))

    def test_set_while_it_rings(self) -> None:
        self.alarm.set(1, lambda: self.set(1, "again"))
        self.clock.pump([1, 1])
        self.assertEqual(["again"], self.rung)

    def test_stop(self) -> None:
        self.set(1, "a")
        self.alarm.stop()
        self.alarm.stop()
        self.clock.advance(2)
        self.assertEqual([], self.rung)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_left(self) -> None:
        self.assertEqual(math.inf, self.alarm.left)
        self.set(3, "a")
        self.clock.advance(1)
        self.assertEqual(2, self.alarm.left)


class WithinTests(SynchronousTestCase):
    """A wait with a timeout."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cancelled: list[Deferred[int]] = []
        self.wait: Deferred[int] = Deferred(self.cancelled.append)
        self.found = Deferred.fromCoroutine(within(self.clock, 5, self.wait))

    def test_in_time(self) -> None:
        self.clock.advance(4)
        self.wait.callback(1)
        self.assertTrue(self.successResultOf(self.found))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_late(self) -> None:
        self.clock.advance(4.9)
        self.assertNoResult(self.found)
        self.clock.advance(0.2)
        self.assertFalse(self.successResultOf(self.found))
        self.assertEqual([self.wait], self.cancelled)

    def test_fails(self) -> None:
        self.wait.errback(OSError("it"))
        self.failureResultOf(self.found, OSError)


class StartedTests(SynchronousTestCase):
    """Work that goes on."""

    def test_result(self) -> None:
        fires: Deferred[int] = Deferred()
        work = started(fires)
        self.assertNoResult(work)
        fires.callback(3)
        self.assertEqual(3, self.successResultOf(work))

    def test_coroutine(self) -> None:
        async def fails() -> None:
            raise ValueError

        self.failureResultOf(started(fails()), ValueError)

    def test_cancelled(self) -> None:
        fires: Deferred[int] = Deferred()
        work = started(fires)
        work.cancel()
        self.failureResultOf(work, CancelledError)
        self.assertTrue(fires.called)
