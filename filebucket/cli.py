"""The ``filebucket`` command, for operators."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click
from twisted.application import app
from twisted.application.service import ServiceMaker
from twisted.scripts import _twistd_unix, twistd

from filebucket import __version__, tap
from filebucket.values import LOG_FORMATS


@click.group()
@click.version_option(__version__)
def main() -> None:
    """file-bucket: a write-only drop for backups over HTTP."""


@main.command()
@click.option(
    "--config",
    "-c",
    default=tap.DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The configuration, in JSON.",
)
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    help="How log lines are written, whatever the configuration says.",
)
def serve(config: str, log_format: str | None) -> None:
    """Receive backups until SIGTERM; SIGUSR2 reloads the list of buckets.

    The same as ``twistd --nodaemon --pidfile= filebucket --config FILE``.
    """
    sys.argv[1:] = ["--nodaemon", "--pidfile=", "filebucket", "--config", config]
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
