"""Handle signals, so that none of them ends the daemon in the middle of a push.

SIGHUP and SIGUSR2 reload. Every signal that would end the process acts like SIGTERM,
which Twisted handles, except SIGKILL and those that report a bug. A signal that was
ignored at the start stays ignored, such as SIGHUP under ``nohup``, and one that already
has a handler keeps it, such as SIGUSR1 of twistd's ``--logfile``.
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
"""Signals that would end the process at once, and that act like SIGTERM."""


class Signals(Service):
    """Handles signals while it is started. Start it when a reload is possible, and stop
    it last.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, reload: Reload) -> None:
        """
        :param reload: not asked while it is stopped
        """
        self._reactor = reactor
        self._reload = reload
        self._replaced: dict[int, Any] = {}

    def startService(self) -> None:
        super().startService()
        # Always: ``filebucket reload`` has checked that this process is the daemon.
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
        # More than this is not safe in a signal handler.
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
