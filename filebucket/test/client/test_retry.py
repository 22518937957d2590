"""When a push is tried again, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.client.errors import GaveUpError
from filebucket.client.retry import LONGEST_DELAY, Patience


class PatienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, float]] = []

    def patience(self, most: float, chance: float = 0.0) -> Patience:
        return Patience(
            most,
            lambda reason, delay: self.told.append((reason, delay)),
            self.clock.seconds,
            self.clock.advance,
            lambda: chance,
        )

    def waits(self, patience: Patience, times: int) -> list[float]:
        """The seconds of the next waits."""
        before = len(self.told)
        for _ in range(times):
            patience.wait("refused")
        return [delay for _, delay in self.told[before:]]

    def reason_to_give_up(self, wait: Callable[[], None]) -> str:
        return str(self.assertRaises(GaveUpError, wait))

    def test_delays(self) -> None:
        """They double up to a minute."""
        patience = self.patience(1000)
        expected = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        self.assertEqual(expected, self.waits(patience, 8))
        self.assertEqual(sum(expected), self.clock.seconds())
        self.assertEqual(8, patience.tries)
        self.assertEqual({"refused"}, {reason for reason, _ in self.told})

    def test_jitter(self) -> None:
        """At most half of a delay is left out."""
        self.assertEqual([0.5, 1.0, 2.0], self.waits(self.patience(1000, 1.0), 3))
        self.assertEqual([0.75, 1.5, 3.0], self.waits(self.patience(1000, 0.5), 3))

    def test_real_chance(self) -> None:
        """The default differs between clients."""
        found = set()
        for _ in range(5):
            Patience(9.0, lambda _, delay: found.add(delay), sleep=lambda _: None).wait(
                ""
            )
        self.assertGreater(len(found), 1)
        self.assertTrue(all(0.5 <= each <= 1 for each in found), found)

    def test_at_least(self) -> None:
        """The server may ask for a longer delay, and not for a shorter one."""
        patience = self.patience(1000)
        patience.wait("busy", 17.0)
        patience.wait("busy", 0.1)
        self.assertEqual([("busy", 17.0), ("busy", 2.0)], self.told)

    def test_for_weeks(self) -> None:
        """A thousand failures in a row are a number that can be doubled, too."""
        patience = self.patience(90 * 86400)
        self.assertEqual(LONGEST_DELAY, self.waits(patience, 1100)[-1])

    def test_gives_up(self) -> None:
        """The last try is at the end of the time, and none after it."""
        patience = self.patience(10)
        self.assertEqual([1.0, 2.0, 4.0, 3.0], self.waits(patience, 4))
        self.assertEqual(
            "gave up after 10 s without progress: no route",
            self.reason_to_give_up(lambda: patience.wait("no route")),
        )
        self.assertEqual(10.0, self.clock.seconds())
        self.assertEqual(5, patience.tries)

    def test_asked_for_too_long(self) -> None:
        """It does not wait in vain."""
        patience = self.patience(90)
        self.assertEqual(
            "gave up after 1.5 min without progress: full",
            self.reason_to_give_up(lambda: patience.wait("full", 91.0)),
        )
        self.assertEqual(0.0, self.clock.seconds())

    def test_once(self) -> None:
        """Without time there is one try."""
        patience = self.patience(0)
        self.assertEqual(
            "gave up after 0 s without progress: no",
            self.reason_to_give_up(lambda: patience.wait("no")),
        )
        self.assertEqual([], self.told)

    def test_progress(self) -> None:
        """It begins the delays and the time anew."""
        patience = self.patience(10)
        self.waits(patience, 4)
        patience.progress()
        self.assertEqual([1.0, 2.0, 4.0, 3.0], self.waits(patience, 4))

    def test_slow_request(self) -> None:
        """The time begins with the first failure: a request, or a command that prints
        nothing for hours, may take longer than that.
        """
        patience = self.patience(7200)
        self.clock.advance(3 * 3600)
        self.assertEqual([1.0], self.waits(patience, 1))
        patience.progress()
        self.clock.advance(3 * 3600)
        self.assertEqual([1.0], self.waits(patience, 1))
        self.clock.advance(7200)
        self.assertEqual(
            "gave up after 2 h without progress: cut",
            self.reason_to_give_up(lambda: patience.wait("cut")),
        )
