"""TCP proxies that cut connections."""

from __future__ import annotations

import re
import socket
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from filebucket.test.kit.server import PATIENCE

_RESET = b"\1\0\0\0\0\0\0\0"


def reset(*ends: socket.socket) -> None:
    """Reset connections, which may be closed already."""
    for each in ends:
        with suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # Not only closed: another thread may still read from it.
            each.shutdown(socket.SHUT_RDWR)
        each.close()


class Relay:
    """Accepts connections for a port of this machine.

    :ivar port: where it listens
    """

    def __init__(self, target: int) -> None:
        """
        :param target: the port
        """
        self._target = target
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._socket.getsockname()[1]
        self._start(self._accept)

    def close(self) -> None:
        """Accept no more connections, and reset those that are open."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        # No connection comes after this.
        self._threads[0].join(PATIENCE)
        self._socket.close()
        for near, far in self._pairs:
            reset(far, near)
        for thread in self._threads[1:]:
            thread.join(PATIENCE)

    def _start(self, work: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _pass_on(
        self,
        near: socket.socket,
        far: socket.socket,
        *works: Callable[[socket.socket, socket.socket], object],
    ) -> None:
        """Call each with both ends of a connection, in a thread of its own."""
        with self._lock:
            self._pairs.append((near, far))
        for work in works:
            self._start(work, near, far)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._connected(self._socket.accept()[0])

    def _connected(self, near: socket.socket) -> None:
        """Serve a client. An OSError ends the relay."""
        raise NotImplementedError


class Cutter(Relay):
    """Passes bytes on to a port of this machine, and cuts some connections.

    :ivar cuts: number of connections that it has cut
    :ivar passed: bytes that clients have sent
    """

    def __init__(
        self,
        target: int,
        offsets: Sequence[int],
        between: Callable[[int], object] = lambda _: None,
        lose: bytes = b"",
        keep: int = 0,
    ) -> None:
        """
        :param target: the port
        :param offsets: after how many bytes from clients a connection is cut, counted
            from the last cut; then none is
        :param between: called at each cut with its ordinal; meanwhile clients that
            connect must wait
        :param lose: the beginning of an answer; the first one of that kind is lost, and
            its connection is cut
        :param keep: bytes of that answer that are passed on
        """
        self._left: Iterator[int] = iter(())
        self._until: int | None = None
        self._between = between
        self._lose = lose
        self._keep = keep
        self._going = threading.Lock()
        self.cuts = self.passed = 0
        super().__init__(target)
        self.arm(offsets)

    def arm(self, offsets: Sequence[int]) -> None:
        """Cut at these offsets, counted from now."""
        with self._lock:
            self._left = iter(offsets)
            self._until = next(self._left, None)

    def _connected(self, near: socket.socket) -> None:
        near.settimeout(PATIENCE)
        target = ("127.0.0.1", self._target)
        try:
            with self._going:
                far = socket.create_connection(target, PATIENCE)
        except OSError:
            near.close()
            return
        self._pass_on(near, far, self._from_client, self._from_server)

    def _from_client(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                passed = self._passed(len(data))
                if passed is None:
                    far.sendall(data)
                    continue
                far.sendall(data[:passed])
                self._cut(near, far)
                return
            far.shutdown(socket.SHUT_WR)

    def cut_all(self) -> None:
        """Cut all connections that are open now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self.cuts += len(pairs)
        for near, far in pairs:
            self._cut(near, far)

    def _passed(self, size: int) -> int | None:
        """Bytes of this read that are passed on before a cut; None if there is none."""
        with self._lock:
            self.passed += size
            if self._until is None:
                return None
            if size < self._until:
                self._until -= size
                return None
            passed, self._until = self._until, next(self._left, None)
            self.cuts += 1
            return passed

    def _cut(self, near: socket.socket, far: socket.socket) -> None:
        with self._going:
            self._between(self.cuts)
        reset(far, near)

    def _from_server(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if self._lose and data.startswith(self._lose):
                    self._lose = b""
                    self.cuts += 1
                    if self._keep:
                        # Closed, since a reset would overtake them.
                        near.sendall(data[: self._keep])
                        near.shutdown(socket.SHUT_WR)
                        far.shutdown(socket.SHUT_RDWR)
                    else:
                        self._cut(near, far)
                    return
                near.sendall(data)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
        near.close()
        far.close()


def examples(document: Path) -> dict[str, str]:
    """The literal blocks of a document, by their heading, or by their comment ``#
    NAME`` in the second line of a script.
    """
    found = {}
    text = document.read_text()
    pattern = r"::\n\n((?:    .*\n|\n)+)"
    for match in re.finditer(pattern, text):
        block = textwrap.dedent(match[1]).strip() + "\n"
        script = re.match(r"#!/bin/sh\n# ([\w-]+)", block)
        library = re.search(r"tus-js-client|tusclient|aiotus", block)
        name = script[1] if script else library[0] if library else ""
        if name:
            found[name] = block
    return found
