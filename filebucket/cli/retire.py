"""``filebucket retire``: accept no more pushes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from filebucket.cli.changes import named, print_changes
from filebucket.cli.options import with_buckets, with_config, with_json
from filebucket.config.edit import NotChangedError, set_buckets
from filebucket.model.bucket import Bucket


@click.command(short_help="Close a bucket, and keep its files.")
@with_buckets
@click.option("--undo", is_flag=True, help="Put a retired bucket back into use.")
@with_config
@with_json
def retire(buckets: Sequence[str], path: str, as_json: bool, undo: bool) -> None:
    """Close each BUCKET: it accepts no pushes, and none is expected.

    Its files stay: 'filebucket verify' and 'filebucket prune' treat them as before.
    'filebucket status' lists the bucket last. 'filebucket reload' applies this, and
    ends pushes to the bucket that are in progress.
    """

    def check(bucket: Bucket) -> None:
        if bucket.retired is not undo:
            state = "not retired" if undo else "already retired"
            raise NotChangedError(f"bucket {bucket.label!r} is {state}")

    if undo:
        changes = set_buckets(path, buckets, {}, ["retired"], check)
        text = f"Put {named(changes)} back into use."
    else:
        changes = set_buckets(path, buckets, {"retired": True}, (), check)
        text = f"Retired {named(changes)}. The files stay."
    print_changes(text, changes, path, as_json)
