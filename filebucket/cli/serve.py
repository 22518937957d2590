"""``filebucket serve``: receive backups."""

from __future__ import annotations

import click

from filebucket.cli.options import with_config
from filebucket.config.values import LOG_FORMATS


@click.command(short_help="Receive backups until SIGTERM.")
@with_config
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    help="How log lines are written, whatever the configuration says.",
)
def serve(path: str, log_format: str | None) -> None:
    """Receive backups until SIGTERM; SIGUSR2 reloads the list of buckets.

    The same as ``twistd --nodaemon --pidfile= filebucket --config FILE``.
    """
    from filebucket.cli import twistd  # noqa: PLC0415 - it takes as long as all the rest

    twistd.run(path, log_format)
