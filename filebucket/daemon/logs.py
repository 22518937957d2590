"""Format log lines, as Twisted's text or as JSON, with priorities if the journal reads
them.

Each event of the daemon has a permanent name in ``event``, and fields, listed in
``docs/reference/logging.rst``. Events of Twisted and other libraries are named
``other``, and only their message is written: their fields may contain anything, such as
a request with its token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import IO, Any, TextIO

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from filebucket.base.text import rfc3339
from filebucket.daemon import behind

READY = "{log_text}"
"""The format of an event whose text is ready, in one line."""

_TWISTED_ADDS = frozenset({"failure", "format", "isError", "message", "system", "time"})
"""Fields that Twisted adds to an event for observers of its older log."""

_STDOUT = (None, "", "-")
"""Values of twistd's ``--logfile`` that mean standard output."""

_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
"""Twisted's levels as syslog priorities."""


def _text(event: LogEvent) -> str | None:
    """The text of an event that came with it, as that of a push; None if its format has
    to be filled in. Twisted's formatter, written in Python, takes a tenth of all that
    the reactor does for a small push, and its time as long again.
    """
    ready = event.get("log_format") == READY and "log_failure" not in event
    return event["log_text"] if ready else None


@lru_cache(maxsize=1)
def _time(second: int) -> str:
    return formatTime(second)


def _source(event: LogEvent) -> str:
    return f"[{event['log_namespace']}#{event['log_level'].name}]"


def json_line(event: LogEvent) -> str:
    """The event as a JSON object and a line feed."""
    namespace = event.get("log_namespace") or "-"
    level = event.get("log_level")
    told: dict[str, Any] = {
        "time": rfc3339(event["log_time"]),
        "level": level.name if level is not None else "info",
        "event": "other",
        "message": _text(event) or formatEvent(event),
    }
    if namespace.startswith("filebucket."):
        told |= {
            key: value
            for key, value in event.items()
            if not key.startswith("log_") and key not in _TWISTED_ADDS
        }
    else:
        told["source"] = namespace
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        told["traceback"] = failure.getTraceback()
    return json.dumps(told, default=str) + "\n"


def text_line(event: LogEvent) -> str:
    """The event as Twisted writes it."""
    text = _text(event)
    if text is not None:
        line = text.replace("\n", "\n\t")
        return f"{_time(int(event['log_time']))} {_source(event)} {line}\n"
    return formatEventAsClassicLogText(event) or ""


def untimed_line(event: LogEvent) -> str:
    """The event as Twisted writes it, without the time, which the journal adds."""
    text = _text(event)
    if text is not None:
        return f"{_source(event)} {text}\n"
    return eventAsText(event, includeTimestamp=False) + "\n"


def with_priority(line_of: Callable[[LogEvent], str]) -> Callable[[LogEvent], str]:
    """``line_of`` with its priority before each line (sd-daemon(3))."""

    def line(event: LogEvent) -> str:
        level = event.get("log_level")
        mark = f"<{_PRIORITIES[level.name if level is not None else 'info']}>"
        lines = line_of(event).removesuffix("\n").split("\n")
        return "".join(f"{mark}{each}\n" for each in lines)

    return line


def is_journal(out: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether ``out`` is connected to the journal (systemd.exec(5))."""
    stream = environ.get("JOURNAL_STREAM")
    if not stream:
        return False
    try:
        found = os.fstat(out.fileno())
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


@implementer(ILogObserver)
class Logs(MultiService):
    """A service that becomes the log observer of its application.

    Logging never waits for the reader of the log (:mod:`filebucket.daemon.behind`),
    except that lines logged until the services stop are written first.
    """

    _log = Logger()

    def __init__(self, out: TextIO, line_of: Callable[[LogEvent], str]) -> None:
        """
        :param out: where the lines go
        :param line_of: formats an event as a line
        """
        super().__init__()
        self._line_of = line_of
        most, stall = behind.MOST_WAITING, behind.STALL
        self._lines = behind.LinesBehind(out, self._tell_lost, most, stall)

    def setServiceParent(self, parent: Any) -> None:
        # twistd asks the application for its log observer after the services are set.
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self)
        super().setServiceParent(parent)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await super().stopService()
        self._lines.finish()

    def __call__(self, event: LogEvent) -> None:
        self._lines.write(self._line_of(event))

    def _tell_lost(self, count: int) -> None:
        self._log.warn(
            "lost {count} log lines: standard output was not read",
            event="log-lost",
            count=count,
        )


def is_elsewhere(twistd: Mapping[str, Any]) -> bool:
    """Whether twistd's own options send the log anywhere other than standard output."""
    if twistd.get("syslog") or twistd.get("logger"):
        return True
    return twistd.get("logfile") not in _STDOUT or not twistd.get("nodaemon", True)
