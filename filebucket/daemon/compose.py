"""Build the daemon from its parts. Only this module imports all the others."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from filebucket.admin.health import STUCK, Hanging
from filebucket.base.errors import ConfigError, Refusal
from filebucket.base.lines import Lines
from filebucket.base.threads import Threads
from filebucket.catalogue.database import CatalogueError, load_driver
from filebucket.catalogue.interfaces import IInventory
from filebucket.catalogue.overview import Known
from filebucket.catalogue.recorder import Recorder
from filebucket.config.address import first_steps
from filebucket.config.config import Config
from filebucket.daemon.alerts import Alerts
from filebucket.daemon.applied import Applied
from filebucket.daemon.changes import ProblemChanges, SeriesChanges
from filebucket.daemon.control import Answer, StatusFile
from filebucket.daemon.drift import Drift
from filebucket.daemon.nodes import Member
from filebucket.daemon.notices import Warnings, before_a_request, log_outcome
from filebucket.daemon.notify import supervisor
from filebucket.daemon.reload import Reload, load_buckets
from filebucket.daemon.service import Daemon, InTurn, Readiness
from filebucket.daemon.signals import Signals
from filebucket.daemon.storage import storage
from filebucket.daemon.watch import Watch
from filebucket.hooks.interfaces import IHooks, Run
from filebucket.hooks.scripts import ScriptHooks
from filebucket.http.channel import Limits
from filebucket.http.listen import listeners
from filebucket.http.site import StreamingSite
from filebucket.http.tls import Certificates, Renewal
from filebucket.model.bucket import Bucket
from filebucket.model.client import NOBODY, Client
from filebucket.model.problem import Problem, ending_certificate, store_outage
from filebucket.model.push import Outcome
from filebucket.model.records import HookRun
from filebucket.model.registry import Registry
from filebucket.model.schedule import local_zone
from filebucket.model.unfinished import Broken, Unfinished
from filebucket.push.failures import Failures
from filebucket.push.receive import Uploads
from filebucket.push.sessions import Sessions
from filebucket.store.choose import archive_of
from filebucket.store.interfaces import IArchive, IDaemonStore
from filebucket.store.room import Room, look_at_filesystem
from filebucket.upkeep.pace import Rest
from filebucket.upkeep.reindex import reindex
from filebucket.web import digests
from filebucket.web.drop import DropPage
from filebucket.web.tree import Root

if TYPE_CHECKING:
    from filebucket.admin.counters import Counters

THREADS = 64
"""Calls that may wait for the disk at once. The processor needs fewer, but a disk that
hangs takes some of them out of use."""

REREADING = 2
"""Resumable uploads that are read again at once, after a restart."""

PER_BUCKET = 16
"""Calls that one bucket may have of these: the journal of a filesystem commits in
groups, and 16 small files at once get 9 times the rate of one."""


def make_daemon(
    reactor: Any,
    pool: Callable[[int], Threads],
    config: Config,
    path: str,
    environ: Mapping[str, str],
    capacity: int,
    wall: Callable[[], float],
    text: str,
) -> Daemon:
    """Build the daemon.

    :param reactor: provides processes, sockets and monotonic time
    :param pool: makes a thread pool of a given size
    :param path: the file that ``config`` came from, which a reload reads again
    :param environ: environment of the hooks, and address of the supervisor
    :param capacity: maximum number of connections, and of pushes
    :param wall: returns seconds since the epoch, for receipts, expiry and schedules
    :param text: the identity of the text that ``config`` came from
    :raises ConfigError: a listener's certificate, key or inherited socket, or a library
        that the configuration needs, is missing or cannot be used
    """
    _check_supported(config, path)
    listening = listeners(reactor, config.places, config.trusted_proxies, path)
    threads = pool(THREADS)
    # Threads of their own, so that monitoring on a disk that hangs takes none from the
    # pushes.
    looking = pool(1)
    # The same for reloads: an operator may need one to remove a bucket whose disk
    # hangs.
    reading = pool(1)
    rereading = pool(REREADING)
    watched = {"$.admin": config.admin} if config.admin else {}
    watching = next(iter(listeners(reactor, watched, NOBODY, path)), None)
    counters = make_counters() if watching else None
    registry = Registry(config.buckets)
    room = Room(config.min_free_space)
    stored = storage(
        reactor, config, path, Lines(threads, PER_BUCKET, reactor), room, environ, wall
    )
    searching = partial(search, partial(archive_of, config.home, config.store), wall)
    member = Member(reactor, pool, config, registry, reading.run)
    recorder = Recorder(
        reactor,
        pool,
        config.home,
        registry,
        searching,
        wall,
        lambda: member.term,
        member.name,
        place=config.catalogue_place,
    )
    seen = _Seen(registry, recorder, counters, wall)
    hooks = ScriptHooks(
        reactor,
        config.hooks,
        environ,
        config.hook_timeout,
        config.hook_concurrency,
        observe=seen.hook_ran,
        absent=seen.no_hook,
    )

    alerts, see = alerting(reactor, config, recorder, hooks, registry, wall, member)

    uploads = Uploads(
        stored.store,
        hooks,
        reactor,
        wall,
        seen.outcome,
        config.max_file_size,
        capacity,
        recorder.find,
        config.min_file_size,
        lambda bucket: registry.of_key(bucket.key) or bucket,
    )
    sessions = Sessions(
        uploads,
        stored.parts,
        registry,
        reactor,
        wall,
        rereading,
        config.unfinished,
        config.max_unfinished,
        seen.broken,
    )
    page = DropPage() if config.page else None
    failures = Failures(uploads, reactor)
    root = Root(uploads, sessions, failures, registry, wall, page)

    limits = limits_of(config, capacity)
    trailers = frozenset(each.encode("ascii") for each in digests.HEADERS)
    site = StreamingSite(
        root, reactor, seen.refused, limits, config.trusted_proxies, trailers
    )
    disk = partial(
        look_at_filesystem, config.home, config.min_free_space, room.set_aside_on
    )

    told = supervisor(environ)
    load = partial(reading.run, load_buckets, path)

    def tell(answer: Answer, applied: Applied | None) -> Deferred[None]:
        if counters is not None:
            counters.reloaded(answer.reason is None)
        return threads.run(status.tell, answer, applied)

    reload = Reload(config, text, registry, load, tell, told)
    status = StatusFile(config.home, path, reading.run, reload.applied)

    everywhere = [*listening, *([watching] if watching else [])]
    certificates = [each.certificates for each in everywhere if each.certificates]
    drift = Drift(path, reload)

    def find_drift() -> Deferred[Problem | None]:
        return reading.run(drift.look, reactor.seconds())

    watch = Watch(
        reactor,
        recorder.read,
        lambda: registry.all,
        wall,
        disk,
        lambda: recorder.health.error,
        (
            partial(expiring, certificates, wall),
            find_drift,
            member.find_rival,
            partial(
                find_outage, stored.store, partial(reading.run, status.tell_outage)
            ),
        ),
        see,
        member.name,
    )

    def known() -> Known:
        return Known(
            registry.all,
            wall(),
            sessions.all,
            config.unfinished,
            problems=watch.problems,
            node=member.name,
            has_objects=config.store is not None,
        )

    readiness = Readiness()
    admin = None
    if watching is not None and counters is not None:
        from filebucket.daemon import pages  # noqa: PLC0415 - slow

        admin = (
            watching,
            pages.admin_site(
                reactor,
                looking.run,
                disk,
                counters,
                recorder,
                lambda: readiness.ready,
                known,
                lambda: pages.Live(
                    uploads.under_way,
                    len(site.admission),
                    threads.stuck(STUCK),
                    recorder.health,
                    len(sessions.all),
                    sum(each.offset for each in sessions.all),
                    member.term > 0,
                ),
                lambda: Hanging(threads.stuck(STUCK), THREADS),
                uploads.receiving,
                first_steps(config, path, socket.gethostname()),
                lambda: watch.problems,
                config.catalogue is not None,
            ),
        )
    daemon = Daemon(
        reactor,
        listening,
        site,
        uploads,
        stored.store,
        hooks,
        told,
        config.shutdown_delay,
        config.shutdown_timeout,
        readiness,
        admin,
    )

    others = MultiService()
    for service in (
        reload,
        status,
        Renewal(reactor, reading.run, certificates),
        Warnings(config, registry),
        # It leads until all of this has ended.
        InTurn(*member.services, recorder, alerts, watch),
        sessions,
        rereading,
        looking,
        reading,
        threads,
    ):
        service.setServiceParent(others)
    # Signals are handled until everything else has stopped, so that only SIGKILL can
    # end the process before that.
    InTurn(Signals(reactor, reload), others).setServiceParent(daemon)
    return daemon


def make_counters() -> Counters:
    """The counters of the metrics."""
    # With the pages, a fifth of the imports of the daemon's start.
    from filebucket.admin.counters import Counters  # noqa: PLC0415

    return Counters()


@frozen
class _Seen:
    """Tells the log, the catalogue and the metrics how pushes and hooks end.

    :param counters: None if nothing shows them
    :param wall: returns seconds since the epoch
    """

    registry: Registry
    recorder: Recorder
    counters: Counters | None
    wall: Callable[[], float]

    def outcome(self, outcome: Outcome) -> None:
        """A request has ended."""
        log_outcome(outcome, self.registry.hide_tokens)
        if outcome.counts:
            self.recorder.observe(outcome)
        if self.counters is not None:
            self.counters.resumed(outcome)
            if outcome.counts or outcome.reason is not None:
                self.counters.pushed(outcome)

    def refused(self, client: Client, refusal: Refusal) -> None:
        """Some input was refused before it was a request."""
        self.outcome(before_a_request(client, refusal))

    def broken(self, upload: Unfinished, how: Broken) -> None:
        """A resumable upload has ended, and its push never will."""
        self.recorder.abandoned(upload)
        if self.counters is not None:
            self.counters.broken(how)

    def hook_ran(self, run: Run) -> None:
        """A hook has run, or cannot be run."""
        if self.counters is not None:
            self.counters.hook_ran(run)
        if not run.stopped:
            found = HookRun(run.hook, run.bucket, self.wall(), run.failure)
            self.recorder.hook_ran(found)

    def no_hook(self, hook: str) -> None:
        """There is no such hook, which therefore does not fail."""
        self.recorder.hook_ran(HookRun(hook, None, self.wall()))


def _check_supported(config: Config, path: str) -> None:
    """
    :raises ConfigError: the daemon cannot do what the configuration needs
    """
    if config.catalogue is not None:
        try:
            load_driver()
        except CatalogueError as error:
            raise ConfigError(path, [f"$.catalogue: {error}"]) from None


def alerting(
    reactor: Any,
    config: Config,
    recorder: Recorder,
    hooks: IHooks,
    registry: Registry,
    wall: Callable[[], float],
    member: Member,
) -> tuple[Alerts, Callable[[Sequence[Problem]], None]]:
    """The alerts.

    :param member: tells whether this daemon reports shared problems, too
    :returns: the service, and a function that takes all problems
    """
    again = config.alert_again
    leader = member.leader
    of_series = SeriesChanges(recorder, registry, wall, again, local_zone(), leader)
    of_problems = ProblemChanges(
        reactor, recorder, registry, wall, again, leader, member.name
    )
    alerts = Alerts(reactor, (of_series, of_problems), hooks)
    recorder.on_change(alerts.look)
    member.connect(recorder.reindex, alerts.look)

    def see(problems: Sequence[Problem]) -> None:
        member.see(problems)
        of_problems.see(problems)
        alerts.look()

    return alerts, see


async def expiring(
    certificates: Sequence[Certificates], wall: Callable[[], float]
) -> Problem | None:
    """Whether a certificate that is in use has expired, or soon will."""
    ends = [(each.subject, each.expires.timestamp()) for each in certificates]
    return ending_certificate(ends, wall())


async def find_outage(
    store: IDaemonStore, tell: Callable[[str | None], Deferred[None]]
) -> Problem | None:
    """Whether the object store cannot be used.

    :param tell: shows commands the reason; None if it can be used
    """
    reason = await store.find_outage()
    # If that cannot be written, alert.sh still runs.
    with suppress(OSError):
        await tell(reason)
    return None if reason is None else store_outage(reason)


def limits_of(config: Config, capacity: int) -> Limits:
    """The limits of connections, from the configuration.

    :param capacity: maximum number of connections
    """
    return Limits(
        idle=config.idle_timeout,
        headers=config.header_timeout,
        rate_window=config.body_timeout,
        rate=config.min_rate,
        connections=capacity,
    )


def search(
    open_archive: Callable[[], IArchive],
    seconds: Callable[[], float],
    catalogue: IInventory,
    buckets: Sequence[Bucket],
    stopped: Callable[[], bool],
) -> str:
    """Reconcile the catalogue with the disk, in a thread, at low priority.

    :returns: the differences, in a line; empty if there are none
    """
    rest = Rest(time.monotonic, time.sleep)
    archive = open_archive()
    return reindex(catalogue, archive, buckets, seconds, stopped, pace=rest).text
