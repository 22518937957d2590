"""Resumable uploads with the scripts of the document, and through cut connections."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys

from filebucket.test.kit.blocks import DocumentCase
from filebucket.test.kit.cutter import Cutter
from filebucket.test.kit.integration import MIB, IntegrationCase, need, run
from filebucket.test.kit.server import OTHER, PATIENCE, TOKEN, Server, comes

LARGE = "Push a large file with curl"

PART = 300_000
"""Bytes of a part of ``push-large`` here."""

NAME = "a b#c?d%20é.gz"
"""A name that must be percent-encoded."""

_NO_LINKS = """
import os
real = os.link
failed = []
def link(*args, **kwargs):
    if kwargs.get("src_dir_fd") is not None and not failed:
        failed.append(True)
        raise OSError(5, "injected")
    return real(*args, **kwargs)
os.link = link
from twisted.scripts.twistd import run
run()
"""


class ScriptCase(DocumentCase, IntegrationCase):
    """Has the scripts, and a daemon that can be killed and started again."""

    page = "resuming.rst"

    def setUp(self) -> None:
        super().setUp()
        need("curl")
        self.chance = random.Random(self.id())
        (self.folder / ".file-bucket").write_text(f"Authorization: Bearer {OTHER}\n")

    def daemon(self, **config: object) -> Server:
        """A daemon that keeps its port."""
        server = self.server(**config)
        server.config["port"] = server.port
        server.write_config()
        return server

    def kill(self, server: Server) -> None:
        """Kill the daemon and start it again."""
        server.signal(signal.SIGKILL)
        server.wait()
        server.start()

    def written(self, heading: str, port: int, **changes: str) -> str:
        """The path of a script, with another server."""
        text = self.script(heading)
        changes = {"http://backup:1234": f"http://127.0.0.1:{port}", **changes}
        for old, new in {"pause=10": "pause=0.05", **changes}.items():
            self.assertEqual(1, text.count(old), old)
            text = text.replace(old, new)
        path = self.folder / "script"
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def large(self, port: int, part: int = PART) -> str:
        size = {"$((64 * 1024 * 1024))": str(part)}
        return self.written(LARGE, port, **size)

    def output(self, port: int) -> str:
        return self.written("Push from a pipe with curl", port, **{"mib=64": "mib=1"})

    def run_script(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            env={**os.environ, "HOME": str(self.folder), "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def end(self, script: str, *arguments: str) -> None:
        """End a script, and all that it runs, as ctrl-C does, while it works."""
        client = subprocess.Popen(
            [script, *arguments],
            env={**os.environ, "HOME": str(self.folder), "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.addCleanup(client.wait, PATIENCE)
        self.addCleanup(client.kill)
        self.assertTrue(comes(lambda: any(self.folder.glob("tmp.*/body"))))
        os.killpg(client.pid, signal.SIGTERM)
        self.assertNotEqual(0, client.wait(PATIENCE))
        self.assertEqual([], list(self.folder.glob("tmp.*")))

    def offsets(self, count: int, most: int) -> list[int]:
        return [self.chance.randrange(most) for _ in range(count)]

    def assert_stored(
        self,
        done: subprocess.CompletedProcess[bytes],
        server: Server,
        name: str,
        content: bytes,
    ) -> None:
        self.assertEqual(0, done.returncode, done.stderr)
        receipt = f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        self.assertEqual(receipt.encode(), done.stdout)
        self.assertEqual(content, server.stored()[f"web01/{name}"])
        server.wait_for(f"push bucket=web01 name='{name}' size={len(content)} ")
        self.assertEqual(1, server.log.count(f"push bucket=web01 name='{name}'"))


class LargeTests(ScriptCase):
    """``push-large``."""

    def test_parts(self) -> None:
        """It sends parts, or all at once, and prints the receipt."""
        server = self.daemon()
        for number, (size, part) in enumerate(
            ((2 * MIB, PART), (PART, PART), (2 * MIB, 1 << 40), (1, PART), (0, PART))
        ):
            content = os.urandom(size)
            path = self.file(f"db{number}", content)
            done = self.run_script(self.large(server.port, part), str(path))
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertEqual(content, server.stored()[f"web01/db{number}"])
            parts = server.log.count(f"part bucket=web01 name='db{number}'")
            self.assertEqual(max(-(-size // part) - 1, 0), parts)

    def test_cut(self) -> None:
        """Lost connections cost only the bytes that were on their way."""
        server = self.daemon()
        content = os.urandom(4 * MIB)
        path = self.file(content=content)
        for part in (PART, 1 << 40):
            (server.home / "web01" / "db.gz").unlink(missing_ok=True)
            cutter = Cutter(server.port, self.offsets(8, MIB))
            self.addCleanup(cutter.close)
            done = self.run_script(self.large(cutter.port, part), str(path))
            self.assert_stored(done, server, "db.gz", content)
            self.assertGreaterEqual(cutter.cuts, 3)
            self.kill(server)

    def test_restart(self) -> None:
        """The daemon is killed at each cut, and the script continues."""
        server = self.daemon()
        content = os.urandom(3 * MIB)
        cutter = Cutter(server.port, self.offsets(4, MIB), lambda _: self.kill(server))
        self.addCleanup(cutter.close)
        path = str(self.file(content=content))
        done = self.run_script(self.large(cutter.port), path)
        self.assert_stored(done, server, "db.gz", content)
        self.assertGreaterEqual(cutter.cuts, 2)

    def test_again(self) -> None:
        """Run again, it continues; of a stored file it gets the receipt."""
        server = self.daemon()
        content = os.urandom(2 * MIB)
        path = str(self.file(content=content))
        cutter = Cutter(server.port, [MIB, *[1] * 1000])
        self.addCleanup(cutter.close)
        done = self.run_script(self.large(cutter.port), path)
        self.assertEqual((1, b""), (done.returncode, done.stdout))
        counter = Cutter(server.port, [])
        self.addCleanup(counter.close)
        script = self.large(counter.port)
        self.assert_stored(self.run_script(script, path), server, "db.gz", content)
        self.assertLess(counter.passed, 3 * MIB // 2)
        done = self.run_script(script, path)
        self.assertEqual((0, b""), (done.returncode, done.stderr))
        self.assertIn(b"  db.gz\n", done.stdout)

    def test_refused(self) -> None:
        """A refusal ends it, with the reason."""
        server = self.daemon()
        (server.home / "web01").mkdir(exist_ok=True)
        (server.home / "web01" / "db.gz").write_bytes(b"other")
        path = str(self.file(content=b"x"))
        done = self.run_script(self.large(server.port), path)
        self.assertEqual(1, done.returncode)
        reason = b"push-large: NOT stored: 405 a file with that name already exists\n"
        self.assertEqual(reason, done.stderr)
        (self.folder / ".file-bucket").write_text("Authorization: Bearer wrong\n")
        done = self.run_script(self.large(server.port), path)
        self.assertEqual((1, b""), (done.returncode, done.stdout))
        self.assertIn(b"NOT stored: 403 no such token\n", done.stderr)

    def test_gives_up(self) -> None:
        """Without a server it ends with an error."""
        server = self.daemon()
        script = self.large(server.port)
        server.stop()
        done = self.run_script(script, str(self.file()))
        self.assertEqual((1, b""), (done.returncode, done.stdout))
        self.assertIn(b"push-large: NOT stored: 000", done.stderr)

    def test_shrinks(self) -> None:
        """It ends with an error if the file shrinks after its length was sent."""
        server = self.daemon()
        path = self.file(content=b"x" * 4 * PART)
        server.hook("pre-push", f"truncate -s 10 {shlex.quote(str(path))}")
        done = self.run_script(self.large(server.port), str(path))
        self.assertEqual((1, b""), (done.returncode, done.stdout))
        self.assertIn(b"push-large: NOT stored: 204", done.stderr)
        self.assertEqual({}, server.stored())

    def test_no_file(self) -> None:
        """Without a file it ends before the first request."""
        for arguments in ((), (str(self.folder / "missing"),)):
            done = self.run_script(self.large(1), *arguments)
            self.assertEqual((2, b""), (done.returncode, done.stdout))
            self.assertEqual(1, done.stderr.count(b"\n"), done.stderr)

    def test_names(self) -> None:
        """Special characters arrive."""
        server = self.daemon()
        path = str(self.file(NAME, b"content"))
        done = self.run_script(self.large(server.port), path)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({f"web01/{NAME}": b"content"}, server.stored())

    def test_ended(self) -> None:
        """If it is ended, it removes its files."""
        server = self.daemon()
        script = self.written(LARGE, server.port, **{"pause=10": "pause=60"})
        server.stop()
        self.end(script, str(self.file()))

    def test_ignored_signal(self) -> None:
        """It prints no errors if SIGPIPE is ignored, as in a service of systemd."""
        server = self.daemon()
        path = str(self.file(content=b"x" * MIB))
        script = self.large(server.port)
        done = self.run_script(
            "sh", "-c", "trap '' PIPE; exec \"$@\"", "", script, path
        )
        self.assertEqual((0, b""), (done.returncode, done.stderr))


class OutputTests(ScriptCase):
    """``push-output``."""

    def printed(self, size: int) -> tuple[list[str], bytes]:
        """A command that prints random bytes from a pipe, and these bytes."""
        content = os.urandom(size)
        path = self.file("content", content)
        return ["sh", "-c", f"cat {shlex.quote(str(path))} | cat"], content

    def test_output(self) -> None:
        """Any size arrives, also if it is a number of whole parts."""
        server = self.daemon()
        for number, size in enumerate((1, MIB - 1, MIB, 2 * MIB, 2 * MIB + 7)):
            command, content = self.printed(size)
            script = self.output(server.port)
            done = self.run_script(script, f"db{number}", *command)
            self.assert_stored(done, server, f"db{number}", content)

    def test_cut(self) -> None:
        """Lost connections and a killed daemon do not end the pipe."""
        server = self.daemon()
        command, content = self.printed(5 * MIB)
        kill = [self.chance.randrange(1, 4)]
        cutter = Cutter(
            server.port,
            self.offsets(8, MIB),
            lambda number: self.kill(server) if number in kill else None,
        )
        self.addCleanup(cutter.close)
        done = self.run_script(self.output(cutter.port), "db", *command)
        self.assert_stored(done, server, "db", content)
        self.assertGreaterEqual(cutter.cuts, 4)

    def test_failed(self) -> None:
        """If the command fails, nothing is stored and nothing is left."""
        server = self.daemon()
        script = self.output(server.port)
        for size in (0, 10, 3 * MIB):
            command, _ = self.printed(size)
            failing = f"{shlex.join(command)}; exit 3"
            done = self.run_script(script, "db", "sh", "-c", failing)
            self.assertEqual((1, b""), (done.returncode, done.stdout))
            self.assertIn(b"push-output: NOT stored: sh failed\n", done.stderr)
        server.wait_for("upload-deleted ", 3)
        self.assertEqual({}, server.stored())
        self.assertEqual([], os.listdir(server.home / ".filebucket" / "uploads"))

    def test_taken(self) -> None:
        """The command does not start if the name is taken."""
        server = self.daemon()
        (server.home / "web01").mkdir(exist_ok=True)
        (server.home / "web01" / "db").write_bytes(b"other")
        ran = self.folder / "ran"
        done = self.run_script(self.output(server.port), "db", "touch", str(ran))
        self.assertEqual(1, done.returncode)
        self.assertIn(b"NOT stored: 405 ", done.stderr)
        self.assertFalse(ran.exists())

    def test_shell_is_killed(self) -> None:
        """Half of the output is not stored if the shell of the command is killed."""
        server = self.daemon()
        killing = "echo half; kill -9 $PPID"
        done = self.run_script(self.output(server.port), "db", "sh", "-c", killing)
        self.assertEqual((1, b""), (done.returncode, done.stdout))
        self.assertEqual({}, server.stored())

    def test_names(self) -> None:
        """Special characters arrive."""
        server = self.daemon()
        done = self.run_script(self.output(server.port), NAME, "echo", "content")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({f"web01/{NAME}": b"content\n"}, server.stored())

    def test_ended(self) -> None:
        """If it is ended, it removes its files."""
        self.end(self.output(self.daemon().port), "db", "sleep", "60")

    def test_only_script_is_ended(self) -> None:
        """If it alone gets a signal, the output is still stored, as documented."""
        server = self.daemon()
        ending = "read a b c script rest </proc/$PPID/stat; kill $script; echo content"
        done = self.run_script(self.output(server.port), "db", "sh", "-c", ending)
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertEqual({"web01/db": b"content\n"}, server.stored())
        self.assertEqual([], list(self.folder.glob("tmp.*")))


class EndTests(ScriptCase):
    """A client asks for the offset while the end is not decided."""

    def ask(self, server: Server, *arguments: str) -> tuple[int, dict[str, str]]:
        """The status and the headers of an answer."""
        done = run("curl", "-sS", "-D", "-", "-o", "/dev/null", *arguments)
        self.assertEqual(0, done.returncode, done.stderr)
        # The last one, after any 100 Continue.
        line, *lines = done.stdout.decode().split("HTTP/")[-1].strip().splitlines()
        headers = dict(each.lower().split(": ", 1) for each in lines)
        return int(line.split()[1]), headers

    def create(self, server: Server, dialect: str, method: str = "PUT") -> str:
        """The URL of a new upload of 7 bytes."""
        url, length = f"{server.url}/{TOKEN}/", ("-H", "Upload-Length: 7", "-d", "")
        kind = ("-X", method, "-H", "Upload-Complete: ?0", f"{url}{dialect}")
        if dialect == "tus":
            named = ("-H", "Upload-Metadata: filename dHVz")
            kind = ("-H", "Tus-Resumable: 1.0.0", *named, url)
        status, headers = self.ask(server, *length, *kind)
        self.assertEqual(201, status)
        return url + headers["location"]

    def part(self, dialect: str, url: str) -> list[str]:
        kind = ["-H", "Upload-Complete: ?1"]
        if dialect == "tus":
            kind = ["-H", "Content-Type: application/offset+octet-stream"]
        path = str(self.file(content=b"content"))
        more = ["-X", "PATCH", "-H", "Upload-Offset: 0", "-T", path, url]
        return [*kind, *self.version(dialect), *more]

    def version(self, dialect: str) -> list[str]:
        return ["-H", "Tus-Resumable: 1.0.0"] if dialect == "tus" else []

    def assert_complete(self, dialect: str, server: Server, url: str) -> None:
        status, headers = self.ask(server, "-I", *self.version(dialect), url)
        self.assertEqual((204, "7"), (status, headers["upload-offset"]))
        self.assertEqual("no-store", headers["cache-control"])
        self.assertEqual(b"content", server.stored()[f"{TOKEN}/{dialect}"])

    def test_hook(self) -> None:
        """A question during the post-push hook gets the end, not 404."""
        server = self.daemon()
        server.hook("post-push", "until [ -e go ]; do sleep 0.02; done")
        for dialect in ("draft", "tus"):
            url = self.create(server, dialect)
            client = subprocess.Popen(["curl", "-s", *self.part(dialect, url)])
            self.addCleanup(client.wait, PATIENCE)
            self.addCleanup(client.kill)
            path = server.home / TOKEN / dialect
            self.assertTrue(comes(path.exists))
            self.assert_complete(dialect, server, url)
        (server.folder / "go").touch()

    def test_not_published(self) -> None:
        """No answer has the offset at the end unless the file is stored: tus clients
        take it for a success.
        """
        for dialect in ("draft", "tus"):
            server = self.server(sys.executable, "-c", _NO_LINKS, *DAEMON)
            url = self.create(server, dialect)
            status, _ = self.ask(server, *self.part(dialect, url))
            self.assertEqual(503, status)
            self.assertEqual({}, server.stored())
            self.assert_complete(dialect, server, url)
            server.wait_for(rf" push bucket=\S+ name='{dialect}' size=7 ")
            server.stop()
            (server.home / TOKEN / dialect).unlink()

    def test_post(self) -> None:
        """The draft lets any method create an upload: tus-js-client uses POST."""
        server = self.daemon()
        url = self.create(server, "draft", "POST")
        self.assertRegex(url, f"/{TOKEN}/uploads/[0-9a-f]{{32}}$")
        status, _ = self.ask(server, *self.part("draft", url))
        self.assertEqual(200, status)
        self.assert_complete("draft", server, url)

    def test_listed(self) -> None:
        """The server lists the refusal of a part, but no wrong offset."""
        server = self.daemon(buckets=[{"name": "b", "token": TOKEN, "quota": "8 KiB"}])
        url = f"{server.url}/{TOKEN}/"
        goes_on = ("-H", "Upload-Complete: ?0")
        _, headers = self.ask(server, "-T", "/dev/null", *goes_on, f"{url}db")
        url += headers["location"]
        large = str(self.file(content=bytes(8193)))
        part = ("-X", "PATCH", *goes_on, url, "-T", large)
        for offset, status in ((1, 409), (0, 507)):
            told = f"Upload-Offset: {offset}"
            self.assertEqual(status, self.ask(server, "-H", told, *part)[0])
        command = [sys.executable, "-m", "filebucket", "log", "--refused", "--json"]
        command += ["--config", str(server.config_file)]

        def listed() -> list[int]:
            lines = run(*command).stdout.splitlines()
            return [json.loads(line)["status"] for line in lines]

        self.assertTrue(comes(lambda: listed() != []))
        self.assertEqual([507], listed())


DAEMON = ("-n", "--pidfile=", "filebucket")
