"""``filebucket verify`` and ``reindex`` as processes."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.children import bounded, shown
from filebucket.test.kit.commands import DAY, UpkeepCase
from filebucket.test.kit.integration import need
from filebucket.test.kit.server import NOBODY, PATIENCE


class RealTests(UpkeepCase):
    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "filebucket", *words, "--config", str(self.file)]

    def test_stopped(self) -> None:
        """It runs at idle priority, is stopped by Ctrl-C, and resumes."""
        self.push("good", age=4 * DAY)
        self.damage(self.push("damaged", b"two", age=3 * DAY))
        self.push("large", b"x" * 2**20, age=2 * DAY)
        verifying = subprocess.Popen(
            self.command("verify", "--rate", "1kB"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with bounded(verifying) as process:
            assert process.stdout is not None
            # Then it reads the large file, and waits.
            self.assertIn("damaged", process.stdout.readline())
            self.assertEqual(19, os.getpriority(os.PRIO_PROCESS, process.pid))
            if shutil.which("ionice"):
                asked = ["ionice", "--pid", str(process.pid)]
                said = subprocess.run(
                    asked, check=True, capture_output=True, text=True, timeout=PATIENCE
                )
                self.assertEqual("idle\n", said.stdout)
            process.send_signal(signal.SIGINT)
            self.assertEqual("", process.stdout.read())
            self.assertEqual(1, process.wait(PATIENCE))
        files = self.files()
        self.assertIsNotNone(files["good"].verified_at)
        self.assertTrue(files["damaged"].damaged)
        self.assertIsNone(files["large"].verified_at)

    def test_sums(self) -> None:
        """``sha256sum -c`` accepts its output, for any name."""
        need("sha256sum")
        for name in ("a 1", "\u00fc", "-c 'x' *"):
            self.push(name)
        sums = str(self.folder / "sums")
        write = self.command("verify", "--sha256sums", sums)
        subprocess.run(write, check=True, timeout=PATIENCE)
        said = subprocess.run(
            ["sha256sum", "-c", sums],
            cwd=self.home,
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        ).stdout
        self.assertEqual(3, said.count(b": OK\n"), said)

    def test_terminal(self) -> None:
        """A progress bar is shown, and lines are complete."""
        self.push("a" * 20, b"x" * 2**20)
        self.damage(self.push("b"))
        self.put("c")
        for word in ("verify", "reindex"):
            output = b"".join(self.in_terminal(word)).decode()
            self.assertRegex(output, r"\[#+\] +100%")
            if word == "verify":
                lines = output.replace("\x1b[?25h", "").split("\r\n")
                self.assertTrue(
                    any(
                        line.rpartition("\x1b[K")[2].endswith(
                            "  web01  b: content differs from what was received"
                        )
                        for line in lines
                    ),
                    lines,
                )

    def in_terminal(self, word: str) -> Iterator[bytes]:
        ours, theirs = pty.openpty()
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        with bounded(
            subprocess.Popen(
                self.command(word), stdout=theirs, stderr=theirs, env=environ
            )
        ):
            os.close(theirs)
            yield from shown(ours)

    def test_as_root(self) -> None:
        """Root changes to the home's owner, but writes a list with its own rights."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        # The owner must be able to get there.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.file = self.folder / "config.json"
        self.write({"name": "web01", "token": "f" * 32})
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        self.push("a")
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        theirs = self.folder / "root"
        theirs.mkdir(0o700)
        sums = theirs / "SHA256SUMS"
        for words in (["reindex"], ["verify"], ["verify", "--sha256sums", str(sums)]):
            ended = subprocess.run(
                self.command(*words), capture_output=True, check=False, timeout=PATIENCE
            )
            self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        self.assertEqual(0, sums.stat().st_uid)
        self.assertIn("  web01/a\n", sums.read_text())
        owners = {each.stat().st_uid for each in (self.home / ".filebucket").iterdir()}
        self.assertEqual({NOBODY}, owners)
