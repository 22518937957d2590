"""Several daemons that share a catalogue in PostgreSQL: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.jobs import job
from filebucket.model.place import PostgreSQL
from filebucket.test.kit.catalogue import new_database
from filebucket.test.kit.cluster import leads
from filebucket.test.kit.postgres import Postgres
from filebucket.test.kit.server import OTHER, PATIENCE, Server, comes, hurried

LEADS = "this daemon leads$"


class NodesCase(SynchronousTestCase):
    """Has a database, daemons, and a file to which their alert hooks write.

    :cvar command: starts a daemon, if not as usual
    """

    command: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.told = self.folder / "told"
        self.servers: dict[str, Server] = {}
        self.addCleanup(self.stop)
        self.database = self.new_database()

    def new_database(self) -> str:
        return new_database().conninfo

    def stop(self) -> None:
        for each in self.servers.values():
            if each.process.poll() is None:
                each.stop()

    def start(self, *names: str, alert: str = "", **config: Any) -> None:
        """Start daemons with these names.

        :param alert: what their alert hooks do in the end
        """
        for name in names:
            server = self.servers[name] = Server(
                self.folder / name,
                node=name,
                catalogue={"postgresql": self.database},
                **config,
            )
            line = f"{name} $FILEBUCKET_BUCKET $FILEBUCKET_NEW: $FILEBUCKET_TEXT"
            server.hook("alert", f'echo "{line}" >>{self.told}\n{alert}')
            server.start(*self.command)

    def leaders(self) -> list[str]:
        """The daemons that lead, as their logs say."""
        return [name for name, each in self.servers.items() if leads(each)]

    def with_line(self, text: str) -> list[str]:
        """The daemons that have logged a line with a text."""
        return [name for name, each in self.servers.items() if text in each.log]

    def leader(self) -> str:
        """The one that leads, which may take a while."""
        self.assertTrue(comes(lambda: len(self.leaders()) == 1), self.leaders())
        return self.leaders()[0]

    def others(self) -> list[str]:
        leader = self.leader()
        return [each for each in self.servers if each != leader]

    def kill(self, name: str) -> None:
        """As the kernel does if there is no memory."""
        server = self.servers.pop(name)
        server.signal(signal.SIGKILL)
        server.wait()

    def push(self, node: str, name: str, content: bytes) -> None:
        url = f"{self.servers[node].url}/{OTHER}/{name}"
        request = urllib.request.Request(url, content, method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            self.assertEqual(200, answer.status)

    def lines(self) -> list[str]:
        """What the alert hooks wrote."""
        return self.told.read_text().splitlines() if self.told.exists() else []

    def filebucket(self, node: str, *arguments: str) -> tuple[int, str]:
        """The exit status and all output of a command."""
        command, *rest = arguments
        config = str(self.servers[node].config_file)
        done = subprocess.run(
            [sys.executable, "-m", "filebucket", command, "--config", config, *rest],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout + done.stderr

    def status(self, node: str) -> Any:
        status, text = self.filebucket(node, "status", "--json")
        self.assertIn(status, (0, 1, 2), text)
        return json.loads(text)


class NodesTests(NodesCase):
    def test_one_leads(self) -> None:
        """One of three leads, and only that one reindexes; all are in the status."""
        self.start("a", "b", "c")
        self.leader()
        self.assertTrue(comes(lambda: len(self.status("a")["nodes"]) == 3))
        nodes = self.status("b")["nodes"]
        self.assertEqual(["a", "b", "c"], [each["node"] for each in nodes])

        def leads() -> bool:
            nodes = self.status("b")["nodes"]
            return self.leaders() == [each["node"] for each in nodes if each["leads"]]

        self.assertTrue(comes(leads))
        # Usually one. A daemon that the processor kept waiting is followed, too.
        led = self.with_line("this daemon leads")
        self.assertTrue(comes(lambda: led == self.with_line("catalogue: ")))

    def test_killed(self) -> None:
        """A leader that is killed is followed."""
        self.start("a", "b", "c")
        before = self.leader()
        self.kill(before)
        after = self.leader()
        self.assertNotEqual(before, after)
        self.kill(after)
        self.assertIn(self.leader(), {"a", "b", "c"} - {before, after})

    def test_told_once(self) -> None:
        """An alert comes once, whichever daemon got the push, and also if another
        daemon leads afterwards.
        """
        self.start("a", "b")
        leader, (other,) = self.leader(), self.others()
        self.push(other, "db-1.gz", b"x")
        self.push(other, "db-2.gz", b"")
        self.assertTrue(comes(lambda: bool(self.lines())))
        self.servers[leader].stop()
        self.assertEqual(other, self.leader())
        self.push(other, "etc-1.gz", b"x")
        self.push(other, "etc-2.gz", b"")
        self.assertTrue(comes(lambda: len(self.lines()) > 1))
        first, second = self.lines()
        self.assertIn(" web01 empty: is empty", first)
        self.assertIn(f"{other} web01 empty: is empty", second)

    def test_told_at_least_once(self) -> None:
        """The leader dies after the hook ran, and before that was recorded."""
        dead = self.folder / "dead"
        dies = f'[ -e {dead} ] || {{ touch {dead}; kill -9 "$PPID"; }}'
        self.start("a", "b", alert=dies)
        (other,) = self.others()
        self.push(other, "db-1.gz", b"x")
        self.push(other, "db-2.gz", b"")
        self.assertTrue(comes(lambda: len(self.lines()) > 1))
        tellers = [each.partition(" web01 empty: ")[0] for each in self.lines()]
        self.assertEqual(["a", "b"], sorted(tellers))
        self.servers.pop(tellers[0]).wait()

    def test_own_disk(self) -> None:
        """The full disk of a daemon that does not lead is reported, and all show it."""
        self.start("a")
        self.leader()
        self.start("b", min_free_space="100 %")
        self.assertTrue(comes(lambda: bool(self.lines())))
        text = "b: no push can be stored: free space is below min_free_space"
        self.assertEqual([f"b - full: {text}"], [*set(self.lines())])
        self.assertTrue(comes(lambda: text in str(self.status("a")["problems"])))

    def test_forget(self) -> None:
        """A daemon that will not come back can be forgotten, one that runs cannot."""
        self.start("a", "b")
        self.leader()
        self.assertTrue(comes(lambda: len(self.status("a")["nodes"]) == 2))
        self.servers.pop("b").stop()
        (_, b) = self.status("a")["nodes"]
        self.assertEqual(("b", "stopped"), (b["node"], b["state"]))
        self.assertEqual(
            (3, "Error: daemon a is running: stop it first\n"),
            self.filebucket("a", "status", "--forget", "a"),
        )
        self.assertEqual(
            (3, "Error: there is no daemon 'c'\n"),
            self.filebucket("a", "status", "--forget", "c"),
        )
        self.assertEqual(
            (0, "forgot b\n"), self.filebucket("a", "status", "--forget", "b")
        )
        self.assertEqual(["a"], [each["node"] for each in self.status("a")["nodes"]])

    def test_commands(self) -> None:
        """Each machine has the same timers: only one works."""
        kept = {"name": "web01", "token": OTHER, "keep": {"last": 1}}
        self.start("a", buckets=[kept])
        for command in ("prune", "verify", "reindex"):
            with job(PostgreSQL(self.database), command):
                self.assertEqual(
                    (
                        0,
                        f"another filebucket {command} is running, on this or another"
                        " machine: nothing was done\n",
                    ),
                    self.filebucket("a", command),
                )
            # The server notices the end of the connection a moment later.
            self.assertTrue(comes(partial(self.does, command)))

    def does(self, command: str) -> bool:
        status, text = self.filebucket("a", command)
        self.assertEqual(0, status, text)
        return "another" not in text


class DatabaseTests(NodesCase):
    """The database is stopped and started."""

    command = hurried("catalogue.recorder", RETRY=1)

    def new_database(self) -> str:
        self.postgres = Postgres()
        self.addCleanup(self.postgres.stop)
        return self.postgres.start().create("catalogue")

    def test_without_it(self) -> None:
        """Pushes go on, no daemon leads, and status says so. Then one leads, and the
        catalogue has all pushes.
        """
        self.start("a", "b")
        self.leader()
        self.postgres.program.stop(signal.SIGINT)
        self.assertTrue(comes(lambda: not self.leaders()))
        for node in "ab":
            self.push(node, f"{node}-1.gz", os.urandom(9))
            status, text = self.filebucket(node, "status")
            self.assertEqual(3, status, text)
            self.assertIn("PostgreSQL", text)
        self.postgres.program.start()
        self.leader()

        def names() -> set[str]:
            _, text = self.filebucket("a", "log", "--json")
            found = [json.loads(each) for each in text.splitlines()]
            return {each["name"] for each in found}

        self.assertTrue(comes(lambda: {"a-1.gz", "b-1.gz"} <= names()))
