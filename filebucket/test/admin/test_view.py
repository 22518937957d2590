"""The content of the page."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.admin.view import MOST_ROWS, WORDS, most_series, sparkline, view
from filebucket.catalogue.overview import SIZES
from filebucket.model.node import NodeReport
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.model.records import Copy, Space
from filebucket.model.state import State
from filebucket.test.kit.overviews import (
    DAY,
    GIB,
    HOUR,
    LATE,
    NOW,
    bucket,
    never,
    node,
    overview,
    series,
)

BERLIN = ZoneInfo("Europe/Berlin")


class ViewTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        """The page has the severity of its worst bucket."""
        for kind, icon, found in (
            ("none", "ok", overview()),
            ("ok", "ok", overview(bucket("a", series()))),
            ("look", "look", overview(bucket("a", never()))),
            ("bad", "bad", overview(bucket("a", never()), bucket("b", series(**LATE)))),
        ):
            shown = view(found, UTC)
            self.assertEqual((kind, icon), (shown.kind, shown.icon))

    def test_words(self) -> None:
        self.assertLessEqual({each.value for each in State}, set(WORDS))

    def test_time_of_day(self) -> None:
        shown = view(overview(), BERLIN)
        self.assertEqual(
            ("10:00:00", "CET", "CET, UTC+01:00"),
            (shown.clock and shown.clock.text, shown.zone, shown.zone_text),
        )

    def test_beyond_all_calendars(self) -> None:
        """With a clock that is out of range, only the times are missing."""
        shown = view(evolve(overview(bucket("a", never())), at=1e18), UTC)
        self.assertEqual((None, "", ""), (shown.clock, shown.zone, shown.zone_text))
        self.assertEqual(1, len(shown.troubled))

    def test_last_push(self) -> None:
        """The latest of all buckets that had a push."""
        shown = view(
            overview(
                bucket("a", series(last_at=NOW - DAY)),
                bucket("b", series(last_at=NOW - 60)),
                bucket("c", never()),
            ),
            UTC,
        )
        self.assertEqual("b", shown.figures.last_bucket)
        self.assertEqual("1 min ago", shown.figures.last.text)
        shown = view(overview(bucket("c", never())), UTC)
        self.assertEqual(
            ("never", "", ""),
            (
                shown.figures.last.text,
                shown.figures.last.iso,
                shown.figures.last_bucket,
            ),
        )

    def test_nodes(self) -> None:
        """The daemons that share the catalogue, with their problems as a color."""
        other = NodeReport("1.3\n", {"buckets": "ef"})
        nodes = node("a"), node("b", report=other), node("c", HOUR)
        gone = Problem(Kind.NODE, WARNING, "c is gone", node="c")
        found = view(overview(nodes=nodes, problems=(gone,)), UTC).nodes
        self.assertEqual(
            [
                ("ok", "a", "leads", "1.2", "just now", ""),
                ("ok", "b", "runs", "1.3\\x0a", "just now", "buckets"),
                ("look", "c", "gone", "1.2", "1 h ago", ""),
            ],
            [
                (
                    *(each.kind, each.name, each.state, each.version),
                    *(each.seen.text, each.differs),
                )
                for each in found
            ],
        )

    def test_space(self) -> None:
        """The bar stays in its bounds for all values."""
        for free, total, percent in (
            (25, 100, "75.0"),
            (0, 100, "100.0"),
            (200, 100, "0.0"),
            (0, 0, "100.0"),
        ):
            shown = view(overview(space=Space(NOW, free, total)), UTC).space
            assert shown is not None
            self.assertEqual(percent, shown.used.percent)
            self.assertEqual("Free space", shown.title)
        remote = evolve(overview(space=Space(NOW, 25, 100)), has_objects=True)
        shown = view(remote, UTC).space
        assert shown is not None
        self.assertEqual("Free space in home", shown.title)

    def test_quota(self) -> None:
        nearly = Problem(Kind.FULL, WARNING, "93 % of the quota is used")
        full = Problem(Kind.FULL, CRITICAL, "the last push was refused: full")
        for quota, problems, percent, kind, texts in (
            (28 * GIB, (), "50.0", "", []),
            (14 * GIB + 1, (nearly,), "100.0", "look", []),
            (7 * GIB, (full,), "100.0", "bad", ["The last push was refused: full"]),
        ):
            found = bucket("a", series(), quota=quota, problems=problems)
            page = view(overview(found), UTC)
            (shown,) = (*page.troubled, *page.calm)
            assert shown.quota is not None
            self.assertEqual((percent, kind), (shown.quota.percent, shown.quota.kind))
            self.assertEqual(texts, [each.text for each in shown.problems])

    def test_copies(self) -> None:
        copies = (
            Copy("https://a", "a", NOW - 7200, NOW),
            Copy("https://b\x1b", "a", None, NOW, "no"),
        )
        page = view(overview(bucket("a", series(), copies=copies)), UTC)
        (shown,) = (*page.troubled, *page.calm)
        self.assertEqual(
            [("2 h ago", "https://a"), ("not yet", "https://b\\x1b")],
            [(until.text, target) for until, target in shown.copies],
        )

    def test_problems(self) -> None:
        """The headline counts the server's problems, or is the only one."""
        one = Problem(Kind.CATALOGUE, CRITICAL, "the catalogue cannot be written")
        two = Problem(Kind.RELOAD, WARNING, "a reload is due")
        late = bucket("a", series(**LATE))
        for buckets, problems, headline, more, texts in (
            ((), (one,), "The catalogue cannot be written", "", []),
            (
                (late,),
                (one, two),
                "The server has 2 problems and 1 backup is late",
                "",
                ["The catalogue cannot be written", "A reload is due"],
            ),
            (
                (late,),
                (two,),
                "1 backup is late",
                "The server has 1 problem.",
                ["A reload is due"],
            ),
        ):
            shown = view(overview(*buckets, problems=problems), UTC)
            self.assertEqual(
                (headline, more, texts),
                (shown.headline, shown.more, [each.text for each in shown.problems]),
            )
            self.assertEqual("bad", shown.kind)

    def test_retired(self) -> None:
        """Retired buckets come last, except those that need attention."""
        shown = view(
            overview(
                bucket("a", series(), retired=True),
                bucket("b", series(damaged=1), retired=True),
                bucket("c", series()),
            ),
            UTC,
        )
        self.assertEqual(
            [["b"], ["c"], ["a"]],
            [
                [each.label for each in some]
                for some in (shown.troubled, shown.calm, shown.retired)
            ],
        )

    def test_report(self) -> None:
        failed: Any = {"state": State.FAILED, "failed_at": NOW - 60}
        for text, first, rest in (
            (None, "", ""),
            ("pg_dump exited 1", "pg_dump exited 1", ""),
            ("\n\x1b[2J1\r\n\t2\n", "\\x1b[2J1", "        2"),
            ("1\n" * 103, "1", "1\n" * 100 + "and 2 more lines"),
        ):
            found = bucket("a", series(**failed, failed_text=text))
            (shown,) = view(overview(found), UTC).troubled
            report = shown.rows[0].report
            assert report is not None
            self.assertEqual((first, rest), (report.first, report.rest))
            self.assertEqual("1 min ago", report.time.text)
            self.assertEqual(2, shown.height)

    def test_height(self) -> None:
        """At least one row, and one more for the series that are not shown."""
        shown = view(
            overview(
                bucket("a", expect=None),
                bucket("b", series(), series("x"), more=7),
            ),
            UTC,
        )
        self.assertEqual([1, 3], [each.height for each in shown.calm])

    def test_fold(self) -> None:
        """Five series of a bucket are shown, and all that need attention."""
        fine = [series(f"s{number}") for number in range(7)]
        late = [series(f"late{number}", **LATE) for number in range(6)]
        for shown, folded, height, found in (
            # A fold takes as much space as one series.
            (5, 0, 6, bucket("a", *fine[:6])),
            (5, 2, 8, bucket("a", *fine)),
            (5, 9, 9, bucket("a", *fine, more=7)),
            (5, 0, 1, bucket("a", expect=None)),
            (5, 3, 9, bucket("a", *late[:1], *fine)),
            (6, 7, 14, bucket("a", *late, *fine)),
            (6, 0, 6, bucket("a", *late)),
        ):
            page = view(overview(found), UTC)
            (each,) = (*page.troubled, *page.calm)
            self.assertEqual(
                (shown, folded, height), (each.shown, each.folded, each.height)
            )


class RoomTests(SynchronousTestCase):
    def test_room_for_series(self) -> None:
        self.assertEqual(
            [20, 20, 20, 4, 1],
            [most_series(count) for count in (0, 1, 100, 500, 10**6)],
        )

    def test_the_worst_first(self) -> None:
        """The buckets that are not shown are not the worst."""
        buckets = [bucket(f"host{i}", series()) for i in range(MOST_ROWS + 3)]
        buckets[-1] = bucket("late", series(**LATE))
        shown = view(overview(*buckets), UTC)
        self.assertEqual(["late"], [each.label for each in shown.troubled])
        self.assertEqual((MOST_ROWS - 1, 3), (len(shown.calm), shown.hidden))


class SparklineTests(SynchronousTestCase):
    """Sizes as bars."""

    def test_none(self) -> None:
        self.assertIsNone(sparkline([], None))

    def test_alone(self) -> None:
        found = sparkline([0], None)
        assert found is not None
        self.assertEqual(
            ("", "", "M118 24v-0.5"), (found.usual, found.before, found.last)
        )

    def test_usual(self) -> None:
        """The line has the height of a bar of that size."""
        found = sparkline([200, 100], 100)
        assert found is not None
        self.assertEqual(
            ("M0 13.0h120", "M114 24v-22.0", "M118 24v-11.0"),
            (found.usual, found.before, found.last),
        )

    def test_all(self) -> None:
        """The most sizes fill the width; the largest one fills the height."""
        found = sparkline(range(1, SIZES + 1), 1)
        assert found is not None
        self.assertEqual("M2 24v-0.7M6 24v-1.4M10 24v-2.2", found.before[:31])
        self.assertEqual(SIZES - 1, found.before.count("M"))
        self.assertEqual("M118 24v-22.0", found.last)
