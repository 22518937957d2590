"""Clients that vanish: at any byte of a push they reset their connection, close it,
close one half of it, or have their cable pulled.

Only complete pushes may be there then, post-push may have run only for those, and the
daemon must return to its earlier number of descriptors and memory.
"""

from __future__ import annotations

import fcntl
import random
import socket
import struct
import sys
import termios
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from attrs import define

from filebucket.test.kit.server import TOKEN, Server, comes
from proofs.daemons import DAEMON, OPTIONS
from proofs.networks import Cable
from proofs.outcome import Outcome, found_out
from proofs.pushes import (
    ANSWER_WITHIN,
    SIZES,
    WAYS,
    expected,
    named,
    residue,
    status_of,
    wrapped,
)

ENDS = ("reset", "close", "half-close", "cable")

PATIENCE = 240.0
"""Seconds after which a resource of the daemon counts as leaked: its timeouts are 30
for a head, up to 120 for a body, and 30 for the closing."""

MOST_MEMORY = 32 << 20
"""Bytes of memory that it may have more than before: two hundred pushes at once leave
memory in an allocator that has seen one."""

_LISTEN = "0A"
"""A socket's state in /proc."""

_RESET = struct.pack("ii", 1, 0)

# Takes a body that was cut short for a complete one.
_COMMITS_ANYWAY = """
from filebucket.http.body import Body
Body.fail = lambda self, refusal: self.end()
from twisted.scripts.twistd import run
run()
"""


@define
class Client:
    """A client that vanishes.

    :ivar sent: bytes of its request that it sends
    :ivar waits: whether it stays until the daemon has read them
    :ivar answer: its answer, which only a half-closing client gets
    """

    name: str
    request: bytes
    sent: int
    leaves: str
    waits: bool
    answer: bytes = b""

    @property
    def whole(self) -> bool:
        """Whether it sends the whole request."""
        return self.sent == len(self.request)

    @property
    def routed(self) -> bool:
        """Whether it sends the whole head."""
        return b"\r\n\r\n" in self.request[: self.sent]


def client(name: str, leaves: str, chance: random.Random) -> Client:
    """A client with a push of any kind, which vanishes anywhere in it."""
    name = named(name, chance.choice(SIZES))
    data = expected(name)
    request = wrapped(chance.choice(WAYS), name, data)
    head = request.index(b"\r\n\r\n") + 4
    sent = chance.choice(
        (
            chance.randrange(head),
            chance.randrange(head, len(request) + 1),
            len(request) - 1,
            len(request),
        )
    )
    # A client whose cable is pulled must be connected first.
    waits = leaves == "cable" or chance.random() < 0.5
    return Client(name, request, sent, leaves, waits)


def nothing_is_left(folder: Path, trials: int) -> Outcome:
    """Whether clients leave nothing behind, however they vanish."""
    return _vanish(folder, trials, ENDS, DAEMON)


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects bodies cut short that are taken for
    complete ones."""
    command = (sys.executable, "-c", _COMMITS_ANYWAY, *OPTIONS)
    return found_out(_vanish(folder, trials, ("close", "half-close"), command))


def _vanish(
    folder: Path, trials: int, ways: Sequence[str], command: Sequence[str]
) -> Outcome:
    chance = random.Random("vanish")
    clients = [
        client(f"gone-{number}", ways[number % len(ways)], chance)
        for number in range(trials)
    ]
    server = Server(folder / "daemon", host="0.0.0.0")
    server.hook("post-push", f'echo "$FILEBUCKET_FILENAME" >> {server.folder}/ran')
    faults: list[str] = []
    times = []
    with Cable() as cable:
        server.start(*cable.inside(*command))
        try:
            where = (cable.host, server.port)
            faults += _push(where, named("before", 1000))
            descriptors, memory = server.idle_files(cable.host), server.memory()
            for cut in (False, True):
                group = [each for each in clients if (each.leaves == "cable") is cut]
                with ExitStack() as closing:
                    _send(server, where, group, closing, cable if cut else None)
                    seconds = _back(server, descriptors)
                if seconds is None:
                    faults.append(
                        f"{server.open_files() - descriptors} descriptors held"
                    )
                times.append(seconds or PATIENCE)
            grown = server.memory() - memory
            if grown > MOST_MEMORY:
                faults.append(f"{grown >> 20} MiB more memory than before")
            cable.plug()
            faults += _push(where, named("after", 1000))
        finally:
            server.stop()
    faults += _faults(server, clients)
    kept = sum((server.home / TOKEN / each.name).exists() for each in clients)
    whole = [each for each in clients if each.whole]
    left = Counter(each.leaves for each in clients).items()
    return Outcome(
        f"{', '.join(f'{number} x {way}' for way, number in left)}:"
        f" {len(whole)} had sent all, {kept} of them are kept;"
        f" descriptors back after {times[0]:.2f} s, the cable's after {times[1]:.0f} s;"
        f" memory {grown / (1 << 20):+.1f} MiB",
        faults,
    )


def _send(
    server: Server,
    where: tuple[str, int],
    clients: Sequence[Client],
    closing: ExitStack,
    cable: Cable | None,
) -> None:
    """Let the clients send, and vanish."""
    stay = []
    for each in clients:
        connection = socket.create_connection(where, ANSWER_WITHIN)
        closing.enter_context(connection)
        if each.waits:
            connection.sendall(each.request[: max(each.sent - 1, 0)])
            stay.append((each, connection))
        else:
            connection.sendall(each.request[: each.sent])
            _leave(each, connection)
    comes(lambda: _is_read(server, [connection for _, connection in stay]), PATIENCE)
    for each, connection in stay:
        connection.sendall(each.request[: each.sent][-1:])
    if cable is not None:
        cable.pull()
        return
    comes(lambda: _is_read(server, [connection for _, connection in stay]), PATIENCE)
    for each, connection in stay:
        _leave(each, connection)


def _leave(client: Client, connection: socket.socket) -> None:
    if client.leaves == "half-close":
        connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while got := connection.recv(65536):
                client.answer += got
    elif client.leaves == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


def _is_read(server: Server, connections: Sequence[socket.socket]) -> bool:
    """Whether the daemon has read all data on these connections."""
    for connection in connections:
        if struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
            return False
    # proc_pid_net(5): a line for each socket of the namespace; the fifth word has the
    # sizes of the send and the receive queue.
    lines = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    mine = f":{server.port:04X}"
    sockets = [line.split() for line in lines]
    return all(
        int(words[4].partition(":")[2], 16) == 0
        for words in sockets
        if words[1].endswith(mine) and words[3] != _LISTEN
    )


def _push(where: tuple[str, int], name: str) -> list[str]:
    """A normal push; returns its faults."""
    answer = b""
    with socket.create_connection(where, ANSWER_WITHIN) as connection:
        connection.sendall(wrapped("PUT", name, expected(name)))
        while got := connection.recv(65536):
            answer += got
    status = status_of(answer)
    return [] if status == 200 else [f"{name}: {status}"]


def _back(server: Server, descriptors: int) -> float | None:
    """Seconds until it has no more descriptors than that; None if it does not."""
    began = time.monotonic()
    back = comes(lambda: server.open_files() <= descriptors, PATIENCE)
    return time.monotonic() - began if back else None


def _faults(server: Server, clients: Sequence[Client]) -> list[str]:
    faults = residue(server.home)
    ran = Counter((server.folder / "ran").read_text().splitlines())
    for each in clients:
        what = f"{each.name}, {each.sent} of {len(each.request)} bytes, {each.leaves}"
        file = server.home / TOKEN / each.name
        kept = file.exists()
        if kept and not each.whole:
            faults.append(f"{what}: kept")
        if kept and file.read_bytes() != expected(each.name):
            faults.append(f"{what}: torn")
        if ran[each.name] != kept:
            faults.append(f"{what}: post-push ran {ran[each.name]} times")
        status = status_of(each.answer)
        due = (200 if each.whole else 400) if each.routed else None
        if each.leaves == "half-close" and status != due:
            faults.append(f"{what}: answered with {status}")
    return faults
