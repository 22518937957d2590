"""Alerts of three daemons, of which the one that leads is killed or frozen.

Each trial has a bucket of its own, since the alerts of a bucket are limited. A file is
pushed to it, and then an empty one: the leader has to run its alert hook, and is lost
before, meanwhile or afterwards.
"""

from __future__ import annotations

import random
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from attrs import define, field

from filebucket.test.kit.cluster import NODES, leads, running
from filebucket.test.kit.server import Server, comes
from proofs.daemons import DAEMON, OPTIONS
from proofs.outcome import Outcome, Prove, found_out
from proofs.pushes import Ledger, named

TOLD_WITHIN = {signal.SIGKILL: 10.0, signal.SIGSTOP: 20.0}
"""Seconds from the loss of the leader until an alert must be told: the database notices
a process that is gone at once, and one that is silent after 10 seconds."""

MOMENTS = {
    "before": 1,
    "meanwhile": 2,
    "at the hook's begin": 1,
    "at the hook's end": 2,
}
"""When the leader is lost, and how often the alert may be told: twice only if the first
time may not have been recorded. At its begin the hook has told nothing."""

MEANWHILE = 0.5
"""Seconds, at most, from the push to the loss."""

# $1 is the moment: a file with that name has the signal, and only one hook gets it.
_HOOK = """\
[ "$FILEBUCKET_NEW" = empty ] || exit 0
lost() {{ mv $1 over 2>/dev/null && kill -s "$(cat over)" "$PPID"; }}
cd {folder} || exit 2
lost begin && exit 1
echo "$FILEBUCKET_BUCKET {node}" >>told
lost end
exit 0
"""

# The daemon, which records an alert before its hook runs.
_EARLY = """
from filebucket.daemon.alerts import Alerts
real = Alerts._tell
async def tell(self, change, allowance):
    await self._record(change)
    return await real(self, change, allowance)
Alerts._tell = tell
from twisted.scripts.twistd import run
run()
"""


def takeover(engine: str) -> Prove:
    """Every alert is told at least once, within seconds."""
    return partial(_prove, engine, DAEMON)


def tells(folder: Path, trials: int) -> Outcome:
    """Whether the experiment detects alerts that are recorded before they are told."""
    command = (sys.executable, "-c", _EARLY, *OPTIONS)
    return found_out(_prove("seaweedfs", command, folder, trials))


@define
class _Alerts:
    """The daemons, and what their hooks told.

    :param folder: where the hooks tell it
    :param daemons: by name
    :ivar seconds: from the loss to the alert, by signal
    :ivar faults: broken promises
    """

    folder: Path
    daemons: dict[str, Server]
    command: Sequence[str]
    seconds: dict[int, list[float]] = field(factory=dict)
    faults: list[str] = field(factory=list)
    _chance: random.Random = field(factory=random.Random)

    def leader(self) -> str:
        """The daemon that leads, when it is the only one."""

        def found() -> list[str]:
            return [name for name, each in self.daemons.items() if leads(each)]

        if not comes(lambda: len(found()) == 1):
            raise AssertionError(f"these lead: {found()}")
        return found()[0]

    def told(self, bucket: str) -> list[str]:
        """The daemons that told the alert of a bucket."""
        path = self.folder / "told"
        lines = path.read_text().splitlines() if path.exists() else []
        told = (line.split() for line in lines)
        return [node for about, node in told if about == bucket]

    def lose(
        self, moment: str, number: signal.Signals, bucket: str, token: str
    ) -> None:
        """Lose the leader, and get it back when the alert was told."""
        name = self.leader()
        leader = self.daemons[name]
        ports = [
            each.port
            for each in self.daemons.values()
            if moment == "meanwhile" or each is not leader
        ]
        push = partial(self._push, self._chance.choice(ports), token)
        if moment == "before":
            leader.signal(number)
            began = time.monotonic()
            push()
        elif moment == "meanwhile":
            push()
            time.sleep(self._chance.uniform(0, MEANWHILE))
            leader.signal(number)
            began = time.monotonic()
        else:
            over = self.folder / "over"
            over.unlink(missing_ok=True)
            kill = self.folder / moment.rpartition(" ")[2]
            kill.write_text(number.name.removeprefix("SIG"))
            push()
            if not comes(over.exists):
                raise AssertionError("the leader does not run its hook")
            began = time.monotonic()

        def told() -> bool:
            tellers = self.told(bucket)
            return bool(set(tellers) - {name} or (moment == "meanwhile" and tellers))

        within = TOLD_WITHIN[number]
        if not comes(told, within):
            self.faults.append(
                f"{bucket}, {number.name} {moment}: not told within {within:.0f} s,"
                f" only by {self.told(bucket)}"
            )
        self.seconds.setdefault(number, []).append(time.monotonic() - began)
        if number == signal.SIGSTOP:
            leader.signal(signal.SIGCONT)
        else:
            leader.wait()
            leader.start(*self.command)

    def _push(self, port: int, token: str) -> None:
        ledger = Ledger()
        for name in (named("db-1", 4), named("db-2", 0)):
            if ledger.push(port, name, token=token) != 200:
                raise AssertionError(f"{name}: {ledger.statuses[name]}")


def _prove(engine: str, command: Sequence[str], folder: Path, trials: int) -> Outcome:
    # Each trial has a token of its own.
    tokens = {f"web{number:03}": secrets.token_hex(16) for number in range(trials)}
    buckets = [{"name": name, "token": token} for name, token in tokens.items()]
    kinds = [(moment, number) for moment in MOMENTS for number in TOLD_WITHIN]
    with running(folder, engine, start=False, buckets=buckets) as site:
        daemons = dict(zip(NODES, site.cluster.daemons, strict=True))
        alerts = _Alerts(folder, daemons, command)
        for node, each in daemons.items():
            each.hook("alert", _HOOK.format(folder=folder, node=node))
            each.start(*command)
        for place, (bucket, token) in enumerate(tokens.items()):
            alerts.lose(*kinds[place % len(kinds)], bucket, token)
        alerts.leader()
    twice = 0
    for place, bucket in enumerate(tokens):
        moment, number = kinds[place % len(kinds)]
        told = alerts.told(bucket)
        twice += len(told) > 1
        if len(told) > MOMENTS[moment]:
            alerts.faults.append(f"{bucket}, {number.name} {moment}: told by {told}")
    killed, frozen = (max(alerts.seconds.get(each, [0.0])) for each in TOLD_WITHIN)
    return Outcome(
        f"{site.engine.says}: {trials} alerts, {twice} of them told twice; the slowest"
        f" {killed:.1f} s after the leader was killed, {frozen:.1f} s after it froze",
        alerts.faults,
    )
