"""How many connections there may be, and who makes room for one more.

When there are as many as there may be, that one is dropped on which nothing has been
asked for longest: so strangers, who have no pushes, keep nobody out by being many. One
that has just come, or was just answered, has a moment to ask, or to read its answer,
and one with a push stays. Where nobody can be dropped, those that come wait in line,
unread, and the ports are told to take no more: what comes then waits in the kernel.

It knows nothing of what connections are for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from filebucket.base.alarm import Alarm

DROP_AFTER = 0.5
"""Seconds in which nobody is dropped who came, or was answered."""


class Connection(Protocol):
    """What comes and goes."""

    @property
    def busy(self) -> bool:
        """Whether something is asked on it that has no answer yet."""

    def hold(self) -> None:
        """Read nothing until it is admitted."""

    def admit(self) -> None:
        """Begin to read."""

    def drop(self) -> None:
        """Be gone, soon, without a word."""


class Admission:
    """All connections of a site."""

    def __init__(self, clock: IReactorTime, most: int) -> None:
        """
        :param most: connections there may be
        """
        self._clock = clock
        self._most = most
        # With the time since which nothing is asked, the earliest first.
        self._admitted: dict[Any, float] = {}
        self._line: deque[Any] = deque()
        self._ports: Sequence[Any] = ()
        self._stopped = False
        self._again = Alarm(clock)
        self._successor_of: Any = None

    def listens(self, ports: Sequence[Any]) -> None:
        """Connections come from these.

        :param ports: with ``stopReading`` and ``startReading``, which all of Twisted's
            have and no interface says
        """
        self._ports = ports

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._admitted) >= self._most

    def __len__(self) -> int:
        return len(self._admitted)

    @property
    def anybody(self) -> bool:
        """Whether there is one, be it admitted or in line."""
        return bool(self._admitted or self._line)

    @property
    def all(self) -> list[Any]:
        """All that are there, be they admitted or in line."""
        return [*self._admitted, *self._line]

    def came(self, connection: Connection) -> None:
        """One more: it is admitted, or held until it is."""
        before, self._successor_of = self._successor_of, None
        if self._admitted.pop(before, None) is not None:
            self._admitted[connection] = self._clock.seconds()
            connection.admit()
            return
        self._line.append(connection)
        self._admit()
        if self._line:
            connection.hold()

    def becomes(self, connection: Connection, make: Callable[[], object]) -> None:
        """Let the one that comes while ``make`` runs have the place of another."""
        self._successor_of = connection
        try:
            make()
        finally:
            self._successor_of = None
            self.left(connection)

    def answered(self, connection: Connection) -> None:
        """Nothing is asked on it from now on."""
        if connection in self._admitted:
            del self._admitted[connection]
            self._admitted[connection] = self._clock.seconds()

    def left(self, connection: Connection) -> None:
        """It is gone."""
        self._admitted.pop(connection, None)
        if connection in self._line:
            self._line.remove(connection)
        self._admit()

    def stop(self) -> None:
        """Admit nobody any more, and leave the ports alone."""
        self._stopped = True
        self._again.stop()

    def _admit(self) -> None:
        if self._stopped:
            return
        waited = self._again.is_set
        while self._line and (not self.full or self._make_room()):
            connection = self._line.popleft()
            self._admitted[connection] = self._clock.seconds()
            connection.admit()
        if self._line and not waited:
            for port in self._ports:
                port.stopReading()
            self._again.set(DROP_AFTER, self._once_more)
        elif waited and not self._line:
            for port in self._ports:
                port.startReading()
            self._again.stop()

    def _once_more(self) -> None:
        # Nobody left, but some have had their moment.
        self._again.set(DROP_AFTER, self._once_more)
        self._admit()

    def _make_room(self) -> bool:
        """Drop who can be dropped; whether there was one."""
        for connection, since in self._admitted.items():
            if self._clock.seconds() - since < DROP_AFTER:
                break
            if not connection.busy:
                # It has not left before the next turn, but has no place any more.
                del self._admitted[connection]
                connection.drop()
                return True
        return False
