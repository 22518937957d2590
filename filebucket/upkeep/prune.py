"""Removes what a bucket's ``keep`` does not keep: the only code that deletes what was
pushed. It runs when the operator, or their timer, calls it; the daemon has none of it.

:mod:`filebucket.upkeep.retention` says what stays, of what is really there: a row whose
file is gone, or is another than the one that was received, takes no place of a rule.
Such a file is left alone, as is all that the catalogue does not know.

A file is removed so that nothing is left in doubt, whenever anything dies:

1. The catalogue says that the file is about to go, and that is on the disk.
2. The file is looked at once more and removed, under a lock on its bucket's folder.
   Pushes that overwrite take that lock, too, so that none of theirs is removed.
3. The folder is brought to the disk, so that no power cut brings the file back.
4. The catalogue says that it has gone.

Between the first and the last a file may be there or not; the next time it is looked
for, and whoever finds it missing before then has its reason in the catalogue. The other
way round, with the row first, what a kill leaves would be files that nobody knows.

Folders are opened by descriptor, and no link is followed: neither a file's name nor a
bucket's leads out of the home. No path is ever shown: a token can be a folder's name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import tzinfo
from enum import Enum

from attrs import define, field, frozen

from filebucket.base.errors import OperatorError
from filebucket.base.fs import directory, open_directory, sync_directory
from filebucket.catalogue.interfaces import IInventory
from filebucket.model.bucket import Bucket
from filebucket.model.records import File
from filebucket.model.series import series_of
from filebucket.upkeep.retention import choose

BATCH = 1000
"""Rows that are read, and files that are removed, before the folder and the catalogue
are brought up to date."""

SLACK = 1.0
"""Seconds that a file may have been written after its push was received."""

LOCK = os.path.join(".filebucket", "prune")
"""Who holds it prunes, under the home."""


class Fate(Enum):
    """What becomes of a file."""

    KEPT = "kept"
    PRUNED = "pruned"
    """It was removed; or would be, in a rehearsal."""
    LEFT = "left alone"
    """It is gone already, or not the file that was received."""
    FAILED = "failed"
    """It should have been removed, and could not."""


@frozen
class Outcome:
    """What becomes of a file.

    :param bucket: its label
    :param series: the name of its series; empty where it is the whole bucket
    :param file: None where it is the whole bucket
    :param reasons: each in a few words; of what is pruned there are none
    """

    bucket: str
    series: str
    file: File | None
    fate: Fate
    reasons: tuple[str, ...] = ()


class PruningError(OperatorError):
    """Nothing was pruned; why, in a line, without any path."""


@contextmanager
def alone(home: str) -> Iterator[None]:
    """While nobody else prunes.

    :raises PruningError: somebody does, or that cannot be known
    """
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(os.path.join(home, LOCK), flags, 0o600)
    except OSError as error:
        raise PruningError(f"the home cannot be locked: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PruningError("another filebucket prune is at work") from None
        yield
    finally:
        os.close(fd)


def prune(
    catalogue: IInventory,
    home: str,
    buckets: Sequence[Bucket],
    now: float,
    zone: tzinfo,
    hide: Callable[[str], str],
    rehearse: bool = False,
    unlink: Callable[..., None] = os.unlink,
) -> Iterator[Outcome]:
    """Remove what is not kept, while it is asked what became of each file.

    To be called under :func:`alone`, unless it is a rehearsal.

    :param buckets: those to look at; one without ``keep`` is left as it is
    :param now: seconds since the epoch
    :param zone: whose days, weeks, months and years count
    :param hide: the mask of names
    :param rehearse: remove nothing, and only say what would be
    :param unlink: removes a file
    :raises PruningError: the home cannot be opened
    :raises CatalogueError: the catalogue cannot be read or written
    """
    try:
        home_fd = open_directory(home)
    except OSError as error:
        raise PruningError(f"the home cannot be opened: {error.strerror}") from None
    try:
        if not rehearse:
            _settle(catalogue, home_fd, buckets)
        for bucket in buckets:
            if bucket.keep is not None:
                yield from _Bucket(
                    catalogue, home_fd, bucket, now, zone, rehearse, unlink, hide
                ).prune()
    finally:
        os.close(home_fd)


def _settle(catalogue: IInventory, home_fd: int, buckets: Sequence[Bucket]) -> None:
    """Say what became of files that were about to go when somebody was stopped."""
    configured = {bucket.key: bucket for bucket in buckets}
    gone: list[int] = []
    there: list[int] = []
    for file in catalogue.being_pruned():
        bucket = configured.get(file.received.bucket)
        if bucket is None:
            continue
        # Where the disk does not say, it is asked again the next time.
        with suppress(OSError):
            with directory(bucket.directory, home_fd, follow=False) as bucket_fd:
                is_gone = _amiss(bucket_fd, file) == GONE
                sync_directory(bucket_fd)
            (gone if is_gone else there).append(file.id)
    catalogue.pruned(gone)
    catalogue.spared(there)


_NO_FOLDER = {
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "it is a link, or no folder at all",
}

GONE = "it is not there"


def _amiss(bucket_fd: int, file: File) -> str | None:
    """In which way what is there is not the file that was received, if it is not.

    :raises OSError: one cannot know
    """
    received = file.received
    if "/" in received.name or "\0" in received.name:
        return "it has no name that a file can have"
    try:
        found = os.lstat(received.name.encode("utf-8"), dir_fd=bucket_fd)
    except FileNotFoundError:
        return GONE
    if not stat.S_ISREG(found.st_mode):
        return "it is no file"
    if found.st_size != received.size:
        return f"it has {found.st_size} bytes, and {received.size} were received"
    if found.st_mtime > received.received_at + SLACK:
        return "it was written to after it was received"
    return None


@define
class _Bucket:
    """One bucket, while it is pruned."""

    catalogue: IInventory
    home_fd: int
    bucket: Bucket
    now: float
    zone: tzinfo
    rehearse: bool
    unlink: Callable[..., None]
    hide: Callable[[str], str]
    bucket_fd: int = -1
    # What there is to say beside what was chosen.
    aside: list[Outcome] = field(factory=list)

    def prune(self) -> Iterator[Outcome]:
        try:
            self.bucket_fd = open_directory(
                self.bucket.directory, self.home_fd, follow=False
            )
        except OSError as error:
            # Where nobody has pushed yet there is none.
            if self.catalogue.series_with_files(self.bucket.key, limit=1):
                reason = _NO_FOLDER.get(error.errno or 0, error.strerror)
                reason = f"its folder cannot be opened: {reason}"
                yield Outcome(self.bucket.label, "", None, Fate.FAILED, (reason,))
            return
        try:
            after = 0
            while found := self.catalogue.series_with_files(self.bucket.key, after):
                for id_, name in found:
                    yield from self._series(id_, name)
                after, _ = found[-1]
        finally:
            os.close(self.bucket_fd)

    def _series(self, id_: int, name: str) -> Iterator[Outcome]:
        assert self.bucket.keep is not None
        going: list[File] = []
        for choice in choose(
            self._there(self._files(id_), name),
            self.bucket.keep,
            self.bucket.hold,
            self.now,
            self.zone,
        ):
            yield from self._said_aside()
            if choice.kept:
                yield self._outcome(name, choice.file, Fate.KEPT, *choice.reasons)
                continue
            going.append(choice.file)
            if len(going) >= BATCH:
                yield from self._remove(going, name)
                going = []
        yield from self._said_aside()
        yield from self._remove(going, name)

    def _outcome(self, series: str, file: File, fate: Fate, *reasons: str) -> Outcome:
        return Outcome(self.bucket.label, series, file, fate, reasons)

    def _said_aside(self) -> list[Outcome]:
        aside, self.aside = self.aside, []
        return aside

    def _files(self, series: int) -> Iterator[File]:
        """What the catalogue has of a series, the newest first."""
        found = self.catalogue.kept_in_series(series, limit=BATCH)
        while found:
            yield from found
            last = found[-1]
            before = (last.received.received_at, last.id)
            found = self.catalogue.kept_in_series(series, before, BATCH)

    def _there(self, files: Iterable[File], series: str) -> Iterator[File]:
        """Those that are as they were received."""
        for file in files:
            received = file.received
            try:
                amiss = _amiss(self.bucket_fd, file)
            except OSError as error:
                amiss = f"it cannot be looked at: {error.strerror}"
            of = series_of(self.hide(received.name), self.bucket.series)
            if amiss is None and of != received.series:
                # The operator has sorted them anew, and the catalogue has not.
                amiss = "it is of another series by now: filebucket reload"
            if amiss is None:
                yield file
            else:
                self.aside.append(self._outcome(series, file, Fate.LEFT, amiss))

    def _remove(self, files: Sequence[File], series: str) -> Iterator[Outcome]:
        """Remove files, or say which."""
        if self.rehearse or not files:
            yield from (self._outcome(series, file, Fate.PRUNED) for file in files)
            return
        self.catalogue.prune([file.id for file in files], self.now)
        gone: list[Outcome] = []
        spared: list[Outcome] = []
        for file in files:
            outcome = self._remove_one(file, series)
            (gone if outcome.fate is Fate.PRUNED else spared).append(outcome)
        self.catalogue.spared([each.file.id for each in spared if each.file])
        yield from spared
        try:
            sync_directory(self.bucket_fd)
        except OSError as error:
            # They may come back: the catalogue goes on saying that they are to go.
            reason = f"the disk did not confirm it: {error.strerror}"
            for each in gone:
                assert each.file is not None
                yield self._outcome(series, each.file, Fate.FAILED, reason)
            return
        self.catalogue.pruned([each.file.id for each in gone if each.file])
        yield from gone

    def _remove_one(self, file: File, series: str) -> Outcome:
        try:
            fcntl.flock(self.bucket_fd, fcntl.LOCK_EX)
            try:
                # Since it was chosen, another file may have been put in its place.
                amiss = _amiss(self.bucket_fd, file)
                if amiss is not None:
                    return self._outcome(series, file, Fate.LEFT, amiss)
                name = file.received.name.encode("utf-8")
                self.unlink(name, dir_fd=self.bucket_fd)
            finally:
                with suppress(OSError):
                    fcntl.flock(self.bucket_fd, fcntl.LOCK_UN)
        except OSError as error:
            reason = f"it cannot be removed: {error.strerror}"
            return self._outcome(series, file, Fate.FAILED, reason)
        return self._outcome(series, file, Fate.PRUNED)
