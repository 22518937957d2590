"""Writes the catalogue, in a thread of its own.

A catalogue that is damaged is put aside, and one that was taken away is missed. In both
cases a new one is made, and the caller is told: it does not know what is on the disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from twisted.logger import Logger

from filebucket.base.fs import free_bytes, total_bytes
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.interfaces import IJournal
from filebucket.catalogue.journal import Journal
from filebucket.model.push import Kept
from filebucket.model.records import Received, Refused, Series, Space
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.state import State

LOOK_EVERY = 60.0
"""Seconds between two looks at what has become late."""

TURN = 0.1
"""Seconds, and one piece more, in which series are looked at before others get their
turn."""

SPACE_EVERY = 600.0
"""Seconds between two looks at the free space."""

STEADY = 3600.0
"""Seconds in which a clock that was not set is believed to be right: one that is wrong
when the machine starts is set sooner."""


class Writer:
    """The catalogue, opened, mended or made anew when that is needed.

    Its methods are to be called in one thread.
    """

    _log = Logger()

    def __init__(
        self,
        home: str,
        registry: Registry,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param home: whose private folder is there when it is used
        :param registry: the buckets in force
        :param elapsed: tells seconds
        """
        self._home = home
        self._registry = registry
        self._journal: Journal | None = None
        self._inode: int | None = None  # of what was opened last
        self._watched: BucketIndex | None = None  # to the end
        self._watching: tuple[BucketIndex, Iterator[None]] | None = None
        self._elapsed = elapsed
        self._doubted_at = float("-inf")
        self._space_noted_at = float("-inf")
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
        journal, is_new = self._open()
        self._watch(journal, now)
        if received or refused:
            journal.record(received, refused, self._registry.of_key)
            received.clear()
            refused.clear()
        journal.pass_time(now)
        self._mistrust(journal, now)
        if now - self._space_noted_at >= SPACE_EVERY:
            self._note_space(journal, now)
        return is_new

    @property
    def unfinished(self) -> bool:
        """Whether there is more to be done than one call may take."""
        return self._watching is not None

    def _watch(self, journal: IJournal, now: float) -> None:
        """Expect what the buckets in force expect; as much of it as a turn may take."""
        buckets = self._registry.index
        under_way = self._watching and self._watching[0]
        if buckets not in (self._watched, under_way):
            # What was begun for others has to be done anew.
            before = self._watched.all if self._watched and not under_way else None
            pieces = journal.watch(buckets.all, buckets.hide_tokens, now, before)
            self._watching, self._watched = (buckets, pieces), None
        if self._watching is None:
            return
        end = self._elapsed() + TURN
        for _ in self._watching[1]:
            if self._elapsed() >= end:
                return
        self._watched, self._watching = buckets, None

    def _mistrust(self, journal: IJournal, now: float) -> None:
        """Where the clock has gone on for long as clocks do, what came in its future
        came when it was wrong: nothing would be late until that time."""
        if not 0 <= now - self._now <= 5 * LOOK_EVERY:
            self._steady_since = now
        self._now = now
        if now - self._steady_since >= STEADY and now - self._doubted_at >= LOOK_EVERY:
            self._doubted_at = now
            count = journal.mistrust(now, self._registry.of_key)
            if count:
                self._log.warn(
                    "the clock was ahead during the last pushes of {count} series;"
                    " they count as received now",
                    event="clock",
                    count=count,
                )

    def find(self, bucket: str, name: str) -> Kept | None:
        """What is known of the file of that name that there should be, and that nobody
        is about to prune.

        :param bucket: its key
        :raises CatalogueError: nothing can be known now
        """
        found = self._opened().find(bucket, name)
        if found is None or found.fate_at is not None:
            return None
        return Kept(found.received.size, found.received.sha256, found.damaged)

    def untold(
        self, limit: int, but: Collection[tuple[str, bool]] = ()
    ) -> list[Series]:
        """As :meth:`~filebucket.catalogue.interfaces.IJournal.untold`.

        :raises CatalogueError: it cannot be read now
        """
        return self._opened().untold(limit, but)

    def mark_told(self, series: int, state: State) -> None:
        """The operator was told that.

        :raises CatalogueError: it cannot be written now
        """
        self._opened().mark_told(series, state)

    def _opened(self) -> IJournal:
        if self._journal is None:
            raise CatalogueError("cannot be opened")
        return self._journal

    def recheck(self) -> None:
        """Somebody found it damaged: look at all of it before it is used again."""
        self.close()
        self._inode = None

    def close(self) -> None:
        """Have it no more; the next one who writes opens it again."""
        journal, self._journal = self._journal, None
        if journal is not None:
            with suppress(CatalogueError):
                journal.close()

    def _open(self) -> tuple[Journal, bool]:
        if self._journal is not None:
            if self._journal.is_there():
                return self._journal, False
            self._log.warn(
                "catalogue file is gone; rebuilding it from disk",
                event="catalogue-gone",
            )
            self.close()
            # The next one's number may be the same.
            self._inode = None
        self._watched = self._watching = None
        self._journal = Journal.open(self._home)
        is_new = self._journal.inode != self._inode
        if is_new:
            self._journal.check()
        self._inode = self._journal.inode
        return self._journal, is_new

    def _put_aside(self, error: CatalogueError) -> None:
        self._log.error(
            "catalogue file is damaged ({error}); keeping it as {name} and rebuilding"
            " the catalogue from disk",
            event="catalogue-damaged",
            error=str(error),
            name=f"{os.path.basename(FILE)}.damaged",
        )
        self._inode = None
        path = os.path.join(self._home, FILE)
        try:
            os.replace(path, f"{path}.damaged")
        except OSError as failed:
            raise CatalogueError(failed.strerror or "disk error") from None

    def _note_space(self, journal: IJournal, now: float) -> None:
        # Whether the home can be had, those who push are told.
        with suppress(OSError):
            found = os.statvfs(self._home)
            space = Space(now, free_bytes(found), total_bytes(found))
            journal.note_space(space)
            self._space_noted_at = now
