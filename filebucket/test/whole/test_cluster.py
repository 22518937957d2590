"""Tests of the daemons behind HAProxy that ``make cluster`` starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.children import bounded
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

# Ceph's programs are tied to it, as all others are.
_BESIDE = """\
import sys
from filebucket.test.kit import ceph
class Fake:
    urls = ["http://127.0.0.1:9"]
    def __init__(self, folder):
        folder.mkdir()
    def start(self):
        pass
    def stop(self):
        print("stopped", flush=True)
ceph.Ceph = Fake
sys.argv[1:] = ["sh", "-c", "echo $$; exec sleep 600"]
ceph.main()
"""


class BesideTests(SynchronousTestCase):
    def test_ended(self) -> None:
        """Nothing is left of a command beside Ceph, and of Ceph, if they are ended."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        started = subprocess.Popen(
            [sys.executable, "-c", _BESIDE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        with bounded(started) as process:
            assert process.stdout is not None
            command = Path("/proc") / process.stdout.readline().strip()
            self.assertEqual(1, len(os.listdir(folder)))
            process.terminate()
            out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(("stopped\n", []), (out, os.listdir(folder)))
        # The kernel kills it, which it does when the processor has time.
        self.assertTrue(comes(lambda: not command.exists()))


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
