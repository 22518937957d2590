"""Copies the stored files of a bucket to another server, oldest first.

Each run asks the other server for every file, so nothing has to be remembered of the
last one, and files that got lost there are copied again. A file that is there costs no
bytes: the server compares the SHA-256. That of the catalogue is sent with each file, so
a file that is damaged here cannot arrive. One that is known to be damaged may be there
already.

Between the choice and the copy of a file hours may pass, so its row is read again: a
file that was replaced or pruned meanwhile is left out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

from attrs import define, field
from zope.interface import Interface

from filebucket.base.text import counted, printable
from filebucket.catalogue.interfaces import ICopies, IFiles, IInventory
from filebucket.model.bucket import Bucket
from filebucket.model.records import File
from filebucket.store.interfaces import (
    DAMAGE,
    IArchive,
    IStoredFile,
    NoFileError,
    NotAFileError,
    UnsteadyError,
)
from filebucket.upkeep.restore import check

SAVE_EVERY = 60.0
"""Seconds after which it is recorded how far a copy has come, and in which buckets take
turns: one that takes days must not keep the others waiting."""

MOST_TAKEN = 20
"""Files whose names are taken after which a bucket is not copied any further: the other
server does not compare more wrong checksums in an hour
(:mod:`filebucket.push.guesses`)."""


MOST_REFUSED = 100
"""Files in a row that the other server refuses after which a bucket is not copied any
further: it would refuse the others, too."""


Run = Generator[None, bool | None, None]
"""A copy of a bucket, which goes on a file at a time; if true is sent, it pauses."""


class NotCopiedError(Exception):
    """A file cannot be copied; others may be. Its text says why."""


class TakenError(NotCopiedError):
    """The other server has another file with that name."""


class StoppedError(Exception):
    """No file of the bucket can be copied now. Its text says why."""


class UnreadableError(NotCopiedError):
    """The stored file cannot be read."""


class ReplacedError(Exception):
    """The file was replaced or pruned meanwhile."""


class DamagedError(Exception):
    """The stored file is not what was received."""


class IFar(Interface):
    """A bucket of another server."""

    def check() -> None:
        """Find out whether the bucket is there.

        :raises StoppedError: it is not
        """

    def send(
        file: File,
        opened: Callable[[], AbstractContextManager[IStoredFile]],
        expected: bool,
    ) -> bool:
        """Have a file there, with the SHA-256 of the catalogue.

        :param opened: opens it; what it raises is passed on
        :param expected: whether the file is probably there: it is opened and sent only
            if it is not
        :returns: whether it was sent
        :raises NotCopiedError: it is not there
        :raises StoppedError: it is not there, and others need not be tried now
        :raises DamagedError: the stored file does not have that SHA-256
        """

    def close() -> None:
        """End the connection."""


@define
class Done:
    """What a copy of a bucket has done so far.

    :ivar sent: files that were sent
    :ivar sent_bytes: their bytes
    :ivar again: those of them that had been copied before, and were gone
    :ivar there: files that were there
    :ivar failed: files that are not there
    :ivar until: all files that were received before are there, in seconds since the
        epoch; None if that is not known of any
    :ivar stopped: why it ended early; None if it did not
    :ivar error: why not all files are there; None if they are
    """

    sent: int = 0
    sent_bytes: int = 0
    again: int = 0
    there: int = 0
    failed: int = 0
    until: float | None = None
    stopped: str | None = None
    error: str | None = None


@define
class BucketCopy:
    """Copies a bucket.

    :ivar far: the bucket there; None if its token is not known
    :ivar target: address of the other server
    :ivar hide: masks tokens in names
    :ivar wall: returns seconds since the epoch
    :ivar monotonic: returns seconds
    :ivar late: seconds after the file is published in which a push gets its row
    :ivar report: called with the name of each file that is not there, and the reason
    :ivar progress: called with the bytes of each file, sent or not
    :ivar done: what was done so far
    :ivar found: whether the other server knows the bucket
    """

    files: IFiles
    inventory: IInventory
    copies: ICopies
    archive: IArchive
    bucket: Bucket
    far: IFar | None
    target: str
    hide: Callable[[str], str]
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    late: float
    report: Callable[[str, str], object]
    progress: Callable[[int], object]
    done: Done = field(factory=Done)
    found: bool = False
    _before: float = -math.inf
    _gone: bool = False
    _taken: int = 0
    _refused: int = 0
    _first: str | None = None

    def run(self) -> Run:
        """Copy it, a file at a time."""
        key, done = self.bucket.key, self.done
        before = self.copies.copied_until(self.target, key)
        # A later time is an error of a clock.
        if before is not None and before <= self.wall():
            self._before = before
        try:
            if self.far is None:
                raise StoppedError("there is no token for this bucket on that server")
            self.far.check()
            self.found = True
            yield from self._passes(self.far)
        except StoppedError as error:
            done.stopped = self.hide(str(error))
        finally:
            if self.far is not None:
                self.far.close()
        done.error = done.stopped or self._failures()
        done.until = self._until()
        self.record(self.found)

    def record(self, new: bool) -> None:
        """Record what was done.

        :param new: whether to do so even if nothing is recorded about that server,
            whose address may be a mistake
        """
        done = self.done
        key, now = self.bucket.key, self.wall()
        self.copies.copied(self.target, key, done.until, now, done.error, new)

    def _passes(self, far: IFar) -> Run:
        """Copy all files.

        Only for files received before ``sure`` it is known that no older one is
        missing: the row of a push that ended before may come later. A copy takes long,
        so the files that were received meanwhile are passed again.
        """
        done, saved = self.done, self.monotonic()
        passed: set[int] = set()
        sure = self.wall() - self.late
        place = -math.inf, 0
        paused: bool | None = None
        while True:
            for file in self.files.oldest_first(self.bucket.key, place):
                at = file.received.received_at
                if sure < at <= self.wall() - self.late:
                    place, sure = (sure, 0), self.wall() - self.late
                    break
                if file.id in passed:
                    continue
                if at > sure:
                    passed.add(file.id)
                self._copy(file, far, min(at, sure))
                self.progress(file.received.size)
                if self.monotonic() - saved >= SAVE_EVERY:
                    saved = self.monotonic()
                    self._save()
                paused = yield
                if paused:
                    place = at, file.id
                    break
            else:
                break
            if paused:
                # There may be many buckets: keep neither rows nor a connection.
                far.close()
                yield
        if not done.failed:
            done.until = sure

    def _until(self) -> float | None:
        """The time before which everything is there.

        The files that this copy has not reached yet are still there, as far as known.
        """
        done = self.done
        if not (done.failed or self._gone) and self._before > (done.until or -math.inf):
            return self._before
        return done.until

    def _save(self) -> None:
        until, key = self._until(), self.bucket.key
        if self._gone or until is not None:
            self.copies.copying(self.target, key, until, self.wall())

    def _failures(self) -> str | None:
        if not self.done.failed:
            return self._again()
        more = counted(self.done.failed - 1, "more file")
        return f"{self._first}{f' (and {more})' if self.done.failed > 1 else ''}"

    def _again(self) -> str | None:
        again = self.done.again
        if not again:
            return None
        was = "was" if again == 1 else "were"
        return (
            f"{counted(again, 'file')} copied before {was} no longer there, and {was}"
            " sent again"
        )

    def _copy(self, file: File, far: IFar, until: float) -> None:
        """
        :param until: all files received before are there, if all before this one are
        """
        done, received = self.done, file.received
        if file.fate_at is not None:
            return
        expected = received.received_at <= self._before
        try:
            check(received)
        except ValueError as error:
            self._failed(file, f"the catalogue has an invalid entry: {error}")
            return
        try:
            sent = far.send(file, partial(self._opened, file, expected), expected)
        except ReplacedError:
            return
        except DamagedError:
            self._damaged(file)
            return
        except UnreadableError as error:
            self._failed(file, str(error))
            return
        except NotCopiedError as error:
            self._failed(file, str(error))
            self._count(error)
            return
        self._refused = 0
        if sent:
            done.sent += 1
            done.sent_bytes += received.size
            done.again += expected
        else:
            done.there += 1
        if not done.failed:
            done.until = until

    def _count(self, error: NotCopiedError) -> None:
        """Stop if the other server refuses too many files."""
        self._refused += 1
        self._taken += isinstance(error, TakenError)
        if self._taken == MOST_TAKEN:
            raise StoppedError(
                f"stopped after {MOST_TAKEN} files with other content on that server"
            )
        if self._refused == MOST_REFUSED:
            raise StoppedError(
                f"stopped after {MOST_REFUSED} refused files: {self._first}"
            )

    @contextmanager
    def _opened(self, file: File, expected: bool) -> Iterator[IStoredFile]:
        if expected and not self._gone:
            # Now it is known that it is not there, and it may take long to send it.
            self._gone = True
            self._save()
        if self._now(file).damaged:
            raise UnreadableError("damaged here, and not on the other server")
        try:
            with (
                self.archive.open(self.bucket.directory) as folder,
                folder.open(file.received.name) as stored,
            ):
                if stored.stat.size != file.received.size:
                    raise DamagedError
                yield stored
        except (NoFileError, UnsteadyError) as error:
            self._now(file)
            raise UnreadableError(_reason(error)) from None
        except OSError as error:
            if error.errno in DAMAGE:
                raise DamagedError from None
            raise UnreadableError(error.strerror or "disk error") from None

    def _now(self, file: File) -> File:
        """The row of the file as it is now."""
        found = self.files.named(self.bucket.key, file.received.name)
        if found is None or found.id != file.id or found.fate_at is not None:
            raise ReplacedError
        return found

    def _damaged(self, file: File) -> None:
        try:
            self._now(file)
        except ReplacedError:
            return
        for _, row in self.inventory.kept_rows([file.id]):
            self.inventory.differed(row, self.wall())
        self._failed(file, "damaged here, and not on the other server")

    def _failed(self, file: File, reason: str) -> None:
        name = printable(self.hide(file.received.name))
        # The other server may repeat the name.
        reason = self.hide(reason)
        self.done.failed += 1
        self._first = self._first or f"{name}: {reason}"
        self.report(name, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, NotAFileError):
        return "not a regular file"
    if isinstance(error, NoFileError):
        return "the file is gone; 'filebucket verify' finds missing files"
    return "it changed while it was read"


def in_turn(runs: Iterable[Run], monotonic: Callable[[], float]) -> None:
    """Run copies of buckets, each for :data:`SAVE_EVERY` seconds at a time."""
    waiting = deque(runs)
    while waiting:
        run = waiting.popleft()
        end = monotonic() + SAVE_EVERY
        for _ in run:
            if monotonic() >= end:
                with suppress(StopIteration):
                    run.send(True)
                    waiting.append(run)
                break
