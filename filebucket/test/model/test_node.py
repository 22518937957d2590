"""Tests of :mod:`filebucket.model.node`."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.node import (
    GONE,
    NOT_LED,
    SETTLED,
    Node,
    NodeReport,
    difference,
    leader_of,
    node_problems,
    node_state,
    of_node,
)
from filebucket.model.problem import CRITICAL, WARNING, Kind, Problem
from filebucket.test.kit.overviews import HOUR, NOW, node

REPORT = node("a").report


class NodeTests(SynchronousTestCase):
    def found(self, *nodes: Node) -> list[tuple[str, int, int, str]]:
        problems = list(node_problems(nodes, NOW))
        self.assertEqual({Kind.NODE}, {each.kind for each in problems} or {Kind.NODE})
        self.assertEqual([""] * len(problems), [each.bucket for each in problems])
        return [(each.node, each.severity, each.level, each.text) for each in problems]

    def test_fine(self) -> None:
        self.assertEqual([], self.found())
        self.assertEqual([], self.found(node("a"), node("b", GONE), node("c")))

    def test_gone(self) -> None:
        """A daemon that is not seen for a minute, unless it was stopped."""
        self.assertEqual(
            [("b", WARNING, 12, "daemon b was last seen 3 min ago")],
            self.found(node("a"), node("b", 180), node("c")),
        )
        stopped = node("b", 9 * HOUR, stopped=True)
        self.assertEqual([], self.found(node("a"), stopped, node("c")))

    def test_none_left(self) -> None:
        """If the next failure would end all pushes, that is critical."""
        text = "was last seen 3 min ago, and only one daemon is left"
        self.assertEqual(
            [
                ("b", CRITICAL, 13, f"daemon b {text}"),
                ("c", CRITICAL, 13, f"daemon c {text}"),
            ],
            self.found(node("a"), node("b", 180), node("c", 180)),
        )

    def test_differs(self) -> None:
        """Daemons differ from the one that leads, but only after a while."""
        other = NodeReport("1.3", {"buckets": "ef", "store": "01", "new": "23"})
        b, c = node("b", report=other), node("c")
        text = (
            "daemon b differs from a: runs file-bucket 1.3 instead of 1.2 and has other"
            " settings (buckets and store)"
        )
        expected = [("b", WARNING, 1, text)]
        self.assertEqual(expected, self.found(node("a"), b, c))
        swapped = evolve(b, leads=True), node("a", leads=False), c
        self.assertEqual(["a", "c"], [name for name, *_ in self.found(*swapped)])
        lately = NOW - SETTLED + 1
        self.assertEqual([], self.found(node("a"), evolve(b, changed=lately), c))
        self.assertEqual([], self.found(node("a", changed=lately), b, c))
        gone = evolve(b, seen=NOW - HOUR)
        self.assertEqual(
            [12], [level for _, _, level, _ in self.found(node("a"), gone, c)]
        )

    def test_not_led(self) -> None:
        """Daemons of which none leads, unless the last one stopped a moment ago."""
        nodes = node("a", leads=False), node("b")
        expected = [("", CRITICAL, 2, NOT_LED)]
        self.assertEqual(expected, self.found(*nodes))
        just_stopped = node("c", 9.0, stopped=True)
        self.assertEqual([], self.found(*nodes, just_stopped))
        just_started = node("c", started=NOW - 9)
        self.assertEqual([], self.found(*nodes, just_started))
        self.assertEqual(expected, self.found(*nodes, node("c", 99.0, stopped=True)))

    def test_reported(self) -> None:
        """What a daemon reports about daemons is for the one that leads."""
        rival = Problem(Kind.NODE, CRITICAL, "b: another daemon has its name", node="b")
        full = Problem(Kind.FULL, CRITICAL, "b: the disk is full", node="b")
        b = node("b", report=evolve(REPORT, problems=(full, rival)))
        self.assertEqual([("b", CRITICAL, 2, rival.text)], self.found(node("a"), b))
        # But b itself must find out anew each time.
        self.assertEqual([], list(node_problems([node("a"), b], NOW, "b")))

    def test_state(self) -> None:
        for expected, found in (
            ("leads", node("a")),
            ("runs", node("b")),
            ("gone", node("a", HOUR)),
            ("stopped", node("a", HOUR, stopped=True)),
        ):
            self.assertEqual(expected, node_state(found, NOW))

    def test_difference(self) -> None:
        self.assertEqual("", difference(node("a"), node("b")))

    def test_hostile(self) -> None:
        """A process that can write the catalogue cannot control a terminal."""
        bad = "\x1b[2J"
        report = NodeReport(bad, {bad: "1", **REPORT.settings})
        first = node("a", report=evolve(REPORT, settings={bad: "2"}))
        for *_, text in self.found(
            first, node(bad, report=report), node(f"b{bad}", 99)
        ):
            self.assertTrue(text.isprintable(), text)

    def test_leader(self) -> None:
        self.assertIsNone(leader_of([], NOW))
        a, b = node("a"), node("b")
        self.assertIs(a, leader_of([b, a], NOW))
        self.assertIsNone(leader_of([node("a", HOUR), b], NOW))

    def test_of_node(self) -> None:
        """Only a problem of the server is one of a daemon."""
        disk = Problem(Kind.FULL, CRITICAL, "the disk is full", level=7)
        expected = evolve(disk, text="b: the disk is full", node="b")
        self.assertEqual(expected, of_node(disk, "b"))
        self.assertEqual(disk, of_node(disk, ""))
        self.assertEqual(expected, of_node(expected, "c"))
        quota = evolve(disk, bucket="web01")
        self.assertEqual(quota, of_node(quota, "b"))
