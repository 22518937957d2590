"""Publishes files in an object store, by records under their names.

The only way to publish is to PUT a record, with ``If-None-Match: *`` unless the push
may overwrite. If the answer to a PUT is lost, the record shows what happened: it has
the id of its push. So a PUT is repeated, or its record read, until its effect is known,
but not forever. A record is never deleted here, and neither is data, since a PUT may
still take effect after its answer was lost.

``filebucket prune`` marks a name before it deletes the name's record. An overwriting
push that finds a mark waits until it is gone. Then, or if there is none, it publishes
again if its record went with the old one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from filebucket.base.alarm import started
from filebucket.store.interfaces import NameTaken
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    IObjects,
    NotSentError,
    NotThereError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.records import MOST_RECORD, Keys, Record

T = TypeVar("T")

SETTLE = 30.0
"""Seconds to find out whether a file is published."""

TRY = 14.0
"""Seconds of one of these calls. If a gateway hangs, there is time for another one."""

MARKED = 30.0
"""Seconds that an overwriting push waits for prune, which keeps a mark for the time of
four calls."""

TURN = 120.0
"""Seconds that an overwriting push waits for others that overwrite the same file: its
data is stored, and ``filebucket sweep`` must not come first."""

PAUSE = 0.5
"""Seconds between two tries."""


@frozen
class Published:
    """A record that was published.

    :param order: as :class:`~filebucket.store.interfaces.Receipt`
    :param replaced: whether there was another one
    """

    order: int
    replaced: bool


class Deadline:
    """A time until which calls are made."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._end = clock.seconds() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - self._clock.seconds()

    async def of(self, call: Awaitable[T], most: float = math.inf) -> T:
        """Await a call, but no longer: then it is cancelled.

        :param most: seconds for this call
        :raises ObjectError: as the call does
        """
        result = started(call)
        seconds = min(max(self.left, 0), most)
        late = self._clock.callLater(seconds, result.cancel)
        try:
            return await result
        finally:
            if late.active():
                late.cancel()

    async def surely(self, call: Callable[[], Awaitable[T]], most: float = TRY) -> T:
        """Make a call again as long as its effect is not known. The call must have the
        same effect if it is made twice.

        :param most: seconds of each
        :raises UnsureError: it is not known, and there is no more time
        :raises ObjectError: as the call does
        """
        last: UnsureError | None = None
        while True:
            try:
                return await self.of(call(), most)
            except UnsureError as error:
                # A try that has no more time cannot tell what is wrong.
                last = last if last is not None and self.left <= 0 else error
            await self.pause(last)

    async def pause(self, error: ObjectError) -> None:
        """Wait before the next try.

        :param error: raised instead if there is no more time
        """
        if self.left <= PAUSE:
            raise error
        await deferLater(self._clock, PAUSE)


@define
class _Turns:
    """The pushes of this process that overwrite one name.

    :ivar pushes: their number
    """

    lock: DeferredLock = field(factory=DeferredLock)
    pushes: int = 0


class Names:
    """The records of a store."""

    def __init__(self, objects: IObjects, keys: Keys, clock: IReactorTime) -> None:
        """
        :param objects: the S3 bucket of the records
        """
        self._objects = objects
        self._keys = keys
        self._clock = clock
        self._order = itertools.count()
        self._turns: dict[str, _Turns] = {}

    def order(self) -> int:
        """The next order, as :class:`Published`."""
        return next(self._order)

    async def find(self, directory: str, name: str) -> Record | None:
        """The record of a file, if it is published.

        :raises UnsureError: the record cannot be read
        :raises ObjectError: the store does not tell
        """
        deadline = Deadline(self._clock, SETTLE)
        return await deadline.surely(lambda: self._find(directory, name))

    async def settled(self, directory: str, name: str) -> Record | None:
        """As :meth:`find`, after prune has deleted the record that it meant, or the one
        that has replaced it.

        :raises ObjectError: as :meth:`find`, also if prune does not end in time
        """
        await self._was_marked(directory, name)
        return await self.find(directory, name)

    async def is_free(self, directory: str, name: str) -> bool:
        """Whether nothing is published under a name.

        :raises ObjectError: the store does not tell
        """
        key = self._keys.name(directory, name)
        return await self._read(Deadline(self._clock, SETTLE), key) is None

    async def create(self, directory: str, name: str, record: Record) -> Published:
        """Publish a file, unless its name is taken.

        :raises NameTaken: it is
        :raises ObjectError: it is not known whether it is published, or not allowed
        """
        # A push that replaces this file gets a later number.
        order = next(self._order)
        deadline = Deadline(self._clock, SETTLE)
        await self._create(deadline, directory, name, record)
        return Published(order, replaced=False)

    async def replace(self, directory: str, name: str, record: Record) -> Published:
        """Publish a file, and replace any other one with its name.

        :raises ObjectError: as :meth:`create`; or it is published, but prune did not
            end in time
        """
        key = self._keys.name(directory, name)
        turns = self._turns.setdefault(key, _Turns())
        turns.pushes += 1
        # Two pushes that replace each other may end in any order. Only here is it known
        # which one of this daemon was last.
        try:
            try:
                await Deadline(self._clock, TURN).of(turns.lock.acquire())
            except CancelledError:
                raise NotSentError("other pushes are overwriting the file") from None
            try:
                replaced = await self._replace(key, directory, name, record)
                return Published(next(self._order), replaced)
            finally:
                turns.lock.release()
        finally:
            turns.pushes -= 1
            if not turns.pushes:
                del self._turns[key]

    async def _create(
        self, deadline: Deadline, directory: str, name: str, record: Record
    ) -> None:
        key, body = self._keys.name(directory, name), MemoryBody.of(record.text())
        unsure = False
        while True:
            try:
                put = self._objects.put(key, body, only_new=True)
                await deadline.of(put, TRY)
            except AlreadyThereError as error:
                found = await self._read(deadline, key)
                # An earlier one of these PUTs, or one that a proxy repeated.
                if found == body.content:
                    return
                if found is not None:
                    raise NameTaken() from None
                # Pruned in the meantime.
                last: ObjectError = UnsureError(str(error), error.code)
            except DeniedError as error:
                if unsure:
                    raise UnsureError(str(error), error.code) from None
                raise
            except UnsureError as error:
                unsure, last = True, error
            else:
                return
            await deadline.pause(last)

    async def _replace(
        self, key: str, directory: str, name: str, record: Record
    ) -> bool:
        body = MemoryBody.of(record.text())
        replaced, first = False, True
        while True:
            deadline = Deadline(self._clock, SETTLE)
            created = True
            try:
                # It shows whether there is something to replace, which another PUT
                # does not.
                await self._create(deadline, directory, name, record)
            except NameTaken:
                created, replaced = False, replaced or first
                # The store may carry out one of these PUTs late, and undo a later push:
                # make as few as possible.
                put = partial(self._objects.put, key, body)
                await deadline.surely(put, math.inf)
            first = False
            if not await self._was_marked(directory, name) and created:
                return replaced
            # Prune may have deleted this record in place of the one that it meant, and
            # its mark, too.
            if await self._read(Deadline(self._clock, SETTLE), key) is not None:
                # This one, or that of a later push.
                return replaced

    async def _was_marked(self, directory: str, name: str) -> bool:
        """Whether prune was about to delete the file. If so, it has ended now.

        :raises UnsureError: it does not end
        """
        key = self._keys.mark(directory, name)
        deadline, marked = Deadline(self._clock, MARKED), False
        while await self._read(deadline, key) is not None:
            marked = True
            await deadline.pause(
                UnsureError("a prune that has not ended may delete the file")
            )
        return marked

    async def _find(self, directory: str, name: str) -> Record | None:
        key = self._keys.name(directory, name)
        try:
            text = await self._objects.get(key, MOST_RECORD)
            return Record.of(text, self._keys, directory, name)
        except NotThereError:
            return None
        except ValueError as error:
            raise ObjectError(str(error)) from None

    async def _read(self, deadline: Deadline, key: str) -> bytes | None:
        """The content of an object, if there is one."""
        try:
            return await deadline.surely(lambda: self._objects.get(key, MOST_RECORD))
        except NotThereError:
            return None
