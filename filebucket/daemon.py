"""The daemon's life: what must have happened before it takes a push, and what
before it is gone.

Start: the port is opened (privileged ones need root, so before twistd gives
its rights up), the hooks are checked, the home is made ready, the signal is
listened to. Stop: no new connections; pushes under way finish within bounds;
what is left then is ended with nothing left behind, and whoever pushed is told;
who does not read that is dropped.
"""

from __future__ import annotations

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.errors import ConfigError, Refusal
from filebucket.hooks import KILL_AFTER, PIPES_AFTER, ScriptHooks
from filebucket.store import DirectoryStore
from filebucket.streaming import StreamingSite, address_text
from filebucket.upload import Uploads

FLUSH_TIMEOUT = 5.0
"""Seconds that clients get to read their last answers."""

END_TIMEOUT = KILL_AFTER + PIPES_AFTER + 1.0
"""Seconds that pushes get to end when nothing holds them but their hooks, which
were told to, and their disks."""


class Daemon(MultiService):
    """All services of the daemon, in their order."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamServerEndpoint,
        site: StreamingSite,
        uploads: Uploads,
        store: DirectoryStore,
        hooks: ScriptHooks,
        shutdown_timeout: float,
    ) -> None:
        """
        :param shutdown_timeout: seconds that pushes under way get at a stop
        """
        super().__init__()
        self._reactor = reactor
        self._endpoint = endpoint
        self._site = site
        self._uploads = uploads
        self._store = store
        self._hooks = hooks
        self._shutdown_timeout = shutdown_timeout
        self._port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        failures: list[Failure] = []
        self._endpoint.listen(self._site).addCallbacks(self._listens, failures.append)
        for failure in failures:
            error = failure.value
            if not isinstance(error, CannotListenError):
                failure.raiseException()
            where = f"{error.interface or 'all addresses'}, port {error.port}"
            self._give_up(f"cannot listen on {where}: {error.socketError.strerror}")

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def startService(self) -> None:
        try:
            hooks = self._hooks.check()
            tier = self._store.prepare()
        except ConfigError as error:
            self._give_up(str(error))
        super().startService()
        self._log.info(
            "ready on {where}: home {home} publishes by {tier}; hooks: {hooks}",
            where=address_text(self._port.getHost()) if self._port else "no port",
            home=self._store.home,
            tier=tier,
            hooks=", ".join(hooks) or "none",
        )

    def _give_up(self, reason: str) -> None:
        # twistd would show an exception as a traceback; this is no bug.
        self._log.critical("file-bucket: {reason}", reason=reason)
        raise SystemExit(1)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        self._site.wind_down()
        if not await self._within(self._shutdown_timeout, self._pushes_end()):
            self._log.warn("ending the pushes that are still under way")
        # From here on no push can begin, whatever a connection is in the midst of.
        self._site.turn_away(Refusal(503, "the server is stopping"))
        self._hooks.end_all()
        await self._within(END_TIMEOUT, self._pushes_end())
        await self._within(FLUSH_TIMEOUT, self._site.emptied())
        self._site.abort()
        ended = await self._within(END_TIMEOUT, self._pushes_end())
        await super().stopService()
        if ended:
            self._store.close()
        else:
            # A disk that hangs, or a hook that may not be killed. The home stays
            # locked until the process is gone: something may still write there.
            self._log.error("leaving pushes behind that do not end")

    def _pushes_end(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._uploads.idle())

    async def _within(self, seconds: float, wait: Deferred[None]) -> bool:
        """Whether ``wait`` fired in time."""
        late: list[Failure] = []
        wait.addTimeout(seconds, self._reactor)
        wait.addErrback(late.append)
        await wait
        return not late
