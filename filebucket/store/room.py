"""Free space and quotas: how much more may be stored.

A push with a declared length reserves its space when it begins: so pushes to one bucket
that would fit one by one, but not together, are refused before they are sent. When a
push ends, in whatever way, unused reserved space is released.

Declaring a length costs a client nothing, so reserved space reduces the free space only
for the same bucket. For all buckets, the free space is read from the filesystem again
after every 64 MiB that all pushes together write there. If pushes to several buckets do
not fit together, the push that finds that out ends, and the others use its space.

A push to a store on another machine has only some of its bytes on the disk at once,
until they are sent; the quota counts all of them.

The size of a bucket with a quota is kept in memory, so that the cost of a push does not
depend on the number of files. It is counted before the first push (:mod:`.count`), and
again from time to time, since prune and other programs add and remove files.

Calls that may wait for a disk are made in threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable

from attrs import define, field, frozen

from filebucket.base.errors import Refusal
from filebucket.base.fs import free_bytes, total_bytes
from filebucket.model.bucket import FILE_COST, FreeSpace
from filebucket.model.filesystem import Filesystem

LOOK_EVERY = 64 * 1024 * 1024
"""Bytes that pushes write to a filesystem until its free space is read again."""

COUNT_EVERY = 60.0
"""Seconds until a bucket is counted again, in the background of its pushes."""

FRESH = 10.0
"""Age of the count in seconds from which it is repeated before a push is refused."""

MOST = 2**63
"""More bytes than any disk has."""

SHARE = 20
"""A bucket is counted for at most 1/20 of the time."""


def look_at_filesystem(
    home: str,
    min_free_space: FreeSpace,
    set_aside: Callable[[int], int] = lambda _: 0,
) -> Filesystem:
    """Examine the filesystem of ``home``. This may block on a disk.

    :param set_aside: function from ``f_fsid`` to the bytes reserved by pushes there
    :raises OSError: the filesystem cannot be examined
    """
    found = os.statvfs(home)
    total = total_bytes(found)
    return Filesystem(
        total,
        free_bytes(found),
        min_free_space.of(total),
        bool(found.f_flag & os.ST_RDONLY),
        set_aside(found.f_fsid),
        # Some filesystems, such as Btrfs, do not count inodes.
        bool(found.f_files) and not found.f_favail,
    )


@define
class _Bucket:
    """The space that a bucket takes, in bytes. Of the quota, each file takes
    :data:`FILE_COST` more than its size.

    :ivar set_aside: reserved and not written yet
    :ivar under_way: taken of the quota by pushes in progress
    :ivar unfinished: taken of the quota by each resumable upload, by its id
    :ivar kept: taken of the quota by files; None if never counted
    :ivar since: taken by files published since the last count began
    :ivar counted_at: monotonic time when the last count began, in seconds
    :ivar count_took: duration of the last count, in seconds
    """

    set_aside: int = 0
    under_way: int = 0
    unfinished: dict[str, int] = field(factory=dict)
    kept: int | None = None
    since: int = 0
    counted_at: float = 0.0
    count_took: float = 0.0

    @property
    def taken(self) -> int:
        """Bytes of the quota that are taken now."""
        unfinished = sum(self.unfinished.values())
        return (self.kept or 0) + unfinished + self.under_way


@define
class _Filesystem:
    """The space that pushes take on a filesystem, in bytes.

    :ivar set_aside: reserved and not written yet
    :ivar written: written by pushes since the start, or about to be
    :ivar look_at: value of ``written`` at which the free space is read again
    :ivar leaving: written by refused pushes, and not deleted yet
    """

    set_aside: int = 0
    written: int = 0
    look_at: int = 0
    leaving: int = 0


@frozen
class Free:
    """The free space of a filesystem.

    :param filesystem: its ``f_fsid``
    :param left: bytes beyond those that must stay free; may be negative
    """

    filesystem: int
    left: int


class Room:
    """The free space of all filesystems, and the quotas of all buckets."""

    def __init__(
        self,
        min_free_space: FreeSpace,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param min_free_space: free space that pushes must leave on each filesystem
        :param monotonic: returns monotonic seconds
        """
        self._min_free_space = min_free_space
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # By f_fsid of statvfs.
        self._filesystems: defaultdict[int, _Filesystem] = defaultdict(_Filesystem)
        self._buckets: defaultdict[str, _Bucket] = defaultdict(_Bucket)

    def set_aside_on(self, filesystem: int) -> int:
        """Bytes that are reserved and not written yet.

        :param filesystem: the filesystem's ``f_fsid``
        """
        with self._lock:
            return self._filesystems[filesystem].set_aside

    def check(self, fd: int, directory: str, size: int, at_once: int = MOST) -> None:
        """Check that a bucket has enough free space for ``size`` more bytes.

        :param fd: a descriptor on the filesystem
        :param directory: name of the bucket's folder
        :param at_once: bytes that are on the disk at once, at most
        :raises Refusal: 507: not enough free space
        """
        left = self._left(os.fstatvfs(fd))
        with self._lock:
            _check(left, self._buckets[directory], min(size, at_once))

    def look(self, fd: int) -> Free:
        """Read the free space, for several pushes that begin now.

        :param fd: a descriptor on the filesystem
        """
        found = os.fstatvfs(fd)
        return Free(found.f_fsid, self._left(found))

    def _left(self, found: os.statvfs_result) -> int:
        """Free bytes beyond those that must stay free; may be negative."""
        return free_bytes(found) - self._min_free_space.of(total_bytes(found))

    def set_aside(
        self,
        bucket_fd: int,
        directory: str,
        size: int,
        quota: int | None,
        upload: str = "",
        at_once: int = MOST,
        free: Free | None = None,
    ) -> Reservation:
        """Reserve space for a push, until :meth:`give_back`.

        :param bucket_fd: descriptor of the bucket's folder
        :param directory: name of the bucket's folder
        :param size: bytes, as far as known
        :param quota: the bucket's quota in bytes; None is unlimited
        :param upload: id of the resumable upload that it continues, if any
        :param at_once: bytes of it that are on the disk at once, at most
        :param free: what :meth:`look` has just found; None looks now
        :raises Refusal: 507: not enough free space
        """
        # Read without the lock, for which other pushes may wait. Writes in between
        # make it slightly wrong, but other programs may write at any time anyway.
        free = free or self.look(bucket_fd)
        with self._lock:
            bucket = self._buckets[directory]
            aside = min(size, at_once)
            _check(free.left, bucket, aside)
            filesystem = self._filesystems[free.filesystem]
            return self._reserved(bucket, filesystem, size, quota, upload, aside)

    def set_aside_none(
        self, directory: str, size: int, quota: int | None
    ) -> Reservation:
        """Reserve only the quota for a push that is in memory, until
        :meth:`give_back`.

        :param size: all its bytes
        :raises Refusal: 507: they are not within the quota
        """
        with self._lock:
            bucket = self._buckets[directory]
            return self._reserved(bucket, _Filesystem(), size, quota, "", 0)

    def _reserved(
        self,
        bucket: _Bucket,
        filesystem: _Filesystem,
        size: int,
        quota: int | None,
        upload: str,
        aside: int,
    ) -> Reservation:
        cost = 0 if upload in bucket.unfinished else FILE_COST
        reserved = Reservation(bucket, filesystem, quota, upload, cost)
        reserved.check_quota(size + cost, size)
        bucket.under_way += cost
        reserved.change(expected=size, aside=aside)
        return reserved

    def take(self, reserved: Reservation, size: int, fd: int) -> None:
        """Take space for ``size`` bytes of the push, which are about to be written.

        :param fd: descriptor of the file
        :raises Refusal: 507: not enough free space, or they do not fit into the rest of
            the quota
        """
        filesystem = reserved.filesystem
        with self._lock:
            expected = min(size, reserved.expected)
            if size > expected:
                # Checked first, so that a refused size is not released later.
                reserved.check_quota(size - expected, begun=True)
            aside = min(size, reserved.aside)
            reserved.change(taken=size, expected=-expected, aside=-aside)
            filesystem.written += size
            written = filesystem.written
            if written <= filesystem.look_at:
                return
        left = self._left(os.fstatvfs(fd))
        with self._lock:
            # Of several pushes that do not fit together, not all should end: the others
            # can use the space of the first. But deleting its file may take long.
            if left + min(filesystem.leaving, LOOK_EVERY) < size:
                reserved.leaving = reserved.taken - reserved.gone - size
                filesystem.leaving += reserved.leaving
                raise _no_space()
            filesystem.look_at = written - size + min(max(left, 0), LOOK_EVERY)

    def take_in_memory(self, reserved: Reservation, size: int) -> None:
        """Take ``size`` bytes of the quota for a push that is in memory.

        :raises Refusal: 507: they do not fit into the rest of the quota
        """
        with self._lock:
            expected = min(size, reserved.expected)
            if size > expected:
                reserved.check_quota(size - expected, begun=True)
            reserved.change(taken=size, expected=-expected)

    def has_more(self, reserved: Reservation, size: int, fd: int) -> bool:
        """Let a push have more bytes on the disk at once, if there is space for them.

        :param size: number of these bytes; :meth:`sent` gives them back
        :param fd: descriptor of the file
        :returns: whether there is space
        """
        left = self._left(os.fstatvfs(fd))
        with self._lock:
            if left - reserved.bucket.set_aside < size:
                return False
            reserved.more += size
            reserved.set_aside(size)
            return True

    def sent(self, reserved: Reservation, size: int) -> None:
        """Record that the disk does not have some bytes of the push any more, which
        another machine has now. The next bytes can take their place, except those that
        the push had in addition.

        :param size: number of these bytes
        """
        with self._lock:
            reserved.gone += size
            more = min(size, reserved.more)
            reserved.more -= more
            reserved.set_aside(size - more)

    def hand_over(self, reserved: Reservation, size: int) -> None:
        """Count what the push has written as part of its resumable upload.

        :param size: bytes that the upload has now
        """
        with self._lock:
            bucket = reserved.bucket
            bucket.unfinished[reserved.upload] = size + FILE_COST
            bucket.under_way -= reserved.cost
            reserved.cost = 0
            reserved.change(taken=-reserved.taken)

    def count_unfinished(self, directory: str, upload: str, size: int) -> None:
        """Count a resumable upload, instead of what was counted of it before.

        :param directory: name of the bucket's folder
        :param upload: its id
        :param size: bytes that it has
        """
        with self._lock:
            self._buckets[directory].unfinished[upload] = size + FILE_COST

    def forget_unfinished(self, directory: str, upload: str) -> None:
        """Count a resumable upload no more. A second call does nothing."""
        with self._lock:
            self._buckets[directory].unfinished.pop(upload, None)

    def give_back(
        self, reserved: Reservation, published: bool, replaced: int = 0
    ) -> None:
        """Release a reservation, after the push has ended and its file is published or
        deleted. A second call does nothing.

        :param replaced: bytes of the quota that the replaced file took
        """
        with self._lock:
            if reserved.ended:
                return
            reserved.ended = True
            bucket = reserved.bucket
            bucket.under_way -= reserved.cost
            if published:
                # A count in progress may or may not include it: better count it twice.
                taken = bucket.unfinished.pop(reserved.upload, 0)
                taken += reserved.taken + reserved.cost
                bucket.since += taken
                if bucket.kept is not None:
                    bucket.kept += taken - replaced
            reserved.filesystem.leaving -= reserved.leaving
            reserved.change(-reserved.taken, -reserved.expected, -reserved.aside)

    def is_old(self, directory: str) -> bool:
        """Whether it is time to count a bucket again."""
        with self._lock:
            return self._is_old(self._buckets[directory], COUNT_EVERY)

    def must_count(self, directory: str, size: int, quota: int) -> bool:
        """Whether a bucket must be counted before a push to it: it never was, or an old
        count would refuse the push.

        :param size: bytes of the push, as far as known
        :param quota: the bucket's quota in bytes
        """
        with self._lock:
            bucket = self._buckets[directory]
            if bucket.kept is None:
                return True
            taken = bucket.taken + size + FILE_COST
            return taken > quota and self._is_old(bucket, FRESH)

    def _is_old(self, bucket: _Bucket, seconds: float) -> bool:
        age = self._monotonic() - bucket.counted_at
        return age >= max(seconds, SHARE * bucket.count_took)

    def count_begins(self, directory: str) -> None:
        """Record that a count of a bucket begins."""
        with self._lock:
            bucket = self._buckets[directory]
            bucket.since, bucket.counted_at = 0, self._monotonic()

    def counted(self, directory: str, taken: int) -> None:
        """Record the result of a count.

        :param taken: bytes of the quota that the files take
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
    """The space of one push. Only :class:`Room` changes it.

    :ivar quota: the bucket's quota in bytes; None is unlimited
    :ivar upload: id of the resumable upload that it continues, if any
    :ivar cost: of the quota, besides the bytes
    :ivar expected: bytes that are reserved and not written yet
    :ivar aside: those of them that are reserved on the disk
    :ivar more: bytes that it may have on the disk at once in addition
    :ivar taken: bytes that are written, or about to be
    :ivar gone: those of ``taken`` that the disk does not have any more
    :ivar leaving: those of ``taken`` that will be deleted soon, since the push was
        refused
    """

    bucket: _Bucket
    filesystem: _Filesystem
    quota: int | None
    upload: str
    cost: int
    expected: int = 0
    aside: int = 0
    more: int = 0
    taken: int = 0
    gone: int = 0
    leaving: int = 0
    ended: bool = False

    def change(self, taken: int = 0, expected: int = 0, aside: int = 0) -> None:
        """Add to the bytes that are taken, expected and set aside."""
        self.taken += taken
        self.expected += expected
        self.aside += aside
        self.bucket.set_aside += aside
        self.filesystem.set_aside += aside
        self.bucket.under_way += taken + expected

    def set_aside(self, size: int) -> None:
        """Set up to ``size`` more of the expected bytes aside."""
        self.change(aside=max(min(size, self.expected - self.aside), 0))

    def check_quota(self, taken: int, size: int = 0, begun: bool = False) -> None:
        """Check that ``taken`` more bytes are within the quota.

        :param size: bytes of the file, for the answer; 0 if unknown
        :param begun: whether a part of the file was already received
        :raises Refusal: 507: they are not
        """
        if self.quota is None or self.bucket.taken + taken <= self.quota:
            return
        if size:
            left = f"has not enough space left for {size} bytes"
            raise Refusal(507, f"the bucket's quota {left}")
        if begun:
            reason = "the file does not fit into the rest of the bucket's quota"
            raise Refusal(507, reason)
        raise Refusal(507, "the bucket's quota is used up")
