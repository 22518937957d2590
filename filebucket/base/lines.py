"""Queues that share a thread pool, one for each key.

Each queue has at most N calls in the pool at once; further calls of that key wait in
its queue, in order. The pool is first in, first out, so all queues make progress. A
disk that hangs under one queue leaves the other threads to the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

from filebucket.base.threads import Threads

T = TypeVar("T")

_Call: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


@define(eq=False)
class _Line:
    """The calls that share a key.

    :ivar made: number of its calls that are in the pool
    :ivar still_since: time at which a call last started or returned while the queue was
        at its limit
    """

    key: str
    made: int = 0
    still_since: float = 0.0
    waiting: deque[_Call] = field(factory=deque)


class Lines:
    """Runs calls in the threads of a pool. Use it from the reactor's thread only."""

    def __init__(
        self,
        threads: Threads,
        most: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param most: calls of one queue that may be in the pool at once
        """
        self._threads = threads
        self._most = most
        self._monotonic = monotonic
        # The queues that have a call in the pool.
        self._lines: dict[str, _Line] = {}

    def run(self, key: str, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call ``function`` in a thread, when its queue allows it.

        :param key: the key of the queue
        :returns: as :meth:`Threads.run`
        """
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(key)
        if line.made < self._most:
            line.made += 1
            if line.made == self._most:
                line.still_since = self._monotonic()
            return self._threads.run(function, *args).addBoth(self._back, line)
        done: Deferred[T] = Deferred()
        line.waiting.append((done, function, args))
        return done

    def _back(self, result: T, line: _Line) -> T:
        """A call has returned: start the next one of its queue."""
        if line.waiting:
            done, function, args = line.waiting.popleft()
            line.still_since = self._monotonic()
            made = self._threads.run(function, *args)
            made.addBoth(self._back, line).chainDeferred(done)
            return result
        line.made -= 1
        if not line.made:
            del self._lines[line.key]
        return result

    def is_stuck(self, key: str, seconds: float) -> bool:
        """Whether a queue has all the threads it may have, and none of its calls has
        returned for ``seconds`` seconds.
        """
        line = self._lines.get(key)
        if line is None or line.made < self._most:
            return False
        return self._monotonic() - line.still_since >= seconds
