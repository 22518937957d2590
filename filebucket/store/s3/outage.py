"""Notices that an object store cannot be used, though no push comes.

One object of each S3 bucket is read at each look. That does not show that objects can
be written, which would leave one more version of an object each time. So a small object
is written only if something has failed before, and until that works.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from attrs import define
from twisted.internet.interfaces import IReactorTime

from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    IObjects,
    NotThereError,
    ObjectError,
)
from filebucket.store.s3.publish import Deadline
from filebucket.store.s3.records import MOST_RECORD, Keys

LOOK = 20.0
"""Seconds in which the store must answer. Calls are repeated within them: a gateway
that restarts is no outage."""


@define
class Outages:
    """Looks whether the store can be used.

    :ivar names: the S3 bucket of the records
    :ivar data: that of the data
    """

    names: IObjects
    data: IObjects
    keys: Keys
    clock: IReactorTime
    _suspected: bool = False

    def suspect(self) -> None:
        """A call of a push has failed."""
        self._suspected = True

    async def find(self) -> str | None:
        """Why the store cannot be used; None if it can."""
        suspected, self._suspected = self._suspected, False
        deadline = Deadline(self.clock, LOOK)
        try:
            for each in (self.names, self.data):
                with suppress(NotThereError):
                    await deadline.surely(partial(self._read, each))
            if suspected:
                with suppress(AlreadyThereError):
                    await deadline.surely(self._create)
                await deadline.surely(self._write)
        except ObjectError as error:
            self._suspected = True
            return str(error)
        return None

    async def _read(self, bucket: IObjects) -> None:
        await bucket.get(self.keys.probe("condition"), MOST_RECORD)

    async def _create(self) -> None:
        body = MemoryBody.of(b"again")
        await self.names.put(self.keys.probe("condition"), body, only_new=True)

    async def _write(self) -> None:
        await self.data.put(self.keys.probe("outage"), MemoryBody.of(b"over"))
