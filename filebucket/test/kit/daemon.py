"""The daemon over a fake reactor."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.threads import Threads
from filebucket.config.config import Config
from filebucket.config.load import parse
from filebucket.daemon import compose
from filebucket.daemon.applied import identity
from filebucket.daemon.service import Daemon
from filebucket.http.channel import StreamingChannel
from filebucket.test.kit.fakes import AtOnce
from filebucket.test.kit.wire import Wire

TOKEN = "0123456789abcdef0123456789abcdef"


class Reactor(MemoryReactorClock):
    """Runs everything in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.iterated = 0

    def iterate(self, delay: float = 0) -> None:
        self.iterated += 1

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)


def texts(events: Sequence[Any]) -> list[str]:
    """The messages of these events."""
    return [formatEvent(event) for event in events]


class DaemonCase(SynchronousTestCase):
    """Has a daemon over a folder of its own.

    :ivar clock_set: seconds by which the system's clock was set forward
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.reactor = Reactor()
        self.clock_set = 0.0
        self.threads = AtOnce(self.reactor)
        self.path = str(self.folder / "config.json")
        Path(self.path).write_text(
            f'{{"home": "home", "host": "127.0.0.1", "buckets": ["{TOKEN}"]}}'
        )
        self.addCleanup(signal.signal, signal.SIGUSR2, signal.getsignal(signal.SIGUSR2))

    def pool(self, most: int) -> Threads:
        """The pool that may hang, or one for the catalogue, which does not."""
        return self.threads if most > 1 else AtOnce(self.reactor)

    def listen(self, *endpoints: str) -> None:
        """Use these listeners instead."""
        keys = {"home": "home", "listen": endpoints, "buckets": [TOKEN]}
        Path(self.path).write_text(json.dumps(keys))

    def config(self) -> Config:
        return parse(Path(self.path).read_text(), self.path)

    def make(self) -> Daemon:
        return self.make_from(self.config())

    def make_from(self, config: Config) -> Daemon:
        return compose.make_daemon(
            self.reactor,
            self.pool,
            config,
            self.path,
            os.environ,
            100,
            lambda: self.reactor.seconds() + self.clock_set,
            identity(Path(self.path).read_text()),
        )

    def start(self) -> Daemon:
        daemon = self.make()
        daemon.privilegedStartService()
        daemon.startService()
        return daemon

    def connect(self) -> tuple[StreamingChannel, Wire]:
        """A connection to the daemon's port."""
        site: Any = self.reactor.tcpServers[0][1]
        wire = Wire()
        channel = site.buildProtocol(wire.getPeer())
        channel.makeConnection(wire)
        return channel, wire

    def push(self, token: str, name: str) -> Wire:
        """Push three bytes, and return the answer."""
        channel, wire = self.connect()
        head = f"PUT /{token}/{name} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
        channel.dataReceived(head.encode() + b"abc")
        self.turn()
        channel.connectionLost()
        return wire

    def turn(self) -> None:
        """The next turn of the reactor: files that came in this one are stored."""
        self.reactor.advance(0)

    def begin(self, name: str, length: int = 3) -> tuple[StreamingChannel, Wire]:
        """Begin a push of three bytes or more, and send two of them."""
        channel, wire = self.connect()
        channel.dataReceived(
            b"PUT /%b/%b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\nab"
            % (TOKEN.encode(), name.encode(), length)
        )
        return channel, wire

    def end(self, channel: StreamingChannel) -> None:
        """Send the last byte of a push."""
        channel.dataReceived(b"c")
        self.turn()

    def assert_stopping(self, wire: Wire) -> None:
        """The client got its answer and can read it."""
        head, _, content = wire.value().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 503 "), head)
        self.assertIn(b"\r\nRetry-After: 60\r\n", head)
        self.assertEqual(b"the server is shutting down\n", content)
        self.assertTrue(wire.half_closed)
        self.assertFalse(wire.disconnected)

    def stored(self) -> list[str]:
        """The names of the bucket's files."""
        folder = self.folder / "home" / TOKEN
        return sorted(os.listdir(folder)) if folder.exists() else []
