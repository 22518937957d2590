"""``filebucket resume``."""

from __future__ import annotations

from filebucket.config.load import load
from filebucket.test.kit.commands import TOKEN, CliCase


class ResumeTests(CliCase):
    def test_resume(self) -> None:
        paused = {"until": "2026-12-05", "reason": "x"}
        self.write({"name": "db", "token": TOKEN, "paused": paused, "quota": 5})
        output = self.run_("resume", "db")
        self.assertEqual("Resumed bucket db.", output.splitlines()[0])
        (bucket,) = load(str(self.file)).buckets
        self.assertEqual((None, 5), (bucket.paused, bucket.quota))
        self.assertNotIn("paused", self.file.read_text())

    def test_not_paused(self) -> None:
        self.write({"name": "db", "token": TOKEN})
        line = self.refused("resume", "db")
        self.assertEqual("Error: bucket 'db' is not paused", line)
