"""The page's resource: sharing and timeouts."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import TypeVar

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filebucket.admin.page import DEADLINE, KEPT, Page, resources
from filebucket.admin.site import PAGE_POLICY, AdminSite
from filebucket.catalogue.database import FILE, CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.overview import Known
from filebucket.catalogue.view import View
from filebucket.config.load import parse
from filebucket.model.bucket import Bucket
from filebucket.model.filesystem import Filesystem
from filebucket.model.mask import mask
from filebucket.model.push import Receiving
from filebucket.model.records import Received, Refused
from filebucket.model.series import series_of
from filebucket.model.token import token_digest
from filebucket.test.admin.test_html import read
from filebucket.test.admin.test_site import Client
from filebucket.test.kit.catalogue import new_home, opened
from filebucket.test.kit.overviews import NOW
from filebucket.test.kit.server import OTHER, TOKEN

T = TypeVar("T")


class Reader:
    """Reads from a catalogue on demand.

    :ivar waiting: pending reads
    :ivar times: number of reads
    """

    def __init__(self, view: IView) -> None:
        self._view = view
        self.waiting: list[Callable[[], object]] = []
        self.times = 0
        self.failure: Exception | None = None

    def __call__(self, function: Callable[[IView], T]) -> Deferred[T]:
        self.times += 1
        if self.failure is not None:
            return fail(self.failure)
        done: Deferred[T] = Deferred()

        def answer() -> None:
            execute(function, self._view).chainDeferred(done)

        self.waiting.append(answer)
        return done

    def answer(self) -> None:
        """Answer all pending reads."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


class PageCase(SynchronousTestCase):
    """A page of two buckets, one without a name."""

    def setUp(self) -> None:
        home = new_home(self)
        self.file = home / FILE
        self.journal = opened(self, Journal, home)
        self.clock = Clock()
        self.clock.advance(NOW)
        self.read = Reader(opened(self, View, home))
        self.disk = Filesystem(total=1000, free=900, reserved=20, read_only=False)
        self.buckets: Sequence[Bucket] = parse(
            json.dumps(
                {
                    "home": str(home),
                    "buckets": [
                        TOKEN,
                        {"name": "web01", "token": OTHER, "expect": "26h"},
                    ],
                }
            ),
            "config.json",
        ).buckets
        list(self.journal.watch(self.buckets, mask(self.buckets), NOW))
        self.receiving: list[Receiving] = []
        page = Page(
            lambda: Known(self.buckets, self.clock.seconds()),
            lambda: self.disk,
            self.read,
            UTC,
            lambda: self.receiving,
        )
        self.site = AdminSite(self.clock, resources(self.clock, page))

    def ask(self, target: str = "/", head: str = "") -> Client:
        """Send a request, and return its connection."""
        client = Client(self.site)
        client.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode())
        return client

    def answer_to(self, client: Client) -> tuple[int, dict[str, str], bytes]:
        head, _, content = client.received().partition(b"\r\n\r\n")
        line, *lines = head.decode("ascii").split("\r\n")
        return (
            int(line.split()[1]),
            dict(each.split(": ", 1) for each in lines),
            content,
        )

    def record(self, name: str, at: float = NOW, bucket: int = 1) -> None:
        """Record a push."""
        key = self.buckets[bucket].key
        series = series_of(mask(self.buckets)(name), ())
        received = Received(key, series, name, 7, "0" * 64, at)
        by_key = {each.key: each for each in self.buckets}
        self.journal.record([received], [], by_key.get)


class AnsweringTests(PageCase):
    def test_page(self) -> None:
        self.record("db-1.gz")
        client = self.ask()
        self.assertEqual(b"", client.received())
        self.read.answer()
        status, headers, content = self.answer_to(client)
        self.assertEqual(200, status)
        self.assertEqual("text/html; charset=utf-8", headers["Content-Type"])
        self.assertEqual(PAGE_POLICY.decode(), headers["Content-Security-Policy"])
        self.assertEqual("no-store", headers["Cache-Control"])
        page = read(content)
        heads = page.one(id="backups").all("th", class_="series", scope="row")
        self.assertEqual(["db-#.gz"], [each.text for each in heads])

    def test_no_token(self) -> None:
        name = f"{TOKEN}-1.gz"
        self.record(name)
        self.record(name, bucket=0)
        refused = Refused("", NOW, f"x{OTHER}", 1, 405, "why", "local", "id")
        self.journal.record([], [refused], lambda key: None)
        self.receiving = [
            Receiving(each.key, name, "local", 0, None, NOW - 9, 9.0)
            for each in self.buckets
        ]
        client = self.ask()
        self.read.answer()
        _, _, content = self.answer_to(client)
        for token in (TOKEN, OTHER):
            self.assertNotIn(token.encode(), content)
            digest = token_digest(token.encode()).hex()
            self.assertNotIn(digest[:8].encode(), content)
        self.assertIn(self.buckets[0].label.encode(), content)

    def test_receiving(self) -> None:
        """Files that have been received for less than a second are not shown."""
        key = self.buckets[1].key
        self.receiving = [
            Receiving(key, "big", "local", 0, None, NOW - 1, 1.0),
            Receiving(key, "small", "local", 0, None, NOW, 0.9),
        ]
        client = self.ask()
        self.read.answer()
        found = read(self.answer_to(client)[2]).one(id="uploads").one("tbody")
        self.assertEqual(["web01", "big"], [each.text for each in found.all("bdi")])

    def test_packed(self) -> None:
        for accepted, packed in (
            ("gzip", True),
            ("deflate, gzip;q=1.0, *;q=0.5", True),
            ("br, gzip", True),
            ("gzip;q=0", False),
            ("gzip;q=0.0", False),
            ("gzip;q=0.5", True),
            ("identity", False),
            ("xgzip", False),
        ):
            self.clock.advance(KEPT)
            client = self.ask(head=f"Accept-Encoding: {accepted}\r\n")
            self.read.answer()
            _, headers, content = self.answer_to(client)
            self.assertEqual("Accept-Encoding", headers["Vary"])
            self.assertEqual(
                packed, headers.get("Content-Encoding") == "gzip", accepted
            )
            html = gzip.decompress(content) if packed else content
            self.assertIn("file-bucket", read(html).one("head").one("title").text)

    def test_parts(self) -> None:
        client = self.ask()
        self.read.answer()
        _, _, content = self.answer_to(client)
        page = read(content)
        style, icon = (
            page.one("link", rel=rel).attributes["href"]
            for rel in ("stylesheet", "icon")
        )
        script = page.one("script").attributes["src"]
        for name, kind in (
            (style, "text/css"),
            (script, "text/javascript"),
            (icon, "image/svg+xml"),
            ("ok.svg", "image/svg+xml"),
            ("look.svg", "image/svg+xml"),
            ("bad.svg", "image/svg+xml"),
        ):
            status, headers, content = self.answer_to(self.ask(f"/{name}"))
            self.assertEqual((200, kind), (status, headers["Content-Type"]))
            self.assertEqual(str(len(content)), headers["Content-Length"])

    def test_buckets_of_now(self) -> None:
        self.buckets = self.buckets[:1]
        client = self.ask()
        self.read.answer()
        self.assertNotIn(b"web01", self.answer_to(client)[2])


class WaitingTests(PageCase):
    def check_unknown(self, client: Client, reason: str) -> None:
        status, headers, content = self.answer_to(client)
        self.assertEqual(503, status)
        self.assertEqual("15", headers["Retry-After"])
        self.assertEqual(PAGE_POLICY.decode(), headers["Content-Security-Policy"])
        self.assertIn(reason, read(content).one("main").text)

    def test_many_cost_one(self) -> None:
        clients = [self.ask() for _ in range(10)]
        self.assertEqual(1, self.read.times)
        self.read.answer()
        (content,) = {self.answer_to(each)[2] for each in clients}
        self.clock.advance(KEPT - 0.1)
        self.assertEqual(content, self.answer_to(self.ask())[2])
        self.assertEqual(1, self.read.times)

    def test_new_after_a_while(self) -> None:
        self.ask()
        self.read.answer()
        self.clock.advance(KEPT)
        client = self.ask()
        self.assertEqual(b"", client.received())
        self.read.answer()
        self.assertEqual(200, self.answer_to(client)[0])
        self.assertEqual(2, self.read.times)

    def test_slow_disk(self) -> None:
        first = self.ask()
        self.clock.advance(DEADLINE - 1)
        second = self.ask()
        self.clock.advance(1)
        for client in (first, second, self.ask()):
            self.check_unknown(client, "The disk of the catalogue does not answer")
        # Only one request waits for the disk, no matter how many clients ask.
        self.assertEqual(1, self.read.times)
        self.read.answer()
        self.assertEqual(200, self.answer_to(self.ask())[0])

    def test_gone(self) -> None:
        clients = [self.ask() for _ in range(3)]
        for client in clients[:2]:
            client.channel.connectionLost(Failure(ConnectionDone()))
        self.read.answer()
        self.assertEqual(200, self.answer_to(clients[2])[0])
        self.assertEqual(b"", clients[0].received())
        self.assertEqual([], self.flushLoggedErrors())

    def test_no_catalogue(self) -> None:
        for reason, failure in (
            (
                "The catalogue cannot be read: it is <away>.",
                CatalogueError("it is <away>"),
            ),
            ("No thread is free to read the catalogue.", OSError(11, "again")),
        ):
            self.read.failure = failure
            self.check_unknown(self.ask(), reason)
        self.read.failure = None
        client = self.ask()
        self.read.answer()
        self.assertEqual(200, self.answer_to(client)[0])

    def test_broken_catalogue(self) -> None:
        client = self.ask()
        other = sqlite3.connect(self.file)
        other.execute("DROP TABLE series")
        other.close()
        self.read.answer()
        self.check_unknown(client, "The catalogue cannot be read: no such table")

    def test_bug(self) -> None:
        client = self.ask()
        self.read.failure = RuntimeError("secret")
        self.read.answer()
        self.answer_to(client)
        self.clock.advance(KEPT)
        client = self.ask()
        status, _, content = self.answer_to(client)
        self.assertEqual(500, status)
        self.assertNotIn(b"secret", content)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
