"""Run the alert hook once, for a command, as the daemon runs it.

Its user, environment and working directory are those of the daemon, as far as they are
known: the hook must not work here and then fail there.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.base.fs import directory
from filebucket.base.owner import become_owner_of, home_of
from filebucket.base.text import printable, rfc3339
from filebucket.config.config import Config
from filebucket.daemon import control
from filebucket.hooks.interfaces import ALERT, SERVER, Alert, Exit
from filebucket.hooks.scripts import ScriptHooks
from filebucket.model.names import PRIVATE
from filebucket.model.problem import CRITICAL, SEVERITIES, WARNING

SYSTEMCTL_TIMEOUT = 10.0
"""Seconds for systemd's answer."""

_NO_NEW_PRIVILEGES = 38
"""``PR_SET_NO_NEW_PRIVS`` of prctl(2)."""


class NoHookError(OperatorError):
    """The alert hook does not exist, or cannot be run."""


def make_alert(word: str, text: str, severity: int, now: float) -> Alert:
    """An alert about the whole server.

    :param word: what happened, as a state
    :param text: the text for people
    :param now: seconds since the epoch
    """
    return Alert(
        bucket=SERVER,
        series="",
        old="ok",
        new=word,
        request_id=secrets.token_hex(8),
        text=text,
        severity=SEVERITIES[severity],
        since=rfc3339(now, "seconds") or "",
    )


def trial_alert(now: float) -> Alert:
    """An alert that only shows that alerts arrive."""
    return make_alert("test", "this is a test; nothing is wrong", WARNING, now)


def unit_alert(unit: str, environ: Mapping[str, str], now: float) -> Alert:
    """An alert that a unit of systemd failed.

    :param environ: has the PATH of systemctl
    """
    shown = printable(unit)
    reason = _result(unit, environ)
    text = f"{shown} failed{f': {reason}' if reason else ''}"
    return make_alert("unit", f"{text}; see journalctl -u {shown}", CRITICAL, now)


def _result(unit: str, environ: Mapping[str, str]) -> str:
    """The result of a unit, in words; empty if it is unknown."""
    keys = "Result,ExecMainCode,ExecMainStatus"
    try:
        found = subprocess.run(  # noqa: S603 - no shell, and the name is no option
            ["systemctl", "show", f"--property={keys}", "--", unit],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=SYSTEMCTL_TIMEOUT,
            env={**environ, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    pairs = (
        each.partition("=")
        for each in found.stdout.decode("utf-8", "replace").splitlines()
    )
    values = {key: value for key, _, value in pairs}
    result, status = values.get("Result", ""), values.get("ExecMainStatus", "")
    if result == "exit-code":
        return f"exited with {printable(status)}"
    if result in {"signal", "core-dump"}:
        return f"ended by signal {printable(status)}"
    # A unit that does not exist, or has been restarted since.
    return "" if result == "success" else printable(result)


def run(
    reactor: Any,
    config: Config,
    alert: Alert,
    environ: Mapping[str, str],
    say: Callable[[str], object],
) -> Exit:
    """Run the alert hook. From here on, the process has the rights of the home's owner.

    :param reactor: not running yet; it cannot be run again afterwards
    :param environ: the environment that is used if that of the daemon is unknown
    :param say: prints a line that the hook wrote to standard error
    :raises NoHookError: there is none, or it cannot be run
    """
    hooks = ScriptHooks(
        reactor,
        config.hooks,
        become_daemon(config.home, environ),
        config.hook_timeout,
        1,
    )
    try:
        if not hooks.is_there(ALERT):
            raise NoHookError(f"there is no alert.sh in {config.hooks}")
    except OSError as error:
        path = os.path.join(config.hooks, "alert.sh")
        raise NoHookError(f"{path}: {error.strerror}") from None
    observer = _Lines(say)
    globalLogPublisher.addObserver(observer)
    try:
        return _run(reactor, hooks, alert)
    finally:
        globalLogPublisher.removeObserver(observer)


@implementer(ILogObserver)
@frozen
class _Lines:
    """Prints what the hook writes to standard error, in place of logging it."""

    say: Callable[[str], object]

    def __call__(self, event: LogEvent) -> None:
        if event.get("event") == "hook-says":
            self.say(str(event["line"]))
        elif event.get("event") == "hook-broken":
            self.say(formatEvent(event))


def _run(reactor: Any, hooks: ScriptHooks, alert: Alert) -> Exit:
    found: list[Exit | None] = []

    async def tell() -> None:
        found.append(await hooks.alert(alert))
        with suppress(ReactorNotRunning):
            reactor.stop()

    def start() -> None:
        ended = Deferred.fromCoroutine(tell())

        def stop() -> Deferred[None]:
            # After SIGINT or SIGTERM, its processes end first.
            hooks.end_all()
            return ended

        reactor.addSystemEventTrigger("before", "shutdown", stop)

    reactor.callWhenRunning(start)
    reactor.run()
    # None if it was removed a moment ago.
    return (found[0] if found else None) or Exit(1)


def become_daemon(home: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Take on the rights, the working folder and the limits of the daemon.

    :returns: the environment of the running daemon; if there is none, ``environ`` with
        the HOME of the user that this process has become
    """
    found, restricted, uid = _of_daemon(home)
    user = os.geteuid()
    become_owner_of(home, PRIVATE)
    if uid != os.geteuid():
        # The private folder was exchanged meanwhile: no user may choose root's PATH.
        found, restricted = {}, False
    with suppress(OSError):
        os.chdir(home)
    os.umask(0o077)
    if restricted:
        # Otherwise a setgid program, such as Postfix's sendmail, would work here only.
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if found or os.geteuid() == user:
        return found or environ
    own = home_of(os.geteuid())
    return environ if own is None else {**environ, "HOME": own}


def _of_daemon(home: str) -> tuple[Mapping[str, str], bool, int | None]:
    """The environment of the running daemon, whether its children can get no further
    privileges, and its effective user; empty, False and None if it is not known.
    """
    unknown: tuple[Mapping[str, str], bool, None] = {}, False, None
    try:
        process = control.daemon_of(home)
        if process is None or process <= 0:
            return unknown
        with directory(f"/proc/{process}") as folder_fd:
            variables, status = (
                os.fsdecode(_content(name, folder_fd)) for name in ("environ", "status")
            )
        # Until the folder was open, the pid may have been reused.
        if control.daemon_of(home) != process:
            return unknown
    except OSError:
        return unknown
    pairs = (each.partition("=") for each in variables.split("\0"))
    restricted = re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE) is not None
    uids = re.search(r"^Uid:\t\d+\t(\d+)", status, re.MULTILINE)
    found = {key: value for key, _, value in pairs if key}
    return found, restricted, int(uids[1]) if uids else None


def _content(name: str, folder_fd: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder_fd)
    with open(fd, "rb") as file:
        return file.read()
