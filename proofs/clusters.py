"""Three daemons with one object store, whose parts are killed, restarted and cut off.

Clients push all the time, each file with a name of its own. Afterwards every file is
read from the object store, and compared with what the clients sent and were told.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field

from filebucket.test.kit.cluster import (
    BUCKETS,
    DATA,
    NAMES,
    Cluster,
    Site,
    running,
)
from filebucket.test.kit.programs import Program, answers, found, free_ports
from filebucket.test.kit.s3 import ACCOUNT, call, keys
from filebucket.test.kit.server import Server, comes
from proofs.daemons import DAEMON, OPTIONS
from proofs.networks import Cable
from proofs.outcome import Outcome, Prove, found_out
from proofs.pushes import WAYS, Ledger, Uploaders, count, expected
from proofs.races import MANY, Racer, line_up, run

BUCKET = str(BUCKETS[0]["name"])

CLIENTS = 8
"""Clients that push at once."""

ROLLING_CLIENTS = 32
"""The same while daemons are restarted."""

SIZES = (0, 1, 4096, 24 * 1024, 100_000)
"""Bytes of a push."""

ANSWER_WITHIN = 240.0
"""Seconds in which every push must be answered, although the object store hangs: two
minutes for its data, and half a minute for each of three other steps."""

KILLED_WITHIN = 60.0
"""The same if a part is killed and comes back."""

REFUSED = {400, 503}
"""The answers if a file cannot be stored now: 400 after a body of unknown length, so
that curl does not send the rest of a pipe."""

AGAIN_WITHIN = 120.0
"""Seconds after which pushes must be received again."""

ENOUGH = 20
"""Pushes that must be received before a fault, and again after it."""

DOWN = (2.0, 8.0)
"""Seconds, from and to, that a part is down."""

_READERS = 8


class Clients(Uploaders):
    """Clients that go on, whatever the answer.

    :ivar slowest: seconds of the slowest answer
    """

    slowest = 0.0

    def _work(self, prefix: str) -> None:
        # Seeded: a name has the same size in every run.
        chance = random.Random(prefix)
        for name in self._pushes(prefix, chance):
            began = time.monotonic()
            status = self._ledger.push(self._port, name, chance.choice(WAYS))
            self.slowest = max(self.slowest, time.monotonic() - began)
            # A part that is down refuses at once.
            pause = self._pause if status == 200 else 0.05
            if self._stopped.wait(pause):
                return


def stored(url: str) -> dict[str, str]:
    """The SHA-256 of each file in an object store, by name; a word if its record does
    not fit.

    :param url: the address of a gateway
    """
    before = f"names/{BUCKET}/"

    def read(key: str) -> tuple[str, str]:
        status, text = call(url, ACCOUNT, "GET", f"/{NAMES}/{key}")
        record = json.loads(text) if status == 200 else {"data": "none"}
        status, data = call(url, ACCOUNT, "GET", f"/{DATA}/{record['data']}")
        sha256 = hashlib.sha256(data).hexdigest()
        if status != 200:
            sha256 = f"{status}"
        elif (record["size"], record["sha256"]) != (len(data), sha256):
            sha256 = "unlike its record"
        return key.removeprefix(before), sha256

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(pool.map(read, keys(url, ACCOUNT, NAMES, before)))


def wrong(ledger: Ledger, kept: Mapping[str, str]) -> list[str]:
    """Every push that was answered with 200 and is not stored, and every file that
    differs from what was sent.

    :param kept: the SHA-256 of each file
    """
    lost = [f"{name}: lost" for name in ledger.acknowledged if name not in kept]
    return lost + [
        f"{name}: differs from what was sent: {sha256}"
        for name, sha256 in kept.items()
        if sha256 != hashlib.sha256(expected(name)).hexdigest()
    ]


# The daemon without the condition that makes a record the only one.
_UNCONDITIONAL = """
from filebucket.store.s3.client import Objects
real = Objects.put
async def put(self, key, body, only_new=False):
    await real(self, key, body)
Objects.put = put
from twisted.scripts.twistd import run
run()
"""


def races(engine: str) -> Prove:
    """Races of :data:`MANY` for a name, over all daemons and gateways."""
    return partial(_race, engine, DAEMON, False)


def races_with_kills(engine: str) -> Prove:
    """The same, while a daemon is killed at a random moment of each race."""
    return partial(_race, engine, DAEMON, True)


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects records without a condition."""
    command = (sys.executable, "-c", _UNCONDITIONAL, *OPTIONS)
    return found_out(_race("seaweedfs", command, False, folder, trials))


def _race(
    engine: str, command: Sequence[str], kills: bool, folder: Path, trials: int
) -> Outcome:
    chance = random.Random()
    faults: list[str] = []
    statuses: dict[str, int | None] = {}
    slowest = 0.0
    with running(folder, engine, start=False) as site:
        daemons = site.cluster.daemons
        for each in daemons:
            each.start(*command)
        ports = [each.port for each in daemons]
        for number in range(trials):
            name = f"race-{number}"
            racers = line_up(name, MANY, number, chance)
            look = partial(_content, site, name)
            began = time.monotonic()
            with _killed(daemons, chance) if kills else _nothing() as killed:
                run(ports, racers, lambda: None)
            slowest = max(slowest, time.monotonic() - began)
            for each in killed:
                each.wait()
                each.start(*command)
            fault = _fault(racers, look(), bool(killed))
            faults += [f"race {number}: {fault}"] if fault else []
            for place, racer in enumerate(racers):
                statuses[f"{number}-{place}"] = racer.status
    return Outcome(
        f"{site.engine.says}: {trials} races of {MANY}: {count(statuses)}; the slowest"
        f" took {slowest:.1f} s",
        faults,
    )


@contextmanager
def _nothing() -> Iterator[list[Server]]:
    yield []


@contextmanager
def _killed(daemons: Sequence[Server], chance: random.Random) -> Iterator[list[Server]]:
    """Kill a daemon at a random moment."""
    victim = chance.choice(daemons)
    alarm = threading.Timer(chance.uniform(0, 0.5), victim.signal, (signal.SIGKILL,))
    alarm.start()
    yield [victim]
    alarm.join()


def _fault(racers: Sequence[Racer], kept: bytes | None, killed: bool) -> str:
    """The broken promise of a race, if any."""
    winners = [racer for racer in racers if racer.status == 200]
    unsure = [racer for racer in racers if racer.status in {None, *REFUSED}]
    others = {racer.status for racer in racers} - {200, 405, *REFUSED}
    if others - ({None} if killed else set()):
        return f"answered: {[racer.status for racer in racers]}"
    if len(winners) > 1 or not (winners or unsure):
        return f"{len(winners)} got 200"
    if winners and kept != winners[0].data:
        return "the stored file is not the winner's"
    if not winners and kept not in [None, *(racer.data for racer in unsure)]:
        return "the stored file is none of the pushes without an answer"
    return "" if all(racer.told for racer in winners) else "the receipt is another's"


def _content(site: Site, name: str) -> bytes | None:
    """The stored file of that name."""
    url = site.engine.urls[-1]
    status, text = call(url, ACCOUNT, "GET", f"/{NAMES}/names/{BUCKET}/{name}")
    if status == 404:
        return None
    key = json.loads(text)["data"]
    status, data = call(url, ACCOUNT, "GET", f"/{DATA}/{key}")
    return data if status == 200 else f"{status}".encode()


@define
class Load:
    """Pushes during faults.

    :param within: seconds in which every push must be answered
    :ivar faults: broken promises
    :ivar figures: what happened, by fault
    """

    port: int
    within: float
    ledger: Ledger = field(factory=Ledger)
    faults: list[str] = field(factory=list)
    figures: dict[str, list[float]] = field(factory=dict)
    statuses: dict[str, dict[str, int | None]] = field(factory=dict)

    def during(
        self,
        what: str,
        allowed: set[int | None],
        begin: Callable[[], object],
        end: Callable[[], object],
        seconds: float,
    ) -> None:
        """Push before, during and after a fault.

        :param allowed: the answers that are right meanwhile, beside 200
        :param seconds: how long the fault lasts
        """
        ledger = Ledger(within=self.within)
        number = len(self.figures.get(what, []))
        prefix = f"{what}-{number}".replace(" ", "-")

        def received(more: int) -> None:
            enough = len(ledger.acknowledged) + more
            if not comes(lambda: len(ledger.acknowledged) >= enough, AGAIN_WITHIN):
                self.faults.append(f"{prefix}: pushes do not go on")

        with Clients(self.port, ledger, prefix, CLIENTS, SIZES) as clients:
            received(ENOUGH)
            begin()
            time.sleep(seconds)
            end()
            began = time.monotonic()
            received(ENOUGH)
            again = time.monotonic() - began
        self.figures.setdefault(what, []).append(clients.slowest)
        self.statuses.setdefault(what, {}).update(ledger.statuses)
        self.faults += [
            f"{name}: {status}"
            for name, status in ledger.statuses.items()
            if status not in {200, *allowed}
        ]
        if clients.slowest >= self.within:
            self.faults.append(f"{prefix}: an answer took {clients.slowest:.0f} s")
        if again >= AGAIN_WITHIN:
            self.faults.append(f"{prefix}: pushes went on after {again:.0f} s")
        self.ledger.statuses.update(ledger.statuses)

    def outcome(self, site: Site, trials: int) -> Outcome:
        """Compare all with the object store."""
        kept = stored(site.engine.urls[0])
        each = (
            f"{what}: {count(self.statuses[what])}, slowest {max(slowest):.1f} s"
            for what, slowest in self.figures.items()
        )
        return Outcome(
            f"{site.engine.says}: {trials} faults, {len(kept):,} files read back;"
            f" {'; '.join(each)}",
            self.faults + wrong(self.ledger, kept),
        )


def kills(engine: str) -> Prove:
    """Kill one part after the other while clients push, and start it again."""

    def prove(folder: Path, trials: int) -> Outcome:
        chance = random.Random()
        with running(folder, engine) as site:
            cluster = site.cluster
            load = Load(cluster.port, KILLED_WITHIN)

            def part(what: str, programs: Sequence[Program]) -> tuple[str, Any, Any]:
                victim = chance.choice(programs)
                return what, victim.kill, victim.start

            for number in range(trials):
                daemon = chance.choice(cluster.daemons)
                kind = number % 5
                allowed: set[int | None] = {*REFUSED}
                if kind == 0:
                    what, begin, end = part("a gateway", site.engine.gateways)
                elif kind == 1:
                    what, begin, end = part("a disk", site.engine.disks)
                elif kind == 2:
                    what, begin, end = part("PostgreSQL", [site.postgres.program])
                    allowed = set()
                elif kind == 3:
                    what, begin, end = part("HAProxy", [cluster.proxy])
                    allowed = {None}
                else:
                    what = "a daemon"
                    begin, end = partial(_kill, daemon), daemon.start
                    allowed = {None, 502, *REFUSED}
                load.during(what, allowed, begin, end, chance.uniform(*DOWN))
            return load.outcome(site, trials)

    return prove


def _kill(daemon: Server) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait()


def cut(engine: str) -> Prove:
    """Cut the network between the daemons and the object store, and mend it."""

    def prove(folder: Path, trials: int) -> Outcome:
        chance = random.Random()
        with Cable() as cable, running(folder, engine, start=False) as site:
            with _far(cable, folder, site.engine.urls) as urls:
                cluster = Cluster(folder / "far", site.engine, None, urls)
                try:
                    cluster.start()
                    load = Load(cluster.port, ANSWER_WITHIN)
                    for _ in range(trials):
                        seconds = chance.uniform(5, 40)
                        pull, plug = cable.pull_far, cable.plug_far
                        load.during("a cut", {*REFUSED}, pull, plug, seconds)
                finally:
                    cluster.stop()
            return load.outcome(site, trials)

    return prove


@contextmanager
def _far(cable: Cable, folder: Path, urls: Sequence[str]) -> Iterator[list[str]]:
    """The gateways, at the other end of a cable."""
    ports = free_ports(len(urls))
    lines = ["defaults", "mode tcp", "timeout connect 5s"]
    lines += ["timeout client 1h", "timeout server 1h"]
    for number, (port, url) in enumerate(zip(ports, urls, strict=True)):
        lines += [
            f"listen gateway{number}",
            f"bind {cable.host}:{port} namespace {cable.space}",
            f"server gateway {url.removeprefix('http://')}",
        ]
    (folder / "far.cfg").write_text("\n".join([*lines, ""]))
    command = [found("haproxy", "HAProxy"), "-db", "-f", "far.cfg"]
    far = [f"http://{cable.host}:{port}" for port in ports]
    program = Program("far", folder, command, partial(answers, far[0]))
    program.start()
    try:
        yield far
    finally:
        program.kill()


def rolling(engine: str) -> Prove:
    """Restart one daemon after the other while clients push: no push may fail."""
    return partial(_restart, engine, "4s")


def at_once(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects daemons that close their ports at once."""
    return found_out(_restart("seaweedfs", 0, folder, trials))


def _restart(engine: str, delay: str | int, folder: Path, trials: int) -> Outcome:
    ledger = Ledger(within=ANSWER_WITHIN)
    with running(folder, engine, shutdown_delay=delay) as site:
        cluster = site.cluster
        clients = Clients(cluster.port, ledger, "rolling", ROLLING_CLIENTS, SIZES)
        with clients:
            for number in range(trials):
                each = cluster.daemons[number % len(cluster.daemons)]
                each.stop()
                each.start()
                cluster.wait_until_all_pass()
        kept = stored(site.engine.urls[0])
    faults = [
        f"{name}: {status}" for name, status in ledger.statuses.items() if status != 200
    ]
    return Outcome(
        f"{site.engine.says}: {trials} restarts: pushes {count(ledger.statuses)}; the"
        f" slowest took {clients.slowest:.1f} s",
        faults + wrong(ledger, kept),
    )
