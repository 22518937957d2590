"""Tests of :mod:`filebucket.catalogue.batch`."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.batch import CLOCK_ERROR, MOST_WATCHED, enter_batch
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.records import Received, Series
from filebucket.model.schedule import Interval
from filebucket.model.state import State
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import all_series, new_home, on_both, opened

BUCKET = Bucket(
    (Token(bytes(32)),), "web01", "web01", expect=Interval(3600.0, "1h"), grow_alert=2.0
)
NOW = 1_795_000_000.0


def received(
    name: str = "db-1", at: float = NOW, size: int = 100, series: str = "db-#"
) -> Received:
    """A push to that bucket."""
    return Received("web01", series, name, size, f"{size:064}", at, request="r")


class BatchCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = new_home(self)
        self.journal = opened(self, Journal, self.home)
        self.view = opened(self, View, self.home)

    def enter(self, *rows: Received) -> None:
        """Add pushes in one batch."""
        with self.journal._change() as do:
            enter_batch(do, rows, {"web01": BUCKET}.get)

    def fates(self) -> list[tuple[str, int, str]]:
        """The fates of all pushes, in the order of their receipt."""
        files = sorted(self.view.latest(1000), key=lambda each: each.id)
        return [(each.received.name, each.received.size, each.fate) for each in files]

    def series(self) -> Series:
        (found,) = all_series(self.view)
        return found


@on_both
class EnterTests(BatchCase):
    """Pushes with names that exist already."""

    def test_same_name_in_a_batch(self) -> None:
        """The last one is kept, unless another file had replaced it before it ended."""
        self.enter(received(size=1), received(size=2), received("db-2", size=3))
        self.assertEqual(
            [("db-1", 1, "overwritten"), ("db-1", 2, "kept"), ("db-2", 3, "kept")],
            self.fates(),
        )
        late = evolve(received("db-3", size=5), superseded=True)
        self.enter(received("db-3", size=4), late)
        self.assertEqual(
            [("db-3", 4, "kept"), ("db-3", 5, "overwritten")], self.fates()[-2:]
        )
        self.assertEqual((3, 9, 5), self.totals())

    def totals(self) -> tuple[int, int, int]:
        found = self.series()
        return found.files, found.bytes, found.pushes

    def test_later_batch(self) -> None:
        """It takes the name."""
        self.enter(received(size=1))
        self.enter(received(size=2, at=NOW + 5))
        first, second = sorted(self.view.latest(9), key=lambda each: each.id)
        self.assertEqual(("overwritten", NOW + 5), (first.fate, first.fate_at))
        self.assertEqual(("kept", None), (second.fate, second.fate_at))

    def test_repeated(self) -> None:
        """If the answer of the database was lost, pushes are added again."""
        self.enter(received(size=1), received("db-2"))
        before = self.fates(), self.totals()
        self.enter(received(size=1), received("db-2"))
        self.assertEqual(before, (self.fates(), self.totals()))
        self.enter(received(size=1), received(size=2, at=NOW + 1))
        self.assertEqual(
            [
                ("db-1", 1, "overwritten"),
                ("db-1", 2, "kept"),
                ("db-2", 100, "kept"),
            ],
            sorted(self.fates()),
        )

    def test_found_before(self) -> None:
        """A file that was found on the disk before its push was added is that push."""
        found = evolve(received(), request=None)
        self.enter(found)
        self.enter(received())
        (file,) = self.view.latest(9)
        self.assertEqual("r", file.received.request)
        self.enter(evolve(found, sha256="0" * 64, name="db-2"))
        self.enter(received("db-2"))
        _, *fates = [fate for _, _, fate in self.fates()]
        self.assertEqual(["overwritten", "kept"], fates)

    def test_was_missing(self) -> None:
        """It exists again, with whatever content."""
        self.enter(received(size=1))
        (file,) = self.view.latest(1)
        opened(self, Inventory, self.home).missed([file.id], NOW + 1)
        self.assertEqual(1, self.series().missing)
        self.enter(received(size=2, at=NOW + 2))
        self.assertEqual(
            [("db-1", 1, "overwritten"), ("db-1", 2, "kept")], self.fates()
        )
        self.assertEqual(0, self.series().missing)

    def test_all_or_nothing(self) -> None:
        """If one cannot be added, none is."""
        broken = evolve(received("db-2"), name=None)  # type: ignore[arg-type]
        with self.assertRaisesRegex(Exception, "(?i)not.null"):
            self.enter(received(), broken)
        self.assertEqual([], self.fates())
        self.enter(received())
        self.assertEqual([("db-1", 100, "kept")], self.fates())


@on_both
class SeriesTests(BatchCase):
    """The series of pushes."""

    def test_first_push(self) -> None:
        """It ends the wait for a first push, whatever its name."""
        list(self.journal.watch([BUCKET], str, NOW))
        (before,) = all_series(self.view)
        self.assertEqual(("", State.NEVER), (before.name, before.state))
        self.enter(received("a-1", series="a-#"), received("b-1", series="b-#"))
        after = {each.name: each.id for each in all_series(self.view)}
        self.assertEqual(before.id, after.pop("a-#"))
        self.assertEqual({"b-#"}, set(after))

    def test_made_up(self) -> None:
        """Only a limited number of series is expected to continue, the oldest ones."""
        rows = [
            received(f"x{number}", series=f"s{number:03}")
            for number in range(MOST_WATCHED + 20)
        ]
        self.enter(*rows[:60])
        self.enter(*rows[60:])
        watched = self.journal._ask("SELECT name FROM series WHERE watched")
        expected = [f"s{number:03}" for number in range(MOST_WATCHED)]
        self.assertEqual(expected, sorted(name for (name,) in watched))

    def test_unknown_bucket(self) -> None:
        """Its pushes are added, but not judged."""
        self.enter(evolve(received(), bucket="gone"))
        found = self.series()
        self.assertEqual(("gone", State.FRESH), (found.bucket, found.state))
        self.assertIsNone(found.usual)


@on_both
class JudgementTests(BatchCase):
    """How a push is judged by those before it."""

    def judgements(self) -> list[str]:
        files = sorted(self.view.latest(100), key=lambda each: each.id)
        return [each.judgement.value for each in files]

    def test_in_one_batch_or_many(self) -> None:
        sizes = [100, 100, 100, 10, 100, 900, 100]
        rows = [
            received(f"db-{index}", NOW + index, size)
            for index, size in enumerate(sizes)
        ]
        expected = ["fresh"] * 3 + ["shrunk", "fresh", "grown", "fresh"]
        self.enter(*rows)
        self.assertEqual(expected, self.judgements())
        at_once = self.series()
        self.setUp()
        for row in rows:
            self.enter(row)
        self.assertEqual(expected, self.judgements())
        self.assertEqual(at_once, evolve(self.series(), state_at=at_once.state_at))
        self.assertEqual((State.FRESH, 100), (at_once.state, at_once.usual))

    def test_empty(self) -> None:
        """An empty file is never fresh, whether the first or one of many."""
        self.enter(received("db-1", NOW, 0))
        self.assertEqual(["empty"], self.judgements())
        self.assertEqual(State.EMPTY, self.series().state)
        self.enter(received("db-2", NOW + 1, 500))
        self.assertEqual(State.FRESH, self.series().state)
        nothing = gzip.compress(b"", mtime=0)
        sha256 = hashlib.sha256(nothing).hexdigest()
        row = evolve(received("db-3", NOW + 2, len(nothing)), sha256=sha256)
        self.enter(row, evolve(row, name="db-4.gz", sha256="00" * 32))
        self.assertEqual(["empty", "fresh", "empty", "empty"], self.judgements())
        self.assertEqual(
            (State.EMPTY, None), (self.series().state, self.series().usual)
        )

    def test_always_empty(self) -> None:
        """Empty files do not become usual."""
        for number in range(6):
            self.enter(received(f"db-{number}", NOW + number, 0))
        self.assertEqual(["empty"] * 6, self.judgements())
        self.assertEqual(State.EMPTY, self.series().state)

    def test_of_the_future(self) -> None:
        """Pushes from when the clock was far ahead are not compared."""
        ahead = [received(f"a-{n}", NOW + 2 * CLOCK_ERROR + n, 9000) for n in range(4)]
        self.enter(*ahead)
        self.enter(*(received(f"db-{n}", NOW + n) for n in range(5)))
        self.assertEqual(100, self.series().usual)
        self.assertEqual(["fresh"] * 9, self.judgements())


@on_both
class CostTests(BatchCase):
    """The number of statements, whatever the size of a batch."""

    def count(self, number: int) -> int:
        """The number of statements for this many pushes."""
        statements = []

        def counted(statement: str, *values: Any) -> Any:
            statements.append(statement)
            return do(statement, *values)

        rows = [received(f"{number}-{index}") for index in range(number)]
        with self.journal._change() as do:
            enter_batch(counted, rows, {"web01": BUCKET}.get)
        return len(statements)

    def test_count(self) -> None:
        """After the first push, with which the others are compared."""
        self.count(1)
        self.assertEqual(self.count(10), self.count(1000))
