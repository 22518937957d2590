"""Tests of :mod:`filebucket.store.s3.several`."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.s3.several import Several


class SeveralTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.several = Several()

    def begin(self, count: int) -> list[Deferred[None]]:
        works: list[Deferred[None]] = [Deferred() for _ in range(count)]
        for each in works:
            self.several.start(each)
        self.assertEqual(count, self.several.count)
        return works

    def later(self, wait: Awaitable[None]) -> Deferred[None]:
        async def waiting() -> None:
            await wait

        return Deferred.fromCoroutine(waiting())

    def test_wait(self) -> None:
        works = self.begin(3)
        waits = [self.later(self.several.wait(most)) for most in (3, 2, 1, 0)]
        self.successResultOf(waits[0])
        for work, done in zip(reversed(works), waits[1:], strict=True):
            self.assertNoResult(done)
            work.callback(None)
            self.successResultOf(done)
        self.successResultOf(self.later(self.several.wait()))

    def test_failure(self) -> None:
        """It is raised when the others have ended, and the first one counts."""
        works = self.begin(3)
        waits = [self.later(self.several.wait(most)) for most in (2, 0)]
        works[1].errback(OSError("first"))
        works[0].errback(OSError("second"))
        for each in waits:
            self.assertNoResult(each)
        works[2].callback(None)
        for each in (*waits, self.later(self.several.wait(7))):
            self.assertEqual("first", str(self.failureResultOf(each, OSError).value))

    def test_context(self) -> None:
        """An error of the block waits for the others, too."""

        async def block() -> None:
            async with self.several:
                raise KeyError

        (work,) = self.begin(1)
        done = Deferred.fromCoroutine(block())
        self.assertNoResult(done)
        work.callback(None)
        self.failureResultOf(done, KeyError)
