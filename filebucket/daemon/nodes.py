"""This daemon as one of several that share a catalogue."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket import __version__
from filebucket.base.threads import Threads, beside_pushes
from filebucket.catalogue.leader import ALONE, Leader, Leadership
from filebucket.config.config import Config
from filebucket.daemon.applied import shared_settings
from filebucket.model.node import NodeReport, gone_nodes, is_compared
from filebucket.model.place import PostgreSQL
from filebucket.model.problem import CRITICAL, Kind, Problem
from filebucket.model.registry import Registry


class Member:
    """This daemon among those that share its catalogue, if it is no file.

    :ivar name: its name; empty if the catalogue is a file
    :ivar leader: whether it leads
    :ivar services: what takes part in the election of a leader
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        pool: Callable[[int], Threads],
        config: Config,
        registry: Registry,
        run: Callable[..., Deferred[Any]],
    ) -> None:
        """
        :param pool: returns a pool with the given number of threads
        :param registry: the current buckets
        :param run: calls a function in a thread
        """
        self.name = config.node_name
        self.leader: Leader = ALONE
        self.services: Sequence[Service] = ()
        self._config = config
        self._registry = registry
        self._run = run
        self._report = NodeReport(__version__)
        self._gone: frozenset[str] = frozenset()
        self._reindex: Callable[[], object] = lambda: None
        self._leadership: Leadership | None = None
        if config.catalogue is not None:
            leadership = self._join(reactor, pool, config.catalogue)
            self.leader = self._leadership = leadership
            self.services = (leadership,)
            registry.on_change(self._find_settings)
            self._find_settings()

    def _join(
        self, reactor: Any, pool: Callable[[int], Threads], place: PostgreSQL
    ) -> Leadership:
        # The database's driver may not be installed.
        from filebucket.catalogue.election import Election  # noqa: PLC0415

        election = Election(place, self.name, secrets.token_hex(8))
        # This clock counts while the machine sleeps, too.
        monotonic = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        return Leadership(reactor, pool(1), election, lambda: self._report, monotonic)

    @property
    def term(self) -> int:
        """As :attr:`~filebucket.catalogue.leader.Leader.term`."""
        return self.leader.term

    def connect(
        self, reindex: Callable[[], object], look: Callable[[], object]
    ) -> None:
        """
        :param reindex: called if rows may be missing, and this daemon has to find them
        :param look: called regularly while this daemon leads
        """
        self._reindex = reindex
        if self._leadership is not None:
            self._leadership.on_begin(reindex)
            self._leadership.on_crash(reindex)
            self._leadership.on_look(look)

    def see(self, problems: Sequence[Problem]) -> None:
        """These are all problems that exist now."""
        own = tuple(
            each
            for each in problems
            if self.name and each.node == self.name and not is_compared(each)
        )
        self._report = evolve(self._report, problems=own)
        gone = gone_nodes(problems)
        new, self._gone = gone - self._gone, gone
        if new and self.term:
            # What these daemons had not written is lost.
            self._reindex()

    async def find_rival(self) -> Problem | None:
        """Whether another daemon has the same name."""
        if self._leadership is None or not self._leadership.rival:
            return None
        return Problem(Kind.NODE, CRITICAL, "another daemon has the same name")

    def _find_settings(self) -> None:
        self._run(self._settings).addCallbacks(self._found, self._failed)

    def _settings(self) -> dict[str, str]:
        buckets = self._registry.all
        with beside_pushes():
            return shared_settings(self._config, buckets)

    def _found(self, settings: dict[str, str]) -> None:
        self._report = evolve(self._report, settings=settings)

    def _failed(self, failure: Failure) -> None:
        if failure.check(OSError) is None:
            self._log.failure("a bug in file-bucket", failure, event="bug")
