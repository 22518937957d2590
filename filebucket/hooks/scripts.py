"""pre-push.sh, post-push.sh and alert.sh: the operator's scripts, as child processes.

pre-push decides whether to accept a push; post-push runs after a file is stored, and
may replace the answer; alert runs when a backup is overdue or changes its state
otherwise. Each script is looked up whenever it is due, and runs with a scrubbed
environment within the limits of :mod:`filebucket.hooks.process`. The number of hooks
that run at once is limited; buckets are served in turn, and alerts have a place of
their own (:mod:`filebucket.base.places`). If a pre-push hook cannot be run or does not
answer, the push is refused.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
from collections.abc import Callable, Collection, Mapping
from functools import partial

from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from filebucket.base.errors import ConfigError, Refusal
from filebucket.base.places import Places
from filebucket.base.text import printable
from filebucket.hooks.interfaces import (
    ALERT,
    EVENTS,
    POST_PUSH,
    PRE_PUSH,
    Alert,
    Exit,
    HookFailed,
    IHooks,
    Run,
    Subject,
    Verdict,
)
from filebucket.hooks.process import (
    SETSID,
    BoundedProcess,
    LineLog,
    Reactor,
    kill_marked,
)

MOST_INTERPRETERS = 5
"""Nested interpreters that Linux allows."""


def unobserved(what: object) -> None:
    """Do not record how a hook ended, or that there is none."""


@implementer(IHooks)
class ScriptHooks:
    """Hooks that are scripts in a folder."""

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
        observe: Callable[[Run], object] = unobserved,
        absent: Callable[[str], object] = unobserved,
    ) -> None:
        """
        :param directory: absolute path of the scripts' folder; they are looked up
            whenever one is due
        :param environ: provides PATH, LANG and HOME
        :param timeout: seconds until a hook is ended
        :param concurrency: hooks that run at once, in addition to one alert; the others
            wait in the queue of their bucket
        :param kill_group: sends a signal to a process group
        :param kill_strays: as :func:`filebucket.hooks.process.kill_marked`
        :param observe: called after each run, and if a hook cannot be run
        :param absent: called with a hook that was due, but does not exist
        """
        self._reactor = reactor
        self._directory = directory
        self._paths = {
            event: os.path.join(directory, f"{event}.sh") for event in EVENTS
        }
        self._found_none: set[str] = set()
        self._base = {
            "PATH": environ.get("PATH") or os.defpath,
            "LANG": environ.get("LANG") or "C.UTF-8",
            "HOME": environ.get("HOME") or "/",
        }
        self._timeout = timeout
        self._lines = Places(concurrency)
        # Separate, so that pushes never delay alerts.
        self._alerts = Places(1)
        self._kill_group = kill_group
        self._kill_strays = kill_strays
        self._observe = observe
        self._absent = absent
        self._running: set[BoundedProcess] = set()
        self._stopped = False

    def check(self) -> list[str]:
        """The hooks that exist.

        :raises ConfigError: one of them cannot be run
        """
        found, mistakes = [], []
        for event in EVENTS:
            try:
                if self.is_there(event):
                    found.append(event)
            except OSError as error:
                mistakes.append(f"{event}.sh: {error.strerror}")
        if found and not os.access(SETSID, os.X_OK):
            mistakes.append(f"hooks need {SETSID.decode()} from util-linux")
        if mistakes:
            raise ConfigError(self._directory, mistakes)
        return found

    def is_there(self, event: str) -> bool:
        """Whether there is such a hook.

        :raises OSError: it exists, but cannot be run
        """
        path = self._paths[event]
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        try:
            is_file = stat.S_ISREG(os.stat(path).st_mode)
        except FileNotFoundError:
            # A dangling link is a mistake, not the absence of a hook.
            raise OSError(errno.ENOENT, "is a dangling symbolic link") from None
        if not (is_file and os.access(path, os.X_OK)):
            raise OSError(errno.EACCES, "is not an executable file")
        check_program(path, self._base["PATH"])
        return True

    def _find(self, event: str) -> bool:
        """As :meth:`is_there`, for a hook that is due. All pushes of one turn of the
        reactor share the answer that there is none: the two calls for each push took
        8 % of the time of small ones, since they release Python's lock, which a busy
        thread may then keep for a while.
        """
        if event in self._found_none:
            return False
        if self.is_there(event):
            return True
        if not self._found_none:
            self._reactor.callLater(0, self._found_none.clear)
        self._found_none.add(event)
        self._absent(event)
        return False

    async def pre_push(
        self, subject: Subject, failure: Callable[[], Refusal | None]
    ) -> Verdict | None:
        try:
            if not self._find(PRE_PUSH):
                return None
        except OSError as error:
            self._cannot_run(PRE_PUSH, subject, error)
            raise HookFailed("the server's pre-push hook cannot be run") from None
        argv = (
            subject.bucket,
            subject.filename,
            str(subject.size),
            subject.remote,
        )
        ended = await self._run(PRE_PUSH, argv, subject, failure)
        if ended.stopped:
            # The hook did not reject the push, so the client should retry.
            raise Refusal(503, "the server is shutting down")
        if ended.timed_out:
            raise HookFailed("the server's pre-push hook timed out")
        try:
            return Verdict(ended.status)
        except ValueError:
            raise Refusal(409, "rejected by the server's pre-push hook") from None

    async def post_push(self, subject: Subject) -> Exit | None:
        argv = (subject.bucket, subject.path, subject.remote)
        return await self._tell(POST_PUSH, argv, subject)

    async def alert(self, alert: Alert) -> Exit | None:
        argv = (alert.bucket, alert.series, alert.old, alert.new)
        return await self._tell(ALERT, argv, alert)

    async def _tell(
        self, event: str, argv: tuple[str, ...], subject: Subject | Alert
    ) -> Exit | None:
        """Run a hook that decides nothing."""
        try:
            if not self._find(event):
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
        arguments = [_encode(word) for word in (self._paths[event], *argv)]
        lines = self._alerts if event == ALERT else self._lines
        await lines.acquire(subject.bucket)
        try:
            refusal = failure()
            if refusal is not None:
                raise refusal
            return await self._spawn(event, arguments, subject)
        finally:
            lines.release()

    async def _spawn(
        self, event: str, arguments: list[bytes], subject: Subject | Alert
    ) -> Exit:
        if self._stopped:
            return Exit(128 + signal.SIGTERM, stopped=True)
        began = self._reactor.seconds()
        log_line = partial(self._log_line, event, subject)
        process = BoundedProcess(
            self._reactor,
            self._timeout,
            LineLog(log_line, subject.bucket, subject.label),
            self._kill_group,
            self._kill_strays,
        )
        environment = self._environment(event, subject)
        marks = [
            b"%s=%s" % (key, environment[key])
            for key in (b"FILEBUCKET_EVENT", b"FILEBUCKET_REQUEST_ID")
        ]
        try:
            process.start(arguments, environment, marks)
        except OSError as error:
            self._cannot_run(event, subject, error)
            return Exit(status=126)
        self._running.add(process)
        try:
            ended = await process.ended
        finally:
            self._running.discard(process)
        run = Run(event, subject.key, self._reactor.seconds() - began, ended)
        self._observe(run)
        if ended.status or ended.timed_out or ended.stopped:
            late = " (timed out)" if ended.timed_out else ""
            self._log.emit(
                _level(run),
                "{hook} request={request} exit={status}{cause}",
                event="hook",
                hook=event,
                bucket=subject.label,
                request=subject.request_id,
                status=ended.status,
                cause=" (shutting down)" if ended.stopped else late,
            )
        return ended

    def _log_line(self, event: str, subject: Subject | Alert, line: str) -> None:
        self._log.info(
            "{hook} request={request} stderr: {line}",
            event="hook-says",
            hook=event,
            bucket=subject.label,
            request=subject.request_id,
            line=line,
        )

    def _cannot_run(self, event: str, subject: Subject | Alert, error: OSError) -> None:
        self._observe(Run(event, subject.key, 0.0, None, error.strerror or ""))
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
        """End the hooks that run, as at their timeout, and start no more."""
        self._stopped = True
        for process in list(self._running):
            process.stop()


def _level(run: Run) -> LogLevel:
    """The log level of a run whose status was not 0."""
    level: LogLevel = LogLevel.info
    if run.failure is not None:
        level = LogLevel.error if run.hook == ALERT else LogLevel.warn
    return level


def check_program(path: str, search: str) -> None:
    """Check that Linux itself can run the script, as far as its first bytes show.

    Otherwise setsid passes it to /bin/sh, as POSIX requires of execvp. If it is not a
    shell script, sh exits with 2, which pre-push uses for "overwrite".

    :param search: the PATH that it gets
    :raises OSError: it or its interpreter cannot be run or read
    """
    head = _head(path)
    for _ in range(MOST_INTERPRETERS):
        if not head.startswith(b"#!"):
            if _machine(head) == _machine(_head("/proc/self/exe")):
                return
            break
        line = head[2:].split(b"\n", 1)[0]
        if line.endswith(b"\r"):
            raise OSError(errno.ENOEXEC, "has CR LF line ends; use LF")
        interpreter, *rest = _INTERPRETER_END.split(line.strip(b" \t"), 1)
        if not interpreter:
            break
        try:
            head = _head(interpreter)
        except FileNotFoundError:
            raise _lacks(interpreter, "does not exist") from None
        if not os.access(interpreter, os.X_OK):
            reason = f"needs {_shown(interpreter)}, which is not executable"
            raise OSError(errno.EACCES, reason)
        if os.path.basename(interpreter) == b"env" and rest:
            _check_env(rest[0].strip(b" \t"), search)
    raise OSError(errno.ENOEXEC, "is neither a program nor a script with a #! line")


def _check_env(argument: bytes, search: str) -> None:
    """Check that env finds its program, if that is its only argument."""
    if not argument or argument.startswith(b"-") or b"=" in argument:
        return
    if shutil.which(os.fsdecode(argument), path=search) is None:
        raise _lacks(argument, "is not in PATH")


def _lacks(program: bytes, what: str) -> OSError:
    return OSError(errno.ENOENT, f"needs {_shown(program)}, which {what}")


def _shown(program: bytes) -> str:
    return printable(os.fsdecode(program))


# What ends the interpreter's name for Linux.
_INTERPRETER_END = re.compile(rb"[ \t\0]")


def _head(path: str | bytes) -> bytes:
    """The bytes of a file that Linux examines (``BINPRM_BUF_SIZE``)."""
    with open(path, "rb", buffering=0) as file:
        return file.read(256)


def _machine(head: bytes) -> tuple[bytes, bytes]:
    """Parts of an ELF header: the magic, word size and byte order; and e_machine."""
    return head[:6], head[18:20]


def _encode(text: str) -> bytes:
    # surrogateescape restores bytes that Python could not decode.
    return text.encode("utf-8", "surrogateescape")
