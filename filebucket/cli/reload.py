"""``filebucket reload``: put the list of buckets in force."""

from __future__ import annotations

import click

from filebucket.cli.options import print_json, with_config, with_json
from filebucket.daemon.ask import ask


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the daemon gets.",
)
@with_config
@with_json
def reload(timeout: float, path: str, as_json: bool) -> None:
    """Put the list of buckets in force, and wait until it is.

    The file is checked first. Exits with 1, and the reason, where the daemon could
    not take it over, or did not say that it has. To be called as root, or as the
    daemon's user.
    """
    answer = ask(path, timeout)
    if as_json:
        print_json(
            buckets=answer.buckets,
            added=answer.added,
            removed=answer.removed,
            waiting=answer.waiting,
        )
        return
    click.echo(
        f"In force. Buckets: {answer.buckets}."
        f" Tokens: {answer.added} added, {answer.removed} removed."
    )
    if answer.waiting:
        click.echo(f"Waiting for a restart: {', '.join(answer.waiting)}.")
