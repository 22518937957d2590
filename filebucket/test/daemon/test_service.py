"""The daemon's start and stop, over a fake reactor."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import fail
from twisted.internet.error import CannotListenError
from twisted.logger import capturedLogs

from filebucket.admin.site import AdminSite
from filebucket.config.config import Config, Listen
from filebucket.config.endpoint import tcp
from filebucket.config.load import parse
from filebucket.config.values import DurationOrOff
from filebucket.daemon.service import ANSWER_TIMEOUT, Daemon
from filebucket.hooks.process import END_TIMEOUT
from filebucket.http.site import StreamingSite
from filebucket.http.tls import LOOK_EVERY
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.daemon import TOKEN, DaemonCase, texts
from filebucket.test.kit.wire import Wire


class LifeTests(DaemonCase):
    """Start and stop."""

    def test_serves(self) -> None:
        with capturedLogs() as events:
            daemon = self.start()
        port, _, _, interface = self.reactor.tcpServers[0]
        self.assertEqual((1234, "127.0.0.1"), (port, interface))
        self.assertIn("(atomic publish: ", "\n".join(texts(events)))
        channel, wire = self.connect()
        with capturedLogs() as events:
            channel.dataReceived(
                b"PUT /%b/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
                % TOKEN.encode()
            )
            self.turn()
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 200 OK\r\n"), wire.value())
        self.assertEqual(b"abc", (self.folder / "home" / TOKEN / "x").read_bytes())
        (line,) = texts(events)
        self.assertTrue(line.startswith("push bucket=#"), line)
        stopped = daemon.stopService()
        self.assertTrue(wire.disconnecting)
        self.assertNoResult(stopped)
        channel.connectionLost()
        self.successResultOf(stopped)

    def admin(self) -> Config:
        """The configuration with an admin listener."""
        keys = {"home": "home", "port": 1, "buckets": [TOKEN]}
        return parse(json.dumps({**keys, "admin": "tcp:2:127.0.0.1"}), self.path)

    def test_admin(self) -> None:
        """The admin listener stays open until the end."""
        daemon = self.make_from(self.admin())
        daemon.privilegedStartService()
        self.assertEqual([1, 2], [each[0] for each in self.reactor.tcpServers])
        pushes, watchers = (each[1] for each in self.reactor.tcpServers)
        self.assertIsInstance(pushes, StreamingSite)
        self.assertIsInstance(watchers, AdminSite)
        with capturedLogs() as events:
            daemon.startService()
        self.assertIn("; hooks: none; admin: 0.0.0.0:2", "".join(texts(events)))
        closed = [self.closed(daemon), self.closed(daemon, daemon._admin_ports)]
        pusher, _ = self.begin("x")
        wire = Wire()
        watcher: Any = watchers.buildProtocol(wire.getPeer())
        watcher.makeConnection(wire)
        stopped = daemon.stopService()
        self.assertEqual([[0], []], closed)
        watcher.dataReceived(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.end(pusher)
        pusher.connectionLost()
        # A monitoring client does not keep it from ending.
        self.successResultOf(stopped)
        self.assertEqual([[0], [0]], closed)
        self.assertTrue(wire.disconnected)
        watcher.connectionLost()

    def test_metrics(self) -> None:
        daemon = self.make_from(self.admin())
        daemon.privilegedStartService()
        daemon.startService()
        (self.folder / "post-push.sh").write_text("#!/bin/sh")
        pusher, _ = self.begin("x")
        self.end(pusher)
        pusher.dataReceived(b"nonsense\r\n")
        pusher.connectionLost()
        Path(self.path).write_text("nonsense")
        os.kill(os.getpid(), signal.SIGUSR2)
        wire = Wire()
        watcher: Any = self.reactor.tcpServers[1][1].buildProtocol(wire.getPeer())
        watcher.makeConnection(wire)
        watcher.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = wire.value()
        self.assertNotIn(TOKEN.encode(), answer)
        label = self.admin().buckets[0].label.encode()
        for line in (
            b'filebucket_received_bytes_total{bucket="%b"} 3.0',
            b'filebucket_refusals_total{status="400"} 1.0',
            b'filebucket_hook_runs_total{exit="broken",hook="post-push"} 1.0',
            b"filebucket_config_last_reload_successful 0.0",
            b"filebucket_pushes_in_flight 0.0",
        ):
            self.assertIn(b"\n%b\n" % line.replace(b"%b", label), answer)
        wire.clear()
        watcher.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertNotIn(b"starting or stopping", wire.value())
        pusher, _ = self.begin("y")
        stopped = daemon.stopService()
        wire.clear()
        watcher.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertIn(b"the daemon is starting or stopping\n", wire.value())
        self.end(pusher)
        pusher.connectionLost()
        self.successResultOf(stopped)
        watcher.connectionLost()

    def test_no_admin(self) -> None:
        with capturedLogs() as events:
            daemon = self.start()
        self.assertEqual(1, len(self.reactor.tcpServers))
        self.assertIn("; admin: none", "".join(texts(events)))
        self.successResultOf(daemon.stopService())

    def test_ipv6(self) -> None:
        config = evolve(self.config(), listen=Listen((tcp("::1", 1234),)))
        self.make_from(config).privilegedStartService()
        self.assertEqual("::1", self.reactor.tcpServers[0][3])

    def test_tls_and_proxies(self) -> None:
        write_pair(self.folder)
        self.listen(
            "ssl:1:key.pem:cert.pem",
            "haproxy:tcp:2",
            "haproxy:ssl:3:key.pem:cert.pem:interface=127.0.0.1",
        )
        with capturedLogs() as events:
            daemon = self.start()
        lines = "\n".join(texts(events))
        self.assertIn(
            "ready on 0.0.0.0:1 with TLS, 0.0.0.0:2 with PROXY header,"
            " 0.0.0.0:3 with PROXY header and TLS: home",
            lines,
        )
        warning = "any client can forge its address in a PROXY header"
        self.assertEqual(1, lines.count(warning))
        self.assertIn(f"haproxy:tcp:2: {warning}", lines)
        # Let the log's date advance, and the certificates be examined.
        write_pair(self.folder)
        with capturedLogs() as events:
            self.reactor.pump([LOOK_EVERY] * 2)
        self.assertEqual(2, "".join(texts(events)).count("new certificate loaded"))
        self.successResultOf(daemon.stopService())

    def test_malformed_request_is_logged(self) -> None:
        daemon = self.start()
        channel, _ = self.connect()
        with capturedLogs() as events:
            channel.dataReceived(b"nonsense\r\n")
        (line,) = texts(events)
        self.assertRegex(line, r"refused bucket=- name=- .* status=400 .*'malformed")
        channel.connectionLost()
        self.successResultOf(daemon.stopService())

    def test_reload(self) -> None:
        daemon = self.start()
        Path(self.path).write_text('{"home": "home", "buckets": []}')
        with capturedLogs() as events:
            os.kill(os.getpid(), signal.SIGUSR2)
        self.assertIn("no buckets are configured", texts(events)[0])
        self.assertIn("0 buckets (0 tokens added, 1 removed)", texts(events)[1])
        self.successResultOf(daemon.stopService())

    def test_stop_waits(self) -> None:
        """A push in progress gets its time, and no more; its client is answered."""
        daemon = self.start()
        channel, wire = self.begin("x")
        stopped = daemon.stopService()
        self.reactor.advance(29)
        self.assertNoResult(stopped)
        self.assertEqual(b"", wire.value())
        self.reactor.advance(1)
        self.assert_stopping(wire)
        self.assertNoResult(stopped)
        channel.connectionLost()
        self.successResultOf(stopped)
        self.assertEqual([], self.stored())

    def test_stop_later(self) -> None:
        """For a while the daemon accepts pushes, but reports that it stops."""
        config = evolve(self.admin(), shutdown_delay=DurationOrOff(5.0))
        daemon = self.make_from(config)
        daemon.privilegedStartService()
        daemon.startService()
        closed = self.closed(daemon)
        wire = Wire()
        watcher: Any = self.reactor.tcpServers[1][1].buildProtocol(wire.getPeer())
        watcher.makeConnection(wire)
        stopped = daemon.stopService()
        watcher.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 503 "), wire.value())
        self.reactor.advance(4)
        self.assertEqual([], closed)
        self.assertIn(b" 200 OK\r\n", self.push(TOKEN, "x").value())
        channel, late = self.begin("y")
        self.reactor.advance(1)
        self.assertEqual([0], closed)
        # The push that has begun has its whole time.
        self.reactor.advance(29)
        self.end(channel)
        self.assertIn(b" 200 OK\r\n", late.value())
        channel.connectionLost()
        self.successResultOf(stopped)
        watcher.connectionLost()
        self.assertEqual(["x", "y"], self.stored())

    def test_stop_and_a_slow_disk(self) -> None:
        """Files that wait for the disk are stored, and the daemon stops after that."""
        daemon = self.start()
        self.threads.hangs = True
        pushes = [self.begin(name) for name in "xyz"]
        for channel, _ in pushes[:2]:
            self.end(channel)
        # The first call has taken none of them yet; the second one takes the last file.
        self.assertEqual(1, self.threads.waiting)
        stopped = daemon.stopService()
        self.assertNoResult(stopped)
        self.threads.step()
        self.end(pushes[2][0])
        self.assertNoResult(stopped)
        self.threads.go_on()
        for channel, wire in pushes:
            self.assertIn(b" 200 OK\r\n", wire.value())
            channel.connectionLost()
        self.successResultOf(stopped)
        self.assertEqual(["x", "y", "z"], self.stored())

    def test_stop_and_a_push_that_ends(self) -> None:
        daemon = self.start()
        channel, wire = self.begin("x")
        stopped = daemon.stopService()
        self.reactor.advance(29)
        self.end(channel)
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 200 OK\r\n"), wire.value())
        channel.connectionLost()
        self.successResultOf(stopped)
        self.assertEqual(["x"], self.stored())

    def test_stop_in_the_headers(self) -> None:
        daemon = self.start()
        channel, wire = self.connect()
        channel.dataReceived(b"PUT /%b/x HTTP/1.1\r\nHost: h\r\n" % TOKEN.encode())
        stopped = daemon.stopService()
        self.assert_stopping(wire)
        channel.dataReceived(b"Content-Length: 0\r\n\r\n")
        self.assertNoResult(stopped)
        channel.connectionLost()
        self.successResultOf(stopped)
        self.assertEqual([], self.stored())

    def test_stop_and_a_push_that_begins(self) -> None:
        """A push that begins while others go on gets the same time."""
        daemon = self.start()
        first, _ = self.begin("x")
        late = [self.connect() for _ in range(2)]
        for channel, _ in late:
            channel.dataReceived(b"PUT /%b/y HTTP/1.1\r\nHost: h\r\n" % TOKEN.encode())
        stopped = daemon.stopService()
        self.reactor.advance(29)
        for channel, _ in late:
            channel.dataReceived(b"Content-Length: 2\r\n\r\ny")
        self.end(first)
        first.connectionLost()
        self.end(late[0][0])
        self.assertIn(b" 200 OK\r\n", late[0][1].value())
        self.reactor.advance(1)
        self.assert_stopping(late[1][1])
        for channel, _ in late:
            channel.connectionLost()
        self.successResultOf(stopped)
        self.assertEqual(["x", "y"], self.stored())

    def test_stop_and_a_client_that_still_sends(self) -> None:
        daemon = self.start()
        channel, wire = self.begin("x")
        stopped = daemon.stopService()
        self.reactor.advance(30)
        for _ in range(int(ANSWER_TIMEOUT)):
            channel.dataReceived(b"more")
            self.assert_stopping(wire)
            self.reactor.advance(1)
        self.assertTrue(wire.disconnected)
        self.successResultOf(stopped)
        channel.connectionLost()

    def test_stop_and_a_disk_that_hangs(self) -> None:
        """A push that does not end is not waited for, and keeps the home locked."""
        daemon = self.start()
        channel, wire = self.begin("x")
        self.threads.hangs = True
        self.end(channel)
        stopped = daemon.stopService()
        with capturedLogs() as events:
            self.reactor.advance(30)
            self.reactor.advance(END_TIMEOUT)
            self.assertFalse(wire.disconnected)
            self.reactor.advance(ANSWER_TIMEOUT)
            self.assertTrue(wire.disconnected)
            channel.connectionLost()
            self.assertNoResult(stopped)
            self.reactor.advance(END_TIMEOUT)
        self.successResultOf(stopped)
        self.assertIn("exiting with pushes that are stuck", texts(events)[-1])
        another = self.make()
        with capturedLogs() as events:
            self.assertRaises(SystemExit, another.startService)
        self.assertIn("another file-bucket", texts(events)[-1])
        another._store.close()
        self.threads.go_on()
        self.assertEqual(["x"], self.stored())
        daemon._store.close()

    def test_stop_and_a_client_that_does_not_read(self) -> None:
        daemon = self.start()
        channel, wire = self.connect()
        channel.dataReceived(b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        stopped = daemon.stopService()
        self.reactor.advance(ANSWER_TIMEOUT)
        self.assertTrue(wire.disconnected)
        self.successResultOf(stopped)
        channel.connectionLost()

    def test_stop_before_start(self) -> None:
        daemon = self.make()
        daemon.startService()
        self.successResultOf(daemon.stopService())

    def test_listens_on_all(self) -> None:
        write_pair(self.folder)
        self.listen("tcp:1:127.0.0.1", "ssl:2:key.pem:cert.pem", "unix:x.sock")
        with capturedLogs() as events:
            daemon = self.start()
        ready = texts(events)[-1]
        where = rf"ready on .*:1, .*:2 with TLS, unix:{self.folder}/x.sock: home "
        self.assertRegex(ready, where)
        for site in (
            self.reactor.tcpServers[0][1],
            self.reactor.sslServers[0][1],
            self.reactor.unixServers[0][1],
        ):
            self.assertIsInstance(site, StreamingSite)
        closed = self.closed(daemon)
        self.successResultOf(daemon.stopService())
        self.assertEqual([0, 1, 2], closed)

    def closed(self, daemon: Daemon, ports: Any = None) -> list[int]:
        """Record which of the daemon's ports, or of these, were closed."""
        closed: list[int] = []
        for number, (_, port) in enumerate(daemon._ports if ports is None else ports):
            self.patch(port, "stopListening", partial(closed.append, number))
        return closed

    def test_cannot_close(self) -> None:
        self.listen("unix:x.sock", "tcp:1")
        daemon = self.start()
        closed = self.closed(daemon)

        def gone() -> None:
            raise FileNotFoundError(2, "No such file", "x.sock")

        self.patch(daemon._ports[0][1], "stopListening", gone)
        with capturedLogs() as events:
            self.successResultOf(daemon.stopService())
        self.assertEqual([1], closed)
        self.assertIn("x.sock", texts(events)[0])

    def test_all_or_none(self) -> None:
        self.listen("tcp:1", "tcp:2:127.0.0.1", "tcp:3")
        daemon = self.make()
        listen = self.reactor.listenTCP
        opened: list[int] = []
        closed: list[list[int]] = []

        def listen_tcp(port: int, *args: Any, **kwargs: Any) -> Any:
            opened.append(port)
            if port == 2:
                closed.append(self.closed(daemon))
                raise CannotListenError("127.0.0.1", 2, OSError(98, "In use"))
            return listen(port, *args, **kwargs)

        self.patch(self.reactor, "listenTCP", listen_tcp)
        with capturedLogs() as events:
            status = self.assertRaises(SystemExit, daemon.privilegedStartService)
        self.assertEqual(1, status.code)
        self.assertEqual(
            ["file-bucket: cannot listen on tcp:2:127.0.0.1: In use"], texts(events)
        )
        self.assertEqual(([1, 2], [[0]]), (opened, closed))
        self.assertEqual(1, self.reactor.iterated)

    def test_closed_where_the_home_cannot_be_used(self) -> None:
        (self.folder / "home").write_text("a file")
        daemon = self.make()
        daemon.privilegedStartService()
        closed = self.closed(daemon)
        self.assertRaises(SystemExit, daemon.startService)
        self.assertEqual([0], closed)

    def test_neither_opened_nor_closed(self) -> None:
        (self.folder / "home").write_text("a file")
        daemon = self.make()
        daemon.privilegedStartService()
        error = PermissionError(13, "Permission denied", "x.sock")
        self.patch(daemon._ports[0][1], "stopListening", lambda: fail(error))
        with capturedLogs() as events:
            self.assertRaises(SystemExit, daemon.startService)
        closing, why = texts(events)
        self.assertIn("cannot close a listener: [Errno 13]", closing)
        self.assertIn("cannot be used as home", why)

    def test_cannot_listen_reasons(self) -> None:
        self.listen("unix:x.sock")
        for raised, reason in (
            (CannotListenError(None, b"x", OSError(98, "In use")), "In use"),
            (CannotListenError(None, b"x", "Cannot acquire lock"), "Cannot acquire"),
            (CannotListenError(None, b"x", OSError("too long")), "too long"),
            (PermissionError(13, "Permission denied", "x"), "Permission denied"),
        ):

            def listen(*args: Any, error: Exception = raised, **kwargs: Any) -> Any:
                raise error

            self.patch(self.reactor, "listenUNIX", listen)
            with capturedLogs() as events:
                self.assertRaises(SystemExit, self.make().privilegedStartService)
            start = f"file-bucket: cannot listen on unix:x.sock: {reason}"
            (line,) = texts(events)
            self.assertEqual(start, line[: len(start)])

    def test_cannot_listen(self) -> None:
        for raised, expected in (
            (CannotListenError("1.2.3.4", 80, OSError(98, "In use")), SystemExit),
            (CannotListenError("", 80, OSError(98, "In use")), SystemExit),
            (RuntimeError("a bug"), RuntimeError),
        ):

            def listen(*args: Any, error: Exception = raised, **kwargs: Any) -> Any:
                raise error

            self.patch(self.reactor, "listenTCP", listen)
            with capturedLogs() as events:
                self.assertRaises(expected, self.make().privilegedStartService)
            if expected is SystemExit:
                self.assertIn("127.0.0.1, port 1234: In use", texts(events)[0])

    def test_cannot_use_home(self) -> None:
        (self.folder / "home").write_text("a file")
        with capturedLogs() as events:
            self.assertRaises(SystemExit, self.make().startService)
        self.assertIn("cannot be used as home", texts(events)[0])
