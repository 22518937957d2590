"""Threads that nobody has all of: those who share a pool have a line each.

So many calls of one line are in the pool at once; those behind them wait in their own
line, in their order, and are made as calls of the same line come back. The pool makes
what it is given in its order, so that all lines move on in turn. A disk that hangs
under one of them leaves the others their threads.
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
    """Calls that have a key in common.

    :ivar made: how many of them are in the pool
    :ivar still_since: when the last of those that it may have was made, or came back
    """

    key: str
    made: int = 0
    still_since: float = 0.0
    waiting: deque[_Call] = field(factory=deque)


class Lines:
    """Runs calls in the threads of a pool. To be called in the reactor's thread."""

    def __init__(
        self,
        threads: Threads,
        most: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param most: calls of one line that may be in the pool at once
        """
        self._threads = threads
        self._most = most
        self._monotonic = monotonic
        # Those with a call in the pool.
        self._lines: dict[str, _Line] = {}

    def run(self, key: str, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call ``function`` in a thread, when its line is there.

        :param key: of the line
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
        """One is back: make the next."""
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
        """Whether a line has all the threads that it may have, and none of them has
        come back for so many seconds.
        """
        line = self._lines.get(key)
        if line is None or line.made < self._most:
            return False
        return self._monotonic() - line.still_since >= seconds
