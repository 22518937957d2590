"""The real daemon and failures of its catalogue: pushes are taken, and problems are
logged."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.catalogue.database import FILE
from filebucket.catalogue.inventory import Inventory
from filebucket.test.kit.server import OTHER, PATIENCE, Server, comes, hurried

FULL = 64 * 1024
"""Free bytes that are enough for pushes and too few for the catalogue."""


class RealCase(SynchronousTestCase):
    """Provides a real daemon."""

    def make(self, **config: Any) -> Server:
        server = Server(Path(self.mktemp()).absolute(), **config)
        self.file = server.home / FILE
        return server

    def start(self, server: Server, *command: str) -> None:
        self.server = server.start(*command)
        self.addCleanup(server.stop)

    def push(self, name: str, content: bytes = b"content", **headers: str) -> int:
        """Push, and return the status."""
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.server.port, PATIENCE)
        ) as connection:
            connection.request("PUT", f"/{OTHER}/{name}", content, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def promise(self, content: bytes) -> dict[str, str]:
        """The header with the digest of ``body``."""
        return {"X-Checksum-Sha256": hashlib.sha256(content).hexdigest()}

    def retry(self, name: str, content: bytes = b"content") -> int:
        """Push with a digest, and return the status."""
        return self.push(name, content, **self.promise(content))

    def assert_pushes(self, *names: str) -> None:
        for name in names:
            self.assertEqual(200, self.push(name), name)
            self.assertEqual(405, self.push(name), name)

    def ask(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.file, timeout=PATIENCE)) as connection:
            return connection.execute(query).fetchall()

    def kept(self) -> dict[str, str]:
        """Kept files: names and digests."""
        query = "SELECT name, sha256 FROM push WHERE fate = 'kept'"
        try:
            return dict(self.ask(query))
        except sqlite3.Error:
            return {}  # it is being created

    def assert_entered(self) -> None:
        """In the end, the catalogue matches the disk."""
        stored = {
            os.path.basename(path): hashlib.sha256(content).hexdigest()
            for path, content in self.server.stored().items()
        }
        self.wait_for(lambda: self.kept() == stored)
        self.assertEqual(stored, self.kept())

    def wait_for(self, over: Callable[[], object]) -> None:
        """Poll: nothing signals that a row was written."""
        comes(lambda: bool(over()))


class HealTests(RealCase):
    """A client that still has a damaged file."""

    def verify(self) -> int:
        """The exit status of ``filebucket verify``."""
        words = ["verify", "--config", str(self.server.config_file)]
        command = [sys.executable, "-m", "filebucket", *words]
        return subprocess.run(
            command, check=False, capture_output=True, timeout=PATIENCE
        ).returncode

    def test_healed(self) -> None:
        """A retry restores the file, and everything is fine."""
        self.start(self.make(), *hurried("catalogue.recorder", GATHER=0.05))
        self.assertEqual(200, self.retry("a"))
        self.assert_entered()
        path = self.server.home / "web01" / "a"
        at = path.stat()
        path.write_bytes(b"c0ntent")
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
        self.assertEqual(1, self.verify())
        self.assertEqual(405, self.push("a"))
        self.assertEqual([(1,)], self.ask("SELECT damaged FROM series"))
        self.assertEqual(422, self.push("a", b"other", **self.promise(b"content")))
        self.assertEqual(b"c0ntent", path.read_bytes())
        self.assertEqual(200, self.retry("a"))
        self.server.wait_for("healed bucket=web01 name='a' size=7")
        self.assertEqual(b"content", path.read_bytes())
        query = "SELECT damaged, pushes, files FROM series"
        self.wait_for(lambda: self.ask(query) == [(0, 1, 1)])
        self.assertEqual([(0, 1, 1)], self.ask(query))
        self.assertEqual(0, self.verify())
        self.assertEqual(200, self.retry("a"))
        self.server.wait_for("repeated bucket=web01 name='a'")

    def test_about_to_go(self) -> None:
        """A file that is about to be pruned gets no receipt."""
        self.start(self.make(), *hurried("catalogue.recorder", GATHER=0.05))
        self.assertEqual(200, self.retry("a"))
        self.assert_entered()
        with closing(Inventory.open(str(self.server.home))) as inventory:
            ((id_,),) = self.ask("SELECT id FROM push")
            inventory.prune([id_], 0.0)
            self.assertEqual(405, self.retry("a"))
            inventory.spared([id_])
        self.assertEqual(200, self.retry("a"))


class CatalogueTests(RealCase):
    def test_deleted(self) -> None:
        """If it is deleted while the daemon runs, it is rebuilt from disk."""
        self.start(self.make())
        self.assert_pushes("a", "b")
        self.assert_entered()
        for path in self.file.parent.glob(f"{self.file.name}*"):
            path.unlink()
        self.assert_pushes("c")
        self.server.wait_for("catalogue file is gone; rebuilding it from disk")
        self.server.wait_for("catalogue: 2 added|catalogue: 3 added")
        self.assert_entered()
        self.assertEqual(200, self.retry("a"))

    def test_damaged_at_the_start(self) -> None:
        """It is set aside and rebuilt."""
        server = self.make()
        self.start(server)
        self.assert_pushes("a")
        self.assert_entered()
        server.stop()
        self.file.write_bytes(b"no catalogue" * 1000)
        server.start()
        self.assert_pushes("b")
        server.wait_for(r"catalogue file is damaged \(file is not a database\)")
        self.assert_entered()
        damaged = Path(f"{self.file}.damaged").read_bytes()
        self.assertEqual(b"no catalogue" * 1000, damaged)

    def test_damaged(self) -> None:
        """The same while the daemon runs, with a damaged page or an empty file."""
        for harm in (self.overwrite, self.truncate):
            self.start(self.make(), *hurried("catalogue.recorder", GATHER=0.05))
            self.assert_pushes("a")
            self.assert_entered()
            self.ask("PRAGMA wal_checkpoint(TRUNCATE)")
            harm()
            self.assert_pushes("b")
            self.server.wait_for("catalogue file is damaged")
            self.assert_entered()
            self.assert_pushes("c")
            self.assert_entered()
            self.assertTrue(Path(f"{self.file}.damaged").exists())
            self.server.stop()

    def overwrite(self) -> None:
        with self.file.open("r+b") as file:
            file.write(b"\xff" * (self.file.stat().st_size))

    def truncate(self) -> None:
        os.truncate(self.file, 4096)

    def test_locked(self) -> None:
        """Another process holds a write lock for ever: no push waits for it."""
        self.start(self.make())
        self.assert_pushes("a")
        self.assert_entered()
        with closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(20):
                self.assert_pushes(f"f{number}")
            # It waits to be added, and is known already.
            self.assertEqual(["a"], list(self.kept()))
            other.execute("ROLLBACK")
        self.assert_entered()

    def test_full(self) -> None:
        """On a full disk, this is logged, pushes that fit are taken, and rows are added
        when there is free space again."""
        if os.geteuid():
            raise SkipTest("only root can mount")
        server = self.make(min_free_space=0)
        server.home.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(server.home)]
        if subprocess.run(
            mount, capture_output=True, check=False, timeout=PATIENCE
        ).returncode:
            raise SkipTest("nothing can be mounted here")
        self.addCleanup(
            subprocess.run,
            ["umount", "-l", str(server.home)],
            check=True,
            timeout=PATIENCE,
        )
        self.start(server, *hurried("catalogue.recorder", RETRY=1.0))
        self.assert_pushes("a")
        self.assert_entered()
        filler = server.home / ".filebucket" / "filler"
        with filler.open("wb") as file:
            found = os.statvfs(server.home)
            file.write(b"\0" * (found.f_bavail * found.f_frsize - FULL))
        self.assertIn(507, [self.push(f"f{number}") for number in range(100)])
        # An empty file takes no space.
        self.assert_empty("g0")
        server.wait_for(
            "catalogue: cannot be written \\(pushes are not affected\\): .*full"
        )
        self.assert_empty("g1")
        self.assertIn("Warning: the disk of home is full", self.list_refusals(server))
        filler.unlink()
        self.assert_pushes("last")
        server.wait_for("catalogue: can be written again")
        self.assert_entered()
        self.assertEqual("", self.list_refusals(server))

    def list_refusals(self, server: Server) -> str:
        """The warnings of ``filebucket log --refused``."""
        command = [sys.executable, "-m", "filebucket", "log", "--refused"]
        done = subprocess.run(
            [*command, "--config", str(server.config_file)],
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        return done.stderr.decode()

    def assert_empty(self, name: str) -> None:
        self.assertEqual(200, self.push(name, b""))
        self.assertEqual(200, self.retry(name, b""))

    def test_overwriting_each_other(self) -> None:
        """In the end, the rows match the files."""
        buckets = [{"name": "web01", "token": OTHER, "overwrite": True}]
        self.start(self.make(buckets=buckets))
        statuses: list[int] = []

        def push(own: int) -> None:
            for number in range(20):
                together.wait(PATIENCE)
                statuses.append(self.push(f"f{number}", b"%d" % own))

        together = threading.Barrier(4)
        clients = [threading.Thread(target=push, args=(own,)) for own in range(4)]
        for each in clients:
            each.start()
        for each in clients:
            each.join(PATIENCE)
        self.assertEqual([200] * 80, statuses)
        self.wait_for(lambda: self.ask("SELECT COUNT(*) FROM push") == [(80,)])
        self.assert_entered()

    def test_killed(self) -> None:
        """After a kill, no file that got a 200 is missing."""
        server = self.make()
        self.start(server)
        for number in range(30):
            self.assertEqual(200, self.push(f"f{number}"))
        server.signal(signal.SIGKILL)
        server.stop()
        server.start()
        self.assert_pushes("more")
        self.assert_entered()
        self.assertEqual(200, self.retry("f29"))
        self.assertEqual(405, self.retry("f29", b"CONTENT"))

    def test_stopped_while_it_tells(self) -> None:
        """An alert hook that ends during a stop has delivered its alert, which is not
        sent again."""
        server = self.make()
        # It runs for a moment, as a mailer that has begun would.
        server.hook(
            "alert", "trap 'sleep 1; exit 0' TERM; echo $@ >&2; sleep 60 & wait"
        )
        self.start(server)
        for number in range(3):
            self.assertEqual(200, self.push(f"db-{number}", b"x" * 1000))
        self.assertEqual(200, self.push("db-4", b"x"))
        server.wait_for("web01 db-# fresh shrunk")
        server.signal(signal.SIGTERM)
        server.wait()
        self.assertEqual(
            [("shrunk", "shrunk")], self.ask("SELECT state, told FROM series")
        )
