"""Queues that share a thread pool, one for each key.

Each queue has at most N calls in the pool at once; further calls of that key wait in
its queue, in order. The pool is first in, first out, so all queues make progress. A
disk that hangs under one queue leaves the other threads to the others.

Items of one key can share a call, which takes all that wait when a thread is free, at
the end of the reactor's turn: nothing waits for a later turn to bring more.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from filebucket.base.threads import Threads

T = TypeVar("T")
Item = TypeVar("Item")

_Call: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]
_Together: TypeAlias = Callable[[str, Sequence[Any]], Sequence[Any]]
_Made: TypeAlias = tuple[Sequence[Deferred[Any]], Sequence[Any]]

MOST_TOGETHER = 64
"""Items that share a call, at most: the first one waits until the last one is done."""


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


@define(eq=False)
class _Group:
    """The items of a key that wait for the same function.

    :ivar waiting: a thread takes them, while the reactor's thread adds some
    :ivar began: time at which its call began in a thread; infinity if it has not
    """

    key: str
    function: _Together
    waiting: deque[tuple[Deferred[Any], Any]] = field(factory=deque)
    began: float = math.inf


class Lines:
    """Runs calls in the threads of a pool. Use it from the reactor's thread only."""

    def __init__(self, threads: Threads, most: int, clock: IReactorTime) -> None:
        """
        :param most: calls of one queue that may be in the pool at once
        """
        self._threads = threads
        self._most = most
        self._clock = clock
        # The queues that have a call in the pool.
        self._lines: dict[str, _Line] = {}
        # The groups that have a call, by key and function.
        self._groups: defaultdict[str, dict[_Together, _Group]] = defaultdict(dict)

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
                line.still_since = self._clock.seconds()
            return self._threads.run(function, *args).addBoth(self._back, line)
        done: Deferred[T] = Deferred()
        line.waiting.append((done, function, args))
        return done

    def _back(self, result: T, line: _Line) -> T:
        """A call has returned: start the next one of its queue."""
        if line.waiting:
            done, function, args = line.waiting.popleft()
            line.still_since = self._clock.seconds()
            made = self._threads.run(function, *args)
            made.addBoth(self._back, line).chainDeferred(done)
            return result
        line.made -= 1
        if not line.made:
            del self._lines[line.key]
        return result

    def together(
        self,
        key: str,
        function: Callable[[str, Sequence[Item]], Sequence[T | Exception]],
        item: Item,
    ) -> Deferred[T]:
        """Call ``function`` in a thread, when the key's queue allows it, with ``item``
        and others that wait for it by then. Of such calls, there is one at a time.

        :param key: the key of the queue
        :param function: gets the key and the items; returns the result or the exception
            of each
        :returns: as :meth:`Threads.run`
        """
        groups = self._groups[key]
        group = groups.get(function)
        done: Deferred[T] = Deferred()
        if group is None:
            group = groups[function] = _Group(key, function)
            # After the others that come in the same turn of the reactor, so that the
            # thread does not fight with it for the interpreter's lock: of 16 pushes at
            # once, each takes 0.38 ms of processor time instead of 0.45.
            self._clock.callLater(0, self._start, group)
        group.waiting.append((done, item))
        return done

    def _start(self, group: _Group) -> None:
        made = self.run(group.key, self._make, group)
        made.addCallbacks(self._made, self._no_thread, (group,), {}, (group,))

    def _make(self, group: _Group) -> _Made:
        """Call the function, in a thread."""
        group.began = self._clock.seconds()
        count = min(len(group.waiting), MOST_TOGETHER)
        taken = [group.waiting.popleft() for _ in range(count)]
        try:
            results = group.function(group.key, [item for _, item in taken])
        except Exception as error:
            results = [error] * count
        group.began = math.inf
        return [done for done, _ in taken], results

    def _made(self, made: _Made, group: _Group) -> None:
        # First, so that the thread works while these go on.
        if group.waiting:
            self._start(group)
        else:
            self._end(group)
        for done, result in zip(*made, strict=True):
            if isinstance(result, Exception):
                done.errback(Failure(result))
            else:
                done.callback(result)

    def _no_thread(self, failure: Failure, group: _Group) -> None:
        self._end(group)
        for done, _ in group.waiting:
            done.errback(failure)

    def _end(self, group: _Group) -> None:
        groups = self._groups[group.key]
        del groups[group.function]
        if not groups:
            del self._groups[group.key]

    def is_stuck(self, key: str, seconds: float) -> bool:
        """Whether a queue has all the threads it may have, and none of its calls has
        returned for ``seconds`` seconds; or a call that items share has not.
        """
        now = self._clock.seconds()
        groups = self._groups.get(key, {})
        if any(now - group.began >= seconds for group in groups.values()):
            return True
        line = self._lines.get(key)
        if line is None or line.made < self._most:
            return False
        return now - line.still_since >= seconds
