"""Exit statuses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.client import errors, main


class StatusTests(SynchronousTestCase):
    def test_documented(self) -> None:
        """The help lists each exit status."""
        kinds = {
            each
            for each in vars(errors).values()
            if isinstance(each, type) and issubclass(each, errors.PushError)
        }
        self.assertEqual({1, 2, 3, 75}, {each.status for each in kinds})
        for status in (0, *(each.status for each in kinds)):
            self.assertRegex(main._EPILOG, rf"\n  {status} +\w")
