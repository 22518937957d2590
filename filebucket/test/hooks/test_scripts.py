"""The operator's scripts, with a reactor that only pretends to run them.

The scripts are real files, because the disk decides whether they exist and can be run.
The test controls the processes: a :class:`Child` shows how it was started, and writes,
exits and ends on request. After every test no delayed call may be left, and no token in
the log.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProcessProtocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from filebucket.base.errors import ConfigError, Refusal
from filebucket.hooks import scripts
from filebucket.hooks.interfaces import (
    ALERT,
    EVENTS,
    POST_PUSH,
    PRE_PUSH,
    Alert,
    Exit,
    IHooks,
    Run,
    Subject,
    Verdict,
)
from filebucket.hooks.process import (
    KILL_AFTER,
    MOST_OUTPUT,
    PIPES_AFTER,
    Reactor,
)
from filebucket.hooks.scripts import ScriptHooks
from filebucket.store.interfaces import Receipt

TOKEN = "0123456789abcdef0123456789ABCDEF"
KEY = f"#{'c0ffee' * 11}"[:65]
TIMEOUT = 30.0

SUBJECT = Subject(
    bucket=TOKEN,
    label="#c0ffee",
    key=KEY,
    filename="größe.sql",
    size=-1,
    remote="192.0.2.1:9",
    request_id="0a1b",
)
STORED = evolve(SUBJECT, size=7, path=f"/srv/{TOKEN}/größe.sql", sha256="ab" * 32)

TERM = signal.SIGTERM
KILL = signal.SIGKILL


class Child:
    """A fake process, and the transport of its protocol.

    :ivar stdin: what its descriptor 0 leads to, and the mode of its opening
    :ivar lost: whether the daemon closed its pipes
    """

    def __init__(
        self,
        protocol: Any,
        executable: bytes | str,
        arguments: Sequence[bytes | str],
        environment: Mapping[Any, Any],
        descriptors: Mapping[int, int | str],
        stdin: tuple[str, int],
        pid: int,
    ) -> None:
        self.protocol = protocol
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.descriptors = descriptors
        self.pid: int | None = pid
        self.lost = False
        self.stdin = stdin
        self._reason = Failure(ProcessDone(0))
        protocol.makeConnection(self)

    def loseConnection(self) -> None:
        self.lost = True

    def writes(self, *output: bytes) -> None:
        for data in output:
            self.protocol.outReceived(data)

    def complains(self, *errors: bytes) -> None:
        for data in errors:
            self.protocol.errReceived(data)

    def exits(self, status: int | None = 0, by: int | None = None) -> None:
        """The process exits, or a signal ends it; its pipes may stay open."""
        if status or by:
            self._reason = Failure(ProcessTerminated(status, by))
        self.pid = None
        self.protocol.processExited(self._reason)

    def ends(self, status: int | None = 0, by: int | None = None) -> None:
        """It exits, if it has not yet, and its pipes close."""
        if self.pid is not None:
            self.exits(status, by)
        self.protocol.processEnded(self._reason)


@implementer(Reactor)
class FakeReactor(Clock):
    """A clock, and fake processes.

    :ivar children: the processes started
    :ivar fault: raised instead of starting one
    :ivar null: the descriptor of the last one's standard input
    """

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []
        self.fault: Exception | None = None
        self.null = -1

    def spawnProcess(
        self,
        processProtocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[Any, Any] | None = None,
        path: bytes | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: bool = False,
        childFDs: Mapping[int, int | str] | None = None,
    ) -> Any:
        assert env is not None
        assert childFDs is not None
        null = childFDs[0]
        assert isinstance(null, int)
        self.null = null
        if self.fault is not None:
            raise self.fault
        pid = 1000 + len(self.children)
        mode = fcntl.fcntl(null, fcntl.F_GETFL) & os.O_ACCMODE
        stdin = (os.readlink(f"/proc/self/fd/{null}"), mode)
        child = Child(processProtocol, executable, args, env, childFDs, stdin, pid)
        self.children.append(child)
        return child


class HooksCase(SynchronousTestCase):
    """Has :class:`ScriptHooks` on a folder of its own.

    :ivar kills: the signals sent, and their process groups
    :ivar no_kill: raised instead
    :ivar strays: the marks of the children that were killed outside their group
    :ivar observed: the runs of hooks
    :ivar absent: the hooks that were due, but do not exist
    """

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.reactor = FakeReactor()
        self.events: Sequence[LogEvent] = self.enterContext(capturedLogs())
        self.kills: list[tuple[int, int]] = []
        self.no_kill: OSError | None = None
        self.strays: list[Collection[bytes]] = []
        self.observed: list[Run] = []
        self.absent: list[str] = []
        self.hooks = self.make()

    def tearDown(self) -> None:
        self.reactor.advance(0)
        self.assertEqual([], self.reactor.getDelayedCalls())
        for event in self.events:
            self.assertNotIn(TOKEN, formatEvent(event))

    def make(
        self, environ: Mapping[str, str] | None = None, concurrency: int = 100
    ) -> ScriptHooks:
        return ScriptHooks(
            self.reactor,
            self.directory,
            environ or {},
            TIMEOUT,
            concurrency,
            self.kill_group,
            self.strays.append,
            self.observed.append,
            self.absent.append,
        )

    def kill_group(self, group: int, number: int) -> None:
        self.kills.append((group, number))
        if self.no_kill is not None:
            raise self.no_kill

    def path(self, event: str) -> str:
        return os.path.join(self.directory, f"{event}.sh")

    def script(self, *events: str, mode: int = 0o755) -> None:
        """Install these hooks."""
        for event in events:
            with open(self.path(event), "wb") as file:
                file.write(b"#!/bin/sh\n")
            os.chmod(self.path(event), mode)

    def pre_push(
        self, subject: Subject = SUBJECT, failure: Refusal | None = None
    ) -> Deferred[Verdict | None]:
        return Deferred.fromCoroutine(self.hooks.pre_push(subject, lambda: failure))

    def post_push(self, subject: Subject = STORED) -> Deferred[Exit | None]:
        return Deferred.fromCoroutine(self.hooks.post_push(subject))

    def started(self) -> Child:
        """The process that was started last."""
        return self.reactor.children[-1]

    def assert_refused(self, verdict: Deferred[Verdict | None], reason: str) -> None:
        refusal = self.failureResultOf(verdict, Refusal).value
        self.assertEqual((409, reason), (refusal.status, refusal.reason))
        self.assertEqual({}, refusal.headers)

    def assert_stopped(self, verdict: Deferred[Verdict | None]) -> None:
        """The client is told to retry later."""
        refusal = self.failureResultOf(verdict, Refusal).value
        self.assertEqual(
            (503, "the server is shutting down"), (refusal.status, refusal.reason)
        )
        self.assertEqual({"Retry-After"}, set(refusal.headers))

    def assert_exit(self, expected: Exit, ended: Deferred[Exit | None]) -> None:
        self.assertEqual(expected, self.successResultOf(ended))

    def logged(self, level: LogLevel | None = None) -> list[str]:
        """The log, on that level or on all."""
        return [
            formatEvent(event)
            for event in self.events
            if level is None or event["log_level"] is level
        ]


class AlertTests(HooksCase):
    """alert.sh."""

    CHANGE = Alert(
        bucket="web01",
        series="db-#.gz",
        old="fresh",
        new="late",
        request_id="0a1b",
        expect="26h",
        text="is late",
    )

    def alert(self) -> Deferred[Exit | None]:
        return Deferred.fromCoroutine(self.hooks.alert(self.CHANGE))

    def test_missing(self) -> None:
        self.assertIsNone(self.successResultOf(self.alert()))

    def test_told(self) -> None:
        self.script(ALERT)
        self.assertEqual([ALERT], self.hooks.check())
        ended = self.alert()
        child = self.started()
        self.assertEqual(
            [self.path(ALERT), "web01", "db-#.gz", "fresh", "late"],
            [os.fsdecode(word) for word in child.arguments[1:]],
        )
        told = {
            os.fsdecode(key): os.fsdecode(value)
            for key, value in child.environment.items()
            if key.startswith(b"FILEBUCKET_")
        }
        self.assertEqual(
            {
                "FILEBUCKET_EVENT": "alert",
                "FILEBUCKET_BUCKET": "web01",
                "FILEBUCKET_SERIES": "db-#.gz",
                "FILEBUCKET_OLD": "fresh",
                "FILEBUCKET_NEW": "late",
                "FILEBUCKET_EXPECT": "26h",
                "FILEBUCKET_REQUEST_ID": "0a1b",
                "FILEBUCKET_TEXT": "is late",
                "FILEBUCKET_TITLE": "web01: late",
                "FILEBUCKET_MESSAGE": "web01: db-#.gz is late",
            },
            {key: value for key, value in told.items() if value},
        )
        child.ends()
        self.assert_exit(Exit(0), ended)

    def test_deadline(self) -> None:
        """It has a timeout, as the others do, and all its children are killed."""
        self.script(ALERT)
        ended = self.alert()
        child = self.started()
        group = child.pid
        self.reactor.advance(TIMEOUT)
        self.assertEqual([(group, signal.SIGTERM)], self.kills)
        self.reactor.advance(KILL_AFTER)
        self.assertEqual(
            [[b"FILEBUCKET_EVENT=alert", b"FILEBUCKET_REQUEST_ID=0a1b"]], self.strays
        )
        child.ends(None, signal.SIGKILL)
        found = self.successResultOf(ended)
        assert found is not None
        self.assertTrue(found.timed_out)

    def test_fails(self) -> None:
        """An error in the log: it cannot report this itself."""
        self.script(ALERT)
        ended = self.alert()
        self.started().ends(1)
        self.assert_exit(Exit(1), ended)
        self.assertEqual(["alert request=0a1b exit=1"], self.logged(LogLevel.error))
        self.assertEqual([Run(ALERT, "", 0.0, Exit(1))], self.observed)

    def test_cannot_be_run(self) -> None:
        self.script(ALERT, mode=0o644)
        self.assert_exit(Exit(126), self.alert())
        self.assertEqual(
            ["alert request=0a1b: is not an executable file"], self.logged()
        )


REFUSED = "rejected by the server's pre-push hook"
LATE = "the server's pre-push hook timed out"
CANNOT = "the server's pre-push hook cannot be run"


class PresenceTests(HooksCase):
    """Which hooks exist, and what happens if one cannot be run."""

    def assert_unusable(
        self, reason: str, broken: Sequence[str] = (PRE_PUSH, POST_PUSH)
    ) -> None:
        """The daemon does not start; if it runs, pushes are refused."""
        error = self.assertRaises(ConfigError, self.hooks.check)
        self.assertEqual(self.directory, error.source)
        self.assertEqual(
            tuple(f"{event}.sh: {reason}" for event in broken), error.mistakes
        )
        self.assert_refused(self.pre_push(), CANNOT)
        self.assert_exit(Exit(status=126), self.post_push())
        self.assertEqual([], self.reactor.children)
        self.assertEqual(
            [
                f"pre-push request=0a1b: {reason}",
                f"post-push request=0a1b: {reason}",
            ],
            self.logged(LogLevel.error)[-2:],
        )

    def test_interface(self) -> None:
        verifyObject(IHooks, self.hooks)

    def test_check(self) -> None:
        self.assertEqual([], self.hooks.check())
        self.script(POST_PUSH)
        self.assertEqual([POST_PUSH], self.hooks.check())
        self.script(PRE_PUSH)
        self.assertEqual([PRE_PUSH, POST_PUSH], self.hooks.check())

    def test_missing(self) -> None:
        self.assertIsNone(self.successResultOf(self.pre_push()))
        self.assertIsNone(self.successResultOf(self.post_push()))
        self.assertEqual([], self.reactor.children)
        self.assertEqual([], self.logged())

    def test_directory_missing(self) -> None:
        os.rmdir(self.directory)
        self.assertEqual([], self.hooks.check())
        self.assertIsNone(self.successResultOf(self.pre_push()))
        self.assertIsNone(self.successResultOf(self.post_push()))

    def test_looked_for_at_every_push(self) -> None:
        self.script(PRE_PUSH)
        verdict = self.pre_push()
        self.started().ends(1)
        self.assert_refused(verdict, REFUSED)
        os.unlink(self.path(PRE_PUSH))
        self.assertIsNone(self.successResultOf(self.pre_push()))

    def test_not_executable(self) -> None:
        """A script without its x bit is a mistake, not the absence of a hook."""
        self.script(PRE_PUSH, POST_PUSH, mode=0o644)
        self.assert_unusable("is not an executable file")

    def test_dangling_link(self) -> None:
        for event in (PRE_PUSH, POST_PUSH):
            os.symlink("nowhere", self.path(event))
        self.assert_unusable("is a dangling symbolic link")

    def test_link_in_a_circle(self) -> None:
        for event in (PRE_PUSH, POST_PUSH):
            os.symlink(f"{event}.sh", self.path(event))
        self.assert_unusable("Too many levels of symbolic links")

    def test_folder(self) -> None:
        for event in (PRE_PUSH, POST_PUSH):
            os.mkdir(self.path(event))
        self.assert_unusable("is not an executable file")

    def test_no_program(self) -> None:
        """What Linux cannot run is not given to a shell, whose exit status 2 would mean
        "overwrite".
        """
        elf = bytearray(Path("/usr/bin/setsid").read_bytes())
        elf[18:20] = b"\xff\x7f"
        for content in (
            b"",
            b"exit 0\n",
            b"#",
            b"#!",
            b"#! \t\n/bin/sh",
            b"\0" * 300,
            bytes(elf),
            b"#!" + os.fsencode(self.path("loop")),
        ):
            for event in (PRE_PUSH, POST_PUSH, "loop"):
                with open(self.path(event), "wb") as file:
                    file.write(content)
                os.chmod(self.path(event), 0o755)
            self.assert_unusable("is neither a program nor a script with a #! line")

    def test_interpreters(self) -> None:
        """The interpreter's name ends where Linux ends it."""
        for content, runs in (
            (b"#!/bin/sh", True),
            (b"#! \t/bin/sh -e\n", True),
            (b"#!/bin/sh\0junk\n", True),
            (b"#!/bin/sh\r\nexit 0\r\n", False),
        ):
            with open(self.path(PRE_PUSH), "wb") as file:
                file.write(content)
            os.chmod(self.path(PRE_PUSH), 0o755)
            if runs:
                self.assertEqual([PRE_PUSH], self.hooks.check())
            else:
                self.assertRaises(ConfigError, self.hooks.check)

    def test_no_interpreter(self) -> None:
        for first, reason in (
            (b"#!/nonexistent", "needs /nonexistent, which does not exist"),
            (b"#! /nonexistent -e", "needs /nonexistent, which does not exist"),
            (b"#!/n\x1b\xff", "needs /n\\x1b\\udcff, which does not exist"),
            (b"#!/" + b"x" * 254, f"needs /{'x' * 253}, which does not exist"),
            (b"#!/etc/passwd", "needs /etc/passwd, which is not executable"),
            (b"#!/usr/bin/env basj", "needs basj, which is not in PATH"),
            (b"#!/usr/bin/env bash -e", "needs bash -e, which is not in PATH"),
            (b"#! /bin/env /bin/basj ", "needs /bin/basj, which is not in PATH"),
        ):
            self.write_hooks(first + b"\nexit 0\n")
            self.assert_unusable(reason)

    def test_carriage_return(self) -> None:
        """A script with Windows line ends: /bin/sh -e would exit with 2 there, which
        means "overwrite".
        """
        for first in (b"#!/bin/sh", b"#!/usr/bin/env sh", b"#!/bin/sh -e", b"#!"):
            self.write_hooks(first + b"\r\nexit 0\r\n")
            self.assert_unusable("has CR LF line ends; use LF")

    def test_env(self) -> None:
        for first in (
            b"#!/usr/bin/env sh",
            b"#! /usr/bin/env\t/bin/sh ",
            b"#!/usr/bin/env -S no-such program",
            b"#!/usr/bin/env A=b sh",
            b"#!/usr/bin/env",
        ):
            self.write_hooks(first + b"\n")
            self.assertEqual([PRE_PUSH, POST_PUSH], self.hooks.check(), first)
        self.write_hooks(b"#!/usr/bin/env sh\n")
        self.hooks = self.make({"PATH": "/nowhere"})
        self.assert_unusable("needs sh, which is not in PATH")

    def write_hooks(self, content: bytes) -> None:
        for event in (PRE_PUSH, POST_PUSH):
            with open(self.path(event), "wb") as file:
                file.write(content)
            os.chmod(self.path(event), 0o755)

    def test_program(self) -> None:
        os.symlink("/usr/bin/setsid", self.path(PRE_PUSH))
        self.script("interpreter")
        with open(self.path(POST_PUSH), "wb") as file:
            file.write(b"#! %b -e\n" % os.fsencode(self.path("interpreter")))
        os.chmod(self.path(POST_PUSH), 0o755)
        self.assertEqual([PRE_PUSH, POST_PUSH], self.hooks.check())

    def test_directory_is_a_file(self) -> None:
        """If the folder cannot be searched, there may be a hook."""
        os.rmdir(self.directory)
        os.close(os.open(self.directory, os.O_CREAT))
        self.assert_unusable("Not a directory", EVENTS)

    def test_link(self) -> None:
        self.script("elsewhere")
        os.symlink("elsewhere.sh", self.path(PRE_PUSH))
        self.assertEqual([PRE_PUSH], self.hooks.check())
        verdict = self.pre_push()
        self.started().ends()
        self.assertIs(Verdict.GO_ON, self.successResultOf(verdict))

    def test_no_setsid(self) -> None:
        """Without setsid no hook can be run; without hooks it is not needed."""
        self.patch(scripts, "SETSID", b"/nonexistent/setsid")
        self.assertEqual([], self.hooks.check())
        self.script(POST_PUSH)
        error = self.assertRaises(ConfigError, self.hooks.check)
        self.assertEqual(
            ("hooks need /nonexistent/setsid from util-linux",), error.mistakes
        )


class StartTests(HooksCase):
    """The arguments, environment and descriptors of a hook."""

    def setUp(self) -> None:
        super().setUp()
        self.script(PRE_PUSH, POST_PUSH)

    def test_pre_push(self) -> None:
        verdict = self.pre_push()
        child = self.started()
        self.assertEqual(b"/usr/bin/setsid", child.executable)
        self.assertEqual(
            [
                b"setsid",
                self.path(PRE_PUSH).encode(),
                TOKEN.encode(),
                "größe.sql".encode(),
                b"-1",
                b"192.0.2.1:9",
            ],
            child.arguments,
        )
        self.assertEqual(
            {
                b"PATH": os.defpath.encode(),
                b"LANG": b"C.UTF-8",
                b"HOME": b"/",
                b"FILEBUCKET_EVENT": b"pre-push",
                b"FILEBUCKET_BUCKET": TOKEN.encode(),
                b"FILEBUCKET_FILENAME": "größe.sql".encode(),
                b"FILEBUCKET_SIZE": b"-1",
                b"FILEBUCKET_REMOTE": b"192.0.2.1:9",
                b"FILEBUCKET_REQUEST_ID": b"0a1b",
            },
            child.environment,
        )
        child.ends()
        self.successResultOf(verdict)

    def test_post_push(self) -> None:
        ended = self.post_push()
        child = self.started()
        path = f"/srv/{TOKEN}/größe.sql".encode()
        self.assertEqual(b"/usr/bin/setsid", child.executable)
        self.assertEqual(
            [
                b"setsid",
                self.path(POST_PUSH).encode(),
                TOKEN.encode(),
                path,
                b"192.0.2.1:9",
            ],
            child.arguments,
        )
        self.assertEqual(
            {
                b"PATH": os.defpath.encode(),
                b"LANG": b"C.UTF-8",
                b"HOME": b"/",
                b"FILEBUCKET_EVENT": b"post-push",
                b"FILEBUCKET_BUCKET": TOKEN.encode(),
                b"FILEBUCKET_FILENAME": "größe.sql".encode(),
                b"FILEBUCKET_SIZE": b"7",
                b"FILEBUCKET_REMOTE": b"192.0.2.1:9",
                b"FILEBUCKET_REQUEST_ID": b"0a1b",
                b"FILEBUCKET_PATH": path,
                b"FILEBUCKET_SHA256": b"ab" * 32,
            },
            child.environment,
        )
        child.ends()
        self.successResultOf(ended)

    def test_url(self) -> None:
        """Data in an object store has an address."""
        subject = evolve(SUBJECT, path="data/web01/x~0", url="s3://data/web01/x~0")
        ended = Deferred.fromCoroutine(self.hooks.post_push(subject))
        child = self.started()
        self.assertEqual(b"data/web01/x~0", child.arguments[3])
        self.assertEqual(b"data/web01/x~0", child.environment[b"FILEBUCKET_PATH"])
        self.assertEqual(b"s3://data/web01/x~0", child.environment[b"FILEBUCKET_URL"])
        child.ends()
        self.successResultOf(ended)

    def environment(self, environ: Mapping[str, str]) -> dict[bytes, bytes]:
        """The part of the daemon's environment that a hook gets."""
        self.hooks = self.make(environ)
        verdict = self.pre_push()
        child = self.started()
        child.ends()
        self.successResultOf(verdict)
        return {
            name: value
            for name, value in child.environment.items()
            if not name.startswith(b"FILEBUCKET_")
        }

    def test_scrubbed(self) -> None:
        environ = {
            "PATH": "/opt/bin:/bin",
            "LANG": "de_DE.UTF-8",
            "HOME": "/var/lib/file-bucket",
            "LD_PRELOAD": "/tmp/evil.so",
            "FILEBUCKET_BUCKET": "another",
            "FILEBUCKET_PATH": "/etc/passwd",
            "NOTIFY_SOCKET": "/run/notify",
        }
        self.assertEqual(
            {
                b"PATH": b"/opt/bin:/bin",
                b"LANG": b"de_DE.UTF-8",
                b"HOME": b"/var/lib/file-bucket",
            },
            self.environment(environ),
        )
        self.assertEqual(
            TOKEN.encode(), self.started().environment[b"FILEBUCKET_BUCKET"]
        )
        self.assertNotIn(b"FILEBUCKET_PATH", self.started().environment)

    def test_empty_is_missing(self) -> None:
        self.assertEqual(
            {b"PATH": os.defpath.encode(), b"LANG": b"C.UTF-8", b"HOME": b"/"},
            self.environment({"PATH": "", "LANG": "", "HOME": ""}),
        )

    def test_environment_is_no_text(self) -> None:
        """Bytes that Python could not decode are passed on unchanged."""
        environ = {"HOME": os.fsdecode(b"/home/gr\xf6\xdfe")}
        self.assertEqual(b"/home/gr\xf6\xdfe", self.environment(environ)[b"HOME"])

    def test_paths_are_no_text(self) -> None:
        raw = os.fsencode(self.directory) + b"\xff"
        self.directory = os.fsdecode(raw)
        os.mkdir(self.directory)
        self.script(POST_PUSH)
        self.hooks = self.make()
        ended = self.post_push(evolve(STORED, path=os.fsdecode(b"/srv/\xff/name")))
        child = self.started()
        self.assertEqual(
            [b"setsid", raw + b"/post-push.sh", TOKEN.encode(), b"/srv/\xff/name"],
            child.arguments[:4],
        )
        self.assertEqual(b"/srv/\xff/name", child.environment[b"FILEBUCKET_PATH"])
        child.ends()
        self.successResultOf(ended)

    def assert_null_closed(self) -> None:
        """The daemon closes it, once the child has it or could not be started."""
        error = self.assertRaises(OSError, os.fstat, self.reactor.null)
        self.assertEqual(errno.EBADF, error.errno)

    def test_descriptors(self) -> None:
        verdict = self.pre_push()
        child = self.started()
        self.assertEqual({0: self.reactor.null, 1: "r", 2: "r"}, child.descriptors)
        self.assertEqual(("/dev/null", os.O_RDONLY), child.stdin)
        self.assert_null_closed()
        child.ends()
        self.successResultOf(verdict)

    def test_cannot_be_started(self) -> None:
        """spawnProcess may fail; nothing is left open then either."""
        for number in (errno.ENOENT, errno.EACCES, errno.EAGAIN, errno.ENOMEM):
            path = self.path(PRE_PUSH)
            self.reactor.fault = OSError(number, os.strerror(number), path)
            self.assert_refused(self.pre_push(), REFUSED)
            self.assert_exit(Exit(status=126), self.post_push())
            word = os.strerror(number)
            self.assertEqual(
                [f"{event} request=0a1b: {word}" for event in (PRE_PUSH, POST_PUSH)],
                self.logged(LogLevel.error)[-2:],
            )
            self.assert_null_closed()

    def test_no_descriptors_left(self) -> None:
        def full(*args: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), os.devnull)

        self.patch(os, "open", full)
        self.assert_refused(self.pre_push(), REFUSED)
        word = os.strerror(errno.EMFILE)
        self.assertEqual(
            [f"pre-push request=0a1b: {word}"], self.logged(LogLevel.error)
        )

    def test_repr_has_no_token(self) -> None:
        receipt = Receipt(f"/srv/{TOKEN}/x", 7, "ab" * 32, 0)
        self.assertNotIn(TOKEN, f"{SUBJECT!r} {STORED!r} {receipt!r}")


class VerdictTests(HooksCase):
    """The meaning of a hook's exit."""

    def setUp(self) -> None:
        super().setUp()
        self.script(PRE_PUSH, POST_PUSH)

    def test_verdicts(self) -> None:
        said = {0: Verdict.GO_ON, 2: Verdict.OVERWRITE}
        for status in range(256):
            verdict = self.pre_push()
            self.started().ends(status)
            if status in said:
                self.assertIs(said[status], self.successResultOf(verdict))
            else:
                self.assert_refused(verdict, REFUSED)

    def test_signals(self) -> None:
        for number in signal.valid_signals():
            verdict = self.pre_push()
            self.started().ends(None, by=number)
            self.assert_refused(verdict, REFUSED)

    def test_post_push_statuses(self) -> None:
        for status in range(256):
            ended = self.post_push()
            self.started().writes(b"thank you\n")
            self.started().ends(status)
            self.assert_exit(Exit(status, b"thank you\n"), ended)

    def test_post_push_signals(self) -> None:
        for number in signal.valid_signals():
            ended = self.post_push()
            self.started().ends(None, by=number)
            self.assert_exit(Exit(128 + number), ended)

    def test_unknown_end(self) -> None:
        ended = self.post_push()
        child = self.started()
        child.protocol.processEnded(Failure(ProcessTerminated(None, None)))
        self.assert_exit(Exit(1), ended)

    def test_logged(self) -> None:
        for status in (0, 1, 2):
            verdict = self.pre_push()
            self.started().ends(status)
            verdict.addErrback(lambda failure: failure.trap(Refusal))
        ended = self.post_push()
        self.started().ends(None, by=signal.SIGSEGV)
        self.successResultOf(ended)
        self.assertEqual(
            [
                "pre-push request=0a1b exit=1",
                "pre-push request=0a1b exit=2",
                "post-push request=0a1b exit=139",
            ],
            self.logged(),
        )

    def test_levels(self) -> None:
        """A failing hook is a warning, unless it refused the push."""
        for status in (1, 2, 3):
            verdict = self.pre_push()
            self.started().ends(status)
            verdict.addErrback(lambda failure: failure.trap(Refusal))
        self.assertEqual(3, len(self.logged(LogLevel.info)))
        ended = self.post_push()
        self.started().ends(1)
        self.successResultOf(ended)
        verdict = self.pre_push()
        self.reactor.advance(TIMEOUT)
        self.started().ends(None, by=TERM)
        verdict.addErrback(lambda failure: failure.trap(Refusal))
        self.assertEqual(
            [
                "post-push request=0a1b exit=1",
                "pre-push request=0a1b exit=143 (timed out)",
            ],
            self.logged(LogLevel.warn),
        )
        self.assertEqual(5, len(self.logged()))

    def test_observed(self) -> None:
        verdict = self.pre_push()
        self.reactor.advance(3)
        self.started().ends(1)
        verdict.addErrback(lambda failure: failure.trap(Refusal))
        late = self.post_push()
        self.reactor.advance(TIMEOUT)
        self.started().ends(None, by=TERM)
        self.successResultOf(late)
        self.script(POST_PUSH, mode=0o644)
        self.successResultOf(self.post_push())
        os.unlink(self.path(PRE_PUSH))
        os.unlink(self.path(POST_PUSH))
        self.successResultOf(self.post_push())
        self.assertEqual(
            [
                Run(PRE_PUSH, KEY, 3.0, Exit(1)),
                Run(POST_PUSH, KEY, TIMEOUT, Exit(128 + TERM, timed_out=True)),
                Run(POST_PUSH, KEY, 0.0, None, "is not an executable file"),
            ],
            self.observed,
        )
        self.assertEqual([POST_PUSH], self.absent)
        self.assertIsNone(self.successResultOf(self.pre_push()))
        self.assertEqual([POST_PUSH, PRE_PUSH], self.absent)

    def test_absence_is_remembered(self) -> None:
        """All pushes of one turn of the reactor share that a hook does not exist."""
        os.unlink(self.path(POST_PUSH))
        for _ in range(2):
            self.assertIsNone(self.successResultOf(self.post_push()))
        self.assertEqual([POST_PUSH], self.absent)
        self.script(POST_PUSH)
        self.assertTrue(self.hooks.is_there(POST_PUSH))
        self.reactor.advance(0)
        self.post_push()
        self.started().ends()
        # Each hook is looked up on its own, and one that exists at each push.
        self.pre_push()
        self.started().ends()
        self.assertEqual(2, len(self.reactor.children))
        os.unlink(self.path(POST_PUSH))
        self.assertIsNone(self.successResultOf(self.post_push()))
        self.assertEqual([POST_PUSH, POST_PUSH], self.absent)

    def test_ended_at_once(self) -> None:
        verdict = self.pre_push()
        self.started().ends()
        self.assertIs(Verdict.GO_ON, self.successResultOf(verdict))
        self.assertFalse(self.started().lost)

    def test_pipes_stay_open(self) -> None:
        """A background child does not delay the verdict."""
        for status, said in ((0, Verdict.GO_ON), (2, Verdict.OVERWRITE)):
            verdict = self.pre_push()
            child = self.started()
            child.exits(status)
            self.assertNoResult(verdict)
            self.reactor.advance(PIPES_AFTER / 2)
            self.assertFalse(child.lost)
            self.reactor.advance(PIPES_AFTER / 2)
            self.assertTrue(child.lost)
            child.ends()
            self.assertIs(said, self.successResultOf(verdict))
        # A background process is the operator's business.
        self.assertEqual([], self.kills)

    def test_late_reactor(self) -> None:
        """A busy reactor reads what is in a full pipe before it closes it."""
        ended = self.post_push()
        child = self.started()
        child.exits()
        pieces = [b"x" * 8192] * 8

        def turn() -> None:
            if pieces and not child.lost:
                child.writes(pieces.pop())
                self.reactor.callLater(0, turn)

        self.reactor.callLater(PIPES_AFTER, turn)
        self.reactor.advance(PIPES_AFTER)
        self.assertEqual([], pieces)
        self.assertTrue(child.lost)
        child.ends()
        result = self.successResultOf(ended)
        assert result is not None
        self.assertEqual(65536, len(result.output))

    def test_deadline_during_grace(self) -> None:
        """A hook that exited in time was in time, even if its pipes stay open."""
        verdict = self.pre_push()
        self.reactor.advance(TIMEOUT - PIPES_AFTER / 2)
        self.started().exits()
        self.reactor.advance(PIPES_AFTER)
        self.started().ends()
        self.assertIs(Verdict.GO_ON, self.successResultOf(verdict))
        self.assertEqual([], self.kills)

    def test_output_after_exit(self) -> None:
        ended = self.post_push()
        self.started().writes(b"one, ")
        self.started().exits()
        self.started().writes(b"two")
        self.started().ends()
        self.assert_exit(Exit(0, b"one, two"), ended)

    def test_output_is_bytes(self) -> None:
        ended = self.post_push()
        self.started().writes(bytes(range(256)))
        self.started().ends()
        self.assert_exit(Exit(0, bytes(range(256))), ended)

    def test_output_is_capped(self) -> None:
        for piece in (1000, 65536, MOST_OUTPUT, MOST_OUTPUT + 1):
            ended = self.post_push()
            child = self.started()
            child.writes(*[b"x" * piece] * (MOST_OUTPUT // piece + 2))
            child.writes(b"y")
            child.ends()
            self.assert_exit(Exit(0, b"x" * MOST_OUTPUT), ended)
        self.assertEqual(1024 * 1024, MOST_OUTPUT)


class LineTests(HooksCase):
    """N hooks run at once; the rest wait."""

    def setUp(self) -> None:
        super().setUp()
        self.script(PRE_PUSH, POST_PUSH)
        self.hooks = self.make(concurrency=2)

    def test_in_line(self) -> None:
        verdicts = [self.pre_push() for _ in range(4)]
        children = self.reactor.children
        self.assertEqual(2, len(children))
        children[1].ends(2)
        self.assertIs(Verdict.OVERWRITE, self.successResultOf(verdicts[1]))
        self.assertEqual(3, len(children))
        children[0].ends(0)
        self.assertEqual(4, len(children))
        children[3].ends(1)
        children[2].ends(0)
        self.assertIs(Verdict.GO_ON, self.successResultOf(verdicts[0]))
        self.assertIs(Verdict.GO_ON, self.successResultOf(verdicts[2]))
        self.assert_refused(verdicts[3], REFUSED)

    def test_gone(self) -> None:
        """The hook of a push that failed while it waited is not run."""
        verdicts = [self.pre_push(), self.pre_push()]
        refusal = Refusal(503, "the server is shutting down")
        gone = [self.pre_push(failure=refusal) for _ in range(2000)]
        verdicts.append(self.pre_push())
        children = self.reactor.children
        children[0].ends(0)
        for each in gone:
            self.assertIs(refusal, self.failureResultOf(each, Refusal).value)
        self.assertEqual(3, len(children))
        children[1].ends(0)
        children[2].ends(0)
        for each in verdicts:
            self.assertIs(Verdict.GO_ON, self.successResultOf(each))

    def test_one_line_for_both(self) -> None:
        ended = [self.post_push(), self.post_push()]
        verdict = self.pre_push()
        ended.append(self.post_push())
        children = self.reactor.children
        children[0].ends()
        children[1].ends()
        self.assertEqual(
            [b"post-push", b"post-push", b"pre-push", b"post-push"],
            [child.environment[b"FILEBUCKET_EVENT"] for child in children],
        )
        children[2].ends()
        children[3].ends()
        self.assertIs(Verdict.GO_ON, self.successResultOf(verdict))
        for each in ended:
            self.assert_exit(Exit(0), each)

    def test_buckets_in_turn(self) -> None:
        """However many pushes of one bucket wait, another waits for only one of
        them.
        """
        verdicts = [self.pre_push() for _ in range(100)]
        other = evolve(SUBJECT, bucket="other")
        verdicts += [self.pre_push(other), self.pre_push(other)]
        children = self.reactor.children
        for child in children:  # which become more meanwhile
            child.ends()
        one = TOKEN.encode()
        self.assertEqual(
            [one, one, one, b"other", one, b"other", one],
            [child.arguments[2] for child in children[:7]],
        )
        for verdict in verdicts:
            self.assertIs(Verdict.GO_ON, self.successResultOf(verdict))

    def test_alerts_apart(self) -> None:
        self.script(ALERT)
        verdicts = [self.pre_push() for _ in range(3)]
        alert = Alert(
            bucket="web", series="", old="fresh", new="late", request_id="2c3d"
        )
        told = [Deferred.fromCoroutine(self.hooks.alert(alert)) for _ in range(2)]
        events = [
            child.environment[b"FILEBUCKET_EVENT"] for child in self.reactor.children
        ]
        self.assertEqual([b"pre-push", b"pre-push", b"alert"], events)
        for child in self.reactor.children:  # which become more meanwhile
            child.ends()
        for verdict in verdicts:
            self.assertIs(Verdict.GO_ON, self.successResultOf(verdict))
        for ended in told:
            self.assert_exit(Exit(0), ended)

    def test_deadline_begins_at_the_start(self) -> None:
        """The waiting time does not count."""
        verdicts = [self.pre_push() for _ in range(3)]
        children = self.reactor.children
        self.reactor.advance(TIMEOUT - 1)
        children[0].ends()
        self.reactor.advance(1)
        self.assertEqual([(children[1].pid, TERM)], self.kills)
        children[1].ends()
        self.reactor.advance(TIMEOUT - 2)
        children[2].ends()
        self.successResultOf(verdicts[0])
        self.assert_refused(verdicts[1], LATE)
        self.assertIs(Verdict.GO_ON, self.successResultOf(verdicts[2]))

    def test_exit_is_not_the_end(self) -> None:
        verdicts = [self.pre_push() for _ in range(3)]
        children = self.reactor.children
        children[0].exits()
        self.assertEqual(2, len(children))
        self.reactor.advance(PIPES_AFTER)
        children[0].ends()
        for child in children[1:]:
            child.ends()
        for verdict in verdicts:
            self.assertIs(Verdict.GO_ON, self.successResultOf(verdict))

    def test_failures_leave_the_line(self) -> None:
        self.reactor.fault = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        for _ in range(5):
            self.assert_refused(self.pre_push(), REFUSED)
        self.reactor.fault = RuntimeError("a bug")
        for _ in range(5):
            self.failureResultOf(self.pre_push(), RuntimeError)
        self.reactor.fault = None
        for _ in range(5):
            verdict = self.pre_push()
            self.reactor.advance(TIMEOUT)
            self.started().ends()
            self.assert_refused(verdict, LATE)


class EndTests(HooksCase):
    """The daemon's shutdown."""

    def setUp(self) -> None:
        super().setUp()
        self.script(PRE_PUSH, POST_PUSH)
        self.hooks = self.make(concurrency=2)

    def test_nothing_runs(self) -> None:
        self.hooks.end_all()
        self.assert_stopped(self.pre_push())
        self.assert_exit(Exit(143, stopped=True), self.post_push())
        self.assertEqual([], self.reactor.children)

    def test_end_all(self) -> None:
        verdicts, ended = [self.pre_push()], [self.post_push()]
        verdicts.append(self.pre_push())
        ended.append(self.post_push())
        children = self.reactor.children
        first, second = (child.pid for child in children)
        self.hooks.end_all()
        self.assertEqual({(first, TERM), (second, TERM)}, set(self.kills))
        self.kills.clear()
        children[0].ends(None, by=TERM)
        self.assertEqual([(first, KILL)], self.kills)
        self.reactor.advance(KILL_AFTER)
        self.assertEqual([(first, KILL), (second, KILL)], self.kills)
        children[1].ends(None, by=KILL)
        for verdict in verdicts:
            self.assert_stopped(verdict)
        self.assert_exit(Exit(137, stopped=True), ended[0])
        self.assert_exit(Exit(143, stopped=True), ended[1])
        self.assertEqual(2, len(children))
        self.assertIn("post-push request=0a1b exit=137 (shutting down)", self.logged())

    def test_term_obeyed(self) -> None:
        """Its exit status after TERM is no verdict."""
        for status in (0, 2, 1):
            verdict = self.pre_push()
            self.hooks.end_all()
            self.started().ends(status)
            self.assert_stopped(verdict)
            self.hooks = self.make()

    def test_output(self) -> None:
        ended = self.post_push()
        self.started().writes(b"half an ans")
        self.hooks.end_all()
        self.started().ends(None, by=TERM)
        self.assert_exit(Exit(143, b"half an ans", stopped=True), ended)

    def test_ended_before(self) -> None:
        """No signal is sent to an ended process: its pid may be reused."""
        verdict = self.pre_push()
        self.started().ends()
        self.successResultOf(verdict)
        self.assertEqual(set(), self.hooks._running)
        self.hooks.end_all()
        self.assertEqual([], self.kills)

    def test_during_the_last_seconds(self) -> None:
        """A hook at its timeout ends as it would have, and no later."""
        verdict = self.pre_push()
        group = self.started().pid
        self.reactor.advance(TIMEOUT)
        self.reactor.advance(KILL_AFTER - 1)
        self.hooks.end_all()
        self.assertEqual([(group, TERM)], self.kills)
        self.reactor.advance(1)
        self.assertEqual([(group, TERM), (group, KILL)], self.kills)
        self.started().ends(None, by=KILL)
        self.assert_refused(verdict, LATE)

    def test_twice(self) -> None:
        verdict = self.pre_push()
        group = self.started().pid
        self.hooks.end_all()
        self.hooks.end_all()
        self.reactor.advance(KILL_AFTER)
        self.assertEqual([(group, TERM), (group, KILL)], self.kills)
        self.started().ends(None, by=KILL)
        self.assert_stopped(verdict)

    def test_after_the_exit(self) -> None:
        """A hook that has exited keeps its verdict, and its pipes are closed.

        A child in another session holds them, and no signal reaches it.
        """
        verdict = self.pre_push()
        child = self.started()
        child.exits(2)
        self.hooks.end_all()
        self.reactor.advance(PIPES_AFTER)
        self.reactor.advance(KILL_AFTER)
        self.assertTrue(child.lost)
        child.ends()
        self.assertIs(Verdict.OVERWRITE, self.successResultOf(verdict))

    def test_all_are_ended(self) -> None:
        """One that may not be killed does not save the others."""
        verdicts = [self.pre_push(), self.pre_push()]
        self.no_kill = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        self.hooks.end_all()
        self.assertEqual(2, len(self.kills))
        for child in self.reactor.children:
            child.ends(None, by=TERM)
        for verdict in verdicts:
            self.assert_stopped(verdict)
