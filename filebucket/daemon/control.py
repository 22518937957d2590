"""What the daemon says of itself to the operator's command, without a port for that.

Two files under ``<home>/.filebucket/``, which only the daemon's user and root can
read. ``daemon`` is empty, and locked by the daemon as long as it heeds its signal: of
a lock of that kind the kernel tells who holds it, in the numbers of whoever asks, so
that no stale number is ever signalled, and nobody has to take a lock to learn of it.
``status.json`` says what came of each reading of the configuration; it is replaced at
once, so that it is always whole.

Neither ever holds a token, nor is either of any use when the daemon has gone: nothing
is brought to the disk.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import struct
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen
from twisted.application.service import Service
from twisted.logger import Logger

from filebucket.base.fs import directory, replacing
from filebucket.base.text import printable_lines
from filebucket.model.names import PRIVATE

LOCK = "daemon"
STATUS = "status.json"
_CALLED = {LOCK: "lock", STATUS: "status"}

# struct flock: type, whence, start, length, process.
_FLOCK = struct.Struct("hhqqi")


def identity(text: str) -> str:
    """What tells one text of the configuration from another: its SHA-256 in hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@frozen
class Answer:
    """What came of reading the configuration.

    :param text: the :func:`identity` of what was read; None where nothing was
    :param reason: why nothing changed; None where the buckets are in force
    :param buckets: how many are in force
    :param added: tokens that there were not before
    :param removed: tokens that there are no more
    :param waiting: keys that wait for a restart
    """

    text: str | None = None
    reason: str | None = None
    buckets: int = 0
    added: int = 0
    removed: int = 0
    waiting: tuple[str, ...] = ()


@frozen
class Status:
    """What the daemon says.

    :param config: the file that it reads, as an absolute path
    :param number: how often it has answered since its start
    :param answer: the last one; None before the first
    """

    config: str
    number: int = 0
    answer: Answer | None = None


class StatusFile(Service):
    """The daemon's side. To be started when the daemon heeds its signal, and stopped
    before it no longer does.
    """

    _log = Logger()

    def __init__(self, home: str, config: str) -> None:
        """
        :param home: whose private folder is there at the start
        :param config: the file that the daemon reads, as an absolute path
        """
        self._home = home
        self._status = Status(config)
        self._lock_fd = -1

    def startService(self) -> None:
        super().startService()
        try:
            # What a daemon before this one said must be gone before this one is seen.
            self._write()
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            self._lock_fd = os.open(_path(self._home, LOCK), flags, 0o600)
            if os.fstat(self._lock_fd).st_uid != os.geteuid():
                # Another user's daemon made it, and we are root's.
                os.fchown(self._lock_fd, os.geteuid(), -1)
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._log.error(
                "filebucket reload cannot find this daemon: {error}",
                event="reload-untold",
                error=error.strerror,
            )

    def stopService(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        super().stopService()

    def tell(self, answer: Answer) -> None:
        """Say what came of a reading. It may wait for a disk; one call at a time.

        :raises OSError: it cannot be said
        """
        self._status = Status(self._status.config, self._status.number + 1, answer)
        self._write()

    def _write(self) -> None:
        path = _path(self._home, STATUS)
        with replacing(path, f"{path}.new") as file:
            file.write(json.dumps(attrs.asdict(self._status)).encode("utf-8"))


def _open(home: str, name: str) -> int:
    """Open a file of the private folder, to read it.

    The home is the daemon's user's, and who asks may be root: a link, or another name,
    would lead to another's lock, whose holder would be signalled, and a pipe would not
    answer.
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
        raise OSError(
            errno.EINVAL, f"the daemon's {_CALLED[name]} is not a regular file"
        )
    return fd


def daemon_of(home: str) -> int | None:
    """The process that uses ``home`` and heeds its signal; None where there is none;
    0 or less where it cannot be seen from here, such as one of another machine.

    :raises OSError: one may not know
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
        # Of a file of one's own, such as a mailbox, that root's process has locked.
        raise OSError(errno.EPERM, "the lock is held by another user's process")
    return int(process)


def _user_of(process: int) -> int | None:
    """Whose rights a process has; None where it is gone."""
    # Not the owner of the folder in /proc: that is root where a process was root's.
    try:
        status = Path(f"/proc/{process}/status").read_bytes()
    except OSError:
        return None
    uids = re.search(rb"^Uid:\t\d+\t(\d+)", status, re.MULTILINE)
    return int(uids[1]) if uids else None


def read(home: str) -> Status | None:
    """What the daemon that uses ``home`` said last; None where there is nothing. It is
    printable: the home is the daemon's user's, and who reads it may be root.

    :raises OSError: one may not know
    """
    try:
        with open(_open(home, STATUS), encoding="utf-8") as file:
            said = json.load(file)
        answer = said.pop("answer")
        return Status(**_fit(said), answer=answer and Answer(**_fit(answer)))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise OSError(errno.EINVAL, "the daemon's status file is malformed") from None


_NUMBERS = frozenset({"number", "buckets", "added", "removed"})


def _fit(said: dict[str, Any]) -> dict[str, Any]:
    """What was said, if it is of the kind that the daemon says."""
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
