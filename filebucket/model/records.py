"""The catalogue's values, as they are written and read."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal, Self

from attrs import field, frozen

from filebucket.model.bucket import quota_taken
from filebucket.model.push import Outcome
from filebucket.model.state import State


def or_infinity(value: float | None) -> float:
    """The time, or infinity for None: never."""
    return math.inf if value is None else value


@frozen
class Received:
    """A push whose file was published.

    :param bucket: the bucket's key
    :param series: the name of its series
    :param size: bytes
    :param sha256: in hex
    :param received_at: seconds since the epoch
    :param seconds: from the end of the headers to the outcome; None if the file was
        found on the disk
    :param pre_push: exit status of the hook; None if there was none
    :param post_push: the same
    :param request: the push's id; None if the file was found on the disk
    :param parts: requests that brought it; None if it was no resumable upload
    :param superseded: whether another push replaced it before it ended; only for
        values to be added
    :param healed: whether it is not a new push but the repetition of one whose file
        was damaged, and which it replaced; only for values to be added
    """

    bucket: str
    series: str
    name: str = field(repr=False)
    size: int
    sha256: str
    received_at: float
    seconds: float | None = None
    client: str | None = None
    overwrote: bool = field(default=False, converter=bool)
    pre_push: int | None = None
    post_push: int | None = None
    request: str | None = None
    parts: int | None = None
    superseded: bool = False
    healed: bool = False

    @classmethod
    def of(cls, outcome: Outcome, key: str, name: str, series: str, now: float) -> Self:
        """The values of a push whose file was published.

        :param key: its bucket's key
        :param name: the file's name
        :param now: seconds since the epoch
        """
        return cls(
            bucket=key,
            series=series,
            name=name,
            size=outcome.size,
            sha256=outcome.sha256 or "",
            received_at=outcome.published_at or now,
            seconds=outcome.seconds,
            client=outcome.client,
            overwrote=outcome.overwrote,
            pre_push=outcome.pre_push,
            post_push=outcome.post_push,
            request=outcome.request_id,
            parts=outcome.parts,
            superseded=outcome.superseded,
            healed=outcome.healed,
        )


@frozen
class Refused:
    """A push that was refused.

    :param bucket: the bucket's key; empty if there is none
    """

    bucket: str
    at: float
    name: str | None = field(repr=False)
    size: int
    status: int
    reason: str
    client: str
    request: str

    @classmethod
    def of(cls, outcome: Outcome, key: str, now: float) -> Self:
        """The values of a push that was refused.

        :param key: its bucket's key
        :param now: seconds since the epoch
        """
        return cls(
            bucket=key,
            at=now,
            name=outcome.name,
            size=outcome.size,
            status=outcome.status,
            reason=": ".join(filter(None, (outcome.reason, outcome.cause))),
            client=outcome.client,
            request=outcome.request_id,
        )


@frozen
class Abandoned:
    """A resumable upload that expired or was lost: a push that never ended.

    :param bucket: the bucket's key
    :param series: the name of its series
    :param at: when its last byte came
    """

    bucket: str
    series: str
    at: float


@frozen
class Failed:
    """A client's report that a backup failed.

    :param bucket: the bucket's key
    :param series: the name of its series; empty for the whole bucket
    :param text: as the client sent it; the catalogue's writer masks its tokens
    """

    bucket: str
    series: str
    at: float
    text: str = field(repr=False)


@frozen
class File:
    """A row: a push and the state of its file.

    :param id: unique, and never used again
    :param judgement: its size compared with earlier pushes: fresh, shrunk or grown; or
        empty
    :param fate: ``kept``, ``overwritten``, ``pruned`` or ``missing``
    :param fate_at: when it stopped being kept, or was marked as about to be pruned
    :param verified_at: when its content was last verified or healed
    :param damaged: whether its content differed then
    """

    id: int
    received: Received
    judgement: State = field(default=State.FRESH, converter=State)
    fate: str = "kept"
    fate_at: float | None = None
    verified_at: float | None = None
    damaged: bool = field(default=False, converter=bool)


@frozen
class Series:
    """A series and its state.

    :param bucket: the bucket's key
    :param name: empty for a bucket that is awaiting its first push, and for a failure
        of the whole bucket
    :param since: when it was first known
    :param files: number of its files
    :param bytes: their total size
    :param pushes: number of pushes so far
    :param state_at: when it got its state
    :param due: when it becomes or became late; infinity is never
    :param usual: usual size of a push in bytes, if it is known
    :param told: the state in the last alert
    :param damaged: number of damaged files
    :param missing: number of missing files
    :param failed_at: when the client reported that a backup failed; None if a push has
        arrived since
    :param failed_text: its report, with tokens masked; lines and all else as sent
    :param told_at: time of the last alert; None if that was that all is well
    :param drilled_at: when a restore of one of its files was last tested
    :param drilled_name: name of that file
    :param drill_error: why that test failed; None if it passed
    :param restored_at: when a restore test last passed
    """

    id: int
    bucket: str
    name: str
    since: float
    files: int
    bytes: int
    pushes: int
    last_at: float | None
    last_size: int | None
    last_name: str | None = field(repr=False)
    state: State = field(converter=State)
    state_at: float
    due: float = field(converter=or_infinity)
    usual: int | None
    told: State = field(converter=State)
    damaged: int
    missing: int
    failed_at: float | None = None
    failed_text: str | None = field(default=None, repr=False)
    told_at: float | None = None
    drilled_at: float | None = None
    drilled_name: str | None = field(default=None, repr=False)
    drill_error: str | None = None
    restored_at: float | None = None

    @property
    def expected(self) -> bool:
        """Whether it can become late."""
        return math.isfinite(self.due)


@frozen
class Totals:
    """The totals of a bucket's files.

    :param bucket: its key
    :param last_at: time of the last push
    """

    bucket: str
    files: int = 0
    bytes: int = 0
    last_at: float | None = None
    damaged: int = 0
    missing: int = 0

    @property
    def quota_taken(self) -> int:
        """Bytes that the catalogue's files take of a quota."""
        return quota_taken(self.files, self.bytes)


@frozen
class Tally(Totals):
    """The totals of a bucket's series.

    :param due: when the first series becomes or became late; infinity is never
    :param states: number of series in each state
    """

    due: float = field(default=math.inf, converter=or_infinity)
    states: Counter[State] = field(factory=Counter)


@frozen
class Drill:
    """A restore test.

    :param file: the file that was read
    :param at: when it ended
    :param error: why it failed, as a clause; None if it passed
    """

    file: File
    at: float
    error: str | None = None


@frozen
class Drills:
    """The last restore tests of a bucket.

    :param bucket: its key
    :param since: when its first push arrived, or when the catalogue first knew the
        bucket, if that was later
    :param has_files: whether there is a file that could be restored
    :param passed_at: when a test last passed
    :param failed: number of series with files whose last test failed
    :param last: the one of these that failed last: the name of the series, when, and
        why
    """

    bucket: str
    since: float
    has_files: bool = field(converter=bool)
    passed_at: float | None = None
    failed: int = 0
    last: tuple[str, float, str] | None = None


@frozen
class HookRun:
    """How a hook ran last.

    :param bucket: the bucket's key; empty for the whole server; None for all buckets,
        since there is no such hook
    :param at: seconds since the epoch
    :param reason: why it failed; None if it did not
    :param node: name of the daemon that ran it; empty if no other shares the catalogue
    """

    hook: str
    bucket: str | None
    at: float
    reason: str | None = None
    node: str = ""


@frozen
class HookFailure:
    """A hook whose last run failed.

    :param hook: ``pre-push``, ``post-push`` or ``alert``
    :param bucket: the bucket's key; empty for the whole server
    :param since: when it first failed without a success since
    :param at: when it last failed
    :param reason: why it failed then
    """

    hook: str
    bucket: str
    since: float
    at: float
    reason: str


@frozen
class Copy:
    """How far a bucket is copied to another server.

    :param target: address of that server
    :param bucket: the bucket's key
    :param until: all files that were received before are there; None if that is not
        known of any
    :param at: when the last copy ended, in seconds since the epoch
    :param error: why not all files are there; None if they were
    :param waiting_since: when the first file was received that may not be there; None
        if there is no such file
    """

    target: str
    bucket: str
    until: float | None
    at: float
    error: str | None = None
    waiting_since: float | None = None


@frozen
class Activity:
    """What happened to the files of a bucket in a period.

    :param bucket: its key; empty for requests without a valid token
    :param pushes: pushes received
    :param received: their bytes
    :param files: change of the number of files that should exist
    :param bytes: change of their total size
    :param pruned: number of files pruned
    :param pruned_bytes: their total size
    :param refused: number of refusals, as far as they are kept
    :param since: when the bucket was first known
    """

    bucket: str
    pushes: int = 0
    received: int = 0
    files: int = 0
    bytes: int = 0
    pruned: int = 0
    pruned_bytes: int = 0
    refused: int = 0
    since: float | None = None


@frozen
class Space:
    """Free space on the home's filesystem.

    :param at: seconds since the epoch
    :param free: bytes that pushes may use
    :param total: size in bytes
    :param node: name of the daemon whose home it is; empty if no other shares the
        catalogue
    """

    at: float
    free: int
    total: int
    node: str = ""


@frozen
class Row:
    """The part of a row that is needed to check its file.

    :param id: as in :class:`File`
    :param known_at: when it was received, or last verified
    :param damaged: whether its content differed then
    """

    id: int
    name: str = field(repr=False)
    size: int
    sha256: str
    received_at: float
    known_at: float
    damaged: bool = field(converter=bool)


@frozen
class FoundFile:
    """A file that was found and read on the disk.

    :param received: as if it had been pushed when it was last written
    :param replaces: the id of the row that it replaces; None if there was none
    """

    received: Received
    replaces: int | None = None


Entered = Literal["entered", "replaced", "back", "known"]
"""The result of adding a file."""
