"""Gauges, and the whole text of a scrape."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from attrs import evolve
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, execute, fail
from twisted.trial.unittest import SynchronousTestCase

from filebucket.admin.counters import MOST_BUCKETS, Counters
from filebucket.admin.metrics import Live, Scrape
from filebucket.catalogue.copies import Copies
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.files import Files
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.overview import Known, Overview
from filebucket.catalogue.recorder import WriterHealth
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket, Pause
from filebucket.model.filesystem import Filesystem
from filebucket.model.mask import mask
from filebucket.model.node import Node
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.model.records import Drill, Received
from filebucket.model.schedule import Interval
from filebucket.model.token import Token, token_digest
from filebucket.test.admin.test_counters import read
from filebucket.test.kit.catalogue import opened
from filebucket.test.kit.fakes import at_once
from filebucket.test.kit.overviews import NOW, node

TOKEN = "0123456789abcdef0123456789abcdef"
NAMELESS = Bucket((Token(token_digest(TOKEN.encode())),), TOKEN)
HOUR = Interval(3600.0, "1h")
DOWN = Problem(Kind.DAEMON, CRITICAL, "it is down")
DISK = Filesystem(total=1000, free=100, reserved=20, read_only=False, set_aside=30)


def bucket(name: str, **settings: Any) -> Bucket:
    token = Token(token_digest(name.encode()))
    return Bucket((token,), name, name, **settings)


class ScrapeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counters = Counters()
        self.home = home = self.mktemp()
        os.makedirs(os.path.join(home, ".filebucket"))
        self.inventory = opened(self, Inventory, home)
        self.journal = opened(self, Journal, home)
        self.view = opened(self, View, home)
        self.buckets: Sequence[Bucket] = ()
        self.disk: Filesystem | OSError = DISK
        self.error: str | None = None
        self.writing = WriterHealth(0, 0, None)
        self.now = 100.0
        self.nodes: list[Node] = []
        self.patch(View, "nodes", lambda view, now: self.nodes)

    def look(self) -> Filesystem:
        if isinstance(self.disk, OSError):
            raise self.disk
        return self.disk

    def read(self, function: Callable[[IView], Overview]) -> Deferred[Overview]:
        if self.error is not None:
            return fail(CatalogueError(self.error))
        return execute(function, self.view)

    def scrape(self) -> dict[str, float]:
        scrape = Scrape(
            self.counters,
            at_once,
            self.read,
            self.look,
            lambda: Known(self.buckets, self.now, problems=[DOWN]),
            lambda: Live(2, 5, 3, self.writing, 4, 99),
        )
        answer = self.successResultOf(Deferred.fromCoroutine(scrape()))
        self.assertEqual(200, answer.status)
        self.assertTrue(answer.kind.startswith(b"text/plain; version="), answer.kind)
        self.text = answer.content.decode()
        self.assertNotIn(TOKEN, self.text)
        return read(answer.content)

    def enter(self, *pushes: Received) -> None:
        list(self.journal.watch(self.buckets, mask(self.buckets), 0))
        known = {each.key: each for each in self.buckets}
        self.journal.record(pushes, [], known.get)

    def test_lets_the_reactor_run(self) -> None:
        """The interpreter switches threads more often while the text is made."""
        intervals: list[float] = []

        class Watcher(Collector):
            def collect(self) -> list[Metric]:
                intervals.append(sys.getswitchinterval())
                return []

        self.counters.registry.register(Watcher())
        intervals.clear()
        self.scrape()
        (interval,) = intervals
        self.assertLess(interval, sys.getswitchinterval() / 2)

    def test_nothing(self) -> None:
        """Without buckets, the daemon and its disk have metrics."""
        found = self.scrape()
        for name, value in (
            ("pushes_in_flight", 2),
            ("connections", 5),
            ("stuck_threads", 3),
            ("uploads_unfinished", 4),
            ("uploads_unfinished_bytes", 99),
            ("catalogue_up", 1),
            ("catalogue_waiting_pushes", 0),
            ("filesystem_size_bytes", 1000),
            ("filesystem_free_bytes", 100),
            ("filesystem_reserved_bytes", 20),
            ("filesystem_set_aside_bytes", 30),
            ("buckets_left_out", 0),
            ("buckets{state=late}", 0),
            ("problem{problem=full}", 0),
            ("problem{problem=daemon}", 2),
        ):
            self.assertEqual(value, found[f"filebucket_{name}"], name)

    def test_buckets(self) -> None:
        self.buckets = [bucket("web01", quota=99, expect=HOUR), NAMELESS]
        self.enter(
            Received("web01", "a#", "a1", 7, "ab", 50.0),
            Received("web01", "b#", "b1", 8, "ab", 60.0),
        )
        found = self.scrape()
        self.assertEqual(
            {
                "state{bucket=web01,state=fresh}": 1,
                "state{bucket=web01,state=late}": 0,
                "state{bucket=web01,state=failed}": 0,
                "state{bucket=web01,state=empty}": 0,
                "state{bucket=web01,state=unfinished}": 0,
                "state{bucket=web01,state=shrunk}": 0,
                "state{bucket=web01,state=grown}": 0,
                "state{bucket=web01,state=never}": 0,
                "last_push_timestamp_seconds{bucket=web01}": 60,
                "due_timestamp_seconds{bucket=web01}": 3650,
                "files{bucket=web01}": 2,
                "size_bytes{bucket=web01}": 15,
                "quota_bytes{bucket=web01}": 99,
                "quota_used_bytes{bucket=web01}": 2 * 4096 + 15,
                "problem{bucket=web01,problem=full}": 1,
                "damaged_files{bucket=web01}": 0,
                "missing_files{bucket=web01}": 0,
            },
            _of(found, "web01"),
        )
        label = NAMELESS.label
        self.assertEqual(
            {
                f"state{{bucket={label},state=fresh}}": 0,
                f"state{{bucket={label},state=late}}": 0,
                f"state{{bucket={label},state=failed}}": 0,
                f"state{{bucket={label},state=empty}}": 0,
                f"state{{bucket={label},state=unfinished}}": 0,
                f"state{{bucket={label},state=shrunk}}": 0,
                f"state{{bucket={label},state=grown}}": 0,
                f"state{{bucket={label},state=never}}": 1,
                f"files{{bucket={label}}}": 0,
                f"size_bytes{{bucket={label}}}": 0,
                f"damaged_files{{bucket={label}}}": 0,
                f"missing_files{{bucket={label}}}": 0,
            },
            _of(found, label),
        )
        self.assertEqual(1, found["filebucket_buckets{state=fresh}"])
        self.assertEqual(1, found["filebucket_buckets{state=never}"])
        self.assertEqual(0, found["filebucket_pushes_total{bucket=web01}"])

    def test_copies(self) -> None:
        self.buckets = [bucket("web01"), bucket("web02")]
        self.enter()
        copies = opened(self, Copies, self.home)
        copies.copied("https://far", "web01", 50.0, 60.0, None)
        copies.copied("https://far", "web02", None, 60.0, "no")
        found = self.scrape()
        name = "filebucket_bucket_copied_timestamp_seconds"
        copied = {key: value for key, value in found.items() if key.startswith(name)}
        expected = {f"{name}{{bucket=web01,target=https://far}}": 50.0}
        self.assertEqual(expected, copied)
        problem = "filebucket_bucket_problem{bucket=web02,problem=copy}"
        self.assertEqual(1, found[problem])

    def test_drills(self) -> None:
        """The last restore test, and the next one."""
        self.buckets = [bucket("web01", drill=60.0)]
        self.enter(Received("web01", "a", "a", 7, "ab", 50.0))
        due = "drill_due_timestamp_seconds{bucket=web01}"
        self.assertEqual(110.0, _of(self.scrape(), "web01")[due])
        with closing(Files.open(self.home)) as files:
            file = files.named("web01", "a")
            assert file is not None
            files.drilled(Drill(file, 90.0))
        found = _of(self.scrape(), "web01")
        self.assertEqual(150.0, found[due])
        self.assertEqual(90.0, found["restored_timestamp_seconds{bucket=web01}"])
        self.now = 150.0
        found = _of(self.scrape(), "web01")
        self.assertEqual(2, found["problem{bucket=web01,problem=drill}"])

    def test_trouble(self) -> None:
        """Late series, and damaged and missing files."""
        self.buckets = [bucket("web01", expect=HOUR)]
        self.enter(*(Received("web01", "a", f"{i}", 7, "ab", 50.0) for i in range(3)))
        _, second, first = self.view.latest(3, "web01")
        self.inventory.verified([(first.id, True, 60.0)])
        self.inventory.ended(second.id, "missing", 60.0)
        self.now = 3650.0
        found = _of(self.scrape(), "web01")
        self.assertEqual(1, found["state{bucket=web01,state=late}"])
        self.assertEqual(0, found["state{bucket=web01,state=fresh}"])
        self.assertEqual(1, found["damaged_files{bucket=web01}"])
        self.assertEqual(1, found["missing_files{bucket=web01}"])
        self.assertEqual(2, found["files{bucket=web01}"])

    def test_hostile(self) -> None:
        """Clients cannot add time series or labels."""
        self.buckets = [bucket("web01"), NAMELESS]
        before = set(self.scrape())
        self.enter(
            *(
                Received("web01", f'"}} evil{i}', f'{TOKEN}"}}\n{i}', 1, "ab", 1.0)
                for i in range(50)
            )
        )
        after = set(self.scrape())
        self.assertEqual(
            {"filebucket_bucket_last_push_timestamp_seconds{bucket=web01}"},
            after - before,
        )
        self.assertNotIn("evil", self.text)

    def test_odd_names(self) -> None:
        """Labels are escaped."""
        names = ['a"b', "a{b}", "größe", "a b", "#c0ffee"]
        self.buckets = [bucket(name) for name in names]
        found = self.scrape()
        for name in names:
            self.assertEqual(0, found[f"filebucket_bucket_files{{bucket={name}}}"])

    def test_same_label(self) -> None:
        """A shared label appears once, for the worst bucket."""
        label = NAMELESS.label
        self.buckets = [bucket(label), NAMELESS]
        self.enter(Received(NAMELESS.key, "a", "x", 7, "ab", 50.0))
        (file,) = self.view.latest(1, NAMELESS.key)
        self.inventory.ended(file.id, "missing", 60.0)
        found = self.scrape()
        name = f"filebucket_bucket_missing_files{{bucket={label}}}"
        self.assertEqual(1, found[name])
        self.assertEqual(1, found["filebucket_buckets_left_out"])

    def test_too_many(self) -> None:
        self.buckets = [
            *(bucket(str(number)) for number in range(MOST_BUCKETS)),
            bucket("last", expect=HOUR),
        ]
        self.enter()
        self.now = 3600.0
        found = self.scrape()
        shown = [name for name in found if name.startswith("filebucket_bucket_files")]
        self.assertEqual(MOST_BUCKETS, len(shown))
        self.assertEqual(1, found["filebucket_buckets_left_out"])
        self.assertEqual(1, found["filebucket_bucket_state{bucket=last,state=late}"])
        self.assertEqual(1, found["filebucket_buckets{state=late}"])
        self.assertEqual(MOST_BUCKETS, found["filebucket_buckets{state=never}"])

    def test_quiet(self) -> None:
        """No rule fires for a retired bucket, nor for a paused one without a push."""
        paused = {"paused": Pause(self.now + 100, "a move"), "quota": 10}
        self.buckets = [
            bucket("paused", **paused),
            bucket("retired", quota=10, retired=True),
            bucket("plain"),
        ]
        found = self.scrape()
        for name, count in (("paused", 0), ("retired", 0), ("plain", 1)):
            state = f"filebucket_bucket_state{{bucket={name},state=never}}"
            self.assertEqual(count, found[state], name)
        self.assertIn("filebucket_bucket_quota_bytes{bucket=paused}", found)
        self.assertNotIn("filebucket_bucket_quota_bytes{bucket=retired}", found)

    def test_nodes(self) -> None:
        """The daemons that share the catalogue; the worst problem of each kind."""
        self.assertEqual(1, self.scrape()["filebucket_leads"])
        self.nodes = [node("a"), node("b", 9 * 3600.0), node("c", stopped=True)]
        self.now = NOW
        found = self.scrape()
        up = [found[f"filebucket_node_up{{node={each}}}"] for each in "abc"]
        self.assertEqual([1, 0, 0], up)
        self.assertEqual(2, found["filebucket_problem{problem=node}"])
        full = Problem(Kind.FULL, WARNING, "b: the disk is nearly full", node="b")
        fuller = evolve(full, severity=CRITICAL, node="c")
        for problems in ((full, fuller), (fuller, full)):
            reports = [evolve(node("a").report, problems=(each,)) for each in problems]
            self.nodes = [node("b", report=reports[0]), node("c", report=reports[1])]
            self.assertEqual(2, self.scrape()["filebucket_problem{problem=full}"])

    def test_no_catalogue(self) -> None:
        """Without a catalogue, all other metrics exist, and catalogue_up is 0."""
        self.buckets = [bucket("web01")]
        self.error = "it cannot be read"
        self.writing = WriterHealth(3, 4, "disk I/O error")
        found = self.scrape()
        self.assertEqual(0, found["filebucket_catalogue_up"])
        self.assertEqual(3, found["filebucket_catalogue_waiting_pushes"])
        self.assertEqual(4, found["filebucket_catalogue_dropped_pushes_total"])
        self.assertEqual(0, found["filebucket_pushes_total{bucket=web01}"])
        self.assertEqual(100, found["filebucket_filesystem_free_bytes"])
        self.assertEqual({}, _of(found, "web01"))

    def test_read_but_not_written(self) -> None:
        """If the catalogue is read-only, its metrics exist, and catalogue_up is 0."""
        self.buckets = [bucket("web01")]
        self.writing = WriterHealth(3, 0, "disk I/O error")
        found = self.scrape()
        self.assertEqual(0, found["filebucket_catalogue_up"])
        self.assertEqual(0, found["filebucket_bucket_files{bucket=web01}"])

    def test_no_disk(self) -> None:
        """A home that cannot be examined has no metrics, rather than 0."""
        self.disk = OSError(5, "Input/output error", TOKEN)
        found = self.scrape()
        self.assertFalse([name for name in found if "filesystem" in name])
        self.assertEqual(1, found["filebucket_catalogue_up"])


def _of(found: dict[str, float], label: str) -> dict[str, float]:
    """The gauges of one bucket."""
    start = "filebucket_bucket_"
    return {
        name.removeprefix(start): value
        for name, value in found.items()
        if name.startswith(start) and f"bucket={label}" in name
    }
