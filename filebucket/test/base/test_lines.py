"""Queues that share a thread pool."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base import lines as lines_module
from filebucket.base.lines import Lines
from filebucket.test.kit.fakes import Pool
from filebucket.test.kit.properties import trying

MOST = 2


class LinesTests(SynchronousTestCase):
    """Over a pool that the test controls."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = Pool()
        self.lines = Lines(self.pool, MOST, self.clock)

    def test_nobody_has_all(self) -> None:
        waits = [self.lines.run("a", len, "x" * each) for each in range(5)]
        self.assertEqual(MOST, len(self.pool.calls))
        other = self.lines.run("b", len, "other")
        self.assertEqual(MOST + 1, len(self.pool.calls))
        self.pool.go_on(-1)
        self.assertEqual(5, self.successResultOf(other))
        for wait in waits:
            self.assertNoResult(wait)
        while self.pool.calls:
            self.assertLessEqual(len(self.pool.calls), MOST)
            self.pool.go_on()
        self.assertEqual(list(range(5)), [self.successResultOf(each) for each in waits])

    def test_failure(self) -> None:
        waits = [self.lines.run("a", int, each) for each in ("no", "1", "nor", "2")]
        for _ in waits:
            self.pool.go_on()
        for wait in waits[::2]:
            self.failureResultOf(wait, ValueError)
        self.assertEqual([1, 2], [self.successResultOf(each) for each in waits[1::2]])

    def test_stuck(self) -> None:
        self.assertFalse(self.lines.is_stuck("a", 0))
        self.lines.run("a", int)
        self.clock.advance(10)
        self.assertFalse(self.lines.is_stuck("a", 0))
        self.lines.run("a", int)
        self.assertFalse(self.lines.is_stuck("a", 10))
        self.clock.advance(10)
        self.assertTrue(self.lines.is_stuck("a", 10))
        self.assertFalse(self.lines.is_stuck("b", 0))
        # The next waiting call gets the thread.
        self.lines.run("a", int)
        self.pool.go_on()
        self.assertFalse(self.lines.is_stuck("a", 10))
        self.clock.advance(10)
        self.assertTrue(self.lines.is_stuck("a", 10))
        self.pool.go_on()
        self.assertFalse(self.lines.is_stuck("a", 0))

    def test_nothing_is_kept(self) -> None:
        for number in range(3):
            self.lines.run(f"{number}", int)
        for _ in range(3):
            self.pool.go_on()
        self.assertEqual({}, self.lines._lines)

    @trying
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
    def test_in_order(self, steps: list[tuple[bool, str]]) -> None:
        """Each queue keeps its order, never exceeds its share, and is never idle while
        one of its calls waits.
        """
        pool = Pool()
        lines = Lines(pool, MOST, Clock())
        given_ = dict.fromkeys("abc", 0)
        made: dict[str, list[int]] = {key: [] for key in "abc"}

        def call(key: str, number: int) -> None:
            made[key].append(number)

        for come, key in steps:
            if come:
                lines.run(key, call, key, given_[key])
                given_[key] += 1
            elif pool.calls:
                pool.go_on()
            for each in "abc":
                at_it = sum(args[0] == each for _, _, args in pool.calls)
                left = given_[each] - len(made[each])
                self.assertEqual(min(left, MOST), at_it)
        while pool.calls:
            pool.go_on()
        for key, count in given_.items():
            self.assertEqual(list(range(count)), made[key])


class TogetherTests(SynchronousTestCase):
    """Items that share calls, over a pool that the test controls."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = Pool()
        self.lines = Lines(self.pool, MOST, self.clock)
        self.made: list[tuple[str, list[int]]] = []

    def halve(self, key: str, items: Sequence[int]) -> list[int | Exception]:
        self.made.append((key, list(items)))
        return [ValueError(item) if item % 2 else item // 2 for item in items]

    def go_on(self, index: int = 0) -> None:
        """The next turn of the reactor, and a call."""
        self.turn()
        self.pool.go_on(index)

    def turn(self) -> int:
        """The next turn of the reactor; returns the number of calls in the pool."""
        self.clock.advance(0)
        return len(self.pool.calls)

    def together(self, key: str, item: int) -> Deferred[int]:
        return self.lines.together(key, self.halve, item)

    def test_all_that_wait(self) -> None:
        """A call takes all items that wait when a thread is free, in order."""
        waits = [self.together("a", item) for item in (2, 4, 6)]
        self.assertEqual([], self.pool.calls)
        self.go_on()
        self.assertEqual([("a", [2, 4, 6])], self.made)
        self.assertEqual([1, 2, 3], [self.successResultOf(each) for each in waits])
        self.assertEqual([], self.pool.calls)

    def test_alone(self) -> None:
        """Nothing waits for others."""
        for item in (2, 4):
            wait = self.together("a", item)
            self.go_on()
            self.assertEqual(item // 2, self.successResultOf(wait))
        self.assertEqual([("a", [2]), ("a", [4])], self.made)

    def test_one_fails(self) -> None:
        waits = [self.together("a", item) for item in (2, 3, 4)]
        self.go_on()
        self.assertEqual(1, self.successResultOf(waits[0]))
        self.failureResultOf(waits[1], ValueError)
        self.assertEqual(2, self.successResultOf(waits[2]))

    def test_all_fail(self) -> None:
        """If the call fails, so do its items, and no others."""

        def divide(key: str, items: Sequence[int]) -> list[int | Exception]:
            self.lines.together("a", divide, 1).addErrback(later.append)
            raise ZeroDivisionError

        later: list[object] = []
        waits = [self.lines.together("a", divide, item) for item in range(2)]
        self.go_on()
        for each in waits:
            self.failureResultOf(each, ZeroDivisionError)
        self.assertEqual([], later)
        self.assertEqual(1, len(self.pool.calls))

    def test_one_call_at_a_time(self) -> None:
        """Items that come during a call wait for the next one, which begins before
        the results are told.
        """

        def add(key: str, items: Sequence[int]) -> list[int | Exception]:
            if not added:
                added.extend(self.lines.together("a", add, each) for each in (3, 4))
                self.assertEqual([], self.pool.calls)
            return list(items)

        def told(result: int) -> int:
            at_it.append(len(self.pool.calls))
            return result

        added: list[Deferred[int]] = []
        at_it: list[int] = []
        first = self.lines.together("a", add, 1).addCallback(told)
        self.go_on()
        self.assertEqual(1, self.successResultOf(first))
        self.assertEqual([1], at_it)
        self.go_on()
        self.assertEqual([3, 4], [self.successResultOf(each) for each in added])

    def test_not_too_many(self) -> None:
        self.patch(lines_module, "MOST_TOGETHER", 2)
        waits = [self.together("a", item) for item in (0, 2, 4, 6, 8)]
        for _ in range(3):
            self.go_on()
        self.assertEqual([[0, 2], [4, 6], [8]], [items for _, items in self.made])
        self.assertEqual([0, 1, 2, 3, 4], [self.successResultOf(w) for w in waits])

    def test_others_do_not_wait(self) -> None:
        """Neither those of another key, nor those that wait for another function."""

        def double(key: str, items: Sequence[int]) -> list[int | Exception]:
            return [2 * item for item in items]

        hangs = self.together("a", 2)
        other_key = self.together("b", 4)
        other = self.lines.together("a", double, 4)
        alone = self.lines.run("c", len, "alone")
        for _ in range(2):
            self.go_on(-1)
        self.assertEqual(2, self.turn())
        self.pool.go_on(0)
        self.assertNoResult(hangs)
        self.assertEqual(2, self.successResultOf(other_key))
        self.assertEqual(8, self.successResultOf(other))
        self.assertEqual(5, self.successResultOf(alone))

    def test_among_other_calls(self) -> None:
        """A group takes a place in the queue of its key, like any other call."""
        for _ in range(MOST):
            self.lines.run("a", int)
        wait = self.together("a", 2)
        self.assertEqual(MOST, len(self.pool.calls))
        self.go_on()
        self.go_on(-1)
        self.assertEqual(1, self.successResultOf(wait))

    def test_stuck(self) -> None:
        """One call that hangs holds up the others."""
        stuck: list[bool] = []

        def hang(key: str, items: Sequence[int]) -> list[int | Exception]:
            self.clock.advance(9)
            stuck.append(self.lines.is_stuck("a", 10))
            self.clock.advance(1)
            stuck.append(self.lines.is_stuck("a", 10))
            stuck.append(self.lines.is_stuck("b", 10))
            return list(items)

        self.lines.together("a", hang, 1)
        # That no thread is free says nothing about this disk.
        self.clock.advance(10)
        self.assertFalse(self.lines.is_stuck("a", 10))
        self.go_on()
        self.assertEqual([False, True, False], stuck)
        self.assertFalse(self.lines.is_stuck("a", 0))

    def test_no_thread(self) -> None:
        """If there is none, all that wait fail, and the next one tries again."""
        error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        patched = self.patch(self.pool, "run", lambda *args: fail(error))
        for _ in range(2):
            failing = [self.together("a", 2), self.together("a", 4)]
            self.turn()
            for each in failing:
                self.failureResultOf(each, OSError)
        patched.restore()
        waits = [self.together("a", 4)]
        self.go_on()
        self.assertEqual([2], [self.successResultOf(each) for each in waits])

    def test_nothing_is_kept(self) -> None:
        for key in "aab":
            self.together(key, 2)
        while self.turn():
            self.go_on()
        self.assertEqual({}, self.lines._groups)
        self.assertEqual({}, self.lines._lines)

    @trying
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab")), max_size=40))
    def test_in_order(self, steps: list[tuple[bool, str]]) -> None:
        """Each item is in one call, in the order of its key, and none waits without a
        call.
        """
        self.setUp()
        given_ = dict.fromkeys("ab", 0)
        for come, key in steps:
            if come:
                self.together(key, 2 * given_[key])
                given_[key] += 1
            elif self.turn():
                self.go_on()
        while self.turn():
            self.go_on()
        for key, count in given_.items():
            items = [item for made, items in self.made if made == key for item in items]
            self.assertEqual([2 * number for number in range(count)], items)
