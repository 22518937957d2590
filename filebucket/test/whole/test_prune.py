"""``filebucket prune`` as a process, and beside a daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SkipTest

from filebucket.cli import main
from filebucket.test.cli.test_prune import PruneCase
from filebucket.test.kit.integration import IntegrationCase
from filebucket.test.kit.server import NOBODY, OTHER, PATIENCE, Server


class ProcessTests(PruneCase):
    """As a process, with the rights of the home's owner."""

    def test_process(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root has rights to give up")
        # In a folder that other users can enter, unlike those of tests.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.file = self.folder / "config.json"
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        self.write(self.bucket(keep={"daily": 2}))
        self.push(30, 20, 10, 9)
        for folder, folders, files in os.walk(self.home):
            for each in (".", *folders, *files):
                os.chown(Path(folder) / each, NOBODY, NOBODY)
        # The owner cannot remove root's files there.
        os.chown(self.home / "web01", 0, 0)
        command = [sys.executable, "-m", "filebucket", "prune", "--json"]
        done = self.process(command)
        self.assertEqual(1, done.returncode, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual((0, 2, 2), (found["pruned"], found["failed"], found["kept"]))
        self.assertEqual(
            ["cannot be removed: Permission denied"], found["files"][0]["reasons"]
        )
        os.chown(self.home / "web01", NOBODY, NOBODY)
        done = self.process(command)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(3000, json.loads(done.stdout)["freed"])
        self.assertEqual({"db-9", "db-10"}, self.there())
        self.assertEqual(
            {NOBODY},
            {each.stat().st_uid for each in (self.home / ".filebucket").iterdir()},
        )

    def process(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--config", str(self.file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )


class DaemonTests(IntegrationCase):
    """Beside a daemon that takes pushes."""

    def test_prunes(self) -> None:
        """A pushed file is pruned, its name is free again, and it is not reported as
        missing."""
        bucket = {"name": "web01", "token": OTHER, "keep": {"last": 2}, "hold": "0s"}
        server = self.server(buckets=[bucket])
        for number in range(1, 5):
            self.push(server, f"db-{number}")
        self.restart(server)
        self.assertIn("Pruned 2 files (14 B); 2 kept.", self.command(server, "prune"))
        self.assertEqual({"web01/db-3", "web01/db-4"}, set(server.stored()))
        self.push(server, "db-1")
        self.restart(server)
        self.assertIn("Pruned 1 file (7 B); 2 kept.", self.command(server, "prune"))
        self.assertEqual({"web01/db-4", "web01/db-1"}, set(server.stored()))
        self.command(server, "reindex")

    def push(self, server: Server, name: str) -> None:
        status, answer = self.curl(
            "-T", str(self.file()), f"{server.url}/{OTHER}/{name}"
        )
        self.assertEqual(200, status, answer)

    def restart(self, server: Server) -> None:
        """At its end, the daemon has added all pushes."""
        server.stop()
        server.start()

    def command(self, server: Server, word: str) -> str:
        """The output; the command must succeed."""
        found = CliRunner().invoke(main.main, [word, "-c", str(server.config_file)])
        self.assertEqual(0, found.exit_code, found.output)
        return found.output
