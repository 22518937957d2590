"""``filebucket copy`` as a process, between two daemons."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.children import bounded
from filebucket.test.kit.cutter import Cutter
from filebucket.test.kit.integration import MIB, IntegrationCase, run
from filebucket.test.kit.machine import MachineCase
from filebucket.test.kit.server import NOBODY, OTHER, PATIENCE, UNKNOWN, Server, comes

LARGE = 9 * MIB


class CopyCase(IntegrationCase):
    """Has two daemons.

    :ivar near: the one whose files are copied
    :ivar far: the other one
    :ivar tokens: the file with its tokens
    """

    def setUp(self) -> None:
        super().setUp()
        self.near, self.far = (
            Server(self.folder / name, buckets=[{"name": "web01", "token": OTHER}])
            for name in ("near", "far")
        )
        for each in (self.near, self.far):
            each.start()
            self.addCleanup(each.stop)
        self.tokens = self.folder / "near" / "copy.json"
        self.write_token(OTHER)

    def write_token(self, token: str) -> None:
        self.tokens.write_text(json.dumps({"web01": token}))
        self.tokens.chmod(0o600)

    def push(self, name: str, content: bytes) -> None:
        """Push a file to the near daemon, and wait until it is in the catalogue."""
        url = f"{self.near.url}/{OTHER}/{name}"
        status, _ = self.curl("-T", "-", url, stdin=content)
        self.assertEqual(200, status)

        def is_known() -> bool:
            files = self.filebucket(self.near, "files", "web01", "--json").stdout
            return f'"{name}"'.encode() in files

        self.assertTrue(comes(is_known))

    def filebucket(
        self, server: Server, *words: str
    ) -> subprocess.CompletedProcess[bytes]:
        return run(*self.command(server, *words))

    def command(self, server: Server, *words: str) -> Sequence[str]:
        config = str(server.config_file)
        return (sys.executable, "-m", "filebucket", *words, "--config", config)

    def copy(self, port: int, *words: str) -> tuple[int, str, str]:
        """Its exit status and its output."""
        done = self.filebucket(
            self.near, "copy", f"http://127.0.0.1:{port}", "--retry-for", "60s", *words
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def cutter(
        self, offsets: Sequence[int], between: Callable[[int], object] = lambda _: None
    ) -> Cutter:
        made = Cutter(self.far.port, offsets, between)
        self.addCleanup(made.close)
        return made

    def assert_copied(self) -> None:
        """Everything is there once, and as it was received; nothing else is."""
        self.assertEqual(self.near.stored(), self.far.stored())
        verified = self.filebucket(self.far, "verify")
        self.assertEqual(0, verified.returncode, verified.stdout)
        uploads = self.far.home / ".filebucket" / "uploads"
        left = [each for each in uploads.iterdir() if each.suffix != ".json"]
        self.assertEqual([], left)


class CutTests(CopyCase):
    """A large file and some small ones."""

    def setUp(self) -> None:
        super().setUp()
        self.push("first", b"1")
        self.push("large", random.Random(1).randbytes(LARGE))
        self.push("last", b"3")

    def test_cut(self) -> None:
        """It goes on after what has arrived."""
        cutter = self.cutter([300, 2 * MIB, 3 * MIB, 100])
        status, printed, errors = self.copy(cutter.port)
        self.assertEqual((0, ""), (status, errors))
        self.assertEqual("web01: 3 files sent (9.0 MiB), 0 already there\n", printed)
        self.assertEqual(4, cutter.cuts)
        self.assert_copied()
        before = cutter.passed
        self.assertEqual(0, self.copy(cutter.port)[0])
        self.assertLess(cutter.passed - before, 4096)

    def test_restarts(self) -> None:
        """The other daemon is killed and started again."""

        def restart(number: int) -> None:
            self.far.signal(signal.SIGKILL)
            self.far.wait()
            self.far.config["port"] = self.far.port
            self.far.write_config()
            self.far.start()

        cutter = self.cutter([3 * MIB, 2 * MIB], restart)
        status, _, errors = self.copy(cutter.port)
        self.assertEqual((0, ""), (status, errors))
        self.assertEqual(2, cutter.cuts)
        self.assert_copied()

    def test_killed(self) -> None:
        """The next one goes on with the large file."""
        killed: list[int] = []
        uploads = self.far.home / ".filebucket" / "uploads"

        def cut(number: int) -> None:
            def has_most() -> bool:
                return any(each.stat().st_size >= 5 * MIB for each in uploads.iterdir())

            # A reset would overtake what is on the way.
            self.assertTrue(comes(has_most))
            killed.append(number)

        cutter = self.cutter([6 * MIB], cut)
        url = f"http://127.0.0.1:{cutter.port}"
        process = subprocess.Popen(self.command(self.near, "copy", url))
        with bounded(process):
            self.assertTrue(comes(lambda: bool(killed)))
            process.kill()
            process.wait(PATIENCE)
        before = cutter.passed
        self.assertEqual(0, self.copy(cutter.port)[0])
        self.assertLess(cutter.passed - before, LARGE - 5 * MIB)
        self.assert_copied()

    def test_at_once(self) -> None:
        """Two copies from two homes, as after a move: nothing is there twice. One may
        find a name taken by a push that has not ended: the next copy finds the file.
        """
        other = self.folder / "other"
        self.near.stop()
        shutil.copytree(self.folder / "near", other)
        words = ("copy", self.far.url, "--config")
        copies = [
            subprocess.Popen(
                [sys.executable, "-m", "filebucket", *words, str(each / "config.json")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for each in (self.folder / "near", other)
        ]
        for each in copies:
            with bounded(each):
                output, _ = each.communicate(timeout=PATIENCE)
                self.assertIn(each.returncode, (0, 1), output)
                self.assertNotIn(b"Traceback", output)
        self.assert_copied()
        status, printed, errors = self.copy(self.far.port)
        self.assertEqual((0, ""), (status, errors))
        self.assertIn("0 files sent (0 B), 3 already there", printed)


class RefusedTests(CopyCase):
    def test_revoked(self) -> None:
        self.push("db", b"1")
        self.assertEqual(0, self.copy(self.far.port)[0])
        self.push("new", b"2")
        self.reload(self.far, token=UNKNOWN)
        status, printed, _ = self.copy(self.far.port)
        self.assertEqual(1, status)
        self.assertIn("no such token (403)", printed)
        found = self.filebucket(self.near, "status", "--line", "--no-daemon")
        self.assertEqual(1, found.returncode)
        self.assertIn(b"web01: the copy to http://127.0.0.1:", found.stdout)
        self.write_token(UNKNOWN)
        self.assertEqual(0, self.copy(self.far.port)[0])
        self.assert_copied()
        found = self.filebucket(self.near, "status", "--line", "--no-daemon")
        self.assertEqual(0, found.returncode, found.stdout)

    def test_rotten(self) -> None:
        """It is reported as damaged at once, and does not arrive."""
        self.push("db", b"123")
        self.push("large", b"x" * LARGE)
        self.push("etc", b"456")
        for name in ("db", "large"):
            with (self.near.home / "web01" / name).open("r+b") as file:
                file.write(b"X")
        status, _, errors = self.copy(self.far.port)
        self.assertEqual(1, status)
        expected = "".join(
            f"web01: {name}: damaged here, and not on the other server\n"
            for name in ("db", "large")
        )
        self.assertEqual(expected, errors)
        self.assertEqual({"web01/etc": b"456"}, self.far.stored())
        found = self.filebucket(self.near, "status", "--line", "--no-daemon")
        self.assertIn(b" damaged=1;", found.stdout)

    def test_overwritten(self) -> None:
        """A file that was replaced here arrives only if the other server replaces
        files, too.
        """
        self.reload(self.near, overwrite=True)
        for name, content in (("db", b"1"), ("large", b"y" * LARGE)):
            self.push(name, content)
        self.assertEqual(0, self.copy(self.far.port)[0])
        for name, content in (("db", b"2"), ("large", b"z" * LARGE)):
            self.push(name, content)
        status, _, errors = self.copy(self.far.port)
        self.assertEqual(1, status)
        for name in ("db", "large"):
            self.assertIn(f"{name}: the server has another file with that name", errors)
        self.reload(self.far, overwrite=True)
        self.assertEqual(0, self.copy(self.far.port)[0])
        self.assert_copied()
        _, printed, _ = self.copy(self.far.port)
        self.assertEqual("web01: 0 files sent (0 B), 2 already there\n", printed)

    def reload(self, server: Server, **settings: object) -> None:
        """Change the bucket."""
        server.config["buckets"] = [{"name": "web01", "token": OTHER, **settings}]
        server.write_config()
        done = self.filebucket(server, "reload")
        self.assertEqual(0, done.returncode, done.stderr)


class TlsTests(CopyCase):
    def test_tls(self) -> None:
        """With a certificate of its own."""
        self.push("db", b"1")
        self.push("large", b"x" * LARGE)
        write_pair(self.folder)
        self.far.stop()
        self.far = Server(
            self.folder / "tls",
            listen=[
                f"ssl:0:interface=127.0.0.1:privateKey={self.folder}/key.pem"
                f":certKey={self.folder}/cert.pem"
            ],
            buckets=[{"name": "web01", "token": OTHER}],
        ).start()
        self.addCleanup(self.far.stop)
        url = f"https://127.0.0.1:{self.far.port}"
        words = ("copy", url, "--retry-for", "0s")
        done = self.filebucket(self.near, *words)
        self.assertEqual(1, done.returncode)
        self.assertIn(b"the server's certificate is not trusted", done.stdout)
        cacert = str(self.folder / "cert.pem")
        done = self.filebucket(self.near, *words, "--cacert", cacert)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assert_copied()


class RightsTests(CopyCase):
    def test_as_root(self) -> None:
        """It reads and asks with the rights of the home's owner, and needs root's only
        for the tokens.
        """
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self.push("db", b"1")
        self.near.stop()
        # The owner must be able to get there.
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        shutil.copytree(self.folder / "near", folder / "near")
        home = folder / "near" / "home"
        for each in (home, *home.rglob("*")):
            os.chown(each, NOBODY, NOBODY)
        config = str(folder / "near" / "config.json")
        done = run(
            *(sys.executable, "-m", "filebucket", "copy", self.far.url, "-c", config)
        )
        self.assertEqual((0, b""), (done.returncode, done.stderr))
        self.assertEqual({"web01/db": b"1"}, self.far.stored())
        owners = {each.stat().st_uid for each in (home / ".filebucket").iterdir()}
        self.assertEqual({NOBODY}, owners)


_SSH = """\
#!{python}
import sys
from filebucket.config import config
config.DEFAULT_CONFIG = {config!r}
from filebucket.cli.main import main
assert sys.argv[1:3] == ["root@far", "filebucket"]
main(sys.argv[3:], prog_name="filebucket")
"""
"""ssh, which runs a command of another machine."""

COPY = "Copy to a second file-bucket"
URL = "https://far.example.org:1443"


class SecondSiteTests(DocumentCase, MachineCase):
    """The commands in docs/how-to/second-site.rst, between two daemons."""

    page = "second-site.rst"

    def setUp(self) -> None:
        super().setUp()
        self.far = self.server(buckets=[])
        config = str(self.far.config_file)
        self.program("ssh", _SSH.format(python=sys.executable, config=config))
        self.configure({"name": "web01", "token": OTHER})
        self.succeeds("systemctl start file-bucket")
        self.addCleanup(self.sh, "systemctl stop file-bucket")
        self.push(OTHER, db=b"content")

    def script(self, heading: str, starts: str = "", page: str = "") -> str:
        """For the server of this test."""
        return super().script(heading, starts, page).replace(URL, self.far.url)

    def test_second_site(self) -> None:
        """Set up, one more bucket, its retention, and the end."""
        printed = self.succeeds(self.script(COPY, "cd"))
        shown = self.script(COPY, "web01: ")
        for old, new in (("31 files", "1 file"), ("4.2 GiB", "7 B"), ("290", "0")):
            shown = shown.replace(old, new)
        self.assertIn(shown, printed)
        self.assertEqual({"web01/db": b"content"}, self.far.stored())
        folder = self.config.parent
        self.assertEqual(0o600, (folder / "copy.json").stat().st_mode & 0o777)
        self.assertEqual(f"URL={self.far.url}\n", (folder / "copy.conf").read_text())
        self.configure(
            *({"name": name, "token": name[-1] * 32} for name in ("web01", "web09"))
        )
        self.succeeds("filebucket reload")
        self.push("9" * 32, etc=b"more")
        printed = self.succeeds(
            f"{self.script(COPY, 'ssh root@far filebucket bucket add')}\n"
            f". {folder}/copy.conf; filebucket copy $URL"
        )
        self.assertIn("web09: 1 file sent", printed)
        self.assertEqual(b"more", self.far.stored()["web09/etc"])
        self.succeeds(self.script("How long the second server keeps files"))
        printed = self.succeeds("filebucket status --no-daemon || true")
        self.assertIn(f"copied to {self.far.url} until", " ".join(printed.split()))
        # The tokens are lost.
        (folder / "copy.json").unlink()
        self.succeeds(self.script("Rebuild the configuration", "cd", "disaster.rst"))
        self.push("9" * 32, etc2=b"more")
        self.configure({"name": "web01", "token": "1" * 32})
        self.succeeds(f". {folder}/copy.conf; filebucket copy $URL")
        printed = self.succeeds(self.script("See how far it is"))
        self.assertIn("Forgot the copies of 2 buckets", printed)
