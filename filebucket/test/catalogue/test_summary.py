"""Tests of :mod:`filebucket.catalogue.summary`."""

from __future__ import annotations

import math
from collections import Counter

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.overview import (
    BucketOverview,
)
from filebucket.catalogue.summary import (
    Trouble,
    summarize,
    summarize_briefly,
    troubles,
)
from filebucket.model.bucket import Pause
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.model.state import State
from filebucket.test.kit.overviews import (
    DAY,
    LATE,
    NOW,
    bucket,
    never,
    overview,
    series,
)


class SummaryCase(SynchronousTestCase):
    def check(
        self,
        severity: int,
        headline: str,
        *buckets: BucketOverview,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        shown = overview(*buckets, problems=problems)
        found = summarize(shown)
        self.assertEqual((severity, headline), (found.severity, found.headline))
        # Otherwise the page and the command could differ.
        self.assertEqual(severity, shown.severity)


class SummaryTests(SummaryCase):
    """The summary as a sentence."""

    def test_none(self) -> None:
        self.check(0, "There are no buckets yet")

    def test_in_order(self) -> None:
        self.check(0, "Every backup arrived", bucket("a", series()))

    def test_nothing_is_expected(self) -> None:
        silent = bucket("a", series(due=math.inf), expect=None)
        self.check(0, "No problems found", silent, bucket("b", expect=None))

    def test_briefly(self) -> None:
        """Problems of the server are counted, unless there is nothing else."""
        down = Problem(Kind.DAEMON, CRITICAL, "the daemon does not run: no push")
        late = bucket("a", series(**LATE))
        for buckets, headline in (
            ([], "The daemon does not run: no push"),
            ([late], "The server has 1 problem and 1 backup is late"),
        ):
            found = summarize_briefly(overview(*buckets, problems=(down,)))
            self.assertEqual((2, headline), (found.severity, found.headline))

    def test_something_is_expected(self) -> None:
        silent = bucket("a", series(due=math.inf), expect=None)
        found = summarize(overview(silent, bucket("b", series())))
        self.assertEqual("Every expected backup arrived", found.headline)
        self.assertEqual("1 bucket has no schedule.", found.more)

    def test_paused_and_retired(self) -> None:
        """Neither is expected now."""
        paused = bucket("a", never(), paused=Pause(NOW + DAY, "a move"))
        retired = bucket("b", series(), retired=True)
        plain = bucket("c", series(), expect=None)
        for buckets, headline, more in (
            ([paused, bucket("d", series())], "Every expected backup arrived", ""),
            ([retired, bucket("d", series())], "Every backup arrived", ""),
            ([paused, retired, plain], "Every expected", "1 bucket has no schedule."),
            (
                [retired, plain],
                "No problems found",
                "No bucket has an expect schedule, so late backups cannot be detected.",
            ),
            ([retired], "No problems found", "All buckets are retired."),
        ):
            found = summarize(overview(*buckets))
            self.assertEqual(0, found.severity)
            self.assertEqual(headline, found.headline[: len(headline)])
            self.assertEqual(more, found.more)
        lost = bucket("b", series(damaged=1), retired=True)
        self.check(2, "1 file is damaged", lost, bucket("d", series()))

    def test_late(self) -> None:
        self.check(2, "1 backup is late", bucket("a", series(**LATE), series("b")))

    def test_many(self) -> None:
        late = bucket("a", series(**LATE), series("b", **LATE))
        lost = bucket("b", series(damaged=1, missing=2))
        odd = bucket("c", series(state=State.SHRUNK), series("d", State.GROWN))
        self.check(
            2,
            "2 backups are late, 1 file is damaged and 2 files are missing",
            odd,
            late,
            lost,
            bucket("d", never()),
        )
        found = summarize(overview(odd, late, lost, bucket("d", never())))
        self.assertEqual(
            "1 backup has shrunk, 1 backup has grown and 1 backup is awaiting its first"
            " push.",
            found.more,
        )

    def test_empty(self) -> None:
        """An empty backup counts like a missing one."""
        self.check(2, "1 backup failed", bucket("a", series(state=State.FAILED)))
        self.check(2, "1 backup is empty", bucket("a", series(state=State.EMPTY)))

    def test_odd(self) -> None:
        self.check(1, "1 backup has grown", bucket("a", series(state=State.GROWN)))

    def test_waiting(self) -> None:
        self.check(1, "1 backup is awaiting its first push", bucket("a", never()))
        self.check(1, "1 backup is awaiting its first push", bucket("a"))

    def test_those_not_shown(self) -> None:
        states = Counter({State.LATE: 40})
        crowded = bucket("a", series(**LATE), more=39, states=states)
        self.check(2, "40 backups are late", crowded)


FULL = Problem(Kind.FULL, CRITICAL, "the last push was refused: no", "c")
NEARLY = Problem(Kind.FULL, WARNING, "92 % of the quota of 10 B is used", "b")
NOT_COPIED = Problem(Kind.COPY, CRITICAL, "files are not copied", "k")
ENDING = Problem(Kind.TOKEN, WARNING, "its last token expires tomorrow", "b")


class ProblemTests(SummaryCase):
    """Problems of buckets and of the server are counted with the states."""

    def test_server(self) -> None:
        down = Problem(Kind.DAEMON, CRITICAL, "the daemon does not run")
        self.check(2, "The daemon does not run", problems=(down,))
        self.check(
            2,
            "The daemon does not run and 1 backup is late",
            bucket("a", series(**LATE)),
            problems=(down,),
        )
        full = Problem(Kind.FULL, WARNING, "the disk is full in about 2 days")
        self.check(
            1,
            "The disk is full in about 2 days and 1 bucket is nearly full",
            bucket("a", series(), problems=(NEARLY,)),
            problems=(full,),
        )

    def test_bucket(self) -> None:
        for problem, severity, text in (
            (NOT_COPIED, 2, "1 bucket is not copied"),
            (evolve(NOT_COPIED, severity=1), 1, "1 bucket could not be copied"),
        ):
            self.check(severity, text, bucket("a", series(), problems=(problem,)))
        self.check(2, "1 bucket is full", bucket("a", series(), problems=(FULL,)))
        self.check(
            1,
            "1 bucket has a token that expires soon",
            bucket("a", series(), problems=(ENDING,)),
        )


class TroublesTests(SynchronousTestCase):
    """The buckets with each problem."""

    def test_of_buckets(self) -> None:
        """A bucket has one state, its worst, and is named for each kind of loss."""
        found = troubles(
            overview(
                bucket("a", series(state=State.SHRUNK), series(**LATE)),
                bucket("b", series(damaged=3, missing=1), problems=(NEARLY,)),
                bucket("c", series(), problems=(FULL,)),
                bucket("d", never()),
                bucket("e", expect=None),
                bucket("f", series(state=State.GROWN), problems=(NEARLY, ENDING)),
                bucket("g"),
                bucket("h", series(state=State.EMPTY), series(state=State.SHRUNK)),
                bucket("i", series(state=State.UNFINISHED)),
                bucket("j", series(state=State.FAILED)),
                bucket("k", series(), problems=(NOT_COPIED,)),
            )
        )
        self.assertEqual(
            [
                Trouble("late", 2, 1, ["a"]),
                Trouble("failed", 2, 1, ["j"]),
                Trouble("damaged", 2, 3, ["b"]),
                Trouble("missing", 2, 1, ["b"]),
                Trouble("empty", 2, 1, ["h"]),
                Trouble("full", 2, 1, ["c"]),
                Trouble("token", 2, 0, []),
                Trouble("copy", 2, 1, ["k"]),
                Trouble("drill", 2, 0, []),
                Trouble("full", 1, 2, ["b", "f"]),
                Trouble("token", 1, 1, ["f"]),
                Trouble("copy", 1, 0, []),
                Trouble("unfinished", 1, 1, ["i"]),
                Trouble("shrunk", 1, 2, []),
                Trouble("grown", 1, 1, ["f"]),
                Trouble("never", 1, 2, ["d", "g"]),
            ],
            list(found),
        )
