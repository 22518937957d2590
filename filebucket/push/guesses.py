"""Limits the wrong digests that a client may send for existing files.

The answer to a retry reveals whether the stored file has the digest that the client
sent. An attacker with the token but without the file could try all possible contents of
a file if there are only a few.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

MOST_WRONG = 20
"""Wrong guesses after which digests are ignored, for each bucket and
:data:`WINDOW`."""

WINDOW = 3600.0
"""Seconds for which a wrong guess counts."""


class Guesses:
    """Counts the wrong guesses of each bucket."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # Times of the latest wrong guesses, by bucket.
        self._wrong: dict[str, deque[float]] = {}

    def allowed(self, key: str) -> bool:
        """Whether a digest for the bucket with that key may be compared."""
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
        """Count a wrong guess.

        :param key: the bucket's key
        :param label: the bucket's name in the log
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
