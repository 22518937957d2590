"""Alerts that a command sends. ``whole.test_alert`` runs the hook for real."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import filebucket
from filebucket.daemon import control, once
from filebucket.daemon.once import make_alert, trial_alert, unit_alert
from filebucket.hooks.interfaces import ALERT
from filebucket.model.problem import CRITICAL
from filebucket.test.kit.children import deadline
from filebucket.test.kit.server import PATIENCE

NOW = 1_795_000_000.0
DOCUMENT = Path(filebucket.__file__).parents[1] / "docs" / "how-to" / "hooks.rst"


class AlertTests(SynchronousTestCase):
    def test_server(self) -> None:
        """It is about the server, and has no series."""
        made = make_alert("x", "something is wrong", CRITICAL, NOW)
        expected = {
            "BUCKET": "-",
            "OLD": "ok",
            "NEW": "x",
            "TEXT": "something is wrong",
            "SEVERITY": "critical",
            "SINCE": "2026-11-18T11:06:40Z",
            "TITLE": f"server {os.uname().nodename}: x",
            "MESSAGE": f"server {os.uname().nodename}: something is wrong",
        }
        told = made.environment(ALERT)
        self.assertEqual(expected, {key: each for key, each in told.items() if each})
        self.assertRegex(made.request_id, "^[0-9a-f]{16}$")
        self.assertNotEqual(made.request_id, trial_alert(NOW).request_id)

    def test_trial(self) -> None:
        told = trial_alert(NOW).environment(ALERT)
        self.assertEqual(
            ("test", "warning", "this is a test; nothing is wrong"),
            (told["NEW"], told["SEVERITY"], told["TEXT"]),
        )

    def test_documented(self) -> None:
        """A hook gets all the variables that the daemon sets."""
        if not DOCUMENT.exists():
            raise SkipTest("installed without its documents")
        alerts = DOCUMENT.read_text().split("\nAlerts\n")[1]
        named = re.findall(r"^``FILEBUCKET_(\w+)``(?: \(-\))?  ", alerts, re.MULTILINE)
        told = set(trial_alert(NOW).environment(ALERT))
        self.assertEqual({*named, "BUCKET"}, told)


class UnitTests(SynchronousTestCase):
    """Units of systemd that failed, with a fake systemctl."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def text(self, script: str, unit: str = "x.service") -> str:
        """The text if systemctl is this script."""
        path = self.folder / "systemctl"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(stat.S_IRWXU)
        environ = {"PATH": f"{self.folder}:{os.environ.get('PATH', os.defpath)}"}
        self.patch(os, "environ", environ)
        told = unit_alert(unit, environ, NOW).environment(ALERT)
        self.assertEqual(("unit", "critical"), (told["NEW"], told["SEVERITY"]))
        return told["TEXT"]

    def test_results(self) -> None:
        for lines, expected in (
            ("Result=exit-code\nExecMainStatus=1", "failed: exited with 1; "),
            ("Result=signal\nExecMainStatus=9", "failed: ended by signal 9; "),
            ("Result=core-dump\nExecMainStatus=11", "failed: ended by signal 11; "),
            ("Result=timeout\nExecMainStatus=15", "failed: timeout; "),
            ("Result=oom-kill\nExecMainStatus=0", "failed: oom-kill; "),
            ("Result=success\nExecMainStatus=0", "failed; "),
            ("", "failed; "),
        ):
            text = self.text(f"cat <<END\n{lines}\nEND")
            self.assertEqual(f"x.service {expected}see journalctl -u x.service", text)

    def test_no_answer(self) -> None:
        for script in ("exit 1", "kill -9 $$", "printf '\\377=\\n\\n='"):
            text = self.text(script)
            self.assertEqual("x.service failed; see journalctl -u x.service", text)

    def test_name(self) -> None:
        """It is one word for systemctl, and one line in the text."""
        self.text('printf "%s\\n" "$@" >"${0%/*}/argv"', "--version\n$(touch x)")
        said = (self.folder / "argv").read_text()
        self.assertTrue(said.endswith("\n--\n--version\n$(touch x)\n"), said)
        self.assertNotIn("\n", self.text("", "a\nb"))


class DaemonTests(SynchronousTestCase):
    """The rights and the environment of the running daemon."""

    def setUp(self) -> None:
        self.patch(os, "chdir", lambda path: None)
        self.patch(os, "umask", lambda mask: None)
        self.patch(once, "become_owner_of", lambda home, private: None)
        daemon = subprocess.Popen(
            ["/bin/sh", "-c", "echo; read line"],
            env={"PATH": "/chosen"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(daemon.communicate, timeout=PATIENCE)
        with deadline(daemon):
            assert daemon.stdout is not None
            # Its environment is known once it runs.
            daemon.stdout.readline()
        self.daemon = daemon.pid

    def path(self) -> str:
        """The PATH of a hook."""
        return once.become_daemon("/nowhere", {"PATH": "/own"})["PATH"]

    def test_environment(self) -> None:
        self.patch(control, "daemon_of", lambda home: self.daemon)
        self.assertEqual("/chosen", self.path())

    def test_reused(self) -> None:
        """The pid may be another process by the time that its environment is read."""
        found = [self.daemon, None]
        self.patch(control, "daemon_of", lambda home: found.pop(0))
        self.assertEqual("/own", self.path())
        self.assertEqual([], found)

    def test_other_user(self) -> None:
        """The private folder was replaced after its daemon was found."""
        self.patch(control, "daemon_of", lambda home: self.daemon)
        user = os.geteuid()
        self.patch(os, "geteuid", lambda: user + 1)
        self.assertEqual("/own", self.path())
