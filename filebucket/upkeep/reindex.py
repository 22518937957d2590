"""Brings the catalogue and the disk together: what is on the disk is the truth.

Files without a row are read, hashed and entered, as if they had been pushed when they
were last written. Rows without a file are marked as missing, and kept again when the
file is back. Where a file is not what its row says it is damaged, and its row stays as
it was: what somebody, or a disk, did to a backup is not to become what the backup is.
Only where the bucket's pushes may overwrite, and the file was written after its row, it
is entered in the place of that row, as a push whose row was lost.

A daemon goes on beside it. Whichever enters a new file first, the push or this, what
the push says stands in the end.
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
    spare,
)

LATE = 60.0
"""Seconds that a file that changed may be of a push whose row is to come; afterwards it
is damaged, until that row comes."""

ENTER_FILES = 500
ENTER_BYTES = 1024**3
"""Files, and bytes of them, that are read before they are entered."""


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
    """Bring the catalogue and the disk together. It may take hours.

    :param buckets: those of the configuration; of other folders nothing is known
    :param now: tells the time since the epoch
    :param stopped: asked now and then whether it is to end; what is done is kept
    :param report: told of all that is not as it was, of entered files too
    :param progress: told now and then how far it is
    :param accept: whether what is missing shall be, and what is damaged is what it
        should be
    :param pace: told of the bytes of each piece that was read; may sleep
    :raises CatalogueError: it cannot be read or written, or is not the home's
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
    # Of the bucket: what was read and is not entered yet.
    waiting: list[tuple[FoundFile, Stat]] = field(factory=list)
    waiting_bytes: int = 0
    entered: bool = False

    def reindex(self, bucket: Bucket) -> None:
        """Do it with one bucket."""
        try:
            try:
                self.look_for_kept(bucket)
                self.look_for_missing(bucket)
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
            # Where pushes overwrite, the next one may have come at once.
            slack = 0.0 if bucket.overwrite else SLACK
            written = row.known_at + slack < at.written_at <= self.now()
            doubtful = at.size != row.size or written
        content = self.read(bucket, folder, row.name) if doubtful else None
        if content is None:
            return
        if content.sha256 == row.sha256:
            self.catalogue.verified([(row.id, False, self.now())])
        elif self.accept or (bucket.overwrite and at.written_at > row.known_at):
            self._wait(bucket, row.name, content, row.id)
        else:
            self.tell_difference(bucket, row, content)

    def are_gone(self, bucket: Bucket, rows: Sequence[Row]) -> None:
        if self.accept:
            for row in rows:
                self.catalogue.ended(row.id, "pruned", self.now())
                self.tell(bucket, "accepted", row.name)

    def is_unknown(self, bucket: Bucket, folder: IFolder, name: str) -> None:
        try:
            content = self.read(bucket, folder, name)
        except NoFileError as error:
            self.tell_no_file(bucket, name, error)
        except OSError as error:
            self.tell(bucket, "unreadable", name, error.strerror)
        else:
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
        # What was read may be another file by now.
        with self.open(bucket) as folder:
            still = [
                each
                for each, was in waiting
                if _is_still(folder, each.received.name, was)
            ]
        kinds = self.catalogue.enter(still, self.now(), {bucket.key: bucket})
        for each, kind in zip(still, kinds, strict=True):
            # What is known meanwhile was a push, and is no finding.
            if kind != "known":
                self.entered = True
                self.tell(bucket, kind, each.received.name)


def _is_still(folder: IFolder, name: str, was: Stat) -> bool:
    try:
        return bool(folder.look(name).version == was.version)
    except (NoFileError, OSError):
        return False
