"""What a bucket is, whoever wrote it down."""

from __future__ import annotations

import re
from fractions import Fraction

from attrs import field, frozen

from filebucket.model.client import Networks
from filebucket.model.schedule import Expectation
from filebucket.model.token import Token


@frozen
class Keep:
    """How many files of a series are kept, as restic's forget counts them.

    :param last: the newest ones
    :param daily: the newest one of a day, for so many days that have any; and so on
    """

    last: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None


FILE_COST = 4096
"""Bytes that a file takes of its bucket's quota beside its size: its last block may be
all but empty, and its name and inode are somewhere, too."""


def quota_taken(files: int, size: int) -> int:
    """Bytes that files take of a quota.

    :param size: of all of them, in bytes
    """
    return size + files * FILE_COST


SHRINK_ALERT = 0.5
HOLD = 7 * 24 * 3600.0


@frozen
class Bucket:
    """One bucket.

    :param tokens: what opens it; one at least
    :param directory: its folder under the home; its token where it has no
        name, so this must never be logged (:attr:`label` may)
    :param name: what the operator calls it, if anything
    :param max_file_size: bytes that a file may have; None: as all buckets have it
    :param min_file_size: bytes that a file must have; None: as all buckets have it
    :param quota: bytes that all its files together may have; None is no limit
    :param allow_from: networks that its clients may be in; None is anywhere
    :param overwrite: whether a push may replace a file
    :param series: patterns, as shells have them, of the names that recur in it; empty
        where names tell by themselves
    :param expect: when a push of each series is due; None is never
    :param shrink_alert: what is smaller than this share of what came before is
        suspicious
    :param grow_alert: and so is what is larger than so many times that; None is never
    :param keep: what is not to be pruned; None is everything
    :param hold: seconds that everything is kept
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

    @property
    def label(self) -> str:
        """What logs call this bucket."""
        return label_of(self.key)

    @property
    def key(self) -> str:
        """What tells this bucket from all others, and holds no token."""
        return self.name or f"#{self.tokens[0].sha256.hex()}"


def label_of(key: str) -> str:
    """The label of the bucket that has that :attr:`~Bucket.key`."""
    return key[:_LABEL_LENGTH] if _NAMELESS.fullmatch(key) else key


_NAMELESS = re.compile("#[0-9a-f]{64}")
_LABEL_LENGTH = 7


@frozen
class FreeSpace:
    """How much of a filesystem must stay free.

    :param bytes: so many bytes at least
    :param share: and so much of its size
    """

    bytes: int = 0
    share: Fraction = Fraction(0)

    def of(self, size: int) -> int:
        """Bytes, of a filesystem of ``size`` bytes."""
        return max(self.bytes, int(self.share * size))
