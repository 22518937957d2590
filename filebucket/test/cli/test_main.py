"""All commands."""

from __future__ import annotations

import click
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from filebucket import __version__
from filebucket.base.errors import ConfigError
from filebucket.catalogue.database import CatalogueError
from filebucket.cli import main
from filebucket.config.edit import NotChangedError
from filebucket.daemon.ask import NotReloadedError
from filebucket.store.remove import RemovalError

SEVERAL = "f: 2 mistakes:\n  a\\x1b[2J\n  b\\x0d"


def command(*words: str) -> click.Command:
    """Find the command of these words."""
    found: click.Command = main.main
    for word in words:
        assert isinstance(found, click.Group)
        next_ = found.get_command(click.Context(found), word)
        assert next_ is not None
        found = next_
    return found


class HelpTests(SynchronousTestCase):
    def test_fits(self) -> None:
        """Every help page fits 80 columns, and no short help is cut."""
        waiting: list[tuple[str, ...]] = [()]
        seen = 0
        while waiting:
            words = waiting.pop()
            group = command(*words)
            if isinstance(group, click.Group):
                names = group.list_commands(click.Context(group))
                waiting += [(*words, name) for name in names]
            output = CliRunner().invoke(main.main, [*words, "--help"]).output
            self.assertLessEqual(max(map(len, output.splitlines())), 80)
            self.assertNotIn("...\n", output.partition("Commands:")[2])
            seen += 1
        self.assertEqual(28, seen)

    def test_unknown(self) -> None:
        """An unknown command imports no module."""
        for word in ("main", "options", "frob", "token_hash"):
            result = CliRunner().invoke(main.main, [word])
            self.assertEqual(2, result.exit_code)
            self.assertIn(f"No such command '{word}'", result.output)

    def test_typo(self) -> None:
        result = CliRunner().invoke(main.main, ["stauts"])
        self.assertEqual(2, result.exit_code)
        self.assertIn("'stauts'; did you mean 'status'?", result.output)

    def test_config_first(self) -> None:
        """The file is an option of each command."""
        for words in (["-c", "f"], ["--config", "f"], ["--config=f"], ["-cf"]):
            result = CliRunner().invoke(main.main, [*words, "status"])
            self.assertEqual(2, result.exit_code)
            self.assertIn("--config goes after the command", result.output)
        result = CliRunner().invoke(main.main, ["--json", "status"])
        self.assertIn("No such option", result.output)

    def test_names(self) -> None:
        for name in main.COMMANDS:
            self.assertEqual(name, command(name).name)


class FailureTests(SynchronousTestCase):
    def test_in_a_line(self) -> None:
        """An operator's error is one line, a bug a traceback."""
        for error, text in (
            (ConfigError("f", ["no"]), "f: no"),
            (CatalogueError("no"), "no"),
            (NotChangedError("no"), "no"),
            (NotReloadedError("no"), "no"),
            (RemovalError("no"), "no"),
            (ConfigError("f", ["a\x1b[2J", "b\r"]), SEVERAL),
        ):
            result = self.fail_with(error)
            self.assertEqual((1, f"Error: {text}\n"), (result.exit_code, result.output))
            self.assertIsInstance(result.exception, SystemExit)
        self.assertIsInstance(self.fail_with(KeyError("x")).exception, KeyError)

    def fail_with(self, error: Exception) -> Result:
        """The output of a command that raises this."""

        @click.command("fails")
        def fails() -> None:
            raise error

        self.patch(main.main, "get_command", lambda ctx, name: fails)
        return CliRunner().invoke(main.main, ["fails"])


class VersionTests(SynchronousTestCase):
    def test_version(self) -> None:
        result = CliRunner().invoke(main.main, ["--version"])
        self.assertIn(__version__, result.output)
