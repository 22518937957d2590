"""The descriptors of this process, to check that none is leaked."""

from __future__ import annotations

import os
from contextlib import suppress


def open_descriptors() -> set[tuple[str, str]]:
    """The open descriptors: numbers, and what they lead to."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        # The descriptor used for listing is closed again.
        with suppress(FileNotFoundError):
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
