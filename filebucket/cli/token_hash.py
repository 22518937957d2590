"""``filebucket token-hash``: print the SHA-256 of a token."""

from __future__ import annotations

import sys

import click

from filebucket.config import values
from filebucket.model.token import token_digest


@click.command("token-hash", short_help="Print the SHA-256 of a token.")
def token_hash() -> None:
    """Print the SHA-256 of a token, for 'token_sha256' in the configuration.

    The token is read from standard input. On a terminal, it is prompted for and not
    echoed.
    """
    if sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    else:
        token = sys.stdin.readline().rstrip("\r\n")
    try:
        values.token(token)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(token_digest(token.encode("ascii")).hex())
