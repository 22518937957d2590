"""The daemon, unchanged, with a part removed, or under another program."""

from __future__ import annotations

import sys

from filebucket.test.kit.server import TWISTD

OPTIONS = ("-n", "--pidfile=", "filebucket")

DAEMON = (*TWISTD, *OPTIONS)

_WITHOUT = """
import os, stat
real = os.fsync
def fsync(fd):
    if not stat.{test}(os.fstat(fd).st_mode):
        real(fd)
os.fsync = fsync
{run}
"""

_TWISTD = """
from twisted.scripts.twistd import run
run()
"""

_PRUNE = """
from filebucket.cli.main import main
main()
"""

PRUNE = (sys.executable, "-m", "filebucket", "prune")


def without_sync(kind: str) -> tuple[str, ...]:
    """The daemon without fsync of files or of directories.

    :param kind: ``file`` or ``directory``
    """
    return (*_without(kind, _TWISTD), *OPTIONS)


def prune_without_sync() -> tuple[str, ...]:
    """``filebucket prune`` without fsync of directories."""
    return (*_without("directory", _PRUNE), "prune")


def _without(kind: str, run: str) -> tuple[str, ...]:
    test = {"file": "S_ISREG", "directory": "S_ISDIR"}[kind]
    return (sys.executable, "-c", _WITHOUT.format(test=test, run=run))
