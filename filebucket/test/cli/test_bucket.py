"""``filebucket bucket``."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import time
from datetime import UTC, datetime

from twisted.trial.unittest import SkipTest

from filebucket.config.load import load
from filebucket.daemon import control
from filebucket.model.token import token_digest
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.commands import HASH, LABEL, TOKEN, CliCase


class AddTests(CliCase):
    def test_prints_the_token(self) -> None:
        """The commands to copy fit into a terminal."""
        output = self.run_("bucket", "add", "web01")
        (token,) = re.findall("(?m)^    ([A-Za-z0-9_-]{32})$", output)
        (bucket,) = load(str(self.file)).buckets
        self.assertEqual(token_digest(token.encode()), bucket.tokens[0].sha256)
        self.assertNotIn(token, self.file.read_text())
        for line in (
            f"curl --fail-with-body -T FILE \\\n        http://192.0.2.7:1234/{token}/",
            f"echo Authorization: Bearer {token} >~/.file-bucket",
            "curl --fail-with-body -H @$HOME/.file-bucket -T FILE"
            " http://192.0.2.7:1234/",
            "filebucket-push --url http://192.0.2.7:1234 FILE",
            f"filebucket serve --config {self.file}",
        ):
            self.assertIn(f"\n    {line}\n", output)
        self.assertNotIn("filebucket reload", output)
        lines = [line for line in output.splitlines() if str(self.file) not in line]
        self.assertLessEqual(max(map(len, lines)), 80)

    def test_activation(self) -> None:
        """A daemon that runs is reloaded; whether it does may be a secret."""

        def refuse(home: str) -> int:
            raise PermissionError(13, "Permission denied")

        asked: list[str] = []

        def runs(home: str) -> int:
            asked.append(home)
            return 123

        for number, found in enumerate((runs, refuse)):
            self.patch(control, "daemon_of", found)
            for command in (("add", f"web{number}"), ("rotate", f"web{number}")):
                output = self.run_("bucket", *command)
                reload = f"filebucket reload --config {self.file}"
                self.assertIn(f"Activate it:\n\n    {reload}\n", output)
                self.assertNotIn("filebucket serve", output)
        self.assertEqual([str(self.folder / "home")] * 2, asked)

    def test_start_as_owner(self) -> None:
        """Root is told to start the daemon as the home's owner."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        home = self.folder / "home"
        home.mkdir()
        os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
        serve = f"runuser -u nobody -- filebucket serve --config {self.file}"
        for command in ("add", "rotate"):
            self.assertIn(f"\n    {serve}\n", self.run_("bucket", command, "web01"))
        self.assertIn(f"; start it: {serve} (if", self.refused("reload"))

    def test_self_signed(self) -> None:
        """The commands have --cacert, and the certificate's file is named."""
        write_pair(self.folder)
        certificate = self.folder / "cert.pem"
        tls = f"ssl:1443:privateKey={self.folder / 'key.pem'}:certKey={certificate}"
        given = json.loads(self.file.read_text())
        del given["host"]
        self.file.write_text(json.dumps({**given, "listen": [tls]}))
        output = self.run_("bucket", "add", "web01")
        self.assertEqual(2, output.count("curl --fail-with-body --cacert CERT "))
        self.assertEqual(1, output.count("filebucket-push --cacert CERT --url https:"))
        self.assertTrue(
            output.endswith(f"self-signed certificate:\n\n    {certificate}\n"), output
        )

    def test_settings(self) -> None:
        """Settings are written as given; numbers stay numbers."""
        self.run_(
            *("bucket", "add", "web01", "--quota", "500 GiB", "--overwrite"),
            *("--max-file-size", "1000", "--expires", "2099-12-31"),
            *("--allow-from", "192.0.2.0/24", "--allow-from", "unix"),
            *("--expect", "30 2 * * *", "--min-file-size", "1kB"),
            *("--series", "db-*", "--series", "*.tar", "--shrink-alert", "0.25"),
            *("--grow-alert", "4", "--keep", "daily=14", "--keep", "monthly=12"),
            *("--hold", "14d", "--drill", "30d", "--comment", "Shop in Ulm"),
        )
        (bucket,) = json.loads(self.file.read_text())["buckets"]
        del bucket["token_sha256"]
        self.assertEqual(
            {
                "name": "web01",
                "quota": "500 GiB",
                "max_file_size": 1000,
                "allow_from": ["192.0.2.0/24", "unix"],
                "expires": "2099-12-31",
                "overwrite": True,
                "expect": "30 2 * * *",
                "min_file_size": "1kB",
                "series": ["db-*", "*.tar"],
                "shrink_alert": 0.25,
                "grow_alert": 4,
                "keep": {"daily": 14, "monthly": 12},
                "hold": "14d",
                "drill": "30d",
                "comment": "Shop in Ulm",
            },
            bucket,
        )

    def test_json(self) -> None:
        found = self.json("bucket", "add", "web01", "--quota", "1kB")
        (bucket,) = load(str(self.file)).buckets
        sha256 = token_digest(found["token"].encode())
        self.assertEqual(bucket.tokens[0].sha256, sha256)
        self.assertEqual("http://192.0.2.7:1234", found["url"])
        url = f"http://192.0.2.7:1234/{found['token']}/"
        self.assertEqual(f"curl --fail-with-body -T FILE {url}", found["curl"])
        self.assertEqual(str(self.file), found["config"])
        self.assertEqual(
            ("web01", 1000, [{"sha256": sha256.hex()[:12], "expires": None}]),
            (found["name"], found["quota"], found["tokens"]),
        )

    def test_misused(self) -> None:
        """Invalid values are usage errors."""
        for arguments, text in (
            (("a/b",), "a name may not contain"),
            ((".filebucket",), "reserved"),
            (("a", "--quota", "1 XB"), "must be a size such as"),
            (("a", "--quota", "9" * 19 + "9"), "must be a size"),
            (("a", "--max-file-size", "-1"), "must be a size"),
            (("a", "--allow-from", "192.0.2.1/24"), "host bits set"),
            (("a", "--expires", "tomorrow"), "must be a date"),
            (("a", "--expires", "2020-01-01"), "--expires: is in the past"),
            (("a", "--expect", "daily"), "must be a time span"),
            ((), "Give either NAME or --from FILE."),
            (("a", "--from", str(self.file)), "Give either NAME or --from FILE."),
            (("a", "--keep", "hourly=3"), "must be last, daily, weekly, monthly or"),
            (("a", "--keep", "daily=0"), "the number must be from 1 to 1000000"),
            (("a", "--keep", "daily"), "and a number, such as daily=14"),
            (("a", "--shrink-alert", "2"), "'--shrink-alert': must be from 0 to 1"),
            (("a", "--shrink-alert", "x"), "'--shrink-alert': must be a number"),
            (("a", "--grow-alert", "nan"), "'--grow-alert': must be more than 1"),
            (("a", "--series", "a/b"), "contains a '/', which no file name"),
            (("a", "--grace", "1h"), "--grace needs a cron schedule in --expect."),
            (
                ("a", "--timezone", "UTC", "--expect", "26h"),
                "--timezone needs a cron schedule in --expect.",
            ),
            (("a", "--timezone", "Ulm"), "must be a time zone such as"),
        ):
            self.assertIn(text, self.misused("bucket", "add", *arguments))

    def test_schedule(self) -> None:
        given = ("--expect", "30 2 * * *", "--grace", "2h", "--timezone", "UTC")
        self.run_("bucket", "add", "web01", *given)
        (bucket,) = json.loads(self.file.read_text())["buckets"]
        schedule = {"cron": "30 2 * * *", "grace": "2h", "timezone": "UTC"}
        self.assertEqual(schedule, bucket["expect"])

    def test_from(self) -> None:
        """Names from a file, or from standard input."""
        names = self.folder / "names"
        names.write_text("web01\n\n web02 \nwëb03")
        output = self.run_("bucket", "add", "--from", str(names), "--quota", "5")
        rows = re.findall(r"(?m)^(\S+)  ([A-Za-z0-9_-]{32})$", output)
        self.assertEqual(["web01", "web02", "wëb03"], [name for name, _ in rows])
        found = load(str(self.file)).buckets
        self.assertEqual(
            [(name, token_digest(token.encode()), 5) for name, token in rows],
            [(each.name, each.tokens[0].sha256, each.quota) for each in found],
        )
        self.assertIn("Added 3 buckets to ", output)
        self.assertIn("-T FILE http://192.0.2.7:1234/TOKEN/\n", output)
        given = json.loads(
            self.run_("bucket", "add", "--from", "-", "--json", stdin="a\nb\n")
        )
        self.assertEqual("http://192.0.2.7:1234", given["url"])
        self.assertEqual(
            [each.tokens[0].sha256 for each in load(str(self.file)).buckets[3:]],
            [token_digest(each["token"].encode()) for each in given["buckets"]],
        )

    def test_from_refused(self) -> None:
        """All buckets are added, or none."""
        self.write({"name": "web01", "token_sha256": HASH})
        before = self.file.read_text()
        for text, reason in (
            ("", "the list of names is empty"),
            ("a\n\nb/c", "line 3: a name may not contain '/' or '\\'"),
            ("a\nb\na", "line 3: 'a' is also on line 1"),
            ("a\nweb01", "a bucket 'web01' already exists"),
        ):
            line = self.refused("bucket", "add", "--from", "-", stdin=text)
            self.assertEqual(f"Error: {reason}", line)
        names = self.folder / "names"
        names.write_bytes(b"a\n\xff\n")
        line = self.refused("bucket", "add", "--from", str(names))
        self.assertEqual("Error: the list of names is not UTF-8", line)
        self.assertEqual(before, self.file.read_text())

    def test_from_windows(self) -> None:
        """A byte order mark and carriage returns are no part of a name."""
        names = self.folder / "names"
        names.write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
        self.run_("bucket", "add", "--from", str(names))
        found = [each.name for each in load(str(self.file)).buckets]
        self.assertEqual(["a", "b"], found)

    def test_refused(self) -> None:
        """An error is one line."""
        self.write({"name": "web01", "token_sha256": HASH})
        line = self.refused("bucket", "add", "web01")
        self.assertEqual("Error: a bucket 'web01' already exists", line)
        self.file.write_text("{}")
        self.assertEqual(1, self.invoke("bucket", "add", "web02").exit_code)
        self.file.unlink()
        line = self.refused("bucket", "add", "web02")
        expected = f"Error: {self.file}: cannot be read: No such file or directory"
        self.assertEqual(expected, line)

    def test_unknown_port(self) -> None:
        """Of a socket that systemd makes, and of port 0: JSON has no placeholder."""
        self.write(port=0)
        found = self.json("bucket", "add", "web01")
        self.assertEqual((None, None), (found["url"], found["curl"]))
        found = json.loads(
            self.run_("bucket", "add", "--from", "-", "--json", stdin="web02")
        )
        self.assertIsNone(found["url"])
        note = "\nPORT is the port of the daemon's socket: its log shows it.\n"
        output = self.run_("bucket", "rotate", "web01")
        self.assertIn("http://192.0.2.7:PORT/", output)
        self.assertIn(note, output)
        self.assertIn(note, self.run_("bucket", "add", "--from", "-", stdin="web03"))
        self.write()
        self.assertNotIn("PORT", self.run_("bucket", "add", "web01"))

    def test_proxy(self) -> None:
        """If all listeners need a PROXY header, clients use the proxy's address."""
        proxied = ["haproxy:tcp:1234:interface=127.0.0.1"]
        keys = {"listen": proxied, "trusted_proxies": ["127.0.0.1"], "buckets": []}
        self.file.write_text(json.dumps({"home": "home", **keys}))
        found = self.json("bucket", "add", "web01")
        self.assertEqual((None, None), (found["url"], found["curl"]))
        output = self.run_("bucket", "add", "web02")
        self.assertIn("-T FILE https://PROXY/", output)
        note = "\nPROXY is the address at which clients reach HAProxy.\n"
        self.assertIn(note, output)

    def test_of_this_machine(self) -> None:
        """With a listener on all addresses, the URL has this machine's host name."""
        self.write(host="0.0.0.0")
        self.patch(socket, "gethostname", lambda: "keeper")
        self.assertEqual("http://keeper:1234", self.json("bucket", "add", "x")["url"])


class SetTests(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.old = {"name": "db", "token": TOKEN, "quota": "1 GB", "hold": "1d"}
        self.write(self.old, {"name": "web01", "token_sha256": HASH[::-1]})

    def written(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.file.read_text())["buckets"]
        return found

    def test_set(self) -> None:
        """The other settings stay."""
        output = self.run_("bucket", "set", "db", "--quota", "2 GB", "--overwrite")
        self.assertEqual(f"Changed bucket db in {self.file}.", output.splitlines()[0])
        expected = {**self.old, "quota": "2 GB", "overwrite": True}
        self.assertEqual(expected, self.written()[0])
        self.run_("bucket", "set", "db", "--no-overwrite")
        self.assertEqual({**expected, "overwrite": False}, self.written()[0])

    def test_unset(self) -> None:
        """With null, a default for all buckets does not apply, either."""
        self.write(self.old, defaults={"quota": "3 GB"})
        for option, quota in (("--unset", 3 * 10**9), ("--null", None)):
            self.run_("bucket", "set", "db", option, "quota")
            self.assertEqual(quota, load(str(self.file)).buckets[0].quota)
        self.run_("bucket", "set", "db", "--unset", "max-file-size")
        self.assertEqual(
            {"name": "db", "token": TOKEN, "hold": "1d", "quota": None},
            self.written()[0],
        )

    def test_expires(self) -> None:
        """Of the only token; each of several has its own."""
        self.run_("bucket", "set", "db", "--expires", "2099-12-31")
        self.assertEqual("2099-12-31", self.written()[0]["expires"])
        text = self.misused("bucket", "set", "db", "--expires", "2020-12-31")
        self.assertIn("--expires: is in the past", text)
        self.run_("bucket", "set", "db", "--unset", "expires")
        self.assertEqual(self.old, self.written()[0])
        self.run_("bucket", "rotate", "db", "--keep-old", "7d")
        self.assertEqual(
            "Error: $.buckets[0]: expires cannot be used together with tokens; set it"
            " for each token",
            self.refused("bucket", "set", "db", "--expires", "2099-12-31"),
        )

    def test_several(self) -> None:
        found = self.json("bucket", "set", "db", "web01", "--quota", "5")
        self.assertEqual([5, 5], [each["quota"] for each in self.written()])
        self.assertEqual(
            [("db", 5), ("web01", 5)],
            [(each["name"], each["quota"]) for each in found["buckets"]],
        )

    def test_misused(self) -> None:
        for arguments, text in (
            (("db",), "Give at least one setting."),
            (("--quota", "5"), "Missing argument 'BUCKET...'"),
            (("db", "--quota", "5", "--unset", "quota"), "quota cannot be both set"),
            (("db", "--null", "hold", "--hold", "1d"), "hold cannot be both set"),
            (("db", "--unset", "name"), "'name' is not one of 'expires', "),
            (("db", "--hold", "soon"), "must be a time span such as"),
            (("db", "--drill", "0d"), "must be longer than 0"),
        ):
            self.assertIn(text, self.misused("bucket", "set", *arguments))

    def test_refused(self) -> None:
        line = self.refused("bucket", "set", "dbs", "--quota", "5")
        self.assertEqual("Error: there is no bucket 'dbs'; did you mean 'db'?", line)
        limits = ("--min-file-size", "5", "--max-file-size", "4")
        line = self.refused("bucket", "set", "db", *limits)
        reason = "$.buckets[0]: min_file_size is larger than max_file_size"
        self.assertEqual(f"Error: {reason}", line)


class RotateTests(CliCase):
    def setUp(self) -> None:
        super().setUp()
        self.write({"name": "db", "token": TOKEN})

    def test_at_once(self) -> None:
        output = self.run_("bucket", "rotate", "db")
        self.assertNotIn("An old one", output)
        self.assertNotIn(TOKEN, output)
        ((token,),) = (each.tokens for each in load(str(self.file)).buckets)
        self.assertNotEqual(HASH, token.sha256.hex())

    def test_keep_old(self) -> None:
        """The old token stays valid, and the output shows how long."""
        for duration, seconds in (
            ("90s", 90),
            ("7d", 7 * 24 * 3600),
            ("2w", 14 * 86400),
        ):
            self.write({"name": "db", "token": TOKEN})
            self.patch(time, "time", lambda: 1_800_000_000.0)
            output = self.run_("bucket", "rotate", "db", "--keep-old", duration)
            ((_, old),) = (each.tokens for each in load(str(self.file)).buckets)
            self.assertEqual(HASH, old.sha256.hex())
            self.assertEqual(1_800_000_000.0 + seconds, old.expires)
            end = datetime.fromtimestamp(old.expires or 0, UTC)
            self.assertIn(
                f"The old token {HASH[:6]} stays valid until {end:%Y-%m-%d %H:%M:%S}"
                " UTC.\n",
                output,
            )

    def test_expiry(self) -> None:
        """The output shows when the new token expires, if the old one did."""
        self.patch(time, "time", lambda: 1_800_000_000.0)  # 2027-01-15
        own = " (its own expiry, earlier than --keep-old)"
        for expires, new, old in (
            ("2026-12-31", "The old token had expired. The new token does not", None),
            ("2027-12-31", "It is valid until 2028-01-01 00:00:00 UTC, as the", ""),
            ("2027-01-16", "It is valid until 2027-01-17 00:00:00 UTC, as the", own),
            (None, None, ""),
        ):
            token = {"name": "db", "token": TOKEN}
            self.write(token if expires is None else {**token, "expires": expires})
            output = self.run_("bucket", "rotate", "db", "--keep-old", "7d")
            for text in (new, f" UTC{old}.\n" if old is not None else None):
                if text is not None:
                    self.assertIn(text, output)
            said = " token was." in output or "had expired" in output
            self.assertEqual(new is not None, said)
            self.assertEqual(old is not None, "stays valid" in output)
            self.assertEqual(old == own, own in output)

    def test_refused(self) -> None:
        line = self.refused("bucket", "rotate", "web01")
        self.assertEqual("Error: there is no bucket 'web01'", line)
        line = self.refused("bucket", "rotate", "dbs")
        self.assertEqual("Error: there is no bucket 'dbs'; did you mean 'db'?", line)
        line = self.misused("bucket", "rotate", "db", "--keep-old", "7")
        self.assertIn("must be a time span such as", line)


class RemoveTests(CliCase):
    def test_says_where_the_files_are(self) -> None:
        self.write({"name": "db", "token": TOKEN})
        folder = self.folder / "home" / "db"
        folder.mkdir(parents=True)
        (folder / "db.gz").touch()
        output = self.run_("bucket", "remove", "db")
        self.assertIn(f" Its files are still in\n\n    {folder}\n", output)
        self.assertTrue(folder.exists())
        self.assertEqual((), load(str(self.file)).buckets)

    def test_no_files(self) -> None:
        for folder in (None, self.folder / "home" / "db"):
            if folder is not None:
                folder.mkdir(parents=True)
            self.write({"name": "db", "token": TOKEN})
            output = self.run_("bucket", "remove", "db")
            self.assertIn(
                f"Removed bucket db from {self.file}. It has no files.", output
            )
            self.assertNotIn(f"\n    {self.folder / 'home'}", output)

    def test_applies(self) -> None:
        """Only a daemon that runs accepts pushes until a reload."""
        for process, end in (
            (None, "No daemon runs, so it accepts no pushes.\n"),
            (
                7,
                "It still accepts pushes until you run:\n\n    filebucket reload"
                f" --config {self.file}\n",
            ),
        ):
            self.patch(control, "daemon_of", lambda home, of=process: of)
            self.write({"name": "db", "token": TOKEN})
            output = self.run_("bucket", "remove", "db")
            self.assertTrue(output.endswith(end), output)

    def test_without_a_name(self) -> None:
        """The folder's name, a token, is not printed."""
        for arguments in ((), ("--json",)):
            self.write(TOKEN)
            output = self.run_("bucket", "remove", LABEL, *arguments)
            self.assertNotIn(TOKEN, output)
        self.assertIsNone(json.loads(output)["folder"])

    def test_object_store(self) -> None:
        """The files stay there; no folder of the home has any."""
        store = {
            "endpoints": ["http://127.0.0.1:1"],
            "names_bucket": "backups-names",
            "data_bucket": "backups-data",
            "prefix": "a/",
        }
        bucket = {"name": "db", "token_sha256": HASH}
        self.write(bucket, store={"s3": store})
        output = self.run_("bucket", "remove", "db")
        self.assertIn("Its files are still in the S3 buckets backups-names and", output)
        self.assertIn("\n    a/names/db/\n    a/data/db/\n", output)
        self.write(bucket, store={"s3": store})
        self.assertIsNone(self.json("bucket", "remove", "db")["folder"])
