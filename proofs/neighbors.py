"""An honest client beside others that misbehave in every known way.

The others have tokens of other buckets, or none. Each way runs for a time, and then all
run at once. Meanwhile the honest client pushes small and large files, with and without
digests, and repeats some of its pushes.
"""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import Factory, define, field

from filebucket.test.kit.server import PATIENCE, TOKEN, UNKNOWN, Server, comes
from proofs.daemons import DAEMON, OPTIONS
from proofs.misbehavior import ALL_AT_ONCE, MISBEHAVIORS, STRANGERS_ASK, Others
from proofs.outcome import Outcome, found_out
from proofs.pushes import (
    WAYS as WRAPPINGS,
)
from proofs.pushes import (
    Ledger,
    expected,
    named,
    residue,
    send,
    status_of,
    wrapped,
)
from proofs.town import FULL, LOUD, THERE, ZEROS, Misbehavior
from proofs.unfinished import create_idle

LATEST = 1.0
"""Seconds that 99 of 100 honest pushes may take at most."""

SIZES = (700, 20_000, 100_000, 1_000_000, 2_000_000)
"""Bytes of the honest client's pushes."""

PAUSE = 0.02
"""Seconds between them."""

FILES = 50_000
"""Files in the bucket with a quota, each a series of its own."""

MOST_UPLOADS = 1000
"""Unfinished uploads of a bucket at most; ``full`` has as many from the beginning."""

IDLE_UPLOADS = 900
"""Those of ``loud`` from the beginning; the others are for what its client does."""

RELOAD_EVERY = 1.0

MOST_MEMORY = 256 << 20
"""The daemon's memory limit in bytes."""

MOST_GROWTH = 96 << 20
"""Bytes of memory that it may have more at the end than at the start: not all memory
for waiting bodies goes back to the system."""

MOST_ALERTS = 60
"""Times that ``alert.sh`` may run meanwhile for the misbehaving client's bucket."""

SETTLES = 180.0
"""Seconds in which all requests of the others must end."""

_STALLS = """
import time
from filebucket.web import tree
real = tree.token_digest
def token_digest(token):
    if token == {token!r}:
        time.sleep(2)
    return real(token)
tree.token_digest = token_digest
from twisted.scripts.twistd import run
run()
"""


class OwnLog(Server):
    """A daemon whose log is read, or not."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.reads = threading.Event()
        self.reads.set()
        super().__init__(folder, **config)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.reads.wait()
            with self._news:
                self._lines.append(line.decode("utf-8", "backslashreplace"))
                self._news.notify_all()
        with self._news:
            self._lines.append("(end)\n")
            self._news.notify_all()


@define
class Honest:
    """Pushes, and checks the answers.

    :ivar seconds: the duration of each push
    :ivar faults: wrong answers
    """

    port: int
    prefix: str
    ledger: Ledger = Factory(Ledger)
    seconds: list[float] = Factory(list)
    faults: list[str] = Factory(list)
    _stop: threading.Event = Factory(threading.Event)

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Push, meanwhile."""
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _work(self) -> None:
        number = 0
        while not self._stop.wait(PAUSE):
            self._push(number)
            number += 1

    def _push(self, number: int) -> None:
        kind = "abcde"[number % len(SIZES)]  # a series for each size
        name = named(f"{self.prefix}-{kind}-{number}", SIZES[number % len(SIZES)])
        how = WRAPPINGS[number % len(WRAPPINGS)]
        promises = number % 2 == 1
        self._ask(name, how, 200, promises)
        if number % 4 == 1:
            self._ask(name, how, 200, promises)
        if number % 4 == 2:
            self._ask(name, how, 405, promises)

    def _ask(self, name: str, how: str, status: int, promises: bool) -> None:
        data = expected(name)
        digest = hashlib.sha256(data).hexdigest()
        request = wrapped(how, name, data)
        if promises:
            promise = f"Host: h\r\nX-Checksum-Sha256: {digest}\r\n".encode()
            request = request.replace(b"Host: h\r\n", promise, 1)
        began = time.monotonic()
        answer = send(self.port, request)
        self.seconds.append(time.monotonic() - began)
        got = status_of(answer)
        receipt = f"\r\n\r\n{digest}  {name}\n".encode()
        if got != status or (status == 200 and not answer.endswith(receipt)):
            said = answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip()
            self.faults.append(f"{self.prefix}: {got}, not {status}: {said}")
        if status == 200:
            self.ledger.enter(name, got)

    def latest(self, share: float) -> float:
        """Seconds in which this share of the pushes was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@define
class _Street:
    """The daemon, the honest client, and the others."""

    server: OwnLog
    uploads: Sequence[str] = ()
    others: Others = field(factory=Others)
    faults: list[str] = field(factory=list)
    figures: list[str] = field(factory=list)

    def watch(self, way: Misbehavior | None, seconds: float) -> None:
        """Let the honest client push for a time, while the others run."""
        server = self.server
        says = way.says if way else "nobody"
        honest = Honest(server.port, says.replace(" ", "-").replace(",", ""))
        before = self.others.did
        if way is None:
            with honest.pushing():
                time.sleep(seconds)
        else:
            home = str(server.home)
            at_it = self.others.misbehaving(way, server.port, home, self.uploads)
            with self._hook(way), self._unread(way), at_it, honest.pushing():
                self._while(way, seconds)
        figures = [f"{honest.latest(share) * 1000:.0f}" for share in (0.5, 0.99, 1.0)]
        did = self.others.did - before
        self.figures.append(
            f"{says}{f' ({did:,} times)' if way else ''}: {len(honest.seconds)} pushes,"
            f" {'/'.join(figures)} ms"
        )
        if honest.latest(0.99) >= LATEST:
            self.faults.append(f"{says}: 99 of 100 within {honest.latest(0.99):.1f} s")
        self.faults += honest.faults
        self._settle(says)
        bucket = server.home / "honest"
        self.faults += honest.ledger.faults(bucket)
        for name in honest.ledger.acknowledged:
            (bucket / name).unlink(missing_ok=True)

    def _settle(self, says: str) -> None:
        """Wait until the daemon has worked off its queue."""

        def quiet() -> bool:
            asked = time.monotonic()
            # Of an existing name: it reaches the disk, and stores nothing.
            send(self.server.port, wrapped("PUT", THERE, bytes(30_000), LOUD))
            return time.monotonic() - asked < 0.1

        end = time.monotonic() + SETTLES
        while not all(quiet() for _ in range(5)):
            if time.monotonic() > end:
                self.faults.append(f"{says}: still busy after {SETTLES:g} s")
                return

    def _while(self, way: Misbehavior, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, RELOAD_EVERY))
            if way.reloads:
                self.server.signal(signal.SIGUSR2)

    @contextmanager
    def _hook(self, way: Misbehavior) -> Iterator[None]:
        if way.hook is not None:
            self.server.hook("pre-push", way.hook)
        yield
        (self.server.folder / "pre-push.sh").unlink(missing_ok=True)

    @contextmanager
    def _unread(self, way: Misbehavior) -> Iterator[None]:
        if not way.reads:
            self.server.reads.clear()
        yield
        self.server.reads.set()


def _many_files(folder: Path) -> None:
    """Files that are a series each: letters of their names differ."""
    folder.mkdir(parents=True)
    letters = str.maketrans("0123456789", "abcdefghij")
    for number in range(FILES):
        (folder / f"{number:05}.gz".translate(letters)).write_text("x")


def _pushed(server: Server, name: str, data: bytes, token: str) -> None:
    status = status_of(send(server.port, wrapped("PUT", name, data, token)))
    if status != 200:
        raise RuntimeError(f"{status} to a push")


def _prove(
    folder: Path,
    seconds: int,
    command: Sequence[str],
    ways: Sequence[Misbehavior | None],
) -> Outcome:
    server = OwnLog(
        folder / "daemon",
        min_free_space=0,
        max_unfinished=MOST_UPLOADS,
        page=True,
        buckets=[
            {"name": "honest", "token": TOKEN},
            {"name": "loud", "token": LOUD},
            {"name": "full", "token": FULL, "quota": "1 TiB"},
        ],
    )
    _many_files(server.home / "full")
    (server.home / ".filebucket").mkdir(mode=0o700)
    # The daemon would add the files by itself, but slowly.
    reindex = (sys.executable, "-m", "filebucket", "reindex", "--config")
    subprocess.run(
        [*reindex, str(server.config_file)],
        check=True,
        capture_output=True,
        timeout=10 * PATIENCE,
    )
    asked = folder / "alerts"
    asked.touch()
    server.hook("alert", f'echo "$1" >>{asked}')
    street = _Street(server)
    try:
        server.start(*command)
        _pushed(server, THERE, b"x", LOUD)
        _pushed(server, "zeros", ZEROS, LOUD)
        before = server.memory()
        create_idle(server.port, MOST_UPLOADS, FULL)
        street.uploads = create_idle(server.port, IDLE_UPLOADS, LOUD)
        each = (server.memory() - before) / (MOST_UPLOADS + IDLE_UPLOADS)
        idle = server.idle_files()
        memory = 0
        for way in (None, *ways):
            # Each push waits for a hook then, so there are few.
            street.watch(way, seconds * (4 if way is ALL_AT_ONCE else 1))
            memory = memory or server.memory()
        alerts = asked.read_text().count("loud\n")
        faults = street.faults
        if not comes(lambda: server.open_files() <= idle, SETTLES):
            faults.append(f"{server.open_files()} descriptors, {idle} before")
        faults += residue(server.home)
        after, peak = server.memory(), server.peak_memory()
    finally:
        server.reads.set()
        server.stop()
    if peak > MOST_MEMORY:
        faults.append(f"the daemon had {peak >> 20} MiB")
    if after > memory + MOST_GROWTH:
        faults.append(f"the daemon has {after >> 20} MiB; it had {memory >> 20} before")
    if alerts > MOST_ALERTS:
        faults.append(f"alert.sh ran {alerts} times")
    faults += re.findall(r".*(?:a bug in file-bucket|Traceback).*", server.log)
    return Outcome(
        f"half, 99 of 100 and all of the honest pushes: {'; '.join(street.figures)}."
        f" The daemon had {peak >> 20} MiB at most, and {(after - memory) / 2**20:+.0f}"
        f" MiB afterwards; an idle upload took {each / 1024:.1f} KiB;"
        f" alert.sh ran {alerts} times for theirs",
        faults,
    )


def held(folder: Path, trials: int) -> Outcome:
    """Each way for a number of seconds, and then all at once."""
    return _prove(folder, trials, DAEMON, [*MISBEHAVIORS, ALL_AT_ONCE])


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects a client without a token that blocks the reactor
    for two seconds."""
    stalls = _STALLS.format(token=UNKNOWN.encode("ascii"))
    return found_out(
        _prove(
            folder, trials, (sys.executable, "-c", stalls, *OPTIONS), [STRANGERS_ASK]
        )
    )
