"""``filebucket hold``."""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import Any

from filebucket.base.fs import directory
from filebucket.cli import hold as module
from filebucket.config.load import load
from filebucket.model.bucket import Held
from filebucket.store import remove
from filebucket.store.archive import Folder
from filebucket.store.remove import prune_lock
from filebucket.test.kit.commands import LABEL, NOW, TOKEN, UpkeepCase

UNTIL = ("--until", "2026-12-05")
HOLD = (*UNTIL, "--reason", "case 7")
END = 1796515200.0


class HoldTests(UpkeepCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = NOW
        self.patch(time, "time", lambda: self.now)
        self.put("db-1")

    def held(self) -> tuple[Held, ...]:
        found = load(str(self.file)).buckets[0].held
        self.assertEqual((), load(str(self.file)).buckets[1].held)
        return found

    def raw(self) -> Any:
        return json.loads(self.file.read_text())["buckets"][0].get("held")

    def test_hold(self) -> None:
        """The date is written as given."""
        output = self.run_("hold", "web01", "db-1", *HOLD)
        self.assertEqual(
            "Held db-1 of bucket web01 until 2026-12-05: case 7\n\n"
            "'filebucket prune' respects this at once, the daemon after a reload.\n"
            f"Start the daemon:\n\n    filebucket serve --config {self.file}\n",
            output,
        )
        self.assertEqual((Held("db-1", END, "case 7"),), self.held())
        written = {"until": "2026-12-05", "reason": "case 7"}
        self.assertEqual({"db-1": written}, self.raw())

    def test_several(self) -> None:
        """Each hold has its own date, and the text of the others stays."""
        self.put("db-2")
        self.put("Größe")
        self.run_("hold", "web01", "db-1", *HOLD)
        exact = ("--until", "2026-12-06T12:00:00.5Z", "--reason", "x")
        output = self.run_("hold", "web01", "db-2", "Größe", *exact)
        self.assertIn("Held db-2 and Größe of bucket web01 until 2026-12-06", output)
        self.assertEqual(["db-1", "db-2", "Größe"], [each.name for each in self.held()])
        self.assertEqual("2026-12-06T12:00:00.5Z", self.raw()["db-2"]["until"])
        self.assertIn('"Größe"', self.file.read_text())

    def test_many(self) -> None:
        """The file stays readable."""
        names = [f"database-dump-{number}.sql.gz" for number in range(5)]
        for each in names:
            self.put(each)
        self.run_("hold", "web01", *names, *HOLD)
        self.assertLessEqual(max(map(len, self.file.read_text().splitlines())), 120)

    def test_longer(self) -> None:
        """A hold can be made longer, but not shorter: one must not end another."""
        self.run_("hold", "web01", "db-1", *HOLD)
        self.run_("hold", "web01", "db-1", "--until", "2026-12-06", "--reason", "y")
        (held,) = self.held()
        self.assertEqual("y", held.reason)
        self.assertEqual(
            "Error: db-1 is held until 2026-12-06; to end that earlier, release it"
            " first",
            self.refused("hold", "web01", "db-1", *HOLD),
        )
        self.assertEqual((held,), self.held())

    def test_not_stored(self) -> None:
        """Nothing is held if any of the files is not there."""
        (self.home / "web01" / "link").symlink_to("db-1")
        (self.home / "web01" / "folder").mkdir()
        for name in ("db-2", "link", "folder", "../web01/db-1", "..", "x" * 999, ""):
            for more in ((), ("--json",)):
                line = self.refused("hold", "web01", "db-1", name, *HOLD, *more)
                self.assertIn("Error: ", line)
        self.assertEqual(
            "Error: bucket 'web01' has no file db-2",
            self.refused("hold", "web01", "db-2", *HOLD),
        )
        line = self.refused("hold", LABEL, "db-1", *HOLD)
        self.assertEqual(f"Error: bucket '{LABEL}' has no file db-1", line)
        self.assertEqual((), self.held())

    def test_release(self) -> None:
        self.put("db-2")
        before = self.file.read_text()
        self.run_("hold", "web01", "db-1", "db-2", *HOLD)
        (self.home / "web01" / "db-1").unlink()
        output = self.run_("hold", "--release", "web01", "db-1")
        self.assertIn("Released db-1 of bucket web01.\n", output)
        self.assertEqual(["db-2"], [each.name for each in self.held()])
        self.assertEqual(
            "Error: db-1 of bucket 'web01' is not held",
            self.refused("hold", "--release", "web01", "db-2", "db-1"),
        )
        found = self.json("hold", "--release", "web01", "db-2")
        self.assertEqual([], found["held"])
        self.assertEqual(json.loads(before), json.loads(self.file.read_text()))

    def test_over(self) -> None:
        """A hold that is over has no effect, and the next change drops it."""
        self.put("db-2")
        self.run_("hold", "web01", "db-1", *HOLD)
        self.now = END
        self.assertIn("is not held", self.refused("hold", "--release", "web01", "db-1"))
        self.assertEqual([], self.json("hold", "web01")["held"])
        self.assertEqual(
            "No file of bucket web01 is held.\n", self.run_("hold", "web01")
        )
        self.run_("hold", "web01", "db-2", "--until", "2027-01-01", "--reason", "x")
        self.assertEqual(["db-2"], [each.name for each in self.held()])

    def test_list(self) -> None:
        self.put("db-2")
        self.run_("hold", "web01", "db-1", "db-2", *HOLD)
        (self.home / "web01" / "db-2").unlink()
        head, *rows = self.run_("hold", "web01").splitlines()
        self.assertEqual(["NAME", "UNTIL", "FILE", "REASON"], head.split())
        self.assertEqual(
            [
                ["db-1", "2026-12-05", "stored", "case", "7"],
                ["db-2", "2026-12-05", "missing", "case", "7"],
            ],
            [each.split() for each in rows],
        )
        found = self.json("hold", "web01")
        expected = {"name": "db-1", "until": "2026-12-05", "reason": "case 7"}
        self.assertEqual("web01", found["bucket"])
        self.assertEqual({**expected, "stored": True}, found["held"][0])
        self.assertIs(False, found["held"][1]["stored"])

    def test_unreadable(self) -> None:
        """A user who may not read the home can list the holds."""
        self.run_("hold", "web01", "db-1", *HOLD)
        self.patch(Folder, "look", _forbidden)
        self.assertIs(None, self.json("hold", "web01")["held"][0]["stored"])
        self.assertIn("  -     case 7", self.run_("hold", "web01"))
        self.patch(os, "getuid", lambda: 1000)
        self.assertEqual(
            "Error: db-1: Permission denied; run this as root or as the daemon's user",
            self.refused("hold", "web01", "db-1", *HOLD),
        )

    def test_masked(self) -> None:
        """A token in a name is not printed."""
        self.put(f"x-{TOKEN}")
        for arguments in (
            ("hold", "web01", f"x-{TOKEN}", *HOLD),
            ("hold", "web01", f"x-{TOKEN}", *HOLD, "--json"),
            ("hold", "web01"),
            ("hold", "web01", "--json"),
            ("bucket", "list", "--json"),
            ("hold", "--release", "web01", f"x-{TOKEN}"),
        ):
            output = self.run_(*arguments)
            self.assertNotIn(TOKEN, output)
        line = self.refused("hold", "--release", "web01", f"x-{TOKEN}")
        self.assertNotIn(TOKEN, line)

    def test_prune_runs(self) -> None:
        """A file can be held while prune runs, unless it is deleted right then."""
        with prune_lock(str(self.home)):
            self.run_("hold", "web01", "db-1", *HOLD)
        self.assertEqual(["db-1"], [each.name for each in self.held()])

    def test_pruned_meanwhile(self) -> None:
        """No hold of a file that is gone is confirmed."""

        def await_removal(home: str, directory: str) -> None:
            self.assertEqual(["db-1"], [each.name for each in self.held()])
            (self.home / directory / "db-1").unlink()

        self.patch(module, "await_removal", await_removal)
        self.assertEqual(
            "Error: db-1: now held, but bucket 'web01' has no file db-1",
            self.refused("hold", "web01", "db-1", *HOLD),
        )

    def test_stuck(self) -> None:
        """A prune that was stopped may be about to delete the file."""
        self.patch(remove, "REMOVAL", 0.0)
        with directory(str(self.home / "web01")) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.assertEqual(
                "Error: db-1: now held, but a process keeps the bucket's folder locked,"
                " and may delete the file",
                self.refused("hold", "web01", "db-1", *HOLD),
            )

    def test_json(self) -> None:
        found = self.json("hold", "web01", "db-1", *HOLD)
        self.assertEqual(
            {
                "config": str(self.file),
                "bucket": "web01",
                "held": [{"name": "db-1", "until": "2026-12-05", "reason": "case 7"}],
            },
            found,
        )

    def test_listed(self) -> None:
        """The list of buckets has the number, and that of files the date."""
        self.push("db-1")
        self.run_("hold", "web01", "db-1", *HOLD)
        self.assertIn("1 file held", self.run_("bucket", "list"))
        self.assertEqual(1, self.json("bucket", "list")[0]["held"])
        self.assertIn("held until 2026-12-05", self.run_("files", "web01"))
        line = self.run_("files", "web01", "--json")
        expected = {"until": "2026-12-05", "reason": "case 7"}
        self.assertEqual(expected, json.loads(line)["held"])
        self.now = END
        self.assertNotIn("held", self.run_("bucket", "list"))
        self.assertNotIn("held", self.run_("files", "web01"))
        self.assertIsNone(json.loads(self.run_("files", "web01", "--json"))["held"])

    def test_bucket_removed(self) -> None:
        """A bucket keeps its holds: it is removed only without any."""
        self.run_("hold", "web01", "db-1", *HOLD)
        self.assertEqual(
            "Error: 1 file of bucket 'web01' is held; release it with 'filebucket"
            " hold --release'",
            self.refused("bucket", "remove", "web01"),
        )
        self.run_("retire", "web01")
        self.assertEqual(1, len(self.held()))
        self.now = END
        self.run_("bucket", "remove", "web01")

    def test_misused(self) -> None:
        why = ("--reason", "x")
        for arguments, text in (
            (("web01", "db-1", *UNTIL), "Missing option '--reason'"),
            (("web01", "db-1", *why), "Missing option '--until'"),
            (("web01", "db-1"), "Missing option '--until'"),
            (("web01", *UNTIL), "--until needs the NAME of a file"),
            (("web01", *why), "--reason needs the NAME of a file"),
            (("web01", "--release"), "--release needs the NAME of a file"),
            (("web01", "db-1", "--release", *why), "--release excludes --reason"),
            (("web01", "db-1", "--until", "2026-11-23", *why), "is in the past"),
            (("web01", "db-1", "--until", "soon", *why), "must be a date"),
            (("web01", "db-1", *UNTIL, "--reason", "a\nb"), "a line break"),
        ):
            self.assertIn(text, self.misused("hold", *arguments))
        self.assertEqual(2, self.invoke("hold", "web02", "db-1", *HOLD).exit_code)


def _forbidden(*args: object, **kwargs: object) -> None:
    raise PermissionError(13, "Permission denied")
