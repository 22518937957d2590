"""Alerts: each change of a state is reported once, whatever happens meanwhile."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.recorder import GATHER, Recorder
from filebucket.catalogue.writer import LOOK_EVERY
from filebucket.daemon.alerts import (
    MOST_AN_HOUR,
    MOST_RETRY,
    MOST_TOGETHER,
    RETRY,
    Alerts,
)
from filebucket.daemon.changes import SETTLED, ProblemChanges, SeriesChanges
from filebucket.hooks.interfaces import Exit
from filebucket.hooks.process import END_TIMEOUT
from filebucket.model.bucket import Bucket
from filebucket.model.problem import CRITICAL, Kind, Problem, ToldProblem
from filebucket.model.records import Series
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.schedule import Cron, Interval, Schedule, Zone
from filebucket.model.state import State
from filebucket.model.token import Token, token_digest
from filebucket.test.catalogue.test_recorder import outcome
from filebucket.test.kit.catalogue import new_home
from filebucket.test.kit.fakes import AtOnce, FakeHooks
from filebucket.test.kit.server import TOKEN

HOUR = 3600.0
DAY = 24 * HOUR
NOW = 1_795_000_000.0
BUCKET = Bucket(
    (Token(token_digest(TOKEN.encode())),),
    "web01",
    "web01",
    expect=Interval(26 * HOUR, "26h"),
)


def failed(events: Sequence[LogEvent]) -> list[LogEvent]:
    """The warnings that an alert was not delivered."""
    return [each for each in events if each.get("event") == "alert-failed"]


def series(id_: int = 1, **given: Any) -> Series:
    """A series that has become late."""
    return Series(
        **{
            "id": id_,
            "bucket": "web01",
            "name": "db-#.gz",
            "since": 0.0,
            "files": 1,
            "bytes": 7,
            "pushes": 1,
            "last_at": 1_794_900_000.0,
            "last_size": 7,
            "last_name": "db-1.gz",
            "state": "late",
            "state_at": 1_795_000_000.0,
            "due": 1_795_000_000.0,
            "usual": None,
            "told": "fresh",
            "damaged": 0,
            "missing": 0,
            **given,
        }
    )


@define
class FakeStore:
    """States to report, in memory.

    :ivar unwritable: whether only reading works
    """

    series: dict[int, Series] = field(factory=dict)
    problems: dict[tuple[Kind, str, str], ToldProblem] = field(factory=dict)
    failure: CatalogueError | None = None
    unwritable: bool = False

    async def untold(
        self, limit: int, but: Collection[tuple[str, bool]], again: float
    ) -> list[Series]:
        if self.failure is not None:
            raise self.failure
        return [
            each
            for each in self.series.values()
            if (
                each.told != each.state
                or (each.told_at is not None and each.told_at <= again)
            )
            and (each.bucket, each.state is State.LATE) not in but
        ]

    def check_writable(self) -> None:
        if self.failure is not None or self.unwritable:
            raise self.failure or CatalogueError("disk full")

    async def mark_told(self, series: Series, state: State, at: float) -> None:
        self.check_writable()
        told_at = None if state is State.FRESH else at
        before = self.series[series.id]
        if before.since == series.since:
            self.series[series.id] = evolve(before, told=state, told_at=told_at)

    async def told_problems(self) -> list[ToldProblem]:
        if self.failure is not None:
            raise self.failure
        return list(self.problems.values())

    async def mark_problem(self, told: ToldProblem) -> None:
        self.check_writable()
        key = told.kind, told.bucket, told.node
        self.problems[key] = told
        if not told.level:
            del self.problems[key]

    def put(self, *all_series: Series) -> None:
        for each in all_series:
            self.series[each.id] = each


@define
class FakeLeader:
    """Leads in a term, or not.

    :ivar confirms: whether the database would confirm it
    """

    term: int = 1
    confirms: bool = True

    async def confirm(self, term: int) -> bool:
        return self.confirms and bool(term) and term == self.term


class AlertsCase(SynchronousTestCase):
    """Has alerts over fakes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.hooks = FakeHooks()
        self.registry = Registry([BUCKET])
        self.leader = FakeLeader()
        self.start()

    def start(self, again: float = 0.0) -> None:
        """Start the alerts of a daemon.

        :param again: seconds until a reminder; 0 is never
        """
        wall = lambda: NOW + self.clock.seconds()  # noqa: E731 - shorter
        self.of_problems = ProblemChanges(
            self.clock, self.store, self.registry, wall, again, self.leader
        )
        of_series = SeriesChanges(
            self.store, self.registry, wall, again, UTC, self.leader
        )
        self.alerts = Alerts(self.clock, (of_series, self.of_problems), self.hooks)
        self.alerts.startService()

    def changes(self) -> list[tuple[str, str, str]]:
        """The reported changes: series, old and new state."""
        return [(each.series, each.old, each.new) for each in self.hooks.alerts]


class TellTests(AlertsCase):
    """Which changes are reported, and when."""

    def test_change(self) -> None:
        self.store.put(series(usual=9))
        self.alerts.look()
        (alert,) = self.hooks.alerts
        self.assertEqual(
            ("web01", "db-#.gz", "fresh", "late"),
            (alert.bucket, alert.series, alert.old, alert.new),
        )
        text = "is late; expected by 2026-11-18 11:06, last push 2026-11-17 07:20, 7 B"
        self.assertEqual(
            {
                "BUCKET": "web01",
                "SERIES": "db-#.gz",
                "OLD": "fresh",
                "NEW": "late",
                "TEXT": text,
                "TITLE": "web01: late",
                "MESSAGE": f"web01: db-#.gz {text}",
                "SEVERITY": "critical",
                "COMMENT": "",
                "AGAIN": "",
                "SINCE": "2026-11-18T11:06:40Z",
                "DUE": "2026-11-18T11:06:40Z",
                "EXPECT": "26h",
                "LAST": "2026-11-17T07:20:00Z",
                "LAST_NAME": "db-1.gz",
                "LAST_SIZE": "7",
                "USUAL_SIZE": "9",
                "FAILURE": "",
                "MORE": "",
            },
            alert.environment("alert"),
        )

    def test_nothing_known(self) -> None:
        self.store.put(
            series(name="", last_at=None, last_size=None, last_name=None, due=math.inf)
        )
        self.registry.replace(BucketIndex([evolve(BUCKET, expect=None)]))
        self.alerts.look()
        (alert,) = self.hooks.alerts
        self.assertEqual("is late; expected by -, no push yet", alert.text)
        for value in (alert.due, alert.last, alert.last_name, alert.last_size):
            self.assertEqual("", value)

    def test_not_expected(self) -> None:
        """The schedule of its bucket is for other series."""
        self.store.put(series(state=State.FRESH, due=math.inf, told=State.FAILED))
        self.alerts.look()
        (alert,) = self.hooks.alerts
        self.assertEqual(("fresh", ""), (alert.new, alert.expect))

    def test_end_of_time(self) -> None:
        self.store.put(series(due=1e14))
        self.alerts.look()
        self.assertEqual("", self.hooks.alerts[0].due)

    def test_no_token(self) -> None:
        """Neither the bucket's token, nor one that a client used as a file name."""
        self.store.put(series(bucket=f"#{'ab' * 32}", last_name=f"{TOKEN}.gz"))
        self.alerts.look()
        (alert,) = self.hooks.alerts
        self.assertEqual("#ababab", alert.bucket)
        self.assertEqual("web01.gz", alert.last_name)

    def test_failure(self) -> None:
        """The client's report, escaped."""
        text = f"pg_dump exited with 1\n\x1b[2Jat {TOKEN}\0"
        self.store.put(series(state="failed", failed_text=text))
        self.alerts.look()
        (alert,) = self.hooks.alerts
        self.assertEqual(("fresh", "failed"), (alert.old, alert.new))
        self.assertEqual("pg_dump exited with 1\n\\x1b[2Jat web01\\x00", alert.failure)

    def test_once(self) -> None:
        self.store.put(series(1), series(2, name="x"))
        for _ in range(3):
            self.alerts.look()
        self.assertEqual(
            [("db-#.gz", "fresh", "late"), ("x", "fresh", "late")], self.changes()
        )

    def test_no_hook(self) -> None:
        """Without a hook all changes count as reported."""
        self.hooks.exit = None
        self.store.put(series())
        self.alerts.look()
        self.assertEqual(State.LATE, self.store.series[1].told)

    def test_one_at_a_time(self) -> None:
        """Many alerts take one place in the hooks' queue."""
        self.hooks.gate = Deferred()
        self.store.put(series(1), series(2))
        self.alerts.look()
        self.alerts.look()
        self.assertEqual(1, len(self.hooks.alerts))
        gate, self.hooks.gate = self.hooks.gate, None
        gate.callback(None)
        self.assertEqual(2, len(self.hooks.alerts))

    def test_meanwhile(self) -> None:
        self.hooks.gate = Deferred()
        self.store.put(series(1))
        self.alerts.look()
        self.store.put(series(2, name="x"))
        self.alerts.look()
        gate, self.hooks.gate = self.hooks.gate, None
        gate.callback(None)
        self.assertEqual(["db-#.gz", "x"], [each[0] for each in self.changes()])

    def test_changed_while_told(self) -> None:
        self.hooks.gate = Deferred()
        self.store.put(series())
        self.alerts.look()
        self.store.put(evolve(self.store.series[1], state=State.FRESH))
        self.alerts.look()
        gate, self.hooks.gate = self.hooks.gate, None
        gate.callback(None)
        self.assertEqual(
            [("db-#.gz", "fresh", "late"), ("db-#.gz", "late", "fresh")],
            self.changes(),
        )


class RetryTests(AlertsCase):
    """A hook that fails."""

    def test_later_and_later(self) -> None:
        self.hooks.exit = Exit(1)
        self.store.put(series())
        self.alerts.look()
        waits = [RETRY * 2**count for count in range(6)] + [MOST_RETRY] * 3
        for count, wait in enumerate(waits, 1):
            self.assertEqual(count, len(self.hooks.alerts))
            self.clock.advance(wait - 1)
            self.alerts.look()
            self.assertEqual(count, len(self.hooks.alerts))
            self.clock.advance(1)
        self.hooks.exit = Exit(0)
        self.clock.advance(MOST_RETRY)
        self.assertEqual(State.LATE, self.store.series[1].told)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_logged(self) -> None:
        """A warning for each try, unless the daemon is shutting down."""
        with capturedLogs() as events:
            self.hooks.exit = Exit(3)
            self.store.put(series())
            self.alerts.look()
            self.clock.advance(RETRY)
            self.hooks.exit = Exit(143, stopped=True)
            self.clock.advance(2 * RETRY)
        found = failed(events)
        self.assertEqual(
            [
                "alert about bucket web01 not delivered: alert.sh exited with 3; next"
                f" try in {wait}"
                for wait in ("1 min", "2 min")
            ],
            [formatEvent(each) for each in found],
        )
        self.assertEqual({LogLevel.error}, {each["log_level"] for each in found})

    def test_others_do_not_wait(self) -> None:
        self.hooks.exit = Exit(1)
        self.store.put(series(1))
        self.alerts.look()
        self.hooks.exit = Exit(0)
        self.store.put(series(2, name="x"))
        self.alerts.look()
        self.assertEqual(State.LATE, self.store.series[2].told)
        self.assertEqual(2, len(self.hooks.alerts))

    def test_urgent_ones_do_not_wait_for_a_hook_that_hangs(self) -> None:
        """After a timeout, which may take minutes, the most urgent change is next."""
        gate = self.hooks.gate = Deferred()
        self.hooks.exit = Exit(143, timed_out=True)
        self.store.put(*(series(n, name=f"s{n}", state="shrunk") for n in range(3)))
        self.alerts.look()
        self.store.put(series(9, name="s9"))
        self.hooks.gate = None
        gate.callback(None)
        self.assertEqual(["s0", "s9", "s1", "s2"], [each[0] for each in self.changes()])
        self.clock.advance(RETRY)
        self.assertEqual("s9", self.changes()[4][0])

    def test_not_true_any_more(self) -> None:
        """A change that was reversed before it was reported is dropped."""
        self.hooks.exit = Exit(1)
        self.store.put(series())
        self.alerts.look()
        self.store.put(evolve(self.store.series[1], state=State.FRESH))
        self.clock.advance(RETRY)
        self.assertEqual(1, len(self.hooks.alerts))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_catalogue_fails(self) -> None:
        self.store.put(series())
        self.store.failure = CatalogueError("it is away")
        self.alerts.look()
        self.assertEqual([], self.hooks.alerts)
        self.store.failure = None
        self.alerts.look()
        self.assertEqual(1, len(self.hooks.alerts))

    def test_bug(self) -> None:
        """It is logged, and hides no changes that something else finds."""
        self.patch(self.of_problems, "untold", lambda silent: 1 / 0)
        self.store.put(series())
        self.alerts.look()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(State.LATE, self.store.series[1].told)


class ManyTests(AlertsCase):
    """The limit: a client can change states as often as it likes."""

    def setUp(self) -> None:
        super().setUp()
        self.hooks.exit = Exit(0)

    def flip(self, *numbers: int, bucket: str = "web01", state: str = "shrunk") -> None:
        """Let these states change."""
        for number in numbers:
            before = self.store.series.get(number)
            told = before.told if before else State.FRESH
            new = State(state) if told is State.FRESH else State.FRESH
            self.store.put(
                series(number, name=f"s{number}", bucket=bucket, state=new, told=told)
            )
        self.alerts.look()

    def told(self) -> list[str]:
        """The series reported since the last call."""
        told = [each.series for each in self.hooks.alerts]
        self.hooks.alerts.clear()
        return told

    def test_bound(self) -> None:
        """Some alerts an hour, then one with the number of the rest, as long as it goes
        on.
        """
        self.flip(*range(100))
        told = self.told()
        self.assertEqual([f"s{number}" for number in range(MOST_AN_HOUR)], told[:-1])
        self.assertEqual("(80 more)", told[-1])
        for _ in range(5):
            for _ in range(100):
                self.clock.advance(HOUR / 100)
                self.flip(*range(100))
            self.assertLessEqual(len(self.told()), MOST_AN_HOUR + 2)

    def test_what_more(self) -> None:
        """It is a normal alert of the worst of them, with their number."""
        self.flip(*range(30))
        *_, last = self.hooks.alerts
        self.assertEqual(("web01", "(10 more)"), (last.bucket, last.series))
        self.assertEqual(("fresh", "shrunk"), (last.old, last.new))
        self.assertEqual("10", last.more)
        self.assertEqual("2026-11-18T11:06:40Z", last.since)
        *singly, _ = self.hooks.alerts
        self.assertEqual({""}, {each.more for each in singly})

    def test_printable(self) -> None:
        """A name that a client chose does not change how the text is displayed."""
        self.store.put(*(series(n, name=f"s{n}\u202e") for n in range(30)))
        self.alerts.look()
        text = self.hooks.alerts[-1].text
        self.assertIn("the worst: s20\\u202e is late; ", text)

    def test_all_are_told(self) -> None:
        self.flip(*range(30))
        self.told()
        self.flip(3, 25)
        self.clock.advance(HOUR - 1)
        self.assertEqual([], self.told())
        self.clock.advance(1)
        self.assertEqual(["s3", "s25"], self.told())
        self.assertEqual(
            [], [each for each in self.store.series.values() if each.told != each.state]
        )
        self.clock.advance(HOUR)
        self.assertEqual([], self.told())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_late_first(self) -> None:
        """Late series come first, and wait for no other changes of their bucket."""
        self.store.put(*(series(n, name=f"s{n}", state="grown") for n in range(30)))
        self.store.put(series(30, name="s30"))
        self.alerts.look()
        told = self.told()
        self.assertEqual(("s30", "(10 more)"), (told[0], told[-1]))
        self.flip(31, state="late")
        self.assertEqual(["s31"], self.told())
        self.flip(*range(40, 70), state="late")
        self.assertEqual(["(12 more)"], self.told()[18:])

    def test_exactly_the_limit(self) -> None:
        """Nothing is looked for at once, again and again, if no change is left."""
        self.flip(*range(MOST_AN_HOUR))
        self.assertEqual(MOST_AN_HOUR, len(self.told()))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.flip(50)
        self.assertEqual(["(1 more)"], self.told())

    def test_retry_in_a_storm(self) -> None:
        """A retry that is due while all alerts are limited waits, and does not keep the
        processor busy.
        """
        self.hooks.refused = {"s1"}
        self.store.put(series(1, name="s1"))
        for number in range(MOST_TOGETHER + 1):
            self.store.put(series(number + 2, bucket=f"b{number}", state="grown"))
        self.alerts.look()
        self.assertEqual(["s1", "(1 more)"], [*self.told()[:: MOST_TOGETHER + 1]])
        self.hooks.refused = set()
        self.clock.advance(RETRY)
        self.assertEqual([], self.told())
        for each in self.clock.getDelayedCalls():
            self.assertGreater(each.getTime(), self.clock.seconds())
        self.clock.advance(HOUR)
        self.assertEqual(["s1"], self.told())

    def test_others(self) -> None:
        self.flip(*range(30))
        self.told()
        self.flip(50, bucket="web02")
        self.assertEqual(["s50"], self.told())

    def test_neighbors(self) -> None:
        """Some buckets with many changes do not take the alerts of all others."""
        for number in range(10):
            first = 100 * number + 100
            self.flip(*range(first, first + 30), bucket=f"b{number}")
        self.told()
        self.flip(1, state="late")
        self.assertEqual(["s1"], self.told())
        for _ in range(20):
            self.clock.advance(HOUR / 10)
            for number in range(10):
                first = 100 * number + 100
                self.flip(*range(first, first + 30), bucket=f"b{number}")
        self.told()
        self.flip(1)
        self.assertEqual(["s1"], self.told())

    def flood(self) -> None:
        """Let there be many alerts of other buckets."""
        for number in range(3):
            first = 100 * number + 100
            self.flip(*range(first, first + 20), bucket=f"b{number}")
        self.told()

    def test_retry_while_each_bucket_has_few(self) -> None:
        """It waits until the next sum, and does not keep the processor busy."""
        self.flip(2)
        self.clock.advance(HOUR - RETRY)
        self.flood()
        self.flip(3)
        self.flip(4)
        self.assertEqual(["s3", "(1 more)"], self.told())
        self.clock.advance(RETRY)
        self.hooks.refused = {"s1"}
        self.flip(1)
        self.flip(5)
        self.assertEqual(["s1", "s5"], self.told())
        self.clock.advance(RETRY)
        for each in self.clock.getDelayedCalls():
            self.assertGreater(each.getTime(), self.clock.seconds())
        self.assertEqual([], self.told())
        self.clock.advance(HOUR)
        self.alerts.look()
        self.assertEqual(["s1"], self.told())

    def test_no_hook(self) -> None:
        self.hooks.exit = None
        self.flip(*range(100))
        self.assertEqual(100, len(self.told()))
        self.hooks.exit = Exit(0)
        self.flip(*range(3))
        self.assertEqual(["s0", "s1", "s2"], self.told())

    def test_cannot_be_said(self) -> None:
        self.flip(*range(20))
        self.told()
        self.hooks.exit = Exit(1)
        with capturedLogs() as events:
            self.flip(*range(20, 30))
        self.assertEqual(1, len(failed(events)))
        self.assertEqual(["(10 more)"], self.told())
        self.clock.advance(RETRY)
        self.assertEqual(["(10 more)"], self.told())
        self.clock.advance(RETRY)
        self.assertEqual([], self.told())
        self.hooks.exit = Exit(0)
        self.clock.advance(RETRY)
        self.assertEqual(["(10 more)"], self.told())
        self.clock.advance(RETRY * 10)
        self.assertEqual([], self.told())

    def test_storm(self) -> None:
        """All backups are late at once: some alerts, and one about all others."""
        self.registry.replace(
            BucketIndex(
                [
                    evolve(
                        BUCKET,
                        name=f"b{number}",
                        directory=f"b{number}",
                        tokens=(Token(number.to_bytes(32, "big")),),
                    )
                    for number in range(300)
                ]
            )
        )
        self.store.put(
            *(
                series(10 * number + each, name=f"s{each}", bucket=f"b{number}")
                for number in range(300)
                for each in range(3)
            )
        )
        self.alerts.look()
        *singly, last = self.hooks.alerts
        self.assertEqual(MOST_TOGETHER, len(singly))
        self.assertEqual(
            ("-", "(800 more)", "800", "critical"),
            (last.bucket, last.series, last.more, last.severity),
        )
        self.assertTrue(
            last.text.startswith("has 800 more changes, the worst: b42: s0 is late; "),
            last.text,
        )
        self.assertEqual(
            [], [each for each in self.store.series.values() if each.told != each.state]
        )
        self.told()
        # All arrive again, in the same hour.
        for each in list(self.store.series.values()):
            self.store.put(evolve(each, state=State.FRESH))
        self.clock.advance(HOUR / 2)
        self.alerts.look()
        self.assertEqual([], self.told())
        self.clock.advance(HOUR / 2)
        self.assertEqual(MOST_TOGETHER + 1, len(self.told()))
        self.assertEqual([], [e for e in self.store.series.values() if e.told_at])


class UnwritableTests(AlertsCase):
    """The catalogue can be read, and not be written."""

    def test_once(self) -> None:
        """An alert is not repeated because it cannot be recorded."""
        self.store.unwritable = True
        self.store.put(series())
        for _ in range(3):
            self.alerts.look()
        self.assertEqual([("db-#.gz", "fresh", "late")], self.changes())
        self.store.put(evolve(self.store.series[1], state=State.SHRUNK))
        self.alerts.look()
        self.assertEqual(("db-#.gz", "fresh", "shrunk"), self.changes()[1])
        self.store.unwritable = False
        self.alerts.look()
        self.assertEqual(State.SHRUNK, self.store.series[1].told)
        self.assertEqual(2, len(self.hooks.alerts))

    def test_reminder(self) -> None:
        """An unwritable catalogue is itself reported again, and then its end."""
        self.alerts.stopService()
        self.start(again=DAY)
        self.store.unwritable = True
        broken = Problem(Kind.CATALOGUE, CRITICAL, "the catalogue cannot be used")
        for _ in range(49):
            self.of_problems.see([broken])
            self.alerts.look()
            self.clock.advance(HOUR)
        self.assertEqual(
            [False, True, True], [each.again != "" for each in self.hooks.alerts]
        )
        self.store.unwritable = False
        for _ in range(2):
            self.of_problems.see([])
            self.alerts.look()
            self.clock.advance(SETTLED)
        self.of_problems.see([])
        self.alerts.look()
        self.assertEqual(("", "catalogue", "ok"), self.changes()[-1])
        self.assertEqual(4, len(self.hooks.alerts))
        self.assertEqual({}, self.store.problems)


class StopTests(AlertsCase):
    """The daemon's shutdown."""

    def test_idle(self) -> None:
        self.hooks.exit = Exit(1)
        self.store.put(series())
        self.alerts.look()
        self.assertIsNone(self.alerts.stopService())
        self.alerts.look()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(1, len(self.hooks.alerts))

    def test_waits(self) -> None:
        """Only the running hook is waited for."""
        gate = self.hooks.gate = Deferred()
        self.store.put(series(1), series(2))
        self.alerts.look()
        stopped = self.alerts.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        gate.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(1, len(self.hooks.alerts))
        self.assertEqual(State.LATE, self.store.series[1].told)

    def test_within_bounds(self) -> None:
        """Even if the hook does not end."""
        self.hooks.gate = Deferred()
        self.store.put(series())
        self.alerts.look()
        stopped = self.alerts.stopService()
        assert stopped is not None
        self.clock.advance(END_TIMEOUT)
        self.successResultOf(stopped)

    def test_ended_hook(self) -> None:
        """An alert whose hook was ended is not recorded as reported."""
        self.hooks.exit = Exit(143, stopped=True)
        self.store.put(series())
        self.alerts.look()
        self.assertEqual(State.FRESH, self.store.series[1].told)


class WeeksTests(SynchronousTestCase):
    """The recorder and the alerts together, over weeks and restarts."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.clock = Clock()
        self.hooks = FakeHooks()
        self.recorder: Recorder | None = None

    def start(self, bucket: Bucket) -> None:
        """Start a daemon."""
        self.registry = Registry([bucket])
        recorder = Recorder(
            self.clock,
            lambda most: AtOnce(self.clock),
            str(self.home),
            self.registry,
            lambda catalogue, buckets, stopped: "",
            self.clock.seconds,
        )
        self.recorder, self.bucket = recorder, bucket
        wall = self.clock.seconds
        changes = SeriesChanges(recorder, self.registry, wall, 0.0, UTC)
        self.alerts = Alerts(self.clock, (changes,), self.hooks)
        recorder.on_change(self.alerts.look)
        recorder.startService()
        self.alerts.startService()

    def stop(self) -> None:
        """Stop it."""
        assert self.recorder is not None
        self.alerts.stopService()
        self.successResultOf(self.recorder.stopService())
        self.recorder = None

    def push(self, name: str, size: int = 1000) -> None:
        assert self.recorder is not None
        self.recorder.observe(outcome(name, size=size, config=self.bucket))
        self.clock.advance(GATHER)

    def wait_until(self, moment: str) -> None:
        """Let time pass, as a daemon sees it."""
        end = at(moment)
        while self.clock.seconds() < end:
            step = min(LOOK_EVERY, end - self.clock.seconds())
            self.clock.advance(step)

    def said(self) -> list[str]:
        """The changes reported since the last call."""
        said = [
            f"{moment(each.since)} {each.series or '(any)'} {each.old}-{each.new}"
            for each in self.hooks.alerts
        ]
        self.hooks.alerts.clear()
        return said

    def nightly(self) -> Bucket:
        """Half past two, Berlin time, with an hour of grace."""
        schedule = Schedule(Cron("30 2 * * *"), 3600.0, Zone("Europe/Berlin"))
        return evolve(BUCKET, expect=schedule)

    def test_weeks_in_order(self) -> None:
        """Five weeks of nightly pushes, across the end of summer time, with a restart
        every third day: only the first change is reported.
        """
        self.clock.advance(at("2026-10-05T12:00+02:00"))
        self.start(self.nightly())
        day = datetime(2026, 10, 6, 2, 31, tzinfo=BERLIN)
        for number in range(35):
            self.wait_until(day.isoformat())
            self.push(f"db-{day:%Y-%m-%d}.gz", 1000 + number)
            if number % 3 == 0:
                self.stop()
                self.start(self.nightly())
            day += timedelta(days=1)
        self.assertEqual(["10-06 02:31 db-#-#-#.gz never-fresh"], self.said())
        self.stop()

    def test_spring(self) -> None:
        """On the night without a half past two, the push is due at three."""
        self.clock.advance(at("2026-03-27T12:00+01:00"))
        self.start(self.nightly())
        self.wait_until("2026-03-28T02:31+01:00")
        self.push("db-1.gz")
        self.wait_until("2026-03-29T03:01+02:00")
        self.push("db-2.gz")
        self.wait_until("2026-03-30T02:31+02:00")
        self.assertEqual(["03-28 02:31 db-#.gz never-fresh"], self.said())
        self.wait_until("2026-03-30T03:31+02:00")
        self.assertEqual(["03-30 03:30 db-#.gz fresh-late"], self.said())
        self.stop()

    def test_spring_without_a_push(self) -> None:
        self.clock.advance(at("2026-03-28T02:31+01:00"))
        self.start(self.nightly())
        self.push("db-1.gz")
        self.said()
        self.wait_until("2026-03-29T03:59+02:00")
        self.assertEqual([], self.said())
        self.wait_until("2026-03-29T04:01+02:00")
        self.assertEqual(["03-29 04:00 db-#.gz fresh-late"], self.said())
        self.stop()

    def test_autumn_without_a_push(self) -> None:
        """The hour that occurs twice is due once, at the first."""
        self.clock.advance(at("2026-10-24T02:31+02:00"))
        self.start(self.nightly())
        self.push("db-1.gz")
        self.said()
        self.wait_until("2026-10-25T02:29+01:00")
        self.assertEqual([], self.said())
        self.wait_until("2026-10-25T02:31+01:00")
        self.assertEqual(["10-25 02:30 db-#.gz fresh-late"], self.said())
        self.stop()

    def test_stopped_for_days(self) -> None:
        """A series that became late while no daemon ran is reported at the start."""
        self.clock.advance(at("2026-11-02T02:31+01:00"))
        self.start(self.nightly())
        self.push("db-1.gz")
        self.stop()
        self.said()
        self.clock.advance(5 * 24 * HOUR)
        for _ in range(3):
            self.start(self.nightly())
            self.clock.advance(LOOK_EVERY)
            self.stop()
        self.assertEqual(["11-03 03:30 db-#.gz fresh-late"], self.said())
        self.start(self.nightly())
        self.push("db-2.gz")
        self.assertEqual(["11-07 02:32 db-#.gz late-fresh"], self.rounded())
        self.stop()

    def rounded(self) -> list[str]:
        """The reported changes, without the minutes."""
        return [re.sub(r"02:3\d", "02:32", each) for each in self.said()]

    def test_hook_fails_over_a_restart(self) -> None:
        self.clock.advance(at("2026-11-02T02:31+01:00"))
        self.start(self.nightly())
        self.push("db-1.gz")
        self.said()
        self.hooks.exit = Exit(1)
        self.wait_until("2026-11-03T03:31+01:00")
        self.assertEqual(["11-03 03:30 db-#.gz fresh-late"], self.said())
        self.stop()
        self.hooks.exit = Exit(0)
        self.start(self.nightly())
        self.assertEqual(["11-03 03:30 db-#.gz fresh-late"], self.said())
        self.stop()
        self.start(self.nightly())
        self.clock.advance(HOUR)
        self.assertEqual([], self.said())
        self.stop()

    def test_shrinks(self) -> None:
        self.clock.advance(at("2026-11-02T02:31+01:00"))
        self.start(self.nightly())
        for number, size in enumerate((1000, 1010, 990, 1005, 400, 1000)):
            self.push(f"db-{number}.gz", size)
            self.clock.advance(HOUR)
        self.assertEqual(
            ["never-fresh", "fresh-shrunk", "shrunk-fresh"],
            [each.rpartition(" ")[2] for each in self.said()],
        )
        self.stop()

    def test_clock_of_the_future(self) -> None:
        """After a push while the clock was a year ahead, late and small pushes are
        still reported once the clock is right.
        """
        self.clock.advance(at("2026-11-02T02:31+01:00"))
        self.start(self.nightly())
        for number in range(4):
            self.push(f"db-{number}.gz")
            self.clock.advance(60.0)
        self.said()
        right = self.clock.seconds()
        self.clock.rightNow = right + 366 * 24 * HOUR
        self.push("db-5.gz")
        self.stop()
        self.clock.rightNow = right
        self.start(self.nightly())
        self.push("db-6.gz", 10)
        self.assertEqual(
            ["fresh-shrunk"], [each.rpartition(" ")[2] for each in self.said()]
        )
        self.push("db-7.gz")
        self.wait_until("2026-11-03T03:31+01:00")
        self.assertEqual(
            ["shrunk-fresh", "fresh-late"],
            [each.rpartition(" ")[2] for each in self.said()],
        )
        self.stop()

    def test_clock_of_the_past(self) -> None:
        """A clock that is wrong at boot and set later causes no false report."""
        self.clock.advance(at("2026-11-02T02:31+01:00"))
        self.start(self.nightly())
        self.push("db-1.gz")
        self.stop()
        self.said()
        right = self.clock.seconds()
        self.clock.rightNow = 1_000_000.0
        self.start(self.nightly())
        self.clock.pump([LOOK_EVERY] * 30)
        self.clock.rightNow = right + 30 * LOOK_EVERY
        self.clock.pump([LOOK_EVERY] * 3)
        self.assertEqual([], self.said())
        self.wait_until("2026-11-03T03:31+01:00")
        self.assertEqual(["11-03 03:30 db-#.gz fresh-late"], self.said())
        self.stop()

    def test_never_came(self) -> None:
        """An expected bucket without any push becomes late, and that is reported once;
        with patterns, once for each.
        """
        self.clock.advance(at("2026-11-02T12:00+01:00"))
        self.start(evolve(self.nightly(), series=("db-*", "files-*")))
        self.wait_until("2026-11-05T12:00+01:00")
        self.push("db-1.gz")
        self.push("other.txt")
        self.wait_until("2026-11-05T13:00+01:00")
        self.assertEqual(
            [
                "11-03 03:30 db-* never-late",
                "11-03 03:30 files-* never-late",
                "11-05 12:00 db-* late-fresh",
            ],
            self.said(),
        )
        self.stop()

    def test_made_up_series(self) -> None:
        """The number of series that a client can create with an alert for each is
        limited.
        """
        self.clock.advance(at("2026-11-02T12:00+01:00"))
        self.start(self.nightly())
        names = [
            f"{chr(97 + number % 26) * (number // 26 + 1)}" for number in range(130)
        ]
        for count in range(4):
            for name in names:
                self.recorder_of().observe(
                    outcome(
                        f"{name}-{count}",
                        size=10 if count == 3 else 1000,
                        config=self.bucket,
                    )
                )
            self.clock.advance(GATHER)
        said = [each.rpartition(" ")[2] for each in self.said()]
        self.assertEqual(100, said.count("fresh-shrunk"))
        self.assertLessEqual(len(said), 101)
        self.stop()

    def recorder_of(self) -> Recorder:
        assert self.recorder is not None
        return self.recorder

    def test_what_nobody_expects(self) -> None:
        self.clock.advance(at("2026-11-02T12:00+01:00"))
        self.start(evolve(BUCKET, expect=None))
        self.push("db-1.gz")
        self.clock.pump([24 * HOUR] * 60)
        self.assertEqual([], self.said())
        self.stop()

    def test_bucket_is_taken_away(self) -> None:
        """Nothing is reported of a removed bucket; when it is back, its schedule counts
        from its last push.
        """
        self.clock.advance(at("2026-11-02T12:00+01:00"))
        self.start(self.nightly())
        self.push("db-1.gz")
        self.said()
        assert self.recorder is not None
        self.registry.replace(BucketIndex([]))
        self.clock.pump([24 * HOUR] * 3)
        self.assertEqual([], self.said())
        self.registry.replace(BucketIndex([self.nightly()]))
        self.clock.pump([0, 0])
        self.assertEqual(["11-03 03:30 db-#.gz fresh-late"], self.said())
        self.stop()


BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def moment(text: str) -> str:
    """The time of day in Berlin."""
    return f"{datetime.fromisoformat(text).astimezone(BERLIN):%m-%d %H:%M}"


class LeaderTests(AlertsCase):
    """Several daemons share the catalogue."""

    def test_does_not_lead(self) -> None:
        self.leader.term = 0
        self.store.put(series())
        self.alerts.look()
        self.assertEqual([], self.changes())
        self.leader.term = 1
        self.alerts.look()
        self.assertEqual([("db-#.gz", "fresh", "late")], self.changes())

    def test_does_not_lead_any_more(self) -> None:
        """It learns that only from the database; the next leader reports the rest."""
        gate = self.hooks.gate = Deferred()
        self.store.put(series(1), series(2))
        self.alerts.look()
        self.leader.confirms = False
        gate.callback(None)
        self.assertEqual(1, len(self.hooks.alerts))
        told = [each.told for each in self.store.series.values()]
        self.assertEqual([State.LATE, State.FRESH], told)

    def test_leads_again(self) -> None:
        """What it read before another daemon led is out of date."""
        gate = self.hooks.gate = Deferred()
        self.store.put(series(1), series(2))
        self.alerts.look()
        self.leader.term = 2
        self.store.put(evolve(self.store.series[2], told=State.LATE))
        gate.callback(None)
        self.assertEqual(1, len(self.hooks.alerts))

    def test_sum(self) -> None:
        """The alert that sums up the rest needs it, too."""
        self.hooks.exit = Exit(0)
        more = (series(number, name=f"s{number}") for number in range(2, 40))
        self.store.put(*more)
        gate = self.hooks.gate = Deferred()
        self.alerts.look()
        # While the last one before the sum runs.
        for _ in range(MOST_AN_HOUR - 1):
            last, self.hooks.gate = gate, Deferred()
            gate = self.hooks.gate
            last.callback(None)
        self.assertEqual(MOST_AN_HOUR, len(self.hooks.alerts))
        self.leader.confirms = False
        gate.callback(None)
        self.assertEqual(MOST_AN_HOUR, len(self.hooks.alerts))
