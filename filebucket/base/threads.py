"""Threads for what may wait for a disk.

The plainest pool that there is: a queue of calls in, a list of results out, and
the reactor is woken once for all results that wait. Twisted's own pool, which
coordinates in Python and wakes the reactor for each result, takes a quarter
more for a small push (``docs/performance.rst``: 1,330 instead of 1,700 a second).
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")

_Call: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]
_Result: TypeAlias = tuple[Callable[[Any], None], Any]


class Threads(Service):
    """Runs calls, as many at once as there may be threads, in their order.

    The threads are daemonic: a disk that hangs for ever keeps none of them from
    ending with the process.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        most: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param most: threads there may be; each is made when it is first needed
        """
        self._reactor = reactor
        self._most = most
        self._monotonic = monotonic
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._results: deque[_Result] = deque()
        self._waking = False
        self._count = 0
        self._under_way = 0
        # When each thread began what it does; infinity where it has nothing to do.
        self._began: list[list[float]] = []

    def run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call ``function`` in a thread. To be called in the reactor's.

        :returns: fires in the reactor's thread with what it returned, or fails
            with what it raised; with OSError where no thread can be had
        """
        if self._count < min(self._under_way + 1, self._most) and not self._start():
            return fail(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        done: Deferred[T] = Deferred()
        self._under_way += 1
        self._calls.put((done, function, args))
        return done

    def stuck(self, seconds: float) -> int:
        """How many threads have been at one call for so many seconds."""
        now = self._monotonic()
        return sum(now - began >= seconds for (began,) in self._began)

    def _start(self) -> bool:
        """One thread more, if the system lets us. Is there one that will come to
        what is to be done?
        """
        began = [math.inf]
        try:
            threading.Thread(target=self._work, args=(began,), daemon=True).start()
        except RuntimeError:
            return self._count > 0
        self._began.append(began)
        self._count += 1
        return True

    def stopService(self) -> None:
        # What was given before is done first.
        super().stopService()
        while self._count:
            self._count -= 1
            self._calls.put(None)

    def _work(self, began: list[float]) -> None:
        while (call := self._calls.get()) is not None:
            done, function, args = call
            began[0] = self._monotonic()
            try:
                result: _Result = (done.callback, function(*args))
            except BaseException:
                result = (done.errback, Failure())
            began[0] = math.inf
            self._results.append(result)
            # Two threads may both see it False: then the reactor wakes in vain.
            if not self._waking:
                self._waking = True
                self._reactor.callFromThread(self._deliver)
            # Or the thread would hold what it has while it waits for a call.
            del call, done, function, args, result

    def _deliver(self) -> None:
        # First this: whoever appends from here on wakes the reactor again.
        self._waking = False
        for _ in range(len(self._results)):
            fire, result = self._results.popleft()
            self._under_way -= 1
            fire(result)
