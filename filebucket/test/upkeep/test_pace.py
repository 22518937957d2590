"""Rates and priorities of reads in the background."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.upkeep.pace import LONGEST_REST, Pace, Rest, be_idle


class PaceTests(SynchronousTestCase):
    """A limit in bytes per second."""

    def setUp(self) -> None:
        self.now = 100.0

        def sleep(seconds: float) -> None:
            self.now += seconds

        self.pace = Pace(1000, lambda: self.now, sleep)

    def test_rate(self) -> None:
        """After each read it waits for the time of the next."""
        for size, at in ((1000, 100), (500, 100.5), (0, 100.5), (3000, 103.5)):
            self.pace(size)
            self.assertEqual(at, self.now)

    def test_slow_disk(self) -> None:
        """A slow read leaves nothing to wait for."""
        self.pace(1000)
        for _ in range(4):
            self.now += 0.75
            self.pace(1000)
        self.assertEqual(104, self.now)

    def test_unused(self) -> None:
        """Unused time does not add up to a burst."""
        self.pace(1000)
        self.now = 1000
        for at in (1000, 1001, 1002):
            self.pace(1000)
            self.assertEqual(at, self.now)


class RestTests(SynchronousTestCase):
    """Rests as long as it has worked."""

    def setUp(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.rest = Rest(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def test_half(self) -> None:
        """Half of the time is left to others."""
        self.rest(1)
        self.slept.clear()
        for worked in (0.25, 0.5, 0.0):
            self.now += worked
            self.rest(1000)
        self.assertEqual([0.25, 0.5, 0.0], self.slept)

    def test_after_something_else(self) -> None:
        """Other work before a read does not make the rest long."""
        self.now += 9999
        self.rest(1)
        self.assertEqual([LONGEST_REST], self.slept)


class IdleTests(SynchronousTestCase):
    """Idle priority."""

    def test_asks(self) -> None:
        """For processor and disk; for the processor only if there is no ``ionice``."""
        nice: list[int] = []
        ran: list[list[str]] = []

        def run(command: list[str], **given: Any) -> None:
            ran.append(command)

        self.patch(os, "nice", nice.append)
        self.patch(subprocess, "run", run)
        for found, commands in (
            (None, []),
            (
                "/x/ionice",
                [["/x/ionice", "--class", "idle", "--pid", str(os.getpid())]],
            ),
        ):
            self.patch(shutil, "which", lambda name, found=found: found)
            be_idle()
            self.assertEqual(commands, ran)
        self.assertEqual([19, 19], nice)
