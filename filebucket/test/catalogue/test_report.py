"""Tests of :mod:`filebucket.catalogue.report`."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.overview import Known
from filebucket.catalogue.report import DAY, Report, filling, make_report, silent, total
from filebucket.catalogue.view import View
from filebucket.model.bucket import FILE_COST, Bucket
from filebucket.model.records import Activity, Received, Refused
from filebucket.model.schedule import Interval
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import new_home, on_both, opened

NOW = 1_800_000_000.0
SINCE = NOW - 7 * DAY


class ReportCase(SynchronousTestCase):
    """Has two buckets in a catalogue."""

    def setUp(self) -> None:
        home = new_home(self)
        self.inventory = opened(self, Inventory, home)
        self.journal = opened(self, Journal, home)
        self.view = opened(self, View, home)
        self.web = Bucket((Token(bytes(32)),), "web", "web")
        self.db = Bucket((Token(b"1" * 32),), "db", "db")

    def push(self, name: str, size: int, days: float, key: str = "web") -> int:
        """Push this many days ago. Returns the row's id."""
        row = Received(key, "s", name, size, "ab" * 32, NOW - days * DAY, request="r")
        known = {"web": self.web, "db": self.db}
        self.journal.record([row], [], known.get)
        found = self.journal.find(key, name)
        assert found is not None
        return found.id

    def report(self) -> Report:
        known = Known([self.web, self.db], NOW)
        return make_report(self.view, known, SINCE)

    def activity(self, key: str = "web") -> Activity:
        (found,) = (
            each.activity for each in self.report().buckets if each.now.bucket == key
        )
        return evolve(found, since=None)


@on_both
class ActivityTests(ReportCase):
    """What happened in the period."""

    def test_nothing(self) -> None:
        self.assertEqual(Activity("web"), self.activity())
        self.push("old", 5, 8)
        self.assertEqual(Activity("web"), self.activity())

    def test_pushes(self) -> None:
        """All that arrived, and what is left of it."""
        self.push("a", 5, 8)
        self.push("b", 7, 6)
        self.push("b", 11, 5)
        expected = Activity("web", pushes=2, received=18, files=1, bytes=11)
        self.assertEqual(expected, self.activity())

    def test_replaced(self) -> None:
        """A file that was there before is replaced by a larger one."""
        self.push("a", 5, 8)
        self.push("a", 9, 1)
        expected = Activity("web", pushes=1, received=9, files=0, bytes=4)
        self.assertEqual(expected, self.activity())

    def test_pruned(self) -> None:
        """Files of before count negatively, files of the period not at all; files
        pruned earlier and files about to be pruned do not count.
        """
        old, new, earlier, later = (
            self.push(name, size, days)
            for name, size, days in (
                ("a", 5, 9),
                ("b", 7, 3),
                ("c", 11, 9),
                ("d", 1, 9),
            )
        )
        self.inventory.ended(earlier, "pruned", NOW - 8 * DAY)
        self.inventory.ended(old, "pruned", NOW - 2 * DAY)
        self.inventory.ended(new, "pruned", NOW - 1 * DAY)
        self.inventory.prune([later], NOW)
        expected = Activity("web", 1, 7, files=-1, bytes=-5, pruned=2, pruned_bytes=12)
        self.assertEqual(expected, self.activity())

    def test_missing(self) -> None:
        self.inventory.missed([self.push("a", 5, 9)], NOW)
        self.assertEqual(Activity("web", files=-1, bytes=-5), self.activity())

    def test_found_on_disk(self) -> None:
        """Files of a rebuilt catalogue were not pushed in this period."""
        row = Received("web", "s", "a", 5, "ab" * 32, NOW - DAY)
        self.journal.record([row], [], {"web": self.web}.get)
        self.assertEqual(Activity("web", files=1, bytes=5), self.activity())

    def test_refusals(self) -> None:
        def refuse(key: str, days: float) -> None:
            refused = Refused(key, NOW - days * DAY, None, 1, 405, "no", "c", "r")
            self.journal.record([], [refused], lambda key: None)

        for key, days in (("web", 1), ("web", 2), ("web", 9), ("", 1), ("gone", 1)):
            refuse(key, days)
        self.assertEqual(2, self.activity().refused)
        self.assertEqual(1, self.report().strangers)

    def test_sum(self) -> None:
        """Growth is the difference of what is kept, whatever happens."""
        kept = [0]
        for day in range(1, 15):
            self.push(f"a{day % 5}", day * 100, 15 - day)
            if day % 3 == 0:
                file = self.journal.find("web", f"a{(day - 1) % 5}")
                assert file is not None
                self.inventory.ended(file.id, "pruned", NOW - (15 - day) * DAY)
            kept.append(sum(each.bytes for each in self.view.tallies(NOW)))
        # The eighth day begins the period.
        self.assertEqual(kept[14] - kept[7], self.activity().bytes)


@on_both
class OrderTests(ReportCase):
    """The order of buckets, and their totals."""

    def test_largest_first(self) -> None:
        self.push("a", 5, 1)
        self.push("a", 6, 1, "db")
        names = [each.now.label for each in self.report().buckets]
        self.assertEqual(["db", "web"], names)
        found = total(self.report().buckets)
        self.assertEqual((2, 11, 11), (found.pushes, found.received, found.bytes))

    def test_worst_first(self) -> None:
        file = self.push("a", 5, 1)
        self.push("a", 6, 1, "db")
        self.inventory.verified([(file, True, NOW)])
        names = [each.now.label for each in self.report().buckets]
        self.assertEqual(["web", "db"], names)

    def test_silent(self) -> None:
        """Buckets that expect a push come first; retired ones are not listed."""
        self.push("a", 5, 20)
        self.push("a", 5, 30, "db")
        self.assertEqual(["db", "web"], self.silent())
        self.web = evolve(self.web, expect=Interval(DAY, "1d"))
        self.assertEqual(["web", "db"], self.silent())
        self.db = evolve(self.db, retired=True)
        self.assertEqual(["web"], self.silent())
        self.push("b", 5, 1)
        self.assertEqual([], self.silent())

    def silent(self) -> list[str]:
        return [each.now.label for each in silent(self.report())]


@on_both
class FullTests(ReportCase):
    """When a quota is used up at the present rate."""

    def full_in(self, quota: int | None) -> float | None:
        """Days until it is used up."""
        self.web = evolve(self.web, quota=quota)
        found = filling(self.report())
        if not found:
            return None
        ((at),) = (each.full_at for each in found)
        assert at is not None
        return (at - NOW) / DAY

    def test_rate(self) -> None:
        self.push("a", 1000, 20)
        self.push("b", 700 - FILE_COST % 700, 1)
        self.assertIsNone(self.full_in(None))
        grown = 700 - FILE_COST % 700 + FILE_COST
        taken = 1000 + FILE_COST + grown
        self.assertAlmostEqual(7, self.full_in(taken + grown) or 0)
        self.assertAlmostEqual(70, self.full_in(taken + 10 * grown) or 0)
        self.assertEqual(0, self.full_in(taken))

    def test_new_bucket(self) -> None:
        """Its rate is that since its first push."""
        self.push("a", 1000, 2)
        self.assertAlmostEqual(2, self.full_in(2 * (1000 + FILE_COST)) or 0)

    def test_too_new(self) -> None:
        """A single day is needed for a rate."""
        self.push("a", 1000, 0.9)
        self.assertIsNone(self.full_in(2 * (1000 + FILE_COST)))

    def test_no_growth(self) -> None:
        self.push("a", 1000, 20)
        self.assertIsNone(self.full_in(1 << 20))
