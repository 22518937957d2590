"""A store in an object store in memory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent

from filebucket.model.bucket import FreeSpace
from filebucket.store.home import Home
from filebucket.store.interfaces import Receipt
from filebucket.store.room import Reservation, Room
from filebucket.store.s3.publish import PAUSE
from filebucket.store.s3.records import Keys, Record
from filebucket.store.s3.store import S3Store
from filebucket.test.kit.descriptors import open_descriptors
from filebucket.test.kit.fakes import LinesAtOnce
from filebucket.test.kit.objects import MemoryObjects
from filebucket.test.store.contract import NAME, TOKEN, StoreCase

T = TypeVar("T")

PREFIX = "prefix/"
PART = 100
"""Bytes of a part; S3 has a least size, but not the store in memory."""

NOW = 1_700_000_000.0

HOURS = 2 * 3600


class CountingRoom(Room):
    """Counts the reservations.

    :ivar open: those that were not given back
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.open: list[Reservation] = []

    def set_aside(self, *args: Any) -> Reservation:
        reserved = super().set_aside(*args)
        self.open.append(reserved)
        return reserved

    def set_aside_none(self, *args: Any) -> Reservation:
        reserved = super().set_aside_none(*args)
        self.open.append(reserved)
        return reserved

    def give_back(self, reserved: Reservation, *args: Any) -> None:
        self.open.remove(reserved)
        super().give_back(reserved, *args)


class S3Case(StoreCase):
    """Has a store in an object store in memory, and its own home."""

    store: S3Store
    no_room = 413

    def setUp(self) -> None:
        super().setUp()
        self.home = os.path.abspath(self.mktemp())
        self.events: Sequence[LogEvent] = self.enterContext(capturedLogs())
        self.clock = Clock()
        self.names, self.data = MemoryObjects(), MemoryObjects()
        self.keys = Keys(PREFIX)
        self.room = CountingRoom(FreeSpace(bytes=0), self.clock.seconds)
        self.lines = LinesAtOnce()
        self.store = S3Store(
            Home(self.home, self.lines),
            self.room,
            self.names,
            self.data,
            self.keys,
            "data-bucket",
            PART,
            self.clock,
            lambda: NOW,
            lambda: "checked",
        )
        self.addCleanup(self.store.close)
        self.assertEqual("checked", self.store.prepare())
        self.descriptors = open_descriptors()

    def tearDown(self) -> None:
        super().tearDown()
        self.assertEqual(set(), open_descriptors() - self.descriptors)
        self.assertEqual([], os.listdir(f"{self.home}/.filebucket/incoming"))
        for line in self.logged():
            self.assertNotIn(NAME, line)
            self.assert_says_no_path(line)

    def logged(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def made(self, wait: Awaitable[T]) -> Deferred[T]:
        done = super().made(wait)
        for _ in range(int(HOURS / PAUSE)):
            if done.called:
                break
            self.clock.advance(PAUSE)
        return done

    def record(self, name: str = NAME) -> Record:
        """The record of a published file."""
        text = self.names.objects[self.keys.name(TOKEN, name)]
        return Record.of(text, self.keys, TOKEN, name)

    def published(self) -> dict[str, bytes]:
        start = self.keys.names(TOKEN)
        names = [each.removeprefix(start) for each in self.names.objects]
        return {
            name: self.data.objects[self.record(name).data]
            for name in names
            if not name.startswith(PREFIX)
        }

    def orphans(self) -> set[str]:
        """Keys of data without a record, and ids of multipart uploads."""
        start = self.keys.names(TOKEN)[: -len(TOKEN) - 1]
        used = set()
        for key, text in self.names.objects.items():
            if key.startswith(start):
                directory, name = key.removeprefix(start).split("/")
                used.add(Record.of(text, self.keys, directory, name).data)
        return (self.data.objects.keys() - used) | self.data.uploads.keys()

    def left_aside(self) -> int:
        return len(self.room.open) or len(self.orphans() - self.replaced())

    def replaced(self) -> set[str]:
        """Keys of data that was published once."""
        return set()

    def assert_path(self, receipt: Receipt) -> None:
        self.assertEqual(self.record().data, receipt.path)
        self.assertEqual(f"s3://data-bucket/{receipt.path}", receipt.url)
