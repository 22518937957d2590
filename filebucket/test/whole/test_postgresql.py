"""The real daemon and a catalogue in PostgreSQL, which is gone for a while."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from typing import Any

import psycopg

from filebucket.test.kit.catalogue import new_database
from filebucket.test.kit.postgres import Postgres
from filebucket.test.kit.server import PATIENCE, Server, hurried
from filebucket.test.whole.test_catalogue import RealCase

COMMAND = hurried("catalogue.recorder", GATHER=0.05, RETRY=0.5)


class PostgreSQLTests(RealCase):
    def ask(self, query: str) -> list[Any]:
        try:
            with closing(psycopg.connect(self.conninfo)) as connection:
                connection.execute("SET search_path = filebucket")
                return connection.execute(query).fetchall()
        except psycopg.errors.UndefinedTable:
            return []

    def names(self) -> list[str]:
        return [name for (name,) in self.ask("SELECT name FROM push ORDER BY id")]

    def run_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "filebucket", *words]
        command += ["--config", str(self.server.config_file)]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=PATIENCE
        )

    def make(self, **config: Any) -> Server:
        return super().make(catalogue={"postgresql": self.conninfo}, **config)

    def test_used(self) -> None:
        """By the daemon and the commands; there is no file."""
        self.conninfo = new_database().conninfo
        self.start(self.make(), *COMMAND)
        self.assert_pushes("a", "b")
        self.wait_for(lambda: self.names() == ["a", "b"])
        self.assertEqual(["a", "b"], self.names())
        self.assertEqual(200, self.retry("a"))
        self.assertFalse(self.file.exists())
        found = json.loads(self.run_command("status", "--json").stdout)
        files = {each["bucket"]: each["files"] for each in found["buckets"]}
        self.assertEqual(2, files["web01"], files)
        done = self.run_command("verify")
        self.assertEqual(0, done.returncode, done.stderr)
        done = self.run_command("log")
        self.assertIn("web01", done.stdout)

    def test_gone(self) -> None:
        """Pushes go on without it, also after a start, and are added later."""
        postgres = Postgres().start()
        self.addCleanup(postgres.stop)
        self.conninfo = postgres.create("bucket")
        postgres.program.kill()
        self.start(self.make(), *COMMAND)
        self.assert_pushes("a")
        self.server.wait_for(
            r"cannot be written \(pushes are not affected\): PostgreSQL: Connection ref"
        )
        done = self.run_command("status")
        self.assertIn("the catalogue: PostgreSQL: Connection refused", done.stderr)
        postgres.program.start()
        self.server.wait_for("can be written again")
        self.wait_for(lambda: self.names() == ["a"])
        self.assertEqual(["a"], self.names())
        postgres.program.send(signal.SIGINT)
        self.wait_for(lambda: not postgres.program.runs)
        self.assert_pushes("b")
        postgres.program.start()
        self.wait_for(lambda: self.names() == ["a", "b"])
        self.assertEqual(["a", "b"], self.names())

    def test_replaced(self) -> None:
        """If its tables are dropped, they are created again, and filled from disk."""
        self.conninfo = new_database().conninfo
        self.start(self.make(), *COMMAND)
        self.assert_pushes("a")
        self.wait_for(lambda: self.names() == ["a"])
        with closing(psycopg.connect(self.conninfo, autocommit=True)) as connection:
            connection.execute("DROP SCHEMA filebucket CASCADE")
        self.assert_pushes("b")
        self.wait_for(lambda: sorted(self.names()) == ["a", "b"])
        self.assertEqual(["a", "b"], sorted(self.names()))
