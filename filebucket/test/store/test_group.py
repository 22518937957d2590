"""Small files that a directory store publishes together, over a pool that the test
controls: what waits when the pool goes on is one group.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from filebucket.base.errors import Refusal
from filebucket.base.fs import directory as open_directory_of
from filebucket.base.lines import Lines
from filebucket.model.bucket import FILE_COST, FreeSpace
from filebucket.store import disk
from filebucket.store.aside import StagedFile, UnnamedFile
from filebucket.store.interfaces import NameTaken, Receipt
from filebucket.test.kit.fakes import Pool
from filebucket.test.kit.sealed import MemoryAttributes
from filebucket.test.store.contract import TOKEN, push_whole, sha256, wait_for
from filebucket.test.store.test_disk import DirectoryCase, fails


class NthFails:
    """The Nth of some calls fails with EIO, the others are real."""

    def __init__(self, real: Any, number: int) -> None:
        self._real, self._left = real, number

    def __call__(self, *args: Any, **named: Any) -> Any:
        self._left -= 1
        if not self._left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._real(*args, **named)


class GroupCase(DirectoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.pool = Pool()
        self.store = self.make(lines=Lines(self.pool, 16, self.clock))
        self.assertEqual(self.tier.tier, self.store.prepare())
        self.first = self.small("first")
        self.go_on()
        self.successResultOf(self.first)
        self.kernel.calls.clear()

    def made(self, wait: Any) -> Deferred[Any]:
        """Whatever ``wait`` waits for happens at once."""
        done = super().made(wait)
        self.go_on()
        return done

    def begin(self) -> int:
        """The next turn of the reactor; returns how many calls are made."""
        self.clock.advance(0)
        return len(self.pool.calls)

    def go_on(self) -> None:
        while self.begin():
            self.pool.go_on()

    def small(
        self,
        name: str,
        content: bytes = b"content",
        overwrite: bool = False,
        promised: Mapping[str, bytes] | None = None,
        quota: int | None = None,
        directory: str = TOKEN,
    ) -> Deferred[Receipt]:
        """A push that waits for a thread."""
        writer = self.idle_writer(name=name, quota=quota, directory=directory)

        async def push() -> Receipt:
            await writer.write([content])
            return await writer.commit(promised or {}, overwrite)

        return Deferred.fromCoroutine(push())

    def refused(self, status: int, *pushes: Deferred[Receipt]) -> None:
        for push in pushes:
            refusal: Refusal = self.failureResultOf(push, Refusal).value
            self.assertEqual(status, refusal.status, refusal.reason)
            self.assert_says_no_path(refusal.reason)

    def stored(self, *pushes: Deferred[Receipt]) -> list[Receipt]:
        return [self.successResultOf(push) for push in pushes]

    def names(self) -> set[str]:
        return set(self.published()) - {"first"}


if TYPE_CHECKING:
    AnyGroup = GroupCase
else:
    AnyGroup = object  # or the contract itself would run as a test


class GroupContract(AnyGroup):
    """On either tier."""

    def test_published(self) -> None:
        contents = {f"{number}": b"x" * number for number in range(5)}
        pushes = [self.small(name, content) for name, content in contents.items()]
        self.assertEqual(1, self.begin())
        self.go_on()
        receipts = self.stored(*pushes)
        for receipt, (name, content) in zip(receipts, contents.items(), strict=True):
            self.assertEqual(os.path.join(self.bucket, name), receipt.path)
            self.assertEqual(len(content), receipt.size)
            self.assertEqual(sha256(content), receipt.sha256)
            self.assertFalse(receipt.replaced)
        self.assertEqual({"first": b"content", **contents}, self.published())
        orders = [receipt.order for receipt in receipts]
        self.assertEqual(sorted(set(orders)), orders)
        self.assertEqual([], self.logged())

    def test_order(self) -> None:
        """Each is written, synced and linked in this order, and the folder is synced
        once, when all have their names.
        """
        self.stored_together("a", "b", "c")
        self.assertEqual(
            [
                *["writev"] * 3,
                *["advise 0 7"] * 3,
                *["fsync file"] * 3,
                *["link"] * 3,
                "fsync bucket",
            ],
            self.kernel.only("writev", "advise", "fsync", "link", "rename"),
        )
        self.assertEqual(1, self.kernel.calls.count("open directory"))
        self.assertEqual(1, self.kernel.calls.count("fstatvfs bucket"))

    def stored_together(self, *names: str) -> None:
        pushes = [self.small(name) for name in names]
        self.go_on()
        self.stored(*pushes)

    def test_alone(self) -> None:
        """Then the fsync follows at once, so nothing else starts it."""
        self.stored_together("a")
        self.assertEqual([], self.kernel.only("advise"))

    def test_other_buckets(self) -> None:
        """Only files of one bucket are a group."""
        pushes = [self.small("a"), self.small("a", directory="web01")]
        self.assertEqual(2, self.begin())
        # The first one hangs.
        self.pool.go_on(-1)
        self.stored(pushes[1])
        self.assertNoResult(pushes[0])
        self.go_on()
        self.stored(pushes[0])

    def test_a_large_file(self) -> None:
        """It has a call of its own, so the others do not wait for it."""
        large = self.idle_writer(name="large")
        self.result(large.begin(0, overwrite=False))
        commit = Deferred.fromCoroutine(wait_for(large.commit({}, overwrite=False)))
        small = self.small("small")
        self.assertEqual(2, self.begin())
        self.pool.go_on(-1)
        self.stored(small)
        self.assertNoResult(commit)
        self.go_on()
        self.stored(commit)
        self.assertEqual({"large", "small"}, self.names())

    def test_one_name_twice(self) -> None:
        """The first push gets it, also within a group."""
        pushes = [self.small("a", b"1"), self.small("a", b"2"), self.small("b")]
        self.go_on()
        self.stored(pushes[0], pushes[2])
        self.failureResultOf(pushes[1], NameTaken)
        self.assertEqual(b"1", self.published()["a"])

    def test_some_are_refused(self) -> None:
        """A refusal ends only its own push."""
        wrong = {"sha256": bytes(32)}
        pushes = {
            405: self.small("first"),
            422: self.small("wrong", promised=wrong),
            400: self.small("long" * 100),
            507: self.small("much", quota=FILE_COST),
        }
        good = [self.small("a"), self.small("b")]
        self.go_on()
        for status, push in pushes.items():
            self.refused(status, push)
        self.stored(*good)
        self.assertEqual({"a", "b"}, self.names())
        # None of the others was synced.
        self.assertEqual(2, self.kernel.calls.count("fsync file"))
        self.assertEqual(0, self.left_aside())

    def test_all_are_refused(self) -> None:
        """Then nothing is synced."""
        pushes = [self.small("first"), self.small("first")]
        self.go_on()
        self.refused(405, *pushes)
        self.assertEqual([], self.kernel.only("fsync", "link"))

    def test_one_fails(self) -> None:
        """An error of a call for one file ends only its own push."""
        aside = "open unnamed" if self.tier is UnnamedFile else "open private"
        calls = {
            aside: os.open,
            "writev": os.writev,
            "fsync file": os.fsync,
            "link": os.link,
        }
        for said, real in calls.items():
            for number in (1, 2, 3):
                self.kernel.faults = {said: NthFails(real, number)}
                names = [f"{said} {number} {each}" for each in (1, 2, 3)]
                pushes = [self.small(name) for name in names]
                self.go_on()
                failed = pushes.pop(number - 1)
                self.refused(503, failed)
                self.stored(*pushes)
                self.assertEqual(
                    {*names} - {names[number - 1]},
                    {
                        name
                        for name in self.names()
                        if name.startswith(f"{said} {number} ")
                    },
                )
                self.assertEqual(0, self.left_aside())
        self.assertEqual(
            ["request=-: disk error during commit: Input/output error"] * 12,
            self.logged(),
        )

    def test_all_fail(self) -> None:
        """An error of the folder ends all of them."""
        for said in ("open directory", "fstatvfs bucket", "fsync bucket"):
            self.kernel.faults = {said: fails(errno.EIO)}
            pushes = [self.small(name) for name in ("a", "b", "c")]
            self.go_on()
            self.refused(503, *pushes)
            self.assertEqual(set(), self.names(), said)
            self.assertEqual(0, self.left_aside())
        self.kernel.faults.clear()
        self.stored_together("a", "b", "c")

    def test_folder_not_synced(self) -> None:
        """Those that have failed before keep their own error, and no name of another
        file is taken away.
        """
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        pushes = [self.small("first", b"other"), self.small("a"), self.small("b")]
        self.go_on()
        self.refused(405, pushes[0])
        self.refused(503, *pushes[1:])
        self.assertEqual({"first": b"content"}, self.published())
        self.assertEqual(1, self.kernel.calls.count("fsync bucket"))

    def test_folder_gone(self) -> None:
        os.unlink(os.path.join(self.bucket, "first"))
        os.rmdir(self.bucket)
        self.stored_together("a", "b")
        self.assertEqual({"a", "b"}, self.names())
        self.assertEqual(["fsync home"], self.kernel.only("fsync")[:1])

    def test_folder_gone_meanwhile(self) -> None:
        def gone(*args: Any, **named: Any) -> None:
            os.unlink(os.path.join(self.bucket, "first"))
            os.rmdir(self.bucket)
            self.kernel.faults.clear()
            os.link(*args, **named)

        self.kernel.faults["link"] = gone
        pushes = [self.small("a"), self.small("b")]
        self.go_on()
        self.refused(401, *pushes)

    def test_quota(self) -> None:
        """As many files as fit, in the order in which they came."""
        quota = 4 * (FILE_COST + 7)
        pushes = [self.small(f"{number}", quota=quota) for number in range(5)]
        self.go_on()
        self.stored(*pushes[:3])
        self.refused(507, *pushes[3:])
        # What was refused took nothing for good.
        os.unlink(os.path.join(self.bucket, "0"))
        self.clock.advance(60)
        self.stored_with_quota("again", quota)

    def stored_with_quota(self, name: str, quota: int) -> None:
        push = self.small(name, quota=quota)
        self.go_on()
        self.stored(push)

    def test_free_space(self) -> None:
        """The free space is read once, and the files count together."""
        self.patch(self.store.room, "_min_free_space", FreeSpace(bytes=1000))
        found = os.statvfs(self.home)
        values = list(found[:10])
        values[1], values[4] = 1, 1000 + 20
        self.kernel.faults["fstatvfs bucket"] = lambda fd: os.statvfs_result(values)
        pushes = [self.small(name) for name in ("a", "b", "c")]
        self.go_on()
        self.stored(*pushes[:2])
        self.refused(507, pushes[2])

    def test_overwriting(self) -> None:
        """Each is replaced or new, and the last one to come stays."""
        pushes = [
            self.small("first", b"1", overwrite=True),
            self.small("new", b"2", overwrite=True),
            self.small("first", b"3", overwrite=True),
        ]
        self.go_on()
        receipts = self.stored(*pushes)
        self.assertEqual([True, False, True], [each.replaced for each in receipts])
        orders = [each.order for each in receipts]
        self.assertEqual(sorted(set(orders)), orders)
        self.assertEqual({"first": b"3", "new": b"2"}, self.published())
        self.assertEqual(["fsync bucket"], self.kernel.only("fsync")[3:])

    def test_overwriting_not_synced(self) -> None:
        """A file that replaced another one stays, a new one goes."""
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        pushes = [
            self.small("first", b"1", overwrite=True),
            self.small("new", b"2", overwrite=True),
        ]
        self.go_on()
        self.refused(503, *pushes)
        self.assertEqual({"first": b"1"}, self.published())

    def test_overwriting_sealed(self) -> None:
        """A sealed file among those to replace ends only its own push."""
        self.store.attributes = attributes = MemoryAttributes()
        attributes.mark(os.path.join(self.bucket, "first"))
        self.kernel.faults["rename"] = fails(errno.EPERM)
        pushes = [
            self.small("first", overwrite=True),
            self.small("new", overwrite=True),
        ]
        self.go_on()
        self.refused(405, pushes[0])
        self.stored(pushes[1])

    def test_locked(self) -> None:
        """Files that replace others wait for the lock, together; new ones do not."""
        self.patch(disk, "LOCK_TIMEOUT", 0.05)
        with open_directory_of(self.bucket) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            over = [self.small(f"{each}", overwrite=True) for each in range(20)]
            new = self.small("new")
            self.assertEqual(2, self.begin())
            self.pool.go_on(-1)
            self.stored(new)
            self.go_on()
        self.refused(503, *over)
        self.assertEqual({"new"}, self.names())
        self.assertEqual(0, self.left_aside())

    def test_replaced_within_a_group(self) -> None:
        """A new file that another group has replaced before its folder could be synced
        stays replaced.
        """

        def replaced(fd: int) -> None:
            self.kernel.faults.clear()
            self.stored(self.over("a", b"later"))
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.kernel.faults["fsync bucket"] = replaced
        pushes = [self.small("a"), self.small("b")]
        self.go_on()
        self.refused(503, *pushes)
        self.assertEqual({"first": b"content", "a": b"later"}, self.published())

    def over(self, name: str, content: bytes) -> Deferred[Receipt]:
        push = self.small(name, content, overwrite=True)
        self.go_on()
        return push

    def test_cancelled(self) -> None:
        """If a caller stops waiting, the file is stored all the same."""
        cancelled, other = self.small("a"), self.small("b")
        cancelled.cancel()
        self.go_on()
        self.stored(other)
        self.failureResultOf(cancelled)
        self.assertEqual({"a", "b"}, self.names())

    def test_aborted(self) -> None:
        """After a failure, an abort finds nothing to do."""
        self.kernel.faults["fsync file"] = fails(errno.EIO)
        writer = self.idle_writer(name="a")
        self.refused(503, self.made(push_whole(writer, b"a")))
        self.kernel.calls.clear()
        self.successResultOf(self.made(writer.abort()))
        self.assertEqual([], self.kernel.calls)

    def test_not_closed(self) -> None:
        """A failure to close is only logged."""
        for said in ("close bucket", "close file"):
            self.kernel.faults = {said: fails(errno.EIO, after=os.close)}
            before = len(self.logged())
            pushes = [self.small(f"{said} {each}") for each in range(2)]
            self.go_on()
            if said == "close bucket" or self.tier is UnnamedFile:
                self.stored(*pushes)
                self.assertIn("cannot delete a temporary file", self.logged()[before])
            else:
                # It is closed before it is linked: a network may report errors then.
                self.refused(503, *pushes)


class UnnamedFileGroupTests(GroupContract, GroupCase):
    """With O_TMPFILE."""

    tier = UnnamedFile


class StagedFileGroupTests(GroupContract, GroupCase):
    """With private names."""

    tier = StagedFile
