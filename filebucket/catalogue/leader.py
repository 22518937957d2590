"""Which of the daemons that share a catalogue leads: only that one reports late backups
and reindexes.

The leader is the daemon that holds a lock of the database. The lock ends with the
connection, and the database ends a connection that is silent for a while; so a daemon
that dies is followed within seconds. A daemon counts as leading only for a shorter time
after its last sign of life that was answered, on its own clock: it stops before another
one can begin. With SQLite there is one daemon, which always leads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.alarm import Alarm, within
from filebucket.base.threads import Threads
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IElection
from filebucket.model.node import NodeReport, Reported

TRY_EVERY = 2.0
"""Seconds between two signs of life, or attempts to lead."""

SILENT = 10
"""Seconds after which the database ends a connection without a sign of life."""

LEASE = 7.0
"""Seconds that a daemon leads after a sign of life was sent, if it was answered."""

REPORT_EVERY = 10.0
"""Seconds between two reports of a daemon about itself."""

PATIENCE = 5.0
"""Seconds that the last sign of life may take."""


class Leader(Protocol):
    """Whether this daemon leads."""

    @property
    def term(self) -> int:
        """Which time it leads; 0 if it does not. May be used in any thread."""

    async def confirm(self, term: int) -> bool:
        """Whether it still leads, as it did in that term: asks the database."""


class Alone:
    """The only daemon of its catalogue."""

    term = 1

    async def confirm(self, term: int) -> bool:
        """Always."""
        return True


ALONE: Leader = Alone()


@frozen
class _Turn:
    """What a turn found.

    :param began: when it began
    :param leads: whether this daemon holds the lock
    :param reported: the answer to its report; None if it did not report itself
    """

    began: float
    leads: bool
    reported: Reported | None = None


class Leadership(Service):
    """Takes part in the election of a leader while it is started.

    :ivar rival: whether another daemon has the same name
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        threads: Threads,
        election: IElection,
        describe: Callable[[], NodeReport],
        monotonic: Callable[[], float],
    ) -> None:
        """
        :param threads: one thread of its own
        :param describe: returns what this daemon reports about itself
        :param monotonic: returns seconds, also of the time while the machine sleeps
        """
        self._clock = clock
        self._threads = threads
        self._election = election
        self._describe = describe
        self._monotonic = monotonic
        self._one_at_a_time = DeferredLock()
        self._timer = Alarm(clock)
        self._began: list[Callable[[], object]] = []
        self._crashed: list[Callable[[], object]] = []
        self._looked: list[Callable[[], object]] = []
        self._until = self._reported_at = -math.inf
        self._term = 0
        self._led = False
        # Whether the log has who leads.
        self._known = False
        self._error: str | None = None
        self.rival = False

    @property
    def term(self) -> int:
        """As :attr:`Leader.term`."""
        return self._term if self._monotonic() < self._until else 0

    async def confirm(self, term: int) -> bool:
        """As :meth:`Leader.confirm`."""
        if not term or self.term != term:
            return False
        asked: Deferred[None] = self._one_at_a_time.run(self._turn)
        return await within(self._clock, PATIENCE, asked) and self.term == term

    def on_begin(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when this daemon begins to lead."""
        self._began.append(listener)

    def on_look(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` every :data:`REPORT_EVERY` seconds while it leads."""
        self._looked.append(listener)

    def on_crash(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` after the start, if the last process with this name was not
        stopped as it should be: it may have lost what it had not written.
        """
        self._crashed.append(listener)

    def startService(self) -> None:
        super().startService()
        self._tick()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._timer.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._until = -math.inf
        leaving = self._one_at_a_time.run(self._threads.run, self._leave)
        leaving.addErrback(self._failed)
        await within(self._clock, PATIENCE, leaving)
        self._threads.stopService()

    def _tick(self) -> None:
        turn: Deferred[None] = self._one_at_a_time.run(self._turn)
        turn.addErrback(
            lambda failure: self._log.failure(
                "a bug in file-bucket", failure, event="bug"
            )
        )
        turn.addCallback(self._again)

    def _again(self, result: None) -> None:
        if self.running:
            self._timer.set(TRY_EVERY, self._tick)

    def _turn(self) -> Deferred[None]:
        now = self._monotonic()
        due = now - self._reported_at >= REPORT_EVERY
        turn = self._threads.run(self._ask, now, self._describe(), due, self._led)
        return turn.addCallbacks(self._done, self._failed)

    def _done(self, turn: _Turn) -> None:
        if not self.running:
            return
        if self._error is not None:
            self._error = None
            self._log.info("the catalogue's database can be used again", event="leader")
        self._until = turn.began + LEASE if turn.leads else -math.inf
        begins = turn.leads and not self._led
        self._led = turn.leads
        if begins:
            self._term += 1
            self._log.info("this daemon leads", event="leader", leads=True)
            _call(self._began)
        if not (turn.leads or self._known):
            self._log.info("another daemon leads", event="leader", leads=False)
        self._known = True
        if turn.reported is not None:
            self._reported_at = turn.began
            self._note_rival(turn.reported.rival)
            if turn.reported.crashed:
                _call(self._crashed)
            if turn.leads:
                _call(self._looked)

    def _failed(self, failure: Failure) -> None:
        self._until = self._reported_at = -math.inf
        self._known = False
        if self._led:
            self._led = False
            self._log.info("this daemon no longer leads", event="leader", leads=False)
        if failure.check(CancelledError):
            error = f"no answer within {PATIENCE:.0f} seconds"
        elif failure.check(CatalogueError, OSError):
            error = str(failure.value)
        else:
            self._log.failure("a bug in file-bucket", failure, event="bug")
            return
        if error != self._error and self.running:
            self._error = error
            self._log.error(
                "the catalogue's database cannot be used, so this daemon does not lead:"
                " {error}",
                event="leader-failed",
                error=error,
            )

    def _note_rival(self, rival: bool) -> None:
        if rival and not self.rival:
            self._log.error(
                "another daemon has the same name: change 'node' of one of them",
                event="node-name",
            )
        self.rival = rival

    # Called in the thread.

    def _ask(self, now: float, report: NodeReport, due: bool, led: bool) -> _Turn:
        try:
            leads = self._election.hold()
            if due or leads != led:
                return _Turn(now, leads, self._election.report(report, leads))
            return _Turn(now, leads)
        except CatalogueError:
            # Another connection would not have the lock.
            self._election.close()
            raise

    def _leave(self) -> None:
        try:
            self._election.leave()
        finally:
            self._election.close()


def _call(listeners: Sequence[Callable[[], object]]) -> None:
    for each in listeners:
        each()
