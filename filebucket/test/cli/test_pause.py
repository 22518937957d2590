"""``filebucket pause``."""

from __future__ import annotations

import json
import time

from filebucket.config.load import load
from filebucket.model.bucket import Pause
from filebucket.test.kit.commands import HASH, LABEL, NOW, TOKEN, CliCase


class PauseTests(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(time, "time", lambda: NOW)
        self.write(TOKEN, {"name": "db", "token_sha256": HASH[::-1]})

    def pauses(self) -> list[Pause | None]:
        return [each.paused for each in load(str(self.file)).buckets]

    def test_pause(self) -> None:
        """The date is written as given."""
        output = self.run_(
            "pause", "db", "--until", "2026-12-05", "--reason", "moves to Ulm"
        )
        self.assertEqual(
            "Paused bucket db until 2026-12-05: moves to Ulm\n\nStart the daemon:\n\n"
            f"    filebucket serve --config {self.file}\n",
            output,
        )
        self.assertEqual([None, Pause(1796515200.0, "moves to Ulm")], self.pauses())
        written = json.loads(self.file.read_text())["buckets"][1]["paused"]
        self.assertEqual({"until": "2026-12-05", "reason": "moves to Ulm"}, written)

    def test_again(self) -> None:
        """A pause replaces an earlier one."""
        for until in ("2026-12-05", "2026-12-06T12:00:00Z"):
            self.run_("pause", "db", "--until", until, "--reason", "x")
        self.assertEqual([None, Pause(1796558400.0, "x")], self.pauses())

    def test_several(self) -> None:
        given = ("--until", "2026-12-05", "--reason", "x")
        output = self.run_("pause", "db", LABEL, *given)
        self.assertIn(f"Paused buckets db and {LABEL} until 2026-12-05: x\n", output)
        self.assertEqual([Pause(1796515200.0, "x")] * 2, self.pauses())
        self.assertNotIn(TOKEN, output)

    def test_json(self) -> None:
        found = self.json("pause", "db", "--until", "2026-12-05", "--reason", "x")
        self.assertEqual(str(self.file), found["config"])
        (bucket,) = found["buckets"]
        expected = {"until": "2026-12-05", "reason": "x"}
        self.assertEqual(("db", expected), (bucket["name"], bucket["paused"]))

    def test_misused(self) -> None:
        until, reason = ("--until", "2026-12-05"), ("--reason", "x")
        for arguments, text in (
            (("db", *until), "Missing option '--reason'"),
            (("db", *reason), "Missing option '--until'"),
            ((*until, *reason), "Missing argument 'BUCKET...'"),
            (("db", "--until", "2026-11-23", *reason), "--until: is in the past"),
            (("db", "--until", "tomorrow", *reason), "'--until': must be a date"),
            (("db", *until, "--reason", "a\nb"), "'--reason': contains a line break"),
        ):
            self.assertIn(text, self.misused("pause", *arguments))

    def test_unknown(self) -> None:
        line = self.refused("pause", "dbs", "--until", "2026-12-05", "--reason", "x")
        self.assertEqual("Error: there is no bucket 'dbs'; did you mean 'db'?", line)
