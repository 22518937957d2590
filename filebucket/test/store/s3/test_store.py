"""Tests of the store in an object store."""

from __future__ import annotations

from filebucket.model.bucket import FILE_COST
from filebucket.store import local
from filebucket.test.store.contract import StoreContract
from filebucket.test.store.s3.case import S3Case


class ReplacingCase(S3Case):
    """Data that was published is not an orphan: prune deletes it."""

    def setUp(self) -> None:
        super().setUp()
        self.once: set[str] = set()
        self.names.before = self.note

    def note(self, call: str) -> None:
        if self.names.objects and call.startswith("put "):
            self.once |= self.data.objects.keys()

    def replaced(self) -> set[str]:
        return self.once


class S3Contract(StoreContract, ReplacingCase):
    """What differs in an object store."""

    def test_quota_of_what_is_replaced(self) -> None:
        """A file counts until it is swept."""
        quota = 2 * FILE_COST + 10
        for size in (2, 8):
            writer = self.idle_writer(quota=quota)
            self.result(writer.begin(size, overwrite=True))
            self.result(writer.write([bytes(size)]))
            self.result(writer.commit({}, overwrite=True))
        writer = self.idle_writer(quota=quota)
        self.assert_refused(507, writer.begin(0, overwrite=True))


class SmallTests(S3Contract):
    """Files in memory."""


class OnDiskTests(S3Contract):
    """Files that gather on the disk."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(local, "BATCH", 1)


del S3Contract
