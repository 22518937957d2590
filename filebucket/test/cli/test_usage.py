"""What the buckets use, and the folders that belong to no bucket."""

from __future__ import annotations

import json
import os

from filebucket.catalogue.database import FILE
from filebucket.cli.usage import read_usage
from filebucket.test.kit.commands import HASH, LABEL, NOW, TOKEN, CatalogueCase


class UsageTests(CatalogueCase):
    keys = (
        {"name": "web01", "token_sha256": "01" * 32, "quota": "1 MB"},
        {"name": "db", "token_sha256": "02" * 32, "quota": "1 GB"},
        TOKEN,
    )

    def setUp(self) -> None:
        super().setUp()
        for label, name in (("web01", "a"), ("web01", "b"), (LABEL, "c")):
            self.push(label, name, 100_000, NOW)
        for name in ("web01", TOKEN, "other", ".hidden", "lost+found"):
            (self.home / name).mkdir(exist_ok=True)

    def lines(self) -> list[str]:
        return self.prints(0, "bucket", "list")

    def test_used(self) -> None:
        """Files, their size, and the share of the quota."""
        rows = [line.split("  ") for line in self.lines()[:4]]
        rows = [[cell.strip() for cell in row if cell] for row in rows]
        self.assertEqual(
            [
                ["web01", "010101", "never", "2", "195 KiB", "20 % of 1 MB", "-"],
                ["db", "020202", "never", "0", "-", "0 % of 1 GB", "-"],
                [LABEL, HASH[:6], "never", "1", "98 KiB", "-", "-"],
            ],
            rows[1:],
        )

    def test_json(self) -> None:
        found = json.loads("".join(self.prints(0, "bucket", "list", "--json")))
        self.assertEqual(
            [(2, 200_000, 208_192), (0, 0, 0), (1, 100_000, 104_096)],
            [(each["files"], each["bytes"], each["quota_used"]) for each in found],
        )

    def test_no_catalogue(self) -> None:
        """The numbers are unknown, and all else is shown."""
        self.close()
        for content in (None, b"no database"):
            os.unlink(self.home / FILE)
            if content is not None:
                (self.home / FILE).write_bytes(content)
            _, first, *_ = self.lines()
            self.assertEqual(
                ["web01", "010101", "never", "-", "-", "1", "MB", "-"], first.split()
            )
            (first, *_) = json.loads(
                "".join(self.prints(0, "bucket", "list", "--json"))
            )
            self.assertEqual((None, None), (first["files"], first["quota_used"]))
            self.assertIn("    other", self.lines())
            self.assertIsNone(read_usage(self.config).of("web01"))
            (self.home / FILE).touch()

    def test_other_folders(self) -> None:
        """Those of removed buckets, and others; a token is not shown."""
        self.write({"name": "db", "token_sha256": "02" * 32})
        self.assertEqual(
            [
                f"Folders that belong to no bucket, in {self.home}:",
                "",
                f"    {LABEL} (1 file, 98 KiB)",
                "    other (0 files, 0 B)",
                "    web01 (2 files, 195 KiB)",
            ],
            self.lines()[3:],
        )

    def test_removed(self) -> None:
        """Removing a bucket tells what stays."""
        (self.home / "web01" / "a").touch()
        lines = self.prints(0, "bucket", "remove", "web01")
        self.assertEqual(
            [
                f"Removed bucket web01 from {self.file}. Its files (2 files, 195 KiB)"
                " are still in",
                "",
                f"    {self.home}/web01",
            ],
            lines[:3],
        )
        text = "'filebucket bucket list' shows the folder until you delete it."
        self.assertIn(text, lines)
        self.assertIn("    web01 (2 files, 195 KiB)", self.lines())
