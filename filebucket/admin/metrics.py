"""Numbers about the daemon, in the form that Prometheus scrapes.

Two kinds: what is counted as it happens (:class:`Metrics`), in the reactor's thread and
for a few microseconds a push; and what is looked up when somebody asks, of the
catalogue and of the home's filesystem (:func:`families`), in threads. :class:`Scrape`
makes a text of both.

There are as many numbers as the operator has buckets, and no more for whatever clients
send: a name, a series or a stranger is never a label. Of more than :data:`MOST_BUCKETS`
those that are worst have numbers of their own, and one number says how many have none;
pushes to those that first had any after so many others are counted together, under an
empty label.

No token is in it: a bucket goes by its label.
"""

from __future__ import annotations

import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, TypeVar

from attrs import frozen
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.defer import Deferred

from filebucket import __version__
from filebucket.admin.health import Filesystem
from filebucket.admin.site import AdminAnswer
from filebucket.base.errors import STATUSES
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import BucketOverview, Overview, make_overview
from filebucket.catalogue.recorder import WriterHealth
from filebucket.hooks.interfaces import EVENTS, Exit
from filebucket.model.bucket import Bucket
from filebucket.model.push import Outcome
from filebucket.model.state import State

T = TypeVar("T")

MOST_BUCKETS = 1000
"""Buckets that have numbers of their own, 14 each."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300, 1800, 7200)
"""From a small file to a large one over a slow line."""

SIZES = tuple(1024 * 8**power for power in range(11))
"""1 KiB to 1 TiB."""

EXITS = ("0", "1", "2", "other", "timeout", "stop", "broken")
"""How a hook can end: its exit status; ``other`` statuses and signals; at its deadline;
at the daemon's stop; and ``broken`` is one that could not be run."""


class Process(ProcessCollector):
    """The numbers of every process, also in a sandbox (``ProcSubset=pid``), where there
    would be none, since nothing there says when the machine was started.
    """

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class Metrics:
    """What is counted as it happens. To be told in the reactor's thread."""

    def __init__(self) -> None:
        # When each was made: numbers that nobody asks for, as many again.
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        Process(registry=registry)
        Gauge(
            "filebucket_build_info",
            "What runs; always 1.",
            ["version"],
            registry=registry,
        ).labels(__version__).set(1)
        self._pushes = Counter(
            "filebucket_pushes",
            "Pushes that are durable on disk.",
            ["bucket"],
            registry=registry,
        )
        self._bytes = Counter(
            "filebucket_received_bytes",
            "Bytes of the files that are durable on disk.",
            ["bucket"],
            registry=registry,
        )
        self._seconds = Histogram(
            "filebucket_push_duration_seconds",
            "Seconds from the end of a push's headers until it was durable.",
            registry=registry,
            buckets=SECONDS,
        )
        self._sizes = Histogram(
            "filebucket_push_size_bytes",
            "Sizes of files that are durable on disk.",
            registry=registry,
            buckets=SIZES,
        )
        self._repeats = Counter(
            "filebucket_repeated_pushes",
            "Pushes of what was there already, whole: nothing was stored.",
            registry=registry,
        )
        refusals = Counter(
            "filebucket_refusals",
            "Requests that were refused, by the status of the answer.",
            ["status"],
            registry=registry,
        )
        self._refusals = {
            status: refusals.labels(str(status)) for status in STATUSES if status != 200
        }
        self._hook_runs = Counter(
            "filebucket_hook_runs",
            "Runs of a hook, by how it ended.",
            ["hook", "exit"],
            registry=registry,
        )
        self._hook_seconds = Histogram(
            "filebucket_hook_duration_seconds",
            "Seconds that a hook ran.",
            ["hook"],
            registry=registry,
            buckets=SECONDS,
        )
        for hook in EVENTS:
            self._hook_seconds.labels(hook)
            for ended in EXITS:
                self._hook_runs.labels(hook, ended)
        self._reload = Gauge(
            "filebucket_config_last_reload_successful",
            "Whether the configuration could be used when it was last read.",
            registry=registry,
        )
        self._reload.set(1)
        # To look a label up costs more than to count.
        self._of_bucket: dict[str, tuple[Counter, Counter]] = {}

    def know(self, labels: Iterable[str]) -> None:
        """There are these buckets: what is counted begins at 0, not at the first
        push, whose rate nobody could tell.
        """
        for label in labels:
            if len(self._of_bucket) >= MOST_BUCKETS:
                break
            self._find(label)

    def _find(self, label: str) -> tuple[Counter, Counter]:
        found = self._of_bucket.get(label)
        if found is None:
            own = label if len(self._of_bucket) < MOST_BUCKETS else ""
            found = self._pushes.labels(own), self._bytes.labels(own)
            if own:
                self._of_bucket[label] = found
        return found

    def pushed(self, outcome: Outcome) -> None:
        """A push has come to its end."""
        if outcome.reason is not None:
            self._refusals[outcome.status].inc()
            return
        if outcome.repeated:
            self._repeats.inc()
            return
        count, size = self._find(outcome.bucket)
        count.inc()
        size.inc(outcome.size)
        self._seconds.observe(outcome.seconds)
        self._sizes.observe(outcome.size)

    def hook_ran(self, hook: str, seconds: float, ended: Exit | None) -> None:
        """A hook has run.

        :param ended: None where it could not be run
        """
        self._hook_runs.labels(hook, _exit(ended)).inc()
        if ended is not None:
            self._hook_seconds.labels(hook).observe(seconds)

    def reloaded(self, taken: bool) -> None:
        """The configuration was read again.

        :param taken: whether it could be used
        """
        self._reload.set(taken)


def _exit(ended: Exit | None) -> str:
    if ended is None:
        return "broken"
    if ended.timed_out:
        return "timeout"
    if ended.stopped:
        return "stop"
    status = str(ended.status)
    return status if status in EXITS else "other"


@frozen
class Now:
    """What the reactor's thread knows when somebody asks.

    :param in_flight: pushes under way
    :param connections: of those who push
    """

    in_flight: int
    connections: int
    writing: WriterHealth


def families(
    now: Now, disk: Filesystem | None, overview: Overview | None
) -> Iterator[Metric]:
    """What is looked up.

    :param disk: None where the home cannot be looked at
    :param overview: None where the catalogue cannot be read
    """

    def gauge(name: str, text: str, value: float) -> Metric:
        return GaugeMetricFamily(f"filebucket_{name}", text, value)

    yield gauge("pushes_in_flight", "Pushes under way.", now.in_flight)
    yield gauge("connections", "Connections of those who push.", now.connections)
    writing = now.writing
    usable = overview is not None and writing.error is None
    yield gauge("catalogue_up", "Whether the catalogue can be used.", usable)
    yield gauge("catalogue_waiting_pushes", "Pushes not yet entered.", writing.waiting)
    yield CounterMetricFamily(
        "filebucket_catalogue_dropped_pushes",
        "Pushes that were not entered in time, and are found on the disk again.",
        writing.dropped,
    )
    if disk is not None:
        yield gauge("filesystem_size_bytes", "Size of the home's.", disk.total)
        yield gauge("filesystem_free_bytes", "What is free of it.", disk.free)
        yield gauge(
            "filesystem_reserved_bytes",
            "Of what is free, what must stay so: pushes get 507 before that.",
            disk.reserved,
        )
    if overview is not None:
        yield from _of_buckets(overview.buckets)


def _of_buckets(buckets: Sequence[BucketOverview]) -> Iterator[Metric]:
    shown = _shown(buckets)
    states = Tally(each.state for each in buckets)
    count = GaugeMetricFamily(
        "filebucket_buckets", "Buckets, by the worst state of theirs.", labels=["state"]
    )
    for state in State:
        count.add_metric([state.value], states[state])
    yield count
    yield GaugeMetricFamily(
        "filebucket_buckets_left_out",
        "Buckets that have no numbers of their own here, for there are too many.",
        len(buckets) - len(shown),
    )
    found = GaugeMetricFamily(
        "filebucket_bucket_state",
        "1 for the worst state of a bucket's series, 0 for the others.",
        labels=["bucket", "state"],
    )
    for each in shown:
        for state in State:
            found.add_metric([each.label, state.value], each.state is state)
    yield found
    for name, text, value in _NUMBERS:
        family = GaugeMetricFamily(f"filebucket_bucket_{name}", text, labels=["bucket"])
        for each in shown:
            number = value(each)
            if number is not None and math.isfinite(number):
                family.add_metric([each.label], number)
        yield family


_NUMBERS: Sequence[tuple[str, str, Callable[[BucketOverview], float | None]]] = (
    (
        "last_push_timestamp_seconds",
        "When a push was last durable.",
        lambda bucket: bucket.last_at,
    ),
    (
        "due_timestamp_seconds",
        "When the first of its series is late, or was; nothing if never.",
        lambda bucket: bucket.due,
    ),
    ("files", "Files that there should be.", lambda bucket: bucket.files),
    ("size_bytes", "Bytes of its files.", lambda bucket: bucket.bytes),
    (
        "quota_bytes",
        "What its files may have; nothing if there is no limit.",
        lambda bucket: bucket.quota,
    ),
    (
        "damaged_files",
        "Files whose content is not what was pushed.",
        lambda bucket: bucket.damaged,
    ),
    (
        "missing_files",
        "Files that are gone, and not because they were pruned.",
        lambda bucket: bucket.missing,
    ),
)


def _shown(buckets: Sequence[BucketOverview]) -> list[BucketOverview]:
    """As many as may be, the worst first, and no label twice."""
    by_label: dict[str, BucketOverview] = {}
    # Those without a name may happen to share one: the worst is to be seen.
    for each in sorted(buckets, key=lambda each: -each.severity):
        if len(by_label) >= MOST_BUCKETS:
            break
        by_label.setdefault(each.label, each)
    return list(by_label.values())


class Scrape:
    """Makes the text that is scraped."""

    def __init__(
        self,
        metrics: Metrics,
        run: Callable[..., Deferred[Any]],
        read: Callable[[Callable[[IView], Overview]], Deferred[Overview]],
        disk: Callable[[], Filesystem],
        buckets: Callable[[], Sequence[Bucket]],
        now: Callable[[], Now],
        seconds: Callable[[], float],
    ) -> None:
        """
        :param run: calls in a thread
        :param read: calls with the catalogue, in a thread; fails with
            :class:`CatalogueError`
        :param disk: looks at the home's filesystem; raises OSError
        :param seconds: the time since the epoch
        """
        self._metrics = metrics
        self._run = run
        self._read = read
        self._disk = disk
        self._buckets = buckets
        self._now = now
        self._seconds = seconds

    async def __call__(self) -> AdminAnswer:
        """Look for all of it."""
        buckets = self._buckets()
        self._metrics.know(bucket.label for bucket in buckets[:MOST_BUCKETS])
        disk = overview = None
        with suppress(OSError):
            disk = await self._run(self._disk)
        with suppress(CatalogueError):
            overview = await self._read(
                lambda catalogue: make_overview(
                    catalogue,
                    buckets,
                    self._seconds(),
                    sizes=0,
                    refusals=0,
                    most_series=0,
                )
            )
        found = self._now(), disk, overview
        text = await self._run(_text, self._metrics.registry, *found)
        return AdminAnswer(200, text, CONTENT_TYPE_LATEST.encode("ascii"))


class _All:
    """Two sources as one."""

    def __init__(self, registry: CollectorRegistry, found: Iterable[Metric]) -> None:
        self._registry = registry
        self._found = found

    def collect(self) -> Iterator[Metric]:
        return chain(self._registry.collect(), self._found)


def _text(
    registry: CollectorRegistry,
    now: Now,
    disk: Filesystem | None,
    overview: Overview | None,
) -> bytes:
    found = _All(registry, families(now, disk, overview))
    return generate_latest(found)
