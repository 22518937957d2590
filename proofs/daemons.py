"""The daemon, as it is and with something taken out or put around it."""

from __future__ import annotations

import sys

from filebucket.test.server import TWISTD

OPTIONS = ("-n", "--pidfile=", "filebucket")

DAEMON = (*TWISTD, *OPTIONS)

_WITHOUT = """
import os, stat
real = os.fsync
def fsync(fd):
    if not stat.{test}(os.fstat(fd).st_mode):
        real(fd)
os.fsync = fsync
from twisted.scripts.twistd import run
run()
"""


def without_sync(kind: str) -> tuple[str, ...]:
    """The daemon with its fsync of files or of directories taken out.

    :param kind: ``file`` or ``directory``
    """
    script = _WITHOUT.format(test={"file": "S_ISREG", "directory": "S_ISDIR"}[kind])
    return (sys.executable, "-c", script, *OPTIONS)
