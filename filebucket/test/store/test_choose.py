"""Where stored files are."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.archive import DirectoryArchive
from filebucket.store.choose import archive_of


class ChooseTests(SynchronousTestCase):
    def test_home(self) -> None:
        self.assertEqual(DirectoryArchive("/srv"), archive_of("/srv", None))
