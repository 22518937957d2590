"""Goes through a bucket, by its rows and by its files, and finds where they differ.

What is done about that is for whoever goes: :mod:`~filebucket.upkeep.reindex` brings
both together, :mod:`~filebucket.upkeep.verify` reads and tells.

It goes on beside a daemon that takes pushes, so everything may have changed since it
was looked at. A file is published before its row is written: a row that was there
before its file was looked for tells the truth about it, and a file without a row may be
a push that is a moment old.

All of it is done in pieces, so that memory does not grow with the number of files, and
each change is a short transaction. Nothing on the disk is changed. No path is ever
shown: a folder may be called by a token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from fnmatch import fnmatchcase
from typing import Literal

from attrs import define, frozen

from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IInventory
from filebucket.model import names
from filebucket.model.bucket import Bucket
from filebucket.model.records import Row
from filebucket.store.interfaces import (
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
"""Names, or rows, that are looked at together."""

SLACK = 60.0
"""Seconds that a file may have been written after its push was received, by the clock
of a filesystem that is another machine's."""

ROW_WITHIN = 2.0
"""Seconds in which the row of a push comes that has come to its end."""

_FOLDERS_OF_SYSTEMS = (
    "lost+found",
    # snapshots
    ".snapshot",
    ".snapshots",
    ".snap",
    ".zfs",
    "#snapshot",
    "@recently-snapshot",
    # what was thrown away
    "#recycle",
    "@recycle",
    ".recycle",
    "$recycle.bin",
    "recycler",
    ".trash",
    ".trash-*",
    ".trashes",
    "network trash folder",
    # what storage boxes and desktops know of files
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
    # removed while somebody had them open
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
"""What filesystems, storage boxes and desktops put into folders, in lower case: nobody
pushed it, and it is not amiss."""

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
]


@frozen
class Finding:
    """Something that is not as the catalogue has it.

    :param bucket: its label
    :param name: with no token in it; None where it is the bucket's folder
    :param reason: in a few words, where the kind does not say it
    """

    kind: Kind
    bucket: str
    name: str | None
    reason: str = ""


@define
class Found:
    """What was found.

    :ivar files: that were looked at
    :ivar read: of these, those that were read to their end
    :ivar bytes: that were read
    :ivar entered: files that had no row
    :ivar replaced: files that took the place of others, of which nobody had told
    :ivar missing: files that are gone
    :ivar accepted: files that were gone, which is how it shall be
    :ivar back: files that had gone, and are there again
    :ivar damaged: files that are not what was received
    :ivar stranger: what is in a bucket and was not pushed
    :ivar unreadable: files and folders that could not be read
    :ivar left: files that changed while they were looked at
    :ivar folder: folders in the bucket's, which is not amiss
    :ivar stopped: whether it ended before its end
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
    stopped: bool = False

    @property
    def text(self) -> str:
        """In a line; empty where everything was in order."""
        counts = (
            (self.damaged, "damaged"),
            (self.missing, "missing"),
            (self.unreadable, "unreadable"),
            (self.stranger, "unknown"),
            (self.entered, "added"),
            (self.replaced, "replaced"),
            (self.back, "back"),
            (self.accepted, "accepted"),
            (self.left, "skipped"),
        )
        said = [f"{count} {word}" for count, word in counts if count]
        return ", ".join([*said, *(["interrupted"] if self.stopped else [])])


class StoppedError(Exception):
    """It is to end before its end."""


@define
class Survey(ABC):
    """What it is done with.

    :ivar now: tells the time since the epoch
    :ivar hide: the mask of names
    :ivar stopped: asked now and then whether it is to end; what is done is kept
    :ivar report: told of all that is not as it was
    :ivar progress: told now and then that :attr:`found` is further
    :ivar pace: told of the bytes of each piece that was read; may sleep
    :ivar late: seconds after its file's publication in which the row of a push comes
    :ivar wait: waits for so many seconds
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

    @abstractmethod
    def look_at(self, bucket: Bucket, folder: IFolder, row: Row) -> None:
        """Look at the file of a row.

        :raises NoFileError: it is not there
        :raises OSError: it cannot be looked at
        """

    @abstractmethod
    def are_gone(self, bucket: Bucket, rows: Sequence[Row]) -> None:
        """These rows are marked as missing, and their files are not there."""

    @abstractmethod
    def is_unknown(self, bucket: Bucket, folder: IFolder, name: str) -> None:
        """Something has no row, and a name that a push may have."""

    def look_for_kept(self, bucket: Bucket) -> None:
        """Look whether the files that should be there are, and mark those that are
        not."""
        after = ""
        while rows := self.catalogue.rows(bucket.key, "kept", after, PIECE):
            self.go_on()
            after = rows[-1].name
            gone = []
            with self.open(bucket) as folder:
                for row in rows:
                    try:
                        self.look_at(bucket, folder, row)
                    except NoFileError:
                        gone.append(row)
                    except OSError as error:
                        self.tell(bucket, "unreadable", row.name, error.strerror)
            if gone:
                ids = {row.id: row for row in gone}
                # Not those that were pruned or overwritten meanwhile.
                for id_ in self.catalogue.missed(list(ids), self.now()):
                    self.tell(bucket, "missing", ids[id_].name)
            self.found.files += len(rows)
            self.progress(self.found)

    def look_for_missing(self, bucket: Bucket) -> None:
        """Look whether the files that were missing still are."""
        after = ""
        while rows := self.catalogue.rows(bucket.key, "missing", after, PIECE):
            self.go_on()
            after = rows[-1].name
            with self.open(bucket) as folder:
                back = [row for row in rows if _is_back(folder, row)]
            came = set(self.catalogue.came_back([row.id for row in back]))
            self.found.files += len(came)
            for row in rows:
                if row.id in came:
                    self.tell(bucket, "back", row.name)
            self.are_gone(bucket, [row for row in rows if row.id not in came])

    def look_at_files(self, bucket: Bucket) -> None:
        """Look whether all files have rows."""
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
                for name in self.catalogue.unknown(bucket.key, fit):
                    if _fits(name, _FILES_OF_SYSTEMS):
                        continue
                    # It may have been entered since it was listed.
                    if self.catalogue.unknown(bucket.key, [name]):
                        self.is_unknown(bucket, folder, name)
                self.progress(self.found)

    def open(self, bucket: Bucket) -> AbstractContextManager[IFolder]:
        """The bucket's folder. It is to be opened anew for each piece: it may be
        another by now.
        """
        # Without the disk of the home nothing is missing but that disk.
        if not self.catalogue.is_there():
            raise CatalogueError("its file is gone")
        return self.archive.open(bucket.directory)

    def read(self, bucket: Bucket, folder: IFolder, name: str) -> Content | None:
        """Read a file; None where that cannot be done, which is told.

        :raises NoFileError: there is none
        :raises OSError: the disk has lost it
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
        """A file is not what its row says."""
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
        """A file is lost, unless a push has replaced or healed it since its row was
        read."""
        if self.catalogue.differed(row, self.now()):
            self.tell(bucket, "damaged", row.name, reason)

    def may_be_push(self, at: Stat) -> bool:
        """Whether a file may be of a push whose row is to come. It waits for a moment
        where that is enough to know.
        """
        age = max(self.now() - at.changed_at, 0)
        if age < ROW_WITHIN:
            self.wait(ROW_WITHIN - age)
            age = ROW_WITHIN
        return age < self.late

    def tell_left(self, bucket: Bucket, name: str) -> None:
        """It is too new to be judged."""
        self.tell(bucket, "left", name, "its push may still be in progress")

    def tell_no_file(self, bucket: Bucket, name: str, error: NoFileError) -> None:
        """What has that name is no file; or it is gone, which nobody needs to know."""
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
    """Whether a file that was missing is there as it was. For those that never went
    this is enough, too; else it is read.
    """
    try:
        at = folder.look(row.name)
    except (NoFileError, OSError):
        return False
    return at.size == row.size and at.written_at <= row.known_at + SLACK


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), each) for each in patterns)


def _fit(raw: bytes) -> tuple[str, str]:
    """A name, and why it is none that a push can have, if it is none."""
    try:
        name = names.decode(raw)
        names.check(name)
    except ValueError as error:
        return raw.decode("utf-8", "backslashreplace"), str(error)
    return name, ""


def spare(catalogue: IInventory, archive: IArchive, buckets: Sequence[Bucket]) -> None:
    """What a prune that was killed was about to remove, and did not, stays: if it goes
    now, that is a loss. What it did remove is pruned: whoever misses it says so.

    :raises CatalogueError: it cannot be read or written
    """
    if not catalogue.being_pruned():
        return
    configured = {bucket.key: bucket for bucket in buckets}
    with archive.unpruned() as nobody:
        # Asked once more: whoever was at work may have ended since.
        there = [
            file.id
            for file in (catalogue.being_pruned() if nobody else ())
            if (bucket := configured.get(file.received.bucket)) is not None
            and _is_there(archive, bucket, file.received.name)
        ]
        catalogue.spared(there)


def _is_there(archive: IArchive, bucket: Bucket, name: str) -> bool:
    """Whether anything has that name, for certain."""
    # A name that no file can have is in a catalogue that somebody wrote to.
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
    """How many names there are in these buckets: how much there is to look at."""
    count = 0
    for bucket in buckets:
        # What cannot be read is told when it is looked at.
        with suppress(OSError), archive.open(bucket.directory) as folder:
            count += sum(map(len, folder.list(PIECE)))
    return count
