"""Records the outcomes of pushes in the catalogue, after the pushes have ended.

No push waits for the catalogue: its outcome is appended to a list, which a thread soon
writes in one batch (:mod:`~filebucket.catalogue.writer`). If the catalogue cannot be
written the list grows up to a limit. Pushes that are dropped then, and all files if the
catalogue was recreated, are added again from the disk. Readers have their own thread
and connection, so they do not delay anything.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from typing import Protocol, TypeVar

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.alarm import Alarm, within
from filebucket.base.errors import BusyError, Refusal
from filebucket.base.threads import Threads, short_turns
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IInventory, IView
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.jobs import job
from filebucket.catalogue.journal import KEPT_REFUSALS, MOST_INVENTED
from filebucket.catalogue.view import View
from filebucket.catalogue.writer import LOOK_EVERY, Writer
from filebucket.model.bucket import Bucket
from filebucket.model.place import Place
from filebucket.model.problem import ToldProblem
from filebucket.model.push import Kept, Outcome
from filebucket.model.records import (
    Abandoned,
    Failed,
    HookRun,
    Received,
    Refused,
    Series,
)
from filebucket.model.registry import Registry
from filebucket.model.series import series_of
from filebucket.model.state import State
from filebucket.model.unfinished import Unfinished

T = TypeVar("T")

GATHER = 0.5
"""Seconds during which outcomes are collected: a batch costs little more than one push.
"""

BATCH = 1000
"""Pushes that are added in one transaction."""

MOST_WAITING = 20_000
"""Pushes that wait if the catalogue cannot be written; about 20 MB. Any more are added
from the disk later."""

RETRY = 30.0
"""Seconds until a failed write is retried."""

REINDEX_AGAIN = 2.0
"""Seconds until a reindex is tried again that another daemon's kept from beginning.
Until it has ended, some pushes are answered with 503 (:meth:`Recorder.find`)."""

FIND_TIMEOUT = 5.0
"""Seconds that a push waits at most for the lookup of a file with the same name."""

FLUSH_TIMEOUT = 10.0
"""Seconds that the last batch gets at a stop. Without it, only history is lost."""


class Reindex(Protocol):
    """Reconciles the catalogue with the files on disk, as
    :func:`filebucket.upkeep.reindex.reindex`.
    """

    def __call__(
        self,
        catalogue: IInventory,
        buckets: Sequence[Bucket],
        stopped: Callable[[], bool],
    ) -> str: ...


@frozen
class WriterHealth:
    """Whether the catalogue can be written.

    :param waiting: number of pushes that are not added yet
    :param dropped: number of pushes dropped since the start
    :param error: why the catalogue cannot be written; None if it can
    """

    waiting: int
    dropped: int
    error: str | None


class Recorder(Service):
    """The service that maintains the catalogue of a home."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        pool: Callable[[int], Threads],
        home: str,
        registry: Registry,
        reindex: Reindex,
        wall: Callable[[], float],
        term: Callable[[], int] = lambda: 1,
        node: str = "",
        place: Place | None = None,
    ) -> None:
        """
        :param pool: returns a pool with the given number of threads
        :param home: path of the home; its private folder must exist at the start
        :param registry: the configured buckets
        :param reindex: reconciles the catalogue with the files on disk
        :param wall: returns seconds since the epoch
        :param term: :attr:`~filebucket.catalogue.leader.Leader.term`
        :param node: name of this daemon; empty if no other shares the catalogue
        :param place: where the catalogue is, if it is not in the home
        """
        self._place: Place = home if place is None else place
        self._node = node
        self._clock = clock
        self._wall = wall
        self._term = term
        self._writer = Writer(home, registry, term=term, node=node, place=place)
        self._reindex = reindex
        self._registry = registry
        registry.on_change(self._buckets_changed)
        self._listeners: list[Callable[[], object]] = []
        self._to_write, self._to_read, self._to_reindex = pool(1), pool(1), pool(1)
        self._reading: View | None = None  # used only in the thread for reads
        self._received: deque[Received] = deque()
        self._refused: dict[str, deque[Refused]] = {}
        self._abandoned: deque[Abandoned] = deque(maxlen=BATCH)
        # The last run of each hook for each bucket, in order.
        self._hook_runs: dict[tuple[str, str | None], HookRun] = {}
        # Those that are known to work: most runs need not be written.
        self._hooks_working: set[tuple[str, str | None]] = set()
        # The latest of each bucket.
        self._reports: dict[str, deque[Failed]] = {}
        self._one_at_a_time = DeferredLock()
        self._timer = Alarm(clock)
        self._ticking = Alarm(clock)
        self._again = Alarm(clock)
        self._error: str | None = None
        self._dropped = 0
        self._reindexing = False
        self._reindex_wanted = False
        self._reindex_later = False
        self._damage_found = False
        self._stopped = False

    def startService(self) -> None:
        super().startService()
        self._flush()
        self._tick()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._timer.stop()
        self._ticking.stop()
        self._again.stop()
        # Before the writer: SQLite merges its log when the last connection is closed.
        reading = Deferred.fromCoroutine(self._close(self._to_read, self._close_view))
        last = Deferred.fromCoroutine(self._flush_all())
        try:
            await within(self._clock, FLUSH_TIMEOUT, last)
        except Exception:
            self._log.failure("a bug in file-bucket", event="bug")
        self._stopped = True
        await reading
        await self._close(self._to_write, self._writer.close)
        for threads in (self._to_write, self._to_read, self._to_reindex):
            threads.stopService()

    async def _close(self, threads: Threads, close: Callable[[], None]) -> None:
        # Without a thread it stays open until the process exits.
        with suppress(OSError):
            await within(self._clock, FLUSH_TIMEOUT, threads.run(close))

    async def _flush_all(self) -> None:
        """Write all that waits, until an error."""
        await self._one_at_a_time.run(_nothing)
        while self._waits and self._error is None:
            await self._one_at_a_time.run(self._write_some)

    @property
    def _waits(self) -> bool:
        """Whether there is something to write."""
        return bool(
            self._received
            or self._refused
            or self._abandoned
            or self._reports
            or self._hook_runs
        )

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` whenever the state of a series may have changed."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def observe(self, outcome: Outcome) -> None:
        """Record the outcome of a push, or of a report that one failed."""
        bucket = outcome.config
        now = self._wall()
        if outcome.reason is not None:
            key = bucket.key if bucket else ""
            self._latest_refused(key).append(Refused.of(outcome, key, now))
        elif bucket is not None and outcome.failed is not None:
            series = self._series(bucket, outcome.name) if outcome.name else ""
            self._latest_reports(bucket.key).append(
                Failed(bucket.key, series, now, outcome.failed)
            )
        elif (
            bucket is not None
            and outcome.name is not None
            and (outcome.healed or not outcome.repeated)
        ):
            if len(self._received) >= MOST_WAITING:
                self._received.popleft()
                self._dropped += 1
                self._reindex_wanted = True
            series = self._series(bucket, outcome.name)
            self._received.append(
                Received.of(outcome, bucket.key, outcome.name, series, now)
            )
        self._soon(GATHER)

    def reindex(self) -> None:
        """Reconcile the catalogue with the stored files, once it can be written."""
        self._reindex_wanted = True
        self._soon(0)

    def abandoned(self, upload: Unfinished) -> None:
        """Record that a resumable upload expired or was lost."""
        bucket = self._registry.of_key(upload.bucket)
        if bucket is not None:
            series = self._series(bucket, upload.name)
            self._abandoned.append(Abandoned(bucket.key, series, upload.touched_at))
            self._soon(GATHER)

    def hook_ran(self, run: HookRun) -> None:
        """Record whether a hook works."""
        key = run.hook, run.bucket
        if run.reason is not None:
            self._hooks_working -= {key, (run.hook, None)}
        elif key in self._hooks_working:
            return
        else:
            self._hooks_working.add(key)
        self._hook_runs.pop(key, None)
        self._hook_runs[key] = evolve(run, node=self._node)
        self._soon(GATHER)

    def _buckets_changed(self) -> None:
        self._hooks_working.clear()
        self._soon(0)

    def _series(self, bucket: Bucket, name: str) -> str:
        current = self._registry.of_key(bucket.key) or bucket
        return series_of(self._registry.hide_tokens(name), current.series)

    def _latest_refused(self, key: str) -> deque[Refused]:
        return self._refused.setdefault(key, deque(maxlen=KEPT_REFUSALS))

    def _latest_reports(self, key: str) -> deque[Failed]:
        return self._reports.setdefault(key, deque(maxlen=MOST_INVENTED))

    def _soon(self, seconds: float) -> None:
        """Write after ``seconds``, unless a write is scheduled sooner."""
        if not self.running or self._error is not None:
            return
        if self._timer.left > seconds:
            self._timer.set(seconds, self._flush)

    def _flush(self) -> None:
        """Write a batch now, unless a write is in progress."""
        self._timer.stop()
        if not self._one_at_a_time.locked:
            self._one_at_a_time.run(self._write_some)

    def _write_some(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._write())

    async def _write(self) -> None:
        count = min(len(self._received), BATCH)
        received = [self._received.popleft() for _ in range(count)]
        refused, self._refused = self._refused, {}
        rows = [each for latest in refused.values() for each in latest]
        abandoned = list(self._abandoned)
        self._abandoned.clear()
        hooks, self._hook_runs = self._hook_runs, {}
        hook_runs = list(hooks.values())
        reports, self._reports = self._reports, {}
        failed = [each for latest in reports.values() for each in latest]
        rows.sort(key=lambda each: each.at)
        now = self._wall()
        try:
            is_new = await self._to_write.run(
                self._writer.write, received, rows, now, abandoned, hook_runs, failed
            )
        except CatalogueError as error:
            self._received.extendleft(reversed(received))
            self._abandoned.extendleft(reversed(abandoned))
            if hook_runs:
                # The later runs count.
                for key in self._hook_runs:
                    hooks.pop(key, None)
                self._hook_runs = hooks | self._hook_runs
            for each in reversed(rows):
                latest = self._latest_refused(each.bucket)
                if len(latest) < KEPT_REFUSALS:
                    latest.appendleft(each)
            for report in reversed(failed):
                of_bucket = self._latest_reports(report.bucket)
                if len(of_bucket) < MOST_INVENTED:
                    of_bucket.appendleft(report)
            self._failed(str(error))
        except Exception:
            # A retry would fail again. The files on the disk are added later.
            self._log.failure("a bug in file-bucket", event="bug")
            self._dropped += count
            self._reindex_wanted = True
            self._failed("bug in file-bucket, see the log")
        else:
            self._written(is_new)

    def _written(self, is_new: bool) -> None:
        if self._error is not None:
            self._error = None
            self._log.info("catalogue: can be written again", event="catalogue")
        if self._waits:
            self._soon(0 if len(self._received) >= BATCH else GATHER)
        if self._writer.unfinished:
            self._soon(0)
        # Of several daemons only one has to.
        self._reindex_wanted = self._reindex_wanted or (is_new and self._term() > 0)
        if self._reindex_wanted and not self._reindexing:
            self._start_reindex()
        self._changed()

    def _failed(self, reason: str) -> None:
        if self._error != reason:
            self._log.error(
                "catalogue: cannot be written (pushes are not affected): {error}",
                event="catalogue-failed",
                error=reason,
            )
        self._error = reason
        if self.running and not self._timer.is_set:
            self._timer.set(RETRY, self._flush)

    def _tick(self) -> None:
        """Have late series marked and the free space recorded."""
        self._ticking.set(LOOK_EVERY, self._tick)
        self._reindex_now()
        if self._damage_found:
            self._damage_found = False
            self._to_write.run(self._writer.recheck)
        self._soon(0)

    def _reindex_now(self) -> None:
        """Reindex, if it was put off."""
        if self._reindex_later:
            self._reindex_later = False
            self.reindex()

    @property
    def health(self) -> WriterHealth:
        """The state of the writer."""
        return WriterHealth(len(self._received), self._dropped, self._error)

    def read(self, function: Callable[[IView], T]) -> Deferred[T]:
        """Call ``function`` with the catalogue in the thread for reads.

        :returns: fails with :class:`CatalogueError` if it cannot be read
        """
        reading = self._to_read.run(self._read, function)
        return reading.addErrback(self._note_damage)

    def _note_damage(self, failure: Failure) -> Failure:
        """Have the writer check the file: its own queries may never hit the damage."""
        error = failure.value
        if isinstance(error, CatalogueError) and error.damaged:
            self._damage_found = True
        return failure

    async def find(
        self, bucket: Bucket, name: str, published: Kept | None = None
    ) -> Kept | None:
        """The file with that name; None if it is missing, pruned or about to be pruned,
        or was never pushed.

        :param published: the file that the store has under that name, if it tells; the
            catalogue may not have the row of another daemon's push yet
        :raises Refusal: 503: that cannot be determined now
        """
        found, pruned = await self._find(bucket, name)
        if pruned:
            return None
        if published is not None:
            # Only the catalogue knows whether it is damaged.
            same = found is not None and found.sha256 == published.sha256
            return found if same else published
        if found is None and self._incomplete:
            raise _unknown()
        return found

    async def _find(self, bucket: Bucket, name: str) -> tuple[Kept | None, bool]:
        """The file, and whether it is about to be pruned, and so left out."""
        # Its push may not be added yet.
        for each in reversed(self._received):
            there = each.bucket, each.name, each.superseded
            if there == (bucket.key, name, False):
                return Kept(each.size, each.sha256), False
        finding = self._to_write.run(self._writer.find, bucket.key, name)
        finding.addTimeout(FIND_TIMEOUT, self._clock)
        try:
            return await finding
        except (CatalogueError, OSError, defer.TimeoutError):
            raise _unknown() from None
        except Exception:
            self._log.failure("a bug in file-bucket", event="bug")
            raise _unknown() from None

    @property
    def _incomplete(self) -> bool:
        """Whether the catalogue may lack files that were pushed."""
        return self._reindexing or self._reindex_wanted or self._reindex_later

    async def untold(
        self,
        limit: int,
        but: Collection[tuple[str, bool]] = (),
        again: float = -math.inf,
    ) -> list[Series]:
        """As :meth:`~filebucket.catalogue.interfaces.IJournal.untold`.

        :raises CatalogueError: the catalogue cannot be read
        """
        return await self._to_write.run(self._writer.untold, limit, but, again)

    async def mark_told(self, series: Series, state: State, at: float) -> None:
        """Record that the state was reported to the operator.

        :raises CatalogueError: the catalogue cannot be written
        """
        await self._to_write.run(self._writer.mark_told, series, state, at)

    async def told_problems(self) -> list[ToldProblem]:
        """As :meth:`~filebucket.catalogue.interfaces.IJournal.told_problems`.

        :raises CatalogueError: the catalogue cannot be read
        """
        return await self._to_write.run(self._writer.told_problems)

    async def mark_problem(self, told: ToldProblem) -> None:
        """Record that the problem, or its end, was reported to the operator.

        :raises CatalogueError: the catalogue cannot be written
        """
        await self._to_write.run(self._writer.mark_problem, told)

    def _start_reindex(self) -> None:
        """Reconcile the catalogue with the files on disk, in the background."""
        self._reindex_wanted, self._reindexing = False, True
        reindexing = self._to_reindex.run(self._run_reindex, self._registry.all)
        reindexing.addCallbacks(self._reindexed, self._not_reindexed)

    def _reindexed(self, result: str) -> None:
        self._reindexing = False
        found = result or "in order"
        self._log.info("catalogue: {found}", event="reindexed", found=found)
        self._changed()

    def _not_reindexed(self, failure: Failure) -> None:
        self._reindexing = False
        if failure.check(BusyError):
            # That one may have begun before the files came that this one is about.
            self._reindex_later = True
            if self.running:
                self._again.set(REINDEX_AGAIN, self._reindex_now)
        elif failure.check(CatalogueError):
            # Not at once, since the error may persist.
            self._reindex_later = True
            self._note_damage(failure)
            self._log.error(
                "catalogue: cannot add the files on disk: {error}",
                event="catalogue-failed",
                error=str(failure.value),
            )
        else:
            self._log.failure("a bug in file-bucket", failure, event="bug")

    # Called in threads.

    def _read(self, function: Callable[[IView], T]) -> T:
        if self._reading is not None and not self._reading.is_there():
            self._close_view()
        if self._reading is None:
            self._reading = View.open(self._place, create=False)
        with short_turns():
            return function(self._reading)

    def _close_view(self) -> None:
        view, self._reading = self._reading, None
        if view is not None:
            view.close()

    def _run_reindex(self, buckets: Sequence[Bucket]) -> str:
        with (
            closing(Inventory.open(self._place)) as catalogue,
            job(self._place, "reindex"),
        ):
            return self._reindex(catalogue, buckets, lambda: self._stopped)


def _nothing() -> None:
    pass


def _unknown() -> Refusal:
    return Refusal(
        503, "cannot check now whether a file with that name was already received"
    )
