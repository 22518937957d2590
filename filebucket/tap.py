"""The composition root: reads the options, and puts the parts together.

The only module that knows all the others. ``twistd filebucket`` finds
:class:`Options` and :func:`makeService` here.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage
from twisted.web.resource import IResource

from filebucket.admin.health import Health, look_at_disk
from filebucket.admin.metrics import Metrics, Now, Scrape
from filebucket.admin.page import Page, resources
from filebucket.admin.site import CONNECTIONS, AdminSite, Look
from filebucket.base.errors import ConfigError, Refusal
from filebucket.base.threads import Threads
from filebucket.catalogue.interfaces import IInventory
from filebucket.catalogue.recorder import Recorder
from filebucket.config import config as configuration
from filebucket.config.config import Buckets, Config
from filebucket.config.load import load
from filebucket.config.values import LOG_FORMATS
from filebucket.daemon import logs
from filebucket.daemon.alerts import Alerts
from filebucket.daemon.control import Answer, StatusFile
from filebucket.daemon.notify import supervisor
from filebucket.daemon.process import keep_freed_memory
from filebucket.daemon.reload import Reload, read
from filebucket.daemon.service import Daemon, InTurn
from filebucket.hooks.scripts import ScriptHooks, unobserved
from filebucket.http.channel import Limits
from filebucket.http.listen import listeners
from filebucket.http.site import StreamingSite
from filebucket.http.tls import Renewal
from filebucket.model.bucket import Bucket
from filebucket.model.client import NOBODY, Client
from filebucket.model.push import Outcome
from filebucket.model.schedule import local_zone
from filebucket.push.receive import Uploads
from filebucket.store.disk import DirectoryStore
from filebucket.store.room import Room
from filebucket.upkeep.pace import Rest
from filebucket.upkeep.reindex import reindex
from filebucket.web.tree import Root

THREADS = 16
"""How many writes and fsyncs may wait for the disk at once: the journal of a
filesystem commits in groups, and 16 small files at once get 9 times the rate
of one."""

PER_PUSH = 4
"""Descriptors of a push: its connection, its bucket and its file; and one for hooks and
for connections that wait."""

OWN_DESCRIPTORS = 32
"""Descriptors of the daemon itself, and some to spare."""

log = Logger()


class Options(usage.Options):
    """The options of ``twistd filebucket``."""

    synopsis = "[--config FILE] [--log-format FORMAT]"
    longdesc = "Receive backups over HTTP: a write-only drop."
    optParameters = (
        ("config", "c", configuration.DEFAULT_CONFIG, "The configuration, in JSON."),
        ("log-format", None, None, "text or json; or as the configuration says."),
    )

    def postOptions(self) -> None:
        if self["log-format"] not in (None, *LOG_FORMATS):
            raise usage.UsageError("--log-format: neither text nor json")


def makeService(options: Mapping[str, Any]) -> IService:
    """The daemon, as twistd wants it."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing installs it

    keep_freed_memory()
    path = os.path.abspath(options["config"])
    try:
        config = load(path)
        own = OWN_DESCRIPTORS + (CONNECTIONS if config.admin else 0)
        capacity = find_capacity(config.max_connections, own)
        if capacity < config.max_connections:
            log.warn(
                "there can be {count} connections only: the system allows no more"
                " descriptors (LimitNOFILE, ulimit -n)",
                event="few-descriptors",
                count=capacity,
            )
        pool = partial(Threads, reactor)  # type: ignore[arg-type]
        daemon = make_daemon(reactor, pool, config, path, os.environ, capacity)
    except ConfigError as error:
        raise SystemExit(f"file-bucket: {error}") from None
    log_format = options.get("log-format") or config.log_format
    elsewhere = logs.is_elsewhere(getattr(options, "parent", None) or {})
    journal = not elsewhere and logs.is_journal(sys.stdout, os.environ)
    if log_format == "text" and not journal:
        return daemon
    if elsewhere:
        raise SystemExit(
            "file-bucket: a log in JSON goes to stdout: give twistd -n, and none of"
            " --logfile, --logger and --syslog"
        )
    line_of = logs.text_line if log_format == "text" else logs.json_line
    service = logs.Logs(sys.stdout, logs.with_priority(line_of) if journal else line_of)
    daemon.setServiceParent(service)
    return service


def find_capacity(wanted: int, own: int) -> int:
    """Let there be descriptors for so many pushes, or as many as the system allows:
    systemd gives 1,024 to whoever does not ask. Hooks inherit the limit.

    :param own: descriptors for what is no push
    :returns: how many pushes there may be at once
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted * PER_PUSH + own
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return min(max((most - own) // PER_PUSH, 1), wanted)


def make_daemon(
    reactor: Any,
    pool: Callable[[int], Threads],
    config: Config,
    path: str,
    environ: Mapping[str, str],
    capacity: int,
) -> Daemon:
    """Put the parts together.

    :param reactor: provides time, processes and sockets
    :param pool: makes a pool of so many threads
    :param path: where ``config`` came from and is read again at a reload
    :param environ: what hooks may see of it, they see; and whom to notify
    :param capacity: how many connections there may be, and how many pushes
    :raises ConfigError: what it names to listen on is not there or unusable
    """
    listening = listeners(reactor, config.places, config.trusted_proxies, path)
    threads = pool(THREADS)
    # A disk that hangs under those who look takes no thread from those who push.
    looking = pool(1)
    watched = {"$.admin": config.admin} if config.admin else {}
    watching = next(iter(listeners(reactor, watched, NOBODY, path)), None)
    metrics = Metrics() if watching else None
    buckets = config.buckets
    store = DirectoryStore(config.home, threads.run, Room(config.min_free_space))
    hooks = ScriptHooks(
        reactor,
        config.hooks,
        environ,
        config.hook_timeout,
        config.hook_concurrency,
        observe=metrics.hook_ran if metrics else unobserved,
    )

    def hide(text: str) -> str:
        return root.hide_tokens(text)

    search = partial(compare, config.home, reactor.seconds)
    recorder = Recorder(reactor, pool, config.home, config.buckets, search, hide)
    alerts = Alerts(reactor, recorder, hooks, config.buckets, hide)
    recorder.changed = alerts.look

    def observe(outcome: Outcome) -> None:
        log_outcome(outcome, hide)
        recorder.observe(outcome)
        if metrics is not None:
            metrics.pushed(outcome)

    uploads = Uploads(
        store,
        hooks,
        reactor,
        observe,
        config.max_file_size,
        capacity,
        recorder.find,
    )
    root = Root(uploads, config.buckets, reactor)

    def refused(client: Client, refusal: Refusal) -> None:
        observe(before_a_request(client, refusal))

    limits = limits_of(config, capacity)
    site = StreamingSite(root, reactor, refused, limits, config.trusted_proxies)
    told = supervisor(environ)
    admin = None
    if watching is not None and metrics is not None:
        shown = pages(
            reactor,
            looking.run,
            config,
            metrics,
            recorder,
            lambda: daemon.ready,
            lambda: buckets,
            lambda: Now(uploads.under_way, len(site.admission), recorder.health),
        )
        admin = watching, AdminSite(reactor, shown)
    daemon = Daemon(
        reactor,
        listening,
        site,
        uploads,
        store,
        hooks,
        told,
        config.shutdown_timeout,
        admin,
    )

    def swap(new: Buckets) -> None:
        nonlocal buckets
        buckets = new
        root.swap(new)
        recorder.watch(new)
        alerts.watch(new)
        warn(evolve(config, buckets=new))

    load = partial(threads.run, read, path)
    status = StatusFile(config.home, path)

    def tell(answer: Answer) -> Deferred[None]:
        if metrics is not None:
            metrics.reloaded(answer.reason is None)
        return threads.run(status.tell, answer)

    everywhere = [*listening, *([watching] if watching else [])]
    certificates = [each.certificates for each in everywhere if each.certificates]
    for service in (
        Reload(reactor, config, load, swap, tell, told),
        status,
        Renewal(reactor, threads.run, certificates),
        Warnings(config),
        InTurn(recorder, alerts),
        looking,
        threads,
    ):
        service.setServiceParent(daemon)
    return daemon


def limits_of(config: Config, capacity: int) -> Limits:
    """What those who push are held to.

    :param capacity: how many connections there may be
    """
    return Limits(
        idle=config.idle_timeout,
        headers=config.header_timeout,
        rate_window=config.body_timeout,
        rate=config.min_rate,
        connections=capacity,
    )


def compare(
    home: str,
    seconds: Callable[[], float],
    catalogue: IInventory,
    buckets: Sequence[Bucket],
    stopped: Callable[[], bool],
) -> str:
    """Bring the catalogue and the disk together, in a thread, without haste.

    :returns: what differed, in a line; empty where nothing did
    """
    rest = Rest(time.monotonic, time.sleep)
    return reindex(catalogue, home, buckets, seconds, stopped, pace=rest).text


def pages(
    reactor: Any,
    run: Callable[..., Deferred[Any]],
    config: Config,
    metrics: Metrics,
    recorder: Recorder,
    ready: Callable[[], bool],
    buckets: Callable[[], Buckets],
    now: Callable[[], Now],
) -> Mapping[str, IResource]:
    """What whoever watches gets to see.

    :param run: calls in a thread that no push waits for
    """
    disk = partial(look_at_disk, config.home, config.min_free_space)
    health = Health(ready, run, disk, recorder.read, lambda: recorder.health.error)
    scrape = Scrape(metrics, run, recorder.read, disk, buckets, now, reactor.seconds)
    page = Page(reactor, recorder.read, buckets, local_zone())
    return {
        **resources(page),
        "healthz": Look(reactor, health),
        "metrics": Look(reactor, scrape),
    }


class Warnings(Service):
    """Says aloud, at the start, what is allowed but seldom meant."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def startService(self) -> None:
        super().startService()
        warn(self._config)


def warn(config: Config) -> None:
    """The warnings about a configuration, to the log."""
    for label in config.exposed_examples():
        log.critical(
            "ANYBODY CAN PUSH to bucket {label}: its token is an example from the "
            "documentation, and {where} is not only this machine. Make buckets with "
            "tokens of their own: filebucket bucket add NAME",
            event="example-token",
            label=label,
            where=", ".join(config.open_to_others()),
        )
    for place in config.believes_anybody():
        log.warn(
            "{place}: whoever connects is believed to be whom its PROXY header names: "
            "set trusted_proxies",
            event="believes-anybody",
            place=place,
        )
    if not config.buckets:
        log.warn("there are no buckets: every push will get 403", event="no-buckets")


def log_outcome(
    outcome: Outcome, hide_tokens: Callable[[str], str] = lambda name: name
) -> None:
    """The one line about a push."""
    name = hide_tokens(outcome.name) if outcome.name else None
    log.info(
        "{log_text}",
        log_text=_line(outcome, name),
        event=(
            "refused" if outcome.reason else "repeated" if outcome.repeated else "push"
        ),
        bucket=outcome.bucket,
        name=name,
        size=outcome.size,
        sha256=outcome.sha256,
        client=outcome.client,
        seconds=round(outcome.seconds, 3),
        status=outcome.status,
        request=outcome.request_id,
        reason=outcome.reason,
    )


def _event(outcome: Outcome) -> str:
    if outcome.reason:
        return "refused"
    return "repeated" if outcome.repeated else "push"


def _line(outcome: Outcome, name: str | None) -> str:
    # Made here and not by a format with ten fields: Twisted's formatter, which
    # is Python, takes 0.06 ms for that, a fifth of what a small push costs.
    # repr keeps what a terminal or a log reader would stumble over out.
    shown = repr(name) if name else "-"
    reason = f" reason={outcome.reason!r}" if outcome.reason else ""
    return (
        f"{_event(outcome)} bucket={outcome.bucket}"
        f" name={shown} size={outcome.size} sha256={outcome.sha256 or '-'}"
        f" client={outcome.client} seconds={outcome.seconds:.3f}"
        f" status={outcome.status} request={outcome.request_id}{reason}"
    )


def before_a_request(client: Client, refusal: Refusal) -> Outcome:
    """What became of what was refused before it was a request."""
    return Outcome(
        request_id="-",
        bucket="-",
        client=client.text,
        status=refusal.status,
        reason=refusal.reason,
    )
