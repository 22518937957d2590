"""How fast files are read that nobody waits for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from attrs import define


@define
class Pace:
    """Holds reading to a rate.

    :ivar rate: bytes a second
    :ivar clock: tells seconds
    :ivar sleep: waits for so many
    """

    rate: int
    clock: Callable[[], float]
    sleep: Callable[[float], object]
    _free: float = 0.0

    def __call__(self, size: int) -> None:
        """``size`` bytes were read."""
        now = self.clock()
        # What a slow disk took is not waited for once more; up to a second of it.
        self._free = max(self._free, now - 1) + size / self.rate
        if self._free > now:
            self.sleep(self._free - now)


@define
class Rest:
    """Rests as long as it has worked: others get half of the disk at least.

    :ivar clock: tells seconds
    :ivar sleep: waits for so many
    """

    clock: Callable[[], float]
    sleep: Callable[[float], object]
    _since: float = 0.0

    def __call__(self, size: int) -> None:
        """So much was read."""
        self.sleep(min(self.clock() - self._since, LONGEST_REST))
        self._since = self.clock()


LONGEST_REST = 1.0
"""Seconds; whoever did something else before needs no rest from that."""


def be_idle() -> None:
    """Have the processor and the disk only when nobody else wants them."""
    os.nice(19)
    ionice = shutil.which("ionice")
    if ionice is not None:
        # Of a system that has no such thing it is not asked.
        subprocess.run(  # noqa: S603 - all of it is ours
            [ionice, "--class", "idle", "--pid", str(os.getpid())],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
