"""The composition of the daemon."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from filebucket.base.errors import ConfigError
from filebucket.catalogue.database import NO_PSYCOPG, CatalogueError
from filebucket.config.load import parse
from filebucket.daemon import compose
from filebucket.daemon.compose import PER_BUCKET, THREADS, expiring, limits_of
from filebucket.http.tls import Certificates
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.daemon import TOKEN, DaemonCase, texts
from filebucket.test.kit.server import OTHER


class CompositionTests(DaemonCase):
    """The parts, put together."""

    def test_warned_at_the_start(self) -> None:
        """The warnings come before the daemon is ready."""
        Path(self.path).write_text('{"home": "home", "buckets": []}')
        with capturedLogs() as events:
            daemon = self.start()
        names = [each["event"] for each in events]
        self.assertLess(names.index("no-buckets"), names.index("ready"))
        self.successResultOf(daemon.stopService())

    def test_no_driver(self) -> None:
        """The library for the catalogue's database is missing."""
        catalogue = {"postgresql": "host=db password=secret"}
        keys = {"home": "home", "buckets": [], "catalogue": catalogue}
        Path(self.path).write_text(json.dumps(keys))

        def missing() -> None:
            raise CatalogueError(NO_PSYCOPG)

        self.patch(compose, "load_driver", missing)
        with self.assertRaises(ConfigError) as raised:
            self.make()
        self.assertEqual([f"$.catalogue: {NO_PSYCOPG}"], [*raised.exception.mistakes])

    def test_certificate(self) -> None:
        """A certificate is named for people, not by the paths in its endpoint."""
        folder = Path(self.mktemp())
        folder.mkdir()
        write_pair(folder)
        paths = {"privateKey": folder / "key.pem", "certKey": folder / "cert.pem"}
        used = Certificates("ssl:1:key.pem", {k: str(v) for k, v in paths.items()})
        soon = used.expires.timestamp() - 86400
        found = Deferred.fromCoroutine(expiring([used], lambda: soon))
        problem = self.successResultOf(found)
        assert problem is not None
        self.assertIn("the certificate of CN=server expires on", problem.text)

    def test_reload_and_listen(self) -> None:
        """A changed listener needs a restart; its certificates are not read before."""
        daemon = self.start()
        self.listen("ssl:1:gone.pem")
        with capturedLogs() as events:
            os.kill(os.getpid(), signal.SIGUSR2)
        self.assertIn("a restart is needed to apply: listen", texts(events)[-1])
        self.successResultOf(daemon.stopService())

    def test_page(self) -> None:
        """The drop page is there only if the configuration says so; a change needs a
        restart.
        """
        keys = {"home": "home", "host": "127.0.0.1", "buckets": [TOKEN]}
        for value, status in ((None, b"403"), (False, b"403"), (True, b"200")):
            given = keys if value is None else {**keys, "page": value}
            Path(self.path).write_text(json.dumps(given))
            self.reactor.tcpServers.clear()
            daemon = self.start()
            self.assertEqual(status, self.ask_for_page())
            Path(self.path).write_text(json.dumps({**keys, "page": not value}))
            with capturedLogs() as events:
                os.kill(os.getpid(), signal.SIGUSR2)
            self.assertIn("a restart is needed to apply: page", texts(events)[-1])
            self.assertEqual(status, self.ask_for_page())
            self.successResultOf(daemon.stopService())

    def ask_for_page(self) -> bytes:
        """The status of a request for the page."""
        channel, wire = self.connect()
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        channel.connectionLost()
        status: bytes = wire.value().split()[1]
        return status

    def test_a_disk_that_hangs(self) -> None:
        """A disk that hangs under one bucket leaves threads to the others, and one to
        the reload.
        """
        other = {"name": "web01", "token": OTHER}
        keys = {"home": "home", "host": "127.0.0.1", "buckets": [TOKEN, other]}
        Path(self.path).write_text(json.dumps(keys))
        daemon = self.start()
        self.threads.hangs = True
        wires = [self.begin(f"{number}") for number in range(40)]
        for channel, _ in wires:
            channel.dataReceived(b"c")
        self.turn()
        # Small files share a call.
        self.assertEqual(1, self.threads.waiting)
        wires += [self.begin(f"large-{number}", 100_000) for number in range(40)]
        self.assertEqual(PER_BUCKET, self.threads.waiting)
        self.assertLess(3 * PER_BUCKET, THREADS)
        self.threads.hangs = False
        wire = self.push(OTHER, "name")
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 200 "), wire.value())
        self.assertEqual([], self.stored())
        keys["buckets"] = [other]
        Path(self.path).write_text(json.dumps(keys))
        self.threads.hangs = True
        with capturedLogs() as events:
            os.kill(os.getpid(), signal.SIGUSR2)
        self.assertIn("reload", [each["event"] for each in events])
        self.threads.go_on()
        self.assertEqual(40, len(self.stored()))
        for channel, _ in wires:
            channel.connectionLost()
        self.successResultOf(daemon.stopService())

    def test_limits(self) -> None:
        """Each limit comes from its key."""
        times = {"idle_timeout": 11, "header_timeout": 12, "body_timeout": 13}
        keys = {"home": "home", "buckets": [TOKEN], "min_rate": 14, **times}
        config = parse(json.dumps(keys), self.path)
        limits = limits_of(config, 15)
        self.assertEqual(
            (11, 12, 13, 14, 15),
            (
                limits.idle,
                limits.headers,
                limits.rate_window,
                limits.rate,
                limits.connections,
            ),
        )
