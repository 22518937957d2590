"""``filebucket verify``."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing

from filebucket.catalogue.journal import Journal
from filebucket.test.kit.commands import DAY, TOKEN, UpkeepCase
from filebucket.test.kit.sealed import replace_kernel


class VerifyTests(UpkeepCase):
    def test_in_order(self) -> None:
        """The summary is printed, and the process was idle."""
        self.push("a")
        self.assertEqual(
            "1 file, 1 read (7 B): no problems found\n", self.run_("verify")
        )
        self.assertEqual([True], self.idle)
        self.assertIsNotNone(self.files()["a"].verified_at)

    def test_findings(self) -> None:
        """Damaged, missing and unknown files, also as JSON."""
        self.damage(self.push("a"))
        self.push("b").unlink()
        self.put("c")
        lines = self.found("verify")
        self.assertEqual(
            [
                "missing     web01  b",
                "unknown     web01  c: not received by file-bucket",
                "damaged     web01  a: content differs from what was received",
                "2 files, 1 read (7 B): 1 damaged, 1 missing, 1 unknown",
            ],
            lines,
        )
        found = json.loads("".join(self.found("verify", "--json")))
        kinds = ["missing", "stranger", "damaged"]
        self.assertEqual(kinds, [each["kind"] for each in found["findings"]])
        self.assertEqual([1, 1, 1], [found[kind] for kind in kinds])

    def test_not_sealed(self) -> None:
        """Also if files must be sealed at once."""
        replace_kernel(self)
        self.push("a")
        bucket = {"name": "web01", "token": "f" * 32}
        for seal in ("0s", "15m"):
            self.write(bucket, TOKEN, seal=seal)
            self.assertIn("1 not sealed", self.found("verify")[-1])
        self.write(bucket, TOKEN)
        self.assertNotIn("sealed", self.run_("verify"))

    def test_options(self) -> None:
        self.push("a", age=40 * DAY)
        self.push("b")
        output = self.run_("verify", "web01", "--older-than", "30d", "--rate", "1MiB/s")
        self.assertEqual("2 files, 1 read (7 B): no problems found\n", output)
        self.assertEqual(
            "0 files, 0 read (0 B): no problems found\n",
            self.run_("verify", self.nameless.label),
        )

    def test_misused(self) -> None:
        """A usage error is not exit status 1."""
        for arguments, text in (
            (["--rate", "0"], "must be more than 0"),
            (["--rate", "fast"], "must be a size"),
            (["--older-than", "soon"], "must be a time span"),
            (["--sha256sums", "-", "--json"], "excludes --json, --rate and"),
        ):
            self.assertIn(text, self.misuse("verify", *arguments))
        result = self.invoke("verify", "nope")
        self.assertEqual(2, result.exit_code)
        self.assertEqual("Error: there is no bucket 'nope'\n", result.output)

    def test_restored(self) -> None:
        """A file that is back is one file."""
        path = self.push("a")
        away = path.rename(self.folder / "away")
        self.found("verify")
        away.rename(path)
        self.assertEqual(
            ["restored    web01  a", "1 file, 0 read (0 B): 1 restored"],
            self.run_("verify").splitlines(),
        )

    def test_help(self) -> None:
        output = " ".join(self.run_("verify", "--help").split())
        self.assertIn("Skip files received or verified within TIME", output)
        self.assertIn("replaced when it is pushed again with X-Checksum", output)

    def test_no_catalogue(self) -> None:
        self.assertIn("filebucket reindex", self.refused("verify"))

    def test_hook_takes_long(self) -> None:
        """A file is skipped while its post-push hook may still run."""
        (self.folder / "post-push.sh").touch()
        self.put("a")
        with closing(Journal.open(str(self.home))):
            output = self.run_("verify")
        self.assertIn("skipped     web01  a: its push may", output)


class SumsTests(UpkeepCase):
    def setUp(self) -> None:
        super().setUp()
        self.put("a 1")
        self.put("ü", folder=TOKEN)
        self.run_("reindex")

    def test_file(self) -> None:
        """The file is complete and private; no stored file is read."""
        sums = self.folder / "SHA256SUMS"
        sums.write_text("old")
        sums.chmod(0o644)
        (self.home / "web01").rename(self.folder / "aside")
        self.assertEqual("", self.run_("verify", "--sha256sums", str(sums)))
        (self.folder / "aside").rename(self.home / "web01")
        self.assertEqual(0o600, sums.stat().st_mode & 0o777)
        digest = hashlib.sha256(b"content").hexdigest()
        expected = f"{digest}  web01/a 1\n{digest}  {TOKEN}/ü\n"
        self.assertEqual(expected, sums.read_text(encoding="utf-8"))
        self.assertEqual([], self.idle)

    def test_stdout(self) -> None:
        """Standard output contains no token."""
        output = self.run_("verify", "--sha256sums", "-")
        self.assertIn("  web01/a 1\n", output)
        self.assertIn(f"{self.nameless.label} left out", output)
        self.assertNotIn(TOKEN, output)
        output = self.run_("verify", "--sha256sums", "-", "web01")
        self.assertNotIn("left out", output)
        self.put(f"x-{TOKEN}")
        self.run_("reindex")
        output = self.run_("verify", "--sha256sums", "-", "web01")
        self.assertIn("  web01/a 1\n1 file left out: the name contains a", output)
        self.assertNotIn(TOKEN, output)

    def test_cannot_write(self) -> None:
        """One line with the reason, and no file left behind."""
        text = self.refused("verify", "--sha256sums", str(self.folder / "x" / "sums"))
        self.assertIn("No such file", text)

    def test_other_names(self) -> None:
        """A link in its place is replaced, not followed."""
        sums, new = self.folder / "sums", self.folder / "sums.new"
        new.symlink_to(self.folder / "elsewhere")
        self.run_("verify", "--sha256sums", str(sums))
        self.assertFalse((self.folder / "elsewhere").exists())
        victim = self.home / "web01" / "a 1"
        os.link(victim, new)
        self.run_("verify", "--sha256sums", str(sums))
        self.assertEqual(b"content", victim.read_bytes())
        self.assertFalse(new.exists())
