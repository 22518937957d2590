"""``filebucket serve``: run the daemon."""

from __future__ import annotations

import gc

import click

from filebucket.cli.options import with_config
from filebucket.config.values import LOG_FORMATS


@click.command(short_help="Run the daemon: receive backups until SIGTERM.")
@with_config
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    help="Log format; overrides the configuration.",
)
def serve(path: str, log_format: str | None) -> None:
    """Run the daemon: receive backups until SIGTERM.

    SIGUSR2 reloads the bucket list. Equivalent to
    'twistd --nodaemon --pidfile= --rundir=/ filebucket --config FILE'.
    """
    # All that is imported stays. Looking for garbage in it takes 8 % of the start;
    # the service looks again when it is made.
    gc.disable()
    from filebucket.cli import twistd  # noqa: PLC0415 - a slow import

    twistd.run(path, log_format)
