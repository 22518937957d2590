"""Random operations do the same to a catalogue in SQLite and one in PostgreSQL."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from attrs import asdict, astuple, evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.copies import Copies
from filebucket.catalogue.files import Files
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.place import Place
from filebucket.model.problem import Kind, ToldProblem
from filebucket.model.records import (
    Abandoned,
    Drill,
    Failed,
    File,
    FoundFile,
    HookRun,
    Received,
    Refused,
    Row,
    Series,
    Space,
)
from filebucket.model.schedule import Interval
from filebucket.model.series import series_of
from filebucket.model.token import Token
from filebucket.test.kit.catalogue import all_series, new_database, new_home

OPERATIONS = int(os.environ.get("FILEBUCKET_EXAMPLES") or 40)
"""Operations of each seed."""

NAMES = (
    *("a", "A", "b", "B", "_", "~", "z.gz", "Z.gz", "10", "9", "a b", "a-b", "ab"),
    *(
        "\xe4",
        "\xc4",
        "\u0131",
        "\u6587",
        "\U0001f4be",
        "\ufffd",
        "\xdf",
        "ss",
        "%",
        "?",
    ),
    *("db-1.gz", "db-2.gz", "DB-1.gz", "[x]", "'; DROP TABLE push; --", "%s", ":at"),
)
SIZES = (0, 20, 29, 45, 1000, 1001, 900, 10**6, 2**40)
TEXTS = ("failed", "[x \\u00", "\\u0000", "\n\t%s ?1 :at", "\U0001f4be", "")


class Both:
    """Operations on both catalogues, which compares what they return."""

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self.case = case
        self.random = random.Random(seed)
        self.now = 1e9
        self.count = 0
        self.buckets = [
            Bucket((Token(bytes([number] * 32)),), name, name)
            for number, name in enumerate(("web01", "Web02", "\xe4"))
        ]
        places: list[Place] = [os.fspath(new_home(case)), new_database()]
        self.sides: list[dict[Any, Any]] = [
            {kind: kind.open(place) for kind in (Journal, *READERS)} for place in places
        ]
        for side in self.sides:
            for each in side.values():
                case.addCleanup(each.close)

    def both(self, kind: Any, operation: Callable[[Any], Any]) -> Any:
        """What an operation returns, which must be the same for both."""
        first, second = (operation(side[kind]) for side in self.sides)
        self.case.assertEqual(_plain(first), _plain(second))
        return first

    def some(self, kind: Any, operation: Callable[[Any, list[File]], Any]) -> None:
        """The same with some files, which have different ids."""
        files = [side[View].latest(10_000) for side in self.sides]
        keys = self.random.sample(range(len(files[0])), min(3, len(files[0])))
        first, second = (
            operation(side[kind], [found[key] for key in keys])
            for side, found in zip(self.sides, files, strict=True)
        )
        self.case.assertEqual(_plain(first), _plain(second))

    def of(self, key: str) -> Bucket | None:
        return {each.key: each for each in self.buckets}.get(key)

    def received(self) -> Received:
        bucket, name = self.bucket(), self.random.choice(NAMES)
        self.count += 1
        return Received(
            bucket=bucket.key,
            series=series_of(name, bucket.series),
            name=name,
            size=self.random.choice(SIZES),
            sha256=self.random.choice("abc") * 64,
            received_at=self.time(),
            seconds=self.random.choice((None, 0.1, 1e-9)),
            client=self.random.choice((None, "[::1]:1")),
            overwrote=self.flag(),
            pre_push=self.random.choice((None, 0, 2)),
            request=self.random.choice((None, f"r{self.count}")),
            superseded=self.flag(0.1),
            healed=self.flag(0.1),
        )

    def refused(self) -> Refused:
        return Refused(
            bucket=self.random.choice(("", self.bucket().key)),
            at=self.time(),
            name=self.random.choice((None, *NAMES)),
            size=self.random.choice(SIZES),
            status=self.random.choice((403, 405, 507)),
            reason=self.random.choice(TEXTS),
            client="c",
            request="r",
        )

    def flag(self, share: float = 0.5) -> bool:
        return self.random.random() < share

    def bucket(self) -> Bucket:
        return self.random.choice(self.buckets)

    def time(self) -> float:
        self.now += self.random.choice((0.0, 0.1, 1800.0, 7200.0))
        late = self.random.choice((0.0, 0.0, 0.0, -5000.0, 3 * 86400.0))
        return self.now + late

    # Operations.

    def record(self) -> None:
        rows = [self.received() for _ in range(self.random.randrange(6))]
        refused = [self.refused() for _ in range(self.random.randrange(3))]
        self.both(Journal, lambda each: each.record(rows, refused, self.of))
        if self.flag(0.1):
            self.both(Journal, lambda each: each.record(rows, [], self.of))

    def report(self) -> None:
        bucket, name = self.bucket(), self.random.choice(("", *NAMES))
        at, text = self.time(), self.random.choice(TEXTS)
        series = series_of(name, bucket.series) if name else ""
        rows = [Failed(bucket.key, series, at, text)]
        self.both(Journal, lambda each: each.fail(rows, self.of, self.now))
        unfinished = [Abandoned(bucket.key, series, at)]
        self.both(Journal, lambda each: each.abandon(unfinished, self.of, self.now))

    def configure(self) -> None:
        place = self.random.randrange(len(self.buckets))
        self.buckets[place] = evolve(
            self.buckets[place],
            expect=self.random.choice((None, Interval(3600.0, "1h"))),
            series=self.random.choice(((), ("db-*",), ("a*", "[xA]", "\xe4"))),
            retired=self.flag(0.1),
            shrink_alert=self.random.choice((0.0, 0.5, 0.99)),
        )
        buckets = list(self.buckets[: self.random.choice((2, 3, 3))])
        before = self.random.choice((None, [*self.buckets]))
        self.both(
            Journal,
            lambda each: list(each.watch(buckets, str, self.now, before)),
        )

    def wait(self) -> None:
        now = self.time()
        self.both(Journal, lambda each: each.pass_time(now))
        self.both(Journal, lambda each: each.mistrust(now, self.of))
        self.both(Journal, lambda each: each.forget_failures(now + 1e6, self.of))

    def tell(self) -> None:
        again, limit = self.now - 3600.0, self.random.randrange(1, 5)
        but = [(self.bucket().key, self.flag())]
        found = [side[Journal].untold(limit, but, again) for side in self.sides]
        # Those of the same moment may be in any order.
        if limit > max(map(len, found)):
            first, second = (set(_plain(each)) for each in found)
            self.case.assertEqual(first, second)
        told = {(each.bucket, each.name) for each in found[0]}
        for side in self.sides:
            for each in all_series(side[View]):
                if (each.bucket, each.name) in told:
                    side[Journal].mark_told(each, each.state, self.now)

    def note(self) -> None:
        hook, key = "pre-push", self.random.choice((None, "", self.bucket().key))
        reason = None if key is None else self.random.choice((None, *TEXTS[:-1]))
        run = HookRun(hook, key, self.now, reason, self.random.choice(("", "n")))
        self.both(Journal, lambda each: each.note_hooks([run]))
        self.both(Journal, lambda each: each.note_space(Space(self.now, 1, 2**60)))
        told = ToldProblem(
            self.random.choice([*Kind]),
            self.random.choice(("", self.bucket().key)),
            self.random.randrange(3),
            self.now,
            self.now,
        )
        self.both(Journal, lambda each: each.mark_problem(told))

    def find(self) -> None:
        rows = [evolve(self.received(), request=None) for _ in range(3)]
        bucket = self.bucket()

        def enter(each: Any) -> Any:
            found = []
            for row in rows:
                kept = {one.name: one.id for one in each.rows(row.bucket, "kept")}
                found.append(FoundFile(row, kept.get(row.name)))
            entered = each.enter(
                found, self.now, {one.key: one for one in self.buckets}
            )
            each.judge_anew(bucket)
            return entered

        self.both(Inventory, enter)
        self.both(Inventory, lambda each: each.unknown(bucket.key, NAMES))

    def prune(self) -> None:
        step = self.random.choice(("pruned", "spared"))
        at = self.now

        def work(each: Any, files: list[File]) -> Any:
            ids = [file.id for file in files]
            each.prune(ids, at)
            pruned = sorted(map(_plain, each.being_pruned()), key=repr)
            if self.count % 2:
                each.missed(ids[:1], at)
            getattr(each, step)(ids)
            return pruned

        self.some(Inventory, work)

    def verify(self) -> None:
        damaged, at, fate = self.flag(), self.now, self.random.choice(FATES)
        back = self.flag()

        def work(each: Any, files: list[File]) -> Any:
            ids = [file.id for file in files]
            each.verified([(id_, damaged, at) for id_ in ids[:2]])
            rows = each.kept_rows(ids)
            differed = [each.differed(row, at) for _, row in rows]
            for id_ in ids[1:]:
                each.ended(id_, fate, at)
            count = len(each.missed(ids[:1], at))
            return rows, differed, count, len(each.came_back(ids)) if back else None

        self.some(Inventory, work)

    def drill(self) -> None:
        at, error = self.now, self.random.choice((None, *TEXTS))

        def work(each: Any, files: list[File]) -> Any:
            return [each.drilled(Drill(file, at, error)) for file in files]

        self.some(Files, work)

    def copy(self) -> None:
        target, key = self.random.choice("ab"), self.bucket().key
        until, at = self.random.choice((None, self.now)), self.now
        error, new = self.random.choice((None, *TEXTS)), self.flag()
        self.both(Copies, lambda each: each.copied(target, key, until, at, error, new))
        if self.flag(0.2):
            self.both(Copies, lambda each: each.copying(target, key, until, at))
        if self.flag(0.1):
            self.both(Copies, lambda each: each.forget(target))

    # All that can be read.

    def compare(self) -> None:
        now, since = self.now, self.now - 86400.0
        keys = [each.key for each in self.buckets]
        key, name = self.random.choice(keys), self.random.choice(NAMES)
        pattern = self.random.choice((None, "db-*", "[aA]*", name, "?", "\xe4"))
        limit = self.random.choice((1, 5, 1000))
        for read in (
            lambda each: [*each.worst(keys, now, limit).items()],
            lambda each: [
                each.sizes([one.id], limit)[one.id] for one in all_series(each)
            ],
            lambda each: sorted(each.tallies(now), key=lambda one: one.bucket),
            lambda each: sorted(each.totals(keys), key=lambda one: one.bucket),
            lambda each: each.latest(limit, key, pattern, since),
            lambda each: each.latest(10_000),
            lambda each: each.refusals(limit, key, since),
            lambda each: each.pushes_between(0, each.newest()[0], key, pattern, since),
            lambda each: each.refusals_between(0, each.newest()[1], key, since),
            lambda each: sorted(each.activity(since), key=lambda one: one.bucket),
            lambda each: each.hook_failures(limit),
            lambda each: sorted(each.drills(keys, now), key=lambda one: one.bucket),
            lambda each: each.full(),
            lambda each: each.copies(),
            lambda each: each.space(since),
            all_series,
        ):
            self.both(View, read)
        for read in (
            lambda each: [each.rows(key, fate, name) for fate in ("kept", "missing")],
            lambda each: each.kept_rows(each.to_verify(keys, now)[0]),
            lambda each: each.to_verify(keys, now)[1],
            lambda each: [
                each.kept_in_series(series, (now, 0))
                for series, _ in each.series_with_files(key)
            ],
        ):
            self.both(Inventory, read)
        for read in (
            lambda each: each.named(key, name),
            lambda each: list(each.newest_first(key, pattern, now)),
            lambda each: list(each.oldest_first(key, (since, 0), pattern)),
        ):
            self.both(Files, read)
        self.both(Copies, lambda each: (each.bytes_of(keys), each.targets()))
        self.both(Journal, lambda each: each.find(key, name))
        self.both(Journal, lambda each: sorted(each.told_problems(), key=repr))


READERS = View, Inventory, Files, Copies
FATES = "pruned", "missing"


def _plain(value: Any) -> Any:
    """A value without ids: PostgreSQL leaves gaps."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, File | Series):
        return _plain([one for name, one in asdict(value).items() if name != "id"])
    if isinstance(value, Row):
        return _plain(astuple(value)[1:])
    return value


class SameTests(SynchronousTestCase):
    def test_random(self) -> None:
        for seed in range(3):
            both = Both(self, seed)
            operations = (
                *(both.record, both.record, both.record, both.report, both.configure),
                *(both.wait, both.tell, both.note, both.find, both.prune),
                *(both.verify, both.drill, both.copy),
            )
            for _ in range(OPERATIONS):
                both.random.choice(operations)()
                both.compare()
