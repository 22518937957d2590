"""The log of the real daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.children import deadline
from filebucket.test.kit.server import (
    OTHER,
    PATIENCE,
    TOKEN,
    TWISTD,
    UNKNOWN,
    Server,
    comes,
    hurried,
)

SERVE = (sys.executable, "-m", "filebucket", "serve")


class RealTests(SynchronousTestCase):
    def serve(self, *command: str, **config: Any) -> Server:
        server = Server(Path(self.mktemp()).absolute(), **config)
        server.hook("pre-push", 'echo "asked $FILEBUCKET_REQUEST_ID" >&2')
        server.hook("post-push", "exit 3")
        server.start(*command)
        self.addCleanup(server.stop)
        return server

    def lines(self, server: Server) -> list[dict[str, Any]]:
        """All log lines, after the daemon has ended."""
        server.stop()
        lines = server.log.splitlines()
        self.assertEqual("(end)", lines.pop())
        return [json.loads(line) for line in lines]

    def curl(self, url: str) -> dict[str, str]:
        """Push to that URL; the answer's headers in lower case."""
        answer = subprocess.run(
            ["curl", "-sS", "-i", "-X", "PUT", "-d", "", url],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout
        pairs = (line.partition(": ") for line in answer.splitlines())
        return {name.lower(): value for name, _, value in pairs}

    def test_one_push(self) -> None:
        """All lines of a push have the request id that its client got."""
        server = self.serve(log_format="json")
        request = self.curl(f"{server.url}/{OTHER}/{TOKEN}")["x-request-id"]
        self.assertRegex(request, "^[0-9a-f]{16}$")
        again = self.curl(f"{server.url}/{OTHER}/{TOKEN}")["x-request-id"]
        self.assertNotEqual(request, again)
        self.assertNotIn("x-request-id", self.curl(f"{server.url}/nobody/x"))
        lines = self.lines(server)
        mine = [line for line in lines if line.get("request") == request]
        self.assertEqual(
            ["hook-says", "hook", "push"], [line["event"] for line in mine]
        )
        says, hook, push = mine
        self.assertEqual(f"asked {request}", says["line"])
        self.assertEqual(("post-push", 3), (hook["hook"], hook["status"]))
        self.assertEqual(
            ("web01", "#f215fa", 0, 200, None),
            tuple(push[key] for key in ("bucket", "name", "size", "status", "reason")),
        )
        refused = [line for line in lines if line["event"] == "refused"]
        self.assertEqual(
            [(405, again), (403, refused[1]["request"])],
            [(line["status"], line["request"]) for line in refused],
        )

    def test_options(self) -> None:
        """Options of the command and the plugin override the configuration."""
        plugin = (*TWISTD, "-n", "--pidfile=", "filebucket")
        for command in (SERVE, plugin):
            server = self.serve(*command, "--log-format", "json")
            events = [line["event"] for line in self.lines(server)]
            self.assertIn("ready", events)
            server = self.serve(*command, "--log-format", "text", log_format="json")
            server.stop()
            self.assertRegex(server.log, r"(?m)^\S+ \[filebucket.daemon.*#info\] ready")

    def test_journal(self) -> None:
        """In the journal, lines have a priority and no time."""
        stream = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/$$/fd/1)"
        command = ("sh", "-c", f'export {stream}; exec "$@"', "sh", *SERVE)
        for log_format, start in (
            ("text", r"<6>\[filebucket\.daemon\.service\.Daemon#info\] ready on "),
            ("json", r'<6>\{"time": "[^"]+", "level": "info", "event": "ready", '),
        ):
            server = self.serve(*command, "--log-format", log_format)
            server.stop()
            lines = server.log.splitlines()
            self.assertEqual("(end)", lines.pop())
            self.assertTrue(all(line.startswith("<") for line in lines), lines)
            self.assertRegex(server.log, f"(?m)^{start}")

    def test_refused(self) -> None:
        """Where JSON is not possible, the option fails."""
        server = Server(Path(self.mktemp()).absolute(), log_format="json")
        words = ("--pidfile=", "--logfile=x", "filebucket", "--config")
        ended = subprocess.run(
            [*TWISTD, "-n", *words, str(server.config_file)],
            cwd=server.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        self.assertEqual(1, ended.returncode)
        self.assertIn("a JSON log goes to standard output", ended.stderr)


class UnreadTests(SynchronousTestCase):
    """Nothing reads the daemon's output."""

    def test_pushes_go_on(self) -> None:
        """Clients without a token cannot block it with log lines; it reports how many
        were lost."""
        folder = Path(self.mktemp()).absolute()
        # A UNIX socket's path has up to 107 bytes.
        short = Path(self.enterContext(tempfile.TemporaryDirectory()))
        server = Server(folder, listen=[f"unix:{short}/s"])
        process = subprocess.Popen(
            [
                *hurried("daemon.behind", MOST_WAITING=10_000, STALL=0.1),
                *("--config", str(server.config_file)),
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        self.assertTrue(comes((short / "s").exists))
        curl = ["curl", "-sS", "-m", "20", "--unix-socket", str(short / "s")]
        stranger = [f"http://h/{UNKNOWN}/[1-700]", "-o", os.devnull]
        for _ in range(2):
            subprocess.run([*curl, *stranger], check=True, timeout=PATIENCE)
        push = [*curl, "-T", str(server.config_file), f"http://h/{TOKEN}/x"]
        answer = subprocess.run(push, check=True, capture_output=True, timeout=PATIENCE)
        self.assertIn(b"  x\n", answer.stdout)
        read = bytearray()
        with deadline(process):
            while b" log lines: standard output was not read" not in read:
                some = os.read(process.stdout.fileno(), 65536)
                self.assertTrue(some, "it ended")
                read += some
            process.terminate()
            rest = process.stdout.read()
        self.assertIn(b"Server Shut Down.", rest)
        lines = (read + rest).splitlines()
        refused = sum(b"] refused " in line for line in lines)
        pushed = sum(b"] push " in line for line in lines)
        # It may report more than once, with other lines between.
        told = re.findall(rb"#warn\] lost (\d+) log lines: ", read + rest)
        self.assertIn(refused + pushed + sum(map(int, told)) - 1401, range(20))
