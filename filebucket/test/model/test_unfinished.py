"""Tests of :mod:`filebucket.model.unfinished`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.unfinished import Unfinished


class UnfinishedTests(SynchronousTestCase):
    """Resumable uploads as values."""

    def test_repr_hides_secrets(self) -> None:
        """Neither the id nor the digest of the token is shown."""
        upload = Unfinished(
            id="0123456789abcdef" * 2,
            bucket="web01",
            token="fedcba9876543210" * 4,
            name="db.gz",
            request="00",
            created_at=0.0,
            touched_at=0.0,
            sha256="",
            promised={"sha256": "ab" * 32},
            metadata="filename ZGIuZ3o=",
        )
        shown = repr(upload)
        self.assertIn("db.gz", shown)
        for secret in (upload.id, upload.token, upload.metadata):
            self.assertNotIn(secret, shown)
        self.assertEqual({"sha256": b"\xab" * 32}, upload.digests())
