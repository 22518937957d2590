"""``filebucket verify``: re-read stored files and compare their checksums."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from shutil import copyfileobj
from tempfile import TemporaryFile

import click

from filebucket.base.errors import OperatorError
from filebucket.base.fs import replacing
from filebucket.base.owner import opened_as_owner_of
from filebucket.base.text import plural
from filebucket.catalogue.interfaces import IInventory
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.jobs import job
from filebucket.cli.options import (
    DURATION,
    RATE,
    bucket_labels,
    chosen_buckets,
    open_catalogue,
    with_config,
    with_json,
)
from filebucket.cli.progress import Findings, progress_bar
from filebucket.config.config import Config
from filebucket.config.load import load
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.model.names import PRIVATE
from filebucket.store.choose import archive_of
from filebucket.store.seal import SEALED_WITHIN
from filebucket.upkeep import pace as pacing
from filebucket.upkeep import verify as verifying
from filebucket.upkeep.survey import ROW_WITHIN


@click.command()
@click.argument("labels", metavar="[BUCKET]...", nargs=-1, shell_complete=bucket_labels)
@click.option(
    "--older-than",
    type=DURATION,
    metavar="TIME",
    help="Skip files received or verified within TIME, such as 30d.",
)
@click.option(
    "--rate",
    type=RATE,
    metavar="RATE",
    help="Read at most RATE bytes per second, such as 50MiB.",
)
@click.option(
    "--sha256sums",
    "sums",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Read no files; write their recorded checksums for sha256sum -c to FILE (- for"
    " standard output).",
)
@with_config
@with_json
def verify(
    labels: Sequence[str],
    path: str,
    as_json: bool,
    older_than: float | None,
    rate: int | None,
    sums: str | None,
) -> None:
    """Re-read stored files and compare their checksums.

    Bypasses the page cache, runs at idle priority, and starts with the files not
    verified for the longest time. Exits with 1 if a file is damaged, missing,
    unreadable, unknown (not received by file-bucket), or not sealed although 'seal' is
    in the configuration.

    A damaged file is replaced when it is pushed again with X-Checksum-Sha256.
    """
    config = load(path)
    chosen = chosen_buckets(config, labels)
    if sums is not None:
        if as_json or rate or older_than is not None:
            raise click.UsageError(
                "--sha256sums excludes --json, --rate and --older-than"
            )
        if sums == "-":
            with open_catalogue(config, Inventory) as catalogue:
                _print_sums(catalogue, chosen, mask(config.buckets))
        else:
            _write_sums(config, chosen, sums)
        return
    pacing.be_idle()
    pace = pacing.Pace(rate, time.monotonic, time.sleep) if rate else None
    with (
        open_catalogue(config, Inventory) as catalogue,
        job(config.catalogue_place, "verify"),
    ):
        before = time.time() - (older_than or 0)
        due = verifying.due(catalogue, chosen, before)
        with progress_bar(due.bytes) as bar:
            findings = Findings(as_json, bar)
            found = verifying.verify(
                catalogue,
                archive_of(config.home, config.store),
                chosen,
                config.buckets,
                due,
                time.time,
                pace=pace or (lambda size: None),
                late=late(config),
                wait=time.sleep,
                report=findings.print,
                progress=lambda found: bar.to(found.bytes),
                sealed=None
                if config.seal is None or config.store is not None
                else time.time() - config.seal - SEALED_WITHIN,
            )
    findings.end(found)
    if (
        found.damaged
        or found.missing
        or found.unreadable
        or found.stranger
        or found.unsealed
    ):
        raise SystemExit(1)


def late(config: Config) -> float:
    """Seconds from the publication of a file until its row is in the catalogue."""
    post_push = os.path.join(config.hooks, "post-push.sh")
    return ROW_WITHIN + (config.hook_timeout if os.path.exists(post_push) else 0)


def _print_sums(
    catalogue: IInventory, buckets: Sequence[Bucket], hide: Callable[[str], str]
) -> None:
    """Print checksums, but no line that contains a token, in the name of a file or of a
    folder: standard output may be public.
    """
    named = [each for each in buckets if each.name is not None]
    left_out = 0
    for line in verifying.sums(catalogue, named):
        if hide(line.decode()) == line.decode():
            click.echo(line, nl=False)
        else:
            left_out += 1
    if left_out:
        click.echo(
            f"{left_out} {plural(left_out, 'file')} left out: the name contains a"
            " token. Write to a FILE to include such files.",
            err=True,
        )
    for each in buckets:
        if each.name is None:
            click.echo(
                f"{each.label} left out: its folder is named after its token."
                " Write to a FILE to include it.",
                err=True,
            )


def _write_sums(config: Config, buckets: Sequence[Bucket], file: str) -> None:
    """Write all checksums to a file of the caller, which is private to it."""

    def gather() -> tuple[str, int]:
        with open_catalogue(config, Inventory) as catalogue:
            try:
                with TemporaryFile() as found:
                    found.writelines(verifying.sums(catalogue, buckets))
                    found.seek(0)
                    return "", os.dup(found.fileno())
            except OSError as error:
                raise OperatorError(f"a temporary file: {error.strerror}") from None

    # The folder of the file may be closed to the home's owner.
    _, fd = opened_as_owner_of(config.home, PRIVATE, gather)
    with open(fd, "rb") as found:
        try:
            with replacing(file, f"{file}.new") as stream:
                copyfileobj(found, stream)
        except OSError as error:
            raise OperatorError(f"{file}: {error.strerror}") from None
