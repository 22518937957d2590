"""Where hooks wait for a place: a line for each bucket, served in turn.

A bucket with a thousand pushes in line costs another bucket one hook's time, not a
thousand.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred


class Lines:
    """Places, and a line for each key that waits for one.

    Within a line it is first come, first served.
    """

    def __init__(self, places: int) -> None:
        """
        :param places: how many may be held at once
        """
        self._free = places
        self._serving = False
        # The line whose turn it is comes first; there is none without somebody in it.
        self._lines: dict[str, deque[Deferred[None]]] = {}

    def acquire(self, key: str) -> Deferred[None]:
        """Wait in the line of ``key``.

        :returns: fires with a place, which is held until :meth:`release`
        """
        place: Deferred[None] = Deferred()
        self._lines.setdefault(key, deque()).append(place)
        self._serve()
        return place

    def release(self) -> None:
        """Give a place back."""
        self._free += 1
        self._serve()

    def _serve(self) -> None:
        if self._serving:
            # Many leave as soon as they are let in, since their pushes have failed:
            # each would be a call deeper than the one before it.
            return
        self._serving = True
        while self._free and self._lines:
            self._free -= 1
            self._next().callback(None)
        self._serving = False

    def _next(self) -> Deferred[None]:
        """Whose turn it is. Their line goes behind the others."""
        key = next(iter(self._lines))
        line = self._lines.pop(key)
        place = line.popleft()
        if line:
            self._lines[key] = line
        return place
