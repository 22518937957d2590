"""``filebucket reindex``."""

from __future__ import annotations

import json
import shutil

from filebucket.test.kit.commands import TOKEN, UpkeepCase


class ReindexTests(UpkeepCase):
    def test_enters(self) -> None:
        """The catalogue is created from the files on disk."""
        self.put("a")
        self.put("b", folder=TOKEN)
        output = self.run_("reindex")
        self.assertEqual("2 files, 2 read (14 B): 2 added\n", output)
        self.assertEqual({"a", "b"}, set(self.files()))
        self.assertEqual(
            "2 files, 0 read (0 B): no problems found\n", self.run_("reindex")
        )
        self.assertEqual([], self.idle)

    def test_findings(self) -> None:
        """One escaped line per finding."""
        self.push("a").unlink()
        (self.put("b").parent / "esc\x1b[31m").mkdir()
        self.assertEqual(
            [
                "missing     web01  a",
                "unknown     web01  esc\\x1b[31m: a name may not contain control"
                " characters",
                "2 files, 1 read (7 B): 1 missing, 1 unknown, 1 added",
            ],
            self.found("reindex"),
        )
        self.assertNotIn("missing", self.run_("reindex"))
        output = self.run_("reindex", "--accept")
        self.assertIn("accepted    web01  a\n", output)
        self.assertEqual("pruned", self.files()["a"].fate)

    def test_json(self) -> None:
        self.put("a")
        (self.home / TOKEN).symlink_to(TOKEN)
        output = self.invoke("reindex", "--json").output
        found = json.loads(output)
        self.assertEqual((1, 1), (found["entered"], found["unreadable"]))
        self.assertEqual(
            [
                {
                    "kind": "unreadable",
                    "bucket": self.nameless.label,
                    "name": None,
                    "reason": "Too many levels of symbolic links",
                }
            ],
            found["findings"],
        )
        self.assertNotIn(TOKEN, output)
        (self.home / TOKEN).unlink()
        self.assertEqual([], self.json("reindex")["findings"])

    def test_no_home(self) -> None:
        """No home is created: its disk may not be mounted."""
        shutil.rmtree(self.home / ".filebucket")
        self.assertIn("no home, or no daemon", self.refused("reindex"))
        self.assertIn("the catalogue: not created yet", self.refused("verify"))
        self.assertEqual([], list(self.home.iterdir()))
