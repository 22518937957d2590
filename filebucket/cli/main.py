"""The ``filebucket`` command. Each subcommand has its own module, which only parses
and prints, and is imported only if it is called: that keeps the start fast.

Errors are one line on stderr, with exit status 1, or 2 for a wrong command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from filebucket import __version__
from filebucket.base.errors import BusyError, OperatorError, suggestion
from filebucket.base.text import printable_lines
from filebucket.cli.output import CannotPrintError, unexpected

COMMANDS = (
    *("alert", "bucket", "check", "copy", "files", "get", "hold", "log", "migrate"),
    *("pause", "prune", "reindex", "reload", "report", "resume", "retire", "seal"),
    *("serve", "status", "sweep", "token-hash", "verify"),
)


class _Commands(click.Group):
    """Print failures as one line."""

    _status = 1

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        found: click.Command = getattr(import_module(f"filebucket.cli.{name}"), name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            if hint := suggestion(word, COMMANDS):
                ctx.fail(f"No such command {word!r}{hint}")
            raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in {"-c", "--config"}:
                text = (
                    "--config goes after the command: filebucket status --config FILE"
                )
                raise click.UsageError(text, ctx) from None
            raise

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            # The help or the error message could not be printed.
            CannotPrintError(error).show()
            raise SystemExit(self._status) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            raise unexpected(error) from None
        except click.ClickException as error:
            self._status = error.exit_code
            raise
        except BusyError as error:
            # No failure: each machine of several has the same timers.
            click.echo(str(error))
        except OperatorError as error:
            raise click.ClickException(printable_lines(str(error))) from None


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """file-bucket: a write-only backup drop over HTTP."""
