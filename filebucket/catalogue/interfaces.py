"""What the catalogue is asked, and told, by who asks and tells.

Everything may fail with :class:`~filebucket.catalogue.database.CatalogueError`, and may
wait for a disk: each is to be called in a thread, and by one thread at a time.
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

from zope.interface import Interface

from filebucket.model.bucket import Bucket
from filebucket.model.records import (
    Entered,
    File,
    FoundFile,
    Received,
    Refused,
    Row,
    Series,
    Space,
    Tally,
)
from filebucket.model.state import State


class IJournal(Interface):
    """What is written behind pushes: what came, and how every series is now."""

    def record(
        received: Sequence[Received],
        refused: Sequence[Refused],
        buckets: Callable[[str], Bucket | None],
    ) -> None:
        """Enter pushes and refusals, in their order; and of a push that healed a file
        that that is in order now.

        :param buckets: the bucket of a key, where it is configured
        """

    def watch(
        buckets: Iterable[Bucket],
        hide: Callable[[str], str],
        now: float,
        before: Iterable[Bucket] | None = None,
    ) -> Iterator[None]:
        """Expect what these buckets expect from now on, and nothing else. It is done
        piece by piece, while the next one is asked for: there may be a million series,
        and others want their turn in between.

        :param hide: the mask of names
        :param before: those of which that was done already, to the end; None where
            nobody knows
        """

    def pass_time(now: float) -> None:
        """See what has become late."""

    def mistrust(now: float, buckets: Callable[[str], Bucket | None]) -> int:
        """The clock is right: of what was received in its future is not known when it
        was, and so it counts as received now. Rows stay as they are.

        :returns: of how many series that was the last push; there may be more
        """

    def untold(limit: int, but: Collection[tuple[str, bool]] = ()) -> list[Series]:
        """Series whose state the operator has not been told, of those that are watched:
        a client can make up as many as it likes.

        :param but: not those of the bucket of that key, of which are, or are not, late
        """

    def mark_told(series: int, state: State) -> None:
        """The operator was told that a series has that state."""

    def find(bucket: str, name: str) -> File | None:
        """The file of that name that there should be."""

    def note_space(space: Space) -> None:
        """Remember what is free."""


class IView(Interface):
    """What is read by those who watch. It changes nothing."""

    def worst(bucket: str, now: float, limit: int) -> list[Series]:
        """Some series of the bucket of that key: those first whose files are lost, then
        by their states at ``now``, the worst first.

        Series whose files are all gone, and which nobody expects, are left out.
        """

    def tallies(now: float) -> list[Tally]:
        """What these series come to, of each bucket, with their states at ``now``."""

    def sizes(series: int, limit: int) -> list[tuple[float, int]]:
        """When the latest pushes of a series came, and their bytes, the last one
        last."""

    def latest(limit: int, bucket: str | None = None) -> list[File]:
        """The latest pushes, of all buckets or of one, the last one first."""

    def refusals(limit: int, bucket: str | None = None) -> list[Refused]:
        """The latest refusals, of all or of one bucket, the last one first."""

    def space(since: float) -> list[Space]:
        """What was free since then, in the order of time."""


class IInventory(Interface):
    """What is read and written to compare the catalogue with the disk, and to prune."""

    def is_there() -> bool:
        """Whether the catalogue's file is still there: without it nothing is missing
        but the disk of the home."""

    def rows(bucket: str, fate: str, after: str = "", limit: int = 1000) -> list[Row]:
        """Files of a bucket, by their names.

        :param fate: ``kept`` or ``missing``
        :param after: the name of the last one that is known already
        """

    def unknown(bucket: str, names: Sequence[str]) -> list[str]:
        """Those of these names that no file has which there should be."""

    def enter(
        found: Sequence[FoundFile],
        now: float,
        buckets: Mapping[str, Bucket],
    ) -> list[Entered]:
        """Enter files that were found, but for those of which a push that was entered
        meanwhile says what they are.

        One that is missing and had the same content is kept again.

        :param now: seconds since the epoch
        :param buckets: by their keys
        :returns: of each what it was
        """

    def judge_anew(bucket: Bucket) -> None:
        """Judge all pushes of a bucket by their sizes: files were entered between
        those that were judged."""

    def ended(file: int, fate: str, at: float) -> None:
        """A file is there no more.

        :param fate: ``pruned`` or ``missing``
        """

    def prune(files: Sequence[int], at: float) -> None:
        """These files are about to be removed.

        This is on the disk when it returns: whatever happens then, a file of them that
        is found to be missing was pruned. It ends with :meth:`pruned` or
        :meth:`spared`.
        """

    def pruned(files: Sequence[int]) -> None:
        """These files were removed, and for good."""

    def spared(files: Sequence[int]) -> None:
        """These files were not removed after all."""

    def being_pruned() -> list[File]:
        """Files that are about to be removed, or were when somebody was stopped."""

    def missed(files: Sequence[int], at: float) -> list[int]:
        """These files are gone, and nobody knows why.

        :returns: those of which that is so: others may have been pruned meanwhile
        """

    def came_back(files: Sequence[int]) -> list[int]:
        """These files that were missing are there again; nobody has read them yet.

        :returns: those of them that are missed no more
        """

    def verified(files: Sequence[tuple[int, bool, float]]) -> None:
        """The contents of files were compared with their SHA-256.

        :param files: their ids, whether they differed, and when that was
        """

    def differed(row: Row, at: float) -> bool:
        """The content of a file differed from its SHA-256 when it was compared.

        :param row: as it was before that
        :returns: whether that still says anything: not where the file has been
            replaced, healed or compared again since
        """

    def to_verify(buckets: Sequence[str], before: float) -> tuple[array[int], int]:
        """Files whose content nobody has compared since ``before``, and those that
        differed when it was.

        :param buckets: the keys of those that they may be of
        :returns: their ids, those that wait longest first; and their bytes in all
        """

    def kept_rows(ids: Sequence[int]) -> list[tuple[str, Row]]:
        """Those of these files that there should be, in this order, each with the key
        of its bucket."""

    def series_with_files(
        bucket: str, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str]]:
        """The ids and names of series of a bucket that have files, by their ids.

        :param after: the id of the last one that is known already
        """

    def kept_in_series(
        series: int,
        before: tuple[float, int] = (math.inf, 0),
        limit: int = 1000,
    ) -> list[File]:
        """Files of a series that there should be, the latest first.

        :param before: when the last one that is known already was received, and its id
        """
