"""How much more may be kept: what filesystems have free, and what quotas leave.

A push whose length is known has its room set aside when it begins, so that pushes to
one bucket which fit one by one but not together are refused before they are sent. What
was set aside and not used is given back when the push ends, however it ends.

To announce costs nothing, so what is only announced takes room from no other bucket.
The filesystem tells what is really written: it is asked again after every 64 MiB that
all pushes together write there. Where those of several buckets do not fit together, the
one that finds that out ends, and the others go on in the room that it leaves.

What a bucket with a quota holds is kept in memory, so that a push costs the same
however many files there are. It is counted when somebody first asks for it
(:mod:`.count`), and again from time to time, since prune and others take files away
and put them there.

What may wait for a disk is called in threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable

from attrs import define

from filebucket.base.errors import Refusal
from filebucket.base.fs import free_bytes, total_bytes
from filebucket.model.bucket import FILE_COST, FreeSpace

LOOK_EVERY = 64 * 1024 * 1024
"""Bytes that pushes write to a filesystem until it is asked again what is free."""

COUNT_EVERY = 60.0
"""Seconds until what a bucket holds is counted again, behind its pushes."""

FRESH = 10.0
"""Seconds after which it is counted again before a push is refused for it."""

SHARE = 20
"""It is not counted for more than this part of the time."""


@define
class _Bucket:
    """What a bucket takes, by bytes: of a quota each file takes :data:`FILE_COST` more.

    :ivar set_aside: what is announced and not written yet
    :ivar under_way: what pushes take of a quota that have not ended
    :ivar kept: what files take of it; None if that was never counted
    :ivar since: what was published since the last count began
    :ivar counted_at: when that began
    :ivar count_took: seconds that it took
    """

    set_aside: int = 0
    under_way: int = 0
    kept: int | None = None
    since: int = 0
    counted_at: float = 0.0
    count_took: float = 0.0


@define
class _Filesystem:
    """What pushes do to a filesystem.

    :ivar set_aside: bytes that are announced and not written yet
    :ivar written: bytes that pushes have written, since the start, or are about to
    :ivar look_at: how many there are when it is asked again what is free
    :ivar leaving: bytes of pushes that were refused and are not gone yet
    """

    set_aside: int = 0
    written: int = 0
    look_at: int = 0
    leaving: int = 0


class Room:
    """The room on all filesystems and in all buckets."""

    def __init__(
        self,
        min_free_space: FreeSpace,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param min_free_space: what must stay free of each filesystem
        """
        self._min_free_space = min_free_space
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # By the number that statvfs has for them.
        self._filesystems: defaultdict[int, _Filesystem] = defaultdict(_Filesystem)
        self._buckets: defaultdict[str, _Bucket] = defaultdict(_Bucket)

    def set_aside_on(self, filesystem: int) -> int:
        """Bytes that are announced and not written yet.

        :param filesystem: its ``f_fsid``
        """
        with self._lock:
            return self._filesystems[filesystem].set_aside

    def check(self, fd: int, directory: str, size: int) -> None:
        """See whether ``size`` more bytes of a bucket would fit where ``fd`` is.

        :param directory: what the bucket is called
        :raises Refusal: 507: they would not
        """
        left = self._left(os.fstatvfs(fd))
        with self._lock:
            _check(left, self._buckets[directory], size)

    def _left(self, found: os.statvfs_result) -> int:
        """Bytes that are free beyond those that must stay so; may be less than 0."""
        return free_bytes(found) - self._min_free_space.of(total_bytes(found))

    def set_aside(
        self, bucket_fd: int, directory: str, size: int, quota: int | None
    ) -> Reservation:
        """Keep room for a push, until it is given back.

        :param directory: what the bucket that ``bucket_fd`` is of is called
        :param size: bytes, as far as they are known
        :param quota: bytes that the bucket may have; None is no limit
        :raises Refusal: 507: there is none
        """
        # Not while others wait for the lock. What is written in between makes it no
        # more wrong than a filesystem that others write to always is.
        found = os.fstatvfs(bucket_fd)
        left = self._left(found)
        with self._lock:
            bucket = self._buckets[directory]
            _check(left, bucket, size)
            filesystem = self._filesystems[found.f_fsid]
            reserved = Reservation(bucket, filesystem, quota)
            reserved.check_quota(size + FILE_COST, size)
            bucket.under_way += FILE_COST
            reserved.change(expected=size)
        return reserved

    def take(self, reserved: Reservation, size: int, fd: int) -> None:
        """``size`` bytes of the push are about to be written.

        :param fd: of the file
        :raises Refusal: 507: more than the bucket's quota leaves, or the filesystem
        """
        filesystem = reserved.filesystem
        with self._lock:
            expected = min(size, reserved.expected)
            if size > expected:
                # First, so that what is refused is not given back later.
                reserved.check_quota(size - expected)
            reserved.change(taken=size, expected=-expected)
            filesystem.written += size
            written = filesystem.written
            if written <= filesystem.look_at:
                return
        left = self._left(os.fstatvfs(fd))
        with self._lock:
            # Of several that do not fit together not all are to end: what one leaves is
            # for the others. But it may take a disk long to let it go.
            if left + min(filesystem.leaving, LOOK_EVERY) < size:
                reserved.leaving = reserved.taken - size
                filesystem.leaving += reserved.leaving
                raise _no_space()
            filesystem.look_at = written - size + min(max(left, 0), LOOK_EVERY)

    def give_back(
        self, reserved: Reservation, published: bool, replaced: int = 0
    ) -> None:
        """The push has ended, and its file is there or gone. May be called again.

        :param replaced: what the file that it replaced took of the quota
        """
        with self._lock:
            if reserved.ended:
                return
            reserved.ended = True
            bucket = reserved.bucket
            bucket.under_way -= FILE_COST
            if published:
                # Whether a count under way has seen it, nobody knows: better twice.
                bucket.since += reserved.taken + FILE_COST
                if bucket.kept is not None:
                    bucket.kept += reserved.taken + FILE_COST - replaced
            reserved.filesystem.leaving -= reserved.leaving
            reserved.change(taken=-reserved.taken, expected=-reserved.expected)

    def is_old(self, directory: str) -> bool:
        """Whether it is time to count what a bucket holds once more."""
        with self._lock:
            return self._is_old(self._buckets[directory], COUNT_EVERY)

    def must_count(self, directory: str, size: int, quota: int) -> bool:
        """Whether what a bucket holds has to be counted before a push to it: it never
        was, or the push would be refused for what may not be so any more.

        :param size: bytes, as far as they are known
        """
        with self._lock:
            bucket = self._buckets[directory]
            if bucket.kept is None:
                return True
            taken = bucket.kept + bucket.under_way + size + FILE_COST
            return taken > quota and self._is_old(bucket, FRESH)

    def _is_old(self, bucket: _Bucket, seconds: float) -> bool:
        age = self._monotonic() - bucket.counted_at
        return age >= max(seconds, SHARE * bucket.count_took)

    def count_begins(self, directory: str) -> None:
        """Somebody counts what a bucket holds, from now on."""
        with self._lock:
            bucket = self._buckets[directory]
            bucket.since, bucket.counted_at = 0, self._monotonic()

    def counted(self, directory: str, taken: int) -> None:
        """It was counted.

        :param taken: what the files take of a quota
        """
        with self._lock:
            bucket = self._buckets[directory]
            bucket.kept = taken + bucket.since
            bucket.count_took = self._monotonic() - bucket.counted_at


def _check(left: int, bucket: _Bucket, size: int) -> None:
    if left - bucket.set_aside < size:
        raise _no_space(size)


def _no_space(size: int = 0) -> Refusal:
    """The refusal of ``size`` bytes, which are named if they are known."""
    reason = "not enough free space"
    return Refusal(507, f"{reason} for {size} bytes" if size else reason)


@define(eq=False)
class Reservation:
    """The room of one push. Only :class:`Room` changes it.

    :ivar quota: bytes that the bucket may have; None is no limit
    :ivar expected: bytes that are set aside and not written yet
    :ivar taken: bytes that are written, or about to be
    :ivar leaving: of these, what is to be gone soon, for there was no room for more
    """

    bucket: _Bucket
    filesystem: _Filesystem
    quota: int | None
    expected: int = 0
    taken: int = 0
    leaving: int = 0
    ended: bool = False

    def change(self, taken: int = 0, expected: int = 0) -> None:
        """So many bytes more are taken, or expected."""
        self.taken += taken
        self.expected += expected
        self.bucket.set_aside += expected
        self.filesystem.set_aside += expected
        self.bucket.under_way += taken + expected

    def check_quota(self, taken: int, size: int = 0) -> None:
        """Check that ``taken`` more bytes are within the quota.

        :param size: bytes of the file, for the answer; 0 if unknown
        :raises Refusal: 507: they are not
        """
        total = (self.bucket.kept or 0) + self.bucket.under_way + taken
        if self.quota is None or total <= self.quota:
            return
        if size:
            left = f"has not enough space left for {size} bytes"
            raise Refusal(507, f"the bucket's quota {left}")
        raise Refusal(507, "the bucket's quota is used up")
