"""The output of commands that change buckets."""

from __future__ import annotations

import json

from filebucket.daemon import control
from filebucket.test.kit.commands import TOKEN, CliCase


class ApplyTests(CliCase):
    def test_running(self) -> None:
        """A daemon that runs is reloaded."""
        self.write({"name": "db", "token": TOKEN})
        self.patch(control, "daemon_of", lambda home: 123)
        for command in (("retire", "db"), ("bucket", "set", "db", "--quota", "5")):
            output = self.run_(*command)
            reload = f"filebucket reload --config {self.file}"
            self.assertTrue(output.endswith(f"\n\nActivate it:\n\n    {reload}\n"))
            found = json.loads(self.run_("bucket", "set", "db", "--hold=1d", "--json"))
            self.assertEqual({"config", "buckets"}, set(found))
