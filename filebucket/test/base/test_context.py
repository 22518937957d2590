"""The current request's id."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.context import begin_request, current_request


class RequestTests(SynchronousTestCase):
    """Which request a line belongs to."""

    def test_one_by_one(self) -> None:
        """Each coroutine has its own id, even if others run in between."""
        waits: list[Deferred[None]] = [Deferred(), Deferred()]
        seen: list[str] = []

        async def push(number: int) -> None:
            begin_request(f"r{number}")
            await waits[number]
            seen.append(current_request())

        done = [Deferred.fromCoroutine(push(number)) for number in (0, 1)]
        self.assertEqual("-", current_request())
        waits[1].callback(None)
        waits[0].callback(None)
        for each in done:
            self.successResultOf(each)
        self.assertEqual(["r1", "r0"], seen)
        self.assertEqual("-", current_request())
