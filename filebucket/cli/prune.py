"""``filebucket prune``: delete files that no retention rule keeps.

:mod:`filebucket.upkeep.prune` does the work.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

import click
from attrs import define, field

from filebucket.base.capability import LINUX_IMMUTABLE
from filebucket.base.errors import OperatorError
from filebucket.base.text import (
    columns_of,
    counted,
    plural,
    printable,
    rfc3339,
    size_text,
    time_text,
)
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.jobs import job
from filebucket.cli.options import (
    bucket_labels,
    chosen_buckets,
    open_catalogue,
    with_config,
    with_json,
)
from filebucket.cli.table import GAP, paragraph, terminal_width
from filebucket.config.config import Config
from filebucket.config.load import load
from filebucket.model import schedule
from filebucket.model.bucket import Bucket
from filebucket.model.mask import mask
from filebucket.store.choose import archive_of
from filebucket.store.interfaces import IRemover
from filebucket.store.remove import prune_lock, removing
from filebucket.upkeep import prune as pruning
from filebucket.upkeep.prune import Fate, FileFate
from filebucket.upkeep.survey import check_store

if TYPE_CHECKING:
    from filebucket.store.s3.credentials import Credentials

_FATE = 10
"""Width of the first column."""
_COLORS = {"kept": "green", "left alone": "yellow", "failed": "red"}


@click.command("prune")
@click.argument("labels", metavar="[BUCKET]...", nargs=-1, shell_complete=bucket_labels)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Delete nothing; print what would be pruned, and why the rest is kept.",
)
@with_config
@with_json
def prune(labels: Sequence[str], path: str, as_json: bool, dry_run: bool) -> None:
    """Delete files that no retention rule keeps.

    In each series, keeps the files that the bucket's 'keep' rules select, the last good
    file, and all files younger than 'hold'. A rule that finds fewer files than its
    number also keeps the oldest file. Nothing in buckets without 'keep' is deleted.
    Exits with 1 if a file could not be deleted.
    """
    config = load(path)
    chosen = _with_keep(config, labels)
    if not chosen and not as_json:
        which = "none of these buckets" if labels else "no bucket"
        click.echo(f"Nothing to prune: {which} has 'keep' in the configuration.")
        return
    zone = schedule.local_zone()
    tally = _Tally(dry_run)
    with ExitStack() as stack:
        if chosen and not dry_run:
            stack.enter_context(prune_lock(config.home))
        current = _Current(path)
        config = current.config
        chosen = _with_keep(config, labels)
        hide = mask(config.buckets)
        outcomes = tally.counted(_prune(config, chosen, hide, zone, dry_run, current))
        if as_json:
            _print_json(outcomes, hide, tally)
        else:
            for line in _lines(outcomes, hide, zone, terminal_width()):
                click.echo(line)
            click.echo(tally.text)
    if tally.failed:
        raise SystemExit(1)


def _with_keep(config: Config, labels: Sequence[str]) -> list[Bucket]:
    """The chosen buckets that have retention rules."""
    return [each for each in chosen_buckets(config, labels) if each.keep is not None]


def _prune(
    config: Config,
    chosen: Sequence[Bucket],
    hide: Callable[[str], str],
    zone: tzinfo,
    dry_run: bool,
    current: Callable[[Bucket], Bucket],
) -> Iterator[FileFate]:
    if not chosen:
        return
    keep = None if dry_run or config.store is not None else LINUX_IMMUTABLE
    # With the caller's rights: the daemon's user must not have the credentials.
    who = _deleting(config, dry_run)
    with (
        open_catalogue(config, Inventory, keep=keep) as catalogue,
        nullcontext() if dry_run else job(config.catalogue_place, "prune") as lock,
        _opened(config, who) as remover,
    ):
        if config.store is not None:
            archive = archive_of(config.home, config.store, who=who)
            check_store(catalogue, archive, chosen)

        def checked(bucket: Bucket) -> Bucket:
            # Right before each removal: without the lock another machine may prune.
            if lock is not None:
                lock.check()
            return current(bucket)

        yield from pruning.prune(
            catalogue,
            remover,
            chosen,
            time.time(),
            zone,
            hide,
            rehearse=dry_run,
            others=config.buckets,
            current=checked,
        )


def _deleting(config: Config, dry_run: bool) -> Credentials | None:
    """The credentials that may delete from the object store, if any are needed.

    :raises OperatorError: there are none
    """
    if config.store is None:
        return None
    # A slow import, which only an object store needs.
    from filebucket.store.s3 import remove  # noqa: PLC0415

    return None if dry_run else remove.deleting(config.store)


def _opened(
    config: Config, who: Credentials | None
) -> AbstractContextManager[IRemover]:
    """Open the store to delete files.

    :param who: credentials that may; with None, nothing is deleted
    """
    if config.store is None:
        return removing(config.home)
    # Slow imports, which only an object store needs.
    from filebucket.store.s3 import credentials, remove  # noqa: PLC0415

    own = who or credentials.read(config.store.credentials)
    remover = remove.remover_of(config.store, own)
    if who is not None:
        remover.begin(_wait)
    return nullcontext(remover)


def _wait(seconds: float) -> None:
    text = f"Waiting {counted(round(seconds), 'second')} for an earlier prune to end."
    click.echo(text, err=True)
    time.sleep(seconds)


@define
class _Current:
    """Finds a bucket as it is in the configuration now: 'filebucket hold' may change
    the file at any time.

    :ivar seen: identifies the version of the file that was read
    """

    path: str
    seen: tuple[int, ...] = ()
    config: Config = field(init=False)
    buckets: dict[str, Bucket] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._read(self._look())

    def __call__(self, bucket: Bucket) -> Bucket:
        """
        :raises OperatorError: the file cannot be read, or is without the bucket
        """
        seen = self._look()
        if seen != self.seen:
            self._read(seen)
        if (found := self.buckets.get(bucket.key)) is None:
            raise OperatorError(f"bucket {bucket.label} was removed meanwhile")
        return found

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self.path)
        except PermissionError:
            # Root could read it, but the owner of the home may not.
            return self.seen
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self, seen: tuple[int, ...]) -> None:
        self.config, self.seen = load(self.path), seen
        self.buckets = {each.key: each for each in self.config.buckets}


@define
class _Tally:
    """Counts of outcomes."""

    dry_run: bool
    pruned: int = 0
    freed: int = 0
    kept: int = 0
    left: int = 0
    failed: int = 0

    def counted(self, outcomes: Iterable[FileFate]) -> Iterator[FileFate]:
        """Count the outcomes and pass them on; kept files only in a dry run."""
        for each in outcomes:
            match each.fate:
                case Fate.PRUNED:
                    self.pruned += 1
                    self.freed += each.file.received.size if each.file else 0
                case Fate.KEPT:
                    self.kept += 1
                case Fate.LEFT:
                    self.left += 1
                case Fate.FAILED:
                    self.failed += 1
            if self.dry_run or each.fate is not Fate.KEPT:
                yield each

    @property
    def text(self) -> str:
        """The summary line."""
        verb = "Would prune" if self.dry_run else "Pruned"
        files = f"{self.pruned} {plural(self.pruned, 'file')}"
        others = [f"{self.kept} kept"]
        if self.left:
            others.append(f"{self.left} left alone")
        if self.failed:
            others.append(f"{self.failed} failed")
        return f"{verb} {files} ({size_text(self.freed)}); {', '.join(others)}."


def _lines(
    outcomes: Iterable[FileFate],
    hide: Callable[[str], str],
    zone: tzinfo,
    width: int | None,
) -> Iterator[str]:
    """The files of each series below its name, without collecting them in memory.

    :param width: columns of the terminal; None is unlimited
    """
    before = None
    for each in outcomes:
        series = (each.bucket, each.series)
        if series != before:
            yield " ".join(map(printable, series)).rstrip()
            before = series
        fate = click.style(
            f"{each.fate.value:{_FATE}}", fg=_COLORS.get(each.fate.value)
        )
        cells = [GAP + fate]
        if each.file is not None:
            received = each.file.received
            cells.append(time_text(received.received_at, zone))
            cells.append(f"{size_text(received.size):>8}")
            cells.append(printable(hide(received.name)))
        line = GAP.join(cells)
        reasons = printable(", ".join(each.reasons))
        whole = f"{line}{GAP}{reasons}" if reasons else line
        if width is None or columns_of(click.unstyle(whole)) <= width:
            yield whole
        else:
            yield line
            below = " " * (len(GAP) + _FATE + len(GAP))
            for part in paragraph(reasons, width - len(below)):
                yield below + part


def _print_json(
    outcomes: Iterable[FileFate], hide: Callable[[str], str], tally: _Tally
) -> None:
    """Print one JSON object, file by file."""
    separator = '{\n  "files": [\n    '
    for each in outcomes:
        click.echo(separator + json.dumps(_as_json(each, hide)), nl=False)
        separator = ",\n    "
    if separator[0] == "{":
        click.echo(separator.rstrip(), nl=False)
    rest = {
        "dry_run": tally.dry_run,
        "pruned": tally.pruned,
        "freed": tally.freed,
        "kept": tally.kept,
        "left": tally.left,
        "failed": tally.failed,
    }
    click.echo(f"\n  ],\n{json.dumps(rest, indent=2)[2:]}")


def _as_json(outcome: FileFate, hide: Callable[[str], str]) -> dict[str, Any]:
    received = outcome.file.received if outcome.file else None
    return {
        "bucket": outcome.bucket,
        "series": outcome.series or None,
        "name": received and hide(received.name),
        "received_at": received and rfc3339(received.received_at),
        "size": received and received.size,
        "fate": outcome.fate.name.lower(),
        "reasons": outcome.reasons,
    }
