"""Whether the time of a 403 reveals how close a guess was to a token.

Requests with all kinds of wrong tokens, in random order, with the same size and shape.
The times of each pair of kinds are compared with Welch's t-test, as dudect does
(Reparaz, Balasch, Verbauwhede: Dude, is my code constant time?, 2017).
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import re
import secrets
import socket
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import Factory, define, frozen

from filebucket.test.kit.server import OTHER, TOKEN, Server
from proofs.daemons import DAEMON, OPTIONS
from proofs.outcome import Outcome
from proofs.pushes import named, send, status_of, wrapped

RUNS = 3
MOST_T = 4.5
"""A larger t is no chance."""

KEPT = 0.9
"""The share of times that count, the shortest: the rest is noise. The bound is the same
for all kinds."""

SIZE = 300
"""Bytes of every request, so that its length reveals nothing."""

_LEAKS = """
import sys, time
from filebucket.web import tree
real = tree.token_digest
def token_digest(token):
    if token[:16] == {prefix!r}:
        end = time.perf_counter_ns() + 10_000
        while time.perf_counter_ns() < end:
            pass
    return real(token)
tree.token_digest = token_digest
from twisted.scripts.twistd import run
run()
"""


def _changed(token: str, index: int) -> str:
    """``token`` with another character at ``index``."""
    others = [each for each in "0123456789abcdef" if each != token[index]]
    made = list(token)
    made[index] = secrets.choice(others)
    return "".join(made)


EXPIRED = secrets.token_hex(16)
AWAY = secrets.token_hex(16)

GUESSES: dict[str, Callable[[], str]] = {
    "random": lambda: secrets.token_hex(16),
    "half as long": lambda: secrets.token_hex(8),
    "half as long again": lambda: secrets.token_hex(24),
    "the last wrong": lambda: _changed(TOKEN, -1),
    "the first wrong": lambda: _changed(TOKEN, 0),
    "named, the last wrong": lambda: _changed(OTHER, -1),
    "expired": lambda: EXPIRED,
    "outside allow_from": lambda: AWAY,
}
"""Wrong tokens. :data:`TOKEN`'s bucket exists and has files, and so does the named
bucket that :data:`OTHER` opens. :data:`EXPIRED` is expired, and the bucket of
:data:`AWAY` is for other clients. None is longer than 55 bytes: SHA-256 of more takes
two blocks and 0.6 microseconds longer, which reveals only the length of the guess."""


@frozen
class Shape:
    """The common shape of compared requests.

    :param bearer: whether the token is in a header
    :param expects: whether the client waits for ``100 Continue``; the server closes
        after the refusal, so that each has its own connection
    :param reports: whether it reports that a backup failed
    """

    method: str
    bearer: bool = False
    expects: bool = False
    fresh: bool = False
    reports: bool = False

    def __str__(self) -> str:
        return " ".join(
            word
            for word, said in (
                (self.method, True),
                ("Bearer", self.bearer),
                ("Expect", self.expects),
                ("fresh", self.fresh),
                ("report", self.reports),
            )
            if said
        )

    def request(self, token: str, name: str) -> bytes:
        """A request, :data:`SIZE` bytes long."""
        target = f"/{name}" if self.bearer else f"/{token}/{name}"
        head = f"{self.method} {target} HTTP/1.1\r\nHost: h\r\n"
        if self.bearer:
            head += f"Authorization: Bearer {token}\r\n"
        if self.reports:
            head += "Content-Type: text/plain\r\n"
        if self.expects:
            head += "Expect: 100-continue\r\n"
        if self.method != "GET":
            head += "Content-Length: 4\r\n"
        body = b"" if self.method == "GET" or self.expects else b"four"
        pad = SIZE - len(head) - len("X-Pad: \r\n\r\n") - len(body)
        return f"{head}X-Pad: {'x' * pad}\r\n\r\n".encode() + body


SHAPES = (
    Shape("GET"),
    Shape("PUT"),
    Shape("POST"),
    Shape("POST", reports=True),
    Shape("GET", bearer=True),
    Shape("PUT", bearer=True),
    Shape("POST", bearer=True),
    Shape("PUT", fresh=True),
    Shape("PUT", expects=True, fresh=True),
)


@define
class Asker:
    """Sends requests, and measures the time.

    :ivar answers: all answers without their date, and whether the connection was kept
    """

    port: int
    answers: set[tuple[bytes, bool]] = Factory(set)
    _socket: socket.socket | None = None

    def ask(self, request: bytes, fresh: bool) -> int:
        """The time of the answer, in nanoseconds."""
        if fresh:
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), 60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter_ns()
        self._socket.sendall(request)
        answer = self._socket.recv(65536)
        took = time.perf_counter_ns() - began
        while status_of(answer) is None:
            more = self._socket.recv(65536)
            if not more:
                break
            answer += more
        kept = b"\r\nConnection: close\r\n" not in answer
        self.answers.add((re.sub(rb"Date: [^\r]*", b"", answer), kept))
        if not kept:
            self.close()
        return took

    def close(self) -> None:
        """Use a new connection next."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """Welch's t of two samples."""
    error = statistics.variance(one) / len(one) + statistics.variance(other) / len(
        other
    )
    return (statistics.fmean(one) - statistics.fmean(other)) / math.sqrt(error)


def trimmed(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """The times that count."""
    every = sorted(itertools.chain(*times.values()))
    most = every[int(len(every) * KEPT) - 1]
    return {kind: [each for each in of if each <= most] for kind, of in times.items()}


def differences(times: dict[str, list[float]]) -> dict[tuple[str, str], float]:
    """Welch's t of each pair of kinds."""
    kept = trimmed(times)
    return {
        (one, other): welch(kept[one], kept[other])
        for one, other in itertools.combinations(kept, 2)
    }


def measured(
    asker: Asker, requests: Mapping[str, Callable[[], bytes]], count: int, fresh: bool
) -> dict[str, list[float]]:
    """The times of ``count`` requests, of all kinds in random order."""
    chance = random.Random(0)
    order = [kind for kind, _ in zip(itertools.cycle(requests), range(count))]
    chance.shuffle(order)
    ready = [(kind, requests[kind]()) for kind in order]
    times: dict[str, list[float]] = {kind: [] for kind in requests}
    # The connection and other work that is done once belong to no kind.
    for make in requests.values():
        asker.ask(make(), fresh)
    gc.collect()
    gc.disable()
    try:
        for kind, request in ready:
            times[kind].append(asker.ask(request, fresh))
    finally:
        gc.enable()
        asker.close()
    return times


def _started(folder: Path, command: Sequence[str]) -> Server:
    """A daemon whose buckets have a file each."""
    server = Server(
        folder / "daemon",
        buckets=[
            TOKEN,
            {"name": "web01", "token": OTHER},
            {"name": "old", "token": EXPIRED, "expires": "2020-01-01"},
            {"name": "away", "token": AWAY, "allow_from": ["192.0.2.0/24"]},
        ],
    ).start(*command)
    for token in (TOKEN, OTHER):
        name = named("there", 100)
        status = status_of(send(server.port, wrapped("PUT", name, bytes(100), token)))
        if status != 200:
            server.stop()
            raise RuntimeError(f"{status} to a push")
    return server


def _guess(shape: Shape, guess: Callable[[], str]) -> bytes:
    return shape.request(guess(), named("there", 100))


def _compare(
    server: Server, shapes: Sequence[Shape], trials: int
) -> tuple[str, list[str]]:
    """The largest differences of each shape, and those over the limit."""
    figures: list[str] = []
    faults: list[str] = []
    for shape in shapes:
        largest = 0.0
        for number in range(RUNS):
            asker = Asker(server.port)
            requests = {
                kind: partial(_guess, shape, guess) for kind, guess in GUESSES.items()
            }
            found = differences(measured(asker, requests, trials, shape.fresh))
            for (one, other), t in found.items():
                largest = max(largest, abs(t))
                if abs(t) >= MOST_T:
                    faults.append(
                        f"{shape}, run {number}: {one} against {other}: t = {t:.1f}"
                    )
            if len(asker.answers) != 1:
                faults.append(f"{shape}: {len(asker.answers)} different answers")
        figures.append(f"{shape} {largest:.1f}")
    return ", ".join(figures), faults


def says_nothing(folder: Path, trials: int) -> Outcome:
    """Wrong tokens against wrong tokens, ``trials`` requests a run."""
    server = _started(folder, DAEMON)
    try:
        figures, faults = _compare(server, SHAPES, trials)
    finally:
        server.stop()
    return Outcome(
        f"{RUNS} runs of {trials:,} requests each, {len(GUESSES)} kinds of wrong"
        f" tokens; the largest |t| of any two kinds: {figures}",
        faults,
    )


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects 10 microseconds more for a token whose first half
    is right."""
    script = _LEAKS.format(prefix=TOKEN[:16].encode())
    command = (sys.executable, "-c", script, *OPTIONS)
    server = _started(folder, command)
    try:
        figures, faults = _compare(server, SHAPES[:2], trials)
    finally:
        server.stop()
    told = [fault for fault in faults if "the last wrong" in fault]
    return Outcome(
        f"10 microseconds for half a token: {figures}",
        [] if told else ["they are not detected"],
    )


def told_apart(folder: Path, trials: int) -> Outcome:
    """A valid token with a wrong method, against an invalid one: must be detected."""
    server = _started(folder, DAEMON)
    shape = Shape("GET")
    try:
        requests = {
            "right": lambda: shape.request(TOKEN, "x"),
            "wrong": lambda: shape.request(secrets.token_hex(16), "x"),
        }
        (t,) = differences(
            measured(Asker(server.port), requests, trials, fresh=False)
        ).values()
    finally:
        server.stop()
    return Outcome(
        f"405 against 403: t = {t:.1f}",
        [] if abs(t) >= MOST_T else ["they are not told apart"],
    )
