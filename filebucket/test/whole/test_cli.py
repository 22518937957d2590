"""The command beside a real daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SkipTest

from filebucket.cli import main
from filebucket.test.kit.integration import (
    Client,
    IntegrationCase,
    need,
    put_head,
    shell,
)
from filebucket.test.kit.server import (
    NOBODY,
    OTHER,
    PATIENCE,
    TOKEN,
    TWISTD,
    Server,
    comes,
)


class CommandCase(IntegrationCase):
    """Provides a daemon, and runs commands as an operator would."""

    def command(self, server: Server, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        command = [sys.executable, "-m", "filebucket", *words]
        return subprocess.Popen(
            [*command, "--config", str(server.config_file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    # Other commands run in this process, which takes a tenth of the time.

    def prints(self, server: Server, *words: str) -> str:
        """The output; the command must succeed."""
        status, output = self.ends(server, *words)
        self.assertEqual(0, status, output)
        return output

    def fails(self, server: Server, *words: str) -> str:
        """The error output; the command must fail."""
        status, output = self.ends(server, *words)
        self.assertEqual(1, status, output)
        return output

    def ends(self, server: Server, *words: str) -> tuple[int, str]:
        """The exit status and the output."""
        arguments = [*words, "--config", str(server.config_file)]
        result = CliRunner().invoke(main.main, arguments)
        return result.exit_code, result.output


class BucketTests(CommandCase):
    """From a name to a file in its bucket."""

    def test_printed_lines(self) -> None:
        """The printed commands work as they are."""
        need("curl")
        server = self.server()
        output = self.prints(server, "bucket", "add", "new", "--quota", "1MB")
        (token,) = re.findall(r"(?m)^    ([\w-]{32})$", output)
        output = output.replace("\\\n        ", "")
        lines = [line.strip() for line in output.splitlines() if line[:4] == "    "]
        reload, push, *in_a_file, client = lines[1:]
        self.assertTrue(reload.startswith("filebucket reload --config "), reload)
        self.file("db.gz")
        self.file("db2.gz")
        self.file("db3.gz")
        # The daemon chose its port.
        self.assertIn(":PORT/", push)
        push = push.replace("PORT", str(server.port))
        failing = f"{push.replace('FILE', 'db.gz')} || test $? = 22"
        before = shell(failing, self.folder)
        self.assertEqual(b"no such token\n", before)
        words = reload.removeprefix("filebucket")
        shell(f"'{sys.executable}' -m filebucket {words}", self.folder)
        shell(push.replace("FILE", "db.gz"), self.folder)
        words = client.removeprefix("filebucket-push").replace("FILE", "db3.gz")
        script = "\n".join([f"export HOME='{self.folder}'", *in_a_file])
        script = script.replace("FILE", "db2.gz")
        script += f"\n'{sys.executable}' -m filebucket.client {words}"
        shell(script.replace("PORT", str(server.port)), self.folder)
        self.assertEqual(0o600, (self.folder / ".file-bucket").stat().st_mode & 0o777)
        self.assertEqual(
            {"new/db.gz", "new/db2.gz", "new/db3.gz"}, set(server.stored())
        )
        self.assertNotIn(token, server.log)

    def test_remove(self) -> None:
        """A removed bucket takes no pushes and keeps its files."""
        server = self.server()
        client = self.client(server)
        client.send(put_head("x", 1, OTHER), b"x")
        self.assertEqual(200, client.answer()[0])
        output = self.prints(server, "bucket", "remove", "web01")
        self.assertIn(f"\n    {server.home / 'web01'}\n", output)
        self.prints(server, "reload")
        client.send(put_head("y", 1, OTHER), b"y")
        self.assertEqual(403, client.answer()[0])
        self.assertEqual({"web01/x": b"x"}, server.stored())

    def test_retire(self) -> None:
        """A retired bucket takes no pushes, and a push in progress ends; it keeps its
        files, and can be put back into use.
        """
        server = self.server()
        client = self.client(server)
        client.send(put_head("x", 1, OTHER), b"x")
        self.assertEqual(200, client.answer()[0])
        under_way = self.client(server)
        under_way.begin("y", 2, OTHER)
        under_way.send(b"y")
        self.prints(server, "retire", "web01")
        self.prints(server, "reload")
        refusal = (403, b"the bucket is retired\n")
        self.assertEqual(refusal, under_way.answer())
        client.send(put_head("z", 1, OTHER), b"z")
        self.assertEqual(refusal, client.answer())
        self.assertIn("1 retired (web01)", self.ends(server, "status", "web01")[1])
        self.prints(server, "retire", "--undo", "web01")
        self.prints(server, "reload")
        again = self.client(server)
        again.send(put_head("z", 1, OTHER), b"z")
        self.assertEqual(200, again.answer()[0])
        self.assertEqual({"web01/x": b"x", "web01/z": b"z"}, server.stored())

    def test_hold(self) -> None:
        """No push replaces a file that is held, until it is released."""
        server = self.server()
        client = self.client(server)
        self.prints(server, "bucket", "set", "web01", "--overwrite")
        until = ("--until", "2999-12-31", "--reason", "case 7")
        for command, status, content in (
            ((), 200, b"1"),
            (("hold", "web01", "x", *until), 405, b"2"),
            (("hold", "web01", "x", "--release"), 200, b"3"),
        ):
            if command:
                self.prints(server, *command)
            self.prints(server, "reload")
            client.send(put_head("x", 1, OTHER), content)
            self.assertEqual(status, client.answer()[0])
            self.assertEqual(status == 200, server.stored() == {"web01/x": content})

    def test_rotate_under_load(self) -> None:
        """No push fails while one token replaces another."""
        server = self.server()
        token = [OTHER]
        stop = threading.Event()
        statuses: list[int] = []
        pushed = threading.Semaphore(0)

        def load() -> None:
            client = Client(server)
            number = 0
            while not stop.is_set():
                number += 1
                client.send(put_head(f"{number}", 1000, token[0]), b"x" * 1000)
                statuses.append(client.answer()[0])
                pushed.release()
            client.close()

        worker = threading.Thread(target=load)
        worker.start()
        try:
            for _ in range(2):
                words = ("bucket", "rotate", "web01", "--keep-old", "1h", "--json")
                found = json.loads(self.prints(server, *words))
                self.prints(server, "reload")
                token[0] = found["token"]
                # Two, since the first may have begun before.
                for _ in range(2):
                    self.assertTrue(pushed.acquire(timeout=PATIENCE))
                while pushed.acquire(blocking=False):
                    pass
            self.assertTrue(pushed.acquire(timeout=PATIENCE))
            self.prints(server, "bucket", "rotate", "web01", "--keep-old", "1h")
            self.prints(server, "reload")
        finally:
            stop.set()
            worker.join(PATIENCE)
        self.assertEqual({200}, set(statuses))
        self.assertEqual(len(statuses), len(server.stored()))
        client = self.client(server)
        client.send(put_head("old", 1, OTHER), b"x")
        self.assertEqual(200, client.answer()[0])
        self.prints(server, "bucket", "rotate", "web01")
        self.prints(server, "reload")
        client.send(put_head("old2", 1, OTHER), b"x")
        self.assertEqual(403, client.answer()[0])


class ReloadTests(CommandCase):
    def test_broken(self) -> None:
        """The reason is shown, and nothing changes."""
        server = self.server()
        server.config["buckets"] = [TOKEN[1:]]
        server.write_config()
        errors = self.fails(server, "reload")
        expected = f"Error: {server.config_file}: $.buckets[0]: "
        expected += "not a valid token: 31 characters, expected 32\n"
        self.assertEqual(expected, errors)
        self.assertNotIn("reload", server.log)
        client = self.client(server)
        client.send(put_head("x", 1), b"x")
        self.assertEqual(200, client.answer()[0])

    def test_at_once(self) -> None:
        """After each of five concurrent reloads, the file's current content applies."""
        server = self.server()
        commands = []
        for number in range(5):
            server.config["buckets"] = [TOKEN, *(f"{i:032}" for i in range(number))]
            server.write_config()
            commands.append(self.command(server, "reload"))
        for command in commands:
            output, _ = command.communicate(timeout=PATIENCE)
            self.assertEqual(0, command.returncode, output)
        server.wait_for("reloaded: 5 buckets")

    def test_no_daemon(self) -> None:
        """Before the daemon's start, and after a kill."""
        server = Server(self.folder / "server")
        self.assertIn("no running daemon", self.fails(server, "reload"))
        server.start()
        self.addCleanup(server.stop)
        self.prints(server, "reload")
        server.signal(signal.SIGKILL)
        server.wait()
        self.assertIn("no running daemon", self.fails(server, "reload"))
        server.start()
        self.prints(server, "reload")

    def test_waiting(self) -> None:
        """Keys that need a restart are shown."""
        server = self.server()
        server.config["max_connections"] = 7
        server.write_config()
        self.assertIn(
            "Restart the daemon to apply max_connections.",
            self.prints(server, "reload"),
        )

    def test_as_root(self) -> None:
        """If the daemon runs as another user, it works, and reports files that this
        user cannot read."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        # In a folder that other users can enter, unlike those of tests.
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        server = Server(folder / "server")
        server.home.mkdir()
        os.chown(server.home, NOBODY, NOBODY)
        users = (f"--uid={NOBODY}", f"--gid={NOBODY}")
        server.start(*TWISTD, "-n", "--pidfile=", *users, "filebucket")
        self.addCleanup(server.stop)
        self.assertIn("Reloaded: ", self.prints(server, "reload"))
        server.config_file.chmod(0o600)
        errors = self.fails(server, "reload")
        self.assertEqual(
            f"Error: the daemon kept its bucket list: {server.config_file}: cannot be"
            " read: Permission denied\n",
            errors,
        )
        self.assertIn("reload will fail", self.prints(server, "check"))


class DueTests(CommandCase):
    """``status`` and ``check`` notice what the daemon has not applied."""

    def reports(self, server: Server, status: int, text: str) -> None:
        """``status`` exits with ``status`` and reports this; ``check`` calls it risky.

        :param text: empty if neither reports anything
        """
        ended, output = self.ends(server, "status", "--line")
        self.assertEqual(status, ended, output)
        self.assertIn(text, output)
        found = self.prints(server, "check")
        if text:
            self.assertRegex(found, rf"(?m)^risky  .*{re.escape(text)}")
        else:
            self.assertNotIn(" is due", found)

    def test_due(self) -> None:
        server = self.server()
        applied = server.home / ".filebucket" / "applied.json"
        self.assertTrue(comes(applied.exists))
        for token in (TOKEN, OTHER):
            self.assertNotIn(token, applied.read_text())
        self.reports(server, 0, "")
        new = {"name": "new", "token_sha256": "ab" * 32}
        server.config["buckets"] = [{"name": "web01", "token": OTHER, "quota": 9}, new]
        server.write_config()
        text = (
            "a reload is due (1 new bucket is refused with 403: new; 1 bucket has"
            " changed: web01; 1 removed bucket still accepts pushes: #"
        )
        self.reports(server, 1, text)
        self.prints(server, "reload")
        self.reports(server, 0, "")
        server.config["port"] = 9
        server.write_config()
        self.reports(server, 1, "a restart is due to apply port")
        self.prints(server, "reload")
        self.reports(server, 1, "a restart is due to apply port")
        server.config_file.write_text("{")
        self.assertEqual(3, self.ends(server, "status")[0])

    def test_killed(self) -> None:
        server = self.server()
        server.signal(signal.SIGKILL)
        server.wait()
        status, output = self.ends(server, "status", "--line")
        text = "FILEBUCKET CRITICAL - the daemon does not run: no push arrives | "
        self.assertEqual((2, text), (status, output[: len(text)]))
        self.assertEqual(0, self.ends(server, "status", "--no-daemon")[0])
        self.assertIn("no daemon runs", self.prints(server, "check"))


class CheckTests(CommandCase):
    def test_does_not_disturb(self) -> None:
        """A push in progress succeeds, and its temporary file is not removed."""
        server = self.server()
        (server.home / ".filebucket" / "incoming" / "aside").touch()
        client = self.client(server)
        client.begin("x", 2)
        client.send(b"x")
        for _ in range(3):
            found: Any = json.loads(self.prints(server, "check", "--json"))
            self.assertEqual(server.process.pid, found["process"])
            self.assertEqual(0, found["wrong"])
        self.assertEqual(["aside"], server.incoming())
        client.send(b"x")
        self.assertEqual(200, client.answer()[0])
        names = {each.name for each in server.home.iterdir()}
        self.assertEqual({".filebucket", TOKEN}, names)
