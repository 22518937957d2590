"""What signals mean to the daemon: none of them ends it in the midst of a push.

SIGHUP and SIGUSR2 reload. Whatever would end the process at once ends it as SIGTERM
does, which is Twisted's, as is SIGINT; but for SIGKILL, and for what tells of a bug.
What was ignored when the daemon started stays so, as ``nohup`` has it for SIGHUP; and
who has taken a signal before, such as twistd's ``--logfile`` SIGUSR1, keeps it.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from filebucket.daemon.reload import SIGNAL, Reload

HANGUP = signal.SIGHUP

ENDS = (
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGPOLL,
    signal.SIGPWR,
    signal.SIGXCPU,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""What would end a process at once, and means what SIGTERM does."""


class Signals(Service):
    """Heeds signals, from when it is started until it is stopped: to be started when a
    reload can be made, and stopped last of all.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, reload: Reload) -> None:
        """
        :param reload: not asked while it does not run
        """
        self._reactor = reactor
        self._reload = reload
        self._replaced: dict[int, Any] = {}

    def startService(self) -> None:
        super().startService()
        # Whoever asks for a reload by it has made sure that we are the one.
        self._heed(SIGNAL)
        for number in (HANGUP, *ENDS):
            if signal.getsignal(number) is signal.SIG_DFL:
                self._heed(number)

    def _heed(self, number: int) -> None:
        # None is a handler that was not installed from Python.
        before = signal.signal(number, self._signalled)
        self._replaced[number] = before or signal.SIG_DFL

    def stopService(self) -> None:
        while self._replaced:
            signal.signal(*self._replaced.popitem())
        super().stopService()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        # Anything more than this is not safe in a signal's handler.
        self._reactor.callFromThread(self._take, number)

    def _take(self, number: int) -> None:
        if number in ENDS:
            self._log.info(
                "received {name}: shutting down, as for SIGTERM",
                event="signal",
                name=_name(number),
            )
            signal.raise_signal(signal.SIGTERM)
        elif self._reload.running:
            self._reload.reload()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
