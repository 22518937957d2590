"""``filebucket migrate``."""

from __future__ import annotations

import errno
import json
import os

from filebucket.daemon import control
from filebucket.test.kit.catalogue import new_database
from filebucket.test.kit.commands import UpkeepCase


class MigrateTests(UpkeepCase):
    def configure(self, conninfo: str) -> None:
        content = json.loads(self.file.read_text())
        content["catalogue"] = {"postgresql": conninfo}
        self.file.write_text(json.dumps(content))

    def test_migrates(self) -> None:
        """Commands then read the database."""
        self.push("a")
        left = f"the old catalogue is still {self.home}/.filebucket/catalogue.sqlite3"
        self.configure(new_database().conninfo)
        self.assertIn("not created yet", self.refused("files", "web01"))
        self.assertEqual(f"copied 1 push to 1 bucket; {left}\n", self.run_("migrate"))
        self.assertIn("a", self.run_("files", "web01"))
        self.assertEqual(
            "Error: the catalogue: the database has a catalogue already; nothing was"
            " copied",
            self.refused("migrate"),
        )

    def test_daemon_runs(self) -> None:
        """Its next pushes would only be in the old catalogue."""
        self.push("a")
        self.configure(new_database().conninfo)
        self.patch(control, "daemon_of", lambda home: os.getpid())
        expected = "Error: the daemon is running: stop it first; nothing was copied"
        self.assertEqual(expected, self.refused("migrate"))
        self.assertIn("not created yet", self.refused("files", "web01"))

    def test_unknown_whether_daemon_runs(self) -> None:
        def refuse(home: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.configure(new_database().conninfo)
        self.patch(control, "daemon_of", refuse)
        self.assertIn("cannot tell whether the daemon runs", self.refused("migrate"))

    def test_json(self) -> None:
        self.push("a")
        self.configure(new_database().conninfo)
        self.assertEqual(1, self.json("migrate")["rows"]["push"])

    def test_no_database(self) -> None:
        self.assertEqual(
            f"Error: {self.file} has no 'catalogue': name the database there first",
            self.refused("migrate"),
        )
