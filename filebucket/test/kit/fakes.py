"""Fakes with the interfaces of the real classes.

:class:`MemoryStore` passes the same tests as the directory store (``test_store``).
    Nothing here waits: calls that would use a thread run at once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.base.threads import Threads
from filebucket.hooks.interfaces import Alert, Exit, IHooks, Subject, Verdict
from filebucket.model.bucket import FILE_COST
from filebucket.model.unfinished import Unfinished
from filebucket.store.interfaces import (
    Content,
    IArchive,
    IFolder,
    IParts,
    IPartWriter,
    IStore,
    IWriter,
    LostError,
    NameTaken,
    NoFileError,
    Receipt,
    Stat,
)

T = TypeVar("T")


def at_once(function: Callable[..., T], *args: Any) -> Deferred[T]:
    """``deferToThread`` without a thread."""
    return execute(function, *args)


class LinesAtOnce:
    """Runs calls at once.

    :ivar stuck: keys of queues that are stuck
    """

    def __init__(self) -> None:
        self.stuck: set[str] = set()

    def run(self, key: str, function: Callable[..., T], *args: Any) -> Deferred[T]:
        return at_once(function, *args)

    def is_stuck(self, key: str, seconds: float) -> bool:
        return key in self.stuck


class AtOnce(Threads):
    """Runs calls at once.

    :ivar hangs: whether calls hang, as on a disk that hangs
    """

    hangs = False

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, 0)
        self._left: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        """Number of calls that hang."""
        return len(self._left)

    def go_on(self) -> None:
        """Run the calls that hung."""
        self.hangs = False
        while self._left:
            self._left.pop(0)()

    def run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        done: Deferred[T] = Deferred()

        def call() -> None:
            at_once(function, *args).chainDeferred(done)

        if self.hangs:
            self._left.append(call)
        else:
            call()
        return done


@implementer(IStore)
@define
class MemoryStore:
    """Files in a dict.

    :ivar files: published files, by directory and name
    :ivar room: bytes of free space
    :ivar writers: writers that have not ended
    :ivar gate: while it is set, each write waits for it
    :ivar confirmed: the names passed to confirm
    :ivar end_gate: while it is set, each publish waits for it before it returns
    """

    files: dict[tuple[str, str], bytes] = field(factory=dict)
    room: int = 2**63
    writers: list[MemoryWriter] = field(factory=list)
    gate: Deferred[None] | None = None
    confirmed: list[tuple[str, str]] = field(factory=list)
    end_gate: Deferred[None] | None = None
    order: Iterator[int] = field(factory=itertools.count)

    @property
    def receiving(self) -> int:
        """Number of writers that have not ended."""
        return len(self.writers)

    async def check_room(self, directory: str, size: int) -> None:
        if size > self.room:
            raise Refusal(507, f"not enough free space for {size} bytes")

    async def confirm(self, directory: str, name: str, size: int) -> bool:
        self.confirmed.append((directory, name))
        content = self.files.get((directory, name))
        return content is not None and len(content) == size

    def open(
        self,
        directory: str,
        name: str,
        algorithms: Collection[str],
        quota: int | None,
    ) -> IWriter:
        return MemoryWriter(self, directory, name, quota)


@implementer(IWriter)
@define(eq=False)
class MemoryWriter:
    """A file that is written to a :class:`MemoryStore`."""

    store: MemoryStore
    directory: str
    name: str
    quota: int | None
    content: bytes = b""
    expected: int = 0
    receiving: bool = False
    begun: bool = False

    async def begin(self, size: int, overwrite: bool) -> None:
        self.begun = True
        self._refuse_taken(overwrite)
        await self.store.check_room(self.directory, size)
        self.expected = size
        self._check_quota()
        self._receive()

    def _refuse_taken(self, overwrite: bool) -> None:
        if (self.directory, self.name) in self.store.files and not overwrite:
            raise NameTaken()

    def _check_quota(self) -> None:
        store = self.store
        size = max(self.expected, len(self.content)) + FILE_COST
        size += sum(
            len(content) + FILE_COST
            for (directory, _), content in store.files.items()
            if directory == self.directory
        )
        size += sum(
            max(each.expected, len(each.content)) + FILE_COST
            for each in store.writers
            if each is not self and each.directory == self.directory
        )
        if self.quota is not None and size > self.quota:
            raise Refusal(507, "the bucket's quota is used up")

    def _receive(self) -> None:
        if not self.receiving:
            self.receiving = True
            self.store.writers.append(self)

    async def write(self, chunks: Sequence[bytes]) -> None:
        self._receive()
        if self.store.gate is not None:
            await self.store.gate
        self.content += b"".join(chunks)
        self._check_quota()
        await self.store.check_room(self.directory, len(self.content))

    async def commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        if not self.begun:
            self._refuse_taken(overwrite)
        for algorithm, digest in promised.items():
            if hashlib.new(algorithm, self.content).digest() != digest:
                raise Refusal(422, f"{algorithm} mismatch")
        self._refuse_taken(overwrite)
        replaced = (self.directory, self.name) in self.store.files
        self.store.files[self.directory, self.name] = self.content
        order = next(self.store.order)
        await self.abort()
        if self.store.end_gate is not None:
            await self.store.end_gate
        return Receipt(
            f"/home/{self.directory}/{self.name}",
            len(self.content),
            hashlib.sha256(self.content).hexdigest(),
            order,
            replaced,
        )

    async def abort(self) -> None:
        if self.receiving:
            self.receiving = False
            self.store.writers.remove(self)


@implementer(IParts)
@define
class MemoryParts:
    """Resumable uploads in a dict; their files are those of a :class:`MemoryStore`.

    :ivar data: what is durable of each upload that goes on, by id
    :ivar records: how far each has come, by id
    :ivar counted: bytes of quotas, by directory
    :ivar failure: raised instead of recording anything, while it is set
    """

    store: MemoryStore
    data: dict[str, bytes] = field(factory=dict)
    records: dict[str, Unfinished] = field(factory=dict)
    counted: dict[str, int] = field(factory=dict)
    failure: Refusal | None = None

    def load(self) -> list[Unfinished]:
        return [each for each in self.records.values() if each.finished is None]

    def count(self, directory: str, upload: Unfinished) -> None:
        self._count(directory, upload.offset + FILE_COST)

    def _count(self, directory: str, size: int) -> None:
        self.counted[directory] = self.counted.get(directory, 0) + size

    def open(
        self, directory: str, upload: Unfinished, hashes: Hashes, quota: int | None
    ) -> MemoryPartWriter:
        return MemoryPartWriter(self, directory, upload, quota)

    async def record(self, directory: str, upload: Unfinished) -> None:
        if self.failure is not None:
            raise self.failure
        self.records[upload.id] = upload

    async def finish(self, directory: str, upload: Unfinished) -> None:
        await self.record(directory, upload)
        self.data.pop(upload.id, None)

    async def remove(self, directory: str, upload: Unfinished) -> None:
        if upload.sha256:
            self._count(directory, -(upload.offset + FILE_COST))
        self.data.pop(upload.id, None)
        self.records.pop(upload.id, None)

    async def find(self, directory: str, identity: str) -> Unfinished | None:
        found = self.records.get(identity)
        return found if found is not None and found.finished is not None else None

    def hashed(self, upload: Unfinished, pace: Callable[[float], object]) -> Hashes:
        content = self.data.get(upload.id, b"")[: upload.offset]
        hashes = Hashes({"sha256", *upload.promised})
        hashes.update([content])
        pace(0.0)
        if hashes.hexdigest("sha256") != upload.sha256:
            raise LostError
        return hashes

    async def sweep(self, before: float) -> None:
        for identity, upload in list(self.records.items()):
            if upload.finished is not None and upload.touched_at < before:
                del self.records[identity]


@implementer(IPartWriter)
class MemoryPartWriter(MemoryWriter):
    """A resumable upload in a :class:`MemoryParts`, during one request."""

    def __init__(
        self, parts: MemoryParts, directory: str, upload: Unfinished, quota: int | None
    ) -> None:
        content = parts.data.get(upload.id, b"")
        super().__init__(parts.store, directory, upload.name, quota, content)
        self.parts = parts
        self.id = upload.id
        self.algorithms = {"sha256", *upload.promised}

    async def keep(self) -> Hashes:
        new = len(self.content) - len(self.parts.data.get(self.id, b""))
        self.parts._count(self.directory, new)
        self.parts.data[self.id] = self.content
        hashes = Hashes(self.algorithms)
        hashes.update([self.content])
        return hashes

    async def take_back(self) -> None:
        self.content = self.parts.data.get(self.id, b"")


@implementer(IArchive)
@define
class MemoryArchive:
    """Reads files from dicts.

    :ivar buckets: content and time of each file, by directory and name
    """

    buckets: dict[str, dict[str, tuple[bytes, float]]] = field(factory=dict)

    def open(self, directory: str) -> AbstractContextManager[IFolder]:
        return nullcontext(MemoryFolder(self.buckets.get(directory, {})))

    def unpruned(self) -> AbstractContextManager[bool]:
        return nullcontext(True)


@implementer(IFolder)
@define
class MemoryFolder:
    """A bucket of a :class:`MemoryArchive`."""

    files: dict[str, tuple[bytes, float]]

    def list(self, most: int) -> Iterator[Sequence[bytes]]:
        names = iter([name.encode("utf-8") for name in self.files])
        while piece := list(itertools.islice(names, most)):
            yield piece

    def look(self, name: str) -> Stat:
        if name not in self.files:
            raise NoFileError
        content, at = self.files[name]
        return Stat(len(content), at, at, (content, at))

    def read(self, name: str, pace: Callable[[int], object]) -> Content:
        found = self.look(name)
        content, _ = self.files[name]
        pace(len(content))
        return Content(len(content), hashlib.sha256(content).hexdigest(), found)


@implementer(IHooks)
@define
class FakeHooks:
    """Hooks with given answers.

    :ivar verdicts: the answers of pre-push, in order; the last one is repeated
    :ivar exit: the exit of post-push
    :ivar asked: the subjects of pre-push
    :ivar told: the subjects of post-push
    :ivar alerts: the alerts
    :ivar gate: while it is set, pre-push and alert wait for it
    :ivar post_gate: the same for post-push
    """

    verdicts: list[Verdict | Refusal] = field(factory=lambda: [Verdict.GO_ON])
    exit: Exit | None = None
    asked: list[Subject] = field(factory=list)
    told: list[Subject] = field(factory=list)
    alerts: list[Alert] = field(factory=list)
    gate: Deferred[None] | None = None
    post_gate: Deferred[None] | None = None

    async def pre_push(
        self, subject: Subject, failure: Callable[[], Refusal | None]
    ) -> Verdict:
        self.asked.append(subject)
        if self.gate is not None:
            await self.gate
        verdict = self.verdicts.pop(0) if self.verdicts[1:] else self.verdicts[0]
        if isinstance(verdict, Refusal):
            raise verdict
        return verdict

    async def post_push(self, subject: Subject) -> Exit | None:
        self.told.append(subject)
        if self.post_gate is not None:
            await self.post_gate
        return self.exit

    async def alert(self, alert: Alert) -> Exit | None:
        self.alerts.append(alert)
        if self.gate is not None:
            await self.gate
        return self.exit


@define
class FakeSupervisor:
    """Records its calls.

    :ivar told: the calls, in order
    """

    told: list[str] = field(factory=list)

    def ready(self, status: str) -> None:
        self.told.append(f"ready: {status}")

    def reloading(self) -> None:
        self.told.append("reloading")

    def stopping(self, status: str, seconds: float) -> None:
        self.told.append(f"stopping: {status}")
