"""Threads for calls that may wait for a disk.

A minimal pool: a queue of calls, a list of results, and one wake-up of the reactor for
all results that wait. Twisted's own pool coordinates in Python and wakes the reactor
for each result, which makes a small push a quarter slower
(``docs/explanation/performance.rst``: 1,330 instead of 1,700 a second).
"""

from __future__ import annotations

import errno
import gc
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")

_Call: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]
_Result: TypeAlias = tuple[Callable[[Any], None], Any]


class Threads(Service):
    """Runs calls in order, at most ``most`` at once.

    The threads are daemon threads: one that hangs on a disk does not keep the process
    from exiting.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        most: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param most: maximum number of threads; each is created when it is first needed
        """
        self._reactor = reactor
        self._most = most
        self._monotonic = monotonic
        self._calls: deque[_Call | None] = deque()
        # A lock for each idle thread, which waits for it: if several threads wait for
        # one SimpleQueue, each call wakes two of them.
        self._idle: list[threading.Lock] = []
        self._results: deque[_Result] = deque()
        self._waking = False
        self._count = 0
        self._under_way = 0
        # When each thread began its current call; infinity if it is idle.
        self._began: list[list[float]] = []

    def run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call ``function`` in a thread. Use it from the reactor's thread only.

        :returns: fires in the reactor's thread with the result, or fails with the
            exception; fails with OSError if no thread can be created
        """
        if self._count < min(self._under_way + 1, self._most) and not self._start():
            return fail(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        done: Deferred[T] = Deferred()
        self._under_way += 1
        self._put((done, function, args))
        return done

    def _put(self, call: _Call | None) -> None:
        """Let a thread take a call, preferably the one that was idle last."""
        self._calls.append(call)
        with suppress(IndexError):
            self._idle.pop().release()

    def stuck(self, seconds: float) -> int:
        """Number of threads that have been in one call for at least ``seconds``
        seconds.
        """
        now = self._monotonic()
        return sum(now - began >= seconds for (began,) in self._began)

    def _start(self) -> bool:
        """Create one more thread, if the system allows it. Returns whether any thread
        can take the call.
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
        # Calls that were queued before are finished first.
        super().stopService()
        while self._count:
            self._count -= 1
            self._put(None)

    def _work(self, began: list[float]) -> None:
        wake = threading.Lock()
        wake.acquire()
        while (call := self._next(wake)) is not None:
            done, function, args = call
            began[0] = self._monotonic()
            try:
                result: _Result = (done.callback, function(*args))
            except BaseException:
                result = (done.errback, Failure())
            began[0] = math.inf
            self._results.append(result)
            # Two threads may both see it False: then the reactor wakes once more than
            # needed.
            if not self._waking:
                self._waking = True
                self._reactor.callFromThread(self._deliver)
            # Otherwise the thread would keep references to these while it waits for a
            # call.
            del call, done, function, args, result

    def _next(self, wake: threading.Lock) -> _Call | None:
        """Wait for the next call in a thread; None is the end.

        :param wake: the thread's own, which is held
        """
        while True:
            try:
                return self._calls.popleft()
            except IndexError:
                self._idle.append(wake)
            # If a call came before that, it has woken nobody.
            if self._calls:
                try:
                    self._idle.remove(wake)
                    continue
                except ValueError:
                    # It has: then one release is due.
                    pass
            wake.acquire()

    def _deliver(self) -> None:
        # Before the results are read: a thread that appends one from here on wakes the
        # reactor again.
        self._waking = False
        for _ in range(len(self._results)):
            fire, result = self._results.popleft()
            self._under_way -= 1
            fire(result)


MANY_NEW = 50_000
"""New objects in which the interpreter does not look for garbage."""


class _Turns:
    """The interval after which the interpreter lets another thread run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._short = 0
        self._usual = 0.0

    @contextmanager
    def short(self) -> Iterator[None]:
        """Let other threads run ten times as often, while one is in such a block.

        The reactor needs the interpreter a dozen times for a push, and would wait 5 ms
        each time for a thread that computes.
        """
        with self._lock:
            if not self._short:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(self._usual / 10)
            self._short += 1
        try:
            yield
        finally:
            with self._lock:
                self._short -= 1
                if not self._short:
                    sys.setswitchinterval(self._usual)


short_turns = _Turns().short

COMPUTING = threading.Lock()
"""Held by the thread that computes."""


@contextmanager
def beside_pushes() -> Iterator[None]:
    """Compute for long in a thread, and hold up pushes less; one thread at a time.

    The block must not wait for a disk, nor contain another one.
    """
    # Python looks for garbage while many objects are created. Without these settings a
    # push took 150 ms while 100,000 buckets were read.
    with COMPUTING, short_turns():
        gc.disable()
        try:
            yield
        finally:
            if gc.get_count()[0] > MANY_NEW:
                # They stay, as 100,000 buckets do. To look for garbage among them would
                # take 30 ms, in which no other thread could run.
                gc.freeze()
            gc.enable()
