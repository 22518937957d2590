"""Places that are limited, such as for hooks that run, and queues for them: one for
each bucket, served in turn.

A bucket with a thousand waiting pushes delays another bucket by one of them, not by a
thousand.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred


class Places:
    """A number of places, and a queue for each key.

    Each queue is first in, first out.

    :ivar free: places that are free
    """

    def __init__(self, places: int) -> None:
        """
        :param places: places that can be held at once
        """
        self.free = places
        self._serving = False
        # The next queue comes first; no queue is empty.
        self._lines: dict[str, deque[Deferred[None]]] = {}

    def acquire(self, key: str) -> Deferred[None]:
        """Wait in the queue of ``key``.

        :returns: fires when the place is acquired; it is held until :meth:`release`
        """
        place: Deferred[None] = Deferred()
        self._lines.setdefault(key, deque()).append(place)
        self._serve()
        return place

    def release(self) -> None:
        """Release a place."""
        self.free += 1
        self._serve()

    def _serve(self) -> None:
        if self._serving:
            # If many pushes have failed, each releases its place at once: without this
            # each would be a call deeper than the one before.
            return
        self._serving = True
        while self.free and self._lines:
            self.free -= 1
            self._next().callback(None)
        self._serving = False

    def _next(self) -> Deferred[None]:
        """The next to be served. Its queue moves behind the others."""
        key = next(iter(self._lines))
        line = self._lines.pop(key)
        place = line.popleft()
        if line:
            self._lines[key] = line
        return place
