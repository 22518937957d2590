"""``filebucket status`` and ``log`` as processes, with and without a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket import __version__
from filebucket.catalogue.database import FILE
from filebucket.catalogue.journal import Journal
from filebucket.cli.main import COMMANDS
from filebucket.config.load import parse
from filebucket.model.records import Received
from filebucket.test.kit.children import bounded, shown
from filebucket.test.kit.server import NOBODY, PATIENCE

NAME = f"日本-\x1b[31m-\u202e-{'x' * 100}.gz"


def _lines(program: str) -> list[str]:
    """The output of a program in Python."""
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return found.stdout.splitlines()


class ProcessTests(SynchronousTestCase):
    """Called by an operator or a monitoring system."""

    def setUp(self) -> None:
        # In a folder that other users can enter.
        self.folder = Path(tempfile.mkdtemp(prefix="filebucket-"))
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder)
        self.home = self.folder / "home"
        (self.home / ".filebucket").mkdir(parents=True)
        self.file = self.folder / "config.json"
        buckets = [{"name": "web01", "token_sha256": "01" * 32, "expect": "26h"}]
        content = {"home": "home", "min_free_space": 0, "buckets": buckets}
        self.file.write_text(json.dumps(content))
        (bucket,) = parse(self.file.read_text(), str(self.file)).buckets
        journal = Journal.open(str(self.home))
        for days in (3, 2):
            push = Received(
                *("web01", NAME, NAME, 1000, "ab" * 32),
                time.time() - days * 86400,
                *(0.5, "192.0.2.7:5000"),
                request="r",
            )
            journal.record([push], [], lambda key: bucket)
        list(journal.watch([bucket], lambda name: name, time.time()))
        journal.close()

    def run_(self, *words: str, **environment: str) -> tuple[int, str]:
        """The exit status, and the output to a pipe."""
        found = subprocess.run(
            [sys.executable, "-m", "filebucket", *words, "--config", str(self.file)],
            env={**os.environ, "COLUMNS": "", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        return found.returncode, found.stdout.decode()

    def run_in_terminal(self, columns: int, *words: str) -> tuple[int, str]:
        """The exit status, and the output to a terminal."""
        ours, theirs = pty.openpty()
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        process = subprocess.Popen(
            [sys.executable, "-m", "filebucket", *words, "--config", str(self.file)],
            env={**os.environ, "COLUMNS": "", "LC_ALL": "C.UTF-8"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        with bounded(process):
            output = b"".join(shown(ours))
        return process.returncode, output.decode().replace("\r\n", "\n")

    def test_pipe(self) -> None:
        """No colors, and nothing is cut."""
        status, output = self.run_("status")
        self.assertEqual(2, status, output)
        head, line, *_ = output.splitlines()
        self.assertTrue(head.startswith("BUCKET  SERIES "), head)
        self.assertIn("x" * 100 + ".gz  late ", line)
        self.assertTrue(line.isprintable(), line)
        status, output = self.run_("log")
        self.assertEqual((0, 3), (status, len(output.splitlines())))

    def test_terminal(self) -> None:
        """Colors, and lines that fit."""
        status, output = self.run_in_terminal(80, "status")
        self.assertEqual(2, status, output)
        line = output.splitlines()[1]
        self.assertTrue(line.startswith("\x1b[31mweb01   \u65e5\u672c-\\x1b"), line)
        self.assertTrue(line.endswith("\x1b[0m"), line)
        plain = line.removeprefix("\x1b[31m").removesuffix("\x1b[0m")
        self.assertTrue(plain.isprintable(), plain)
        self.assertIn("\u2026", plain)
        # Two of its characters take two columns each.
        self.assertLessEqual(len(plain) + 2, 80)

    def test_other_alphabet(self) -> None:
        """A terminal without those characters is no reason to fail."""
        status, output = self.run_("status", "--line", PYTHONIOENCODING="latin-1")
        self.assertEqual(2, status, output)
        self.assertIn("web01: \\u65e5\\u672c-", output)

    def test_reader_goes_away(self) -> None:
        """As ``| head -1`` does: no traceback."""
        words = f"{sys.executable} -m filebucket log --json --config {self.file}"
        found = subprocess.run(
            f"({words}; echo >&2 $?) | true",
            shell=True,
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        self.assertNotIn(b"Traceback", found.stderr)

    def test_version_needs_little(self) -> None:
        """The start of each command is that of ``filebucket --version``."""
        slow = {"asyncio", "attr", "cattrs", "importlib.metadata", "jinja2"}
        slow |= {"pkg_resources", "sqlite3", "ssl", "twisted", "zope.interface"}
        program = (
            "import atexit, sys\n"
            "from filebucket.cli.main import main\n"
            f"atexit.register(lambda: print(*{slow} & set(sys.modules)))\n"
            "main(['--version'], prog_name='filebucket')"
        )
        self.assertEqual([f"filebucket, version {__version__}", ""], _lines(program))

    def test_daemon_needs_no_pages(self) -> None:
        """Without an admin listener, it does not wait for them at its start, nor for
        libraries of stores that it does not use.
        """
        slow = {"boto3", "botocore", "jinja2", "prometheus_client", "psycopg"}
        program = (
            "import sys\n"
            "from filebucket import tap\n"
            f"tap.makeService({{'config': {str(self.file)!r}}})\n"
            f"print(*{slow} & set(sys.modules))"
        )
        self.assertEqual([""], _lines(program))

    def test_only_what_it_needs(self) -> None:
        """It imports little: it must be quick enough to run every minute."""
        program = (
            "import sys\n"
            "from filebucket.cli.main import COMMANDS, main\n"
            "print(*[main.get_command(None, name).name for name in COMMANDS])\n"
            "print(*{'twisted.internet.reactor', 'OpenSSL', 'filebucket.tap'}"
            " & set(sys.modules))"
        )
        self.assertEqual([" ".join(COMMANDS), ""], _lines(program))

    def test_cannot_be_printed(self) -> None:
        """Each command reports it in a line on stderr, if it can, and fails."""
        commands = (
            ["--help"],
            ["--version"],
            ["status"],
            ["status", "--line"],
            ["status", "--json"],
            ["status", "--help"],
            ["status", "nobody"],
            ["log"],
            ["log", "--json"],
            ["bucket", "list"],
            ["bucket", "list", "--json"],
            ["bucket", "add", "new"],
            ["bucket", "rotate", "new"],
            ["bucket", "remove", "new"],
            ["check"],
            ["check", "--json"],
            ["reindex"],
            ["verify"],
            ["verify", "--json"],
            ["prune"],
            ["token-hash"],
        )
        for words in commands:
            status = 3 if words[0] == "status" else 1
            ended = self.into_full(*words, stderr=subprocess.PIPE)
            line = "Error: cannot print: No space left on device\n"
            if words[-1] == "nobody":
                line = ended.stderr
                self.assertIn("there is no bucket", line)
            self.assertEqual((status, line), (ended.returncode, ended.stderr), words)
            ended = self.into_full(*words, stderr=subprocess.STDOUT)
            self.assertEqual(status, ended.returncode, words)

    def into_full(self, *words: str, stderr: int) -> subprocess.CompletedProcess[str]:
        """With a stdout that is full."""
        config = [] if words[0][:2] in {"--", "to"} else ["--config", str(self.file)]
        with open("/dev/full", "w") as full:
            return subprocess.run(
                [sys.executable, "-m", "filebucket", *words, *config],
                input="0123456789abcdef0123456789abcdef\n",
                stdout=full,
                stderr=stderr,
                text=True,
                check=False,
                timeout=PATIENCE,
            )

    def test_nobody_reads(self) -> None:
        """A reader that stops early causes no message."""
        for words, status in (("status", 3), ("status --json", 3), ("log", 1)):
            read, write = os.pipe()
            os.close(read)
            ended = subprocess.run(
                [
                    *(sys.executable, "-m", "filebucket", *words.split()),
                    *("--config", str(self.file)),
                ],
                stdout=write,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
            os.close(write)
            self.assertEqual((status, ""), (ended.returncode, ended.stderr), words)

    def test_root(self) -> None:
        """Root changes to the home's owner."""
        if os.geteuid():
            raise SkipTest("only root can give rights up")
        os.chown(self.home, NOBODY, NOBODY)
        self.assertEqual(3, self.run_("status")[0], "what root made is not nobody's")
        for path in (self.home / ".filebucket", self.home / FILE):
            os.chown(path, NOBODY, NOBODY)
        self.assertEqual(2, self.run_("status")[0])
        self.assertEqual(0, self.run_("log")[0])
        left = {path.stat().st_uid for path in (self.home / ".filebucket").iterdir()}
        self.assertEqual({NOBODY}, left)

    def test_home_is_roots(self) -> None:
        """A user with write access, such as the daemon's, cannot redirect root."""
        if os.geteuid():
            raise SkipTest("only root can give rights up")
        self.home.chmod(0o770)
        os.chown(self.home, 0, NOBODY)
        private = self.home / ".filebucket"
        os.chown(private, NOBODY, NOBODY)
        target = self.folder / "target"
        target.mkdir(mode=0o700)
        (self.home / FILE).rename(target / "x")
        (self.home / FILE).symlink_to(target / "x")
        self.assertEqual(3, self.run_("status")[0])
        self.assertEqual(1, self.run_("reindex")[0])
        self.assertEqual(["x"], os.listdir(target))
        (self.home / FILE).unlink()
        private.rename(target / "private")
        private.symlink_to(target / "private")
        os.chown(private, NOBODY, NOBODY, follow_symlinks=False)
        self.assertEqual(3, self.run_("status")[0])
        self.assertEqual(1, self.run_("reindex")[0])
        self.assertEqual([], os.listdir(target / "private"))
