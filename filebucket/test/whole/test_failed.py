"""A client that reports that its backup failed, as the operator learns of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from filebucket.catalogue.database import FILE
from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.integration import IntegrationCase, need, run
from filebucket.test.kit.server import OTHER, PATIENCE, Server, comes

# In two steps, so that only whole lines are read.
HOOK = """
printf "%s|" "$@" "$FILEBUCKET_FAILURE" "$FILEBUCKET_TEXT" | tr "\\n" / >{path}.new
echo >>{path}.new && cat {path}.new >>{path}
"""


class FailedTests(DocumentCase, IntegrationCase):
    """From the client's command to the alert hook, with real programs."""

    page = "pushing.rst"

    def setUp(self) -> None:
        super().setUp()
        self.told = self.folder / "told"
        self.told.touch()
        self.daemon = self.made()

    def made(self) -> Server:
        server = Server(
            self.folder / "server", buckets=[{"name": "web01", "token": OTHER}]
        )
        server.hook("alert", HOOK.format(path=shlex.quote(str(self.told))))
        server.start()
        self.addCleanup(server.stop)
        return server

    def push(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        token = self.file("token", OTHER.encode())
        return subprocess.run(
            [
                *(sys.executable, "-m", "filebucket.client", "--url", self.daemon.url),
                *("--token-file", str(token), "--retry-for", "0", *arguments),
            ],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "HOME": str(self.folder)},
        )

    def report(self, text: bytes, *arguments: str, name: str = "") -> tuple[int, bytes]:
        return self.curl(
            *("-H", "Content-Type: text/plain", "--data-binary", "@-", *arguments),
            f"{self.daemon.url}/{OTHER}/{name}",
            stdin=text,
        )

    def alerts(self, count: int) -> list[str]:
        """Wait for this number of alerts."""

        def lines() -> list[str]:
            return self.told.read_text().splitlines()

        told = comes(lambda: len(lines()) >= count)
        self.assertTrue(told, (lines(), self.daemon.log))
        return [line.rpartition("|")[0].rpartition("|")[0] for line in lines()]

    def recorded(self) -> list[tuple[str]]:
        """The states of the last alerts, from the catalogue."""
        with closing(sqlite3.connect(self.daemon.home / FILE)) as catalogue:
            return catalogue.execute("SELECT told FROM series").fetchall()

    def text(self) -> str:
        """The last alert's sentence for people."""
        return self.told.read_text().splitlines()[-1].split("|")[-2]

    def status(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "filebucket", "status", *arguments),
                *("--config", str(self.daemon.config_file)),
            ],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(b"", done.stderr)
        return done.returncode, done.stdout.decode()

    def series(self) -> list[dict[str, Any]]:
        (bucket,) = json.loads(self.status("--json")[1])["buckets"]
        found: list[dict[str, Any]] = bucket["series"]
        return found

    def test_command(self) -> None:
        """filebucket-push --exec; the next push ends it."""
        script = "echo half; echo connection refused >&2; exit 7"
        name = ("--name", "db-{date}.gz", "--exec", "--")
        done = self.push(*name, "sh", "-c", script)
        self.assertEqual(3, done.returncode)
        self.assertIn(b"connection refused\n", done.stderr)
        self.assertIn(b"sh exited with 7; nothing is stored\n", done.stderr)
        self.assertEqual(
            ["web01|db-#-#-#.gz|never|failed|sh exited with 7/connection refused"],
            self.alerts(1),
        )
        self.assertEqual(
            "has failed: sh exited with 7 / connection refused; no push yet",
            self.text(),
        )
        self.daemon.wait_for("failed bucket=web01 .* text='sh exited with 7'")
        self.assertEqual({}, self.daemon.stored())
        self.assertEqual(0, self.push(*name, "echo", "all").returncode)
        self.assertEqual("web01|db-#-#-#.gz|failed|fresh|", self.alerts(2)[1])
        self.assertEqual(0, self.status()[0])

    def test_curl(self) -> None:
        """Shown, escaped and without a token, by all that shows states."""
        text = f"pg_dump: \x1b[2Jfailed\nat {OTHER}\n".encode()
        self.assertEqual(
            (202, b"the failure is reported\n"), self.report(text, name="db-1.gz")
        )
        self.assertEqual(
            ["web01|db-#.gz|never|failed|pg_dump: \\x1b[2Jfailed/at web01"],
            self.alerts(1),
        )
        code, shown = self.status()
        self.assertEqual(2, code)
        self.assertIn("pg_dump: \\x1b[2Jfailed", shown)
        self.assertNotIn("\x1b", shown)
        code, line = self.status("--line")
        self.assertEqual(2, code)
        self.assertIn("web01: db-#.gz failed: pg_dump: \\x1b[2Jfailed", line)
        (series,) = self.series()
        self.assertEqual(
            ("failed", "pg_dump: \x1b[2Jfailed\nat web01\n"),
            (series["state"], series["failed_text"]),
        )

    def test_document(self) -> None:
        """The lines in docs/how-to/pushing.rst."""
        script = self.script("Report a failed backup")
        dump = self.file("pg_dump", b"#!/bin/sh\necho no such database >&2\nexit 7\n")
        dump.chmod(0o755)
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            cwd=self.folder,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env={
                **os.environ,
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                "URL": self.daemon.url,
                "TOKEN": OTHER,
            },
        )
        self.assertEqual(
            (1, b"the failure is reported\n", b""),
            (done.returncode, done.stdout, done.stderr),
        )
        failure = "pg_dump exited with 7/no such database"
        self.assertEqual(
            [f"web01|shop-#-#-#.dump|never|failed|{failure}"], self.alerts(1)
        )

    def test_whole_bucket(self) -> None:
        """Also after a restart, until any push."""
        self.assertEqual(202, self.report(b"no disk")[0])
        self.assertEqual(["web01||never|failed|no disk"], self.alerts(1))
        # A daemon that stops before would repeat the alert.
        self.assertTrue(comes(lambda: self.recorded() == [("failed",)]))
        self.daemon.stop()
        self.daemon = self.made()
        ((name, state),) = [(each["series"], each["state"]) for each in self.series()]
        self.assertEqual(("", "failed"), (name, state))
        path = Path(self.file("db-1.gz"))
        self.assertEqual(
            200, self.curl("-T", str(path), f"{self.daemon.url}/{OTHER}/")[0]
        )
        self.assertEqual("web01||failed|fresh|", self.alerts(2)[1])
        self.assertEqual(["db-#.gz"], [each["series"] for each in self.series()])

    def test_limits(self) -> None:
        """A large report, and a storm of them."""
        need("curl")
        self.assertEqual(413, self.report(b"x" * 4097)[0])
        # One process, since starting each may take longer than a second.
        urls = [f"{self.daemon.url}/{OTHER}/db"] * 300
        header = ("-H", "Content-Type: text/plain")
        answers = run("curl", "-sS", "-i", *header, "--data-binary", "x", *urls).stdout
        statuses = re.findall(rb"^HTTP/1\.1 (\d+) ", answers, re.MULTILINE)
        self.assertEqual({b"202", b"429"}, set(statuses))
        self.assertEqual(["web01|db|never|failed|x"], self.alerts(1))
