"""Reads stored files and compares their checksums with the catalogue.

Files that were not verified for the longest time come first. Reads bypass the page
cache. Results are saved every few files, so an interrupted run loses little. Nothing on
the disk is changed, and files that are added, removed or replaced meanwhile are no
findings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterator, Sequence

from attrs import define, field, frozen

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IInventory
from filebucket.model import names
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.model.records import Row
from filebucket.store.interfaces import DAMAGE, IArchive, IFolder, NoFileError
from filebucket.store.seal import AHEAD
from filebucket.upkeep.survey import (
    ROW_WITHIN,
    Finding,
    Found,
    Survey,
    check_store,
    spare,
)

ROWS = 100
"""Rows in a batch; small, since files may change before their turn."""

ENTER_FILES = 200
ENTER_BYTES = 256 * 1024**2
"""Files, and their bytes, that are verified before the results are saved."""


MOST_UNSEALED = 1000
"""Files that are reported if they are not sealed; more are only counted."""


@frozen
class Due:
    """The files to verify.

    :param ids: ids of their rows, those not verified for the longest time first
    :param bytes: total size
    """

    ids: Sequence[int]
    bytes: int


def due(catalogue: IInventory, buckets: Sequence[Bucket], before: float) -> Due:
    """The files that were not verified since ``before``, and the damaged ones.

    :raises CatalogueError: the catalogue cannot be read
    """
    return Due(*catalogue.to_verify([bucket.key for bucket in buckets], before))


def verify(
    catalogue: IInventory,
    archive: IArchive,
    buckets: Sequence[Bucket],
    all_buckets: Sequence[Bucket],
    wanted: Due,
    now: Callable[[], float],
    pace: Callable[[int], object] = lambda size: None,
    late: float = ROW_WITHIN,
    wait: Callable[[float], object] = lambda seconds: None,
    report: Callable[[Finding], object] = lambda finding: None,
    progress: Callable[[Found], object] = lambda found: None,
    sealed: float | None = None,
) -> Found:
    """Verify the files in ``wanted``; find missing and unknown files in all buckets.

    It may take days.

    :param all_buckets: all buckets of the configuration, whose tokens are masked
    :param now: returns the time, in seconds since the epoch
    :param pace: called with the bytes of each read; may sleep
    :param late: seconds after the file is published in which a push gets its row,
        including the post-push hook
    :param wait: waits for a number of seconds
    :param report: called with each finding
    :param progress: called regularly with the counts so far
    :param sealed: files received before this time must be sealed, in seconds since the
        epoch, and those that a wrong clock has received in the future; None if there
        are no such files
    :raises CatalogueError: the catalogue cannot be used, or is not the home's
    :raises KeyboardInterrupt: interrupted; the results so far are saved
    """
    survey = _Verification(
        catalogue,
        archive,
        mask(all_buckets),
        now,
        lambda: False,
        report,
        progress,
        pace,
        late,
        wait,
        Found(),
        {bucket.key: bucket for bucket in buckets},
        sealed,
    )
    check_store(catalogue, archive, buckets)
    spare(catalogue, archive, all_buckets)
    survey.verify(wanted)
    return survey.found


@define
class _Verification(Survey):
    buckets: dict[str, Bucket]
    sealed: float | None
    # Files of the wrong size, whenever they were verified.
    doubtful: set[int] = field(factory=set)
    # Results that are not saved yet.
    compared: list[tuple[int, bool, float]] = field(factory=list)
    compared_bytes: int = 0

    def verify(self, wanted: Due) -> None:
        """Verify, and report findings."""
        for bucket in self.buckets.values():
            try:
                # Files that are back are kept, and so counted after this.
                self.look_for_missing(bucket)
                self.look_for_kept(bucket)
                self.look_at_files(bucket)
            except OSError as error:
                self.tell(bucket, "unreadable", None, error.strerror)
        try:
            self._verify_all(list(self.doubtful), ())
            self._verify_all(wanted.ids, self.doubtful)
        except OSError:
            # Each file was reported.
            self.found.stopped = True
        finally:
            self._enter()

    def look_at(self, bucket: Bucket, folder: IFolder, row: Row) -> None:
        if folder.look(row.name).size != row.size:
            self.doubtful.add(row.id)
        # Not by a time on the disk: the daemon's user can change that of a file that is
        # not sealed.
        if (
            self.sealed is not None
            and not bucket.overwrite
            and not self.sealed <= row.received_at < self.now() + AHEAD
            and not folder.is_sealed(row.name)
        ):
            if self.found.unsealed < MOST_UNSEALED:
                self.tell(bucket, "unsealed", row.name, "run filebucket seal as root")
            else:
                # If sealing does not work, this may be every file.
                self.found.unsealed += 1

    def are_gone(self, bucket: Bucket, rows: Sequence[Row]) -> None:
        for row in rows:
            self.tell(bucket, "missing", row.name)

    def is_unknown(self, bucket: Bucket, folder: IFolder, name: str) -> None:
        try:
            found = folder.look(name)
        except NoFileError as error:
            self.tell_no_file(bucket, name, error)
        except OSError as error:
            self.tell_unreadable(bucket, name, error)
        else:
            if self.may_be_push(found):
                self.tell_left(bucket, name)
            elif self.catalogue.unknown(bucket.key, [name]):
                self.tell(bucket, "stranger", name, "not received by file-bucket")

    def _verify_all(self, ids: Sequence[int], but: Container[int]) -> None:
        for start in range(0, len(ids), ROWS):
            for key, row in self.catalogue.kept_rows(ids[start : start + ROWS]):
                if row.id not in but:
                    self._verify(self.buckets[key], row)

    def _verify(self, bucket: Bucket, row: Row) -> None:
        # A later write is not covered by this read.
        began = self.now()
        try:
            with self.open(bucket) as folder:
                content = self.read(bucket, folder, row.name)
        except NoFileError:
            if self.catalogue.missed([row.id], self.now()):
                self.tell(bucket, "missing", row.name)
        except OSError as error:
            if error.errno in DAMAGE:
                self.tell_damage(bucket, row, error.strerror)
            else:
                self.tell_unreadable(bucket, row.name, error)
        else:
            self.out_of_reach = 0
            if content is None:
                return
            if content.sha256 == row.sha256:
                self._compared(row, began)
            else:
                self.tell_difference(bucket, row, content)

    def _compared(self, row: Row, at: float) -> None:
        self.compared.append((row.id, False, at))
        self.compared_bytes += row.size
        if len(self.compared) >= ENTER_FILES or self.compared_bytes >= ENTER_BYTES:
            self._enter()

    def _enter(self) -> None:
        if self.compared:
            self.catalogue.verified(self.compared)
        self.compared, self.compared_bytes = [], 0


def sums(catalogue: IInventory, buckets: Sequence[Bucket]) -> Iterator[bytes]:
    """Lines for ``sha256sum -c``, to be run in the home.

    They contain the tokens of buckets without a name.

    :raises CatalogueError: the catalogue cannot be read, or has a row of no push
    """
    for bucket in buckets:
        after = ""
        while rows := catalogue.rows(bucket.key, "kept", after):
            after = rows[-1].name
            for row in rows:
                # No valid name needs escaping for sha256sum or a terminal.
                if not _is_of_a_push(row):
                    raise CatalogueError(
                        "it contains a file that no push can have stored"
                    )
                path = os.path.join(bucket.directory, row.name)
                yield f"{row.sha256}  {path}\n".encode()


def _is_of_a_push(row: Row) -> bool:
    try:
        names.check(row.name)
    except ValueError:
        return False
    return re.fullmatch("[0-9a-f]{64}", row.sha256) is not None
