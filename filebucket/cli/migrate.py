"""``filebucket migrate``: copy the catalogue from SQLite into PostgreSQL."""

from __future__ import annotations

import os

import click

from filebucket.base.owner import become_owner_of
from filebucket.base.text import counted
from filebucket.catalogue.connection import CatalogueError
from filebucket.catalogue.migrate import count_rows
from filebucket.catalogue.migrate import migrate as copy_rows
from filebucket.catalogue.sqlite import FILE
from filebucket.cli.options import print_json, with_config, with_json
from filebucket.cli.progress import progress_bar
from filebucket.config.load import load
from filebucket.daemon.problems import find_daemon, not_allowed
from filebucket.model.names import PRIVATE


@click.command()
@with_config
@with_json
def migrate(path: str, as_json: bool) -> None:
    """Copy the catalogue from SQLite into PostgreSQL.

    Stop the daemon first. The command copies the catalogue in the home, with the whole
    history of pushes, into the database that 'catalogue' in the configuration names.
    That database must have no catalogue yet, and still has none if the command fails.
    """
    config = load(path)
    if config.catalogue is None:
        raise CatalogueError(
            f"{path} has no 'catalogue': name the database there first"
        )
    become_owner_of(config.home, PRIVATE)
    _refuse_if_running(config.home)
    try:
        total = sum(count_rows(config.home).values())
        with progress_bar(total) as bar:
            found = copy_rows(config.home, config.catalogue, config.node, bar.to)
    except CatalogueError as error:
        raise CatalogueError(f"the catalogue: {error}") from None
    left = os.path.join(config.home, FILE)
    if as_json:
        print_json(rows=found, left=left)
        return
    pushes = counted(found["push"], "push", "pushes")
    buckets = counted(found["bucket"], "bucket")
    click.echo(f"copied {pushes} to {buckets}; the old catalogue is still {left}")


def _refuse_if_running(home: str) -> None:
    """
    :raises CatalogueError: a daemon adds its pushes to the old catalogue meanwhile, or
        it is not known whether one does
    """
    try:
        process = find_daemon(home).process
    except OSError as error:
        raise CatalogueError(
            f"cannot tell whether the daemon runs: {not_allowed(error, home)}"
        ) from None
    if process is not None:
        raise CatalogueError("the daemon is running: stop it first; nothing was copied")
