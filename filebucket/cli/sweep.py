"""``filebucket sweep``: delete data that belongs to no file from the object store.

:mod:`filebucket.store.s3.sweep` does the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from attrs import define

from filebucket.base.errors import OperatorError
from filebucket.base.text import counted, printable, rfc3339, size_text
from filebucket.catalogue.files import Files
from filebucket.catalogue.jobs import job
from filebucket.cli.options import (
    DURATION,
    bucket_labels,
    chosen_buckets,
    open_catalogue,
    with_config,
    with_json,
)
from filebucket.config.config import Config
from filebucket.config.load import load
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask

if TYPE_CHECKING:
    from filebucket.store.s3.sweep import Swept


@click.command(short_help="Delete unused data from the object store.")
@click.argument("labels", metavar="[BUCKET]...", nargs=-1, shell_complete=bucket_labels)
@click.option(
    "--older-than",
    type=DURATION,
    default="1d",
    show_default=True,
    metavar="TIME",
    help="Leave data alone for TIME after it was stored or replaced; at least 1h.",
)
@click.option(
    "--dry-run", is_flag=True, help="Delete nothing; print what would be deleted."
)
@with_config
@with_json
def sweep(
    labels: Sequence[str], path: str, older_than: float, dry_run: bool, as_json: bool
) -> None:
    """Delete unused data from the object store.

    Unused data belongs to no file: its push failed, or another push replaced the file.
    Right before deleting data, the command checks again that no file needs it. Delete
    the parts of uploads that were not completed with a lifecycle rule of the S3 bucket.
    Exits with 1 if data could not be deleted.

    Without 'store' in the configuration there is nothing to do.
    """
    config = load(path)
    chosen = chosen_buckets(config, labels)
    tally = _Tally(dry_run)
    hide = mask(config.buckets)
    found = _swept(config, chosen, older_than, dry_run)
    if as_json:
        _print_json(tally.counted(found), hide, tally)
    elif config.store is None:
        click.echo("Nothing to sweep: files are not in an object store.")
    else:
        for bucket, each in tally.counted(found):
            click.echo(_line(bucket, each, hide))
        click.echo(tally.text)
    if tally.failed:
        raise SystemExit(1)


def _swept(
    config: Config, buckets: Sequence[Bucket], older_than: float, dry_run: bool
) -> Iterator[tuple[Bucket, Swept]]:
    store = config.store
    if store is None:
        return
    # Slow imports, which only an object store needs.
    from filebucket.store.s3 import credentials, remove  # noqa: PLC0415
    from filebucket.store.s3.interfaces import ObjectError  # noqa: PLC0415
    from filebucket.store.s3.sweep import LEAST_GRACE, Sweep  # noqa: PLC0415

    if older_than < LEAST_GRACE:
        raise click.BadParameter("must be at least 1h", param_hint="--older-than")
    # With the caller's rights: the daemon's user must not have its credentials.
    who = None if dry_run else remove.deleting(store)
    with (
        open_catalogue(config, Files) as files,
        nullcontext() if dry_run else job(config.catalogue_place, "sweep"),
    ):
        remover = remove.remover_of(store, who or credentials.read(store.credentials))
        for bucket in buckets:
            made = Sweep(
                remover.names,
                remover.data,
                remover.keys,
                bucket.directory,
                older_than,
                partial(files.is_missed, bucket.key),
                dry_run,
                _wait,
            )
            try:
                for each in made.run():
                    yield bucket, each
            except ObjectError as error:
                raise OperatorError(f"bucket {bucket.label}: {error}") from None


def _wait(seconds: float) -> None:
    if seconds:
        minutes = counted(round(seconds / 60) or 1, "minute")
        click.echo(f"Waiting {minutes} for pushes that may be about to end.", err=True)
    time.sleep(seconds)


@define
class _Tally:
    """Counts of results."""

    dry_run: bool
    deleted: int = 0
    freed: int = 0
    young: int = 0
    failed: int = 0

    def counted(
        self, found: Iterator[tuple[Bucket, Swept]]
    ) -> Iterator[tuple[Bucket, Swept]]:
        """Count the results, and pass them on; data that is too new is only counted."""
        for bucket, each in found:
            name = each.fate.name.lower()
            setattr(self, name, getattr(self, name) + 1)
            if name == "deleted":
                self.freed += each.size
            if name != "young":
                yield bucket, each

    @property
    def text(self) -> str:
        """The summary line."""
        verb = "Would delete" if self.dry_run else "Deleted"
        said = f"{verb} {counted(self.deleted, 'object')} ({size_text(self.freed)})"
        others = ((self.young, "too new"), (self.failed, "failed"))
        rest = ", ".join(f"{count} {word}" for count, word in others if count)
        return f"{said}; {rest}." if rest else f"{said}."


def _line(bucket: Bucket, each: Swept, hide: Callable[[str], str]) -> str:
    name = printable(hide(each.name))
    line = f"{each.fate.value:8}  {size_text(each.size):>8}  {bucket.label}  {name}"
    return f"{line}: {printable(each.reason)}" if each.reason else line


def _print_json(
    found: Iterator[tuple[Bucket, Swept]], hide: Callable[[str], str], tally: _Tally
) -> None:
    """Print one JSON object, object by object."""
    separator = '{\n  "objects": [\n    '
    for bucket, each in found:
        said: dict[str, Any] = {
            "bucket": bucket.label,
            "name": hide(each.name),
            "size": each.size,
            "modified_at": rfc3339(each.modified),
            "fate": each.fate.name.lower(),
            "reason": each.reason or None,
        }
        click.echo(separator + json.dumps(said), nl=False)
        separator = ",\n    "
    if separator[0] == "{":
        click.echo(separator.rstrip(), nl=False)
    rest = {
        "dry_run": tally.dry_run,
        "deleted": tally.deleted,
        "freed": tally.freed,
        "young": tally.young,
        "failed": tally.failed,
    }
    click.echo(f"\n  ],\n{json.dumps(rest, indent=2)[2:]}")
