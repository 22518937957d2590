"""``filebucket pause``: expect no push for a while."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from filebucket.base.text import moment_text
from filebucket.cli.changes import named, print_changes
from filebucket.cli.options import DATE, LINE, with_buckets, with_config, with_json
from filebucket.config import values
from filebucket.config.edit import set_buckets


@click.command(short_help="Expect no pushes until a date.")
@with_buckets
@click.option(
    "--until",
    type=DATE,
    metavar="DATE",
    required=True,
    help="Last day of the pause (UTC), such as 2026-12-31, or a time.",
)
@click.option(
    "--reason", type=LINE, metavar="TEXT", required=True, help="Why, in one line."
)
@with_config
@with_json
def pause(
    buckets: Sequence[str], path: str, as_json: bool, until: str, reason: str
) -> None:
    """Expect no pushes to each BUCKET until a date.

    Until then, no backup of the bucket is late; after that, its schedule applies again.
    Pushes are still accepted. 'filebucket resume' ends the pause earlier.
    """
    end = values.moment(until)
    if end <= time.time():
        raise click.BadParameter("is in the past", param_hint="--until")
    paused = {"paused": {"until": until, "reason": reason}}
    changes = set_buckets(path, buckets, paused)
    text = f"Paused {named(changes)} until {moment_text(end)}: {reason}"
    print_changes(text, changes, path, as_json)
