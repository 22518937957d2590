"""The pages of the admin listener. Imported only if it is configured: with the library
for the templates, the import is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from filebucket.admin.counters import Counters
from filebucket.admin.health import Hanging, Health
from filebucket.admin.html import compile_templates
from filebucket.admin.metrics import Live, Scrape
from filebucket.admin.page import Page, resources
from filebucket.admin.site import AdminSite, SharedAnswer
from filebucket.catalogue.overview import Known
from filebucket.catalogue.recorder import Recorder
from filebucket.config.address import FirstSteps
from filebucket.model.filesystem import Filesystem
from filebucket.model.problem import Problem
from filebucket.model.push import Receiving
from filebucket.model.schedule import local_zone

__all__ = ["Live", "admin_site"]


def admin_site(
    reactor: Any,
    run: Callable[..., Deferred[Any]],
    disk: Callable[[], Filesystem],
    counters: Counters,
    recorder: Recorder,
    ready: Callable[[], bool],
    known: Callable[[], Known],
    live: Callable[[], Live],
    hanging: Callable[[], Hanging],
    receiving: Callable[[], Sequence[Receiving]],
    steps: FirstSteps,
    problems: Callable[[], Sequence[Problem]],
    elsewhere: bool,
) -> AdminSite:
    """The admin listener's connections and their pages.

    :param run: calls a function in a thread that pushes do not use
    :param disk: measures the home's filesystem
    :param known: returns the facts that are not in the catalogue, but the disk
    :param receiving: returns files that are being received
    :param steps: commands to show on a page without a push
    :param problems: returns those that the catalogue and the disk do not reveal
    :param elsewhere: whether the catalogue is a database of several daemons
    """
    health = Health(
        ready,
        run,
        disk,
        recorder.read,
        lambda: recorder.health.error,
        hanging,
        problems,
        elsewhere,
    )
    scrape = Scrape(counters, run, recorder.read, disk, known, live)
    page = Page(known, disk, recorder.read, local_zone(), receiving, steps)
    shown = {
        **resources(reactor, page),
        "healthz": SharedAnswer(reactor, health),
        "metrics": SharedAnswer(reactor, scrape),
    }

    def prepare() -> None:
        # Without a thread, the first page does it.
        run(compile_templates).addErrback(lambda failure: failure.trap(OSError))

    # Neither the start nor the first page waits for it.
    reactor.callWhenRunning(prepare)
    return AdminSite(reactor, shown)
