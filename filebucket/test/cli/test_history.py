"""Reading and following the catalogue, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.cli import history
from filebucket.cli.history import Event, Wanted, follow, latest
from filebucket.model.records import File, FoundFile, Received, Refused
from filebucket.model.series import series_of
from filebucket.test.kit.catalogue import new_home, opened

NOW = 1_800_000_000.0


def series_of_refused(refused: Refused) -> str | None:
    return None if refused.name is None else series_of(refused.name, ())


class StopFollowingError(Exception):
    """The end of a test."""


ALL = Wanted(series_of_refused)


class HistoryCase(SynchronousTestCase):
    """Has a catalogue."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.journal = opened(self, Journal, self.home)

    def push(self, name: str, at: float, bucket: str = "web01") -> None:
        self.journal.record([self.received(name, at, bucket)], [], lambda key: None)

    def received(self, name: str, at: float, bucket: str = "web01") -> Received:
        return Received(
            *(bucket, series_of(name, ()), name, 9, "ab" * 32, NOW + at, 1.0),
            request="r",
        )

    def find(self, name: str, at: float) -> None:
        """Add a file that was found on the disk."""
        with closing(Inventory.open(str(self.home))) as inventory:
            found = evolve(self.received(name, at), request=None)
            inventory.enter([FoundFile(found)], NOW, {})

    def refuse(self, name: str | None, at: float, bucket: str = "web01") -> None:
        refused = Refused(bucket, NOW + at, name, 0, 405, "no", "::1", "r")
        self.journal.record([], [refused], lambda key: None)

    def replace(self) -> None:
        """Replace the catalogue by an empty one."""
        (self.home / FILE).rename(self.home / "old")
        self.journal = opened(self, Journal, self.home)


def names(events: list[Event]) -> list[str | None]:
    return [
        each.received.name if isinstance(each, File) else each.name for each in events
    ]


class LatestTests(HistoryCase):
    def test_merged(self) -> None:
        """Pushes and refusals in the order of their times."""
        self.push("db-1", 1)
        self.push("db-3", 3)
        self.refuse("db-2", 2)
        self.refuse(None, 4)
        self.push("www", 5, "web02")
        view = opened(self, View, self.home)
        for wanted, limit, expected in (
            (ALL, 9, ["db-1", "db-2", "db-3", None, "www"]),
            (ALL, 3, ["db-3", None, "www"]),
            (evolve(ALL, bucket="web01"), 9, ["db-1", "db-2", "db-3", None]),
            (evolve(ALL, series="db-*"), 9, ["db-1", "db-2", "db-3"]),
            (evolve(ALL, series="db-#"), 2, ["db-2", "db-3"]),
            (evolve(ALL, series="db-1"), 9, []),
            (evolve(ALL, since=NOW + 3), 9, ["db-3", None, "www"]),
            (evolve(ALL, pushes=False), 9, ["db-2", None]),
            (evolve(ALL, pushes=False, series="db-#"), 9, ["db-2"]),
            (evolve(ALL, refusals=False), 2, ["db-3", "www"]),
        ):
            self.assertEqual(expected, names(latest(view, wanted, limit)))

    def test_refusals_of_a_series(self) -> None:
        """The limit counts those of the series."""
        self.refuse("db-1", 1)
        self.refuse("db-2", 2)
        self.refuse("other", 3)
        view = opened(self, View, self.home)
        wanted = evolve(ALL, pushes=False, series="db-#")
        self.assertEqual(["db-2"], names(latest(view, wanted, 1)))


class FollowTests(HistoryCase):
    """The test continues whenever the follower waits."""

    def setUp(self) -> None:
        super().setUp()
        self.warnings: list[str] = []
        self.opened = 0

    def open(self) -> AbstractContextManager[View]:
        self.opened += 1
        return closing(View.open(str(self.home), create=False))

    def follow(
        self, steps: Iterator[None], wanted: Wanted = ALL, limit: int = 9
    ) -> list[list[str | None]]:
        """What it returns, until there are no more steps."""
        found: list[list[str | None]] = []
        warn = self.warnings.append
        events = follow(
            self.open,
            wanted,
            limit,
            lambda: next(steps),
            lambda error: warn(str(error)),
        )
        with self.assertRaises(StopFollowingError):
            found.extend(map(names, events))
        return found

    def test_new(self) -> None:
        """First the latest ones, then each new one once."""

        def steps() -> Iterator[None]:
            yield
            self.push("c", 3)
            yield
            yield
            self.refuse("e", 5)
            self.push("d", 4)
            yield
            raise StopFollowingError

        self.push("a", 1)
        self.push("b", 2)
        self.assertEqual([["b"], ["c"], ["d", "e"]], self.follow(steps(), limit=1))
        self.assertEqual(1, self.opened)

    def test_wanted(self) -> None:
        """Nothing is returned for others."""

        def steps() -> Iterator[None]:
            self.push("db-2", 3, "web02")
            self.push("etc-2", 3)
            self.refuse(None, 3)
            yield
            self.push("db-3", 4)
            self.refuse("db-4", 5)
            yield
            raise StopFollowingError

        self.push("db-1", 1)
        wanted = evolve(ALL, bucket="web01", series="db-*")
        self.assertEqual([["db-1"], ["db-3", "db-4"]], self.follow(steps(), wanted))

    def test_many(self) -> None:
        """They come in portions."""

        def steps() -> Iterator[None]:
            for number in range(7):
                self.push(f"p{number}", number)
            self.refuse("r", 0.5)
            yield
            raise StopFollowingError

        self.patch(history, "AT_ONCE", 3)
        expected = [[], ["p0", "r", "p1", "p2"], ["p3", "p4", "p5"], ["p6"]]
        self.assertEqual(expected, self.follow(steps()))

    def test_replaced(self) -> None:
        """The last rows of a replaced catalogue are returned, and those of the new one
        if they are new.
        """

        def steps() -> Iterator[None]:
            yield
            self.push("b", 2)
            self.refuse("r", 2)
            self.replace()
            # Files on disk are added in any order; one of them has no row.
            self.push("d", 4)
            self.find("a", 1)
            yield
            self.find("b", 2)
            self.find("c", 3)
            yield
            # It was received first, but its post-push hook took longer.
            self.push("e", 1.5)
            self.refuse("s", 1.5)
            yield
            raise StopFollowingError

        self.push("a", 1)
        expected = [["a"], ["b", "r"], ["d"], ["c"], ["e", "s"]]
        found = self.follow(steps())
        self.assertEqual(expected, found)
        self.assertEqual(2, self.opened)

    def test_older_copy(self) -> None:
        """A catalogue from a backup repeats nothing."""

        def steps() -> Iterator[None]:
            self.push("b", 2)
            self.refuse("r", 2)
            yield
            self.replace()
            self.push("a", 1)
            self.refuse("q", 1)
            self.push("c", 3)
            yield
            self.push("d", 4)
            yield
            raise StopFollowingError

        self.push("a", 1)
        self.assertEqual([["a"], ["b", "r"], ["c"], ["d"]], self.follow(steps()))

    def test_missing(self) -> None:
        """While the catalogue is gone, it tries again, and warns once."""

        def steps() -> Iterator[None]:
            path = self.home / FILE
            path.rename(self.home / "old")
            yield
            yield
            yield
            (self.home / "old").rename(path)
            self.push("b", 2)
            yield
            path.rename(self.home / "old")
            yield
            yield
            raise StopFollowingError

        self.push("a", 1)
        self.assertEqual([["a"], ["b"]], self.follow(steps()))
        self.assertEqual(2, len(self.warnings))
        self.assertIn("not created yet", self.warnings[0])

    def test_not_readable(self) -> None:
        """The first read must succeed."""
        self.journal.close()
        (self.home / FILE).unlink()
        events = follow(self.open, ALL, 9, self.fail, self.fail)
        self.assertRaises(CatalogueError, next, events)
