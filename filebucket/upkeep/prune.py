"""Deletes files that a bucket's ``keep`` does not keep, for ``filebucket prune``.

:mod:`filebucket.upkeep.retention` applies the rules to the files that are really there:
a file that is missing, or not the one that was received, uses up no place of a rule.
Such a file is left alone, and so is a file that is not in the catalogue. The daemon
has no code that could delete a file (:mod:`filebucket.store.remove`).

The order of the steps leaves a known state whenever the process or the machine dies:

1. The catalogue marks the file as about to be pruned, durably.
2. The file is checked once more and removed, while no push can replace it.
3. The folder is synced, so that no power failure brings the file back.
4. The catalogue marks the file as pruned.

Between steps 1 and 4 the file may be there or not. The next run checks; until then the
catalogue has the reason why it may be missing. If the row was marked as pruned first, a
kill would leave files on the disk that are not in the catalogue.

No message contains a path: a folder's name can be a token.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import tzinfo
from enum import Enum

from attrs import define, field, frozen

from filebucket.base.errors import OperatorError
from filebucket.base.text import moment_text
from filebucket.catalogue.interfaces import IInventory
from filebucket.model.bucket import Bucket
from filebucket.model.records import File, Received
from filebucket.model.series import series_of
from filebucket.store.interfaces import (
    OUT_OF_REACH,
    IRemovals,
    IRemover,
    NoFileError,
    NotAFileError,
    SealedError,
    Stat,
    UnsettledError,
)
from filebucket.upkeep.retention import choose
from filebucket.upkeep.survey import MOST_OUT_OF_REACH

FILES_AT_ONCE = 1000
"""Batch size, in rows to read and in files to remove between syncs of the folder."""

WRITTEN_AFTER = 1.0
"""Seconds after its push in which a file may have been written."""


class Fate(Enum):
    """The result for a file."""

    KEPT = "kept"
    PRUNED = "pruned"
    """It was removed; in a dry run, it would be."""
    LEFT = "left alone"
    """It is missing, not the file that was received, or held meanwhile."""
    FAILED = "failed"
    """It could not be removed."""


@frozen
class FileFate:
    """The result for a file, or for a whole bucket that cannot be pruned.

    :param bucket: the bucket's label
    :param series: the name of the series; empty for a whole bucket
    :param file: None for a whole bucket
    :param reasons: each in a few words; empty if it is pruned
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
    current: Callable[[Bucket], Bucket] = lambda bucket: bucket,
) -> Iterator[FileFate]:
    """Delete files that no rule keeps, as the results are iterated over.

    The caller must hold the prune lock, except for a dry run.

    :param buckets: the buckets to prune; those without ``keep`` are skipped
    :param now: seconds since the epoch
    :param zone: the time zone for days, weeks, months and years
    :param hide: masks tokens in names
    :param rehearse: a dry run: remove nothing
    :param others: further buckets, in which only the removals of an interrupted prune
        are settled
    :param current: called right before each removal; returns a bucket as it is in the
        configuration then
    :raises CatalogueError: the catalogue cannot be read or written
    """
    if not rehearse:
        _settle(catalogue, remover, (*buckets, *others))
    for bucket in buckets:
        if bucket.keep is not None:
            yield from _Pruning(
                catalogue, remover, bucket, now, zone, rehearse, hide, current
            ).prune()


def _settle(
    catalogue: IInventory, remover: IRemover, buckets: Sequence[Bucket]
) -> None:
    """Record the result of removals that an interrupted prune did not finish."""
    configured = {bucket.key: bucket for bucket in buckets}
    gone: list[int] = []
    there: list[int] = []
    for file in catalogue.being_pruned():
        bucket = configured.get(file.received.bucket)
        if bucket is None:
            continue
        # On a disk error, the next run tries again.
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
SEALED = "sealed: run filebucket prune as root, or by its systemd unit"


def _amiss(folder: IRemovals, file: File) -> str | None:
    """Why this is not the file that was received; None if it is.

    :raises OSError: the file cannot be checked
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
    if differs := _differs(found, received):
        return differs
    if found.written_at > received.received_at + WRITTEN_AFTER:
        return _changed(folder, file, found.written_at)
    return None


def _differs(found: Stat, received: Received) -> str | None:
    """How a file differs from the one that was received, as far as that is known."""
    if found.size != received.size:
        return f"{found.size} bytes on disk, but {received.size} were received"
    if found.sha256 not in {None, received.sha256}:
        return "another file was pushed under this name"
    return None


def _changed(folder: IRemovals, file: File, written_at: float) -> str | None:
    """Why a file that was written after its push must stay, if it must."""
    # A file that was verified or healed since then counts as received.
    verified = file.verified_at is not None and not file.damaged
    if not verified or written_at > (file.verified_at or 0):
        return "modified after it was received"
    # The daemon's user can write to the catalogue, but cannot change the time of a
    # sealed file.
    try:
        is_sealed = folder.is_sealed(file.received.name)
    except NoFileError:
        return GONE
    return "sealed, and modified after it was received" if is_sealed else None


TWIN = "the filesystem opens the same file under another name"


def _has_twin(folder: IRemovals, file: File) -> bool:
    """Whether another name opens the same file, as on a case-insensitive filesystem.

    Then another push may have replaced it.
    """
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
    current: Callable[[Bucket], Bucket]
    folder: IRemovals = field(init=False)
    # Results for files that the rules were not applied to.
    aside: list[FileFate] = field(factory=list)
    # Files in a row for which the store was out of reach.
    out_of_reach: int = 0

    def prune(self) -> Iterator[FileFate]:
        with ExitStack() as stack:
            folder = self.remover.open(self.bucket.directory)
            try:
                self.folder = stack.enter_context(folder)
            except OSError as error:
                # Before the first push there is no folder.
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
            reasons = (*choice.reasons, *self._held(choice.file, self.bucket))
            if reasons:
                yield self._fate(name, choice.file, Fate.KEPT, *reasons)
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

    def _held(self, file: File, bucket: Bucket) -> Iterator[str]:
        """Why the operator wants to keep the file, if so."""
        held = bucket.held_now(file.received.name, self.now)
        if held is not None:
            yield f"held until {moment_text(held.until)}: {held.reason}"

    def _fate(self, series: str, file: File, fate: Fate, *reasons: str) -> FileFate:
        return FileFate(self.bucket.label, series, file, fate, reasons)

    def _said_aside(self) -> list[FileFate]:
        aside, self.aside = self.aside, []
        return aside

    def _files(self, series: int) -> Iterator[File]:
        """The files of a series in the catalogue, newest first."""
        found = self.catalogue.kept_in_series(series, limit=FILES_AT_ONCE)
        while found:
            self.folder.expect([each.received.name for each in found])
            yield from found
            last = found[-1]
            before = (last.received.received_at, last.id)
            found = self.catalogue.kept_in_series(series, before, FILES_AT_ONCE)

    def _there(self, files: Iterable[File], series: str) -> Iterator[File]:
        """The files that are as they were received; the others are noted aside."""
        for file in files:
            received = file.received
            try:
                amiss = _amiss(self.folder, file)
            except OSError as error:
                self._count(error)
                amiss = f"cannot be checked: {error.strerror}"
            else:
                self.out_of_reach = 0
            of = series_of(self.hide(received.name), self.bucket.series)
            if amiss is None and of != received.series:
                # The configured series have changed, and the catalogue's have not.
                amiss = "its series has changed: run filebucket reload"
            if amiss is None:
                yield file
            else:
                self.aside.append(self._fate(series, file, Fate.LEFT, amiss))

    def _count(self, error: OSError) -> None:
        """:raises OperatorError: the store cannot be reached for other files, either"""
        self.out_of_reach = self.out_of_reach + 1 if error.errno == OUT_OF_REACH else 0
        if self.out_of_reach >= MOST_OUT_OF_REACH:
            raise OperatorError(f"the object store: {error.strerror}") from None

    def _remove(self, files: Sequence[File], series: str) -> Iterator[FileFate]:
        """Remove files; in a dry run, only give the results."""
        if self.rehearse or not files:
            yield from (self._fate(series, file, Fate.PRUNED) for file in files)
            return
        self.catalogue.prune([file.id for file in files], self.now)
        gone: list[FileFate] = []
        spared: list[FileFate] = []
        unsettled: list[FileFate] = []
        for file in files:
            try:
                each = self._remove_one(file, series)
            except UnsettledError as error:
                # It stays marked as about to be pruned.
                reason = f"may have been removed: {error.strerror}"
                unsettled.append(self._fate(series, file, Fate.FAILED, reason))
                continue
            (gone if each.fate is Fate.PRUNED else spared).append(each)
        self.catalogue.spared([each.file.id for each in spared if each.file])
        yield from spared
        yield from unsettled
        try:
            self.folder.sync()
        except OSError as error:
            # They may come back, so they stay marked as about to be pruned.
            reason = f"removed, but a power failure may bring it back: {error.strerror}"
            for each in gone:
                assert each.file is not None
                yield self._fate(series, each.file, Fate.FAILED, reason)
            return
        self.catalogue.pruned([each.file.id for each in gone if each.file])
        yield from gone

    def _remove_one(self, file: File, series: str) -> FileFate:
        def objection() -> str | None:
            # Another push may have replaced the file meanwhile, or the operator may
            # have held it.
            held = self._held(file, self.current(self.bucket))
            return _amiss(self.folder, file) or next(held, None)

        try:
            amiss = self.folder.remove(file.received.name, objection)
        except SealedError:
            return self._fate(series, file, Fate.FAILED, SEALED)
        except UnsettledError:
            raise
        except OSError as error:
            self._count(error)
            reason = f"cannot be removed: {error.strerror}"
            return self._fate(series, file, Fate.FAILED, reason)
        if amiss is not None:
            return self._fate(series, file, Fate.LEFT, amiss)
        return self._fate(series, file, Fate.PRUNED)
