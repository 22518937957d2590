"""The numbers: what is counted, what is looked up, and how many there can be."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, execute, fail
from twisted.trial.unittest import SynchronousTestCase

from filebucket import __version__
from filebucket.admin.health import Filesystem
from filebucket.admin.metrics import EXITS, MOST_BUCKETS, Metrics, Now, Process, Scrape
from filebucket.base.errors import STATUSES
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.overview import Overview
from filebucket.catalogue.recorder import WriterHealth
from filebucket.catalogue.view import View
from filebucket.hooks.interfaces import POST_PUSH, PRE_PUSH, Exit
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.model.push import Outcome
from filebucket.model.records import Received
from filebucket.model.schedule import Interval
from filebucket.model.token import Token, token_digest
from filebucket.test.kit.catalogue import opened
from filebucket.test.kit.fakes import at_once

TOKEN = "0123456789abcdef0123456789abcdef"
NAMELESS = Bucket((Token(token_digest(TOKEN.encode())),), TOKEN)
HOUR = Interval(3600.0, "1h")
DISK = Filesystem(total=1000, free=100, reserved=20, read_only=False)


def bucket(name: str, **settings: Any) -> Bucket:
    token = Token(token_digest(name.encode()))
    return Bucket((token,), name, name, **settings)


def read(text: bytes) -> dict[str, float]:
    """The numbers, by their names and labels as one would write them."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={sample.labels[key]}" for key in sample.labels)
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, name
            found[name] = sample.value
    return found


class CountingTests(SynchronousTestCase):
    """What is counted as it happens."""

    def setUp(self) -> None:
        self.metrics = Metrics()

    def numbers(self) -> dict[str, float]:
        return read(generate_latest(self.metrics.registry))

    def push(self, label: str, size: int = 3, seconds: float = 0.25) -> None:
        self.metrics.pushed(
            Outcome("0a1b", label, "c", "x", size, "ab", status=200, seconds=seconds)
        )

    def refuse(self, status: int) -> None:
        self.metrics.pushed(Outcome("0a1b", "-", "c", status=status, reason="no"))

    def test_pushes(self) -> None:
        """By bucket, and their sizes and times of all together."""
        self.push("web01", 3)
        self.push("web01", 2000, 100)
        self.push("db", 5)
        found = self.numbers()
        self.assertEqual(2, found["filebucket_pushes_total{bucket=web01}"])
        self.assertEqual(2003, found["filebucket_received_bytes_total{bucket=web01}"])
        self.assertEqual(1, found["filebucket_pushes_total{bucket=db}"])
        self.assertEqual(3, found["filebucket_push_size_bytes_count"])
        self.assertEqual(2, found["filebucket_push_size_bytes_bucket{le=1024.0}"])
        self.assertEqual(3, found["filebucket_push_size_bytes_bucket{le=8192.0}"])
        seconds = "filebucket_push_duration_seconds"
        self.assertEqual(100.5, found[f"{seconds}_sum"])
        self.assertEqual(2, found[f"{seconds}_bucket{{le=60.0}}"])
        self.assertEqual(3, found[f"{seconds}_bucket{{le=300.0}}"])
        self.assertEqual(0, found["filebucket_refusals_total{status=403}"])

    def test_repeated(self) -> None:
        """What is pushed once more is no push."""
        self.metrics.know(["web01"])
        self.metrics.pushed(
            Outcome("0a1b", "web01", "c", "x", 3, "ab", status=200, repeated=True)
        )
        found = self.numbers()
        self.assertEqual(1, found["filebucket_repeated_pushes_total"])
        self.assertEqual(0, found["filebucket_pushes_total{bucket=web01}"])
        self.assertEqual(0, found["filebucket_push_size_bytes_count"])

    def test_refusals(self) -> None:
        """By status, each from the start, and of no bucket's."""
        self.refuse(403)
        self.refuse(403)
        self.refuse(500)
        found = self.numbers()
        counted = {
            name: value for name, value in found.items() if "refusals_total" in name
        }
        expected = {
            f"filebucket_refusals_total{{status={status}}}": 0.0
            for status in STATUSES
            if status != 200
        }
        expected["filebucket_refusals_total{status=403}"] = 2
        expected["filebucket_refusals_total{status=500}"] = 1
        self.assertEqual(expected, counted)
        self.assertFalse([name for name in found if "bucket=" in name])

    def test_known_buckets(self) -> None:
        """A bucket's count begins at nought, before its first push."""
        self.metrics.know(["web01"])
        self.assertEqual(0, self.numbers()["filebucket_pushes_total{bucket=web01}"])
        self.push("web01")
        self.metrics.know(["web01"])
        self.assertEqual(1, self.numbers()["filebucket_pushes_total{bucket=web01}"])

    def test_too_many_buckets(self) -> None:
        """The rest is counted together, and nothing is lost."""
        labels = [str(number) for number in range(MOST_BUCKETS + 7)]
        self.metrics.know(labels)
        for label in labels:
            self.push(label)
        found = self.numbers()
        counted = [name for name in found if "filebucket_pushes_total" in name]
        self.assertEqual(MOST_BUCKETS + 1, len(counted))
        self.assertEqual(7, found["filebucket_pushes_total{bucket=}"])
        self.assertEqual(21, found["filebucket_received_bytes_total{bucket=}"])

    def test_hooks(self) -> None:
        """By how they ended, with no more ends than there are."""
        runs = "filebucket_hook_runs_total"
        before = [name for name in self.numbers() if runs in name]
        self.assertEqual(3 * len(EXITS), len(before))
        for hook, ended in (
            (PRE_PUSH, Exit(0)),
            (PRE_PUSH, Exit(2)),
            (PRE_PUSH, Exit(3)),
            (PRE_PUSH, Exit(139)),
            (POST_PUSH, Exit(143, timed_out=True)),
            (POST_PUSH, Exit(143, stopped=True)),
            (POST_PUSH, None),
        ):
            self.metrics.hook_ran(hook, 2.0, ended)
        found = self.numbers()
        for hook, how, count in (
            (PRE_PUSH, "0", 1),
            (PRE_PUSH, "1", 0),
            (PRE_PUSH, "2", 1),
            (PRE_PUSH, "other", 2),
            (POST_PUSH, "timeout", 1),
            (POST_PUSH, "stop", 1),
            (POST_PUSH, "broken", 1),
            (POST_PUSH, "other", 0),
        ):
            self.assertEqual(count, found[f"{runs}{{exit={how},hook={hook}}}"])
        seconds = "filebucket_hook_duration_seconds"
        self.assertEqual(8.0, found[f"{seconds}_sum{{hook=pre-push}}"])
        self.assertEqual(2, found[f"{seconds}_count{{hook=post-push}}"])
        self.assertEqual(before, [name for name in found if runs in name])

    def test_reloads(self) -> None:
        """Whether the last one succeeded; the start is one that did."""
        name = "filebucket_config_last_reload_successful"
        self.assertEqual(1, self.numbers()[name])
        self.metrics.reloaded(False)
        self.assertEqual(0, self.numbers()[name])
        self.metrics.reloaded(True)
        self.assertEqual(1, self.numbers()[name])

    def test_process(self) -> None:
        """What Prometheus wants to know of every process, and which one it is."""
        found = self.numbers()
        self.assertEqual(1, found[f"filebucket_build_info{{version={__version__}}}"])
        self.assertIn("process_resident_memory_bytes", found)
        self.assertFalse([name for name in found if name.endswith("_created")])

    def test_process_in_a_sandbox(self) -> None:
        """The same where /proc has nothing but processes."""
        proc = self.mktemp()
        os.mkdir(proc)
        os.symlink("/proc/self", os.path.join(proc, "self"))
        self.assertEqual([], list(ProcessCollector(proc=proc, registry=None).collect()))
        found = {
            family.name: family.samples[0].value
            for family in Process(proc=proc, registry=None).collect()
        }
        usual = {
            family.name: family.samples[0].value
            for family in ProcessCollector(registry=None).collect()
        }
        self.assertEqual(set(usual), set(found))
        started = "process_start_time_seconds"
        self.assertTrue(abs(usual[started] - found[started]) < 2, (usual, found))


class ScrapeTests(SynchronousTestCase):
    """What is looked up, and the whole text."""

    def setUp(self) -> None:
        self.metrics = Metrics()
        home = self.mktemp()
        os.makedirs(os.path.join(home, ".filebucket"))
        self.inventory = opened(self, Inventory, home)
        self.journal = opened(self, Journal, home)
        self.view = opened(self, View, home)
        self.buckets: Sequence[Bucket] = ()
        self.disk: Filesystem | OSError = DISK
        self.error: str | None = None
        self.writing = WriterHealth(0, 0, None)
        self.now = 100.0

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
            self.metrics,
            at_once,
            self.read,
            self.look,
            lambda: self.buckets,
            lambda: Now(2, 5, self.writing),
            lambda: self.now,
        )
        answer = self.successResultOf(Deferred.fromCoroutine(scrape()))
        self.assertEqual(200, answer.status)
        self.assertTrue(answer.kind.startswith(b"text/plain; version="), answer.kind)
        self.text = answer.content.decode()
        self.assertNotIn(TOKEN, self.text)
        return read(answer.content)

    def enter(self, *pushes: Received) -> None:
        self.journal.watch(self.buckets, mask(self.buckets), 0)
        known = {each.key: each for each in self.buckets}
        self.journal.record(pushes, [], known.get)

    def test_nothing(self) -> None:
        """Without buckets there are still the daemon and its disk."""
        found = self.scrape()
        for name, value in (
            ("pushes_in_flight", 2),
            ("connections", 5),
            ("catalogue_up", 1),
            ("catalogue_waiting_pushes", 0),
            ("filesystem_size_bytes", 1000),
            ("filesystem_free_bytes", 100),
            ("filesystem_reserved_bytes", 20),
            ("buckets_left_out", 0),
            ("buckets{state=late}", 0),
        ):
            self.assertEqual(value, found[f"filebucket_{name}"], name)

    def test_buckets(self) -> None:
        """Each with its state, and what is known of it."""
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
                "state{bucket=web01,state=shrunk}": 0,
                "state{bucket=web01,state=grown}": 0,
                "state{bucket=web01,state=never}": 0,
                "last_push_timestamp_seconds{bucket=web01}": 60,
                "due_timestamp_seconds{bucket=web01}": 3650,
                "files{bucket=web01}": 2,
                "size_bytes{bucket=web01}": 15,
                "quota_bytes{bucket=web01}": 99,
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

    def test_trouble(self) -> None:
        """What is late, damaged and missing is seen."""
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
        """Whatever clients send, there are no more numbers, and none of it is shown."""
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
        """What operators call their buckets is escaped."""
        names = ['a"b', "a{b}", "größe", "a b", "#c0ffee"]
        self.buckets = [bucket(name) for name in names]
        found = self.scrape()
        for name in names:
            self.assertEqual(0, found[f"filebucket_bucket_files{{bucket={name}}}"])

    def test_same_label(self) -> None:
        """No number is there twice, and the one that matters is."""
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
        """The worst are shown, the others counted."""
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

    def test_no_catalogue(self) -> None:
        """Without it all the rest is there, and that it is not."""
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
        """What is known is shown, and that it grows old."""
        self.buckets = [bucket("web01")]
        self.writing = WriterHealth(3, 0, "disk I/O error")
        found = self.scrape()
        self.assertEqual(0, found["filebucket_catalogue_up"])
        self.assertEqual(0, found["filebucket_bucket_files{bucket=web01}"])

    def test_no_disk(self) -> None:
        """A home that cannot be looked at has no numbers, not nought."""
        self.disk = OSError(5, "Input/output error", TOKEN)
        found = self.scrape()
        self.assertFalse([name for name in found if "filesystem" in name])
        self.assertEqual(1, found["filebucket_catalogue_up"])


def _of(found: dict[str, float], label: str) -> dict[str, float]:
    """What is looked up of one bucket."""
    start = "filebucket_bucket_"
    return {
        name.removeprefix(start): value
        for name, value in found.items()
        if name.startswith(start) and f"bucket={label}" in name
    }
