"""``filebucket resume``: expect pushes again."""

from __future__ import annotations

from collections.abc import Sequence

import click

from filebucket.cli.changes import named, print_changes
from filebucket.cli.options import with_buckets, with_config, with_json
from filebucket.config.edit import NotChangedError, set_buckets
from filebucket.model.bucket import Bucket


@click.command(short_help="End the pause of a bucket.")
@with_buckets
@with_config
@with_json
def resume(buckets: Sequence[str], path: str, as_json: bool) -> None:
    """End the pause of each BUCKET, which 'filebucket pause' began.

    The schedule applies again at once: a backup that is overdue is reported as late.
    """
    changes = set_buckets(path, buckets, {}, ["paused"], _check)
    print_changes(f"Resumed {named(changes)}.", changes, path, as_json)


def _check(bucket: Bucket) -> None:
    if bucket.paused is None:
        raise NotChangedError(f"bucket {bucket.label!r} is not paused")
