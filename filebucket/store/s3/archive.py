"""Reads stored files from an object store.

A file is there if its record is. If its data is not, or has another size, the file is
lost; that the store refuses or does not answer says nothing about any file.
"""

from __future__ import annotations

import errno
import hashlib
import math
import time
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

from attrs import define, field, frozen
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.model.unfinished import Unfinished
from filebucket.store.interfaces import (
    OUT_OF_REACH,
    Content,
    IArchive,
    IFolder,
    IStoredFile,
    NoFileError,
    Stat,
    UnsteadyError,
)
from filebucket.store.s3.blocking import PAGE, IBlocking, IReading
from filebucket.store.s3.interfaces import NotThereError, ObjectError, UnsureError
from filebucket.store.s3.records import MOST_RECORD, Keys, Record

READ_SIZE = 256 * 1024
"""Bytes per read."""

THREADS = 4
"""Records that are read at once. More would only wait for the processor."""

AHEAD = 64
"""Records that are read ahead."""

MOST_PAGES = 4
"""Pages of a list that may be read for each page of files."""


REMOVAL = 5.0
"""Seconds to wait for the removal of a file."""

STEP = 0.25

SKEW = 900.0
"""Seconds that the clocks of a daemon and the store may differ: it refuses more."""


@implementer(IArchive)
@frozen
class S3Archive:
    """Reads what an S3 store keeps.

    :param names: the S3 bucket of the records
    :param data: that of the data
    :param home: the part of the archive that stays in the home
    """

    names: IBlocking
    data: IBlocking
    keys: Keys
    home: IArchive

    @contextmanager
    def open(self, directory: str) -> Iterator[S3Folder]:
        with ExitStack() as stack:
            folder = S3Folder(self.names, self.data, self.keys, directory)
            stack.callback(folder.close)
            yield folder

    def await_removal(
        self,
        directory: str,
        names: Sequence[str],
        wait: float = REMOVAL,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Wait until prune deletes none of some files. Each later removal begins with a
        check, which sees changes that the caller has made before.

        :param wait: seconds, at most, for each
        :raises OperatorError: it takes longer
        :raises OSError: the store cannot be used now
        """
        for name in names:
            left = wait
            while self._is_marked(directory, name):
                if left <= 0:
                    raise OperatorError(
                        "a prune that has not ended may delete the file; run"
                        " 'filebucket prune' again, which settles that"
                    )
                sleep(STEP)
                left -= STEP

    def _is_marked(self, directory: str, name: str) -> bool:
        with told():
            try:
                self.names.get(self.keys.mark(directory, name), MOST_RECORD)
            except NotThereError:
                return False
        return True

    def is_foreign(self, stored: Iterable[tuple[str, float]]) -> bool:
        last = -math.inf
        with told():
            for directory, at in stored:
                if self.names.page(self.keys.names(directory)).objects:
                    return False
                last = max(last, at)
            if last == -math.inf:
                return False
            try:
                # A daemon creates it at its first start, and never again.
                first_used = self.names.modified(self.keys.probe("condition"))
            except NotThereError:
                return True
        return last < first_used - SKEW

    def unpruned(self) -> AbstractContextManager[bool]:
        return self.home.unpruned()

    def unfinished(self) -> list[Unfinished]:
        return self.home.unfinished()


@contextmanager
def told() -> Iterator[None]:
    """Report errors of the store as those of a folder that cannot be read now."""
    try:
        yield
    except UnsureError as error:
        raise OSError(OUT_OF_REACH, str(error)) from None
    except ObjectError as error:
        raise OSError(errno.EREMOTEIO, str(error)) from None


def _damage(reason: str) -> OSError:
    return OSError(errno.EBADMSG, reason)


@implementer(IFolder)
@define
class S3Folder:
    """The files of a bucket."""

    names: IBlocking
    data: IBlocking
    keys: Keys
    directory: str
    _pool: ThreadPoolExecutor | None = None
    # Names that are looked at next, and the records that are read ahead.
    _expected: deque[str] = field(factory=deque)
    _ahead: dict[str, Future[Record]] = field(factory=dict)

    def close(self) -> None:
        """Forget what was read ahead."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def list(self, most: int) -> Iterator[Sequence[bytes]]:
        prefix = self.keys.names(self.directory)
        waiting: list[bytes] = []
        after: str | None = ""
        while after is not None:
            with told():
                page = self.names.page(prefix, after)
            after = page.after
            for each in page.objects:
                waiting.append(each.key[len(prefix) :].encode("utf-8"))
                if len(waiting) >= most:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def untouched(self, before: Mapping[str, float]) -> Collection[str]:
        if not before:
            return ()
        prefix = self.keys.names(self.directory)
        first, last = min(before), max(before)
        after: str | None = prefix + _before(first)
        found = set()
        left = MOST_PAGES * (1 + len(before) // PAGE)
        while after is not None and after < prefix + last and left:
            with told():
                page = self.names.page(prefix, after)
            after = page.after
            left -= 1
            for each in page.objects:
                name = each.key[len(prefix) :]
                if each.modified <= before.get(name, each.modified - 1):
                    found.add(name)
        return found

    def expect(self, names: Sequence[str]) -> None:
        self._forget()
        if len(names) > 1:
            self._expected.extend(names)

    def _forget(self) -> None:
        self._expected.clear()
        for each in self._ahead.values():
            each.cancel()
        self._ahead.clear()

    def look(self, name: str) -> Stat:
        return stat_of(self.record(name))

    def record(self, name: str) -> Record:
        """The record of a file.

        :raises NoFileError: there is none
        :raises OSError: it cannot be read
        """
        self._pass_over(name)
        self._read_ahead()
        ahead = self._ahead.pop(name, None)
        return self._record(name) if ahead is None else ahead.result()

    def _pass_over(self, name: str) -> None:
        """Forget the expected names before this one."""
        if name in self._ahead:
            for each in list(self._ahead):
                if each == name:
                    return
                self._ahead.pop(each).cancel()
        elif name in self._expected:
            for future in self._ahead.values():
                future.cancel()
            self._ahead.clear()
            while self._expected[0] != name:
                self._expected.popleft()

    def _read_ahead(self) -> None:
        while self._expected and len(self._ahead) < AHEAD:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS)
            name = self._expected.popleft()
            self._ahead[name] = self._pool.submit(self._record, name)

    def _record(self, name: str) -> Record:
        key = self.keys.name(self.directory, name)
        with told():
            try:
                text = self.names.get(key, MOST_RECORD)
            except NotThereError:
                raise NoFileError from None
        try:
            return Record.of(text, self.keys, self.directory, name)
        except ValueError as error:
            raise _damage(str(error)) from None

    def is_sealed(self, name: str) -> bool:
        self.record(name)
        return False

    @contextmanager
    def open(self, name: str) -> Iterator[S3File]:
        record = self._record(name)
        with told():
            try:
                reading = self.data.open(record.data)
            except NotThereError:
                self._check(name, record)
                raise _damage("its data is not in the object store") from None
        with ExitStack() as stack:
            stack.callback(reading.close)
            if reading.size != record.size:
                self._check(name, record)
                raise _damage(
                    f"its data has {reading.size} bytes, and its record says"
                    f" {record.size}"
                )
            file = S3File(stat_of(record), self.data, record.data, reading)
            stack.callback(file.close)
            yield file

    def _check(self, name: str, record: Record) -> None:
        """:raises UnsteadyError: the file was replaced or deleted meanwhile"""
        try:
            is_same = self._record(name) == record
        except NoFileError:
            is_same = False
        if not is_same:
            raise UnsteadyError

    def read(self, name: str, pace: Callable[[int], object]) -> Content:
        with self.open(name) as file:
            content = file.copy(lambda piece: pace(len(piece)))
        if content.sha256 != content.stat.sha256:
            try:
                named = self.look(name)
            except NoFileError:
                raise UnsteadyError from None
            if named.version != content.stat.version:
                raise UnsteadyError
        return content


@implementer(IStoredFile)
@define
class S3File:
    """A file that is open. Its data may be deleted after its record was."""

    stat: Stat
    data: IBlocking
    key: str
    _reading: IReading | None
    _at: int = 0

    def close(self) -> None:
        """End reading."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def copy(self, write: Callable[[memoryview], object]) -> Content:
        digest = hashlib.sha256()
        size = 0
        while piece := self.piece(size, READ_SIZE):
            digest.update(piece)
            size += len(piece)
            write(memoryview(piece))
        return Content(size, digest.hexdigest(), self.stat)

    def piece(self, offset: int, most: int) -> bytes:
        found = bytearray()
        with told():
            try:
                while len(found) < most and offset + len(found) < self.stat.size:
                    more = self._from(offset + len(found)).read(most - len(found))
                    if not more:
                        break
                    found += more
                    self._at += len(more)
            except NotThereError:
                raise UnsteadyError from None
        return bytes(found)

    def _from(self, offset: int) -> IReading:
        """The data from an offset, which mostly follows what was read last."""
        if self._reading is None or self._at != offset:
            self.close()
            self._reading, self._at = self.data.open(self.key, offset), offset
            if self._reading.size != self.stat.size:
                raise UnsteadyError
        return self._reading


def _before(name: str) -> str:
    """A text that is less than a name, and greater than most that are less."""
    last = ord(name[-1])
    if not ord(" ") < last - 1 < ord("~"):
        return name[:-1]
    # A slash would be a folder.
    return f"{name[:-1]}{chr(last - 1)}~~".replace("/", ".")


def stat_of(record: Record) -> Stat:
    """The properties of a file that its record has."""
    return Stat(record.size, record.time, record.time, record.id, record.sha256)
