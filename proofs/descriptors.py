"""When descriptors run out, every answer still holds, and the daemon recovers.

The daemon has few descriptors, and more clients connect than it can serve: some are
silent and stay, the others push.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from filebucket.test.kit.server import TOKEN, Server, comes
from proofs.daemons import DAEMON
from proofs.outcome import Outcome
from proofs.pushes import (
    ANSWER_WITHIN,
    Ledger,
    count,
    expected,
    named,
    residue,
    status_of,
    wrapped,
)

FEW = 64
"""Descriptors that the daemon may have."""

CLIENTS = 200
"""Clients that connect at once: some are silent and stay, the others push."""

LEFT = (2, 30)
"""Descriptors that the silent clients leave to the others, at least and at most: too
few for all, but enough for some pushes to begin."""

SYSTEMD = 1024
"""Descriptors that systemd gives a service by default."""

IDLE = 3.0
"""Seconds for which an exhausted daemon is observed."""

MOST_CPU = 0.3
"""Processor time, in seconds, that it may use meanwhile."""

RECOVERS_WITHIN = 5.0
"""Seconds after which a push must work when the other clients are gone."""

MOST_LOG = 64 * 1024
"""Bytes that it may log meanwhile."""


def _command(limit: str) -> tuple[str, ...]:
    """The daemon with a limit on descriptors."""
    return ("prlimit", f"--nofile={limit}", *DAEMON)


def processor_time(pid: int) -> float:
    """The processor time of a process, in seconds."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _strangers(port: int, number: int) -> Iterator[None]:
    """A number of silent connections."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(number):
            with suppress(OSError):
                sockets.append(socket.create_connection(("127.0.0.1", port), 5))
        yield
    finally:
        for each in sockets:
            each.close()


def _push_at_once(
    port: int, ledger: Ledger, names: list[str]
) -> list[threading.Thread]:
    """Push all these at once; return those that do not end soon."""
    threads = [
        threading.Thread(target=partial(ledger.push, port, name)) for name in names
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + RECOVERS_WITHIN
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return threads


def _taken(port: int, ledger: Ledger, prefix: str, within: float) -> float | None:
    """Seconds until a push works."""
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < within:
        number += 1
        if ledger.push(port, named(f"{prefix}-{number}", 100)) == 200:
            return time.monotonic() - began
        time.sleep(0.05)
    return None


def _comes_back(server: Server, descriptors: int) -> bool:
    """Whether it soon has no more descriptors than this."""
    return comes(lambda: server.open_files() <= descriptors, RECOVERS_WITHIN)


def _exhaust(folder: Path, trials: int, asks: bool) -> Outcome:
    server = Server(folder / "daemon")
    asked = folder / "asked"
    asked.touch()
    if asks:
        server.hook("pre-push", f'echo "$2" >>{asked}')
    server.start(*_command(str(FEW)))
    ledger = Ledger()
    chance = random.Random(0)
    faults: list[str] = []
    idle = recovery = 0.0
    written = 0
    try:
        before = server.idle_files()
        for trial in range(trials):
            strangers = FEW - before - chance.randint(*LEFT)
            names = [named(f"{trial}-{n}", 1000) for n in range(CLIENTS - strangers)]
            with ExitStack() as staying:
                staying.enter_context(_strangers(server.port, strangers))
                # Waiting pushes are accepted when the silent clients leave.
                waiting = _push_at_once(server.port, ledger, names)
                staying.enter_context(_strangers(server.port, FEW))
                began = processor_time(server.process.pid)
                wrote = len(server.log)
                time.sleep(IDLE)
                idle = max(idle, processor_time(server.process.pid) - began)
                written = max(written, len(server.log) - wrote)
            for thread in waiting:
                thread.join()
            taken = _taken(server.port, ledger, f"after-{trial}", RECOVERS_WITHIN)
            if taken is None:
                faults.append(f"trial {trial}: no push works afterwards")
            else:
                recovery = max(recovery, taken)
            # Twisted keeps one in reserve, and may lose it when none is left.
            if not _comes_back(server, before):
                faults.append(
                    f"trial {trial}: {server.open_files()} descriptors,"
                    f" and {before} before"
                )
        faults += ledger.faults(server.home / TOKEN) + residue(server.home)
        if asks:
            permitted = set(asked.read_text().splitlines())
            faults += [
                f"{name}: stored without a call of pre-push"
                for name in os.listdir(server.home / TOKEN)
                if name not in permitted
            ]
    finally:
        server.stop()
    fitting = {200, 409 if asks else 200, 503, None}
    faults += [
        f"{name}: {status}"
        for name, status in ledger.statuses.items()
        if status not in fitting
    ]
    if idle > MOST_CPU:
        faults.append(f"{idle:.2f} s of processor time in {IDLE:g} s of idle time")
    if written > MOST_LOG:
        faults.append(f"{written:,} bytes of log in {IDLE:g} s of idle time")
    # It logs a traceback if it loses that one.
    if server.log.count("Traceback") > server.log.count("reserve EMFILE"):
        faults.append("a traceback in the log")
    return Outcome(
        f"{trials} times {CLIENTS} clients and {FEW} descriptors"
        f"{', with a pre-push' if asks else ''}: {count(ledger.statuses)};"
        f" {idle:.2f} s of processor time and {written:,} bytes of log in {IDLE:g} s"
        f" of nothing; a push is taken {recovery * 1000:.0f} ms after they left",
        faults,
    )


def run_out(folder: Path, trials: int) -> Outcome:
    """Exhaust the descriptors a number of times."""
    return _exhaust(folder, trials, asks=False)


def run_out_with_hook(folder: Path, trials: int) -> Outcome:
    """The same with a pre-push hook, which needs descriptors, too."""
    return _exhaust(folder, trials, asks=True)


def strangers_stay(folder: Path, trials: int) -> Outcome:
    """Whether silent clients keep others out under systemd's default limits, for a
    number of seconds."""
    server = Server(folder / "daemon").start(*_command(f"{SYSTEMD}:"))
    ledger = Ledger()
    longest = 0.0
    tries = 0
    try:
        end = time.monotonic() + trials
        with _strangers(server.port, SYSTEMD):
            began = time.monotonic()
            while time.monotonic() < end:
                tries += 1
                if ledger.push(server.port, named(f"honest-{tries}", 100)) == 200:
                    began = time.monotonic()
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.2)
        memory = server.peak_memory()
        faults = ledger.faults(server.home / TOKEN)
    finally:
        server.stop()
    kept_out = tries - len(ledger.acknowledged)
    if kept_out:
        faults.append(f"{kept_out} of {tries} pushes were kept out")
    return Outcome(
        f"{SYSTEMD:,} strangers, and as many descriptors unless it asks for more:"
        f" {tries} honest pushes, {kept_out} kept out, {longest:.1f} s at the longest;"
        f" the daemon had {memory >> 20} MiB",
        faults,
    )


MANY_PLACES = 800
"""Descriptors of a daemon with about two hundred connections."""

STRANGERS_AT_ONCE = 300
WAITING = 0.15
"""Seconds that a push takes: as long as hundreds of silent clients need to connect."""


def flooded(folder: Path, trials: int) -> Outcome:
    """Whether a stream of silent clients costs any of ``trials`` pushes its answer."""
    server = Server(folder / "daemon").start(*_command(str(MANY_PLACES)))
    ledger = Ledger()
    stopped = threading.Event()
    came = 0

    def flood() -> None:
        nonlocal came
        strangers: deque[socket.socket] = deque()
        while not stopped.wait(0.0003):
            with suppress(OSError):
                strangers.append(
                    socket.create_connection(("127.0.0.1", server.port), 5)
                )
                came += 1
            if len(strangers) > STRANGERS_AT_ONCE:
                strangers.popleft().close()
        for each in strangers:
            each.close()

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        for number in range(trials):
            name = named(f"long-{number}", 30_000)
            request = wrapped("PUT", name, expected(name))
            answer = b""
            with suppress(OSError), _connected(server.port) as client:
                client.sendall(request[:-20_000])
                time.sleep(WAITING)
                client.sendall(request[-20_000:])
                while got := client.recv(65536):
                    answer += got
            ledger.enter(name, status_of(answer))
    finally:
        stopped.set()
        flooding.join()
        server.stop()
    faults = ledger.faults(server.home / TOKEN)
    faults += [f"{name}: {got}" for name, got in ledger.statuses.items() if got != 200]
    return Outcome(
        f"{came:,} strangers came beside {trials} pushes: {count(ledger.statuses)}",
        faults,
    )


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), ANSWER_WITHIN)
