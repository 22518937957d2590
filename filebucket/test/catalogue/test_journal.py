"""The catalogue."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.catalogue import database
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.journal import Catalogue
from filebucket.catalogue.overview import look
from filebucket.model.bucket import Bucket
from filebucket.model.records import Received, Series, Space
from filebucket.model.schedule import Interval
from filebucket.model.state import WORST_FIRST, State
from filebucket.model.token import Token
from filebucket.test.kit.server import PATIENCE

LOOK = """
import sys
from filebucket.catalogue.journal import Catalogue
catalogue = Catalogue.open(sys.argv[1], create=False)
print(len(catalogue.space(0)))
catalogue.close()
"""
"""What another process does."""

NOBODY = 65534


class OpeningTests(SynchronousTestCase):
    """Several connections, of several processes."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        (self.home / ".filebucket").mkdir(parents=True)

    def open(self, create: bool = True) -> Catalogue:
        catalogue = Catalogue.open(str(self.home), create)
        self.addCleanup(catalogue.close)
        return catalogue

    def seen_by_another(self) -> int:
        """Looks at the free space that another process finds."""
        command = [sys.executable, "-c", LOOK, str(self.home)]
        found = subprocess.run(
            command, capture_output=True, check=True, timeout=PATIENCE
        )
        return int(found.stdout)

    def test_second_connection(self) -> None:
        """It takes nothing from the first one: what that writes stays to be found."""
        for create in (True, False):
            catalogue = self.open()
            catalogue.look_at_space(Space(1.0, 1, 2))
            self.open(create)
            self.assertEqual(1, self.seen_by_another())
            # Had that been the last one to know of the log, the log would be gone.
            self.assertTrue((self.home / f"{FILE}-wal").exists())
            catalogue.look_at_space(Space(2.0, 1, 2))
            self.assertEqual(2, self.seen_by_another())
            catalogue.close()
            self.setUp()

    def test_made_by_another(self) -> None:
        """Who comes while it is being made waits until it is; SQLite does not."""
        busy = sqlite3.OperationalError("database is locked")
        busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL

        class Connection(sqlite3.Connection):
            """Says these first."""

            faults: ClassVar[list[Exception]] = []

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if "journal_mode" in sql and self.faults:
                    raise self.faults.pop()
                return super().execute(sql, *values)

        connect = partial(sqlite3.connect, factory=Connection)
        self.patch(sqlite3, "connect", connect)
        Connection.faults = [busy] * 3
        self.open().look_at_space(Space(1.0, 1, 2))
        Connection.faults = [full]
        self.assertRaises(CatalogueError, self.open)
        self.assertEqual([], Connection.faults)
        self.patch(database, "BUSY_TIMEOUT", 0.0)
        Connection.faults = [busy] * 3
        self.assertRaises(CatalogueError, self.open)

    def test_mode(self) -> None:
        """It is its owner's only, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.open().look_at_space(Space(1.0, 1, 2))
        modes = {
            stat.S_IMODE(path.stat().st_mode)
            for path in (self.home / ".filebucket").iterdir()
        }
        self.assertEqual({0o600}, modes)

    def test_none(self) -> None:
        """Looked for, and not made."""
        with self.assertRaisesRegex(CatalogueError, "there is no catalogue yet: "):
            self.open(create=False)
        self.assertEqual([], os.listdir(self.home / ".filebucket"))

    def test_not_to_be_seen(self) -> None:
        """That is something else."""
        if os.geteuid():
            raise SkipTest("only root can become somebody else")
        self.open()
        (self.home / ".filebucket").chmod(0o700)
        os.seteuid(NOBODY)
        try:
            with self.assertRaisesRegex(CatalogueError, "^Permission denied$"):
                self.open(create=False)
        finally:
            os.seteuid(0)

    def test_made_by_two(self) -> None:
        """Who finds it made writes to no log that is then removed with the one of a
        catalogue that was there before.
        """
        others: list[threading.Thread] = []

        def open_and_write() -> None:
            with closing(Catalogue.open(str(self.home))) as catalogue:
                catalogue.look_at_space(Space(1.0, 1, 2))
                written.set()
                done.wait(60)

        def unlink(path: str) -> None:
            if not others:
                others.append(threading.Thread(target=open_and_write))
                others[0].start()
                # It must be held up, and that is seen by nothing but waiting.
                written.wait(0.5)
            real(path)

        written, done, real = threading.Event(), threading.Event(), os.unlink
        self.patch(os, "unlink", unlink)
        try:
            self.open().look_at_space(Space(2.0, 1, 2))
            self.assertTrue(written.wait(60))
            self.assertEqual(2, self.seen_by_another())
        finally:
            done.set()
            others[0].join(60)

    def test_log_does_not_stay_large(self) -> None:
        """Whoever reads for long makes it grow, and afterwards it is cut."""
        self.patch(database, "MOST_LOG", 100_000)
        catalogue = self.open()
        with closing(sqlite3.connect(self.home / FILE)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM space").fetchall()
            for number in range(1000):
                catalogue.look_at_space(Space(number, 1, 2))
            log = self.home / f"{FILE}-wal"
            self.assertLess(1_000_000, log.stat().st_size)
        for number in range(3):
            catalogue.look_at_space(Space(2000 + number, 1, 2))
        self.assertGreaterEqual(100_000, log.stat().st_size)


NOW = 1_800_000_000.0
HOUR = 3600.0


class ManySeriesTests(SynchronousTestCase):
    """Series that a client makes up are counted, and the worst of them shown."""

    def setUp(self) -> None:
        home = Path(self.mktemp()).absolute()
        (home / ".filebucket").mkdir(parents=True)
        self.catalogue = Catalogue.open(str(home))
        self.addCleanup(self.catalogue.close)
        self.buckets = [
            Bucket(
                (Token(bytes([index]) * 32),),
                name,
                name,
                expect=Interval(26 * HOUR, "26h"),
                grow_alert=2.0,
            )
            for index, name in enumerate(("many", "few", "none"))
        ]
        for index in range(60):
            for hours in (100, 80, 60, 40 if index % 2 else 20):
                self.push("many", f"s{chr(97 + index % 26)}{index // 26}", hours)
        self.push("many", "shrunk", *(30, 20, 10, 2), last=100)
        self.push("many", "grown", *(30, 20, 10, 2), last=9000)
        self.push("many", "lost", 3)
        self.push("few", "x", 1)
        self.push("unknown", "x", 1)
        self.catalogue.watch(self.buckets, str, NOW)
        file = self.catalogue.find("many", "lost3")
        assert file is not None
        self.catalogue.verified([(file.id, True, NOW)])

    def push(self, key: str, series: str, *hours: int, last: int = 1000) -> None:
        """Pushes so many hours ago."""
        known = {each.key: each for each in self.buckets}
        for each in hours:
            size = last if each == hours[-1] else 1000
            name = f"{series}{each}"
            pushed = Received(
                key, series, name, size, "ab" * 32, NOW - each * HOUR, request="r"
            )
            self.catalogue.record([pushed], [], known.get)

    def test_tallies(self) -> None:
        """The same as of all series, one by one, at any time."""
        for now in (NOW - 10 * HOUR, NOW, NOW + 10 * HOUR, NOW + 1000 * HOUR):
            found = {each.bucket: each for each in self.catalogue.tallies(now)}
            keys = {each.bucket for each in self.catalogue.series()}
            self.assertEqual({"many", "few", "unknown", "none"}, keys)
            self.assertEqual(keys, set(found))
            for key, tally in found.items():
                series = self.catalogue.series(key)
                states = [
                    State.LATE if each.due <= now else each.state for each in series
                ]
                self.assertEqual(
                    {state: states.count(state) for state in states}, dict(tally.states)
                )
                self.assertEqual(sum(each.files for each in series), tally.files)
                self.assertEqual(sum(each.bytes for each in series), tally.bytes)
                self.assertEqual(sum(each.damaged for each in series), tally.damaged)
                self.assertEqual(sum(each.missing for each in series), tally.missing)
                came = [each.last_at for each in series if each.last_at is not None]
                self.assertEqual(max(came, default=None), tally.last_at)
                self.assertEqual(min(each.due for each in series), tally.due)

    def test_worst(self) -> None:
        """What is lost first, then by the state at that time, then by name."""

        def badness(series: Series) -> tuple[bool, int, str]:
            state = State.LATE if series.due <= now else series.state
            return not series.damaged, WORST_FIRST.index(state), series.name

        for now in (NOW - 10 * HOUR, NOW, NOW + 10 * HOUR):
            series = sorted(self.catalogue.series("many"), key=badness)
            for limit in (0, 1, 20, 1000):
                worst = self.catalogue.worst("many", now, limit)
                self.assertEqual(series[:limit], worst)
        self.assertEqual([], self.catalogue.worst("nowhere", NOW, 20))

    def test_overview(self) -> None:
        """Some are shown, and all are counted."""
        many, few, none = look(self.catalogue, self.buckets, NOW).buckets
        self.assertEqual((20, 43), (len(many.series), many.more))
        self.assertEqual((State.LATE, 2, 249), (many.state, many.severity, many.files))
        self.assertEqual("lost", many.series[0].name)
        self.assertEqual(
            {State.LATE: 30, State.FRESH: 31, State.SHRUNK: 1, State.GROWN: 1},
            dict(many.states),
        )
        self.assertEqual(4, len(many.series[1].sizes))
        self.assertEqual((State.FRESH, 0, 1), (few.state, few.more, few.files))
        self.assertEqual(NOW - HOUR, few.last_at)
        self.assertEqual((State.NEVER, None), (none.state, none.last_at))
        self.assertEqual("", none.series[0].name)


BUCKET = Bucket((Token(b"x" * 32),), "web01", "web01")


def received(name: str, at: float, series: str = "db-#", size: int = 100) -> Received:
    """A push of that bucket."""
    return Received("web01", series, name, size, "0" * 64, at, request="r")


class PruningQueryTests(SynchronousTestCase):
    """What pruning asks of it, and tells it."""

    def setUp(self) -> None:
        home = Path(self.mktemp())
        (home / ".filebucket").mkdir(parents=True)
        self.catalogue = Catalogue.open(str(home))
        self.addCleanup(self.catalogue.close)

    def enter(self, *files: Received) -> None:
        self.catalogue.record(files, (), lambda key: BUCKET)

    def fates(self) -> dict[str, tuple[str, float | None]]:
        rows = self.catalogue.latest(100)
        return {each.received.name: (each.fate, each.fate_at) for each in rows}

    def ids(self, *names: str) -> list[int]:
        found = (self.catalogue.find("web01", name) for name in names)
        return [each.id for each in found if each is not None]

    def test_pages(self) -> None:
        """The latest first, of the same moment the one entered last; none twice."""
        self.enter(*(received(f"db-{n}", float(n // 3)) for n in range(10)))
        self.enter(received("other", 99.0, "other"))
        ((series, name), _) = self.catalogue.series_with_files("web01")
        self.assertEqual("db-#", name)
        for limit in range(1, 12):
            names: list[str] = []
            page = self.catalogue.kept_in_series(series, limit=limit)
            while page:
                self.assertLessEqual(len(page), limit)
                names += [each.received.name for each in page]
                before = (page[-1].received.received_at, page[-1].id)
                page = self.catalogue.kept_in_series(series, before, limit)
            self.assertEqual([f"db-{n}" for n in range(9, -1, -1)], names)

    def test_pages_are_looked_up(self) -> None:
        """Nothing is sorted, however many files there are."""
        said: list[str] = []
        self.catalogue._connection.set_trace_callback(said.append)
        self.catalogue.kept_in_series(1, (9.0, 9))
        self.catalogue._connection.set_trace_callback(None)
        plan = [
            text for *_, text in self.catalogue._ask(f"EXPLAIN QUERY PLAN {said[0]}")
        ]
        self.assertIn(
            "SEARCH push USING INDEX push_series (series=? AND received_at<?)", plan
        )
        self.assertEqual([], [each for each in plan if "TEMP" in each])

    def test_series(self) -> None:
        """Those that have files, some at a time."""
        self.enter(*(received(f"{n}", 1.0, f"s{n}") for n in "abcd"))
        self.catalogue.ended(self.ids("b")[0], "missing", 2.0)
        found: list[str] = []
        after = 0
        while page := self.catalogue.series_with_files("web01", after, limit=2):
            self.assertLessEqual(len(page), 2)
            found += [name for _, name in page]
            after = page[-1][0]
        self.assertEqual(["sa", "sc", "sd"], found)
        self.assertEqual([], self.catalogue.series_with_files("other"))

    def test_pruned(self) -> None:
        """Files and bytes of a series go with the file, and not before."""
        self.enter(received("db-1", 1.0), received("db-2", 2.0))
        ids = self.ids("db-1")
        self.catalogue.prune(ids, 9.0)
        self.assertEqual([2], self.series("files"))
        (going,) = self.catalogue.being_pruned()
        self.assertEqual("db-1", going.received.name)
        self.catalogue.pruned(ids)
        self.assertEqual(
            {"db-1": ("pruned", 9.0), "db-2": ("kept", None)}, self.fates()
        )
        self.assertEqual([1], self.series("files"))
        self.assertEqual([100], self.series("bytes"))
        self.assertEqual([], self.catalogue.being_pruned())

    def series(self, what: str) -> list[int]:
        return [getattr(each, what) for each in self.catalogue.series()]

    def test_spared(self) -> None:
        """As if nothing had been."""
        self.enter(received("db-1", 1.0))
        self.catalogue.prune(self.ids("db-1"), 9.0)
        self.catalogue.spared(self.ids("db-1"))
        self.assertEqual({"db-1": ("kept", None)}, self.fates())
        self.assertEqual([], self.catalogue.being_pruned())

    def test_missing_while_it_is_pruned(self) -> None:
        """Whoever finds it missing finds it pruned: nobody is to be alarmed."""
        self.enter(received("db-1", 1.0), received("db-2", 2.0))
        self.catalogue.prune(self.ids("db-1"), 9.0)
        first, second = self.ids("db-1", "db-2")
        self.assertEqual([second], self.catalogue.missed([first, second], 10.0))
        self.assertEqual(
            {"db-1": ("pruned", 9.0), "db-2": ("missing", 10.0)}, self.fates()
        )
        self.assertEqual([1], self.series("missing"))
        self.assertEqual([0], self.series("files"))
        self.assertEqual([0], self.series("bytes"))

    def test_replaced_while_it_is_pruned(self) -> None:
        """A push that takes the name is another file, and stays."""
        self.enter(received("db-1", 1.0))
        ids = self.ids("db-1")
        self.catalogue.prune(ids, 9.0)
        self.enter(received("db-1", 5.0))
        self.catalogue.pruned(ids)
        self.catalogue.spared(ids)
        rows = self.catalogue.latest(9)
        self.assertEqual(["kept", "overwritten"], [each.fate for each in rows])

    def test_is_on_the_disk(self) -> None:
        """What is about to go is written down for good first; nothing else waits for
        the disk."""
        said: list[str] = []
        self.catalogue._connection.set_trace_callback(said.append)
        self.enter(received("db-1", 1.0))
        del said[:]
        self.catalogue.prune(self.ids("db-1"), 9.0)
        order = [each.split()[0] for each in said if "SELECT" not in each.split()[0]]
        self.assertEqual(["PRAGMA", "BEGIN", "UPDATE", "COMMIT", "PRAGMA"], order)
        pragmas = [each for each in said if each.startswith("PRAGMA")]
        self.assertEqual(
            ["PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"], pragmas
        )


class OnDiskTests(SynchronousTestCase):
    """What compares it with the disk, a million files or not."""

    def setUp(self) -> None:
        home = Path(self.mktemp()).absolute()
        (home / ".filebucket").mkdir(parents=True)
        self.catalogue = Catalogue.open(str(home))
        self.addCleanup(self.catalogue.close)
        names = [f"{number:02}" for number in range(10)]
        self.catalogue.record(
            [Received("web01", "s", name, 1, "", 1.0, request=name) for name in names],
            [],
            lambda key: None,
        )
        self.ids = {
            each.received.name: each.id for each in self.catalogue.latest(len(names))
        }

    def test_pieces(self) -> None:
        """By their names, of one bucket and of one fate."""
        self.catalogue.missed([self.ids["03"], self.ids["07"]], 2.0)
        found, after = [], ""
        while rows := self.catalogue.rows("web01", "kept", after, 3):
            self.assertLessEqual(len(rows), 3)
            found += [each.name for each in rows]
            after = rows[-1].name
        self.assertEqual(["00", "01", "02", "04", "05", "06", "08", "09"], found)
        missing = self.catalogue.rows("web01", "missing", "03")
        self.assertEqual(["07"], [each.name for each in missing])
        self.assertEqual([], self.catalogue.rows("web02", "kept"))
        unknown = self.catalogue.unknown("web01", ["x", "03", "02", "a"])
        self.assertEqual(["x", "03", "a"], unknown)

    def test_missed_and_back(self) -> None:
        """Whose state changed is said; what has another in its place stays gone."""
        ids = [self.ids[name] for name in ("01", "02", "03")]
        self.catalogue.ended(ids[0], "pruned", 2.0)
        self.assertEqual(ids[1:], self.catalogue.missed(ids, 3.0))
        self.catalogue.record(
            [Received("web01", "s", "02", 1, "", 4.0, request="x")],
            [],
            lambda key: None,
        )
        self.assertEqual(ids[2:], self.catalogue.came_back(ids))
        fates = {each.id: each.fate for each in self.catalogue.latest(20)}
        self.assertEqual(
            ["pruned", "overwritten", "kept"], [fates[each] for each in ids]
        )

    def test_to_verify(self) -> None:
        """What waits longest comes first, and what was damaged whenever that was."""
        by_name = [self.ids[name] for name in sorted(self.ids)]
        self.catalogue.verified([(by_name[0], False, 5.0), (by_name[1], True, 9.0)])
        ids, size = self.catalogue.to_verify(["web01", "web02"], 5.0)
        self.assertEqual([*by_name[2:], *by_name[:2]], list(ids))
        self.assertEqual(10, size)
        ids, _ = self.catalogue.to_verify(["web01"], 4.0)
        self.assertEqual([*by_name[2:], by_name[1]], list(ids))
        self.assertEqual(([], 0), (list(self.catalogue.to_verify([], 5.0)[0]), 0))
        rows = self.catalogue.kept_rows([by_name[1], by_name[0], 99])
        self.assertEqual(
            [("web01", "01", 9.0, True), ("web01", "00", 5.0, False)],
            [(key, row.name, row.known_at, row.damaged) for key, row in rows],
        )

    def test_indexes(self) -> None:
        """Nothing that is asked for each piece looks at all rows."""
        asked: list[str] = []
        connection = self.catalogue._connection
        connection.set_trace_callback(asked.append)
        self.catalogue.rows("web01", "kept", "03")
        self.catalogue.rows("web01", "missing", "03")
        self.catalogue.unknown("web01", ["x"])
        self.catalogue.kept_rows([1, 2])
        self.catalogue.missed([1, 2], 2.0)
        self.catalogue.came_back([1, 2])
        connection.set_trace_callback(None)
        plans = [
            detail
            for query in asked
            if query.startswith(("SELECT", "UPDATE"))
            for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {query}")
        ]
        self.assertIn("push_kept", " ".join(plans))
        self.assertIn("push_gone", " ".join(plans))
        self.assertEqual([], [plan for plan in plans if plan.startswith("SCAN push")])
