"""Tests of :mod:`filebucket.model.filesystem`."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.filesystem import Filesystem

FINE = Filesystem(total=1000, free=101, reserved=100, read_only=False)


class FaultTests(SynchronousTestCase):
    def test_faults(self) -> None:
        for disk, fault in (
            (FINE, None),
            (evolve(FINE, free=100), "free space is below min_free_space"),
            (evolve(FINE, full_of_files=True), "no free inodes"),
            (evolve(FINE, read_only=True), "the filesystem is read-only"),
            (
                evolve(FINE, free=0, read_only=True),
                "the filesystem is read-only",
            ),
        ):
            self.assertEqual(fault, disk.fault)
