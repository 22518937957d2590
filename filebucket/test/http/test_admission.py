"""Which connections are admitted, which wait, and which are dropped."""

from __future__ import annotations

from attrs import define
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.http.admission import DROP_AFTER, Admission

MOST = 3


@define(eq=False)
class Guest:
    """A connection.

    :ivar state: the last call on it
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
    """A port.

    :ivar reading: whether it accepts connections
    """

    reading = True

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class AdmissionTests(SynchronousTestCase):
    """At most three at once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock, MOST)
        self.port = Port()
        self.admission.listens([self.port])

    def come(self, count: int, busy: bool = False) -> list[Guest]:
        """Open this many connections at once."""
        guests = [Guest(busy) for _ in range(count)]
        for guest in guests:
            self.admission.connected(guest)
        return guests

    def assert_states(self, expected: str, *guests: Guest) -> None:
        self.assertEqual(expected.split(), [guest.state for guest in guests])

    def test_room(self) -> None:
        self.assertFalse(self.admission.full)
        guests = self.come(MOST)
        self.assert_states("admitted admitted admitted", *guests)
        self.assertTrue(self.admission.full)
        self.assertTrue(self.port.reading)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_longest_silent_goes_first(self) -> None:
        first, second, third = self.come(MOST)
        self.clock.advance(DROP_AFTER)
        self.admission.answered(first)
        (fourth,) = self.come(1)
        self.assert_states("admitted dropped admitted", first, second, third)
        self.come(1)
        self.assert_states("admitted dropped admitted", first, third, fourth)

    def test_busy_stays(self) -> None:
        (pushing,) = self.come(1, busy=True)
        silent = self.come(2)
        self.clock.advance(1000)
        self.come(2)
        self.assert_states("admitted dropped dropped", pushing, *silent)

    def test_grace(self) -> None:
        """A new connection is not dropped for the next one, which waits."""
        first = self.come(MOST)
        (late,) = self.come(1)
        self.assert_states("held", late)
        self.assertFalse(self.port.reading)
        self.clock.advance(DROP_AFTER)
        self.assert_states("dropped admitted admitted admitted", *first, late)
        self.assertTrue(self.port.reading)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_just_answered(self) -> None:
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
        pushing = self.come(MOST, busy=True)
        first, second = self.come(2)
        self.admission.disconnected(pushing[1])
        self.assert_states("admitted held", first, second)
        self.admission.disconnected(second)
        self.assertTrue(self.port.reading)
        self.assertEqual([pushing[0], pushing[2], first], self.admission.all)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_dropped_leaves(self) -> None:
        """A dropped connection's place is free already: its close frees no other."""
        self.come(MOST)
        self.clock.advance(DROP_AFTER)
        first, *_ = self.admission.all
        self.come(1)
        self.admission.answered(first)
        self.admission.disconnected(first)
        self.assertTrue(self.admission.full)

    def test_becomes(self) -> None:
        """The next protocol keeps the place of the connection; a dropped one
        has none.
        """
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
        """Nothing is admitted, and no closed port is told to accept."""
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
