"""The ``filebucket`` command, for operators.

It only parses and prints; what it does is done in :mod:`~filebucket.daemon.check`,
:mod:`~filebucket.config.edit` and :mod:`~filebucket.daemon.ask`; some commands are in
modules of their own.
An operator's mistake is a line on stderr and the exit status 1, or 2 where the command
itself is wrong. A token is printed once, when it is made, and never read from the
command line, where all users of the machine could see it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from filebucket import __version__
from filebucket.base.errors import ConfigError
from filebucket.base.text import moment_text
from filebucket.catalogue.database import CatalogueError
from filebucket.cli import curl, listing, status
from filebucket.cli.options import (
    DATE,
    DURATION,
    EXPECT,
    NAME,
    NETWORK,
    SIZE,
    bucket_labels,
    print_json,
    with_config,
    with_json,
)
from filebucket.cli.prune import prune
from filebucket.cli.verify import reindex, verify
from filebucket.config import config, values
from filebucket.config.edit import (
    Change,
    NotChangedError,
    add_bucket,
    remove_bucket,
    rotate_token,
)
from filebucket.config.load import load
from filebucket.daemon.ask import NotReloadedError, ask
from filebucket.model.token import token_digest
from filebucket.upkeep.prune import PruningError

if TYPE_CHECKING:
    from filebucket.daemon.check import Report


class _Commands(click.Group):
    """Commands whose failures are told in a line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (
            CatalogueError,
            ConfigError,
            NotChangedError,
            NotReloadedError,
            PruningError,
        ) as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """file-bucket: a write-only drop for backups over HTTP."""


main.add_command(status.status)
main.add_command(status.log)


@main.command(short_help="Receive backups until SIGTERM.")
@with_config
@click.option(
    "--log-format",
    type=click.Choice(values.LOG_FORMATS),
    help="How log lines are written, whatever the configuration says.",
)
def serve(path: str, log_format: str | None) -> None:
    """Receive backups until SIGTERM; SIGUSR2 reloads the list of buckets.

    The same as ``twistd --nodaemon --pidfile= filebucket --config FILE``.
    """
    from filebucket.cli import serve  # noqa: PLC0415 - it takes as long as all the rest

    serve.serve(path, log_format)


@main.command("check")
@with_config
@with_json
@click.option("--strict", is_flag=True, help="Exit with 1 also where it is only risky.")
def check_all(path: str, as_json: bool, strict: bool) -> None:
    """Say everything that is wrong or risky.

    Looks at the configuration, the home, the hooks, certificates and tokens; a daemon
    that runs is not disturbed. Exits with 1 where something is wrong: what keeps the
    daemon from starting, or from doing what the file says.

    As root, the home and the hooks are looked at with the rights of the home's owner.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing installs it

    from filebucket.daemon import check  # noqa: PLC0415 - it takes as long as all the rest

    report = check.check(path, reactor, os.environ, time.time())
    if as_json:
        findings = [
            {"level": each.level, "place": each.place, "text": each.text}
            for each in report.findings
        ]
        print_json(
            config=os.path.abspath(path),
            wrong=report.wrong,
            risky=report.risky,
            findings=findings,
            tier=report.tier,
            hooks=report.hooks,
            process=report.process,
        )
    else:
        for each in report.findings:
            level = click.style(each.level, fg="red" if each.wrong else "yellow")
            click.echo(f"{level}  {each.place}: {each.text}")
        for line in _summary(path, report):
            click.echo(line)
    if report.wrong or (strict and report.risky):
        raise SystemExit(1)


def _summary(path: str, report: Report) -> Iterator[str]:
    if report.findings:
        yield f"{path}: {report.wrong} wrong, {report.risky} risky"
    if report.config is None or report.wrong:
        return
    if not report.findings:
        yield f"{path}: in order"
    yield f"buckets  {len(report.config.buckets)}"
    tier = f", publishes by {report.tier}" if report.tier else ", to be made"
    yield f"home     {report.config.home}{tier}"
    yield f"hooks    {', '.join(report.hooks) or 'none'}"
    running = "none" if report.process is None else f"process {report.process}"
    yield f"daemon   {running}"


@main.group(cls=_Commands)
def bucket() -> None:
    """Add, list, rotate and remove buckets in the configuration.

    The file is changed at once or not at all, and only where it must be; the daemon
    takes the change over at ``filebucket reload``.
    """


@bucket.command("add")
@click.argument("name", type=NAME)
@click.option("--quota", type=SIZE, metavar="SIZE", help="All its files, such as 1TB.")
@click.option("--max-file-size", type=SIZE, metavar="SIZE", help="One file.")
@click.option(
    "--allow-from",
    type=NETWORK,
    metavar="NET",
    multiple=True,
    help="Where its clients may be, such as 192.0.2.0/24, or unix; may be given again.",
)
@click.option("--expires", type=DATE, metavar="DATE", help="When its token ends.")
@click.option("--overwrite", is_flag=True, help="A push may replace a file.")
@click.option(
    "--expect",
    type=EXPECT,
    metavar="WHEN",
    help='When its pushes are due, such as 26h or "30 2 * * *".',
)
@with_config
@with_json
def bucket_add(
    name: str, path: str, as_json: bool, allow_from: Sequence[str], **settings: Any
) -> None:
    """Add a bucket, and print its token: this once, and never again.

    The configuration gets only the SHA-256 of it. NAME is also its folder's.
    """
    settings["allow_from"] = list(allow_from)
    given = {
        key: each for key, each in settings.items() if each not in (None, [], False)
    }
    change = add_bucket(path, name, given)
    _print_token(change, path, as_json, f"Bucket {name} is in {path}, with this token:")


@bucket.command("rotate")
@click.argument("name", shell_complete=bucket_labels)
@click.option(
    "--keep-old",
    type=DURATION,
    metavar="TIME",
    default=0.0,
    help="The old token goes on opening it for so long, such as 7d or 12h.",
)
@with_config
@with_json
def bucket_rotate(name: str, path: str, as_json: bool, keep_old: float) -> None:
    """Give a bucket a new token, and print it: this once, and never again.

    The old one is taken out at once, or expires after --keep-old. The new one expires
    when the old one would have.
    """
    now = time.time()
    change = rotate_token(path, name, now + keep_old, now)
    _print_token(
        change,
        path,
        as_json,
        f"Bucket {name} has this token from now on:",
        *(
            f"An old one opens it until {moment_text(each.expires)}."
            for each in change.bucket.tokens[1:]
            if each.expires is not None
        ),
    )


def _print_token(
    change: Change, path: str, as_json: bool, title: str, *notes: str
) -> None:
    address = curl.address(change.config, socket.gethostname())
    lines = address.lines(change.token)
    if as_json:
        print_json(
            config=os.path.abspath(path),
            url=address.url,
            curl=lines[0],
            token=change.token,
            **listing.as_json(change.bucket),
        )
        return
    for line in (
        title,
        f"\n    {change.token}\n",
        "It is shown this once: the file has only its SHA-256.",
        *notes,
        f"\nPut it in force:\n\n    {_reload(path)}\n",
        f"Then push a file, with the token in the URL:\n\n    {lines[0]}\n",
        "or in a file, out of process lists and of proxies' logs:\n",
        *(f"    {line}" for line in lines[1:]),
    ):
        click.echo(line)


def _reload(path: str) -> str:
    given = "" if path == config.DEFAULT_CONFIG else f" --config {path}"
    return f"filebucket reload{given}"


@bucket.command("remove")
@click.argument("name", shell_complete=bucket_labels)
@with_config
@with_json
def bucket_remove(name: str, path: str, as_json: bool) -> None:
    """Take a bucket out of the configuration. Its files stay where they are."""
    change = remove_bucket(path, name)
    home = change.config.home
    # Without a name the folder is called by the token.
    named = change.bucket.name is not None
    folder = os.path.join(home, change.bucket.directory) if named else None
    if as_json:
        file = os.path.abspath(path)
        print_json(config=file, folder=folder, **listing.as_json(change.bucket))
        return
    stays = folder or f"a folder of {home} that is called by its token"
    click.echo(f"Bucket {name} is out of {path}. Its files stay in\n\n    {stays}\n")
    click.echo(f"It takes pushes until the daemon knows:\n\n    {_reload(path)}")


@bucket.command("list")
@with_config
@with_json
def bucket_list(path: str, as_json: bool) -> None:
    """List the buckets.

    Of each token there is the beginning of its SHA-256, as in the log.
    """
    buckets = load(path).buckets
    if as_json:
        click.echo(json.dumps([listing.as_json(each) for each in buckets], indent=2))
        return
    for line in listing.table(buckets, time.time()):
        click.echo(line)


@main.command()
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the daemon gets.",
)
@with_config
@with_json
def reload(timeout: float, path: str, as_json: bool) -> None:
    """Put the list of buckets in force, and wait until it is.

    The file is checked first. Exits with 1, and the reason, where the daemon could
    not take it over, or did not say that it has. To be called as root, or as the
    daemon's user.
    """
    answer = ask(path, timeout)
    if as_json:
        print_json(
            buckets=answer.buckets,
            added=answer.added,
            removed=answer.removed,
            waiting=answer.waiting,
        )
        return
    click.echo(
        f"In force. Buckets: {answer.buckets}."
        f" Tokens: {answer.added} added, {answer.removed} removed."
    )
    if answer.waiting:
        click.echo(f"Waiting for a restart: {', '.join(answer.waiting)}.")


@main.command("token-hash", short_help="Print the SHA-256 of a token.")
def token_hash() -> None:
    """Print the SHA-256 of a token, for token_sha256 in the configuration.

    The token is read from stdin, or asked for without an echo.
    """
    if sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    else:
        token = sys.stdin.readline().rstrip("\r\n")
    try:
        values.token(token)
    except ValueError as error:
        raise click.ClickException(f"no token: {error}") from None
    click.echo(token_digest(token.encode("ascii")).hex())


main.add_command(prune)
main.add_command(reindex)
main.add_command(verify)
