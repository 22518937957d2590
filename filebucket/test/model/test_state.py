"""States of series."""

from __future__ import annotations

import math
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket, Pause
from filebucket.model.schedule import Interval
from filebucket.model.state import Facts, State, assess, judge, usual_size
from filebucket.model.token import Token
from filebucket.test.kit.properties import trying

BUCKET = Bucket(
    (Token(b"\xab" * 32),), "web01", "web01", expect=Interval(100.0, "100s")
)


class AssessTests(SynchronousTestCase):
    def state(
        self, facts: Facts, now: float, watched: bool = True, **settings: Any
    ) -> State:
        bucket = evolve(BUCKET, **settings)
        return assess(bucket, watched, facts, now).state

    def test_never(self) -> None:
        """From the moment when the series was first known."""
        facts = Facts(since=1000.0, last=None, sizes=())
        self.assertEqual(State.NEVER, self.state(facts, 1099.9))
        self.assertEqual(State.LATE, self.state(facts, 1100.0))
        self.assertEqual(State.NEVER, self.state(facts, 9999.0, watched=False))
        self.assertEqual(State.NEVER, self.state(facts, 9999.0, expect=None))

    def test_late(self) -> None:
        facts = Facts(since=0.0, last=1000.0, sizes=(5,))
        self.assertEqual(State.FRESH, self.state(facts, 1099.9))
        self.assertEqual(State.LATE, self.state(facts, 1100.0))
        self.assertEqual(State.FRESH, self.state(facts, 9999.0, watched=False))

    def test_late_before_shrunk(self) -> None:
        facts = Facts(since=0.0, last=1000.0, sizes=(1, 9, 9, 9))
        self.assertEqual(State.SHRUNK, self.state(facts, 1050.0))
        self.assertEqual(State.LATE, self.state(facts, 1100.0))

    def test_late_before_empty(self) -> None:
        facts = Facts(since=0.0, last=1000.0, sizes=(0, 9, 9, 9))
        self.assertEqual(State.EMPTY, self.state(facts, 1050.0))
        self.assertEqual(State.LATE, self.state(facts, 1100.0))

    def test_failed(self) -> None:
        """A failure that the client reported, until a later push arrives."""
        for last, sizes, unfinished, expected in (
            (1000.0, (9,), None, State.FAILED),
            (1000.0, (0,), 1020.0, State.FAILED),
            (None, (), None, State.FAILED),
            (1010.0, (9,), None, State.FRESH),
            (1020.0, (0,), None, State.EMPTY),
        ):
            facts = Facts(990.0, last, sizes, unfinished, failed=1010.0)
            self.assertEqual(expected, self.state(facts, 1050.0), facts)
        facts = Facts(0.0, 1000.0, (9,), failed=1010.0)
        self.assertEqual(State.LATE, self.state(facts, 1100.0))

    def test_unfinished(self) -> None:
        """A push that never ended, until a later one arrives."""
        for last, sizes, expected in (
            (1000.0, (1, 9, 9, 9), State.UNFINISHED),
            (1000.0, (0, 9, 9, 9), State.EMPTY),
            (None, (), State.UNFINISHED),
            (1010.0, (9,), State.FRESH),
            (1020.0, (9,), State.FRESH),
        ):
            facts = Facts(990.0, last, sizes, unfinished=1010.0)
            self.assertEqual(expected, self.state(facts, 1050.0), facts)
        facts = Facts(0.0, 1000.0, (9,), unfinished=1010.0)
        self.assertEqual(State.LATE, self.state(facts, 1100.0))

    def test_paused(self) -> None:
        """Not late before the end of the pause; then the schedule starts again."""
        pause = Pause(2000.0, "a move")
        facts = Facts(since=0.0, last=1000.0, sizes=(5,))
        for now, state in ((1999.0, State.FRESH), (2099.9, State.FRESH)):
            self.assertEqual(state, self.state(facts, now, paused=pause), now)
        self.assertEqual(State.LATE, self.state(facts, 2100.0, paused=pause))
        awaiting = Facts(since=0.0, last=None, sizes=())
        self.assertEqual(State.NEVER, self.state(awaiting, 2099.9, paused=pause))
        self.assertEqual(State.LATE, self.state(awaiting, 2100.0, paused=pause))
        # A push after the pause counts as without one.
        facts = Facts(since=0.0, last=2050.0, sizes=(5,))
        self.assertEqual(State.FRESH, self.state(facts, 2149.9, paused=pause))
        self.assertEqual(State.LATE, self.state(facts, 2150.0, paused=pause))
        # Other states do not depend on it.
        facts = Facts(since=0.0, last=1000.0, sizes=(1, 9, 9, 9))
        self.assertEqual(State.SHRUNK, self.state(facts, 1500.0, paused=pause))
        bucket = evolve(BUCKET, expect=None, paused=pause)
        self.assertEqual(math.inf, assess(bucket, True, facts, 0.0).due)

    def test_retired(self) -> None:
        """It has no states, and is never due."""
        for facts, state in (
            (Facts(0.0, 1000.0, (5,)), State.FRESH),
            (Facts(0.0, 1000.0, (0, 9, 9, 9)), State.FRESH),
            (Facts(0.0, 1000.0, (1, 9, 9, 9)), State.FRESH),
            (Facts(0.0, 1000.0, (9,), unfinished=1010.0), State.FRESH),
            (Facts(0.0, None, ()), State.NEVER),
        ):
            found = assess(evolve(BUCKET, retired=True), True, facts, 9999.0)
            self.assertEqual((state, math.inf), (found.state, found.due), facts)

    def test_due(self) -> None:
        """The time of the next assessment."""
        facts = Facts(since=0.0, last=1000.0, sizes=(5,))
        self.assertEqual(1100.0, assess(BUCKET, True, facts, 1000.0).due)
        self.assertEqual(math.inf, assess(BUCKET, False, facts, 1000.0).due)

    def test_sizes(self) -> None:
        """A push is compared with the median of the five before."""
        for sizes, state in (
            ((400,), State.FRESH),
            ((400, 9000, 9000), State.FRESH),  # two are not enough
            ((400, 9000, 9000, 9000), State.SHRUNK),
            ((4500, 9000, 9000, 9000), State.FRESH),
            ((4499, 9000, 9000, 9000), State.SHRUNK),
            ((400, 9000, 1, 9000, 1, 9000), State.SHRUNK),
            ((400, 9000, 1, 9000, 1, 1), State.GROWN),
            # The sixth before it does not count.
            ((400, 1, 1, 1, 9000, 9000, 9000, 9000), State.GROWN),
            ((27000, 9000, 9000, 9000), State.FRESH),
            ((27001, 9000, 9000, 9000), State.GROWN),
            # A push without content is never fine, and does not change the usual size.
            ((0,), State.EMPTY),
            ((0, 0, 0, 0), State.EMPTY),
            ((0, 9000, 9000, 9000), State.EMPTY),
            ((1, 0, 0, 0), State.FRESH),
            ((400, 0, 9000, 9000, 0, 9000), State.SHRUNK),
            ((9000, 9000, 0, 0, 9000, 0, 9000), State.FRESH),
        ):
            facts = Facts(since=0.0, last=1000.0, sizes=sizes)
            self.assertEqual(state, self.state(facts, 1000.0, grow_alert=3.0), sizes)

    def test_what_was_suspicious_becomes_usual(self) -> None:
        """A series that shrank for good is reported three times."""
        sizes = [9000] * 5
        states = []
        for _ in range(5):
            sizes.insert(0, 400)
            states.append(self.state(Facts(0.0, 1000.0, sizes), 1000.0))
        self.assertEqual([State.SHRUNK] * 3 + [State.FRESH] * 2, states)

    def test_off(self) -> None:
        """Thresholds that are off."""
        self.assertEqual(State.FRESH, judge(evolve(BUCKET, shrink_alert=0.0), 1, 2**62))
        self.assertEqual(State.EMPTY, judge(evolve(BUCKET, shrink_alert=0.0), 0, 2**62))
        self.assertEqual(State.FRESH, judge(BUCKET, 2**62, 1))

    def test_large_sizes(self) -> None:
        """Arithmetic is exact."""
        self.assertEqual(2**54 - 1, usual_size([2**54 - 1] * 4))
        self.assertEqual(7, usual_size([1, 6, 8, 9]))

    @trying
    @given(st.lists(st.integers(0, 2**63 - 1), max_size=9))
    def test_usual_size(self, before: list[int]) -> None:
        """The usual size is between the smallest and the largest."""
        usual = usual_size(before)
        compared = [size for size in before[:5] if size]
        if len(compared) < 3:
            self.assertIsNone(usual)
        else:
            assert usual is not None
            self.assertLessEqual(min(compared), usual)
            self.assertLessEqual(usual, max(compared))
