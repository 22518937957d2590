"""The ways in which a push with filebucket-push fails, as a table.

Each row is a situation, a command line, and the result: the exit status, the file in
the bucket, the unfinished uploads and the message; and the result of the same with
curl. Tests walk the table with small files. The proof ``client-failures`` walks it with
large ones, and prints it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen

from filebucket.test.kit.children import deadline
from filebucket.test.kit.cutter import Cutter
from filebucket.test.kit.integration import ended
from filebucket.test.kit.liars import Liar
from filebucket.test.kit.producer import blocks
from filebucket.test.kit.server import (
    OTHER,
    PATIENCE,
    TOKEN,
    UNKNOWN,
    Server,
    comes,
)

MIB = 1 << 20

NAME = "db"

CLIENT = (sys.executable, "-m", "filebucket.client")

CURL = ("curl", "--fail-with-body", "-sS", "-T")

_UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Else root may read each file."""

_PRODUCER = str(Path(__file__).with_name("producer.py"))

_LONGEST = 10 * PATIENCE
"""Seconds that a row may take."""

NOTHING, EMPTY, WHOLE, PART, OTHER_FILE, UNKNOWN_TO_US = (
    "nothing",
    "empty",
    "whole",
    "a part",
    "the other",
    "-",
)
"""The file with the name; ``-`` if the server is not ours."""


@frozen
class Scale:
    """How large everything is.

    :ivar half: bytes before something happens
    :ivar size: bytes of the whole
    :ivar part: MiB of the largest part of a pipe
    :ivar long: bytes of a pipe that outlasts several restarts
    :ivar limit: the largest request that a proxy takes, in its own words
    """

    half: int
    size: int
    part: int
    long: int
    limit: str


SMALL = Scale(4 * MIB, 6 * MIB, 1, 24 * MIB, "1m")
LARGE = Scale(200 * MIB, 256 * MIB, 64, 2048 * MIB, "100m")

RESTARTS = 10
"""Number of restarts, if there are several."""


@frozen
class Given:
    """The file or the output to push.

    :ivar kind: ``command`` (``--exec``), ``pipe`` (``-``) or ``file``
    :ivar prints: how much a command prints: ``all``, ``half`` or ``nothing``
    :ivar end: its exit status, or the signal that ends it
    :ivar keeps: whether a child of the command outlives it, and keeps the pipe
    :ivar small: whether the file is so small that it is one request
    :ivar steps: pauses between half and the end
    """

    kind: str
    prints: str = "all"
    end: str = "0"
    keeps: bool = False
    small: bool = False
    steps: int = 0


COMMAND, PIPE, FILE = Given("command"), Given("pipe"), Given("file")


@frozen
class Expected:
    """The result.

    :ivar status: exit status; negative is the signal that ended the program
    :ivar stored: one of the words above
    :ivar left: unfinished uploads, which expire; None is any number
    :ivar says: pattern in the last line of the client's errors; empty if there is none
    """

    status: int
    stored: str
    left: int | None = 0
    says: str = ""


@define
class Stage:
    """A row that is played."""

    folder: Path
    scale: Scale
    row: Row
    is_curl: bool
    client: Sequence[str]
    closing: ExitStack
    url: str = ""
    server: Server | None = None
    process: subprocess.Popen[bytes] | None = None
    options: list[str] = Factory(list)
    home: Path | None = None
    token: str = OTHER
    _opened: int = 0
    _memory: int = 0
    _busy: threading.Lock = Factory(threading.Lock)

    # What a row arranges.

    @property
    def daemon(self) -> Server:
        """Ours.

        :raises AssertionError: there is none
        """
        assert self.server is not None
        return self.server

    def start(self, *command: str, **config: Any) -> None:
        """Start the daemon. It keeps its port."""
        bucket = {"name": "web01", "token": OTHER, **config.pop("bucket", {})}
        home = {"home": str(self.home)} if self.home else {}
        config = {"buckets": [TOKEN, bucket], **home, **config}
        self.server = server = Server(self.folder / "server", **config)
        server.start(*command)
        self.closing.callback(server.stop)
        if "listen" not in config:
            server.config["port"] = server.port
            server.write_config()
        self.url = server.url

    def restart(self, *command: str, **config: Any) -> None:
        """Kill the daemon, and start it again."""
        self.daemon.signal(signal.SIGKILL)
        self.daemon.wait()
        self.daemon.config.update(config)
        self.daemon.write_config()
        self.daemon.start(*command)

    def reload(self, **bucket: Any) -> None:
        """Change the bucket's configuration, and apply it."""
        self.daemon.config["buckets"][1].update(bucket)
        self.daemon.write_config()
        self.daemon.signal(signal.SIGUSR2)
        self.daemon.wait_for("reloaded:")

    def push_other(self, data: bytes = b"other") -> None:
        """Another client pushes the name."""
        connection = HTTPConnection("127.0.0.1", self.daemon.port, timeout=PATIENCE)
        connection.request("PUT", f"/{OTHER}/{NAME}", data)
        assert connection.getresponse().status == 200
        connection.close()

    def lies(self, answers: type[BaseHTTPRequestHandler]) -> None:
        """Another server is there."""
        liar = Liar(answers)
        self.closing.callback(liar.close)
        self.url = f"http://127.0.0.1:{liar.port}"

    def cut(self, lose: bytes = b"", keep: int = 0) -> None:
        """A connection is cut at half of the file; or when the answer comes."""
        offsets = [] if lose else [self.scale.half]
        cutter = Cutter(self.daemon.port, offsets, self._at_cut, lose, keep)
        self.closing.callback(cutter.close)
        self.url = f"http://127.0.0.1:{cutter.port}"

    def _at_cut(self, number: int) -> None:
        with self._busy:
            self.row.meanwhile(self)

    def tell(self, number: int) -> None:
        """Send a signal to the client, or to curl."""
        assert self.process is not None
        self.process.send_signal(number)

    def more(self) -> None:
        """Let the command print until its next pause, or until its end."""
        (self.folder / f"gate-{self._opened}").touch()
        self._opened += 1

    def in_background(self, work: Callable[[], object]) -> None:
        """Do something in a thread of its own."""
        thread = threading.Thread(target=work)
        thread.start()
        self.closing.callback(thread.join, PATIENCE)

    @property
    def path(self) -> Path:
        """The file that is pushed."""
        return self.folder / NAME

    # What it does.

    def play(self) -> Played:
        """Play the row."""
        given = self.row.given
        if given.kind == "file":
            with self.path.open("wb") as file:
                file.writelines(blocks(NAME, self._size))
        self.row.arrange(self)
        header = f"Authorization: Bearer {self.token}\n"
        (self.folder / ".file-bucket").write_text(header)
        with (self.folder / "errors").open("wb") as errors:
            producer = self._begin(errors)
            try:
                if given.kind != "file" and self.row.meanwhile is not nothing:
                    self.wait_for_stop()
                    self.row.meanwhile(self)
                while self._opened <= given.steps:
                    self.more()
                if given.keeps and (self.is_curl or given.end == "0"):
                    assert comes((self.folder / "keeping").exists)
                    (self.folder / "kept").touch()
                status = self._wait()
            finally:
                (self.folder / "kept").touch()
                for each in (self.process, producer):
                    if each is not None and each.poll() is None:
                        each.kill()
                        each.wait(PATIENCE)
        with self._busy:
            return self._played(status)

    def _wait(self) -> int:
        """The status of the client, or of curl."""
        assert self.process is not None
        if self.process.returncode is None:
            with deadline(self.process, _LONGEST):
                _, status, used = os.wait4(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
            self._memory = used.ru_maxrss * 1024
        return self.process.returncode

    @property
    def _size(self) -> int:
        given = self.row.given
        return (
            3 * MIB
            if given.small
            else (self.scale.long if given.steps else self.scale.size)
        )

    @property
    def _producer(self) -> tuple[str, ...]:
        given, half = self.row.given, self.scale.half
        most = {"all": self._size, "half": half, "nothing": 0}[given.prints]
        step = (self._size - half) // (given.steps + 1)
        stops = ",".join(str(half + step * each) for each in range(given.steps + 1))
        return (
            *(sys.executable, "-S", _PRODUCER, str(self.folder), NAME),
            *(str(self._size), str(most), stops, given.end),
            "keeps" if given.keeps else "-",
        )

    def _begin(self, errors: Any) -> subprocess.Popen[bytes] | None:
        """Start the client or curl.

        :returns: the command before the pipe, if the client does not start it
        """
        kind, row = self.row.given.kind, self.row
        producer = None
        command = row.command or self._producer
        if self.is_curl:
            target = f"{self.url}/{self.token}/{NAME}"
            argv = [*CURL, str(self.path) if kind == "file" else "-", target]
        else:
            argv = [*self.client, "--url", self.url, *row.options, *self.options]
            size = str(self.scale.part)
            argv += ["--part-size", size] if kind != "file" else []
            argv += {
                "command": ["--name", NAME, "--exec", "--", *command],
                "pipe": ["--name", NAME, "-"],
                "file": [str(self.path)],
            }[kind]
        stdin: Any = subprocess.DEVNULL
        if kind == "pipe" or (self.is_curl and kind == "command"):
            if shutil.which(command[0]) is None:
                command = ("sh", "-c", command[0])
            producer = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            stdin = producer.stdout
        if row.unprivileged:
            argv = [*_UNPRIVILEGED, *argv]
        self.process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
        )
        if producer is not None:
            # Only the program may hold it.
            assert producer.stdout is not None
            producer.stdout.close()
        return producer

    def wait_for_stop(self) -> None:
        """Wait until the command pauses, and the server has all full parts, or until
        the client has ended."""
        step = (self._size - self.scale.half) // (self.row.given.steps + 1)
        half = self.scale.half + step * self._opened
        arrived = half - self.scale.part * MIB
        stop = self.folder / f"stop-{self._opened}"

        def there() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                return True
            sizes = [each.stat().st_size for each in self._uploads()]
            return stop.exists() and (self.is_curl or max(sizes, default=0) >= arrived)

        if not comes(there, _LONGEST):
            raise AssertionError("the command does not pause")

    def _uploads(self) -> list[Path]:
        """The data of unfinished uploads."""
        if self.server is None:
            return []
        folder = self.server.home / ".filebucket" / "uploads"
        return [each for each in folder.iterdir() if not each.suffix]

    def _played(self, status: int) -> Played:
        text = (self.folder / "errors").read_text(errors="backslashreplace")
        lines = text.strip().splitlines()
        pids = self.folder / "pids"
        running = [
            pid
            for pid in (pids.read_text().split() if pids.exists() else ())
            if not ended(int(pid))
        ]
        return Played(
            Expected(status, self._stored(), len(self._uploads())),
            lines[-1].removeprefix(f"filebucket-push: {NAME}: ") if lines else "",
            pids.exists(),
            running,
            text,
            self._memory,
        )

    def _stored(self) -> str:
        if self.server is None:
            return UNKNOWN_TO_US
        bucket = self.server.home / "web01"
        names = sorted(os.listdir(bucket)) if bucket.exists() else []
        if not names:
            return NOTHING
        assert names == [NAME], names
        size = (bucket / NAME).stat().st_size
        if not size:
            return EMPTY
        with (bucket / NAME).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        for word, stop in ((WHOLE, self._size), (PART, size)):
            expected = hashlib.sha256()
            left = stop
            for block in blocks(NAME, self._size):
                expected.update(block[:left])
                left -= len(block[:left])
            if found == expected.hexdigest():
                return word
        return OTHER_FILE


@frozen
class Played:
    """The result of a row.

    :ivar found: without the message
    :ivar says: the last line of errors, without the name of the file
    :ivar started: whether the command ran
    :ivar running: processes of the command that still run
    :ivar errors: all of them
    :ivar memory: peak of resident memory in bytes; 0 if it ended early
    """

    found: Expected
    says: str
    started: bool
    running: list[str]
    errors: str
    memory: int

    def faults(self, row: Row) -> list[str]:
        """How it differs from what the row expects."""
        expected, found = row.expected, self.found
        faults = [
            f"{word}: {got!r}, not {wanted!r}"
            for word, got, wanted in (
                ("exit status", found.status, expected.status),
                ("stored", found.stored, expected.stored),
                ("unfinished", found.left, expected.left),
            )
            if wanted not in (got, None)
        ]
        if not re.search(expected.says or "^$", self.says):
            faults.append(f"says {self.says!r}, not {expected.says!r}")
        if self.running:
            faults.append(f"still running: {', '.join(self.running)}")
        if row.never_starts and self.started:
            faults.append("the command was started")
        if "Traceback" in self.errors:
            faults.append(self.errors)
        if any(token in self.errors for token in (TOKEN, OTHER, UNKNOWN)):
            faults.append("the token is printed")
        return faults


def nothing(stage: Stage) -> None:
    """Nothing happens."""


def started(stage: Stage) -> None:
    """The daemon runs."""
    stage.start()


@frozen
class Row:
    """A way of failing.

    :ivar curl: the result of the same with curl: whether it exits with 0, and the file;
        None if curl has no such thing
    :ivar arrange: what happens before
    :ivar meanwhile: what happens when half of it is sent
    :ivar command: in place of the usual one
    :ivar never_starts: whether the command must not run
    :ivar unprivileged: whether root is too powerful for it
    :ivar needs: a program
    """

    situation: str
    given: Given
    expected: Expected
    curl: tuple[bool, str] | None = None
    options: Sequence[str] = ()
    arrange: Callable[[Stage], None] = started
    meanwhile: Callable[[Stage], None] = nothing
    command: Sequence[str] = ()
    never_starts: bool = False
    unprivileged: bool = False
    needs: str = ""

    def play(
        self,
        folder: Path,
        scale: Scale,
        client: Sequence[str] = CLIENT,
        is_curl: bool = False,
        home: Path | None = None,
    ) -> Played:
        """Play it in an empty folder.

        :param home: where the daemon's files are, if not there
        """
        with ExitStack() as closing:
            stage = Stage(folder, scale, self, is_curl, client, closing, home=home)
            return stage.play()

    @property
    def line(self) -> str:
        """The command line, without the address."""
        what = {"command": "--exec", "pipe": "-", "file": "FILE"}[self.given.kind]
        return " ".join((*self.options, what))
