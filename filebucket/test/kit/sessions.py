"""Requests about resumable uploads that no protocol brought, and a case over fakes."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from filebucket.base.errors import Refusal
from filebucket.model.bucket import FILE_COST, Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.model.registry import Registry
from filebucket.model.token import Token
from filebucket.model.unfinished import Unfinished
from filebucket.push.interfaces import Action, Resume
from filebucket.test.kit.fakes import AtOnce, MemoryParts
from filebucket.test.kit.uploads import (
    BUCKET,
    FakeResuming,
    UploadCase,
    make_sessions,
    request,
)

CONTENT = b"content"
DAY = 86400.0
FILE = "web01", "db.gz"
OTHER = Token(b"\xcd" * 32)
CUT = Refusal(400, "the body ends early")
BROKEN = Refusal(503, "disk error on the server")


def creation(*chunks: bytes, length: int | None = 7, **other: Any) -> FakeResuming:
    """A request that creates an upload of db.gz.

    :param length: of the whole file, if the client tells it
    """
    last = other.pop("last", None)
    sha256 = other.pop("sha256", None)
    if sha256 is not None:
        other["promise"] = {"sha256": bytes.fromhex(sha256)}
    asked = Resume(Action.CREATE, length=length, last=last)
    return request(asked, *chunks, **other)


def part(
    identity: str,
    offset: int,
    *chunks: bytes,
    last: bool | None = None,
    length: int | None = None,
    **other: Any,
) -> FakeResuming:
    """A request that appends to an upload."""
    asked = Resume(Action.APPEND, identity, offset, last, length)
    return request(asked, *chunks, **other)


def look(identity: str, **other: Any) -> FakeResuming:
    """A request for the offset."""
    return request(Resume(Action.LOOK, identity), **other)


def give_up(identity: str, **other: Any) -> FakeResuming:
    """A request to delete an upload."""
    return request(Resume(Action.GIVE_UP, identity), **other)


def opened_by(*tokens: Token, **other: Any) -> Bucket:
    """The bucket, with these tokens."""
    return evolve(BUCKET, tokens=tokens, **other)


class BrokenParts(MemoryParts):
    """Uploads that the disk does not delete."""

    async def remove(self, directory: str, upload: Unfinished) -> None:
        raise BROKEN


class DoubtfulParts(MemoryParts):
    """Uploads whose record may be on the disk although that has reported an error."""

    async def record(self, directory: str, upload: Unfinished) -> None:
        self.records[upload.id] = upload
        await super().record(directory, upload)


class UnreadableParts(MemoryParts):
    """Uploads that cannot be read now."""

    def __init__(self, error: Exception, *others: Any) -> None:
        super().__init__(*others)
        self.error = error

    def read(self, upload: Unfinished, offset: int) -> bytes:
        raise self.error


class SessionCase(UploadCase):
    """Has resumable uploads over fakes, and a catalogue that knows a file as soon as
    its push was observed.
    """

    def setUp(self) -> None:
        super().setUp()
        # The wall's clock is ahead of the other one.
        self.ahead = 1e9
        self.busy = False
        self.registry = Registry([BUCKET])
        self.parts = MemoryParts(self.store)
        self.reading = AtOnce(self.clock)
        self.start()

    def start(self, unfinished: float = DAY, most: int = 16) -> None:
        """Start a daemon."""
        self.sessions = make_sessions(
            self.uploads,
            self.store,
            self.registry,
            self.clock,
            unfinished,
            most,
            self.parts,
            lambda: self.clock.seconds() + self.ahead,
            self.reading,
        )

    def restart(self) -> None:
        """Stop the daemon, and start another one."""
        self.sessions.stopService()
        self.start()

    async def find(
        self, bucket: Bucket, name: str, recorded: Kept | None
    ) -> Kept | None:
        if self.busy:
            raise Refusal(503, "the catalogue is busy")
        if name in self.known:
            return self.known[name]
        for outcome in reversed(self.observed):
            if outcome.published_at is not None and outcome.name == name:
                return Kept(outcome.size, outcome.sha256 or "")
        return None

    def ask(self, incoming: FakeResuming, bucket: Bucket = BUCKET) -> Deferred[Outcome]:
        """Begin a request."""
        return self.sessions.receive(bucket, incoming)

    def outcome(
        self, status: int, incoming: FakeResuming, bucket: Bucket = BUCKET
    ) -> Outcome:
        """The outcome of a request that ends at once."""
        return self.ended(status, self.ask(incoming, bucket))

    def ended(self, status: int, done: Deferred[Outcome]) -> Outcome:
        """The outcome of a request that has ended."""
        outcome: Outcome = self.successResultOf(done)
        self.assertEqual(status, outcome.status, outcome.reason)
        return outcome

    def created(self, incoming: FakeResuming | None = None) -> str:
        """The id of a new upload."""
        outcome = self.outcome(201, incoming or creation())
        assert outcome.upload is not None
        return outcome.upload.id

    def assert_at(self, offset: int, identity: str) -> None:
        """The upload is told to be at this offset, and its bytes are there."""
        outcome = self.outcome(204, look(identity))
        assert outcome.upload is not None
        self.assertEqual(
            (offset, False), (outcome.upload.offset, outcome.upload.complete)
        )
        self.assertEqual(CONTENT[:offset], self.parts.data[identity][:offset])
        self.assertEqual(offset, self.parts.records[identity].offset)

    def assert_gone(self, identity: str) -> None:
        """Nothing is left of the upload."""
        self.outcome(404, look(identity))
        self.assertNotIn(identity, self.parts.records)
        self.assert_idle()

    def assert_idle(self) -> None:
        """No request is under way, and quotas have exactly what is unfinished."""
        self.assertEqual(0, self.uploads.under_way)
        self.assertEqual(0, self.store.receiving)
        unfinished = sum(each.offset + FILE_COST for each in self.sessions.all)
        self.assertEqual(unfinished, sum(self.parts.counted.values()))

    def assert_stored(self, content: bytes = CONTENT) -> None:
        self.assertEqual({FILE: content}, self.store.files)
        self.assertEqual([], self.sessions.all)
        self.assertEqual({}, self.parts.data)
        self.assert_idle()
