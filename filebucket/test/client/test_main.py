"""The command, against a server in memory."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import signal
import socket
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from twisted.trial.unittest import SynchronousTestCase

import filebucket.client
from filebucket import __version__
from filebucket.client import main as module
from filebucket.client.access import Server
from filebucket.client.main import Ended, main, parser
from filebucket.client.retry import Patience
from filebucket.client.source import LEAST_PART, MOST_PART, FileSource
from filebucket.test.kit.integration import ended
from filebucket.test.kit.pushes import Fault, MemoryServer, reply

TOKEN = "0123456789abcdefABCDEF_-01234567"
URL = "http://localhost:1"
RESET = ConnectionResetError(104, "Connection reset by peer")
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def gives(fault: Any) -> Fault:
    return lambda _: fault


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


class MainCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / ".file-bucket").write_text(f"Authorization: Bearer {TOKEN}\n")
        (self.folder / ".file-bucket").chmod(0o600)
        self.path = self.file("db.gz", b"data")
        self.environ = {
            "HOME": str(self.folder),
            "FILEBUCKET_URL": URL,
            "PATH": os.environ["PATH"],
        }
        self.server = MemoryServer()
        self.servers: list[Server] = []
        self.patch(module, "Connection", self.connection)
        self.patch(module, "Patience", partial(Patience, sleep=lambda _: None))
        self.stdin = io.StringIO()
        self.out: io.StringIO = io.StringIO()
        self.err: io.StringIO = io.StringIO()
        for number in SIGNALS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def connection(self, server: Any, agent: str) -> MemoryServer:
        self.assertEqual(f"filebucket-push/{__version__}", agent)
        self.servers.append(server)
        return self.server

    def file(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def run_main(self, *arguments: str) -> int:
        """Run the command; its output is in ``out`` and ``err``. Never the token."""
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        self.patch(os, "environ", self.environ)
        self.patch(sys, "stdin", self.stdin)
        with redirect_stdout(self.out), redirect_stderr(self.err):
            ended = self.assertRaises(SystemExit, main, list(arguments))
        self.assertNotIn(TOKEN, self.out.getvalue() + self.err.getvalue())
        assert isinstance(ended.code, int)
        return ended.code

    def says(self, status: int, text: str, *arguments: str) -> None:
        """The exit status, and a single line."""
        self.assertEqual(
            (status, f"filebucket-push: {text}\n", ""),
            (self.run_main(*arguments), self.err.getvalue(), self.out.getvalue()),
        )

    def is_silent(self, *arguments: str) -> None:
        self.assertEqual(0, self.run_main(*arguments), self.err.getvalue())
        self.assertEqual("", self.err.getvalue() + self.out.getvalue())


class UsageTests(MainCase):
    def test_messages(self) -> None:
        path = self.path
        for text, arguments in (
            ("give a FILE, - for standard input, or --exec -- COMMAND", ()),
            ("--exec needs a command: --exec -- pg_dump shop", ("--exec",)),
            (
                "--exec needs a command: --exec -- pg_dump shop",
                ("--exec", "--name", "x", "--"),
            ),
            ("--exec takes no FILE", (path, "--exec", "true")),
            ("--exec needs --name", ("--exec", "true")),
            ("standard input, or --name, allows only one FILE", (path, "-")),
            (
                "standard input, or --name, allows only one FILE",
                ("--name", "x", path, path),
            ),
            ("standard input needs --name", ("-",)),
            ("and have a host", ("--url", "http://", path)),
        ):
            self.assertEqual(2, self.run_main(*arguments), text)
            self.assertIn(text, self.err.getvalue())
        self.assertEqual([], self.server.asked)

    def test_no_server(self) -> None:
        del self.environ["FILEBUCKET_URL"]
        self.says(
            2,
            "no server: use --url http://HOST:1234, or set FILEBUCKET_URL",
            self.path,
        )

    def test_no_token(self) -> None:
        self.environ["HOME"] = "/nonexistent"
        self.assertEqual(2, self.run_main(self.path))
        self.assertIn("there is no token: put the line", self.err.getvalue())

    def test_no_home(self) -> None:
        """A user without one, as in some containers, is no traceback."""
        self.patch(os.path, "expanduser", lambda path: path)
        self.assertEqual(2, self.run_main(self.path))
        self.is_silent("--token-file", str(self.folder / ".file-bucket"), self.path)

    def test_terminal_as_input(self) -> None:
        self.stdin = Terminal()
        self.says(
            2, "standard input is a terminal; pipe data into it", "--name", "x", "-"
        )

    def test_options(self) -> None:
        """Wrong values are refused by the parser."""
        for option, expected, values in (
            (
                "--retry-for",
                "a time such as 90s, 30m, 2h or 0",
                ("", "x", "-1", "1h30m", "nan", "inf", "1e999d"),
            ),
            (
                "--part-size",
                "a number from 1 to 1024",
                ("", "0", "1025", "-1", "1.5"),
            ),
        ):
            for value in values:
                self.assertEqual(2, self.run_main(f"{option}={value}", self.path))
                self.assertIn(
                    f"argument {option}: {value!r} is not {expected}\n",
                    self.err.getvalue(),
                )
        self.assertEqual(2, self.run_main("--tokenfile", "x", self.path))
        self.assertEqual(2, self.run_main("--quie", self.path))

    def test_times(self) -> None:
        for text, expected in (
            ("90", 90.0),
            ("90s", 90.0),
            ("30m", 1800.0),
            ("2h", 7200.0),
            ("1.5d", 129600.0),
            ("0", 0.0),
        ):
            given = parser().parse_args(["--retry-for", text])
            self.assertEqual(expected, given.retry_for)
        self.assertEqual(7200.0, parser().parse_args([]).retry_for)
        self.assertEqual(MOST_PART >> 20, parser().parse_args([]).part_size)

    def test_help(self) -> None:
        self.assertEqual(0, self.run_main("--help"))
        self.assertIn("exit status:\n  0 ", self.out.getvalue())
        self.assertEqual(0, self.run_main("--version"))
        self.assertEqual(f"filebucket-push {__version__}\n", self.out.getvalue())

    def test_unix_socket(self) -> None:
        """It needs no URL."""
        del self.environ["FILEBUCKET_URL"]
        self.is_silent("--unix-socket", "/run/s", self.path)
        self.assertEqual("/run/s", self.servers[0].text)
        self.patch(module, "socket", object())
        self.says(
            2,
            "--unix-socket: not supported on this system",
            *("--unix-socket", "/run/s", self.path),
        )

    def test_url(self) -> None:
        self.is_silent("--url", "http://localhost:2", self.path)
        self.assertEqual("http://localhost:2", self.servers[0].text)
        self.assertEqual(TOKEN, self.servers[0].token)

    def test_anywhere(self) -> None:
        """Options may follow files."""
        other = self.file("b", b"b")
        self.is_silent(self.path, "-q", other, "--retry-for", "0")
        self.assertEqual({"db.gz", "b"}, set(self.server.stored))


class FileTests(MainCase):
    def test_stored(self) -> None:
        """Silence, unless there is a terminal."""
        self.is_silent(self.path)
        self.assertEqual({"db.gz": b"data"}, self.server.stored)

    def test_name(self) -> None:
        self.is_silent("--name", "other", self.path)
        self.assertEqual({"other": b"data"}, self.server.stored)

    def test_placeholders(self) -> None:
        now = time.struct_time((2026, 11, 28, 2, 30, 5, 5, 332, 0))
        self.patch(time, "localtime", lambda: now)
        self.patch(socket, "gethostname", lambda: "db1.example.org")
        self.is_silent("--name", "{host}-{date}-{time}-{x}.gz", self.path)
        self.assertEqual(["db1-2026-11-28-023005-{x}.gz"], list(self.server.stored))

    def test_own_name(self) -> None:
        """It is the last part of the path, whatever the path is."""
        cwd = os.getcwd()
        self.addCleanup(os.chdir, cwd)
        os.chdir(self.folder)
        self.is_silent(f"../{self.folder.name}/./db.gz")
        self.assertEqual(["db.gz"], list(self.server.stored))

    def test_terminal(self) -> None:
        self.err = Terminal()
        self.server.faults = [gives(RESET)]
        self.assertEqual(0, self.run_main(self.path))
        text = self.err.getvalue()
        self.assertIn("db.gz: Connection reset by peer; trying again in 1 s\n", text)
        last = text.splitlines()[-1].split("\r")[-1]
        self.assertRegex(
            last,
            rf"^filebucket-push: {re.escape(self.path)}: stored, 4 B in \d+\.\d s"
            r" \(.+/s\)$",
        )
        for quiet in ("--quiet", "-q", "--json"):
            self.assertEqual(0, self.run_main(quiet, self.path))
            self.assertEqual("", self.err.getvalue())

    def test_warnings(self) -> None:
        """They are for people."""
        (self.folder / ".file-bucket").chmod(0o644)
        arguments = ("--url", "http://backup.example", self.path)
        self.is_silent(*arguments)
        self.err = Terminal()
        self.run_main(*arguments)
        self.assertIn("without https, others in the network", self.err.getvalue())
        self.assertIn("other users can read the token: chmod 600", self.err.getvalue())
        (self.folder / ".file-bucket").chmod(0o600)
        self.run_main(self.path)
        self.assertNotIn("warning:", self.err.getvalue())

    def test_several(self) -> None:
        """One that fails does not keep the others, and the most lasting one decides."""
        missing = str(self.folder / "missing")
        taken = self.file("taken", b"new")
        self.server.stored["taken"] = b"old"
        self.assertEqual(1, self.run_main(missing, taken, self.path))
        self.assertEqual({"taken", "db.gz"}, set(self.server.stored))
        self.assertEqual(
            f"filebucket-push: {missing}: No such file or directory\n"
            f"filebucket-push: {taken}: a file with that name already exists (405);"
            " no push overwrites it; choose another --name\n",
            self.err.getvalue(),
        )
        self.assertEqual(2, self.run_main(missing, self.path))

    def test_other_name(self) -> None:
        """Every message has the local file and the name on the server, if that is
        another one.
        """
        self.server.stored["shop.gz"] = b"old"
        missing = str(self.folder / "missing")
        for fault, status, text, path in (
            (None, 2, "No such file or directory", missing),
            (
                None,
                1,
                "a file with that name already exists (405); no push overwrites it;"
                " choose another --name",
                self.path,
            ),
            (
                RESET,
                75,
                "gave up after 0 s without progress: Connection reset by peer",
                self.path,
            ),
        ):
            self.server.faults = [gives(fault)]
            arguments = ("--retry-for=0", "--name", "shop.gz", path)
            self.says(status, f"{path} as shop.gz: {text}", *arguments)
        self.server.faults = []
        self.patch(module, "_opened", lambda path: Full())
        self.says(
            2,
            f"{self.path} as x: stored, but --receipt r: No space left on device",
            *("--receipt", "r", "--name", "x", self.path),
        )

    def test_stops(self) -> None:
        """If the server cannot be reached, or the token is wrong, each file is told."""
        other = self.file("b", b"b")
        for fault, status, text in (
            (RESET, 75, "gave up after 0 s without progress: Connection reset by peer"),
            (
                reply(403, "no such token"),
                1,
                "no such token (403); check the token file, and whether this machine"
                " may use the token",
            ),
        ):
            self.server.faults = [gives(fault)]
            self.says(
                status,
                f"{self.path}: {text}\nfilebucket-push: {other}: not tried",
                *("--retry-for", "0", self.path, other),
            )
        self.assertEqual({}, self.server.stored)

    def test_json(self) -> None:
        """One object a file, also for those that were not tried."""
        other = self.file("b", b"b")
        self.server.faults = [gives(None), gives(RESET)]
        self.assertEqual(
            75, self.run_main("--json", "--retry-for=0", self.path, other, other)
        )
        stored, failed, not_tried = map(json.loads, self.out.getvalue().splitlines())
        self.assertIsInstance(stored.pop("seconds"), float)
        self.assertEqual(
            {
                "name": "db.gz",
                "stored": True,
                "size": 4,
                "sha256": sha256(b"data"),
                "retries": 0,
                "request": "62e4731d",
            },
            stored,
        )
        error = "gave up after 0 s without progress: Connection reset by peer"
        self.assertEqual(
            {"name": "b", "stored": False, "error": error, "status": 75}, failed
        )
        self.assertEqual("not tried", not_tried["error"])

    def test_strange_name(self) -> None:
        """It is escaped in messages, and valid in JSON."""
        self.server.faults = [gives(reply(400, "no"))]
        self.patch(module, "_raw_stdin", lambda: io.BytesIO(b"data"))
        self.assertEqual(1, self.run_main("--json", "--name", "a\x1b\udcff", "-"))
        self.assertEqual(
            "filebucket-push: 'a\\x1b\\udcff': no (400)\n", self.err.getvalue()
        )
        self.assertEqual("a\x1b\udcff", json.loads(self.out.getvalue())["name"])


class ReceiptTests(MainCase):
    def setUp(self) -> None:
        super().setUp()
        self.receipt = self.folder / "receipt"

    def test_lines(self) -> None:
        """Those of the stored files."""
        missing = str(self.folder / "missing")
        other = self.file("b", b"b")
        self.run_main("--receipt", str(self.receipt), self.path, missing, other)
        self.assertEqual(
            f"{sha256(b'data')}  db.gz\n{sha256(b'b')}  b\n".encode(),
            self.receipt.read_bytes(),
        )

    def test_none(self) -> None:
        """The receipt of yesterday does not look like one of today."""
        self.receipt.write_text("old")
        self.server.faults = [gives(reply(409, "no"))]
        self.run_main("--receipt", str(self.receipt), self.path)
        self.assertEqual("", self.receipt.read_text())

    def test_cannot_be_opened(self) -> None:
        """That is known before the push."""
        path = self.folder / "missing" / "receipt"
        self.says(
            2,
            f"--receipt {path}: No such file or directory",
            *("--receipt", str(path), self.path),
        )
        self.assertEqual([], self.server.asked)

    def test_cannot_be_written(self) -> None:
        """The file is stored, which --json tells."""
        self.patch(module, "_opened", lambda _: Full())
        self.assertEqual(2, self.run_main("--json", "--receipt", "r", self.path))
        self.assertEqual(
            f"filebucket-push: {self.path}: stored, but --receipt r: No space left on"
            " device\n",
            self.err.getvalue(),
        )
        (found,) = map(json.loads, self.out.getvalue().splitlines())
        self.assertTrue(found["stored"])

    def test_output_is_closed(self) -> None:
        self.out = Full()
        self.assertEqual(2, self.run_main("--json", self.path, self.file("b", b"b")))
        self.assertEqual(
            "filebucket-push: standard output: No space left on device\n",
            self.err.getvalue(),
        )
        self.assertEqual({"db.gz", "b"}, self.server.stored.keys())


class MarkTests(MainCase):
    """Files whose push may go on in a later run."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.file("large", b"a" * (LEAST_PART + 1))
        for name in ("LEAST_PART", "MOST_PART"):
            self.patch(module, name, 1)

    def marks(self) -> int:
        return len(list(self.folder.glob(".local/state/file-bucket/*")))

    def promised(self) -> bool:
        return "X-Checksum-Sha256" in self.server.asked[0].headers

    def test_resumed(self) -> None:
        """After a run that gave up, the SHA-256 is computed first."""
        self.server.faults = [gives(None), gives(RESET)]
        self.assertEqual(75, self.run_main("--retry-for=0", self.path))
        self.assertEqual(1, self.marks())
        self.server.asked.clear()
        self.is_silent(self.path)
        self.assertTrue(self.promised())
        self.assertEqual(0, self.marks())

    def test_refused(self) -> None:
        """It does not go on, and nothing is left on the server."""
        self.server.faults = [gives(None), gives(reply(409, "no"))]
        self.assertEqual(1, self.run_main(self.path))
        self.assertEqual(0, self.marks())
        self.assertEqual("DELETE", self.server.methods[-1])

    def test_denied(self) -> None:
        """The upload ends with its token: another request would be one more 403."""
        self.server.faults = [gives(None), gives(reply(403, "no such token"))]
        self.assertEqual(1, self.run_main(self.path))
        self.assertEqual(0, self.marks())
        self.assertEqual(["PUT", "PATCH"], self.server.methods)

    def test_ended_before_the_digest(self) -> None:
        """A later run could not find the upload."""
        self.patch(FileSource, "digest", lambda self, wait: None)

        def interrupt(_: object) -> NoReturn:
            raise Ended(signal.SIGTERM)

        self.patch(os, "kill", lambda *given: None)
        self.server.faults = [gives(None), interrupt]
        self.assertEqual(128 + signal.SIGTERM, self.run_main(self.path))
        self.assertEqual(0, self.marks())
        self.assertEqual("DELETE", self.server.methods[-1])

    def test_small(self) -> None:
        self.patch(module, "LEAST_PART", LEAST_PART)
        self.server.faults = [gives(RESET)]
        self.assertEqual(75, self.run_main("--retry-for=0", self.file("small", b"a")))
        self.assertEqual(0, self.marks())


class PipeTests(MainCase):
    def test_stdin(self) -> None:
        self.patch(module, "_raw_stdin", lambda: io.BytesIO(b"piped"))
        self.is_silent("--name", "x", "-")
        self.assertEqual({"x": b"piped"}, self.server.stored)

    def test_raw_stdin(self) -> None:
        """It is file descriptor 0, which stays open."""
        with module._raw_stdin() as stream:
            self.assertEqual(0, stream.fileno())
        os.fstat(0)

    def test_exec(self) -> None:
        """The command follows the option at once, or the first --."""
        for number, arguments in enumerate(
            (
                ("--exec", "--", "printf", "%s", "--"),
                ("--exec", "printf", "%s", "--"),
                ("--exec", "--json", "--", "printf", "%s", "--"),
                ("-q", "--exec", "printf", "%s", "--"),
            )
        ):
            self.assertEqual(0, self.run_main(f"--name={number}", *arguments))
            self.assertEqual(b"--", self.server.stored[str(number)])

    def test_exec_fails(self) -> None:
        self.says(
            3,
            "x: sh exited with 7; nothing is stored",
            *("--name", "x", "--exec", "--", "sh", "-c", "echo half; exit 7"),
        )
        self.assertEqual({}, self.server.stored)
        self.assertEqual({}, self.server.uploads)

    def test_exec_not_found(self) -> None:
        """Nothing is created; the failure is reported all the same."""
        self.says(
            3,
            "x: no-such: command not found, or not executable; nothing is stored",
            *("--name", "x", "--exec", "no-such"),
        )
        self.assertEqual(["POST"], self.server.methods)
        text = b"no-such: command not found, or not executable\n"
        self.assertEqual([("x", text)], self.server.reports)

    def test_reported(self) -> None:
        """After the upload is given up, with the last messages of the command."""
        script = "echo half; echo 'no route' >&2; exit 7"
        arguments = ("--name", "a b", "--exec", "--", "sh", "-c", script)
        self.assertEqual(3, self.run_main(*arguments))
        self.assertEqual(["PUT", "DELETE", "POST"], self.server.methods)
        expected = ("a b", b"sh exited with 7\nno route\n")
        self.assertEqual([expected], self.server.reports)

    def test_reported_on_a_terminal(self) -> None:
        """There the command keeps its own standard error."""
        self.err = Terminal()
        self.assertEqual(3, self.run_main("--name", "x", "--exec", "false"))
        self.assertEqual([("x", b"false exited with 1\n")], self.server.reports)

    def test_no_report(self) -> None:
        arguments = ("--no-report", "--name", "x", "--exec", "false")
        self.says(3, "x: false exited with 1; nothing is stored", *arguments)
        self.assertEqual([], self.server.reports)

    def test_nothing_to_report(self) -> None:
        """Success, a refusal, and a missing file."""
        self.is_silent("--name", "x", "--exec", "printf", "x")
        self.assertEqual(1, self.run_main("--name", "x", "--exec", "printf", "y"))
        self.assertEqual(2, self.run_main(str(self.folder / "missing")))
        self.assertNotIn("POST", self.server.methods)

    def test_not_reported(self) -> None:
        """A warning; the exit status stays."""
        self.server.faults = [gives(None)] * 2 + [gives(reply(403, "no such token"))]
        self.assertEqual(3, self.run_main("--name", "x", "--exec", "false"))
        self.assertEqual(
            "filebucket-push: x: the failure could not be reported: no such token"
            " (403)\n"
            "filebucket-push: x: false exited with 1; nothing is stored\n",
            self.err.getvalue(),
        )

    def test_refused_before_start(self) -> None:
        """The command does not run if the server refuses the name."""
        mark = self.folder / "ran"
        self.server.stored["x"] = b"old"
        arguments = ("--name", "x", "--exec", "touch", str(mark))
        self.assertEqual(1, self.run_main(*arguments))
        self.assertFalse(mark.exists())

    def test_gave_up(self) -> None:
        """A later run cannot resume a pipe: the upload is deleted."""
        self.server.faults = [gives(None), gives(RESET)]
        arguments = ("--retry-for=0", "--name", "x", "--exec", "true")
        self.assertEqual(75, self.run_main(*arguments))
        self.assertEqual({}, self.server.uploads)

    def test_part_size(self) -> None:
        data = b"0" * (2 * 1024 * 1024)
        self.patch(module, "_raw_stdin", lambda: io.BytesIO(data))
        self.is_silent("--part-size", "1", "--name", "x", "-")
        self.assertEqual({"x": data}, self.server.stored)
        sizes = [len(each.body or b"") for each in self.server.asked]
        self.assertEqual(1024 * 1024, max(sizes))


class EncryptTests(MainCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(module, "age", lambda recipients: ["tr", "a-z", "A-Z"])

    def test_all(self) -> None:
        """Files, standard input and commands; the name tells."""
        self.is_silent("--encrypt-to", "age1", self.path)
        self.assertEqual({"db.gz.age": b"DATA"}, self.server.stored)
        self.is_silent(
            *("--encrypt-to", "age1", "--name", "x", "--exec", "printf", "a")
        )
        self.assertEqual(b"A", self.server.stored["x.age"])

    def test_missing_file(self) -> None:
        path = str(self.folder / "missing")
        arguments = ("--encrypt-to", "age1", path)
        self.says(2, f"{path} as missing.age: No such file or directory", *arguments)

    def test_changed(self) -> None:
        """A file that changes while it is encrypted is not stored."""
        self.patch(
            module,
            "age",
            lambda recipients: ["sh", "-c", 'cat; echo >>"$0"', self.path],
        )
        self.says(
            2,
            f"{self.path} as db.gz.age: changed while it was pushed; nothing is stored",
            *("--encrypt-to", "age1", self.path),
        )
        self.assertEqual({}, self.server.stored)
        self.assertEqual({}, self.server.uploads)


class SpoolTests(MainCase):
    def setUp(self) -> None:
        super().setUp()
        self.server.resumes = False
        self.spool = self.folder / "spool"
        self.spool.mkdir()
        self.arguments = ("--spool", str(self.spool), "--name", "x", "--exec")

    def test_needed(self) -> None:
        self.says(
            1,
            "x: the server has no resumable uploads, which a pipe needs: use --spool"
            " DIR to collect it in a file first",
            *("--name", "x", "--exec", "printf", "data"),
        )

    def test_collected(self) -> None:
        self.is_silent(*self.arguments, "printf", "data")
        self.assertEqual({"x": b"data"}, self.server.stored)
        self.assertEqual([], list(self.spool.iterdir()))

    def test_command_fails(self) -> None:
        self.assertEqual(
            3, self.run_main(*self.arguments, "sh", "-c", "echo a; exit 1")
        )
        self.assertEqual({}, self.server.stored)
        self.assertEqual([], list(self.spool.iterdir()))

    def test_missing(self) -> None:
        self.spool.rmdir()
        self.says(
            2,
            f"x: --spool {self.spool}: No such file or directory",
            *self.arguments,
            "true",
        )


class SignalTests(MainCase):
    def setUp(self) -> None:
        super().setUp()
        self.killed: list[tuple[int, int]] = []
        self.kill = os.kill
        self.patch(os, "kill", lambda *given: self.killed.append(given))

    def interrupting(self, number: int) -> Fault:
        return lambda _: self.kill(os.getpid(), number)

    def test_ends(self) -> None:
        """It gives the upload up, ends the command, and ends by the same signal."""
        for number in SIGNALS:
            self.killed.clear()
            self.server = MemoryServer()
            self.server.faults = [gives(None), self.interrupting(number)]
            pid = self.folder / "pid"
            script = f"echo $$ >{pid}; head -c 2000000 /dev/zero; exec sleep 60"
            command = ("--exec", "sh", "-c", script)
            status = self.run_main("--name", "x", "--part-size=1", *command)
            self.assertTrue(ended(int(pid.read_text())))
            self.assertEqual(128 + number, status)
            self.assertEqual([(os.getpid(), number)], self.killed)
            self.assertEqual(signal.SIG_DFL, signal.getsignal(number))
            self.assertEqual("DELETE", self.server.methods[-1])
            self.assertEqual({}, self.server.stored)

    def test_ignored(self) -> None:
        """As by nohup."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.server.faults = [self.interrupting(signal.SIGHUP)]
        self.is_silent(self.path)


class IndependenceTests(SynchronousTestCase):
    """The client runs on old machines, without anything installed."""

    def test_language(self) -> None:
        """Each module is Python 3.9, and imports the standard library and itself."""
        folder = Path(filebucket.client.__file__).parent
        own = {f"filebucket.client.{each.stem}" for each in folder.glob("*.py")}
        own |= {"filebucket", "filebucket.client"}
        for path in (*folder.glob("*.py"), folder.parent / "__init__.py"):
            tree = ast.parse(path.read_text("utf-8"), path.name, feature_version=(3, 9))
            for node in ast.walk(tree):
                found: list[str] = []
                if isinstance(node, ast.Import):
                    found = [each.name for each in node.names]
                elif isinstance(node, ast.ImportFrom):
                    self.assertEqual(0, node.level)
                    found = [cast(str, node.module)]
                for name in found:
                    standard = name.partition(".")[0] in sys.stdlib_module_names
                    self.assertTrue(standard or name in own, f"{path.name}: {name}")
