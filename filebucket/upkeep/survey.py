"""Compares the rows of a bucket with its files, for
:mod:`~filebucket.upkeep.reindex` and :mod:`~filebucket.upkeep.verify`.

The daemon may take pushes meanwhile, so anything may have changed since it was checked.
A file is published before its row is written: a row that was read before its file was
checked is reliable, and a file without a row may be a push that has just arrived.

All work is done in batches, so that memory does not grow with the number of files, and
each change is a short transaction. Nothing on the disk is changed. No message contains
a path: a folder's name can be a token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from fnmatch import fnmatchcase
from typing import Literal

from attrs import define, field, frozen

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IInventory
from filebucket.model import names
from filebucket.model.bucket import Bucket
from filebucket.model.records import Row
from filebucket.store.interfaces import (
    OUT_OF_REACH,
    Content,
    IArchive,
    IFolder,
    IsFolderError,
    NoFileError,
    NotAFileError,
    Stat,
    UnsteadyError,
)

PIECE = 1000
"""Names, or rows, in a batch."""

SAMPLE = 100
"""Rows of a bucket that tell when its files were stored."""

SLACK = 60.0
"""Seconds after its push in which a file may have been written: the filesystem may use
the clock of another machine."""

ROW_WITHIN = 2.0
"""Seconds after its end in which a push gets its row."""

MOST_OUT_OF_REACH = 10
"""Files in a row for which the store is out of reach until a bucket is given up. Each
may take minutes."""

_FOLDERS_OF_SYSTEMS = (
    "lost+found",
    # snapshots
    ".snapshot",
    ".snapshots",
    ".snap",
    ".zfs",
    "#snapshot",
    "@recently-snapshot",
    # trash
    "#recycle",
    "@recycle",
    ".recycle",
    "$recycle.bin",
    "recycler",
    ".trash",
    ".trash-*",
    ".trashes",
    "network trash folder",
    # metadata of storage boxes and desktops
    "@eadir",
    "@tmp",
    ".@__thumb",
    "system volume information",
    ".appledb",
    ".appledesktop",
    ".appledouble",
    ".documentrevisions-v100",
    ".fseventsd",
    ".spotlight-v100",
    ".temporaryitems",
    "temporary items",
    ".glusterfs",
    ".stfolder",
    ".stversions",
)
_FILES_OF_SYSTEMS = (
    # removed while open
    ".nfs[0-9a-f]*",
    ".fuse_hidden*",
    ".smbdelete*",
    # the same as above
    "._*",
    ".apdisk",
    ".ds_store",
    ".directory",
    "desktop.ini",
    "ehthumbs.db",
    "thumbs.db",
    "aquota.group",
    "aquota.user",
)
"""Names, in lower case, that filesystems, storage boxes and desktops create: no
findings."""

Kind = Literal[
    "entered",
    "replaced",
    "missing",
    "accepted",
    "back",
    "damaged",
    "stranger",
    "unreadable",
    "left",
    "folder",
    "unsealed",
]


@frozen
class Finding:
    """A difference between the catalogue and the disk.

    :param bucket: the bucket's label
    :param name: the file's name, with tokens masked; None for the bucket's folder
    :param reason: a few words, if the kind is not enough
    """

    kind: Kind
    bucket: str
    name: str | None
    reason: str = ""


@define
class Found:
    """Counts of findings.

    :ivar files: files that were checked
    :ivar read: files that were read to the end
    :ivar bytes: bytes that were read
    :ivar entered: files without a row, which were added
    :ivar replaced: files that replaced another one without a row of their own
    :ivar missing: missing files
    :ivar accepted: missing files that the operator accepted
    :ivar back: files that were missing and are there again
    :ivar damaged: files that differ from what was received
    :ivar stranger: unknown files, not received by file-bucket
    :ivar unreadable: files and folders that could not be read
    :ivar left: files that changed meanwhile or may be new pushes
    :ivar folder: folders in the bucket's folder
    :ivar unsealed: files that ``filebucket seal`` should have sealed
    :ivar stopped: whether it was interrupted
    """

    files: int = 0
    read: int = 0
    bytes: int = 0
    entered: int = 0
    replaced: int = 0
    missing: int = 0
    accepted: int = 0
    back: int = 0
    damaged: int = 0
    stranger: int = 0
    unreadable: int = 0
    left: int = 0
    folder: int = 0
    unsealed: int = 0
    stopped: bool = False

    @property
    def text(self) -> str:
        """One line; empty if everything is in order."""
        counts = (
            (self.damaged, "damaged"),
            (self.missing, "missing"),
            (self.unreadable, "unreadable"),
            (self.stranger, "unknown"),
            (self.unsealed, "not sealed"),
            (self.entered, "added"),
            (self.replaced, "replaced"),
            (self.back, "restored"),
            (self.accepted, "accepted"),
            (self.left, "skipped"),
        )
        said = [f"{count} {word}" for count, word in counts if count]
        return ", ".join([*said, *(["interrupted"] if self.stopped else [])])


class StoppedError(Exception):
    """The caller has asked to stop."""


@define
class Survey(ABC):
    """Compares rows and files.

    :ivar now: returns the time, in seconds since the epoch
    :ivar hide: masks tokens in names
    :ivar stopped: called regularly; True stops, and the work so far is kept
    :ivar report: called with each finding
    :ivar progress: called regularly with :attr:`found`
    :ivar pace: called with the bytes of each read; may sleep
    :ivar late: seconds after the file is published in which a push gets its row
    :ivar wait: waits for a number of seconds
    """

    catalogue: IInventory
    archive: IArchive
    hide: Callable[[str], str]
    now: Callable[[], float]
    stopped: Callable[[], bool]
    report: Callable[[Finding], object]
    progress: Callable[[Found], object]
    pace: Callable[[int], object]
    late: float
    wait: Callable[[float], object]
    found: Found
    # Files in a row for which the store was out of reach.
    out_of_reach: int = field(default=0, kw_only=True)

    @abstractmethod
    def look_at(self, bucket: Bucket, folder: IFolder, row: Row) -> None:
        """Check the file of a row.

        :raises NoFileError: the file is missing
        :raises OSError: the file cannot be checked
        """

    @abstractmethod
    def are_gone(self, bucket: Bucket, rows: Sequence[Row]) -> None:
        """Handle rows that are marked as missing and whose files are still missing."""

    @abstractmethod
    def is_unknown(self, bucket: Bucket, folder: IFolder, name: str) -> None:
        """Handle something without a row whose name a push could have."""

    def look_for_kept(self, bucket: Bucket) -> None:
        """Check that the files of kept rows are there; mark the others as missing."""
        after = ""
        while rows := self.catalogue.rows(bucket.key, "kept", after, PIECE):
            self.go_on()
            after = rows[-1].name
            gone = []
            with self.open(bucket) as folder:
                same = self._untouched(bucket, folder, rows)
                wanted = [row for row in rows if row.name not in same]
                folder.expect([row.name for row in wanted])
                for row in wanted:
                    self.go_on()
                    try:
                        self.look_at(bucket, folder, row)
                    except NoFileError:
                        gone.append(row)
                    except OSError as error:
                        self.tell_unreadable(bucket, row.name, error)
                    else:
                        self.out_of_reach = 0
            if gone:
                ids = {row.id: row for row in gone}
                # Without those that were pruned or overwritten meanwhile.
                for id_ in self.catalogue.missed(list(ids), self.now()):
                    self.tell(bucket, "missing", ids[id_].name)
            self.found.files += len(rows)
            self.progress(self.found)
            self.pace(0)

    def _untouched(
        self, bucket: Bucket, folder: IFolder, rows: Sequence[Row]
    ) -> Collection[str]:
        """The rows whose files need no look."""
        if bucket.overwrite:
            # The next push may have come right after.
            return ()
        before = {row.name: row.known_at + SLACK for row in rows if not row.damaged}
        return folder.untouched(before)

    def look_for_missing(self, bucket: Bucket) -> int:
        """Check whether missing files are back.

        :returns: the number of files that are back, which are not counted here
        """
        after, count = "", 0
        while rows := self.catalogue.rows(bucket.key, "missing", after, PIECE):
            self.go_on()
            after = rows[-1].name
            with self.open(bucket) as folder:
                folder.expect([row.name for row in rows])
                back = [row for row in rows if _is_back(folder, row)]
            came = set(self.catalogue.came_back([row.id for row in back]))
            count += len(came)
            for row in rows:
                if row.id in came:
                    self.tell(bucket, "back", row.name)
            self.are_gone(bucket, [row for row in rows if row.id not in came])
        return count

    def look_at_files(self, bucket: Bucket) -> None:
        """Check that all files have rows."""
        with self.open(bucket) as folder:
            for listed in folder.list(PIECE):
                self.go_on()
                fit = []
                for raw in listed:
                    name, reason = _fit(raw)
                    if reason:
                        self.tell(bucket, "stranger", name, reason)
                    else:
                        fit.append(name)
                unknown = [
                    name
                    for name in self.catalogue.unknown(bucket.key, fit)
                    if not _fits(name, _FILES_OF_SYSTEMS)
                ]
                folder.expect(unknown)
                for name in unknown:
                    self.go_on()
                    # It may have been added since it was listed.
                    if self.catalogue.unknown(bucket.key, [name]):
                        self.is_unknown(bucket, folder, name)
                self.progress(self.found)
                self.pace(0)

    def open(self, bucket: Bucket) -> AbstractContextManager[IFolder]:
        """Open the bucket's folder, anew for each batch: it may have been replaced."""
        # If the home is not mounted, its files are not missing.
        if not self.catalogue.is_there():
            raise CatalogueError("its file is gone")
        return self.archive.open(bucket.directory)

    def read(self, bucket: Bucket, folder: IFolder, name: str) -> Content | None:
        """Read a file; if it changes meanwhile, report that and return None.

        :raises NoFileError: the file is missing
        :raises OSError: the file cannot be read
        """
        try:
            content = folder.read(name, self._pace)
        except UnsteadyError:
            self.tell(bucket, "left", name, "changed while it was being read")
            return None
        self.found.read += 1
        return content

    def _pace(self, size: int) -> None:
        self.found.bytes += size
        self.progress(self.found)
        self.pace(size)
        self.go_on()

    def tell_difference(self, bucket: Bucket, row: Row, content: Content) -> None:
        """Report a file whose content differs from its row."""
        if self.may_be_push(content.stat):
            self.tell_left(bucket, row.name)
            return
        reason = "content differs from what was received"
        if content.size != row.size:
            reason = f"{content.size} bytes on disk, but {row.size} were received"
        if content.stat.written_at > row.received_at + SLACK:
            reason += " (modified since)"
        self.tell_damage(bucket, row, reason)

    def tell_damage(self, bucket: Bucket, row: Row, reason: str | None) -> None:
        """Report a damaged file, unless a push has replaced or healed it meanwhile."""
        if self.catalogue.differed(row, self.now()):
            self.tell(bucket, "damaged", row.name, reason)

    def may_be_push(self, at: Stat) -> bool:
        """Whether a file may be a push that has no row yet. May wait for up to
        :data:`ROW_WITHIN` to find out.
        """
        age = max(self.now() - at.changed_at, 0)
        if age < ROW_WITHIN:
            self.wait(ROW_WITHIN - age)
            age = ROW_WITHIN
        return age < self.late

    def tell_unreadable(self, bucket: Bucket, name: str, error: OSError) -> None:
        """Report a file that cannot be read now.

        :raises OSError: nor can others
        """
        self.tell(bucket, "unreadable", name, error.strerror)
        self.out_of_reach = self.out_of_reach + 1 if error.errno == OUT_OF_REACH else 0
        if self.out_of_reach >= MOST_OUT_OF_REACH:
            raise error

    def tell_left(self, bucket: Bucket, name: str) -> None:
        """Report a file that is too new to judge."""
        self.tell(bucket, "left", name, "its push may still be in progress")

    def tell_no_file(self, bucket: Bucket, name: str, error: NoFileError) -> None:
        """Report something that is not a file, unless it is gone already."""
        if isinstance(error, IsFolderError):
            if not _fits(name, _FOLDERS_OF_SYSTEMS):
                self.tell(bucket, "folder", name, "not created by file-bucket")
        elif isinstance(error, NotAFileError):
            self.tell(bucket, "stranger", name, "not a regular file")

    def go_on(self) -> None:
        """:raises StoppedError: it is to end"""
        if self.stopped():
            raise StoppedError

    def tell(
        self,
        bucket: Bucket,
        kind: Kind,
        name: str | None,
        reason: str | None = "",
    ) -> None:
        """Count and report a finding."""
        setattr(self.found, kind, getattr(self.found, kind) + 1)
        shown = None if name is None else self.hide(name)
        self.report(Finding(kind, bucket.label, shown, reason or ""))


def _is_back(folder: IFolder, row: Row) -> bool:
    """Whether a missing file is there again, with its size and time. If only its time
    differs, the file is read later.
    """
    try:
        at = folder.look(row.name)
    except (NoFileError, OSError):
        return False
    return at.size == row.size and at.written_at <= row.known_at + SLACK


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), each) for each in patterns)


def _fit(raw: bytes) -> tuple[str, str]:
    """The name as text, and the reason if no push can have it."""
    try:
        name = names.decode(raw)
        names.check(name)
    except ValueError as error:
        return raw.decode("utf-8", "backslashreplace"), str(error)
    return name, ""


def check_store(
    catalogue: IInventory, archive: IArchive, buckets: Sequence[Bucket]
) -> None:
    """Check that files are read from where pushes have stored them.

    :raises CatalogueError: they are not, or the catalogue cannot be read
    """
    stored = (
        (bucket.directory, max(row.received_at for row in rows))
        for bucket in buckets
        if (rows := catalogue.rows(bucket.key, "kept", "", SAMPLE))
    )
    # If it cannot be read, that is reported later.
    with suppress(OSError):
        if archive.is_foreign(stored):
            raise CatalogueError(
                "its files are not in this object store: check names_bucket and prefix,"
                " which may belong to another server"
            )


def spare(catalogue: IInventory, archive: IArchive, buckets: Sequence[Bucket]) -> None:
    """Keep the files that a killed prune had marked and not removed: from now on, they
    count as missing if they go. Files that it did remove stay marked.

    :raises CatalogueError: the catalogue cannot be read or written
    """
    if not catalogue.being_pruned():
        return
    configured = {bucket.key: bucket for bucket in buckets}
    with archive.unpruned() as idle:
        # Read again: a prune may have ended since.
        there = [
            file.id
            for file in (catalogue.being_pruned() if idle else ())
            if (bucket := configured.get(file.received.bucket)) is not None
            and _is_there(archive, bucket, file.received.name)
        ]
        catalogue.spared(there)


def _is_there(archive: IArchive, bucket: Bucket, name: str) -> bool:
    """Whether anything has that name, for certain."""
    # A tampered catalogue may contain a name that no file can have.
    with suppress(OSError, ValueError), archive.open(bucket.directory) as folder:
        try:
            folder.look(name)
        except NotAFileError:
            return True
        except NoFileError:
            return False
        return True
    return False


def count_names(archive: IArchive, buckets: Sequence[Bucket]) -> int:
    """The number of names in these buckets' folders."""
    count = 0
    for bucket in buckets:
        # A folder that cannot be read is reported later.
        with suppress(OSError), archive.open(bucket.directory) as folder:
            count += sum(map(len, folder.list(PIECE)))
    return count
