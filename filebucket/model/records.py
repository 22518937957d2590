"""What the catalogue says: the values that go into it and come out of it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal, Self

from attrs import field, frozen

from filebucket.model.push import Outcome
from filebucket.model.state import State


def or_infinity(value: float | None) -> float:
    """A moment that may never come."""
    return math.inf if value is None else value


@frozen
class Received:
    """A push that was published.

    :param bucket: the bucket's key
    :param series: what it is one of
    :param size: bytes
    :param sha256: in hex
    :param received_at: seconds since the epoch
    :param seconds: from the headers' end to the outcome; None where it is not known,
        since the file was found
    :param pre_push: exit status of the hook; None where there was none
    :param post_push: the same
    :param request: the push's id; None where the file was found
    :param superseded: whether another had its name before it came to its end; only for
        what is to be entered
    :param healed: whether it is no new push: its file took the place of the one that it
        had been, which was damaged; only for what is to be entered
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
    superseded: bool = False
    healed: bool = False

    @classmethod
    def of(cls, outcome: Outcome, key: str, name: str, series: str, now: float) -> Self:
        """What became of a push that was published.

        :param key: its bucket's
        :param name: the file's
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
            superseded=outcome.superseded,
            healed=outcome.healed,
        )


@frozen
class Refused:
    """A push that was refused.

    :param bucket: the bucket's key; empty where there is none
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
        """What became of a push that was refused.

        :param key: its bucket's
        :param now: seconds since the epoch
        """
        return cls(
            bucket=key,
            at=now,
            name=outcome.name,
            size=outcome.size,
            status=outcome.status,
            reason=outcome.reason or "",
            client=outcome.client,
            request=outcome.request_id,
        )


@frozen
class File:
    """A row: a push, and what became of its file.

    :param id: what tells it from all others, for good
    :param judgement: what its size was beside that of those before it: fresh, shrunk
        or grown; or empty
    :param fate: ``kept``, ``overwritten``, ``pruned`` or ``missing``
    :param fate_at: since when, where it is not kept, or is about to be pruned
    :param verified_at: when its content was last compared with ``sha256``, or replaced
        by what has it
    :param damaged: whether it differed then
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
    """A series, and how it is.

    :param bucket: the bucket's key
    :param name: empty where the bucket's first push is waited for
    :param since: when it was first known
    :param files: how many there are
    :param bytes: how many they have in all
    :param pushes: how many there were
    :param state_at: since when it has its state
    :param due: when it is late, or was; infinity is never
    :param usual: bytes that a push has, where that is known
    :param told: the state that the operator was told last
    :param damaged: files that were found to differ
    :param missing: files that are gone, and nobody knows why
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


@frozen
class Tally:
    """What all series of a bucket come to.

    :param bucket: its key
    :param last_at: when a push came last
    :param due: when the first of them is late, or was; infinity where none ever is
    :param states: how many of them have each state
    """

    bucket: str
    files: int = 0
    bytes: int = 0
    last_at: float | None = None
    due: float = field(default=math.inf, converter=or_infinity)
    damaged: int = 0
    missing: int = 0
    states: Counter[State] = field(factory=Counter)


@frozen
class Space:
    """What the home's filesystem had free.

    :param at: seconds since the epoch
    :param free: bytes that pushes may take
    :param total: bytes of the whole
    """

    at: float
    free: int
    total: int


@frozen
class Row:
    """What is to be known of a file to see whether it is still there.

    :param id: as :class:`File` has it
    :param known_at: when it was received, or read and compared after that
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
    """A file that was found on the disk, and read.

    :param received: as if it had been pushed when it was last written
    :param replaces: the id of the row that it proves wrong; None where there was none
    """

    received: Received
    replaces: int | None = None


Entered = Literal["entered", "replaced", "back", "known"]
"""What a file was that was to be entered."""
