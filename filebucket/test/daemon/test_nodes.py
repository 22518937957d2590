"""Tests of :mod:`filebucket.daemon.nodes`."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket import __version__
from filebucket.catalogue.election import Election
from filebucket.catalogue.leader import ALONE
from filebucket.catalogue.overview import Known, find_problems
from filebucket.catalogue.view import View
from filebucket.config.config import Config
from filebucket.config.load import parse
from filebucket.daemon.applied import shared_settings
from filebucket.daemon.nodes import Member
from filebucket.model.node import Node, node_problems
from filebucket.model.problem import CRITICAL, Kind, Problem
from filebucket.model.registry import BucketIndex, Registry
from filebucket.test.catalogue.election_contract import REPORT
from filebucket.test.kit.catalogue import new_database
from filebucket.test.kit.fakes import AtOnce, at_once
from filebucket.test.kit.overviews import NOW, node

FULL = Problem(Kind.FULL, CRITICAL, "a: the disk is full", level=7, node="a")


def config(*buckets: str, **keys: Any) -> Config:
    """A configuration with these buckets."""
    given = [
        {"name": each, "token_sha256": each.encode().hex().ljust(64, "0")}
        for each in buckets
    ]
    text = json.dumps({"home": "home", "buckets": given, **keys})
    return parse(text, "/etc/config.json")


class SettingsTests(SynchronousTestCase):
    """What must be the same on all daemons."""

    def settings(self, *buckets: str, **keys: Any) -> dict[str, str]:
        found = config(*buckets, **keys)
        return shared_settings(found, found.buckets)

    def test_same(self) -> None:
        """Each daemon has its own folder, listeners, gateways and credentials."""
        store = {"names_bucket": "names", "data_bucket": "data"}
        one = self.settings(
            "web01", "web02", store={"s3": {**store, "endpoints": ["http://a"]}}
        )
        other = self.settings(
            "web02",
            "web01",
            home="other",
            hooks="other",
            listen=["tcp:1"],
            admin="tcp:2:interface=127.0.0.1",
            node="b",
            log_format="json",
            store={"s3": {**store, "endpoints": ["http://b"], "credentials": "file"}},
        )
        self.assertEqual(one, other)

    def test_different(self) -> None:
        before = self.settings("web01")
        for key, changed in (
            ("buckets", self.settings("web01", "web02")),
            ("buckets", self.settings("web01", defaults={"hold": "2d"})),
            ("max_file_size", self.settings("web01", max_file_size=1)),
            ("unfinished", self.settings("web01", unfinished=0)),
            ("page", self.settings("web01", page=True)),
            ("alert_again", self.settings("web01", alert_again=0)),
        ):
            differ = {each for each in before if before[each] != changed[each]}
            self.assertEqual({key}, differ)

    def test_no_store(self) -> None:
        """Daemons without an object store miss the files of the others."""
        one, other = (self.settings("web01", node=each) for each in "ab")
        differ = {each for each in one if one[each] != other[each]}
        self.assertEqual({"store"}, differ)

    def test_no_values(self) -> None:
        """Other daemons get no setting, and no token."""
        found = self.settings("web01", max_file_size=123456)
        self.assertNotIn("web01", str(found))
        self.assertNotIn("123456", str(found))
        self.assertEqual({12}, {len(each) for each in found.values()})


class FileTests(SynchronousTestCase):
    def test_alone(self) -> None:
        """The daemon of a catalogue in a file always leads."""
        found = config(node="a")
        member = Member(Clock(), AtOnce, found, Registry(()), at_once)
        self.assertIs(ALONE, member.leader)
        self.assertEqual(("", 1, ()), (member.name, member.term, member.services))
        member.connect(self.fail, self.fail)
        member.see([FULL])
        rival = self.successResultOf(Deferred.fromCoroutine(member.find_rival()))
        self.assertIsNone(rival)


class MemberTests(SynchronousTestCase):
    """A daemon with a catalogue in a database."""

    def setUp(self) -> None:
        self.place = new_database()
        self.clock = Clock()
        self.clock.advance(1000)
        self.calls: list[str] = []
        keys = {"node": "a", "catalogue": {"postgresql": self.place.conninfo}}
        self.config = config("web01", **keys)
        self.registry = Registry(self.config.buckets)
        self.member = Member(
            self.clock,
            lambda most: AtOnce(self.clock),
            self.config,
            self.registry,
            at_once,
        )
        self.member.connect(
            lambda: self.calls.append("reindex"), lambda: self.calls.append("look")
        )
        (self.leadership,) = self.member.services
        self.addCleanup(self.stop)

    def start(self) -> None:
        self.leadership.startService()

    def stop(self) -> None:
        if self.leadership.running:
            self.leadership.stopService()

    def node(self) -> Node:
        """What other daemons see of it, 20 seconds later."""
        # Its clock is the machine's.
        self.patch(self.leadership, "_reported_at", float("-inf"))
        self.clock.advance(2)
        with closing(View.open(self.place)) as view:
            (found,) = view.nodes(NOW)
        return found

    def test_leads(self) -> None:
        self.assertEqual(("a", 0), (self.member.name, self.member.term))
        self.start()
        self.assertEqual(1, self.member.term)
        self.assertEqual(["reindex", "look"], self.calls)
        found = self.node()
        self.assertEqual(("a", True), (found.name, found.leads))
        settings = shared_settings(self.config, self.config.buckets)
        self.assertEqual(
            (__version__, settings), (found.report.version, found.report.settings)
        )

    def test_reload(self) -> None:
        """After a reload it reports the new buckets."""
        self.start()
        before = self.node().report.settings
        buckets = config("web01", "web02").buckets
        self.registry.replace(BucketIndex(buckets))
        after = self.node().report.settings
        self.assertNotEqual(before, after)
        self.assertEqual(shared_settings(self.config, buckets), after)

    def test_problems(self) -> None:
        """It reports its own problems, and no others."""
        self.start()
        other = evolve(FULL, node="b")
        shared = Problem(Kind.FULL, CRITICAL, "its quota is used up", "web01")
        self.member.see([other, shared, FULL])
        self.assertEqual((FULL,), self.node().report.problems)
        self.member.see([])
        self.assertEqual((), self.node().report.problems)

    def test_back(self) -> None:
        """After a crash it finds itself gone at first, and does not report that: the
        others know.
        """
        self.start()
        problems = list(node_problems([node("a", 99.0), node("b")], NOW))
        self.assertEqual(["a"], [each.node for each in problems if each.node])
        self.member.see([FULL, *problems])
        self.assertEqual((FULL,), self.node().report.problems)

    def test_not_for_ever(self) -> None:
        """It does not find again what it has reported only."""
        self.start()
        rival = Problem(Kind.NODE, CRITICAL, "a: another daemon has its name", node="a")
        self.member.see([rival])
        now = self.node().seen
        with closing(View.open(self.place)) as view:
            for name, expected in (("a", []), ("b", [rival])):
                found = find_problems(view, Known((), now, node=name))
                self.assertEqual(expected, [each for each in found if each.node == "a"])

    def test_lost(self) -> None:
        """What a daemon that is gone had not written has to be looked for, once."""
        problems = list(node_problems([node("a"), node("b", 99.0)], NOW))
        self.member.see(problems)
        self.assertEqual([], self.calls)
        self.start()
        self.calls.clear()
        self.member.see([])
        for _ in range(3):
            self.member.see(problems)
            self.assertEqual(["reindex"], self.calls)

    def test_rival(self) -> None:
        """Another daemon with the same name is a problem that the leader reports."""
        self.start()
        other = Election(self.place, "a", "other")
        self.addCleanup(other.close)
        other.report(REPORT, leads=False)
        self.node()
        problem = self.successResultOf(Deferred.fromCoroutine(self.member.find_rival()))
        expected = Problem(Kind.NODE, CRITICAL, "another daemon has the same name")
        self.assertEqual(expected, problem)

    def test_crashed(self) -> None:
        """A daemon that follows one that was killed looks for what that one lost."""
        leader = Election(self.place, "b", "1")
        self.addCleanup(leader.close)
        self.assertTrue(leader.hold())
        before = Election(self.place, "a", "before")
        before.report(REPORT, leads=False)
        before.close()
        self.start()
        self.assertEqual(0, self.member.term)
        self.assertEqual(["reindex"], self.calls)
