"""Tests of :mod:`filebucket.daemon.changes`: what is reported, once, and again."""

from __future__ import annotations

import math
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import CatalogueError
from filebucket.daemon.changes import (
    LONGEST_REPORT,
    SETTLED,
    Change,
    ProblemChanges,
    SeriesChanges,
    series_text,
)
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem, ToldProblem
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.state import State
from filebucket.test.daemon.test_alerts import (
    BUCKET,
    DAY,
    HOUR,
    NOW,
    FakeLeader,
    FakeStore,
    series,
)
from filebucket.test.kit.properties import trying
from filebucket.test.kit.server import TOKEN

FULL = Problem(Kind.FULL, WARNING, "92 % of the quota is used", "web01")
FULLER = Problem(Kind.FULL, CRITICAL, "the last push was refused", "web01")
DISK = Problem(Kind.FULL, CRITICAL, "no push can be stored: no free inodes")


class ChangesCase(SynchronousTestCase):
    """Has a store and a clock.

    :ivar again: seconds until a reminder; 0 is never
    """

    again = DAY

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.registry = Registry([evolve(BUCKET, comment="call Ulm")])
        self.start()

    def start(self) -> None:
        """Start a daemon."""

    def wall(self) -> float:
        return NOW + self.clock.seconds()

    def record(self, *changes: Change) -> None:
        """They were reported."""
        for change in changes:
            self.successResultOf(Deferred.fromCoroutine(_record(change)))


async def _record(change: Change) -> None:
    try:
        await change.record()
    except CatalogueError:
        return


class SeriesTests(ChangesCase):
    def start(self) -> None:
        self.changes = SeriesChanges(
            self.store, self.registry, self.wall, self.again, UTC
        )

    def untold(self, *silent: tuple[str, bool]) -> list[Change]:
        found = self.successResultOf(
            Deferred.fromCoroutine(self.changes.untold(silent))
        )
        return [*found]

    def test_change(self) -> None:
        self.store.put(series())
        (change,) = self.untold()
        alert = change.alert
        self.assertEqual(
            (1, ("web01", True), False), (change.id, change.share, change.reminds)
        )
        self.assertEqual(("critical", "call Ulm"), (alert.severity, alert.comment))
        self.record(change)
        self.assertEqual([], self.untold())
        self.assertEqual(NOW, self.store.series[1].told_at)

    def test_silent(self) -> None:
        self.store.put(series())
        self.assertEqual([], self.untold(("web01", True)))
        self.assertEqual(1, len(self.untold(("web01", False))))

    def test_reminder(self) -> None:
        """As long as it lasts, every day."""
        self.store.put(series())
        self.record(*self.untold())
        for day in range(1, 4):
            self.clock.advance(DAY - 1)
            self.assertEqual([], self.untold())
            self.clock.advance(1)
            (change,) = self.untold()
            self.assertTrue(change.reminds)
            alert = change.alert
            self.assertEqual(("late", "late"), (alert.old, alert.new))
            self.assertTrue(alert.again.startswith(f"2026-11-{17 + day}T"), alert.again)
            self.record(change)
        self.store.put(evolve(self.store.series[1], state=State.FRESH))
        (change,) = self.untold()
        self.assertEqual(("", "ok"), (change.alert.again, change.alert.severity))
        self.record(change)
        self.clock.advance(9 * DAY)
        self.assertEqual([], self.untold())

    def test_other_state(self) -> None:
        """This is no reminder."""
        self.store.put(series())
        self.record(*self.untold())
        self.clock.advance(2 * DAY)
        self.store.put(evolve(self.store.series[1], state=State.EMPTY))
        (change,) = self.untold()
        self.assertEqual(("late", ""), (change.alert.old, change.alert.again))

    def test_never_again(self) -> None:
        self.again = 0.0
        self.start()
        self.store.put(series())
        self.record(*self.untold())
        self.clock.advance(99 * DAY)
        self.assertEqual([], self.untold())

    def test_no_token(self) -> None:
        """Not in the texts of clients."""
        self.store.put(
            series(state="failed", failed_text=f"curl {TOKEN}", last_name=TOKEN)
        )
        (change,) = self.untold()
        self.assertNotIn(TOKEN, str(change.alert.environment("alert")))

    def test_report(self) -> None:
        """Without the line end after its last line."""
        self.store.put(series(state="failed", failed_text="dump exited with 1\nno\n"))
        (change,) = self.untold()
        self.assertEqual("dump exited with 1\nno", change.alert.failure)


class TextTests(SynchronousTestCase):
    """The sentence about a series."""

    def text(self, state: State, **given: Any) -> str:
        zone = ZoneInfo("Europe/Berlin")
        return series_text(series(state=state, **given), zone)

    def test_states(self) -> None:
        last = "last push 2026-11-17 08:20, 7 B"
        usual = f"{last}, usual size 9 B"
        for state, values, expected in (
            (State.LATE, {}, f"is late; expected by 2026-11-18 12:06, {last}"),
            (State.EMPTY, {"usual": 9}, f"is empty; {usual}"),
            (State.UNFINISHED, {}, f"has a push that never ended; {last}"),
            (State.SHRUNK, {"usual": 9}, f"has shrunk (-22 %); {usual}"),
            (State.GROWN, {"usual": 3}, f"has grown (+133 %); {last}, usual size 3 B"),
            (State.FRESH, {"told": "late"}, f"is fresh again, was late; {last}"),
            (State.FRESH, {"told": "never"}, f"has its first push; {last}"),
            (State.NEVER, {"told": "late"}, "is awaiting its first push, was late"),
            (
                State.FAILED,
                {"failed_text": "pg_dump exited with 1\n\nno \x1bdatabase\n"},
                f"has failed: pg_dump exited with 1 / no \\x1bdatabase; {last}",
            ),
            (State.FAILED, {"failed_text": "\n"}, f"has failed; {last}"),
            (
                State.LATE,
                {"failed_text": "no route\n"},
                f"is late; expected by 2026-11-18 12:06, {last}; reported: no route",
            ),
        ):
            self.assertEqual(expected, self.text(state, **values))

    def test_whole_bucket(self) -> None:
        """A report without a name: the pushes are in other series."""
        given: Any = {"name": "", "last_at": None, "last_size": None}
        self.assertEqual(
            "has failed: no disk",
            self.text(State.FAILED, failed_text="no disk", **given),
        )
        self.assertEqual(
            "has a push again, after the report of a failed backup",
            self.text(State.FRESH, told="failed", **given),
        )

    def test_unknown(self) -> None:
        text = self.text(State.LATE, last_at=None, last_size=None, due=math.inf)
        self.assertEqual("is late; expected by -, no push yet", text)

    def test_long_report(self) -> None:
        text = self.text(State.FAILED, failed_text="x" * 4000)
        self.assertLess(len(text), LONGEST_REPORT + 60)

    @trying
    @given(st.sampled_from(State), st.text(max_size=20))
    def test_one_line(self, state: State, report: str) -> None:
        text = self.text(state, failed_text=report)
        self.assertTrue(text.isprintable(), text)


class ProblemTests(ChangesCase):
    def start(self) -> None:
        self.changes = ProblemChanges(
            self.clock, self.store, self.registry, self.wall, self.again
        )

    def see(
        self, *problems: Problem, silent: tuple[str, bool] | None = None
    ) -> list[str]:
        """The changes that are reported and recorded if these problems exist."""
        self.changes.see(problems)
        left_out = [silent] if silent else []
        found = Deferred.fromCoroutine(self.changes.untold(left_out))
        changes = self.successResultOf(found)
        self.record(*changes)
        self.alerts = [each.alert for each in changes]
        return [
            f"{each.bucket} {each.old}-{each.new} {each.severity}"
            f"{' again' if each.again else ''}"
            for each in self.alerts
        ]

    def test_comes_and_goes(self) -> None:
        self.assertEqual([], self.see())
        self.clock.advance(HOUR)
        self.assertEqual(["web01 ok-full warning"], self.see(FULL))
        (alert,) = self.alerts
        self.assertEqual(
            (FULL.text, "call Ulm", "", "2026-11-18T12:06:40Z"),
            (alert.text, alert.comment, alert.series, alert.since),
        )
        self.assertEqual([], self.see(FULL))
        self.assertEqual([], self.see())
        self.clock.advance(SETTLED)
        self.assertEqual(["web01 full-ok ok"], self.see())
        self.assertEqual("no longer full", self.alerts[0].text)
        self.assertEqual({}, self.store.problems)
        self.assertEqual([], self.see())

    def test_server(self) -> None:
        self.assertEqual(["- ok-full critical"], self.see(DISK))
        self.assertEqual("", self.alerts[0].comment)
        # Another problem of the same kind.
        self.assertEqual(["web01 ok-full warning"], self.see(DISK, FULL))

    def test_before_the_first_look(self) -> None:
        """A problem that was reported does not count as gone."""
        self.see(FULL)
        self.start()
        self.clock.advance(2 * SETTLED)
        found = Deferred.fromCoroutine(self.changes.untold([]))
        self.assertEqual([], self.successResultOf(found))

    def test_grows(self) -> None:
        """Each rise is reported, and no fall."""
        self.see(FULL)
        self.assertEqual(["web01 full-full critical"], self.see(FULLER))
        self.assertEqual([], self.see(FULL))
        self.assertEqual([], self.see(FULLER))
        self.see(FULL)
        self.clock.advance(SETTLED)
        self.assertEqual([], self.see(FULL))
        self.assertEqual(["web01 full-full critical"], self.see(FULLER))

    def test_flaps(self) -> None:
        """A problem that comes and goes all the time is reported once."""
        self.see(FULL)
        for _ in range(20):
            self.clock.advance(SETTLED - 1)
            self.assertEqual([], self.see())
            self.assertEqual([], self.see(FULL))
            self.clock.advance(SETTLED - 1)

    def test_counts(self) -> None:
        """Of lost files, every further one is reported."""
        said = [
            self.see(Problem(Kind.DAMAGED, CRITICAL, f"{count}", "web01", level=count))
            for count in (1, 1, 3, 2, 3, 4)
        ]
        self.assertEqual([1, 0, 1, 0, 0, 1], list(map(len, said)))

    def test_reminder(self) -> None:
        self.see(FULL)
        self.clock.advance(DAY - 1)
        self.assertEqual([], self.see(FULL))
        self.clock.advance(1)
        self.assertEqual(["web01 full-full warning again"], self.see(FULL))
        self.assertEqual("2026-11-18T11:06:40Z", self.alerts[0].again)
        self.assertEqual("2026-11-18T11:06:40Z", self.alerts[0].since)
        self.assertEqual([], self.see(FULL))
        # It has gone, though this is not certain yet.
        self.clock.advance(DAY)
        self.assertEqual([], self.see())

    def test_restart(self) -> None:
        self.see(FULL, DISK)
        self.start()
        self.assertEqual([], self.see(FULL, DISK))
        self.start()
        self.see()
        self.clock.advance(SETTLED)
        self.assertEqual(["web01 full-ok ok", "- full-ok ok"], self.see())

    def test_without_the_catalogue(self) -> None:
        """Problems are reported, and once: the catalogue may be one of them."""
        self.store.problems[Kind.FULL, "web01", ""] = ToldProblem(
            Kind.FULL, "web01", 1, NOW, NOW
        )
        self.store.failure = CatalogueError("it is away")
        self.assertEqual(["- ok-full critical"], self.see(DISK))
        self.assertEqual([], self.see(DISK))
        self.store.failure = None
        self.assertEqual([], self.see(DISK, FULL))

    def test_removed_bucket(self) -> None:
        self.see(FULL)
        self.registry.replace(BucketIndex([]))
        self.clock.advance(SETTLED)
        self.assertEqual([], self.see())
        self.clock.advance(SETTLED)
        self.assertEqual([], self.see())

    def test_removed_before_the_next_look(self) -> None:
        """Its problems are not reported anew, and are news if it comes back."""
        self.see(FULL)
        buckets = self.registry.index
        self.registry.replace(BucketIndex([]))
        found = Deferred.fromCoroutine(self.changes.untold([]))
        self.assertEqual([], self.successResultOf(found))
        self.assertEqual({}, self.store.problems)
        self.registry.replace(buckets)
        self.start()
        self.assertEqual(["web01 ok-full warning"], self.see(FULL))

    def test_clock_of_the_future(self) -> None:
        """Reminders do not wait until the time that a wrong clock showed."""
        self.clock.advance(365 * DAY)
        self.see(FULL)
        self.clock.rightNow = DAY
        self.assertEqual(["web01 full-full warning again"], self.see(FULL))
        self.assertEqual([], self.see(FULL))
        self.clock.advance(DAY)
        self.assertEqual(["web01 full-full warning again"], self.see(FULL))

    def test_silent(self) -> None:
        self.assertEqual(
            ["- ok-full critical"], self.see(FULL, DISK, silent=("web01", False))
        )
        self.assertEqual(["web01 ok-full warning"], self.see(FULL, DISK))

    def test_every_kind(self) -> None:
        """Each has a text about its end."""
        self.see(*(Problem(kind, WARNING, "x") for kind in Kind))
        self.see()
        self.clock.advance(SETTLED)
        self.assertEqual(len(Kind), len(self.see()))


class SharedTests(ChangesCase):
    """Several daemons share the catalogue: each problem is reported by one of them."""

    OWN = Problem(Kind.FULL, CRITICAL, "b: the disk is full", node="b")
    OTHER = Problem(Kind.FULL, CRITICAL, "a: the disk is full", node="a")
    GONE = Problem(Kind.NODE, WARNING, "daemon c was last seen 2 min ago", node="c")

    def start(self) -> None:
        self.leader = FakeLeader(0)
        self.changes = ProblemChanges(
            self.clock,
            self.store,
            self.registry,
            self.wall,
            DAY,
            self.leader,
            "b",
        )

    def untold(self, *problems: Problem) -> list[Change]:
        self.changes.see(problems)
        return list(self.success(self.changes.untold(())))

    def success(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def keys(self, *problems: Problem) -> list[object]:
        return [each.id for each in self.untold(*problems)]

    def test_own(self) -> None:
        """A daemon reports its own problems, whether it leads or not."""
        own = Kind.FULL, "", "b"
        for self.leader.term in (0, 1):
            (change,) = self.untold(self.OWN)
            self.assertEqual(own, change.id)
            self.leader.confirms = False
            self.assertTrue(self.success(change.confirm()))
        self.record(change)
        self.assertEqual({own}, set(self.store.problems))
        self.assertEqual([], self.keys(self.OWN))
        self.assertEqual([], self.keys())
        self.clock.advance(SETTLED)
        (change,) = self.untold()
        self.assertEqual("b: no longer full", change.alert.text)

    def test_shared(self) -> None:
        """The problems of buckets, and of daemons that are gone, are for the daemon
        that leads.
        """
        shared = FULL, self.GONE
        self.assertEqual([], self.keys(*shared))
        self.leader.term = 3
        expected = [(Kind.FULL, "web01", ""), (Kind.NODE, "", "c")]
        self.assertEqual(expected, self.keys(*shared))
        changes = self.untold(*shared)
        self.assertEqual([True] * 2, [self.success(each.confirm()) for each in changes])
        self.leader.term = 4
        self.assertEqual(
            [False] * 2, [self.success(each.confirm()) for each in changes]
        )

    def test_others(self) -> None:
        """What another daemon has reported about itself is not over."""
        self.store.problems[Kind.FULL, "", "a"] = ToldProblem(
            Kind.FULL, "", CRITICAL, NOW, NOW, "a"
        )
        self.leader.term = 1
        self.assertEqual([], self.keys())
        self.clock.advance(SETTLED)
        self.assertEqual([], self.keys())
        self.assertEqual([], self.keys(self.OTHER))

    def test_follow(self) -> None:
        """What another daemon has reported meanwhile is known, and so is what it has
        reported to be over.
        """
        self.leader.term = 1
        self.record(*self.untold(FULL, self.GONE))
        self.leader.term = 0
        self.assertEqual([], self.keys(FULLER, self.GONE))
        # Another one leads.
        key = Kind.FULL, "web01", ""
        self.store.problems[key] = evolve(self.store.problems[key], level=CRITICAL)
        del self.store.problems[Kind.NODE, "", "c"]
        self.leader.term = 2
        self.assertEqual([(Kind.NODE, "", "c")], self.keys(FULLER, self.GONE))

    def test_back(self) -> None:
        self.leader.term = 1
        self.record(*self.untold(self.GONE))
        self.assertEqual([], self.keys())
        self.clock.advance(SETTLED)
        (change,) = self.untold()
        text = "daemon c runs with the settings of the others, or was forgotten"
        self.assertEqual(text, change.alert.text)
        self.assertEqual("ok", change.alert.new)

    def test_series(self) -> None:
        """Only the daemon that leads reports states of series, in the same term."""
        self.store.put(series())
        changes = SeriesChanges(
            self.store, self.registry, self.wall, DAY, UTC, self.leader
        )
        self.assertEqual([], self.success(changes.untold(())))
        self.leader.term = 1
        (change,) = self.success(changes.untold(()))
        self.assertTrue(self.success(change.confirm()))
        self.leader.term = 2
        self.assertFalse(self.success(change.confirm()))
