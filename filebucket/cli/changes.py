"""The output of commands that change buckets in the configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click

from filebucket.base.text import joined
from filebucket.cli.listing import bucket_json
from filebucket.cli.options import print_json
from filebucket.config.config import command, start_command
from filebucket.config.edit import Change
from filebucket.daemon import control


def named(changes: Sequence[Change]) -> str:
    """The buckets: ``bucket web01``, ``buckets web01 and web02``."""
    labels = [each.bucket.label for each in changes]
    return f"bucket{'s' if len(labels) > 1 else ''} {joined(labels)}"


def print_changes(
    text: str, changes: Sequence[Change], path: str, as_json: bool, **more: Any
) -> None:
    """Print what was changed, and the command that applies it.

    :param path: the configuration
    :param more: further values for JSON
    """
    if as_json:
        buckets = [bucket_json(each.bucket) for each in changes]
        print_json(config=os.path.abspath(path), buckets=buckets, **more)
        return
    click.echo(f"{text}\n\n{how_to_apply(changes[0].config.home, path)}")


def may_run(home: str) -> bool:
    """Whether a daemon uses the home, or that is not known."""
    try:
        return control.daemon_of(home) is not None
    except OSError:
        return True


def how_to_apply(home: str, path: str) -> str:
    """How the daemon gets the change, in several lines."""
    if may_run(home):
        return f"Activate it:\n\n    {command('reload', path)}"
    return f"Start the daemon:\n\n    {start_command(path, home)}"
