"""What is set aside, what a quota leaves, and that all of it is given back."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.model.bucket import FreeSpace
from filebucket.store.room import Reservation, Room
from filebucket.test.kit.properties import trying

QUOTA = 1000


class RoomTests(SynchronousTestCase):
    """Of one bucket that has a quota, and no files."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.fd = os.open(folder, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)
        self.room = Room(FreeSpace())

    def set_aside(self, size: int) -> Reservation:
        return self.room.set_aside(self.fd, "bucket", size, QUOTA)

    def test_refused_is_not_given_back(self) -> None:
        """What was never counted leaves no room for others when its push ends."""
        for _ in range(3):
            share = self.set_aside(0)
            self.assertRaises(Refusal, self.room.take, share, QUOTA + 1)
            self.room.give_back(share, published=False)
        self.assertRaises(Refusal, self.set_aside, QUOTA + 1)
        self.room.give_back(self.set_aside(QUOTA), published=False)

    def test_given_back_twice(self) -> None:
        """As a writer may that failed to publish."""
        share = self.set_aside(600)
        self.room.give_back(share, published=False)
        self.room.give_back(share, published=False)
        self.set_aside(600)
        self.assertRaises(Refusal, self.set_aside, 600)

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
        """However pushes come, grow, are refused and leave: then there is as much room
        as before them, and never were more bytes counted in than there may be.
        """
        room = Room(FreeSpace())
        shares = []
        for size, written in pushes:
            try:
                share = room.set_aside(self.fd, "bucket", size, QUOTA)
            except Refusal:
                continue
            shares.append(share)
            for each in written:
                try:
                    room.take(share, each)
                except Refusal:
                    break
            self.assertLessEqual(
                sum(each.taken + each.expected for each in shares), QUOTA
            )
        for share in shares:
            room.give_back(share, published=False)
        room.give_back(room.set_aside(self.fd, "bucket", QUOTA, QUOTA), False)
        self.assertRaises(Refusal, room.set_aside, self.fd, "bucket", QUOTA + 1, QUOTA)
