"""``filebucket alert``: run the alert hook now."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from filebucket.base.errors import ConfigError
from filebucket.base.text import printable
from filebucket.cli.options import with_config
from filebucket.config.config import Buckets, Config
from filebucket.config.load import load
from filebucket.config.values import Path


@click.command()
@click.option("--test", is_flag=True, help="Send a test alert.")
@click.option(
    "--unit",
    metavar="NAME",
    help="Report that the systemd unit NAME has failed, for OnFailure=.",
)
@with_config
def alert(test: bool, unit: str | None, path: str) -> None:
    """Run alert.sh once, as the daemon does, and wait for it.

    Prints the standard error of alert.sh, and exits with its exit status, or with 1 if
    there is no alert.sh or it cannot be run.

    As root, runs it with the rights of the home's owner.
    """
    if test == (unit is not None):
        raise click.UsageError("Give either --test or --unit.")
    config = load(path) if test else _config_of_unit(path)
    installed: Any
    from twisted.internet import reactor as installed  # noqa: PLC0415 - installs it

    from filebucket.daemon import once  # noqa: PLC0415 - a slow import

    now = time.time()
    made = once.trial_alert(now)
    if unit is not None:
        made = once.unit_alert(unit, os.environ, now)
    ended = once.run(
        installed, config, made, os.environ, lambda line: click.echo(line, err=True)
    )
    how = f"exited with {ended.status}"
    if ended.timed_out:
        how = f"timed out after {config.hook_timeout:g} seconds (hook_timeout)"
    if test or ended.status:
        where = printable(os.path.join(config.hooks, "alert.sh"))
        click.echo(f"{where} {how}", err=bool(ended.status))
    raise SystemExit(ended.status)


def _config_of_unit(path: str) -> Config:
    """The configuration. If that is broken, which may be why the unit failed, one that
    finds the hook; but not for root, who would not know whose rights to take on.
    """
    try:
        return load(path)
    except ConfigError:
        if os.geteuid() == 0:
            raise
        folder = Path(os.path.dirname(os.path.abspath(path)))
        return Config(home=Path(os.getcwd()), buckets=Buckets(()), hooks=folder)
