"""Who is admitted, who waits, and who makes room."""

from __future__ import annotations

from attrs import define
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.http.admission import DROP_AFTER, Admission

MOST = 3


@define(eq=False)
class Guest:
    """A connection.

    :ivar state: what it was told last
    """

    busy: bool = False
    state: str = "new"

    def hold(self) -> None:
        self.state = "held"

    def admit(self) -> None:
        self.state = "admitted"

    def drop(self) -> None:
        self.state = "dropped"


class Port:
    """What connections come from.

    :ivar reading: whether they are taken
    """

    reading = True

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class AdmissionTests(SynchronousTestCase):
    """Up to three at once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock, MOST)
        self.port = Port()
        self.admission.listens([self.port])

    def come(self, count: int, busy: bool = False) -> list[Guest]:
        """So many, at once."""
        guests = [Guest(busy) for _ in range(count)]
        for guest in guests:
            self.admission.connected(guest)
        return guests

    def assert_states(self, expected: str, *guests: Guest) -> None:
        self.assertEqual(expected.split(), [guest.state for guest in guests])

    def test_room(self) -> None:
        """All that there is room for."""
        self.assertFalse(self.admission.full)
        guests = self.come(MOST)
        self.assert_states("admitted admitted admitted", *guests)
        self.assertTrue(self.admission.full)
        self.assertTrue(self.port.reading)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_longest_silent_goes_first(self) -> None:
        """In the order of their coming, or of their last answer."""
        first, second, third = self.come(MOST)
        self.clock.advance(DROP_AFTER)
        self.admission.answered(first)
        (fourth,) = self.come(1)
        self.assert_states("admitted dropped admitted", first, second, third)
        self.come(1)
        self.assert_states("admitted dropped admitted", first, third, fourth)

    def test_busy_stays(self) -> None:
        """Nobody with a push is dropped, however long it takes."""
        (pushing,) = self.come(1, busy=True)
        silent = self.come(2)
        self.clock.advance(1000)
        self.come(2)
        self.assert_states("admitted dropped dropped", pushing, *silent)

    def test_grace(self) -> None:
        """Who has just come is not dropped for who comes next: that one waits."""
        first = self.come(MOST)
        (late,) = self.come(1)
        self.assert_states("held", late)
        self.assertFalse(self.port.reading)
        self.clock.advance(DROP_AFTER)
        self.assert_states("dropped admitted admitted admitted", *first, late)
        self.assertTrue(self.port.reading)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_just_answered(self) -> None:
        """Who was just answered has a moment to read it."""
        guests = self.come(MOST, busy=True)
        self.clock.advance(1000)
        (late,) = self.come(1)
        guests[1].busy = False
        self.admission.answered(guests[1])
        self.clock.advance(DROP_AFTER / 2)
        self.assert_states("held", late)
        self.clock.pump([DROP_AFTER / 2, DROP_AFTER])
        self.assert_states("admitted dropped admitted admitted", *guests, late)

    def test_burst(self) -> None:
        """Of many that come at once while all push, none is dropped."""
        pushing = self.come(MOST, busy=True)
        line = self.come(20)
        self.assert_states("held " * 20, *line)
        self.clock.advance(1000)
        self.assert_states("held " * 20, *line)
        for guest in pushing:
            self.admission.disconnected(guest)
        self.assert_states("admitted admitted admitted held", *line[:4])
        self.assertFalse(self.port.reading)

    def test_leaves(self) -> None:
        """Places become free, in the order of the line."""
        pushing = self.come(MOST, busy=True)
        first, second = self.come(2)
        self.admission.disconnected(pushing[1])
        self.assert_states("admitted held", first, second)
        self.admission.disconnected(second)
        self.assertTrue(self.port.reading)
        self.assertEqual([pushing[0], pushing[2], first], self.admission.all)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_dropped_leaves(self) -> None:
        """It had no place any more: its leaving makes no other."""
        self.come(MOST)
        self.clock.advance(DROP_AFTER)
        first, *_ = self.admission.all
        self.come(1)
        self.admission.answered(first)
        self.admission.disconnected(first)
        self.assertTrue(self.admission.full)

    def test_becomes(self) -> None:
        """What another becomes has its place; of one that was dropped there is none."""
        first, *_ = self.come(MOST, busy=True)
        (late,) = self.come(1)
        following, another = Guest(busy=True), Guest()
        self.admission.hand_over(first, lambda: self.admission.connected(following))
        self.assert_states("admitted held", following, late)
        self.admission.hand_over(first, lambda: self.admission.connected(another))
        self.assert_states("admitted held held", following, late, another)
        self.admission.disconnected(following)
        self.assert_states("admitted held", late, another)

    def test_stop(self) -> None:
        """Nobody is admitted, and no port that was closed is told to take more."""
        pushing = self.come(MOST, busy=True)
        (late,) = self.come(1)
        self.admission.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.admission.disconnected(pushing[0])
        self.admission.disconnected(pushing[1])
        self.assert_states("held", late)
        self.assertFalse(self.port.reading)
        self.assertEqual([pushing[2], late], self.admission.all)
        self.admission.stop()
