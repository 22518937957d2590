"""How often a client may promise another digest than that of a file that is there.

A retry is told whether the file is the one that was promised. Somebody who has the
token and not the file could learn a file of few possible contents by trying them all.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

MOST_WRONG = 20
"""Wrong guesses that a bucket has in :data:`WINDOW`."""

WINDOW = 3600.0
"""Seconds."""


class Guesses:
    """The wrong guesses of each bucket."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # The times of the latest, by bucket.
        self._wrong: dict[str, deque[float]] = {}

    def allowed(self, key: str) -> bool:
        """Whether a promise of the bucket of that key is looked at."""
        latest = self._wrong.get(key)
        if latest is None:
            return True
        now = self._clock.seconds()
        while latest and now - latest[0] >= WINDOW:
            latest.popleft()
        if not latest:
            del self._wrong[key]
        return len(latest) < MOST_WRONG

    def wrong(self, key: str, label: str) -> None:
        """One was wrong.

        :param label: what logs call the bucket
        """
        latest = self._wrong.setdefault(key, deque())
        latest.append(self._clock.seconds())
        if len(latest) == MOST_WRONG:
            self._log.warn(
                "bucket={bucket}: {count} wrong digests for existing files within an"
                " hour; digests for existing files are ignored for up to an hour",
                event="guesses",
                bucket=label,
                count=MOST_WRONG,
            )
