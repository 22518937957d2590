"""Limit the number of connections, and choose which one is dropped for another.

At the limit, the connection that has been idle the longest is dropped, so that clients
without pushes cannot keep others out. A connection is not dropped while it has a push,
nor within :data:`DROP_AFTER` after it opened or was answered, so that it can send a
request or read its answer. If none can be dropped, new connections wait in a queue,
unread, and the ports stop accepting, so that further ones wait in the kernel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from filebucket.base.alarm import Alarm

DROP_AFTER = 0.5
"""Seconds after its opening or its last answer in which a connection is not dropped."""


class Connection(Protocol):
    """A connection, as the admission sees it."""

    @property
    def busy(self) -> bool:
        """Whether a request on it has no answer yet."""

    def hold(self) -> None:
        """Read nothing until it is admitted."""

    def admit(self) -> None:
        """Start to read."""

    def drop(self) -> None:
        """Close it soon, without an answer."""


class Admission:
    """All connections of a site."""

    def __init__(self, clock: IReactorTime, most: int) -> None:
        """
        :param most: maximum number of connections
        """
        self._clock = clock
        self._most = most
        # With the time since which each is idle, the longest first.
        self._admitted: dict[Any, float] = {}
        self._line: deque[Any] = deque()
        self._ports: Sequence[Any] = ()
        self._stopped = False
        self._again = Alarm(clock)
        self._successor_of: Any = None

    def listens(self, ports: Sequence[Any]) -> None:
        """Set the ports to stop and to start again.

        :param ports: with ``stopReading`` and ``startReading``, which all ports of
            Twisted have although no interface declares them
        """
        self._ports = ports

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return len(self._admitted) >= self._most

    def __len__(self) -> int:
        return len(self._admitted)

    @property
    def anybody(self) -> bool:
        """Whether there is any connection, admitted or waiting."""
        return bool(self._admitted or self._line)

    @property
    def all(self) -> list[Any]:
        """All connections, admitted or waiting."""
        return [*self._admitted, *self._line]

    def connected(self, connection: Connection) -> None:
        """Admit a new connection, or hold it until there is a place."""
        before, self._successor_of = self._successor_of, None
        if self._admitted.pop(before, None) is not None:
            self._admitted[connection] = self._clock.seconds()
            connection.admit()
            return
        self._line.append(connection)
        self._admit()
        if self._line:
            connection.hold()

    def hand_over(self, connection: Connection, make: Callable[[], object]) -> None:
        """Give the place of ``connection`` to the connection that ``make`` opens."""
        self._successor_of = connection
        try:
            make()
        finally:
            self._successor_of = None
            self.disconnected(connection)

    def answered(self, connection: Connection) -> None:
        """The connection is idle from now on."""
        if connection in self._admitted:
            del self._admitted[connection]
            self._admitted[connection] = self._clock.seconds()

    def disconnected(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._admitted.pop(connection, None)
        if connection in self._line:
            self._line.remove(connection)
        self._admit()

    def stop(self) -> None:
        """Admit no more connections, and do not touch the ports again."""
        self._stopped = True
        self._again.stop()

    def _admit(self) -> None:
        if self._stopped:
            return
        waited = self._again.is_set
        while self._line and (not self.full or self._drop_idlest()):
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
        # No connection closed, but some may be dropped by now.
        self._again.set(DROP_AFTER, self._once_more)
        self._admit()

    def _drop_idlest(self) -> bool:
        """Drop the longest idle connection; returns whether there was one."""
        for connection, since in self._admitted.items():
            if self._clock.seconds() - since < DROP_AFTER:
                break
            if not connection.busy:
                # Its close is reported in a later turn, but its place is free now.
                del self._admitted[connection]
                connection.drop()
                return True
        return False
