"""Tells who started the daemon, such as systemd, what it is about: sd_notify(3).

The whole protocol is a datagram of ``KEY=value`` lines to the socket that
``NOTIFY_SOCKET`` names. Where there is none, nobody wants to know.

This must never keep the daemon from its work: who cannot be told is not told, the
log says so, and that is all.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.logger import Logger

VARIABLE = "NOTIFY_SOCKET"

PATIENCE = 1.0
"""Seconds that a datagram may wait for room, and the reactor with it. systemd's
socket holds some hundred of them."""


class Supervisor(Protocol):
    """Whoever started the daemon."""

    def ready(self, status: str) -> None:
        """It does what it was started, or told, to do.

        :param status: a line for whoever asks how it is
        """

    def reloading(self) -> None:
        """It reads its configuration again; :meth:`ready` follows."""

    def stopping(self, status: str, seconds: float) -> None:
        """It is about to end.

        :param seconds: that it may take, at most
        """


class Nobody:
    """The supervisor of a daemon that has none."""

    def ready(self, status: str) -> None:
        pass

    def reloading(self) -> None:
        pass

    def stopping(self, status: str, seconds: float) -> None:
        pass


class Systemd:
    """systemd, or whatever else knows its protocol."""

    _log = Logger()

    def __init__(
        self,
        address: str,
        send: Callable[[str, bytes], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """
        :param address: as ``NOTIFY_SOCKET`` has it
        :param send: sends a datagram there; may raise OSError
        :param clock: the system's monotonic clock, in nanoseconds
        """
        # An abstract name begins with a NUL, which no variable can hold.
        self._address = "\0" + address[1:] if address[:1] == "@" else address
        self._send = send
        self._clock = clock

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        # By the time systemd tells this reload from one before it.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._clock() // 1000}")

    def stopping(self, status: str, seconds: float) -> None:
        # Or systemd would end what is allowed to last longer than TimeoutStopSec.
        lasts = f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"
        self._tell("STOPPING=1", f"STATUS={status}", lasts)

    def _tell(self, *lines: str) -> None:
        try:
            self._send(self._address, "\n".join(lines).encode())
        except OSError as error:
            self._log.warn(
                "cannot notify systemd ({what}): {error}",
                event="supervisor",
                what=lines[0],
                error=error.strerror or error,
            )


def send(address: str, datagram: bytes) -> None:
    """Send ``datagram`` to a UNIX socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(PATIENCE)
        sender.sendto(datagram, address)


def supervisor(environ: Mapping[str, str]) -> Supervisor:
    """Whom the environment names."""
    address = environ.get(VARIABLE)
    return Systemd(address, send) if address else Nobody()
