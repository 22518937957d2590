"""Clients that push for a long time, during reloads, and beside clients that disconnect
or send wrong requests."""

from __future__ import annotations

import shutil
import signal
import statistics
import time
from pathlib import Path

from filebucket.test.kit.server import TOKEN, UNKNOWN, Server
from proofs.outcome import Outcome
from proofs.pushes import Ledger, Uploaders, count, residue, send, status_of, wrapped


def reloads(folder: Path, trials: int) -> Outcome:
    """Reload a number of times while four clients push."""
    server = Server(folder / "daemon")
    ledger = Ledger()
    buckets = server.config["buckets"]
    server.start()
    try:
        with Uploaders(server.port, ledger, "load"):
            for number in range(trials):
                # A bucket is added, and removed again.
                more = [] if number % 2 else [{"name": "new", "token": UNKNOWN}]
                server.config["buckets"] = [*buckets, *more]
                server.write_config()
                server.signal(signal.SIGUSR2)
                server.wait_for(
                    r"reloaded: \d buckets? \((1 token added|0 tokens added, 1 re)",
                    number + 1,
                )
    finally:
        server.stop()
    faults = [*_unlike_200(ledger), *ledger.faults(server.home / TOKEN)]
    return Outcome(f"{trials} reloads: pushes {count(ledger.statuses)}", faults)


MOST_GROWTH = 4 << 20
"""Bytes of memory by which the last quarter may exceed the first."""

ROUND = 20.0
"""Seconds between checks of the stored files, which are deleted then."""

WARM_UP = 0.1
"""The share of rounds at the start whose memory is ignored."""

PAUSE = 0.01
"""Seconds that a client waits before its next push, to leave the disk to others."""

_BODY = bytes(50_000)
_TORN = wrapped("PUT", "torn", _BODY)[: len(_BODY) // 2]

WRONG: tuple[tuple[bytes, int], ...] = (
    (wrapped("PUT", "name", _BODY, UNKNOWN), 403),
    (wrapped("POST", "name", _BODY, UNKNOWN), 403),
    (b"GET /%b/name HTTP/1.1\r\nHost: h\r\n\r\n" % TOKEN.encode(), 405),
    (wrapped("PUT", "%2e%2e", _BODY), 400),
    (wrapped("PUT", "a/b", _BODY), 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (_TORN, 400),
)
"""Requests of other clients, which then close their side, and the expected answers."""


def soak(folder: Path, trials: int) -> Outcome:
    """Push for a number of seconds, with a hook, beside clients that send wrong
    requests."""
    server = Server(folder / "daemon")
    server.hook("post-push", 'echo "$1"')
    faults: list[str] = []
    memory: list[int] = []
    pushes = wrong = 0
    server.start()
    try:
        idle = server.idle_files()
        end = time.monotonic() + trials
        while (left := end - time.monotonic()) > 0:
            ledger = Ledger()
            with Uploaders(server.port, ledger, f"{len(memory)}", pause=PAUSE):
                count_wrong, found = _do_wrong(server.port, min(left, ROUND))
                memory.append(server.memory())
            found += _unlike_200(ledger)
            found += [*ledger.faults(server.home / TOKEN), *residue(server.home)]
            if not server.wait_for_open_files(idle):
                found.append(f"{server.open_files()} descriptors, not {idle}")
            faults += [f"round {len(memory)}: {fault}" for fault in found]
            pushes += len(ledger.statuses)
            wrong += count_wrong
            shutil.rmtree(server.home / TOKEN)
    finally:
        server.stop()
    faults += [line for line in server.log.splitlines() if "Traceback" in line]
    first, last = _quarters(memory)
    if last - first > MOST_GROWTH:
        faults.append("the daemon's memory grows")
    return Outcome(
        f"{trials} s: {pushes:,} pushes, {wrong:,} wrong requests;"
        f" {first / 1e6:.1f} MB in the first quarter, {last / 1e6:.1f} MB in the last;"
        f" {idle} descriptors before and after; {len(faults)} faults",
        faults,
    )


def _do_wrong(port: int, seconds: float) -> tuple[int, list[str]]:
    """The number of wrong requests, and those with a wrong answer."""
    faults: list[str] = []
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        request, expected = WRONG[number % len(WRONG)]
        status = status_of(send(port, request, half_close=True))
        if status != expected:
            faults.append(f"{request[:40]!r}: {status}")
        number += 1
        time.sleep(PAUSE)
    return number, faults


def _unlike_200(ledger: Ledger) -> list[str]:
    return [f"{name}: {got}" for name, got in ledger.statuses.items() if got != 200]


def _quarters(samples: list[int]) -> tuple[float, float]:
    """The medians of the first and the last quarter, after the warm-up."""
    samples = samples[int(len(samples) * WARM_UP) :]
    quarter = max(len(samples) // 4, 1)
    return statistics.median(samples[:quarter]), statistics.median(samples[-quarter:])
