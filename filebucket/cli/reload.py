"""``filebucket reload``: have the daemon apply the bucket list."""

from __future__ import annotations

import click

from filebucket.base.text import joined
from filebucket.cli.options import print_json, with_config, with_json
from filebucket.daemon.ask import ask


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the daemon.",
)
@with_config
@with_json
def reload(timeout: float, path: str, as_json: bool) -> None:
    """Apply the changed bucket list, and wait until the daemon has.

    The file is checked first. Exits with 1 and prints the reason if the daemon could
    not apply it, did not answer, or reads another configuration. Run it as root or as
    the daemon's user.
    """
    answer = ask(path, timeout)
    if as_json:
        print_json(
            buckets=answer.buckets,
            added=answer.added,
            removed=answer.removed,
            changed=answer.changed,
            waiting=answer.waiting,
        )
        return
    click.echo(f"Reloaded: {answer.changes}.")
    if answer.waiting:
        click.echo(f"Restart the daemon to apply {joined(answer.waiting)}.")
