"""``filebucket get`` as a process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket.catalogue.view import View
from filebucket.test.kit.children import bounded, shown
from filebucket.test.kit.commands import UpkeepCase
from filebucket.test.kit.integration import ended
from filebucket.test.kit.server import NOBODY, PATIENCE

_WRITES_A_PART = """
import signal
from filebucket.cli.main import main
from filebucket.store.target import Target

write = Target.write

def write_a_part(target, piece):
    write(target, piece[:1000])
    print("1000 bytes", flush=True)
    signal.pause()

Target.write = write_a_part
main()
"""
"""The command, which writes a part of the file, and then waits for a signal."""


class ProcessTests(UpkeepCase):
    """Run by an operator.

    :ivar target: the folder to write into
    """

    def setUp(self) -> None:
        super().setUp()
        self.target = self.folder / "target"
        self.target.mkdir()

    def command(self, *words: str) -> list[str]:
        command = [sys.executable, "-m", "filebucket", "get", "web01"]
        return [*command, *words, "--config", str(self.file)]

    def run_get(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*words),
            cwd=self.target,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )

    def test_stopped(self) -> None:
        """By any signal, in the middle of the file: nothing is left behind."""
        self.push("db", b"x" * 2**20)
        for number, status in (
            (signal.SIGINT, 1),
            (signal.SIGTERM, 1),
            (signal.SIGHUP, 1),
            (signal.SIGKILL, -signal.SIGKILL),
        ):
            process = subprocess.Popen(
                [sys.executable, "-c", _WRITES_A_PART, *self.command()[3:]],
                cwd=self.target,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            with bounded(process):
                assert process.stdout is not None
                self.assertEqual(b"1000 bytes\n", process.stdout.readline())
                process.send_signal(number)
                _, errors = process.communicate(timeout=PATIENCE)
            self.assertEqual(status, process.returncode)
            self.assertIn(errors, (b"", b"\nAborted!\n"))
            self.assertEqual([], os.listdir(self.target))

    def test_full(self) -> None:
        """A limit of the kernel, as a full disk: one line, and nothing is left."""
        self.push("db", b"x" * 2**20)
        ended = subprocess.run(
            ["prlimit", "--fsize=65536", *self.command()],
            cwd=self.target,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        self.assertEqual(
            (1, b"", b"Error: db: File too large\n"),
            (ended.returncode, ended.stdout, ended.stderr),
        )
        self.assertEqual([], os.listdir(self.target))

    def test_closed_pipe(self) -> None:
        """As with ``| head``: no error line, but a failure."""
        self.push("db", b"x" * 2**20)
        for unbuffered in ("", "1"):
            process = subprocess.Popen(
                self.command("-o", "-"),
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            with bounded(process):
                assert process.stdout is not None
                self.assertEqual(b"xxx", process.stdout.read(3))
                process.stdout.close()
                assert process.stderr is not None
                self.assertEqual(b"", process.stderr.read())
                self.assertEqual(1, process.wait(PATIENCE))

    def test_terminal(self) -> None:
        """A client's bytes are not sent to a terminal."""
        self.push("db")
        ours, theirs = os.openpty()
        for each in (ours, theirs):
            self.addCleanup(os.close, each)
        ended = subprocess.run(
            self.command("-o", "-"),
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
            timeout=PATIENCE,
        )
        self.assertEqual(2, ended.returncode)
        self.assertIn(b"standard output is a terminal", ended.stderr)

    def give_to_nobody(self) -> Path:
        """Let another user own the home, which has one file."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        # The owner must be able to get there.
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        self.file = folder / "config.json"
        self.write({"name": "web01", "token": "f" * 32})
        self.home = folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        path = self.push("db")
        for each in (self.home, *self.home.rglob("*")):
            os.chown(each, NOBODY, NOBODY)
            each.chmod(0o700)
        self.target.chmod(0o700)
        return path

    def test_as_root(self) -> None:
        """It reads with the rights of the home's owner, and writes with its own."""
        path = self.give_to_nobody()
        ended = self.run_get()
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        found = self.target / "db"
        self.assertEqual(b"content", found.read_bytes())
        self.assertEqual(0, found.stat().st_uid)
        owners = {each.stat().st_uid for each in (self.home / ".filebucket").iterdir()}
        self.assertEqual({NOBODY}, owners)
        # A file that the owner may not read, and a link to one that root may.
        os.chown(path, 0, 0)
        ended = self.run_get("--overwrite")
        self.assertIn(b"db: Permission denied", ended.stderr)
        path.unlink()
        path.symlink_to(self.file)
        ended = self.run_get("--overwrite")
        self.assertEqual(b"Error: db: not a regular file\n", ended.stderr)
        self.assertEqual(b"content", found.read_bytes())

    def test_drill_as_root(self) -> None:
        """The command has root's rights, and the owner's are used for the catalogue."""
        self.give_to_nobody()
        ended = self.run_get("--exec", "cat >got; id -u >>got")
        self.assertEqual((0, b""), (ended.returncode, ended.stdout))
        self.assertIn(b"restore test passed\n", ended.stderr)
        self.assertEqual(b"content0\n", (self.target / "got").read_bytes())
        owners = {each.stat().st_uid for each in (self.home / ".filebucket").iterdir()}
        self.assertEqual({NOBODY}, owners)

    def test_drill_stopped(self) -> None:
        """By any signal: the command ends with all its processes, and is no result."""
        self.push("db", b"x" * 2**22)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = subprocess.Popen(
                self.command("--exec", "sleep 60 & echo $$ $!; head -c 9; wait"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            with bounded(process):
                assert process.stdout is not None
                pids = [int(each) for each in process.stdout.readline().split()]
                self.assertEqual(b"x" * 9, process.stdout.read(9))
                process.send_signal(number)
                _, errors = process.communicate(timeout=PATIENCE)
            self.assertEqual((1, b"\nAborted!\n"), (process.returncode, errors))
            self.assertEqual(2, len(pids))
            for pid in pids:
                self.assertTrue(ended(pid), pid)
        with closing(View.open(str(self.home))) as view:
            (found,) = view.worst(["web01"], 0.0, 9)["web01"]
            self.assertIsNone(found.drilled_at)

    def test_drill_in_a_terminal(self) -> None:
        """Only what the command prints, and the result."""
        self.push("db")
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            self.command("--exec", "cat; echo; test -t 1 && echo yes"),
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        with bounded(process):
            text = b"".join(shown(ours))
        self.assertRegex(text, rb"^content\r\nyes\r\ndb: 7 B, [^\r]* passed\r\n$")
