"""Reconciles the catalogue with the files on disk, which are the truth.

A file without a row is read, hashed and added, as if it had been pushed when it was
last written. An object store has a record of it, which is added without reading the
file. A row without a file is marked as missing, and as kept when the file is
back. A file that differs from its row is damaged, and its row stays as it is, so that
damage or tampering never becomes the recorded content. There is one exception: if the
bucket allows overwriting and the file was written after its row, it replaces the row,
as a push whose row was lost.

The daemon may take pushes meanwhile. If a push and this both add a file, the push's
data wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from filebucket.catalogue.interfaces import IInventory
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.model.records import FoundFile, Received, Row
from filebucket.model.series import series_of
from filebucket.store.interfaces import Content, IArchive, IFolder, NoFileError, Stat
from filebucket.upkeep.survey import (
    SLACK,
    Finding,
    Found,
    StoppedError,
    Survey,
    check_store,
    spare,
)

LATE = 60.0
"""Seconds in which a changed file may belong to a push without a row yet. After that it
counts as damaged until a row is added."""

ENTER_FILES = 500
ENTER_BYTES = 1024**3
"""Files, and their bytes, that are read before they are added."""


def reindex(
    catalogue: IInventory,
    archive: IArchive,
    buckets: Sequence[Bucket],
    now: Callable[[], float],
    stopped: Callable[[], bool] = lambda: False,
    report: Callable[[Finding], object] = lambda finding: None,
    progress: Callable[[Found], object] = lambda found: None,
    accept: bool = False,
    pace: Callable[[int], object] = lambda size: None,
) -> Found:
    """Reconcile the catalogue with the files on disk. It may take hours.

    :param buckets: all buckets of the configuration; other folders are ignored
    :param now: returns the time, in seconds since the epoch
    :param stopped: called regularly; True stops, and the work so far is kept
    :param report: called with each finding, including added files
    :param progress: called regularly with the counts so far
    :param accept: whether to accept the current state: forget missing files, and
        trust changed ones
    :param pace: called with the bytes of each read; may sleep
    :raises CatalogueError: the catalogue cannot be used, or is not the home's
    """
    survey = _Reindexing(
        catalogue,
        archive,
        mask(buckets),
        now,
        stopped,
        report,
        progress,
        pace,
        LATE,
        lambda seconds: None,
        Found(),
        accept,
    )
    if not accept:
        check_store(catalogue, archive, buckets)
    spare(catalogue, archive, buckets)
    try:
        for bucket in buckets:
            survey.reindex(bucket)
    except StoppedError:
        survey.found.stopped = True
    return survey.found


@define
class _Reindexing(Survey):
    accept: bool
    # Files of the bucket that were read and are not added yet.
    waiting: list[tuple[FoundFile, Stat]] = field(factory=list)
    waiting_bytes: int = 0
    entered: bool = False

    def reindex(self, bucket: Bucket) -> None:
        """Reconcile one bucket."""
        try:
            try:
                self.look_for_kept(bucket)
                self.found.files += self.look_for_missing(bucket)
                self.look_at_files(bucket)
            finally:
                self._enter(bucket)
        except OSError as error:
            self.tell(bucket, "unreadable", None, error.strerror)
        finally:
            entered, self.entered, self.waiting = self.entered, False, []
            if entered:
                self.catalogue.judge_anew(bucket)

    def look_at(self, bucket: Bucket, folder: IFolder, row: Row) -> None:
        at = folder.look(row.name)
        if row.damaged:
            doubtful = self.accept or at.written_at > row.known_at
        else:
            # If pushes overwrite, the next one may have come right after.
            slack = 0.0 if bucket.overwrite else SLACK
            written = row.known_at + slack < at.written_at <= self.now()
            doubtful = at.size != row.size or written
            if at.sha256 is not None:
                doubtful = (at.size, at.sha256) != (row.size, row.sha256)
        content = self._content(bucket, folder, row, at) if doubtful else None
        if content is None:
            return
        if content.sha256 == row.sha256:
            self.catalogue.verified([(row.id, False, self.now())])
        elif self.accept or (bucket.overwrite and at.written_at > row.known_at):
            self._wait(bucket, row.name, content, row.id)
        else:
            self.tell_difference(bucket, row, content)

    def _content(
        self, bucket: Bucket, folder: IFolder, row: Row, at: Stat
    ) -> Content | None:
        # A record does not show that damage is gone.
        recorded = None if row.damaged else _recorded(at)
        return recorded or self.read(bucket, folder, row.name)

    def are_gone(self, bucket: Bucket, rows: Sequence[Row]) -> None:
        if self.accept:
            for row in rows:
                self.catalogue.ended(row.id, "pruned", self.now())
                self.tell(bucket, "accepted", row.name)

    def is_unknown(self, bucket: Bucket, folder: IFolder, name: str) -> None:
        try:
            content = _recorded(folder.look(name)) or self.read(bucket, folder, name)
        except NoFileError as error:
            self.tell_no_file(bucket, name, error)
        except OSError as error:
            self.tell_unreadable(bucket, name, error)
        else:
            self.out_of_reach = 0
            if content is not None:
                self.found.files += 1
                self._wait(bucket, name, content, None)

    def _wait(
        self, bucket: Bucket, name: str, content: Content, replaces: int | None
    ) -> None:
        received = Received(
            bucket=bucket.key,
            series=series_of(self.hide(name), bucket.series),
            name=name,
            size=content.size,
            sha256=content.sha256,
            received_at=min(content.stat.written_at, self.now()),
        )
        self.waiting.append((FoundFile(received, replaces), content.stat))
        self.waiting_bytes += content.size
        if len(self.waiting) >= ENTER_FILES or self.waiting_bytes >= ENTER_BYTES:
            self._enter(bucket)

    def _enter(self, bucket: Bucket) -> None:
        waiting, self.waiting, self.waiting_bytes = self.waiting, [], 0
        if not waiting:
            return
        # A file may have been replaced since it was read, which may have taken long.
        with self.open(bucket) as folder:
            still = [
                each
                for each, was in waiting
                if was.sha256 is not None or _is_still(folder, each.received.name, was)
            ]
        known = {bucket.key: bucket}
        kinds = self.catalogue.enter(still, self.now(), known, self.hide)
        for each, kind in zip(still, kinds, strict=True):
            # If a push has added it meanwhile, it is no finding.
            if kind != "known":
                self.entered = True
                self.tell(bucket, kind, each.received.name)


def _recorded(at: Stat) -> Content | None:
    """The content of a file by the record of its push; None if there is no record."""
    return None if at.sha256 is None else Content(at.size, at.sha256, at)


def _is_still(folder: IFolder, name: str, was: Stat) -> bool:
    try:
        return bool(folder.look(name).version == was.version)
    except (NoFileError, OSError):
        return False
