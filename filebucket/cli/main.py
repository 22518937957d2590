"""The ``filebucket`` command, for operators: its commands, each in a module of its own.

A command only parses and prints; what it does is done elsewhere. An operator's mistake
is a line on stderr and the exit status 1, or 2 if the command itself is wrong.
"""

from __future__ import annotations

from typing import Any

import click

from filebucket import __version__
from filebucket.base.errors import OperatorError
from filebucket.cli.bucket import bucket
from filebucket.cli.check import check
from filebucket.cli.log import log
from filebucket.cli.prune import prune
from filebucket.cli.reindex import reindex
from filebucket.cli.reload import reload
from filebucket.cli.serve import serve
from filebucket.cli.status import status
from filebucket.cli.token_hash import token_hash
from filebucket.cli.verify import verify


class _Commands(click.Group):
    """Commands whose failures are told in a line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OperatorError as error:
            raise click.ClickException(str(error)) from None


@click.group(
    cls=_Commands,
    commands=[
        *(bucket, check, log, prune, reindex, reload, serve, status, token_hash),
        verify,
    ],
)
@click.version_option(__version__)
def main() -> None:
    """file-bucket: a write-only drop for backups over HTTP."""
