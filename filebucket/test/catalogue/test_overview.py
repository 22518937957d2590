"""Tests of :mod:`filebucket.catalogue.overview`."""

from __future__ import annotations

import math
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.copies import Copies
from filebucket.catalogue.files import Files
from filebucket.catalogue.overview import (
    Known,
    Overview,
    find_problems,
    forecast,
    make_overview,
)
from filebucket.model.bucket import Pause
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem, lost_files
from filebucket.model.records import Drill, Failed, HookRun, Received, Refused, Space
from filebucket.model.state import State
from filebucket.model.token import Token, token_digest
from filebucket.test.catalogue.test_view import HOUR, ManySeriesCase
from filebucket.test.catalogue.test_view import NOW as THEN
from filebucket.test.kit.catalogue import on_both, opened
from filebucket.test.kit.overviews import DAY, LATE, bucket, never, series


class StateTests(SynchronousTestCase):
    """The state of a series, and of a bucket."""

    def test_conditions(self) -> None:
        """The state and the lost files, or only those."""
        for expected, found in (
            ([("fresh", 0)], series()),
            ([("damaged", 2), ("missing", 1)], series(damaged=2, missing=1)),
            ([("late", 0), ("missing", 1)], series(missing=1, **LATE)),
        ):
            self.assertEqual(expected, found.conditions)

    def test_severity(self) -> None:
        """A bucket has the severity of its worst series."""
        for severity, one in (
            (0, series()),
            (0, series(due=math.inf)),
            (1, series(state=State.SHRUNK)),
            (1, series(state=State.GROWN)),
            (1, never()),
            (2, series(state=State.FAILED)),
            (2, series(state=State.EMPTY)),
            (2, series(**LATE)),
            (2, series(damaged=1)),
            (2, series(state=State.GROWN, missing=1)),
        ):
            alone = bucket("a", one)
            self.assertEqual(severity, alone.severity)
            beside = bucket("a", series(), one)
            self.assertEqual(severity, beside.severity)
            self.assertEqual(severity, beside.severity_of(one))
            self.assertEqual(0, beside.severity_of(beside.series[0]))
        pause = Pause(THEN + DAY, "a move")
        for given in ({"expect": None}, {"paused": pause}, {"retired": True}):
            unexpected = bucket("a", never(), **given)
            self.assertFalse(unexpected.awaited)
            self.assertEqual(0, unexpected.severity)
            self.assertEqual(0, unexpected.severity_of(unexpected.series[0]))
        self.assertTrue(bucket("a").awaited)


class ForecastTests(SynchronousTestCase):
    """The forecast of the free space."""

    def check(self, expected: float | None, *looks: tuple[float, int, int]) -> None:
        """The forecast from samples: days, free space and total."""
        space = [Space(days * DAY, free, total) for days, free, total in looks]
        self.assertEqual(expected, forecast(space))

    def test_line(self) -> None:
        """A linear trend continues."""
        self.check(5 * DAY, (0, 50, 100), (1, 40, 100), (2, 30, 100))

    def test_not_less(self) -> None:
        """No downward trend."""
        self.check(None, (0, 50, 100), (1, 50, 100), (2, 50, 100))
        self.check(None, (0, 50, 100), (1, 60, 100), (2, 70, 100))

    def test_too_few(self) -> None:
        """Or in too short a time."""
        self.check(None)
        self.check(None, (0, 50, 100), (1, 40, 100))
        self.check(None, (0, 50, 100), (0.5, 40, 100), (0.9, 30, 100))

    def test_grown(self) -> None:
        """Samples from before the disk grew do not count."""
        self.check(None, (0, 50, 100), (1, 140, 200), (2, 130, 200))
        small = ((0, 9, 100), (1, 9, 100))
        self.check(7 * DAY, *small, (2, 50, 200), (3, 40, 200), (4, 30, 200))

    def test_reserved(self) -> None:
        """Pushes may not use all of the free space."""
        looks = [Space(days * DAY, 50 - 10 * days, 100) for days in range(3)]
        self.assertEqual(4 * DAY, forecast(looks, reserved=10))
        self.assertEqual(2 * DAY, forecast(looks, reserved=40))


@on_both
class OverviewTests(ManySeriesCase):
    """The catalogue by buckets."""

    def look(self, **known: Any) -> Overview:
        facts = Known(self.buckets, THEN, **known)
        found = make_overview(self.view, facts)
        # The short way finds the same problems.
        problems = [*found.problems]
        for each in found.buckets:
            problems += each.problems
        self.assertEqual(set(problems), set(find_problems(self.view, facts)))
        return found

    def refuse(self, bucket: int, at: float, status: int, reason: str) -> None:
        key = self.buckets[bucket].key
        refused = Refused(key, at, "x", 9, status, reason, "c", "r")
        self.journal.record([], [refused], lambda key: None)

    def test_problems(self) -> None:
        """Those that were passed in go to their bucket, or to the server."""
        key = self.buckets[1].key
        ending = Problem(Kind.TOKEN, WARNING, "it ends", key)
        down = Problem(Kind.DAEMON, CRITICAL, "it is down")
        stale = Problem(Kind.RELOAD, WARNING, "it is stale")
        found = self.look(problems=[stale, ending, down])
        self.assertEqual((down, stale), found.problems)
        self.assertEqual((ending,), found.buckets[1].problems)
        self.assertEqual(1, found.buckets[1].severity)

    def test_lost(self) -> None:
        """All lost files of a bucket are one problem of each kind."""
        many, *_ = self.look().buckets
        expected = lost_files(many.bucket, many.damaged, many.missing)
        self.assertTrue(expected)
        self.assertEqual(tuple(expected), many.problems)

    def test_full(self) -> None:
        """A bucket is full until a push arrives again."""
        _, few, _ = self.buckets
        self.refuse(1, THEN - HOUR - 1, 507, "before the last push")
        self.refuse(1, THEN - 2, 403, "another reason")
        self.assertEqual((), self.look().buckets[1].problems)
        self.refuse(1, THEN - 1, 507, "the quota is used up")
        full = Problem(
            Kind.FULL,
            CRITICAL,
            "the last push was refused: the quota is used up",
            few.key,
        )
        found = self.look().buckets[1]
        self.assertEqual(((full,), 2), (found.problems, found.severity))
        received = Received(few.key, "a", "b", 7, "ab", THEN)
        self.journal.record([received], [], {few.key: few}.get)
        self.assertEqual((), self.look().buckets[1].problems)

    def test_copies(self) -> None:
        """Each belongs to its bucket."""
        _, few, _ = self.buckets
        copies = opened(self, Copies, self.home)
        copies.copied("https://far", few.key, 1.0, 2.0, "no")
        copies.copied("https://far", "gone", 1.0, 2.0, "no")
        _, found, _ = self.look().buckets
        (copy,) = found.copies
        self.assertEqual(("https://far", 1.0), (copy.target, copy.until))
        self.assertEqual([Kind.COPY], [each.kind for each in found.problems])

    def test_hooks(self) -> None:
        """Hooks that fail, also for the whole server, but not for a removed bucket."""
        self.journal.note_hooks(
            [
                HookRun("post-push", "gone", THEN, "exit status 1"),
                HookRun("post-push", self.buckets[1].key, THEN, "exit status 2"),
                HookRun("alert", "", THEN, "exit status 3"),
            ]
        )
        (problem,) = self.look().problems
        label = self.buckets[1].label
        self.assertEqual(
            "the alert hook fails: exit status 3;"
            f" the post-push hook fails for {label}: exit status 2",
            problem.text,
        )
        # No push would ever show that it works again.
        self.buckets[1] = evolve(self.buckets[1], retired=True)
        (problem,) = self.look().problems
        self.assertEqual("the alert hook fails: exit status 3", problem.text)

    def test_disk(self) -> None:
        """The disk is full when no more than the reserve is left."""
        for at in (0, 1, 2):
            self.journal.note_space(Space(THEN - (2 - at) * DAY, 50 - 10 * at, 100))
        disk = Filesystem(total=100, free=30, reserved=10, read_only=False)
        found = self.look(disk=disk)
        self.assertEqual(THEN + 2 * DAY, found.full_at)
        text = "the disk is full in about 2 days at this rate"
        self.assertEqual((Problem(Kind.FULL, WARNING, text),), found.problems)
        # The last sample may be an hour old.
        later = self.look(disk=evolve(disk, free=5)).space
        self.assertEqual(Space(THEN, 5, 100), later)
        # Without the disk, its reserve is not known.
        without = self.look()
        self.assertEqual((THEN + 3 * DAY, ()), (without.full_at, without.problems))

    def test_failed(self) -> None:
        """The client's report, with tokens masked."""
        few = evolve(self.buckets[1], tokens=(Token(token_digest(b"x" * 32)),))
        failed = Failed("few", "x", THEN - 60, f"no route to {'x' * 32}")
        self.journal.fail([failed], {"few": few}.get, THEN)
        buckets = [self.buckets[0], few, self.buckets[2]]
        _, found, _ = make_overview(self.view, Known(buckets, THEN)).buckets
        self.assertEqual((State.FAILED, 2), (found.state, found.severity))
        self.assertEqual("no route to few", found.series[0].failed_text)

    def test_overview(self) -> None:
        """Some series are shown, all are counted."""
        many, few, none = make_overview(self.view, Known(self.buckets, THEN)).buckets
        self.assertEqual((20, 43), (len(many.series), many.more))
        self.assertEqual((State.LATE, 2, 249), (many.state, many.severity, many.files))
        self.assertEqual("lost", many.series[0].name)
        self.assertEqual(
            {State.LATE: 30, State.FRESH: 31, State.SHRUNK: 1, State.GROWN: 1},
            dict(many.states),
        )
        self.assertEqual(4, len(many.series[1].sizes))
        self.assertEqual((State.FRESH, 0, 1), (few.state, few.more, few.files))
        self.assertEqual(THEN - HOUR, few.last_at)
        self.assertEqual((State.NEVER, None), (none.state, none.last_at))
        self.assertEqual("", none.series[0].name)

    def test_queries(self) -> None:
        """Not a query for each bucket, nor for each series."""
        queries = []
        ask = self.view._ask

        def count(query: str, *values: Any) -> list[Any]:
            queries.append(query)
            return ask(query, *values)

        self.patch(self.view, "_ask", count)
        make_overview(self.view, Known(self.buckets[1:2], THEN), most_series=1)
        one = [*queries]
        make_overview(self.view, Known(self.buckets, THEN))
        self.assertEqual(one, queries[len(one) :])

    def test_last_client(self) -> None:
        """The client of the last push of a series."""
        pushes = [
            Received("few", "x", f"x{hours}", 1, "", THEN - hours * HOUR, client=client)
            for hours, client in ((0.5, "[::1]:9"), (2.0, "192.0.2.1:9"))
        ]
        by_key = {each.key: each for each in self.buckets}
        self.journal.record(pushes, [], by_key.get)
        _, few, none = make_overview(self.view, Known(self.buckets, THEN)).buckets
        clients = {each.name: each.last_client for each in few.series}
        self.assertEqual("[::1]:9", clients["x"])
        self.assertIsNone(none.series[0].last_client)
        # status shows no sizes, and asks for none.
        _, few, _ = make_overview(self.view, Known(self.buckets, THEN), 0).buckets
        self.assertEqual({None}, {each.last_client for each in few.series})

    def test_paused(self) -> None:
        """Nothing is late, also before the daemon has read of the pause."""
        pause = Pause(THEN + DAY, "a move")
        buckets = [evolve(each, comment="Ulm", paused=pause) for each in self.buckets]
        many, _, none = make_overview(self.view, Known(buckets, THEN)).buckets
        self.assertEqual(
            ("Ulm", pause, False), (many.comment, many.paused, many.retired)
        )
        # A file is missing.
        self.assertEqual((State.SHRUNK, 2), (many.state, many.severity))
        self.assertEqual(
            {State.FRESH: 61, State.SHRUNK: 1, State.GROWN: 1}, dict(many.states)
        )
        self.assertNotIn(State.LATE, {each.state for each in many.series})
        self.assertEqual((State.NEVER, 0), (none.state, none.severity))
        self.assertEqual(pause.until, many.due)
        over = make_overview(self.view, Known(buckets, THEN + DAY)).buckets[0]
        self.assertEqual((None, State.LATE), (over.paused, over.state))

    def test_retired(self) -> None:
        """Only losses count."""
        failed = Failed("few", "x", THEN - 60, "exited with 1")
        self.journal.fail([failed], {"few": self.buckets[1]}.get, THEN)
        buckets = [evolve(each, retired=True) for each in self.buckets]
        many, few, none = make_overview(self.view, Known(buckets, THEN)).buckets
        self.assertEqual(
            (True, State.FRESH, 2), (many.retired, many.state, many.severity)
        )
        self.assertEqual({None}, {each.failed_text for each in few.series})
        self.assertEqual({State.FRESH: 63}, dict(many.states))
        self.assertEqual(
            {(State.FRESH, math.inf)}, {(each.state, each.due) for each in many.series}
        )
        self.assertEqual((State.FRESH, 0), (few.state, few.severity))
        self.assertEqual((State.NEVER, 0), (none.state, none.severity))

    def drill(self, at: float, error: str | None) -> None:
        files = opened(self, Files, self.home)
        file = files.named("few", "x1")
        assert file is not None
        self.assertTrue(files.drilled(Drill(file, at, error)))

    def test_drills(self) -> None:
        """Restore tests, with tokens masked: due with the key, failed without it."""
        few = self.buckets[1]
        self.assertEqual(math.inf, self.look().buckets[1].drill_due)
        self.buckets[1] = evolve(few, drill=DAY)
        self.drill(THEN - 2 * DAY, None)
        for drill, severity in ((DAY, 2), (3 * DAY, 0)):
            self.buckets[1] = evolve(few, drill=drill)
            found = self.look().buckets[1]
            self.assertEqual(severity, found.severity)
            self.assertEqual(severity // 2, len(found.problems))
            self.assertEqual(THEN - 2 * DAY, found.restored_at)
            self.assertEqual(THEN - 2 * DAY + drill, found.drill_due)
        self.drill(THEN - 60, "no")
        self.buckets[1] = few
        found = self.look().buckets[1]
        (problem,) = found.problems
        self.assertEqual((Kind.DRILL, 2), (problem.kind, found.severity))
        self.assertEqual(THEN - 2 * DAY, found.restored_at)
        self.assertEqual("x1", found.series[0].drilled_name)
