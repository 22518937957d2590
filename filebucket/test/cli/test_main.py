"""The operator's command, in memory."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import click
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from filebucket import __version__
from filebucket.base.errors import ConfigError
from filebucket.cli import curl, main
from filebucket.config import config
from filebucket.config.load import load, parse
from filebucket.daemon.ask import NotReloadedError
from filebucket.daemon.control import Answer
from filebucket.model.token import token_digest

TOKEN = "d41d8cd98f00b204e9800998ecf8427e"
HASH = token_digest(TOKEN.encode()).hex()
UNKNOWN = f"#{HASH[:6]}"


class CliCase(SynchronousTestCase):
    """Has a configuration."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "config.json"
        self.patch(config, "DEFAULT_CONFIG", str(self.folder / "default.json"))
        self.write()

    def write(self, *buckets: object, **keys: object) -> None:
        """A configuration with these buckets."""
        content = {
            "home": "home",
            "host": "192.0.2.7",
            "min_free_space": 0,
            "buckets": buckets,
            **keys,
        }
        self.file.write_text(json.dumps(content, indent=4))
        self.file.chmod(0o640)

    def invoke(self, *arguments: str, stdin: str | None = None) -> Result:
        """The command, with the file."""
        given = [] if arguments[0] == "token-hash" else ["--config", str(self.file)]
        return CliRunner().invoke(main.main, [*arguments, *given], input=stdin)

    def run_(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints; it must succeed."""
        result = self.invoke(*arguments, stdin=stdin)
        self.assertEqual(0, result.exit_code, result.output)
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run_(*arguments, "--json"))

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """The one line that it prints when it fails."""
        result = self.invoke(*arguments, stdin=stdin)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIsInstance(result.exception, SystemExit)
        (line,) = result.output.splitlines()
        return line

    def misused(self, *arguments: str) -> str:
        """The last line that it prints when it is called wrongly."""
        before = self.file.read_text()
        result = self.invoke(*arguments)
        self.assertEqual(2, result.exit_code, result.output)
        self.assertEqual(before, self.file.read_text())
        return result.output.splitlines()[-1]


class AddTests(CliCase):
    """``bucket add``."""

    def test_prints_the_token(self) -> None:
        """Once, with lines to copy that fit into a terminal."""
        output = self.run_("bucket", "add", "web01")
        (token,) = re.findall("(?m)^    ([A-Za-z0-9_-]{32})$", output)
        (bucket,) = load(str(self.file)).buckets
        self.assertEqual(token_digest(token.encode()), bucket.tokens[0].sha256)
        self.assertNotIn(token, self.file.read_text())
        for line in (
            f"curl -T FILE http://192.0.2.7:1234/{token}/",
            f"echo Authorization: Bearer {token} >~/.file-bucket",
            "curl -H @$HOME/.file-bucket -T FILE http://192.0.2.7:1234/",
            f"filebucket reload --config {self.file}",
        ):
            self.assertIn(f"\n    {line}\n", output)
        lines = [line for line in output.splitlines() if str(self.file) not in line]
        self.assertLessEqual(max(map(len, lines)), 80)

    def test_settings(self) -> None:
        """Each is written as it was given, and a number as a number."""
        self.run_(
            *("bucket", "add", "web01", "--quota", "500 GiB", "--overwrite"),
            *("--max-file-size", "1000", "--expires", "2026-12-31"),
            *("--allow-from", "192.0.2.0/24", "--allow-from", "unix"),
            *("--expect", "30 2 * * *"),
        )
        (bucket,) = json.loads(self.file.read_text())["buckets"]
        del bucket["token_sha256"]
        self.assertEqual(
            {
                "name": "web01",
                "quota": "500 GiB",
                "max_file_size": 1000,
                "allow_from": ["192.0.2.0/24", "unix"],
                "expires": "2026-12-31",
                "overwrite": True,
                "expect": "30 2 * * *",
            },
            bucket,
        )

    def test_json(self) -> None:
        """The token and the rest, for a program."""
        found = self.json("bucket", "add", "web01", "--quota", "1kB")
        (bucket,) = load(str(self.file)).buckets
        sha256 = token_digest(found["token"].encode())
        self.assertEqual(bucket.tokens[0].sha256, sha256)
        self.assertEqual("http://192.0.2.7:1234", found["url"])
        self.assertEqual(str(self.file), found["config"])
        self.assertEqual(
            ("web01", 1000, [{"sha256": sha256.hex()[:12], "expires": None}]),
            (found["name"], found["quota"], found["tokens"]),
        )

    def test_misused(self) -> None:
        """What is no name, no size and so on is a mistake of usage."""
        for arguments, text in (
            (("a/b",), "a name may not contain"),
            ((".filebucket",), "reserved"),
            (("a", "--quota", "1 XB"), "not a size such as"),
            (("a", "--quota", "9" * 19 + "9"), "not a size"),
            (("a", "--max-file-size", "-1"), "not a size"),
            (("a", "--allow-from", "192.0.2.1/24"), "bits beyond its prefix"),
            (("a", "--expires", "tomorrow"), "neither a date"),
            (("a", "--expect", "daily"), "not a time span"),
            ((), "Missing argument"),
        ):
            self.assertIn(text, self.misused("bucket", "add", *arguments))

    def test_refused(self) -> None:
        """What cannot be done is told in a line."""
        self.write({"name": "web01", "token_sha256": HASH})
        line = self.refused("bucket", "add", "web01")
        self.assertEqual("Error: there is a bucket web01 already", line)
        self.file.write_text("{}")
        self.assertEqual(1, self.invoke("bucket", "add", "web02").exit_code)
        self.file.unlink()
        line = self.refused("bucket", "add", "web02")
        expected = f"Error: {self.file}: cannot be read: No such file or directory"
        self.assertEqual(expected, line)


class RotateTests(CliCase):
    """``bucket rotate``."""

    def setUp(self) -> None:
        super().setUp()
        self.write({"name": "db", "token": TOKEN})

    def test_at_once(self) -> None:
        """A new token, and no old one."""
        output = self.run_("bucket", "rotate", "db")
        self.assertNotIn("An old one", output)
        self.assertNotIn(TOKEN, output)
        ((token,),) = (each.tokens for each in load(str(self.file)).buckets)
        self.assertNotEqual(HASH, token.sha256.hex())

    def test_keep_old(self) -> None:
        """The old one stays for a while, and that is said."""
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
            self.assertIn("An old one opens it until 2027-0", output)

    def test_refused(self) -> None:
        """What it cannot do."""
        line = self.refused("bucket", "rotate", "web01")
        self.assertEqual("Error: there is no bucket web01", line)
        line = self.misused("bucket", "rotate", "db", "--keep-old", "7")
        self.assertIn("not a time span such as", line)


class RemoveTests(CliCase):
    """``bucket remove``."""

    def test_says_where_the_files_are(self) -> None:
        """They stay."""
        self.write({"name": "db", "token": TOKEN})
        folder = self.folder / "home" / "db"
        folder.mkdir(parents=True)
        output = self.run_("bucket", "remove", "db")
        self.assertIn(f"\n    {folder}\n", output)
        self.assertTrue(folder.exists())
        self.assertEqual((), load(str(self.file)).buckets)

    def test_without_a_name(self) -> None:
        """Whose folder is not named."""
        for arguments in ((), ("--json",)):
            self.write(TOKEN)
            output = self.run_("bucket", "remove", UNKNOWN, *arguments)
            self.assertNotIn(TOKEN, output)
        self.assertIsNone(json.loads(output)["folder"])


class ListTests(CliCase):
    """``bucket list``."""

    def test_table(self) -> None:
        """A line for each token, within 80 columns, and never a token."""
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
        output = self.run_("bucket", "list")
        self.assertEqual(
            [
                "NAME     TOKEN   EXPIRES             QUOTA     SETTINGS",
                f"{UNKNOWN}  {HASH[:6]}  never               -",
                "db       ababab  never               1536 MiB  a file 20 MB, from"
                " 192.0.2.0/29,",
            ],
            output.splitlines()[:3],
        )
        self.assertIn("\n         cdcdcd  EXPIRED 2020-01-31            ", output)
        self.assertLessEqual(max(map(len, output.splitlines())), 80)
        for network in (*networks, "unix"):
            self.assertIn(f"from {network}", " ".join(output.split()))
        self.assertNotIn(TOKEN, output)

    def test_json(self) -> None:
        """The same for a program."""
        self.write(TOKEN, {"name": "db", "token_sha256": HASH[::-1], "quota": 5})
        first, second = self.json("bucket", "list")
        self.assertEqual(
            (None, UNKNOWN, [{"sha256": HASH[:12], "expires": None}]),
            (first["name"], first["label"], first["tokens"]),
        )
        self.assertEqual(
            ("db", 5, False), (second["name"], second["quota"], second["overwrite"])
        )

    def test_what_is_expected(self) -> None:
        """And what is kept of it."""
        expected = {
            "series": ["db-*"],
            "expect": "26h",
            "shrink_alert": 0.25,
            "grow_alert": 4.0,
            "keep": {"last": 3, "monthly": 12},
            "hold": 14 * 86400.0,
        }
        given = {**expected, "hold": "14d"}
        self.write({"name": "db", "token_sha256": HASH, **given})
        (found,) = self.json("bucket", "list")
        self.assertEqual(expected, {key: found[key] for key in expected})
        self.assertIn(
            "expects 26h, keeps 3 last and 12 monthly",
            " ".join(self.run_("bucket", "list").split()),
        )


class CheckTests(CliCase):
    """``check``."""

    def test_in_order(self) -> None:
        """What there is."""
        self.write({"name": "db", "token_sha256": HASH})
        output = self.run_("check", "--strict")
        self.assertEqual(f"{self.file}: in order", output.splitlines()[0])
        self.assertIn("\nbuckets  1\n", output)
        self.assertFalse((self.folder / "home").exists())

    def test_risky(self) -> None:
        """Is told, and fails only where that is wanted."""
        output = self.run_("check")
        self.assertIn(f"risky  {self.file}: there are no buckets", output)
        self.assertIn("0 wrong, 1 risky", output)
        self.assertEqual(1, self.invoke("check", "--strict").exit_code)

    def test_wrong(self) -> None:
        """A line for each, for people and for programs."""
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


class ReloadTests(CliCase):
    """``reload``."""

    def answers(self, answer: Answer | Exception) -> None:
        """What the daemon will say."""

        def ask(path: str, timeout: float) -> Answer:
            self.assertEqual(str(self.file), path)
            self.timeout = timeout
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.patch(main, "ask", ask)

    def test_in_force(self) -> None:
        """What came of it."""
        self.answers(Answer("ab", None, 3, 2, 1, ("port", "host")))
        self.assertEqual(
            "In force. Buckets: 3. Tokens: 2 added, 1 removed.\n"
            "Waiting for a restart: port, host.\n",
            self.run_("reload"),
        )
        self.assertEqual(30, self.timeout)
        self.assertEqual(
            {"buckets": 3, "added": 2, "removed": 1, "waiting": ["port", "host"]},
            self.json("reload", "--timeout", "1.5"),
        )
        self.assertEqual(1.5, self.timeout)

    def test_failed(self) -> None:
        """The reason, in a line."""
        for error in (NotReloadedError("no"), ConfigError("f", ["no"])):
            self.answers(error)
            self.assertEqual(f"Error: {error}", self.refused("reload"))
        self.misused("reload", "--timeout", "0")


class TokenHashTests(CliCase):
    """``token-hash``."""

    def test_stdin(self) -> None:
        """With and without the line's end."""
        for end in ("", "\n", "\r\n"):
            self.assertEqual(f"{HASH}\n", self.run_("token-hash", stdin=TOKEN + end))

    def test_no_token(self) -> None:
        """Which is not repeated."""
        for stdin, reason in (("secret", "6 characters, not 32"), ("", "0 characters")):
            line = self.refused("token-hash", stdin=stdin)
            self.assertIn(f"Error: no token: {reason}", line)
            self.assertNotIn("secret", line)

    def test_not_as_an_argument(self) -> None:
        """Where all users of the machine would see it."""
        self.assertEqual(2, self.invoke("token-hash", TOKEN).exit_code)


class CompletionTests(CliCase):
    """What the shell completes."""

    def complete(self, *words: str) -> list[str]:
        """The values for the last of the words."""
        completer = BashComplete(main.main, {}, "filebucket", "_FILEBUCKET_COMPLETE")
        *arguments, incomplete = words
        items = completer.get_completions(list(arguments), incomplete)
        return [each.value for each in items]

    def test_commands(self) -> None:
        """All of them."""
        expected = [
            *("bucket", "check", "log", "prune", "reindex", "reload", "serve"),
            *("status", "token-hash", "verify"),
        ]
        self.assertEqual(expected, self.complete(""))

    def test_names(self) -> None:
        """The buckets of the file that was named, and no tokens."""
        self.write(
            TOKEN, *({"name": name, "token": name * 16} for name in ("db", "dc"))
        )
        given = ("--config", str(self.file))
        self.assertEqual(["db", "dc"], self.complete("bucket", "rotate", *given, "d"))
        found = self.complete("bucket", "remove", *given, "")
        self.assertEqual([UNKNOWN, "db", "dc"], found)

    def test_broken(self) -> None:
        """Nothing where there is nothing to be read."""
        self.assertEqual([], self.complete("bucket", "rotate", ""))


class HelpTests(SynchronousTestCase):
    """What it says of itself."""

    def test_fits(self) -> None:
        """Every command has a page, of 80 columns, and a line that is whole."""
        waiting: list[tuple[str, ...]] = [()]
        seen = 0
        while waiting:
            words = waiting.pop()
            command: click.Command = main.main
            for word in words:
                assert isinstance(command, click.Group)
                command = command.commands[word]
            if isinstance(command, click.Group):
                waiting += [(*words, name) for name in command.commands]
            output = CliRunner().invoke(main.main, [*words, "--help"]).output
            self.assertLessEqual(max(map(len, output.splitlines())), 80)
            self.assertNotIn("...\n", output.partition("Commands:")[2])
            seen += 1
        self.assertEqual(15, seen)


class AddressTests(SynchronousTestCase):
    """Where curl is told to connect."""

    def address(self, **keys: object) -> curl.Address:
        text = json.dumps({"home": "h", "buckets": [], **keys})
        return curl.address(parse(text, "/etc/config.json"), "backup")

    def test_host(self) -> None:
        """The host's, or this machine's where that is all addresses."""
        for keys, url in (
            ({}, "http://backup:1234"),
            ({"host": "::", "port": 80}, "http://backup:80"),
            ({"host": "::1"}, "http://[::1]:1234"),
            ({"host": "localhost", "port": 0}, "http://localhost:PORT"),
        ):
            self.assertEqual(curl.Address(url), self.address(**keys))

    def test_listen(self) -> None:
        """The best: from other machines, by TLS."""
        tls = "ssl:1443:privateKey=key.pem"
        for listen, url in (
            (["tcp:80", tls], "https://backup:1443"),
            (["tcp:80", f"{tls}:interface=127.0.0.1"], "http://backup:80"),
            ([r"tcp6:80:interface=\:\:1"], "http://[::1]:80"),
            (["systemd:INET:index=0"], "http://backup:PORT"),
            (["systemd:INET:index=0", "tcp:80"], "http://backup:80"),
            (["unix:s", "tcp:80:interface=127.0.0.1"], "http://127.0.0.1:80"),
        ):
            self.assertEqual(curl.Address(url), self.address(listen=listen))

    def test_unix(self) -> None:
        """A socket's name is fit for a shell."""
        address = self.address(listen=["unix:/run/a b"])
        first, *_, last = address.lines("TOKEN")
        self.assertEqual(
            "curl --unix-socket '/run/a b' -T FILE http://localhost/TOKEN/", first
        )
        self.assertIn("--unix-socket '/run/a b' -H @", last)

    def test_of_this_machine(self) -> None:
        """The name is the machine's own."""
        folder = Path(self.mktemp())
        folder.mkdir()
        file = folder / "config.json"
        file.write_text('{"home": "h", "buckets": []}')
        self.patch(socket, "gethostname", lambda: "keeper")
        arguments = ["bucket", "add", "x", "--json", "--config", str(file)]
        result = CliRunner().invoke(main.main, arguments)
        self.assertEqual("http://keeper:1234", json.loads(result.output)["url"])


class VersionTests(SynchronousTestCase):
    """The command line."""

    def test_version(self) -> None:
        """It knows its version."""
        result = CliRunner().invoke(main.main, ["--version"])
        self.assertIn(__version__, result.output)
