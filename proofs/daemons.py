"""The daemon, unchanged, with a part removed, or under another program."""

from __future__ import annotations

import sys

from filebucket.test.kit.server import TWISTD, hurried

OPTIONS = ("-n", "--pidfile=", "filebucket")

DAEMON = (*TWISTD, *OPTIONS)

KEEPING = hurried("push.part", KEEP_EVERY=100_000)
"""The daemon, which keeps more often what has come of a resumable upload."""

_STEADY = """
from filebucket.daemon import compose
from filebucket.push import sessions
assert compose.THREADS > 1
assert sessions.SWEEP_EVERY < 3600
compose.THREADS = 1
sessions.SWEEP_EVERY = 10**6
"""

_TOLD_EARLY = {
    "data": """
from filebucket.store.aside import PartFile
PartFile.seal = lambda self: None
""",
    "record": """
import os
from filebucket.store import parts
real = parts.replacing
def replacing(path, aside, durable, directory_fd):
    return real(path, aside, False, directory_fd)
parts.replacing = replacing
parts.sync_directory = lambda fd: None
""",
}

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

STEADY = (sys.executable, "-c", _STEADY + _TWISTD, *OPTIONS)
"""The daemon with one thread for all pushes, and without its sweep of uploads that have
expired: the same push always makes the same calls in the same thread. A sweep beside a
push needs a second thread, which then takes some calls of the push."""

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


def told_early(what: str) -> tuple[str, ...]:
    """The daemon, which tells an offset before that many bytes are durable.

    :param what: the part whose fsync is missing: ``data`` or ``record``
    """
    return (sys.executable, "-c", _TOLD_EARLY[what] + _TWISTD, *OPTIONS)


def prune_without_sync() -> tuple[str, ...]:
    """``filebucket prune`` without fsync of directories."""
    return (*_without("directory", _PRUNE), "prune")


def _without(kind: str, run: str) -> tuple[str, ...]:
    test = {"file": "S_ISREG", "directory": "S_ISDIR"}[kind]
    return (sys.executable, "-c", _WITHOUT.format(test=test, run=run))
