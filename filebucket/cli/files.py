"""``filebucket files``: the stored files of a bucket, from the catalogue."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from itertools import islice
from typing import Any

import click

from filebucket.base.errors import OperatorError
from filebucket.base.text import (
    moment_text,
    printable,
    rfc3339,
    size_text,
    time_text,
)
from filebucket.catalogue.files import Files
from filebucket.cli.listing import file_json
from filebucket.cli.options import (
    bucket_labels,
    chosen_buckets,
    open_catalogue,
    with_config,
    with_json,
)
from filebucket.cli.table import Column, Table, escape_unprintable, terminal_width
from filebucket.config.load import load
from filebucket.model.bucket import Bucket, Held
from filebucket.model.mask import mask
from filebucket.model.records import File
from filebucket.model.schedule import local_zone
from filebucket.model.state import State
from filebucket.upkeep.restore import faults

AT_ONCE = 1000
"""Number of rows whose columns are aligned together."""

_FILES = (
    Column("TIME"),
    # An operator copies it into another command.
    Column("NAME", name=True, ample=60),
    Column("SIZE", right=True),
    Column("VERIFIED", optional=1),
    Column("NOTES", text=20, below=True),
)


@click.command(short_help="List the stored files of a bucket, newest last.")
@click.argument("bucket", shell_complete=bucket_labels)
@click.argument("series", required=False)
@with_config
@with_json
def files(path: str, bucket: str, series: str | None, as_json: bool) -> None:
    """List the stored files of BUCKET, newest last, or only those of SERIES, which may
    be a shell pattern. Exits with 1 if SERIES has no files.

    Notes show why a file is not good: damaged, empty, shrunk, or being pruned; and
    until when it is held. With --json, each line is a JSON object.
    """
    escape_unprintable()
    config = load(path)
    (chosen,) = chosen_buckets(config, [bucket])
    hide = mask(config.buckets)
    held = partial(_held, chosen, time.time())
    with open_catalogue(config, Files) as catalogue:
        found = catalogue.oldest_first(chosen.key, series=series)
        some = False
        if as_json:
            for each in found:
                some = True
                click.echo(json.dumps(_json(each, chosen.label, hide, held(each))))
        table, zone = Table(_FILES), local_zone()
        while rows := [
            _row(each, hide, zone, held(each)) for each in islice(found, AT_ONCE)
        ]:
            some = True
            for line in table.lines(rows, terminal_width()):
                click.echo(line)
    if some:
        return
    if series is not None:
        raise OperatorError(
            f"bucket {chosen.label} has no files of the series"
            f" {printable(hide(series))}; 'filebucket status' lists the series"
        )
    if not as_json:
        click.echo(f"Bucket {chosen.label} has no files.")


def _held(bucket: Bucket, now: float, file: File) -> Held | None:
    return bucket.held_now(file.received.name, now)


def _row(
    file: File, hide: Callable[[str], str], zone: tzinfo, held: Held | None
) -> list[str]:
    notes = faults(file)
    if file.judgement is State.GROWN:
        notes.append("grown")
    if held is not None:
        notes.append(f"held until {moment_text(held.until)}")
    verified = file.verified_at
    return [
        time_text(file.received.received_at, zone),
        printable(hide(file.received.name)),
        size_text(file.received.size),
        "-" if verified is None else time_text(verified, zone),
        ", ".join(notes) or "-",
    ]


def _json(
    file: File, label: str, hide: Callable[[str], str], held: Held | None
) -> dict[str, Any]:
    return {
        **file_json(file, label, hide),
        "verified_at": rfc3339(file.verified_at),
        "faults": faults(file),
        "held": held and {"until": moment_text(held.until), "reason": held.reason},
    }
