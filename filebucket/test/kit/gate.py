"""A TCP proxy that holds a request, or its answer, until the test goes on."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress

from filebucket.test.kit.cutter import Relay, reset
from filebucket.test.kit.server import PATIENCE


class Gate(Relay):
    """Passes bytes on to a port of this machine. One request at a time can be held.

    :ivar held: set when the request, or its answer, has come
    :ivar is_open: whether it accepts connections; otherwise it resets them
    """

    def __init__(self, target: int) -> None:
        """
        :param target: the port
        """
        self.held = threading.Event()
        self.is_open = True
        self._go_on = threading.Event()
        self._wanted: re.Pattern[bytes] | None = None
        self._answer = self._lose = False
        super().__init__(target)

    def hold(self, head: str, answer: bool = False, lose: bool = False) -> None:
        """Hold the next request of this kind.

        :param head: regular expression of the beginning of its head
        :param answer: let it pass, but hold the answer
        :param lose: the answer is lost when it goes on, and so is the connection
        """
        self.held.clear()
        self._go_on.clear()
        self._answer, self._lose = answer, lose
        self._wanted = re.compile(head.encode())

    def wait(self) -> None:
        """Wait until it is held."""
        if not self.held.wait(PATIENCE):
            raise AssertionError("nothing to hold has come")

    def go_on(self) -> None:
        """Let it pass."""
        self._go_on.set()

    def close(self) -> None:
        self.go_on()
        super().close()

    def _connected(self, near: socket.socket) -> None:
        try:
            if not self.is_open:
                raise ConnectionResetError
            far = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
        except OSError:
            reset(near)
            return
        near.settimeout(PATIENCE)
        holding = threading.Event()
        self._pass_on(
            near,
            far,
            lambda *_: self._ask(near, far, holding),
            lambda *_: self._tell(near, far, holding),
        )

    def _ask(
        self, near: socket.socket, far: socket.socket, holding: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if self._takes(data):
                    if self._answer:
                        holding.set()
                    else:
                        self._hold()
                if not self.is_open:
                    reset(near, far)
                    return
                far.sendall(data)
        reset(far, near)

    def _tell(
        self, near: socket.socket, far: socket.socket, holding: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if holding.is_set():
                    holding.clear()
                    self._hold()
                    if self._lose:
                        break
                near.sendall(data)
        reset(near, far)

    def _takes(self, data: bytes) -> bool:
        with self._lock:
            if self._wanted is None or not self._wanted.match(data):
                return False
            self._wanted = None
            return True

    def _hold(self) -> None:
        self.held.set()
        self._go_on.wait(PATIENCE)
