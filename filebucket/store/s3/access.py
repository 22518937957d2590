"""Access to the S3 buckets of a store, for everything that stores files in them.

Errors of the object store are logged without keys, and are a 503 for the client: an
error of the operator, such as a missing right, is none of the client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.base.context import current_request
from filebucket.base.errors import Refusal
from filebucket.base.places import Places
from filebucket.model.bucket import FILE_COST
from filebucket.store.count import Counts
from filebucket.store.home import Home
from filebucket.store.room import Room
from filebucket.store.s3.interfaces import (
    FullError,
    IBody,
    IObjects,
    ObjectError,
)
from filebucket.store.s3.outage import Outages
from filebucket.store.s3.publish import SETTLE, Deadline, Names, Published
from filebucket.store.s3.records import Keys, Record

T = TypeVar("T")

SENT_AT_ONCE = 48
"""Parts that are sent at once. The client makes 64 calls to an S3 bucket at once, so
others do not wait behind parts."""


class S3Access:
    """Two S3 buckets, with the home and the quotas.

    :ivar data: the S3 bucket for the data of files
    :ivar keys: the keys of both
    :ivar part_size: bytes of a part of a large file
    :ivar places: for parts that are sent
    :ivar wall: returns seconds since the epoch
    """

    _log = Logger()

    def __init__(
        self,
        home: Home,
        room: Room,
        names: IObjects,
        data: IObjects,
        keys: Keys,
        data_bucket: str,
        part_size: int,
        clock: IReactorTime,
        wall: Callable[[], float],
        check: Callable[[], str],
    ) -> None:
        """
        :param room: free space of the home, and quotas
        :param names: the S3 bucket for records
        :param data_bucket: name of the S3 bucket for data
        :param check: checks at the start that the object store can be used, and raises
            ConfigError if not; returns how it is, for the log. Blocks
        """
        self.home = home
        self.room = room
        self.data = data
        self.keys = keys
        self.part_size = part_size
        self.clock = clock
        self.wall = wall
        self.counts = Counts(room, self._count)
        self.places = Places(SENT_AT_ONCE)
        self._names = Names(names, keys, clock)
        self._outages = Outages(names, data, keys, clock)
        self._data_bucket = data_bucket
        self._check = check

    def prepare(self) -> str:
        self.home.prepare()
        return self._check()

    def close(self) -> None:
        self.home.close()

    async def find_outage(self) -> str | None:
        return await self._outages.find()

    def url(self, key: str) -> str:
        """The address of data, for hooks."""
        return f"s3://{self._data_bucket}/{key}"

    async def find(self, directory: str, name: str) -> Record | None:
        """The record of a file, if one is published under its name.

        :raises Refusal: the object store does not tell
        """
        return await self.asked("name", self._names.find(directory, name))

    async def settled(self, directory: str, name: str) -> Record | None:
        """As :meth:`find`, but not a record that a prune in progress may delete.

        :raises Refusal: the object store does not tell, or prune does not end
        """
        return await self.asked("name", self._names.settled(directory, name))

    def order(self) -> int:
        """The order of a file that is published already, as :class:`Published`."""
        return self._names.order()

    async def is_free(self, directory: str, name: str) -> bool:
        """Whether nothing is published under a name.

        :raises Refusal: the object store does not tell
        """
        return await self.asked("name", self._names.is_free(directory, name))

    async def publish(
        self, directory: str, name: str, record: Record, overwrite: bool
    ) -> Published:
        """Publish a file whose data is stored.

        :param overwrite: whether it may replace another one
        :raises Refusal: 405 if it may not; 503 if it is not known whether the file is
            published, or if the object store does not allow it
        """
        publish = self._names.replace if overwrite else self._names.create
        return await self.asked("publish", publish(directory, name, record))

    async def size(self, key: str) -> int:
        """The size of data in bytes.

        :raises ObjectError: as :meth:`IObjects.size`, after some time
        """
        deadline = Deadline(self.clock, SETTLE)
        return await deadline.surely(lambda: self.data.size(key))

    async def put(self, key: str, body: IBody) -> None:
        """Store small data.

        :raises Refusal: the object store does not
        """
        deadline = Deadline(self.clock, SETTLE)
        put = deadline.surely(lambda: self.data.put(key, body))
        await self.asked("put", put)

    async def asked(self, what: str, call: Awaitable[T]) -> T:
        """Await a call.

        :param what: the call, for the log
        :raises Refusal: it failed, which is logged
        """
        try:
            return await call
        except ObjectError as error:
            raise self.refusal(error, what) from None

    def refusal(self, error: ObjectError, what: str) -> Refusal:
        """Log an error of the object store.

        :param what: the call
        :returns: the refusal of the push
        """
        self._report(error, what)
        if isinstance(error, FullError):
            return Refusal(507, "not enough free space in the server's object store")
        if error.code == "KeyTooLongError":
            # Of some stores, such as SeaweedFS: to try again is in vain.
            return Refusal(400, "the name is too long for the server's object store")
        return Refusal(503, "object store error on the server")

    def left_behind(self, error: ObjectError) -> None:
        """Log that parts of a push that failed are still stored."""
        self._report(error, "abandon")

    def _report(self, error: ObjectError, what: str) -> None:
        self._outages.suspect()
        self._log.error(
            "request={request}: object store error during {what}: {error}",
            event="store",
            request=current_request(),
            what=what,
            code=error.code,
            error=str(error),
        )

    async def _count(self, directory: str) -> int:
        """Count all data of a bucket, including that of replaced files, in bytes of its
        quota.
        """
        after, taken = "", 0
        prefix = self.keys.all_data(directory)
        while True:
            page = self.asked("count", self.data.sizes(prefix, after))
            number, size, after = await page
            taken += size + number * FILE_COST
            if not after:
                return taken
