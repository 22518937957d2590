"""Tests of :mod:`filebucket.store.count`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import FILE_COST, quota_taken
from filebucket.store import count as module
from filebucket.store.count import count, taken_by
from filebucket.test.kit.descriptors import open_descriptors


class CountTests(SynchronousTestCase):
    """A folder, counted two entries at a time."""

    def setUp(self) -> None:
        self.patch(module, "AT_ONCE", 2)
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.fd = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)

    def test_empty(self) -> None:
        self.assertEqual([], list(count(self.fd)))

    def test_some_at_a_time(self) -> None:
        """The steps add up; entries other than files take nothing."""
        for size in range(5):
            (self.folder / f"{size}").write_bytes(bytes(size))
        (self.folder / "folder").mkdir()
        (self.folder / "link").symlink_to("4")
        os.mkfifo(self.folder / "fifo")
        steps = list(count(self.fd))
        self.assertEqual(4, len(steps))
        self.assertEqual(quota_taken(5, 10), sum(steps))

    def test_gone_meanwhile(self) -> None:
        """A file that was removed after the folder was read takes nothing."""
        paths = [self.folder / name for name in "abcd"]
        for path in paths:
            path.touch()
        counting = count(self.fd)
        taken = next(counting)
        for path in paths:
            path.unlink()
        self.assertEqual(2 * FILE_COST, taken + sum(counting))

    def test_given_up(self) -> None:
        """An unfinished count leaves nothing open."""
        for name in "abc":
            (self.folder / name).touch()
        before = open_descriptors()
        counting = count(self.fd)
        next(counting)
        self.assertEqual(1, len(open_descriptors() - before))
        counting.close()
        self.assertEqual(set(), open_descriptors() - before)

    def test_one(self) -> None:
        """An empty file takes something, too."""
        (self.folder / "empty").touch()
        self.assertEqual(FILE_COST, taken_by(os.stat(self.folder / "empty")))
        self.assertEqual(0, taken_by(os.stat(self.folder)))
