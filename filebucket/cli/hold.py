"""``filebucket hold``: keep files until a date, whatever the retention rules say.

The holds are in the configuration, which belongs to root: neither the daemon's user nor
a lost catalogue can end them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import click

from filebucket.base.errors import OperatorError
from filebucket.base.owner import (
    AS_OWNER,
    become_owner_of,
    opened_as_owner_of,
    refused_hint,
)
from filebucket.base.text import joined, moment_text, printable
from filebucket.cli.changes import how_to_apply
from filebucket.cli.options import (
    DATE,
    LINE,
    bucket_labels,
    chosen_buckets,
    print_json,
    with_config,
    with_json,
)
from filebucket.cli.table import Column, escape_unprintable, table, terminal_width
from filebucket.config import values
from filebucket.config.config import Config
from filebucket.config.edit import Change, NotChangedError, set_holds
from filebucket.config.load import load
from filebucket.model.bucket import Bucket, Held
from filebucket.model.mask import mask
from filebucket.model.names import PRIVATE
from filebucket.store.archive import DirectoryArchive
from filebucket.store.choose import archive_of, load_modules
from filebucket.store.interfaces import IArchive, NoFileError, NotAFileError
from filebucket.store.remove import await_removal

_HOLDS = (
    Column("NAME", name=True),
    Column("UNTIL"),
    Column("FILE"),
    Column("REASON", text=20, below=True),
)


@click.command(short_help="Keep files until a date, or list such files.")
@click.argument("bucket", shell_complete=bucket_labels)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--until",
    type=DATE,
    metavar="DATE",
    help="Last day of the hold (UTC), such as 2026-12-31, or a time.",
)
@click.option("--reason", type=LINE, metavar="TEXT", help="Why, in one line.")
@click.option("--release", is_flag=True, help="End the hold of each NAME.")
@with_config
@with_json
def hold(
    path: str,
    bucket: str,
    names: Sequence[str],
    until: str | None,
    reason: str | None,
    release: bool,
    as_json: bool,
) -> None:
    """Keep the file NAME of BUCKET until a date: 'filebucket prune' does not delete it,
    and no push replaces it.

    Without NAME, lists the files of BUCKET that are held. A hold ends at its date, or
    with --release. It can be made longer, but not shorter.
    """
    escape_unprintable()
    now = time.time()
    _check_usage(names, until, reason, release, now)
    config = load(path)
    (chosen,) = chosen_buckets(config, [bucket])
    shown = _shown(config)
    if not names:
        _list(config, chosen, shown, now, as_json)
        return
    listed = joined([shown(each) for each in names])
    if release:
        change = set_holds(path, bucket, _releasing(names, shown), now)
        text = f"Released {listed} of bucket {chosen.label}."
    else:
        assert until is not None
        assert reason is not None

        _check_stored(config, chosen, names, shown)
        holding = _holding(names, until, reason, shown)
        change = set_holds(path, bucket, holding, now)
        # 'filebucket prune' reads the change before each removal, so no file is deleted
        # that is there now.
        try:
            _check_stored(config, chosen, names, shown, after_removal=True)
        except OperatorError as error:
            raise OperatorError(f"{listed}: now held, but {error}") from None
        end = moment_text(values.moment(until))
        text = f"Held {listed} of bucket {chosen.label} until {end}: {reason}"
    if as_json:
        _print_json(change, path, now)
        return
    click.echo(
        f"{text}\n\n'filebucket prune' respects this at once, the daemon after a"
        f" reload.\n{how_to_apply(change.config.home, path)}"
    )


def _check_usage(
    names: Sequence[str],
    until: str | None,
    reason: str | None,
    release: bool,
    now: float,
) -> None:
    """
    :raises click.UsageError: the options do not fit together, or the date is over
    """
    given = [
        option
        for option, value in (("--until", until), ("--reason", reason))
        if value is not None
    ]
    if (release or given) and not names:
        option = "--release" if release else given[0]
        raise click.UsageError(f"{option} needs the NAME of a file.")
    if release and given:
        raise click.UsageError(f"--release excludes {given[0]}.")
    if names and not release and len(given) < 2:
        missing = "--reason" if until is not None else "--until"
        raise click.UsageError(f"Missing option '{missing}'.")
    if until is not None and values.moment(until) <= now:
        raise click.BadParameter("is in the past", param_hint="--until")


def _shown(config: Config) -> Callable[[str], str]:
    """A function that makes a name fit to be printed."""
    hide = mask(config.buckets)
    return lambda name: printable(hide(name))


def _check_stored(
    config: Config,
    bucket: Bucket,
    names: Sequence[str],
    shown: Callable[[str], str],
    after_removal: bool = False,
) -> None:
    """
    :param after_removal: whether to wait until none of the files is being deleted
    :raises OperatorError: a file is not stored
    """
    home = config.home
    refused = refused_hint(home)
    load_modules(config.store)

    def work() -> tuple[str, None]:
        become_owner_of(home, PRIVATE)
        archive = archive_of(home, config.store)
        if after_removal:
            _await_removal(home, archive, bucket.directory, names)
        for name in names:
            if not _is_stored(archive, bucket, name, shown, refused):
                text = f"bucket {bucket.label!r} has no file {shown(name)}"
                raise OperatorError(text)
        return "", None

    opened_as_owner_of(home, PRIVATE, work)


def _await_removal(
    home: str, archive: IArchive, directory: str, names: Sequence[str]
) -> None:
    """
    :raises OperatorError: prune may be deleting a file
    """
    if isinstance(archive, DirectoryArchive):
        # Without a folder there is no file.
        with suppress(OSError):
            await_removal(home, directory)
        return
    # A slow import, which only an object store needs.
    from filebucket.store.s3.archive import S3Archive  # noqa: PLC0415

    assert isinstance(archive, S3Archive)
    try:
        archive.await_removal(directory, names)
    except OSError as error:
        raise OperatorError(
            f"cannot tell whether a prune is deleting it: {error.strerror}"
        ) from None


def _is_stored(
    archive: IArchive,
    bucket: Bucket,
    name: str,
    shown: Callable[[str], str],
    refused: str = AS_OWNER,
) -> bool:
    """
    :param refused: what helps if the folder may not be read
    :raises OperatorError: that cannot be determined
    """
    if "/" in name or "\0" in name:
        return False
    try:
        with archive.open(bucket.directory) as folder:
            folder.look(name)
    except (NoFileError, NotAFileError, UnicodeEncodeError):
        return False
    except OSError as error:
        hint = f"; {refused}" if isinstance(error, PermissionError) else ""
        raise OperatorError(f"{shown(name)}: {error.strerror}{hint}") from None
    return True


def _holding(
    names: Sequence[str], until: str, reason: str, shown: Callable[[str], str]
) -> Callable[[Bucket, dict[str, Any]], None]:
    end = values.moment(until)

    def change(bucket: Bucket, held: dict[str, Any]) -> None:
        ends = {each.name: each.until for each in bucket.held}
        for name in names:
            if name in held and ends[name] > end:
                raise NotChangedError(
                    f"{shown(name)} is held until {moment_text(ends[name])}; to end"
                    " that earlier, release it first"
                )
            held[name] = {"until": until, "reason": reason}

    return change


def _releasing(
    names: Sequence[str], shown: Callable[[str], str]
) -> Callable[[Bucket, dict[str, Any]], None]:
    def change(bucket: Bucket, held: dict[str, Any]) -> None:
        for name in names:
            if held.pop(name, None) is None:
                raise NotChangedError(
                    f"{shown(name)} of bucket {bucket.label!r} is not held"
                )

    return change


def _list(
    config: Config,
    bucket: Bucket,
    shown: Callable[[str], str],
    now: float,
    as_json: bool,
) -> None:
    """Print the files that are held, and whether they are there."""
    held = [each for each in bucket.held if each.until > now]
    load_modules(config.store)
    become_owner_of(config.home, PRIVATE)
    there: dict[str, bool | None] = {}
    for each in held:
        there[each.name] = None
        # A user who may read the configuration need not be allowed to read the home.
        with suppress(OperatorError):
            archive = archive_of(config.home, config.store)
            there[each.name] = _is_stored(archive, bucket, each.name, shown)
    if as_json:
        hide = mask(config.buckets)
        found = [{**_json(each, hide), "stored": there[each.name]} for each in held]
        print_json(bucket=bucket.label, held=found)
        return
    if not held:
        click.echo(f"No file of bucket {bucket.label} is held.")
        return
    words = {True: "stored", False: "missing", None: "-"}
    rows = (
        [
            shown(each.name),
            moment_text(each.until),
            words[there[each.name]],
            each.reason,
        ]
        for each in held
    )
    for line in table(_HOLDS, rows, terminal_width()):
        click.echo(line)


def _print_json(change: Change, path: str, now: float) -> None:
    hide = mask(change.config.buckets)
    print_json(
        config=os.path.abspath(path),
        bucket=change.bucket.label,
        held=[_json(each, hide) for each in change.bucket.held if each.until > now],
    )


def _json(held: Held, hide: Callable[[str], str]) -> dict[str, Any]:
    until = moment_text(held.until)
    return {"name": hide(held.name), "until": until, "reason": held.reason}
