"""The daemon in the foreground: twistd's way of running it, with our plugin given
rather than looked for.

Only ``filebucket serve`` loads this: the other commands are to answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from twisted.application import app
from twisted.application.service import ServiceMaker
from twisted.scripts import _twistd_unix, twistd

from filebucket import tap


def run(path: str, log_format: str | None) -> None:
    """Receive backups until SIGTERM.

    :param path: the configuration
    :param log_format: how log lines are written; None is what that says
    """
    sys.argv[1:] = ["--nodaemon", "--pidfile=", "filebucket", "--config", path]
    if log_format:
        sys.argv += ["--log-format", log_format]
    app.run(twistd.runApp, _ServerOptions)


class _ServerOptions(_twistd_unix.ServerOptions):
    """twistd's own, without its look through all plugins for ours."""

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:
        maker = ServiceMaker("file-bucket", tap.__name__, "", "filebucket")
        self.loadedPlugins = {maker.tapname: maker}
        yield maker.tapname, None, tap.Options, maker.description
