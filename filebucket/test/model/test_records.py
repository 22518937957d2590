"""What the catalogue says, as it comes out of SQLite."""

from __future__ import annotations

import math

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.records import File, Received, Tally, or_infinity
from filebucket.model.state import State


class RecordTests(SynchronousTestCase):
    """What columns become."""

    def received(self, **columns: object) -> Received:
        name = "secret-name.gz"
        row = {"bucket": "web01", "series": "s", "name": name, "size": 1, **columns}
        return Received(**{"sha256": "ab", "received_at": 5.0, **row})  # type: ignore[arg-type]

    def test_flags(self) -> None:
        """Numbers, to SQLite, are yes and no."""
        self.assertIs(True, self.received(overwrote=1).overwrote)
        self.assertIs(False, self.received(overwrote=0).overwrote)
        self.assertIs(True, File(1, self.received(), damaged=1).damaged)

    def test_states(self) -> None:
        """And texts are states; others than there are are a bug."""
        for state in State:
            self.assertIs(state, File(1, self.received(), state.value).judgement)
        self.assertRaises(ValueError, File, 1, self.received(), "no state")

    def test_never(self) -> None:
        """What is never due comes after everything."""
        self.assertEqual(5.0, or_infinity(5.0))
        self.assertEqual(0.0, or_infinity(0.0))
        self.assertEqual(math.inf, or_infinity(None))

    def test_names_are_not_shown(self) -> None:
        """There may be a token in one, and a traceback shows what is in it."""
        self.assertNotIn("secret-name", repr(File(1, self.received())))

    def test_nothing(self) -> None:
        """A bucket without a push is late never, and no two share their counters."""
        tally = Tally("web01")
        self.assertEqual((0, None, math.inf), (tally.files, tally.last_at, tally.due))
        tally.states[State.LATE] += 1
        self.assertEqual(0, Tally("db01").states[State.LATE])
