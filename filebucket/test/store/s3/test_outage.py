"""Tests of the looks for an outage of the object store."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.s3.outage import LOOK, Outages
from filebucket.store.s3.publish import PAUSE
from filebucket.store.s3.records import Keys
from filebucket.test.kit.objects import DENIED, LOST, MemoryObjects

ALWAYS = 1000


class OutagesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.names, self.data = MemoryObjects(), MemoryObjects()
        self.names.objects["p/probe/condition"] = b"0"
        self.outages = Outages(self.names, self.data, Keys("p/"), self.clock)

    def find(self, pump: bool = True) -> str | None:
        """Look, and return why the store cannot be used."""
        looking = Deferred.fromCoroutine(self.outages.find())
        for _ in range(int(LOOK / PAUSE) + 1):
            if not looking.called and pump:
                self.clock.advance(PAUSE)
        return self.successResultOf(looking)

    def calls(self) -> list[str]:
        """The calls since the last time."""
        made = [*self.names.calls, *self.data.calls]
        self.names.calls.clear()
        self.data.calls.clear()
        return made

    def test_in_order(self) -> None:
        """Each look only reads, once in each bucket."""
        for _ in range(3):
            self.assertIsNone(self.find(pump=False))
            self.assertEqual(["get p/probe/condition"] * 2, self.calls())
        self.assertEqual({}, self.data.objects)

    def test_hiccup(self) -> None:
        """A gateway that restarts is no outage."""
        self.names.fail("get", times=3)
        self.assertIsNone(self.find())

    def test_no_answer(self) -> None:
        for bucket in (self.names, self.data):
            bucket.fail("get", times=ALWAYS)
            self.assertEqual(str(LOST), self.find())
            self.assertLessEqual(self.clock.seconds(), 2 * LOOK)
            bucket.go_on("get")
            self.assertIsNone(self.find())

    def test_hangs(self) -> None:
        """It ends in time."""
        for _ in range(3):
            self.names.hang("get")
        self.assertEqual("the call was canceled", self.find())
        self.assertLessEqual(self.clock.seconds(), LOOK)

    def test_denied(self) -> None:
        """It is not asked again."""
        self.names.fail("get", DENIED)
        self.assertEqual(str(DENIED), self.find(pump=False))

    def test_only_writing_fails(self) -> None:
        """A push notices that first. It lasts until writing works."""
        self.outages.suspect()
        for bucket, call in ((self.names, "create"), (self.data, "put")):
            bucket.fail(call, DENIED, ALWAYS)
            for _ in range(2):
                self.assertEqual(str(DENIED), self.find(pump=False))
            bucket.go_on(call)
        self.calls()
        self.assertIsNone(self.find(pump=False))
        written = ["get p/probe/condition", "create p/probe/condition"]
        written += ["get p/probe/condition", "put p/probe/outage"]
        self.assertEqual(written, self.calls())
        # Versions of the object would pile up.
        self.assertIsNone(self.find(pump=False))
        self.assertEqual(["get p/probe/condition"] * 2, self.calls())
        self.assertEqual({"p/probe/outage"}, set(self.data.objects))
        self.assertEqual(b"0", self.names.objects["p/probe/condition"])

    def test_suspected_meanwhile(self) -> None:
        """A push that fails during a look counts for the next one."""
        self.names.before = lambda call: self.outages.suspect()
        self.assertIsNone(self.find(pump=False))
        self.calls()
        self.names.before = lambda call: None
        self.assertIsNone(self.find(pump=False))
        self.assertIn("put p/probe/outage", self.calls())
