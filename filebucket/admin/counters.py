"""Metrics that are counted as events happen, in the reactor's thread, in a few
microseconds per push.

Clients cannot add time series: labels are buckets, never names of files or series. With
more than :data:`MOST_BUCKETS` buckets, pushes to the others are counted together under
an empty label.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from filebucket import __version__
from filebucket.base.errors import STATUSES
from filebucket.hooks.interfaces import EVENTS, Exit, Run
from filebucket.model.push import Outcome, Step
from filebucket.model.unfinished import Broken

MOST_BUCKETS = 1000
"""Maximum number of buckets with metrics of their own, 14 each."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300, 1800, 7200)
"""From a small file to a large one on a slow connection."""

SIZES = tuple(1024 * 8**power for power in range(11))
"""1 KiB to 1 TiB."""

EXITS = ("0", "1", "2", "other", "timeout", "stop", "broken")
"""How a hook run can end: its exit status; ``other`` is another status or a signal;
``stop`` is the stop of the daemon; ``broken`` is a hook that could not be run."""


ENDS = ("finished", "refused", "deleted", *(each.value for each in Broken))
"""How a resumable upload can end: its file is stored, or refused; the client gave it
up; it expired, or its data is lost."""


class Process(ProcessCollector):
    """Process metrics that also work in a sandbox with ``ProcSubset=pid``, where
    ``/proc/stat``, the usual source of the boot time, is missing.
    """

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class Counters:
    """Counts events. Call it in the reactor's thread."""

    def __init__(self) -> None:
        # They would double the number of time series.
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        Process(registry=registry)
        Gauge(
            "filebucket_build_info",
            "Version of the daemon; always 1.",
            ["version"],
            registry=registry,
        ).labels(__version__).set(1)
        self._pushes = Counter(
            "filebucket_pushes",
            "Durable pushes.",
            ["bucket"],
            registry=registry,
        )
        self._bytes = Counter(
            "filebucket_received_bytes",
            "Bytes of durable pushes.",
            ["bucket"],
            registry=registry,
        )
        self._seconds = Histogram(
            "filebucket_push_duration_seconds",
            "Seconds from the end of the headers until a push is durable.",
            registry=registry,
            buckets=SECONDS,
        )
        self._sizes = Histogram(
            "filebucket_push_size_bytes",
            "Sizes of durable pushes.",
            registry=registry,
            buckets=SIZES,
        )
        self._repeats = Counter(
            "filebucket_repeated_pushes",
            "Pushes of files that were already stored.",
            registry=registry,
        )
        self._failures = Counter(
            "filebucket_failure_reports",
            "Reports of clients that a backup failed.",
            registry=registry,
        )
        refusals = Counter(
            "filebucket_refusals",
            "Refused requests, by status.",
            ["status"],
            registry=registry,
        )
        self._refusals = {
            status: refusals.labels(str(status)) for status in STATUSES if status >= 400
        }
        self._uploads = Counter(
            "filebucket_uploads",
            "Resumable uploads that clients began.",
            registry=registry,
        )
        self._parts = Counter(
            "filebucket_upload_parts",
            "Requests that appended to a resumable upload.",
            registry=registry,
        )
        self._part_bytes = Counter(
            "filebucket_upload_part_bytes",
            "Bytes of resumable uploads that became durable.",
            registry=registry,
        )
        ends = Counter(
            "filebucket_uploads_ended",
            "Resumable uploads that ended, by how.",
            ["end"],
            registry=registry,
        )
        self._ends = {each: ends.labels(each) for each in ENDS}
        self._hook_runs = Counter(
            "filebucket_hook_runs",
            "Hook runs, by exit status or other end.",
            ["hook", "exit"],
            registry=registry,
        )
        self._hook_seconds = Histogram(
            "filebucket_hook_duration_seconds",
            "Duration of hook runs, in seconds.",
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
            "1 if the last reload succeeded, else 0.",
            registry=registry,
        )
        self._reload.set(1)
        # Looking up a label costs more than counting.
        self._of_bucket: dict[str, tuple[Counter, Counter]] = {}

    def know(self, labels: Iterable[str]) -> None:
        """Start the counters of these buckets at 0. A counter that appears with its
        first push would have no rate for it.
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
        """Count a push that has ended, or a report that one failed."""
        if outcome.reason is not None:
            self._refusals[outcome.status].inc()
            return
        if outcome.failed is not None:
            self._failures.inc()
            return
        if outcome.repeated:
            self._repeats.inc()
            return
        count, size = self._find(outcome.bucket)
        count.inc()
        size.inc(outcome.size)
        self._seconds.observe(outcome.seconds)
        self._sizes.observe(outcome.size)

    def resumed(self, outcome: Outcome) -> None:
        """Count the work of a request about a resumable upload, if it is one."""
        if outcome.is_new:
            self._uploads.inc()
        if outcome.began is not None:
            self._parts.inc()
            if outcome.upload is not None:
                self._part_bytes.inc(max(outcome.upload.offset - outcome.began, 0))
        if outcome.parts is not None:
            if outcome.reason is None:
                self._ends["finished"].inc()
            elif outcome.upload is not None and outcome.upload.complete:
                self._ends["refused"].inc()
        elif outcome.step is Step.GIVEN_UP and outcome.reason is None:
            self._ends["deleted"].inc()

    def broken(self, how: Broken) -> None:
        """Count a resumable upload whose push never ended."""
        self._ends[how.value].inc()

    def hook_ran(self, run: Run) -> None:
        """Count a hook run."""
        self._hook_runs.labels(run.hook, _exit(run.ended)).inc()
        if run.ended is not None:
            self._hook_seconds.labels(run.hook).observe(run.seconds)

    def reloaded(self, taken: bool) -> None:
        """Record the result of a reload.

        :param taken: whether the reload succeeded
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
