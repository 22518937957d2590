"""A command whose output is pushed: it prints, waits, prints again, and ends as told.

It runs as a program, and writes its process ids to ``pids`` in its folder.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 16

ATTEMPTS = 60_000
"""Of a hundredth of a second: after ten minutes its caller is gone."""


def blocks(seed: str, size: int) -> Iterator[bytes]:
    """The blocks of that many bytes. No two blocks are equal."""
    block = hashlib.shake_128(seed.encode()).digest(BLOCK - 8)
    for start in range(0, size, BLOCK):
        yield (start.to_bytes(8, "big") + block)[: size - start]


def content(seed: str, size: int) -> bytes:
    """That many bytes."""
    return b"".join(blocks(seed, size))


def printed(seed: str, size: int, start: int, stop: int) -> None:
    """Print a part of the content."""
    out = sys.stdout.buffer
    at = 0
    for block in blocks(seed, size):
        piece = block[max(start - at, 0) : max(stop - at, 0)]
        if piece:
            out.write(piece)
        at += len(block)
    out.flush()


def waited(path: Path) -> None:
    """Wait until the file is there."""
    for _ in range(ATTEMPTS):
        if path.exists():
            return
        time.sleep(0.01)
    raise SystemExit(f"{path}: never came")


def main() -> None:
    """Print ``size`` bytes, but at most ``most``, and pause at each of the ``stops``.

    :raises SystemExit: with the status ``end``, if that is not a signal
    """
    # As other commands do, end silently once nothing reads the output.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    folder, seed, size, most, stops, end, keeps = sys.argv[1:]
    here = Path(folder)
    with (here / "pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    start = 0
    for number, stop in enumerate(map(int, stops.split(","))):
        printed(seed, int(size), start, min(stop, int(most)))
        start = stop
        (here / f"stop-{number}").touch()
        waited(here / f"gate-{number}")
    printed(seed, int(size), start, int(most))
    if keeps == "keeps":
        child = os.fork()
        if not child:
            waited(here / "kept")
            os._exit(0)
        with (here / "pids").open("a") as pids:
            pids.write(f"{child}\n")
        (here / "keeping").touch()
    if end.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[end])
    raise SystemExit(int(end))


if __name__ == "__main__":
    main()
