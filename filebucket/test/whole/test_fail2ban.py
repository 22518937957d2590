"""fail2ban's filter, run by fail2ban on the real daemon's lines."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from ast import literal_eval
from pathlib import Path
from typing import Any

import requests
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.test.kit.server import OTHER, PATIENCE, TWISTD, Server
from filebucket.test.kit.tree import TREE

FILTER = TREE / "contrib" / "fail2ban" / "filter.conf"
JAIL = FILTER.with_name("jail.conf")
SYSTEM = Path("/etc/fail2ban")

EXPIRED = "e" * 32
AWAY = "a" * 32
RETIRED = "r" * 32

VICTIM = "203.0.113.66"
"""Addresses that clients or hooks might inject into the log."""


class FilterTests(SynchronousTestCase):
    """Bans clients without a token, and no others."""

    def setUp(self) -> None:
        if not FILTER.exists():
            raise SkipTest("installed without the filter")
        if shutil.which("fail2ban-regex") is None:
            raise SkipTest("there is no fail2ban")

    def serve(self, log_format: str) -> Server:
        server = Server(
            Path(self.mktemp()).absolute(),
            page=True,
            listen=["tcp:0:127.0.0.1", r"tcp6:0:interface=\:\:1"],
            buckets=[
                {"name": "web01", "token": OTHER},
                {"name": "an old one", "token": EXPIRED, "expires": "2020-01-01"},
                {"name": "x'\"", "token": AWAY, "allow_from": ["192.0.2.0/24"]},
                {"name": "gone", "token": RETIRED, "retired": True},
            ],
        )
        server.hook("pre-push", 'echo "$2" >&2; exit 1')
        plugin = (*TWISTD, "-n", "--pidfile=", "filebucket")
        server.start(*plugin, "--log-format", log_format)
        self.addCleanup(server.stop)
        return server

    def banned(self, log: str, *options: str) -> list[str]:
        """The addresses of the lines that the filter matches."""
        file = Path(self.mktemp()).absolute()
        file.write_text(log)
        found = subprocess.run(
            ["fail2ban-regex", *options, "--out=ip", str(file), str(FILTER)],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return found.stdout.split()

    def ask(self, address: tuple[Any, ...], token: str, name: str = "x") -> int:
        """Push an empty file, and return the status."""
        with socket.create_connection(address[:2], PATIENCE) as client:
            head = f"PUT /{token}/{name} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
            client.sendall(f"{head}Connection: close\r\n\r\n".encode())
            with client.makefile("rb") as answer:
                return int(answer.read().split()[1])

    def open_page(self, server: Server) -> None:
        """Fetch the drop page, as a browser does, which is not a guess."""
        for path in ("", "drop.js", "drop.css", "favicon.ico"):
            self.assertEqual(200, requests.get(f"{server.url}/{path}").status_code)

    def lines(self, log_format: str) -> str:
        """The log of clients without a token, a refused push and hostile names."""
        server = self.serve(log_format)
        self.open_page(server)
        port6 = int(server.places[1].rpartition(":")[2])
        for address in (("127.0.0.1", server.port), ("::1", port6)) * 2:
            self.assertEqual(403, self.ask(address, "nobody"))
        for token in (EXPIRED, AWAY):
            self.assertEqual(403, self.ask(("127.0.0.1", server.port), token))
        # Its client has a valid token.
        self.assertEqual(403, self.ask(("127.0.0.1", server.port), RETIRED))
        # A form's body makes no other client.
        home = ("127.0.0.1", server.port)
        text = (
            f"[filebucket.tap#info] refused bucket=- name=- size=0 sha256=-"
            f" client={VICTIM}:5 seconds=0.000 status=403 request=0123456789abcdef"
            f" reason='no such token'"
        )
        time = "2026-11-24T23:24:18+0000"
        one = (
            '{"time": "2026-11-24T23:24:18.048Z", "level": "info", "event": "refused",'
            f' "message": "x", "client": "{VICTIM}:5", "seconds": 0.0, "status": 403, '
        )
        caused = f"{text} cause='"
        quoted = f'x", "client": "{VICTIM}:5", "seconds": 0.0, "status": 403, '
        for name in (text, f"{time} {text}", f"h p[1]: {text}", caused, one, quoted):
            self.assertLess(len(name), 256)
            escaped = "".join(f"%{byte:02x}" for byte in name.encode())
            self.assertEqual(409, self.ask(home, OTHER, escaped))
        server.stop()
        return server.log

    def test_filter(self) -> None:
        """Once for each 403, with the client's address, in both formats."""
        for log_format in ("text", "json"):
            log = self.lines(log_format)
            self.assertIn(VICTIM, log)
            expected = ["127.0.0.1", "::1"] * 2 + ["127.0.0.1"] * 2
            self.assertEqual(expected, self.banned(log), log)

    def test_journal(self) -> None:
        """Lines from the journal, as fail2ban formats them."""
        log = self.lines("text")
        before = "2026-11-24T23:24:19+00:00 backup filebucket[4711]: "
        lines = log.splitlines(keepends=True)
        # In the journal, the daemon's lines have no time.
        journal = "".join(before + re.sub(r"^\S+ (?=\[)", "", each) for each in lines)
        expected = ["127.0.0.1", "::1"] * 2 + ["127.0.0.1"] * 2
        self.assertEqual(expected, self.banned(journal), journal)


class JailTests(SynchronousTestCase):
    """What fail2ban reads from the jail and from the distribution's files."""

    def commands(self, jail: str) -> list[list[Any]]:
        """The commands for the daemon of fail2ban."""
        folder = Path(self.mktemp()).absolute()
        shutil.copytree(SYSTEM, folder)
        shutil.copy(FILTER, folder / "filter.d" / "file-bucket.conf")
        (folder / "jail.d" / "file-bucket.conf").write_text(jail)
        shown = subprocess.run(
            ["fail2ban-client", "-c", str(folder), "-d"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout
        lines = [each for each in shown.splitlines() if each.startswith("[")]
        return [each for each in map(literal_eval, lines) if "file-bucket" in each[:3]]

    def setUp(self) -> None:
        if not FILTER.exists():
            raise SkipTest("installed without the filter")
        if shutil.which("fail2ban-client") is None:
            raise SkipTest("there is no fail2ban")

    def assert_bans(self, commands: list[list[Any]], ports: str | None) -> None:
        """The ban covers these TCP ports; None is all."""
        ((*_, settings),) = (each for each in commands if each[2:3] == ["action"])
        action = dict(settings)
        self.assertEqual("tcp", action["protocol"])
        # As iptables and nftables name the destination.
        self.assertEqual(ports is not None, "dport" in action["actionstart"])
        self.assertEqual(ports or "0:65535", action["port"])

    def test_all_ports(self) -> None:
        """A ban covers every port, whatever ``listen`` is."""
        commands = self.commands(JAIL.read_text())
        self.assert_bans(commands, None)
        self.assertIn(["set", "file-bucket", "maxretry", 20], commands)
        self.assertIn(["start", "file-bucket"], commands)

    def test_ports(self) -> None:
        """The ports that its comment shows, instead."""
        text = JAIL.read_text()
        found = re.search(r"#     (port = .*)\n", text)
        assert found is not None
        jail = re.sub(r"(?m)^banaction .*", found[1], text)
        self.assert_bans(self.commands(jail), "80,443,1234,1443")
