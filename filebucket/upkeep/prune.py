"""Removes what a bucket's ``keep`` does not keep, when the operator, or their timer,
calls it; the daemon has no code that could (:mod:`filebucket.store.remove`).

:mod:`filebucket.upkeep.retention` says what stays, of what is really there: a row whose
file is gone, or is another than the one that was received, takes no place of a rule.
Such a file is left alone, as is all that the catalogue does not know.

A file is removed so that nothing is left in doubt, whenever anything dies:

1. The catalogue says that the file is about to go, and that is on the disk.
2. The file is looked at once more and removed, while no push replaces it.
3. That is brought to the disk, so that no power cut brings the file back.
4. The catalogue says that it has gone.

Between the first and the last a file may be there or not; the next time it is looked
for, and whoever finds it missing before then has its reason in the catalogue. The other
way round, with the row first, what a kill leaves would be files that nobody knows.

No path is ever shown: a token can be a folder's name.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import tzinfo
from enum import Enum

from attrs import define, field, frozen

from filebucket.catalogue.interfaces import IInventory
from filebucket.model.bucket import Bucket
from filebucket.model.records import File
from filebucket.model.series import series_of
from filebucket.store.interfaces import (
    IRemovals,
    IRemover,
    NoFileError,
    NotAFileError,
)
from filebucket.upkeep.retention import choose

FILES_AT_ONCE = 1000
"""Rows that are read, and files that are removed, before the folder and the catalogue
are brought up to date."""

WRITTEN_AFTER = 1.0
"""Seconds that a file may have been written after its push was received."""


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
class FileFate:
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


def prune(
    catalogue: IInventory,
    remover: IRemover,
    buckets: Sequence[Bucket],
    now: float,
    zone: tzinfo,
    hide: Callable[[str], str],
    rehearse: bool = False,
    others: Sequence[Bucket] = (),
) -> Iterator[FileFate]:
    """Remove what is not kept, while it is asked what became of each file.

    To be called when nobody else removes files, unless it is a rehearsal.

    :param buckets: those to look at; one without ``keep`` is left as it is
    :param now: seconds since the epoch
    :param zone: whose days, weeks, months and years count
    :param hide: the mask of names
    :param rehearse: remove nothing, and only say what would be
    :param others: buckets that are not looked at, but for what somebody was about to
        remove when he was stopped
    :raises CatalogueError: the catalogue cannot be read or written
    """
    if not rehearse:
        _settle(catalogue, remover, (*buckets, *others))
    for bucket in buckets:
        if bucket.keep is not None:
            yield from _Pruning(
                catalogue, remover, bucket, now, zone, rehearse, hide
            ).prune()


def _settle(
    catalogue: IInventory, remover: IRemover, buckets: Sequence[Bucket]
) -> None:
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
            with remover.open(bucket.directory) as folder:
                is_gone = _amiss(folder, file) == GONE
                folder.sync()
            (gone if is_gone else there).append(file.id)
    catalogue.pruned(gone)
    catalogue.spared(there)


_NO_FOLDER = {
    errno.ENOENT: "it does not exist",
    errno.ENOTDIR: "it is a symbolic link, or not a folder",
}

GONE = "the file is missing"


def _amiss(folder: IRemovals, file: File) -> str | None:
    """In which way what is there is not the file that was received, if it is not.

    :raises OSError: one cannot know
    """
    received = file.received
    if "/" in received.name or "\0" in received.name:
        return "not a valid file name"
    try:
        found = folder.look(received.name)
    except NotAFileError:
        return "not a regular file"
    except NoFileError:
        return GONE
    if found.size != received.size:
        return f"{found.size} bytes on disk, but {received.size} were received"
    # What was found in order since then, or healed, is what was received all the same.
    known_at = received.received_at + WRITTEN_AFTER
    if file.verified_at is not None and not file.damaged:
        known_at = max(known_at, file.verified_at)
    if found.written_at > known_at:
        return "modified after it was received"
    return None


TWIN = "the filesystem opens the same file under another name"


def _has_twin(folder: IRemovals, file: File) -> bool:
    """Whether the file can be had by another name, as where a filesystem folds case:
    then it may be another push's, which replaced it."""
    name = file.received.name
    names = {
        name.swapcase(),
        unicodedata.normalize("NFC", name),
        unicodedata.normalize("NFD", name),
    }
    with suppress(NoFileError, OSError):
        version = folder.look(name).version
        for each in names - {name}:
            with suppress(NoFileError, OSError):
                if folder.look(each).version == version:
                    return True
    return False


@define
class _Pruning:
    """One bucket, while it is pruned."""

    catalogue: IInventory
    remover: IRemover
    bucket: Bucket
    now: float
    zone: tzinfo
    rehearse: bool
    hide: Callable[[str], str]
    folder: IRemovals = field(init=False)
    # What there is to say beside what was chosen.
    aside: list[FileFate] = field(factory=list)

    def prune(self) -> Iterator[FileFate]:
        with ExitStack() as stack:
            folder = self.remover.open(self.bucket.directory)
            try:
                self.folder = stack.enter_context(folder)
            except OSError as error:
                # Where nobody has pushed yet there is none.
                if self.catalogue.series_with_files(self.bucket.key, limit=1):
                    reason = _NO_FOLDER.get(error.errno or 0, error.strerror)
                    reason = f"cannot open the bucket's folder: {reason}"
                    yield FileFate(self.bucket.label, "", None, Fate.FAILED, (reason,))
                return
            after = 0
            while found := self.catalogue.series_with_files(self.bucket.key, after):
                for id_, name in found:
                    yield from self._series(id_, name)
                after, _ = found[-1]

    def _series(self, id_: int, name: str) -> Iterator[FileFate]:
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
                yield self._fate(name, choice.file, Fate.KEPT, *choice.reasons)
                continue
            if _has_twin(self.folder, choice.file):
                yield self._fate(name, choice.file, Fate.LEFT, TWIN)
                continue
            going.append(choice.file)
            if len(going) >= FILES_AT_ONCE:
                yield from self._remove(going, name)
                going = []
        yield from self._said_aside()
        yield from self._remove(going, name)

    def _fate(self, series: str, file: File, fate: Fate, *reasons: str) -> FileFate:
        return FileFate(self.bucket.label, series, file, fate, reasons)

    def _said_aside(self) -> list[FileFate]:
        aside, self.aside = self.aside, []
        return aside

    def _files(self, series: int) -> Iterator[File]:
        """What the catalogue has of a series, the newest first."""
        found = self.catalogue.kept_in_series(series, limit=FILES_AT_ONCE)
        while found:
            yield from found
            last = found[-1]
            before = (last.received.received_at, last.id)
            found = self.catalogue.kept_in_series(series, before, FILES_AT_ONCE)

    def _there(self, files: Iterable[File], series: str) -> Iterator[File]:
        """Those that are as they were received."""
        for file in files:
            received = file.received
            try:
                amiss = _amiss(self.folder, file)
            except OSError as error:
                amiss = f"cannot be checked: {error.strerror}"
            of = series_of(self.hide(received.name), self.bucket.series)
            if amiss is None and of != received.series:
                # The operator has sorted them anew, and the catalogue has not.
                amiss = "its series has changed: run filebucket reload"
            if amiss is None:
                yield file
            else:
                self.aside.append(self._fate(series, file, Fate.LEFT, amiss))

    def _remove(self, files: Sequence[File], series: str) -> Iterator[FileFate]:
        """Remove files, or say which."""
        if self.rehearse or not files:
            yield from (self._fate(series, file, Fate.PRUNED) for file in files)
            return
        self.catalogue.prune([file.id for file in files], self.now)
        gone: list[FileFate] = []
        spared: list[FileFate] = []
        for file in files:
            each = self._remove_one(file, series)
            (gone if each.fate is Fate.PRUNED else spared).append(each)
        self.catalogue.spared([each.file.id for each in spared if each.file])
        yield from spared
        try:
            self.folder.sync()
        except OSError as error:
            # They may come back: the catalogue goes on saying that they are to go.
            reason = f"removed, but a power failure may bring it back: {error.strerror}"
            for each in gone:
                assert each.file is not None
                yield self._fate(series, each.file, Fate.FAILED, reason)
            return
        self.catalogue.pruned([each.file.id for each in gone if each.file])
        yield from gone

    def _remove_one(self, file: File, series: str) -> FileFate:
        try:
            # Since it was chosen, another file may have been put in its place.
            amiss = self.folder.remove(
                file.received.name, lambda: _amiss(self.folder, file)
            )
        except OSError as error:
            reason = f"cannot be removed: {error.strerror}"
            return self._fate(series, file, Fate.FAILED, reason)
        if amiss is not None:
            return self._fate(series, file, Fate.LEFT, amiss)
        return self._fate(series, file, Fate.PRUNED)
