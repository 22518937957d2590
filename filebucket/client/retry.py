"""When to try again, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from filebucket.client.errors import GaveUpError

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
"""Seconds. The delay doubles from one to the other, and a random part of it is left
out, so that the clients of a server that restarts do not return all at once."""


class Patience:
    """Waits between the tries of one push.

    :ivar tries: number of tries that failed
    """

    def __init__(
        self,
        most: float,
        tell: Callable[[str, float], object],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """
        :param most: seconds without progress, from the first failure on, after which to
            give up
        :param tell: called before each wait with the reason and the seconds
        :param chance: returns a number from 0 to 1
        """
        self._most = most
        self._tell = tell
        self._monotonic = monotonic
        self._sleep = sleep
        self._chance = chance
        self.tries = 0
        self.progress()

    def progress(self) -> None:
        """The server has stored something: start over."""
        self._delay = FIRST_DELAY
        self._until: float | None = None

    def wait(self, reason: str, at_least: float = 0.0) -> None:
        """A try has failed: wait until the next one.

        :param at_least: seconds that the server asked for
        :raises GaveUpError: the next one would be too late
        """
        self.tries += 1
        now = self._monotonic()
        if self._until is None:
            # The first failure: what went before it may have taken hours.
            self._until = now + self._most
        left = self._until - now
        if left <= 0 or left < at_least:
            raise GaveUpError(
                f"gave up after {_span(self._most)} without progress: {reason}"
            )
        delay = max(self._delay * (1 - self._chance() / 2), at_least)
        delay = min(delay, left)
        self._delay = min(self._delay * 2, LONGEST_DELAY)
        self._tell(reason, delay)
        self._sleep(delay)


def _span(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
