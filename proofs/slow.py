"""A thousand slow clients, and an honest one that must not be affected.

A third of them send their headers at a byte a second, a third their bodies, and a third
stop in the middle of one. A client that is dropped connects again.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import Factory, define, frozen

from filebucket.http.channel import Limits
from filebucket.test.kit.server import TOKEN, Server
from proofs.outcome import Outcome
from proofs.pushes import Ledger, named, residue, status_of

CLIENTS = 999
"""A third of each kind."""

HONEST_SIZES = (4096, 65536, 262_144, 1 << 20)
"""Bytes of the honest client's pushes."""

LATEST = 1.0
"""Seconds that 99 of 100 honest pushes may take at most."""

MOST_MEMORY = 160 << 20
"""The daemon's memory limit in bytes."""

SLACK = 5.0
"""Seconds by which a timeout may be off: busy clients measure it."""

_LIMITS = Limits()
_HEAD = f"PUT /{TOKEN}/slow HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n".encode()


@frozen
class Kind:
    """A way to be slow.

    :param name: what it does
    :param at_once: bytes that it sends at full speed
    :param drips: whether a byte a second follows
    :param limit: seconds after which it must be dropped
    """

    name: str
    at_once: bytes
    drips: bool
    limit: float


KINDS = (
    Kind("headers drip", b"P", True, _LIMITS.headers),
    Kind("body drips", _HEAD + b"\r\n", True, _LIMITS.rate_window),
    Kind("body stops", _HEAD + b"\r\n" + bytes(100), False, _LIMITS.rate_window),
)


@define
class Seen:
    """What happened to the slow clients.

    :ivar ages: seconds after which they were dropped, by kind
    :ivar faults: wrong answers, and clients that were not dropped in time
    """

    ages: dict[str, list[float]] = Factory(lambda: {kind.name: [] for kind in KINDS})
    faults: list[str] = Factory(list)

    def dropped(self, kind: Kind, age: float, answer: bytes) -> None:
        """Record an answer and its time."""
        self.ages[kind.name].append(age)
        status = status_of(answer)
        if status != 408 or abs(age - kind.limit) > SLACK:
            self.faults.append(f"{kind.name}: {status} after {age:.1f} s")

    def still_there(self, kind: Kind, age: float) -> None:
        """Record a client that was not dropped in time."""
        if age > kind.limit + SLACK:
            self.faults.append(f"{kind.name}: not dropped after {age:.1f} s")

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {len(ages)} x 408 at {min(ages):.1f}..{max(ages):.1f} s"
            if ages
            else f"{name} none yet"
            for name, ages in self.ages.items()
        )


async def _slow(port: int, kind: Kind, until: float, seen: Seen) -> None:
    """One slow client, and those that follow it."""
    # Spread over time, as a thousand machines would be.
    await asyncio.sleep(random.random())
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            began = time.monotonic()
            writer.write(kind.at_once)
            answer = asyncio.ensure_future(reader.read())
            # A header that never ends, or the body.
            rest = iter(_HEAD[1:] + bytes(10_000))
            while not answer.done() and time.monotonic() < until:
                await asyncio.wait([answer], timeout=1)
                if kind.drips and not answer.done():
                    writer.write(bytes([next(rest)]))
            age = time.monotonic() - began
            if answer.done():
                with suppress(OSError):
                    seen.dropped(kind, age, answer.result())
            else:
                answer.cancel()
                seen.still_there(kind, age)
        finally:
            writer.transport.abort()


async def _thousand(port: int, until: float, seen: Seen) -> None:
    clients = [
        _slow(port, KINDS[number % len(KINDS)], until, seen)
        for number in range(CLIENTS)
    ]
    await asyncio.gather(*clients)


def _push_on(
    port: int, ledger: Ledger, seconds: list[float], stop: threading.Event
) -> None:
    """The honest client, and the duration of each of its pushes."""
    number = 0
    while not stop.is_set():
        name = named(f"honest-{number}", HONEST_SIZES[number % len(HONEST_SIZES)])
        began = time.monotonic()
        ledger.push(port, name)
        seconds.append(time.monotonic() - began)
        number += 1


def outlasts(folder: Path, trials: int) -> Outcome:
    """Run them for a number of seconds."""
    server = Server(folder / "daemon").start()
    ledger, seen = Ledger(), Seen()
    seconds: list[float] = []
    stop = threading.Event()
    try:
        before = server.idle_files()
        honest = threading.Thread(
            target=partial(_push_on, server.port, ledger, seconds, stop)
        )
        honest.start()
        try:
            asyncio.run(_thousand(server.port, time.monotonic() + trials, seen))
        finally:
            stop.set()
            honest.join()
        memory = server.peak_memory()
        faults = seen.faults
        if not server.wait_for_open_files(before):
            faults.append(f"{server.open_files()} descriptors, {before} before")
        faults += ledger.faults(server.home / TOKEN) + residue(server.home)
    finally:
        server.stop()
    refused = len(ledger.statuses) - len(ledger.acknowledged)
    latest = statistics.quantiles(seconds, n=100)[-1]
    if refused:
        faults.append(f"{refused} honest pushes without a 200")
    if latest >= LATEST:
        faults.append(f"the honest client waited {latest:.2f} s")
    if memory > MOST_MEMORY:
        faults.append(f"the daemon had {memory >> 20} MiB")
    return Outcome(
        f"{CLIENTS} slow clients for {trials} s: {seen};"
        f" {len(seconds):,} honest pushes, half within"
        f" {statistics.median(seconds) * 1000:.0f} ms, 99 of 100 within"
        f" {latest * 1000:.0f} ms, all within {max(seconds) * 1000:.0f} ms;"
        f" the daemon had {memory >> 20} MiB at most",
        faults,
    )
