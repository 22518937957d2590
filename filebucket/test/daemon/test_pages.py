"""The pages of the admin listener, built from what the daemon knows."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment
from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.admin import html
from filebucket.admin.counters import Counters
from filebucket.admin.health import Hanging
from filebucket.admin.metrics import Live
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.overview import Known
from filebucket.catalogue.recorder import WriterHealth
from filebucket.catalogue.view import View
from filebucket.config.address import FirstSteps
from filebucket.daemon.pages import admin_site
from filebucket.model.filesystem import Filesystem
from filebucket.test.kit.catalogue import new_home, opened
from filebucket.test.kit.fakes import at_once
from filebucket.test.kit.wire import Wire

DISK = Filesystem(total=1000, free=900, reserved=20, read_only=False)


class PagesTests(SynchronousTestCase):
    no_threads = False

    def setUp(self) -> None:
        home = new_home(self)
        opened(self, Journal, home)
        view = opened(self, View, home)
        self.health = WriterHealth(0, 0, None)
        recorder: Any = SimpleNamespace(
            read=lambda function: at_once(function, view), health=self.health
        )
        self.ready = False
        self.clock = MemoryReactorClock()
        self.site = admin_site(
            self.clock,
            self.run_,
            lambda: DISK,
            Counters(),
            recorder,
            lambda: self.ready,
            lambda: Known([], 1e9, disk=DISK),
            lambda: Live(7, 3, 0, self.health),
            lambda: Hanging(0, 64),
            list,
            FirstSteps("add it", "curl TOKEN", None),
            list,
            False,
        )

    def run_(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        if self.no_threads:
            return fail(OSError(11, "Resource temporarily unavailable"))
        return at_once(function, *args)

    def ask(self, target: str) -> tuple[int, str]:
        """The status and the content of the answer."""
        wire = Wire()
        channel: Any = self.site.buildProtocol(wire.getPeer())
        channel.makeConnection(wire)
        channel.dataReceived(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        head, _, content = wire.value().decode().partition("\r\n\r\n")
        channel.loseConnection()
        return int(head.split()[1]), content

    def test_health(self) -> None:
        self.assertEqual(503, self.ask("/healthz")[0])
        self.ready = True
        self.clock.advance(60)
        self.assertEqual((200, "ok\n"), self.ask("/healthz"))

    def test_metrics(self) -> None:
        status, text = self.ask("/metrics")
        self.assertEqual(200, status)
        self.assertIn("filebucket_pushes_in_flight 7.0\n", text)

    def test_page(self) -> None:
        status, text = self.ask("/")
        self.assertEqual(200, status)
        self.assertIn("add it", text)
        self.assertEqual(200, self.ask("/page.css")[0])
        self.assertEqual(404, self.ask("/secret")[0])

    def test_templates(self) -> None:
        """They are compiled when the reactor runs: not for the start, nor a page."""
        compiled: list[str | None] = []
        compile_one: Any = Environment.compile

        def seen(self: Any, source: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
            compiled.append(name)
            return compile_one(self, source, name, *args, **kwargs)

        self.patch(Environment, "compile", seen)
        self.patch(html.TEMPLATES, "cache", {})
        self.setUp()
        self.assertEqual([], compiled)
        for hook, args, kwargs in self.clock.whenRunningHooks:
            hook(*args, **kwargs)
        self.assertEqual(html.TEMPLATES.list_templates(), sorted(compiled))
        self.assertEqual(200, self.ask("/")[0])
        self.assertEqual(len(set(compiled)), len(compiled))

    def test_no_thread(self) -> None:
        """The first page compiles them; nothing is logged."""
        self.no_threads = True
        for hook, args, kwargs in self.clock.whenRunningHooks:
            hook(*args, **kwargs)
        gc.collect()
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual(200, self.ask("/")[0])
