"""Writes the catalogue, in its own thread.

If the catalogue's file is damaged it is renamed, and if it is damaged or gone a new one
is created. The caller learns that, since the new one does not have the files on disk.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from attrs import evolve
from twisted.logger import Logger

from filebucket.base.fs import free_bytes, total_bytes
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.interfaces import IJournal
from filebucket.catalogue.journal import Journal
from filebucket.model.place import Place
from filebucket.model.problem import ToldProblem
from filebucket.model.push import Kept
from filebucket.model.records import (
    Abandoned,
    Failed,
    HookRun,
    Received,
    Refused,
    Series,
    Space,
)
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.state import State

LOOK_EVERY = 60.0
"""Seconds between two checks for late backups."""

TURN = 0.1
"""Seconds of work on series before other work gets its turn. The step in progress is
finished first."""

SPACE_EVERY = 600.0
"""Seconds between two samples of the free space."""

STEADY = 3600.0
"""Seconds without a jump after which the clock is trusted: a clock that is wrong when
the machine boots is set sooner."""


class Writer:
    """The catalogue; opens, repairs or recreates it if needed.

    Call all methods in the same thread.
    """

    _log = Logger()

    def __init__(
        self,
        home: str,
        registry: Registry,
        elapsed: Callable[[], float] = time.monotonic,
        term: Callable[[], int] = lambda: 1,
        node: str = "",
        place: Place | None = None,
    ) -> None:
        """
        :param home: path of the home; its private folder must exist
        :param registry: the configured buckets
        :param elapsed: returns monotonic seconds
        :param term: :attr:`~filebucket.catalogue.leader.Leader.term`
        :param node: name of this daemon; empty if no other shares the catalogue
        :param place: where the catalogue is, if it is not in the home
        """
        self._node = node
        self._place: Place = home if place is None else place
        self._home = home
        self._registry = registry
        self._journal: Journal | None = None
        self._identity: object = None  # of the catalogue opened last
        self._watched: BucketIndex | None = None  # completed
        self._watching: tuple[BucketIndex, Iterator[None]] | None = None
        self._elapsed = elapsed
        self._term = term
        self._term_watched = 0
        self._doubted_at = float("-inf")
        self._space_noted_at = float("-inf")
        self._now = self._steady_since = float("-inf")

    def write(
        self,
        received: list[Received],
        refused: list[Refused],
        now: float,
        abandoned: list[Abandoned] | None = None,
        hook_runs: list[HookRun] | None = None,
        failed: list[Failed] | None = None,
    ) -> bool:
        """Add pushes and refusals, and mark late series if this daemon leads. The lists
        are emptied once their items are added, even if a later step fails.

        :param abandoned: pushes that never ended
        :param hook_runs: how hooks ran, in order
        :param failed: reports that backups failed
        :returns: whether this is another catalogue than before, which may not have the
            files on disk
        :raises CatalogueError: the catalogue cannot be written
        """
        abandoned = [] if abandoned is None else abandoned
        hook_runs = [] if hook_runs is None else hook_runs
        failed = [] if failed is None else failed
        # SQLite reports a read that failed once as damage, too.
        for mend in (lambda _: self.recheck(), self._put_aside):
            try:
                return self._write(received, refused, now, abandoned, hook_runs, failed)
            except CatalogueError as error:
                self.close()
                if not error.damaged:
                    raise
                mend(error)
        try:
            return self._write(received, refused, now, abandoned, hook_runs, failed)
        except CatalogueError:
            self.close()
            raise

    def _write(
        self,
        received: list[Received],
        refused: list[Refused],
        now: float,
        abandoned: list[Abandoned],
        hook_runs: list[HookRun],
        failed: list[Failed],
    ) -> bool:
        journal, is_new = self._open()
        leads = self._leads()
        if leads:
            self._watch(journal, now)
        if received or refused:
            # A reload may have changed series since a push ended.
            registry = self._registry
            journal.record(received, refused, registry.of_key, registry.hide_tokens)
            received.clear()
            refused.clear()
        if abandoned:
            # After the pushes: these may be of a series that was unknown.
            journal.abandon(abandoned, self._registry.of_key, now)
            abandoned.clear()
        if failed:
            # Here, since it takes milliseconds if anything in a text may be a token.
            hide = self._registry.hide_tokens
            shown = [evolve(each, text=hide(each.text)) for each in failed]
            journal.fail(shown, self._registry.of_key, now)
            failed.clear()
        if hook_runs:
            journal.note_hooks(hook_runs)
            hook_runs.clear()
        if leads:
            journal.forget_failures(now, self._registry.of_key)
            journal.pass_time(now)
            self._mistrust(journal, now)
        if now - self._space_noted_at >= SPACE_EVERY:
            self._note_space(journal, now)
        return is_new

    def _leads(self) -> bool:
        term = self._term()
        if term != self._term_watched:
            # Another daemon may have watched other buckets meanwhile.
            self._watched = self._watching = None
            self._term_watched = term
        return term > 0

    @property
    def unfinished(self) -> bool:
        """Whether another call has work left to do."""
        return self._watching is not None

    def _watch(self, journal: IJournal, now: float) -> None:
        """Expect backups as configured; stops after a turn."""
        buckets = self._registry.index
        under_way = self._watching and self._watching[0]
        if buckets not in (self._watched, under_way):
            # Start over if the work for an older configuration was not completed.
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
        """Correct pushes from the future: if the clock has run steadily, it was wrong
        when they came. Otherwise no backup would be late until that time.
        """
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

    def find(self, bucket: str, name: str) -> tuple[Kept | None, bool]:
        """The file that should exist under that name, and whether it is about to be
        pruned, and so left out.

        :param bucket: the bucket's key
        :raises CatalogueError: the catalogue cannot be read now
        """
        found = self._opened().find(bucket, name)
        if found is None or found.fate_at is not None:
            return None, found is not None
        received = found.received
        return Kept(received.size, received.sha256, found.damaged), False

    def untold(
        self,
        limit: int,
        but: Collection[tuple[str, bool]] = (),
        again: float = -math.inf,
    ) -> list[Series]:
        """As :meth:`~filebucket.catalogue.interfaces.IJournal.untold`.

        :raises CatalogueError: the catalogue cannot be read now
        """
        return self._opened().untold(limit, but, again)

    def mark_told(self, series: Series, state: State, at: float) -> None:
        """Record that the state was reported to the operator.

        :raises CatalogueError: the catalogue cannot be written now
        """
        self._opened().mark_told(series, state, at)

    def told_problems(self) -> list[ToldProblem]:
        """As :meth:`~filebucket.catalogue.interfaces.IJournal.told_problems`.

        :raises CatalogueError: the catalogue cannot be read now
        """
        return self._opened().told_problems()

    def mark_problem(self, told: ToldProblem) -> None:
        """Record that the problem, or its end, was reported to the operator.

        :raises CatalogueError: the catalogue cannot be written now
        """
        self._opened().mark_problem(told)

    def _opened(self) -> IJournal:
        if self._journal is None:
            raise CatalogueError("cannot be opened")
        return self._journal

    def recheck(self) -> None:
        """Check the whole file before its next use, after a reader found damage."""
        self.close()
        self._identity = None

    def close(self) -> None:
        """Close the catalogue; the next write opens it again."""
        journal, self._journal = self._journal, None
        if journal is not None:
            with suppress(CatalogueError):
                journal.close()

    def _open(self) -> tuple[Journal, bool]:
        if self._journal is not None:
            if self._journal.is_there():
                return self._journal, False
            self._log.warn(
                "catalogue file is gone; rebuilding it from disk"
                if self._place == self._home
                else "catalogue: its tables are gone; rebuilding them",
                event="catalogue-gone",
            )
            self.close()
            # The new file may get the same inode.
            self._identity = None
        self._watched = self._watching = None
        self._journal = Journal.open(self._place)
        is_new = self._journal.identity != self._identity
        if is_new:
            self._journal.check()
        self._identity = self._journal.identity
        return self._journal, is_new

    def _put_aside(self, error: CatalogueError) -> None:
        self._log.error(
            "catalogue file is damaged ({error}); keeping it as {name} and rebuilding"
            " the catalogue from disk",
            event="catalogue-damaged",
            error=str(error),
            name=f"{os.path.basename(FILE)}.damaged",
        )
        self._identity = None
        path = os.path.join(self._home, FILE)
        try:
            os.replace(path, f"{path}.damaged")
        except OSError as failed:
            raise CatalogueError(failed.strerror or "disk error") from None

    def _note_space(self, journal: IJournal, now: float) -> None:
        # Pushes report it if the home cannot be accessed.
        with suppress(OSError):
            found = os.statvfs(self._home)
            space = Space(now, free_bytes(found), total_bytes(found), self._node)
            journal.note_space(space)
            self._space_noted_at = now
