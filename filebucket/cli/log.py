"""``filebucket log``: recent pushes and refusals, from the catalogue.

Clients choose the names, so tokens in them are masked and control characters are
escaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo
from typing import Any

import attrs
import click
from attrs import evolve

from filebucket.base.text import counted, printable, rfc3339, size_text, time_text
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.rows import RECEIVED
from filebucket.catalogue.view import View
from filebucket.cli.options import (
    UnknownBucketError,
    bucket_labels,
    chosen_buckets,
    open_catalogue,
    with_config,
    with_json,
)
from filebucket.cli.table import Column, escape_unprintable, table, terminal_width
from filebucket.config.load import load
from filebucket.model.bucket import label_of
from filebucket.model.mask import mask
from filebucket.model.records import File, Refused
from filebucket.model.schedule import local_zone
from filebucket.model.state import State

MOST_PUSHES = 100_000
"""Maximum of --limit: a push takes more than a kilobyte of memory."""


@click.command(short_help="List recent pushes, newest last.")
@click.argument("bucket", required=False, shell_complete=bucket_labels)
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_PUSHES),
    default=50,
    show_default=True,
    metavar="N",
    help="Show the latest N.",
)
@click.option("--refused", is_flag=True, help="Show refused requests instead.")
@with_config
@with_json
def log(
    path: str, bucket: str | None, limit: int, refused: bool, as_json: bool
) -> None:
    """List recent pushes, or those to BUCKET, newest last.

    Only the latest refusals of each bucket are kept. With --json, each line is a JSON
    object.

    As root, reads the catalogue with the rights of the home's owner.
    """
    escape_unprintable()
    try:
        config = load(path)
        key = None
        if bucket is not None:
            (chosen,) = chosen_buckets(config, [bucket])
            key = chosen.key
        hide = mask(config.buckets)
        with open_catalogue(config, View) as catalogue:
            if refused:
                refusals = [
                    _masked(each, hide) for each in catalogue.refusals(limit, key)[::-1]
                ]
                lines = _refusal_lines(refusals, as_json)
            else:
                files = catalogue.latest(limit, key)[::-1]
                lines = _push_lines(files, hide, as_json)
    except UnknownBucketError as error:
        raise click.ClickException(
            f"{error} ('filebucket log' without a name also lists removed buckets)"
        ) from None
    except CatalogueError as error:
        raise click.ClickException(str(error)) from None
    for line in lines:
        click.echo(line)


_PUSHES = (
    Column("TIME"),
    Column("BUCKET", name=True),
    Column("NAME", name=True),
    Column("SIZE", right=True),
    Column("SECONDS", right=True, optional=1),
    Column("CLIENT", optional=2),
    Column("NOTES", text=20, below=True),
)
_REFUSALS = (
    Column("TIME"),
    Column("BUCKET", name=True),
    Column("NAME", name=True),
    Column("SIZE", right=True, optional=2),
    Column("CLIENT", below=True),
    Column("REQUEST", optional=1),
    Column("STATUS", right=True),
    Column("REASON", text=20),
)


def _masked(refused: Refused, hide: Callable[[str], str]) -> Refused:
    name = None if refused.name is None else hide(refused.name)
    return evolve(refused, bucket=label_of(refused.bucket) or "-", name=name)


def _push_lines(
    files: Sequence[File], hide: Callable[[str], str], as_json: bool
) -> Iterator[str]:
    if as_json:
        return (json.dumps(push_json(each, hide)) for each in files)
    zone = local_zone()
    return table(
        _PUSHES, [push_row(each, hide, zone) for each in files], terminal_width()
    )


def _refusal_lines(refusals: Sequence[Refused], as_json: bool) -> Iterator[str]:
    if as_json:
        return (json.dumps(refusal_json(each)) for each in refusals)
    zone = local_zone()
    return table(
        _REFUSALS, [refusal_row(each, zone) for each in refusals], terminal_width()
    )


def push_row(file: File, hide: Callable[[str], str], zone: tzinfo) -> list[str]:
    """The cells of a push.

    :param hide: masks the tokens in a name
    """
    push = file.received
    return [
        time_text(push.received_at, zone),
        printable(label_of(push.bucket)),
        printable(hide(push.name)),
        size_text(push.size),
        "-" if push.seconds is None else _seconds(push.seconds),
        printable(push.client or "-"),
        ", ".join(_notes(file)) or "-",
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _notes(file: File) -> Iterator[str]:
    """Everything that is unusual about a push."""
    push = file.received
    if file.judgement is not State.FRESH:
        yield file.judgement.value
    if push.overwrote:
        yield "overwrote"
    if push.request is None:
        yield "found on disk"
    if push.parts is not None:
        yield counted(push.parts, "part")
    if push.post_push:
        yield f"post-push {push.post_push}"
    if file.fate != "kept":
        yield _WORDS.get(file.fate, file.fate)
    if file.damaged:
        yield "damaged"


_WORDS = {"overwritten": "replaced"}
"""Words for fates. A missing file that was pushed again is overwritten, too."""


def push_json(file: File, hide: Callable[[str], str]) -> dict[str, Any]:
    """A push as JSON."""
    push = file.received
    return {
        **attrs.asdict(push, filter=lambda each, _: each.name in RECEIVED),
        "bucket": label_of(push.bucket),
        "name": hide(push.name),
        "received_at": rfc3339(push.received_at),
        "judgement": file.judgement.value,
        "fate": file.fate,
        "fate_at": rfc3339(file.fate_at),
        "verified_at": rfc3339(file.verified_at),
        "damaged": file.damaged,
    }


def refusal_row(refused: Refused, zone: tzinfo) -> list[str]:
    """The cells of a refusal.

    :param refused: a refusal with a label as its bucket and a masked name
    """
    return [
        time_text(refused.at, zone),
        printable(refused.bucket),
        "-" if refused.name is None else printable(refused.name),
        size_text(refused.size) if refused.size >= 0 else "-",
        printable(refused.client),
        printable(refused.request),
        str(refused.status),
        printable(refused.reason),
    ]


def refusal_json(refused: Refused) -> dict[str, Any]:
    """A refusal as JSON.

    :param refused: a refusal with a label as its bucket and a masked name
    """
    known = refused.size >= 0
    return {
        **attrs.asdict(refused),
        "at": rfc3339(refused.at),
        "size": refused.size if known else None,
    }
