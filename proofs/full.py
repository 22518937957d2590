"""A filesystem is filled with pushes until it has no free space, and then space is
freed."""

from __future__ import annotations

import itertools
import os
import random
import socket
from functools import partial
from pathlib import Path

from filebucket.test.kit.server import TOKEN, Server, comes
from proofs.filesystems import Place
from proofs.outcome import Outcome, Prove
from proofs.pushes import ANSWER_WITHIN, Ledger, Uploaders, count, named, residue

ENOUGH = 9
"""Pushes that must be refused before it counts as full."""

SIZES = (0, 1, 4096, 30_000, 300_000, 1_000_000)


def fill(place: type[Place], folder: Path, trials: int) -> Outcome:
    """Fill, check, free space, push; a number of times on the same filesystem."""
    chance = random.Random(place.__name__)
    faults: list[str] = []
    answers: dict[str, int | None] = {}
    with place(folder / "place") as disk:
        server = Server(folder / "daemon", home=str(disk.root / "home"))
        server.start()
        bucket = server.home / TOKEN
        try:
            before = server.idle_files()
            kept = Ledger()
            for number in range(trials):
                found = _filled(server, kept, f"{number}")
                ended = server.process.poll()
                if ended is not None:
                    faults.append(f"time {number}: the daemon ended ({ended})")
                    break
                if not found:
                    found = _refused_before_the_body(server)
                found += [*kept.faults(bucket), *residue(server.home)]
                _make_room(bucket, kept, chance)
                if not _takes_more(server, kept, number, disk.frees_within):
                    found.append("not enough free space, although files were deleted")
                if not server.wait_for_open_files(before):
                    found.append(f"{server.open_files()} descriptors, not {before}")
                faults += [f"time {number}: {fault}" for fault in found]
                answers |= kept.statuses
        finally:
            server.stop()
    return Outcome(
        f"filled {trials} times: {place.__name__}, {count(answers)};"
        f" {len(faults)} lost, torn, left or wrongly answered",
        faults,
    )


def _filled(server: Server, kept: Ledger, prefix: str) -> list[str]:
    """Push, four at a time, until nothing fits; the faults."""
    began = len(kept.statuses)
    with Uploaders(server.port, kept, prefix, sizes=SIZES) as uploaders:
        uploaders.wait_until(
            lambda: list(kept.statuses.values())[began:].count(507) >= ENOUGH
        )
    return [
        f"{name}: {status}"
        for name, status in kept.statuses.items()
        if status not in (200, 507)
    ]


def _refused_before_the_body(server: Server) -> list[str]:
    """Whether a client that waits is refused before it sends the body."""
    head = (
        f"PUT /{TOKEN}/large HTTP/1.1\r\nHost: h\r\nContent-Length: {1 << 30}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), ANSWER_WITHIN) as client:
        client.sendall(head.encode())
        answer = client.recv(65536)
    right = answer.startswith(b"HTTP/1.1 507 ")
    return [] if right else [f"not refused before its body: {answer!r}"]


def _takes_more(server: Server, kept: Ledger, number: int, within: float) -> bool:
    """Whether a push is stored again, at once or within some seconds."""
    tries = itertools.count()

    def pushed() -> bool:
        name = named(f"{number}-after-{next(tries)}", 300_000)
        return kept.push(server.port, name) == 200

    return pushed() or (within > 0 and comes(pushed, within))


def _make_room(bucket: Path, kept: Ledger, chance: random.Random) -> None:
    names = sorted(kept.acknowledged)
    for name in chance.sample(names, -(-len(names) * 3 // 4)):
        (bucket / name).unlink()
        del kept.statuses[name]
    # Btrfs counts freed space only after that.
    os.sync()


def filled(place: type[Place]) -> Prove:
    """Whether a full place keeps its files, and refuses pushes correctly."""
    return partial(fill, place)
