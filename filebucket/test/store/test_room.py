"""Tests of :mod:`filebucket.store.room`: reserved space, quotas, and their release."""

from __future__ import annotations

import os
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.model.bucket import FILE_COST, FreeSpace
from filebucket.model.filesystem import Filesystem
from filebucket.store import room
from filebucket.store.room import Reservation, Room, look_at_filesystem
from filebucket.test.kit.properties import trying

QUOTA = 1000


class Disk:
    """A filesystem for ``os.fstatvfs``.

    :ivar free: free bytes
    :ivar looks: number of calls
    """

    def __init__(self, free: int) -> None:
        self.free = free
        self.looks = 0

    def fstatvfs(self, fd: int) -> os.statvfs_result:
        self.looks += 1
        return os.statvfs_result((1, 1, 10**9, 0, self.free, 0, 0, 0, 0, 255, 7))


class FilesystemTests(SynchronousTestCase):
    """Free space and how it is shared. 100 bytes must stay free."""

    def setUp(self) -> None:
        self.patch(room, "LOOK_EVERY", 10)
        self.fill(1000)

    def fill(self, left: int) -> None:
        """Start over with this many bytes beyond those that must stay free."""
        self.room = Room(FreeSpace(bytes=100))
        self.disk = Disk(100 + left)
        self.patch(room, "os", self.disk)

    def begin(self, size: int = 0, directory: str = "bucket") -> Reservation:
        return self.room.set_aside(-1, directory, size, None)

    def write(self, push: Reservation, size: int) -> None:
        self.room.take(push, size, -1)
        self.disk.free -= size

    def leave(self, push: Reservation, written: int) -> None:
        self.disk.free += written
        self.room.give_back(push, published=False)

    def test_at_once(self) -> None:
        """Of a push that is sent on, only some bytes are on the disk at once."""
        self.fill(20)
        push = self.room.set_aside(-1, "bucket", 1000, None, "", 20)
        with self.assertRaises(Refusal):
            self.begin(1)
        for _ in range(50):
            self.write(push, 20)
            self.assertEqual(0, self.room.set_aside_on(7))
            self.disk.free += 20
            self.room.sent(push, 20)
        self.assertEqual(0, self.room.set_aside_on(7))
        self.leave(push, 0)
        self.begin(20)

    def test_at_once_is_reserved_again(self) -> None:
        """Bytes that were sent make space for the next ones of the same push."""
        self.fill(20)
        push = self.room.set_aside(-1, "bucket", 35, None, "", 20)
        reserved = [20]
        for _ in range(3):
            self.write(push, 10)
            self.disk.free += 10
            self.room.sent(push, 10)
            reserved.append(self.room.set_aside_on(7))
        self.assertEqual([20, 20, 15, 5], reserved)

    def test_more_at_once(self) -> None:
        """A push may have more on the disk if there is space, until that is sent."""
        self.fill(40)
        push = self.room.set_aside(-1, "bucket", 1000, None, "", 20)
        self.assertFalse(self.room.has_more(push, 21, -1))
        self.assertTrue(self.room.has_more(push, 10, -1))
        self.assertEqual(30, self.room.set_aside_on(7))
        self.assertFalse(self.room.has_more(push, 11, -1))
        reserved = []
        for _ in range(3):
            self.write(push, 10)
            reserved.append(self.room.set_aside_on(7))
        for _ in range(3):
            self.disk.free += 10
            self.room.sent(push, 10)
            reserved.append(self.room.set_aside_on(7))
        self.assertEqual([20, 10, 0, 0, 10, 20], reserved)
        self.leave(push, 0)
        self.assertEqual(0, self.room.set_aside_on(7))

    def test_more_than_expected(self) -> None:
        """Nothing is reserved for bytes that were not announced."""
        self.fill(40)
        push = self.room.set_aside(-1, "bucket", 15, None, "", 10)
        self.assertTrue(self.room.has_more(push, 10, -1))
        self.assertEqual(15, self.room.set_aside_on(7))

    def test_sent_bytes_do_not_leave(self) -> None:
        """A push that is refused frees only what the disk has of it."""
        self.fill(30)
        pushes = [self.begin(directory=f"{number}") for number in range(2)]
        self.write(pushes[0], 20)
        self.disk.free += 20
        self.room.sent(pushes[0], 20)
        self.write(pushes[0], 9)
        with self.assertRaises(Refusal):
            self.write(pushes[0], 30)
        with self.assertRaises(Refusal):
            self.write(pushes[1], 31)

    def test_in_memory(self) -> None:
        """A push in memory needs no space on the disk, but some of the quota."""
        self.fill(-1)
        push = self.room.set_aside_none("bucket", 9, FILE_COST + 10)
        self.room.take_in_memory(push, 9)
        self.room.take_in_memory(push, 1)
        with self.assertRaises(Refusal):
            self.room.take_in_memory(push, 1)
        with self.assertRaises(Refusal):
            self.room.set_aside_none("bucket", 0, 2 * FILE_COST + 9)
        self.room.give_back(push, published=False)
        with self.assertRaises(Refusal):
            self.room.set_aside_none("bucket", 11, FILE_COST + 10)
        self.room.set_aside_none("bucket", 10, FILE_COST + 10)

    def test_looked_at_for_all(self) -> None:
        """The free space is read for all pushes together, however many write."""
        pushes = [self.begin(directory=f"{number}") for number in range(9)]
        self.disk.looks = 0
        for push in pushes[:6]:
            self.write(push, 2)
        self.assertEqual(2, self.disk.looks)
        for push in pushes * 10:
            self.write(push, 1)
        self.assertEqual(11, self.disk.looks)

    @trying
    @given(
        st.integers(0, 60),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=40),
    )
    def test_never_less(self, left: int, writes: list[tuple[int, int]]) -> None:
        """If no other program writes there, and refused pushes delete their files, the
        required space stays free.
        """
        self.fill(left)
        pushes: dict[int, tuple[Reservation, int]] = {}
        for number, size in writes:
            push, written = pushes.get(number) or (self.begin(), 0)
            try:
                self.write(push, size)
                pushes[number] = push, written + size
            except Refusal:
                self.leave(push, written)
                pushes.pop(number, None)
            self.assertGreaterEqual(self.disk.free, 100)

    def test_announced(self) -> None:
        """Reserved space counts against the same bucket, and is reported, until it is
        written.
        """
        first = self.begin(900)
        self.assertRaises(Refusal, self.begin, 101)
        self.assertRaises(Refusal, self.room.check, -1, "bucket", 101)
        self.begin(1000, "other")
        self.room.check(-1, "other", 0)
        self.assertEqual(1900, self.room.set_aside_on(7))
        self.assertEqual(0, self.room.set_aside_on(8))
        self.write(first, 900)
        self.assertEqual(1000, self.room.set_aside_on(7))
        self.begin(100)
        self.room.give_back(first, published=True)
        self.assertEqual(1100, self.room.set_aside_on(7))

    def test_not_all_end(self) -> None:
        """Of two that do not fit together one ends, and the other gets its space."""
        self.fill(100)
        first, second = self.begin(60, "a"), self.begin(60, "b")
        for _ in range(5):
            self.write(first, 10)
            self.write(second, 10)
        self.assertRaises(Refusal, self.write, first, 10)
        # Before the first one's file is deleted.
        self.write(second, 5)
        self.leave(first, 50)
        self.write(second, 5)
        self.room.give_back(second, published=True)
        self.begin(40, "a")
        self.assertRaises(Refusal, self.begin, 41, "a")

    def test_one_that_does_not_leave(self) -> None:
        """If its file stays, the others do not get its space forever."""
        self.fill(50)
        first, second = self.begin(directory="a"), self.begin(directory="b")
        self.write(first, 50)
        self.assertRaises(Refusal, self.write, first, 1)
        self.write(second, 10)
        self.assertRaises(Refusal, self.write, second, 1)
        self.assertEqual(90, self.disk.free)


class RoomTests(SynchronousTestCase):
    """A bucket with a quota and without files. Each push is one file."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.fd = os.open(folder, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)
        self.clock = Clock()
        self.room = self.make()

    def make(self) -> Room:
        made = Room(FreeSpace(), self.clock.seconds)
        made.count_begins("bucket")
        made.counted("bucket", 0)
        return made

    def set_aside(self, size: int, files: int = 1) -> Reservation:
        quota = QUOTA + files * FILE_COST
        return self.room.set_aside(self.fd, "bucket", size, quota)

    def test_refused_is_not_given_back(self) -> None:
        """A refused size is not released when its push ends."""
        for _ in range(3):
            share = self.set_aside(0)
            self.assertRaises(Refusal, self.room.take, share, QUOTA + 1, self.fd)
            self.room.give_back(share, published=False)
        self.assertRaises(Refusal, self.set_aside, QUOTA + 1)
        self.room.give_back(self.set_aside(QUOTA), published=False)

    def test_given_back_twice(self) -> None:
        """As a writer may that failed to publish."""
        share = self.set_aside(600)
        self.room.give_back(share, published=False)
        self.room.give_back(share, published=False)
        self.set_aside(600)
        self.assertRaises(Refusal, self.set_aside, 600, files=2)
        self.set_aside(400, files=2)

    def test_published(self) -> None:
        """It counts from then on, until it is replaced."""
        share = self.set_aside(0)
        self.room.take(share, 600, self.fd)
        self.room.give_back(share, published=True)
        self.assertRaises(Refusal, self.set_aside, 401, files=2)
        share = self.set_aside(400, files=2)
        self.room.take(share, 400, self.fd)
        self.room.give_back(share, published=True, replaced=600 + FILE_COST)
        self.assertRaises(Refusal, self.set_aside, 601, files=2)
        self.set_aside(600, files=2)

    def part(self, size: int, files: int = 1) -> Reservation:
        """A request of a resumable upload."""
        quota = QUOTA + files * FILE_COST
        return self.room.set_aside(self.fd, "bucket", size, quota, "upload")

    def test_unfinished(self) -> None:
        """Its bytes count after the request, with the cost of one file."""
        for written in (100, 200, 300):
            share = self.part(0)
            self.room.take(share, 100, self.fd)
            self.room.hand_over(share, written)
            self.room.give_back(share, published=False)
            self.assertRaises(Refusal, self.set_aside, QUOTA - written + 1, files=2)
            share = self.set_aside(QUOTA - written, files=2)
            self.room.give_back(share, published=False)
        # It needs no second file.
        self.assertRaises(Refusal, self.part, QUOTA - 299)
        self.room.give_back(self.part(QUOTA - 300), published=False)

    def test_unfinished_is_published(self) -> None:
        """Then it counts as a file, and no more as an upload."""
        share = self.part(0)
        self.room.take(share, 300, self.fd)
        self.room.hand_over(share, 300)
        self.room.take(share, 100, self.fd)
        self.room.give_back(share, published=True)
        for _ in range(2):
            self.assertRaises(Refusal, self.set_aside, QUOTA - 399, files=2)
            share = self.set_aside(QUOTA - 400, files=2)
            self.room.give_back(share, published=False)
            self.room.forget_unfinished("bucket", "upload")
        # The next count finds the file.
        self.room.count_begins("bucket")
        self.room.counted("bucket", 0)
        self.room.give_back(self.set_aside(QUOTA), published=False)

    def test_unfinished_while_it_is_counted(self) -> None:
        """Uploads are not in the bucket: a count of its files finds none of them."""
        self.room.count_unfinished("bucket", "upload", 300)
        self.room.count_begins("bucket")
        self.room.counted("bucket", 0)
        self.assertRaises(Refusal, self.set_aside, QUOTA - 299, files=2)
        share = self.set_aside(QUOTA - 300, files=2)
        self.assertFalse(self.room.must_count("bucket", 0, QUOTA + 3 * FILE_COST))
        self.clock.advance(10)
        self.assertTrue(self.room.must_count("bucket", 1, QUOTA + 3 * FILE_COST))
        self.room.give_back(share, published=False)

    def test_handed_over(self) -> None:
        """Bytes of an upload count after its request; those cut off do not."""
        share = self.part(0)
        self.room.take(share, 300, self.fd)
        self.room.hand_over(share, 300)
        self.room.take(share, 600, self.fd)
        self.assertRaises(Refusal, self.set_aside, QUOTA - 899, files=2)
        self.room.give_back(share, published=False)
        self.assertRaises(Refusal, self.set_aside, QUOTA - 299, files=2)
        self.room.give_back(self.set_aside(QUOTA - 300, files=2), published=False)

    def test_counted_anew(self) -> None:
        """The last count of an upload is right, and a forgotten one takes nothing."""
        for size in (QUOTA, 100, 100):
            self.room.count_unfinished("bucket", "upload", size)
        self.room.count_unfinished("bucket", "other", 0)
        self.assertRaises(Refusal, self.set_aside, QUOTA - 99, files=3)
        self.room.give_back(self.set_aside(QUOTA - 100, files=3), published=False)
        for each in ("upload", "upload", "other"):
            self.room.forget_unfinished("bucket", each)
        self.room.give_back(self.set_aside(QUOTA), published=False)

    def test_idle_uploads_reserve_nothing(self) -> None:
        """Bytes to come are reserved only during a request."""
        share = self.part(QUOTA)
        self.assertRaises(Refusal, self.set_aside, 1, files=2)
        self.room.take(share, 100, self.fd)
        self.room.hand_over(share, 100)
        self.assertRaises(Refusal, self.set_aside, 1, files=2)
        self.room.give_back(share, published=False)
        self.room.give_back(self.set_aside(QUOTA - 100, files=2), published=False)

    def test_counted_first(self) -> None:
        """A bucket that was never counted is counted first."""
        self.assertTrue(self.room.must_count("other", 0, 2**62))
        self.room.count_begins("other")
        self.assertTrue(self.room.must_count("other", 0, 2**62))
        self.room.counted("other", 0)
        self.assertFalse(self.room.must_count("other", 0, 2**62))
        self.assertTrue(self.room.must_count("another", 0, 2**62))

    def test_counted_again(self) -> None:
        """From time to time, and before a refusal if the count is old."""
        quota = QUOTA + FILE_COST
        self.assertFalse(self.room.must_count("bucket", QUOTA + 1, quota))
        self.clock.advance(10)
        self.assertFalse(self.room.must_count("bucket", QUOTA, quota))
        self.assertTrue(self.room.must_count("bucket", QUOTA + 1, quota))
        self.assertFalse(self.room.is_old("bucket"))
        self.clock.advance(50)
        self.assertTrue(self.room.is_old("bucket"))

    def test_counted_for_long(self) -> None:
        """After a long count the next one does not begin at once."""
        self.room.count_begins("bucket")
        self.clock.advance(30)
        self.room.counted("bucket", 0)
        self.clock.advance(569)
        self.assertFalse(self.room.is_old("bucket"))
        self.assertFalse(self.room.must_count("bucket", QUOTA + 1, QUOTA))
        self.clock.advance(1)
        self.assertTrue(self.room.is_old("bucket"))
        self.assertTrue(self.room.must_count("bucket", QUOTA + 1, QUOTA))

    def test_published_while_it_is_counted(self) -> None:
        """It counts, whether or not the count has seen it."""
        share = self.set_aside(600)
        self.room.count_begins("bucket")
        self.room.take(share, 600, self.fd)
        self.room.give_back(share, published=True)
        self.room.counted("bucket", 0)
        self.assertRaises(Refusal, self.set_aside, 401, files=2)
        self.set_aside(400, files=2)

    def test_reasons(self) -> None:
        """A pipe may not fit although the quota is not used up."""
        for written, reason in (
            (QUOTA, "the bucket's quota is used up"),
            (1, "the file does not fit into the rest of the bucket's quota"),
        ):
            self.room = self.make()
            self.room.counted("bucket", 0)
            share = self.set_aside(0)
            self.room.take(share, written, self.fd)
            with self.assertRaises(Refusal) as caught:
                if written == QUOTA:
                    self.set_aside(0, files=1)
                else:
                    self.room.take(share, QUOTA, self.fd)
            self.assertEqual(reason, caught.exception.reason)

    @trying
    @given(
        st.lists(
            st.tuples(
                st.integers(0, QUOTA + 1),
                st.lists(st.integers(0, QUOTA), max_size=4),
            ),
            max_size=6,
        )
    )
    def test_as_before(self, pushes: list[tuple[int, list[int]]]) -> None:
        """However pushes arrive, grow, are refused and end: afterwards there is as much
        space as before, and never was more counted than allowed.
        """
        all_room = self.make()
        some = 3 * FILE_COST
        shares = []
        for size, written in pushes:
            try:
                share = all_room.set_aside(self.fd, "bucket", size, QUOTA + some)
            except Refusal:
                continue
            shares.append(share)
            for each in written:
                try:
                    all_room.take(share, each, self.fd)
                except Refusal:
                    break
            self.assertLessEqual(
                sum(each.taken + each.expected + FILE_COST for each in shares),
                QUOTA + some,
            )
        for share in shares:
            all_room.give_back(share, published=False)
        left = QUOTA + FILE_COST
        all_room.give_back(all_room.set_aside(self.fd, "bucket", QUOTA, left), False)
        self.assertRaises(
            Refusal, all_room.set_aside, self.fd, "bucket", QUOTA + 1, left
        )


class LookTests(SynchronousTestCase):
    def test_look(self) -> None:
        """The values of statvfs, and min_free_space."""
        found = os.statvfs(".")
        asked: list[int] = []

        def set_aside(filesystem: int) -> int:
            asked.append(filesystem)
            return 70

        disk = look_at_filesystem(".", FreeSpace(share=Fraction(1, 4)), set_aside)
        self.assertEqual([found.f_fsid], asked)
        self.assertEqual(70, disk.set_aside)
        self.assertEqual(found.f_blocks * found.f_frsize, disk.total)
        self.assertEqual(disk.total // 4, disk.reserved)
        self.assertTrue(0 < disk.free <= disk.total)
        self.assertFalse(disk.read_only)

    def test_read_only(self) -> None:
        self.patch(os, "statvfs", lambda path: _Found())
        self.assertEqual(
            Filesystem(400, 200, 7, True),
            look_at_filesystem(".", FreeSpace(bytes=7)),
        )

    def test_full_of_files(self) -> None:
        """No free inodes; 0 of 0 inodes means that they are not counted."""
        for files, free, full in ((9, 0, True), (9, 1, False), (0, 0, False)):
            found = _Found()
            found.f_files, found.f_favail = files, free
            self.patch(os, "statvfs", lambda path, found=found: found)
            seen = look_at_filesystem(".", FreeSpace())
            self.assertEqual(full, seen.full_of_files)

    def test_gone(self) -> None:
        with self.assertRaises(FileNotFoundError):
            look_at_filesystem(self.mktemp(), FreeSpace())


class _Found:
    f_blocks, f_bavail, f_frsize, f_flag = 4, 2, 100, os.ST_RDONLY
    f_files, f_favail, f_fsid = 9, 4, 1
