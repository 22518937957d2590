"""The status page in a real browser: Chromium, if it and its driver are installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC
from functools import wraps
from typing import Any, TypeVar

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from filebucket.admin.page import Page, resources
from filebucket.admin.site import AdminSite
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.overview import Known
from filebucket.catalogue.view import View
from filebucket.config.address import FirstSteps
from filebucket.config.load import parse
from filebucket.model.filesystem import Filesystem
from filebucket.model.mask import mask
from filebucket.model.problem import WARNING, Kind, Problem
from filebucket.model.records import Failed, Received, Refused, Space
from filebucket.model.series import series_of
from filebucket.model.unfinished import Unfinished
from filebucket.test.admin.test_html import DECEPTIVE, HOSTILE
from filebucket.test.kit.browser import shared_browser
from filebucket.test.kit.catalogue import new_home, opened
from filebucket.test.kit.server import comes

reactor: Any = installed_reactor
T = TypeVar("T")

DAY = 86400.0
GIB = 1 << 30

SEEN = """
    const seen = (selector) => [...document.querySelectorAll(selector)].filter(
      (each) => each.checkVisibility() && !each.closest("thead, .unseen")
    );
    const told = (found) => found.map((each) => `${each.tagName} ${each.textContent}`);
"""

TOO_WIDE = f"""
    {SEEN}
    const room = document.documentElement.clientWidth;
    const wide = seen("body *").filter(
      (each) => each.getBoundingClientRect().right > room + 0.5
    );
    if (document.documentElement.scrollWidth > room) wide.push(document.body);
    return told(wide);
"""

CUT_OFF = f"""
    {SEEN}
    return told(
      seen("td, th, h1, dd").filter((each) => each.scrollWidth > each.clientWidth + 1)
    );
"""

OPEN_ALL = """
    for (const each of document.querySelectorAll("details")) each.open = true;
"""

LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
"""The headers of a browser that has the page in its cache."""


CURL = (
    "curl --fail-with-body --cacert CERT -T FILE https://backup.example.com:1234/TOKEN/"
)


def in_thread(test: Callable[[Any], None]) -> Callable[[Any], Deferred[None]]:
    """Run a test in a thread, while the reactor serves the site."""

    @wraps(test)
    def run(self: Any) -> Deferred[None]:
        return deferToThread(test, self)

    return run


class ChromiumCase(TestCase):
    """Provides a site, its content and a browser.

    :ivar failure: the error that reading raises, if any
    """

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        self.home = new_home(self)
        self.journal = opened(self, Journal, self.home)
        self.view = opened(self, View, self.home)
        self.now = reactor.seconds()
        self.configure()
        self.failure: Exception | None = None
        self.uploads: list[Unfinished] = []
        self.problems: list[Problem] = []
        disk = Filesystem(total=1000, free=900, reserved=20, read_only=False)
        page = Page(
            lambda: Known(
                self.buckets,
                reactor.seconds(),
                self.uploads,
                unfinished=24 * 3600.0,
                problems=self.problems,
            ),
            lambda: disk,
            self.read,
            UTC,
            steps=FirstSteps("filebucket bucket add NAME", CURL, "/etc/cert.pem"),
        )
        self.resources = resources(reactor, page)
        self.site = AdminSite(reactor, self.resources)
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.number = self.port.getHost().port
        self.url = f"http://127.0.0.1:{self.number}/"
        self.addCleanup(self.stop_listening)
        return deferToThread(self.start)

    def start(self) -> None:
        self.browser = shared_browser()
        self.addCleanup(deferToThread, self.browser.clear)

    def stop_listening(self) -> Deferred[None]:
        self.site.close()
        return maybeDeferred(self.port.stopListening)

    def in_reactor(self, function: Callable[[], Deferred[Any]]) -> None:
        """Call that in the reactor's thread, and wait for the result."""
        blockingCallFromThread(reactor, function)

    def read(self, function: Callable[[IView], T]) -> Deferred[T]:
        def look() -> T:
            if self.failure is not None:
                raise self.failure
            return function(self.view)

        return deferToThread(look)

    def configure(self, *buckets: dict[str, Any]) -> None:
        """Use these buckets from now on."""
        text = json.dumps(
            {
                "home": str(self.home),
                "buckets": [
                    {"token": f"{index:032d}", **each}
                    for index, each in enumerate(buckets)
                ],
            }
        )
        self.buckets = parse(text, "config.json").buckets
        self.hide = mask(self.buckets)
        list(self.journal.watch(self.buckets, self.hide, self.now))

    def record(self, *pushes: tuple[str, str, float, int]) -> None:
        """Receive files: bucket, name, age in days, bytes."""
        by_key = {each.key: each for each in self.buckets}
        self.journal.record(
            [
                Received(
                    bucket,
                    series_of(self.hide(name), ()),
                    name,
                    size,
                    "0" * 64,
                    self.now - days * DAY,
                )
                for bucket, name, days, size in pushes
            ],
            [],
            by_key.get,
        )

    def refuse(self, *names: str) -> None:
        """Refuse files with these names."""
        rows = [
            Refused(
                self.buckets[0].key, self.now, name, 1, 405, "it exists", "local", ""
            )
            for name in names
        ]
        self.journal.record([], rows, lambda key: None)

    def three(self) -> None:
        """Three buckets: one is late, one has shrunk, one is fine."""
        self.configure(
            {"name": "web01", "expect": "26h", "quota": 100 * GIB},
            {"name": "mail", "expect": "0 2 * * *"},
            {"name": "laptop", "expect": "7d"},
        )
        days = [(f"{day:02}", 12.0 - day) for day in range(12)]
        self.record(
            *(("web01", f"db-{day}.gz", ago + 2, GIB) for day, ago in days),
            *(("mail", f"mail-{day}.tar", ago, GIB) for day, ago in days),
            ("mail", "mail-12.tar", 0, 400),
            *(
                ("laptop", f"home-{day}.tar", ago, 5 * GIB + int(ago))
                for day, ago in days
            ),
        )
        self.journal.note_space(Space(self.now, 30 * GIB, 100 * GIB))
        self.refuse("db-01.gz", "x" * 255)

    def upload(self, name: str, length: int | None = 48 * GIB) -> None:
        """An unfinished upload to the first bucket."""
        self.uploads.append(
            Unfinished(
                f"{len(self.uploads):032x}",
                self.buckets[0].key,
                *("ab" * 32, name, "r1", self.now - 5000, self.now - 300, "cd" * 32),
                seconds=1000.0,
                length=length,
                offset=12 * GIB,
            )
        )

    def many(self) -> None:
        """A large number of buckets."""
        names = [f"host-{index:03}" for index in range(500)]
        self.configure(*({"name": name, "expect": "26h"} for name in names))
        self.record(
            *(
                (name, f"{kind}-{day}.gz", float(day) + 2 * (name == "host-250"), GIB)
                for name in names
                for kind in ("db", "etc", "www")
                for day in range(4)
            )
        )

    def open(self, width: int = 1440, dark: bool = False, scripts: bool = True) -> None:
        """Open the page."""
        self.browser.show(width, dark, scripts)
        self.browser.open(self.url)

    def check_quiet(self) -> None:
        """The browser's console is empty."""
        self.assertEqual([], self.browser.complaints())

    def texts(self, selector: str) -> list[str]:
        """The texts of the visible elements that the selector finds."""
        return self.browser.texts(selector)


class ShowingTests(ChromiumCase):
    """The page as it is shown."""

    def check_widths(self, *more: int) -> None:
        for width in (360, 768, 1440, *more):
            self.open(width, dark=width == 360)
            self.browser.run(OPEN_ALL)
            self.assertEqual([], self.browser.run(TOO_WIDE)[:3], width)
            self.assertEqual([], self.browser.run(CUT_OFF)[:3], width)
        self.check_quiet()

    @in_thread
    def test_no_buckets(self) -> None:
        self.check_widths()
        self.assertEqual(["There are no buckets yet"], self.texts("h1"))

    @in_thread
    def test_no_pushes(self) -> None:
        """The command for the first push, until that has come."""
        self.configure({"name": "web01"}, {"name": "mail"})
        self.check_widths()
        self.assertEqual([CURL], self.texts("#pushing pre"))
        self.open()
        self.assertEqual([CURL], self.texts("#pushing pre"))
        self.record(("web01", "x", 0, 1), ("mail", "x", 0, 1))
        self.browser.wait(f"({LOOK}, !document.querySelector('#pushing'))")

    @in_thread
    def test_three_buckets(self) -> None:
        self.three()
        # Right before the cards become a table, there is least space.
        self.check_widths(320, 640, 1343, 1344)
        self.assertEqual(["1 backup is late"], self.texts("h1"))
        self.assertEqual(["web01", "mail", "laptop"], self.texts("th.bucket > bdi"))
        self.assertEqual(["Late", "Shrunk", "In order"], self.texts("tbody .state"))

    @in_thread
    def test_many_buckets(self) -> None:
        self.many()
        self.check_widths()
        self.assertEqual(["3 backups are late"], self.texts("h1"))
        self.assertEqual(500, len(self.texts("th.bucket > bdi")))
        # It is found among the others.
        self.browser.type("#filter", "HOST-25 www")
        self.assertEqual(["10 of 500 buckets"], self.texts("#found"))
        self.assertEqual(
            ["host-250", *(f"host-25{digit}" for digit in range(1, 10))],
            self.texts("th.bucket > bdi"),
        )
        self.browser.type("#filter", "\ue009a\ue000\ue017late")
        self.assertEqual(["host-250"], self.texts("th.bucket > bdi"))

    @in_thread
    def test_many_damaged(self) -> None:
        """A large number of damaged files covers no other column."""
        self.configure({"name": "web01"})
        self.record(*(("web01", f"db-{number}.gz", 0, 1) for number in range(1234)))
        inventory = opened(self, Inventory, self.home)
        files = self.view.latest(1234)
        inventory.verified([(each.id, True, self.now) for each in files])
        self.check_widths(1344)
        self.assertEqual(["1,234 damaged"], self.texts("tbody .state"))

    @in_thread
    def test_problems(self) -> None:
        """Long problems, comments and reports fit, and a report opens."""
        word = "x" * 200
        self.configure(
            {"name": "web01", "comment": word},
            {"name": "mail", "paused": {"until": "9999-12-30", "reason": word}},
            {"name": "gone", "retired": True},
        )
        keys = [each.key for each in self.buckets]
        self.problems = [
            Problem(Kind.CERTIFICATE, WARNING, word),
            Problem(Kind.RELOAD, WARNING, HOSTILE[0]),
            Problem(Kind.TOKEN, WARNING, word, keys[0]),
        ]
        self.record(*((key, "x", 0.1, GIB) for key in keys))
        by_key = {each.key: each for each in self.buckets}
        report = Failed(keys[0], "x", self.now, f"{word}\n{HOSTILE[1]}\n{word}")
        self.journal.fail([report], by_key.get, self.now)
        self.check_widths(320, 640, 1343, 1344)
        self.assertTrue(self.browser.run("return window.canary === undefined"))
        self.open()
        self.assertEqual(["1 backup failed"], self.texts("h1"))
        self.assertEqual([word.capitalize(), HOSTILE[0]], self.texts("#problems li"))
        self.assertEqual(["In order 1 bucket"], self.texts("#calm > summary"))
        self.assertEqual(["Retired 1 bucket"], self.texts("#retired > summary"))
        self.assertEqual(["web01", "mail"], self.texts("th.bucket > bdi"))
        rest = ".report pre"
        self.assertEqual([], self.texts(rest))
        self.browser.click(".report summary")
        self.assertEqual([f"{HOSTILE[1]}\n{word}"], self.texts(rest))
        self.browser.type("#filter", "paused")
        self.assertEqual(["mail"], self.texts("th.bucket > bdi"))

    @in_thread
    def test_dark(self) -> None:
        background = "return getComputedStyle(document.documentElement).backgroundColor"
        self.open(dark=False)
        light = self.browser.run(background)
        self.open(dark=True)
        self.assertNotEqual(light, self.browser.run(background))

    @in_thread
    def test_nothing_foreign(self) -> None:
        self.three()
        self.browser.fetched()  # it used to have its own page
        self.open()
        fetched = self.browser.fetched()
        self.assertIn(self.url, fetched)
        self.assertIn(f"{self.url}page.css", fetched)
        self.assertIn(f"{self.url}page.js", fetched)
        foreign = [each for each in fetched if not each.startswith(self.url)]
        self.assertEqual([], foreign)

    @in_thread
    def test_hostile_names(self) -> None:
        names = (*HOSTILE, *DECEPTIVE)
        self.configure({"name": "web01"}, {"name": "mail"})
        # A bucket shows 20 series.
        self.record(*(("web01", name, 0.1, 1) for name in names))
        self.refuse(*names)
        self.check_widths()
        self.assertTrue(self.browser.run("return window.canary === undefined"))
        # Only the page's own resources.
        self.assertEqual(
            [1, 0, 0],
            self.browser.run(
                "return ['script', 'style', 'img']"
                ".map((each) => document.querySelectorAll(each).length)"
            ),
        )
        expected = {*HOSTILE, *DECEPTIVE.values()}
        self.assertEqual(expected, set(self.texts("#refusals .series > bdi")))
        series = {series_of(name, ()) for name in expected}
        self.assertEqual(len(names), len(set(self.texts("#backups .series > bdi"))))
        self.assertTrue(series & set(self.texts("#backups .series > bdi")))

    @in_thread
    def test_without_scripts(self) -> None:
        self.three()
        self.open(scripts=False)
        self.assertEqual(["1 backup is late"], self.texts("h1"))
        self.assertEqual(["web01", "mail", "laptop"], self.texts("th.bucket > bdi"))
        self.assertEqual([], self.texts("#filter"))
        self.assertIn("reloads every minute", "".join(self.texts("footer")))
        refresh = "document.querySelector('noscript meta[http-equiv=refresh]')"
        self.assertTrue(self.browser.run(f"return {refresh} !== null"))
        self.check_quiet()

    def folded(self) -> None:
        """A bucket with seven series in order, and a late one."""
        self.configure({"name": "web01", "expect": "26h"}, {"name": "mail"})
        self.record(*(("web01", f"{name}-1.gz", 3.0, GIB) for name in "xyz"))
        self.record(*(("mail", f"{name}-1.gz", 0.1, GIB) for name in "abcdefg"))

    @in_thread
    def test_fold(self) -> None:
        """Five series in order are shown, the others on request, without scripts."""
        self.folded()
        rows = "#calm th.series > bdi"
        for scripts in (False, True):
            self.open(scripts=scripts)
            self.assertEqual(list("abcde"), [each[0] for each in self.texts(rows)])
            self.browser.click("#calm .fold summary")
            self.assertEqual(list("abcdefg"), [each[0] for each in self.texts(rows)])
        self.record(("mail", "h-1.gz", 0, GIB))
        text = "document.querySelector('#calm .fold').textContent"
        self.browser.wait(f"({LOOK}, {text} === '3 more series in order')")
        self.assertEqual(list("abcdefgh"), [each[0] for each in self.texts(rows)])
        self.check_quiet()

    @in_thread
    def test_phone(self) -> None:
        """At first a phone shows only the buckets that need attention."""
        self.folded()
        names = "th.bucket > bdi"
        self.open(width=390, scripts=False)
        self.assertEqual(["web01", "mail"], self.texts(names))
        self.open(width=390)
        self.assertEqual(["web01"], self.texts(names))
        self.assertEqual(["In order 1 bucket"], self.texts("#calm > summary"))
        self.browser.run("document.querySelector('#places a[href=\"#calm\"]').click()")
        self.assertEqual(["web01", "mail"], self.texts(names))
        self.check_quiet()

    @in_thread
    def test_filter_opens(self) -> None:
        """The filter opens what it finds, and closes it again."""
        self.folded()
        self.open(width=390)
        rows = "#calm th.series > bdi"
        self.browser.type("#filter", "a-#")
        self.assertEqual(5, len(self.texts(rows)))
        self.browser.type("#filter", "\ue009a\ue000\ue017g-#")
        self.assertEqual(7, len(self.texts(rows)))
        self.browser.type("#filter", "\ue009a\ue000\ue017")
        self.assertEqual([], self.texts(rows))
        self.assertFalse(
            self.browser.run("return document.querySelector('.fold details').open")
        )
        self.check_quiet()

    @in_thread
    def test_keyboard(self) -> None:
        self.three()
        self.open()
        stops = []
        for _ in range(9):
            self.browser.press("\ue004")
            name, outline = self.browser.run(
                "const here = document.activeElement;"
                "const style = getComputedStyle(here);"
                "return [here.id || here.textContent, style.outlineStyle]"
            )
            self.assertEqual("solid", outline, name)
            stops.append(name)
        self.assertEqual(
            [
                "Skip to the backups",
                "filter",
                "2 need attention",
                "1 in order",
                "2 refusals",
                "Needs attention 2 buckets",
                "In order 1 bucket",
                "Last refusals",
                "What the states mean",
            ],
            stops,
        )


class LiveTests(ChromiumCase):
    """Updates of an open page."""

    @in_thread
    def test_new_push(self) -> None:
        self.three()
        self.refuse(*(f"x-{number}" for number in range(40)))
        self.open(width=360)
        self.browser.type("#filter", "ma")
        self.browser.run("document.querySelector('#calm').open = false")
        self.browser.run("document.querySelector('#meanings').open = true")
        self.browser.run("document.querySelector('#refusals summary').focus()")
        self.browser.run("window.scrollTo(0, 500)")
        self.record(("web01", "db-99.gz", 0, GIB))
        # A page that was made for another client is reused for a while.
        self.browser.wait(
            f"({LOOK}, document.querySelector('h1').textContent"
            " === '1 backup has shrunk')"
        )
        self.assertEqual(
            "1 backup has shrunk - file-bucket",
            self.browser.run("return document.title"),
        )
        self.assertEqual(["1 backup has shrunk"], self.texts("#news"))
        self.assertEqual(
            "look.svg",
            self.browser.run(
                "return document.querySelector('link[rel=icon]').getAttribute('href')"
            ),
        )
        self.assertEqual(
            ["ma", False, True, "Last refusals", 500],
            self.browser.run(
                "return [document.querySelector('#filter').value,"
                " document.querySelector('#calm').open,"
                " document.querySelector('#meanings').open,"
                " document.activeElement.textContent, window.scrollY]"
            ),
        )
        self.assertEqual(["1 of 3 buckets"], self.texts("#found"))
        self.check_quiet()

    @in_thread
    def test_first_bucket(self) -> None:
        self.open()
        self.three()
        self.browser.wait(
            f"({LOOK}, document.querySelector('h1').textContent === '1 backup is late')"
        )
        self.browser.type("#filter", "mail")
        self.assertEqual(["mail"], self.texts("th.bucket > bdi"))

    @in_thread
    def test_uploads(self) -> None:
        """They come and go with the refreshes, and fit a phone."""
        self.three()
        self.open(width=360)
        names = "#uploads .series > bdi"
        self.assertEqual([], self.texts(names))
        self.upload(HOSTILE[0])
        self.upload("x" * 255, length=None)
        self.browser.wait(f"({LOOK}, document.querySelector('#uploads') !== null)")
        self.assertEqual([HOSTILE[0], "x" * 255], self.texts(names))
        self.assertLessEqual(
            self.browser.run("return document.documentElement.scrollWidth"), 360
        )
        self.uploads.clear()
        self.browser.wait(f"({LOOK}, document.querySelector('#uploads') === null)")
        self.check_quiet()

    @in_thread
    def test_connection_lost(self) -> None:
        self.three()
        self.open()
        self.in_reactor(self.stop_listening)
        self.browser.run(LOOK)
        self.browser.wait("document.querySelector('#connection').textContent")
        ((said,), title) = (
            self.texts("#connection"),
            self.browser.run("return document.title"),
        )
        self.assertRegex(said, r"^Connection lost. Data as of [0-9:]{8}\.$")
        self.assertEqual("Lost: 1 backup is late - file-bucket", title)
        self.assertEqual(["web01", "mail", "laptop"], self.texts("th.bucket > bdi"))

        def listen() -> Deferred[None]:
            self.site = AdminSite(reactor, self.resources)
            self.port = reactor.listenTCP(self.number, self.site, interface="127.0.0.1")
            return succeed(None)

        self.in_reactor(listen)
        self.browser.run(LOOK)
        self.browser.wait("!document.querySelector('#connection').textContent")
        self.assertEqual(
            "1 backup is late - file-bucket", self.browser.run("return document.title")
        )

    @in_thread
    def test_nothing_is_known(self) -> None:
        self.three()
        self.open()
        self.failure = CatalogueError("it is away")
        self.browser.wait(
            f"({LOOK}, document.querySelector('#connection').textContent)"
        )
        ((said,),) = (self.texts("#connection"),)
        self.assertIn("Backup status is unavailable.", said)
        self.open()
        self.assertEqual(["Backup status is unavailable"], self.texts("h1"))
        self.assertIn("it is away", "".join(self.texts("main")))
        self.failure = None
        self.browser.wait(
            f"({LOOK}, document.querySelector('h1').textContent === '1 backup is late')"
        )

    @in_thread
    def test_not_while_hidden(self) -> None:
        """It polls every 15 seconds, and not while its tab is hidden."""
        self.three()
        self.open()
        # The browser may fetch the icon at any time.
        fetched: list[str] = []

        def has_icon() -> bool:
            fetched.extend(self.browser.fetched())
            return any(each.endswith(".svg") for each in fetched)

        self.assertTrue(comes(has_icon), fetched)
        self.browser.pass_time(61)
        self.assertEqual([self.url] * 4, self.browser.fetched())
        self.browser.run("Object.defineProperty(document, 'hidden', {writable: true})")
        self.browser.run("document.hidden = true")
        self.browser.run(LOOK)
        self.browser.pass_time(61)
        self.assertEqual([], self.browser.fetched())
        self.browser.run("document.hidden = false")
        self.browser.run(LOOK)
        self.browser.pass_time(1)
        self.assertEqual([self.url], self.browser.fetched())
