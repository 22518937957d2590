"""A resumable upload between its requests: who has the turn, and what may come next."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.model.unfinished import Unfinished
from filebucket.push.interfaces import IResuming, Resume


@define(eq=False)
class Turn:
    """Only one request works on an upload, and only the newest waits for that.

    In a queue each request would give its turn to the next one from within its own
    call, and a client can send more of them than Python has levels of calls.

    :ivar locked: whether a request has the turn
    """

    locked: bool = False
    _waiting: Deferred[None] | None = None

    def acquire(self) -> Deferred[None]:
        """Wait for the turn, in place of an older request that waits.

        :returns: fails with :class:`~filebucket.base.errors.Refusal` if a newer request
            waits in its place
        """
        mine: Deferred[None] = Deferred()
        if not self.locked:
            self.locked = True
            mine.callback(None)
            return mine
        older, self._waiting = self._waiting, mine
        if older is not None:
            older.errback(newer())
        return mine

    def release(self) -> None:
        """Give the turn away."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self.locked = False
        else:
            waiting.callback(None)


@define(eq=False)
class Session:
    """An unfinished upload.

    :ivar upload: as it is recorded
    :ivar directory: of its bucket
    :ivar hashes: its digests so far; None after a restart, until it was read again
    :ivar recorded: whether that is certain: an error may leave a later record
    :ivar reading: whether that is under way
    :ivar was_read: the request that waits for it
    :ivar current: the request that has the turn
    :ivar newest: the last request about it
    :ivar gone: whether it has ended
    :ivar turn: of the request that works on it
    """

    upload: Unfinished
    directory: str
    hashes: Hashes | None = None
    recorded: bool = True
    reading: bool = False
    was_read: Deferred[None] | None = None
    current: IResuming | None = None
    newest: IResuming | None = None
    gone: bool = False
    turn: Turn = field(factory=Turn)

    def leave(self, incoming: IResuming) -> None:
        """Let the next request have its turn. A second call does nothing."""
        if self.current is incoming:
            self.current = None
            self.turn.release()


class Index:
    """The unfinished uploads, by id and by bucket: what a request costs does not depend
    on the uploads of other buckets.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._of_bucket: dict[str, dict[str, Session]] = {}

    def add(self, session: Session) -> None:
        """Add an upload."""
        upload = session.upload
        self._by_id[upload.id] = session
        self._of_bucket.setdefault(upload.bucket, {})[upload.id] = session

    def remove(self, session: Session) -> None:
        """Remove an upload. A second call does nothing."""
        upload = session.upload
        if self._by_id.pop(upload.id, None) is not None:
            same = self._of_bucket[upload.bucket]
            del same[upload.id]
            if not same:
                del self._of_bucket[upload.bucket]

    def find(self, identity: str) -> Session | None:
        """The upload with that id."""
        return self._by_id.get(identity)

    @property
    def all(self) -> Collection[Session]:
        """All uploads."""
        return self._by_id.values()

    def of(self, bucket: str) -> Collection[Session]:
        """The uploads of the bucket with that key."""
        return self._of_bucket.get(bucket, {}).values()


def is_findable(upload: Unfinished) -> bool:
    """Whether a client that does not know its id can be given it again."""
    return "sha256" in upload.promised and upload.told != -1


def has_all(upload: Unfinished) -> bool:
    """Whether all of its bytes have come."""
    return upload.offset == upload.length


def length_of(upload: Unfinished, incoming: IResuming, asked: Resume) -> int | None:
    """Bytes of the whole file, if they are known now.

    :raises Refusal: 400: two lengths contradict, or the body is too long
    """
    end = None if incoming.length is None else upload.offset + incoming.length
    told = [upload.length, asked.length, end if asked.last else None]
    lengths = sorted({each for each in told if each is not None})
    if len(lengths) > 1:
        raise Refusal(400, f"contradictory lengths: {', '.join(map(str, lengths))}")
    length = lengths[0] if lengths else None
    if length is not None and (end or upload.offset) > length:
        raise too_long(length)
    return length


def promises_of(upload: Unfinished, digests: Mapping[str, bytes]) -> dict[str, str]:
    """The digests that the file must have, in hex.

    :param digests: those that a part promises of the whole file
    :raises Refusal: 400: they contradict earlier ones, or cannot be computed any more
    """
    promised = dict(upload.promised)
    for algorithm, digest in digests.items():
        if algorithm not in {"sha256", *upload.promised}:
            raise Refusal(400, "only a SHA-256 digest can be sent after the creation")
        if promised.setdefault(algorithm, digest.hex()) != digest.hex():
            raise Refusal(400, f"another {algorithm} digest was sent before")
    return promised


def unknown() -> Refusal:
    """The answer about an upload that there is not."""
    return Refusal(404, "no such upload")


def lost() -> Refusal:
    """The answer about an upload whose data is lost."""
    return Refusal(410, "the upload is lost; start again")


def too_long(length: int) -> Refusal:
    """The answer to a request with more bytes than the upload has."""
    return Refusal(400, f"the data exceeds the upload's length of {length} bytes")


def newer() -> Refusal:
    """The answer to a request that a newer one about its upload has cut off."""
    return Refusal(409, "a newer request continues this upload")
