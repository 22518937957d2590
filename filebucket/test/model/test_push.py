"""Outcomes of pushes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket
from filebucket.model.push import Outcome
from filebucket.model.token import Token


class OutcomeTests(SynchronousTestCase):
    """Defaults."""

    def test_our_fault(self) -> None:
        """A push without an answer is a 500, and nothing is stored."""
        outcome = Outcome("r", "web01", "1.2.3.4:5")
        self.assertEqual(500, outcome.status)
        self.assertIsNone(outcome.sha256)
        self.assertIsNone(outcome.published_at)

    def test_shows_no_token(self) -> None:
        """The bucket's folder may be a token."""
        secret = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"
        bucket = Bucket((Token(b""),), secret)
        outcome = Outcome("r", bucket.label, "1.2.3.4:5", config=bucket)
        self.assertNotIn(secret, repr(outcome))
        self.assertNotIn("config", repr(outcome))

    def test_own_headers(self) -> None:
        """Headers are not shared between outcomes."""
        Outcome("r", "-", "local").headers["Allow"] = "POST, PUT"
        self.assertEqual({}, Outcome("s", "-", "local").headers)
