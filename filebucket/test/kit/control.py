"""The files of a daemon that does not run."""

from __future__ import annotations

from filebucket.config.config import Keys
from filebucket.daemon.applied import Applied
from filebucket.daemon.control import StatusFile
from filebucket.test.kit.fakes import at_once

NOTHING = Applied("", Keys({}), {})
"""What a daemon without buckets has applied."""


def status_file(home: str, config: str, applied: Applied = NOTHING) -> StatusFile:
    """The files of a daemon, without a thread.

    :param config: absolute path of the configuration that it reads
    """
    return StatusFile(home, config, at_once, lambda: applied)
