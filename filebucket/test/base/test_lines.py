"""Queues that share a thread pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.lines import Lines
from filebucket.base.threads import Threads
from filebucket.test.kit.properties import trying

T = TypeVar("T")

MOST = 2


class Pool(Threads):
    """Makes calls when the test says so.

    :ivar calls: the calls that have not returned
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self.calls.append((done, function, args))
        return done

    def go_on(self, index: int = 0) -> None:
        done, function, args = self.calls.pop(index)
        try:
            result = function(*args)
        except Exception:
            done.errback(Failure())
        else:
            done.callback(result)


class LinesTests(SynchronousTestCase):
    """Over a pool that the test controls."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = Pool()
        self.lines = Lines(self.pool, MOST, self.clock.seconds)

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
        lines = Lines(pool, MOST)
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
