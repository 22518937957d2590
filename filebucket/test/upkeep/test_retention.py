"""Retention: tables worked out by hand, and properties of all choices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Keep
from filebucket.model.records import File, Received
from filebucket.model.state import State
from filebucket.test.kit.properties import trying
from filebucket.upkeep.retention import choose, is_good

HOUR = 3600.0
DAY = 24 * HOUR
NOW = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
BERLIN = ZoneInfo("Europe/Berlin")


def moment(text: str) -> float:
    """A time in UTC; a date is its midnight."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def file(at: float, id_: int = 1, bad: str = "") -> File:
    """A file; ``bad`` is damaged, shrunk or empty; grown is not bad."""
    size = 0 if bad == "empty" else 100
    return File(
        id_,
        Received("web01", "db-#", f"db-{id_}", size, "0" * 64, at),
        judgement=State(bad) if bad in {"shrunk", "grown"} else State.FRESH,
        damaged=bad == "damaged",
    )


class TableTests(SynchronousTestCase):
    """Each rule, counted as restic's forget does."""

    def check(
        self,
        keep: Keep,
        *table: tuple[str, str],
        zone: tzinfo = UTC,
        hold: float = 0,
        now: float = NOW,
    ) -> None:
        """Compare with a table: times and states of files, newest first, and their
        reasons. The reason "last good file" is left out."""
        files = []
        for number, (text, _) in enumerate(table):
            when, _, bad = text.partition(" ")
            files.append(file(moment(when), len(table) - number, bad))
        found = {
            each.file.id: each.reasons for each in choose(files, keep, hold, now, zone)
        }
        self.assertEqual(
            list(table),
            [
                (text, ", ".join(set_apart(found[each.id])))
                for (text, _), each in zip(table, files, strict=True)
            ],
        )

    def test_last(self) -> None:
        self.check(
            Keep(last=3),
            ("2026-11-24T02:30:00", "last 1 of 3"),
            ("2026-11-24T02:29:59", "last 2 of 3"),
            ("2025-01-01", "last 3 of 3"),
            ("2024-12-31", ""),
            ("2024-12-30", ""),
        )

    def test_fewer_than_last(self) -> None:
        self.check(
            Keep(last=3),
            ("2026-11-24", "last 1 of 3"),
            ("2026-11-23", "last 2 of 3"),
        )

    def test_empty(self) -> None:
        """A file without content is not good, whatever its judgement says."""
        self.check(
            Keep(last=1),
            ("2026-11-24 empty", "last 1 of 1"),
            ("2026-11-23 empty", ""),
            ("2026-11-22", "last 1 of 1 among good files"),
            ("2026-11-21", ""),
        )

    def test_daily(self) -> None:
        """The newest file of each day; days without a file do not count."""
        self.check(
            Keep(daily=3),
            ("2026-11-24T20:00:00", "daily 2026-11-24"),
            ("2026-11-24T02:00:00", ""),
            ("2026-11-23T02:00:00", "daily 2026-11-23"),
            ("2026-11-20T23:59:59", "daily 2026-11-20"),
            ("2026-11-20T00:00:00", ""),
            ("2026-11-19T23:59:59", ""),
        )

    def test_oldest(self) -> None:
        """The oldest file is kept while a place is left, even if its day has a file."""
        self.check(
            Keep(daily=3),
            ("2026-11-24T20:00:00", "daily 2026-11-24"),
            ("2026-11-23T22:00:00", "daily 2026-11-23"),
            ("2026-11-23T21:00:00", ""),
            ("2026-11-23T20:00:00", "oldest daily"),
        )

    def test_oldest_without_a_place(self) -> None:
        """It is not if no place is left."""
        self.check(
            Keep(daily=2),
            ("2026-11-24T20:00:00", "daily 2026-11-24"),
            ("2026-11-23T22:00:00", "daily 2026-11-23"),
            ("2026-11-23T20:00:00", ""),
        )

    def test_oldest_of_several(self) -> None:
        self.check(
            Keep(daily=1, monthly=2, yearly=9),
            ("2026-11-24", "daily 2026-11-24, monthly 2026-11, yearly 2026"),
            ("2026-11-02", ""),
            ("2026-11-01", "oldest monthly, oldest yearly"),
        )

    def test_weekly(self) -> None:
        """Monday to Sunday, also at the turn of the year: 2026 has 53 weeks, and the
        last days of 2024 belong to the first week of 2025."""
        self.check(
            Keep(weekly=5),
            ("2027-01-04", "weekly 2027-W01"),
            ("2027-01-03", "weekly 2026-W53"),
            ("2027-01-01", ""),
            ("2026-12-28", ""),
            ("2026-12-27", "weekly 2026-W52"),
            ("2025-01-05", "weekly 2025-W01"),
            ("2024-12-30", ""),
            ("2024-12-29", "weekly 2024-W52"),
            ("2024-12-28", ""),
        )

    def test_monthly(self) -> None:
        """The same month of different years."""
        self.check(
            Keep(monthly=3),
            ("2026-11-24", "monthly 2026-11"),
            ("2026-11-01", ""),
            ("2026-10-31", "monthly 2026-10"),
            ("2025-11-30", "monthly 2025-11"),
            ("2025-11-01", ""),
            ("2025-10-31", ""),
        )

    def test_yearly(self) -> None:
        self.check(
            Keep(yearly=2),
            ("2026-01-01", "yearly 2026"),
            ("2025-12-31", "yearly 2025"),
            ("2025-01-01", ""),
            ("2024-12-31", ""),
        )

    def test_together(self) -> None:
        """A file that any rule keeps is kept; the rules count separately."""
        self.check(
            Keep(last=2, daily=2, weekly=2, monthly=2, yearly=2),
            (
                "2026-11-24T02:00:00",
                "last 1 of 2, daily 2026-11-24, weekly 2026-W48, monthly 2026-11,"
                " yearly 2026",
            ),
            ("2026-11-24T01:00:00", "last 2 of 2"),
            ("2026-11-23T02:00:00", "daily 2026-11-23"),
            ("2026-11-22T02:00:00", "weekly 2026-W47"),
            ("2026-11-21T02:00:00", ""),
            ("2026-10-31T02:00:00", "monthly 2026-10"),
            ("2026-01-01T02:00:00", ""),
            ("2025-06-01T02:00:00", "yearly 2025"),
            ("2025-05-01T02:00:00", ""),
        )

    def test_zone(self) -> None:
        """The time zone matters."""
        times = ("2026-11-24T22:30:00", "2026-11-24T15:30:00", "2026-11-24T14:30:00")
        self.check(
            Keep(daily=2),
            (times[0], "daily 2026-11-24"),
            (times[1], ""),
            (times[2], "oldest daily"),
        )
        self.check(
            Keep(daily=2),
            (times[0], "daily 2026-11-25"),
            (times[1], ""),
            (times[2], "daily 2026-11-24"),
            zone=ZoneInfo("Asia/Tokyo"),
        )

    def test_long_day(self) -> None:
        """A day of 25 hours, in Berlin."""
        self.check(
            Keep(daily=3),
            ("2026-10-25T23:00:00", "daily 2026-10-26"),
            ("2026-10-25T22:59:59", "daily 2026-10-25"),
            ("2026-10-25T01:30:00", ""),
            ("2026-10-25T00:30:00", ""),
            ("2026-10-24T22:00:00", ""),
            ("2026-10-24T21:59:59", "daily 2026-10-24"),
            zone=BERLIN,
        )

    def test_short_day(self) -> None:
        """A day of 23 hours."""
        self.check(
            Keep(daily=3),
            ("2026-03-29T22:00:00", "daily 2026-03-30"),
            ("2026-03-29T21:59:59", "daily 2026-03-29"),
            ("2026-03-28T23:00:00", ""),
            ("2026-03-28T22:59:59", "daily 2026-03-28"),
            zone=BERLIN,
        )

    def test_day_that_comes_again(self) -> None:
        """In Newfoundland, clocks were set back at a minute past midnight."""
        self.check(
            Keep(daily=9),
            ("2006-10-29T03:40:00", "daily 2006-10-29"),
            ("2006-10-29T03:00:00", "daily 2006-10-28"),
            ("2006-10-29T02:30:30", ""),
            ("2006-10-29T02:29:30", ""),
            ("2006-10-28T02:00:00", "daily 2006-10-27"),
            zone=ZoneInfo("America/St_Johns"),
        )

    def test_hold(self) -> None:
        """A younger file is kept, and counts for the rules."""
        self.check(
            Keep(last=1),
            ("2026-11-24T00:00:00", "last 1 of 1, younger than hold"),
            ("2026-11-23T00:00:00", "younger than hold"),
            ("2026-11-18T00:00:01", "younger than hold"),
            ("2026-11-18T00:00:00", ""),
            ("2026-11-17T00:00:00", ""),
            hold=7 * DAY,
            now=moment("2026-11-25T00:00:00"),
        )

    def test_future(self) -> None:
        """A file from the future is kept, and uses up no place."""
        self.check(
            Keep(last=1),
            ("2038-01-01", "younger than hold"),
            ("2036-01-01", "younger than hold"),
            ("2026-11-24", "last 1 of 1"),
            ("2026-11-23", ""),
            now=moment("2026-11-25"),
        )

    def test_beyond_all_calendars(self) -> None:
        """``touch`` can set such a time."""
        (choice,) = choose([file(1e18)], Keep(daily=1), 0, NOW, UTC)
        self.assertTrue(choice.kept)

    def test_bad_ones_take_no_place(self) -> None:
        """Bad files that a rule selects are kept, beside the good files."""
        self.check(
            Keep(last=2, daily=2),
            ("2026-11-24T03:00:00 shrunk", "last 1 of 2, daily 2026-11-24"),
            ("2026-11-24T02:00:00 damaged", "last 2 of 2"),
            (
                "2026-11-23T02:00:00",
                "daily 2026-11-23, last 1 of 2 among good files",
            ),
            (
                "2026-11-22T02:00:00 grown",
                "last 2 of 2 among good files, daily 2026-11-22 among good files",
            ),
            ("2026-11-22T01:00:00 damaged", ""),
            ("2026-11-21T01:00:00", ""),
        )

    def test_oldest_good_one(self) -> None:
        """The oldest good file is kept as if there were no older bad files."""
        self.check(
            Keep(monthly=2),
            ("2026-11-24", "monthly 2026-11"),
            ("2026-11-23", ""),
            ("2026-11-22", "oldest monthly among good files"),
            ("2026-11-21 shrunk", ""),
            ("2026-11-20 damaged", "oldest monthly"),
        )

    def test_flood_of_bad_ones(self) -> None:
        """A thousand bad files displace no good file."""
        flood = [file(NOW - HOUR - n, 3000 - n, "shrunk") for n in range(1000)]
        good = [file(NOW - n * DAY, 100 - n) for n in range(2, 6)]
        found = choose([*flood, *good], Keep(last=3), HOUR, NOW, UTC)
        kept = [each.file.id for each in found if each.kept]
        self.assertEqual([3000, 2999, 2998, 98, 97, 96], kept)

    def test_last_good_one(self) -> None:
        bad, good, older = file(3, 3, "damaged"), file(2, 2), file(1, 1)
        found = list(choose([bad, good, older], Keep(last=1), 0, NOW, UTC))
        self.assertEqual(
            [
                (bad, ("last 1 of 1", "last file")),
                (good, ("last 1 of 1 among good files", "last good file")),
                (older, ()),
            ],
            [(each.file, each.reasons) for each in found],
        )

    def test_none_is_good(self) -> None:
        """The last file is kept."""
        files = [file(2, 2, "shrunk"), file(1, 1, "damaged")]
        found = list(choose(files, Keep(last=1), 0, NOW, UTC))
        self.assertEqual(
            [("last 1 of 1", "last file"), ()], [each.reasons for each in found]
        )

    def test_flood_of_good_ones(self) -> None:
        """As the module says: a flood of good files takes one place of each day, and
        all of ``last``."""
        mine = [file(NOW - n * DAY - HOUR, 100 - n) for n in range(1, 30)]
        theirs = [file(NOW - 8 * DAY + n, 1000 + n) for n in range(500)]
        files = sorted(
            [*mine, *theirs], key=lambda each: each.received.received_at, reverse=True
        )

        def cost(keep: Keep) -> set[int]:
            """The files of ``mine`` that are lost because of ``others``."""
            kept = [
                {
                    each.file.id
                    for each in choose(them, keep, DAY, NOW, UTC)
                    if each.kept
                }
                for them in (mine, files)
            ]
            return kept[0] - kept[1]

        self.assertEqual(set(), cost(Keep(last=7)))
        self.assertEqual({92, 91, 90}, cost(Keep(last=10)))
        # Only files of the flood's day, and the oldest one.
        self.assertLessEqual(len(cost(Keep(daily=20))), 1)

    def test_no_files(self) -> None:
        self.assertEqual([], list(choose([], Keep(last=1), 0, NOW, UTC)))


def set_apart(reasons: Sequence[str]) -> list[str]:
    """The reasons without those for the last file."""
    return [each for each in reasons if each not in {"last good file", "last file"}]


COUNTS = st.none() | st.integers(1, 8)
KEEPS = st.builds(Keep, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS).filter(
    lambda keep: keep != Keep()
)
ZONES = st.sampled_from(
    [UTC, BERLIN, ZoneInfo("America/St_Johns"), ZoneInfo("Pacific/Apia")]
)
HOLDS = st.sampled_from([0.0, HOUR, 7 * DAY])
AGES = st.one_of(
    st.integers(0, 72).map(lambda hours: hours * HOUR),
    st.integers(0, 800).map(lambda days: days * DAY),
    st.floats(-DAY, 3000 * DAY),
)
BAD = st.sampled_from(["", "", "", "grown", "shrunk", "damaged"])


@st.composite
def _series(draw: st.DrawFn) -> list[File]:
    found = sorted(draw(st.lists(st.tuples(AGES, BAD), max_size=40)))
    count = len(found)
    return [file(NOW - age, count - n, bad) for n, (age, bad) in enumerate(found)]


SERIES = _series()


def kept(
    files: Sequence[File], keep: Keep, hold: float, zone: tzinfo
) -> dict[int, tuple[str, ...]]:
    """The reasons of kept files."""
    found = choose(files, keep, hold, NOW, zone)
    return {each.file.id: each.reasons for each in found if each.kept}


class PropertyTests(SynchronousTestCase):
    """Properties of every choice."""

    @trying
    @given(SERIES, KEEPS, HOLDS, ZONES)
    def test_each_once(
        self, files: list[File], keep: Keep, hold: float, zone: tzinfo
    ) -> None:
        """Each file gets one choice, always the same."""
        found = list(choose(iter(files), keep, hold, NOW, zone))
        self.assertEqual(found, list(choose(files, keep, hold, NOW, zone)))
        self.assertEqual(
            sorted(each.id for each in files), sorted(each.file.id for each in found)
        )

    @trying
    @given(SERIES, KEEPS, HOLDS, ZONES)
    def test_never(
        self, files: list[File], keep: Keep, hold: float, zone: tzinfo
    ) -> None:
        """The last good file, the last file and the young files are never pruned."""
        found = kept(files, keep, hold, zone)
        past = [each for each in files if each.received.received_at <= NOW]
        for some in (past, [each for each in past if is_good(each)]):
            for each in some[:1]:
                self.assertIn(each.id, found)
        for each in files:
            if NOW - each.received.received_at < hold:
                self.assertIn("younger than hold", found[each.id])

    @trying
    @given(SERIES, KEEPS, HOLDS, ZONES)
    def test_idempotent(
        self, files: list[File], keep: Keep, hold: float, zone: tzinfo
    ) -> None:
        """A second run prunes nothing more, and gives the same reasons."""
        found = kept(files, keep, hold, zone)
        left = [each for each in files if each.id in found]
        self.assertEqual(found, kept(left, keep, hold, zone))

    @trying
    @given(SERIES, KEEPS, KEEPS, HOLDS, ZONES)
    def test_more_keeps_more(
        self, files: list[File], keep: Keep, add: Keep, hold: float, zone: tzinfo
    ) -> None:
        """A further rule, or a larger number, prunes no further file."""
        sums = {
            rule: (count or 0) + (getattr(add, rule) or 0) or None
            for rule, count in attrs.asdict(keep).items()
        }
        less = set(kept(files, keep, hold, zone))
        self.assertLessEqual(less, set(kept(files, Keep(**sums), hold, zone)))
        self.assertLessEqual(less, set(kept(files, keep, hold + DAY, zone)))

    @trying
    @given(SERIES, KEEPS, HOLDS, ZONES)
    def test_bad_ones_do_not_matter(
        self, files: list[File], keep: Keep, hold: float, zone: tzinfo
    ) -> None:
        """Good files are kept as if there were no bad ones."""
        good = [each for each in files if is_good(each)]
        found = set(kept(files, keep, hold, zone)) & {each.id for each in good}
        self.assertEqual(set(kept(good, keep, hold, zone)), found)

    @trying
    @given(SERIES, KEEPS)
    def test_as_restic_does(self, files: list[File], keep: Keep) -> None:
        """If all files are good and none is from the future, each rule keeps the newest
        file of N periods, and the oldest file if there are fewer."""
        files = [
            attrs.evolve(each, judgement=State.FRESH, damaged=False)
            for each in files
            if each.received.received_at <= NOW
        ]
        wanted = {each.id for each in files[: keep.last or 0]}
        for count, period in (
            (keep.daily, lambda at: at.date()),
            (keep.weekly, lambda at: at.date() - timedelta(days=at.weekday())),
            (keep.monthly, lambda at: (at.year, at.month)),
            (keep.yearly, lambda at: at.year),
        ):
            newest: dict[object, int] = {}
            for each in files:
                at = datetime.fromtimestamp(each.received.received_at, UTC)
                newest.setdefault(period(at), each.id)
            wanted |= set(list(newest.values())[: count or 0])
            if files and len(newest) < (count or 0):
                wanted.add(files[-1].id)
        self.assertEqual(wanted, set(kept(files, keep, 0, UTC)))
