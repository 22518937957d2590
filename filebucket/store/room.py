"""How much more may be kept: what filesystems have free, and what quotas leave.

A push whose length is known has its room set aside when it begins, so that pushes
which fit one by one but not together are refused before they are sent. What was set
aside and not used is given back when the push ends, however it ends.

Everything here may wait for a disk, and is called in threads.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import Counter, defaultdict
from contextlib import suppress

from attrs import define

from filebucket.base.errors import Refusal
from filebucket.base.fs import free_bytes, total_bytes
from filebucket.model.bucket import FreeSpace


@define
class _Bucket:
    """What a bucket that has a quota takes.

    :ivar under_way: bytes of pushes that have not ended
    :ivar published: bytes of pushes that have, since it was first asked for
    """

    under_way: int = 0
    published: int = 0


class Room:
    """The room on all filesystems and in all buckets."""

    def __init__(self, min_free_space: FreeSpace) -> None:
        """
        :param min_free_space: what must stay free of each filesystem
        """
        self._min_free_space = min_free_space
        self._lock = threading.Lock()
        # Bytes that are set aside and not written yet, by filesystem.
        self._set_aside: Counter[int] = Counter()
        self._buckets: defaultdict[str, _Bucket] = defaultdict(_Bucket)

    def check(self, fd: int, size: int) -> None:
        """See whether ``size`` more bytes would fit where ``fd`` is.

        :raises Refusal: 507: they would not
        """
        found = os.fstatvfs(fd)
        with self._lock:
            self._check(found, size)

    def _check(self, found: os.statvfs_result, size: int) -> None:
        free = free_bytes(found) - self._set_aside[found.f_fsid]
        if free < size + self._min_free_space.of(total_bytes(found)):
            raise Refusal(507, "no room for that many bytes")

    def set_aside(
        self, bucket_fd: int, directory: str, size: int, quota: int | None
    ) -> Reservation:
        """Keep room for a push, until it is given back.

        :param directory: what the bucket that ``bucket_fd`` is of is called
        :param size: bytes, as far as they are known
        :param quota: bytes that the bucket may have; None is no limit
        :raises Refusal: 507: there is none
        """
        reserved = Reservation(expected=size)
        if quota is not None:
            with self._lock:
                reserved.bucket = self._buckets[directory]
                # Before what is kept is counted: better twice than not at all.
                reserved.published_before = reserved.bucket.published
            reserved.left_by_quota = quota - _kept(bucket_fd)
        # Not while others wait for the lock. What is written in between makes it no
        # more wrong than a filesystem that others write to always is.
        found = os.fstatvfs(bucket_fd)
        with self._lock:
            self._check(found, size)
            if reserved.bucket is not None:
                reserved.check_quota(size)
                reserved.bucket.under_way += size
            reserved.filesystem = found.f_fsid
            self._set_aside[reserved.filesystem] += size
        return reserved

    def take(self, reserved: Reservation, size: int) -> None:
        """``size`` bytes of the push were written.

        :raises Refusal: 507: more than the bucket's quota leaves
        """
        with self._lock:
            expected = min(size, reserved.expected)
            if reserved.bucket is not None and size > expected:
                # First, so that what is refused is not given back later.
                reserved.check_quota(size - expected)
                reserved.bucket.under_way += size - expected
            reserved.expected -= expected
            reserved.taken += size
            self._set_aside[reserved.filesystem] -= expected

    def give_back(self, reserved: Reservation, published: bool) -> None:
        """The push has ended. May be called again."""
        with self._lock:
            self._set_aside[reserved.filesystem] -= reserved.expected
            if reserved.bucket is not None:
                reserved.bucket.under_way -= reserved.taken + reserved.expected
                if published:
                    reserved.bucket.published += reserved.taken
            reserved.bucket, reserved.expected = None, 0


@define(eq=False)
class Reservation:
    """The room of one push. Only :class:`Room` changes it.

    :ivar filesystem: where it is
    :ivar expected: bytes that are set aside and not written yet
    :ivar taken: bytes that are written
    :ivar left_by_quota: bytes, when it was made, by what its bucket held
    """

    expected: int
    filesystem: int = 0
    taken: int = 0
    bucket: _Bucket | None = None
    left_by_quota: int = 0
    published_before: int = 0

    def check_quota(self, size: int) -> None:
        """See whether ``size`` more bytes are within the quota."""
        assert self.bucket is not None
        since = self.bucket.published - self.published_before
        if self.bucket.under_way + since + size > self.left_by_quota:
            raise Refusal(507, "the bucket's quota leaves no room for that many bytes")


def _kept(bucket_fd: int) -> int:
    """Bytes of a bucket's files, whoever put them there."""
    size = 0
    with os.scandir(bucket_fd) as entries:
        for entry in entries:
            # It may be taken away meanwhile.
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size
