"""Multipart uploads, and calls that store data.

A multipart upload that may have been completed is neither completed again nor
abandoned: the object tells whether it was.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from filebucket.store.s3.interfaces import (
    DeniedError,
    IObjects,
    NotThereError,
    ObjectError,
    Part,
    UnsureError,
)
from filebucket.store.s3.publish import PAUSE, SETTLE, Deadline

T = TypeVar("T")

LOOK = 60.0
"""Seconds to find an object that was stored: a store may need a minute to join
thousands of parts."""


async def again(
    clock: IReactorTime, goes_on: Callable[[], bool], call: Callable[[], Awaitable[T]]
) -> T:
    """Make a call that may be made twice, and again while its effect is not known. No
    try begins more than :data:`SETTLE` seconds after the first one failed.

    To store the same bytes under the same key again changes nothing. A try takes as
    long as the data moves, and a minute more if the store hangs.

    :param goes_on: whether there may be another try
    :raises UnsureError: the effect is still not known
    :raises ObjectError: as the call does
    """
    pause, end = PAUSE, math.inf
    while True:
        try:
            return await call()
        except UnsureError:
            end = min(end, clock.seconds() + SETTLE)
            if not goes_on() or clock.seconds() + pause > end:
                raise
        await deferLater(clock, pause)
        # A store that refuses all of a part should not get it all the time.
        pause *= 2


async def look(clock: IReactorTime, objects: IObjects, key: str, size: int) -> None:
    """Wait until an object is there.

    :param size: its bytes
    :raises NotThereError: it is not there, or has another size
    :raises ObjectError: the store does not tell
    """
    deadline = Deadline(clock, LOOK)
    while True:
        try:
            found = await deadline.surely(lambda: objects.size(key))
            break
        except NotThereError as error:
            await deadline.pause(error)
    if found != size:
        raise NotThereError(f"the object store has {found} bytes of {size}")


@define(eq=False)
class Multipart:
    """A multipart upload.

    :ivar id: empty until it has begun
    :ivar parts: those that were sent, by number
    :ivar unsure: whether it may have been completed
    """

    _clock: IReactorTime
    _objects: IObjects
    _key: str
    id: str = ""
    parts: dict[int, Part] = field(factory=dict)
    unsure: bool = False

    async def complete(self, size: int) -> None:
        """Make the object from its parts, and look at it.

        :param size: bytes of the object
        :raises DeniedError: it was not completed
        :raises ObjectError: as :func:`look`
        """
        failed = ""
        if not self.unsure:
            self.unsure = True
            parts = [self.parts[number] for number in sorted(self.parts)]
            try:
                await self._objects.complete(self._key, self.id, parts)
            except DeniedError:
                self.unsure = False
                raise
            except ObjectError as error:
                failed = f"{error}, and "
        try:
            await look(self._clock, self._objects, self._key, size)
        except NotThereError as error:
            raise NotThereError(f"{failed}{error}", error.code) from None

    async def abandon(self) -> None:
        """Delete its parts, unless it may have been completed.

        :raises ObjectError: they are not deleted
        """
        if self.id and not self.unsure:
            await self._objects.abandon(self._key, self.id)
