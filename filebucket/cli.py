"""The ``filebucket`` command, for operators.

It only parses and prints; what it does is done in :mod:`~filebucket.check`,
:mod:`~filebucket.editing` and :mod:`~filebucket.asking`. An operator's mistake is a
line on stderr and the exit status 1, or 2 where the command itself is wrong. A token is
printed once, when it is made, and never read from the command line, where all users of
the machine could see it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem
from twisted.application import app
from twisted.application.service import ServiceMaker
from twisted.scripts import _twistd_unix, twistd

from filebucket import __version__, check, curl, listing, tap, values
from filebucket import config as configuration
from filebucket.asking import NotReloadedError, ask
from filebucket.config import token_digest
from filebucket.editing import (
    Change,
    NotChangedError,
    add_bucket,
    moment_text,
    remove_bucket,
    rotate_token,
)
from filebucket.errors import ConfigError


class _Commands(click.Group):
    """Commands whose failures are told in a line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, NotChangedError, NotReloadedError) as error:
            raise click.ClickException(str(error)) from None


class _Value(click.ParamType):  # type: ignore[type-arg] # generic in newer ones
    """A value as the configuration has it, checked as there and passed on as it is."""

    def __init__(self, name: str, check: Callable[[Any], object]) -> None:
        self.name = name
        self._check = check

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        try:
            self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class _Size(_Value):
    """A size; a number is one of bytes."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        number = int(value) if re.fullmatch("[0-9]{1,19}", value) else value
        return super().convert(number, param, ctx)


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


class _Duration(click.ParamType):  # type: ignore[type-arg] # as above
    """How long: in seconds, from such as ``7d``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch("([0-9]{1,6})([smhdw])", value)
        if match is None:
            self.fail("not a time such as 90s, 30m, 12h, 7d or 2w", param, ctx)
        return float(int(match[1]) * _SECONDS[match[2]])


NAME = _Value("name", values.bucket_name)
SIZE = _Size("size", values.byte_count)
DATE = _Value("date", values.moment)
NETWORK = _Value("network", configuration.network_or_unix)


def _names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The buckets that there are, for the shell to complete."""
    with suppress(ConfigError):
        found = configuration.load(ctx.params.get("path") or tap.DEFAULT_CONFIG)
        labels = [each.label for each in found.buckets]
        return [CompletionItem(each) for each in labels if each.startswith(incomplete)]
    return []


with_config = click.option(
    "--config",
    "-c",
    "path",
    default=tap.DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    type=click.Path(),
    is_eager=True,
    help="The configuration, in JSON.",
)
with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """file-bucket: a write-only drop for backups over HTTP."""


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
    sys.argv[1:] = ["--nodaemon", "--pidfile=", "filebucket", "--config", path]
    if log_format:
        sys.argv += ["--log-format", log_format]
    app.run(twistd.runApp, _ServerOptions)


class _ServerOptions(_twistd_unix.ServerOptions):
    """twistd's own, without its look through all plugins for ours."""

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:
        maker = ServiceMaker("file-bucket", tap.__name__, "", "filebucket")
        self.loadedPlugins = {maker.tapname: maker}
        yield maker.tapname, None, tap.Options, maker.description


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

    report = check.check(path, reactor, os.environ, time.time())
    if as_json:
        findings = [
            {"level": each.level, "place": each.place, "text": each.text}
            for each in report.findings
        ]
        _print_json(
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


def _summary(path: str, report: check.Report) -> Iterator[str]:
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
@click.argument("name", shell_complete=_names)
@click.option(
    "--keep-old",
    type=_Duration(),
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
        _print_json(
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
    given = "" if path == tap.DEFAULT_CONFIG else f" --config {path}"
    return f"filebucket reload{given}"


@bucket.command("remove")
@click.argument("name", shell_complete=_names)
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
        _print_json(config=file, folder=folder, **listing.as_json(change.bucket))
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
    buckets = configuration.load(path).buckets
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
        _print_json(
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


def _print_json(**values: Any) -> None:
    click.echo(json.dumps(values, indent=2))
