"""sd_notify over real sockets, and from the real daemon."""

from __future__ import annotations

import re
import signal
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.daemon import notify
from filebucket.daemon.notify import Systemd, send
from filebucket.test.kit.server import OTHER, PATIENCE, Server


class Listener:
    """systemd's end of the protocol.

    :ivar variable: the value for ``NOTIFY_SOCKET``
    """

    def __init__(self, abstract: bool) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        # Not in the working directory, whose path may be too long for a socket.
        path = f"{self._folder.name}/notify"
        self.socket.bind(f"\0{path}" if abstract else path)
        self.variable = f"@{path}" if abstract else path

    def close(self) -> None:
        self.socket.close()
        self._folder.cleanup()

    def lines(self) -> list[str]:
        """The lines of the next datagram."""
        return self.socket.recv(65536).decode().split("\n")


class RealTests(SynchronousTestCase):
    def listener(self, abstract: bool = False) -> Listener:
        listener = Listener(abstract)
        self.addCleanup(listener.close)
        return listener

    def test_sockets(self) -> None:
        """In the filesystem, and abstract."""
        for abstract in (False, True):
            listener = self.listener(abstract)
            Systemd(listener.variable, send).ready("well")
            self.assertEqual(["READY=1", "STATUS=well"], listener.lines())

    def test_gone(self) -> None:
        """A missing socket is an error that can be logged."""
        listener = self.listener()
        listener.close()
        self.assertRaises(OSError, send, listener.variable, b"READY=1")

    def test_no_room(self) -> None:
        """A full socket blocks only for a short time."""
        listener = self.listener()
        self.patch(notify, "PATIENCE", 0.01)

        def fill() -> None:
            for _ in range(100_000):
                send(listener.variable, b"x" * 1024)

        self.assertRaises(TimeoutError, fill)

    def test_daemon(self) -> None:
        """From start to end; hooks do not get the variable."""
        listener = self.listener()
        shutdown_timeout = 40
        folder = Path(self.mktemp()).absolute()
        server = Server(folder, shutdown_timeout=shutdown_timeout)
        server.hook("pre-push", 'echo "socket: ${NOTIFY_SOCKET-none}" >&2')
        server.start(environ={"NOTIFY_SOCKET": listener.variable})
        self.addCleanup(server.stop)
        self.assertEqual(
            ["READY=1", f"STATUS=ready on 127.0.0.1:{server.port}"], listener.lines()
        )
        # By now the signal must be harmless.
        server.signal(signal.SIGUSR2)
        reloading, time = listener.lines()
        self.assertEqual("RELOADING=1", reloading)
        self.assertRegex(time, r"^MONOTONIC_USEC=\d+$")
        where = f"STATUS=ready on 127.0.0.1:{server.port}; "
        result = "reloaded: 2 buckets (0 tokens added, 0 removed)"
        self.assertEqual(["READY=1", f"{where}{result}"], listener.lines())
        server.config_file.write_text("{")
        server.signal(signal.SIGUSR2)
        self.assertEqual("RELOADING=1", listener.lines()[0])
        ready, status = listener.lines()
        self.assertEqual("READY=1", ready)
        failed = "reload failed, nothing changed; see the log"
        self.assertEqual(f"{where}{failed}", status)
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(
                b"PUT /%b/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"
                % OTHER.encode()
            )
            server.wait_for("stderr: socket: none")
            server.signal(signal.SIGTERM)
            stopping, status, lasts = listener.lines()
            client.sendall(b"x")
        self.assertEqual("STOPPING=1", stopping)
        self.assertEqual("STATUS=shutting down; pushes in progress: 1", status)
        seconds = int(re.sub(r"^EXTEND_TIMEOUT_USEC=", "", lasts)) / 1e6
        self.assertGreater(seconds, shutdown_timeout)
