"""Queues that are served in turn."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.places import Places


class PlacesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines = Places(1)
        self.served: list[str] = []

    def wait(self, key: str, name: str) -> None:
        place = self.lines.acquire(key)
        place.addCallback(lambda _: self.served.append(name))

    def test_free_place(self) -> None:
        lines = Places(2)
        self.successResultOf(lines.acquire("a"))
        self.successResultOf(lines.acquire("b"))
        self.assertNoResult(lines.acquire("c"))

    def test_in_turn(self) -> None:
        for name in ("a1", "a2", "a3", "b1", "b2", "c1", "a4"):
            self.wait(name[0], name)
        for _ in range(6):
            self.lines.release()
        self.assertEqual(["a1", "a2", "b1", "c1", "a3", "b2", "a4"], self.served)

    def test_given_back(self) -> None:
        self.wait("a", "a1")
        self.lines.release()
        self.wait("a", "a2")
        self.wait("b", "b1")
        self.assertEqual(["a1", "a2"], self.served)

    def test_many_leave_at_once(self) -> None:
        """Many that release their place at once do not make the calls deeper and
        deeper.
        """
        self.wait("a", "a")
        for _ in range(5000):
            self.lines.acquire("b").addCallback(lambda _: self.lines.release())
        self.wait("b", "last")
        self.lines.release()
        self.assertEqual(["a", "last"], self.served)
