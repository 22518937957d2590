"""Run the daemon in the foreground like twistd, without a search for plugins.

Only ``filebucket serve`` imports this module, because the import is slow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from twisted.application import app
from twisted.application.service import ServiceMaker
from twisted.scripts import _twistd_unix, twistd

from filebucket import tap


def run(path: str, log_format: str | None) -> None:
    """Receive backups until SIGTERM.

    :param path: configuration file
    :param log_format: ``text`` or ``json``; None is the format of the configuration
    """
    # twistd enters the folder that it was started in, which the daemon's user may not
    # be able to do: root starts it in /root.
    twistd_options = ["--nodaemon", "--pidfile=", "--rundir=/"]
    sys.argv[1:] = [*twistd_options, "filebucket", "--config", os.path.abspath(path)]
    if log_format:
        sys.argv += ["--log-format", log_format]
    app.run(twistd.runApp, _ServerOptions)


class _ServerOptions(_twistd_unix.ServerOptions):
    """twistd's options, without its search through all plugins."""

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:
        maker = ServiceMaker("file-bucket", tap.__name__, "", "filebucket")
        self.loadedPlugins = {maker.tapname: maker}
        yield maker.tapname, None, tap.Options, maker.description
