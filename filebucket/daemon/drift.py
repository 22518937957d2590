"""Notices that the configuration file differs from what the daemon has applied."""

from __future__ import annotations

import os
from typing import Protocol

from filebucket.base.errors import ConfigError
from filebucket.base.text import cut, printable
from filebucket.base.threads import beside_pushes
from filebucket.config.load import parse, read_text
from filebucket.daemon.applied import Applied, Difference, compare, identity
from filebucket.model.problem import WARNING, Kind, Problem

PATIENCE = 600.0
"""Seconds after which a difference is a problem: an operator may be editing."""

LONGEST_MISTAKE = 200


class Current(Protocol):
    """The applied configuration, such as that of
    :class:`~filebucket.daemon.reload.Reload`. All of it may be used in any thread.
    """

    @property
    def text(self) -> str:
        """The identity of the text that the buckets were read from."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """Keys of that text whose change needs a restart."""

    def applied(self) -> Applied:
        """The applied configuration; takes a while if there are many buckets."""


class Drift:
    """Watches the file. It reads the file only when it has changed, and parses it only
    if it has not been applied for a while.
    """

    def __init__(self, path: str, current: Current) -> None:
        """
        :param path: the configuration file
        """
        self._path = path
        self._current = current
        self._state: object = None
        self._found: str | None = None
        self._since: float | None = None
        # Texts that were compared: that of the file and that of the buckets.
        self._pair: tuple[str | None, str] | None = None
        self._problem: Problem | None = None

    def look(self, now: float) -> Problem | None:
        """The problem, if there is one. To be called in a thread, about once a minute,
        one call at a time.

        :param now: monotonic time, in seconds
        """
        found, text, waiting = self._look(), self._current.text, self._current.waiting
        pair = found, text
        alike = found == text or (pair == self._pair and self._problem is None)
        if alike and not waiting:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now - self._since < PATIENCE:
            return None
        if alike:
            return _due(Difference(waiting=waiting))
        if pair != self._pair:
            self._problem = self._compare()
            self._pair = pair
        return self._problem

    def _look(self) -> str | None:
        """The identity of the file's text; None if it cannot be read."""
        state = _state(self._path)
        if state != self._state:
            first = self._state is None
            self._state = state
            try:
                self._found = identity(read_text(self._path))
            except ConfigError:
                # The daemon may have read it at its start, as root.
                self._found = self._current.text if first else None
        return self._found

    def _compare(self) -> Problem | None:
        try:
            text = read_text(self._path)
            applied = self._current.applied()
            with beside_pushes():
                config = parse(text, self._path)
                return _due(compare(applied, config, identity(text)))
        except ConfigError as error:
            mistake = cut(printable(error.mistakes[0]), LONGEST_MISTAKE)
            more = len(error.mistakes) - 1
            shown = f"{mistake} (and {more} more)" if more else mistake
            why = f"the changed configuration cannot be applied: {shown}"
            return Problem(Kind.RELOAD, WARNING, why)


def _due(difference: Difference) -> Problem | None:
    text = difference.text
    return Problem(Kind.RELOAD, WARNING, text) if text else None


def _state(path: str) -> object:
    """The state of the file, for comparison."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)
