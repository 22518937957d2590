"""Fakes with the interfaces of the real classes.

:class:`MemoryStore` passes the same tests as the directory store, and
:class:`MemoryParts` as its resumable uploads. Nothing here waits: calls that would
use a thread run at once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.base.threads import Threads
from filebucket.hooks.interfaces import Alert, Exit, IHooks, Subject, Verdict
from filebucket.model.bucket import FILE_COST
from filebucket.model.push import Kept
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.store.interfaces import (
    Content,
    IArchive,
    IFolder,
    IParts,
    IPartWriter,
    IStore,
    IStoredFile,
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

    def together(
        self,
        key: str,
        function: Callable[[str, Sequence[Any]], Sequence[T | Exception]],
        item: object,
    ) -> Deferred[T]:
        def alone() -> T:
            (result,) = function(key, [item])
            if isinstance(result, Exception):
                raise result
            return result

        return self.run(key, alone)

    def is_stuck(self, key: str, seconds: float) -> bool:
        return key in self.stuck


class Pool(Threads):
    """Makes calls when the test says so.

    :ivar calls: the calls that have not returned
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self.calls.append((done, function, args))
        return done

    def go_on(self, index: int = 0) -> None:
        done, function, args = self.calls.pop(index)
        try:
            result = function(*args)
        except Exception:
            done.errback(Failure())
        else:
            done.callback(result)


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

    def step(self) -> None:
        """Run the call that has hung for the longest time."""
        self._left.pop(0)()

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
    :ivar unfinished: bytes of quotas that resumable uploads take, by directory and id
    """

    files: dict[tuple[str, str], bytes] = field(factory=dict)
    room: int = 2**63
    writers: list[MemoryWriter] = field(factory=list)
    gate: Deferred[None] | None = None
    confirmed: list[tuple[str, str]] = field(factory=list)
    records: dict[tuple[str, str], Kept] = field(factory=dict)
    end_gate: Deferred[None] | None = None
    order: Iterator[int] = field(factory=itertools.count)
    unfinished: dict[tuple[str, str], int] = field(factory=dict)

    @property
    def receiving(self) -> int:
        """Number of writers that have not ended."""
        return len(self.writers)

    async def check_room(self, directory: str, size: int) -> None:
        if size > self.room:
            raise Refusal(507, f"not enough free space for {size} bytes")

    async def recorded(self, directory: str, name: str) -> Kept | None:
        return self.records.get((directory, name))

    async def confirm(self, directory: str, name: str, size: int, sha256: str) -> bool:
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
        size = self._taken()
        size += sum(
            len(content) + FILE_COST
            for (directory, _), content in store.files.items()
            if directory == self.directory
        )
        size += sum(
            each._taken()
            for each in store.writers
            if each is not self and each.directory == self.directory
        )
        size += sum(
            taken
            for (directory, _), taken in store.unfinished.items()
            if directory == self.directory
        )
        if self.quota is not None and size > self.quota:
            raise Refusal(507, "the bucket's quota is used up")

    def _taken(self) -> int:
        """Bytes of the quota that it takes, besides what is counted already."""
        return max(self.expected, len(self.content)) + FILE_COST

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
    :ivar published: ids of uploads whose file is published
    :ivar failure: raised instead of recording anything, while it is set
    :ivar end_gate: while it is set, each record of an end waits for it
    :ivar remote: whether only :meth:`ended` finds that a file is published
    :ivar prepare_gate: while it is set, each :meth:`prepare` waits for it
    :ivar ended_gate: while it is set, each :meth:`ended` waits for it
    :ivar prepared: ids of uploads that were prepared, each time
    """

    store: MemoryStore
    data: dict[str, bytes] = field(factory=dict)
    records: dict[str, Unfinished] = field(factory=dict)
    published: set[str] = field(factory=set)
    failure: Refusal | None = None
    end_gate: Deferred[None] | None = None
    remote: bool = False
    prepare_gate: Deferred[None] | None = None
    ended_gate: Deferred[None] | None = None
    prepared: list[str] = field(factory=list)

    @property
    def counted(self) -> dict[str, int]:
        """Bytes of quotas that unfinished uploads take, by directory."""
        counted: Counter[str] = Counter()
        for (directory, _), taken in self.store.unfinished.items():
            counted[directory] += taken
        return dict(counted)

    def load(self, directory_of: Callable[[str], str | None]) -> list[Unfinished]:
        for identity in self.data.keys() - self.records.keys():
            del self.data[identity]
        for identity, upload in list(self.records.items()):
            if upload.finished is not None:
                self.data.pop(identity, None)
            elif len(self.data.get(identity, b"")) < upload.offset:
                del self.records[identity]
                self.data.pop(identity, None)
            elif identity in self.published and not self.remote:
                finished = Finished(upload.offset, upload.sha256)
                self.records[identity] = evolve(upload, finished=finished)
                del self.data[identity]
        return [each for each in self.records.values() if each.finished is None]

    async def ended(self, directory: str, upload: Unfinished) -> Finished | None:
        if self.ended_gate is not None:
            await self.ended_gate
        if self.remote and upload.id in self.published:
            return Finished(upload.offset, upload.sha256)
        return None

    def count(self, directory: str, upload: Unfinished) -> None:
        self.store.unfinished[directory, upload.id] = upload.offset + FILE_COST

    def open(
        self, directory: str, upload: Unfinished, hashes: Hashes, quota: int | None
    ) -> MemoryPartWriter:
        return MemoryPartWriter(self, directory, upload, quota)

    async def record(self, directory: str, upload: Unfinished) -> None:
        if self.failure is not None:
            raise self.failure
        self.records[upload.id] = upload

    async def finish(self, directory: str, upload: Unfinished) -> None:
        if self.end_gate is not None:
            await self.end_gate
        await self.record(directory, upload)
        self.store.unfinished.pop((directory, upload.id), None)
        self.data.pop(upload.id, None)

    async def remove(self, directory: str, upload: Unfinished) -> None:
        self.store.unfinished.pop((directory, upload.id), None)
        self.data.pop(upload.id, None)
        self.records.pop(upload.id, None)

    async def find(self, directory: str, identity: str) -> Unfinished | None:
        found = self.records.get(identity)
        return found if found is not None and found.finished is not None else None

    def read(self, upload: Unfinished, offset: int) -> bytes:
        """As a disk that reads two bytes at once."""
        end = min(offset + 2, upload.offset)
        piece = self.data.get(upload.id, b"")[offset:end]
        if not piece:
            raise LostError
        return piece

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
        content = parts.data.get(upload.id, b"")[: upload.offset]
        super().__init__(parts.store, directory, upload.name, quota, content)
        self.parts = parts
        self.upload = upload
        self.kept = len(content)
        self.broken = False

    @property
    def _key(self) -> tuple[str, str]:
        return self.directory, self.upload.id

    def _taken(self) -> int:
        cost = 0 if self._key in self.store.unfinished else FILE_COST
        return max(self.expected, len(self.content) - self.kept) + cost

    def _receive(self) -> None:
        if not self.receiving:
            super()._receive()
            if self.upload.sha256:
                self.parts.count(self.directory, self.upload)
            self.parts.data[self.upload.id] = self.content[: self.kept]

    async def begin(self, size: int, overwrite: bool) -> None:
        if self.upload.id in self.parts.published:
            raise Refusal(503, "disk error on the server")
        if len(self.parts.data.get(self.upload.id, b"")) < self.upload.offset:
            raise LostError
        await super().begin(size, overwrite)

    async def write(self, chunks: Sequence[bytes]) -> None:
        try:
            await super().write(chunks)
        except BaseException:
            self.broken = True
            raise

    async def keep(self) -> Hashes:
        if self.broken:
            raise Refusal(503, "disk error on the server")
        self._receive()
        new, self.kept = len(self.content) - self.kept, len(self.content)
        self.expected = max(self.expected - new, 0)
        self.parts.data[self.upload.id] = self.content
        self.store.unfinished[self._key] = self.kept + FILE_COST
        hashes = Hashes({"sha256", *self.upload.promised})
        hashes.update([self.content])
        return hashes

    async def prepare(self, promised: Mapping[str, bytes], overwrite: bool) -> None:
        self.parts.prepared.append(self.upload.id)
        if self.parts.prepare_gate is not None:
            await self.parts.prepare_gate

    async def commit(self, promised: Mapping[str, bytes], overwrite: bool) -> Receipt:
        await self.keep()
        receipt = await super().commit(promised, overwrite)
        self.store.unfinished.pop(self._key, None)
        self.parts.published.add(self.upload.id)
        return receipt


@implementer(IArchive)
@define
class MemoryArchive:
    """Reads files from dicts.

    :ivar buckets: content and time of each file, by directory and name
    :ivar uploads: the resumable uploads that go on
    """

    buckets: dict[str, dict[str, tuple[bytes, float]]] = field(factory=dict)
    uploads: list[Unfinished] = field(factory=list)

    def unfinished(self) -> list[Unfinished]:
        return list(self.uploads)

    def is_foreign(self, stored: Iterable[tuple[str, float]]) -> bool:
        return False

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

    def untouched(self, before: Mapping[str, float]) -> Collection[str]:
        return ()

    def expect(self, names: Sequence[str]) -> None:
        pass

    def look(self, name: str) -> Stat:
        if name not in self.files:
            raise NoFileError
        content, at = self.files[name]
        return Stat(len(content), at, at, (content, at))

    def is_sealed(self, name: str) -> bool:
        self.look(name)
        return False

    @contextmanager
    def open(self, name: str) -> Iterator[IStoredFile]:
        yield MemoryFile(self.look(name), self.files[name][0])

    def read(self, name: str, pace: Callable[[int], object]) -> Content:
        with self.open(name) as file:
            return file.copy(lambda piece: pace(len(piece)))


@implementer(IStoredFile)
@frozen
class MemoryFile:
    """A file of a :class:`MemoryFolder`."""

    stat: Stat
    content: bytes

    def copy(self, write: Callable[[memoryview], object]) -> Content:
        write(memoryview(self.content))
        digest = hashlib.sha256(self.content).hexdigest()
        return Content(len(self.content), digest, self.stat)

    def piece(self, offset: int, most: int) -> bytes:
        return self.content[offset : offset + most]


@implementer(IHooks)
@define
class FakeHooks:
    """Hooks with given answers.

    :ivar verdicts: the answers of pre-push, in order; the last one is repeated
    :ivar exit: the exit of post-push and alert
    :ivar refused: series whose alerts exit with 1
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
    refused: set[str] = field(factory=set)
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
        return Exit(1) if alert.series in self.refused else self.exit


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

    def reloaded(self, result: str) -> None:
        self.told.append(f"reloaded: {result}")

    def stopping(self, status: str, seconds: float) -> None:
        self.told.append(f"stopping: {status}")
