"""The commands with which an operator looks after what is there.

They only parse and print; what they do is done in :mod:`~filebucket.upkeep.reindex` and
:mod:`~filebucket.upkeep.verify`. On a terminal a bar says how far they are; elsewhere
there is nothing of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import click

from filebucket.base.fs import replacing
from filebucket.base.text import plural, printable, size_text
from filebucket.catalogue.interfaces import IInventory
from filebucket.catalogue.inventory import Inventory
from filebucket.cli.options import (
    DURATION,
    RATE,
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
from filebucket.upkeep import pace as pacing
from filebucket.upkeep import reindex as reindexing
from filebucket.upkeep import verify as verifying
from filebucket.upkeep.survey import ROW_WITHIN, Finding, Found, count_names

_COLOURS = {
    "damaged": "red",
    "missing": "red",
    "unreadable": "red",
    "stranger": "yellow",
    "replaced": "yellow",
}


@click.command("reindex")
@click.option(
    "--accept",
    is_flag=True,
    help="What is missing shall be, and what is damaged is what it should be.",
)
@with_config
@with_json
def reindex(path: str, as_json: bool, accept: bool) -> None:
    """Bring the catalogue and the disk together.

    The daemon does so at its start. Files without a row are read and entered, rows
    without a file are marked as missing. No file is changed. Exits with 1 where
    something turns out to be damaged, missing or unreadable.
    """
    config = load(path)
    with (
        open_catalogue(config, Inventory, create=True) as catalogue,
        _bar(count_names(config.home, config.buckets)) as bar,
    ):
        printed = _Printed(as_json, bar)
        found = reindexing.reindex(
            catalogue,
            config.home,
            config.buckets,
            time.time,
            report=printed.finding,
            progress=lambda found: bar.to(found.files),
            accept=accept,
        )
    printed.end(found)
    if found.damaged or found.missing or found.unreadable:
        raise SystemExit(1)


@click.command("verify")
@click.argument("labels", metavar="[BUCKET]...", nargs=-1, shell_complete=bucket_labels)
@click.option(
    "--older-than",
    type=DURATION,
    metavar="TIME",
    help="Read only what nobody has compared for so long, such as 30d.",
)
@click.option(
    "--rate", type=RATE, metavar="RATE", help="Bytes a second at most, such as 50MiB."
)
@click.option(
    "--sha256sums",
    "sums",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Read nothing, but write what sha256sum -c takes; - is stdout.",
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
    """Read what was pushed, and compare it with what was received.

    Past the page cache, when nobody else wants the processor or the disk, and what
    waits longest first. Exits with 1 where something is damaged, missing, unreadable,
    or a stranger, which is what nobody pushed.
    """
    config = load(path)
    chosen = chosen_buckets(config, labels)
    if sums is not None:
        if as_json or rate or older_than is not None:
            raise click.UsageError("--sha256sums goes with --config and buckets only")
        with open_catalogue(config, Inventory) as catalogue:
            _write_sums(catalogue, chosen, sums, mask(config.buckets))
        return
    be_idle()
    pace = pacing.Pace(rate, time.monotonic, time.sleep) if rate else None
    with open_catalogue(config, Inventory) as catalogue:
        before = time.time() - (older_than or 0)
        due = verifying.due(catalogue, chosen, before)
        with _bar(due.bytes) as bar:
            printed = _Printed(as_json, bar)
            found = verifying.verify(
                catalogue,
                config.home,
                chosen,
                config.buckets,
                due,
                time.time,
                pace=pace or (lambda size: None),
                late=_late(config),
                wait=time.sleep,
                report=printed.finding,
                progress=lambda found: bar.to(found.bytes),
            )
    printed.end(found)
    if found.damaged or found.missing or found.unreadable or found.stranger:
        raise SystemExit(1)


def _late(config: Config) -> float:
    """Seconds after its file's publication in which the row of a push comes."""
    post_push = os.path.join(config.hooks, "post-push.sh")
    return ROW_WITHIN + (config.hook_timeout if os.path.exists(post_push) else 0)


def be_idle() -> None:
    """Have the processor and the disk only when nobody else wants them."""
    os.nice(19)
    ionice = shutil.which("ionice")
    if ionice is not None:
        # Of a system that has no such thing it is not asked.
        subprocess.run(  # noqa: S603 - all of it is ours
            [ionice, "--class", "idle", "--pid", str(os.getpid())],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class _Bar:
    """How far it is, on a terminal."""

    def __init__(self, bar: Any, length: int = 0) -> None:
        self._bar = bar
        self._length = length
        self._at = 0

    def to(self, at: int) -> None:
        """It is so far; which is shown when it makes a difference."""
        if self._bar is not None:
            moved = at - self._at
            if moved * 1000 >= self._length or (moved and at == self._length):
                self._bar.update(moved)
                self._at = at

    def clear(self) -> None:
        """Make room for a line."""
        if self._bar is not None:
            click.echo("\r\033[K", nl=False, err=True)


@contextmanager
def _bar(length: int) -> Iterator[_Bar]:
    if not sys.stderr.isatty() or not length:
        yield _Bar(None)
        return
    with click.progressbar(length=length, file=sys.stderr) as bar:
        yield _Bar(bar, length)


class _Printed:
    """What is said, as it is found: in lines, or as one object."""

    def __init__(self, as_json: bool, bar: _Bar) -> None:
        self._as_json = as_json
        self._bar = bar
        self._separator = '{\n  "findings": ['

    def finding(self, finding: Finding) -> None:
        """A line of it."""
        if finding.kind == "entered":
            return  # there may be a million
        self._bar.clear()
        if self._as_json:
            said = json.dumps(attrs.asdict(finding))
            click.echo(f"{self._separator}\n    {said}", nl=False)
            self._separator = ","
            return
        kind = click.style(f"{finding.kind:10}", fg=_COLOURS.get(finding.kind))
        name = "its folder" if finding.name is None else printable(finding.name)
        reason = f": {finding.reason}" if finding.reason else ""
        click.echo(f"{kind}  {printable(finding.bucket)}  {name}{reason}")

    def end(self, found: Found) -> None:
        """What came of it."""
        if self._as_json:
            start = self._separator if self._separator != "," else "\n  "
            rest = json.dumps(attrs.asdict(found), indent=2)
            click.echo(f"{start}],\n{rest[2:]}")
            return
        files = f"{found.files} {plural(found.files, 'file')}"
        read = f"{found.read} read ({size_text(found.bytes)})"
        click.echo(f"{files}, {read}: {found.text or 'in order'}")


def _write_sums(
    catalogue: IInventory,
    buckets: Sequence[Bucket],
    file: str,
    hide: Callable[[str], str],
) -> None:
    """What is in a file is for its owner only; what is on stdout may be for all, and
    has no folder in it that is called by a token, nor a file.
    """
    if file == "-":
        named = [each for each in buckets if each.name is not None]
        left_out = 0
        for line in verifying.sums(catalogue, named):
            if hide(line.decode()) == line.decode():
                click.echo(line, nl=False)
            else:
                left_out += 1
        if left_out:
            click.echo(
                f"{left_out} {plural(left_out, 'file')} left out: a token is"
                " in the name; name a FILE",
                err=True,
            )
        for each in buckets:
            if each.name is None:
                click.echo(
                    f"{each.label} is left out: its folder is called by its token;"
                    " name a FILE",
                    err=True,
                )
        return
    try:
        with replacing(file, f"{file}.new") as stream:
            stream.writelines(verifying.sums(catalogue, buckets))
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
