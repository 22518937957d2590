"""The catalogue's values."""

from __future__ import annotations

import math

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.push import Outcome
from filebucket.model.records import File, Received, Refused, Tally, or_infinity
from filebucket.model.state import State


class RecordTests(SynchronousTestCase):
    """Conversion from columns."""

    def received(self, **columns: object) -> Received:
        name = "secret-name.gz"
        row = {"bucket": "web01", "series": "s", "name": name, "size": 1, **columns}
        return Received(**{"sha256": "ab", "received_at": 5.0, **row})  # type: ignore[arg-type]

    def test_flags(self) -> None:
        """SQLite's numbers become booleans."""
        self.assertIs(True, self.received(overwrote=1).overwrote)
        self.assertIs(False, self.received(overwrote=0).overwrote)
        self.assertIs(True, File(1, self.received(), damaged=1).damaged)

    def test_states(self) -> None:
        """SQLite's texts become states; an unknown one is a bug."""
        for state in State:
            self.assertIs(state, File(1, self.received(), state.value).judgement)
        self.assertRaises(ValueError, File, 1, self.received(), "no state")

    def test_never(self) -> None:
        """A series that is never due comes last."""
        self.assertEqual(5.0, or_infinity(5.0))
        self.assertEqual(0.0, or_infinity(0.0))
        self.assertEqual(math.inf, or_infinity(None))

    def test_names_are_not_shown(self) -> None:
        """A name may contain a token, and a traceback shows the ``repr``."""
        self.assertNotIn("secret-name", repr(File(1, self.received())))

    def test_nothing(self) -> None:
        """Without a push, a bucket is never late, and counters are not shared."""
        tally = Tally("web01")
        self.assertEqual((0, None, math.inf), (tally.files, tally.last_at, tally.due))
        tally.states[State.LATE] += 1
        self.assertEqual(0, Tally("db01").states[State.LATE])


class OutcomeTests(SynchronousTestCase):
    """Values of a push."""

    def test_published(self) -> None:
        outcome = Outcome(
            "r", "web01", "192.0.2.1:9", "db-1.gz", 7, "ab", True, 200, None, 1.5
        )
        outcome.pre_push, outcome.post_push, outcome.superseded = 0, 3, True
        outcome.published_at, outcome.parts = 5.0, 2
        self.assertEqual(
            Received(
                bucket="key",
                series="db-#.gz",
                name="db-1.gz",
                size=7,
                sha256="ab",
                received_at=5.0,
                seconds=1.5,
                client="192.0.2.1:9",
                overwrote=True,
                pre_push=0,
                post_push=3,
                request="r",
                parts=2,
                superseded=True,
            ),
            Received.of(outcome, "key", "db-1.gz", "db-#.gz", 9.0),
        )
        outcome.published_at = None
        received = Received.of(outcome, "key", "db-1.gz", "db-#.gz", 9.0)
        self.assertEqual(9.0, received.received_at)

    def test_refused(self) -> None:
        outcome = Outcome("r", "-", "192.0.2.1:9", "x", 7, status=405, reason="exists")
        self.assertEqual(
            Refused("", 9.0, "x", 7, 405, "exists", "192.0.2.1:9", "r"),
            Refused.of(outcome, "", 9.0),
        )
