"""Pushes without a protocol, and a case that receives pushes over fakes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from filebucket.base.errors import Refusal
from filebucket.base.threads import Threads
from filebucket.http.body import Body
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.model.registry import Registry
from filebucket.model.token import Token
from filebucket.push.interfaces import (
    IIncoming,
    IncomingFile,
    IResuming,
    Resume,
)
from filebucket.push.receive import Uploads
from filebucket.push.sessions import Sessions
from filebucket.test.kit.fakes import AtOnce, FakeHooks, MemoryParts, MemoryStore

BUCKET = Bucket((Token(b"\xab" * 32),), directory="web01", name="web01")
SHA256 = hashlib.sha256(b"content").hexdigest()


async def stream(*chunks: bytes | Exception) -> AsyncIterator[Sequence[bytes]]:
    """A body: each chunk is a batch, and an exception ends it."""
    for chunk in chunks:
        if isinstance(chunk, Exception):
            raise chunk
        yield [chunk]


@implementer(IIncoming)
@define
class FakeIncoming:
    """A push without a protocol.

    :ivar called: the file's name
    :ivar named: whether the name is known before the body
    :ivar wrong: the result of :meth:`check`
    :ivar promise: the digests sent, by hashlib's names
    :ivar late: the digests sent after the body
    :ivar only_new: whether the client does not want to replace a file
    :ivar condition: the reason if it would replace one
    :ivar revoked: whether its token was removed
    :ivar size: bytes of the file, if known when its name is
    """

    chunks: AsyncIterator[Sequence[bytes]]
    length: int | None
    size: int
    called: str = "db.gz"
    named: bool = True
    wrong: Refusal | None = None
    promise: Mapping[str, bytes] = field(factory=dict)
    client: str = "192.0.2.1:9"
    overhead: int = 0
    waits: bool = False
    late: Mapping[str, bytes] = field(factory=dict)
    only_new: bool = False
    condition: Refusal | None = None
    revoked: bool = False

    def check(self) -> None:
        if self.wrong is not None:
            raise self.wrong

    def promised(self) -> dict[str, bytes]:
        return dict(self.promise)

    def name(self) -> str | None:
        return self.called if self.named else None

    async def find_file(self) -> IncomingFile:
        return IncomingFile(self.called, self.size, self.chunks)

    def promised_late(self) -> dict[str, bytes]:
        return dict(self.late)

    def overwrites(self) -> bool:
        if self.condition is not None:
            raise self.condition
        return not self.only_new

    def check_allowed(self) -> None:
        if self.revoked:
            raise Refusal(403, "no such token")

    def spent(self) -> bool:
        return self.length is None

    def failure(self) -> Refusal | None:
        return None


def push(
    *chunks: bytes | Exception, sha256: str | None = None, **other: Any
) -> FakeIncoming:
    """A push of db.gz with ``content``.

    :param sha256: the digest sent, in hex
    """
    chunks = chunks or (b"con", b"tent")
    length: int | None = sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes))
    if sha256 is not None:
        other["promise"] = {"sha256": bytes.fromhex(sha256)}
    length = other.pop("length", length)
    size = other.pop("size", -1 if length is None else length)
    return FakeIncoming(stream(*chunks), length, size, **other)


class _Source:
    """A client that never needs to be held back."""

    def stop_reading(self) -> None:
        raise AssertionError("the body has become too large")

    def read_on(self) -> None:
        raise AssertionError("the body was never stopped")


@implementer(IResuming)
@define
class FakeResuming(FakeIncoming):
    """A request about a resumable upload, without a protocol.

    :ivar asked: what it asks
    :ivar body: its body, which may not have come whole yet
    :ivar of_part: the digests of the body, by hashlib's names
    :ivar token: SHA-256 in hex of its token
    """

    asked: Resume = field(kw_only=True)
    body: Body = field(init=False)
    of_part: Mapping[str, bytes] = field(factory=dict)
    token: str = BUCKET.tokens[0].sha256.hex()

    def __attrs_post_init__(self) -> None:
        assert isinstance(self.chunks, Body)
        self.body = self.chunks

    def asks(self) -> Resume:
        return self.asked

    def algorithms_of_part(self) -> set[str]:
        return set(self.of_part)

    def promised_of_part(self) -> dict[str, bytes]:
        return dict(self.of_part)

    def cut(self, refusal: Refusal) -> None:
        self.body.fail(refusal)

    def failure(self) -> Refusal | None:
        return self.body.failure


def request(
    asked: Resume, *chunks: bytes, end: bool = True, **other: Any
) -> FakeResuming:
    """A request about a resumable upload.

    :param chunks: what has come of its body
    :param end: whether that is all of it
    """
    body = Body(_Source(), lambda: 2**63, lambda: None)
    for chunk in chunks:
        body.deliver(chunk)
    if end:
        body.end()
    length = other.pop("size", sum(map(len, chunks)))
    return FakeResuming(body, length, -1, asked=asked, **other)


def make_sessions(
    uploads: Uploads,
    store: MemoryStore,
    registry: Registry,
    clock: Clock,
    unfinished: float = 86400.0,
    most: int = 16,
    parts: MemoryParts | None = None,
    wall: Callable[[], float] | None = None,
    reading: Threads | None = None,
) -> Sessions:
    """Resumable uploads over fakes, started."""
    sessions = Sessions(
        uploads,
        parts or MemoryParts(store),
        registry,
        clock,
        wall or clock.seconds,
        reading or AtOnce(clock),
        unfinished,
        most,
    )
    sessions.startService()
    return sessions


class UploadCase(SynchronousTestCase):
    """Has an :class:`Uploads` over fakes.

    :ivar current: the bucket after a reload; None if there was none
    """

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.hooks = FakeHooks()
        self.clock = Clock()
        self.observed: list[Outcome] = []
        self.known: dict[str, Kept] = {}
        self.pruned: set[str] = set()
        self.asked: list[Kept | None] = []
        self.current: Bucket | None = None
        self.uploads = self.make()

    def make(
        self,
        max_file_size: int | None = None,
        most: int = 100,
        min_file_size: int | None = None,
    ) -> Uploads:
        """Another one, with these limits."""
        return Uploads(
            self.store,
            self.hooks,
            self.clock,
            self.clock.seconds,
            self.observed.append,
            max_file_size,
            most,
            self.find,
            min_file_size,
            lambda bucket: self.current or bucket,
        )

    async def find(
        self, bucket: Bucket, name: str, recorded: Kept | None
    ) -> Kept | None:
        """Look up a known file, as the recorder does."""
        self.assertIs(BUCKET, bucket)
        self.asked.append(recorded)
        if name in self.pruned:
            return None
        known = self.known.get(name)
        is_same = known is not None and recorded and known.sha256 == recorded.sha256
        return known if recorded is None or is_same else recorded

    def receive(self, incoming: IIncoming, bucket: Bucket | None = BUCKET) -> Outcome:
        """The outcome of a push, as the observer was told."""
        done: Deferred[Outcome] = self.uploads.receive(bucket, incoming)
        outcome: Outcome = self.successResultOf(done)
        self.assertIs(outcome, self.observed[-1])
        self.assertEqual(0, self.store.receiving)
        return outcome

    def assert_refused(
        self, status: int, incoming: IIncoming, bucket: Bucket | None = BUCKET
    ) -> Outcome:
        """Nothing is stored, and post-push does not run."""
        before = dict(self.store.files)
        outcome = self.receive(incoming, bucket)
        self.assertEqual(status, outcome.status, outcome.reason)
        self.assertEqual(before, self.store.files)
        self.assertEqual([], self.hooks.told)
        self.assertIsNone(outcome.sha256)
        return outcome
