"""The daemons that share a catalogue, as rows of its database.

All times are those of the database's clock: the clocks of the daemons' machines may
differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from filebucket.catalogue.connection import Connection
from filebucket.catalogue.database import Database
from filebucket.model.node import Node, NodeReport
from filebucket.model.problem import Kind, Problem

NOW = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
"""The time, in seconds since the epoch."""

_NODES = (
    "SELECT name, instance, started_at, changed_at, seen_at, leads, stopped, version,"
    f" settings, problems, {NOW} FROM node ORDER BY name"
)


def read_nodes(connection: Connection, now: float) -> list[Node]:
    """As :meth:`~filebucket.catalogue.interfaces.IView.nodes`."""
    if not connection.is_shared:
        return []
    return [_node(now, *row) for row in connection.ask(_NODES)]


def _node(
    now: float,
    name: str,
    instance: str,
    started: float,
    changed: float,
    seen: float,
    leads: bool,
    stopped: bool,
    version: str,
    settings: str,
    problems: str,
    theirs: float,
) -> Node:
    later = now - theirs
    return Node(
        name,
        instance,
        started + later,
        changed + later,
        seen + later,
        leads,
        stopped,
        NodeReport(version, json.loads(settings), tuple(_problems(problems, name))),
    )


def values_of(report: NodeReport) -> tuple[str, str, str]:
    """The version, the settings and the problems, as they are stored."""
    problems = [
        (each.kind.value, each.severity, each.text, each.level)
        for each in report.problems
    ]
    return (
        report.version,
        json.dumps(dict(report.settings), sort_keys=True),
        json.dumps(problems),
    )


def _problems(text: str, node: str) -> Iterator[Problem]:
    known = {each.value for each in Kind}
    for kind, severity, words, level in json.loads(text):
        # A later version may know other kinds.
        if kind in known:
            yield Problem(Kind(kind), severity, words, level=level, node=node)


class Nodes(Database):
    """A connection that forgets daemons."""

    def nodes(self, now: float) -> list[Node]:
        """As :meth:`~filebucket.catalogue.interfaces.IView.nodes`."""
        return read_nodes(self._connection, now)

    def forget(self, name: str) -> None:
        """Delete all that is recorded about a daemon. If it still runs, it reports
        itself again.
        """
        with self._change() as do:
            do("DELETE FROM node WHERE name = ?", (name,))
            for table in ("problem", "hook_failure", "space"):
                do(f"DELETE FROM {table} WHERE node = ?", (name,))
