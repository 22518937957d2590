"""Each literal block of the documents is run, loaded or checked, or it is listed why
not.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import click
from cronsim import CronSim
from docutils import nodes
from docutils.core import publish_doctree
from twisted.trial.reporter import TestResult

from filebucket.cli.main import main
from filebucket.client.main import parser
from filebucket.config.load import parse
from filebucket.test.kit import blocks as kit
from filebucket.test.kit import examples
from filebucket.test.kit.blocks import (
    Block,
    Claim,
    DocumentCase,
    blocks,
    claims,
    in_section,
    short,
)
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.integration import need
from filebucket.test.kit.links import documents
from filebucket.test.kit.nginx import nginx_command
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import PATIENCE
from filebucket.test.kit.tree import TREE

TESTS = "filebucket.test."


def pages() -> list[str]:
    """The paths of all documents."""
    return [str(each.relative_to(TREE)) for each in documents(TREE)]


def all_blocks() -> list[Block]:
    """The blocks of all documents."""
    return [block for page in pages() for block in blocks(page)]


class ListTests(DocumentCase):
    """``blocks.toml``."""

    def test_blocks(self) -> None:
        """Each block is recognized, or has an entry."""
        left = [
            str(block)
            for block in all_blocks()
            if not examples.recognized(block.text)
            and not any(each.covers(block) for each in claims())
        ]
        self.assertEqual([], left, "add them to blocks.toml")

    def test_left(self) -> None:
        """A test fails if it leaves one of its blocks."""
        block = blocks("releasing.rst")[0]

        class Case(DocumentCase):
            """Takes no block, or all."""

            def test_none(self) -> None:
                pass

            def test_all(self) -> None:
                self.listed()

        listed = [
            Claim(block.page, block.heading, short(Case(name).id()))
            for name in ("test_none", "test_all")
        ]
        self.patch(kit, "claims", lambda: listed)
        result = TestResult()
        for name in ("test_none", "test_all"):
            Case(name).run(result)
        ((case, failure),) = result.failures
        self.assertEqual("test_none", case._testMethodName)
        self.assertIn(str(block), str(failure))

    def test_claims(self) -> None:
        """Each entry has a block, and a reason or a test that exists."""
        found = all_blocks()
        for each in claims():
            self.assertTrue(any(each.covers(block) for block in found), each)
            if " " not in each.by:
                module, case, test = each.by.rsplit(".", 2)
                where = "" if "." in module else "whole."
                of = getattr(import_module(f"filebucket.test.{where}{module}"), case)
                self.assertTrue(issubclass(of, DocumentCase), each)
                self.assertTrue(hasattr(of, test), each)

    def test_package(self) -> None:
        """The blocks that the test of the package runs are there."""
        text = (TREE / ".ci/check-deb-inside").read_text(encoding="utf-8")
        calls = re.findall(r"(?m)^ *((?:as_written|document|dropin) [^$\n]+)$", text)
        for call in calls:
            words = shlex.split(re.split(r" (?:[|>&]|2>)", call)[0])
            if words[0] == "dropin":
                words.insert(1, "debian.rst")
            _, page, heading, starts = words
            self.assertEqual(1, len(in_section(page, heading, starts)), call)
        self.assertLess(10, len(calls))

    def test_docutils(self) -> None:
        """They are those that docutils finds."""
        for page in pages():
            if page.endswith(".rst"):
                tree = publish_doctree(
                    (TREE / page).read_text(encoding="utf-8"),
                    settings_overrides={"report_level": 5, "halt_level": 5},
                )
                expected = [
                    each.astext()
                    for each in tree.findall(nodes.literal_block)
                    if not isinstance(each.parent, nodes.system_message)
                ]
                found = [each.text.rstrip("\n") for each in blocks(page)]
                self.assertEqual(expected, found, page)


class ConfigurationTests(DocumentCase):
    def test_load(self) -> None:
        """Blocks that are parts of a configuration."""
        loaded = set()
        for block in all_blocks():
            text = examples.shortened(block.text)
            for config in examples.configurations(text):
                parse(json.dumps(config), "/etc/file-bucket/config.json")
                loaded.add(block.page)
        self.assertLess(5, len(loaded), loaded)

    def test_json(self) -> None:
        """A block that looks like JSON is JSON: one object, several, or keys of one."""
        decoder = json.JSONDecoder()
        for block in all_blocks():
            if re.match(r'"\w+": |\{\s*"', block.text):
                rest = block.text if block.text[0] == "{" else f"{{{block.text}}}"
                while rest:
                    _, end = decoder.raw_decode(rest)
                    rest = rest[end:].lstrip()


class UnitTests(DocumentCase):
    """Units of systemd and their drop-ins."""

    def test_verify(self) -> None:
        """systemd knows each of their lines."""
        need("systemd-analyze")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for path in (TREE / "debian").glob("file-bucket*.*"):
            if path.suffix in {".service", ".socket", ".timer"}:
                (folder / path.name).write_text(examples.installed(path.read_text()))
        for number, block in enumerate(all_blocks()):
            if examples.is_unit(block.text):
                for name, text in examples.files_of_unit(
                    f"{number}", block.text
                ).items():
                    (folder / name).parent.mkdir(exist_ok=True)
                    (folder / name).write_text(text)
        units = [str(each) for each in folder.iterdir() if each.is_file()]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units],
            env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        # An older systemd does not know all lines of file-bucket.service itself.
        about = [
            each for each in done.stderr.splitlines() if "/file-bucket." not in each
        ]
        self.assertEqual([], about)

    def test_names(self) -> None:
        """Units of file-bucket that documents name are in the package."""
        there = {each.name for each in (TREE / "debian").glob("file-bucket*")}
        # A reader writes these.
        there |= {"file-bucket-rclone.service", "file-bucket-rclone.timer"}
        unit = re.compile(r"\bfile-bucket(?:-[a-z]+)*@?\.(?:service|socket|timer)\b")
        for page in pages():
            source = (TREE / page).read_text(encoding="utf-8").replace("\\", "")
            self.assertEqual(set(), set(unit.findall(source)) - there, page)


class CrontabTests(DocumentCase):
    def test_lines(self) -> None:
        """cron understands the times, and its shell the commands."""
        lines = [
            match
            for block in all_blocks()
            if examples.is_crontab(block.text)
            for match in examples.JOB.finditer(block.text)
        ]
        self.assertLess(5, len(lines))
        for line in lines:
            CronSim(line["times"].strip(), datetime.now(UTC))
            # It ends a command for cron.
            self.assertNotRegex(line["command"], r"(?<!\\)%")
            subprocess.run(
                ["/bin/sh", "-nc", line["command"]], check=True, timeout=PATIENCE
            )

    def test_path(self) -> None:
        """cron finds commands in /usr/local/bin, as pip and the client need it."""
        files = [each.text for each in all_blocks()]
        files.append((TREE / "contrib/client/push.cron").read_text(encoding="utf-8"))
        crontabs = [
            text
            for text in files
            if examples.is_crontab(text) and re.search(r"(?m)^[\d*/].*filebucket", text)
        ]
        self.assertLess(5, len(crontabs))
        for text in crontabs:
            self.assertIn("PATH=/usr/local/bin:", text)


class NginxTests(DocumentCase):
    def test_servers(self) -> None:
        """nginx understands them."""
        need("nginx")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        write_pair(folder)
        servers = [
            examples.nginx_server(block.text, folder, port)
            for block, port in zip(
                filter(lambda each: examples.is_nginx(each.text), all_blocks()),
                free_ports(50),
                strict=False,
            )
        ]
        self.assertLess(1, len(servers))
        command = [*nginx_command(folder, "\n".join(servers)), "-t", "-q"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))


class CommandTests(DocumentCase):
    """Commands that no test runs are at least spelled correctly."""

    def test_options(self) -> None:
        """Subcommands and options, in blocks and in texts."""
        seen = set()
        for page in pages():
            texts = [each.text for each in blocks(page)]
            source = (TREE / page).read_text(encoding="utf-8")
            texts += re.findall(r"``(filebucket[^`]*)``", source)
            for text in texts:
                for command in commands(text):
                    seen.add(command[0])
                    self.assertEqual([], unknown(command), f"{page}: {command}")
        self.assertEqual({"filebucket", "filebucket-push"}, seen)

    def test_curl(self) -> None:
        """curl has the options that documents name."""
        need("curl")
        shown = subprocess.run(
            ["curl", "--help", "all"],
            capture_output=True,
            check=True,
            text=True,
            timeout=PATIENCE,
        ).stdout
        there = set(re.findall(r"(--[a-z0-9.-]+)", shown))
        used = set()
        for page in pages():
            source = (TREE / page).read_text(encoding="utf-8")
            for call in re.findall(r"\bcurl(?:\.exe)? (?:[^\n|`]|\\\n)*", source):
                used |= set(re.findall(r"(?<= )--[a-z0-9.-]+", call))
        self.assertIn("--fail-with-body", used)
        self.assertEqual(set(), used - there)

    def test_targets(self) -> None:
        """Those of make."""
        makefile = (TREE / "Makefile").read_text(encoding="utf-8")
        there = set(re.findall(r"(?m)^([a-z][\w-]*)[ a-z-]*:", makefile))
        there |= {"bench-full"}
        for page in pages():
            source = (TREE / page).read_text(encoding="utf-8")
            found = re.findall(r"(?m)(?:^ +|``)make ([a-z][\w-]*)", source)
            self.assertEqual(set(), set(found) - there, page)

    def test_unknown(self) -> None:
        for text, expected in (
            ("filebucket stat", ["stat"]),
            ("cd x && filebucket status --json --lines", ["--lines"]),
            ("echo '' | filebucket bucket set web01 --keep 2 --kept=3", ["--kept"]),
            ("filebucket-push --nam x --exec -- tar --create", ["--nam"]),
            ("filebucket get x --exe 'su y -- tar -t'", ["--exe"]),
            ("sudo -u x /usr/bin/filebucket bucket\\\n    ad", ["ad"]),
        ):
            (command,) = commands(text)
            self.assertEqual(expected, unknown(command), text)


_END = re.compile("[();<>|&]+|--")
"""A word after which the arguments are not the command's own."""


def commands(text: str) -> Iterator[list[str]]:
    """Calls of file-bucket's programs in a script or a text."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            # Not of a shell.
            continue
        for at, word in enumerate(words):
            if Path(word).name in {"filebucket", "filebucket-push"}:
                rest = words[at + 1 :]
                ends = (i for i, each in enumerate(rest) if _END.fullmatch(each))
                yield [Path(word).name, *rest[: next(ends, None)]]
                break


def unknown(command: list[str]) -> list[str]:
    """Its subcommands and options that do not exist."""
    program, *words = command
    options = [re.split("[=[]", each)[0] for each in words if re.match(r"--\w", each)]
    if program == "filebucket-push":
        known = {name for each in parser()._actions for name in each.option_strings}
        return [each for each in options if each not in known]
    at: click.Command = main
    names = [each for each in words if re.fullmatch(r"[a-z][a-z-]*", each)]
    while isinstance(at, click.Group) and names:
        with click.Context(at) as context:
            found = at.get_command(context, names[0])
        if found is None:
            return [names[0]]
        at = found
        names.pop(0)
    known = {"--help", *(name for each in at.params for name in each.opts)}
    known |= {name for each in at.params for name in each.secondary_opts}
    return [each for each in options if each not in known]
