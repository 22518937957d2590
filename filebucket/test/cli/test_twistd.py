"""twistd without a search for plugins."""

from __future__ import annotations

import os
import sys
from typing import Any

from click.testing import CliRunner
from twisted.application import app
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from filebucket import tap
from filebucket.cli import main


class RunTests(SynchronousTestCase):
    def test_serve(self) -> None:
        """twistd gets the right arguments, and only our plugin."""
        found: list[Any] = []

        def app_run(run: object, options: Any) -> None:
            parsed = options()
            parsed.parseOptions()
            found.append(parsed)

        self.patch(app, "run", app_run)
        self.patch(sys, "argv", ["filebucket", "serve", "--config", "x.json"])
        CliRunner().invoke(main.main, ["serve", "--config", "x.json"])
        (options,) = found
        self.assertEqual("filebucket", options.subCommand)
        self.assertEqual(os.path.abspath("x.json"), options.subOptions["config"])
        self.assertEqual("/", options["rundir"])
        self.assertTrue(options["nodaemon"])
        self.assertEqual("", options["pidfile"])
        self.assertIsNone(options.subOptions["log-format"])
        self.assertEqual(["filebucket"], list(options.loadedPlugins))

    def test_log_format(self) -> None:
        """The format is passed to the daemon's options, which check it."""
        found: list[Any] = []
        self.patch(app, "run", lambda run, options: found.append(list(sys.argv)))
        self.patch(sys, "argv", ["filebucket"])
        CliRunner().invoke(main.main, ["serve", "--log-format", "json"])
        self.assertEqual(["--log-format", "json"], found[0][-2:])
        refused = CliRunner().invoke(main.main, ["serve", "--log-format", "xml"])
        self.assertEqual(2, refused.exit_code)
        with self.assertRaises(usage.UsageError):
            tap.Options().parseOptions(["--log-format", "xml"])
