"""Tests of :mod:`filebucket.config.config`."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.config import config, values
from filebucket.config.config import DEFAULT_CONFIG, EXAMPLE_TOKENS, Config, Keys
from filebucket.config.load import parse
from filebucket.model.registry import BucketIndex
from filebucket.model.token import token_digest

TOKEN = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"


def in_hex(token: str) -> str:
    """The SHA-256 of a token."""
    return token_digest(token.encode("ascii")).hex()


def made_of(**keys: Any) -> Config:
    """A configuration with these keys and the required ones."""
    text = json.dumps({"home": "buckets", "buckets": [], **keys})
    return parse(text, "/srv/drop/config.json")


def changed(before: Config, after: Config) -> list[str]:
    """The keys that differ."""
    return before.keys.changed(after.keys)


def exposed(made: Config) -> list[str]:
    """The buckets with example tokens that other machines can reach."""
    return made.exposed_examples(BucketIndex(made.buckets))


class ConfigTests(SynchronousTestCase):
    def exposed(self, host: str, *buckets: object) -> list[str]:
        """The buckets with example tokens that other machines can reach."""
        return exposed(made_of(host=host, buckets=list(buckets)))

    def test_frozen(self) -> None:
        made = made_of(buckets=[TOKEN])
        with self.assertRaises(FrozenInstanceError):
            made.port = values.Port(80)  # type: ignore[misc]
        with self.assertRaises(FrozenInstanceError):
            made.buckets[0].name = "a"  # type: ignore[misc]

    def test_exposed_examples(self) -> None:
        """Buckets with an example token are reported if other machines can connect."""
        first, second = EXAMPLE_TOKENS
        buckets = first, TOKEN, {"name": "web01", "token": second}
        for host in ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "fe80::1%lo"):
            self.assertEqual(
                [f"#{in_hex(first)[:6]}", "web01"], self.exposed(host, *buckets), host
            )

    def test_exposed_example_by_its_digest(self) -> None:
        """An example's SHA-256 is as public as the example."""
        given = {"name": "a", "token_sha256": in_hex(EXAMPLE_TOKENS[1])}
        self.assertEqual(["a"], self.exposed("0.0.0.0", given))

    def test_not_exposed(self) -> None:
        """Loopback addresses and other tokens are fine."""
        for host in ("127.0.0.1", "127.255.0.9", "::1", "localhost"):
            self.assertEqual([], self.exposed(host, *EXAMPLE_TOKENS), host)
        self.assertEqual([], self.exposed("0.0.0.0", TOKEN))
        self.assertEqual([], self.exposed("0.0.0.0"))

    def test_open_to_others(self) -> None:
        """The endpoints that other machines can reach."""
        self.assertEqual(["0.0.0.0"], made_of().open_to_others())
        self.assertEqual([], made_of(host="::1").open_to_others())
        here = ["tcp:1:127.0.0.1", "unix:x"]
        made = made_of(listen=here, buckets=[EXAMPLE_TOKENS[0]])
        self.assertEqual([], made.open_to_others())
        self.assertEqual([], exposed(made))
        made = made_of(listen=[*here, "tcp:2"], buckets=[EXAMPLE_TOKENS[0]])
        self.assertEqual(["tcp:2"], made.open_to_others())
        self.assertEqual(1, len(exposed(made)))

    def changes(self) -> Iterator[tuple[str, Any]]:
        """Keys, each with a value that is not its default."""
        yield "home", "/elsewhere"
        yield "host", "127.0.0.1"
        yield "port", 80
        yield "page", True
        yield "hooks", "/hooks"
        yield "max_file_size", 1
        yield "min_file_size", 1
        yield "min_free_space", 1
        yield "max_connections", 1
        yield "idle_timeout", 1
        yield "header_timeout", 1
        yield "body_timeout", 1
        yield "min_rate", 1
        yield "hook_timeout", 1
        yield "hook_concurrency", 1
        yield "shutdown_delay", "1s"
        yield "shutdown_timeout", 1
        yield "unfinished", 0
        yield "max_unfinished", 1
        yield "alert_again", 0
        yield "node", "other"

    def test_changed(self) -> None:
        """Keys with different values are listed in order."""
        before = made_of()
        for key, value in self.changes():
            self.assertEqual([key], changed(before, made_of(**{key: value})))
        after = made_of(**dict(self.changes()))
        expected = [key for key, _ in self.changes()]
        self.assertEqual(expected, changed(before, after))
        self.assertEqual(expected, changed(after, before))

    def test_listen_changed(self) -> None:
        """Another spelling of the same endpoint is no change."""
        before = made_of(listen=["tcp:1", "unix:x"])
        for listen, expected in (
            (["tcp:port=1", "unix:/srv/drop/x"], []),
            (["tcp:1"], ["listen"]),
            (["unix:x", "tcp:1"], ["listen"]),
            (["tcp:1:backlog=9", "unix:x"], ["listen"]),
        ):
            self.assertEqual(expected, changed(before, made_of(listen=listen)), listen)
        self.assertEqual(["listen"], changed(made_of(), before))

    def test_listen_instead(self) -> None:
        """``listen`` may replace ``host`` and ``port``, and the other way round."""
        before, after = made_of(port=7), made_of(listen=["tcp:7"])
        self.assertEqual(["listen"], changed(before, after))
        self.assertEqual(["port", "listen"], changed(after, before))
        # The same endpoint.
        before = made_of(host="127.0.0.1", port=7)
        after = made_of(listen=["tcp:7:127.0.0.1"], trusted_proxies=["127.0.0.1"])
        for one, other in ((before, after), (after, before)):
            self.assertEqual(["trusted_proxies"], changed(one, other))

    def test_of_another_version(self) -> None:
        """A key that only one side knows is not compared."""
        newer = made_of(port=80).keys
        older = Keys({"port": newer.values["port"], "gone": "ab"}, made=True)
        self.assertEqual([], older.changed(newer))
        self.assertEqual([], newer.changed(older))

    def test_not_changed(self) -> None:
        """Changed buckets do not count, nor does an explicit default."""
        before = made_of()
        self.assertEqual([], changed(before, made_of()))
        self.assertEqual([], changed(before, made_of(buckets=[TOKEN])))
        self.assertEqual([], changed(before, made_of(defaults={"quota": 1})))
        # The daemon does not use it.
        self.assertEqual([], changed(before, made_of(seal="15m")))
        after = made_of(home="./buckets", hook_timeout=300)
        self.assertEqual([], changed(before, after))
        self.assertEqual([], changed(before, evolve(before)))

    def test_believes_anybody(self) -> None:
        """Reachable endpoints with a PROXY header need ``trusted_proxies``."""
        listen = ["tcp:1", "haproxy:tcp:2", "haproxy:tcp:3:127.0.0.1"]
        made = made_of(listen=listen)
        self.assertEqual(["haproxy:tcp:2"], made.believes_anybody())
        made = made_of(listen=listen, trusted_proxies=["10.0.0.0/8"])
        self.assertEqual([], made.believes_anybody())


class StartTests(SynchronousTestCase):
    """How to start the daemon."""

    def test_start(self) -> None:
        """A user who has the package lets systemd start it."""
        folder = Path(self.mktemp())
        self.patch(config, "_UNITS", (str(folder),))
        home = self.mktemp()
        start = config.start_command(DEFAULT_CONFIG, home)
        self.assertEqual("filebucket serve", start)
        folder.mkdir()
        (folder / "file-bucket.service").touch()
        systemd = "systemctl start file-bucket"
        self.assertEqual(systemd, config.start_command(DEFAULT_CONFIG, home))
        other = "filebucket serve --config /srv/config.json"
        self.assertEqual(other, config.start_command("/srv/config.json", home))

    def test_as_owner(self) -> None:
        """Files of root would lock the home's owner out."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        home = Path(self.mktemp())
        serve = "filebucket serve --config x"
        self.assertEqual(serve, config.start_command("x", str(home)))
        home.mkdir()
        self.assertEqual(serve, config.start_command("x", str(home)))
        os.chown(home, 54321, 12345)
        self.assertEqual(
            f"setpriv --reuid 54321 --regid 12345 --clear-groups {serve}",
            config.start_command("x", str(home)),
        )
        user = pwd.getpwnam("nobody")
        os.chown(home, user.pw_uid, user.pw_gid)
        self.assertEqual(
            f"runuser -u nobody -- {serve}", config.start_command("x", str(home))
        )
