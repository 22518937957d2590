"""``filebucket check``: what it prints."""

from __future__ import annotations

import json
import re

from filebucket.config.load import load
from filebucket.daemon import check, control
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.commands import HASH, CliCase


class CheckTests(CliCase):
    def test_in_order(self) -> None:
        self.write({"name": "db", "token_sha256": HASH})
        output = self.run_("check", "--strict", "--no-daemon")
        self.assertEqual(f"{self.file}: no problems found", output.splitlines()[0])
        self.assertIn("\nbuckets  1\n", output)
        self.assertFalse((self.folder / "home").exists())

    def test_risky(self) -> None:
        """Risks are printed; they fail the check only with --strict."""
        output = self.run_("check")
        self.assertIn(f"risky  {self.file}: no buckets are configured: every", output)
        self.assertIn("0 wrong, 2 risky", output)
        self.assertEqual(1, self.invoke("check", "--strict").exit_code)

    def test_no_daemon(self) -> None:
        """It fails the check only with --strict."""
        self.write({"name": "db", "token_sha256": HASH})
        output = self.run_("check")
        self.assertIn("no daemon runs, so no push arrives; start it: ", output)
        self.assertEqual(1, self.invoke("check", "--strict").exit_code)
        nothing: dict[str, list[str]] = {
            "added": [],
            "changed": [],
            "removed": [],
            "waiting": [],
        }
        self.assertEqual(nothing, self.json("check")["due"])

    def test_daemon(self) -> None:
        """Its process, if that is known."""
        (self.folder / "home").mkdir()
        for process, text in (
            (None, "not running"),
            (7, "process 7"),
            (0, "running in another container or on another machine"),
        ):
            self.patch(control, "daemon_of", lambda home, found=process: found)
            self.assertIn(f"\ndaemon   {text}\n", self.run_("check"))
        self.assertNotIn("process", self.run_("check", "--no-daemon"))

    def test_object_store(self) -> None:
        """Files are published there, not in the home."""
        buckets = {"names_bucket": "names", "data_bucket": "data"}
        store = {"s3": {"endpoints": ["http://s3"], **buckets}}
        self.write({"name": "db", "token_sha256": HASH}, store=store)
        report = check.Report((), load(str(self.file)), tier="O_TMPFILE")
        self.patch(check, "check", lambda *args: report)
        self.assertIn(
            f"\nhome     {self.folder / 'home'}\nstore    S3 buckets names and data\n",
            self.run_("check"),
        )

    def test_wrong(self) -> None:
        """One line per mistake, or JSON."""
        self.write(port="x", hots="y")
        result = self.invoke("check")
        self.assertEqual(1, result.exit_code)
        *lines, last = result.output.splitlines()
        self.assertEqual({"wrong"}, {line.split()[0] for line in lines})
        self.assertEqual(f"{self.file}: 2 wrong, 0 risky", last)
        found = json.loads(self.invoke("check", "--json").output)
        self.assertEqual((2, 0), (found["wrong"], found["risky"]))
        self.assertEqual(2, len(found["findings"]))
        self.assertEqual("wrong", found["findings"][0]["level"])

    def test_certificates(self) -> None:
        """Until when they are valid."""
        write_pair(self.folder)
        self.file.write_text(
            json.dumps(
                {
                    "home": "home",
                    "min_free_space": 0,
                    "listen": ["ssl:1:privateKey=key.pem:certKey=cert.pem"],
                    "buckets": [],
                }
            )
        )
        output = self.run_("check")
        line = re.search(r"^tls      (.*), valid until (.*)$", output, re.MULTILINE)
        assert line is not None
        self.assertEqual("$.listen[0]: CN=server", line[1])
        (certificate,) = self.json("check")["certificates"]
        expected = {"place": "$.listen[0]", "subject": "CN=server", "expires": line[2]}
        self.assertEqual(expected, certificate)
        self.assertRegex(line[2], r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$")
