"""Races for one name: pushes of different contents that end at the same moment.

Each racer sends all but its end, or nothing yet. When all are ready, the ends are sent
one right after the other. The file, afterwards and meanwhile, is compared with what
each racer sent and with its answer.
"""

from __future__ import annotations

import hashlib
import random
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import cycle
from pathlib import Path

from attrs import define

from filebucket.test.kit.server import TOKEN, Server
from proofs.daemons import DAEMON, OPTIONS
from proofs.outcome import Outcome, found_out
from proofs.pushes import (
    ANSWER_WITHIN,
    WAYS,
    content,
    count,
    residue,
    status_of,
    wrapped,
)

SIZES = (16, 4096, 20_000, 24 * 1024, 100_000, 1_500_000)
"""Bytes of a push: in one batch, in a little more than one, in many. Enough that
contents always differ."""

MANY = 32
"""Racers of the large races."""
FEW_PER_MANY = 20
"""Races of two for each race of many."""

NAMES = 50
"""Names that are overwritten again and again."""

# Publishes with a rename, which replaces an existing file.
_RENAMES = """
import os
real = os.link
def link(source, name, *, dst_dir_fd, **more):
    aside = b"%b.%d" % (name, id(object()))
    real(source, aside, dst_dir_fd=dst_dir_fd, **more)
    os.rename(aside, name, src_dir_fd=dst_dir_fd, dst_dir_fd=dst_dir_fd)
os.link = link
from twisted.scripts.twistd import run
run()
"""


@define
class Racer:
    """One push of a race.

    :ivar held: the part of its request that waits until all others are ready
    :ivar answer: all bytes of its answer
    """

    data: bytes
    sent: bytes
    held: bytes
    answer: bytes = b""

    @property
    def status(self) -> int | None:
        """The status of its answer."""
        return status_of(self.answer)

    @property
    def told(self) -> bool:
        """Whether its receipt matches what it sent."""
        digest = hashlib.sha256(self.data).hexdigest().encode()
        return b"X-Checksum-Sha256: %b\r\n" % digest in self.answer


def line_up(name: str, ways: int, race: int, chance: random.Random) -> list[Racer]:
    """Racers of all kinds and sizes."""
    racers = []
    for number in range(ways):
        data = content(f"{name}-{race}-{number}", chance.choice(SIZES))
        request = wrapped(chance.choice(WAYS), name, data)
        split = chance.choice((0, len(request) - 1, chance.randrange(len(request))))
        racers.append(Racer(data, request[:split], request[split:]))
    return racers


def run(
    ports: Sequence[int],
    racers: Sequence[Racer],
    look: Callable[[], bytes | None],
) -> list[bytes | None]:
    """Run the race.

    :param ports: the daemons' ports; racers take turns
    :param look: returns the file's content; None if it is not there
    :returns: that content when all ends were sent, and after each answer
    """
    with ExitStack() as closing:
        sockets = [
            closing.enter_context(
                socket.create_connection(("127.0.0.1", port), ANSWER_WITHIN)
            )
            for port, _ in zip(cycle(ports), racers, strict=False)
        ]
        for it, racer in zip(sockets, racers, strict=True):
            with suppress(OSError):
                it.sendall(racer.sent)
        for it, racer in zip(sockets, racers, strict=True):
            # A late racer is refused before the rest is sent.
            with suppress(OSError):
                it.sendall(racer.held)
        seen = [look()]
        for it, racer in zip(sockets, racers, strict=True):
            with suppress(OSError):
                while got := it.recv(65536):
                    racer.answer += got
            seen.append(look())
    return seen


def _content(file: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return file.read_bytes()
    return None


def one_wins(folder: Path, trials: int) -> Outcome:
    """Whether exactly one racer gets 200 and has its content stored."""
    return _hold(Server(folder / "daemon").start(*DAEMON), trials, _one_won)


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects a rename in place of the link."""
    command = (sys.executable, "-c", _RENAMES, *OPTIONS)
    server = Server(folder / "daemon").start(*command)
    return found_out(_hold(server, trials, _one_won))


def one_stays(folder: Path, trials: int) -> Outcome:
    """Whether one whole push is left if pre-push lets all overwrite."""
    server = Server(folder / "daemon", hook_concurrency=MANY)
    server.hook("pre-push", "exit 2")
    return _hold(server.start(*DAEMON), trials, _one_stayed, names=NAMES)


def _one_won(racers: Sequence[Racer], kept: bytes | None) -> str:
    winners = [racer for racer in racers if racer.status == 200]
    if len(winners) != 1:
        return f"{len(winners)} got 200"
    if {racer.status for racer in racers} - {200, 405}:
        return f"answered: {[racer.status for racer in racers]}"
    if kept != winners[0].data:
        return "the stored file is not the winner's"
    return "" if winners[0].told else "the winner's receipt is not its file's"


def _one_stayed(racers: Sequence[Racer], kept: bytes | None) -> str:
    if {racer.status for racer in racers} != {200}:
        return f"answered: {[racer.status for racer in racers]}"
    if kept not in [racer.data for racer in racers]:
        return "the stored file is none of the pushes"
    return "" if all(racer.told for racer in racers) else "a receipt is wrong"


def _hold(
    server: Server,
    trials: int,
    fault: Callable[[Sequence[Racer], bytes | None], str],
    names: int | None = None,
) -> Outcome:
    """A number of races of two and some of many; then the daemon is stopped.

    :param fault: returns the fault of a race, if any
    :param names: the number of names to race for; None is one for each race
    """
    chance = random.Random(fault.__name__)
    ways = [2] * trials + [MANY] * -(-trials // FEW_PER_MANY)
    chance.shuffle(ways)
    faults: list[str] = []
    statuses: dict[str, int | None] = {}
    looks = 0
    try:
        for number, count_of in enumerate(ways):
            name = f"race-{number % (names or len(ways))}"
            file = server.home / TOKEN / name
            had = _content(file)
            racers = line_up(name, count_of, number, chance)
            seen = run([server.port], racers, partial(_content, file))
            looks += len(seen)
            wrong = [fault(racers, _content(file))]
            whole = [had, *(racer.data for racer in racers)]
            wrong += [
                "incomplete during the race" for each in seen if each not in whole
            ]
            wrong += residue(server.home)
            faults += [
                f"race {number}, {count_of} ways: {each}" for each in wrong if each
            ]
            for place, racer in enumerate(racers):
                statuses[f"{number}-{place}"] = racer.status
    finally:
        server.stop()
    return Outcome(
        f"{trials} races of 2 and {len(ways) - trials} of {MANY}: {count(statuses)};"
        f" {looks:,} looks at the file meanwhile",
        faults,
    )
