"""``filebucket log``: recent pushes and refusals, from the catalogue.

Clients choose the names, so tokens in them are masked and control characters are
escaped.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import tzinfo
from typing import Any

import attrs
import click
from attrs import evolve

from filebucket.base.errors import ConfigError
from filebucket.base.fs import free_bytes
from filebucket.base.text import counted, printable, rfc3339, size_text, time_text
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.rows import RECEIVED
from filebucket.catalogue.view import View
from filebucket.cli import history
from filebucket.cli.history import Event, Wanted, latest
from filebucket.cli.options import (
    UnknownBucketError,
    bucket_labels,
    chosen_buckets,
    earliest,
    open_catalogue,
    with_config,
    with_json,
)
from filebucket.cli.output import wait
from filebucket.cli.table import Column, Table, escape_unprintable, terminal_width
from filebucket.config.config import Config
from filebucket.config.load import load
from filebucket.model.bucket import label_of
from filebucket.model.mask import mask
from filebucket.model.records import File, Refused
from filebucket.model.schedule import local_zone
from filebucket.model.series import series_of
from filebucket.model.state import State

LIMIT = 50
"""Number of pushes or refusals without --limit and --since."""
MOST_PUSHES = 100_000
"""Maximum of --limit: a push takes more than a kilobyte of memory."""
LEAST_FREE = 1024 * 1024
"""Free bytes with which the daemon can always write to its catalogue."""
PACE = 1.0
"""Seconds between two reads of --follow."""
_LAGS = (
    "the disk of home is full: the latest pushes and refusals may be missing here until"
    " there is space again; the daemon's log has them"
)


@click.command(short_help="List recent pushes, newest last.")
@click.argument("bucket", required=False, shell_complete=bucket_labels)
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_PUSHES),
    metavar="N",
    help=f"Show the latest N; {LIMIT} by default, or all with --since.",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Show those since TIME: a date, a timestamp, or a time span such as 7d.",
)
@click.option(
    "--series",
    metavar="NAME",
    help="Show only the series NAME, or those that match a shell pattern.",
)
@click.option("--refused", is_flag=True, help="Show refused requests instead.")
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Then show new pushes and refusals, until Ctrl-C.",
)
@with_config
@with_json
def log(
    path: str,
    bucket: str | None,
    limit: int | None,
    since: str | None,
    series: str | None,
    refused: bool,
    follow: bool,
    as_json: bool,
) -> None:
    """List recent pushes, or those to BUCKET, newest last.

    Only the latest refusals of each bucket are kept. With --json, each line is a JSON
    object.

    As root, reads the catalogue with the rights of the home's owner.
    """
    escape_unprintable()
    settings = _Settings(path, bucket)
    wanted = Wanted(
        settings.series_of,
        settings.key,
        series,
        -math.inf if since is None else _time(since),
        pushes=not refused,
        refusals=refused or follow,
    )
    most = limit or (LIMIT if since is None else MOST_PUSHES)
    show = _Output(settings, refused, as_json).show
    if settings.lags():
        click.echo(f"Warning: {_LAGS}", err=True)
    try:
        if follow:
            # Python's handler raises an exception, which is lost if it comes while an
            # object is deleted. This also tells the shell that Ctrl-C ended it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for found in history.follow(settings.catalogue, wanted, most, _wait, _warn):
                settings.refresh()
                show(found)
        with settings.catalogue() as catalogue:
            found = latest(catalogue, wanted, most)
        show(found)
    except CatalogueError as error:
        raise click.ClickException(str(error)) from None
    if limit is None and len(found) == MOST_PUSHES:
        click.echo(f"Only the latest {MOST_PUSHES} are listed.", err=True)


def _time(since: str) -> float:
    try:
        return earliest(since, time.time(), local_zone())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--since'") from None


def _wait() -> None:
    wait(PACE)


def _warn(error: CatalogueError) -> None:
    click.echo(f"Warning: {error}; trying again", err=True)


class _Settings:
    """The bucket and the tokens of the configuration, which may change during --follow.

    :ivar key: the key of the chosen bucket
    """

    def __init__(self, path: str, label: str | None) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._config = load(path)
        self._use(self._config)
        self.key = None
        if label is not None:
            try:
                (chosen,) = chosen_buckets(self._config, [label])
            except UnknownBucketError as error:
                raise click.ClickException(
                    f"{error} ('filebucket log' without a name also lists removed"
                    " buckets)"
                ) from None
            self.key = chosen.key

    def _use(self, config: Config) -> None:
        self.hide = mask(config.buckets)
        self._patterns = {each.key: each.series for each in config.buckets}

    def catalogue(self) -> AbstractContextManager[View]:
        """Opens the catalogue."""
        return open_catalogue(self._config, View)

    def lags(self) -> bool:
        """Whether the daemon can add nothing to a catalogue in the home."""
        if self._config.catalogue is not None:
            return False
        try:
            found = os.statvfs(self._config.home)
        except OSError:
            # To open the catalogue will fail with the reason.
            return False
        return free_bytes(found) < LEAST_FREE

    def refresh(self) -> None:
        """Mask the tokens of new buckets, too."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            # While it has an error, the daemon does not use it, either.
            with suppress(ConfigError):
                self._use(load(self._path))

    def series_of(self, refused: Refused) -> str | None:
        """The series that the push would have had."""
        if refused.name is None:
            return None
        patterns = self._patterns.get(refused.bucket, ())
        return series_of(self.hide(refused.name), patterns)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


class _Output:
    """Prints pushes and refusals."""

    def __init__(self, settings: _Settings, refused: bool, as_json: bool) -> None:
        """
        :param refused: whether there are only refusals
        """
        self._settings = settings
        self._refused = refused
        self._as_json = as_json
        self._table = Table(_REFUSALS if refused else _PUSHES)
        self._zone = local_zone()

    def show(self, found: Iterable[Event]) -> None:
        if self._as_json:
            for each in found:
                click.echo(json.dumps(self._json(each)))
        else:
            for line in self._table.lines(map(self._row, found), terminal_width()):
                click.echo(line)

    def _json(self, event: Event) -> dict[str, Any]:
        hide = self._settings.hide
        if isinstance(event, File):
            return push_json(event, hide)
        return refusal_json(_masked(event, hide))

    def _row(self, event: Event) -> list[str]:
        hide = self._settings.hide
        if isinstance(event, File):
            return push_row(event, hide, self._zone)
        cells = refusal_row(_masked(event, hide), self._zone)
        if self._refused:
            return cells
        at, bucket, name, size, client, _, status, reason = cells
        return [at, bucket, name, size, "-", client, f"refused, {status}: {reason}"]


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
    Column("REASON", text=52),
)


def _masked(refused: Refused, hide: Callable[[str], str]) -> Refused:
    name = None if refused.name is None else hide(refused.name)
    return evolve(refused, bucket=label_of(refused.bucket) or "-", name=name)


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
