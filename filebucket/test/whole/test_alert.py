"""``filebucket alert`` runs the hook as the daemon does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.server import NOBODY, OTHER, PATIENCE, TWISTD, Server, comes
from filebucket.test.kit.sinks import MailSink

HOOKS = Path(__file__).resolve().parents[3] / "hooks"

SHOW = """\
{ printf '%s\\n' "$@" end; pwd; umask; id -u
grep NoNewPrivs "/proc/$$/status"; env; } >"${0%/*}/shown"
"""


class AlertCase(SynchronousTestCase):
    """Has a daemon's folder."""

    def setUp(self) -> None:
        self.server = Server(Path(self.mktemp()).absolute())
        self.addCleanup(self.stop)
        self.folder = self.server.folder

    def stop(self) -> None:
        if hasattr(self.server, "process"):
            self.server.stop()

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "filebucket", "alert"),
                *("--config", str(self.server.config_file)),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )

    def alert(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """The exit status, standard output and standard error."""
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def shown(self) -> tuple[list[str], list[str], dict[str, str]]:
        """The arguments of the hook, its process, and its environment."""
        lines = (self.folder / "shown").read_text().splitlines()
        end = lines.index("end")
        pairs = (each.partition("=") for each in lines[end + 5 :])
        variables = {key: value for key, _, value in pairs}
        return lines[:end], lines[end + 1 : end + 5], variables


class AlertTests(AlertCase):
    def test_told(self) -> None:
        """All that the daemon would tell it, and nothing of this environment."""
        self.server.hook("alert", SHOW)
        self.server.home.mkdir()
        status, out, err = self.alert("--test", SECRET="x", HOME="/nowhere")
        path = self.folder / "alert.sh"
        self.assertEqual((0, f"{path} exited with 0\n", ""), (status, out, err))
        arguments, process, variables = self.shown()
        self.assertEqual(["-", "", "ok", "test"], arguments)
        self.assertEqual([str(self.server.home), "0077"], process[:2])
        text = "this is a test; nothing is wrong"
        self.assertEqual(text, variables["FILEBUCKET_TEXT"])
        self.assertEqual("alert", variables["FILEBUCKET_EVENT"])
        self.assertNotIn("SECRET", variables)
        self.assertEqual("/nowhere", variables["HOME"])

    def test_environment_of_the_daemon(self) -> None:
        """The hook gets it from the daemon that runs, with its limits."""
        self.server.hook("alert", SHOW)
        command = (
            "setpriv",
            "--no-new-privs",
            *TWISTD,
            "-n",
            "--pidfile=",
            "filebucket",
        )
        self.server.start(*command, environ={"HOME": "/of-the-daemon"})
        self.assertEqual(0, self.alert("--test")[0])
        _, process, variables = self.shown()
        self.assertEqual("/of-the-daemon", variables["HOME"])
        self.assertEqual("NoNewPrivs:\t1", process[3])

    def test_unit(self) -> None:
        self.server.hook("alert", SHOW)
        self.assertEqual((0, "", ""), self.alert("--unit", "no-such.service"))
        arguments, _, variables = self.shown()
        self.assertEqual(["-", "", "ok", "unit"], arguments)
        text = "no-such.service failed"
        self.assertTrue(variables["FILEBUCKET_TEXT"].startswith(text))

    def test_fails(self) -> None:
        """What it writes to standard error is shown."""
        self.server.hook("alert", "echo no mailer >&2; echo ignored; exit 75")
        status, out, err = self.alert("--test")
        self.assertEqual((75, ""), (status, out))
        lines = ["no mailer", f"{self.folder}/alert.sh exited with 75"]
        self.assertEqual(lines, err.splitlines())

    def test_no_hook(self) -> None:
        """One line, and exit status 1."""
        expected = (1, "", f"Error: there is no alert.sh in {self.folder}\n")
        self.assertEqual(expected, self.alert("--test"))
        path = self.folder / "alert.sh"
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
        expected = (1, "", f"Error: {path}: is not an executable file\n")
        self.assertEqual(expected, self.alert("--unit", "x"))

    def test_timeout(self) -> None:
        """As in the daemon: its children are ended, too."""
        self.server.config["hook_timeout"] = 1
        self.server.write_config()
        self.server.hook("alert", f"echo $$ >{self.folder}/pid; sleep 600 & wait")
        status, _, err = self.alert("--test")
        self.assertEqual(128 + signal.SIGTERM, status)
        path = f"{self.folder}/alert.sh"
        self.assertEqual(f"{path} timed out after 1 seconds (hook_timeout)\n", err)
        self.assert_ended()

    def test_interrupted(self) -> None:
        """Ctrl-C ends the hook, too."""
        self.server.hook("alert", f"echo $$ >{self.folder}/pid; sleep 600 & wait")
        process = self.start("--test")
        self.addCleanup(process.kill)
        pid = self.folder / "pid"
        self.assertTrue(comes(lambda: pid.exists() and pid.read_text() != ""))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        self.assertNotEqual(0, process.returncode)
        self.assert_ended()

    def assert_ended(self) -> None:
        """No process of the hook's group is left."""
        group = int((self.folder / "pid").read_text())

        def ended() -> bool:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return True
            return False

        self.assertTrue(comes(ended))

    @skipUnless(os.geteuid() == 0, "needs root")
    def test_root(self) -> None:
        """The hook runs as the owner of the home."""
        # The folders of trial are not for others.
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        self.server = Server(folder)
        self.folder = folder
        self.server.hook("alert", SHOW.replace('"${0%/*}/shown"', "shown"))
        self.server.home.mkdir()
        os.chown(self.server.home, NOBODY, NOBODY)
        status, _, err = self.alert("--test", HOME="/root")
        self.assertEqual(0, status, err)
        (self.server.home / "shown").rename(self.folder / "shown")
        _, process, variables = self.shown()
        self.assertEqual(str(NOBODY), process[2])
        self.assertNotEqual("/root", variables["HOME"])


@skipUnless(shutil.which("msmtp") and HOOKS.is_dir(), "needs msmtp and the hooks")
class MailTests(AlertCase):
    """From the daemon, and from the commands, to a mail server."""

    def setUp(self) -> None:
        super().setUp()
        self.sink = MailSink(self.addCleanup)
        (self.folder / ".msmtprc").write_text(
            f"account default\nhost 127.0.0.1\nport {self.sink.port}\nfrom a@b.org\n"
        )
        settings = "SENDMAIL=msmtp MAIL_TO=ops@example.org"
        self.server.hook("alert", f'{settings} exec {HOOKS}/alert-mail.sh "$@"')
        self.server.hook("report", f"{settings} exec {HOOKS}/report-mail.sh")

    def mail(self) -> tuple[str, list[str]]:
        """The subject and the lines of the next mail."""
        self.assertTrue(comes(lambda: bool(self.sink.received)))
        to, mail = self.sink.received.pop(0)
        self.assertEqual(["ops@example.org"], to)
        return str(mail["Subject"]), mail.get_content().splitlines()

    def push(self, name: str, content: bytes) -> None:
        url = f"{self.server.url}/{OTHER}/{name}"
        request = urllib.request.Request(url, content, method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            self.assertEqual(200, answer.status)

    def test_daemon(self) -> None:
        """An alert, its end, and the report."""
        bucket = {"name": "web01", "token": OTHER, "expect": "1h", "comment": "shop"}
        self.server.config["buckets"] = [bucket]
        self.server.write_config()
        self.server.start(environ={"HOME": str(self.folder)})
        self.push("db-1.gz", b"content")
        subject, lines = self.mail()
        self.assertEqual("file-bucket: web01: fresh (was never)", subject)
        self.push("db-2.gz", b"")
        subject, lines = self.mail()
        self.assertEqual("file-bucket: web01: empty", subject)
        self.assertTrue(lines[0].startswith("web01: db-#.gz is empty; last push "))
        self.assertTrue(lines[0].endswith(" (shop)"), lines[0])
        self.push("db-3.gz", b"content")
        subject, lines = self.mail()
        self.assertEqual("file-bucket: web01: fresh (was empty)", subject)
        text = "web01: db-#.gz is fresh again, was empty; last push "
        self.assertTrue(lines[0].startswith(text), lines[0])
        config = str(self.server.config_file)
        command = f"'{sys.executable}' -m filebucket report -c '{config}' | ./report.sh"
        ran = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder)},
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(0, ran.returncode)
        subject, lines = self.mail()
        self.assertTrue(subject.startswith("file-bucket on "), subject)
        self.assertEqual("Every backup arrived.", lines[2])

    def test_commands(self) -> None:
        """A test, and a unit that failed."""
        home = {"HOME": str(self.folder)}
        self.assertEqual(0, self.alert("--test", **home)[0])
        subject, lines = self.mail()
        where = f"server {os.uname().nodename}"
        self.assertEqual(f"file-bucket: {where}: test", subject)
        self.assertEqual(f"{where}: this is a test; nothing is wrong", lines[0])
        self.assertEqual(0, self.alert("--unit", "x.service", **home)[0])
        subject, lines = self.mail()
        self.assertEqual(f"file-bucket: {where}: unit", subject)
        self.assertTrue(lines[0].startswith(f"{where}: x.service failed"), lines[0])
