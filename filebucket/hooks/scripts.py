"""pre-push.sh, post-push.sh and alert.sh: the operator's own scripts, as child
processes.

pre-push says whether a push may go on; post-push hears of one that is durable
and may word the answer; alert hears of backups that are late, or not as they were.
Each runs without a shell, with a scrubbed
environment, /dev/null as its stdin, and in a session of its own, so that all
that it started can be killed together when its time is over; what has left that
session is known by its environment. What it writes to stderr goes to the log;
what it writes at all is bounded.

The verdict is taken when the process exits: a child that it left in the
background may hold the pipes for as long as it likes.

Wherever a pre-push cannot be run or does not say, the push is refused.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from filebucket.base.errors import ConfigError, Refusal

PRE_PUSH = "pre-push"
POST_PUSH = "post-push"
ALERT = "alert"
EVENTS = (PRE_PUSH, POST_PUSH, ALERT)

MOST_OUTPUT = 1024 * 1024
"""Bytes of stdout that are kept; what comes after them is dropped."""
MOST_STDERR = 64 * 1024
"""Bytes of stderr that are logged."""
MOST_LINE = 1024
"""Bytes of a line of stderr that are logged."""
MOST_LINES = 1000
"""Lines of stderr that are logged: each costs the log 100 bytes and the reactor
0.1 ms beside what it says."""

KILL_AFTER = 5.0
"""Seconds between TERM and KILL."""
PIPES_AFTER = 0.5
"""Seconds that the pipes get after the exit. What the hook itself wrote is in
them already; only a child that it left behind can hold them longer."""

END_TIMEOUT = KILL_AFTER + PIPES_AFTER + 1.0
"""Seconds in which a hook that was told to end has ended, if it can be killed."""

MOST_SEARCHES = 16
"""Searches for what a hook started: each finds what began during the one before."""

MOST_INTERPRETERS = 5
"""Interpreters of interpreters that Linux puts up with."""

SETSID = b"/usr/bin/setsid"
"""util-linux's: makes a session and then becomes the hook, without a fork."""


class Reactor(IReactorProcess, IReactorTime):
    """What hooks need of the reactor."""


class Verdict(Enum):
    """What pre-push may say, beside no."""

    GO_ON = 0
    OVERWRITE = 2


@frozen
class Subject:
    """What a hook is told of a push.

    :param bucket: the bucket's name, or its token where it has none
    :param label: what logs call the bucket
    :param size: bytes, or -1 where it is not known
    :param remote: ``ip:port`` of the client
    :param path: the durable file (post-push)
    :param sha256: of that file, in hex (post-push)
    """

    bucket: str = field(repr=False)
    label: str
    filename: str
    size: int
    remote: str
    request_id: str
    path: str = field(default="", repr=False)
    sha256: str = ""

    def environment(self, event: str) -> dict[str, str]:
        """What stands in the hook's environment."""
        told = {
            "BUCKET": self.bucket,
            "FILENAME": self.filename,
            "SIZE": str(self.size),
            "REMOTE": self.remote,
        }
        if event == POST_PUSH:
            told |= {"PATH": self.path, "SHA256": self.sha256}
        return told


@frozen
class Alert:
    """What a hook is told of a series whose state has changed.

    :param bucket: the bucket's label: what is said here leaves the machine
    :param series: empty where any push is waited for
    :param old: the state that it was told last
    :param new: the state that it is told now
    :param details: more, for the environment
    """

    bucket: str
    series: str
    old: str
    new: str
    request_id: str
    details: Mapping[str, str] = field(factory=dict)

    @property
    def label(self) -> str:
        """What logs call the bucket."""
        return self.bucket

    def environment(self, event: str) -> dict[str, str]:
        """What stands in the hook's environment."""
        return {
            "BUCKET": self.bucket,
            "SERIES": self.series,
            "OLD": self.old,
            "NEW": self.new,
            **self.details,
        }


@frozen
class Exit:
    """How a hook ended.

    :param status: its exit status; as a shell says it (128 + n) where signal n
        ended it
    :param output: what it wrote to stdout, cut at :data:`MOST_OUTPUT`
    :param timed_out: whether it was ended at its deadline
    :param stopped: whether it was ended, or never begun, because the daemon stops
    """

    status: int
    output: bytes = b""
    timed_out: bool = False
    stopped: bool = False


def unobserved(hook: str, seconds: float, ended: Exit | None) -> None:
    """Nobody wants to know how a hook ended."""


class IHooks(Interface):
    """What a push asks of the operator's scripts."""

    def pre_push(
        subject: Subject, failure: Callable[[], Refusal | None]
    ) -> Awaitable[Verdict | None]:
        """Ask whether the push may go on. None where there is no such hook: it may.

        :param failure: why nobody needs to be asked any more, if so
        :raises Refusal: that; 409: it may not, or nobody could say; 503:
            the daemon stops before it said
        """

    def post_push(subject: Subject) -> Awaitable[Exit | None]:
        """Tell of a durable file. None where there is no such hook."""

    def alert(alert: Alert) -> Awaitable[Exit | None]:
        """Tell of a series whose state has changed. None where there is no such
        hook."""


def kill_marked(marks: Collection[bytes]) -> None:
    """Send KILL to all processes that have ``marks`` in their environment.

    That finds what a hook started wherever it went, in whatever session, unless it
    has cleared its environment or is another user's.
    """
    killed: set[int] = set()
    for _ in range(MOST_SEARCHES):
        found = {pid for pid in _processes() - killed if _kill_if_marked(pid, marks)}
        if not found:
            break
        # They start no more; but others may have been started by them, unseen.
        killed |= found


def _processes() -> set[int]:
    with suppress(OSError):
        return {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return set()


def _kill_if_marked(pid: int, marks: Collection[bytes]) -> bool:
    with suppress(OSError):
        # The descriptor is of that process, though its number become another's.
        fd = os.pidfd_open(pid)
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if all(mark in environment for mark in marks):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                return True
        finally:
            os.close(fd)
    return False


@implementer(IHooks)
class ScriptHooks:
    """Hooks that are scripts in a directory."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        directory: str,
        environ: Mapping[str, str],
        timeout: float,
        concurrency: int,
        kill_group: Callable[[int, int], None] = os.killpg,
        kill_strays: Callable[[Collection[bytes]], None] = kill_marked,
        observe: Callable[[str, float, Exit | None], object] = unobserved,
    ) -> None:
        """
        :param directory: absolute path; its scripts are looked for
            whenever one would be run
        :param environ: where PATH, LANG and HOME are taken from
        :param timeout: seconds until a hook is ended
        :param concurrency: how many run at once; the rest wait in line
        :param kill_group: sends a signal to a process group
        :param kill_strays: as :func:`kill_marked`
        :param observe: told of each run: of which hook, how many seconds, and how it
            ended; None where it could not be run
        """
        self._reactor = reactor
        self._directory = directory
        self._base = {
            "PATH": environ.get("PATH") or os.defpath,
            "LANG": environ.get("LANG") or "C.UTF-8",
            "HOME": environ.get("HOME") or "/",
        }
        self._timeout = timeout
        self._line = DeferredSemaphore(concurrency)
        self._kill_group = kill_group
        self._kill_strays = kill_strays
        self._observe = observe
        self._running: set[HookProcess] = set()
        self._stopped = False

    def check(self) -> list[str]:
        """Which hooks there are.

        :raises ConfigError: one that is there cannot be run
        """
        found, mistakes = [], []
        for event in EVENTS:
            try:
                if self._is_there(event):
                    found.append(event)
            except OSError as error:
                mistakes.append(f"{event}.sh: {error.strerror}")
        if found and not os.access(SETSID, os.X_OK):
            mistakes.append(f"hooks need {SETSID.decode()}, of util-linux")
        if mistakes:
            raise ConfigError(self._directory, mistakes)
        return found

    def _path(self, event: str) -> str:
        return os.path.join(self._directory, f"{event}.sh")

    def _is_there(self, event: str) -> bool:
        """Whether there is such a hook.

        :raises OSError: there is, but it cannot be run
        """
        path = self._path(event)
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        # A link that leads nowhere is a hook that somebody wanted.
        is_file = stat.S_ISREG(os.stat(path).st_mode)
        if not (is_file and os.access(path, os.X_OK)):
            raise OSError(errno.EACCES, "is there, but cannot be executed")
        if not _is_program(path):
            raise OSError(errno.ENOEXEC, "is there, but is no program, and has no #!")
        return True

    async def pre_push(
        self, subject: Subject, failure: Callable[[], Refusal | None]
    ) -> Verdict | None:
        try:
            if not self._is_there(PRE_PUSH):
                return None
        except OSError as error:
            self._cannot_run(PRE_PUSH, subject, error)
            raise Refusal(409, "the server's pre-push cannot be run") from None
        argv = (
            subject.bucket,
            subject.filename,
            str(subject.size),
            subject.remote,
        )
        ended = await self._run(PRE_PUSH, argv, subject, failure)
        if ended.stopped:
            # It did not say no: the client shall try again.
            raise Refusal(503, "the server is stopping")
        if ended.timed_out:
            raise Refusal(409, "the server's pre-push ran out of time")
        try:
            return Verdict(ended.status)
        except ValueError:
            raise Refusal(409, "the server's pre-push refused the file") from None

    async def post_push(self, subject: Subject) -> Exit | None:
        argv = (subject.bucket, subject.path, subject.remote)
        return await self._tell(POST_PUSH, argv, subject)

    async def alert(self, alert: Alert) -> Exit | None:
        argv = (alert.bucket, alert.series, alert.old, alert.new)
        return await self._tell(ALERT, argv, alert)

    async def _tell(
        self, event: str, argv: tuple[str, ...], subject: Subject | Alert
    ) -> Exit | None:
        """Run a hook that has nothing to decide."""
        try:
            if not self._is_there(event):
                return None
        except OSError as error:
            self._cannot_run(event, subject, error)
            return Exit(status=126)
        return await self._run(event, argv, subject)

    async def _run(
        self,
        event: str,
        argv: tuple[str, ...],
        subject: Subject | Alert,
        failure: Callable[[], Refusal | None] = lambda: None,
    ) -> Exit:
        arguments = [_encode(word) for word in (self._path(event), *argv)]
        await self._line.acquire()
        try:
            refusal = failure()
            if refusal is not None:
                raise refusal
            return await self._spawn(event, arguments, subject)
        finally:
            self._line.release()

    async def _spawn(
        self, event: str, arguments: list[bytes], subject: Subject | Alert
    ) -> Exit:
        if self._stopped:
            return Exit(128 + signal.SIGTERM, stopped=True)
        began = self._reactor.seconds()
        process = HookProcess(
            self._reactor,
            event,
            subject,
            self._timeout,
            self._kill_group,
            self._kill_strays,
        )
        try:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._reactor.spawnProcess(
                    process,
                    SETSID,
                    [b"setsid", *arguments],
                    env=self._environment(event, subject),
                    childFDs={0: null, 1: "r", 2: "r"},
                )
            finally:
                os.close(null)
        except OSError as error:
            # No descriptors left; or, where Twisted uses posix_spawn (24.11 and
            # later), no such program.
            self._cannot_run(event, subject, error)
            return Exit(status=126)
        self._running.add(process)
        try:
            ended = await process.ended
        finally:
            self._running.discard(process)
        self._observe(event, self._reactor.seconds() - began, ended)
        if ended.status or ended.timed_out or ended.stopped:
            late = " at its deadline" if ended.timed_out else ""
            self._log.info(
                "{hook} request={request} exit={status}{cause}",
                event="hook",
                hook=event,
                bucket=subject.label,
                request=subject.request_id,
                status=ended.status,
                cause=" at the daemon's stop" if ended.stopped else late,
            )
        return ended

    def _cannot_run(self, event: str, subject: Subject | Alert, error: OSError) -> None:
        self._observe(event, 0.0, None)
        self._log.error(
            "{hook} request={request}: {error}",
            event="hook-broken",
            hook=event,
            bucket=subject.label,
            request=subject.request_id,
            error=error.strerror,
        )

    def _environment(self, event: str, subject: Subject | Alert) -> dict[bytes, bytes]:
        told = {
            "EVENT": event,
            "REQUEST_ID": subject.request_id,
            **subject.environment(event),
        }
        named = {f"FILEBUCKET_{key}": value for key, value in told.items()}
        return {
            _encode(key): _encode(value) for key, value in (self._base | named).items()
        }

    def end_all(self) -> None:
        """End what still runs, as at its deadline, and run no more."""
        self._stopped = True
        for process in list(self._running):
            process.stop()


class HookProcess(ProcessProtocol):
    """One run of a hook.

    :ivar ended: fires with the :class:`Exit`, never with a failure
    """

    transport: IProcessTransport
    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        event: str,
        subject: Subject | Alert,
        timeout: float,
        kill_group: Callable[[int, int], None],
        kill_strays: Callable[[Collection[bytes]], None],
    ) -> None:
        self._reactor = reactor
        self._event = event
        self._subject = subject
        self._timeout = timeout
        self._kill_group = kill_group
        self._kill_strays = kill_strays
        self._alarm: IDelayedCall | None = None
        self._output = bytearray()
        self._errors = LineLog(self._log_line, subject.bucket, subject.label)
        self._timed_out = False
        self._stopped = False
        self._exit: Exit | None = None
        self.ended: Deferred[Exit] = Deferred()

    def connectionMade(self) -> None:
        self._pid: int = self.transport.pid
        self._alarm = self._reactor.callLater(self._timeout, self._deadline)

    def _deadline(self) -> None:
        self._alarm = None
        self._timed_out = True
        self._end()

    def stop(self) -> None:
        """End the hook for the daemon's sake, if it is not ending already."""
        # Of one that exited only the pipes are waited for, and not for long; one
        # at its deadline gets its KILL no later for being asked twice.
        if self._exit is None and not self._ending:
            self._stopped = True
            self._end()

    @property
    def _ending(self) -> bool:
        return self._timed_out or self._stopped

    def outReceived(self, data: bytes) -> None:
        self._output += data[: MOST_OUTPUT - len(self._output)]

    def errReceived(self, data: bytes) -> None:
        self._errors.write(data)

    def _end(self) -> None:
        """Ask the hook and all that it started to end; make them, soon after."""
        self._alarm_off()
        self._signal(signal.SIGTERM)
        self._alarm = self._reactor.callLater(KILL_AFTER, self._kill)

    def processExited(self, reason: Failure) -> None:
        self._exit = self._ended_with(reason)
        self._alarm_off()
        if self._ending:
            # Its children had their TERM, and nobody is left to wait for them.
            self._kill_all()
        self._alarm = self._reactor.callLater(PIPES_AFTER, self._close_pipes)

    def processEnded(self, reason: Failure) -> None:
        self._alarm_off()
        self._errors.close()
        ended = self._exit or self._ended_with(reason)
        self.ended.callback(evolve(ended, output=bytes(self._output)))

    def _ended_with(self, reason: Failure) -> Exit:
        return Exit(_exit_status(reason), b"", self._timed_out, self._stopped)

    def _kill(self) -> None:
        self._alarm = None
        self._kill_all()

    def _kill_all(self) -> None:
        self._signal(signal.SIGKILL)
        event, request_id = self._event, self._subject.request_id
        marks = f"FILEBUCKET_EVENT={event}", f"FILEBUCKET_REQUEST_ID={request_id}"
        self._kill_strays([_encode(mark) for mark in marks])

    def _close_pipes(self) -> None:
        # processEnded follows when they are closed.
        self._alarm = None
        self.transport.loseConnection()

    def _signal(self, number: int) -> None:
        # setsid made it the leader of a group of its own number.
        with suppress(ProcessLookupError, PermissionError):
            self._kill_group(self._pid, number)

    def _alarm_off(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()

    def _log_line(self, line: str) -> None:
        self._log.info(
            "{hook} request={request} says: {line}",
            event="hook-says",
            hook=self._event,
            bucket=self._subject.label,
            request=self._subject.request_id,
            line=line,
        )


class LineLog:
    """Gives lines to a log, with a bound on each and on all together, and with
    the bucket's token hidden: a script under ``set -x`` says all its arguments.
    """

    def __init__(
        self, log_line: Callable[[str], object], secret: str, label: str
    ) -> None:
        self._log_line = log_line
        self._secret = secret.encode("utf-8")
        self._label = label.encode("utf-8")
        self._cut = False
        self._left = MOST_STDERR
        self._lines_left = MOST_LINES
        self._line = bytearray()

    def write(self, data: bytes) -> None:
        """Bytes came; log the lines that they end."""
        taken = data[: self._left]
        self._cut = self._cut or len(taken) < len(data)
        self._left -= len(taken)
        *ended, rest = (bytes(self._line) + taken).split(b"\n")
        for line in ended[: self._lines_left]:
            self._say(line)
        self._lines_left -= len(ended)
        if self._lines_left < 0:
            self._cut, self._left, self._lines_left, rest = True, 0, 0, b""
        # One byte more tells that the line was longer.
        self._line = bytearray(rest[: MOST_LINE + 1])

    def close(self) -> None:
        """No more will come; log what has no end of line."""
        if self._line:
            self._say(bytes(self._line), self._cut)
        if self._cut:
            self._log_line(
                f"(the rest of its stderr, over {MOST_STDERR} bytes"
                f" or {MOST_LINES} lines)"
            )

    def _say(self, line: bytes, cut: bool = False) -> None:
        cut = cut or len(line) > MOST_LINE
        line = line[:MOST_LINE].replace(self._secret, self._label)
        if cut:
            line = _without_part(line, self._secret)
        text = line.decode("utf-8", "replace")
        # One line of the hook's is one line of the log's, whatever is in it.
        self._log_line("".join(c if c.isprintable() else "\ufffd" for c in text))


def _is_program(path: str | bytes) -> bool:
    """Whether Linux itself can run it, as far as its first bytes tell.

    What Linux cannot, setsid gives to /bin/sh (POSIX wants that of execvp): which
    exits with 2, pre-push's word for overwriting, at whatever is no shell script.

    :raises OSError: it, or its interpreter, cannot be read
    """
    for _ in range(MOST_INTERPRETERS):
        head = _head(path)
        if not head.startswith(b"#!"):
            return _machine(head) == _machine(_head("/proc/self/exe"))
        path = _INTERPRETER_END.split(head[2:].lstrip(b" \t"), 1)[0]
        if not path:
            break
    return False


# What Linux takes for the end of the interpreter's name: not a CR, say.
_INTERPRETER_END = re.compile(rb"[ \t\n\0]")


def _head(path: str | bytes) -> bytes:
    """As much of a file as Linux looks at (``BINPRM_BUF_SIZE``)."""
    with open(path, "rb", buffering=0) as file:
        return file.read(256)


def _machine(head: bytes) -> tuple[bytes, bytes]:
    """Of an ELF header: the magic, word size and byte order; and e_machine."""
    return head[:6], head[18:20]


def _without_part(line: bytes, secret: bytes) -> bytes:
    """``line`` without the beginning of ``secret`` that it may end with."""
    for length in range(len(secret) - 1, 0, -1):
        if line.endswith(secret[:length]):
            return line[:-length]
    return line


def _encode(text: str) -> bytes:
    # What Python could not decode is as it was.
    return text.encode("utf-8", "surrogateescape")


def _exit_status(reason: Failure) -> int:
    if reason.check(ProcessDone):
        return 0
    ended = reason.value
    assert isinstance(ended, ProcessTerminated)
    if ended.signal is not None:
        return 128 + int(ended.signal)
    return int(ended.exitCode if ended.exitCode is not None else 1)
