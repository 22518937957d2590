"""The list of buckets, as a table and as JSON."""

from __future__ import annotations

from filebucket.cli.listing import bucket_table
from filebucket.config.load import load
from filebucket.test.kit.commands import HASH, LABEL, NOW, TOKEN, CliCase


class ListTests(CliCase):
    def test_table(self) -> None:
        """One line per token, within 80 columns, without the token itself."""
        networks = [f"192.0.2.{number * 8}/29" for number in range(6)]
        self.write(
            TOKEN,
            {
                "name": "db",
                "tokens": [
                    {"token_sha256": "ab" * 32},
                    {"token_sha256": "cd" * 32, "expires": "2020-01-31"},
                ],
                "quota": "1.5 GiB",
                "max_file_size": "20 MB",
                "overwrite": True,
                "allow_from": [*networks, "unix"],
            },
        )
        buckets = load(str(self.file)).buckets
        lines = list(bucket_table(buckets, lambda key: None, NOW, 80))
        self.assertEqual(
            [
                "NAME     TOKEN   EXPIRES             FILES  USED  QUOTA",
                "    SETTINGS",
                f"{LABEL}  {HASH[:6]}  never                   -     -  -",
                "db       ababab  never                   -     -  1536 MiB",
                "    max file size 20 MB, from 192.0.2.0/29, from 192.0.2.8/29, from",
            ],
            "\n".join(lines).splitlines()[:5],
        )
        output = "\n".join(lines)
        self.assertIn("\n         cdcdcd  EXPIRED 2020-01-31", output)
        self.assertLessEqual(max(map(len, output.splitlines())), 80)
        settings = " ".join(output.split())
        for network in (*networks, "unix"):
            self.assertIn(f"from {network}", settings)
        self.assertNotIn(TOKEN, output)

    def test_sizes(self) -> None:
        for settings, expected in (
            ({"min_file_size": "1 KiB"}, "min file size 1 KiB"),
            ({"min_file_size": 1, "max_file_size": "1 MB"}, "file size 1 B to 1 MB"),
        ):
            self.write({"name": "db", "token": TOKEN, **settings})
            self.assertIn(expected, self.run_("bucket", "list"))

    def test_names(self) -> None:
        """For another server: buckets without a name are left out."""
        self.write(
            TOKEN, *({"name": each, "token": each * 16} for each in ("ab", "cd"))
        )
        self.assertEqual("ab\ncd\n", self.run_("bucket", "list", "--names"))
        self.assertIn("exclude", self.misused("bucket", "list", "--names", "--json"))

    def test_json(self) -> None:
        self.write(TOKEN, {"name": "db", "token_sha256": HASH[::-1], "quota": 5})
        first, second = self.json("bucket", "list")
        self.assertEqual(
            (None, LABEL, [{"sha256": HASH[:12], "expires": None}]),
            (first["name"], first["label"], first["tokens"]),
        )
        self.assertEqual(
            ("db", 5, False), (second["name"], second["quota"], second["overwrite"])
        )

    def test_quiet(self) -> None:
        """A pause that is not over, a retirement and a comment."""
        paused = {"until": "2099-12-05", "reason": "a move"}
        over = {"until": "2020-12-05", "reason": "an old one"}
        self.write(
            {"name": "a", "token": TOKEN, "paused": paused, "comment": "in Ulm"},
            {"name": "b", "token_sha256": HASH[::-1], "paused": over, "retired": True},
        )
        lines = self.run_("bucket", "list").splitlines()
        self.assertIn("paused until 2099-12-05: a move, (in Ulm)", lines[1])
        self.assertEqual("retired", lines[2].split("  ")[-1])
        first, second = self.json("bucket", "list")
        self.assertEqual(
            [("in Ulm", paused, False), ("", over, True)],
            [
                (each["comment"], each["paused"], each["retired"])
                for each in (first, second)
            ],
        )

    def test_grace(self) -> None:
        """Only if it is not the default."""
        for grace, shown in (("2h", ", grace 2h"), ("1h", "")):
            expect = {"cron": "30 2 * * *", "grace": grace}
            self.write({"name": "db", "token_sha256": HASH, "expect": expect})
            text = " ".join(self.run_("bucket", "list").split())
            self.assertTrue(text.endswith(f" expect 30 2 * * *{shown}"), text)

    def test_what_is_expected(self) -> None:
        expected = {
            "series": ["db-*"],
            "expect": "26h",
            "shrink_alert": 0.25,
            "grow_alert": 4.0,
            "keep": {"last": 3, "monthly": 12},
            "hold": 14 * 86400.0,
            "drill": 30 * 86400.0,
        }
        given = {**expected, "hold": "14d", "drill": "30d"}
        self.write({"name": "db", "token_sha256": HASH, **given})
        (found,) = self.json("bucket", "list")
        self.assertEqual(expected, {key: found[key] for key in expected})
        self.assertIn(
            "series db-*, expect 26h, shrink alert 0.25, grow alert 4, keep 3 last and"
            " 12 monthly, hold 14d, drill 30d",
            " ".join(self.run_("bucket", "list").split()),
        )
