"""The interfaces of the catalogue, one for each of its users.

Every method may raise :class:`~filebucket.catalogue.database.CatalogueError` and may
wait for a disk: call it in a thread, and an object by one thread at a time.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager

from zope.interface import Interface

from filebucket.model.bucket import Bucket
from filebucket.model.node import Node, NodeReport, Reported
from filebucket.model.problem import ToldProblem
from filebucket.model.records import (
    Abandoned,
    Activity,
    Copy,
    Drill,
    Drills,
    Entered,
    Failed,
    File,
    FoundFile,
    HookFailure,
    HookRun,
    Received,
    Refused,
    Row,
    Series,
    Space,
    Tally,
    Totals,
)
from filebucket.model.state import State


class IJournal(Interface):
    """What the daemon writes after pushes: pushes, refusals and states of series."""

    def record(
        received: Sequence[Received],
        refused: Sequence[Refused],
        buckets: Callable[[str], Bucket | None],
        hide: Callable[[str], str] | None = None,
    ) -> None:
        """Add pushes and refusals, in their order. A push that healed a file adds no
        row, but marks the file as undamaged.

        :param buckets: returns the bucket with a key, if it is configured
        :param hide: masks tokens in names, to find the series of each push anew
        """

    def abandon(
        abandoned: Sequence[Abandoned],
        buckets: Callable[[str], Bucket | None],
        now: float,
    ) -> None:
        """Note pushes that never ended. A series that the catalogue does not know is
        not added.

        :param buckets: returns the bucket with a key, if it is configured
        """

    def fail(
        failed: Sequence[Failed],
        buckets: Callable[[str], Bucket | None],
        now: float,
    ) -> None:
        """Note reports that backups failed. The next push of a series ends its failure,
        and any push one of the whole bucket. A series that the catalogue does not know
        is added; the number of those without a push is limited.

        :param buckets: returns the bucket with a key, if it is configured
        """

    def forget_failures(now: float, buckets: Callable[[str], Bucket | None]) -> None:
        """Forget old failures of series that never had a push.

        :param buckets: returns the bucket with a key, if it is configured
        """

    def watch(
        buckets: Iterable[Bucket],
        hide: Callable[[str], str],
        now: float,
        before: Iterable[Bucket] | None = None,
    ) -> Iterator[None]:
        """From now on, expect backups as these buckets do, and no others. Each step of
        the iterator does a part of the work: there may be a million series, and other
        work runs in between.

        :param hide: masks tokens in names
        :param before: buckets for which this was completed before; None if unknown
        """

    def pass_time(now: float) -> None:
        """Mark the series that have become late."""

    def mistrust(now: float, buckets: Callable[[str], Bucket | None]) -> int:
        """Given that the clock is right, let pushes from its future count as received
        now, since the time of their receipt is unknown. Rows stay as they are.

        :returns: number of series whose last push was one of these; there may be more
        """

    def untold(
        limit: int, but: Collection[tuple[str, bool]] = (), again: float = -math.inf
    ) -> list[Series]:
        """Series with a state that was not reported to the operator yet; then those
        whose bad state was last reported at ``again`` or before, or more than an hour
        before their client reported another failure. Only watched series, and those
        whose client reported a failure, since a client can create any number of
        series.

        :param but: series to leave out, as pairs: the key of their bucket, and whether
            they are late
        """

    def mark_told(series: Series, state: State, at: float) -> None:
        """Record that the state of a series was reported to the operator, unless it is
        a series of an earlier catalogue, or has that state again since a later time.
        """

    def told_problems() -> list[ToldProblem]:
        """The problems that were reported to the operator, and not their end."""

    def mark_problem(told: ToldProblem) -> None:
        """Record that a problem, or its end, was reported to the operator."""

    def find(bucket: str, name: str) -> File | None:
        """The file that should exist under that name."""

    def note_hooks(runs: Iterable[HookRun]) -> None:
        """Record which hooks fail, from their runs in order."""

    def note_space(space: Space) -> None:
        """Record the free space."""


class IView(Interface):
    """What ``filebucket status``, ``filebucket log``, the page and the metrics read. It
    changes nothing.
    """

    def worst(
        buckets: Collection[str], now: float, limit: int
    ) -> dict[str, list[Series]]:
        """The worst series of each bucket: first those with lost files, then by their
        states at ``now``.

        Series that have no files and are not expected are left out.

        :param buckets: keys of buckets
        :param limit: maximum number of series of a bucket
        """

    def tallies(now: float) -> list[Tally]:
        """The totals of these series for each bucket, with their states at ``now``."""

    def sizes(
        series: Collection[int], limit: int
    ) -> dict[int, tuple[list[int], str | None]]:
        """The sizes in bytes of the latest pushes of each of these series, oldest
        first, and the client of the last one. A file that was found on the disk has no
        client.

        :param limit: maximum number of sizes of a series
        """

    def latest(
        limit: int,
        bucket: str | None = None,
        series: str | None = None,
        since: float = -math.inf,
    ) -> list[File]:
        """The latest pushes to all buckets or to one, newest first.

        :param series: name of their series, or a shell pattern that it matches
        :param since: earliest time of receipt, in seconds since the epoch
        """

    def refusals(
        limit: int, bucket: str | None = None, since: float = -math.inf
    ) -> list[Refused]:
        """The latest refusals of all buckets or of one, newest first.

        :param since: earliest time, in seconds since the epoch
        """

    def snapshot() -> AbstractContextManager[None]:
        """All reads in the block see the catalogue at the same moment. A block must be
        short: without a write-ahead log, writes wait for it.
        """

    def newest() -> tuple[int, int]:
        """The ids of the push and of the refusal that were recorded last, even if they
        are forgotten; 0 if there was none.
        """

    def pushes_between(
        after: int,
        until: int,
        bucket: str | None = None,
        series: str | None = None,
        since: float = -math.inf,
    ) -> list[File]:
        """Those of :meth:`latest` with larger ids than ``after``, up to ``until``, in
        the order in which they were recorded.
        """

    def refusals_between(
        after: int, until: int, bucket: str | None = None, since: float = -math.inf
    ) -> list[Refused]:
        """The same for refusals."""

    def activity(since: float) -> list[Activity]:
        """What happened since then, for each bucket that has any row. It reads all
        pushes, which takes seconds for millions.
        """

    def hook_failures(limit: int, node: str = "") -> list[HookFailure]:
        """The hooks whose last run failed, the latest failure first.

        :param node: of this daemon, if others share the catalogue
        """

    def totals(buckets: Collection[str]) -> list[Totals]:
        """The totals of buckets with these keys, and of those with lost files."""

    def drills(buckets: Collection[str], now: float) -> list[Drills]:
        """The last restore tests of buckets with these keys, and of all that had one.
        Times of passed tests far after ``now`` are wrong, and do not count.
        """

    def full() -> dict[str, tuple[float, str]]:
        """The time and the reason of the last push to each bucket that got 507."""

    def copies() -> list[Copy]:
        """How far the buckets are copied, by target and bucket."""

    def space(since: float, node: str = "") -> list[Space]:
        """The free space since then, oldest first.

        :param node: on this daemon's disk, if others share the catalogue
        """

    def nodes(now: float) -> list[Node]:
        """The daemons that share the catalogue, by name; none if it is a file.

        :param now: the time, to which the times of the database's clock are adapted
        """


class IElection(Interface):
    """How a daemon that shares its catalogue takes part in the election of a leader.
    Its connection is its own. Each method may raise
    :class:`~filebucket.catalogue.database.CatalogueError`; call :meth:`close` then.
    """

    def hold() -> bool:
        """Take the lock of the leader if it is free, or ask the database whether this
        connection still works, and so has the lock.

        :returns: whether this connection has the lock
        """

    def report(report: NodeReport, leads: bool) -> Reported:
        """Report this daemon to all others, through the database.

        :param leads: whether it leads; then no other does
        """

    def leave() -> None:
        """Report that this daemon stops, if it ever reported itself."""

    def close() -> None:
        """End the connection, and so give up the lock. The next call opens another."""


class IInventory(Interface):
    """What verify, reindex and prune read and write."""

    def is_there() -> bool:
        """Whether the catalogue's file still exists. If it does not, the home's disk is
        gone, and its files do not count as missing.
        """

    def rows(bucket: str, fate: str, after: str = "", limit: int = 1000) -> list[Row]:
        """Files of a bucket, sorted by name.

        :param fate: ``kept`` or ``missing``
        :param after: the last name of the previous call
        """

    def unknown(bucket: str, names: Sequence[str]) -> list[str]:
        """Those of these names that belong to no file that should exist."""

    def enter(
        found: Sequence[FoundFile],
        now: float,
        buckets: Mapping[str, Bucket],
        hide: Callable[[str], str] | None = None,
    ) -> list[Entered]:
        """Add files that were found on the disk, except those whose push was added in
        the meantime.

        A missing file with the same content becomes a kept one again.

        :param now: seconds since the epoch
        :param buckets: the configured buckets by their keys
        :param hide: masks tokens in names, to find the series of each file anew
        :returns: for each file, what was done
        """

    def judge_anew(bucket: Bucket) -> None:
        """Judge all pushes of a bucket by their sizes again, after files were added
        between pushes that were judged before.
        """

    def ended(file: int, fate: str, at: float) -> None:
        """Record that a file is gone.

        :param fate: ``pruned`` or ``missing``
        """

    def prune(files: Sequence[int], at: float) -> None:
        """Record that these files are about to be deleted.

        The record is durable on return: from then on, any of these files that is
        missing counts as pruned. Call :meth:`pruned` or :meth:`spared` afterwards.
        """

    def pruned(files: Sequence[int]) -> None:
        """Record that these files were deleted durably."""

    def spared(files: Sequence[int]) -> None:
        """Record that these files were not deleted after all."""

    def being_pruned() -> list[File]:
        """Files that are about to be deleted, or were when a prune was interrupted."""

    def missed(files: Sequence[int], at: float) -> list[int]:
        """Record that these files are missing.

        :returns: the files that are missing now: others may have been pruned in the
            meantime
        """

    def came_back(files: Sequence[int]) -> list[int]:
        """Record that these missing files exist again, unverified.

        :returns: the files that are not missing any more
        """

    def verified(files: Sequence[tuple[int, bool, float]]) -> None:
        """Record that files were verified.

        :param files: for each its id, whether it is damaged, and the time
        """

    def differed(row: Row, at: float) -> bool:
        """Record that a file was verified and is damaged.

        :param row: the file's row from before it was verified
        :returns: whether this was recorded: not if the file was replaced, healed or
            verified again in the meantime
        """

    def to_verify(buckets: Sequence[str], before: float) -> tuple[array[int], int]:
        """Files that were not verified since ``before``, and damaged files.

        :param buckets: keys of the buckets to consider
        :returns: ids of the files, longest unverified first, and their total bytes
        """

    def kept_rows(ids: Sequence[int]) -> list[tuple[str, Row]]:
        """Those of these files that should exist, in this order, each with the key of
        its bucket.
        """

    def series_with_files(
        bucket: str, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str]]:
        """The ids and names of series of a bucket that have files, sorted by id.

        :param after: the last id of the previous call
        """

    def kept_in_series(
        series: int,
        before: tuple[float, int] = (math.inf, 0),
        limit: int = 1000,
    ) -> list[File]:
        """Files of a series that should exist, newest first.

        :param before: time of receipt and id of the last file of the previous call
        """


class IFiles(Interface):
    """What files and get read: the files that should exist; and what get records."""

    def named(bucket: str, name: str) -> File | None:
        """The file with that name."""

    def is_missed(bucket: str, name: str) -> bool:
        """Whether the operator would miss a file with that name: it should exist, or is
        missing.
        """

    def newest_first(
        bucket: str, series: str | None = None, until: float = math.inf
    ) -> Iterator[File]:
        """Files of a bucket. There may be a million: they are read page by page.

        :param bucket: the bucket's key
        :param series: name of the series, or a shell pattern; None is all series
        :param until: they were received before this time
        """

    def oldest_first(
        bucket: str,
        after: tuple[float, int] = (-math.inf, 0),
        series: str | None = None,
    ) -> Iterator[File]:
        """The same in the other order.

        :param after: time and id of a file; those before it, and itself, are left out
        """

    def drilled(drill: Drill) -> bool:
        """Record a restore test, in the series of its file.

        :returns: whether it was recorded: not if the catalogue does not know the file
            any more
        """


class ICopies(Interface):
    """What copy reads and writes."""

    def bytes_of(buckets: Collection[str]) -> int:
        """The total bytes of the files of buckets with these keys."""

    def copied_until(target: str, bucket: str) -> float | None:
        """The time that the last :meth:`copied` or :meth:`copying` recorded."""

    def copied(
        target: str,
        bucket: str,
        until: float | None,
        at: float,
        error: str | None,
        new: bool = True,
    ) -> None:
        """Record that a bucket was copied.

        :param target: address of the server to which it was copied
        :param until: all files that were received before are there; None if that is
            not known of any
        :param at: seconds since the epoch
        :param error: why not all files are there; None if they are
        :param new: whether to do so even if nothing is recorded about that server
        """

    def copying(target: str, bucket: str, until: float | None, at: float) -> None:
        """Record how far a copy has come that goes on, also if that is less than
        before. The result of the last one stays.
        """

    def targets() -> list[str]:
        """The servers of which something is recorded."""

    def forget(target: str) -> int:
        """Delete all that is recorded about a server.

        :returns: number of buckets
        """
