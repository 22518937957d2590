"""Ask the daemon that runs to read its buckets again, and wait until it has.

The file is checked here first, since a broken one would change nothing. Then the
daemon is found by the lock that it holds, gets its signal, and says in its status file
what came of it (:mod:`filebucket.daemon.control`). Only the text that was checked, or
one that took its place since, counts as an answer: a reload that somebody else asked
for a moment before may have read an older one.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from filebucket.base.errors import ConfigError, OperatorError
from filebucket.base.text import printable_lines
from filebucket.config.load import parse, read_text
from filebucket.daemon import control, reload
from filebucket.daemon.control import Answer, identity

ASK_EVERY = 0.05
"""Seconds between two looks at what the daemon says."""


_ENDED = "the daemon has exited; see its log"


class NotReloadedError(OperatorError):
    """The list of buckets is not known to be in force; why not, in a line."""


def ask(
    path: str,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Reload, and wait until the file's buckets are in force.

    :param path: the configuration
    :param timeout: seconds that the daemon gets
    :raises ConfigError: the file cannot be used; the daemon was not asked
    :raises NotReloadedError: the reason
    """
    end = clock() + timeout
    text = read_text(path)
    home = parse(text, path).home
    known = {identity(text)}
    with _daemon(home) as daemon:
        process = daemon.process
        number = _number(_read(home))
        daemon.signal()
        while clock() < end:
            sleep(ASK_EVERY)
            found = _read(home)
            if found and found.answer and found.number > number:
                number = found.number
                # Whoever changed the file meanwhile may have been first to ask.
                with suppress(ConfigError):
                    known.add(identity(read_text(path)))
                if found.answer.text is None or found.answer.text in known:
                    return _in_force(found.answer)
                if not _same_file(found.config, path):
                    raise NotReloadedError(
                        f"the daemon reads another configuration, {found.config}"
                    )
            elif _daemon_of(home) != process:
                raise NotReloadedError(_ENDED)
    raise NotReloadedError(
        f"the daemon (process {process}) did not answer within {timeout:g} seconds;"
        " see its log"
    )


def _in_force(answer: Answer) -> Answer:
    if answer.reason is not None:
        raise NotReloadedError(f"the daemon kept its bucket list: {answer.reason}")
    return answer


def _number(found: control.Status | None) -> int:
    return found.number if found else 0


class _Daemon:
    """A process that stays the same, whatever becomes of its number."""

    def __init__(self, process: int, fd: int) -> None:
        self.process = process
        self._fd = fd

    def signal(self) -> None:
        try:
            signal.pidfd_send_signal(self._fd, reload.SIGNAL)
        except PermissionError:
            raise NotReloadedError(
                f"no permission to signal the daemon (process {self.process});"
                " run this as root or as the daemon's user"
            ) from None
        except ProcessLookupError:
            raise NotReloadedError(_ENDED) from None


@contextmanager
def _daemon(home: str) -> Iterator[_Daemon]:
    """The daemon that uses ``home``."""
    process = _daemon_of(home)
    if process is None:
        raise NotReloadedError(
            f"no running daemon uses {home} (if you changed home, restart the daemon)"
        )
    if process <= 0:
        raise NotReloadedError(
            f"the daemon that uses {home} is in another container or on another machine"
        )
    try:
        fd = os.pidfd_open(process)
    except ProcessLookupError:
        raise NotReloadedError(_ENDED) from None
    try:
        # Until here its number may have become another's.
        if _daemon_of(home) != process:
            raise NotReloadedError(_ENDED)
        yield _Daemon(process, fd)
    finally:
        os.close(fd)


def _daemon_of(home: str) -> int | None:
    try:
        return control.daemon_of(home)
    except OSError as error:
        raise _not_allowed(home, error) from None


def _read(home: str) -> control.Status | None:
    try:
        return control.read(home)
    except OSError as error:
        raise _not_allowed(home, error) from None


def _not_allowed(home: str, error: OSError) -> NotReloadedError:
    hint = (
        "; run this as root or as the daemon's user"
        if error.errno == errno.EACCES
        else ""
    )
    return NotReloadedError(f"cannot read {home}: {error.strerror}{hint}")


def _same_file(one: str, other: str) -> bool:
    """Whether ``one``, which the daemon has said, is ``other``."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        # In another mount namespace, maybe, where a name means another file.
        return one == printable_lines(os.path.abspath(other))
