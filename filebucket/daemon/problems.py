"""Problems of the server that its catalogue does not reveal: a daemon that does not run
or has not applied the configuration, and certificates that expire.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from attrs import frozen

from filebucket.base.owner import refused_hint
from filebucket.base.text import printable_lines
from filebucket.config.config import Config
from filebucket.daemon import control
from filebucket.daemon.applied import Applied, Difference, compare
from filebucket.daemon.control import Status
from filebucket.model.problem import (
    CRITICAL,
    WARNING,
    Kind,
    Problem,
    ending_certificate,
    store_outage,
)


@frozen
class Found:
    """A daemon, as its files show it.

    :param process: its pid; None if no daemon runs; 0 or less if it runs in another PID
        namespace or on another machine
    :param status: its last status, if there is one
    :param applied: the applied configuration, if it is known
    :param why: the reason why that cannot be read, if it cannot
    """

    process: int | None = None
    status: Status | None = None
    applied: Applied | None = None
    why: str | None = None

    def reads(self, path: str) -> bool:
        """Whether it is not known to read another configuration."""
        # In another namespace the same name may be another file.
        apart = self.process is not None and self.process <= 0
        return apart or self.status is None or same_file(self.status.config, path)

    def difference(self, config: Config, text: str) -> Difference:
        """What of the configuration it has not applied, as far as that is known.

        :param text: the identity of the text that ``config`` was read from
        """
        if self.applied is None:
            return Difference()
        return compare(self.applied, config, text)

    def due(self, difference: Difference) -> str:
        """The reload or restart that is due, or the reason why it is not known.

        :param difference: the :meth:`difference`
        """
        if self.why is not None:
            return f"cannot tell whether a reload is due: {self.why}"
        return difference.text


def find_daemon(home: str) -> Found:
    """The daemon that uses ``home``.

    :raises OSError: its lock or its status may not be read
    """
    process = control.daemon_of(home)
    if process is None:
        return Found()
    status = control.read(home)
    try:
        return Found(process, status, control.read_applied(home))
    except OSError as error:
        return Found(process, status, why=not_allowed(error, home))


def same_file(one: str, other: str) -> bool:
    """Whether ``one``, as the daemon reported it, is the file ``other``."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        # The name may be from another mount namespace.
        return one == printable_lines(os.path.abspath(other))


def not_allowed(error: OSError, home: str) -> str:
    """Why the files of a daemon cannot be read."""
    hint = f"; {refused_hint(home)}" if error.errno == errno.EACCES else ""
    return f"{error.strerror}{hint}"


def problems_of(
    path: str, text: str, config: Config, now: float, daemon: bool = True
) -> list[Problem]:
    """Problems of the whole server.

    :param path: the file that ``config`` was read from
    :param text: the identity of its text
    :param now: seconds since the epoch
    :param daemon: whether a daemon has to run
    """
    found = list(_of_daemon(path, text, config)) if daemon else []
    if any(each.kind == "ssl" for each in (*config.listen, config.admin) if each):
        # A slow import.
        from filebucket.daemon.certificates import ends_of  # noqa: PLC0415

        ending = ending_certificate(ends_of(config), now)
        found += [ending] if ending else []
    return found


def _of_daemon(path: str, text: str, config: Config) -> Iterator[Problem]:
    try:
        found = find_daemon(config.home)
    except OSError as error:
        why = f"cannot tell whether the daemon runs: {not_allowed(error, config.home)}"
        yield Problem(Kind.DAEMON, WARNING, why)
        return
    if found.process is None and config.node_name:
        # The others receive the pushes.
        why = "the daemon of this machine does not run"
        yield Problem(Kind.DAEMON, WARNING, why)
    elif found.process is None:
        why = "the daemon does not run: no push arrives"
        yield Problem(Kind.DAEMON, CRITICAL, why)
    else:
        yield from _of_running(path, text, config, found)


def _of_running(
    path: str, text: str, config: Config, found: Found
) -> Iterator[Problem]:
    status = found.status
    if status is not None and status.outage is not None:
        yield store_outage(status.outage)
    if status is not None and not found.reads(path):
        why = f"the daemon reads another configuration, {status.config}"
        yield Problem(Kind.RELOAD, WARNING, " ".join(why.split()))
    elif due := found.due(found.difference(config, text)):
        yield Problem(Kind.RELOAD, WARNING, due)
