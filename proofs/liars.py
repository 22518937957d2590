"""A lying object store below a daemon: ``python -m proofs.liars PORT LIES``.

It answers honestly until SIGUSR1, then it lies to a share of the calls until SIGUSR2.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filebucket.test.kit.cluster import BUCKETS, store
from filebucket.test.kit.lying_s3 import (
    Answer,
    Asked,
    Changes,
    Cuts,
    Do,
    Early,
    Hangs,
    Lie,
    LyingS3,
    Says,
    error,
)
from filebucket.test.kit.programs import Program, free_ports
from filebucket.test.kit.server import Server, listens
from proofs.clusters import (
    ANSWER_WITHIN,
    CLIENTS,
    REFUSED,
    SIZES,
    Clients,
    stored,
    wrong,
)
from proofs.outcome import Outcome, found_out
from proofs.pushes import Ledger, count

SHARE = 0.1
"""The share of calls that get a lie."""

_ERROR = Answer(200, error(500, "InternalError").content)

_OF_CHANGES: Sequence[Lie] = (
    *(Says(_ERROR, does) for does in (False, True)),
    Changes(lambda answer: Answer(answer.status, b"")),
)
"""Answers that only calls get that change something."""


class Forgets(Lie):
    """Tells the truth about what it does, and undoes it."""

    def answer(self, connection: Any, asked: Asked, do: Do) -> None:
        connection.say(do().bytes_of(asked.method))
        connection.server.objects.pop(asked.key, None)


LIES: dict[str, Sequence[Lie]] = {
    "errors": (
        *(Says(error(500, "InternalError"), does) for does in (False, True)),
        Says(error(503, "SlowDown")),
        *(Cuts(does, after) for does in (False, True) for after in (0.0, 0.5)),
        Early(error(503, "SlowDown")),
        Early(error(500, "InternalError"), closes=True),
        *_OF_CHANGES,
    ),
    "hangs": (Hangs(), Hangs(does=True)),
    "forgets": (Forgets(),),
}
"""The lies that a store tells."""


class RandomLiar(LyingS3):
    """Lies at random.

    :ivar lies: the lies to choose from; none is the truth
    """

    def __init__(self, seed: str) -> None:
        super().__init__()
        self.lies: Sequence[Lie] = ()
        self._chance = random.Random(seed)

    def begun(self, asked: Asked) -> Lie:
        super().begun(asked)
        if not self.lies or self._chance.random() >= SHARE:
            return Lie()
        lie = self._chance.choice(self.lies)
        # A name for which the store has anything at all is taken.
        return Lie() if asked.method == "GET" and lie in _OF_CHANGES else lie


def _prove(kind: str, folder: Path, trials: int) -> Outcome:
    """Push for a number of seconds."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "proofs.liars", str(port), kind]
    here = {"PYTHONPATH": str(Path(__file__).parents[1])}
    liar = Program("liar", folder, command, lambda: listens(port), here)
    url = f"http://127.0.0.1:{port}"
    folder.mkdir(exist_ok=True)
    daemon = Server(folder / "daemon", buckets=BUCKETS, store=store(folder, [url]))
    ledger = Ledger(within=ANSWER_WITHIN)
    liar.start()
    try:
        daemon.start()
        with Clients(daemon.port, ledger, "lies", CLIENTS, SIZES) as clients:
            liar.send(signal.SIGUSR1)
            time.sleep(trials)
            liar.send(signal.SIGUSR2)
        kept = stored(url)
        faults = wrong(ledger, kept)
        faults += [
            f"{name}: {status}"
            for name, status in ledger.statuses.items()
            if status not in {200, *REFUSED}
        ]
        faults += [line for line in daemon.log.splitlines() if "Traceback" in line]
    finally:
        daemon.stop()
        liar.kill()
    return Outcome(
        f"{kind}, to {SHARE:.0%} of the calls for {trials} s:"
        f" {count(ledger.statuses)}, slowest {clients.slowest:.1f} s; {len(kept):,}"
        " files read back",
        faults,
    )


def lies(kind: str) -> Callable[[Path, int], Outcome]:
    """A store that tells such lies: every 200 is true."""
    return partial(_prove, kind)


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects a store that forgets what it has acknowledged."""
    return found_out(_prove("forgets", folder, trials))


def main() -> None:
    """Run the server until it is ended."""
    from twisted.internet import reactor  # noqa: PLC0415 - only as a program

    port, kind = sys.argv[1:]
    server = RandomLiar(kind)

    def switch(number: int, _: object) -> None:
        server.lies = LIES[kind] if number == signal.SIGUSR1 else ()

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, switch)
    listening: Any = reactor
    listening.listenTCP(int(port), server, interface="127.0.0.1")
    listening.run()


if __name__ == "__main__":
    main()
