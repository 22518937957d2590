"""The man pages list every key, every command and every option."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.cli import main
from filebucket.client.main import parser
from filebucket.config import load
from filebucket.config.config import Config
from filebucket.test.kit.server import PATIENCE
from filebucket.test.kit.tree import TREE

MANUAL = Path(__file__).parents[3] / "docs" / "man"

COMPLETION = TREE / "contrib" / "bash-completion"


def push_options() -> set[str]:
    """The options of ``filebucket-push``."""
    found = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", parser().format_help())
    return set(found) & set(parser()._option_string_actions)


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

    def test_push(self) -> None:
        """The terms are exactly the options of ``filebucket-push``, and its exit
        statuses are those of its help.
        """
        page = self.page("filebucket-push.1")
        options, _, rest = page.partition("\nOPTIONS\n")[2].partition("\nEXIT STATUS\n")
        terms = re.findall(r"(?m)^ {7}(-\S.*?)(?: {2,}|$)", options)
        named = {word for term in terms for word in re.findall(r"(?<!\S)-[\w-]+", term)}
        self.assertEqual(push_options(), named)
        of_help = parser().format_help().partition("exit status:")[2]
        statuses = re.findall(r"(?m)^ +(\d+) ", of_help)
        self.assertEqual(statuses, re.findall(r"(?m)^ {7}(\d+) ", rest))


class CompletionCase(SynchronousTestCase):
    """Runs a file of ``contrib/bash-completion``."""

    name = ""
    function = ""

    def setUp(self) -> None:
        if not COMPLETION.exists():
            raise SkipTest("installed without its source")
        if shutil.which("bash") is None:
            raise SkipTest("there is no bash")

    def complete(self, *words: str, path: str = os.environ["PATH"]) -> list[str]:
        """What bash proposes for the last word."""
        script = (
            f'. {COMPLETION}/{self.name}; COMP_WORDS=("$0" "$@"); COMP_CWORD=$#;'
            f' {self.function} "$0"; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(
            ["bash", "-c", script, self.name, *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PATH": path},
        )
        self.assertEqual("", done.stderr)
        return done.stdout.split()


class CommandCompletionTests(CompletionCase):
    """The completion of ``filebucket``."""

    name = "filebucket"
    function = "_filebucket"

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        program = folder / "filebucket"
        call = "from filebucket.cli.main import main; main(prog_name='filebucket')"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{call}" "$@"\n')
        program.chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"
        self.config = folder / "config.json"
        buckets = [
            {"name": "web", "token": "a" * 32},
            {"name": "web*", "token": "b" * 32},
        ]
        self.config.write_text(json.dumps({"home": "home", "buckets": buckets}))

    def test_words(self) -> None:
        """Commands, options and buckets of the configuration."""
        commands = self.complete("", path=self.path)
        expected = main.main.list_commands(click.Context(main.main))
        self.assertEqual(sorted(expected), sorted(commands))
        self.assertEqual(["--refused"], self.complete("log", "--ref", path=self.path))
        words = ("status", "--config", str(self.config), "w")
        # A name is no pattern for the files of the current folder.
        Path("web-file").touch()
        self.addCleanup(Path("web-file").unlink)
        self.assertEqual(["web", "web*"], self.complete(*words, path=self.path))

    def test_removed(self) -> None:
        """A package that was removed, but not purged, completes nothing."""
        script = f". {COMPLETION}/filebucket; complete -p"
        for path, expected in ((self.path, 1), ("/nowhere", 0)):
            shown = subprocess.run(
                [str(shutil.which("bash")), "-c", script],
                check=True,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env={"PATH": path},
            )
            self.assertEqual(expected, shown.stdout.count("_filebucket filebucket\n"))


class ClientCompletionTests(CompletionCase):
    """The completion of ``filebucket-push``."""

    name = "filebucket-push"
    function = "_filebucket_push"

    def test_options(self) -> None:
        """All long options, and those that begin like the word."""
        long = {each for each in push_options() if each.startswith("--")}
        self.assertEqual(long, set(self.complete("--json", "--")))
        self.assertEqual(["--receipt", "--retry-for"], self.complete("--re"))

    def test_values(self) -> None:
        """Bash itself completes files: nothing is proposed here."""
        folder = Path(self.mktemp())
        (folder / "inner").mkdir(parents=True)
        (folder / "token").touch()
        for word in ("", "--"):
            self.assertEqual([], self.complete("--token-file", word))
            self.assertEqual([], self.complete("--url", word))
        self.assertEqual([], self.complete(str(folder / "to")))
        self.assertEqual([f"{folder}/inner"], self.complete("--spool", f"{folder}/"))

    def test_command(self) -> None:
        """After ``--exec``, programs, and no options of the client."""
        self.assertEqual(["--"], self.complete("--exec", "--"))
        self.assertIn("bash", self.complete("--exec", "--", "bas"))
        self.assertEqual([], self.complete("--exec", "--", "bash", "--"))
