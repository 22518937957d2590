"""Start and stop the daemon.

Start: open the ports, all or none (privileged ones need root, so before twistd drops
its rights), check the hooks, prepare the home, handle the signals. Stop: accept no
connections; let pushes in progress finish within bounds; end the rest without leaving
anything behind, and answer their clients; drop clients that do not read the answer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorCore, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Site

from filebucket.admin.site import AdminSite
from filebucket.base.alarm import within
from filebucket.base.errors import ConfigError, Refusal
from filebucket.catalogue.leader import PATIENCE
from filebucket.catalogue.recorder import FLUSH_TIMEOUT
from filebucket.daemon.notify import Supervisor
from filebucket.hooks.process import END_TIMEOUT
from filebucket.hooks.scripts import ScriptHooks
from filebucket.http.listen import Listener
from filebucket.http.peer import client_of
from filebucket.http.site import StreamingSite
from filebucket.push.receive import Uploads
from filebucket.store.interfaces import IDaemonStore

ANSWER_TIMEOUT = 5.0
"""Seconds that clients have to read their last answers."""

SERVICES_END = END_TIMEOUT + 2 * FLUSH_TIMEOUT + PATIENCE
"""Seconds for the services to stop: an alert hook, the last batch of the catalogue, and
the last report to other daemons."""


class Readiness:
    """Whether pushes are accepted.

    :ivar ready: whether they are
    """

    ready = False


class InTurn(MultiService):
    """Services that are stopped in reverse order, one after the other."""

    def __init__(self, *services: Service) -> None:
        super().__init__()
        for each in services:
            each.setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for each in reversed(list(self)):
            await maybeDeferred(each.stopService)


class Daemon(MultiService):
    """All services of the daemon, in order."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        listeners: Sequence[Listener],
        site: StreamingSite,
        uploads: Uploads,
        store: IDaemonStore,
        hooks: ScriptHooks,
        supervisor: Supervisor,
        shutdown_delay: float,
        shutdown_timeout: float,
        readiness: Readiness,
        admin: tuple[Listener, AdminSite] | None = None,
    ) -> None:
        """
        :param listeners: where to listen
        :param supervisor: told when the daemon is ready and when it stops
        :param shutdown_delay: seconds after a stop begins in which pushes are accepted
        :param shutdown_timeout: seconds that pushes in progress have at a stop
        :param readiness: set to whether pushes are accepted
        :param admin: the admin listener and its site
        """
        super().__init__()
        self._reactor = reactor
        self._listeners = listeners
        self._site = site
        self._uploads = uploads
        self._store = store
        self._hooks = hooks
        self._supervisor = supervisor
        self._shutdown_delay = shutdown_delay
        self._shutdown_timeout = shutdown_timeout
        self._ports: list[tuple[Listener, IListeningPort]] = []
        self._admin = admin
        self._admin_ports: list[tuple[Listener, IListeningPort]] = []
        self._readiness = readiness

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        for listener in self._listeners:
            self._listen(listener, self._site, self._ports)
        self._site.admission.listens([port for _, port in self._ports])
        if self._admin is not None:
            listener, site = self._admin
            self._listen(listener, site, self._admin_ports)
            site.admission.listens([port for _, port in self._admin_ports])

    def _listen(
        self,
        listener: Listener,
        site: Site,
        ports: list[tuple[Listener, IListeningPort]],
    ) -> None:
        opened: list[IListeningPort] = []
        failures: list[Failure] = []
        listener.endpoint.listen(site).addCallbacks(opened.append, failures.append)
        for failure in failures:
            if not failure.check(CannotListenError, OSError):
                failure.raiseException()
            reason = _reason(failure.value)
            self._give_up(f"cannot listen on {listener.name}: {reason}")
        ports += [(listener, port) for port in opened]

    def startService(self) -> None:
        try:
            hooks = self._hooks.check()
            tier = self._store.prepare()
        except ConfigError as error:
            self._give_up(str(error))
        super().startService()
        where = ", ".join(_place(*each) for each in self._ports) or "no port"
        admin = ", ".join(_place(*each) for each in self._admin_ports) or "none"
        self._readiness.ready = True
        self._log.info(
            "ready on {where}: home {home} (atomic publish: {tier}); hooks: {hooks};"
            " admin: {admin}",
            event="ready",
            where=where,
            admin=admin,
            home=self._store.home.path,
            tier=tier,
            hooks=", ".join(hooks) or "none",
        )
        # Only now: the ports are open, and with super() SIGUSR2 no longer ends the
        # process.
        self._supervisor.ready(f"ready on {where}")

    def _give_up(self, reason: str) -> None:
        if self._ports:
            self._close_ports(self._ports + self._admin_ports)
            # The reactor will not run, and the name of a UNIX socket would remain.
            IReactorCore(self._reactor).iterate(0)
        # An exception would be shown as a traceback; this is not a bug.
        self._log.critical("file-bucket: {reason}", event="cannot-start", reason=reason)
        raise SystemExit(1)

    def _close_ports(
        self, ports: Sequence[tuple[Listener, IListeningPort]]
    ) -> Deferred[Any]:
        closing = [maybeDeferred(port.stopListening) for _, port in ports]
        for closed in closing:
            # The name of a UNIX socket may be gone, or may no longer be ours to remove.
            closed.addErrback(
                lambda failure: self._log.warn(
                    "cannot close a listener: {error}",
                    event="port",
                    error=str(failure.value),
                )
            )
        return DeferredList(closing)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._readiness.ready = False
        lasts = self._shutdown_delay + self._shutdown_timeout
        lasts += 2 * END_TIMEOUT + ANSWER_TIMEOUT + SERVICES_END
        self._supervisor.stopping(
            f"shutting down; pushes in progress: {self._uploads.under_way}", lasts
        )
        if self._shutdown_delay:
            # A load balancer sees this in /healthz, and sends its pushes elsewhere.
            # A port that closes resets the connections that wait in the kernel.
            await within(self._reactor, self._shutdown_delay, Deferred())
        # From here on no port is told to accept connections again.
        self._site.admission.stop()
        await self._close_ports(self._ports)
        self._site.wind_down()
        if not await within(self._reactor, self._shutdown_timeout, self._pushes_end()):
            self._log.warn(
                "shutdown_timeout is over: ending the remaining pushes",
                event="stop-ends-pushes",
            )
        # From here on no push can begin, in whatever state a connection is.
        self._site.turn_away(Refusal(503, "the server is shutting down"))
        self._hooks.end_all()
        await within(self._reactor, END_TIMEOUT, self._pushes_end())
        await within(self._reactor, ANSWER_TIMEOUT, self._site.emptied())
        self._site.abort()
        ended = await within(self._reactor, END_TIMEOUT, self._pushes_end())
        # Until here monitoring could watch the shutdown.
        await self._close_ports(self._admin_ports)
        if self._admin is not None:
            self._admin[1].close()
        await super().stopService()
        if ended:
            self._store.close()
        else:
            # A disk hangs, or a hook cannot be killed. The home stays locked until the
            # process is gone, because a thread may still write to it.
            self._log.error(
                "exiting with pushes that are stuck on their disk or hook",
                event="stop-leaves-pushes",
            )

    def _pushes_end(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._uploads.idle())


def _place(listener: Listener, port: IListeningPort) -> str:
    """Where ``port`` listens, for the log."""
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        place = f"unix:{os.fsdecode(address.name or b'')}"
    else:
        place = client_of(address).text
    spoken = []
    if listener.proxied:
        spoken.append("PROXY header")
    if listener.certificates is not None:
        spoken.append("TLS")
    return f"{place} with {' and '.join(spoken)}" if spoken else place


def _reason(error: object) -> str:
    """Why a port could not be opened."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return str(getattr(cause, "strerror", None) or cause)
