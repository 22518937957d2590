"""Enters what became of pushes into the catalogue, behind them.

A push is never waited for here, nor does one wait: its outcome is put into a list, and
what is in the list goes to the catalogue in one batch, in a thread of its own, soon
after. Where the catalogue cannot be written the list waits, up to a bound, and what
was dropped then is found on the disk again. A catalogue that is damaged is put aside,
one that was taken away is missed, and in both cases a new one is made of what is there.

Whoever reads has a thread and a connection of his own, and holds nobody up.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.fs import free_bytes, total_bytes
from filebucket.base.threads import Threads
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.interfaces import IInventory, IJournal, IView
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import KEPT_REFUSALS, Journal
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.model.records import Received, Refused, Series, Space
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.series import series_of
from filebucket.model.state import State

T = TypeVar("T")

GATHER = 0.5
"""Seconds in which outcomes gather: so many pushes cost little more than one."""

BATCH = 1000
"""Pushes that are entered at once."""

MOST_WAITING = 20_000
"""Pushes that wait where the catalogue cannot be written; some 20 MB. What is more is
found on the disk when it can."""

RETRY = 30.0
"""Seconds until a catalogue that failed is tried again."""

LOOK_EVERY = 60.0
"""Seconds between two looks at what has become late."""

SPACE_EVERY = 600.0
"""Seconds between two looks at the free space."""

STEADY = 3600.0
"""Seconds in which a clock that was not set is believed to be right: one that is wrong
when the machine starts is set sooner."""

FIND_TIMEOUT = 5.0
"""Seconds that a push waits at most to hear of the file that it finds in its way."""

FLUSH_TIMEOUT = 10.0
"""Seconds that the last batch gets at a stop: its files are there without it."""


class Reindex(Protocol):
    """Brings the catalogue and the disk together, as
    :func:`filebucket.upkeep.reindex.reindex`."""

    def __call__(
        self,
        catalogue: IInventory,
        buckets: Sequence[Bucket],
        stopped: Callable[[], bool],
    ) -> str: ...


class Ledger:
    """The catalogue as the thread has it that writes it: opened, mended or made anew
    when that is needed, and watching what it shall.
    """

    _log = Logger()

    def __init__(self, home: str, registry: Registry) -> None:
        """
        :param home: whose private folder is there when it is used
        :param registry: the buckets in force
        """
        self._home = home
        self._registry = registry
        self._catalogue: Journal | None = None
        self._inode: int | None = None  # of what was opened last
        self._watched: BucketIndex | None = None
        self._looked_at_space = float("-inf")
        self._now = self._steady_since = float("-inf")

    def write(
        self, received: list[Received], refused: list[Refused], now: float
    ) -> bool:
        """Enter these, and see what has become late. What is entered is taken out of
        the lists, whatever fails afterwards.

        :returns: whether it is another catalogue than before, so that it may not know
            what is on the disk
        :raises CatalogueError: it cannot be written
        """
        try:
            return self._write(received, refused, now)
        except CatalogueError as error:
            self.close()
            if not error.damaged:
                raise
            self._put_aside(error)
        try:
            return self._write(received, refused, now)
        except CatalogueError:
            self.close()
            raise

    def _write(
        self, received: list[Received], refused: list[Refused], now: float
    ) -> bool:
        catalogue, is_new = self._open()
        buckets = self._registry.index
        if self._watched is not buckets:
            catalogue.watch(buckets.all, buckets.hide_tokens, now)
            self._watched = buckets
        if received or refused:
            catalogue.record(received, refused, self._registry.of_key)
            received.clear()
            refused.clear()
        catalogue.pass_time(now)
        self._mistrust(catalogue, now)
        if now - self._looked_at_space >= SPACE_EVERY:
            self._look_at_space(catalogue, now)
        return is_new

    def _mistrust(self, catalogue: IJournal, now: float) -> None:
        """Where the clock has gone on for long as clocks do, what came in its future
        came when it was wrong: nothing would be late until that time."""
        if not 0 <= now - self._now <= 5 * LOOK_EVERY:
            self._steady_since = now
        self._now = now
        if now - self._steady_since >= STEADY:
            count = catalogue.mistrust(now, self._registry.of_key)
            if count:
                self._log.warn(
                    "the clock was ahead when the last pushes of {count} series came:"
                    " they count as received now",
                    event="clock",
                    count=count,
                )

    def use(self, function: Callable[[IJournal], T]) -> T:
        """Call ``function`` with the catalogue.

        :raises CatalogueError: there is none
        """
        if self._catalogue is None:
            raise CatalogueError("it cannot be opened")
        return function(self._catalogue)

    def doubt(self) -> None:
        """Somebody found it damaged: look at all of it before it is used again."""
        self.close()
        self._inode = None

    def close(self) -> None:
        """Have it no more; the next one who writes opens it again."""
        catalogue, self._catalogue = self._catalogue, None
        if catalogue is not None:
            with suppress(CatalogueError):
                catalogue.close()

    def _open(self) -> tuple[Journal, bool]:
        if self._catalogue is not None:
            if self._catalogue.is_there():
                return self._catalogue, False
            self._log.warn(
                "catalogue: somebody took it away; it is made anew",
                event="catalogue-gone",
            )
            self.close()
            # The next one's number may be the same.
            self._inode = None
        self._watched = None
        self._catalogue = Journal.open(self._home)
        is_new = self._catalogue.inode != self._inode
        if is_new:
            self._catalogue.check()
        self._inode = self._catalogue.inode
        return self._catalogue, is_new

    def _put_aside(self, error: CatalogueError) -> None:
        self._log.error(
            "catalogue: it is damaged ({error}); it is kept as {name}, and made anew of"
            " what is on the disk",
            event="catalogue-damaged",
            error=str(error),
            name=f"{os.path.basename(FILE)}.damaged",
        )
        self._inode = None
        path = os.path.join(self._home, FILE)
        try:
            os.replace(path, f"{path}.damaged")
        except OSError as failed:
            raise CatalogueError(failed.strerror or "the disk failed") from None

    def _look_at_space(self, catalogue: IJournal, now: float) -> None:
        # Whether the home can be had, those who push are told.
        with suppress(OSError):
            found = os.statvfs(self._home)
            space = Space(now, free_bytes(found), total_bytes(found))
            catalogue.note_space(space)
            self._looked_at_space = now


@frozen
class Health:
    """How the catalogue is.

    :param waiting: pushes that are not entered yet
    :param dropped: pushes that never were, since the start
    :param error: why it cannot be written; None where it can
    """

    waiting: int
    dropped: int
    error: str | None


class Recorder(Service):
    """Keeps the catalogue of a home, from when it is started until it is stopped."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        pool: Callable[[int], Threads],
        home: str,
        registry: Registry,
        reindex: Reindex,
    ) -> None:
        """
        :param clock: tells the time since the epoch
        :param pool: makes a pool of so many threads
        :param home: whose private folder is there at the start
        :param registry: the buckets in force
        """
        self._clock = clock
        self._ledger = Ledger(home, registry)
        self._home = home
        self._reindex = reindex
        self._registry = registry
        registry.on_change(lambda: self._soon(0))
        self._listeners: list[Callable[[], object]] = []
        self._to_write, self._to_read, self._to_find = pool(1), pool(1), pool(1)
        self._reading: View | None = None  # that thread's
        self._received: deque[Received] = deque()
        self._refused: dict[str, deque[Refused]] = {}
        self._one_at_a_time = DeferredLock()
        self._timer: IDelayedCall | None = None
        self._ticking: IDelayedCall | None = None
        self._error: str | None = None
        self._dropped = 0
        self._finding = False
        self._find_again = False
        self._not_yet_found = False
        self._doubtful = False
        self._stopped = False

    def startService(self) -> None:
        super().startService()
        self._flush()
        self._tick()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for timer in (self._timer, self._ticking):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._ticking = None
        last: Deferred[None] = Deferred.fromCoroutine(self._flush_all())
        last.addTimeout(FLUSH_TIMEOUT, self._clock)
        last.addErrback(lambda failure: None)
        await last
        self._stopped = True
        closing = self._to_write.run(self._ledger.close)
        closing.addTimeout(FLUSH_TIMEOUT, self._clock)
        closing.addErrback(lambda failure: None)
        await closing
        for threads in (self._to_write, self._to_read, self._to_find):
            threads.stopService()

    async def _flush_all(self) -> None:
        """Write all that waits, unless it cannot be written."""
        await self._one_at_a_time.run(_nothing)
        while (self._received or self._refused) and self._error is None:
            await self._one_at_a_time.run(self._write_some)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` whenever the state of a series may be another."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def observe(self, outcome: Outcome) -> None:
        """A push has come to its end."""
        bucket = outcome.config
        now = self._clock.seconds()
        if outcome.reason is not None:
            key = bucket.key if bucket else ""
            self._latest_refused(key).append(
                Refused(
                    key,
                    now,
                    outcome.name,
                    outcome.size,
                    outcome.status,
                    outcome.reason,
                    outcome.client,
                    outcome.request_id,
                )
            )
        elif bucket is not None and outcome.name is not None and not outcome.repeated:
            if len(self._received) >= MOST_WAITING:
                self._received.popleft()
                self._dropped += 1
                self._find_again = True
            self._received.append(
                Received(
                    bucket.key,
                    series_of(self._registry.hide_tokens(outcome.name), bucket.series),
                    outcome.name,
                    outcome.size,
                    outcome.sha256 or "",
                    outcome.published_at or now,
                    outcome.seconds,
                    outcome.client,
                    outcome.overwrote,
                    outcome.pre_push,
                    outcome.post_push,
                    outcome.request_id,
                    outcome.superseded,
                )
            )
        self._soon(GATHER)

    def _latest_refused(self, key: str) -> deque[Refused]:
        return self._refused.setdefault(key, deque(maxlen=KEPT_REFUSALS))

    def _soon(self, seconds: float) -> None:
        """Write in so many seconds, unless that is to be sooner anyway."""
        if not self.running or self._error is not None:
            return
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._flush)
        elif self._timer.getTime() > self._clock.seconds() + seconds:
            # Or for as long as the clock was set back nothing would be written.
            self._timer.reset(seconds)

    def _flush(self) -> None:
        """Write some of what waits, if nothing is being written."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if not self._one_at_a_time.locked:
            self._one_at_a_time.run(self._write_some)

    def _write_some(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._write())

    async def _write(self) -> None:
        count = min(len(self._received), BATCH)
        received = [self._received.popleft() for _ in range(count)]
        refused, self._refused = self._refused, {}
        rows = [each for latest in refused.values() for each in latest]
        now = self._clock.seconds()
        try:
            is_new = await self._to_write.run(self._ledger.write, received, rows, now)
        except CatalogueError as error:
            self._received.extendleft(reversed(received))
            for each in reversed(rows):
                latest = self._latest_refused(each.bucket)
                if len(latest) < KEPT_REFUSALS:
                    latest.appendleft(each)
            self._failed(str(error))
        except Exception:
            # Tried again it would fail again; and the files are on the disk.
            self._log.failure("a bug in file-bucket", event="bug")
            self._dropped += count
            self._find_again = True
            self._failed("a bug in file-bucket, which the log shows")
        else:
            self._written(is_new)

    def _written(self, is_new: bool) -> None:
        if self._error is not None:
            self._error = None
            self._log.info("catalogue: it can be written again", event="catalogue")
        if self._received or self._refused:
            self._soon(0 if len(self._received) >= BATCH else GATHER)
        self._find_again = self._find_again or is_new
        if self._find_again and not self._finding:
            self._find()
        self._changed()

    def _failed(self, reason: str) -> None:
        if self._error != reason:
            self._log.error(
                "catalogue: it cannot be written, pushes go on: {error}",
                event="catalogue-failed",
                error=reason,
            )
        self._error = reason
        if self.running and self._timer is None:
            self._timer = self._clock.callLater(RETRY, self._flush)

    def _tick(self) -> None:
        """See what has become late, and what is free."""
        self._ticking = self._clock.callLater(LOOK_EVERY, self._tick)
        if self._not_yet_found:
            self._find_again, self._not_yet_found = True, False
        if self._doubtful:
            self._doubtful = False
            self._to_write.run(self._ledger.doubt)
        self._soon(0)

    @property
    def health(self) -> Health:
        """How it is."""
        return Health(len(self._received), self._dropped, self._error)

    def read(self, function: Callable[[IView], T]) -> Deferred[T]:
        """Call ``function`` with the catalogue, to read it, in a thread.

        :returns: fails with :class:`CatalogueError` where it cannot be read
        """
        reading = self._to_read.run(self._read, function)
        return reading.addErrback(self._doubt_and_fail)

    def _doubt_and_fail(self, failure: Failure) -> Failure:
        self._doubt(failure)
        return failure

    def _doubt(self, failure: Failure) -> None:
        """Whoever writes may never come to the place that is damaged."""
        error = failure.value
        if isinstance(error, CatalogueError) and error.damaged:
            self._doubtful = True

    async def find(self, bucket: Bucket, name: str) -> Kept | None:
        """What is known of the file of that name; None also where that cannot be
        known now, or takes too long.
        """

        def look(catalogue: IJournal) -> Kept | None:
            found = catalogue.find(bucket.key, name)
            return Kept(found.received.size, found.received.sha256) if found else None

        # It may wait for its turn to be entered.
        for each in reversed(self._received):
            there = each.bucket, each.name, each.superseded
            if there == (bucket.key, name, False):
                return Kept(each.size, each.sha256)
        found: Deferred[Kept | None] = self._to_write.run(self._ledger.use, look)
        found.addTimeout(FIND_TIMEOUT, self._clock)
        found.addErrback(lambda failure: None)
        return await found

    async def untold(self, limit: int) -> list[Series]:
        """Series whose state the operator was not told.

        :raises CatalogueError: it cannot be read
        """
        return await self._to_write.run(
            self._ledger.use, lambda catalogue: catalogue.untold(limit)
        )

    async def tell(self, series: int, state: State) -> None:
        """The operator was told that.

        :raises CatalogueError: it cannot be written
        """
        await self._to_write.run(
            self._ledger.use, lambda catalogue: catalogue.mark_told(series, state)
        )

    def _find(self) -> None:
        """Bring the catalogue and the disk together, in the background."""
        self._find_again, self._finding = False, True
        finding = self._to_find.run(self._search, self._registry.all)
        finding.addCallbacks(self._found, self._not_found)

    def _found(self, result: str) -> None:
        self._finding = False
        found = result or "in order"
        self._log.info("catalogue: {found}", event="reindexed", found=found)
        self._changed()

    def _not_found(self, failure: Failure) -> None:
        self._finding = False
        if failure.check(CatalogueError):
            # Not at once: whatever is the matter may last.
            self._not_yet_found = True
            self._doubt(failure)
            self._log.error(
                "catalogue: what is on the disk cannot be entered: {error}",
                event="catalogue-failed",
                error=str(failure.value),
            )
        else:
            self._log.failure("a bug in file-bucket", failure, event="bug")

    # In threads of their own.

    def _read(self, function: Callable[[IView], T]) -> T:
        if self._reading is not None and not self._reading.is_there():
            self._reading.close()
            self._reading = None
        if self._reading is None:
            self._reading = View.open(self._home, create=False)
        return function(self._reading)

    def _search(self, buckets: Sequence[Bucket]) -> str:
        catalogue = Inventory.open(self._home)
        try:
            return self._reindex(catalogue, buckets, lambda: self._stopped)
        finally:
            catalogue.close()


def _nothing() -> None:
    pass
