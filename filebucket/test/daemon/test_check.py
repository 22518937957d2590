"""The findings of ``filebucket check``."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shlex
import tempfile
from datetime import timedelta
from pathlib import Path
from subprocess import run
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256K1,
    SECP384R1,
    generate_private_key,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket import __version__
from filebucket.base.errors import ConfigError, OperatorError
from filebucket.catalogue.election import Election
from filebucket.catalogue.journal import Journal
from filebucket.config.config import EXAMPLE_TOKENS
from filebucket.config.load import load
from filebucket.daemon import check, control
from filebucket.daemon.applied import Applied, Difference, fingerprints, shared_settings
from filebucket.model.node import NodeReport
from filebucket.model.objects import S3
from filebucket.model.token import token_digest
from filebucket.store import aside
from filebucket.store.attributes import APPEND_ONLY, IMMUTABLE
from filebucket.store.s3 import probe
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.probe import Probed
from filebucket.store.s3.records import Keys
from filebucket.test.kit.catalogue import new_database
from filebucket.test.kit.certificates import NOW, make_key, write_chain, write_pair
from filebucket.test.kit.control import status_file
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.sealed import replace_kernel

TOKEN = "d41d8cd98f00b204e9800998ecf8427e"
HASH = token_digest(TOKEN.encode()).hex()


def day(days: float) -> str:
    """The date in this number of days, as the configuration writes it."""
    return f"{NOW + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


CREDENTIALS = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"


class CheckCase(SynchronousTestCase):
    """Has a configuration without findings.

    :ivar daemon: whether a daemon has to run
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(mode=0o755)
        self.daemon = False
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)
        self.file = self.folder / "config.json"
        self.keys: dict[str, Any] = {
            "home": "home",
            "host": "127.0.0.1",
            "min_free_space": 0,
            "buckets": [{"name": "web01", "token_sha256": HASH}],
        }

    def need_ways_in(self) -> None:
        """Skip if other users cannot reach the folder."""
        for each in self.folder.parents:
            if not each.stat().st_mode & 0o001:
                raise SkipTest(f"{each} is not for all")

    def look(self, **keys: Any) -> check.Report:
        """Check it with these keys changed."""
        self.file.write_text(json.dumps({**self.keys, **keys}))
        return check.check(
            str(self.file), MemoryReactorClock(), {}, NOW.timestamp(), self.daemon
        )

    def found(self, **keys: Any) -> list[tuple[str, str]]:
        """The findings, without the folder's name."""
        report = self.look(**keys)
        for each in report.concerns:
            self.assertNotIn("\n", each.text)
            self.assertNotIn(TOKEN, each.text + each.place)
        return [
            (each.level, self.without_folder(f"{each.place}: {each.text}"))
            for each in report.concerns
        ]

    def without_folder(self, text: str) -> str:
        return text.replace(f"{self.folder}/", "")

    def bucket(self, **settings: Any) -> list[tuple[str, str]]:
        """The findings about a bucket."""
        bucket = {"name": "web01", "token_sha256": HASH, **settings}
        return self.found(buckets=[bucket])


class OrderTests(CheckCase):
    """Configurations without findings."""

    def test_order(self) -> None:
        report = self.look()
        self.assertEqual((), report.concerns)
        self.assertEqual((0, 0), (report.wrong, report.risky))
        self.assertIn(report.tier, [each.tier for each in aside.TIERS])
        self.assertEqual([], os.listdir(self.home))

    def test_no_home_yet(self) -> None:
        self.assertEqual([], self.found(home="home/to/be"))
        self.assertEqual([], os.listdir(self.home))

    def test_hooks(self) -> None:
        self.hook("#!/bin/sh\n")
        self.assertEqual(("pre-push",), self.look().hooks)

    def hook(self, content: str) -> None:
        hook = self.folder / "pre-push.sh"
        hook.write_text(content)
        hook.chmod(0o755)


class DaemonTests(CheckCase):
    """The daemon runs, and has applied the configuration."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon = True
        self.process: int | None = None
        self.patch(control, "daemon_of", lambda home: self.process)
        (self.home / ".filebucket").mkdir()

    def start(self, applied: Applied) -> None:
        daemon = status_file(str(self.home), str(self.file), applied)
        daemon.startService()
        self.addCleanup(daemon.stopService)
        self.process = os.getpid()

    def test_none(self) -> None:
        """Not wrong, since the first check is before the first start."""
        text = "no daemon runs, so no push arrives; start it: filebucket serve --config"
        expected = [("risky", f"home: {text} config.json")]
        self.assertEqual(expected, self.found())
        expected = [("risky", f"to/be: {text} config.json")]
        self.assertEqual(expected, self.found(home="to/be"))
        self.daemon = False
        self.assertEqual([], self.found())

    def test_unknown(self) -> None:
        def refuse(home: str) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(control, "daemon_of", refuse)
        what = "home: cannot tell which daemon uses it: Permission denied"
        self.patch(os, "getuid", lambda: 1000)
        hint = "run this as root or as the daemon's user"
        self.assertEqual([("risky", f"{what}; {hint}")], self.found())

    def test_not_writable(self) -> None:
        """A user who may not use the home cannot tell."""
        self.patch(os, "access", lambda path, mode, **given: path != str(self.home))
        ((level, found),) = self.found()
        self.assertEqual("wrong", level)
        self.assertIn("home: is not writable by ", found)

    def test_due(self) -> None:
        config = self.look().config
        assert config is not None
        self.start(Applied("", config.keys, fingerprints(config.buckets)))
        self.assertEqual([], self.found())
        text = (
            "a reload is due (1 bucket has changed: web01); a restart is due to apply"
        )
        report = self.look(
            buckets=[{"name": "web01", "token_sha256": "ab" * 32}], port=8
        )
        self.assertEqual(
            [check.Concern(str(self.file), f"{text} port", wrong=False)],
            list(report.concerns),
        )
        self.assertEqual(
            Difference(changed=("web01",), waiting=("port",)), report.difference
        )
        self.daemon = False
        self.assertEqual([], self.found(port=8))


class WrongTests(CheckCase):
    """Findings that keep the daemon from starting."""

    def test_mistakes(self) -> None:
        self.assertEqual(
            [
                ("wrong", "config.json: $.port: must be a whole number"),
                ("wrong", "config.json: $.buckets: must be a list"),
            ],
            sorted(self.found(port="x", buckets=1), reverse=True),
        )

    def test_no_file(self) -> None:
        report = check.check("/no", MemoryReactorClock(), {}, 0)
        self.assertEqual(1, report.wrong)

    def test_home_is_a_file(self) -> None:
        for home in ("config.json", "config.json/x"):
            expected = [("wrong", "config.json: is not a folder")]
            self.assertEqual(expected, self.found(home=home))

    def test_home_not_writable(self) -> None:
        """As root, with the rights of the home's owner."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self.folder.parent.chmod(0o755)
        self.need_ways_in()
        os.chown(self.home, 54321, 54321)
        for mode in (0o500, 0o300, 0o600):
            self.home.chmod(mode)
            expected = [("wrong", "home: is not writable by user 54321")]
            self.assertEqual(expected, self.found())
            self.assertEqual((0, 0), (os.geteuid(), os.getegid()))

    def test_home_served_by_root(self) -> None:
        """Root has started the daemon once, in the home of another user."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self.folder.parent.chmod(0o755)
        self.need_ways_in()
        os.chown(self.home, 54321, 54321)
        private = self.home / ".filebucket"
        private.mkdir(0o700, exist_ok=True)
        (mistake,) = [
            each.text for each in self.look(home=str(self.home)).concerns if each.wrong
        ]
        self.assertEqual(
            f"cannot be used as home: Permission denied: {private} belongs to user"
            f" root; as root, run: chown -hR --from=root 54321 {self.home}",
            mistake,
        )

    def test_folder_of_root(self) -> None:
        """Root has started the daemon in a home that already had a daemon of its owner:
        the commands to run are shown, and do help.
        """
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self.folder.parent.chmod(0o755)
        self.need_ways_in()
        private, folder = self.home / ".filebucket", self.home / "web01"
        private.mkdir(0o700)
        for each in (self.home, private):
            os.chown(each, 54321, 54321)
        folder.mkdir(0o700)
        (private / control.LOCK).touch(0o600)
        command = f"chown -hR --from=root 54321 {self.home}"
        found = self.look(home=str(self.home)).concerns
        self.assertEqual(
            [
                (
                    "risky",
                    "cannot tell which daemon uses it: Permission denied; not all of"
                    f" home belongs to its owner; run: {command}",
                ),
                (
                    "wrong",
                    "its folder is not writable by user 54321: pushes get 401; as root,"
                    f" run: {command}",
                ),
            ],
            [(each.level, each.text) for each in found],
        )
        run(shlex.split(command), check=True)
        self.assertEqual([], self.found(home=str(self.home)))

    def test_folder_not_writable(self) -> None:
        """A retired bucket receives no pushes."""
        folder = self.home / "web01"
        folder.mkdir()
        self.patch(os, "access", lambda path, mode, **given: path != str(folder))
        ((level, text),) = self.found()
        self.assertEqual("wrong", level)
        self.assertIn("bucket web01: its folder is not writable by ", text)
        self.assertIn("pushes get 401: chmod u+wx home/web01", text)
        self.assertEqual([], self.bucket(retired=True))

    def test_no_room(self) -> None:
        text = "home: has less free space than min_free_space: every push gets 507"
        self.assertEqual([("wrong", text)], self.found(min_free_space="100 %"))

    def test_no_tier(self) -> None:
        def find_tier(home: str, fd: int) -> None:
            raise ConfigError(home, ["the filesystem supports no atomic publish"])

        self.patch(aside, "find_tier", find_tier)
        expected = [("wrong", "home: the filesystem supports no atomic publish")]
        self.assertEqual(expected, self.found())
        self.assertEqual([], os.listdir(self.home))

    def test_another_daemon(self) -> None:
        """A daemon with another configuration is wrong; one with this file is not."""
        (self.home / ".filebucket").mkdir()
        self.patch(control, "daemon_of", lambda home: 123)
        for config, expected in (
            (str(self.file), []),
            (
                "/etc/other.json",
                [
                    (
                        "wrong",
                        "home: is used by another daemon (process 123,"
                        " configuration /etc/other.json)",
                    )
                ],
            ),
        ):
            daemon = status_file(str(self.home), config)
            daemon.startService()
            self.addCleanup(daemon.stopService)
            self.assertEqual(expected, self.found())
            self.assertEqual(123, self.look().process)

    def test_escapes(self) -> None:
        """Text from files cannot control the terminal."""
        (self.home / ".filebucket").mkdir()
        self.patch(control, "daemon_of", lambda home: 123)
        status_file(str(self.home), "/etc/\x1b[2J")._write()
        ((_, found),) = self.found()
        self.assertIn("configuration /etc/\\x1b[2J", found)
        concern = check.Concern("a\x1b", "b\x1b", wrong=True)
        self.assertEqual(("a\\x1b", "b\\x1b"), (concern.place, concern.text))

    def test_hooks(self) -> None:
        (self.folder / "pre-push.sh").write_text("#!/bin/sh\n")
        text = "pre-push.sh: is not an executable file"
        ((level, found),) = self.found()
        self.assertEqual(("wrong", f"{self.folder}: {text}"), (level, found))

    def test_certificates(self) -> None:
        write_pair(self.folder, make_key())
        (self.folder / "cert.pem").chmod(0o600)
        (self.folder / "key.pem").chmod(0o600)
        other = self.folder / "other"
        other.mkdir()
        write_pair(other)
        (other / "key.pem").chmod(0o600)
        del self.keys["host"]
        pairs = ("other/key.pem", "cert.pem"), ("no.pem", "cert.pem")
        listen = [
            f"ssl:{number}:privateKey={key}:certKey={cert}"
            for number, (key, cert) in enumerate(pairs, 1000)
        ]
        admin = "ssl:2000:privateKey=no.pem:interface=127.0.0.1"
        found = self.found(listen=listen, admin=admin)
        wrong = [text for level, text in found if level == "wrong"]
        self.assertEqual(
            [
                "config.json: $.listen[0]: privateKey: does not match the certificate",
                "config.json: $.listen[1]: privateKey: no.pem: No such file or"
                " directory",
                "config.json: $.admin: privateKey: no.pem: No such file or directory",
            ],
            wrong,
        )


class CatalogueTests(CheckCase):
    """The catalogue's database."""

    def test_answers(self) -> None:
        """The daemon creates the tables."""
        place = new_database()
        keys = {"catalogue": {"postgresql": place.conninfo}}
        self.assertEqual([], self.found(**keys))
        Journal.open(place).close()
        self.assertEqual([], self.found(**keys))

    def test_nodes(self) -> None:
        """Other daemons that run with other settings, whatever these are."""
        place = new_database()
        keys = {"catalogue": {"postgresql": place.conninfo}, "node": "a"}
        self.assertEqual([], self.found(**keys))
        config = load(str(self.file))
        settings = shared_settings(config, config.buckets)
        other = {**settings, "buckets": "0a1b", "page": "2c3d"}
        for name, version, shown, alive in (
            ("a", "0.1", other, True),
            ("b", __version__, settings, True),
            ("c", __version__, other, True),
            ("d", "0.1", settings, True),
            ("e", "0.1", other, False),
        ):
            election = Election(place, name, "1")
            self.addCleanup(election.close)
            election.report(NodeReport(version, shown), leads=False)
            if not alive:
                election.leave()
        self.assertEqual(
            [
                ("risky", "daemon c: has other settings: buckets, page"),
                ("risky", f"daemon d: runs file-bucket 0.1, and this is {__version__}"),
            ],
            self.found(**keys),
        )

    def test_does_not_answer(self) -> None:
        (port,) = free_ports(1)
        conninfo = f"host=127.0.0.1 port={port} password=secret"
        self.file.touch(0o600)
        self.file.chmod(0o600)
        found = self.found(catalogue={"postgresql": conninfo})
        expected = [("wrong", "$.catalogue: PostgreSQL: Connection refused")]
        self.assertEqual(expected, found)
        self.file.chmod(0o644)
        found = self.found(catalogue={"postgresql": conninfo})
        text = "config.json: contains the database's password and is readable by all"
        self.assertIn(("risky", f"{text} users: chmod o-r config.json"), found)


class RiskyTests(CheckCase):
    """Findings that are allowed, but seldom meant."""

    def test_no_buckets(self) -> None:
        text = "config.json: no buckets are configured: every push gets 403"
        self.assertEqual([("risky", text)], self.found(buckets=[]))

    def test_clear_text(self) -> None:
        text = (
            "config.json: contains clear-text tokens and is readable by all users:"
            " chmod o-r config.json"
        )
        for opens in (
            TOKEN,
            {"name": "x", "token": TOKEN},
            {"name": "x", "tokens": [{"token_sha256": "ab" * 32}, TOKEN]},
            {"name": "x", "tokens": [{"token": TOKEN}]},
        ):
            self.file.touch()
            self.file.chmod(0o644)
            self.assertEqual([("risky", text)], self.found(buckets=[opens]), opens)
            self.file.chmod(0o640)
            self.assertEqual([], self.found(buckets=[opens]))

    def test_writable(self) -> None:
        hook = self.folder / "post-push.sh"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o757)
        self.file.touch()
        self.file.chmod(0o602)
        self.folder.chmod(0o777)
        places = [text for _, text in self.found()]
        self.assertEqual(
            [
                f"{shown}: is writable by all users: chmod o-w {path}"
                for shown, path in (
                    ("config.json", "config.json"),
                    (self.folder, self.folder),
                    ("post-push.sh", "post-push.sh"),
                )
            ],
            places,
        )
        self.folder.chmod(0o1777)
        self.assertEqual(2, len(self.found()))

    def test_open_home(self) -> None:
        self.home.chmod(0o755)
        text = "home: is accessible to all users: chmod o= home"
        self.assertEqual([("risky", text)], self.found())

    def test_other_filesystem(self) -> None:
        """A bucket there, unless resumable uploads are switched off."""
        if os.stat("/dev/shm").st_dev == os.stat(self.home).st_dev:
            raise SkipTest("/dev/shm is not another filesystem")
        folder = tempfile.mkdtemp(dir="/dev/shm")
        self.addCleanup(os.rmdir, folder)
        (self.home / "web01").symlink_to(folder)
        text = "bucket web01: its folder is on another filesystem than the home: "
        text += "resumable uploads get 501"
        self.assertEqual([("risky", text)], self.found())
        self.assertEqual([], self.found(unfinished=0))

    def test_examples(self) -> None:
        """Tokens from the documentation, if other machines can connect."""
        buckets = [{"name": "x", "token": EXAMPLE_TOKENS[0]}]
        self.file.touch(0o600)
        self.assertEqual([], self.found(buckets=buckets))
        text = (
            "bucket x: ANYBODY CAN PUSH: its token is an example from the documentation"
        )
        self.assertEqual([("risky", text)], self.found(buckets=buckets, host="0.0.0.0"))

    def test_believes_anybody(self) -> None:
        del self.keys["host"]
        text = "haproxy:tcp:1: ANY CLIENT CAN FORGE ITS ADDRESS: trusted_proxies"
        text += " is not set"
        self.assertEqual([("risky", text)], self.found(listen=["haproxy:tcp:1"]))

    def test_expired(self) -> None:
        """The last token of a bucket decides."""
        past, soon, late = day(-1), day(3), day(20)
        expired = "bucket web01: no client can push: its last token expired: "
        expires = "bucket web01: its last token expires soon: "
        for ends, expected in (
            ((past,), [("risky", expired + past)]),
            ((past, day(-9)), [("risky", expired + past)]),
            ((past, soon), [("risky", expires + soon)]),
            ((late, soon), []),
            ((past, None), []),
        ):
            tokens: list[Any] = [
                {"token_sha256": f"{number}{number}" * 32, "expires": end}
                for number, end in enumerate(ends)
                if end
            ]
            tokens += [TOKEN for end in ends if end is None]
            self.file.touch(0o600)
            self.file.chmod(0o600)
            found = self.found(buckets=[{"name": "web01", "tokens": tokens}])
            self.assertEqual(expected, found, ends)

    def test_short_hold(self) -> None:
        """Only with ``keep`` must ``hold`` be a day or more."""
        keep = {"last": 3}
        self.assertEqual([], self.bucket(hold="0s"))
        self.assertEqual([], self.bucket(keep=keep))
        self.assertEqual([], self.bucket(keep=keep, hold="1d"))
        text = (
            "bucket web01: hold is under 1 day: an attacker who has the token can get"
        )
        text += " all but the latest files pruned before you notice"
        self.assertEqual([("risky", text)], self.bucket(keep=keep, hold="23h"))

    def test_out_of_reach(self) -> None:
        text = "bucket web01: no client can push: no listener is reachable from"
        text += " allow_from"
        alone = [("risky", text)]
        self.assertEqual(alone, self.bucket(allow_from=["192.0.2.0/24"]))
        self.assertEqual([], self.bucket(allow_from=["192.0.2.0/24", "127.0.0.1"]))
        self.keys["host"] = "0.0.0.0"
        self.assertEqual([], self.bucket(allow_from=["192.0.2.0/24"]))
        del self.keys["host"]
        self.keys["listen"] = ["unix:socket"]
        self.assertEqual(alone, self.bucket(allow_from=["127.0.0.1"]))
        self.assertEqual([], self.bucket(allow_from=["unix"]))
        self.assertEqual([], self.bucket())
        self.keys["listen"] = ["tcp:1:interface=127.0.0.1"]
        self.assertEqual(alone, self.bucket(allow_from=["unix"]))
        self.keys["trusted_proxies"] = ["127.0.0.1"]
        self.assertEqual([], self.bucket(allow_from=["192.0.2.0/24"]))
        del self.keys["trusted_proxies"]
        self.keys["listen"] = ["haproxy:tcp:1:interface=127.0.0.1"]
        self.assertEqual([], self.bucket(allow_from=["192.0.2.0/24"]))

    def test_out_of_reach_by_family(self) -> None:
        text = "bucket web01: no client can push: no listener is reachable from"
        alone = [("risky", f"{text} allow_from")]
        del self.keys["host"]
        for listen, network, found in (
            ("tcp:1:interface=127.0.0.1", "::1", alone),
            ("tcp:1:interface=localhost", "::1", alone),
            ("tcp:1:interface=localhost", "127.0.0.1", []),
            ("tcp6:1:interface=\\:\\:1", "127.0.0.1", alone),
            ("tcp6:1:interface=\\:\\:1", "::1", []),
            ("tcp:1", "2001:db8::/32", alone),
            ("tcp6:1", "2001:db8::/32", []),
            ("tcp6:1", "192.0.2.0/24", []),
            ("tcp6:1:interface=2001\\:db8\\:\\:1", "192.0.2.0/24", alone),
            ("systemd:domain=INET:index=0", "::1", alone),
            ("systemd:domain=INET6:index=0", "192.0.2.0/24", []),
            ("systemd:domain=UNIX:index=0", "127.0.0.1", alone),
            ("systemd:domain=UNIX:index=0", "unix", []),
        ):
            self.keys["listen"] = [listen]
            self.assertEqual(found, self.bucket(allow_from=[network]), listen)

    def test_config_out_of_reach(self) -> None:
        """The daemon's user must be able to read it for a reload."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        os.chown(self.home, 54321, 54321)
        self.file.touch(0o600)
        self.file.chmod(0o600)
        text = (
            "config.json: is not readable by user 54321, the owner of home: reload will"
            " fail"
        )
        self.assertIn(("risky", text), self.found())

    def test_config_of_the_daemon(self) -> None:
        """Its user could end holds and sealing there."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self.folder.parent.chmod(0o755)
        self.need_ways_in()
        os.chown(self.home, 54321, 54321)
        self.file.touch()
        link = self.folder / "folder" / "config.json"
        link.parent.mkdir()
        link.symlink_to(self.file)
        hold = {"until": "2999-01-01", "reason": "audit"}
        bucket = {"name": "web01", "token_sha256": HASH, "held": {"a": hold}}
        keys = {**self.keys, "home": str(self.home), "buckets": [bucket]}
        self.file.write_text(json.dumps(keys))

        def found() -> list[str]:
            report = check.check(str(link), MemoryReactorClock(), {}, 0, False)
            return [each.text for each in report.concerns]

        self.assertEqual([], found())
        text = (
            f"can be changed by user 54321, the owner of {self.home}: an attacker who"
            " takes over the daemon can end all holds and the sealing"
        )
        for place in (self.file, self.folder, link.parent):
            os.chown(place, 54321, -1)
            self.assertEqual([text], found(), place)
            os.chown(place, 0, 54321)
            place.chmod(0o775)
            self.assertEqual([text], found(), place)
            place.chmod(0o755)
        self.folder.chmod(0o1775)
        self.assertEqual([], found())

    def test_hooks_folder(self) -> None:
        text = "no: is not a folder: no hooks will run"
        self.assertEqual([("risky", text)], self.found(hooks="no"))

    def test_certificates(self) -> None:
        write_pair(self.folder)
        del self.keys["host"]
        self.keys["listen"] = ["ssl:1:privateKey=key.pem:certKey=cert.pem"]
        (self.folder / "key.pem").chmod(0o604)
        expires = f"{NOW + timedelta(days=1):%Y-%m-%d}"
        name = "$.listen[0]: the certificate of CN=server"
        self.assertEqual(
            [
                (
                    "risky",
                    "key.pem: this private key is readable by all users: chmod o="
                    " key.pem",
                ),
                ("risky", f"{name} expires on {expires}"),
            ],
            self.found(),
        )
        (self.folder / "key.pem").chmod(0o600)
        for days, text in (
            (2, f"{name} expired on {expires}"),
            (-2, f"{name} is not valid before {NOW - timedelta(days=1):%Y-%m-%d}"),
        ):
            now = (NOW + timedelta(days=days)).timestamp()
            report = check.check(str(self.file), MemoryReactorClock(), {}, now)
            found = [f"{each.place}: {each.text}" for each in report.concerns]
            self.assertIn(text, found)
            self.assertEqual(1, report.wrong)

    def test_validity(self) -> None:
        """Each certificate that a listener presents."""
        write_chain(self.folder)
        del self.keys["host"]
        pair = "privateKey=key.pem:certKey=cert.pem"
        admin = f"ssl:2:{pair}:clientCA=root.pem"
        report = self.look(listen=[f"ssl:1:{pair}:extraCertChain=middle.pem"])
        ends = report.certificates[0].ends
        self.assertEqual(1, round((ends - NOW.timestamp()) / 86400))
        expected = [
            check.Validity("$.listen[0]", "CN=server", ends),
            check.Validity("$.listen[0]", "CN=middle", ends),
        ]
        self.assertEqual(expected, list(report.certificates))
        report = self.look(listen=["tcp:1"], admin=admin)
        expected = [check.Validity("$.admin", "CN=server", ends)]
        self.assertEqual(expected, list(report.certificates))
        self.assertEqual((), self.look(listen=["ssl:1:no.pem"]).certificates)

    def test_no_intermediate(self) -> None:
        """The chain does not reach an issuer that clients know."""
        write_chain(self.folder)
        (self.folder / "key.pem").chmod(0o600)
        del self.keys["host"]
        pair = "ssl:1:privateKey=key.pem:certKey=cert.pem"
        self.patch(check, "TRUSTED", str(self.folder / "root.pem"))
        text = (
            "$.listen[0]: the certificate of CN=middle, the issuer of CN=server, is"
            " missing: add it to the same file or as extraCertChain, or, if it is your"
            " own CA, give it to the clients; otherwise they cannot verify the server"
        )
        self.assertIn(("risky", text), self.found(listen=[pair]))
        for rest in (":extraCertChain=middle.pem", ":clientCA=middle.pem"):
            found = self.found(listen=[pair + rest])
            self.assertNotIn("missing", " ".join(text for _, text in found))
        self.patch(check, "TRUSTED", str(self.folder / "none"))
        found = self.found(listen=[pair + ":extraCertChain=middle.pem"])
        self.assertIn(
            "certificate of CN=root, the issuer of CN=middle, is",
            " ".join(map(str, found)),
        )

    def test_curve(self) -> None:
        del self.keys["host"]
        self.keys["listen"] = ["ssl:1:privateKey=key.pem:certKey=cert.pem"]
        for curve, taken in ((SECP384R1(), True), (SECP256K1(), False)):
            write_pair(self.folder, generate_private_key(curve))
            (self.folder / "key.pem").chmod(0o600)
            text = (
                "$.listen[0]: the certificate of CN=server has a key on the curve"
                f" {curve.name}, which no client accepts: create one on secp256r1"
            )
            self.assertEqual(taken, ("wrong", text) not in self.found(), curve)

    def test_admin(self) -> None:
        text = "any client that can connect can read it: there is no password"
        open_ = ("risky", f"$.admin: {text}")
        for admin, expected in (
            ("tcp:1235:interface=127.0.0.1", []),
            ("unix:admin.socket", []),
            ("systemd:domain=UNIX:name=admin", []),
            ("tcp:1235", [open_]),
            ("tcp6:1235:interface=\\:\\:", [open_]),
            ("tcp:1235:interface=192.0.2.1", [open_]),
        ):
            self.assertEqual(expected, self.found(admin=admin), admin)
        write_pair(self.folder)
        (self.folder / "key.pem").chmod(0o600)
        pair = "privateKey=key.pem:certKey=cert.pem"
        expires = f"{NOW + timedelta(days=1):%Y-%m-%d}"
        soon = f"$.admin: the certificate of CN=server expires on {expires}"
        for admin, expected in (
            (f"ssl:1235:{pair}", [("risky", soon), open_]),
            (f"ssl:1235:{pair}:clientCA=cert.pem", [("risky", soon)]),
        ):
            self.assertEqual(expected, self.found(admin=admin), admin)

    def test_page(self) -> None:
        """The drop page needs TLS, unless only this machine can connect."""
        del self.keys["host"]
        write_pair(self.folder)
        (self.folder / "key.pem").chmod(0o600)
        tls = "ssl:1236:privateKey=key.pem:certKey=cert.pem"
        here = ["tcp:1234:interface=127.0.0.1", "unix:push.socket", tls]
        text = "tcp:1235 has no TLS: others can alter the page, and so get tokens"
        for listen, page, risks in (
            (here, True, []),
            ([*here, "tcp:1235"], False, []),
            ([*here, "tcp:1235"], True, [("risky", f"$.page: {text}")]),
        ):
            found = self.found(listen=listen, page=page)
            about = [each for each in found if "certificate" not in each[1]]
            self.assertEqual(risks, about, listen)

    def test_systemd(self) -> None:
        del self.keys["host"]
        inherited = "systemd:domain=INET:index=0"
        self.assertEqual([], self.found(listen=[inherited]))
        found = self.found(listen=[inherited, "ssl:1:no.pem"])
        self.assertIn(
            "$.listen[1]: privateKey: no.pem", "".join(each for _, each in found)
        )


class SealTests(CheckCase):
    """Whether stored files are sealed, if ``seal`` is set."""

    def setUp(self) -> None:
        super().setUp()
        self.attributes = replace_kernel(self)
        self.attributes.mark(self.home, APPEND_ONLY)
        (self.home / "web01").mkdir()
        self.path = self.home / "web01" / "a"
        self.path.touch()
        # If no root runs the tests, it belongs to this user.
        self.patch(check, "_may_change", lambda path: False)

    def sealed(self, days: float = 1, **settings: Any) -> list[tuple[str, str]]:
        """The findings in this number of days."""
        bucket = {"name": "web01", "token_sha256": HASH, **settings}
        text = json.dumps({**self.keys, "seal": "15m", "buckets": [bucket]})
        self.file.write_text(text)
        now = (NOW + timedelta(days=days)).timestamp()
        report = check.check(str(self.file), MemoryReactorClock(), {}, now, False)
        return [
            (each.level, self.without_folder(f"{each.place}: {each.text}"))
            for each in report.concerns
        ]

    def test_sealed(self) -> None:
        """No finding if all files are sealed or new, or without the key."""
        self.assertEqual([], self.sealed(days=0))
        self.attributes.mark(self.path, IMMUTABLE)
        self.assertEqual([], self.sealed())
        self.attributes.flags.clear()
        self.assertEqual([], self.found())

    def test_not_sealed(self) -> None:
        late = "run filebucket seal as root, and check its timer"
        text = f"bucket web01: at least 1 file not sealed: {late}"
        self.assertEqual([("wrong", text)], self.sealed())
        self.assertEqual([], self.sealed(overwrite=True))
        self.attributes.flags.clear()
        self.assertEqual(("wrong", f"home: is not sealed: {late}"), self.sealed()[0])

    def test_no_such_flag(self) -> None:
        self.attributes.supported = False
        text = "home: cannot be sealed: the filesystem does not support immutable files"
        self.assertEqual([("wrong", text)], self.sealed())

    def test_bucket_cannot_be_opened(self) -> None:
        """It may be on another filesystem, or a link."""
        (self.home / "web01").rename(self.home / "web02")
        self.assertEqual([], self.sealed())
        (self.home / "web01").symlink_to("web02")
        text = "bucket web01: cannot be sealed: Not a directory"
        self.assertEqual([("wrong", text)], self.sealed())

    def test_leaves_nothing_in_the_home(self) -> None:
        """Nothing can be removed from a sealed home, so the filesystem is tried in the
        private folder."""
        (self.home / ".filebucket").mkdir()
        made: list[str] = []
        mkdtemp = tempfile.mkdtemp

        def remember(*args: Any) -> str:
            made.append(str(args[-1]))
            return str(mkdtemp(*args))

        self.patch(tempfile, "mkdtemp", remember)
        self.assertEqual([], self.sealed(days=0))
        self.assertEqual([str(self.home / ".filebucket")], made)


class StoreTests(CheckCase):
    """Files in an object store."""

    def setUp(self) -> None:
        super().setUp()
        self.tried: list[tuple[S3, Credentials, Keys]] = []
        self.risks: tuple[str, ...] = ()
        self.patch(probe, "check", self.probe)
        self.paths = {}
        for name in ("credentials", "delete_credentials"):
            path = self.folder / name
            path.write_text(CREDENTIALS)
            path.chmod(0o600)
            self.paths[name] = str(path)
        self.owner = "root" if not os.geteuid() else pwd.getpwuid(os.geteuid())[0]

    def probe(self, s3: S3, who: Credentials, keys: Keys, writes: bool) -> Probed:
        self.assertTrue(writes)
        self.tried.append((s3, who, keys))
        return Probed("", self.risks)

    def with_store(self, **given: Any) -> list[tuple[str, str]]:
        """The findings, but that of a user who tests without root's rights."""
        keys = given.pop("keys", {})
        store = {
            "endpoints": ["http://127.0.0.1:1"],
            "names_bucket": "names",
            "data_bucket": "data",
            "prefix": "a/",
            **self.paths,
            **given,
        }
        store = {key: value for key, value in store.items() if value is not None}
        found = self.found(store={"s3": store}, **keys)
        return [each for each in found if f"readable by {self.owner}" not in each[1]]

    def test_in_order(self) -> None:
        """The store is tried with the daemon's credentials."""
        self.assertEqual([], self.with_store())
        ((store, who, keys),) = self.tried
        self.assertEqual("names", store.names_bucket)
        self.assertEqual("a", who.access_key)
        self.assertEqual(Keys("a/"), keys)

    def test_cannot_be_used(self) -> None:
        def fail(*given: object, writes: bool) -> None:
            raise OperatorError("S3 bucket names: 403 AccessDenied")

        self.patch(probe, "check", fail)
        text = "S3 bucket names: 403 AccessDenied"
        self.assertEqual([("wrong", f"$.store.s3: {text}")], self.with_store())
        os.remove(self.paths["credentials"])
        ((level, text),) = self.with_store()
        self.assertEqual("wrong", level)
        self.assertIn("No such file or directory", text)

    def test_risks(self) -> None:
        """Those that the check of the store finds."""
        self.risks = ("S3 bucket names may keep versions", "S3 bucket data: may delete")
        self.assertEqual(
            [("risky", f"$.store.s3: {each}") for each in self.risks], self.with_store()
        )

    def test_no_credentials_here(self) -> None:
        """Those of systemd or the environment of the daemon are not known."""
        text = "the object store cannot be checked without the daemon's credentials"
        self.assertEqual(
            [("risky", f"$.store.s3: {text}")], self.with_store(credentials=None)
        )
        self.assertEqual([], self.tried)

    def test_accessible(self) -> None:
        """Others must not read credentials."""
        os.chmod(self.paths["credentials"], 0o644)
        os.chmod(self.paths["delete_credentials"], 0o604)
        found = self.with_store()
        self.assertEqual(["risky", "risky"], [level for level, _ in found])
        for name, (_, text) in zip(self.paths, found, strict=True):
            self.assertIn(f"{name}: is accessible to all users: chmod o= ", text)

    def test_daemon_may_delete(self) -> None:
        """Its user must not be able to read the other credentials."""
        if os.geteuid():
            raise SkipTest("needs root")
        self.folder.parent.chmod(0o755)
        self.need_ways_in()
        for path in (str(self.home), *self.paths.values()):
            os.chown(path, 65534, 65534)
        ((_, text),) = self.with_store()
        self.assertIn("readable by nobody, the owner of", text)
        self.assertIn("can delete all files; chown root", text)
        os.chown(self.paths["delete_credentials"], 0, 0)
        self.assertEqual([], self.with_store())

    def test_same_credentials(self) -> None:
        ((_, text),) = self.with_store(delete_credentials=self.paths["credentials"])
        self.assertIn("the daemon can delete all files", text)

    def test_nothing_deletes(self) -> None:
        """That matters only if a bucket has retention rules."""
        self.assertEqual([], self.with_store(delete_credentials=None))
        bucket = {**self.keys["buckets"][0], "keep": {"daily": 3}}
        text = "without delete_credentials, prune and sweep delete nothing"
        self.assertEqual(
            [("risky", f"$.store.s3: {text}")],
            self.with_store(delete_credentials=None, keys={"buckets": [bucket]}),
        )

    def test_seal(self) -> None:
        ((level, text),) = self.with_store(keys={"seal": "1h"})
        self.assertEqual("wrong", level)
        self.assertIn("$.seal: has no effect", text)
