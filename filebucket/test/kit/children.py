"""Programs that a test starts and reads from."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import Any, AnyStr

from filebucket.test.kit.server import PATIENCE


@contextmanager
def deadline(process: Popen[Any], patience: float = PATIENCE) -> Iterator[None]:
    """Kill a process if the block takes longer, so that reads from it end.

    :param patience: seconds
    """
    alarm = threading.Timer(patience, process.kill)
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


@contextmanager
def bounded(
    process: Popen[AnyStr], patience: float = PATIENCE
) -> Iterator[Popen[AnyStr]]:
    """Like :func:`deadline`; then close its pipes, and wait for its end."""
    with deadline(process, patience), process:
        yield process


def shown(terminal: int) -> Iterator[bytes]:
    """What programs write to a terminal, until the last one has closed it.

    :param terminal: the other end of the terminal, which is closed afterwards
    """
    try:
        while piece := os.read(terminal, 65536):
            yield piece
    except OSError:  # this is how a terminal ends
        pass
    finally:
        os.close(terminal)
