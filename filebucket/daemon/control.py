"""The daemon's side channel for the commands: three files, instead of a port.

They are in ``<home>/.filebucket/``, readable by the daemon's user and root only. The
daemon holds a lock on the empty file ``daemon`` while it handles its signal. The kernel
reports the pid of a lock's holder, in the reader's PID namespace, so a stale pid is
never signalled, and no lock has to be taken to read it. The daemon writes the result of
each reload to ``status.json``, and what it has applied of the configuration to
``applied.json``; these are replaced atomically. They are two files because ``reload``
reads the first one twenty times a second, and the second one is long: 3 MB for 100,000
buckets.

No file ever contains a token. All are useless after the daemon has exited, so they are
not synced.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.fs import directory, replacing
from filebucket.base.text import counted, printable_lines
from filebucket.base.threads import beside_pushes
from filebucket.config.config import Keys
from filebucket.daemon.applied import Applied
from filebucket.model.names import PRIVATE

LOCK = "daemon"
STATUS = "status.json"
APPLIED = "applied.json"
AT_ONCE = 1000
"""Buckets that are encoded at once."""

_CALLED = {
    LOCK: "the daemon's lock",
    STATUS: "the daemon's status file",
    APPLIED: "the daemon's file applied.json",
}

MOST_SIZE = 2**26
"""Bytes that are read of a file: the daemon's user must not exhaust root's memory."""

T = TypeVar("T")

# struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi")


@frozen
class Answer:
    """The result of a reload.

    :param text: :func:`identity` of the text read; None if none was read
    :param reason: why nothing changed; None if the buckets were applied
    :param buckets: number of current buckets
    :param added: number of new tokens
    :param removed: number of removed tokens
    :param changed: number of changed buckets
    :param waiting: keys whose change needs a restart
    """

    text: str | None = None
    reason: str | None = None
    buckets: int = 0
    added: int = 0
    removed: int = 0
    waiting: tuple[str, ...] = ()
    changed: int = 0

    @property
    def changes(self) -> str:
        """The applied changes, in a few words."""
        changed = counted(self.changed, "bucket")
        return (
            f"{counted(self.buckets, 'bucket')} ({counted(self.added, 'token')} added,"
            f" {self.removed} removed{f', {changed} changed' if self.changed else ''})"
        )


@frozen
class Status:
    """The content of the status file.

    :param config: absolute path of the configuration that the daemon reads
    :param number: number of reloads since the daemon's start
    :param answer: the result of the last one; None before the first
    :param outage: why the object store cannot be used; None if it can
    """

    config: str
    number: int = 0
    answer: Answer | None = None
    outage: str | None = None


class StatusFile(Service):
    """The daemon's side. Start it after the signal is handled, and stop it before the
    signal no longer is.
    """

    _log = Logger()

    def __init__(
        self,
        home: str,
        config: str,
        run: Callable[[Callable[[], None]], Deferred[None]],
        applied: Callable[[], Applied],
    ) -> None:
        """
        :param home: a folder whose private folder exists at the start
        :param config: absolute path of the configuration that the daemon reads
        :param run: calls a function in a thread
        :param applied: returns what is applied; it may take a second
        """
        self._home = home
        self._run = run
        self._applied = applied
        self._lock_fd = -1
        # Of the three below: threads write the files.
        self._turn = threading.Lock()
        self._status = Status(config)
        self._unwritten: Applied | None = None
        self._is_stale = False

    def startService(self) -> None:
        super().startService()
        try:
            # Replace the previous daemon's status before this daemon can be found.
            with suppress(FileNotFoundError):
                os.unlink(_path(self._home, APPLIED))
            self._write()
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            self._lock_fd = os.open(_path(self._home, LOCK), flags, 0o600)
            if os.fstat(self._lock_fd).st_uid != os.geteuid():
                # The daemon of another user created it, and this process is root.
                os.fchown(self._lock_fd, os.geteuid(), -1)
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._log.error(
                "filebucket reload cannot find this daemon: {error}",
                event="reload-untold",
                error=error.strerror,
            )
            return
        self._run(self._tell_first).addErrback(self._untold)

    def _tell_first(self) -> None:
        # Inside, so that it does not replace the newer values of a reload.
        with self._turn:
            self._unwritten = self._applied()
            self._write_all()

    def _untold(self, failure: Failure) -> None:
        if failure.check(OSError) is None:
            self._log.failure("a bug in file-bucket", failure, event="bug")
            return
        self._log.error(
            "filebucket check cannot see what is applied: {error}",
            event="reload-untold",
            error=getattr(failure.value, "strerror", None),
        )

    def stopService(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        super().stopService()

    def tell(self, answer: Answer, applied: Applied | None = None) -> None:
        """Write the result of a reload. It may wait for a disk.

        :param applied: what is applied now; None if nothing changed
        :raises OSError: it cannot be written
        """
        with self._turn:
            number = self._status.number + 1
            self._status = evolve(self._status, number=number, answer=answer)
            self._unwritten = applied or self._unwritten
            self._write_all()

    def tell_outage(self, reason: str | None) -> None:
        """Write why the object store cannot be used, and what could not be written
        before. It may wait for a disk.

        :param reason: None if it can be used
        :raises OSError: it cannot be written
        """
        with self._turn:
            if reason != self._status.outage or self._is_stale:
                self._status = evolve(self._status, outage=reason)
                self._write_all()

    def _write_all(self) -> None:
        self._is_stale = True
        try:
            # First, so that a command that got the answer reads the new file.
            if self._unwritten is not None:
                self._write_applied(self._unwritten)
                self._unwritten = None
        finally:
            self._write()
        self._is_stale = False

    def _write_applied(self, applied: Applied) -> None:
        with beside_pushes():
            content = b"".join(_encoded(applied))
        self._replace(APPLIED, content)

    def _write(self) -> None:
        self._replace(STATUS, json.dumps(attrs.asdict(self._status)).encode("utf-8"))

    def _replace(self, name: str, content: bytes) -> None:
        path = _path(self._home, name)
        with replacing(path, f"{path}.new") as file:
            file.write(content)


def _encoded(applied: Applied) -> Iterator[bytes]:
    """The file, in parts: the reactor cannot run while one part is encoded."""
    head = json.dumps({"text": applied.text, "keys": attrs.asdict(applied.keys)})
    yield f'{head[:-1]}, "buckets": {{'.encode()
    buckets = iter(applied.buckets.items())
    comma = ""
    while some := dict(islice(buckets, AT_ONCE)):
        yield f"{comma}{json.dumps(some)[1:-1]}".encode()
        comma = ", "
    yield b"}}"


def _open(home: str, name: str) -> int:
    """Open a file of the private folder for reading.

    The home belongs to the daemon's user, and the reader may be root: a symbolic or
    hard link could lead to another file's lock, whose holder would be signalled, and a
    pipe would block.
    """
    with (
        directory(home) as home_fd,
        directory(PRIVATE, home_fd, follow=False) as private_fd,
    ):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=private_fd)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(fd)
        raise OSError(errno.EINVAL, f"{_CALLED[name]} is not a regular file")
    return fd


def daemon_of(home: str) -> int | None:
    """The pid of the daemon that uses ``home`` and handles its signal. None if there is
    none; 0 or less if it is in another PID namespace or on another machine.

    :raises OSError: the file may not be read
    """
    try:
        fd = _open(home, LOCK)
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, process = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        owner = os.fstat(fd).st_uid
    finally:
        os.close(fd)
    if kind == fcntl.F_UNLCK:
        return None
    if process > 0 and _user_of(process) not in {owner, None}:
        # A daemon's user could link or name any file that a process of root has locked,
        # such as a mailbox.
        raise OSError(errno.EPERM, "the lock is held by another user's process")
    return int(process)


def _user_of(process: int) -> int | None:
    """The effective user of a process; None if it has exited."""
    # Not the owner of its folder in /proc: that is root if the process has dropped
    # root's rights.
    try:
        status = Path(f"/proc/{process}/status").read_bytes()
    except OSError:
        return None
    uids = re.search(rb"^Uid:\t\d+\t(\d+)", status, re.MULTILINE)
    return int(uids[1]) if uids else None


def read(home: str) -> Status | None:
    """The last status of the daemon that uses ``home``; None if there is none. It is
    printable: the home belongs to the daemon's user, and the reader may be root.

    :raises OSError: the file may not be read
    """
    return _parsed(home, STATUS, _status)


def _status(said: dict[str, Any]) -> Status:
    answer = said.pop("answer")
    return Status(**_fit(said), answer=answer and Answer(**_fit(answer)))


def read_applied(home: str) -> Applied | None:
    """What the daemon that uses ``home`` has applied; None if that is not known, as in
    the first second of a daemon. Its strings may not be printable.

    :raises OSError: the file may not be read
    """
    return _parsed(home, APPLIED, _as_applied)


def _as_applied(said: dict[str, Any]) -> Applied:
    keys = Keys(_strings(said["keys"]["values"]), said["keys"]["made"] is True)
    return Applied(str(said["text"]), keys, _strings(said["buckets"]))


def _strings(said: Any) -> dict[str, str]:
    if not all(isinstance(each, str) for each in said.values()):
        raise TypeError("not strings")
    return dict(said)


def _parsed(home: str, name: str, made: Callable[[dict[str, Any]], T]) -> T | None:
    try:
        with open(_open(home, name), "rb") as file:
            content = file.read(MOST_SIZE + 1)
        if len(content) > MOST_SIZE:
            raise ValueError
        return made(json.loads(content))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise OSError(errno.EINVAL, f"{_CALLED[name]} is malformed") from None


_NUMBERS = frozenset({"number", "buckets", "added", "removed", "changed"})


def _fit(said: dict[str, Any]) -> dict[str, Any]:
    """The values read, if they have the types that the daemon writes."""
    fit: dict[str, Any] = {}
    for key, value in said.items():
        if key in _NUMBERS:
            if type(value) is not int:
                raise TypeError(key)
            fit[key] = value
        elif key == "waiting":
            if not isinstance(value, list):
                raise TypeError(key)
            fit[key] = tuple(map(printable_lines, value))
        else:
            fit[key] = None if value is None else printable_lines(value)
    return fit


def _path(home: str, name: str) -> str:
    return os.path.join(home, PRIVATE, name)
