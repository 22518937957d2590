"""The commands together."""

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
from filebucket.upkeep.prune import PruningError


class HelpTests(SynchronousTestCase):
    """What it says of itself."""

    def test_fits(self) -> None:
        """Every command has a page, of 80 columns, and a line that is whole."""
        waiting: list[tuple[str, ...]] = [()]
        seen = 0
        while waiting:
            words = waiting.pop()
            command: click.Command = main.main
            for word in words:
                assert isinstance(command, click.Group)
                command = command.commands[word]
            if isinstance(command, click.Group):
                waiting += [(*words, name) for name in command.commands]
            output = CliRunner().invoke(main.main, [*words, "--help"]).output
            self.assertLessEqual(max(map(len, output.splitlines())), 80)
            self.assertNotIn("...\n", output.partition("Commands:")[2])
            seen += 1
        self.assertEqual(15, seen)


class FailureTests(SynchronousTestCase):
    """What an operator is told if a command fails."""

    def test_in_a_line(self) -> None:
        """A mistake of the operator's is a line, and a bug is a traceback."""
        for error, text in (
            (ConfigError("f", ["no"]), "f: no"),
            (CatalogueError("no"), "no"),
            (NotChangedError("no"), "no"),
            (NotReloadedError("no"), "no"),
            (PruningError("no"), "no"),
        ):
            result = self.fail_with(error)
            self.assertEqual((1, f"Error: {text}\n"), (result.exit_code, result.output))
            self.assertIsInstance(result.exception, SystemExit)
        self.assertIsInstance(self.fail_with(KeyError("x")).exception, KeyError)

    def fail_with(self, error: Exception) -> Result:
        """What is printed when a command raises this."""

        @click.command("fails")
        def fails() -> None:
            raise error

        self.patch(main.main, "commands", {"fails": fails})
        return CliRunner().invoke(main.main, ["fails"])


class VersionTests(SynchronousTestCase):
    """The command line."""

    def test_version(self) -> None:
        """It knows its version."""
        result = CliRunner().invoke(main.main, ["--version"])
        self.assertIn(__version__, result.output)
