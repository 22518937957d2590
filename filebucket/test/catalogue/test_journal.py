"""Tests of :mod:`filebucket.catalogue.journal`."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue import journal as journals
from filebucket.catalogue.batch import CLOCK_ERROR, MOST_WATCHED
from filebucket.catalogue.files import Files
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import (
    KEPT_FAILURE,
    KEPT_REFUSALS,
    MOST_INVENTED,
    Journal,
)
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket, Pause
from filebucket.model.problem import Kind, ToldProblem
from filebucket.model.records import (
    Abandoned,
    Drill,
    Failed,
    File,
    HookFailure,
    HookRun,
    Received,
    Refused,
    Series,
    Space,
)
from filebucket.model.schedule import Interval
from filebucket.model.state import State
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import (
    Changes,
    all_series,
    new_home,
    on_both,
    opened,
)

BUCKET = Bucket((Token(bytes(32)),), "web01", "web01", expect=Interval(3600.0, "1h"))
NOW = 1_795_000_000.0
DAY = 24 * 3600.0


class JournalCase(SynchronousTestCase):
    """Has a journal, and a view of what it writes."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.journal = opened(self, Journal, self.home)
        self.counted = Changes(self, self.journal)
        self.view = opened(self, View, self.home)

    def push(self, name: str, series: str = "db-#", at: float = NOW) -> None:
        row = Received("web01", series, name, 100, "ab" * 32, at, request="r")
        self.journal.record([row], [], {"web01": BUCKET}.get)

    def series(self) -> dict[str, Series]:
        return {each.name: each for each in all_series(self.view)}


@on_both
class RecordTests(JournalCase):
    """Pushes and refusals."""

    def refuse(self, bucket: str, count: int, start: int = 0) -> None:
        rows = [
            Refused(bucket, float(number), None, -1, 405, "exists", "c", f"q{number}")
            for number in range(start, start + count)
        ]
        self.journal.record([], rows, lambda key: None)

    def test_refusals_are_bounded(self) -> None:
        """For each bucket, and without a token: none displaces those of another."""
        self.refuse("web01", 3)
        self.refuse("", KEPT_REFUSALS + 50)
        self.refuse("", 7, start=1000)
        self.assertEqual(3, len(self.view.refusals(1000, "web01")))
        found = self.view.refusals(1000, "")
        self.assertEqual(KEPT_REFUSALS, len(found))
        self.assertEqual(1006.0, found[0].at)
        self.assertEqual(
            [f"q{number}" for number in range(1006, 999, -1)],
            [each.request for each in found[:7]],
        )

    def test_nothing(self) -> None:
        """An empty batch changes nothing."""
        before = self.counted.rows
        self.journal.record([], [], lambda key: None)
        self.assertEqual(before, self.counted.rows)

    def test_find(self) -> None:
        """The file that should exist, of all that had its name."""
        self.push("db-1")
        self.push("db-1", at=NOW + 1)
        found = self.journal.find("web01", "db-1")
        assert found is not None
        self.assertEqual(NOW + 1, found.received.received_at)
        self.assertIsNone(self.journal.find("web02", "db-1"))
        opened(self, Inventory, self.home).ended(found.id, "missing", NOW)
        self.assertIsNone(self.journal.find("web01", "db-1"))


@on_both
class HealTests(JournalCase):
    """A push of a damaged file with its original content."""

    def heal(self, name: str = "db-1", **given: Any) -> None:
        row = Received(
            "web01", "db-#", name, 100, "ab" * 32, NOW + 50, request="h", healed=True
        )
        self.journal.record([evolve(row, **given)], [], {"web01": BUCKET}.get)

    def file(self) -> File:
        return self.view.latest(1)[0]

    def damage(self) -> None:
        inventory = opened(self, Inventory, self.home)
        inventory.verified([(self.file().id, True, NOW + 20)])

    def test_healed(self) -> None:
        """The row of the original push stays, now undamaged."""
        self.push("db-1")
        before = self.file()
        self.damage()
        self.assertEqual(1, self.series()["db-#"].damaged)
        self.heal()
        self.assertEqual(evolve(before, verified_at=NOW + 50), self.file())
        found = self.series()["db-#"]
        self.assertEqual(
            (0, 1, 1, NOW), (found.damaged, found.files, found.pushes, found.last_at)
        )

    def test_another(self) -> None:
        """Not with another content, another name, or if the file is gone."""
        self.push("db-1")
        self.damage()
        self.heal(sha256="cd" * 32)
        self.heal("db-2")
        self.heal(bucket="web02")
        self.assertTrue(self.file().damaged)
        opened(self, Inventory, self.home).ended(self.file().id, "missing", NOW + 30)
        self.heal()
        self.assertTrue(self.file().damaged)
        self.assertEqual(1, len(self.view.latest(9)))

    def test_replaced_in_the_same_batch(self) -> None:
        """The push that replaced it afterwards counts."""
        self.push("db-1")
        self.damage()
        healed = Received(
            "web01", "db-#", "db-1", 100, "ab" * 32, NOW + 50, request="h", healed=True
        )
        later = evolve(healed, sha256="cd" * 32, healed=False, received_at=NOW + 51)
        self.journal.record([healed, later], [], {"web01": BUCKET}.get)
        new, old = self.view.latest(9)
        self.assertEqual(("kept", "cd" * 32), (new.fate, new.received.sha256))
        self.assertEqual("overwritten", old.fate)
        self.assertEqual(0, self.series()["db-#"].damaged)


@on_both
class WatchTests(JournalCase):
    """Expected series."""

    def test_patterns(self) -> None:
        """Existing pushes are sorted by new patterns, with tokens masked."""
        self.push("db-1")
        self.push("db-secret", "db-secret")
        patterns = evolve(BUCKET, series=("*hidden*", "db-*", "log-*"))
        list(
            self.journal.watch(
                [patterns], lambda name: name.replace("secret", "hidden"), NOW
            )
        )
        found = self.series()
        self.assertEqual({"*hidden*", "db-*", "log-*"}, set(found))
        self.assertEqual(
            [(1, 100, "db-secret"), (1, 100, "db-1"), (0, 0, None)],
            [
                (found[name].files, found[name].bytes, found[name].last_name)
                for name in patterns.series
            ],
        )
        self.assertEqual(State.NEVER, found["log-*"].state)

    def test_strays(self) -> None:
        """Version 0.1.0 left pushes in the wrong series that ended during a reload."""
        sorts = evolve(BUCKET, series=("db-*",))
        list(self.journal.watch([sorts], str, NOW))
        self.push("db-1", "db-#")
        list(self.journal.watch([sorts], str, NOW))
        self.assertEqual({"db-*": 1}, {n: s.files for n, s in self.series().items()})

    def test_patterns_and_drills(self) -> None:
        """A restore test belongs to the series of its file, also of a new pattern."""
        for name in ("db-a", "db-b", "etc", "log"):
            self.push(name, name)
        files = opened(self, Files, self.home)
        for name, at, error in (
            ("db-a", 1.0, None),
            ("db-b", 2.0, "no"),
            ("etc", 3.0, "no"),
        ):
            file = files.named("web01", name)
            assert file is not None
            self.assertTrue(files.drilled(Drill(file, at, error)))
        patterns = evolve(BUCKET, series=("db-*",))
        list(self.journal.watch([patterns], str, NOW))
        self.assertEqual(
            {
                "db-*": (2.0, "db-b", "no", 1.0),
                "etc": (3.0, "etc", "no", None),
                "log": (None, None, None, None),
            },
            {
                name: (
                    each.drilled_at,
                    each.drilled_name,
                    each.drill_error,
                    each.restored_at,
                )
                for name, each in self.series().items()
            },
        )

    def totals(self) -> dict[str, tuple[Any, ...]]:
        return {
            name: (
                each.pushes,
                each.files,
                each.bytes,
                each.missing,
                each.damaged,
                each.last_at,
                each.last_name,
            )
            for name, each in self.series().items()
        }

    def test_sorted_in_pieces(self) -> None:
        """Totals are right at any time; an interrupted sort starts over."""
        for number in range(10):
            self.push(f"db-{number}", at=NOW + number)
        inventory = opened(self, Inventory, self.home)
        ids = {each.received.name: each.id for each in self.view.latest(99)}
        inventory.missed([ids["db-1"], ids["db-9"]], NOW + 50)
        inventory.ended(ids["db-2"], "pruned", NOW + 50)
        inventory.verified([(ids["db-3"], True, NOW + 50), (ids["db-4"], False, NOW)])
        self.patch(journals, "AT_ONCE", 4)
        odd = evolve(BUCKET, series=("*[13579]", "db-*"))
        for pieces in (1, 2, 100):
            for _, _ in zip(
                range(pieces), self.journal.watch([odd], str, NOW), strict=False
            ):
                counts = [each[:5] for each in self.totals().values()]
                sums = [sum(column) for column in zip(*counts, strict=True)]
                self.assertEqual([10, 7, 700, 2, 1], sums)
        self.assertEqual(
            {
                "*[13579]": (5, 3, 300, 2, 1, NOW + 9, "db-9"),
                "db-*": (5, 4, 400, 0, 0, NOW + 8, "db-8"),
            },
            self.totals(),
        )

    def test_in_pieces(self) -> None:
        """The work of a piece is limited, however many series there are."""
        for number in range(30):
            self.push(f"{number}", f"s{number:02}")
        self.patch(journals, "AT_ONCE", 5)
        other = evolve(BUCKET, expect=Interval(60.0, "1m"))
        before = self.counted.rows
        changes = []
        for _ in self.journal.watch([other], str, NOW):
            after = self.counted.rows
            changes.append(after - before)
            before = after
        self.assertEqual([5] * 6, changes[1:])
        self.assertEqual({NOW + 60}, {each.due for each in self.series().values()})

    def test_only_what_changed(self) -> None:
        """Buckets whose schedules did not change are skipped."""
        self.push("db-1")
        list(self.journal.watch([BUCKET], str, NOW))
        new = evolve(BUCKET, name="web02", directory="web02")
        tokens = evolve(BUCKET, tokens=(Token(b"1" * 32),), quota=9)
        before = self.counted.rows
        self.assertEqual([], list(self.journal.watch([tokens], str, NOW, [BUCKET])))
        self.assertEqual(before, self.counted.rows)
        list(self.journal.watch([tokens, new], str, NOW, [BUCKET]))
        self.assertEqual({"db-#", ""}, set(self.series()))
        for changed in (
            evolve(BUCKET, expect=None),
            evolve(BUCKET, series=("db-*",)),
            evolve(BUCKET, shrink_alert=0.1),
            evolve(BUCKET, grow_alert=9.0),
            evolve(BUCKET, paused=Pause(NOW + DAY, "a move")),
            evolve(BUCKET, retired=True),
        ):
            pieces = list(self.journal.watch([changed, new], str, NOW, [BUCKET, new]))
            self.assertNotEqual([], pieces)
        self.assertEqual(1, len(list(self.journal.watch([], str, NOW, [new]))))

    def test_patterns_no_more(self) -> None:
        """Series that only a pattern expected are forgotten."""
        self.push("db-1")
        patterns = evolve(BUCKET, series=("db-*", "log-*"))
        list(self.journal.watch([patterns], str, NOW))
        list(self.journal.watch([BUCKET], str, NOW))
        self.assertEqual({"db-#"}, set(self.series()))

    def test_no_more(self) -> None:
        """A removed bucket is neither late nor reported."""
        self.push("db-1")
        list(self.journal.watch([BUCKET], str, NOW))
        self.journal.pass_time(NOW + DAY)
        self.assertEqual(1, len(self.journal.untold(9)))
        list(self.journal.watch([], str, NOW + DAY))
        self.assertEqual([], self.journal.untold(9))
        self.assertEqual(float("inf"), self.series()["db-#"].due)

    def test_paused(self) -> None:
        """Neither late, nor reported as on time again. After the pause it is late
        again, and reported.
        """
        self.push("db-1")
        list(self.journal.watch([BUCKET], str, NOW))
        self.journal.pass_time(NOW + DAY)
        (late,) = self.journal.untold(9)
        self.journal.mark_told(late, late.state, NOW)
        now = NOW + 2 * DAY
        paused = evolve(BUCKET, paused=Pause(now + DAY, "a move"))
        list(self.journal.watch([paused], str, now, [BUCKET]))
        found = self.series()["db-#"]
        self.assertEqual((State.FRESH, now + DAY + 3600), (found.state, found.due))
        self.assertEqual([], self.journal.untold(9))
        self.journal.pass_time(now + DAY)
        self.assertEqual(State.FRESH, self.series()["db-#"].state)
        self.journal.pass_time(now + DAY + 3600)
        self.assertEqual([State.LATE], [each.state for each in self.journal.untold(9)])

    def test_after_a_pause(self) -> None:
        """A pause that is over mutes no alert."""
        self.push("db-1")
        list(self.journal.watch([BUCKET], str, NOW))
        self.journal.pass_time(NOW + DAY)
        (late,) = self.journal.untold(9)
        self.journal.mark_told(late, late.state, NOW)
        self.push("db-2", at=NOW + DAY)
        over = evolve(BUCKET, paused=Pause(NOW, "a move"))
        list(self.journal.watch([over], str, NOW + DAY, [BUCKET]))
        self.assertEqual([State.FRESH], [each.state for each in self.journal.untold(9)])

    def test_retired(self) -> None:
        """It has no states and no alerts, and begins anew when it is in use again."""
        self.push("db-1")
        empty = evolve(BUCKET, name="web02", directory="web02")
        list(self.journal.watch([BUCKET, empty], str, NOW))
        now = NOW + DAY
        self.journal.pass_time(now)
        self.assertEqual(2, len(self.journal.untold(9)))
        retired = [evolve(each, retired=True) for each in (BUCKET, empty)]
        list(self.journal.watch(retired, str, now, [BUCKET, empty]))
        self.assertEqual([], self.journal.untold(9))
        self.assertEqual({"db-#"}, set(self.series()))
        found = self.series()["db-#"]
        self.assertEqual((State.FRESH, float("inf")), (found.state, found.due))
        list(self.journal.watch([BUCKET, empty], str, now, retired))
        found = self.series()["db-#"]
        self.assertEqual((State.LATE, NOW + 3600), (found.state, found.due))
        self.assertEqual({"db-#", ""}, set(self.series()))

    def test_not_expected(self) -> None:
        """A bucket without pushes and without a schedule has no row."""
        list(self.journal.watch([evolve(BUCKET, expect=None)], str, NOW))
        self.assertEqual([], self.journal._ask("SELECT * FROM bucket"))

    def test_pass_time(self) -> None:
        """Late from the time when it was due, and only once."""
        self.push("db-1")
        self.journal.pass_time(NOW + 3599)
        self.assertEqual(State.FRESH, self.series()["db-#"].state)
        self.journal.pass_time(NOW + DAY)
        found = self.series()["db-#"]
        self.assertEqual((State.LATE, NOW + 3600), (found.state, found.state_at))
        before = self.counted.rows
        self.journal.pass_time(NOW + 2 * DAY)
        self.assertEqual(before, self.counted.rows)

    def test_mistrust(self) -> None:
        """Pushes from the future of a right clock count as received now."""
        self.push("db-1", at=NOW + 9 * DAY)
        known = {"web01": BUCKET}.get
        self.assertEqual(0, self.journal.mistrust(NOW + 9 * DAY - CLOCK_ERROR, known))
        self.assertEqual(1, self.journal.mistrust(NOW, known))
        found = self.series()["db-#"]
        self.assertEqual((NOW, NOW + 3600), (found.last_at, found.due))
        self.assertEqual(0, self.journal.mistrust(NOW, known))
        (file,) = self.view.latest(1)
        self.assertEqual(NOW + 9 * DAY, file.received.received_at)

    def test_mistrust_reminders(self) -> None:
        """A report while the clock was ahead does not put reminders off."""
        self.push("db-1")
        self.journal.pass_time(NOW + DAY)
        told = self.series()["db-#"]
        self.journal.mark_told(told, State.LATE, NOW + 9 * DAY)
        self.assertEqual(0, self.journal.mistrust(NOW + DAY, {"web01": BUCKET}.get))
        self.assertEqual(NOW + DAY, self.series()["db-#"].told_at)


@on_both
class ToldTests(JournalCase):
    """States that were reported to the operator."""

    def test_untold(self) -> None:
        """The oldest change first, and only watched series."""
        for index, name in enumerate(("b", "a", "c")):
            self.push(name, name, NOW + index)
        self.journal._connection.execute(
            "UPDATE series SET watched = FALSE WHERE name = 'c'"
        )
        self.journal.pass_time(NOW + DAY)
        untold = self.journal.untold(9)
        self.assertEqual(["b", "a"], [each.name for each in untold])
        self.assertEqual(["b"], [each.name for each in self.journal.untold(1)])
        self.journal.mark_told(untold[0], State.LATE, NOW)
        self.assertEqual(["a"], [each.name for each in self.journal.untold(9)])
        # The old state is reported; the state has changed meanwhile.
        self.journal.mark_told(untold[1], State.SHRUNK, NOW)
        self.assertEqual(["a"], [each.name for each in self.journal.untold(9)])

    def test_late_again(self) -> None:
        """A report that is recorded late, such as by a daemon that lost the database
        for a while, is not one of what happened since.
        """
        self.push("db-1")
        self.journal.pass_time(NOW + DAY)
        (late,) = self.journal.untold(9)
        self.push("db-2", at=NOW + DAY)
        self.journal.pass_time(NOW + 2 * DAY)
        self.journal.mark_told(late, State.LATE, NOW + 2 * DAY)
        (again,) = self.journal.untold(9)
        self.assertEqual(State.LATE, again.state)
        self.journal.mark_told(again, State.LATE, NOW + 2 * DAY)
        self.assertEqual([], self.journal.untold(9))

    def test_untold_in_another_catalogue(self) -> None:
        """The series with the same id may be another one there."""
        self.push("db-1")
        self.journal.pass_time(NOW + DAY)
        (late,) = self.journal.untold(9)
        self.journal.mark_told(evolve(late, since=late.since - 1), State.LATE, NOW)
        self.assertEqual([late], self.journal.untold(9))

    def test_again(self) -> None:
        """A bad state that was reported long ago; first those never reported."""
        for index, name in enumerate(("b", "a", "c")):
            self.push(name, name, NOW + index)
        self.journal.pass_time(NOW + DAY)
        by_name = self.series()
        self.journal.mark_told(by_name["b"], State.LATE, NOW + 9)
        self.journal.mark_told(by_name["c"], State.LATE, NOW + 8)
        for again, expected in (
            (NOW + 7, ["a"]),
            (NOW + 8, ["a", "c"]),
            (NOW + 9, ["a", "b", "c"]),
        ):
            found = self.journal.untold(9, again=again)
            self.assertEqual(expected, [each.name for each in found])
        self.assertEqual(NOW + 9, self.series()["b"].told_at)
        but = [("web01", True)]
        self.assertEqual([], self.journal.untold(9, but, NOW + DAY))

    def test_not_again(self) -> None:
        """A good state, or one that the series no longer has."""
        self.push("a", "a", NOW)
        (series,) = self.series().values()
        self.journal.mark_told(series, State.LATE, NOW)
        self.journal.mark_told(series, State.FRESH, NOW)
        self.assertIsNone(self.series()["a"].told_at)
        self.assertEqual([], self.journal.untold(9, again=NOW + DAY))
        self.journal.mark_told(series, State.LATE, NOW)
        self.assertEqual(1, len(self.journal.untold(9, again=NOW + DAY)))

    def test_problems(self) -> None:
        """Those that were reported, until their end was."""
        full = ToldProblem(Kind.FULL, "web01", 1, NOW, NOW + 1)
        lost = ToldProblem(Kind.DAMAGED, "", 7, NOW, NOW + 2)
        for each in (full, lost):
            self.journal.mark_problem(each)
        self.assertEqual({full, lost}, set(self.journal.told_problems()))
        worse = evolve(full, level=2, told_at=NOW + 3)
        self.journal.mark_problem(worse)
        self.journal.mark_problem(evolve(lost, level=0))
        self.assertEqual([worse], self.journal.told_problems())
        # A later version may know other kinds.
        self.journal._connection.execute(
            "INSERT INTO problem (kind, bucket, node, level, since, told_at)"
            " VALUES ('battery', '', '', 1, 0, 0)"
        )
        self.assertEqual([worse], self.journal.told_problems())
        # Each daemon has its own disk.
        other = evolve(worse, node="b")
        self.journal.mark_problem(other)
        self.journal.mark_problem(evolve(worse, level=0))
        self.assertEqual([other], self.journal.told_problems())

    def test_but(self) -> None:
        """Leaves out the late series of a bucket, or the others."""
        known = {key: evolve(BUCKET, name=key) for key in ("web01", "web02")}
        for key in known:
            for name, size in (("a", 100), ("b", 0)):
                row = Received(key, name, name, size, "ab" * 32, NOW, request="r")
                self.journal.record([row], [], known.get)
        self.journal._connection.execute(
            "UPDATE series SET state = 'late' WHERE name = 'a'"
        )

        def untold(*but: tuple[str, bool]) -> list[tuple[str, str]]:
            found = self.journal.untold(9, but)
            return sorted((each.bucket, each.name) for each in found)

        everything = [(key, name) for key in known for name in ("a", "b")]
        self.assertEqual(everything, untold())
        self.assertEqual(everything, untold(("web03", True), ("0", False)))
        self.assertEqual(everything[1:], untold(("web01", True)))
        self.assertEqual(
            everything[:1] + everything[3:], untold(("web01", False), ("web02", True))
        )


@on_both
class AbandonTests(JournalCase):
    """Pushes that began and never ended."""

    def abandon(self, series: str = "db-#", at: float = NOW + 10) -> None:
        found = [Abandoned("web01", series, at), Abandoned("gone", series, at)]
        self.journal.abandon(found, {"web01": BUCKET}.get, NOW + 20)

    def test_until_the_next_push(self) -> None:
        """Told once, and again when a push arrives."""
        self.push("db-1")
        self.journal.mark_told(self.series()["db-#"], State.FRESH, NOW)
        self.abandon()
        (series,) = self.journal.untold(9)
        self.assertEqual((State.UNFINISHED, NOW + 20), (series.state, series.state_at))
        self.journal.mark_told(series, State.UNFINISHED, NOW)
        self.abandon(at=NOW + 15)
        self.assertEqual([], self.journal.untold(9))
        # Its schedule goes on.
        self.journal.pass_time(NOW + 3600)
        self.assertEqual(State.LATE, self.series()["db-#"].state)
        self.push("db-2", at=NOW + 3700)
        (series,) = self.journal.untold(9)
        self.assertEqual(State.FRESH, series.state)

    def test_after_a_reload(self) -> None:
        """It stays."""
        self.push("db-1")
        self.abandon()
        for _ in self.journal.watch([BUCKET], str, NOW + 30):
            pass
        self.assertEqual(State.UNFINISHED, self.series()["db-#"].state)

    def test_pushed_since(self) -> None:
        """The file has arrived in another way, or another one."""
        self.push("db-1", at=NOW + 11)
        self.abandon()
        self.assertEqual(State.FRESH, self.series()["db-#"].state)

    def test_order(self) -> None:
        """Only the latest counts."""
        self.push("db-1", at=NOW + 11)
        self.abandon(at=NOW + 12)
        self.abandon(at=NOW + 5)
        self.assertEqual(State.UNFINISHED, self.series()["db-#"].state)

    def test_first_push(self) -> None:
        """A bucket that still awaits it."""
        for _ in self.journal.watch([BUCKET], str, NOW):
            pass
        self.abandon("any")
        self.assertEqual({""}, set(self.series()))
        self.assertEqual(State.UNFINISHED, self.series()[""].state)
        self.push("db-1", at=NOW + 30)
        self.assertEqual(State.FRESH, self.series()["db-#"].state)

    def test_unknown(self) -> None:
        """A client cannot add series."""
        self.push("db-1")
        self.abandon("invented")
        self.assertEqual({"db-#"}, set(self.series()))
        self.assertEqual(State.FRESH, self.series()["db-#"].state)


@on_both
class HookTests(JournalCase):
    """Which hooks fail."""

    def note(self, hook: str, bucket: str | None, at: float, why: str | None) -> None:
        self.journal.note_hooks([HookRun(hook, bucket, at, why)])

    def found(self) -> list[HookFailure]:
        return self.view.hook_failures(100)

    def test_since(self) -> None:
        """The first failure since the last success, and the reason of the last one."""
        self.note("post-push", "web01", NOW, None)
        self.assertEqual([], self.found())
        self.note("post-push", "web01", NOW + 1, "timed out")
        self.note("post-push", "web01", NOW + 3, "exited with 1")
        self.note("post-push", "web02", NOW + 2, "timed out")
        self.note("pre-push", "web01", NOW + 2, None)
        expected = [
            HookFailure("post-push", "web01", NOW + 1, NOW + 3, "exited with 1"),
            HookFailure("post-push", "web02", NOW + 2, NOW + 2, "timed out"),
        ]
        self.assertEqual(expected, self.found())
        self.assertEqual(expected[:1], self.view.hook_failures(1))
        self.note("post-push", "web01", NOW + 4, None)
        self.assertEqual(expected[1:], self.found())

    def test_nodes(self) -> None:
        """A hook of one daemon says nothing about that of another."""
        failed = HookRun("post-push", "web01", NOW, "timed out", "a")
        worked = HookRun("post-push", "web01", NOW + 1, None, "b")
        self.journal.note_hooks([failed, evolve(failed, node="b"), worked])
        self.assertEqual([], self.found())
        (found,) = self.view.hook_failures(9, "a")
        self.assertEqual("timed out", found.reason)
        self.assertEqual([], self.view.hook_failures(9, "b"))

    def test_no_such_hook(self) -> None:
        """A hook that was removed does not fail, for any bucket."""
        for bucket in ("web01", "web02"):
            for hook in ("pre-push", "post-push"):
                self.note(hook, bucket, NOW, "timed out")
        self.note("post-push", None, NOW, None)
        left = {(each.hook, each.bucket) for each in self.found()}
        self.assertEqual({("pre-push", "web01"), ("pre-push", "web02")}, left)

    def test_no_such_bucket(self) -> None:
        """The failures of removed buckets are forgotten, that of alerts is not."""
        for bucket in ("web01", "web02", ""):
            self.note("alert", bucket, NOW, "timed out")
        list(self.journal.watch([BUCKET], str, NOW))
        self.assertEqual({"web01", ""}, {each.bucket for each in self.found()})


class FailCase(JournalCase):
    """Reports that backups failed."""

    bucket = BUCKET

    def report(
        self, series: str = "db-#", at: float = NOW + 10, text: str = "exited with 1"
    ) -> None:
        found = [Failed(key, series, at, text) for key in ("web01", "gone")]
        self.journal.fail(found, {"web01": self.bucket}.get, at)

    def watch(self, *buckets: Bucket, at: float = NOW + 30) -> None:
        for _ in self.journal.watch(buckets, str, at):
            pass

    def states(self) -> dict[str, State]:
        return {name: each.state for name, each in self.series().items()}

    def changes(self) -> list[tuple[str, State, State]]:
        """The alerts; each is told once."""
        untold = self.journal.untold(99)
        for each in untold:
            self.journal.mark_told(each, each.state, NOW)
        return [(each.name, each.told, each.state) for each in untold]


@on_both
class FailTests(FailCase):
    def test_until_the_next_push(self) -> None:
        """Told once, with the text, and again when a later push arrives."""
        self.push("db-1")
        self.report()
        series = self.series()["db-#"]
        self.assertEqual(
            (State.FAILED, NOW + 10, NOW + 10, "exited with 1"),
            (series.state, series.state_at, series.failed_at, series.failed_text),
        )
        self.assertEqual([("db-#", State.FRESH, State.FAILED)], self.changes())
        self.report(at=NOW + 20, text="again")
        self.assertEqual([], self.changes())
        self.assertEqual("again", self.series()["db-#"].failed_text)
        self.push("db-2", at=NOW + 30)
        series = self.series()["db-#"]
        self.assertEqual(
            (State.FRESH, None, None),
            (series.state, series.failed_at, series.failed_text),
        )
        self.assertEqual([("db-#", State.FAILED, State.FRESH)], self.changes())

    def test_new_patterns(self) -> None:
        """A failure goes with its pushes to another series, unless that has a later
        push; so does an upload that never ended.
        """
        self.push("a-1", "a-#")
        self.push("db-1")
        self.push("etc", "etc", at=NOW + 20)
        self.push("log-1", "log-#")
        for series in ("a-#", "db-#", "log-#"):
            self.report(series)
        found = [Abandoned("web01", "log-#", NOW + 15)]
        self.journal.abandon(found, {"web01": BUCKET}.get, NOW + 20)
        self.watch(evolve(BUCKET, series=("db-*", "log-*", "[ae]*")))
        self.assertEqual(
            {"db-*": State.FAILED, "log-*": State.FAILED, "[ae]*": State.FRESH},
            self.states(),
        )
        self.assertEqual("exited with 1", self.series()["db-*"].failed_text)
        self.push("log-2", "log-*", at=NOW + 12)
        self.assertEqual(State.UNFINISHED, self.states()["log-*"])
        self.watch(BUCKET)
        self.assertEqual(
            {
                "a-#": State.FRESH,
                "db-#": State.FAILED,
                "etc": State.FRESH,
                "log-#": State.UNFINISHED,
            },
            self.states(),
        )

    def test_fails_again(self) -> None:
        """Each night it is reported, also while it is late; but not each minute."""
        self.push("db-1")
        self.report()
        self.assertEqual([("db-#", State.FRESH, State.FAILED)], self.changes())
        self.report(at=NOW + 3000)
        self.assertEqual([], self.changes())
        self.journal.pass_time(NOW + 2 * DAY)
        self.assertEqual([("db-#", State.FAILED, State.LATE)], self.changes())
        self.report(at=NOW + 2 * DAY)
        self.assertEqual([("db-#", State.LATE, State.LATE)], self.changes())

    def test_order(self) -> None:
        """The times count, not the order in which they are written."""
        self.push("db-1", at=NOW + 20)
        self.report()
        self.assertEqual({"db-#": State.FRESH}, self.states())
        self.report(at=NOW + 25)
        self.report(at=NOW + 22, text="older")
        self.assertEqual("exited with 1", self.series()["db-#"].failed_text)
        self.push("db-2", at=NOW + 24)
        self.assertEqual({"db-#": State.FAILED}, self.states())

    def test_late(self) -> None:
        """Its schedule goes on."""
        self.push("db-1")
        self.report()
        self.journal.pass_time(NOW + 3600)
        self.assertEqual({"db-#": State.LATE}, self.states())

    def test_first(self) -> None:
        """The report adds a series, on which the schedule is applied, too."""
        self.report()
        self.assertEqual({"db-#": State.FAILED}, self.states())
        self.assertEqual(NOW + 10 + 3600, self.series()["db-#"].due)
        self.assertEqual([("db-#", State.NEVER, State.FAILED)], self.changes())
        self.push("db-1", at=NOW + 30)
        self.assertEqual([("db-#", State.FAILED, State.FRESH)], self.changes())

    def test_unwatched(self) -> None:
        """A series that no pattern matches: its alerts are run, too."""
        self.bucket = evolve(BUCKET, series=("etc-*",))
        self.watch(self.bucket)
        self.changes()
        self.report()
        self.assertEqual([("db-#", State.NEVER, State.FAILED)], self.changes())
        self.assertEqual(State.FAILED, self.states()["db-#"])
        self.journal.pass_time(NOW + DAY)
        self.assertEqual(State.FAILED, self.states()["db-#"])
        self.journal.record(
            [Received("web01", "db-#", "db-1", 100, "ab" * 32, NOW + 99, request="r")],
            [],
            {"web01": self.bucket}.get,
        )
        self.assertIn(("db-#", State.FAILED, State.FRESH), self.changes())
        self.report("etc-*", at=NOW + 100)
        self.assertTrue(self.states()["etc-*"] in (State.FAILED, State.LATE))

    def test_whole_bucket(self) -> None:
        """A report without a name ends with any push, and is never late."""
        self.push("db-1")
        self.report("")
        self.assertEqual({"db-#": State.FRESH, "": State.FAILED}, self.states())
        self.assertEqual([("", State.NEVER, State.FAILED)], self.changes())
        self.watch(BUCKET)
        self.assertEqual({"db-#": State.FRESH, "": State.FAILED}, self.states())
        self.push("etc-1", "etc-#", at=NOW + 5)
        self.assertEqual(State.FAILED, self.states()[""])
        self.push("etc-2", "etc-#", at=NOW + 40)
        self.assertEqual({"db-#", "etc-#"}, set(self.series()))
        self.assertEqual([("", State.FAILED, State.FRESH)], self.changes())
        self.watch(BUCKET)
        self.push("www-1", "www-#", at=NOW + 50)
        self.assertEqual({"db-#", "etc-#", "www-#"}, set(self.series()))

    def test_whole_bucket_without_a_push(self) -> None:
        """With a schedule and without one."""
        for bucket in (BUCKET, evolve(BUCKET, expect=None)):
            self.setUp()
            self.bucket = bucket
            self.watch(bucket)
            self.report("")
            self.watch(bucket)
            self.assertEqual({"": State.FAILED}, self.states())
            self.changes()
            self.journal.record(
                [Received("web01", "a#", "a1", 9, "ab" * 32, NOW + 99, request="r")],
                [],
                {"web01": bucket}.get,
            )
            self.assertEqual({"a#": State.FRESH}, self.states())
            self.assertIn(
                (State.FAILED, State.FRESH), [each[1:] for each in self.changes()]
            )

    def test_awaits_the_first_push(self) -> None:
        """A failure of a series in a bucket that awaits its first push."""
        self.watch(BUCKET, at=NOW)
        self.report()
        self.watch(BUCKET)
        self.assertEqual({"": State.NEVER, "db-#": State.FAILED}, self.states())
        self.push("db-1", at=NOW + 40)
        self.assertEqual({"db-#": State.FRESH}, self.states())
        self.assertTrue(self.journal._ask("SELECT watched FROM series")[0][0])

    def test_invented(self) -> None:
        """A client adds a limited number of series: those that failed last stay."""
        self.push("db-1")
        for number in range(MOST_INVENTED + 5):
            self.report(f"x{'y' * number}", at=NOW + 10 + number)
        self.report(at=NOW)
        found = self.series()
        self.assertEqual(1 + MOST_INVENTED, len(found))
        self.assertIn("db-#", found)
        self.assertNotIn("xyyyy", found)
        self.assertIn("xyyyyy", found)

    def test_invented_beside_patterns(self) -> None:
        """Those that are expected are not forgotten for them."""
        self.bucket = evolve(BUCKET, series=("etc-*",))
        self.watch(self.bucket, at=NOW)
        self.report("etc-*", at=NOW + 1)
        for number in range(MOST_INVENTED + 5):
            self.report(f"x{'y' * number}", at=NOW + 10 + number)
        self.assertEqual(1 + MOST_INVENTED, len(self.series()))
        self.assertEqual(State.FAILED, self.states()["etc-*"])

    def test_most_watched(self) -> None:
        """No schedule applies to any more."""
        for number in range(MOST_WATCHED):
            self.push(f"a{'b' * number}", f"a{'b' * number}")
        self.report("last")
        self.assertEqual(State.FAILED, self.states()["last"])
        self.assertEqual(float("inf"), self.series()["last"].due)

    def test_forgotten(self) -> None:
        """Nothing else would end a failure of a wrong name."""
        buckets = {"web01": self.bucket}.get
        self.watch(BUCKET, at=NOW)
        self.report("typo")
        self.report("")
        self.push("web02-1", "b#")
        self.journal.fail([Failed("web02", "b#", NOW + 10, "")], buckets, NOW)
        old = NOW + 10 + KEPT_FAILURE
        self.journal.forget_failures(old - 1, buckets)
        self.assertIn("typo", self.series())
        self.journal.forget_failures(old, buckets)
        self.assertNotIn("typo", self.series())

    def test_forgotten_but_expected(self) -> None:
        """A bucket still awaits its first push; and a series that had one is kept."""
        buckets = {"web01": self.bucket}.get
        self.watch(BUCKET, at=NOW)
        self.report("")
        old = NOW + 10 + KEPT_FAILURE
        self.journal.forget_failures(old, buckets)
        self.assertEqual({"": State.LATE}, self.states())
        self.push("db-1", at=old)
        self.report(at=old + 1)
        self.journal.forget_failures(old + 2 * KEPT_FAILURE, buckets)
        self.assertEqual({"db-#": State.FAILED}, self.states())

    def test_after_a_reload(self) -> None:
        """It stays, with or without a push, until the patterns change."""
        self.push("db-1")
        self.report()
        self.report("other")
        self.watch(BUCKET)
        failed = {"db-#": State.FAILED, "other": State.FAILED}
        self.assertEqual(failed, self.states())
        self.bucket = evolve(BUCKET, series=("db-*",))
        self.watch(self.bucket)
        self.assertEqual({"db-*"}, set(self.states()))

    def test_end_a_series(self) -> None:
        """The failure of a series that is not expected any more ends, too."""
        for name in ("db-1", "etc-1"):
            self.push(name, name.replace("1", "#"))
            self.report(name.replace("1", "#"))
        self.bucket = evolve(BUCKET, series=("db-#",))
        self.watch(self.bucket)
        self.assertEqual({"db-#": State.FAILED, "etc-#": State.FRESH}, self.states())
        self.report("etc-#", at=NOW + 40)
        self.watch(self.bucket, at=NOW + 50)
        self.assertEqual(State.FAILED, self.states()["etc-#"])
        # Without patterns, both are expected again.
        self.bucket = BUCKET
        self.watch(self.bucket, at=NOW + 60)
        self.assertEqual({State.FAILED}, set(self.states().values()))

    def test_removed_bucket(self) -> None:
        """No alerts about it."""
        self.push("db-1")
        self.report()
        self.report("other")
        self.changes()
        self.watch()
        self.assertEqual([], self.changes())
        self.assertEqual([], self.journal.untold(99, again=NOW + DAY))
        self.assertEqual({"db-#"}, set(self.series()))

    def test_clock(self) -> None:
        """A failure from the future would not end until then."""
        self.push("db-1")
        self.report(at=NOW + 10 * DAY)
        self.journal.mistrust(NOW + 60, {"web01": BUCKET}.get)
        self.assertEqual(NOW + 60, self.series()["db-#"].failed_at)
        self.push("db-2", at=NOW + 70)
        self.assertEqual({"db-#": State.FRESH}, self.states())


class PlanTests(FailCase):
    """The query plans of SQLite."""

    def test_plans(self) -> None:
        """A million series do not make these slow: each uses its index."""
        for query, index in (
            (
                "SELECT id FROM series WHERE told <> state"
                f" AND {journals._REPORTED} ORDER BY state_at LIMIT 1",
                "series_untold",
            ),
            (f"SELECT 1 FROM series WHERE {journals._OLD_FAILURE}", "series_failed"),
            (
                "SELECT 1 FROM series JOIN bucket ON bucket.id = series.bucket"
                f" {journals._UNTOLD}",
                "series_untold",
            ),
            (
                "SELECT 1 FROM series JOIN bucket ON bucket.id = series.bucket"
                f" {journals._UNTOLD}",
                "series_told",
            ),
            (
                "SELECT 1 FROM series JOIN bucket ON bucket.id = series.bucket"
                f" {journals._UNTOLD}",
                "series_failed_again",
            ),
            (journals._FORGET_INVENTED, "series_failed"),
            (journals._TOLD_LATER, "series_told"),
        ):
            given = (
                {"bucket": 1, "most": 1}
                if ":most" in query
                else (1.0,) * query.count("?")
            )
            plan = self.journal._connection.execute(
                f"EXPLAIN QUERY PLAN {query}", given
            )
            self.assertIn(index, "; ".join(detail for *_, detail in plan), query)


@on_both
class SpaceTests(JournalCase):
    """The free space."""

    def test_bounded(self) -> None:
        """The latest samples, one for each time."""
        self.patch(journals, "KEPT_SPACE", 5)
        for number in range(12):
            self.journal.note_space(Space(float(number), number, 100))
        self.journal.note_space(Space(11.0, 50, 100))
        found = self.view.space(0)
        self.assertEqual([7.0, 8.0, 9.0, 10.0, 11.0], [each.at for each in found])
        self.assertEqual(50, found[-1].free)
