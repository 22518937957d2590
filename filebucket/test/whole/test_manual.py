"""The man pages list every key, every command and every option."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.cli import main
from filebucket.config import load
from filebucket.config.config import Config
from filebucket.test.kit.server import PATIENCE

MANUAL = Path(__file__).parents[3] / "docs" / "man"

PAGES = ("filebucket.8", "file-bucket.json.5")


def commands(
    group: click.Group, before: str = ""
) -> Iterator[tuple[str, click.Command]]:
    """All commands, with the words that lead to them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


class ManualTests(SynchronousTestCase):
    """As ``man -l`` shows it."""

    def setUp(self) -> None:
        if not MANUAL.exists():
            raise SkipTest("installed without its source")
        if shutil.which("man") is None:
            raise SkipTest("there is no man")

    def page(self, name: str) -> str:
        """The page's text; a warning of groff is a failure."""
        shown = subprocess.run(
            ["man", "--warnings=w", "--local-file", str(MANUAL / name)],
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PAGER": "cat"},
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual("", shown.stderr)
        return re.sub(r".\x08|\x1b\[[0-9;]*m", "", shown.stdout)

    def test_keys(self) -> None:
        """The terms are exactly the keys of the configuration."""
        page = self.page("file-bucket.json.5")
        terms = set(re.findall(r"(?m)^ {7}(\w+) \([^)]+\)$", page))
        known = {each.name for each in attrs.fields(Config)}
        known |= {each.name for each in attrs.fields(load._BucketObject)}
        self.assertEqual(known, terms)

    def test_example(self) -> None:
        page = self.page("file-bucket.json.5")
        example = re.search(r"(?ms)^ {7}\{$.*?^ {7}\}$", page)
        assert example is not None
        self.assertEqual("web01", load.parse(example[0], "x").buckets[0].name)
        json.loads(example[0])

    def test_commands(self) -> None:
        """Every command has a section, and every option is a term."""
        page = self.page("filebucket.8")
        found = dict(commands(main.main))
        sections = re.findall(r"(?m)^ {3}(\S.*)$", page)
        self.assertEqual(set(found), set(sections))
        for name, command in found.items():
            for parameter in command.params:
                for option in parameter.opts:
                    said = re.search(
                        rf"(?m)^ {{7}}.*(?<!\w){re.escape(option)}\b", page
                    )
                    if isinstance(parameter, click.Option):
                        self.assertIsNotNone(said, f"{name} {option}")
