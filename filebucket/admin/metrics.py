"""``/metrics`` for Prometheus.

:class:`Scrape` combines two kinds: counters (:mod:`filebucket.admin.counters`), and
gauges that are read from the catalogue and the filesystem at each scrape, in threads
(:func:`families`). With more than :data:`~filebucket.admin.counters.MOST_BUCKETS`
buckets, only the worst have gauges of their own. Buckets are labels, never tokens.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, TypeVar

from attrs import evolve, frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.defer import Deferred

from filebucket.admin.counters import MOST_BUCKETS, Counters
from filebucket.admin.health import STUCK
from filebucket.admin.site import AdminAnswer
from filebucket.base.threads import short_turns
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import BucketOverview, Known, Overview, make_overview
from filebucket.catalogue.recorder import WriterHealth
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import Kind
from filebucket.model.state import State

T = TypeVar("T")


@frozen
class Live:
    """Current values that the reactor's thread knows.

    :param in_flight: number of pushes in progress
    :param connections: number of open connections of clients that push
    :param stuck_threads: number of threads that wait for a disk for too long
    :param unfinished: number of unfinished resumable uploads
    :param unfinished_bytes: durable bytes of these
    :param leads: whether this daemon leads
    """

    in_flight: int
    connections: int
    stuck_threads: int
    writing: WriterHealth
    unfinished: int = 0
    unfinished_bytes: int = 0
    leads: bool = True


def families(
    live: Live, disk: Filesystem | None, overview: Overview | None
) -> Iterator[Metric]:
    """The gauges.

    :param disk: filesystem; None if it cannot be examined
    :param overview: state of the buckets; None if the catalogue cannot be read
    """

    def gauge(name: str, text: str, value: float) -> Metric:
        return GaugeMetricFamily(f"filebucket_{name}", text, value)

    yield gauge("pushes_in_flight", "Pushes in progress.", live.in_flight)
    yield gauge(
        "connections", "Open connections of clients that push.", live.connections
    )
    yield gauge(
        "stuck_threads",
        f"Threads that have been waiting for a disk for {STUCK:.0f} seconds.",
        live.stuck_threads,
    )
    yield gauge("uploads_unfinished", "Unfinished resumable uploads.", live.unfinished)
    yield gauge(
        "uploads_unfinished_bytes",
        "Bytes of unfinished resumable uploads on the disk.",
        live.unfinished_bytes,
    )
    writing = live.writing
    usable = overview is not None and writing.error is None
    yield gauge("catalogue_up", "1 if the catalogue works, else 0.", usable)
    yield gauge(
        "catalogue_waiting_pushes", "Pushes not yet in the catalogue.", writing.waiting
    )
    yield CounterMetricFamily(
        "filebucket_catalogue_dropped_pushes",
        "Pushes not added to the catalogue in time; a later reindex adds them.",
        writing.dropped,
    )
    yield gauge(
        "leads",
        "1 if this daemon leads those that share its catalogue, or is the only one.",
        live.leads,
    )
    if disk is not None:
        yield gauge(
            "filesystem_size_bytes", "Size of the home's filesystem.", disk.total
        )
        yield gauge(
            "filesystem_free_bytes", "Free space of the home's filesystem.", disk.free
        )
        yield gauge(
            "filesystem_reserved_bytes",
            "Part of the free space that pushes may not use (min_free_space).",
            disk.reserved,
        )
        yield gauge(
            "filesystem_set_aside_bytes",
            "Space reserved for pushes in progress and not yet written.",
            disk.set_aside,
        )
    if overview is not None:
        yield from _of_problems(overview)
        yield from _of_nodes(overview)
        yield from _of_buckets(overview.buckets)


def _of_problems(overview: Overview) -> Iterator[Metric]:
    # The worst one comes first, and several daemons may have one of a kind.
    server = {each.kind: each.severity for each in reversed(overview.problems)}
    found = GaugeMetricFamily(
        "filebucket_problem",
        "Problems of the whole server: 0 none, 1 warning, 2 critical.",
        labels=["problem"],
    )
    for kind in Kind:
        found.add_metric([kind.value], server.get(kind, 0))
    yield found
    found = GaugeMetricFamily(
        "filebucket_bucket_problem",
        "Problems of the bucket: 1 warning, 2 critical; absent without any.",
        labels=["bucket", "problem"],
    )
    for each in _shown(overview.buckets):
        for problem in each.problems:
            found.add_metric([each.label, problem.kind.value], problem.severity)
    yield found


def _of_nodes(overview: Overview) -> Iterator[Metric]:
    found = GaugeMetricFamily(
        "filebucket_node_up",
        "1 if the daemon shares the catalogue and runs; 0 if it is gone or stopped.",
        labels=["node"],
    )
    for each in overview.nodes:
        found.add_metric([each.name], each.is_alive(overview.at))
    yield found


def _of_buckets(buckets: Sequence[BucketOverview]) -> Iterator[Metric]:
    shown = _shown(buckets)
    states = Tally(each.state for each in buckets)
    count = GaugeMetricFamily(
        "filebucket_buckets",
        "Buckets, by the worst state of their series.",
        labels=["state"],
    )
    for state in State:
        count.add_metric([state.value], states[state])
    yield count
    yield GaugeMetricFamily(
        "filebucket_buckets_left_out",
        "Buckets left out of the per-bucket metrics, because there are too many.",
        len(buckets) - len(shown),
    )
    found = GaugeMetricFamily(
        "filebucket_bucket_state",
        "1 for the worst state of the bucket's series, 0 for the other states; a"
        " retired bucket has none.",
        labels=["bucket", "state"],
    )
    for each in shown:
        for state in State:
            # A paused bucket awaits no push, and a retired one has no state.
            is_quiet = each.paused is not None and state is State.NEVER
            has = each.state is state and not (is_quiet or each.retired)
            found.add_metric([each.label, state.value], has)
    yield found
    copied = GaugeMetricFamily(
        "filebucket_bucket_copied_timestamp_seconds",
        "All files received before this time are on the other server; absent if none is"
        " known to be.",
        labels=["bucket", "target"],
    )
    for each in shown:
        for copy in each.copies:
            if copy.until is not None:
                copied.add_metric([each.label, copy.target], copy.until)
    yield copied
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
        "Time of the last durable push.",
        lambda bucket: bucket.last_at,
    ),
    (
        "due_timestamp_seconds",
        "Time when the first series is, or was, overdue; absent without a schedule.",
        lambda bucket: bucket.due,
    ),
    (
        "restored_timestamp_seconds",
        "Time when a restore test last passed; absent if none did.",
        lambda bucket: bucket.restored_at,
    ),
    (
        "drill_due_timestamp_seconds",
        "Time when the next restore test is, or was, overdue; absent without one due.",
        lambda bucket: bucket.drill_due,
    ),
    ("files", "Stored files.", lambda bucket: bucket.files),
    ("size_bytes", "Bytes of the stored files.", lambda bucket: bucket.bytes),
    (
        "quota_bytes",
        "Quota; absent if unlimited.",
        lambda bucket: None if bucket.retired else bucket.quota,
    ),
    (
        "quota_used_bytes",
        "Used part of the quota; absent if unlimited.",
        lambda bucket: bucket.quota_taken if bucket.quota is not None else None,
    ),
    (
        "damaged_files",
        "Files that no longer match their checksum.",
        lambda bucket: bucket.damaged,
    ),
    (
        "missing_files",
        "Files that are gone but were not pruned.",
        lambda bucket: bucket.missing,
    ),
)


def _shown(buckets: Sequence[BucketOverview]) -> list[BucketOverview]:
    """The worst buckets, up to the limit, with unique labels."""
    by_label: dict[str, BucketOverview] = {}
    # Buckets without a name may share a label: the worst one is shown.
    for each in sorted(buckets, key=lambda each: -each.severity):
        if len(by_label) >= MOST_BUCKETS:
            break
        by_label.setdefault(each.label, each)
    return list(by_label.values())


class Scrape:
    """Collects the metrics and renders them."""

    def __init__(
        self,
        counters: Counters,
        run: Callable[..., Deferred[Any]],
        read: Callable[[Callable[[IView], Overview]], Deferred[Overview]],
        disk: Callable[[], Filesystem],
        known: Callable[[], Known],
        live: Callable[[], Live],
    ) -> None:
        """
        :param run: calls a function in a thread
        :param read: calls a function with the catalogue, in a thread; fails with
            :class:`CatalogueError`
        :param disk: examines the home's filesystem; raises OSError
        :param known: returns the facts that are not in the catalogue, but the disk
        """
        self._counters = counters
        self._run = run
        self._read = read
        self._disk = disk
        self._known = known
        self._live = live

    async def __call__(self) -> AdminAnswer:
        """Collect and render everything."""
        known = self._known()
        self._counters.know(each.label for each in known.buckets[:MOST_BUCKETS])
        disk = overview = None
        with suppress(OSError):
            disk = await self._run(self._disk)
        with suppress(CatalogueError):
            overview = await self._read(
                lambda catalogue: make_overview(
                    catalogue,
                    evolve(known, disk=disk),
                    sizes=0,
                    refusals=0,
                    most_series=0,
                )
            )
        found = self._live(), disk, overview
        text = await self._run(_text, self._counters.registry, *found)
        return AdminAnswer(200, text, CONTENT_TYPE_LATEST.encode("ascii"))


class _All:
    """Counters and gauges as one collector."""

    def __init__(self, registry: CollectorRegistry, found: Iterable[Metric]) -> None:
        self._registry = registry
        self._found = found

    def collect(self) -> Iterator[Metric]:
        return chain(self._registry.collect(), self._found)


def _text(
    registry: CollectorRegistry,
    live: Live,
    disk: Filesystem | None,
    overview: Overview | None,
) -> bytes:
    found = _All(registry, families(live, disk, overview))
    with short_turns():
        return generate_latest(found)
