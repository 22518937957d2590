"""What is counted about the daemon as it happens, in the reactor's thread and for a few
microseconds a push.

There are as many numbers as the operator has buckets, and no more for whatever clients
send: a name, a series or a stranger is never a label. Of more than :data:`MOST_BUCKETS`
buckets, those that first had a push after so many others are counted together, under an
empty label.
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
from filebucket.hooks.interfaces import EVENTS, Exit
from filebucket.model.push import Outcome

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


class Counters:
    """What is counted as it happens. To be told in the reactor's thread."""

    def __init__(self) -> None:
        # When each was made: numbers that nobody asks for, as many again.
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
        refusals = Counter(
            "filebucket_refusals",
            "Refused requests, by status.",
            ["status"],
            registry=registry,
        )
        self._refusals = {
            status: refusals.labels(str(status)) for status in STATUSES if status != 200
        }
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
