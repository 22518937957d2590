"""What is shown while files are read: on a terminal how far it is, and everywhere what
is found, as it is found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import click

from filebucket.base.text import plural, printable, size_text
from filebucket.upkeep.survey import Finding, Found

_COLOURS = {
    "damaged": "red",
    "missing": "red",
    "unreadable": "red",
    "stranger": "yellow",
    "replaced": "yellow",
}

_WORDS = {"stranger": "unknown", "left": "skipped"}


class Progress:
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
def progress_bar(length: int) -> Iterator[Progress]:
    """A bar, if stderr is a terminal.

    :param length: where it ends; of nothing there is none
    """
    if not sys.stderr.isatty() or not length:
        yield Progress(None)
        return
    with click.progressbar(length=length, file=sys.stderr) as bar:
        yield Progress(bar, length)


class Findings:
    """What is found, printed as it is found: in lines, or as one object."""

    def __init__(self, as_json: bool, bar: Progress) -> None:
        self._as_json = as_json
        self._bar = bar
        self._separator = '{\n  "findings": ['

    def print(self, finding: Finding) -> None:
        """A line of them."""
        if finding.kind == "entered":
            return  # there may be a million
        self._bar.clear()
        if self._as_json:
            said = json.dumps(attrs.asdict(finding))
            click.echo(f"{self._separator}\n    {said}", nl=False)
            self._separator = ","
            return
        word = _WORDS.get(finding.kind, finding.kind)
        kind = click.style(f"{word:10}", fg=_COLOURS.get(finding.kind))
        name = "its folder" if finding.name is None else printable(finding.name)
        reason = f": {printable(finding.reason)}" if finding.reason else ""
        click.echo(f"{kind}  {printable(finding.bucket)}  {name}{reason}")

    def end(self, found: Found) -> None:
        """Print what it comes to."""
        if self._as_json:
            start = self._separator if self._separator != "," else "\n  "
            rest = json.dumps(attrs.asdict(found), indent=2)
            click.echo(f"{start}],\n{rest[2:]}")
            return
        files = f"{found.files} {plural(found.files, 'file')}"
        read = f"{found.read} read ({size_text(found.bytes)})"
        click.echo(f"{files}, {read}: {found.text or 'all in order'}")
