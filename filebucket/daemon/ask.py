"""Ask the running daemon to reload its buckets, and wait until it has.

The file is checked here first, because the daemon would ignore a broken one. The daemon
is found by the lock that it holds, gets its signal, and writes the result to its status
file (:mod:`filebucket.daemon.control`). A result counts only if it is for the text that
was checked, or for one that replaced it since: another reload, requested a moment
earlier, may have read an older file.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from filebucket.base.errors import ConfigError, OperatorError
from filebucket.base.owner import AS_OWNER
from filebucket.config.config import start_command
from filebucket.config.load import parse, read_text
from filebucket.daemon import control, reload
from filebucket.daemon.applied import identity
from filebucket.daemon.control import Answer
from filebucket.daemon.problems import not_allowed, same_file

ASK_EVERY = 0.05
"""Seconds between two reads of the status file."""


_ENDED = "the daemon has exited; see its log"


class NotReloadedError(OperatorError):
    """The reload is not known to have been applied; the reason, in a line."""


def ask(
    path: str,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Reload, and wait until the daemon has applied the file's buckets.

    :param path: the configuration
    :param timeout: seconds that the daemon has to answer
    :raises ConfigError: the file cannot be used; the daemon was not asked
    :raises NotReloadedError: the reason
    """
    end = clock() + timeout
    text = read_text(path)
    home = parse(text, path).home
    known = {identity(text)}
    with _daemon(home, path) as daemon:
        process = daemon.process
        before = _read(home)
        if before and _is_known_to_differ(process, before.config, path):
            raise _another(before)
        number = before.number if before else 0
        daemon.signal()
        while clock() < end:
            sleep(ASK_EVERY)
            found = _read(home)
            if found and found.answer and found.number > number:
                number = found.number
                # If the file has changed meanwhile, another command may have asked for
                # the reload of the new text.
                with suppress(ConfigError):
                    known.add(identity(read_text(path)))
                if found.answer.text is None or found.answer.text in known:
                    return _in_force(found.answer)
                if not same_file(found.config, path):
                    raise _another(found)
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


def _another(found: control.Status) -> NotReloadedError:
    return NotReloadedError(f"the daemon reads another configuration, {found.config}")


def _is_known_to_differ(process: int, config: str, path: str) -> bool:
    """Whether the daemon reads another file.

    :param config: its path of the configuration
    """
    if same_file(config, path):
        return False
    try:
        # The path may be from another mount namespace.
        return not os.path.samefile(f"/proc/{process}/root{config}", path)
    except OSError:
        return False


class _Daemon:
    """A process, pinned by a descriptor in case its pid is reused."""

    def __init__(self, process: int, fd: int) -> None:
        self.process = process
        self._fd = fd

    def signal(self) -> None:
        try:
            signal.pidfd_send_signal(self._fd, reload.SIGNAL)
        except PermissionError:
            raise NotReloadedError(
                f"no permission to signal the daemon (process {self.process});"
                f" {AS_OWNER}"
            ) from None
        except ProcessLookupError:
            raise NotReloadedError(_ENDED) from None


@contextmanager
def _daemon(home: str, path: str) -> Iterator[_Daemon]:
    """The daemon that uses ``home``.

    :param path: the configuration
    """
    process = _daemon_of(home)
    if process is None:
        raise NotReloadedError(
            f"no running daemon uses {home}; start it: {start_command(path, home)}"
            " (if you changed home, restart the daemon)"
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
        # Until the descriptor was open, the pid may have been reused.
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
    return NotReloadedError(f"cannot read {home}: {not_allowed(error, home)}")
