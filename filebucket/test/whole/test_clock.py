"""The real daemon while the system's clock is set, or seems so to Python."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filebucket.test.kit.integration import IntegrationCase, put_head
from filebucket.test.kit.server import OTHER, TOKEN, Server, comes

# Python loads it before anything reads the clock.
CUSTOMIZE = """
import time
from pathlib import Path

right, set = time.time, Path(__file__).with_name("set")
time.time = lambda: right() + float(set.read_text())
"""

DAY = 24 * 3600.0


class ClockTests(IntegrationCase):
    """Timeouts do not depend on the clock; receipts and expiry do."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Path(self.mktemp()).absolute()
        self.clock.mkdir()
        (self.clock / "sitecustomize.py").write_text(CUSTOMIZE)
        self.set_clock(0)

    def set_clock(self, seconds: float) -> None:
        """Set the clock off by a number of seconds."""
        new = self.clock / "new"
        new.write_text(str(seconds))
        new.replace(self.clock / "set")

    def start(self) -> Server:
        server = Server(
            Path(self.mktemp()).absolute(),
            idle_timeout=2,
            buckets=[
                {
                    "name": "web01",
                    "tokens": [
                        {"token": TOKEN},
                        {
                            "token": OTHER,
                            "expires": (datetime.now(UTC) + timedelta(days=2)).strftime(
                                "%Y-%m-%dT%H:%M:%SZ"
                            ),
                        },
                    ],
                }
            ],
        )
        server.hook("pre-push", '[ "$2" = x ] || exit 0; touch asked; read _ <go')
        server.start(environ={"PYTHONPATH": str(self.clock)})
        self.addCleanup(server.stop)
        return server

    def push(self, server: Server, name: str, token: str = TOKEN) -> int:
        client = self.client(server)
        client.send(put_head(name, 1, token), b"x")
        return client.answer()[0]

    def test_forwards(self) -> None:
        """It ends no hook and no push."""
        server = self.start()
        self.assertEqual(200, self.push(server, "before"))
        client = self.client(server)
        client.begin("body", 2)
        client.send(b"x")
        os.mkfifo(server.folder / "go")
        asking = self.client(server)
        asking.send(put_head("x", 1), b"x")
        self.assertTrue(comes((server.folder / "asked").exists))
        self.set_clock(DAY)
        self.assertEqual(200, self.push(server, "after", OTHER))
        client.send(b"x")
        self.assertEqual(200, client.answer()[0])
        (server.folder / "go").write_text("on\n")
        self.assertEqual(200, asking.answer()[0])
        self.set_clock(3 * DAY)
        self.assertEqual(403, self.push(server, "expired", OTHER))
        self.assertEqual(200, self.push(server, "good"))

    def test_backwards(self) -> None:
        """It delays no timeout."""
        server = self.start()
        client = self.client(server)
        client.send(put_head("before", 1), b"x")
        self.assertEqual(200, client.answer()[0])
        self.set_clock(-DAY)
        began = time.monotonic()
        self.assertEqual(200, self.push(server, "after"))
        self.assertEqual(b"", client.socket.recv(1))
        self.assertLess(time.monotonic() - began, 30)
