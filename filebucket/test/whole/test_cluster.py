"""Tests of the daemons behind HAProxy that ``make cluster`` starts."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.programs import answers, found
from filebucket.test.kit.server import PATIENCE, comes

_KILLED = """\
import os, signal, sys
from pathlib import Path
from filebucket.test.kit.cluster import Cluster
cluster = Cluster(Path(sys.argv[1]), None, None).start()
print(*cluster.pages.values(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


class ClusterTests(SynchronousTestCase):
    def test_killed(self) -> None:
        """All of it ends with the process that started it, even if that is killed."""
        found("haproxy", "HAProxy")
        # The path of HAProxy's socket has to be short.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, folder],
            check=False,
            stdout=subprocess.PIPE,
            text=True,
            timeout=6 * PATIENCE,
        )
        pages = done.stdout.split()
        self.assertEqual((-signal.SIGKILL, 3), (done.returncode, len(pages)))
        self.assertTrue(comes(lambda: not any(map(answers, pages))))
