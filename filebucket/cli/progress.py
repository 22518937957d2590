"""Output while files are read: a progress bar on a terminal, and findings at once."""

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

_COLORS = {
    "damaged": "red",
    "missing": "red",
    "unreadable": "red",
    "stranger": "yellow",
    "unsealed": "yellow",
    "replaced": "yellow",
}

_WORDS = {"stranger": "unknown", "left": "skipped", "back": "restored"}


class Progress:
    """A progress bar, or nothing if stderr is not a terminal."""

    def __init__(self, bar: Any, length: int = 0) -> None:
        self._bar = bar
        self._length = length
        self._at = 0

    def to(self, at: int) -> None:
        """Move the bar, in steps of at least 0.1 %."""
        if self._bar is not None:
            moved = at - self._at
            if moved * 1000 >= self._length or (moved and at == self._length):
                self._bar.update(moved)
                self._at = at

    def clear(self) -> None:
        """Clear the bar before a line is printed."""
        if self._bar is not None:
            click.echo("\r\033[K", nl=False, err=True)


@contextmanager
def progress_bar(length: int) -> Iterator[Progress]:
    """A bar, if stderr is a terminal.

    :param length: the value of a full bar; 0 is no bar
    """
    if not sys.stderr.isatty() or not length:
        yield Progress(None)
        return
    with click.progressbar(length=length, file=sys.stderr) as bar:
        yield Progress(bar, length)


class Findings:
    """Prints findings at once: as lines, or as one JSON object."""

    def __init__(self, as_json: bool, bar: Progress) -> None:
        self._as_json = as_json
        self._bar = bar
        self._separator = '{\n  "findings": ['

    def print(self, finding: Finding) -> None:
        """Print one finding."""
        if finding.kind == "entered":
            return  # there may be a million of them
        self._bar.clear()
        if self._as_json:
            said = json.dumps(attrs.asdict(finding))
            click.echo(f"{self._separator}\n    {said}", nl=False)
            self._separator = ","
            return
        word = _WORDS.get(finding.kind, finding.kind)
        kind = click.style(f"{word:10}", fg=_COLORS.get(finding.kind))
        name = "its folder" if finding.name is None else printable(finding.name)
        reason = f": {printable(finding.reason)}" if finding.reason else ""
        click.echo(f"{kind}  {printable(finding.bucket)}  {name}{reason}")

    def end(self, found: Found) -> None:
        """Print the totals."""
        if self._as_json:
            start = self._separator if self._separator != "," else "\n  "
            rest = json.dumps(attrs.asdict(found), indent=2)
            click.echo(f"{start}],\n{rest[2:]}")
            return
        files = f"{found.files} {plural(found.files, 'file')}"
        read = f"{found.read} read ({size_text(found.bytes)})"
        click.echo(f"{files}, {read}: {found.text or 'no problems found'}")
