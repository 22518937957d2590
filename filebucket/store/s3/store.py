"""Stores files in an object store with the S3 API.

A file is published by its record, and only then: see :mod:`.publish` and
:mod:`.writer`.
"""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import implementer

from filebucket.model.push import Kept
from filebucket.store.interfaces import IDaemonStore
from filebucket.store.s3.access import S3Access
from filebucket.store.s3.interfaces import NotThereError, ObjectError
from filebucket.store.s3.writer import S3Writer, check_size, part_size


@implementer(IDaemonStore)
class S3Store(S3Access):
    """Stores files in two S3 buckets."""

    async def check_room(self, directory: str, size: int) -> None:
        self.home.check_moves(directory)
        check_size(size)
        at_once = 2 * part_size(self.part_size, size, 0)
        check = self.room.check
        await self.home.run(directory, check, self.home.fd, directory, size, at_once)

    async def recorded(self, directory: str, name: str) -> Kept | None:
        record = await self.settled(directory, name)
        return None if record is None else Kept(record.size, record.sha256)

    async def confirm(self, directory: str, name: str, size: int, sha256: str) -> bool:
        try:
            record = await self._names.find(directory, name)
            if record is None or (record.size, record.sha256) != (size, sha256):
                return False
            return await self.size(record.data) == size
        except NotThereError:
            return False
        except ObjectError as error:
            raise self.refusal(error, "confirm") from None

    def open(
        self,
        directory: str,
        name: str,
        algorithms: Collection[str],
        quota: int | None,
    ) -> S3Writer:
        return S3Writer(self, directory, name, algorithms, quota)
