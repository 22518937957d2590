"""Parts of a multipart upload that are on their way at once."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import Deferred

AT_ONCE = 8
"""Parts of one file that are sent at once. With four, a store spent a tenth of the time
waiting for the next one (``docs/explanation/performance.rst``)."""


class Several:
    """Work that goes on at once, until some of it fails.

    As a context it ends when none goes on any more.

    :ivar count: number of those that go on
    """

    def __init__(self) -> None:
        self.count = 0
        self._failure: Exception | None = None
        self._waiting: list[Deferred[None]] = []

    def start(self, work: Awaitable[object]) -> None:
        """Start one more."""
        self.count += 1
        Deferred.fromCoroutine(self._do(work))

    async def _do(self, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:
            self._failure = self._failure or error
        self.count -= 1
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def wait(self, most: int = 0) -> None:
        """Wait until at most ``most`` go on, or none if one has failed.

        :raises Exception: of the first one that has failed
        """
        while self.count > (0 if self._failure else most):
            ended: Deferred[None] = Deferred()
            self._waiting.append(ended)
            await ended
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Several:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.wait()
