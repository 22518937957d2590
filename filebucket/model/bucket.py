"""Buckets and their settings."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import cached_property

from attrs import field, frozen

from filebucket.model.client import Networks
from filebucket.model.schedule import Expectation
from filebucket.model.token import Token


@frozen
class Keep:
    """How many files of a series are kept, counted as restic's forget does.

    :param last: the newest N files
    :param daily: the newest file of each of the last N days that have a file; the
        others are alike
    """

    last: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None


FILE_COST = 4096
"""Bytes of the quota that a file takes in addition to its size, for its inode, its name
and its partly filled last block."""


def quota_taken(files: int, size: int) -> int:
    """Bytes that files take of a quota.

    :param size: their total size, in bytes
    """
    return size + files * FILE_COST


@frozen
class Pause:
    """A time in which no push is expected.

    :param until: its end, in seconds since the epoch
    :param reason: why, in one line
    """

    until: float
    reason: str


@frozen
class Held:
    """A file that is neither pruned nor replaced before a time.

    :param name: its name, which may contain a token
    :param until: the end, in seconds since the epoch
    :param reason: why, in one line
    """

    name: str = field(repr=False)
    until: float
    reason: str


SHRINK_ALERT = 0.5
HOLD = 7 * 24 * 3600.0


@frozen
class Bucket:
    """One bucket.

    :param tokens: tokens that open it; at least one
    :param directory: its folder in the home; its token if it has no name, so
        this must never be logged (:attr:`label` may)
    :param name: its name, if it has one
    :param max_file_size: limit for a single file, in bytes; None: the global limit
    :param min_file_size: smallest size of a file, in bytes; None: the global limit
    :param quota: limit for all its files together, in bytes; None is unlimited
    :param allow_from: networks from which clients may push; None is any
    :param overwrite: whether a push may replace a file
    :param series: shell patterns that group names into series; empty if digits do
    :param expect: when a push of each series is due; None is never
    :param shrink_alert: a push smaller than this share of the usual size is
        suspicious
    :param grow_alert: a push larger than this multiple of it is, too; None is never
    :param keep: retention rules; None keeps everything
    :param hold: seconds for which each file is kept
    :param drill: seconds within which a restore test must pass; None is never
    :param comment: one line that alerts and the status show; may be empty
    :param paused: a time in which it is not late; None if there is none
    :param retired: whether it accepts no more pushes
    :param held: files that are neither pruned nor replaced
    """

    tokens: tuple[Token, ...]
    directory: str = field(repr=False)
    name: str | None = None
    max_file_size: int | None = None
    min_file_size: int | None = None
    quota: int | None = None
    allow_from: Networks | None = None
    overwrite: bool = False
    series: tuple[str, ...] = field(default=(), repr=False)
    expect: Expectation | None = None
    shrink_alert: float = SHRINK_ALERT
    grow_alert: float | None = None
    keep: Keep | None = None
    hold: float = HOLD
    drill: float | None = None
    comment: str = ""
    paused: Pause | None = None
    retired: bool = False
    held: tuple[Held, ...] = ()

    @cached_property
    def label(self) -> str:
        """The name of this bucket in logs."""
        return label_of(self.key)

    @cached_property
    def key(self) -> str:
        """A unique key of this bucket, without a token."""
        return self.name or f"#{self.tokens[0].sha256.hex()}"

    def held_now(self, name: str, now: float) -> Held | None:
        """Why a file must neither be pruned nor replaced; None if it may be.

        :param now: seconds since the epoch
        """
        found = self._held_by_name.get(name)
        return None if found is None or found.until <= now else found

    def may_hold(self, name: str, now: float) -> bool:
        """Whether a push must not replace what is stored under a name. Some filesystems
        do not distinguish upper and lower case, nor the forms of Unicode.

        :param now: seconds since the epoch
        """
        folded = _folded(name)
        return any(
            each.until > now and _folded(each.name) == folded for each in self.held
        )

    @cached_property
    def _held_by_name(self) -> dict[str, Held]:
        return {each.name: each for each in self.held}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def label_of(key: str) -> str:
    """The label of the bucket with this :attr:`~Bucket.key`."""
    return key[:_LABEL_LENGTH] if _NAMELESS.fullmatch(key) else key


_NAMELESS = re.compile("#[0-9a-f]{64}")
_LABEL_LENGTH = 7


@frozen
class FreeSpace:
    """How much of a filesystem must stay free.

    :param bytes: at least this number of bytes
    :param share: and at least this share of its size
    """

    bytes: int = 0
    share: Fraction = Fraction(0)

    def of(self, size: int) -> int:
        """Bytes that must stay free on a filesystem of ``size`` bytes."""
        return max(self.bytes, int(self.share * size))
