"""Attacks and their results.

``docs/explanation/security.rst`` names a test for each of its answers. Many of them are
here, and the last test checks that all exist. Most run in memory; some need the real
daemon.
"""

from __future__ import annotations

import importlib
import os
import re
import resource
import signal
import socket
import stat
from pathlib import Path
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, eventAsText, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.admin.site import CONNECTIONS
from filebucket.base.errors import Refusal
from filebucket.daemon import notices, process
from filebucket.hooks.interfaces import Exit, Verdict
from filebucket.model.bucket import FreeSpace
from filebucket.model.registry import BucketIndex
from filebucket.store.disk import DirectoryStore
from filebucket.store.home import Home
from filebucket.store.room import Room
from filebucket.test.kit.fakes import LinesAtOnce
from filebucket.test.kit.integration import IntegrationCase, need, put_head
from filebucket.test.kit.server import OTHER, TWISTD, Server
from filebucket.test.kit.server import TOKEN as REAL_TOKEN
from filebucket.test.kit.wire import Connection
from filebucket.test.web.test_tree import TOKEN, ResourceCase, bearer, put

DOCUMENT = Path(__file__).parents[3] / "docs" / "explanation" / "security.rst"

HOSTILE_NAMES = (
    "-rf",
    "--help",
    "~",
    "*",
    "a;reboot",
    "$(reboot)",
    "`reboot`",
    "a|b>c",
    "'\"",
    " ",
    "%s%n",
    ".bashrc",
    "\u202egpj.exe",
    "a\u00a0push bucket=b",
    "\u200b",
    "\ufeff",
)
"""Names that are stored unchanged: each is one file, and one line of a log."""

DESCRIPTORS = 1024 * process.PER_PUSH + process.OWN_DESCRIPTORS
"""The descriptors that the daemon asks for by default."""

UNFIT_NAMES = (
    "a\nb",
    "a\r\nb",
    "\x1b[2J",
    "\x9b2J",
    "\x7f",
    "a\x00b",
    "../two/there",
    "..\\two",
    "/etc/passwd",
    ".filebucket",
    ".filebucket/incoming/x",
)
"""Names that are refused."""


class StrangerTests(ResourceCase):
    """Clients without a token."""

    def setUp(self) -> None:
        super().setUp()
        self.store.files["one", "there"] = b"precious"

    def answer(self, request: bytes) -> tuple[bytes, bool, bool, int]:
        """Everything visible of an answer: its bytes, and whether the connection
        closes."""
        connection = Connection(self.root)
        connection.send(request)
        wire = connection.wire
        said = re.sub(rb"Date: [^\r]*\r\n", b"", connection.received())
        timers = len(connection.clock.getDelayedCalls())
        return said, wire.disconnecting, wire.half_closed, timers

    def test_near_misses(self) -> None:
        """However close a guess is, each kind of request gets one answer, and one way
        to go on."""
        guesses = (
            b"z" * 32,
            TOKEN[:-1] + b"0",
            b"f" + TOKEN[1:],
            TOKEN[:-1],
            TOKEN + b"f",
            TOKEN.upper(),
            b"%20" + TOKEN,
            b"one",
            b".filebucket",
            b"x" * 4000,
        )
        shapes: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...] = (
            (b"1.1", (b"Content-Length: 2",), b"xy"),
            (b"1.1", (b"Content-Length: 2", b"Expect: 100-continue"), b""),
            (b"1.1", (b"Content-Length: 2", b"Expect: tea"), b"xy"),
            (b"1.1", (b"Content-Length: 9999999",), b"xy"),
            (b"1.1", (b"Transfer-Encoding: chunked",), b"0\r\n\r\n"),
            (b"1.1", (b"Content-Encoding: gzip", b"Content-Length: 2"), b"xy"),
            (b"1.1", (b"Connection: close", b"Content-Length: 2"), b"xy"),
            (b"1.1", (b"X-Checksum-Sha256: nonsense",), b""),
            (b"1.1", (b"Upload-Complete: ?0", b"Content-Length: 2"), b"xy"),
            (b"1.1", (b"Tus-Resumable: 1.0.0", b"Upload-Offset: 0"), b""),
            (b"1.1", (), b""),
            (b"1.0", (b"Content-Length: 2",), b"xy"),
        )
        for version, headers, body in shapes:
            for method in (b"PUT", b"POST", b"GET", b"HEAD", b"PATCH", b"OPTIONS"):
                seen = set()
                for guess in guesses:
                    for target, more in (
                        (b"/%b/there" % guess, ()),
                        (b"/%b/missing" % guess, ()),
                        (b"/" + guess, ()),
                        (b"/%b/uploads/%032d" % (guess, 0), ()),
                        (b"/there", (bearer(guess),)),
                        (b"/", (bearer(guess), bearer(TOKEN))),
                    ):
                        lines = (
                            b"%b %b HTTP/%b" % (method, target, version),
                            b"Host: h",
                            *headers,
                            *more,
                        )
                        request = b"\r\n".join(lines) + b"\r\n\r\n" + body
                        seen.add(self.answer(request))
                self.assertEqual(1, len(seen), (method, headers, seen))
                self.assertRegex(seen.pop()[0], rb"^HTTP/1\.[01] 403 Forbidden\r\n")

    def test_asks_nobody(self) -> None:
        """Neither the store nor a hook is involved, and no name is logged."""
        self.connection.send(put(b"/%b/there" % (TOKEN[:-1] + b"0")))
        self.assertEqual([403], self.connection.statuses())
        self.assertEqual([], self.hooks.asked)
        self.assertEqual({("one", "there"): b"precious"}, self.store.files)
        self.assertEqual([None], [outcome.name for outcome in self.observed])

    def test_body_is_not_kept(self) -> None:
        """The body is dropped as it comes."""
        self.connection.send(put(b"/x/y", b"x" * 900)[:-1])
        request = self.connection.channel.requests[-1]
        self.assertEqual(([403], 0), (self.connection.statuses(), request.body._size))


class NeighbourTests(ResourceCase):
    """A client with the token of another bucket."""

    def test_names_of_others(self) -> None:
        """Files in another bucket can be neither reached nor probed."""
        self.store.files["two", "there"] = b"precious"
        for name in (
            b"..%2ftwo%2fthere",
            b"../two/there",
            b"..%5ctwo%5cthere",
            b"%2e%2e/two/there",
            b"..%252ftwo%252fthere",
            b"..%c0%aftwo%c0%afthere",
        ):
            answers = set()
            for last in (b"there", b"missing"):
                target = b"/%b/%b" % (TOKEN, name.replace(b"there", last))
                self.connection = Connection(self.root)
                answers.update(self.statuses(put(target)))
            self.assertEqual(1, len(answers), name)
        self.assertEqual(b"precious", self.store.files["two", "there"])
        self.assertEqual({"one", "two"}, {bucket for bucket, _ in self.store.files})
        for _, name_kept in self.store.files:
            self.assertNotIn("/", name_kept)

    def test_unfit_names(self) -> None:
        """No name reaches beyond its bucket, or into a log's or terminal's syntax."""
        for name in UNFIT_NAMES:
            target = f"/{TOKEN.decode()}/{quote(name, safe='')}".encode()
            self.assertEqual([400], self.statuses(put(target)), name)
        self.assertEqual(({}, []), (self.store.files, self.hooks.asked))


class LogTests(ResourceCase):
    """Injections into the log."""

    def lines(self, *requests: bytes) -> list[str]:
        """The log of these requests."""
        with capturedLogs() as events:
            for request in requests:
                connection = self.connect()
                connection.send(request)
                for refusal in connection.refused:
                    client = connection.channel.client
                    notices.log_outcome(notices.before_a_request(client, refusal))
            for outcome in self.observed:
                notices.log_outcome(outcome, self.registry.hide_tokens)
        return [formatEvent(event) for event in events]

    def test_names(self) -> None:
        """A name is one word of one line, without control characters."""
        for name in (*HOSTILE_NAMES, *UNFIT_NAMES):
            self.observed.clear()
            target = f"/{TOKEN.decode()}/{quote(name, safe='')}".encode()
            (line,) = self.lines(put(target))
            self.assertTrue(line.isprintable(), line)

    def test_nothing_of_a_malformed_request(self) -> None:
        """Neither the malformed part nor a token beside it is logged."""
        evil = b"\x1b[2J push bucket=evil"
        requests = (
            b"\x1b[2J %b\r\n\r\n" % TOKEN,
            b"PUT /%b/%b HTTP/1.1\r\n\r\n" % (TOKEN, evil),
            b"PUT /%b/x HTTP/1.1\r\n%b\r\n\r\n" % (TOKEN, evil),
            b"PUT /%b/x HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % (TOKEN, evil),
            b"PUT /%b/x HTTP/1.1\r\nTransfer-Encoding: %b\r\n\r\n" % (TOKEN, evil),
            put(b"/%b/x" % TOKEN, b"x", b"X-Checksum-Sha256: " + evil),
            put(b"/%b/x" % TOKEN, b"x", b"Content-Digest: sha-256=:" + evil),
            put(b"/%b/x" % TOKEN, b"x", b"Expect: " + evil),
            put(b"/%b/x" % TOKEN, b"x", b"Content-Encoding: " + evil),
            put(b"/", b"x", b"Authorization: Bearer %b %b" % (TOKEN, evil)),
        )
        for line in self.lines(*requests):
            self.assertTrue(line.isprintable(), line)
            self.assertNotIn("evil", line)
            self.assertNotIn(TOKEN.decode(), line)

    def test_traceback(self) -> None:
        """A bug's traceback has no token, wherever the bug is."""
        broken: Deferred[None] = Deferred()
        broken.errback(RuntimeError("a bug"))
        self.hooks.gate = broken
        with capturedLogs() as events:
            self.connection.send(put(b"/%b/x" % TOKEN))
        self.assertEqual([500], self.connection.statuses())
        text = "".join(map(eventAsText, events))
        self.assertIn("Traceback", text)
        self.assertNotIn(TOKEN.decode(), text)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class SpecialFileTests(SynchronousTestCase):
    """Special files that a hook or another process puts into a bucket."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.store = DirectoryStore(
            Home(str(self.home), LinesAtOnce()), Room(FreeSpace())
        )
        self.store.prepare()
        self.addCleanup(self.store.close)
        self.bucket = self.home / "one"
        self.bucket.mkdir()

    def push(self, begins: bool, overwrite: bool) -> int:
        """Push the name ``special``, and return the status."""

        async def push() -> None:
            writer = self.store.open("one", "special", (), None)
            try:
                if begins:
                    await writer.begin(3, overwrite)
                await writer.write([b"abc"])
                await writer.commit({}, overwrite)
            except BaseException:
                await writer.abort()
                raise

        done = Deferred.fromCoroutine(push())
        if not isinstance(done.result, Exception) and done.result is None:
            return 200
        refusal = self.failureResultOf(done, Refusal).value
        return int(refusal.status)

    def test_never_opened(self) -> None:
        """A FIFO without a reader would block a thread for ever, and a device would
        take the bytes. Neither is opened, and overwriting replaces the name."""
        path = self.bucket / "special"
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)

        def bind() -> None:
            here = os.open(".", os.O_RDONLY)
            os.chdir(self.bucket)  # a socket's path has up to 107 bytes
            try:
                listener.bind("special")
            finally:
                os.fchdir(here)
                os.close(here)

        for make, kind in (
            (lambda: os.mkfifo(path), stat.S_ISFIFO),
            (bind, stat.S_ISSOCK),
            (lambda: path.symlink_to("/dev/full"), stat.S_ISLNK),
        ):
            make()
            for begins in (True, False):
                self.assertEqual(405, self.push(begins, overwrite=False))
                self.assertTrue(kind(path.lstat().st_mode))
            self.assertEqual(200, self.push(begins=True, overwrite=True))
            self.assertTrue(stat.S_ISREG(path.lstat().st_mode))
            self.assertEqual(b"abc", path.read_bytes())
            path.unlink()

    def test_bucket_is_special(self) -> None:
        """A bucket's folder that is not a folder."""
        self.bucket.rmdir()
        os.mkfifo(self.bucket)
        for begins in (True, False):
            self.assertEqual(401, self.push(begins, overwrite=True))

    def test_modes(self) -> None:
        """Other users of the machine cannot read files, whatever the umask is."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.assertEqual(200, self.push(begins=True, overwrite=False))
        self.assertEqual(0o600, stat.S_IMODE((self.bucket / "special").stat().st_mode))
        self.assertEqual(0o700, stat.S_IMODE(self.home.stat().st_mode))


class HolderTests(ResourceCase):
    """A client with a token."""

    def test_reload_between_requests(self) -> None:
        """A kept connection gets 403 after its token is removed."""
        self.assertEqual([200], self.statuses(put(b"/%b/a" % TOKEN)))
        self.registry.replace(BucketIndex([]))
        self.assertEqual([403], self.statuses(put(b"/%b/b" % TOKEN)))

    def test_overwrite_is_the_hooks(self) -> None:
        """No header and no way of pushing overwrites; only pre-push can allow it."""
        self.store.files["one", "a"] = b"precious"
        for headers in ((), (b"Overwrite: T",), (b"If-Match: *",)):
            push = put(b"/%b/a" % TOKEN, b"x", *headers)
            self.assertEqual([405], self.statuses(push))
        self.assertEqual(b"precious", self.store.files["one", "a"])
        self.hooks.verdicts = [Verdict.OVERWRITE]
        self.hooks.exit = Exit(0)
        self.assertEqual([200], self.statuses(put(b"/%b/a" % TOKEN, b"x")))


class RealTests(IntegrationCase):
    """With a real daemon."""

    def push(self, server: Server, name: str, token: str = OTHER) -> int:
        client = self.client(server)
        client.send(put_head(quote(name, safe=""), 1, token), b"x")
        return client.answer()[0]

    def test_names_for_hooks(self) -> None:
        """No name acts as an option, a pattern, a command or a second word."""
        server = self.server()
        asked = self.folder / "asked"
        server.hook("pre-push", f'printf "%s\\0" "$#" "$2" >>{asked}')
        for name in HOSTILE_NAMES:
            self.assertEqual(200, self.push(server, name), name)
        words = asked.read_bytes().decode().split("\0")[:-1]
        expected = [word for name in HOSTILE_NAMES for word in ("4", name)]
        self.assertEqual(expected, words)
        kept = {f"web01/{name}" for name in HOSTILE_NAMES}
        self.assertEqual(kept, set(server.stored()))

    def test_process_list(self) -> None:
        """ps shows no token: not the daemon's arguments, nor those of a named bucket's
        hook."""
        server = self.server()
        seen = self.folder / "seen"
        server.hook("pre-push", f"cat /proc/$$/cmdline /proc/$$/environ >>{seen}")
        server.hook("post-push", f"cat /proc/$$/cmdline /proc/$$/environ >>{seen}")
        self.assertEqual(200, self.push(server, "x"))
        daemon = Path(f"/proc/{server.process.pid}")
        shown = seen.read_bytes()
        self.assertIn(b"FILEBUCKET_SHA256=", shown)
        for name in ("cmdline", "environ", "comm"):
            shown += (daemon / name).read_bytes()
        self.assertNotIn(OTHER.encode(), shown)

    def test_process_list_without_a_name(self) -> None:
        """The token of a bucket without a name is an argument of its hooks: users who
        can see the process list can see it. Give buckets names."""
        server = self.server()
        seen = self.folder / "seen"
        server.hook("pre-push", f"cat /proc/$$/cmdline >>{seen}")
        self.assertEqual(200, self.push(server, "x", REAL_TOKEN))
        self.assertIn(REAL_TOKEN.encode(), seen.read_bytes())

    def test_many_signals(self) -> None:
        server = self.server()
        for _ in range(100):
            server.signal(signal.SIGUSR2)
        self.assertEqual(200, self.push(server, "x"))
        server.wait_for("reloaded: 2 buckets \\(0 tokens added, 0 removed\\)")

    def test_descriptors(self) -> None:
        """It raises the limit of descriptors to what a thousand pushes and monitoring
        connections need."""
        need("prlimit")
        command = (*TWISTD, "-n", "--pidfile=", "filebucket")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for keys, more in (
            ({}, 0),
            ({"admin": "tcp:0:interface=127.0.0.1"}, CONNECTIONS),
        ):
            server = Server(self.folder / f"server-{more}", **keys)
            server.start("prlimit", "--nofile=64:", *command)
            self.addCleanup(server.stop)
            limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
            self.assertEqual((min(DESCRIPTORS + more, hard), hard), limits)

    def test_descriptors_are_not_taken(self) -> None:
        """It stays within the operator's hard limit, and never lowers the limit."""
        need("prlimit")
        if resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= DESCRIPTORS:
            raise SkipTest("this process has a lower limit itself")
        server = Server(self.folder / "server")
        command = (*TWISTD, "-n", "--pidfile=", "filebucket")
        for given in ((80, 80), (DESCRIPTORS + 1, DESCRIPTORS + 1)):
            server.start("prlimit", "--nofile={}:{}".format(*given), *command)
            try:
                limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
                self.assertEqual(given, limits)
            finally:
                server.stop()


class DocumentTests(SynchronousTestCase):
    def test_every_test_is_there(self) -> None:
        """The document names existing tests and modules."""
        if not DOCUMENT.exists():
            raise SkipTest("installed without its documents")
        named = re.findall(
            r"``(\w+\.test_\w+)\.(\w+)\.(test_\w+)``", DOCUMENT.read_text()
        )
        self.assertNotEqual([], named)
        for module, case, test in named:
            found = importlib.import_module(f"filebucket.test.{module}")
            self.assertTrue(callable(getattr(getattr(found, case), test)), test)
