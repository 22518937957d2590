"""Settings of an object store."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.objects import LEAST_PART, MOST_PART, S3


class S3Tests(SynchronousTestCase):
    def test_part_size(self) -> None:
        """The default is one that could be configured."""
        part_size = S3(("https://s3.example.org",), "names", "data").part_size
        self.assertTrue(LEAST_PART <= part_size <= MOST_PART)
