"""sd_notify, over a fake socket."""

from __future__ import annotations

import errno

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.daemon.notify import NoSupervisor, Systemd, supervisor


class SystemdTests(SynchronousTestCase):
    """The messages, and their address."""

    def setUp(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def send(self, address: str, datagram: bytes) -> None:
        self.sent.append((address, datagram))

    def test_messages(self) -> None:
        told = Systemd("/run/notify", self.send, lambda: 1_234_567_890)
        told.ready("ready on 127.0.0.1:1")
        told.reloading()
        told.reloaded("reloaded: 1 bucket")
        told.stopping("stopping", 1.5)
        self.assertEqual(
            [
                b"READY=1\nSTATUS=ready on 127.0.0.1:1",
                b"RELOADING=1\nMONOTONIC_USEC=1234567",
                b"READY=1\nSTATUS=ready on 127.0.0.1:1; reloaded: 1 bucket",
                b"STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=1500000",
            ],
            [datagram for _, datagram in self.sent],
        )
        self.assertEqual({"/run/notify"}, {address for address, _ in self.sent})

    def test_abstract(self) -> None:
        """@ means the NUL of an abstract name."""
        Systemd("@/org/x", self.send).reloading()
        self.assertEqual("\0/org/x", self.sent[0][0])

    def test_cannot_be_told(self) -> None:
        for error, reason in (
            (OSError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
            (TimeoutError("timed out"), "timed out"),
            (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
        ):

            def refuse(address: str, datagram: bytes, error: OSError = error) -> None:
                raise error

            with capturedLogs() as events:
                Systemd("/run/notify", refuse).ready("")
            self.assertEqual(
                [f"cannot notify systemd (READY=1): {reason}"],
                [formatEvent(event) for event in events],
            )

    def test_from_the_environment(self) -> None:
        self.assertIsInstance(supervisor({"NOTIFY_SOCKET": "/x"}), Systemd)
        for environ in ({}, {"NOTIFY_SOCKET": ""}):
            none = supervisor(environ)
            self.assertIsInstance(none, NoSupervisor)
            none.ready("")
            none.reloading()
            none.reloaded("")
            none.stopping("", 1)
