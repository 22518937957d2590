"""The daemons that share a catalogue, and their problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from filebucket.base.text import ago, joined, printable
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem

GONE = 60.0
"""Seconds after which a daemon that does not report itself is gone."""

SETTLED = 600.0
"""Seconds for which daemons may differ: an operator may be upgrading them in turn."""

NOT_LED = "no daemon leads, so late backups are not reported"

_DIFFERS, _IS_GONE, _NONE_LEFT = 1, 12, 13
"""Levels of the problem of a daemon."""


@frozen
class NodeReport:
    """What a daemon reports about itself.

    :param version: of file-bucket
    :param settings: fingerprints of the settings that must be the same everywhere
    :param problems: its own, such as that its disk is full
    """

    version: str
    settings: Mapping[str, str] = field(factory=dict)
    problems: tuple[Problem, ...] = ()


@frozen
class Reported:
    """The answer to a report.

    :param rival: whether another process reports itself under the same name
    :param crashed: whether this is the first report, and the last process with this
        name was not stopped as it should be
    """

    rival: bool = False
    crashed: bool = False


@frozen
class Node:
    """A daemon that shares the catalogue. Times are in seconds since the epoch.

    :param instance: identifies its process
    :param started: when its process was first seen
    :param changed: when its version or its settings last changed
    :param seen: when it last reported itself
    :param leads: whether it leads, as of then
    :param stopped: whether it was stopped as it should be
    """

    name: str
    instance: str
    started: float
    changed: float
    seen: float
    leads: bool
    stopped: bool
    report: NodeReport

    @property
    def since(self) -> float:
        """Since when it runs, or does not run any more."""
        return self.seen if self.stopped else self.started

    def is_gone(self, now: float) -> bool:
        """Whether it ended, and was not stopped as it should be."""
        return not self.stopped and now - self.seen > GONE

    def is_alive(self, now: float) -> bool:
        """Whether it has reported itself lately."""
        return not self.stopped and not self.is_gone(now)


def leader_of(nodes: Sequence[Node], now: float) -> Node | None:
    """The daemon that leads, if there is one."""
    return next((each for each in nodes if each.leads and each.is_alive(now)), None)


def node_state(node: Node, now: float) -> str:
    """``leads``, ``runs``, ``stopped`` or ``gone``."""
    if node.stopped:
        return "stopped"
    if node.is_gone(now):
        return "gone"
    return "leads" if node.leads else "runs"


def differing(one: NodeReport, other: NodeReport) -> list[str]:
    """The settings that differ.

    A setting that only one version of file-bucket has cannot be compared.
    """
    return sorted(
        key
        for key, value in one.settings.items()
        if other.settings.get(key, value) != value
    )


def difference(node: Node, other: Node) -> str:
    """How ``node`` differs from ``other``, as the end of a sentence; may be empty."""
    parts = []
    if node.report.version != other.report.version:
        versions = printable(node.report.version), printable(other.report.version)
        parts.append("runs file-bucket {} instead of {}".format(*versions))
    if keys := differing(node.report, other.report):
        parts.append(f"has other settings ({joined(list(map(printable, keys)))})")
    return " and ".join(parts)


def node_problems(
    nodes: Sequence[Node], now: float, own: str = ""
) -> Iterator[Problem]:
    """Daemons that are gone, and those that differ from the one that leads.

    :param now: seconds since the epoch
    :param own: the daemon that asks; its own report is left out, since it would repeat
        that for ever
    """
    alive = [each for each in nodes if each.is_alive(now)]
    for each in nodes:
        if each.is_gone(now):
            yield _gone(each, len(alive) > 1, now)
    leader = leader_of(nodes, now)
    # The last one may have stopped a moment ago.
    if alive and leader is None and max(each.since for each in nodes) <= now - GONE:
        yield Problem(Kind.NODE, CRITICAL, NOT_LED)
    first = leader or next(iter(alive), None)
    for each in alive:
        if each.name != own:
            # Such as that another daemon has the same name.
            yield from (one for one in each.report.problems if one.kind is Kind.NODE)
        if first is None or now - max(each.changed, first.changed) < SETTLED:
            continue
        if text := difference(each, first):
            names = printable(each.name), printable(first.name)
            text = "daemon {} differs from {}: {}".format(*names, text)
            yield Problem(Kind.NODE, WARNING, text, level=_DIFFERS, node=each.name)


def _gone(node: Node, others: bool, now: float) -> Problem:
    text = f"daemon {printable(node.name)} was last seen {ago(now - node.seen)}"
    if others:
        return Problem(Kind.NODE, WARNING, text, level=_IS_GONE, node=node.name)
    text += ", and only one daemon is left"
    return Problem(Kind.NODE, CRITICAL, text, level=_NONE_LEFT, node=node.name)


def gone_nodes(problems: Sequence[Problem]) -> frozenset[str]:
    """The daemons that are gone, according to these problems."""
    return frozenset(
        each.node
        for each in problems
        if each.kind is Kind.NODE and each.level in {_IS_GONE, _NONE_LEFT}
    )


def is_compared(problem: Problem) -> bool:
    """Whether :func:`node_problems` found it by comparing the daemons: so every daemon
    finds it, also about itself right after a crash.
    """
    levels = {_DIFFERS, _IS_GONE, _NONE_LEFT}
    return problem.kind is Kind.NODE and problem.level in levels


def of_node(problem: Problem, node: str) -> Problem:
    """A problem of the server as one of this daemon.

    :param node: its name; empty if no other shares its catalogue
    """
    if not node or problem.bucket or problem.node:
        return problem
    return evolve(problem, node=node, text=f"{printable(node)}: {problem.text}")
