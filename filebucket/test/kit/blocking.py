"""An S3 bucket in memory, with the interface of the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import define, field, frozen
from zope.interface import implementer

from filebucket.store.s3.blocking import PAGE, IReading, Listed, Page
from filebucket.store.s3.interfaces import NotThereError, UnsureError
from filebucket.store.s3.records import Keys, Record, new_id
from filebucket.store.s3.remove import IDeleting


def nothing(call: str, key: str) -> None:
    """Called before each call."""


@implementer(IDeleting)
@define
class MemoryBucket:
    """Objects in a dict.

    :ivar objects: content and time of each object, by key
    :ivar now: the store's clock
    :ivar before: called with each call and its key, before it has an effect
    :ivar calls: all calls, with their keys
    :ivar multipart: keys of objects that were made of parts
    """

    place: str = "S3 bucket memory"
    objects: dict[str, tuple[bytes, float]] = field(factory=dict)
    now: float = 0.0
    before: Callable[[str, str], object] = nothing
    calls: list[tuple[str, str]] = field(factory=list)
    multipart: set[str] = field(factory=set)
    page_size: int = PAGE
    keeps_versions: bool = False

    def _called(self, call: str, key: str) -> None:
        self.calls.append((call, key))
        self.before(call, key)

    def count(self, call: str) -> int:
        """How often a call was made."""
        return sum(each == call for each, _ in self.calls)

    def _content(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotThereError("404 NoSuchKey", "NoSuchKey")
        return self.objects[key][0]

    def get(self, key: str, most: int) -> bytes:
        self._called("get", key)
        content = self._content(key)
        if len(content) > most:
            raise UnsureError("too large")
        return content

    def modified(self, key: str) -> float:
        self._called("modified", key)
        self._content(key)
        return self.objects[key][1]

    def open(self, key: str, offset: int = 0) -> MemoryReading:
        self._called("open", key)
        content = self._content(key)
        return MemoryReading(len(content), content[offset:])

    def put(self, key: str, content: bytes) -> None:
        self._called("put", key)
        self.objects[key] = content, self.now

    def delete(self, key: str) -> None:
        self._called("delete", key)
        self.objects.pop(key, None)

    def page(self, prefix: str, after: str = "") -> Page:
        self._called("page", prefix)
        keys = [
            key
            for key in sorted(self.objects)
            if key.startswith(prefix) and key > after
        ]
        page = [self._listed(key) for key in keys[: self.page_size]]
        more = len(keys) > self.page_size
        return Page(page, page[-1].key if more else None, self.now)

    def _listed(self, key: str) -> Listed:
        content, modified = self.objects[key]
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if key in self.multipart:
            etag += "-2"
        return Listed(key, len(content), modified, f'"{etag}"')

    def versioned(self) -> bool:
        self._called("versioned", "")
        return self.keeps_versions

    def close(self) -> None:
        pass


@implementer(IReading)
@define
class MemoryReading:
    """An object that is being read."""

    size: int
    _left: bytes

    def read(self, most: int) -> bytes:
        piece, self._left = self._left[:most], self._left[most:]
        return piece

    def close(self) -> None:
        pass


@frozen
class Objects:
    """Both S3 buckets of a store, with stored files."""

    keys: Keys
    names: IDeleting
    data: IDeleting

    def store(
        self, directory: str, name: str, content: bytes, at: float, wrong: bytes = b""
    ) -> Record:
        """Store a file, or replace it, as a push does.

        :param at: when, in seconds since the epoch
        :param wrong: data that gets stored instead
        """
        identity = new_id()
        record = Record(
            identity,
            self.keys.data(directory, name, identity),
            len(content),
            hashlib.sha256(content).hexdigest(),
            at,
        )
        self.data.put(record.data, wrong or content)
        self.names.put(self.keys.name(directory, name), record.text())
        return record
