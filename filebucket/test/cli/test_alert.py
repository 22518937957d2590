"""``filebucket alert``: what it prints. ``whole.test_alert`` runs hooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from filebucket.config.config import Config
from filebucket.daemon import once
from filebucket.hooks.interfaces import Alert, Exit
from filebucket.test.kit.commands import CliCase


class AlertTests(CliCase):
    """Nothing is run."""

    def setUp(self) -> None:
        super().setUp()
        self.ended = Exit(0)
        self.alerts: list[Alert] = []
        self.configs: list[Config] = []
        self.patch(once, "run", self.run_hook)

    def run_hook(
        self,
        reactor: Any,
        config: Config,
        alert: Alert,
        environ: Mapping[str, str],
        say: Callable[[str], object],
    ) -> Exit:
        self.alerts.append(alert)
        self.configs.append(config)
        say("its standard error")
        return self.ended

    def test_delivered(self) -> None:
        expected = f"its standard error\n{self.folder}/alert.sh exited with 0\n"
        self.assertEqual(expected, self.run_("alert", "--test"))
        self.assertEqual(["test"], [each.new for each in self.alerts])

    def test_unit(self) -> None:
        """systemd's log needs no line about a success."""
        output = self.run_("alert", "--unit", "no-such.service")
        self.assertEqual("its standard error\n", output)
        self.assertEqual(["unit"], [each.new for each in self.alerts])

    def test_unit_with_a_broken_configuration(self) -> None:
        """The alert comes: the daemon may have failed for this reason."""
        self.file.write_text("{")
        self.patch(os, "geteuid", lambda: 1000)
        output = self.run_("alert", "--unit", "no-such")
        self.assertEqual("its standard error\n", output)
        self.assertEqual([str(self.folder)], [each.hooks for each in self.configs])
        self.patch(os, "geteuid", lambda: 0)
        for arguments in (["--unit", "no-such"], ["--test"]):
            result = self.invoke("alert", *arguments)
            self.assertEqual(1, result.exit_code)
            self.assertIn("not valid JSON", result.output)
        self.assertEqual(["unit"], [each.new for each in self.alerts])

    def test_failed(self) -> None:
        late = "timed out after 300 seconds (hook_timeout)"
        for ended, how in (
            (Exit(3), "exited with 3"),
            (Exit(143, timed_out=True), late),
        ):
            self.ended = ended
            for arguments in (["--test"], ["--unit", "x"]):
                result = self.invoke("alert", *arguments)
                self.assertEqual(ended.status, result.exit_code)
                expected = f"{self.folder}/alert.sh {how}"
                self.assertEqual(expected, result.output.splitlines()[-1])

    def test_misused(self) -> None:
        for arguments in ([], ["--test", "--unit", "x"]):
            line = self.misused("alert", *arguments)
            self.assertEqual("Error: Give either --test or --unit.", line)
        self.assertEqual([], self.alerts)
