"""Notify systemd, or another supervisor, of the daemon's state: sd_notify(3).

The protocol is one datagram of ``KEY=value`` lines to the socket in ``NOTIFY_SOCKET``;
if that is not set, nothing is sent. A failure is logged, and never stops the daemon.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.logger import Logger

VARIABLE = "NOTIFY_SOCKET"

PATIENCE = 1.0
"""Seconds that a datagram may wait for space, which blocks the reactor. systemd's
socket queues some hundred of them."""


class Supervisor(Protocol):
    """The process that started the daemon."""

    def ready(self, status: str) -> None:
        """The daemon is ready, after its start.

        :param status: a line for ``systemctl status``
        """

    def reloading(self) -> None:
        """The daemon reloads its configuration; :meth:`reloaded` follows."""

    def reloaded(self, result: str) -> None:
        """The daemon is ready, after a reload.

        :param result: is appended to the line of :meth:`ready`
        """

    def stopping(self, status: str, seconds: float) -> None:
        """The daemon is shutting down.

        :param seconds: the longest that this may take
        """


class NoSupervisor:
    """No supervisor."""

    def ready(self, status: str) -> None:
        pass

    def reloading(self) -> None:
        pass

    def reloaded(self, result: str) -> None:
        pass

    def stopping(self, status: str, seconds: float) -> None:
        pass


class Systemd:
    """systemd, or another supervisor with its protocol."""

    _log = Logger()

    def __init__(
        self,
        address: str,
        send: Callable[[str, bytes], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """
        :param address: the value of ``NOTIFY_SOCKET``
        :param send: sends a datagram there; may raise OSError
        :param clock: returns the system's monotonic time in nanoseconds
        """
        # An abstract name begins with a NUL, which no environment variable can contain.
        self._address = "\0" + address[1:] if address[:1] == "@" else address
        self._send = send
        self._clock = clock
        self._status = ""

    def ready(self, status: str) -> None:
        self._status = status
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        # systemd matches the reload by this time.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._clock() // 1000}")

    def reloaded(self, result: str) -> None:
        self._tell("READY=1", f"STATUS={self._status}; {result}")

    def stopping(self, status: str, seconds: float) -> None:
        # Without this systemd would apply TimeoutStopSec.
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
    """The supervisor that the environment names."""
    address = environ.get(VARIABLE)
    return Systemd(address, send) if address else NoSupervisor()
