"""Limits the rate and priority of reads in the background."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from attrs import define


@define
class Pace:
    """Limits reading to a rate.

    :ivar rate: bytes per second
    :ivar clock: returns a time in seconds
    :ivar sleep: waits for a number of seconds
    """

    rate: int
    clock: Callable[[], float]
    sleep: Callable[[float], object]
    _free: float = 0.0

    def __call__(self, size: int) -> None:
        """``size`` bytes were read."""
        now = self.clock()
        # Up to a second of a slow read counts as waiting.
        self._free = max(self._free, now - 1) + size / self.rate
        if self._free > now:
            self.sleep(self._free - now)


@define
class Rest:
    """Rests as long as it has worked, to leave at least half of the disk to others.

    :ivar clock: returns a time in seconds
    :ivar sleep: waits for a number of seconds
    """

    clock: Callable[[], float]
    sleep: Callable[[float], object]
    _since: float = 0.0

    def __call__(self, size: int) -> None:
        """``size`` bytes were read."""
        self.sleep(min(self.clock() - self._since, LONGEST_REST))
        self._since = self.clock()


LONGEST_REST = 1.0
"""Limit for one rest, in seconds: time since the last read may not all be work."""


def be_idle() -> None:
    """Run at idle priority, for the processor and the disk."""
    os.nice(19)
    ionice = shutil.which("ionice")
    if ionice is not None:
        # If the system has no such priority, it fails, and that does no harm.
        subprocess.run(  # noqa: S603 - constant arguments
            [ionice, "--class", "idle", "--pid", str(os.getpid())],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
