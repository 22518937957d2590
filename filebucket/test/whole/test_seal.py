"""Sealing with a real kernel. No file of these tests is ever immutable: ``proofs`` has
filesystems of its own for that."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.test.kit.server import NOBODY, PATIENCE

_KEEP = """
import os
from filebucket.base.owner import become_owner_of
become_owner_of({home!r}, ".filebucket", {keep})
print(os.getresuid(), open("/proc/self/status").read())
"""


class CapabilityTests(SynchronousTestCase):
    """The rights that ``filebucket prune`` keeps of root's."""

    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root can give rights up")
        self.home = os.path.abspath(self.mktemp())
        os.mkdir(self.home)
        os.chown(self.home, NOBODY, NOBODY)

    def said(self, keep: int | None) -> str:
        code = _KEEP.format(home=self.home, keep=keep)
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout

    def test_one_is_left(self) -> None:
        """CAP_LINUX_IMMUTABLE, and no user but the owner to go back to. A program that
        prune would start has none."""
        said = self.said(9)
        self.assertIn(f"({NOBODY}, {NOBODY}, {NOBODY})", said)
        for name, number in (("Prm", 0x200), ("Eff", 0x200), ("Inh", 0), ("Amb", 0)):
            self.assertIn(f"Cap{name}:\t{number:016x}\n", said)

    def test_none_is_left(self) -> None:
        """Other commands keep nothing."""
        said = self.said(None)
        for name in ("Prm", "Eff"):
            self.assertIn(f"Cap{name}:\t{0:016x}\n", said)
