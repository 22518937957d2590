"""``filebucket bucket``: change the buckets of the configuration.

A token is printed once, when it is created. It is never read from the command line,
which all users of the machine can see.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any, TextIO

import click

from filebucket.base.text import columns_of, counted, time_text
from filebucket.cli.changes import how_to_apply, may_run, named, print_changes
from filebucket.cli.listing import bucket_json, bucket_table, used_json
from filebucket.cli.options import (
    DURATION,
    NAME,
    bucket_labels,
    print_json,
    with_buckets,
    with_config,
    with_json,
)
from filebucket.cli.settings import KEY, given_settings, with_settings
from filebucket.cli.table import terminal_width
from filebucket.cli.usage import files_text, other_folders, read_usage
from filebucket.config import values
from filebucket.config.address import PORT, PROXY, Address, address
from filebucket.config.config import command
from filebucket.config.edit import (
    Change,
    NotChangedError,
    add_buckets,
    remove_bucket,
    rotate_token,
    set_buckets,
)
from filebucket.config.load import load
from filebucket.model.bucket import Bucket


@click.group()
def bucket() -> None:
    """Add, change, list and remove buckets, and rotate their tokens.

    The file is changed atomically; the rest of it stays as it is. Run
    'filebucket reload' to apply the changes.
    """


@bucket.command("add")
@click.argument("name", type=NAME, required=False)
@click.option(
    "--from",
    "listed",
    type=click.File(encoding="utf-8-sig"),
    metavar="FILE",
    help="Add a bucket for each name in FILE, one a line; - is standard input.",
)
@with_settings
@with_config
@with_json
def bucket_add(
    name: str | None,
    listed: TextIO | None,
    path: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a bucket and print its token, which is shown only once.

    The configuration stores only the token's SHA-256. NAME is also the name of the
    bucket's folder. With --from, all buckets get the same settings.
    """
    if (name is None) == (listed is None):
        raise click.UsageError("Give either NAME or --from FILE.")
    settings = given_settings(options)
    if name is not None:
        (change,) = add_buckets(path, [name], settings)
        title = f"Added bucket {name} to {path}. Its token:"
        _print_token(change, path, as_json, title)
    else:
        assert listed is not None
        _print_tokens(add_buckets(path, _names(listed), settings), path, as_json)


def _names(listed: TextIO) -> list[str]:
    """The names in a file, one on each line. Empty lines are skipped."""
    found: dict[str, int] = {}
    try:
        for number, line in enumerate(listed, 1):
            name = line.strip()
            if not name:
                continue
            try:
                values.bucket_name(name)
            except ValueError as error:
                raise NotChangedError(f"line {number}: {error}") from None
            if name in found:
                raise NotChangedError(
                    f"line {number}: {name!r} is also on line {found[name]}"
                )
            found[name] = number
    except UnicodeDecodeError:
        raise NotChangedError("the list of names is not UTF-8") from None
    if not found:
        raise NotChangedError("the list of names is empty")
    return list(found)


def _print_tokens(changes: Sequence[Change], path: str, as_json: bool) -> None:
    where = address(changes[0].config, socket.gethostname())
    if as_json:
        buckets = [
            {"token": each.token, **bucket_json(each.bucket)} for each in changes
        ]
        url = where.url if where.unknown is None else None
        print_json(config=os.path.abspath(path), url=url, buckets=buckets)
        return
    count = counted(len(changes), "bucket")
    click.echo(f"Added {count} to {path}. Their tokens are shown only once:\n")
    width = max(columns_of(each.bucket.label) for each in changes)
    for each in changes:
        label = each.bucket.label
        click.echo(f"{label}{' ' * (width - columns_of(label))}  {each.token}")
    click.echo(f"\n{how_to_apply(changes[0].config.home, path)}\n")
    click.echo(f"Then push a file:\n\n{_indented(where.lines('TOKEN')[0])}")
    _explain(where)


@bucket.command("set")
@with_buckets
@with_settings
@click.option(
    "--unset",
    type=KEY,
    metavar="KEY",
    multiple=True,
    help="Remove a setting, so that its default applies; can be repeated.",
)
@click.option(
    "--null",
    type=KEY,
    metavar="KEY",
    multiple=True,
    help='Use no value for a setting, even if "defaults" has one; can be repeated.',
)
@with_config
@with_json
def bucket_set(
    buckets: Sequence[str],
    path: str,
    as_json: bool,
    unset: Sequence[str],
    null: Sequence[str],
    **options: Any,
) -> None:
    """Change settings of each BUCKET. Its other settings stay.

    An option that can be repeated replaces the whole list, and --keep all rules.
    """
    given = given_settings(options)
    if not (given or unset or null):
        raise click.UsageError("Give at least one setting.")
    for key in (*unset, *null):
        if key in given:
            raise click.UsageError(f"{key} cannot be both set and unset.")
    settings = {**given, **dict.fromkeys(null)}
    changes = set_buckets(path, buckets, settings, unset)
    print_changes(f"Changed {named(changes)} in {path}.", changes, path, as_json)


@bucket.command("rotate")
@click.argument("name", shell_complete=bucket_labels)
@click.option(
    "--keep-old",
    type=DURATION,
    metavar="TIME",
    default=0.0,
    help="Keep the old token valid for TIME, such as 7d or 12h.",
)
@with_config
@with_json
def bucket_rotate(name: str, path: str, as_json: bool, keep_old: float) -> None:
    """Give a bucket a new token and print it; it is shown only once.

    The old token is removed at once, or expires after --keep-old. The new token keeps
    the expiry date of the old one, unless that has passed: then the new token does not
    expire.
    """
    now = time.time()
    end = now + keep_old
    change = rotate_token(path, name, end, now)
    notes = _rotation_notes(change, now, end)
    _print_token(change, path, as_json, f"New token of bucket {name}:", *notes)


def _rotation_notes(change: Change, now: float, end: float) -> Iterator[str]:
    """When the tokens expire.

    :param now: seconds since the epoch
    :param end: when the old tokens expire, unless they do so earlier
    """
    new, *kept = change.bucket.tokens
    if new.expires is not None:
        end_text = time_text(new.expires, UTC)
        yield f"It is valid until {end_text} UTC, as the old token was."
    elif all(
        each.expires is not None and each.expires <= now for each in change.old_tokens
    ):
        yield "The old token had expired. The new token does not expire."
    for each in kept:
        if each.expires is not None:
            # In the file, times are rounded.
            own = each.expires < end - 1
            yield (
                f"The old token {each.sha256.hex()[:6]} stays valid until"
                f" {time_text(each.expires, UTC)} UTC"
                f"{' (its own expiry, earlier than --keep-old)' if own else ''}."
            )


def _print_token(
    change: Change, path: str, as_json: bool, title: str, *notes: str
) -> None:
    where = address(change.config, socket.gethostname())
    lines = where.lines(change.token)
    if as_json:
        print_json(
            config=os.path.abspath(path),
            url=where.url if where.unknown is None else None,
            curl=lines[0] if where.unknown is None else None,
            token=change.token,
            **bucket_json(change.bucket),
        )
        return
    for line in (
        title,
        f"\n    {change.token}\n",
        "This is the only time the token is shown; the file stores only its SHA-256.",
        *notes,
        f"\n{how_to_apply(change.config.home, path)}\n",
        f"Then push a file, with the token in the URL:\n\n{_indented(lines[0])}\n",
        "or keep it in a file, out of process lists and proxy logs:\n",
        *map(_indented, lines[1:]),
    ):
        click.echo(line)
    _explain(where)


def _explain(where: Address) -> None:
    """Explain the placeholders in the commands."""
    if where.unknown == PORT:
        click.echo(f"\n{PORT} is the port of the daemon's socket: its log shows it.")
    if where.unknown == PROXY:
        click.echo(f"\n{PROXY} is the address at which clients reach HAProxy.")
    if where.certificate is not None:
        click.echo("\nCERT is a copy, on the client, of the self-signed certificate:\n")
        click.echo(f"    {where.certificate}")


COLUMNS = 80
"""Width of a terminal."""


def _indented(command: str) -> str:
    """A command to copy; if it is too wide for a terminal, on two lines."""
    line = f"    {command}"
    if len(line) > COLUMNS:
        line = " \\\n        ".join(line.rsplit(" ", 1))
    return line


@bucket.command("remove")
@click.argument("name", shell_complete=bucket_labels)
@with_config
@with_json
def bucket_remove(name: str, path: str, as_json: bool) -> None:
    """Remove a bucket from the configuration. Its files are kept.

    A bucket with files that are held is not removed.
    """
    change = remove_bucket(path, name, _check_no_holds)
    home = change.config.home
    # The folder of a bucket without a name is named after its token.
    named = change.bucket.name is not None
    store = change.config.store
    in_home = os.path.join(home, change.bucket.directory)
    folder = in_home if named and store is None else None
    if as_json:
        file = os.path.abspath(path)
        print_json(config=file, folder=folder, **bucket_json(change.bucket))
        return
    stays = folder or f"a folder of {home} that is named after its token"
    removed = f"Removed bucket {name} from {path}."
    if store is None and _is_empty(in_home):
        click.echo(f"{removed} It has no files.\n")
    elif store is not None:
        click.echo(
            f"{removed} Its files are still in the S3 buckets {store.names_bucket} and"
            f" {store.data_bucket}, under\n\n"
            f"    {store.prefix}names/{change.bucket.directory}/\n"
            f"    {store.prefix}data/{change.bucket.directory}/\n"
        )
    else:
        found = read_usage(change.config).of(change.bucket.key)
        text = f" ({files_text(found)})" if found and found.files else ""
        click.echo(f"{removed} Its files{text} are still in\n\n    {stays}\n")
        click.echo("'filebucket bucket list' shows the folder until you delete it.\n")
    if may_run(home):
        reload = command("reload", path)
        click.echo(f"It still accepts pushes until you run:\n\n    {reload}")
    else:
        click.echo("No daemon runs, so it accepts no pushes.")


def _check_no_holds(bucket: Bucket) -> None:
    count = sum(each.until > time.time() for each in bucket.held)
    if count:
        raise NotChangedError(
            f"{counted(count, 'file')} of bucket {bucket.label!r} "
            f"{'is' if count == 1 else 'are'} held; release"
            f" {'it' if count == 1 else 'them'} with 'filebucket hold --release'"
        )


def _is_empty(folder: str) -> bool:
    """Whether a folder is missing or has no files; False if that cannot be read."""
    try:
        return not os.listdir(folder)
    except OSError as error:
        return isinstance(error, FileNotFoundError)


@bucket.command("list")
@click.option(
    "--names", is_flag=True, help="Print only the names, for 'bucket add --from -'."
)
@with_config
@with_json
def bucket_list(path: str, as_json: bool, names: bool) -> None:
    """List the buckets, their usage, and folders that belong to no bucket.

    A token is shown as the first digits of its SHA-256, as in the log. The numbers are
    from the catalogue. As root, reads it with the rights of the home's owner.
    """
    if names and as_json:
        raise click.UsageError("--names and --json exclude each other.")
    config = load(path)
    if names:
        for each in config.buckets:
            if each.name is not None:
                click.echo(each.name)
        return
    usage = read_usage(config)
    if as_json:
        found = [
            {**bucket_json(each), **used_json(usage.of(each.key))}
            for each in config.buckets
        ]
        click.echo(json.dumps(found, indent=2))
        return
    width = terminal_width()
    for line in bucket_table(config.buckets, usage.of, time.time(), width):
        click.echo(line)
    if usage.others:
        click.echo("")
    for line in other_folders(usage, config.home):
        click.echo(line)
