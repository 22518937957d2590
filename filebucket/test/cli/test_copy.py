"""``filebucket copy``."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import closing
from functools import partial

from click.testing import Result

from filebucket.base.errors import BusyError
from filebucket.catalogue.copies import Copies
from filebucket.catalogue.view import View
from filebucket.cli import copy as module
from filebucket.client import push
from filebucket.client.access import Server
from filebucket.client.connection import Answer
from filebucket.client.retry import Patience
from filebucket.model.records import Copy
from filebucket.test.kit.commands import DAY, TOKEN, UpkeepCase
from filebucket.test.kit.pushes import MemoryServer, reply

FAR = "http://far.example:1234"
FAR_TOKEN = "e" * 32
SMALL = 10
RESET = ConnectionResetError(104, "Connection reset by peer")


class CopyCase(UpkeepCase):
    """Has another server in memory.

    :ivar far: that server
    :ivar servers: where connections went
    """

    def setUp(self) -> None:
        super().setUp()
        self.write({"name": "web01", "token": "f" * 32})
        Copies.open(str(self.home)).close()
        self.far = MemoryServer()
        self.servers: list[Server] = []
        for where in (module, push):
            self.patch(where, "SMALL", SMALL)
        self.patch(push, "LEAST_PART", SMALL)
        self.patch(push, "LARGEST_REQUEST", SMALL)
        self.patch(module, "Connection", self.connected)
        self.tokens(web01=FAR_TOKEN)

    def connected(self, server: Server, agent: str) -> MemoryServer:
        self.servers.append(server)
        self.assertRegex(agent, "^filebucket/[0-9]")
        return self.far

    def tokens(self, **tokens: object) -> None:
        """Write the tokens of the other server."""
        self.keep(json.dumps(tokens))

    def keep(self, text: str) -> None:
        path = self.folder / "copy.json"
        path.write_text(text)
        path.chmod(0o600)

    def copy(self, *arguments: str) -> list[str]:
        """The lines that it prints."""
        return self.run_("copy", FAR, *arguments).splitlines()

    def fails(self, *arguments: str) -> list[str]:
        result = self.invoke("copy", FAR, *arguments)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIsInstance(result.exception, SystemExit)
        for each in (TOKEN, FAR_TOKEN, "f" * 32):
            self.assertNotIn(each, result.output)
        return result.output.splitlines()

    def asked(self) -> list[str]:
        """The requests since the last call: their methods, and whether they created an
        upload.
        """
        found = [
            "ask"
            if "Upload-Complete" in each.headers and each.body is None
            else each.method
            for each in self.far.asked
            if each.method != "OPTIONS"
        ]
        self.far.asked.clear()
        return found

    def recorded(self) -> Copy:
        with closing(View.open(str(self.home))) as view:
            (found,) = view.copies()
        return found


class CopiedTests(CopyCase):
    def test_all(self) -> None:
        """With the checksums of the catalogue; the next time no bytes are sent."""
        self.push("db-1", b"123", age=2 * DAY)
        self.push("db-2", b"x" * (3 * SMALL), age=DAY)
        self.assertEqual(["web01: 2 files sent (33 B), 0 already there"], self.copy())
        self.assertEqual({"db-1": b"123", "db-2": b"x" * 30}, self.far.stored)
        (server,) = self.servers
        self.assertEqual((FAR, FAR_TOKEN), (server.text, server.token))
        self.far.asked.clear()
        self.assertEqual(["web01: 0 files sent (0 B), 2 already there"], self.copy())
        self.assertEqual(["ask", "ask"], self.asked())
        found = self.recorded()
        self.assertEqual((FAR, "web01"), (found.target, found.bucket))
        self.assertIsNone(found.error)

    def test_small(self) -> None:
        """After each that was not there, more are sent at once."""
        for number in range(12):
            self.push(f"db-{number}", age=DAY * (20 - number))
        self.copy()
        missed = ["ask", "PATCH", "PUT"]
        expected = [*missed, *missed, "PUT", *missed, *["PUT"] * 3, *missed]
        self.assertEqual(expected, self.asked())
        self.assertEqual(12, len(self.far.stored))
        self.copy()
        self.assertEqual(["ask"] * 12, self.asked())
        # A gap costs the bytes of one file.
        del self.far.stored["db-3"]
        (line,) = self.fails()
        self.assertEqual(
            "web01: 1 file sent (7 B), 11 already there, 1 sent again because they"
            " were no longer there",
            line,
        )
        self.assertEqual([*["ask"] * 4, "PATCH", *["ask"] * 8], self.asked())

    def test_at_most_some_unasked(self) -> None:
        self.patch(module, "MOST_UNASKED", 2)
        for number in range(9):
            self.push(f"db-{number}", age=DAY * (20 - number))
        self.copy()
        expected = "ask PATCH PUT ask PATCH PUT PUT ask PATCH PUT PUT ask PATCH"
        self.assertEqual(expected.split(), self.asked())

    def test_empty(self) -> None:
        self.push("db", b"")
        self.copy()
        self.assertEqual({"db": b""}, self.far.stored)

    def test_name(self) -> None:
        """Any that a push may have, whatever the locale is."""
        self.patch(os, "fsencode", lambda name: name.encode("utf-8", "surrogateescape"))
        self.push("ü 100%?#.gz")
        self.copy()
        self.assertEqual(["ü 100%?#.gz"], [*self.far.stored])

    def test_buckets(self) -> None:
        """Only those that are named."""
        self.write(*({"name": each, "token": each * 16} for each in ("db", "ab")))
        self.tokens(db="1" * 32, ab="2" * 32)
        self.assertEqual(["ab: 0 files sent (0 B), 0 already there"], self.copy("ab"))
        self.assertEqual(["db", "ab"], [each.split(":")[0] for each in self.copy()])
        self.assertEqual(["2", "1", "2"], [each.token[0] for each in self.servers])
        self.assertEqual(2, self.invoke("copy", FAR, "nope").exit_code)

    def test_json(self) -> None:
        self.push("db-1")
        found = self.json("copy", FAR)
        until = found["buckets"][0].pop("until")
        self.assertRegex(until, "^20")
        self.assertEqual(
            {
                "target": FAR,
                "buckets": [
                    {
                        "bucket": "web01",
                        "sent": 1,
                        "sent_bytes": 7,
                        "again": 0,
                        "there": 0,
                        "failed": 0,
                        "stopped": None,
                        "error": None,
                    }
                ],
            },
            found,
        )

    def test_rate(self) -> None:
        """A large file goes in pieces of a second, with a pause after each."""
        waits: list[float] = []
        self.patch(time, "sleep", waits.append)
        self.push("db", b"x" * 100)
        self.copy("--rate", "4")
        self.assertEqual({"db": b"x" * 100}, self.far.stored)
        self.assertGreater(len(waits), 20)

    def test_server_replaces(self) -> None:
        """A file that was replaced here replaces the one there, if the server allows
        it. It is not sent unless it differs.
        """
        self.far.replaces = True
        for content, age in ((b"1", 1.0), (b"x" * (2 * SMALL), -1.0)):
            self.push("db", content, age)
            self.copy()
            self.assertEqual({"db": content}, self.far.stored)
            self.asked()
            self.copy()
            self.assertEqual(["ask"], self.asked())

    def test_forget(self) -> None:
        self.push("db")
        self.copy()
        wrong = "http://fra.example:1234"
        self.assertEqual(
            f"Error: nothing was copied to {wrong}; there are copies on {FAR}",
            self.refused("copy", wrong, "--forget"),
        )
        self.assertEqual(
            [f"Forgot the copies of 1 bucket on {FAR}."], self.copy("--forget")
        )
        self.assertEqual(
            [f"Error: nothing was copied to {FAR}"], self.fails("--forget")
        )
        self.copy()
        self.assertEqual(
            {"target": FAR, "forgotten": 1}, self.json("copy", FAR, "--forget")
        )
        with closing(View.open(str(self.home))) as view:
            self.assertEqual([], view.copies())


class FailedTests(CopyCase):
    def test_rotten(self) -> None:
        """It never arrives, and nothing of it is left there. The others do."""
        for name, content in (("db-1", b"1"), ("db-2", b"x" * SMALL + b"y" * SMALL)):
            self.damage(self.push(name, content + b"z", age=2 * DAY))
        self.push("db-3", age=DAY)
        *lines, last = self.fails()
        self.assertEqual(
            [
                f"web01: db-{n}: damaged here, and not on the other server"
                for n in (1, 2)
            ],
            lines,
        )
        self.assertEqual(
            "web01: 1 file sent (7 B), 0 already there, 2 not copied", last
        )
        self.assertEqual({"db-3": b"content"}, self.far.stored)
        self.assertEqual([], self.unfinished())
        error = "db-1: damaged here, and not on the other server (and 1 more file)"
        self.assertEqual(error, self.recorded().error)

    def unfinished(self) -> list[str]:
        return [each.name for each in self.far.uploads.values() if each.receipt is None]

    def unreadable(self, number: int) -> str:
        """The report of a file in whose middle the disk gives an error."""
        self.push("db", b"x" * (2 * SMALL))

        def broken(fd: int, size: int, at: int) -> bytes:
            raise OSError(number, os.strerror(number))

        self.patch(os, "pread", broken)
        first, _ = self.fails()
        self.assertEqual([], self.unfinished())
        return first

    def test_lost(self) -> None:
        self.assertEqual(
            "web01: db: damaged here, and not on the other server",
            self.unreadable(errno.EIO),
        )

    def test_unreadable(self) -> None:
        self.assertEqual("web01: db: Stale file handle", self.unreadable(errno.ESTALE))

    def test_shorter(self) -> None:
        """It is cut off while it is sent."""
        self.push("db", b"x" * (2 * SMALL))
        self.patch(os, "pread", lambda fd, size, at: b"x" * (size - 1))
        first, _ = self.fails()
        self.assertEqual("web01: db: damaged here, and not on the other server", first)

    def test_taken(self) -> None:
        self.push("db-1", age=2 * DAY)
        self.push("db-2", age=DAY)
        self.far.stored["db-1"] = b"other"
        first, _ = self.fails()
        self.assertEqual(
            "web01: db-1: the server has another file with that name, and no push"
            " may replace it",
            first,
        )
        self.assertEqual({"db-1": b"other", "db-2": b"content"}, self.far.stored)

    def test_taken_since(self) -> None:
        """A copy is not replaced by an older push, even if the server allows it."""
        self.far.replaces = True
        self.push("db-1")
        self.copy()
        self.far.stored["db-1"] = b"other"
        first, _ = self.fails()
        self.assertEqual(
            "web01: db-1: was copied before, but the server now has another file with"
            " that name",
            first,
        )
        self.assertEqual({"db-1": b"other"}, self.far.stored)

    def refuse(self, answer: Answer | BaseException) -> None:
        self.push("db-1", age=2 * DAY)
        self.push("db-2", age=DAY)
        self.far.faults = [lambda asked: None, lambda asked: answer]

    def test_refused(self) -> None:
        """The other files are tried."""
        self.refuse(reply(409, "rejected"))
        first, last = self.fails()
        self.assertEqual("web01: db-1: rejected (409)", first)
        self.assertIn("1 file sent (7 B), 0 already there, 1 not copied", last)

    def test_stopped(self) -> None:
        """They are not: they would fail, too."""
        for answer, reason in (
            (reply(403, "no such token"), "no such token (403); check the token file"),
            (reply(501, "off"), "the server has no resumable uploads"),
            (reply(200, "<html>", X_Request_Id=""), "the answer (200) is not file-b"),
            (reply(302, "", X_Request_Id="", Location="/"), "the server redirects to"),
            (reply(503, "busy"), "gave up after 0 s without progress: busy (503)"),
            (reply(507, "full"), "full (507)"),
            (RESET, "gave up after 0 s without progress: Connection reset by peer"),
        ):
            self.refuse(answer)
            (line,) = self.fails("--retry-for", "0s")
            self.assertIn(f"web01: 0 files sent (0 B), 0 already there; {reason}", line)
            self.assertEqual(["OPTIONS", "PUT"], self.far.methods)
            self.assertIn(reason, self.recorded().error or "")
            self.far.asked.clear()

    def test_waits(self) -> None:
        """A terminal shows why, and names the server once."""
        self.push("db")
        self.patch(module, "_is_terminal", lambda: True)
        patient = partial(Patience, sleep=lambda _: None, chance=lambda: 0.0)
        self.patch(module, "Patience", patient)
        error = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        self.far.faults = [lambda asked: error, lambda asked: reply(503, "busy")]
        waits = [each for each in self.copy() if "again" in each]
        self.assertEqual(
            [
                "Connection refused; trying again in 1 s",
                "busy (503); trying again in 2 s",
            ],
            waits,
        )

    def test_no_room(self) -> None:
        """Other buckets need not wait, and the next run goes on with the upload."""
        self.push("db", b"x" * (3 * SMALL))
        fine, full = (lambda asked: None), (lambda asked: reply(507, "full"))
        self.far.faults = [fine, fine, fine, full]
        (line,) = self.fails()
        self.assertIn("; full (507)", line)
        self.assertEqual(["OPTIONS", "PUT", "PATCH", "PATCH"], self.far.methods)
        self.copy()
        self.assertEqual({"db": b"x" * 30}, self.far.stored)

    def test_not_found(self) -> None:
        """Nothing is recorded about a server that was never found: its address may be a
        mistake.
        """
        self.push("db")
        for answer, reason in (
            (reply(403, "no such token"), "no such token (403); check the token file"),
            (reply(501, "off"), "the server has no resumable uploads"),
            (reply(200, "<html>", X_Request_Id=""), "the answer (200) is not file-b"),
            (reply(503, "full"), "gave up after 0 s without progress: full (503)"),
            (RESET, "gave up after 0 s without progress: Connection reset by peer"),
        ):
            self.far.asked.clear()
            self.far.faults = [lambda asked, answer=answer: answer]  # type: ignore[misc]
            (line,) = self.fails("--retry-for", "0s")
            self.assertIn(f"; {reason}", line)
            self.assertEqual(["OPTIONS"], self.far.methods)
            with closing(View.open(str(self.home))) as view:
                self.assertEqual([], view.copies())

    def test_retried(self) -> None:
        self.refuse(RESET)
        self.assertIn("2 files sent", self.copy()[-1])

    def test_no_token(self) -> None:
        """The others are copied."""
        self.write(*({"name": each, "token": each * 16} for each in ("db", "ab")))
        self.tokens(ab="2" * 32)
        self.push("x")
        lines = self.fails()
        self.assertIn(
            "db: 0 files sent (0 B), 0 already there; there is no token", lines[0]
        )
        self.assertEqual("ab: 0 files sent (0 B), 0 already there", lines[1])
        with closing(View.open(str(self.home))) as view:
            errors = [each.error is None for each in view.copies()]
        self.assertEqual([True, False], errors)

    def test_another_machine(self) -> None:
        """Several daemons share the catalogue."""

        def busy(place: str, name: str) -> None:
            self.assertEqual((str(self.home), f"copy to {FAR}"), (place, name))
            raise BusyError("it runs elsewhere")

        self.patch(module, "job", busy)
        result = self.invoke("copy", FAR)
        self.assertEqual(75, result.exit_code)
        self.assertEqual("Error: it runs elsewhere\n", result.output)

    def test_another_process(self) -> None:
        """To the same server."""
        child = os.fork()
        if not child:
            with module._locked(str(self.home), FAR):
                os.kill(os.getpid(), 19)
                os._exit(0)
        try:
            os.waitpid(child, os.WUNTRACED)
            result = self.invoke("copy", FAR)
            self.assertEqual(75, result.exit_code)
            line = f"Error: another process is copying to {FAR}\n"
            self.assertEqual(line, result.output)
            other = self.invoke("copy", "http://other.example")
            self.assertEqual(0, other.exit_code, other.output)
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
        self.copy()


class TokensTests(CopyCase):
    """What the file with the tokens may have."""

    def used(self, text: str) -> str:
        self.keep(text)
        self.servers.clear()
        self.copy()
        (server,) = self.servers
        return server.token

    def test_forms(self) -> None:
        one = json.dumps(
            {"config": "/f", "token": "1" * 32, "name": "web01", "hold": 1}
        )
        other = {"token": "2" * 32, "name": "web01", "tokens": []}
        many = json.dumps({"config": "/f", "url": None, "buckets": [other]}, indent=2)
        for text, token in (
            (json.dumps({"web01": "3" * 32, "other": "4" * 32}), "3"),
            (f"\ufeff{one}\n", "1"),
            (many, "2"),
            (f"{one}\n{many}\n\n", "2"),
            (f"{many} {one}", "1"),
        ):
            self.assertEqual(token * 32, self.used(text), text)

    def test_printed(self) -> None:
        """By the other server's command."""
        names = self.folder / "names"
        names.write_text("web01\n")
        before = self.file.read_text()
        self.write()
        text = self.run_("bucket", "add", "--from", str(names), "--json")
        self.file.write_text(before)
        (bucket,) = json.loads(text)["buckets"]
        self.assertEqual(bucket["token"], self.used(text))

    def test_wrong(self) -> None:
        for text, reason in (
            ("{", "not JSON"),
            ("\udcff", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("[]", "must be an object of bucket names and tokens"),
            ('{"web01": 1}', "must be an object of bucket names and tokens"),
            (
                '{"buckets": [{"name": null, "token": "x"}]}',
                "must be an object of bucket names",
            ),
            ('{"web01": "x"}', "bucket web01: not a valid token"),
            ('{"web01": "' + "x" * 100 + '"}', "bucket web01: not a valid token"),
        ):
            (self.folder / "copy.json").write_bytes(
                text.encode("utf-8", "surrogateescape")
            )
            (line,) = self.fails()
            self.assertIn(f"copy.json: {reason}", line)
        self.patch(module, "LONGEST_TOKENS", 5)
        self.assertIn("too large", self.fails()[0])

    def test_swapped(self) -> None:
        self.tokens(**{FAR_TOKEN: "web01"})
        self.assertIn("copy.json: bucket: not a valid token", self.fails()[0])

    def test_shared(self) -> None:
        """Two buckets here would be one there."""
        self.write(
            {"name": "web01", "token": "f" * 32}, {"name": "db01", "token": "1" * 32}
        )
        self.tokens(web01=FAR_TOKEN, db01=FAR_TOKEN)
        (line,) = self.fails("db01")
        self.assertIn(
            "buckets web01 and db01 have the same token; give each its own", line
        )
        # The second is the old name of the first.
        self.write({"name": "web01", "token": "f" * 32})
        self.copy()

    def test_missing(self) -> None:
        (line,) = self.fails("--tokens", "nope")
        self.assertIn("nope: No such file or directory; 'filebucket bucket add", line)

    def test_credential(self) -> None:
        """The one that systemd passes."""
        folder = self.folder / "credentials"
        folder.mkdir()
        (folder / "copy.json").write_text(json.dumps({"web01": "7" * 32}))
        self.patch(os, "environ", {**os.environ, "CREDENTIALS_DIRECTORY": str(folder)})
        self.copy()
        self.assertEqual("7" * 32, self.servers[-1].token)

    def test_warnings(self) -> None:
        """On a terminal."""
        (self.folder / "copy.json").chmod(0o644)
        self.assertEqual(1, len(self.copy()))

        self.patch(module, "_is_terminal", lambda: True)
        first, second, _ = self.copy()
        self.assertIn("others in the network can read the tokens", first)
        self.assertIn("other users can read the tokens: chmod 600", second)


class MisuseTests(CopyCase):
    def result(self, *arguments: str) -> Result:
        return self.invoke("copy", *arguments)

    def test_url(self) -> None:
        for url, reason in (
            ("far.example", "the URL must begin with http:// or https://"),
            (f"http://far.example/{TOKEN}", "the URL must not have the token"),
        ):
            result = self.result(url)
            self.assertEqual(2, result.exit_code)
            self.assertIn(reason, result.output)
            self.assertNotIn(TOKEN, result.output)
