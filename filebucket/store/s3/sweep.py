"""Deletes data without a record from an object store, for ``filebucket sweep`` only:
the daemon never loads it.

Such data is left by a push that failed, was replaced or was pruned. Keys are listed in
the order of UTF-8, those of data and those of records, so a record is known when the
data of its name comes: the memory that this takes does not grow with the number of
files. The lists only choose. Before an object is deleted, its record is read again, so
lists in another order cost requests, and never data.

A file that the catalogue knows, but that has no record, keeps its data: the S3 bucket
for names may be the wrong one, or lost. Data that was replaced stays for a while after
that, however old it is: a daemon that an attacker has broken into may replace all
records, but not delete one.

All times are by the store's clock. The time of an object made of parts may be that of
its first part, so its push may be just about to put the record. Such objects are
deleted only after that could have happened.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from enum import Enum
from heapq import heappop, heappush
from typing import Generic, TypeVar

from attrs import define, field, frozen

from filebucket.store.s3.blocking import IBlocking, Listed
from filebucket.store.s3.interfaces import NotThereError, ObjectError
from filebucket.store.s3.records import MOST_RECORD, Keys, Record
from filebucket.store.s3.remove import IDeleting

V = TypeVar("V")

LEAST_GRACE = 3600.0
"""Seconds that data stays in any case. A push puts its record within minutes after its
data, or never."""

SETTLED = 900.0
"""Seconds after which no push puts a record any more for data that was whole before."""

MISSED = "the catalogue has this file, but its record is missing: run filebucket verify"

AT_ONCE = 10_000
"""Objects made of parts that wait together until they can be deleted."""

_DATA = re.compile("(?P<name>.+)~(?P<id>[0-9a-f]{32})", re.DOTALL)


class Fate(Enum):
    """What happened to an object without a record."""

    DELETED = "deleted"
    """In a dry run, it would be."""
    YOUNG = "too new"
    FAILED = "failed"


@frozen
class Swept:
    """An object without a record.

    :param name: of the file that it was pushed as
    :param reason: why it failed; empty if it did not
    """

    name: str
    size: int
    modified: float
    fate: Fate
    reason: str = ""


@frozen
class _Without:
    """An object without a record.

    :param since: when that began, at the latest
    :param replaced: whether its name has another record
    """

    since: float
    replaced: bool


@define
class Sweep:
    """Sweeps the data of one bucket.

    :ivar names: the S3 bucket of the records
    :ivar data: that of the data, with the right to delete
    :ivar directory: the bucket's folder
    :ivar grace: seconds for which data stays after it was stored, or replaced
    :ivar is_missed: whether the operator would miss a file with a name
    :ivar rehearse: a dry run: delete nothing
    :ivar sleep: waits for a number of seconds
    :ivar looked: objects that were looked at
    """

    names: IBlocking
    data: IDeleting
    keys: Keys
    directory: str
    grace: float
    is_missed: Callable[[str], bool] = lambda name: False
    rehearse: bool = False
    sleep: Callable[[float], object] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    looked: int = 0
    _waiting: list[tuple[Listed, float]] = field(factory=list)
    _last: float = 0.0

    def run(self) -> Iterator[Swept]:
        """Sweep, as the results are iterated over.

        :raises ObjectError: the store cannot be used now
        """
        for each, at in self._candidates():
            if at - each.modified < self.grace:
                if not self._has_record(each):
                    yield self._swept(each, Fate.YOUNG)
            elif each.is_multipart and not self.rehearse:
                self._waiting.append((each, at))
                self._last = self.monotonic()
                if len(self._waiting) >= AT_ONCE:
                    yield from self._settle()
            else:
                yield from self._delete(each, at)
        yield from self._settle()

    def _settle(self) -> Iterator[Swept]:
        """Delete objects after no push can be about to put their record."""
        waiting, self._waiting = self._waiting, []
        unnamed = [found for found in waiting if not self._has_record(found[0])]
        if unnamed:
            self.sleep(max(self._last + SETTLED - self.monotonic(), 0))
        for each, at in unnamed:
            yield from self._delete(each, at)

    def _delete(self, each: Listed, at: float) -> Iterator[Swept]:
        try:
            found = self._without_record(each)
            if found is None:
                return
            if at - found.since < self.grace:
                yield self._swept(each, Fate.YOUNG)
                return
            if not found.replaced and self.is_missed(self._name(each.key)):
                yield self._swept(each, Fate.FAILED, MISSED)
                return
            if not self.rehearse:
                self.data.delete(each.key)
        except ObjectError as error:
            yield self._swept(each, Fate.FAILED, str(error))
        else:
            yield self._swept(each, Fate.DELETED)

    def _swept(self, each: Listed, fate: Fate, reason: str = "") -> Swept:
        return Swept(self._name(each.key), each.size, each.modified, fate, reason)

    def _name(self, key: str) -> str:
        """The name of a file in the key of its data; empty if it is no such key."""
        rest = key.removeprefix(self.keys.all_data(self.directory))
        match = _DATA.fullmatch(rest)
        return match["name"] if match and "/" not in rest else ""

    def _has_record(self, each: Listed) -> bool:
        """Whether a record may belong to an object."""
        return self._without_record(each) is None

    def _without_record(self, each: Listed) -> _Without | None:
        """An object without a record; None if one may belong to it."""
        name = self._name(each.key)
        key = self.keys.name(self.directory, name)
        try:
            text = self.names.get(key, MOST_RECORD)
            found = Record.of(text, self.keys, self.directory, name)
            if found.data == each.key:
                return None
            since = max(each.modified, self.names.modified(key))
            return _Without(since, replaced=True)
        except NotThereError:
            return _Without(each.modified, replaced=False)
        except ValueError:
            # It says nothing about any data.
            return None

    def _candidates(self) -> Iterator[tuple[Listed, float]]:
        """Objects whose names have no record in the list, or have more objects; with
        the time of the list.
        """
        prefix = self.keys.all_data(self.directory)
        names = self.keys.names(self.directory)
        records = _Records(_listed(self.names, names), names)
        # The first object of each name, until no other can follow; None if it is a
        # candidate.
        first: _Open[tuple[Listed, float] | None] = _Open()
        for each, at in _listed(self.data, prefix):
            name = self._name(each.key)
            if not name:
                continue
            self.looked += 1
            key = each.key[len(prefix) :]
            first.close_before(key)
            has_record = records.has(name, key)
            if name not in first.names:
                # It is probably that of the record.
                first.open(name, (each, at) if has_record else None)
                if has_record:
                    continue
            elif (before := first.names[name]) is not None:
                # At most one of them is.
                yield before
                first.names[name] = None
            yield each, at


class _Open(Generic[V]):
    """Names whose data may come next in the list of all data.

    The data of ``a`` comes after that of ``a!`` and before that of ``a~g``, so there
    are few such names: all begin as the key that comes next.
    """

    def __init__(self) -> None:
        self.names: dict[str, V] = {}
        self._ends: list[tuple[str, str]] = []

    def open(self, name: str, value: V) -> None:
        """Add a name."""
        self.names[name] = value
        # After all ids.
        heappush(self._ends, (f"{name}~g", name))

    def close_before(self, key: str) -> None:
        """Forget the names whose data would come before a key."""
        while self._ends and self._ends[0][0] < key:
            del self.names[heappop(self._ends)[1]]


class _Records:
    """The names of records that the next data may have."""

    def __init__(self, listed: Iterator[tuple[Listed, float]], prefix: str) -> None:
        self._rest = (each.key[len(prefix) :] for each, _ in listed)
        self._next = next(self._rest, None)
        self._open: _Open[None] = _Open()

    def has(self, name: str, key: str) -> bool:
        """Whether there is a record.

        :param key: that of the data, which follows all keys before
        """
        while self._next is not None and self._next <= name:
            self._open.open(self._next, None)
            self._next = next(self._rest, None)
        self._open.close_before(key)
        return name in self._open.names


def _listed(bucket: IBlocking, prefix: str) -> Iterator[tuple[Listed, float]]:
    """All objects, with the time of the list."""
    after: str | None = ""
    while after is not None:
        page = bucket.page(prefix, after)
        after = page.after
        for each in page.objects:
            yield each, page.at
