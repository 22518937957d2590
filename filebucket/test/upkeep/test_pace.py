"""How fast files are read that nobody waits for."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filebucket.upkeep.pace import LONGEST_REST, Pace, Rest, be_idle


class PaceTests(SynchronousTestCase):
    """So many bytes a second."""

    def setUp(self) -> None:
        self.now = 100.0

        def sleep(seconds: float) -> None:
            self.now += seconds

        self.pace = Pace(1000, lambda: self.now, sleep)

    def test_rate(self) -> None:
        """After each piece it waits until it is time for the next."""
        for size, at in ((1000, 100), (500, 100.5), (0, 100.5), (3000, 103.5)):
            self.pace(size)
            self.assertEqual(at, self.now)

    def test_slow_disk(self) -> None:
        """Of what reading took nothing is waited for."""
        self.pace(1000)
        for _ in range(4):
            self.now += 0.75
            self.pace(1000)
        self.assertEqual(104, self.now)

    def test_unused(self) -> None:
        """What nobody used for long does not come in one go."""
        self.pace(1000)
        self.now = 1000
        for at in (1000, 1001, 1002):
            self.pace(1000)
            self.assertEqual(at, self.now)


class RestTests(SynchronousTestCase):
    """As long as it has worked."""

    def setUp(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.rest = Rest(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def test_half(self) -> None:
        """Half of the time is others'."""
        self.rest(1)
        self.slept.clear()
        for worked in (0.25, 0.5, 0.0):
            self.now += worked
            self.rest(1000)
        self.assertEqual([0.25, 0.5, 0.0], self.slept)

    def test_after_something_else(self) -> None:
        """It does not rest from that for long."""
        self.now += 9999
        self.rest(1)
        self.assertEqual([LONGEST_REST], self.slept)


class IdleTests(SynchronousTestCase):
    """Have the processor and the disk only when nobody else wants them."""

    def test_asks(self) -> None:
        """For both, and for the first only where nothing asks for the other."""
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
