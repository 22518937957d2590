"""What this process has open, to see that nothing more is open afterwards."""

from __future__ import annotations

import os
from contextlib import suppress


def open_descriptors() -> set[tuple[str, str]]:
    """What this process has open: numbers, and what they lead to."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        # The one that lists them is closed again.
        with suppress(FileNotFoundError):
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
